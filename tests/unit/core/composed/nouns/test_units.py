"""Queues of ranges: what comes out is what went in, in order, once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.composed.nouns.units import Queue, Units, count


def test_the_oldest_units_leave_first_and_neighbours_are_one_range() -> None:
    queue = Queue([(0, 4), (4, 6), (9, 12)])
    assert list(queue) == [(0, 6), (9, 12)]
    assert queue.take(7) == ((0, 6), (9, 10))
    assert queue.level == 2


def test_too_few_units_leave_the_queue_as_it_was() -> None:
    queue = Queue([(0, 4)])
    assert queue.take(5) is None
    assert queue.front(5) is None
    assert list(queue) == [(0, 4)]


def test_ranges_are_removed_all_or_none() -> None:
    queue = Queue([(0, 10)])
    assert not queue.remove([(2, 4), (8, 12)])
    assert queue.remove([(2, 4), (8, 10)])
    assert list(queue) == [(0, 2), (4, 8)]
    assert queue.level == 6


def test_what_is_given_back_is_the_oldest_again() -> None:
    queue = Queue([(0, 10)])
    taken = queue.take(3)
    assert taken is not None
    queue.put_back(taken)
    assert list(queue) == [(0, 10)]


@given(st.lists(st.tuples(st.sampled_from(["take", "back", "remove"]), st.integers(1, 7)), max_size=40))
def test_no_unit_is_lost_or_doubled(moves: list[tuple[str, int]]) -> None:
    queue, out = Queue([(0, 40)]), set()
    for move, number in moves:
        if move == "take" and (ranges := queue.take(number)):
            units = {unit for start, end in ranges for unit in range(start, end)}
            assert not units & out
            out |= units
        elif move == "back" and out:
            unit = min(out)
            out.discard(unit)
            queue.put_back([(unit, unit + 1)])
        elif move == "remove" and queue.remove([(number, number + 1)]):
            assert number not in out
            out.add(number)
        inside = {unit for start, end in queue for unit in range(start, end)}
        assert inside | out == set(range(40))
        assert not inside & out
        assert queue.level == len(inside) == count(list(queue))


@pytest.mark.parametrize("number", [-1, -(1 << 62)])
def test_a_queue_gives_no_number_below_nought(number: int) -> None:
    queue = Queue([(0, 10)])
    queue.take(4)
    for give in (queue.take, queue.front, queue.back):
        with pytest.raises(ValueError, match="0 or more"):
            give(number)
    assert list(queue) == [(4, 10)]


@pytest.mark.parametrize("ranges", [[(8, 4)], [(4, 4)], [(-5, 5)], [(4, 6), (5, 7)], [(4, 5), (4, 5)]])
def test_reversed_empty_negative_or_doubled_ranges_are_no_ranges(ranges: list[tuple[int, int]]) -> None:
    queue = Queue([(0, 10)])
    for ask in (queue.has, queue.remove):
        with pytest.raises(ValueError, match="must be"):
            ask(ranges)
    with pytest.raises(ValueError, match="must be"):
        Queue().put_back(ranges)
    assert list(queue) == [(0, 10)]
    assert queue.level == 10


def test_what_is_here_is_not_put_in_once_more() -> None:
    queue = Queue([(0, 10), (20, 30)])
    for put in (lambda: queue.put(5, 6), lambda: queue.put_first(9, 12), lambda: queue.put_back([(25, 26)])):
        with pytest.raises(ValueError, match="unit"):
            put()
    assert list(queue) == [(0, 10), (20, 30)]
    assert queue.level == 20


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_many_ranges_are_removed_as_few_are(inside: set[int], wanted: set[int]) -> None:
    one_by_one = Queue([(unit, unit + 1) for unit in sorted(inside)])
    at_once = Queue([(unit, unit + 1) for unit in sorted(inside)])
    there = at_once.has([(unit, unit + 1) for unit in wanted])
    assert there is (wanted <= inside)
    assert at_once.remove([(unit, unit + 1) for unit in wanted]) is there
    for unit in wanted if there else ():
        assert one_by_one.remove([(unit, unit + 1)])
    assert list(at_once) == list(one_by_one)
    assert at_once.level == one_by_one.level


class Pieces:
    """The slow twin: pieces in a list, every one of them looked at."""

    def __init__(self) -> None:
        self.parts: list[Units] = []

    def _here(self, start: int, end: int) -> bool:
        return any(start < high and low < end for low, high in self.parts)

    def _join(self, parts: list[Units]) -> list[Units]:
        joined: list[Units] = []
        for start, end in parts:
            if joined and joined[-1][1] == start:
                joined[-1] = joined[-1][0], end
            else:
                joined.append((start, end))
        return joined

    def put(self, start: int, end: int) -> None:
        if self._here(start, end):
            raise ValueError
        self.parts = self.parts[:-1] + self._join([*self.parts[-1:], (start, end)])

    def put_first(self, start: int, end: int) -> None:
        if self._here(start, end):
            raise ValueError
        self.parts = self._join([(start, end), *self.parts[:1]]) + self.parts[1:]

    def put_back(self, ranges: list[Units]) -> None:
        parts = sorted([*self.parts, *ranges])
        if any(start < end for (_, end), (start, _) in pairwise(parts)):
            raise ValueError
        self.parts = self._join(parts)

    def front(self, number: int) -> tuple[Units, ...] | None:
        units = [unit for start, end in self.parts for unit in range(start, end)]
        return None if number > len(units) else self._of(units[:number])

    def back(self, number: int) -> tuple[Units, ...] | None:
        units = [unit for start, end in self.parts for unit in range(start, end)]
        return None if number > len(units) else self._of(units[len(units) - number :])

    def _of(self, units: list[int]) -> tuple[Units, ...]:
        found = [[unit for unit in units if start <= unit < end] for start, end in self.parts]
        return tuple((some[0], some[-1] + 1) for some in found if some)

    def take(self, number: int) -> tuple[Units, ...] | None:
        found = self.front(number)
        for units in found or ():
            self._cut(units)
        return found

    def has(self, ranges: list[Units]) -> bool:
        return all(any(low <= start and end <= high for low, high in self.parts) for start, end in ranges)

    def remove(self, ranges: list[Units]) -> bool:
        if any(one < high and low < other for (low, high), (one, other) in pairwise(sorted(ranges))):
            raise ValueError
        if not self.has(ranges):
            return False
        for units in ranges:
            self._cut(units)
        return True

    def within(self, start: int, end: int) -> tuple[Units, ...]:
        parts = [(max(low, start), min(high, end)) for low, high in self.parts]
        return tuple((low, high) for low, high in parts if low < high)

    def below(self, end: int) -> tuple[Units, ...]:
        gone = self.within(0, end)
        self.parts = self._join([(max(low, end), high) for low, high in self.parts if high > end])
        return gone

    def _cut(self, gone: Units) -> None:
        left = [((low, min(high, gone[0])), (max(low, gone[1]), high)) for low, high in self.parts]
        self.parts = [part for both in left for part in dict.fromkeys(both) if part[0] < part[1]]


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except ValueError:
        return "refused"


stretches = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))
doings = st.one_of(
    st.tuples(st.sampled_from(["put", "put_first", "within"]), stretches),
    st.tuples(st.sampled_from(["put_back", "remove", "has"]), st.lists(stretches, max_size=4, unique=True).map(tuple)),
    st.tuples(st.sampled_from(["take", "front", "back", "below"]), st.integers(1, 40)),
)


@given(st.lists(doings, max_size=40))
def test_a_queue_does_what_a_list_of_pieces_does(done: list[tuple[str, Any]]) -> None:
    queue, twin = Queue(), Pieces()
    for name, given_ in done:
        arguments = given_ if name in ("put", "put_first", "within") else (given_,)
        theirs = [list(part) if isinstance(part, tuple) else part for part in arguments]
        if name == "has" and outcome(Queue().put_back, given_) == "refused":
            continue
        assert outcome(getattr(queue, name), *arguments) == outcome(getattr(twin, name), *theirs), name
        assert list(queue) == twin.parts
        assert queue.level == count(twin.parts)


@given(st.lists(stretches, max_size=12), stretches, st.integers(1, 5))
def test_what_is_missing_is_the_rest_of_what_is_here(put: list[Units], asked: Units, most: int) -> None:
    queue = Queue()
    for start, end in put:
        outcome(queue.put, start, end)
    here = {unit for low, high in queue for unit in range(low, high)}
    gaps = [unit for unit in range(*asked) if unit not in here]
    whole = queue.missing(*asked, 1 << 30)
    assert [unit for low, high in whole for unit in range(low, high)] == gaps
    assert all(high < low for (_, high), (low, _) in pairwise(whole)), "one stretch each"
    assert queue.missing(*asked, most) == whole[:most]
    assert queue.missing(asked[1], asked[0], most) == (), "nothing lies there"


@pytest.mark.parametrize("pieces", [1_000, 32_000])
def test_few_of_many_pieces_are_looked_at(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Looked(list[int]):
        looks = 0

        def __getitem__(self, at: Any) -> Any:
            Looked.looks += 1
            return super().__getitem__(at)

        def __iter__(self) -> Any:
            raise AssertionError("all of them are")

    queue = Queue([(4 * piece, 4 * piece + 3) for piece in range(pieces)])
    monkeypatch.setattr(queue, "_rows", [Looked(queue._rows[0])])
    middle = 4 * (pieces // 2)
    assert queue.has([(middle, middle + 2)])
    assert queue.remove([(middle + 1, middle + 2)])
    queue.put_back([(middle + 1, middle + 2)])
    assert queue.within(middle + 1, middle + 5) == ((middle + 1, middle + 3), (middle + 4, middle + 5))
    assert queue.missing(middle, 4 * pieces, 2) == ((middle + 3, middle + 4), (middle + 7, middle + 8))
    assert Looked.looks < 15 * pieces.bit_length()


def test_what_was_put_lower_is_taken_in_the_order_of_putting_until_something_is_put_back() -> None:
    queue = Queue([(20, 30), (0, 10)])
    assert not queue.has([(5, 25)])
    assert queue.take(2) == ((20, 22),)
    queue.put_back([(20, 21)])
    assert queue.take(11) == ((0, 10), (20, 21))
    assert list(queue) == [(22, 30)]
