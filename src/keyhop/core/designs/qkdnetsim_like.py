"""Like QKDNetSim: the reference beside the published designs, as its public code does it."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import C
from keyhop.core.policy.division import EncDec, Session
from keyhop.core.policy.formatting import ChunkOnReception, SplitMerge
from keyhop.core.policy.refill import LowHigh
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import ProposeAccept

QKDNETSIM_LIKE = Design(
    name="qkdnetsim_like",
    title="Like QKDNetSim: one store per link, buffers by direction and by stream, keys split on supply",
    storage=FixedBlock(unit_bits=512),
    division=(EncDec(), Session(deal="turn")),
    refill=LowHigh(low=3906, high=1_953_125),
    formatting=Formatting(reception=ChunkOnReception(), supply=SplitMerge(smallest_bits=32, largest_bits=10_240)),
    synchronisation=ProposeAccept(by="master"),
    relay=HopByHop(payload="random"),
    routing=LinkState(measure="hops"),
    door=("etsi014", "etsi004"),
    sources={
        C: (
            "storage",
            "storage.unit_bits",
            "division",
            "refill",
            "refill.low",
            "refill.high",
            "formatting.supply",
            "formatting.supply.smallest_bits",
            "formatting.supply.largest_bits",
            "synchronisation",
            "synchronisation.by",
            "door",
        ),
    },
)
