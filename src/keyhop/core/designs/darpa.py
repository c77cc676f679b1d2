"""The DARPA quantum network, 2002-07: blocks that the applications list, reserve and obtain."""

from __future__ import annotations

from keyhop.core.designs.design import Design
from keyhop.core.designs.source import R, S
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import AppNegotiated

DARPA = Design(
    name="darpa",
    title="DARPA quantum network, 2002-07: blocks in memory that applications list, reserve and obtain",
    row="DARPA",
    storage=FixedBlock(unit_bits=1024, medium="memory"),
    synchronisation=AppNegotiated(pick="lowest", reserve_ns=30_000_000_000, retries=5),
    door="ike_qpd",
    sources={
        S: (
            "storage",
            "storage.medium",
            "division",
            "refill",
            "disposal",
            "admission",
            "sharing",
            "priority",
            "formatting",
            "fallback",
            "synchronisation",
            "routing",
            "door",
        ),
        R: ("storage.unit_bits",),
    },
)
