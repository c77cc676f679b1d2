"""MagiQ Technologies, 2010: a persistent record store, dealt by rates that are re-tuned."""

from __future__ import annotations

from keyhop.core.designs.design import Design
from keyhop.core.designs.source import S
from keyhop.core.policy.disposal import AgePurge
from keyhop.core.policy.division import Session
from keyhop.core.policy.sharing import Weighted
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import TwoPhaseCommit

MAGIQ = Design(
    name="magiq",
    title="MagiQ Technologies, 2010: records on disk, dealt by registered rates, changed by two-phase commit",
    row="MagiQ Technologies",
    storage=FixedBlock(unit_bits=256, medium="disk"),
    division=Session(deal="credit"),
    disposal=AgePurge(max_age_ns=86_400_000_000_000),
    sharing=Weighted(unit_bits=256, ceiling="none", retune=0.2),
    synchronisation=TwoPhaseCommit(announce_ns=1_000_000_000, announce="mark"),
    door="app_buffer",
    sources={
        S: (
            "storage",
            "storage.medium",
            "division",
            "refill",
            "disposal",
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
