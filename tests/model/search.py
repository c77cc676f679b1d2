"""Breadth-first search of a small model: every state within its bounds, or the shortest way to a broken invariant."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

DEPTH = int(os.environ.get("KEYHOP_MODEL_DEPTH", "0"))
"""0 keeps the whole suite under a minute; 1 gives each model more faults: a quarter of an hour and 8 GB."""

MAX_STATES = 5_000_000 if DEPTH else 1_000_000
MAX_SECONDS = 7200.0 if DEPTH else 100.0


class Broken(str):
    """Stands where the next state would: the step itself breaks the invariant named here."""

    __slots__ = ()


class Found(NamedTuple):
    """What a search found."""

    states: int
    complete: bool
    """Every state within the bounds was visited, or the search ended at a broken invariant."""
    broken: str | None
    """The invariant that fails first, if any."""
    trace: tuple[str, ...]
    """The shortest sequence of steps to it."""
    seconds: float

    def __str__(self) -> str:
        size = f"{self.states} states, {self.seconds:.1f} s"
        if self.broken:
            return f"{self.broken} after {len(self.trace)} steps ({size}): {'; '.join(self.trace)}"
        return f"nothing broken, {'complete' if self.complete else 'NOT complete'} ({size})"


def search(
    initial: Any,
    steps: Callable[[Any], Iterable[tuple[str, Any]]],
    wrong: Callable[[Any], str | None],
    max_states: int = MAX_STATES,
    max_seconds: float = MAX_SECONDS,
) -> Found:
    """Visit every state reachable from `initial`, nearest first, until one is wrong or a limit is reached."""
    # States are tuples without cycles: looking for cycles among a million of them costs half the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _search(initial, steps, wrong, max_states, max_seconds)
    finally:
        if collecting:
            gc.enable()


def _search(
    initial: Any,
    steps: Callable[[Any], Iterable[tuple[str, Any]]],
    wrong: Callable[[Any], str | None],
    max_states: int,
    max_seconds: float,
) -> Found:
    began = time.monotonic()
    seen = {initial}
    states = [initial]
    came: list[tuple[int, str]] = [(-1, "")]

    def found(complete: bool, broken: str | None, at: int, last: tuple[str, ...] = ()) -> Found:
        labels: list[str] = []
        while at > 0:
            at, label = came[at]
            labels.append(label)
        return Found(len(states), complete, broken, (*reversed(labels), *last), time.monotonic() - began)

    reason = wrong(initial)
    if reason:
        return found(True, reason, 0)
    at = 0
    while at < len(states):
        for label, state in steps(states[at]):
            if type(state) is Broken:
                return found(True, str(state), at, (label,))
            if state in seen:
                continue
            seen.add(state)
            states.append(state)
            came.append((at, label))
            reason = wrong(state)
            if reason:
                return found(True, reason, len(states) - 1)
        at += 1
        if len(states) > max_states or (at & 1023 == 0 and time.monotonic() - began > max_seconds):
            return found(False, None, 0)
    return found(True, None, 0)
