"""How large segments and leases of a link are: after what applications of both ends asked of it lately."""

from __future__ import annotations

from keyhop.core.designs import Running
from keyhop.core.messages import Statement
from keyhop.core.model import NANOSECONDS
from keyhop.core.node.context import Context
from keyhop.core.node.ledger import Account
from keyhop.core.node.pair import Pair

WINDOW_NS = 600 * NANOSECONDS
"""What was asked counts for one window to two."""
LEARNING_NS = 60 * NANOSECONDS
"""So long after a start, what the link gives is taken to be asked of it."""
STOCK_SHARE = 16
"""No lease for want of a larger segment takes more than this part of what a direction may keep."""
PIECES_PER_BLOCK = 8
"""A block has so many segments at least: those who share a link take whole ones, and few large ones would go to one."""
SOON_PER_S = 20
"""But for a link that gives a segment in less than this part of a second: nobody waits long for the next one there."""
STATEMENT_NS = 10 * NANOSECONDS
STATEMENT_LIMIT_NS = 600 * NANOSECONDS
STATEMENT_SHARE = 600
"""Of what a direction of a slow link gives, statements take one part in so many."""
STATEMENT_BITS = 32 * 8
BITS_PER_BYTE = 8


class Window:
    """What came to a rising total, and the largest of single amounts, in the last one or two windows."""

    __slots__ = ("_before", "_began", "_largest", "_largest_before", "_new", "_span_before", "_total")

    def __init__(self, now: int, total: int) -> None:
        self._began = now
        self._total = total
        self._new = self._before = 0
        self._span_before = 0
        self._largest = self._largest_before = 0

    def add(self, now: int, total: int, largest: int = 0) -> None:
        if now - self._began >= WINDOW_NS:
            self._before, self._span_before, self._largest_before = self._new, now - self._began, self._largest
            self._new = self._largest = 0
            self._began = now
        # What another end tells may fall after a restore; what is asked does not.
        self._new += max(0, total - self._total)
        self._total = total
        self._largest = max(self._largest, largest)

    def span_ns(self, now: int) -> int:
        return self._span_before + now - self._began

    def per_second(self, now: int) -> int:
        """As if nothing came before the window; rounded up."""
        return -(-(self._before + self._new) * NANOSECONDS // max(LEARNING_NS, self.span_ns(now)))

    @property
    def largest(self) -> int:
        return max(self._largest, self._largest_before)


class Sizes:
    def __init__(self, context: Context, design: Running, *, follows: bool) -> None:
        """`follows`: what is asked; otherwise the rate of the link alone decides, as for designs of fixed units."""
        self.context = context
        self._storage = design.storage
        self._follows = follows
        self._fixed = {each.node: each.segment_bytes for each in context.settings.neighbours if each.segment_bytes}
        self._rates = {each.node: each.rate_bps for each in context.settings.neighbours}
        self._windows: dict[str, tuple[Window, Window]] = {}
        """Of our run and of the peer's."""

    def look(self, pair: Pair, told: Statement | None) -> None:
        """Called from time to time, after what was given out is booked. `told`: what the peer last said of its run."""
        now, book = self.context.now, pair.own_key.book
        own = book[Account.D] + book[Account.O] + book[Account.R]
        theirs = told.delivered + told.rounding + told.relayed if told is not None else 0
        largest, pair.stock.largest = pair.stock.largest, 0
        windows = self._windows.get(pair.peer)
        if windows is None:
            windows = self._windows[pair.peer] = (Window(now, own), Window(now, theirs))
        windows[0].add(now, own, largest)
        windows[1].add(now, theirs)

    def segment_bytes(self, pair: Pair, block_bytes: int) -> int:
        """How the next block is cut that this end proposes."""
        fixed = self._fixed.get(pair.peer)
        if fixed is not None:
            return fixed
        if not self._follows:
            return self._storage.segment_bytes(self.rate_bps(pair))
        soon_bytes = self.rate_bps(pair) // (BITS_PER_BYTE * SOON_PER_S)
        return self._wanted(pair, max(block_bytes // PIECES_PER_BLOCK, soon_bytes))

    def least_lease_bytes(self, pair: Pair) -> int:
        """A lease that is worth its tags, however small the segments are that it is made of."""
        if not self._follows or not pair.direct or pair.peer in self._fixed:
            return 0
        return self._wanted(pair, self.context.settings.stock_limit_bytes)

    def statement_ns(self, pair: Pair) -> int:
        """How far statements are apart: each costs a tag key, which on a slow link is much."""
        # Each direction of a link has half of its rate; a distant pair has what is asked.
        rate = self.rate_bps(pair) // 2 if pair.direct else self._asked_bps(pair)
        if not rate:
            return STATEMENT_NS
        apart = STATEMENT_BITS * STATEMENT_SHARE * NANOSECONDS // rate
        return max(STATEMENT_NS, min(STATEMENT_LIMIT_NS, apart))

    def states_seldom(self, pair: Pair) -> bool:
        return self.statement_ns(pair) > STATEMENT_NS

    def _asked_bps(self, pair: Pair) -> int:
        windows = self._windows.get(pair.peer)
        return BITS_PER_BYTE * windows[0].per_second(self.context.now) if windows is not None else 0

    def rate_bps(self, pair: Pair) -> int:
        """Of the quantum link, as its module says or the node file expects; 0: not known."""
        return pair.rate_bps or self._rates.get(pair.peer, 0)

    def _wanted(self, pair: Pair, limit_bytes: int) -> int:
        now, rate = self.context.now, self.rate_bps(pair)
        asked = largest = 0
        windows = self._windows.get(pair.peer)
        if windows is not None:
            asked = max(window.per_second(now) for window in windows)
            largest = windows[0].largest
        if windows is None or windows[0].span_ns(now) < LEARNING_NS:
            asked = max(asked, rate // (2 * BITS_PER_BYTE))
        limit = min(limit_bytes, self.context.settings.stock_limit_bytes // STOCK_SHARE)
        return self._storage.segment_for(asked, largest, rate, limit)
