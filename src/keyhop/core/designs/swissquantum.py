"""SwissQuantum, 2009-11: QKD key joined with an exchanged one, two paths between a pair."""

from __future__ import annotations

from keyhop.core.designs.design import Design
from keyhop.core.designs.source import S
from keyhop.core.policy.division import Session
from keyhop.core.policy.fallback import Hybrid
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import DirectedPool

SWISSQUANTUM = Design(
    name="swissquantum",
    title="SwissQuantum, 2009-11: every key is QKD XOR an exchanged key; two paths; the exchange alone in need",
    row="SwissQuantum",
    storage=FixedBlock(unit_bits=256),
    division=Session(deal="turn"),
    fallback=Hybrid(combine="xor", source="pki", resume=16),
    synchronisation=DirectedPool(),
    relay=HopByHop(payload="random", paths="aggregate"),
    door="app_buffer",
    sources={
        S: (
            "division",
            "admission",
            "sharing",
            "priority",
            "fallback",
            "fallback.combine",
            "fallback.source",
            "relay",
            "relay.payload",
        ),
    },
)
