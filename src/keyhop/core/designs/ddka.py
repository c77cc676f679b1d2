"""DDKA-QKDN, 2022: keys of five sizes, requests in order of their response weight."""

from __future__ import annotations

from keyhop.core.designs.design import Design, Formatting
from keyhop.core.designs.source import S
from keyhop.core.policy.fallback import Wait
from keyhop.core.policy.formatting import ChunkOnReception, Identity
from keyhop.core.policy.priority import ResponseWeight
from keyhop.core.policy.refill import LowHigh
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import Sdn
from keyhop.core.policy.storage import MultiSizeBlock
from keyhop.core.policy.synchronisation import DirectedPool

DDKA = Design(
    name="ddka",
    title="DDKA-QKDN, 2022: keys of five sizes, supplemented between two thresholds, ordered by response weight",
    row="NKPs DDKA-QKDN",
    storage=MultiSizeBlock(sizes=(128, 256, 512, 1024, 2048), split="equal"),
    refill=LowHigh(low=0.2, high=0.8),
    priority=ResponseWeight(omega=0.5, slot_ns=10_000_000),
    formatting=Formatting(reception=ChunkOnReception(), supply=Identity()),
    fallback=Wait(deadline_ns=5_000_000_000),
    synchronisation=DirectedPool(),
    relay=HopByHop(),
    routing=Sdn(),
    door="etsi014",
    request=("security_level",),
    sources={
        S: (
            "storage",
            "storage.sizes",
            "division",
            "refill",
            "admission",
            "sharing",
            "priority",
            "formatting",
            "fallback",
            "routing",
        ),
    },
)
