"""Our own design: two directed runs per pair, leases instead of messages per key, relay ahead of demand."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.policy.disposal import AgePurge
from keyhop.core.policy.division import EncDec
from keyhop.core.policy.formatting import ChunkOnReception, SliceOnSupply
from keyhop.core.policy.refill import ByDemand
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.storage import ByteStream
from keyhop.core.policy.synchronisation import Lease

KEYHOP = Design(
    name="keyhop",
    title="Keyhop: byte runs with owners, acknowledged leases, sealed key IDs",
    storage=ByteStream(),
    division=EncDec(),
    refill=ByDemand(),
    disposal=AgePurge(),
    formatting=Formatting(reception=ChunkOnReception(), supply=SliceOnSupply(step=8)),
    synchronisation=Lease(),
    relay=HopByHop(),
    routing=LinkState(),
    door="etsi014",
    promises_its=True,
)
