"""The QoS-supported key manager, 2011: reservation for guaranteed flows, two queues per hop for the rest."""

from __future__ import annotations

from keyhop.core.designs.design import Design
from keyhop.core.designs.source import S
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.fallback import Wait
from keyhop.core.policy.priority import StrictPriority
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.storage import ByteStream
from keyhop.core.policy.synchronisation import ProposeAccept

QOS = Design(
    name="qos",
    title="QoS-supported key manager, 2011: reserved key for one class, two queues per hop for the others",
    row="QoS-supported KM",
    storage=ByteStream(),
    admission=Reservation(of="stock", max_share=0.8),
    priority=StrictPriority(by="class"),
    fallback=Wait(),
    synchronisation=ProposeAccept(by="master"),
    relay=HopByHop(queued=True),
    routing=LinkState(),
    door="etsi004",
    request=("class",),
    sources={
        S: ("admission", "priority", "priority.by", "fallback", "relay", "relay.queued"),
    },
)
