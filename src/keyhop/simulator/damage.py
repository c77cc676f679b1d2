"""What the bits of the two ends of each link would show if there were any: where they are not the same."""

from __future__ import annotations

from typing import NamedTuple

from keyhop.core.composed.line import Line
from keyhop.core.composed.nouns.messages import Name
from keyhop.core.composed.nouns.units import Units
from keyhop.core.model import BYTE_BITS


class Mishap(NamedTuple):
    """To the next block of a link, at one end."""

    node: str
    at_byte: int
    """Of the block."""
    lost: bool
    """The byte is missing and the rest moves up; else it is another byte."""


class Damage:
    """Stretches of the modules' streams that one end holds wrong, and records that went bad at rest.

    Only the harness looks here: key managers hear of it by what they compare themselves.
    """

    def __init__(self) -> None:
        self._next: dict[frozenset[str], list[Mishap]] = {}
        self._wrong: dict[tuple[str, str], list[Units]] = {}
        """(end, peer) -> stretches by stamps in bits."""
        self._compared: dict[tuple[Line, Line], int] = {}
        """How many of their origins are known to be the same."""

    def plan(self, link: frozenset[str], mishap: Mishap) -> None:
        self._next.setdefault(link, []).append(mishap)

    def strike(self, link: frozenset[str], stamp_bits: int, bits: int) -> dict[str, int]:
        """What the planned mishaps do to a block that is delivered now: bits missing by end, 0 where only changed."""
        struck: dict[str, int] = {}
        for node, at_byte, lost in self._next.pop(link, ()):
            (peer,) = link - {node}
            start = stamp_bits + at_byte * BYTE_BITS
            end = stamp_bits + bits if lost else start + BYTE_BITS
            self._wrong.setdefault((node, peer), []).append((start, end))
            struck[node] = struck.get(node, 0) + BYTE_BITS * lost
        return struck

    def rot(self, line: Line, unit: int) -> None:
        """A unit that `line` has stored is not what it was."""
        self._wrong.setdefault((line.own, line.peer), []).extend(line.came_from((unit, unit + 1)))

    def equal(self, one: Line, other: Line, name: Name) -> bool:
        """Whether both ends of a link got the same bits under this name. Keys of relayed runs are not looked at."""
        if name.distant or name.unit_bits != one.run.unit_bits:
            return True
        if not self._wrong and self._alike(one, other):
            return True
        for units in name.ranges:
            here = one.came_from(units)
            if here != other.came_from(units) or self.is_wrong(one, here) or self.is_wrong(other, here):
                return False
        return True

    def _alike(self, one: Line, other: Line) -> bool:
        """Whether all that both ends hold came from the same places of the module's stream. Origins are only added, so
        each is looked at once."""
        here, there = one.origins, other.origins
        if len(here) != len(there):
            return False
        known = self._compared.get((one, other), 0)
        while known < len(here) and here[known] == there[known]:
            known += 1
        self._compared[one, other] = known
        return known == len(here)

    def is_wrong(self, line: Line, stretches: list[Units]) -> bool:
        wrong = self._wrong.get((line.own, line.peer))
        return bool(wrong) and any(low < end and start < high for low, high in wrong or () for start, end in stretches)

    def digest(self, line: Line, units: Units) -> int:
        """As a key manager would compute it over what it has stored: equal numbers mean equal bits."""
        return hash(tuple((low, high) for low, high in self._wrong.get((line.own, line.peer), ())
                          if self._within(line, units, (low, high))))  # fmt: skip

    @staticmethod
    def _within(line: Line, units: Units, wrong: Units) -> bool:
        return any(wrong[0] < end and start < wrong[1] for start, end in line.came_from(units))
