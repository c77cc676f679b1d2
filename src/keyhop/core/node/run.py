"""One run as one end knows it: marks, segments, what is present and what is used."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from keyhop.core.messages import RunState, Span
from keyhop.core.model import PeerError, Purpose, Range, RunId, RunKind
from keyhop.core.node.extents import Extents
from keyhop.core.node.ledger import Book
from keyhop.core.node.rows import RunRow, SegmentRow

UNTOUCHED = "untouched"
GONE = "gone"
GONE_LIMIT = 64
"""Pieces of an opening run above its mark that are remembered one by one; a full memory refuses, it forgets nothing."""


class Segment:
    """A piece of one agreed block, sealed as one."""

    __slots__ = ("born", "epsilon", "length", "mark", "source", "spent_at", "start", "stored")

    def __init__(
        self, start: int, length: int, mark: str, epsilon: float, source: str, *, stored: bool, born: int
    ) -> None:
        self.start = start
        self.length = length
        self.mark = mark
        self.epsilon = epsilon
        self.source = source
        self.stored = stored
        """Whether a sealed copy is in the store."""
        self.born = born
        """When this process first had it, in nanoseconds of its own running time: a restart makes it young again."""
        self.spent_at: int | None = None
        """When its lease was used up or ended; the floor passes it a fetch lifetime later."""

    @property
    def end(self) -> int:
        return self.start + self.length


class Run:
    """Bytes of one directed run. Whoever changes it saves the row that `row()` or `segment_row()` gives."""

    def __init__(self, id: RunId, *, owned: bool) -> None:
        self.id = id
        self.owned = owned
        self.append = 0
        self.floor = 0
        self.mark = 0
        """Authentication runs: no position below it is used (owner) or granted (follower) again."""
        self.gone = Extents()
        """Opening runs: positions above the mark that are not used or granted again either. Who has a peer's TLS
        identity alone can claim or grant far up: that takes one key, where a jump of the mark would take all."""
        self.book = Book()
        self.segments: dict[int, Segment] = {}
        """Key runs, by start, in rising order."""
        self.present = Extents()
        """Authentication runs: what is here above the mark."""
        self.blocks: dict[int, int] = {}
        """Authentication runs: sealed blocks, start -> length, in the order in which they came."""
        self.used = Extents()
        """Key runs: bytes that were served, deciphered with or issued here (follower), one map for all purposes."""
        self._starts: list[int] | None = None
        """The keys of `segments`, to search in; None: to be made anew."""
        self._last_segment: Segment | None = None
        """Where `leased` looked last: fetches come in runs."""
        self.untouched = 0
        """Bytes of untouched segments."""

    @property
    def kind(self) -> RunKind:
        return self.id.kind

    def row(self) -> RunRow:
        sent, granted = (self.mark, 0) if self.owned else (0, self.mark)
        gone = tuple((start, end - start) for start, end in self.gone)
        return RunRow(self.id.peer, self.id.number, self.append, self.floor, sent, granted, gone)

    def segment_row(self, segment: Segment) -> SegmentRow:
        return SegmentRow(
            self.id.peer, self.id.number, segment.start, segment.length, segment.mark, segment.epsilon, segment.source
        )

    def range(self, segment: Segment) -> Range:
        return Range(self.id, segment.start, segment.length)

    def insert_segment(self, segment: Segment) -> None:
        """Keeps the starts in rising order; only a block that was waited for comes out of order."""
        late = bool(self.segments) and segment.start < next(reversed(self.segments))
        self.segments[segment.start] = segment
        if late:
            self.segments = dict(sorted(self.segments.items()))
            self._starts = None
        elif self._starts is not None:
            self._starts.append(segment.start)
        if segment.mark == UNTOUCHED:
            self.untouched += segment.length

    def forget_segment(self, start: int) -> None:
        """It lies below the floor: nothing is left of it."""
        del self.segments[start]
        self._starts = self._last_segment = None

    def set_mark(self, segment: Segment, mark: str) -> None:
        """A mark never falls: untouched -> leased -> gone."""
        if mark == UNTOUCHED or segment.mark == GONE:
            raise AssertionError(f"segment {segment.start}: mark {segment.mark} cannot become {mark}")
        if segment.mark == UNTOUCHED:
            self.untouched -= segment.length
        segment.mark = mark

    def oldest_untouched(self) -> Iterator[Segment]:
        for segment in self.segments.values():
            if segment.mark == UNTOUCHED:
                yield segment

    def exactly(self, spans: tuple[Span, ...], mark: str) -> list[Segment] | None:
        """The segments that these spans name whole, all with this mark and none used; None if any is not so."""
        found: list[Segment] = []
        for start, length in spans:
            segment = self.segments.get(start)
            if segment is None or segment.length != length or segment.mark != mark or segment.start < self.floor:
                return None
            if self.used.touches(start, segment.end) or segment in found:
                return None
            found.append(segment)
        return found

    def leased(self, start: int, end: int, purpose: Purpose) -> list[Segment] | None:
        """The segments that cover [start, end), all leased for this purpose; None if any byte lies outside."""
        segment = self._last_segment
        if (
            segment is not None
            and segment.start <= start
            and end <= segment.end
            and segment.mark == purpose
            and segment.start >= self.floor
        ):
            return [segment]
        covering: list[Segment] = []
        position = start
        segment = self._last_segment = self._segment_at(position)
        while segment is not None and segment.mark == purpose and segment.start >= self.floor:
            covering.append(segment)
            position = segment.end
            if position >= end:
                return covering
            segment = self.segments.get(position)
        return None

    def parts(self, start: int, end: int) -> Iterator[tuple[int, int, Segment]]:
        """What of [start, end) lies in which segment."""
        while start < end:
            segment = self._segment_at(start)
            if segment is None:
                return
            yield start, min(end, segment.end), segment
            start = segment.end

    def _segment_at(self, position: int) -> Segment | None:
        segment = self.segments.get(position)
        if segment is not None:
            return segment
        if self._starts is None:
            self._starts = list(self.segments)
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            return None
        candidate = self.segments[self._starts[index]]
        return candidate if candidate.end > position else None

    # --- what the other end is told, and what it tells ----------------------------------------------------------------

    def state(self) -> RunState:
        touched = Extents([(self.base, self.append)])
        if self.kind is RunKind.KEY:
            for segment in self.segments.values():
                if segment.mark == UNTOUCHED:
                    touched.remove(segment.start, segment.end)
        else:
            for start, end in self.present:
                touched.remove(start, end)
            for start, end in self.gone:
                touched.add(start, end)
        return RunState(self.id.number, self.append, self.base, tuple((a, b - a) for a, b in touched))

    @property
    def base(self) -> int:
        """Below this nothing can be used: the floor of a key run, the mark of an authentication run."""
        return self.floor if self.kind is RunKind.KEY else max(self.floor, self.mark)

    def place(self, start: int, length: int) -> None:
        """Raises the append mark past a placement; positions that are skipped are a hole at this end."""
        if start < self.append:
            raise PeerError(f"run {self.id.number}: placement at {start} is below the append mark {self.append}")
        self.append = start + length

    # --- openings -----------------------------------------------------------------------------------------------------

    def raise_mark(self, mark: int) -> None:
        """No position below it serves again, nor those that are gone and now adjoin it."""
        self.mark = max(self.mark, mark)
        for start, end in self.gone:
            if start <= self.mark:
                self.mark = max(self.mark, end)
        self.gone.remove(0, self.mark)

    def take_out(self, start: int, end: int) -> None:
        """These positions never serve again; the mark rises only if they adjoin it. Raises PeerError if none can be
        remembered any more."""
        if start <= self.mark:
            self.raise_mark(end)
            return
        wider = Extents([*self.gone, (start, end)])
        if len(wider) > max(GONE_LIMIT, len(self.gone)):
            raise PeerError(f"opening run {self.id.number}: {GONE_LIMIT} pieces above the mark are taken out already")
        self.gone = wider

    def fresh(self, start: int, end: int) -> Extents:
        """What of [start, end) is here and may still be used or granted for an opening."""
        fresh = Extents(self.present.within(max(start, self.mark), end))
        for low, high in self.gone:
            fresh.remove(low, high)
        return fresh

    def available(self) -> int:
        """Authentication runs: bytes above the mark."""
        return self.present.total()
