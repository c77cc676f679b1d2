"""Queues of ranges: what comes out is what went in, in order, once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.composed.units import Queue, count


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
