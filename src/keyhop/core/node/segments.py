"""The segments of a key run, kept as stretches of alike ones, so that what they cost does not follow their number."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

import msgspec

from keyhop.core.node.extents import Extents

UNTOUCHED = "untouched"
GONE = "gone"


class Segment(msgspec.Struct, frozen=True, gc=False):
    """A piece of one agreed block, sealed as one: what is known of it now."""

    start: int
    length: int
    mark: str
    stored: bool
    """Whether a sealed copy is in the store."""
    born: int
    """When this process first had it, in nanoseconds of its own running time: a restart makes it young again."""
    spent_at: int | None = None
    """When its lease was used up or ended; the floor passes it a fetch lifetime later."""

    @property
    def end(self) -> int:
        return self.start + self.length


class Stretch:
    """Neighbouring segments that differ in their places alone; each has `piece` bytes, the last may have fewer."""

    __slots__ = ("born", "end", "mark", "piece", "spent_at", "start", "stored")

    mark: str
    stored: bool
    born: int
    spent_at: int | None

    def __init__(self, start: int, end: int, piece: int, like: Segment | Stretch) -> None:
        self.start = start
        self.end = end
        self.piece = min(piece, end - start)
        self.mark = like.mark
        self.stored = like.stored
        self.born = like.born
        self.spent_at = like.spent_at

    def first_of(self, position: int) -> int:
        """Where the segment begins that this position lies in."""
        return position - (position - self.start) % self.piece

    def segment(self, start: int) -> Segment:
        return Segment(
            start,
            min(self.piece, self.end - start),
            self.mark,
            self.stored,
            self.born,
            self.spent_at,
        )

    def segments(self) -> Iterator[Segment]:
        for start in range(self.start, self.end, self.piece):
            yield self.segment(start)

    def outside(self, live: Extents) -> Iterator[tuple[int, int]]:
        """The segments that `live` does not touch: from where to where, one after another."""
        position = self.start
        for low, high in list(live.within(self.start, self.end)):
            if position < self.first_of(low):
                yield position, self.first_of(low)
            position = min(self.end, self.first_of(high - 1) + self.piece)
        if position < self.end:
            yield position, self.end

    def goes_on_with(self, following: Stretch) -> bool:
        """Whether the two are one stretch."""
        return (
            self.end == following.start
            and (self.end - self.start) % self.piece == 0
            and (
                following.piece == self.piece
                or (following.piece < self.piece and following.piece == following.end - following.start)
            )
            and self.mark == following.mark
            and self.spent_at == following.spent_at
            and self.born == following.born
            and self.stored == following.stored
        )


class Segments:
    """By start, in rising order: like a dict of them, but each is a value, and `replace` puts another in its place."""

    __slots__ = ("_lent", "_starts", "_stretches", "_untouched", "untouched_bytes")

    def __init__(self) -> None:
        self._stretches: dict[int, Stretch] = {}
        self._starts: list[int] = []
        """Of all stretches, rising. The next two are parts of it: what time and leases look for."""
        self._untouched: list[int] = []
        self._lent: list[int] = []
        """Leased, and not known to be spent."""
        self.untouched_bytes = 0

    def __iter__(self) -> Iterator[int]:
        return (segment.start for segment in self.values())

    def __len__(self) -> int:
        return sum(-(-(each.end - each.start) // each.piece) for each in self._stretches.values())

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __contains__(self, start: int) -> bool:
        return self.get(start) is not None

    def __getitem__(self, start: int) -> Segment:
        found = self.get(start)
        if found is None:
            raise KeyError(start)
        return found

    def get(self, start: int) -> Segment | None:
        """The segment that begins here."""
        found = self.at(start)
        return found if found is not None and found.start == start else None

    def at(self, position: int) -> Segment | None:
        """The segment that this position lies in."""
        stretch = self._stretch_at(position)
        return None if stretch is None else stretch.segment(stretch.first_of(position))

    def values(self) -> Iterator[Segment]:
        for stretch in self.stretches():
            yield from stretch.segments()

    def stretches(self) -> Iterator[Stretch]:
        """All of them; changes made meanwhile are not seen, or seen as a whole."""
        return self._each(self._starts)

    def untouched(self) -> Iterator[Stretch]:
        return self._each(self._untouched)

    def lent(self) -> Iterator[Stretch]:
        """What is leased and not known to be spent."""
        return self._each(self._lent)

    def _each(self, starts: list[int]) -> Iterator[Stretch]:
        position = -1
        while (index := bisect_right(starts, position)) < len(starts):
            stretch = self._stretches[starts[index]]
            # A stretch may be cut or joined before the next one is asked for.
            position = stretch.end - 1
            yield stretch

    def _stretch_at(self, position: int) -> Stretch | None:
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            return None
        stretch = self._stretches[self._starts[index]]
        return stretch if position < stretch.end else None

    # --- changes ------------------------------------------------------------------------------------------------------

    def insert(self, segment: Segment) -> None:
        """It must not overlap another; only one that was waited for lies below the last."""
        self._place(Stretch(segment.start, segment.end, segment.length, segment))

    def replace(self, segment: Segment) -> None:
        """What is known of the segment at this place from now on; start and length stay."""
        self._cut(segment.start, segment.end)
        self._place(Stretch(segment.start, segment.end, segment.length, segment))

    def spend(self, start: int, end: int, now: int) -> None:
        """The leases of these segments, all of one stretch, are over."""
        stretch = self._cut(start, end)
        spent = Stretch(start, end, stretch.piece, stretch)
        spent.spent_at = now
        self._place(spent)

    def forget_below(self, floor: int) -> None:
        """All segments that end at or below the floor."""
        while self._starts:
            stretch = self._stretches[self._starts[0]]
            end = stretch.end if stretch.end <= floor else stretch.first_of(max(floor, stretch.start))
            if end == stretch.start:
                return
            self._cut(stretch.start, end)

    def _cut(self, start: int, end: int) -> Stretch:
        """Takes these segments out, which must lie in one stretch; gives the stretch as it was."""
        stretch = self._stretch_at(start)
        if (
            stretch is None
            or stretch.first_of(start) != start
            or not start < end <= stretch.end
            or (end < stretch.end and stretch.first_of(end) != end)
        ):
            raise AssertionError(f"no segments of one kind lie at {start} to {end}")
        self._take(stretch)
        if stretch.start < start:
            self._put(Stretch(stretch.start, start, stretch.piece, stretch))
        if end < stretch.end:
            self._put(Stretch(end, stretch.end, stretch.piece, stretch))
        return stretch

    def _place(self, stretch: Stretch) -> None:
        """Puts it in, as one with its neighbours where they are alike."""
        index = bisect_left(self._starts, stretch.start)
        following = self._stretches[self._starts[index]] if index < len(self._starts) else None
        before = self._stretches[self._starts[index - 1]] if index else None
        if (before is not None and before.end > stretch.start) or (
            following is not None and following.start < stretch.end
        ):
            raise AssertionError(f"a segment at {stretch.start} to {stretch.end} overlaps another")
        if following is not None and stretch.goes_on_with(following):
            self._take(following)
            stretch.end = following.end
        if before is not None and before.goes_on_with(stretch):
            if before.mark == UNTOUCHED:
                self.untouched_bytes += stretch.end - before.end
            before.end = stretch.end
        else:
            self._put(stretch)

    def _put(self, stretch: Stretch) -> None:
        self._stretches[stretch.start] = stretch
        insort(self._starts, stretch.start)
        index = self._index(stretch)
        if index is not None:
            insort(index, stretch.start)
        if stretch.mark == UNTOUCHED:
            self.untouched_bytes += stretch.end - stretch.start

    def _take(self, stretch: Stretch) -> None:
        del self._stretches[stretch.start]
        del self._starts[bisect_left(self._starts, stretch.start)]
        index = self._index(stretch)
        if index is not None:
            del index[bisect_left(index, stretch.start)]
        if stretch.mark == UNTOUCHED:
            self.untouched_bytes -= stretch.end - stretch.start

    def _index(self, stretch: Stretch) -> list[int] | None:
        if stretch.mark == UNTOUCHED:
            return self._untouched
        return self._lent if stretch.mark != GONE and stretch.spent_at is None else None
