"""Queues of ranges: what a pool is. Positions count units; a queue holds no bits and no timer."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

Units: TypeAlias = tuple[int, int]
"""[start, end) in units of the run."""


FEW = 8
"""So many ranges are looked for one by one; more of them in one pass over the queue."""


def count(ranges: Iterable[Units]) -> int:
    return sum(end - start for start, end in ranges)


def disjoint(ranges: Sequence[Units]) -> Sequence[Units]:
    """The same; raises ValueError where they are not ranges of units, or one unit is in two of them."""
    for start, end in ranges:
        if not 0 <= start < end:
            raise ValueError(f"units {start} to {end}: must begin at 0 or later and end after their beginning")
    if len(ranges) > 1:
        for (_, end), (start, _) in pairwise(sorted(ranges)):
            if start < end:
                raise ValueError(f"unit {start} is named twice: ranges must be disjoint")
    return ranges


def checked(number: int) -> int:
    """Less than nothing would move the front of a queue back, over key that was given."""
    if number < 0:
        raise ValueError(f"{number} units: must be 0 or more")
    return number


class Queue:
    """Disjoint ranges in the order in which they are to be taken. Taking from the front costs the same at any size.

    What would give a unit twice raises ValueError, and changes nothing.
    """

    __slots__ = ("_high", "_parts", "level")

    def __init__(self, ranges: Iterable[Units] = ()) -> None:
        self._parts: deque[list[int]] = deque()
        self._high = 0
        """Nothing that is here ends later."""
        self.level = 0
        """Units held."""
        for start, end in ranges:
            self.put(start, end)

    def __iter__(self) -> Iterator[Units]:
        return iter([(start, end) for start, end in self._parts])

    def __repr__(self) -> str:
        return f"Queue({list(self)})"

    def put(self, start: int, end: int) -> None:
        """Behind all others. Of no units: nothing happens."""
        if start == end >= 0:
            return
        self._admit(start, end)
        self.level += end - start
        if self._parts and self._parts[-1][1] == start:
            self._parts[-1][1] = end
        else:
            self._parts.append([start, end])

    @property
    def first(self) -> Units | None:
        """The oldest stretch, not taken."""
        return (self._parts[0][0], self._parts[0][1]) if self._parts else None

    def put_first(self, start: int, end: int) -> None:
        """Before all others: what was just taken from there."""
        self._admit(start, end)
        self.level += end - start
        if self._parts and self._parts[0][0] == end:
            self._parts[0][0] = start
        else:
            self._parts.appendleft([start, end])

    def put_back(self, ranges: Iterable[Units]) -> None:
        """What was taken and not used: oldest first again."""
        parts = sorted(disjoint([*self, *ranges]))
        self._parts.clear()
        self.level = self._high = 0
        for start, end in parts:
            self.put(start, end)

    def _admit(self, start: int, end: int) -> None:
        disjoint(((start, end),))
        if start < self._high and any(low < end and start < high for low, high in self._parts):
            raise ValueError(f"units {start} to {end}: some of them are here already")
        self._high = max(self._high, end)

    def front(self, number: int) -> tuple[Units, ...] | None:
        """The oldest units, not taken; None if there are too few."""
        if checked(number) > self.level:
            return None
        found: list[Units] = []
        for start, end in self._parts:
            stop = min(end, start + number)
            if stop > start:
                found.append((start, stop))
            number -= stop - start
            if not number:
                break
        return tuple(found)

    def back(self, number: int) -> tuple[Units, ...] | None:
        """The same from the other end."""
        if checked(number) > self.level:
            return None
        found: list[Units] = []
        for start, end in reversed(self._parts):
            low = max(start, end - number)
            if low < end:
                found.append((low, end))
            number -= end - low
            if not number:
                break
        return tuple(reversed(found))

    def take(self, number: int) -> tuple[Units, ...] | None:
        """The oldest units; None, and nothing taken, if there are too few."""
        parts = self._parts
        if checked(number) > self.level:
            return None
        self.level -= number
        if parts:
            first = parts[0]
            if first[1] - first[0] > number:
                first[0] += number
                return ((first[0] - number, first[0]),)
        found: list[Units] = []
        while number:
            first = parts[0]
            length = first[1] - first[0]
            if length <= number:
                found.append((first[0], first[1]))
                parts.popleft()
                number -= length
            else:
                found.append((first[0], first[0] + number))
                first[0] += number
                number = 0
        return tuple(found)

    def has(self, ranges: Iterable[Units]) -> bool:
        ranges = disjoint(tuple(ranges))
        if len(ranges) <= FEW:
            return all(any(part[0] <= start and end <= part[1] for part in self._parts) for start, end in ranges)
        return self._without(ranges) is not None

    def remove(self, ranges: Iterable[Units]) -> bool:
        """Exactly these, or False and nothing."""
        ranges = tuple(ranges)
        if len(ranges) > FEW:
            left = self._without(disjoint(ranges))
            if left is None:
                return False
            self._parts = deque(left)
            self.level -= count(ranges)
            return True
        if not self.has(ranges):
            return False
        for start, end in ranges:
            index = next(n for n, part in enumerate(self._parts) if part[0] <= start and end <= part[1])
            part = self._parts[index]
            low, high = part
            self.level -= end - start
            if low == start:
                part[0] = end
                if end == high:
                    del self._parts[index]
            elif end == high:
                part[1] = start
            else:
                part[1] = start
                self._parts.insert(index + 1, [end, high])
        return True

    def _without(self, ranges: Sequence[Units]) -> list[list[int]] | None:
        """All parts, in their order, less these; None if any of these is not here."""
        wanted, found = sorted(ranges), 0
        left: list[list[int]] = []
        for low, high in self._parts:
            at = bisect_left(wanted, (low, low))
            while at < len(wanted) and wanted[at][0] < high:
                start, end = wanted[at]
                if end > high:
                    return None
                if low < start:
                    left.append([low, start])
                low, found, at = end, found + 1, at + 1
            if low < high:
                left.append([low, high])
        return left if found == len(wanted) else None

    def below(self, end: int) -> tuple[Units, ...]:
        """Takes out all that lies below a position: what a floor, a purge or a resync drops."""
        gone = [(low, min(high, end)) for low, high in self._parts if low < end]
        kept = [(max(low, end), high) for low, high in self._parts if high > end]
        self._parts.clear()
        self.level = self._high = 0
        for low, high in kept:
            self.put(low, high)
        return tuple(gone)

    def clear(self) -> tuple[Units, ...]:
        gone = tuple(self)
        self._parts.clear()
        self.level = self._high = 0
        return gone
