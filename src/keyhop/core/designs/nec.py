"""NEC, 2009, key on demand: a relay node joins two links by XOR."""

from __future__ import annotations

from keyhop.core.designs.design import Design
from keyhop.core.designs.source import S
from keyhop.core.policy.division import EncDec
from keyhop.core.policy.relay import RelayXor
from keyhop.core.policy.routing import CentralKms
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import DirectedPool

NEC = Design(
    name="nec",
    title="NEC, 2009, on demand: key files whose relay is one XOR at the node between two links",
    row="NEC",
    storage=FixedBlock(unit_bits=4096, medium="disk"),
    division=EncDec(),
    synchronisation=DirectedPool(),
    relay=RelayXor(),
    routing=CentralKms(),
    door="etsi014",
    sources={
        S: (
            "storage",
            "storage.medium",
            "division",
            "refill",
            "admission",
            "sharing",
            "priority",
            "formatting",
            "fallback",
            "synchronisation",
            "relay",
            "routing",
        ),
    },
)
