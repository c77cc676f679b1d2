"""When a pool of global key is filled, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ByDemand:
    """Low mark = demand x measured relay time x margin, never below `min_bytes`; filled to a multiple of it."""

    margin: float = 4.0
    min_bytes: int = 2048
    max_bytes: int = 1 << 20
    high_factor: float = 2.0
    forecast: Literal["measured", "none"] = "measured"

    def marks(self, demand_bytes_per_s: float, relay_seconds: float) -> tuple[int, int]:
        """(low, high) in bytes."""
        low = int(demand_bytes_per_s * relay_seconds * self.margin)
        low = max(self.min_bytes, min(self.max_bytes, low))
        return low, min(self.max_bytes, int(low * self.high_factor))


@dataclass(frozen=True, slots=True)
class NoThreshold:
    """Nothing is filled because of a level."""


@dataclass(frozen=True, slots=True)
class Sated:
    """Buffers are filled by what the incoming one lacks, from a fraction of the common store."""

    sated_ratio: float = 0.9
    common_divisor: int = 3


@dataclass(frozen=True, slots=True)
class PerSession:
    """Each session has a threshold of its own."""

    global_thr: float = 0.25


@dataclass(frozen=True, slots=True)
class LowHigh:
    """Filled from below `low` up to `high`; whole numbers count units, fractions are shares of the capacity."""

    low: int | float
    high: int | float


@dataclass(frozen=True, slots=True)
class PullBelow:
    """The next file is fetched while fewer units than the threshold are stored."""

    threshold: int
