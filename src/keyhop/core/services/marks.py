"""How full pools are kept, how large units are cut and whose pool is filled next: all after what was measured."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.refill import ByDemand
from keyhop.core.policy_rules import ServiceClass
from keyhop.core.services.rounds import Rounds

TIMES_LIMIT = 1000
"""Relay times remembered: enough for a 99th percentile."""
P99 = Fraction(99, 100)
SIZES_LIMIT = 4096
"""Different sizes told apart; rarer ones count with the next larger."""
UNIT_BYTES = 1 << 10, 1 << 16
UNIT_SECONDS = 10
"""A unit holds what the link gives in so many seconds."""
WASTE = Fraction(1, 100)
"""Of what is leased, at most, where keys do not fill the end of a unit."""
FALL = Fraction(9, 10)
"""What is left of an old peak of demand after each look."""


class Demand:
    """What is drawn, in bytes a second: rises at once and falls slowly, as too little costs a wait."""

    __slots__ = ("bytes_per_s",)

    def __init__(self) -> None:
        self.bytes_per_s = Fraction(0)

    def drawn(self, length_bytes: int, elapsed_ns: int) -> None:
        rate = Fraction(length_bytes * NANOSECONDS, max(1, elapsed_ns))
        if rate >= self.bytes_per_s:
            self.bytes_per_s = rate
        else:
            fallen = self.bytes_per_s * FALL + rate * (1 - FALL)
            # Kept short: a sum of fractions would grow with every look.
            self.bytes_per_s = Fraction(-(-fallen.numerator * 1000 // fallen.denominator), 1000)


class Times:
    """The latest durations of one thing, such as relays to one destination, from decision to append."""

    __slots__ = ("_latest",)

    def __init__(self, limit: int = TIMES_LIMIT) -> None:
        self._latest: deque[int] = deque(maxlen=limit)

    def took(self, duration_ns: int) -> None:
        self._latest.append(duration_ns)

    def quantile(self, share: Fraction, unknown_ns: int) -> int:
        """The least duration that this share of all did not exceed; `unknown_ns` while nothing was measured."""
        if not self._latest:
            return unknown_ns
        ordered = sorted(self._latest)
        return ordered[max(0, -(-len(ordered) * share.numerator // share.denominator) - 1)]


def marks(part: ByDemand, demand: Demand, times: Times, unknown_ns: int = NANOSECONDS) -> tuple[int, int]:
    """(low, high) in bytes: low = demand x p99 of measured relay time, with the part's margin and bounds."""
    return part.marks(float(demand.bytes_per_s), times.quantile(P99, unknown_ns) / NANOSECONDS)


class Sizes:
    """What sizes applications ask for."""

    __slots__ = ("_counts", "_limit")

    def __init__(self, limit: int = SIZES_LIMIT) -> None:
        self._counts: Counter[int] = Counter()
        self._limit = limit

    def asked(self, size_bits: int, number: int = 1) -> None:
        if size_bits not in self._counts and len(self._counts) >= self._limit:
            larger = [known for known in self._counts if known > size_bits]
            size_bits = min(larger) if larger else max(self._counts)
        self._counts[size_bits] += number

    @property
    def mean_bits(self) -> Fraction:
        keys = sum(self._counts.values())
        return Fraction(sum(size * count for size, count in self._counts.items()), keys) if keys else Fraction(0)

    def waste(self, unit_bits: int) -> Fraction:
        """What part of units of this size is lost at their ends if no key may cross one: half a key each, at most."""
        return min(Fraction(1), self._typical() / 2 / unit_bits)

    def unit_bytes(self, rate_bytes_per_s: int) -> int:
        """A power of two: the nearest to what comes in ten seconds, larger where large keys would waste its ends."""
        low, high = UNIT_BYTES
        unit = _nearest_power(max(1, rate_bytes_per_s * UNIT_SECONDS))
        unit = max(low, min(high, unit))
        while unit < high and self.waste(unit * 8) > WASTE:
            unit *= 2
        return unit

    def split(self, units: Sequence[int]) -> Mapping[int, Fraction]:
        """How stock of several unit sizes (bits) is best divided: by the bits asked for that each serves whole.

        A key takes as many of the largest unit as fit into it, then of the next; what nobody asks for gets nothing.
        """
        taken: dict[int, int] = dict.fromkeys(units, 0)
        for size, count in self._counts.items():
            left = size
            for unit in sorted(units, reverse=True):
                taken[unit] += left // unit * unit * count
                left %= unit
            if left:
                taken[min(units)] += min(units) * count
        total = sum(taken.values())
        return {unit: Fraction(bits, total) if total else Fraction(1, len(units)) for unit, bits in taken.items()}

    def _typical(self) -> Fraction:
        """The mean size of the key that meets a random bit: large keys meet more ends."""
        bits = sum(size * count for size, count in self._counts.items())
        squares = sum(size * size * count for size, count in self._counts.items())
        return Fraction(squares, bits) if bits else Fraction(0)


CLASS_WEIGHT = {ServiceClass.GUARANTEED: 1, ServiceClass.PRIORITISED: 4, ServiceClass.BEST_EFFORT: 1}
"""Batches in a round."""


class Pool(NamedTuple):
    """A pool of global key that is filled ahead."""

    name: str
    service_class: ServiceClass
    level_bytes: int
    low_bytes: int
    high_bytes: int
    weight: int = 1


class Filling:
    """Whose pool of global key the next batch is for; pools that have begun go on to their high mark.

    Pools of guaranteed streams come first: what they may want was admitted, so it is bounded. The others have their
    turn by class and weight, so that best effort is filled slowly and not never.
    """

    __slots__ = ("_begun", "_rounds")

    def __init__(self, batch_bytes: int) -> None:
        self._rounds = Rounds(batch_bytes)
        self._begun: set[str] = set()

    def next(self, pools: Sequence[Pool]) -> str | None:
        """None: no pool wants key. One batch counts as sent."""
        wanting = {pool.name: pool for pool in pools if self._wants(pool)}
        self._begun = set(wanting)
        guaranteed = [pool for pool in wanting.values() if pool.service_class is ServiceClass.GUARANTEED]
        for name in self._rounds.names():
            if name not in wanting:
                self._rounds.remove(name)
        if guaranteed:
            return min(guaranteed, key=lambda pool: (Fraction(pool.level_bytes, pool.high_bytes), pool.name)).name
        for name, pool in wanting.items():
            self._rounds.add(name, pool.weight * CLASS_WEIGHT[pool.service_class])
        chosen = self._rounds.turn(dict.fromkeys(wanting, self._rounds.quantum))
        if chosen is not None:
            self._rounds.sent(chosen, self._rounds.quantum)
        return chosen

    def _wants(self, pool: Pool) -> bool:
        mark = pool.high_bytes if pool.name in self._begun else pool.low_bytes
        return pool.level_bytes < mark


def _nearest_power(number: int) -> int:
    """Of two, by ratio."""
    below = 1 << (number.bit_length() - 1)
    return below * 2 if number * number > 2 * below * below else below
