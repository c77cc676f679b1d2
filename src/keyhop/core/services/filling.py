"""How long relays took, and whose pool is filled next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from keyhop.core.policy_rules import ServiceClass
from keyhop.core.services.rounds import Rounds

TIMES_LIMIT = 1000
"""Relay times remembered: enough for a 99th percentile."""
P99 = Fraction(99, 100)


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
