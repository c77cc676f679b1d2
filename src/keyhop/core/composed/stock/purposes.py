"""A link's key divided by what it is for, within each direction: from positions alone, the same at both ends."""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

from keyhop.core.composed.stock.dealing import PIECE_BITS, Directed, direction
from keyhop.core.policy.division import Purpose

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

DIRECT, OWN, TRANSIT = "direct", "own", "transit"
"""For applications of the two sites, for global key that begins here, for the key of others (Quantum Canada, S)."""


class Purposed(Directed):
    """What one purpose leaves idle is of no use to another: a link that has key may refuse to carry more."""

    def __init__(self, line: Line, part: Purpose) -> None:
        super().__init__(line)
        self._turns = turns(part)

    def fresh(self, run: Run, start: int, end: int) -> None:
        line = self._line
        piece = max(1, PIECE_BITS // run.unit_bits)
        low, high = sorted((line.own, line.peer))
        ends = direction(low, high), direction(high, low)
        for unit in range(start, end):
            number, within = divmod(unit, piece)
            purpose = self._turns[(number // 2 * piece + within) % len(self._turns)]
            run.pool(f"{ends[number % 2]}/{purpose}").put(unit, unit + 1)

    def label(self, stream: str, outgoing: bool) -> str:
        """The key manager's own streams are the names of the other purposes."""
        purpose = stream if stream in (OWN, TRANSIT) else DIRECT
        return f"{super().label(stream, outgoing)}/{purpose}"


def turns(part: Purpose) -> tuple[str, ...]:
    """One round of units after which every purpose has exactly its share; what is nobody's share goes to the first."""
    shares = [(name, Fraction(str(share))) for name, share in part.shares]
    length = lcm(*(share.denominator for _, share in shares))
    given = dict.fromkeys((name for name, _ in shares), 0)
    found: list[str] = []
    for number in range(1, length + 1):
        name = max(shares, key=lambda one: (one[1] * number - given[one[0]], -list(given).index(one[0])))[0]
        given[name] += 1
        found.append(name)
    return tuple(found)
