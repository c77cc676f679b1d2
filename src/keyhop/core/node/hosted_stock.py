"""Which bytes of what this node's links have leased are which bits of another design's stock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from keyhop.core.machine import Used
from keyhop.core.model import Action, Range, State, joined
from keyhop.core.node.context import Context
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import GONE


class Stock:
    """Of one connection of a link."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        """In bytes of the stream, rising."""
        self.ranges: list[Range] = []
        self.blocks = 0
        self.life = b""
        """The peer's, as its greeting said; empty while it has not greeted."""
        self.own_life = b""

    @property
    def length(self) -> int:
        return self.ends[-1] if self.ends else 0

    def add(self, taken: Range) -> None:
        self.ends.append(self.length + taken.length)
        self.ranges.append(taken)

    def find(self, start: int, end: int) -> list[Range]:
        """The ranges of [start, end) of the stream."""
        found: list[Range] = []
        at = bisect_right(self.ends, start)
        while start < end:
            taken = self.ranges[at]
            offset = start - (self.ends[at] - taken.length)
            length = min(end - start, taken.length - offset)
            found.append(Range(taken.run, taken.start + offset, length))
            start += length
            at += 1
        return found


def first_bytes(ranges: Iterable[Range], length: int) -> tuple[Range, ...]:
    """As many of them as hold so many bytes; fewer if they do not."""
    found: list[Range] = []
    for taken in ranges:
        if length <= 0:
            break
        found.append(Range(taken.run, taken.start, min(taken.length, length)))
        length -= taken.length
    return tuple(found)


def use(context: Context, pair: Pair, ranges: tuple[Range, ...], actions: dict[Action, int]) -> None:
    """These bytes of a link are out: booked, marked durably where the other end owns them, overwritten at the end of
    the step. `actions`: what so many of them were used for."""
    run = pair.own_key if pair.leads else pair.their_key
    for action, length in actions.items():
        if length:
            run.book.move(State.RESERVED_APP, action, length)
    context.out.wipe += ranges
    context.book(run)
    for taken in joined(ranges):
        if pair.leads:
            pair.hosted.remove(taken.start, taken.end)
            continue
        run.used.add(taken.start, taken.end)
        context.save(Used(taken))
        for _, _, segment in list(run.parts(taken.start, taken.end)):
            if segment.mark != GONE:
                context.used_up(run, segment)
