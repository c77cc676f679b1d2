"""MagiQ's record store: dealt by rates that follow use, purged and re-tuned under two-phase commit, audited."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.composed.nouns.patterns import ByCredit, Pattern, Share
from keyhop.core.composed.stock.sessions import DEAL, DealtSessions
from keyhop.core.composed.talk.audit import Audit
from keyhop.core.composed.talk.changes import Change, Changes, Committed
from keyhop.core.policy.disposal import AgePurge
from keyhop.core.policy.sharing import Weighted
from keyhop.core.policy.synchronisation import TwoPhaseCommit, Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

PURGE = "PURGE"
MONITOR_NS = 60_000_000_000
"""Over which consumption is measured (K)."""
SECOND_NS = 1_000_000_000
LEAST_PART = 16
"""An idle application keeps this part of the rate it registered, or it could never come back (K)."""
AUDIT_NS = 3_600_000_000_000
"""Between two audits (K)."""


class Records(DealtSessions):
    """The lower name coordinates; the records' ids are their positions."""

    def __init__(self, line: Line, sharing: Weighted, part: TwoPhaseCommit, disposal: AgePurge) -> None:
        self._sharing = sharing
        self._part = part
        self._disposal = disposal
        self._came: deque[tuple[int, int]] = deque()
        """(end position, when) of what came in, oldest first."""
        self._purge_due = False
        self._announced = 0
        self._announcing = False
        self._unannounced: list[int] = []
        self.peer_mark = -1
        """How far the peer has said that it has dealt."""
        self._measured: dict[str, int] = {}
        """Rates in use, where they differ from the registered ones."""
        self._taken: dict[str, int] = {}
        """By session: taken in all at the end of the last window, in units."""
        self._monitoring = False
        super().__init__(line)
        self.audit = Audit(line, part)
        line.talk.handlers["DIST"] = self._dist

    def _changes(self) -> Changes:
        self.commits = Committed(self._line, self, self._part)
        return self.commits

    def pattern(self, start: int, shares: tuple[Share, ...]) -> Pattern:
        return ByCredit(self._sharing, start, shares)

    def fresh(self, run: Run, start: int, end: int) -> None:
        self._came.append((end, self._line.site.now))
        if self._line.master:
            self._watch_age()
            if not self._monitoring:
                self._monitoring = True
                self._line.site.later(MONITOR_NS, self._monitor)
                self._line.site.later(AUDIT_NS, self._audit_again)
        super().fresh(run, start, end)
        if not self._announcing and self.cursor > self._announced:
            self._announcing = True
            self._line.site.later(self._part.announce_ns, self._announce)

    # --- DIST ---------------------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        """How far this end has dealt, if that is news."""
        self._announcing = False
        dealt = range(self._announced, self.cursor)
        self._announced = self.cursor
        if dealt:
            counts = self._part.announced(dealt)
            self._line.talk.tell(Kx("DIST", Verb.ASSIGN, counts=counts))

    def _dist(self, message: Kx) -> None:
        self.peer_mark = max(self.peer_mark, message.counts[-1])

    # --- rates --------------------------------------------------------------------------------------------------------

    def retuned(self, stream: str, rate_bps: int) -> None:
        self._measured.pop(stream, None)
        super().retuned(stream, rate_bps)

    def wanted(self) -> tuple[Share, ...]:
        return tuple(
            Share(share.session, self._measured.get(share.session, share.rate_bps)) for share in super().wanted()
        )

    def _monitor(self) -> None:
        """At the end of a window: whoever drew much more or less than its rate gets new weights."""
        line = self._line
        line.site.later(MONITOR_NS, self._monitor)
        registered = self.connections.active()
        drifted = False
        for share in self.shares:
            name = share.session
            taken = self.dealt.get(name, 0) - line.run.pool(name).level
            measured = (taken - self._taken.get(name, taken)) * line.run.unit_bits * SECOND_NS // MONITOR_NS
            known = name in self._taken
            self._taken[name] = taken
            if known and name in registered and self._sharing.drifted(share.rate_bps, measured):
                least = max(1, registered[name] // LEAST_PART)
                self._measured[name] = max(least, measured)
                drifted = True
        if drifted:
            self.review()

    # --- age ----------------------------------------------------------------------------------------------------------

    def purge(self, before_ns: int) -> None:
        """At the master: all records that came before, at both ends or at none."""
        up_to = 0
        for end, came_ns in self._came:
            if came_ns >= before_ns:
                break
            up_to = end
        if self._busy:
            self._line.site.later(SECOND_NS, self.purge, before_ns)
        elif up_to:
            self.propose(PURGE, (up_to,))

    def _watch_age(self) -> None:
        if self._came and not self._purge_due:
            self._purge_due = True
            age_ns = self._line.site.now - self._came[0][1]
            self._line.site.later(max(0, self._disposal.max_age_ns - age_ns) + SECOND_NS, self._purge_old)

    def _purge_old(self) -> None:
        self._purge_due = False
        if self._came and self._disposal.expired(self._line.site.now - self._came[0][1]):
            self.purge(self._line.site.now - self._disposal.max_age_ns)
        self._watch_age()

    def _audit_again(self) -> None:
        self._line.site.later(AUDIT_NS, self._audit_again)
        self.audit.begin()

    # --- the subject of changes ---------------------------------------------------------------------------------------

    def votes(self, change: Change) -> bool:
        if change.word == PURGE:
            # What has not come yet could not go.
            return change.counts[0] <= self._line.run.end
        return self._part.votes(change.counts[0], self.mark()) and self.has_room()

    def carry_out(self, change: Change) -> None:
        if change.word != PURGE:
            super().carry_out(change)
            return
        (up_to,) = change.counts
        while self._came and self._came[0][0] <= up_to:
            self._came.popleft()
        self._line.destroy((0, up_to), "X")

    def release(self, change: Change) -> None:
        if change.word == DEAL:
            super().release(change)
