"""Sets of positions, the stock that is dealt from and tag credits, against slow twins that hold every position."""

from __future__ import annotations

from itertools import pairwise

import pytest
from bounds import looked_at
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from keyhop.core.model import TAG_KEY_BYTES, PeerError
from keyhop.core.node.desk import Stock
from keyhop.core.node.extents import Extents
from keyhop.core.node.tags import Credit, Receiver, check_credit

HIGHEST = 64
positions = some.integers(0, HIGHEST)


class ExtentsAgainstASet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.extents = Extents()
        self.twin: set[int] = set()

    @rule(start=positions, end=positions)
    def add(self, start: int, end: int) -> None:
        self.extents.add(start, end)
        self.twin |= set(range(start, end))

    @rule(start=positions, end=positions)
    def remove(self, start: int, end: int) -> None:
        self.extents.remove(start, end)
        self.twin -= set(range(start, end))

    @rule(start=some.integers(0, HIGHEST - 1), length=some.integers(1, 10))
    def look(self, start: int, length: int) -> None:
        asked = set(range(start, start + length))
        assert self.extents.covers(start, start + length) == (asked <= self.twin)
        assert self.extents.touches(start, start + length) == bool(asked & self.twin)
        within = [p for low, high in self.extents.within(start, start + length) for p in range(low, high)]
        assert within == sorted(asked & self.twin)

    @invariant()
    def both_hold_the_same(self) -> None:
        assert [p for low, high in self.extents for p in range(low, high)] == sorted(self.twin)
        assert self.extents.total() == len(self.twin)
        assert bool(self.extents) == bool(self.twin)

    @invariant()
    def one_set_is_held_in_one_way_only(self) -> None:
        assert self.extents == Extents((p, p + 1) for p in sorted(self.twin, reverse=True))


TestExtentsAgainstASet = ExtentsAgainstASet.TestCase
TestExtentsAgainstASet.settings = looked_at(100, steps=30)


class StockAgainstAList(RuleBasedStateMachine):
    """What is leased is dealt once, skipped once or still there: every position is one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stock = Stock()
        self.next = 0
        self.there: set[int] = set()
        self.dealt: set[int] = set()

    @rule(gap=some.sampled_from((0, 0, 1, 7)), length=some.integers(1, 40))
    def a_lease_comes(self, gap: int, length: int) -> None:
        start = self.next + gap
        self.stock.add(start, start + length)
        self.there |= set(range(start, start + length))
        self.next = start + length

    @rule(number=some.integers(1, 5), length=some.integers(1, 24))
    def keys_are_taken(self, number: int, length: int) -> None:
        before, fits = self.stock.intervals(), self.stock.count(length)
        starts = self.stock.take(number, length)
        if starts is None:
            assert fits < number
            assert self.stock.intervals() == before
            return
        assert len(starts) == number <= fits
        for start in starts:
            key = set(range(start, start + length))
            assert key <= self.there
            assert not key & self.dealt
            self.dealt |= key

    @rule()
    def all_is_taken_out(self) -> None:
        burnt = {p for low, high in self.stock.clear() for p in range(low, high)}
        assert burnt <= self.there - self.dealt
        self.there -= burnt
        assert self.stock.left == 0

    @invariant()
    def nothing_is_lost_or_there_twice(self) -> None:
        left = [p for low, high in self.stock.intervals() for p in range(low, high)]
        assert len(left) == len(set(left)) == self.stock.left
        assert set(left) <= self.there - self.dealt
        assert self.stock.taken == len(self.dealt)
        assert self.stock.left + self.stock.taken + self.stock.wasted == len(self.there)


TestStockAgainstAList = StockAgainstAList.TestCase
TestStockAgainstAList.settings = looked_at(100, steps=30)

runs_in_common = some.lists(some.tuples(some.integers(0, 60), some.integers(1, 40)), min_size=1, max_size=6)


@looked_at(100)
@given(runs_in_common, some.lists(some.lists(some.booleans(), max_size=40), min_size=1, max_size=4))
def test_a_tag_position_is_granted_once_whatever_connection(
    common: list[tuple[int, int]], connections: list[list[bool]]
) -> None:
    """Both sides of one direction: the receiver grants, the sender spends; a connection ends, the marks stay."""
    here = Extents((start * 16, (start + length) * 16) for start, length in common)
    granted_mark = sent_mark = 0
    granted: list[int] = []
    for frames in connections:
        receiver, sender = Receiver(here), Credit()
        for sends in frames:
            spans, granted_mark = receiver.top_up(granted_mark)
            sent_mark = check_credit(spans, sent_mark, here)
            for start, length in spans:
                sender.add(start, length)
                granted += range(start, start + length - TAG_KEY_BYTES + 1, TAG_KEY_BYTES)
            assert sender.left == receiver.credit.left
            if sends and sender.left:
                receiver.accept(sender.take())
    assert all(here.covers(position, position + TAG_KEY_BYTES) for position in granted)
    assert all(low + TAG_KEY_BYTES <= high for low, high in pairwise(granted))


@looked_at(50)
@given(runs_in_common, some.integers(0, 2000))
def test_no_other_position_than_the_next_granted_is_accepted(common: list[tuple[int, int]], position: int) -> None:
    receiver = Receiver(Extents((start * 16, (start + length) * 16) for start, length in common))
    receiver.top_up(0)
    left, due = receiver.credit.left, receiver.credit.next
    if position == due:
        receiver.accept(position)
        assert receiver.credit.left == left - 1
        assert receiver.credit.next != position
    else:
        with pytest.raises(PeerError):
            receiver.accept(position)
        assert (receiver.credit.left, receiver.credit.next) == (left, due)
