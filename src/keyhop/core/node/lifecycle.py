"""What time does: leases end, floors rise, old segments expire, and the owner says how its run was used."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec

from keyhop.core.designs import Running
from keyhop.core.machine import Drop, ForgetUsed
from keyhop.core.messages import Proof, Statement
from keyhop.core.model import NANOSECONDS, Action, PeerError, Purpose, Range, State
from keyhop.core.node.context import LEISURE_NS, Context
from keyhop.core.node.extents import Extents
from keyhop.core.node.full_stores import FullStores, expire_segment
from keyhop.core.node.leases import Leases
from keyhop.core.node.ledger import Account
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Pair
from keyhop.core.node.provenance import NOTHING_KNOWN
from keyhop.core.node.rows import OriginRow
from keyhop.core.node.run import GONE, UNTOUCHED, Run, Segment
from keyhop.core.node.sizes import STATEMENT_NS, Sizes
from keyhop.core.node.supply import Supply

LOOK_NS, LOOK_LIMIT_NS = NANOSECONDS, 4 * LEISURE_NS
"""How often a pair in use is looked at, and one that is quiet."""
BUSY_NS = 8 * NANOSECONDS
"""A pair is in use whose stock in hand runs low before this at the pace of now."""
LOOKS_PER_LIFETIME = 16
SHORTEST_LOOK_NS = LOOK_NS // 4
"""What was given out in less time says nothing of a rate."""
EXPIRED_PER_LOOK = 4096
"""Segments that expire in one step; after a restart all that it found are of one age."""
SILENCE_NUMERATOR, SILENCE_DENOMINATOR = 5, 4
"""A quarter longer than both lifetimes, so that an owner whose clock runs slower has expired it first."""


class PairTick(msgspec.Struct, frozen=True, gc=False):
    peer: str
    due: int
    """Only the look that was planned last is taken."""


class Lifecycle:
    def __init__(
        self,
        context: Context,
        links: Links,
        leases: Leases,
        supply: Supply,
        stores: FullStores,
        sizes: Sizes,
        design: Running,
    ) -> None:
        self.context = context
        self.burning = links.burning
        self.leases = leases
        self.supply = supply
        self.stores = stores
        self.sizes = sizes
        self.design = design
        self.hosts = False
        """Set by the node: another design has the stock, and supply leases nothing."""
        self._looked: dict[str, int] = {}
        self._wait_ns: dict[str, int] = {}
        """Until the next look at a pair."""
        self._due: dict[str, int] = {}
        """When that is."""
        lifetime_ns = min(context.settings.block_lifetime_ns, context.settings.fetch_lifetime_ns)
        self._wait_limit_ns = max(LOOK_NS, min(LOOK_LIMIT_NS, lifetime_ns // LOOKS_PER_LIFETIME))
        self._stated: dict[str, tuple[int, Statement | None]] = {}
        self._told: dict[tuple[str, int], Statement] = {}
        """What the owner of a run last said of it."""
        self.reserved: Callable[[Pair], list[tuple[int, int]]] = lambda pair: []
        """Set by the node: pads set aside for a batch under way."""
        self._silent: dict[str, int] = {}
        """For how long a pair was not open, in nanoseconds."""
        links.handlers[Statement] = self.stated
        # A new connection begins with a statement: the last one may have been lost with the old.
        links.on_open.append(self._opened)
        links.on_compared.append(self.compared)

    def _opened(self, pair: Pair) -> None:
        self._stated.pop(pair.peer, None)
        self._plan(pair, LOOK_NS)
        self.supply.serve(pair)

    def watch(self, pair: Pair) -> None:
        self._looked[pair.peer] = self.context.now
        self._plan(pair, LOOK_NS)

    def _plan(self, pair: Pair, wait_ns: int) -> None:
        self._wait_ns[pair.peer] = wait_ns
        self._due[pair.peer] = due = self.context.after(wait_ns)
        self.context.at(due, PairTick(pair.peer, due))

    def tick(self, event: PairTick) -> None:
        context, pair = self.context, self.context.pairs[event.peer]
        if event.due != self._due[pair.peer]:
            return
        taken, elapsed = pair.stock.taken, context.now - self._looked[pair.peer]
        self.look(pair)
        self.sizes.look(pair, self._told.get((pair.peer, pair.their_key.id.number)))
        self.supply.governed.look(pair)
        self._expire(pair)
        if not self.hosts:
            self.stores.look(pair)
        self._end_leases(pair)
        self._forget_silent(pair, elapsed)
        wait_ns = min(2 * self._wait_ns[pair.peer], self._wait_limit_ns)
        if self._is_busy(pair, taken, elapsed):
            wait_ns = LOOK_NS
        self._plan(pair, min(wait_ns, self._state(pair, self.sizes.statement_ns(pair))))

    def _state(self, pair: Pair, apart_ns: int) -> int:
        """Says how our run was used, if that has changed since the last time and that is so long ago.

        Gives for how long nothing has to be said.
        """
        context = self.context
        stated_at, last = self._stated.get(pair.peer, (0, None))
        if not pair.is_open or (statement := self._statement(pair)) == last:
            return self._wait_limit_ns
        due_ns = stated_at + apart_ns - context.now
        if due_ns > 0:
            return max(due_ns, SHORTEST_LOOK_NS)
        self._stated[pair.peer] = (context.now, statement)
        context.say(pair, statement)
        context.book(pair.own_key)
        return self._wait_limit_ns

    def look(self, pair: Pair) -> None:
        """Takes in what was given out since the last look, and asks for more key in time."""
        elapsed = self.context.now - self._looked[pair.peer]
        if elapsed >= SHORTEST_LOOK_NS:
            self.supply.measure(pair, elapsed)
            self._looked[pair.peer] = self.context.now
        self.top_up(pair)

    def _is_busy(self, pair: Pair, taken: int, elapsed: int) -> bool:
        """Whether something may be to do before the longest wait is over. (That stock runs low is told besides.)"""
        if self.supply.governed.enforces or self.supply.governed.waiting.get(pair.peer):
            return True
        spare = pair.stock.left - pair.stock.low
        lacks = spare <= 0 and pair.is_open and self.supply.draws_on(pair.peer)
        return lacks or taken * BUSY_NS > max(0, spare) * elapsed

    def top_up(self, pair: Pair) -> None:
        """Asks for the next lease before the one in hand ends."""
        if not pair.is_open or self.hosts or not self.supply.draws_on(pair.peer):
            return
        size = self.supply.lease_bytes(pair)
        pair.stock.low = self.design.synchronisation.low(size)
        in_hand = pair.stock.left + self.leases.committing.get(pair.peer, 0)
        if in_hand >= pair.stock.low or self.leases.tags_low(pair) or self.leases.pending(pair, Purpose.SUPPLY):
            return
        if self.leases.want(pair, Purpose.SUPPLY, size - in_hand) and self.sizes.states_seldom(pair):
            # In the same frame it costs no tag.
            self._state(pair, STATEMENT_NS)

    # --- the owner's side ---------------------------------------------------------------------------------------------

    def live(self, pair: Pair) -> Extents:
        """What of our run can still be spent in this process."""
        return Extents([*pair.stock.intervals(), *pair.pads, *pair.parents, *pair.hosted, *self.reserved(pair)])

    def _end_leases(self, pair: Pair) -> None:
        context, run = self.context, pair.own_key
        live = self.live(pair)
        lifetime = context.settings.fetch_lifetime_ns
        floor = run.floor
        for stretch in run.segments.lent():
            for start, end in stretch.outside(live):
                run.spend(start, end, context.spent_now)
        for stretch in run.segments.stretches():
            if stretch.spent_at is None or context.now - stretch.spent_at < lifetime:
                break
            floor = stretch.end
        if floor > run.floor:
            self.raise_floor(run, floor)

    def raise_floor(self, run: Run, floor: int) -> None:
        """Everything below is destroyed and forgotten. Only the owner decides this."""
        context = self.context
        for segment in itertools.takewhile(lambda segment: segment.end <= floor, run.segments.values()):
            if not run.owned:
                self._settle_follower(run, segment)
            context.remove(run.segment_row(segment))
            if segment.stored:
                context.save(Drop(run.range(segment)))
            context.out.wipe.append(run.range(segment))
        run.forget_below(floor)
        for start, length in run.origins.forget_below(floor):
            context.remove(OriginRow(run.id.peer, run.id.number, start, length, NOTHING_KNOWN))
        run.used.remove(run.floor, floor)
        context.save(ForgetUsed(Range(run.id, run.floor, floor - run.floor)))
        run.floor = floor
        context.put(run.row())
        context.book(run)

    def _settle_follower(self, run: Run, segment: Segment) -> None:
        """Bytes of a lease that never came to be used here: what the owner says of them is taken into the book.

        Before the floor passes them nobody here knows which bytes of a lease the owner's totals speak of.
        """
        left = segment.length - sum(high - low for low, high in run.used.within(segment.start, segment.end))
        if segment.mark == GONE or not left:
            return
        if segment.mark == UNTOUCHED:
            run.book.move(State.STORED, Action.EXPIRE, left)
            return
        told = self._told.get((run.id.peer, run.id.number))
        uses: tuple[tuple[Account, Action], ...]
        state, uses = State.RESERVED_APP, ((Account.D, Action.SUPPLY), (Account.O, Action.WASTE))
        if segment.mark == Purpose.PAD:
            # Spent on a batch that was lost on its way.
            state, uses = State.RESERVED_INTERNAL, ((Account.R, Action.RELAY),)
        if told is not None:
            totals = {Account.D: told.delivered, Account.O: told.rounding, Account.R: told.relayed}
            for account, action in uses:
                share = min(left, max(0, totals[account] - run.book[account]))
                run.book.move(state, action, share)
                left -= share
        run.book.move(state, Action.BURN, left)

    def _expire(self, pair: Pair) -> None:
        """What is past its lifetime, leased or not: only the owner may decide it; the floor tells the follower."""
        context, run = self.context, pair.own_key
        youngest = context.now - context.settings.block_lifetime_ns
        # Rising positions are rising ages.
        for stretch in itertools.takewhile(lambda stretch: stretch.born <= youngest, run.segments.lent()):
            # Given keys may be fetched for a fetch lifetime more; nobody is given another one.
            self.burning.take_back(pair, stretch.start, stretch.end)
            context.book(run)
        old = itertools.takewhile(lambda segment: segment.born <= youngest, run.oldest_untouched())
        for segment in itertools.islice(old, EXPIRED_PER_LOOK):
            expire_segment(context, run, segment)

    def _forget_silent(self, pair: Pair, elapsed: int) -> None:
        """An owner that stays away says no more what is expired: in the end the follower destroys it by itself."""
        context, run = self.context, pair.their_key
        # A clock that jumps is no silence: from one look to the next no more than the time between looks counts.
        planned = self._wait_ns.get(pair.peer, LOOK_NS)
        silent = 0 if pair.is_open else self._silent.get(pair.peer, 0) + min(elapsed, planned)
        self._silent[pair.peer] = silent
        lifetime = context.settings.block_lifetime_ns + context.settings.fetch_lifetime_ns
        if silent < lifetime * SILENCE_NUMERATOR // SILENCE_DENOMINATOR:
            return
        # Nothing new comes while it is silent: the next look is as far away again.
        self._silent[pair.peer] = 0
        for stretch in run.segments.stretches():
            if stretch.mark != GONE:
                for segment in stretch.segments():
                    self.burning.burn_segment(run, segment.start)

    def _statement(self, pair: Pair) -> Statement:
        book = pair.own_key.book
        return Statement(
            book[Account.D],
            book[Account.O],
            book[Account.R],
            book[Account.A],
            book[Account.X],
            book[Account.Y],
            pair.own_key.floor,
            self.context.audit_head,
        )

    # --- the follower's side ------------------------------------------------------------------------------------------

    def compared(self, pair: Pair, proof: Proof) -> None:
        for state in proof.runs:
            run = pair.runs[state.run]
            if run is pair.their_key and state.floor > run.floor:
                self.raise_floor(run, state.floor)

    def stated(self, pair: Pair, statement: Statement) -> None:
        run = pair.their_key
        if statement.floor > run.append or statement.floor < 0:
            raise PeerError(f"floor {statement.floor}: the run ends at {run.append}")
        self._told[pair.peer, run.id.number] = statement
        if statement.floor > run.floor:
            self.raise_floor(run, statement.floor)
