"""SECOQC, 2007-09: staged stores of a link, STORE and LOAD, streams of relayed key at a declared rate."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import C, S
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.division import EncDec
from keyhop.core.policy.formatting import ChunkOnReception, Identity
from keyhop.core.policy.refill import Sated
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import StoreLoad

SECOQC = Design(
    name="secoqc",
    title="SECOQC, 2007-09: staged stores on every link, receiver-driven buffers, streams at a declared rate",
    row="SECOQC",
    storage=FixedBlock(unit_bits=256, medium="disk"),
    division=EncDec(),
    refill=Sated(sated_ratio=0.90, common_divisor=3),
    admission=Reservation(of="rate"),
    formatting=Formatting(reception=ChunkOnReception(), supply=Identity()),
    synchronisation=StoreLoad(),
    relay=HopByHop(payload="random"),
    routing=LinkState(measure="least_loaded"),
    door="session",
    profile="rate",
    promises_its=True,
    sources={
        S: (
            "storage",
            "storage.medium",
            "division",
            "refill",
            "admission",
            "admission.of",
            "priority",
            "formatting",
            "fallback",
            "synchronisation",
            "relay",
            "relay.payload",
            "routing",
            "door",
            "door.profile",
        ),
        C: (
            "storage.unit_bits",
            "refill.sated_ratio",
            "refill.common_divisor",
            "refill.slots_per_unit",
            "refill.slot_bits",
            "synchronisation.load_ns",
            "synchronisation.answer_ns",
        ),
    },
)
