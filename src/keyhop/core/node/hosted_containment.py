"""A site whose errors are about somebody: what a neighbour has stored here to go off later ends its link alone."""

from __future__ import annotations

from collections.abc import Callable
from traceback import walk_tb
from typing import Any, NamedTuple

from keyhop.core.composed.line import Line
from keyhop.core.composed.nouns.messages import Answered, KeyAsked, KeyFetched, Moves
from keyhop.core.composed.site import Site


class Failure(NamedTuple):
    peer: str
    """With whom everything begins anew; empty: nobody knows."""
    why: str


class Contained(Site):
    """Timers remember for whom they were set; an error in one of them, or in a step, leaves the site to go on.

    What was half done belongs to a line: the caller lets that begin anew, so that none of its key is used any more.
    """

    _about = ""
    """The peer of what is being worked for."""

    def __init__(self, *arguments: Any) -> None:
        self.failures: list[Failure] = []
        super().__init__(*arguments)

    def later(self, delay_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        super().later(delay_ns, self._timed, self._about, call, arguments)

    def _timed(self, about: str, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        before, self._about = self._about, about
        try:
            call(*arguments)
        except Exception as error:
            self.fail(error, about)
        finally:
            self._about = before

    def attempt(self, event: object, now: int, about: str) -> tuple[Moves, Exception | None]:
        """As `step`; with an error come the moves that were made before it. Timers fail by themselves."""
        self._about, raised = about, None
        try:
            self.step(event, now)
        except Exception as error:
            raised = error
        moves = self.moves
        moves.wake_at = self._timers[0][0] if self._timers else None
        if raised is not None and isinstance(event, KeyAsked | KeyFetched):
            moves.answer.append(Answered(event.request, refusal="the design failed on this request"))
        return moves, raised

    def fail(self, error: Exception, about: str) -> None:
        """Of the line in whose rooms it was raised; if it was in none, of whoever it was done for."""
        self.failures.append(Failure(raised_in(error) or about, told(error)))


def raised_in(error: Exception) -> str:
    """The other end of the innermost line on the way to the error."""
    peer = ""
    for frame, _ in walk_tb(error.__traceback__):
        room = getattr(frame.f_locals.get("self"), "_line", None)
        for value in (*frame.f_locals.values(), room):
            peer = value.peer if isinstance(value, Line) else peer
    return peer


def told(error: Exception) -> str:
    """What it is and where: its text may hold whatever a neighbour has sent."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{type(error).__name__} in {frame.f_code.co_filename.rpartition('/')[2]}:{line}"
