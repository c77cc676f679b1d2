"""NIST's queues: one for each connection, filled in passes, its bytes numbered from nought."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.patterns import ByQuota, Pattern, Piece, Share
from keyhop.core.composed.stock.sessions import DealtSessions
from keyhop.core.policy.sharing import Proportional

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

PASS_NS = 100_000_000
"""From one pass to the next (K)."""
PASS_BITS = 4096 * 8
"""What a pass deals (K)."""


class Fifos(DealtSessions):
    """A pass moves so many bytes, each queue's quota fixed before; one that runs short goes on when more comes."""

    def __init__(self, line: Line, part: Proportional) -> None:
        self._part = part
        self._pass = max(1, PASS_BITS // line.run.unit_bits)
        self._allowed = 0
        """Up to which position passes have been made."""
        self._next_pass_ns = 0
        self._stamps: dict[str, list[tuple[int, int]]] = {}
        """By queue: (position, its own stamp) of each stretch."""
        super().__init__(line)

    def pattern(self, start: int, shares: tuple[Share, ...]) -> Pattern:
        return ByQuota(self._part, start, shares, self._pass)

    def limit(self) -> int:
        """So far passes have come; the next is due when the clock says so."""
        run, site = self._line.run, self._line.site
        self._allowed = max(self._allowed, self.cursor)
        if self._allowed == self.cursor and self.cursor < run.end and self._next_pass_ns <= site.now:
            self._allowed = self.cursor + self._pass
            self._next_pass_ns = site.now + PASS_NS
            site.later(PASS_NS, self.advance)
        return min(run.end, self._allowed)

    def put(self, run: Run, piece: Piece) -> None:
        label, start, end = piece
        self._stamps.setdefault(label, []).append((start, self.dealt[label] - (end - start)))
        super().put(run, piece)

    def stamp(self, session: str, unit: int) -> int:
        """The queue's own number of the byte at this position of the link's run."""
        stretches = self._stamps[session]
        start, stamp = stretches[bisect_right(stretches, (unit, 1 << 62)) - 1]
        return stamp + unit - start
