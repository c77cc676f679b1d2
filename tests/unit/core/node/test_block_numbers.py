"""Which block numbers were seen: a bit map of 64 under a mark, against a plain set."""

from hypothesis import given
from hypothesis import strategies as some

from keyhop.core.node.block_numbers import NOTHING_SEEN, seen, union, with_number

numbers = some.one_of(some.integers(0, 200), some.integers(0, (1 << 63) - 1))


def marks_of(seen_numbers: list[int]) -> tuple[int, int]:
    marks = NOTHING_SEEN
    for number in seen_numbers:
        marks = with_number(marks, number)
    return marks


def is_seen(seen_numbers: list[int], number: int) -> bool:
    """The slow twin: what is 64 or more below the highest is too old to tell, and counts as seen."""
    return number in seen_numbers or (bool(seen_numbers) and max(seen_numbers) - number >= 64)


@given(some.lists(numbers, max_size=20), numbers)
def test_a_number_is_seen_if_it_was_there_or_is_too_old(given_numbers: list[int], number: int) -> None:
    assert seen(marks_of(given_numbers), number) == is_seen(given_numbers, number)


@given(some.lists(numbers, max_size=10), some.lists(numbers, max_size=10))
def test_a_union_has_seen_what_either_has_seen(one: list[int], other: list[int]) -> None:
    assert union(marks_of(one), marks_of(other)) == union(marks_of(other), marks_of(one)) == marks_of(one + other)


@given(some.lists(numbers, max_size=20))
def test_marks_stay_within_64_bits(given_numbers: list[int]) -> None:
    assert marks_of(given_numbers)[1] < 1 << 64
