"""Demands on their way through a run, and what became of each: the same account whichever engine carries them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from keyhop.simulator.record import Demand, Outcome, Verdict


class Trial:
    """One demand; an engine adds what it has to remember of it."""

    __slots__ = ("attempts", "demand", "outcome")

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.attempts = 0
        self.outcome: Outcome | None = None


TrialT = TypeVar("TrialT", bound=Trial)


class Trials(Generic[TrialT]):
    """Times are nanoseconds since the run began."""

    def __init__(self, demands: Iterable[Demand], make: Callable[[Demand], TrialT]) -> None:
        self.by_number = {demand.number: make(demand) for demand in demands}
        self.resync_ns: list[int] = []
        self._troubled_ns: list[int] = []

    def troubled(self, now: int) -> None:
        """A fault begins: the next key that both ends hold ends it."""
        self._troubled_ns.append(now)

    def end(self, trial: Trial, verdict: Verdict, now: int, *, its: bool = False, equal: bool = True) -> None:
        trial.outcome = Outcome(trial.demand.number, verdict, now, its, equal, trial.attempts)
        if verdict is Verdict.SUPPLIED and self._troubled_ns:
            self.resync_ns += [now - since for since in self._troubled_ns]
            self._troubled_ns.clear()

    def outcomes(self, end: int) -> tuple[Outcome, ...]:
        """What nobody has answered by the end of the run has timed out."""
        return tuple(
            trial.outcome or Outcome(trial.demand.number, Verdict.TIMED_OUT, end, attempts=trial.attempts)
            for trial in self.by_number.values()
        )
