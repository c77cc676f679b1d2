"""What is used up or burnt at this end: keys of authentication runs, segments, leases."""

from __future__ import annotations

from keyhop.core.machine import Drop
from keyhop.core.model import TAG_KEY_BYTES, Action, Purpose, Range, State
from keyhop.core.node.context import Context
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import GONE, UNTOUCHED, Run

RESERVED = {
    Purpose.SUPPLY: State.RESERVED_APP,
    Purpose.PAD: State.RESERVED_INTERNAL,
    Purpose.DERIVE: State.RESERVED_APP,
    Purpose.DESIGN: State.RESERVED_APP,
}
"""The state of what is leased."""


class Burning:
    def __init__(self, context: Context) -> None:
        self.context = context

    # --- authentication runs ------------------------------------------------------------------------------------------

    def spent(self, run: Run, position: int) -> None:
        """One key is used up at this end."""
        self._consume(run, position, position + TAG_KEY_BYTES, Action.AUTHENTICATE)

    def burn(self, run: Run, start: int, end: int) -> None:
        self._consume(run, start, end, Action.BURN)

    def _consume(self, run: Run, start: int, end: int, action: Action) -> None:
        for low, high in list(run.present.within(start, end)):
            run.present.remove(low, high)
            run.book.move(State.STORED, action, high - low)
            self.context.out.wipe.append(Range(run.id, low, high - low))
        for block, length in run.blocks_before(end):
            if not run.present.touches(block, block + length):
                del run.blocks[block]
                self.context.save(Drop(Range(run.id, block, length)))
                self.context.book(run)

    # --- key runs -----------------------------------------------------------------------------------------------------

    def burn_segment(self, run: Run, start: int) -> None:
        """The segment's bytes are never used again; what was not used yet is lost."""
        context, segment = self.context, run.segments[start]
        left = segment.length - sum(b - a for a, b in run.used.within(segment.start, segment.end))
        before = State.STORED if segment.mark == UNTOUCHED else RESERVED[Purpose(segment.mark)]
        if segment.mark == UNTOUCHED or not run.owned:
            # An owner's lease: what of it was spent is booked where it was spent, the rest by whoever takes it back.
            run.book.move(before, Action.BURN, left)
        context.put(run.segment_row(run.set_mark(segment, GONE, stored=False, spent_at=context.spent_now)))
        if segment.stored:
            context.save(Drop(run.range(segment)))
        context.out.wipe.append(run.range(segment))
        context.book(run)

    def take_back(self, pair: Pair, start: int, end: int) -> None:
        """Takes what is unspent of a lease out of the Desk and the pads; it is lost."""
        lost = 0
        kept: list[tuple[int, int]] = []
        for low, high in pair.stock.clear():
            cut_low, cut_high = max(low, start), min(high, end)
            if cut_low >= cut_high:
                kept.append((low, high))
                continue
            lost += cut_high - cut_low
            kept += [(a, b) for a, b in ((low, cut_low), (cut_high, high)) if a < b]
        for low, high in kept:
            pair.stock.add(low, high)
        for held in (pair.pads, pair.parents, pair.hosted):
            for low, high in list(held.within(start, end)):
                lost += high - low
                held.remove(low, high)
        if lost:
            pair.own_key.book.move(State.RESERVED_APP, Action.BURN, lost)

    def burn_leases(self, pair: Pair, reason: str) -> None:
        """Everything leased with this peer, in both directions, is burnt: a restore at either end."""
        self.take_back(pair, 0, 1 << 40)
        for run in (pair.own_key, pair.their_key):
            for stretch in run.segments.stretches():
                if stretch.mark in RESERVED:
                    for segment in stretch.segments():
                        self.burn_segment(run, segment.start)
        self.context.notice("KH-5201", f"leases with {pair.peer} are burnt: {reason}", pair.peer)
