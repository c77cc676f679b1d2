"""A design that nobody published: pools by direction for 014, pools by session for 004, one store, split and merge."""

from __future__ import annotations

from keyhop.core.designs import Design, Formatting
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.division import EncDec, Session
from keyhop.core.policy.formatting import ChunkOnReception, SplitMerge
from keyhop.core.policy.priority import StrictPriority
from keyhop.core.policy.refill import ByDemand
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.sharing import DeficitRoundRobin
from keyhop.core.policy.storage import ByteStream
from keyhop.core.policy.synchronisation import Lease

BOTH_STORES = Design(
    name="both_stores",
    title="Pools by direction for 014 and by session for 004 over one store of bytes",
    storage=ByteStream(),
    division=(EncDec(), Session(deal="credit")),
    refill=ByDemand(),
    admission=Reservation(of="rate", lend=True),
    sharing=DeficitRoundRobin(),
    priority=StrictPriority(by="class"),
    formatting=Formatting(reception=ChunkOnReception(), supply=SplitMerge()),
    synchronisation=Lease(),
    relay=HopByHop(),
    routing=LinkState(),
    door=("etsi014", "etsi004"),
    request=("class",),
    promises_its=True,
)
