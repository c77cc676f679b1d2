"""KISTI, 2022: a pool with every node, and HKDF for every size and for want."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import P, S
from keyhop.core.policy.fallback import Derive
from keyhop.core.policy.formatting import ChunkOnReception, Kdf
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import CentralKms
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import VerifyBatch

KISTI = Design(
    name="kisti",
    title="KISTI, 2022: a pool with every other node; keys of any size derived; short relay pads stretched",
    row="KISTI",
    storage=FixedBlock(unit_bits=256),
    formatting=Formatting(reception=ChunkOnReception(), supply=Kdf()),
    fallback=Derive(relay=True, strict_its=False),
    synchronisation=VerifyBatch(n=64, check="mac"),
    relay=HopByHop(payload="random"),
    routing=CentralKms(),
    door="etsi014",
    sources={
        S: (
            "refill",
            "admission",
            "sharing",
            "priority",
            "formatting.supply",
            "fallback",
            "fallback.relay",
            "relay",
            "door",
        ),
        P: ("routing",),
    },
)
