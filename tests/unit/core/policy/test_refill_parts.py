"""Levels that ask for key, and for how much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.refill import (
    Buffer,
    Buffers,
    ByDemand,
    Load,
    LowHigh,
    NoThreshold,
    PerSession,
    PullBelow,
    Sated,
)


def test_without_a_threshold_nothing_is_asked_for() -> None:
    assert NoThreshold().wanted(0, 1000) == 0


def test_at_secoqc_1_incoming_and_application_buffers_get_a_third_each() -> None:
    load = Sated().load(Buffers(1000, 100, 200, 1000, 100), common_units=90)
    assert load == Load(30, 30)
    assert sum(load) * 256 == 15_360
    assert 2 * 96 / 15_360 == 0.0125


@pytest.mark.parametrize(
    ("incoming", "outgoing", "application", "common", "load"),
    [
        (901, 1000, 1000, 90, None),
        (900, 1000, 1000, 90, Load(12, 0)),
        (901, 950, 100, 90, Load(0, 30)),
        (100, 100, 100, 90, Load(30, 0)),
        (201, 200, 100, 90, Load(0, 30)),
        (100, 100, 100, 2, None),
        (100, 100, 100, 3, Load(1, 0)),
    ],
)
def test_at_secoqc_2_sated_and_leading_buffers_get_nothing(
    incoming: int, outgoing: int, application: int, common: int, load: Load | None
) -> None:
    assert Sated().load(Buffers(1000, incoming, outgoing, 1000, application), common) == load


def test_a_load_must_bring_more_than_it_burns() -> None:
    assert Sated().load(Buffers(1000, 100, 100, 1000, 100), 3, tag_bits=129) is None
    assert Sated().load(Buffers(1000, 100, 100, 1000, 100), 3, tag_bits=128) == Load(1, 0)


@given(*(st.integers(0, 1000) for _ in range(3)), st.integers(0, 300))
def test_a_load_overfills_no_buffer_and_never_empties_the_store(
    incoming: int, outgoing: int, application: int, common: int
) -> None:
    load = Sated().load(Buffers(1000, incoming, outgoing, 1000, application), common)
    if load:
        assert incoming + 8 * load.incoming <= 1000 and application + 8 * load.application <= 1000
        assert sum(load) <= 2 * common / 3


def test_the_slave_asks_only_when_its_incoming_buffer_lags() -> None:
    assert Sated().request(Buffers(1000, 100, 200, 1000, 0), 3) == 900
    assert Sated().request(Buffers(1000, 200, 200, 1000, 0), 3) == 0
    assert Sated().request(Buffers(1000, 100, 200, 1000, 0), 2) == 0


QCC = [Buffer(256, 4096, 1000), Buffer(2048, 4096, 3000), Buffer(256, 8192, 2000)]


def test_at_qcc_1_two_of_three_buffers_are_low() -> None:
    assert [PerSession().threshold(buffer) for buffer in QCC] == [1024, 2048, 2048]
    assert PerSession().low(QCC) == (0, 2)


def test_at_qcc_3_the_longest_read_counts_where_it_is_more() -> None:
    assert PerSession(global_thr=0.25).threshold(Buffer(2048, 4096, 0)) == 2048


def test_at_qcc_4_a_level_at_the_threshold_is_not_low() -> None:
    assert PerSession().low([Buffer(256, 4096, 1024)]) == ()
    assert PerSession().low([Buffer(256, 4096, 1023)]) == (0,)


def test_at_ddka_6_a_pool_below_20_percent_is_filled_to_80() -> None:
    marks = LowHigh(low=0.2, high=0.8)
    assert marks.wanted(20, 100) == 0
    assert marks.wanted(19, 100) == 61
    assert marks.wanted(79, 100, filling=True) == 1
    assert marks.wanted(80, 100, filling=True) == 0
    assert marks.wanted(95, 100, filling=True) == 0


def test_marks_may_count_files() -> None:
    assert LowHigh(low=4, high=16).wanted(3, 1000) == 13
    assert not LowHigh(low=4, high=16).due(4, 1000)


@pytest.mark.parametrize(("low", "high"), [(8, 4), (-1, 4), (0.2, 4), (0.2, 1.2), (0.8, 0.2)])
def test_marks_that_cannot_be_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="must be two whole numbers, or two fractions"):
        LowHigh(low=low, high=high)


def test_at_cisco_2_126_rows_of_128_pull_the_next_file_once() -> None:
    pull = PullBelow(threshold=128)
    assert not pull.due(130)
    assert pull.due(130 - 4)
    assert pull.wanted(126, 0) == 2
    assert not pull.due(126 + 512)


def test_a_threshold_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pull_below\.threshold = -1: must be 0 or more"):
        PullBelow(threshold=-1)


def test_demand_sets_marks_or_a_rate() -> None:
    ours, forecast = ByDemand(), ByDemand(margin=1.5, forecast="rate")
    marks = ours.marks(10_000, 0.5)
    assert marks == (20_000, 40_000)
    assert ours.wanted(19_999, marks) == 20_001
    assert ours.wanted(20_000, marks) == 0
    assert forecast.wanted(0, marks) == 0
    assert forecast.order(1000.0) == 1500.0


def test_a_level_at_the_threshold_pulls_nothing() -> None:
    assert not PullBelow(threshold=128).due(128)
    assert PullBelow(threshold=0).wanted(0, 0) == 0


def test_small_lacks_are_filled_by_whole_units() -> None:
    assert Sated().load(Buffers(100, 60, 200, 100, 40), 90) == Load(5, 7)


def test_marks_at_both_ends_of_a_pool_are_marks() -> None:
    assert LowHigh(low=0.0, high=1.0).wanted(0, 100, filling=True) == 100
    assert LowHigh(low=0, high=0).wanted(0, 100) == 0
    assert LowHigh(low=0.5, high=0.5).wanted(40, 100) == 10
