"""Every byte taken in is booked once: the table of states, the book of a run, the dealing of a block, an allowance."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from bounds import looked_at
from hypothesis import assume, given
from hypothesis import strategies as some

from keyhop.core.model import LIFE, NANOSECONDS, Action, IllegalMove, State
from keyhop.core.node.desk import Allowance
from keyhop.core.node.ledger import BOOKED, Account, Book
from keyhop.core.policy.division import EncDec, Want

IN_STOCK = (State.STORED, State.RESERVED_APP, State.RESERVED_INTERNAL)
USES = (Action.SUPPLY, Action.RELAY, Action.AUTHENTICATE)
TAKEN_IN = (Account.G, Account.N, Account.F)

lengths = some.integers(1, 64)
moves = some.lists(some.tuples(some.integers(0, 9), some.sampled_from(Action)), max_size=60)


@looked_at(150)
@given(some.lists(some.tuples(some.sampled_from(TAKEN_IN), lengths), min_size=1, max_size=10), moves)
def test_the_book_is_the_sum_over_all_ranges_of_their_states(
    taken_in: list[tuple[Account, int]], actions: list[tuple[int, Action]]
) -> None:
    book = Book()
    states = [State.STORED] * len(taken_in)
    uses = [0] * len(taken_in)
    for account, length in taken_in:
        book.take_in(account, length)
    for which, action in actions:
        index = which % len(taken_in)
        length, state = taken_in[index][1], states[index]
        before = book.snapshot()
        if action not in LIFE[state]:
            with pytest.raises(IllegalMove):
                book.move(state, action, length)
            assert book.snapshot() == before
            continue
        states[index] = book.move(state, action, length)
        uses[index] += action in USES
    ended = Counter[Account]()
    for (_, length), state, used in zip(taken_in, states, uses, strict=True):
        assert used <= 1, "a range was used twice"
        if state in BOOKED:
            ended[BOOKED[state]] += length
    in_stock = sum(length for (_, length), state in zip(taken_in, states, strict=True) if state in IN_STOCK)
    assert book.stock == in_stock
    destroyed = sum(length for (_, length), state in zip(taken_in, states, strict=True) if state is State.DESTROYED)
    booked = sum(book[account] for account in set(BOOKED.values()))
    assert booked == sum(ended.values()) + destroyed
    assert all(book[account] >= total for account, total in ended.items())
    assert Book(book.snapshot()).stock == in_stock


@looked_at(50)
@given(some.sampled_from(State), some.lists(some.sampled_from(Action), max_size=8))
def test_no_way_leads_back_into_stock(state: State, actions: list[Action]) -> None:
    """Once used, wasted, lost or expired, a range is only ever destroyed."""
    seen = [state]
    for action in actions:
        if action in LIFE[seen[-1]]:
            seen.append(LIFE[seen[-1]][action])
    left = [i for i, each in enumerate(seen) if each not in IN_STOCK and each is not State.RECEIVED]
    if left:
        assert set(seen[left[0] + 1 :]) <= {State.DESTROYED}
    assert len(set(seen)) == len(seen)


wants = some.tuples(some.integers(0, 50_000), some.integers(0, 50_000))


@looked_at(150)
@given(some.integers(0, 60_000), some.lists(wants, min_size=4, max_size=4), some.lists(wants, min_size=1, max_size=2))
def test_a_block_is_dealt_without_gain_and_within_limits(
    length: int, runs: list[tuple[int, int]], keys: list[tuple[int, int]]
) -> None:
    floors = [Want(2 + i, stock, limit) for i, (stock, limit) in enumerate(runs)]
    key_wants = [Want(i, stock, limit) for i, (stock, limit) in enumerate(keys)]
    dealt = EncDec().deal(length, floors, floors[:2], key_wants)
    assert all(take > 0 for _, take in dealt)
    assert sum(take for _, take in dealt) <= length
    for want in key_wants:
        taken = sum(take for run, take in dealt if run == want.run)
        assert not taken or want.stock_bytes + taken <= want.limit_bytes
    assert all(take % 32 == 0 for run, take in dealt if run >= 2), "tag keys are whole"


@looked_at(100)
@given(some.integers(0, 60_000), some.lists(some.integers(0, 50_000), min_size=1, max_size=2))
def test_all_of_a_block_is_dealt_where_there_is_room(length: int, stocks: list[int]) -> None:
    keys = [Want(i, stock, 1 << 30) for i, stock in enumerate(stocks)]
    dealt = EncDec().deal(length, [], [], keys)
    assert sum(take for _, take in dealt) == length
    if len(keys) == 2:
        after = [want.stock_bytes + sum(take for run, take in dealt if run == want.run) for want in keys]
        # Halves are whole tag keys of 32 bytes: what is over goes to one of them.
        assert abs(after[0] - after[1]) < max(64, abs(stocks[0] - stocks[1]) + 1)


@looked_at(150)
@given(
    some.integers(1, 1000),
    some.integers(8, 4096),
    some.integers(1, 20),
    some.integers(1, 20),
    some.lists(some.tuples(some.integers(0, NANOSECONDS), some.integers(1, 4096)), min_size=1, max_size=40),
)
def test_an_allowance_is_kept_to_the_token(
    rate: int, burst: int, requests: int, burst_requests: int, asked: list[tuple[int, int]]
) -> None:
    """The slow twin counts in fractions. What is refused costs nothing, and works after the time that was told."""
    allowance = Allowance(rate, burst, requests, burst_requests, 0)
    now = 0
    bits, tokens = Fraction(burst), Fraction(burst_requests)
    for passed, size in asked:
        now += passed
        bits = min(Fraction(burst), bits + Fraction(rate * passed, NANOSECONDS))
        tokens = min(Fraction(burst_requests), tokens + Fraction(requests * passed, NANOSECONDS))
        wait = allowance.spend(size, now)
        assert (wait == 0) == (bits >= size and tokens >= 1)
        if wait == 0:
            bits, tokens = bits - size, tokens - 1


@looked_at(100)
@given(some.integers(1, 1000), some.integers(8, 4096), some.lists(some.integers(1, 4096), min_size=1, max_size=20))
def test_who_waits_as_long_as_told_is_served(rate: int, burst: int, sizes: list[int]) -> None:
    assume(all(size <= burst for size in sizes))
    allowance = Allowance(rate, burst, 1, 2, 0)
    now = 0
    for size in sizes:
        wait = allowance.spend(size, now)
        if wait:
            assert allowance.spend(size, now + wait - 1) != 0
            now += wait
            assert allowance.spend(size, now) == 0
