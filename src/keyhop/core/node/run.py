"""One run as one end knows it: marks, segments, what is present and what is used."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from msgspec import structs

from keyhop.core.messages import RunState, Span
from keyhop.core.model import POSITION_LIMIT, PeerError, Purpose, Range, RunId, RunKind
from keyhop.core.node.extents import Extents
from keyhop.core.node.ledger import Book
from keyhop.core.node.provenance import Provenances
from keyhop.core.node.rows import RunRow, SegmentRow
from keyhop.core.node.segments import GONE as GONE
from keyhop.core.node.segments import UNTOUCHED as UNTOUCHED
from keyhop.core.node.segments import Segment as Segment
from keyhop.core.node.segments import Segments

GONE_LIMIT = 64
"""Pieces of an opening run above its mark that are remembered one by one; a full memory refuses, it forgets nothing."""


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
        self.segments = Segments()
        """Of a key run."""
        self.origins = Provenances()
        """Of a key run: where its bytes come from."""
        self.present = Extents()
        """Authentication runs: what is here above the mark."""
        self.blocks: dict[int, int] = {}
        """Authentication runs: sealed blocks, start -> length, by start."""
        self.used = Extents()
        """Key runs: bytes that were served, deciphered with or issued here (follower), one map for all purposes."""
        self._last_segment: Segment | None = None
        """Where `leased` looked last: fetches come in runs."""

    @property
    def kind(self) -> RunKind:
        return self.id.kind

    def keep_block(self, start: int, length: int) -> None:
        """A sealed block of an authentication run."""
        last = next(reversed(self.blocks), -1)
        self.blocks[start] = length
        if start < last:
            # Placed below another: batches of a peer need not come in the order of their places.
            self.blocks = dict(sorted(self.blocks.items()))

    def blocks_before(self, end: int) -> list[tuple[int, int]]:
        """Sealed blocks that begin below `end`; the others are not looked at, however many."""
        return list(takewhile(lambda block: block[0] < end, self.blocks.items()))

    @property
    def untouched(self) -> int:
        """Bytes of untouched segments."""
        return self.segments.untouched_bytes

    def pads_bytes(self) -> int:
        """Leased as pads and not known to be used."""
        leases = (stretch for stretch in self.segments.lent() if stretch.mark == Purpose.PAD)
        return sum(
            lease.end - lease.start - sum(end - start for start, end in self.used.within(lease.start, lease.end))
            for lease in leases
        )

    def row(self) -> RunRow:
        sent, granted = (self.mark, 0) if self.owned else (0, self.mark)
        gone = tuple((start, end - start) for start, end in self.gone)
        return RunRow(self.id.peer, self.id.number, self.append, self.floor, sent, granted, gone)

    def segment_row(self, segment: Segment) -> SegmentRow:
        return SegmentRow(self.id.peer, self.id.number, segment.start, segment.length, segment.mark)

    def range(self, segment: Segment) -> Range:
        return Range(self.id, segment.start, segment.length)

    def insert_segment(self, segment: Segment) -> None:
        self.segments.insert(segment)

    def forget_below(self, floor: int) -> None:
        """Nothing is left of what ends at or below it."""
        self.segments.forget_below(floor)
        self._last_segment = None

    def set_mark(self, segment: Segment, mark: str, **known: Any) -> Segment:
        """A mark never falls: untouched -> leased -> gone. `known` as `msgspec.structs.replace` has it."""
        if mark == UNTOUCHED or segment.mark == GONE:
            raise AssertionError(f"segment {segment.start}: mark {segment.mark} cannot become {mark}")
        changed = structs.replace(segment, mark=mark, **known)
        self.segments.replace(changed)
        self._last_segment = None
        return changed

    def spend(self, start: int, end: int, now: int) -> None:
        """The leases of these segments, neighbours and alike, are over."""
        self.segments.spend(start, end, now)
        self._last_segment = None

    def oldest_untouched(self) -> Iterator[Segment]:
        for stretch in self.segments.untouched():
            yield from stretch.segments()

    def exactly(self, spans: tuple[Span, ...], mark: str) -> list[Segment] | None:
        """The segments that these spans name whole, all with this mark and none used; None if any is not so."""
        found: dict[int, Segment] = {}
        for start, length in spans:
            segment = self.segments.get(start)
            if segment is None or segment.length != length or segment.mark != mark or segment.start < self.floor:
                return None
            if self.used.touches(start, segment.end) or start in found:
                return None
            found[start] = segment
        return list(found.values())

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
        segment = self._last_segment = self.segments.at(position)
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
            segment = self.segments.at(start)
            if segment is None:
                return
            yield start, min(end, segment.end), segment
            start = segment.end

    # --- what the other end is told, and what it tells ----------------------------------------------------------------

    def state(self) -> RunState:
        touched = Extents([(self.base, self.append)])
        if self.kind is RunKind.KEY:
            for stretch in self.segments.untouched():
                touched.remove(stretch.start, stretch.end)
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

    def grantable(self) -> int:
        """Authentication runs: bytes that are here and were not granted to any connection yet."""
        return self.fresh(0, POSITION_LIMIT).total()

    def available(self) -> int:
        """Authentication runs: bytes that are here, those granted in openings that came to nothing among them."""
        return self.present.total()
