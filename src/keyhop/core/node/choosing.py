"""Which key of a stock meets the demands of a request: looked for by label, from the oldest on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from keyhop.core import constraints
from keyhop.core.constraints import NO_CONSTRAINTS, Constraints, Unmet
from keyhop.core.label import Label
from keyhop.core.node.pair import Pair
from keyhop.core.node.provenance import Provenance, label_of, label_within, unknown
from keyhop.core.node.run import Segment
from keyhop.core.node.stretching import PARENT_BYTES

REASONS_LIMIT = 256
"""Blocks and batches looked at to say why none will do."""


class Choice:
    """Of one pair's own run, for one kind of demand."""

    __slots__ = ("becomes", "demanded", "ends", "pair", "wall_now")

    def __init__(
        self, pair: Pair, demanded: Constraints, wall_now: int, becomes: Callable[[Label], Label] = lambda key: key
    ) -> None:
        """`becomes`: what a key of the stock is when it leaves, where it is combined with something."""
        self.pair = pair
        self.becomes = becomes
        self.demanded = demanded
        self.wall_now = wall_now
        self.ends = tuple(sorted((pair.own, pair.peer)))

    def label(self, start: int, length: int) -> Label:
        return self.becomes(label_within(self.pair.own_key.origins, start, start + length, self.ends, self.wall_now))

    def take(self, number: int, length: int) -> list[int] | None:
        """Starts of so many keys out of the leases in hand, or None with nothing taken."""
        stock = self.pair.stock
        if self.demanded is NO_CONSTRAINTS:
            return stock.take(number, length)
        starts = self._places(stock.intervals(), number, length)
        if starts is None:
            return None
        for start in starts:
            stock.carve(start, start + length)
        return starts

    def take_parents(self, number: int) -> list[int] | None:
        """Starts of so many parents of derived keys, at multiples of their length; or None with nothing taken."""
        leased = self.pair.parents
        starts: list[int] = []
        for low, high in leased:
            start = -(-low // PARENT_BYTES) * PARENT_BYTES
            while start + PARENT_BYTES <= high and len(starts) < number:
                if not self._reasons_of(self.label(start, PARENT_BYTES)):
                    starts.append(start)
                start += PARENT_BYTES
        if len(starts) < number:
            return None
        for start in starts:
            leased.remove(start, start + PARENT_BYTES)
        return starts

    def suits(self, segment: Segment) -> bool:
        """Whether some key of this segment would do: whether it is worth a lease."""
        return any(self._admits(known) for known in self._within(segment.start, segment.end))

    def leasable_bytes(self) -> int:
        """Of segments that nobody has leased yet."""
        if self.demanded is NO_CONSTRAINTS:
            return self.pair.own_key.untouched
        run = self.pair.own_key
        return sum(
            high - low
            for stretch in run.segments.untouched()
            for low, high, known in run.origins.within(stretch.start, stretch.end)
            if self._admits(known)
        )

    def suiting_bytes(self) -> int:
        """The same of the leases in hand."""
        stock = self.pair.stock
        if self.demanded is NO_CONSTRAINTS:
            return stock.left
        origins = self.pair.own_key.origins
        return sum(
            high - low
            for start, end in stock.intervals()
            for low, high, known in origins.within(start, end)
            if self._admits(known)
        )

    def unmet(self) -> tuple[Unmet, ...]:
        """Why no key that is here will do: of what comes nearest. Empty: some would, or nothing is here."""
        nearest: tuple[Unmet, ...] = ()
        for at, known in enumerate(self._all()):
            reasons = self._reasons(known)
            if not reasons:
                return ()
            if not nearest or len(reasons) < len(nearest):
                nearest = reasons
            if at == REASONS_LIMIT:
                break
        return nearest

    def _places(self, intervals: Iterable[tuple[int, int]], number: int, length: int) -> list[int] | None:
        """A key lies within one interval, and mostly within one block: where it would cross into another, its label
        is that of both."""
        origins = self.pair.own_key.origins
        starts: list[int] = []
        for low, high in intervals:
            position = low
            while position + length <= high:
                if self._reasons_of(self.label(position, length)):
                    position = next(origins.within(position, high))[1]
                    continue
                starts.append(position)
                if len(starts) == number:
                    return starts
                position += length
        return None

    def _all(self) -> Iterator[Provenance | None]:
        run = self.pair.own_key
        for start, end in self.pair.stock.intervals():
            yield from self._within(start, end)
        for stretch in run.segments.untouched():
            yield from self._within(stretch.start, stretch.end)

    def _within(self, start: int, end: int) -> Iterator[Provenance | None]:
        return (known for _, _, known in self.pair.own_key.origins.within(start, end))

    def _admits(self, known: Provenance | None) -> bool:
        return not self._reasons(known)

    def _reasons(self, known: Provenance | None) -> tuple[Unmet, ...]:
        return self._reasons_of(self.becomes(label_of(known or unknown(self.ends, self.wall_now))))

    def _reasons_of(self, key: Label) -> tuple[Unmet, ...]:
        return constraints.admits(key, self.demanded, self.wall_now)
