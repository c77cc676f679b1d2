"""How both ends come to the same range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Lease:
    """The owner reserves ahead with one acknowledged lease per some seconds; keys inside it need no message."""

    seconds: float = 10.0
    min_bytes: int = 1024
    max_bytes: int = 8 << 20

    def size(self, demand_bytes_per_s: float) -> int:
        """Bytes to lease for the next `seconds` at this demand."""
        return max(self.min_bytes, min(self.max_bytes, int(demand_bytes_per_s * self.seconds)))

    def low(self, lease_bytes: int) -> int:
        """Below this the next lease is asked for, so that it is there before this one ends."""
        return lease_bytes // 2


@dataclass(frozen=True, slots=True)
class AppNegotiated:
    """The applications agree on a unit, each reserves it at its own end."""

    pick: Literal["lowest", "highest"] = "lowest"
    reserve_ns: int = 30_000_000_000
    retries: int = 5


@dataclass(frozen=True, slots=True)
class StoreLoad:
    """STORE makes both ends agree that a key exists, LOAD moves agreed keys to buffers of one direction."""

    store_ns: int = 1_000_000_000
    load_ns: int = 1_000_000_000
    answer_ns: int = 5_000_000_000
    store_retries: int = 3


@dataclass(frozen=True, slots=True)
class StampSequence:
    """Every byte has a running number; a gap is settled by falling back to a common base."""

    on_gap: Literal["restart", "last_sync_point"] = "last_sync_point"


@dataclass(frozen=True, slots=True)
class ProposeAccept:
    """One end names ranges, the other says whether it holds them."""

    by: Literal["master", "asker"] = "master"


@dataclass(frozen=True, slots=True)
class TwoPhaseCommit:
    """Both ends prepare and vote before either changes the rule."""

    announce_ns: int = 1_000_000_000
    announce: Literal["mark", "explicit"] = "mark"


@dataclass(frozen=True, slots=True)
class VerifyBatch:
    """A batch of keys is compared under one tag."""

    n: int = 64
    check: Literal["tag", "mac"] = "mac"


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """A few units are used first and told afterwards, from opposite ends."""

    size: int | Literal["all"] = 64
    ends: Literal["opposite", "same"] = "opposite"


@dataclass(frozen=True, slots=True)
class DirectedPool:
    """One pool per ordered pair; its source alone assigns."""
