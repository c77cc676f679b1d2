"""A set of byte positions held as disjoint intervals: leases, used maps and what is untouched."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Extents:
    """Sorted, disjoint, non-adjacent [start, end) intervals. Cost follows the number of intervals, not of bytes."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in intervals:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __len__(self) -> int:
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extents) and self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Extents({list(self)})"

    def total(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        ends = self._ends
        if ends and start == ends[-1]:
            # At the end of what is here: so it mostly goes.
            ends[-1] = end
            return
        low = bisect_left(ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def remove(self, start: int, end: int) -> None:
        if start >= end:
            return
        low = bisect_right(self._ends, start)
        high = bisect_left(self._starts, end)
        if low >= high:
            return
        first, last = self._starts[low], self._ends[high - 1]
        starts = [first] if first < start else []
        ends = [start] if first < start else []
        if last > end:
            starts.append(end)
            ends.append(last)
        self._starts[low:high] = starts
        self._ends[low:high] = ends

    def covers(self, start: int, end: int) -> bool:
        """Whether every position of [start, end) is in the set."""
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._ends[index] >= end

    def touches(self, start: int, end: int) -> bool:
        """Whether any position of [start, end) is in the set."""
        ends = self._ends
        if not ends or start >= ends[-1]:
            return False
        return self._starts[bisect_right(ends, start)] < end

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of the set inside [start, end)."""
        index = bisect_right(self._ends, start)
        while index < len(self._starts) and self._starts[index] < end:
            yield max(start, self._starts[index]), min(end, self._ends[index])
            index += 1
