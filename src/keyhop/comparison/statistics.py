"""How sure a comparison is: medians over seeds with bootstrap intervals, paired differences, the Pareto front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from math import isfinite
from random import Random
from typing import Literal, NamedTuple

CONFIDENCE = 0.95
RESAMPLES = 4000
SEED = 1
"""Of the resampling: the same figures give the same interval, whoever computes it."""
VALUES_AT_MOST = 10_000

Better = Literal["high", "low"]

PARETO: Mapping[str, Better] = {"success": "high", "waste": "low", "tag_overhead": "low", "latency_p99_s": "low"}
"""Overhead is that of all tags: key shared beforehand pays the first of them, so that A/D is 0 in short runs, whoever
talks most."""


class Estimate(NamedTuple):
    median: float
    low: float | None
    """Of the interval; None if there are fewer than two values, which say nothing of how far they scatter."""
    high: float | None
    runs: int
    """Values behind it. Less than the number of seeds where some runs gave none."""

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval is above or below 0, else 0: of a difference, if it is more than chance."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


def median(values: Iterable[float]) -> float | None:
    """Half way between the middle two; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return _half_way(ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2])


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """The median with its percentile-bootstrap interval, without the values that are None; None if none is left.

    Raises ValueError for values that are not finite and for more than `VALUES_AT_MOST`.
    """
    ordered = sorted(value for value in values if value is not None)
    if not all(map(isfinite, ordered)):
        raise ValueError("a value is infinite or not a number: must be finite, or None where there is none")
    middle = median(ordered)
    if middle is None:
        return None
    if len(ordered) == 1:
        return Estimate(middle, None, None, 1)
    resampled = Counter[float]()
    for (one, other), count in _middles(len(ordered)).items():
        resampled[_half_way(ordered[one], ordered[other])] += count
    tail = (1 - CONFIDENCE) / 2
    low, high = _at(resampled, tail), _at(resampled, 1 - tail)
    return Estimate(middle, low, high, len(ordered))


def difference(one: Mapping[int, float | None], other: Mapping[int, float | None]) -> Estimate | None:
    """The median of `one` minus `other` seed by seed, with its interval; seeds that one of the two lacks are left out.

    The same seed is the same demands, so what all designs have in common falls out of the difference.
    """
    pairs = ((one[seed], other[seed]) for seed in sorted(one.keys() & other.keys()))
    return estimate(mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None)


def pareto_front(
    points: Mapping[str, Mapping[str, float | None]], better: Mapping[str, Better] = PARETO
) -> tuple[str, ...]:
    """The names, in their order, of points that no other is at least as good as in everything and better in something.

    A point that lacks a value cannot be compared: it is not on the front and keeps nobody off it.
    """
    if not better:
        raise ValueError("a front over no figures: name at least one")
    complete: dict[str, tuple[float, ...]] = {}
    for name, figures in points.items():
        scores = [(figures.get(figure), -1 if wanted == "low" else 1) for figure, wanted in better.items()]
        known = tuple(value * sign for value, sign in scores if value is not None)
        if len(known) == len(better):
            complete[name] = known
    return tuple(
        name for name, mine in complete.items() if not any(_beats(theirs, mine) for theirs in complete.values())
    )


def _beats(theirs: tuple[float, ...], mine: tuple[float, ...]) -> bool:
    return theirs != mine and all(their >= my for their, my in zip(theirs, mine, strict=True))


def _half_way(one: float, other: float) -> float:
    """Never outside the two, as a rounded mean can be."""
    return one if one == other else one / 2 + other / 2


def _at(counts: Counter[float], share: float) -> float:
    """The smallest value that this share of all do not exceed."""
    wanted, seen = share * counts.total(), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    return max(counts)


@cache
def _middles(size: int) -> Counter[tuple[int, int]]:
    """The ranks that the two middle values of a resample have, and how often.

    Drawing from sorted values is drawing ranks, and the median of a resample is the value at the middle ranks. So the
    draw is made once for each number of values, not once for each metric of each design.
    """
    if size > VALUES_AT_MOST:
        raise ValueError(f"{size} values: must be at most {VALUES_AT_MOST}")
    draw = Random(SEED)  # noqa: S311 no key comes of it
    middles = Counter[tuple[int, int]]()
    ranks = range(size)
    for _ in range(RESAMPLES):
        resample = sorted(draw.choices(ranks, k=size))
        middles[resample[(size - 1) // 2], resample[size // 2]] += 1
    return middles
