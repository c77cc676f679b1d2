"""Which block numbers were seen: each module's highest, and which of the 64 below it. None is taken in twice."""

from __future__ import annotations

from collections.abc import Iterable

from keyhop.core.node.context import Context
from keyhop.core.node.pair import Pair
from keyhop.core.node.rows import IntakeRow

WINDOW = 64
"""Of numbers further below the highest nobody can tell whether they were seen: they count as seen."""


def seen(marks: tuple[int, int], number: int) -> bool:
    """Whether a block number was accepted before, or is too old to tell."""
    highest, recent = marks
    if number > highest:
        return False
    return highest - number >= WINDOW or bool(recent >> (highest - number) & 1)


def with_number(marks: tuple[int, int], number: int) -> tuple[int, int]:
    highest, recent = marks
    if number > highest:
        return number, _shifted(recent, number - highest) | 1
    return highest, recent | _shifted(1, highest - number)


def union(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    low, high = sorted((first, second))
    return high[0], high[1] | _shifted(low[1], high[0] - low[0])


def _shifted(bit_map: int, by: int) -> int:
    """What is still within the 64 bits; the distance is a peer's, and may be astronomic."""
    return bit_map << by & (1 << WINDOW) - 1 if by < WINDOW else 0


NOTHING_SEEN = (-1, 0)


class BlockNumbers:
    def __init__(self, context: Context) -> None:
        self.context = context

    def are_seen(self, peer: str, module: str, *numbers: int) -> tuple[int, ...]:
        """Those of the numbers that were."""
        marks = self._marks(peer, module)
        return tuple(number for number in numbers if seen(marks, number))

    def _marks(self, peer: str, module: str) -> tuple[int, int]:
        return self.context.intake_marks.get((peer, module), NOTHING_SEEN)

    def remember(self, pair: Pair, module: str, *numbers: int) -> None:
        marks = self._marks(pair.peer, module)
        for number in numbers:
            marks = with_number(marks, number)
        if numbers:
            self._set_marks(pair.peer, module, marks)

    def _set_marks(self, peer: str, module: str, marks: tuple[int, int]) -> None:
        self.context.intake_marks[peer, module] = marks
        self.context.put(IntakeRow(peer, module, *marks))

    def merge(self, pair: Pair, told: Iterable[tuple[str, int, int]]) -> None:
        """Takes in what the peer has seen: (module, highest, which of those below)."""
        for module, highest, recent in told:
            marks = self._marks(pair.peer, module)
            merged = union(marks, (highest, recent))
            if merged != marks:
                self._set_marks(pair.peer, module, merged)
