"""Queues of ranges: what comes out is what went in, in order, once."""

from __future__ import annotations

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
