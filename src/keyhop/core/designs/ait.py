"""AIT, 2023: batches under one MAC, keys split and merged, two standard interfaces."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import S
from keyhop.core.policy.division import Purpose
from keyhop.core.policy.formatting import ChunkOnReception, SplitMerge
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import Sdn
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import VerifyBatch

AIT = Design(
    name="ait",
    title="AIT, 2023: keys agreed in batches under one MAC, split and merged to any size",
    row="AIT",
    storage=FixedBlock(unit_bits=256),
    division=Purpose(shares=(("internal", 32), ("external", 1.0))),
    formatting=Formatting(reception=ChunkOnReception(), supply=SplitMerge()),
    synchronisation=VerifyBatch(n=64, check="mac"),
    relay=HopByHop(),
    routing=Sdn(),
    door=("etsi014", "etsi004"),
    sources={
        S: (
            "division",
            "refill",
            "admission",
            "sharing",
            "priority",
            "formatting.supply",
            "fallback",
            "synchronisation",
            "synchronisation.check",
            "relay",
            "routing",
            "door",
        ),
    },
)
