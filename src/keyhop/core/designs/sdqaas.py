"""NSFC SDQaaS, 2019: a controller rents out rate slots along paths."""

from __future__ import annotations

from keyhop.core.designs.design import Design
from keyhop.core.designs.source import S
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.division import Session
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import Sdn
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import DirectedPool

SDQAAS = Design(
    name="sdqaas",
    title="NSFC SDQaaS, 2019: a controller gives services slots of key rate on every link of a path",
    row="NSFC SDQaaS",
    storage=FixedBlock(unit_bits=256),
    division=Session(deal="slots"),
    admission=Reservation(of="slots", order="online", slot_bps=1000),
    synchronisation=DirectedPool(),
    relay=HopByHop(),
    routing=Sdn(k_paths=3),
    door=("service_request", "etsi004"),
    sources={
        S: (
            "division",
            "division.deal",
            "refill",
            "admission",
            "admission.of",
            "admission.order",
            "priority",
            "fallback",
            "routing",
            "door.service_request",
        ),
    },
)
