"""NECTEC, 2012: verified batches, and relay on which the payload goes one way and its pad another."""

from __future__ import annotations

from keyhop.core.designs.design import Design, LocalGlobal
from keyhop.core.designs.source import S
from keyhop.core.policy.division import EncDec, Session
from keyhop.core.policy.relay import SplitPath
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import DirectedPool, VerifyBatch

NECTEC = Design(
    name="nectec",
    title="NECTEC, 2012: batches verified between neighbours; padded key goes straight, its pad hop by hop",
    row="NECTEC",
    storage=FixedBlock(unit_bits=256),
    division=(Session(deal="turn"), EncDec()),
    synchronisation=LocalGlobal(VerifyBatch(n=16, check="tag"), DirectedPool()),
    relay=SplitPath(),
    routing=LinkState(measure="hops"),
    door="app_buffer",
    sources={
        S: (
            "division",
            "refill",
            "admission",
            "sharing",
            "priority",
            "fallback",
            "synchronisation.local",
            "relay",
            "routing",
        ),
    },
)
