"""What a full store does with fresh key: what is left over is destroyed, or its owner gives up the oldest for it."""

from __future__ import annotations

from dataclasses import replace

from keyhop.core.designs import Running
from keyhop.core.machine import Drop
from keyhop.core.messages import RANGES_PER_MESSAGE, ExpireSegments
from keyhop.core.model import Action, PeerError, State
from keyhop.core.node.context import Context
from keyhop.core.node.extents import Extents
from keyhop.core.node.leases import Leases
from keyhop.core.node.ledger import Account
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import GONE, Run, Segment
from keyhop.core.policy.disposal import AgePurge

LONG_AGO = -(1 << 62)
"""When a segment was spent that nobody may fetch from: the floor may pass it at once."""
USED = (Account.D, Account.O, Account.R)


def expire_segment(context: Context, run: Run, segment: Segment) -> None:
    """An untouched segment is destroyed at this end, and booked so."""
    run.book.move(State.STORED, Action.EXPIRE, segment.length)
    context.put(run.segment_row(run.set_mark(segment, GONE, stored=False, spent_at=LONG_AGO)))
    if segment.stored:
        context.save(Drop(run.range(segment)))
    context.out.wipe.append(run.range(segment))
    context.book(run)


class FullStores:
    """The rule of each link.

    Whoever proposes a block decides what becomes of that which fits nowhere. The owner of a run alone decides what
    of it goes to make room, destroys it durably, and then tells the other end.
    """

    def __init__(self, context: Context, links: Links, leases: Leases, design: Running) -> None:
        self.context = context
        self.burning = links.burning
        self.leases = leases
        self._disposal = design.disposal
        self._rules: dict[str, AgePurge] = {}
        self._used: dict[str, int] = {}
        """What was used of our run by the last look."""
        self._drawn_at: dict[str, int] = {}
        self._last: dict[str, int] = {}
        """Bytes of the last block."""
        self._since: dict[str, int] = {}
        """Bytes of the blocks since the last look, and of those between the two looks before."""
        self._before: dict[str, int] = {}
        links.handlers[ExpireSegments] = self.told

    def rule(self, pair: Pair) -> AgePurge:
        found = self._rules.get(pair.peer)
        if found is None:
            settings = self.context.settings
            name = settings.link_names.get(pair.peer)
            found = self._disposal
            if settings.policy is not None and name:
                found = replace(found, full_store=settings.policy.link(name).full_store)
            self._rules[pair.peer] = found
        return found

    def rest_expires(self, pair: Pair) -> bool:
        """Whether what has no place was taken in; otherwise the module's key stays outside the books."""
        return self.rule(pair).full_store != "stop"

    # --- the owner's side ---------------------------------------------------------------------------------------------

    def agreed(self, pair: Pair, length: int) -> None:
        """A block was agreed on: the next one is expected to be as large."""
        self._last[pair.peer] = length
        self._since[pair.peer] = self._since.get(pair.peer, 0) + length
        self.make_room(pair)

    def look(self, pair: Pair) -> None:
        """Called from time to time: whether anybody draws from the store."""
        used = sum(pair.own_key.book[account] for account in USED)
        if used != self._used.setdefault(pair.peer, used):
            self._used[pair.peer] = used
            self._drawn_at[pair.peer] = self.context.now
        self._before[pair.peer] = self._since.pop(pair.peer, 0)
        self.make_room(pair)

    def idle(self, pair: Pair) -> bool:
        """In a store that is drawn from the oldest is the next to be used, so it stays."""
        drawn_at = self._drawn_at.get(pair.peer)
        quiet = drawn_at is None or self.context.now - drawn_at >= self.context.settings.idle_store_ns
        return quiet and not pair.stock.taken

    def make_room(self, pair: Pair) -> None:
        """Before it comes: room for the next block, or for all that come before the next look."""
        rule = self.rule(pair)
        # Without a connection no block comes, and nobody could be told.
        if rule.full_store != "replace_oldest" or not pair.is_open or not self.idle(pair):
            return
        limit, run = self.context.settings.stock_limit_bytes, pair.own_key
        # However large the blocks are, half of the store stays.
        coming = min(limit // 2, max(self._last.get(pair.peer, 0), self._before.get(pair.peer, 0)))
        excess = rule.takes(coming, run.untouched, limit, idle=True).destroyed_oldest
        if excess:
            self._replace(pair, run, excess)
            self._end_old_lease(pair, run, limit)

    def _replace(self, pair: Pair, run: Run, excess: int) -> None:
        wanted = {start for asked in self.leases.asked.get(pair.peer, {}).values() for start, _ in asked.spans}
        gone = Extents()
        for segment in run.oldest_untouched():
            # What a lease is asked for may be leased at the other end by now.
            if segment.start in wanted:
                continue
            gone.add(segment.start, segment.end)
            if len(gone) > RANGES_PER_MESSAGE:
                gone.remove(segment.start, segment.end)
                break
            expire_segment(self.context, run, segment)
            excess -= segment.length
            if excess <= 0:
                break
        if gone:
            self.context.count("bytes_replaced", gone.total())
            self.context.say(pair, ExpireSegments(tuple((start, end - start) for start, end in gone)))

    def _end_old_lease(self, pair: Pair, run: Run, limit: int) -> None:
        """A lease that nobody draws on holds the very oldest key: after a store's worth of newer key it goes, too.

        Not sooner, for each costs the tags of another. It holds up the floor as well, and all that is below with it.
        """
        oldest = next(run.oldest_untouched(), None)
        if oldest is None:
            return
        for stretch in run.segments.lent():
            if stretch.end + limit > oldest.start:
                return
            self.burning.take_back(pair, stretch.start, stretch.end)
            self.context.book(run)

    # --- the other end ------------------------------------------------------------------------------------------------

    def told(self, pair: Pair, message: ExpireSegments) -> None:
        run, position = pair.their_key, 0
        for start, length in message.segments:
            if start < position or start + length > run.append:
                raise PeerError(
                    f"expired span {start}+{length}: out of order, or above {run.append} where the run ends"
                )
            position = start + length
        if not message.segments:
            raise PeerError("no span is expired: one or more are legal")
        gone = Extents((start, start + length) for start, length in message.segments)
        for segment in run.oldest_untouched():
            if segment.start >= position:
                break
            if gone.covers(segment.start, segment.end):
                expire_segment(self.context, run, segment)
