"""NIST, 2008: a queue of stamped bytes per connection, dealt in passes."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import S
from keyhop.core.policy.division import Session
from keyhop.core.policy.formatting import ChunkOnReception, SliceOnSupply
from keyhop.core.policy.sharing import Proportional
from keyhop.core.policy.storage import ByteStream
from keyhop.core.policy.synchronisation import StampSequence

NIST = Design(
    name="nist",
    title="NIST quantum network manager, 2008: queues of stamped bytes, filled in passes by registered rates",
    row="NIST",
    storage=ByteStream(),
    division=Session(deal="quota"),
    sharing=Proportional(),
    formatting=Formatting(reception=ChunkOnReception(), supply=SliceOnSupply(step=8, odd="refuse")),
    synchronisation=StampSequence(on_gap="last_sync_point"),
    door="session",
    profile="fifo",
    compares=False,
    sources={
        S: (
            "storage",
            "division",
            "division.deal",
            "refill",
            "sharing",
            "priority",
            "formatting",
            "formatting.supply.step",
            "fallback",
            "synchronisation",
            "synchronisation.on_gap",
            "relay",
            "routing",
            "door",
            "door.profile",
        ),
    },
)
