"""The twelve questions, the parts that answer each, and the names of both."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from keyhop.core.policy.admission import AdmitAll, Reservation
from keyhop.core.policy.disposal import AgePurge, EraseInBatches, EraseNow
from keyhop.core.policy.division import EncDec, Purpose, Session, Shared
from keyhop.core.policy.fallback import ByCategory, Deny, Derive, Hybrid, Wait
from keyhop.core.policy.formatting import ChunkOnReception, Identity, Kdf, SliceOnSupply, SplitMerge
from keyhop.core.policy.priority import Fifo, ResponseWeight, StrictPriority
from keyhop.core.policy.refill import ByDemand, LowHigh, NoThreshold, PerSession, PullBelow, Sated
from keyhop.core.policy.relay import HopByHop, NoRelay, RelayXor, SplitPath
from keyhop.core.policy.routing import CentralKms, LinkState, NoRouting, Sdn
from keyhop.core.policy.sharing import DeficitRoundRobin, FirstCome, Proportional, Weighted
from keyhop.core.policy.storage import ByteStream, FixedBlock, MultiSizeBlock
from keyhop.core.policy.synchronisation import (
    AppNegotiated,
    DirectedPool,
    Lease,
    ProposeAccept,
    StampSequence,
    StoreLoad,
    TwoPhaseCommit,
    VerifyBatch,
    WorkingSet,
)

Storage: TypeAlias = FixedBlock | MultiSizeBlock | ByteStream
Division: TypeAlias = Shared | EncDec | Session | Purpose
Refill: TypeAlias = NoThreshold | Sated | PerSession | LowHigh | PullBelow | ByDemand
Disposal: TypeAlias = EraseNow | EraseInBatches | AgePurge
Admission: TypeAlias = AdmitAll | Reservation
Sharing: TypeAlias = FirstCome | Proportional | Weighted | DeficitRoundRobin
Priority: TypeAlias = Fifo | StrictPriority | ResponseWeight
Format: TypeAlias = Identity | ChunkOnReception | SliceOnSupply | SplitMerge | Kdf
Fallback: TypeAlias = Deny | Wait | Hybrid | Derive | ByCategory
Synchronisation: TypeAlias = (
    AppNegotiated
    | StoreLoad
    | StampSequence
    | ProposeAccept
    | TwoPhaseCommit
    | VerifyBatch
    | WorkingSet
    | DirectedPool
    | Lease
)
Relay: TypeAlias = NoRelay | HopByHop | RelayXor | SplitPath
Routing: TypeAlias = NoRouting | LinkState | CentralKms | Sdn

PARTS: dict[str, tuple[type, ...]] = {
    "storage": (FixedBlock, MultiSizeBlock, ByteStream),
    "division": (Shared, EncDec, Session, Purpose),
    "refill": (NoThreshold, Sated, PerSession, LowHigh, PullBelow, ByDemand),
    "disposal": (EraseNow, EraseInBatches, AgePurge),
    "admission": (AdmitAll, Reservation),
    "sharing": (FirstCome, Proportional, Weighted, DeficitRoundRobin),
    "priority": (Fifo, StrictPriority, ResponseWeight),
    "formatting": (Identity, ChunkOnReception, SliceOnSupply, SplitMerge, Kdf),
    "fallback": (Deny, Wait, Hybrid, Derive, ByCategory),
    "synchronisation": (
        AppNegotiated,
        StoreLoad,
        StampSequence,
        ProposeAccept,
        TwoPhaseCommit,
        VerifyBatch,
        WorkingSet,
        DirectedPool,
        Lease,
    ),
    "relay": (NoRelay, HopByHop, RelayXor, SplitPath),
    "routing": (NoRouting, LinkState, CentralKms, Sdn),
}

DOORS = ("ike_qpd", "session", "app_buffer", "etsi014", "etsi004", "skip", "service_request")
PROFILES = ("rate", "fifo", "buffer")
"""How a `session` is used: a stream at a declared rate, a queue of bytes, a buffer of a declared size."""


def word(part: Any) -> str:
    """The name of a part in configurations and reports: `FixedBlock` is `fixed_block`."""
    name = part.__name__ if isinstance(part, type) else type(part).__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
