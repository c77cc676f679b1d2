"""Cisco, 2023: rows of 64 bits in SQLite, files pulled below a threshold, routers served by SKIP."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import S
from keyhop.core.policy.formatting import ChunkOnReception, SliceOnSupply
from keyhop.core.policy.refill import PullBelow
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import ProposeAccept

CISCO = Design(
    name="cisco",
    title="Cisco, 2023: rows of 64 bits in a database, files pulled below a threshold, routers served by SKIP",
    row="Cisco",
    storage=FixedBlock(unit_bits=64, medium="disk", encoding="hex"),
    refill=PullBelow(threshold=4096),
    formatting=Formatting(reception=ChunkOnReception(), supply=SliceOnSupply(step=64)),
    synchronisation=ProposeAccept(by="asker"),
    door="skip",
    compares=False,
    sources={
        S: (
            "storage",
            "storage.unit_bits",
            "storage.medium",
            "storage.encoding",
            "refill",
            "admission",
            "sharing",
            "priority",
            "formatting.reception",
            "fallback",
            "synchronisation.by",
            "door",
        ),
    },
)
