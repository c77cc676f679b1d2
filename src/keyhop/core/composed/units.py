"""Queues of ranges: what a pool is. Positions count units; a queue holds no bits and no timer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Units: TypeAlias = tuple[int, int]
"""[start, end) in units of the run."""


def count(ranges: Iterable[Units]) -> int:
    return sum(end - start for start, end in ranges)


class Queue:
    """Disjoint ranges in the order in which they are to be taken. Taking from the front costs the same at any size."""

    __slots__ = ("_parts", "level")

    def __init__(self, ranges: Iterable[Units] = ()) -> None:
        self._parts: deque[list[int]] = deque()
        self.level = 0
        """Units held."""
        for start, end in ranges:
            self.put(start, end)

    def __iter__(self) -> Iterator[Units]:
        return iter([(start, end) for start, end in self._parts])

    def __repr__(self) -> str:
        return f"Queue({list(self)})"

    def put(self, start: int, end: int) -> None:
        """Behind all others."""
        if start >= end:
            return
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
        self.level += end - start
        if self._parts and self._parts[0][0] == end:
            self._parts[0][0] = start
        else:
            self._parts.appendleft([start, end])

    def put_back(self, ranges: Iterable[Units]) -> None:
        """What was taken and not used: oldest first again."""
        parts = sorted([*(tuple(part) for part in self._parts), *(r for r in ranges if r[0] < r[1])])
        self._parts.clear()
        self.level = 0
        for start, end in parts:
            self.put(start, end)

    def front(self, number: int) -> tuple[Units, ...] | None:
        """The oldest units, not taken; None if there are too few."""
        if number > self.level:
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
        if number > self.level:
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
        if number > self.level:
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
        return all(any(part[0] <= start and end <= part[1] for part in self._parts) for start, end in ranges)

    def remove(self, ranges: Iterable[Units]) -> bool:
        """Exactly these, or False and nothing."""
        ranges = tuple(ranges)
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

    def below(self, end: int) -> tuple[Units, ...]:
        """Takes out all that lies below a position: what a floor, a purge or a resync drops."""
        gone = [(low, min(high, end)) for low, high in self._parts if low < end]
        kept = [(max(low, end), high) for low, high in self._parts if high > end]
        self._parts.clear()
        self.level = 0
        for low, high in kept:
            self.put(low, high)
        return tuple(gone)

    def clear(self) -> tuple[Units, ...]:
        gone = tuple(self)
        self._parts.clear()
        self.level = 0
        return gone
