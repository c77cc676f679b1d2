"""Whose a unit is, by its position alone: both ends deal alike without a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import gcd
from typing import NamedTuple, Protocol, TypeAlias

from keyhop.core.policy.division import EncDec, Session
from keyhop.core.policy.sharing import Proportional, Weighted

LONGEST_CYCLE = 4096
"""Weights are rounded to shares of this, so that a rule is a short list that comes round again (K)."""

STEP = 64
"""Picks that are worked out at once."""

Piece: TypeAlias = tuple[str, int, int]
"""(pool, start, end)"""


class Share(NamedTuple):
    """One session in a rule. One with no rate keeps what it has and gets no more."""

    session: str
    rate_bps: int


class Pattern(Protocol):
    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """The units from start to end, in order."""
        ...


class Nobody:
    """No session is there: what comes stays where it is."""

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        return iter(())


class ByTurn:
    """Piece by piece, each session in turn; with directions inside, a session's even pieces go one way (NECTEC)."""

    def __init__(
        self,
        part: Session,
        origin: int,
        shares: Sequence[Share],
        quantum: int,
        directions: tuple[EncDec, str, str] | None,
    ) -> None:
        """`quantum` in units; `directions`: the part, the even pieces' suffix and the odd ones'."""
        self._part = part
        self._origin = origin
        self._sessions = tuple(share.session for share in shares if share.rate_bps > 0)
        self._quantum = quantum
        self._directions = directions

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        quantum, sessions = self._quantum, self._sessions
        while start < end:
            number = (start - self._origin) // quantum
            stop = min(end, self._origin + (number + 1) * quantum)
            label = self._part.whose(number, sessions)
            if self._directions is not None:
                part, even, odd = self._directions
                label += even if part.outgoing(number // len(sessions), True) else odd
            yield label, start, stop
            start = stop


class ByCredit:
    """Unit by unit to whom most is owed (MagiQ)."""

    def __init__(self, part: Weighted, origin: int, shares: Sequence[Share]) -> None:
        self._origin = origin
        self._sessions = tuple(share.session for share in shares)
        self._cycle = cycle(part, weights(tuple(share.rate_bps for share in shares)))

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        whose, sessions, origin = self._cycle.whose, self._sessions, self._origin
        for unit in range(start, end):
            yield sessions[whose(unit - origin)], unit, unit + 1


class ByQuota:
    """An amount for each session per pass (NIST)."""

    def __init__(self, part: Proportional, origin: int, shares: Sequence[Share], units_per_pass: int) -> None:
        self._origin = origin
        self._length = units_per_pass
        quotas = part.quotas(units_per_pass, [share.rate_bps for share in shares])
        amounts = [(share.session, quota) for share, quota in zip(shares, quotas, strict=True)]
        self._stretches = Session(deal="quota").stretches(0, amounts)

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        while start < end:
            at = start - self._origin
            first = start - at % self._length
            for session, offset, length in self._stretches:
                low, high = max(start, first + offset), min(end, first + offset + length)
                if low < high:
                    yield session, low, high
            start = first + self._length


def weights(rates: tuple[int, ...]) -> tuple[int, ...]:
    """As small as they go, and no finer than a cycle allows."""
    whole = gcd(*rates)
    small = tuple(rate // whole for rate in rates) if whole else rates
    total = sum(small)
    if total <= LONGEST_CYCLE:
        return small
    return tuple(max(1, rate * LONGEST_CYCLE // total) if rate else 0 for rate in small)


class Cycle:
    """Picks after which nothing is owed to anybody, so that they come round again; worked out as far as needed."""

    def __init__(self, part: Weighted, rates: tuple[int, ...]) -> None:
        self._part = part
        self._rates = rates
        self._length = sum(rates)
        self._picks: list[int] = []
        self._credits: tuple[int, ...] = ()

    def whose(self, number: int) -> int:
        number %= self._length
        while number >= len(self._picks):
            more, self._credits = self._part.deal(self._rates, STEP, self._credits)
            self._picks += more
        return self._picks[number]


@lru_cache(maxsize=1024)
def cycle(part: Weighted, rates: tuple[int, ...]) -> Cycle:
    """Both ends of a link, and the same rates again, share what has been worked out: it depends on nothing else."""
    return Cycle(part, rates)
