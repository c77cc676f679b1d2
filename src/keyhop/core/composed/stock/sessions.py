"""Pools per session, dealt at both ends by one rule from positions alone; the rule changes at agreed positions."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.messages import StreamOpened
from keyhop.core.composed.nouns.patterns import ByTurn, Nobody, Pattern, Piece, Share
from keyhop.core.composed.nouns.units import Queue
from keyhop.core.composed.stock.dealing import Common, Directed, direction
from keyhop.core.composed.stock.serving import FromPool, Taken, Then
from keyhop.core.composed.talk.changes import Announced, Change, Changes, Done
from keyhop.core.composed.talk.connections import Connections
from keyhop.core.policy.division import EncDec, Session
from keyhop.core.policy.relay import NoRelay

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

NOBODY = "-"
"""A pool that is always empty: of a session that this end does not know, or may not take from."""
PADS = ""
"""The key manager's own share where others' keys pass: pads never come out of a session's pool."""
RULES_LIMIT = 4096
"""That have been agreed on and are not in force yet."""
QUANTUM_BITS = 256
"""Dealt to one session at a time (NECTEC, K)."""
DEAL = "SESSIONS"
"""The change of the rule: counts are the position and the rates, names the sessions."""


def for_pads(line: Line) -> tuple[Share, ...]:
    """One share like a session's, if others' keys can pass over this link at all."""
    relays = not isinstance(line.design.relay, NoRelay) and len(line.site.network.rates) > 1
    return (Share(PADS, 1),) if relays and not line.distant else ()


class Rule(NamedTuple):
    start: int
    """Position in units."""
    shares: tuple[Share, ...]
    pattern: Pattern


class DealtSessions(Common):
    """The master says from which position on which sessions exist; until both ends know, neither deals beyond it."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        ways = direction(line.own, line.peer), direction(line.peer, line.own)
        directed = any(isinstance(part, EncDec) for part in line.design.divisions)
        self._ways = tuple(f"/{way}" for way in ways) if directed else ()
        """What the names of a session's two pools end with: this end's, then the peer's; none: it has one pool."""
        self.connections = Connections(line, self.review)
        self.changes: Changes = self._changes()
        self.cursor = 0
        """Units below have been dealt, or will never come."""
        self.dealt: dict[str, int] = {}
        """Units by pool, those that never came too."""
        self._rules: deque[Rule] = deque([self.rule(0, for_pads(line))])
        self._held: dict[int, int] = {}
        self._number = 0
        self._busy = self._stale = False

    # --- what kinds of sessions differ in -----------------------------------------------------------------------------

    def _changes(self) -> Changes:
        return Announced(self._line, self)

    def pattern(self, start: int, shares: tuple[Share, ...]) -> Pattern:
        line = self._line
        part = next(part for part in line.design.divisions if isinstance(part, Session))
        inside = next((part for part in line.design.divisions if isinstance(part, EncDec)), None)
        low, high = sorted((line.own, line.peer))
        suffixes = (inside, f"/{direction(low, high)}", f"/{direction(high, low)}") if inside else None
        return ByTurn(part, start, shares, max(1, QUANTUM_BITS // line.run.unit_bits), suffixes)

    def limit(self) -> int:
        """Up to which position units may be dealt now."""
        return self._line.run.end

    def put(self, run: Run, piece: Piece) -> None:
        label, start, end = piece
        run.pool(label).put(start, end)

    # --- dealing ------------------------------------------------------------------------------------------------------

    @property
    def shares(self) -> tuple[Share, ...]:
        """Of the rule in force."""
        return self._rules[0].shares

    def rule(self, start: int, shares: tuple[Share, ...]) -> Rule:
        anybody = any(share.rate_bps > 0 for share in shares)
        return Rule(start, shares, self.pattern(start, shares) if anybody else Nobody())

    def fresh(self, run: Run, start: int, end: int) -> None:
        run.free.put(start, end)
        self.advance()

    def advance(self) -> None:
        """Deals what may be dealt; a rule begins exactly where it was agreed to begin."""
        while True:
            rules = self._rules
            if len(rules) > 1 and (rules[1].start <= self.cursor or isinstance(rules[0].pattern, Nobody)):
                old = rules.popleft()
                kept = {share.session for share in rules[0].shares}
                for share in old.shares:
                    if share.session not in kept:
                        self._end(share.session)
                continue
            if isinstance(rules[0].pattern, Nobody):
                return
            until = min(self.limit(), rules[1].start if len(rules) > 1 else 1 << 62, *self._held.values(), 1 << 62)
            if until <= self.cursor:
                return
            self._deal(rules[0].pattern, until)

    def _deal(self, pattern: Pattern, until: int) -> None:
        run, here = self._line.run, Queue()
        for part in self._line.run.free.below(until):
            here.put(*part)
        whole = here.level == until - self.cursor
        for piece in pattern.pieces(self.cursor, until):
            label, start, end = piece
            self.dealt[label] = self.dealt.get(label, 0) + end - start
            if whole:
                self.put(run, piece)
                continue
            for low, high in here.below(end):
                self.put(run, (label, low, high))
        self.cursor = until
        self._line.site.grew(self._line)

    def _end(self, session: str) -> None:
        """Closed at one end or both: its key is of no use to anybody else."""
        run = self._line.run
        for label in self.pools_of(session):
            pool = run.pools.pop(label, None)
            if pool is not None:
                self._line.gone(pool.clear(), "X", run)

    def pools_of(self, session: str) -> tuple[str, ...]:
        return tuple(session + way for way in self._ways) or (session,)

    # --- sessions -----------------------------------------------------------------------------------------------------

    def label(self, stream: str, outgoing: bool) -> str:
        pools = self.pools_of(stream)
        opened = self.connections.own.get(stream)
        if opened is None and stream != PADS:
            return NOBODY
        if len(pools) > 1:
            return pools[0] if outgoing else pools[1]
        # One direction: who asks takes, who is told follows.
        return pools[0] if opened is not None and opened.asks is outgoing else NOBODY

    def lends(self, label: str) -> bool:
        if self._ways:
            return label.endswith(self._ways[1])
        opened = self.connections.own.get(label)
        return bool(label) and label != NOBODY and (opened is None or not opened.asks)

    def opened(self, stream: StreamOpened) -> None:
        self.connections.opened(stream)

    def retuned(self, stream: str, rate_bps: int) -> None:
        self.connections.retuned(stream, rate_bps)

    def closed(self, stream: str) -> None:
        self.connections.closed(stream)

    def restarted(self) -> None:
        self.changes.restarted()

    def wanted(self) -> tuple[Share, ...]:
        """At the master: what the rule should be."""
        return (*for_pads(self._line), *(Share(name, rate) for name, rate in self.connections.active().items()))

    def review(self) -> None:
        """At the master: whether the rule has to change."""
        if self._busy:
            self._stale = True
            return
        shares = self.wanted()
        if shares != self._rules[-1].shares:
            self._propose_rule(max(self.cursor, self._rules[-1].start), shares)

    def _propose_rule(self, start: int, shares: tuple[Share, ...], tries: int = 0) -> None:
        counts = (start, *(share.rate_bps for share in shares))
        names = tuple(share.session for share in shares)

        def done(ok: bool, mark: int) -> None:
            if ok:
                return
            if self._stale:
                self.review()
                return
            # Further on each time, or a peer that deals fast would always be past it.
            self._propose_rule(max(start, mark, self.cursor - 1) + (1 << tries), shares, tries + 1)

        self.propose(DEAL, counts, names, done)

    def propose(
        self, word: str, counts: tuple[int, ...], names: tuple[str, ...] = (), done: Done | None = None
    ) -> None:
        """At the master: one change at a time; `done` hears the outcome and the peer's mark."""
        self._number += 1
        self._busy, self._stale = True, False

        def settled(ok: bool, mark: int) -> None:
            self._busy = False
            if done is not None:
                done(ok, mark)
            if not self._busy and self._stale:
                self._stale = False
                self.review()

        self.changes.propose(Change(self._number, word, counts, names), settled)

    # --- the subject of changes ---------------------------------------------------------------------------------------

    def votes(self, change: Change) -> bool:
        return self.cursor <= change.counts[0] and self.has_room()

    def has_room(self) -> bool:
        """Whether another rule may wait for its turn."""
        return len(self._rules) < RULES_LIMIT

    def mark(self) -> int:
        """The last unit dealt."""
        return self.cursor - 1

    def hold(self, change: Change) -> None:
        if change.word == DEAL:
            self._held[change.number] = change.counts[0]

    def release(self, change: Change) -> None:
        if self._held.pop(change.number, None) is not None:
            self.advance()

    def carry_out(self, change: Change) -> None:
        start, *rates = change.counts
        shares = tuple(map(Share, change.names, rates))
        self._rules.append(self.rule(start, shares))
        self._held.pop(change.number, None)
        self.advance()


class OwnedSessions(Directed):
    """Of a run whose owner alone allocates: it keeps a pool for each of its sessions, the other end follows by name."""

    def __init__(self, line: Line, part: Session) -> None:
        super().__init__(line)
        self._part = part
        self._own = direction(line.own, line.peer)
        self._sessions: list[str] = [share.session for share in for_pads(line)]
        self._pieces = 0

    def fresh(self, run: Run, start: int, end: int) -> None:
        super().fresh(run, start, end)
        self._deal(run)

    def _deal(self, run: Run) -> None:
        common = run.pool(self._own)
        quantum = max(1, QUANTUM_BITS // run.unit_bits)
        while any(self._sessions) and (ranges := common.take(quantum)) is not None:
            whose = self._part.whose(self._pieces, self._sessions)
            self._pieces += 1
            for units in ranges:
                run.pool(self.pool(whose)).put(*units)

    def pool(self, stream: str) -> str:
        return f"{self._own}/{stream}"

    def opened(self, stream: StreamOpened) -> None:
        if stream.asks and stream.stream not in self._sessions:
            self._sessions.append(stream.stream)
            self._deal(self._line.run_of(self._own))

    def closed(self, stream: str) -> None:
        """No other end has it in a pool of this session: others may have it."""
        if stream in self._sessions:
            self._sessions.remove(stream)
            run = self._line.run_of(self._own)
            run.pool(self._own).put_back(run.pool(self.pool(stream)).clear())
            self._deal(run)
            self._line.site.grew(self._line)


class FromOwnPool(FromPool):
    """Out of the session's pool at the owner; under the name that the other end knows, the direction's."""

    def __init__(self, line: Line, dealing: OwnedSessions) -> None:
        super().__init__(line)
        self._dealing = dealing

    def stock_bits(self, stream: str) -> int:
        run, pools = self._pools(stream)
        return sum(run.pool(pool).level for pool in pools) * run.unit_bits

    def take(self, stream: str, bits: int, then: Then) -> Taken | None:
        run, pools = self._pools(stream)
        for pool in pools:
            ranges = run.pool(pool).take(-(-bits // run.unit_bits))
            if ranges is not None:
                return Taken(run, ranges, self._dealing.label(stream, True))
        return None

    def _pools(self, stream: str) -> tuple[Run, tuple[str, ...]]:
        """What came before anybody had opened anything lies in the direction's pool: it is the key manager's own."""
        dealing, common = self._dealing, self._dealing.label(stream, True)
        own = dealing.pool(stream)
        return self._line.run_of(common), ((own, common) if stream == PADS else (own,))
