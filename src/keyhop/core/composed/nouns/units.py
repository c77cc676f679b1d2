"""Queues of ranges: what a pool is. Positions count units; a queue holds no bits and no timer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

Units: TypeAlias = tuple[int, int]
"""[start, end) in units of the run."""


def count(ranges: Iterable[Units]) -> int:
    units = 0
    for start, end in ranges:
        units += end - start
    return units


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
    """Disjoint ranges in the order in which they are to be taken.

    Costs do not follow the number of units, and follow the logarithm of the number of pieces. What would give a unit
    twice raises ValueError, and changes nothing.
    """

    __slots__ = ("_rows", "level")

    def __init__(self, ranges: Iterable[Units] = ()) -> None:
        self._rows: list[list[int]] = []
        """One after the other; in each the pieces ascend, starts and ends by turns, and none touches the next.

        There is one row, but where a piece was put behind others that lie higher, or before others that lie lower.
        """
        self.level = 0
        """Units held."""
        for start, end in ranges:
            self.put(start, end)

    def __iter__(self) -> Iterator[Units]:
        return iter([piece for row in self._rows for piece in zip(row[::2], row[1::2], strict=True)])

    def __repr__(self) -> str:
        return f"Queue({list(self)})"

    def put(self, start: int, end: int) -> None:
        """Behind all others. Of no units: nothing happens."""
        rows = self._rows
        if start == end >= 0:
            return
        if len(rows) != 1 or not rows[0][-1] <= start < end:
            # Where it lies above all others it cannot be here.
            self._admit(start, end)
        self.level += end - start
        if rows and rows[-1][-1] <= start:
            append(rows[-1], start, end)
        else:
            rows.append([start, end])

    @property
    def first(self) -> Units | None:
        """The oldest stretch, not taken."""
        return (self._rows[0][0], self._rows[0][1]) if self._rows else None

    def put_first(self, start: int, end: int) -> None:
        """Before all others: what was just taken from there."""
        rows = self._rows
        self._admit(start, end)
        self.level += end - start
        if rows and end <= rows[0][0]:
            join(rows[0], start, end)
        else:
            rows.insert(0, [start, end])

    def put_back(self, ranges: Iterable[Units]) -> None:
        """What was taken and not used: oldest first again."""
        ranges = disjoint(tuple(ranges))
        for start, end in ranges:
            self._admit(start, end)
        if len(self._rows) > 1:
            pieces = sorted(self)
            self._rows = [[]]
            for start, end in pieces:
                append(self._rows[0], start, end)
        for start, end in ranges:
            self.level += end - start
            if self._rows:
                join(self._rows[0], start, end)
            else:
                self._rows.append([start, end])

    def _admit(self, start: int, end: int) -> None:
        if not 0 <= start < end:
            disjoint(((start, end),))
        for row in self._rows:
            if start < row[-1] and touches(row, start, end):
                raise ValueError(f"units {start} to {end}: some of them are here already")

    def front(self, number: int) -> tuple[Units, ...] | None:
        """The oldest units, not taken; None if there are too few."""
        if checked(number) > self.level:
            return None
        found: list[Units] = []
        for row in self._rows:
            for at in range(0, len(row), 2):
                if not number:
                    return tuple(found)
                start, end = row[at], row[at + 1]
                stop = min(end, start + number)
                found.append((start, stop))
                number -= stop - start
        return tuple(found)

    def back(self, number: int) -> tuple[Units, ...] | None:
        """The same from the other end."""
        if checked(number) > self.level:
            return None
        found: list[Units] = []
        for row in reversed(self._rows):
            for at in range(len(row) - 2, -1, -2):
                if not number:
                    break
                start, end = row[at], row[at + 1]
                low = max(start, end - number)
                found.append((low, end))
                number -= end - low
        return tuple(reversed(found))

    def take(self, number: int) -> tuple[Units, ...] | None:
        """The oldest units; None, and nothing taken, if there are too few."""
        if checked(number) > self.level:
            return None
        self.level -= number
        rows, found = self._rows, []
        while number:
            row = rows[0]
            start, end = row[0], row[0] + number
            if end < row[1]:
                row[0] = end
                found.append((start, end))
                break
            taken = 0
            while taken < len(row) and row[taken + 1] - row[taken] <= number:
                found.append((row[taken], row[taken + 1]))
                number -= row[taken + 1] - row[taken]
                taken += 2
            del row[:taken]
            if not row:
                del rows[0]
        return tuple(found)

    def has(self, ranges: Iterable[Units]) -> bool:
        return all(self._row(start, end) is not None for start, end in disjoint(tuple(ranges)))

    def remove(self, ranges: Iterable[Units]) -> bool:
        """Exactly these, or False and nothing."""
        ranges = disjoint(tuple(ranges))
        if len(ranges) == 1:
            return self._remove(*ranges[0])
        if any(self._row(start, end) is None for start, end in ranges):
            return False
        return all(self._remove(start, end) for start, end in ranges)

    def _remove(self, start: int, end: int) -> bool:
        row = self._row(start, end)
        if row is None:
            return False
        cut(row, start, end)
        self.level -= end - start
        if not row:
            self._rows.remove(row)
        return True

    def _row(self, start: int, end: int) -> list[int] | None:
        """Where one piece has all of these."""
        for row in self._rows:
            at = bisect_right(row, start)
            if at % 2 and end <= row[at]:
                return row
        return None

    def within(self, start: int, end: int) -> tuple[Units, ...]:
        """What of [start, end) is here, in the order of the queue; it stays."""
        found: list[Units] = []
        for row in self._rows if start < end else ():
            at = bisect_right(row, start) // 2 * 2
            while at < len(row) and row[at] < end:
                found.append((max(start, row[at]), min(end, row[at + 1])))
                at += 2
        return tuple(found)

    def missing(self, start: int, end: int, most: int) -> tuple[Units, ...]:
        """What of [start, end) is not here, ascending; the first `most` stretches of it, so that no question costs more
        than its answer."""
        found: list[Units] = []
        while start < end and len(found) < most:
            places = [(row, bisect_right(row, start)) for row in self._rows]
            if inside := [row[at] for row, at in places if at % 2]:
                start = max(inside)
                continue
            following = min((row[at] for row, at in places if at < len(row)), default=end)
            found.append((start, min(end, following)))
            start = following
        return tuple(found)

    def below(self, end: int) -> tuple[Units, ...]:
        """Takes out all that lies below a position: what a floor, a purge or a resync drops."""
        gone = self.within(0, end)
        for row in self._rows:
            at = bisect_right(row, end)
            # An odd place is inside a piece, whose rest begins there.
            row[:at] = [end] if at % 2 else []
        self.level -= count(gone)
        left = [row for row in self._rows if row]
        if len(left) > 1:
            pieces = [piece for row in left for piece in zip(row[::2], row[1::2], strict=True)]
            left, self.level = [], 0
            self._rows = left
            for piece in pieces:
                self.put(*piece)
        self._rows = left
        return gone

    def clear(self) -> tuple[Units, ...]:
        gone = tuple(self)
        self._rows.clear()
        self.level = 0
        return gone


def touches(row: Sequence[int], start: int, end: int) -> bool:
    """Whether any of [start, end) is in the row."""
    at = bisect_right(row, start)
    return at % 2 == 1 or (at < len(row) and row[at] < end)


def append(row: list[int], start: int, end: int) -> None:
    """What ends the row."""
    if row and row[-1] == start:
        row[-1] = end
    else:
        row += (start, end)


def join(row: list[int], start: int, end: int) -> None:
    """What touches nothing of the row; it is one piece with its neighbours."""
    at = bisect_right(row, start)
    before = at > 0 and row[at - 1] == start
    behind = at < len(row) and row[at] == end
    if before and behind:
        del row[at - 1 : at + 1]
    elif before:
        row[at - 1] = end
    elif behind:
        row[at] = start
    else:
        row[at:at] = (start, end)


def cut(row: list[int], start: int, end: int) -> None:
    """What one piece of the row has."""
    at = bisect_right(row, start)
    first, last = row[at - 1] == start, row[at] == end
    if first and last:
        del row[at - 1 : at + 1]
    elif first:
        row[at - 1] = end
    elif last:
        row[at] = start
    else:
        row[at:at] = (start, end)
