"""How bits are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Literal

LEASE_TAGS_BYTES = 64
"""Keys of two tags: what a lease costs."""
RESTART_SECONDS = 24 * 3600
"""How often a node is taken to start anew (K)."""


@dataclass(frozen=True, slots=True)
class ByteStream:
    """Homogeneous bytes: a key of any size is a position and a length, cut where it is wanted."""

    segment_seconds: int = 10
    """A segment holds about this much of the link's rate."""
    min_segment_bytes: int = 1024
    max_segment_bytes: int = 65_536

    def segment_bytes(self, rate_bps: int) -> int:
        """The power of two nearest to `segment_seconds` of the rate, within the bounds; whatever is asked."""
        return self._bounded(_nearest_power(rate_bps * self.segment_seconds // 8))

    def segment_for(self, asked_bytes_per_s: int, largest_bytes: int, rate_bps: int, limit_bytes: int) -> int:
        """The same for what is asked of a direction, in all and at once, on a link of this rate.

        A segment is what the least lease holds. Each lease costs its tags, a restart burns what is left of one: with
        `s` bytes `asked * LEASE_TAGS_BYTES / s + s / RESTART_SECONDS` a second, which is least at the size taken here.
        It is no less than one request wants, nor than the link gives in a second, for each segment is sealed on its
        own. Never more than `limit_bytes`.
        """
        cheapest = _nearest_power(isqrt(asked_bytes_per_s * LEASE_TAGS_BYTES * RESTART_SECONDS))
        whole = 1 << max(0, largest_bytes - 1).bit_length()
        wanted = max(cheapest, whole, _nearest_power(rate_bps // 8))
        return self._bounded(min(wanted, 1 << max(0, limit_bytes.bit_length() - 1)))

    def _bounded(self, size: int) -> int:
        return max(self.min_segment_bytes, min(self.max_segment_bytes, size))


def _nearest_power(size: int) -> int:
    """Of two, 1 or more; the smaller of two as near."""
    size = max(1, size)
    lower = 1 << (size.bit_length() - 1)
    return lower if size - lower <= 2 * lower - size else 2 * lower


@dataclass(frozen=True, slots=True)
class FixedBlock:
    """Units of one size with running numbers: the survey's fixed-sized and homogeneous blocks (S, Table 3).

    A unit is the least that can be given away, so a request of any other size wastes the rest (booked O).
    """

    unit_bits: int
    """DARPA 1024 (R), SECOQC 256 (C), Cisco 64 (S); where the survey is silent, each design's own guess (K)."""
    medium: Literal["memory", "disk"] = "disk"
    """DARPA holds its blocks in memory (S): nothing of them outlives a restart."""
    encoding: Literal["raw", "hex"] = "raw"
    """Cisco writes hexadecimal text (S): two bytes at rest for each byte of key."""

    def __post_init__(self) -> None:
        if self.unit_bits < 8 or self.unit_bits % 8:
            raise ValueError(f"fixed_block.unit_bits = {self.unit_bits}: must be a multiple of 8")

    @property
    def survives_restart(self) -> bool:
        return self.medium == "disk"

    def units(self, size_bits: int) -> int:
        """How many units a key of this size takes."""
        return -(-size_bits // self.unit_bits)

    def number(self, start_bytes: int) -> int:
        """The id of the unit that starts here: units are numbered by position, both ends alike."""
        number, within = divmod(start_bytes * 8, self.unit_bits)
        if within:
            raise ValueError(f"position {start_bytes}: no unit of {self.unit_bits} bits starts there")
        return number

    def range_bytes(self, number: int) -> tuple[int, int]:
        """(start, length) of a unit."""
        length = self.unit_bits // 8
        return number * length, length

    def rest_bytes(self, key_bytes: int) -> int:
        """What this much key takes at rest."""
        return key_bytes * 2 if self.encoding == "hex" else key_bytes


@dataclass(frozen=True, slots=True)
class MultiSizeBlock:
    """A store per size, so that most requests find a key that fits (DDKA, S: five sizes)."""

    sizes: tuple[int, ...]
    """Bits, ascending; DDKA has 128, 256, 512, 1024, 2048 (S)."""
    split: Literal["equal", "demand"] = "equal"
    """How fresh bits are shared among the sizes: the survey notes that the ratio is not defined (K)."""
    max_keys: int = 16
    """A key is a concatenation of at most so many ranges (K)."""

    def __post_init__(self) -> None:
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or any(s < 8 or s % 8 for s in self.sizes):
            raise ValueError(f"multi_size_block.sizes = {self.sizes}: must be ascending multiples of 8 bits")

    def next_size(self, dealt_bits: Mapping[int, int], demand_bits: Mapping[int, int] | None = None) -> int:
        """Which store the next fresh unit goes to: the one that is furthest behind its share; the smaller on a tie."""
        if self.split == "equal":
            return min(self.sizes, key=lambda size: (dealt_bits.get(size, 0), size))
        weights = self._weights(demand_bits)
        wanted = [size for size in self.sizes if weights[size]]
        return min(wanted, key=lambda size: (Fraction(dealt_bits.get(size, 0), weights[size]), size))

    def capacities(self, bits: int, demand_bits: Mapping[int, int] | None = None) -> dict[int, int]:
        """Keys of each size that stores of so many bits together have room for, by the same shares."""
        weights = self._weights(demand_bits)
        whole = sum(weights.values())
        return {size: bits * weight // whole // size for size, weight in weights.items()}

    def home(self, size_bits: int) -> int:
        """The size of the store that such a request draws on, if nothing is short."""
        return next((size for size in self.sizes if size >= size_bits), self.sizes[-1])

    def _weights(self, demand_bits: Mapping[int, int] | None) -> dict[int, int]:
        """Equal where that is the rule, or nobody has asked for anything yet."""
        if self.split == "demand" and demand_bits and any(demand_bits.values()):
            return {size: demand_bits.get(size, 0) for size in self.sizes}
        return dict.fromkeys(self.sizes, 1)

    def choose(self, size_bits: int, stock: Mapping[int, int]) -> tuple[int, ...]:
        """The sizes of the keys to take for a request, () if there are not enough.

        The smallest stored size that is large enough, else several keys, largest first, none of them superfluous (K).
        """
        for size in self.sizes:
            if size >= size_bits and stock.get(size, 0):
                return (size,)
        taken: list[int] = []
        missing = size_bits
        for size in reversed(self.sizes):
            count = min(stock.get(size, 0), missing // size)
            taken += [size] * count
            missing -= size * count
        if missing:
            # What is left of any size is larger than what is missing, or it would have been taken.
            left = [size for size in self.sizes if stock.get(size, 0) > taken.count(size)]
            if not left:
                return ()
            taken.append(left[0])
            missing -= left[0]
        for size in sorted(taken):
            if size + missing <= 0:
                taken.remove(size)
                missing += size
        return tuple(sorted(taken, reverse=True)) if len(taken) <= self.max_keys else ()
