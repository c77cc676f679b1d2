"""Marks stand where the figures say and words do not cover each other."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from keyhop.comparison import scatter
from keyhop.comparison.drawing import Scale, apart, powers_of_ten, spaced


def test_a_scale_keeps_figures_inside_and_in_order() -> None:
    scale = Scale(0.01, 10.0, 0.0, 300.0, logarithmic=True)
    assert scale(0.01) == 0.0 and scale(10.0) == 300.0 and scale(0.1) == pytest.approx(100.0)
    assert scale(0.0) == 0.0 and scale(1e9) == 300.0
    upwards = Scale(0.0, 1.0, 100.0, 0.0)
    assert upwards(0.25) == 75.0 and upwards(-1.0) == 100.0
    assert Scale(2.0, 2.0, 0.0, 10.0)(2.0) == 5.0


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.013), (5.0, 5.0), (0.0, 12345.0)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = Scale(low, high, 0.0, 100.0).ticks(5)
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_powers_of_ten_enclose_their_figures() -> None:
    assert powers_of_ten([0.02, 0.3], 1e-4) == (0.01, 1.0)
    assert powers_of_ten([], 1e-4) == (1e-4, 1e-3)
    assert powers_of_ten([0.0], 1e-4) == (1e-4, 1e-3)


def test_names_at_the_ends_of_curves_keep_their_order_and_their_distance() -> None:
    rng = random.Random(3)
    for _ in range(200):
        wanted = [rng.uniform(0.0, 300.0) for _ in range(rng.randint(1, 20))]
        places = apart(wanted, 0.0, 300.0)
        assert all(-1e-6 <= place <= 300.0 + 1e-6 for place in places)
        order = sorted(range(len(wanted)), key=lambda at: wanted[at])
        steps = [places[after] - places[before] for before, after in pairwise(order)]
        assert all(step >= min(14.0, 300.0 / max(1, len(wanted) - 1)) - 1e-6 for step in steps)


def test_words_under_an_axis_do_not_run_into_each_other_and_one_is_kept() -> None:
    loads = [0.2, 0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 2.0]
    kept = spaced(loads, Scale(0.2, 2.0, 0.0, 150.0, logarithmic=True), lambda load: f"{load:g}")
    assert 1.0 in kept and 0.2 in kept and 2.0 in kept
    assert len(kept) < len(loads)


def test_names_in_a_scatter_cover_no_other_name_and_no_point() -> None:
    rng = random.Random(5)
    places = {f"design {number}": (rng.uniform(200, 900), rng.uniform(60, 300)) for number in range(23)}
    places |= {f"alike {number}": (500.0 + number, 180.0) for number in range(4)}
    named = scatter._named(places)
    assert sorted(name for members, _ in named for name in members) == sorted(places)
    assert any(set(members) >= {f"alike {number}" for number in range(4)} for members, _ in named)
    for number, (_, one) in enumerate(named):
        assert not any(one.meets(other) for _, other in named[number + 1 :])
        assert not any(one.left < x < one.right and one.top < y < one.bottom for x, y in places.values())


def test_a_front_goes_up_where_the_price_goes_up() -> None:
    # Smaller y is higher in a picture.
    stairs = scatter._stairs([(10, 50), (20, 80), (30, 20), (40, 20), (25, 60)])
    assert stairs == [(10, 50), (30, 50), (30, 20)]
