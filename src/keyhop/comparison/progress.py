"""How far a sweep is, in figures and in a line that somebody reads."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import msgspec

from keyhop.comparison.case import Case

LONG_S = 5.0
"""A run that takes longer is named."""
LINE_EVERY_S = 60.0
"""In a log; a terminal has a line that changes."""


class Progress(msgspec.Struct, frozen=True):
    done: int
    """Rows that are there, those of earlier starts too."""
    total: int
    failed: int = 0
    """In this start: they are tried again in the next."""
    first_failure: str = ""
    underway: tuple[tuple[Case, float], ...] = ()
    """What is being run, and for how many seconds, where the executor can say."""

    @property
    def longest(self) -> str:
        """The run that has taken longest, if that is long."""
        case, seconds = max(self.underway, key=lambda one: one[1], default=(None, 0.0))
        return "" if case is None or seconds < LONG_S else f"{case}: {_clock(seconds)}"


def line(state: Progress) -> str:
    failed = f", {state.failed} failed" if state.failed else ""
    longest = f"; {state.longest}" if state.longest else ""
    return f"{state.done} of {state.total} runs{failed}{longest}"


class Log:
    """Says a line now and then, where lines stay."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = monotonic) -> None:
        self._say = say
        self._clock = clock
        self._said_at = clock()

    def __call__(self, state: Progress) -> None:
        if self._clock() - self._said_at >= LINE_EVERY_S:
            self._said_at = self._clock()
            self._say(line(state))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
