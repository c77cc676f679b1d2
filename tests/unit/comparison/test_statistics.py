"""Statistics: resampling ranks equals resampling values, intervals hold what they promise, no front point is beaten."""

from __future__ import annotations

import time
from itertools import product
from math import comb
from random import Random
from statistics import median as plain_median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhop.comparison.statistics import (
    PARETO,
    RESAMPLES,
    SEED,
    VALUES_AT_MOST,
    Estimate,
    difference,
    estimate,
    median,
    pareto_front,
)

FIGURES = st.floats(-1e6, 1e6, allow_subnormal=False)
SAMPLES = st.lists(FIGURES, min_size=2, max_size=25)


def plain_interval(values: list[float]) -> tuple[float, float]:
    """Every resample drawn and its median taken, as the method is described."""
    draw = Random(SEED)
    ordered = sorted(values)
    medians = sorted(plain_median(draw.choices(ordered, k=len(ordered))) for _ in range(RESAMPLES))
    return medians[round(RESAMPLES * 0.025) - 1], medians[round(RESAMPLES * 0.975) - 1]


@pytest.mark.parametrize(
    ("values", "middle"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5), ([7.0], 7.0), ([], None)]
)
def test_the_median_of_an_even_number_is_half_way(values: list[float], middle: float | None) -> None:
    assert median(values) == middle


@given(SAMPLES)
@settings(max_examples=25)
def test_resampling_ranks_equals_resampling_values(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(plain_interval(values))


@given(SAMPLES)
def test_the_median_lies_in_its_interval_and_that_within_the_values(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None and found.low is not None and found.high is not None
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.runs == len(values)


@given(SAMPLES, st.randoms(use_true_random=False))
def test_order_does_not_matter(values: list[float], draw: Random) -> None:
    shuffled = list(values)
    draw.shuffle(shuffled)
    assert estimate(shuffled) == estimate(values)


@given(
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=20), st.integers(-1000, 1000), st.sampled_from([1, 2, 4])
)
def test_an_estimate_moves_and_stretches_with_its_values(values: list[int], shift: int, factor: int) -> None:
    plain, moved = estimate(values), estimate([factor * value + shift for value in values])
    assert plain is not None and plain.low is not None and plain.high is not None
    assert moved == Estimate(
        factor * plain.median + shift, factor * plain.low + shift, factor * plain.high + shift, plain.runs
    )


@given(FIGURES, st.integers(2, 20))
def test_equal_values_leave_no_doubt(value: float, count: int) -> None:
    assert estimate([value] * count) == Estimate(value, value, value, count)


def test_one_value_has_no_interval_and_none_has_no_estimate() -> None:
    assert estimate([3.5]) == Estimate(3.5, None, None, 1)
    assert estimate([]) is None and estimate([None, None]) is None


def test_not_applicable_counts_as_no_value_and_never_as_0() -> None:
    assert estimate([None, 4.0, None, 6.0]) == estimate([4.0, 6.0])


def test_the_interval_of_five_values_is_that_of_the_exact_distribution() -> None:
    """The median of five draws from five values is at most the k-th in as many cases as three or more draws are."""
    below = [sum(comb(5, n) * (k / 5) ** n * (1 - k / 5) ** (5 - n) for n in (3, 4, 5)) for k in range(6)]
    low = next(k for k in range(1, 6) if below[k] >= 0.025)
    high = next(k for k in range(1, 6) if below[k] >= 0.975)
    assert (low, high) == (1, 5)
    found = estimate([10.0, 20.0, 30.0, 40.0, 50.0])
    assert found == Estimate(30.0, 10.0 * low, 10.0 * high, 5)


def test_about_19_of_20_intervals_hold_the_true_median() -> None:
    draw = Random(5)
    held = 0
    for _ in range(1000):
        found = estimate([draw.gauss(3, 1) for _ in range(20)])
        assert found is not None and found.low is not None and found.high is not None
        held += found.low <= 3 <= found.high
    assert 0.92 <= held / 1000 <= 0.98


def test_a_study_is_estimated_in_a_blink() -> None:
    """23 designs by 8 workloads by 6 loads by 40 metrics are 44,160 estimates; a thousand may take half a second."""
    draw = Random(1)
    samples = [[draw.random() for _ in range(20)] for _ in range(1000)]
    started = time.process_time()
    for sample in samples:
        estimate(sample)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="must be finite, or None"):
        estimate([1.0, value])


def test_more_values_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must be at most 10000"):
        estimate([1.0] * (VALUES_AT_MOST + 1))


def test_a_difference_is_taken_seed_by_seed() -> None:
    """Seeds scatter by 100, the designs differ by 1: unpaired the difference would drown."""
    other = {seed: 100.0 * seed for seed in range(1, 21)}
    one = {seed: value + 1 for seed, value in other.items()}
    assert difference(one, other) == Estimate(1.0, 1.0, 1.0, 20)
    assert difference(other, one) == Estimate(-1.0, -1.0, -1.0, 20)


def test_a_seed_that_one_lacks_is_left_out_of_a_difference() -> None:
    one = {1: 5.0, 2: None, 3: 9.0, 4: 1.0}
    other = {1: 2.0, 2: 1.0, 3: 5.0, 5: 1.0}
    assert difference(one, other) == estimate([3.0, 4.0])
    assert difference(one, {9: 1.0}) is None


def test_a_difference_within_chance_has_no_sign() -> None:
    draw = Random(2)
    noise = {seed: draw.gauss(0, 1) for seed in range(20)}
    clear = difference({seed: value + 5 for seed, value in noise.items()}, dict.fromkeys(range(20), 0.0))
    against = difference(dict.fromkeys(range(20), 0.0), {seed: value + 5 for seed, value in noise.items()})
    chance = difference(noise, dict.fromkeys(range(20), 0.0))
    assert clear is not None and against is not None and chance is not None
    assert (clear.sign, against.sign, chance.sign) == (1, -1, 0)
    assert Estimate(1.0, None, None, 1).sign == 0


def point(success: float | None, waste: float, overhead: float, p99: float) -> dict[str, float | None]:
    return dict(zip(PARETO, (success, waste, overhead, p99), strict=True))


def test_a_front_holds_what_nothing_beats() -> None:
    points = {
        "wins all but waste": point(1.0, 0.5, 0.0, 0.1),
        "least waste": point(0.8, 0.0, 0.1, 1.0),
        "beaten by the first": point(0.9, 0.5, 0.0, 0.1),
        "equal to the first": point(1.0, 0.5, 0.0, 0.1),
        "beaten by the second": point(0.8, 0.0, 0.1, 1.5),
        "not applicable": point(None, 0.0, 0.0, 0.0),
    }
    assert pareto_front(points) == ("wins all but waste", "least waste", "equal to the first")


COARSE = st.integers(0, 3).map(float)
POINTS = st.dictionaries(st.text("abc", min_size=1), st.builds(point, COARSE, COARSE, COARSE, COARSE), max_size=8)


@given(POINTS)
def test_off_the_front_is_beaten_by_the_front_and_on_it_by_nobody(points: dict[str, dict[str, float | None]]) -> None:
    def beats(one: str, other: str) -> bool:
        gains = []
        for figure, better in PARETO.items():
            mine, theirs = points[one][figure], points[other][figure]
            assert mine is not None and theirs is not None
            gains.append(mine - theirs if better == "high" else theirs - mine)
        return min(gains) >= 0 and max(gains) > 0

    front = pareto_front(points)
    assert bool(front) == bool(points)
    assert not any(beats(one, other) for one, other in product(points, front))
    assert all(any(beats(one, other) for one in front) for other in points.keys() - set(front))


def test_a_front_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="name at least one"):
        pareto_front({"one": {}}, {})
