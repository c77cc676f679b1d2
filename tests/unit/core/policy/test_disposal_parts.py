"""When used and old key goes, and what a full store does with more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.disposal import AgePurge, EraseInBatches, EraseNow, FullStore, Overflow, overflow

SECOND = 1_000_000_000


def test_a_used_key_is_erased_at_once() -> None:
    assert EraseNow().erases(1) == 1


def test_at_toshiba_4_of_250_used_keys_two_batches_are_erased() -> None:
    lazy = EraseInBatches(n=100)
    assert lazy.erases(250) == 200
    assert max(used - lazy.erases(used) for used in range(1000)) == 99


def test_at_toshiba_4_no_used_key_is_supplied_after_a_restart() -> None:
    lazy, used_log = EraseInBatches(n=100), frozenset(range(250))
    assert not any(lazy.may_supply(number, used_log) for number in range(250))
    assert lazy.may_supply(250, used_log)


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"erase_in_batches\.n = 0: must be 1 or more"):
        EraseInBatches(n=0)


def test_at_nict_3_a_key_lives_to_its_maximal_age_and_no_longer() -> None:
    purge = AgePurge(max_age_ns=3600 * SECOND)
    assert not purge.expired(3600 * SECOND)
    assert purge.expired(3600 * SECOND + 1)


def test_a_store_with_room_takes_everything() -> None:
    for part in (EraseNow("stop"), EraseInBatches(full_store="drop_new"), AgePurge(full_store="replace_oldest")):
        assert part.takes(10, stock=90, capacity=100) == Overflow(10)


def test_a_full_store_stops_drops_or_replaces() -> None:
    assert EraseNow("stop").takes(10, 95, 100) == Overflow(5, stopped=True)
    assert EraseNow("drop_new").takes(10, 95, 100) == Overflow(5)
    assert EraseNow("replace_oldest").takes(10, 95, 100, idle=True) == Overflow(10, destroyed_oldest=5)


def test_a_store_that_is_drawn_from_keeps_its_oldest() -> None:
    assert EraseNow("replace_oldest").takes(10, 95, 100, idle=False) == Overflow(5)


def test_a_rule_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="full_store = burst: must be stop, drop_new or replace_oldest"):
        overflow("burst", 10, 95, 100, idle=True)


@given(
    st.sampled_from(["stop", "drop_new", "replace_oldest"]),
    st.integers(0, 300),
    st.integers(0, 100),
    st.booleans(),
)
def test_no_rule_overfills_a_store(rule: FullStore, incoming: int, stock: int, idle: bool) -> None:
    found = EraseNow(rule).takes(incoming, stock, 100, idle)
    assert 0 <= found.accepted <= incoming and 0 <= found.destroyed_oldest <= stock
    assert stock - found.destroyed_oldest + found.accepted <= 100


def test_untouched_key_lives_thirty_days_unless_told_otherwise() -> None:
    assert AgePurge().max_age_ns == 2_592_000 * SECOND


def test_a_batch_of_one_is_erased_at_once() -> None:
    assert EraseInBatches(n=1).erases(7) == 7
