"""Rates and ages from looks at counters: averages over half a minute, and never older than true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.model import Action, NodeId, State
from keyhop.core.node.ledger import Account
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import UNTOUCHED, Segment
from keyhop.daemon.measures import AGES_LIMIT, WINDOW_S, Measures, stored_bytes, totals


def a_pair() -> Pair:
    return Pair(NodeId("alice"), NodeId("bob"), bytes(16), direct=True)


def append(pair: Pair, length: int, *, own: bool = True) -> None:
    run = pair.own_key if own else pair.their_key
    run.insert_segment(Segment(run.append, length, UNTOUCHED, stored=True, born=0))
    run.append += length
    run.book.take_in(Account.G, length)


def take(pair: Pair, length: int) -> None:
    """Leases the oldest segment, gives it out whole, and books it, as the core does."""
    segment = next(pair.own_key.oldest_untouched())
    assert segment.length == length
    pair.own_key.set_mark(segment, "supply")
    pair.own_key.book.move(State.RESERVED_APP, Action.SUPPLY, length)


def test_nothing_is_known_before_the_second_look() -> None:
    measures, pair = Measures(), a_pair()
    assert measures.rates("bob") is None and measures.keys_per_s() is None
    measures.look([pair], 0, 100.0)
    assert measures.rates("bob") is None and measures.keys_per_s() is None


def test_what_comes_in_and_goes_out_is_told_in_bits_per_second() -> None:
    measures, pair = Measures(), a_pair()
    measures.look([pair], 0, 100.0)
    append(pair, 4000)
    append(pair, 1000)
    take(pair, 4000)
    measures.look([pair], 50, 110.0)
    rates = measures.rates("bob")
    assert rates is not None
    assert (rates.taken_in_bps, rates.used_bps, rates.net_bps) == (4000.0, 3200.0, 800.0)
    assert measures.keys_per_s() == 5.0


def test_an_average_forgets_what_was_longer_ago_than_its_window() -> None:
    measures, pair = Measures(), a_pair()
    measures.look([pair], 0, 0.0)
    append(pair, 10_000)
    for second in range(1, int(WINDOW_S) + 5):
        measures.look([pair], 0, float(second))
    rates = measures.rates("bob")
    assert rates is not None and rates.taken_in_bps == 0.0


def test_what_the_edge_gave_out_counts_before_the_core_books_it() -> None:
    pair = a_pair()
    append(pair, 1024)
    pair.own_key.set_mark(next(pair.own_key.oldest_untouched()), "supply")
    pair.stock.add(0, 1024)
    before = totals(pair).delivered
    assert pair.stock.take(3, 32) is not None
    assert totals(pair).delivered == before + 96
    assert stored_bytes(pair, pair.own_key) == 1024 - 96


def test_pre_shared_key_is_no_key_that_was_taken_in() -> None:
    pair = a_pair()
    pair.own_tags.book.take_in(Account.F, 28_672)
    assert totals(pair).taken_in == 0


def test_the_oldest_key_is_as_old_as_its_append() -> None:
    measures, pair = Measures(), a_pair()
    append(pair, 1000)
    measures.look([pair], 0, 10.0)
    append(pair, 1000)
    measures.look([pair], 0, 20.0)
    assert measures.oldest_age_s(pair.own_key, 25.0) == 15.0
    take(pair, 1000)
    assert measures.oldest_age_s(pair.own_key, 25.0) == 5.0
    take(pair, 1000)
    assert measures.oldest_age_s(pair.own_key, 25.0) is None


def test_key_that_came_after_the_last_look_is_new() -> None:
    measures, pair = Measures(), a_pair()
    measures.look([pair], 0, 10.0)
    append(pair, 1000)
    assert measures.oldest_age_s(pair.own_key, 25.0) == 0.0


@given(st.lists(st.booleans(), min_size=1, max_size=120))
def test_ages_follow_a_slow_and_obvious_record(steps: list[bool]) -> None:
    """Twin: a list with the moment of each segment."""
    measures, pair = Measures(), a_pair()
    born: list[float] = []
    measures.look([pair], 0, 0.0)
    for number, is_append in enumerate(steps, 1):
        now_s = float(number)
        if is_append:
            append(pair, 64)
            born.append(now_s)
        elif born:
            take(pair, 64)
            born.pop(0)
        measures.look([pair], 0, now_s)
        age = measures.oldest_age_s(pair.own_key, now_s + 0.5)
        assert age == (now_s + 0.5 - born[0] if born else None)


def test_a_long_record_is_thinned_and_never_makes_key_older() -> None:
    measures, pair = Measures(), a_pair()
    measures.look([pair], 0, 0.0)
    for second in range(1, 3 * AGES_LIMIT):
        append(pair, 64)
        measures.look([pair], 0, float(second))
    (kept,) = [len(seen) for run, seen in measures._appended.items() if run == pair.own_key.id]
    assert kept <= AGES_LIMIT + 1
    now_s = float(3 * AGES_LIMIT)
    age = measures.oldest_age_s(pair.own_key, now_s)
    assert age is not None and now_s - 64 <= age <= now_s - 1


@pytest.mark.parametrize("own", [True, False])
def test_each_direction_has_a_stock_of_its_own(own: bool) -> None:
    pair = a_pair()
    append(pair, 512, own=own)
    assert stored_bytes(pair, pair.own_key) == (512 if own else 0)
    assert stored_bytes(pair, pair.their_key) == (0 if own else 512)
