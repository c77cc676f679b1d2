"""The NICT QKD platform, 2017: numbered keys, a central server for paths and life cycle."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import P, S
from keyhop.core.policy.disposal import AgePurge
from keyhop.core.policy.division import EncDec
from keyhop.core.policy.formatting import ChunkOnReception, SliceOnSupply
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import CentralKms
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import VerifyBatch

NICT = Design(
    name="nict",
    title="NICT QKD platform, 2017: keys reshaped and numbered, a central server for paths and life cycle",
    row="NICT QKD platform",
    storage=FixedBlock(unit_bits=256),
    division=EncDec(),
    disposal=AgePurge(max_age_ns=86_400_000_000_000),
    formatting=Formatting(reception=ChunkOnReception(), supply=SliceOnSupply(step=8)),
    synchronisation=VerifyBatch(check="tag"),
    relay=HopByHop(payload="random"),
    routing=CentralKms(cost="widest", horizon_seconds=60, report_ns=1_000_000_000, low_stock=0.1),
    door="etsi014",
    sources={
        S: (
            "refill",
            "admission",
            "sharing",
            "priority",
            "formatting.reception",
            "fallback",
            "relay",
            "relay.payload",
            "routing",
        ),
        P: ("disposal", "formatting.supply", "routing.cost"),
    },
)
