"""How bits are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ByteStream:
    """Homogeneous bytes: a key of any size is a position and a length, cut where it is wanted."""

    segment_seconds: int = 10
    """A segment holds about this much of the link's rate."""
    min_segment_bytes: int = 1024
    max_segment_bytes: int = 65_536

    def segment_bytes(self, rate_bps: int) -> int:
        """The power of two nearest to `segment_seconds` of the rate, within the bounds."""
        wanted = max(1, rate_bps * self.segment_seconds // 8)
        lower = 1 << (wanted.bit_length() - 1)
        nearest = lower if wanted - lower <= 2 * lower - wanted else 2 * lower
        return max(self.min_segment_bytes, min(self.max_segment_bytes, nearest))


@dataclass(frozen=True, slots=True)
class FixedBlock:
    """Units of one size with running numbers."""

    unit_bits: int
    medium: Literal["memory", "disk"] = "disk"
    encoding: Literal["raw", "hex"] = "raw"


@dataclass(frozen=True, slots=True)
class MultiSizeBlock:
    """A store per size."""

    sizes: tuple[int, ...]
    """Bits."""
    split: Literal["equal", "demand"] = "equal"
