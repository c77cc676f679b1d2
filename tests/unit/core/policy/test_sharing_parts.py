"""Proportional, weighted and deficit sharing against the published figures and slow twins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.refill import Buffer, PerSession
from keyhop.core.policy.sharing import DeficitRoundRobin, FirstCome, Proportional, Turn, Vessel, Weighted


def test_who_comes_first_gets_all_or_nothing() -> None:
    assert FirstCome().serve([300, 800, 600], 1000) == (300, 0, 600)


def test_at_nist_1_rates_of_1_to_3_share_a_pass() -> None:
    assert Proportional().quotas(4096, [1, 3]) == (1024, 3072)


def test_what_rounding_leaves_of_a_pass_goes_to_the_lowest() -> None:
    assert Proportional().quotas(100, [1, 1, 1]) == (34, 33, 33)
    assert Proportional().quotas(100, [0, 1, 2]) == (0, 34, 66)
    assert Proportional().quotas(100, [0, 0]) == (0, 0)


QCC = [(Buffer(256, 4096, 1000), 100), (Buffer(2048, 4096, 3000), 200), (Buffer(256, 8192, 2000), 100)]


def _qcc_levels(unassigned: int) -> tuple[list[int], int]:
    """Low buffers first, then the others."""
    low = PerSession().low([buffer for buffer, _ in QCC])
    levels = [buffer.level for buffer, _ in QCC]
    for group in (low, [n for n in range(len(QCC)) if n not in low]):
        poured = Proportional().pour(unassigned, [Vessel(QCC[n][1], QCC[n][0].size - levels[n]) for n in group])
        for n, amount in zip(group, poured, strict=True):
            levels[n] += amount
        unassigned -= sum(poured)
    return levels, unassigned


def test_at_qcc_1_low_buffers_get_all_of_a_small_refill() -> None:
    assert _qcc_levels(2000) == ([2000, 3000, 3000], 0)


def test_at_qcc_2_a_large_refill_fills_all_and_leaves_the_rest() -> None:
    assert _qcc_levels(12_000) == ([4096, 4096, 8192], 1616)


@given(st.integers(0, 5000), st.lists(st.builds(Vessel, st.integers(1, 9), st.integers(0, 1000)), max_size=6))
def test_pouring_agrees_with_water_finding_its_level(amount: int, vessels: list[Vessel]) -> None:
    given_units = Proportional().pour(amount, vessels)
    exact, left = [Fraction(0)] * len(vessels), Fraction(amount)
    open_ones = [n for n, vessel in enumerate(vessels) if vessel.room]
    while left and open_ones:
        whole = sum(vessels[n].rate for n in open_ones)
        step = min(left / whole, *(Fraction(vessels[n].room - exact[n]) / vessels[n].rate for n in open_ones))
        for n in open_ones:
            exact[n] += step * vessels[n].rate
        left -= step * whole
        open_ones = [n for n in open_ones if exact[n] < vessels[n].room]
    assert sum(given_units) == min(amount, sum(vessel.room for vessel in vessels))
    for units, fluid, vessel in zip(given_units, exact, vessels, strict=True):
        assert 0 <= units <= vessel.room
        # Whole units and not quite the same order of filling: within a few units of the fluid.
        assert abs(units - fluid) <= 2 * sum(other.rate for other in vessels)


def test_at_magiq_1_records_are_dealt_by_rate() -> None:
    picks, _ = Weighted(unit_bits=256).deal([1, 2, 1], 8)
    assert [[n + 1 for n, pick in enumerate(picks) if pick == stream] for stream in range(3)] == [
        [2, 6],
        [1, 4, 5, 8],
        [3, 7],
    ]


def test_at_magiq_2_new_rates_begin_at_nothing_owed() -> None:
    assert Weighted(unit_bits=256).deal([1, 1, 2], 4)[0] == [2, 0, 1, 2]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.integers(0, 60), st.integers(0, 60))
def test_dealing_in_two_goes_is_dealing_in_one(rates: list[int], first: int, second: int) -> None:
    weighted = Weighted(unit_bits=256)
    picks, owed = weighted.deal(rates, first)
    assert picks + weighted.deal(rates, second, owed)[0] == weighted.deal(rates, first + second)[0]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
def test_after_a_cycle_everybody_has_exactly_his_rate(rates: list[int]) -> None:
    picks, owed = Weighted(unit_bits=256).deal(rates, sum(rates))
    assert [picks.count(n) for n in range(len(rates))] == rates
    assert not any(owed)


def test_nobody_with_a_rate_nothing_is_dealt() -> None:
    assert Weighted(unit_bits=256).deal([0, 0], 5) == ([], (0, 0))


@pytest.mark.parametrize(
    ("rates", "links", "shares"),
    [
        ([100, 200, 100], [200], [50, 100, 50]),
        ([100, 200, 100, 400], [200], [25, 50, 25, 100]),
        ([100, 200, 100], [500], [100, 200, 100]),
        ([100, 200, 100], [900, 200, 700], [50, 100, 50]),
        ([100, 200], [], [0, 0]),
        ([0, 0], [500], [0, 0]),
    ],
)
def test_at_toshiba_1_to_3_shares_follow_demand_under_the_ceiling(
    rates: list[int], links: list[int], shares: list[int]
) -> None:
    toshiba = Weighted(unit_bits=4096, ceiling="path")
    assert list(toshiba.shares(rates, links)) == shares
    assert toshiba.achieved(rates, links) == sum(shares)


def test_at_toshiba_1_every_client_is_within_a_block_of_its_share() -> None:
    rates, shares = [100, 200, 100], [50_000, 100_000, 50_000]
    picks, _ = Weighted(unit_bits=4096, ceiling="path").deal(rates, 200_000 * 10 // 4096)
    for client, share in enumerate(shares):
        assert abs(picks.count(client) * 4096 - share * 10) <= 4096


def test_a_rate_a_fifth_off_sets_new_weights() -> None:
    weighted = Weighted(unit_bits=256)
    assert [weighted.drifted(100, measured) for measured in (79, 80, 120, 121)] == [True, False, False, True]


def _rounds(quantum: int, weights: Sequence[int], sizes: Sequence[int]) -> Iterator[int]:
    """Deficit round robin as in the textbook: a round for all, everybody backlogged with blocks of one size."""
    deficits = [0] * len(weights)
    while True:
        for flow, weight in enumerate(weights):
            deficits[flow] += quantum * weight
            while sizes[flow] <= deficits[flow]:
                deficits[flow] -= sizes[flow]
                yield flow


def _sent(robin: DeficitRoundRobin, weights: Sequence[int], sizes: Sequence[int | None]) -> Iterator[int]:
    turn = robin.first(len(weights))
    while found := robin.next(sizes, weights, turn):
        flow, turn = found
        yield flow


def test_at_qcanada_3_backlogged_flows_send_by_weight() -> None:
    sizes = [512, 1024, 256]
    order = list(islice(_sent(DeficitRoundRobin(quantum=512), [1, 2, 1], sizes), 16))
    assert order[:4] == [0, 1, 2, 2]
    assert [order.count(flow) * sizes[flow] for flow in range(3)] == [2048, 4096, 2048]


@given(st.integers(1, 600), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2000)), min_size=1, max_size=5))
def test_one_by_one_is_the_order_of_whole_rounds(quantum: int, flows: list[tuple[int, int]]) -> None:
    weights, sizes = [weight for weight, _ in flows], [size for _, size in flows]
    assert list(islice(_sent(DeficitRoundRobin(quantum=quantum), weights, sizes), 30)) == list(
        islice(_rounds(quantum, weights, sizes), 30)
    )


def test_an_idle_flow_saves_nothing() -> None:
    robin = DeficitRoundRobin(quantum=512)
    found = robin.next([512, None], [1, 1], Turn((0, 400), at=0))
    assert found == (0, Turn((0, 0), 0, True))


def test_with_nothing_waiting_nobody_sends() -> None:
    assert DeficitRoundRobin().next([None, None], [1, 1], Turn((0, 0))) is None


def test_one_time_demands_take_a_fifth_of_a_round() -> None:
    assert DeficitRoundRobin().one_time_bits(2048) == 409


def test_a_quantum_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"deficit_round_robin\.quantum = 0"):
        DeficitRoundRobin(quantum=0)
    with pytest.raises(ValueError, match=r"weighted\.unit_bits = 12: must be a multiple of 8"):
        Weighted(unit_bits=12)


def test_a_request_for_all_there_is_is_served() -> None:
    assert FirstCome().serve([1000], 1000) == (1000,)


def test_a_stream_without_a_rate_gets_nothing_poured() -> None:
    assert Proportional().pour(10, [Vessel(0, 100), Vessel(1, 100)]) == (0, 10)
    assert Proportional().pour(10, [Vessel(0, 100)]) == (0,)


def test_a_flow_without_a_weight_does_not_send() -> None:
    assert DeficitRoundRobin().next([100, 100], [0, 1], Turn((0, 0))) == (1, Turn((0, 412), 1, True))
    assert DeficitRoundRobin().next([100], [0], Turn((0,))) is None


def test_the_smallest_quantum_and_unit_are_one_bit_and_one_byte() -> None:
    assert DeficitRoundRobin(quantum=1, one_time_share=1.0).one_time_bits(10) == 10
    assert DeficitRoundRobin(one_time_share=0).one_time_bits(10) == 0
    assert Weighted(unit_bits=8).achieved([1], []) == 1
