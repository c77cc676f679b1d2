"""How a rule changes at both ends of a line or at neither: said and taken over, or under two-phase commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.policy.synchronisation import Phase, TwoPhaseCommit, Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line

OPEN_LIMIT = 64
"""Changes that a coordinator has proposed and not decided."""
KEPT_OUTCOMES = 256
OUTCOME_NS = 1_000_000_000
"""Between two questions for the outcome of a change that is still open (K)."""


class Change(NamedTuple):
    """Of the rule from a position on, or of what is kept."""

    number: int
    word: str
    counts: tuple[int, ...]
    names: tuple[str, ...] = ()


class Subject(Protocol):
    """Whatever changes."""

    def votes(self, change: Change) -> bool: ...

    def mark(self) -> int:
        """How far this end has gone already: told with a vote, so that a refused change may be tried further on."""
        ...

    def hold(self, change: Change) -> None:
        """Go no further than where it would take effect, until it is carried out or released."""
        ...

    def release(self, change: Change) -> None: ...

    def carry_out(self, change: Change) -> None: ...


Done = Callable[[bool, int], None]
"""(whether it was carried out, the peer's mark)"""


class Changes(Protocol):
    def propose(self, change: Change, done: Done) -> None:
        """By the master, one at a time."""
        ...

    def restarted(self) -> None: ...


class Announced:
    """One exchange: the other end takes it over, or says that it has gone too far. Asked until there is an answer."""

    def __init__(self, line: Line, subject: Subject) -> None:
        self._line = line
        self._subject = subject
        self._last: tuple[int, bool] = (-1, False)
        line.talk.handlers["DEAL"] = self._asked

    def propose(self, change: Change, done: Done) -> None:
        self._subject.hold(change)
        self._ask(change, done)

    def restarted(self) -> None:
        pass

    def _ask(self, change: Change, done: Done) -> None:
        def answered(answer: Kx) -> None:
            if answer.ok:
                self._subject.carry_out(change)
            else:
                self._subject.release(change)
            done(answer.ok, answer.counts[0])

        message = Kx("DEAL", Verb.ASSIGN, to=change.word, counts=(change.number, *change.counts), names=change.names)
        self._line.talk.ask(message, answered, given_up=lambda: self._ask(change, done))

    def _asked(self, message: Kx) -> Kx:
        change = _change(message)
        if change.number != self._last[0]:
            ok = self._subject.votes(change)
            self._last = change.number, ok
            if ok:
                self._subject.carry_out(change)
        return Kx("DEAL-ACK", Verb.ASSIGN, ok=self._last[1], counts=(self._subject.mark(),))


class Committed:
    """PREPARE, VOTE, COMMIT or ABORT, ACK; each end writes down what it says before it says it (MagiQ)."""

    def __init__(self, line: Line, subject: Subject, part: TwoPhaseCommit) -> None:
        self._line = line
        self._subject = subject
        self._part = part
        self.log: dict[int, Phase] = {}
        """Outlives a restart."""
        self._open: dict[int, Change] = {}
        """At the participant: voted for, outcome not known. Outlives a restart, too."""
        handlers = line.talk.handlers
        handlers["PREPARE"] = self._prepare
        handlers["COMMIT"] = handlers["ABORT"] = self._decided
        handlers["OUTCOME"] = self._outcome

    def propose(self, change: Change, done: Done) -> None:
        self._write(change.number, "prepared")
        self._subject.hold(change)
        message = Kx("PREPARE", Verb.ASSIGN, to=change.word, counts=(change.number, *change.counts), names=change.names)
        self._line.talk.ask(
            message,
            lambda vote: self._decide(change, done, vote),
            # Also after a restart: without its vote nothing was decided.
            given_up=lambda: self._decide(change, done, None),
        )

    def restarted(self) -> None:
        for number in list(self._open):
            self._ask_outcome(number)

    # --- the coordinator ----------------------------------------------------------------------------------------------

    def _decide(self, change: Change, done: Done, vote: Kx | None) -> None:
        phase = self._part.decides([True, None if vote is None else vote.ok], timed_out=vote is None)
        assert phase is not None
        self._write(change.number, phase)
        if phase == "committed":
            self._subject.carry_out(change)
        else:
            self._subject.release(change)
        mark = -1 if vote is None else vote.counts[0]
        self._tell(change.number, phase, lambda: done(phase == "committed", mark))

    def _tell(self, number: int, phase: Phase, then: Callable[[], None]) -> None:
        """It must be heard, whatever it takes, before the next change begins: they take effect in order."""
        self._line.talk.ask(
            Kx("COMMIT" if phase == "committed" else "ABORT", Verb.ASSIGN, counts=(number,)),
            lambda answer: then(),
            given_up=lambda: self._tell(number, phase, then),
        )

    def _outcome(self, message: Kx) -> Kx:
        return Kx("OUTCOME-IS", Verb.ASSIGN, names=(self.log.get(message.counts[0], "aborted"),))

    # --- the participant ----------------------------------------------------------------------------------------------

    def _prepare(self, message: Kx) -> Kx:
        change = _change(message)
        known = self.log.get(change.number)
        if known is None and len(self._open) >= OPEN_LIMIT:
            raise Malformed(f"change {change.number}: {OPEN_LIMIT} are open, one at a time may be")
        if known is None:
            known = "prepared" if self._subject.votes(change) else "aborted"
            self._write(change.number, known)
            if known == "prepared":
                self._open[change.number] = change
                self._subject.hold(change)
        return Kx("VOTE", Verb.ASSIGN, ok=known != "aborted", counts=(self._subject.mark(),))

    def _decided(self, message: Kx) -> Kx:
        self._resolve(message.counts[0], "committed" if message.word == "COMMIT" else "aborted")
        return Kx("ACK", Verb.ASSIGN)

    def _ask_outcome(self, number: int) -> None:
        self._line.talk.ask(
            Kx("OUTCOME", Verb.ASSIGN, counts=(number,)),
            lambda answer: self._heard(number, answer),
            given_up=lambda: self._ask_outcome(number),
        )

    def _heard(self, number: int, answer: Kx) -> None:
        said: dict[str, Phase] = {"committed": "committed", "aborted": "aborted", "prepared": "prepared"}
        phase = self._part.resolved(self.log.get(number), said[answer.names[0]])
        if phase is not None:
            self._resolve(number, phase)
        elif number in self._open:
            self._line.site.later(OUTCOME_NS, self._ask_outcome, number)

    def _resolve(self, number: int, phase: Phase) -> None:
        self._write(number, phase)
        change = self._open.pop(number, None)
        if change is None:
            return
        if phase == "committed":
            self._subject.carry_out(change)
        else:
            self._subject.release(change)

    def _write(self, number: int, phase: Phase) -> None:
        self.log[number] = phase
        if len(self.log) > KEPT_OUTCOMES:
            del self.log[next(iter(self.log))]


def _change(message: Kx) -> Change:
    return Change(message.counts[0], message.to, message.counts[1:], message.names)
