"""Two ends compare digests of what they have stored, halving what differs until the bad records are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.nouns.units import Units
from keyhop.core.policy.synchronisation import TwoPhaseCommit, Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line


class Audit:
    """The master begins. Records that differ are destroyed at both ends (Y)."""

    def __init__(self, line: Line, part: TwoPhaseCommit) -> None:
        self._line = line
        self._part = part
        self.rounds = 0
        """Of the last audit."""
        self.found: list[int] = []
        """Records that the last audit found bad."""
        line.talk.handlers["AUDIT"] = self._asked
        line.talk.handlers["AUDIT-BAD"] = self._bad

    def begin(self) -> None:
        """All that both have had time to agree on."""
        self.rounds, self.found = 0, []
        if self._line.run.end:
            self._round([(0, self._line.run.end)])

    def _round(self, stretches: list[Units]) -> None:
        """`stretches` are (start, length), as the part has them."""
        self.rounds += 1
        ranges = tuple((start, start + length) for start, length in stretches)
        digests = tuple(self._line.site.digest(self._line, units) for units in ranges)

        def answered(answer: Kx) -> None:
            if not set(answer.ranges) <= set(ranges):
                raise Malformed("stretches differ that nobody has asked about")
            self._answered(answer)

        self._line.talk.ask(Kx("AUDIT", Verb.AGREE, ranges=ranges, counts=digests), answered)

    def _asked(self, message: Kx) -> Kx:
        line = self._line
        differing = tuple(
            units
            for units, digest in zip(message.ranges, message.counts, strict=True)
            if line.site.digest(line, units) != digest
        )
        return Kx("AUDIT-DIFFERS", Verb.AGREE, ranges=differing)

    def _answered(self, message: Kx) -> None:
        bad = tuple(units for units in message.ranges if units[1] - units[0] == 1)
        if bad:
            self.found += [start for start, _ in bad]
            self._destroy(bad)
        halves = self._part.audited([(start, end - start) for start, end in message.ranges])
        if halves:
            self._round(halves)

    def _destroy(self, bad: tuple[Units, ...]) -> None:
        """At both ends; said until it is heard."""

        def say() -> None:
            self._line.talk.ask(Kx("AUDIT-BAD", Verb.DESTROY, ranges=bad), lambda answer: None, given_up=say)

        say()
        for units in bad:
            self._line.destroy(units, "Y")

    def _bad(self, message: Kx) -> Kx:
        for units in message.ranges:
            self._line.destroy(units, "Y")
        return Kx("AUDIT-ACK", Verb.DESTROY)
