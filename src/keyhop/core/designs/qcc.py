"""The QCC security processor, 2008: buffers per application with thresholds of their own."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import S
from keyhop.core.policy.division import Session
from keyhop.core.policy.formatting import Identity, SliceOnSupply
from keyhop.core.policy.refill import PerSession
from keyhop.core.policy.sharing import Proportional
from keyhop.core.policy.storage import ByteStream
from keyhop.core.policy.synchronisation import ProposeAccept

QCC = Design(
    name="qcc",
    title="QCC security processor, 2008: a buffer per application, refilled below its own threshold",
    row="QCC",
    storage=ByteStream(),
    division=Session(deal="quota"),
    refill=PerSession(global_thr=0.25),
    sharing=Proportional(),
    formatting=Formatting(reception=Identity(), supply=SliceOnSupply(step=8)),
    synchronisation=ProposeAccept(by="master"),
    door="session",
    profile="buffer",
    sources={
        S: (
            "division",
            "refill",
            "sharing",
            "priority",
            "fallback",
            "synchronisation.by",
            "relay",
            "routing",
            "door",
            "door.profile",
        ),
    },
)
