"""Quantum Canada, 2018, with directed pools: key divided by purpose, relayed by demand."""

from __future__ import annotations

from keyhop.core.designs.design import Design
from keyhop.core.designs.source import C, S
from keyhop.core.policy.division import EncDec, Purpose
from keyhop.core.policy.fallback import ByCategory
from keyhop.core.policy.priority import StrictPriority
from keyhop.core.policy.refill import ByDemand
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.sharing import DeficitRoundRobin
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import DirectedPool

QCANADA = Design(
    name="qcanada",
    title="Quantum Canada, 2018: key divided by purpose, relayed by demand, five categories of clients",
    row="Quantum Canada",
    storage=FixedBlock(unit_bits=256),
    division=(Purpose(shares=(("direct", 0.4), ("own", 0.3), ("transit", 0.3))), EncDec()),
    refill=ByDemand(margin=1.0, forecast="rate"),
    sharing=DeficitRoundRobin(quantum=512),
    priority=StrictPriority(by="category"),
    fallback=ByCategory(),
    synchronisation=DirectedPool(),
    relay=HopByHop(payload="local"),
    routing=LinkState(measure="hops"),
    door="etsi014",
    request=("category",),
    sources={
        S: (
            "division",
            "refill",
            "refill.forecast",
            "admission",
            "sharing",
            "priority",
            "fallback",
            "relay",
            "relay.payload",
            "routing",
        ),
        C: ("storage", "storage.unit_bits", "synchronisation", "door"),
    },
)
