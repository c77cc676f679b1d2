"""When a pool is filled, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class ByDemand:
    """Low mark = demand x measured relay time x margin, never below `min_bytes`; filled to a multiple of it."""

    margin: float = 4.0
    min_bytes: int = 2048
    max_bytes: int = 1 << 20
    high_factor: float = 2.0
    forecast: Literal["marks", "rate"] = "marks"
    """marks: demand sets how full a pool is kept; rate: it sets how fast key is made, without a mark (Quantum Canada,
    S)."""

    def marks(self, demand_bytes_per_s: float, relay_seconds: float) -> tuple[int, int]:
        """(low, high) in bytes."""
        low = int(demand_bytes_per_s * relay_seconds * self.margin)
        low = max(self.min_bytes, min(self.max_bytes, low))
        return low, min(self.max_bytes, int(low * self.high_factor))

    def order(self, demand_bytes_per_s: float) -> float:
        """Bytes per second to have made for a site whose applications draw so much."""
        return demand_bytes_per_s * self.margin

    def wanted(self, level: int, marks: tuple[int, int]) -> int:
        """Bytes to bring now; nothing where demand sets a rate."""
        low, high = marks
        return high - level if self.forecast == "marks" and level < low else 0


@dataclass(frozen=True, slots=True)
class NoThreshold:
    """Pools take what comes; no level asks for more (DARPA, NIST, most of the survey's Table 2)."""

    def wanted(self, level: int, capacity: int, filling: bool = False) -> int:
        return 0


class Buffers(NamedTuple):
    """Slots of the master's buffers and of its incoming buffer's counterpart."""

    capacity_in: int
    incoming: int
    outgoing: int
    capacity_app: int
    application: int


class Load(NamedTuple):
    """Units of the common store to move to the incoming and to the application buffer."""

    incoming: int
    application: int


@dataclass(frozen=True, slots=True)
class Sated:
    """LOAD: what the incoming (decryption) buffer lacks, from a fraction of the common store (SECOQC S, Toshiba local).

    The arithmetic is that of the public Q3P code (C), but for the worth of a LOAD: both buffers count here, the code
    forgets the application's and never serves it alone (K).
    """

    sated_ratio: float = 0.9
    """A buffer fuller than this gets nothing (C)."""
    common_divisor: int = 3
    """Each buffer may take this part of the common store (C)."""
    slots_per_unit: int = 8
    """A 256-bit key of the common store fills eight 32-bit slots (C)."""
    slot_bits: int = 32
    """(C)"""

    def load(self, buffers: Buffers, common_units: int, tag_bits: int = 96) -> Load | None:
        """What the master's LOAD moves; None if it would bring less than the tags of its two messages burn."""
        allowed = common_units // self.common_divisor
        incoming = self._lack(buffers.incoming, buffers.capacity_in)
        if buffers.incoming > buffers.outgoing:
            incoming = 0
        application = self._lack(buffers.application, buffers.capacity_app)
        if buffers.application >= min(buffers.incoming + incoming, buffers.outgoing):
            application = 0
        load = Load(min(allowed, incoming // self.slots_per_unit), min(allowed, application // self.slots_per_unit))
        moved_bits = sum(load) * self.slots_per_unit * self.slot_bits
        return load if sum(load) and moved_bits >= 2 * tag_bits else None

    def request(self, buffers: Buffers, common_units: int) -> int:
        """Slots the slave asks for with LOAD-REQ; 0 if its incoming buffer does not lag behind (C)."""
        if common_units // self.common_divisor == 0 or buffers.incoming >= buffers.outgoing:
            return 0
        return buffers.capacity_in - buffers.incoming

    def _lack(self, level: int, capacity: int) -> int:
        return 0 if level > self.sated_ratio * capacity else capacity - level


class Buffer(NamedTuple):
    """A session's buffer, all in one unit (QCC: bits)."""

    longest_read: int
    size: int
    level: int


@dataclass(frozen=True, slots=True)
class PerSession:
    """Each session has its own threshold, by the longest key it may read (QCC, S: equation 1)."""

    global_thr: float = 0.25
    """Part of a buffer below which it counts as low (K)."""

    def threshold(self, buffer: Buffer) -> int:
        """max(longest read, size x global_thr), eq. (1); rounded down."""
        return max(buffer.longest_read, int(buffer.size * self.global_thr))

    def low(self, buffers: Sequence[Buffer]) -> tuple[int, ...]:
        """Which buffers are low; if any is, all unassigned key is poured, into these first (S)."""
        return tuple(number for number, buffer in enumerate(buffers) if buffer.level < self.threshold(buffer))


@lru_cache(maxsize=64)
def _exact(share: float) -> Fraction:
    """0.2 as one fifth, on every machine."""
    return Fraction(str(share))


@dataclass(frozen=True, slots=True)
class LowHigh:
    """Filled from below `low` up to `high`; whole numbers count units, fractions are shares of the capacity.

    DDKA has the two thresholds (S), at 20 and 80 % (K); NEC's fixed mode builds files in the background, 4 and 16 (K).
    """

    low: int | float
    high: int | float

    def __post_init__(self) -> None:
        alike = isinstance(self.low, float) == isinstance(self.high, float)
        if not alike or not 0 <= self.low <= self.high or (isinstance(self.high, float) and self.high > 1):
            raise ValueError(
                f"low_high = {self.low}, {self.high}: must be two whole numbers, or two fractions up to 1.0, ascending"
            )

    def due(self, level: int, capacity: int) -> bool:
        return level < self._mark(self.low, capacity)

    def wanted(self, level: int, capacity: int, filling: bool = False) -> int:
        """How much to bring; a filling that has begun goes on to the high mark, nothing above it is thrown away (K)."""
        if not filling and not self.due(level, capacity):
            return 0
        return max(0, self._mark(self.high, capacity) - level)

    def _mark(self, mark: int | float, capacity: int) -> int:
        return int(_exact(mark) * capacity) if isinstance(mark, float) else mark


@dataclass(frozen=True, slots=True)
class PullBelow:
    """The next file is fetched while fewer units than the threshold are stored (Cisco, S); checked after each key."""

    threshold: int
    """Units; Cisco's figure is not given, 4096 is assumed (K)."""

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise ValueError(f"pull_below.threshold = {self.threshold}: must be 0 or more units")

    def due(self, level: int) -> bool:
        return level < self.threshold

    def wanted(self, level: int, capacity: int, filling: bool = False) -> int:
        """The least that ends the shortage; files are fetched whole."""
        return max(0, self.threshold - level)
