"""Toshiba, 2016: SECOQC on the links, and above it global key shared by demand."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting, LocalGlobal
from keyhop.core.designs.source import C, S
from keyhop.core.policy.disposal import EraseNow
from keyhop.core.policy.division import EncDec, Session
from keyhop.core.policy.formatting import ChunkOnReception, Identity
from keyhop.core.policy.refill import NoThreshold, Sated
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.sharing import Weighted
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import DirectedPool, StoreLoad

TOSHIBA_2016 = Design(
    name="toshiba.2016",
    title="Toshiba, 2016: SECOQC's links, a directory of applications, global key dealt by demand",
    row="Toshiba",
    storage=FixedBlock(unit_bits=256, medium="disk"),
    division=(EncDec(), Session(deal="credit")),
    refill=LocalGlobal(Sated(sated_ratio=0.90, common_divisor=3), NoThreshold()),
    disposal=EraseNow(),
    sharing=Weighted(unit_bits=4096, ceiling="path", retune=0.1),
    formatting=Formatting(reception=ChunkOnReception(), supply=Identity()),
    synchronisation=LocalGlobal(StoreLoad(), DirectedPool()),
    relay=HopByHop(payload="random"),
    routing=LinkState(measure="least_loaded", directory="node0"),
    door="etsi014",
    sources={
        S: (
            "storage",
            "division",
            "refill.global",
            "disposal",
            "sharing",
            "sharing.ceiling",
            "priority",
            "formatting",
            "fallback",
            "synchronisation",
            "relay",
            "relay.payload",
            "routing",
            "door",
        ),
        C: (
            "storage.unit_bits",
            "refill.local",
            "refill.local.sated_ratio",
            "refill.local.common_divisor",
            "refill.local.slots_per_unit",
            "refill.local.slot_bits",
            "synchronisation.local.load_ns",
            "synchronisation.local.answer_ns",
        ),
    },
)
