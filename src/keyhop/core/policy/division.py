"""How fresh material is dealt to pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple


class Want(NamedTuple):
    """One run that may take of a block."""

    run: int
    stock_bytes: int
    limit_bytes: int
    """What it may hold: the floor of an authentication run, the stock limit of a key run."""


class Use(NamedTuple):
    """What a key is wanted for; the labels of a design's divisions, outermost first, name the pool."""

    session: str = ""
    outgoing: bool = True
    """This end encrypts with it."""
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class EncDec:
    """Two directed runs per pair; the shorter stock is fed first, so that supply follows demand in both directions.

    Authentication comes before supply: up to its floor each authentication run takes all of a block, then the tag runs
    go on with a share.
    """

    tag_share: float = 0.1
    contested = False

    def label(self, use: Use) -> str:
        return "enc" if use.outgoing else "dec"

    def outgoing(self, piece: int, source: bool) -> bool:
        """Whether a numbered piece is for encryption at this end: even pieces are the source's (K, NECTEC)."""
        return (piece % 2 == 0) == source

    def deal(
        self, length: int, floors: Sequence[Want], tags: Sequence[Want], keys: Sequence[Want]
    ) -> list[tuple[int, int]]:
        """(run, bytes) in the order of the block's bytes; what fits nowhere is left out."""
        dealt: list[tuple[int, int]] = []
        for want in floors:
            take = min(length, max(0, want.limit_bytes - want.stock_bytes))
            # Tag keys are 32 bytes: a ragged end would be wasted.
            take -= take % 32
            if take:
                dealt.append((want.run, take))
                length -= take
        share = int(length * self.tag_share) // max(1, len(tags))
        for want in tags:
            take = min(share, max(0, want.limit_bytes - want.stock_bytes))
            take -= take % 32
            if take:
                dealt.append((want.run, take))
                length -= take
        if len(keys) == 1:
            shares = [(keys[0].run, min(length, max(0, keys[0].limit_bytes - keys[0].stock_bytes)))]
        else:
            shares = self._level(length, keys)
        for run, take in shares:
            if take:
                dealt.append((run, take))
        return dealt

    def _level(self, length: int, keys: Sequence[Want]) -> list[tuple[int, int]]:
        """Fills the shorter stock up to the longer, then halves the rest; nothing above a limit."""
        first, second = sorted(keys, key=lambda want: (want.stock_bytes, want.run))
        gap = min(length, second.stock_bytes - first.stock_bytes)
        half = (length - gap) // 2
        half -= half % 32
        to_first = min(length - half, max(0, first.limit_bytes - first.stock_bytes))
        to_second = min(length - to_first, max(0, second.limit_bytes - second.stock_bytes))
        return [(first.run, to_first), (second.run, to_second)]


@dataclass(frozen=True, slots=True)
class Shared:
    """One pool for everybody (the survey's "no division"): both ends may want the same key."""

    contested = True

    def label(self, use: Use) -> str:
        return "all"


@dataclass(frozen=True, slots=True)
class Session:
    """A pool per application session, so that no application meets another (S, 4.3); its key is of no use elsewhere."""

    deal: Literal["turn", "credit", "quota", "slots"] = "turn"
    """How fresh key comes to sessions. turn: piece by piece, each in turn (NECTEC K, SwissQuantum K); credit: unit by
    unit to whom most is owed (MagiQ, Toshiba S); quota: an amount for each per pass (NIST S, QCC S); slots: each is
    filled at the rate of its service (SDQaaS S)."""
    contested = False

    def label(self, use: Use) -> str:
        return use.session

    def whose(self, piece: int, sessions: Sequence[str]) -> str:
        """The session of a numbered piece when each has its turn: both ends agree without talking."""
        return sessions[piece % len(sessions)]

    def stretches(self, start: int, amounts: Sequence[tuple[str, int]]) -> list[tuple[str, int, int]]:
        """(session, start, length): the amounts of one pass laid one after another from `start`."""
        laid: list[tuple[str, int, int]] = []
        for session, length in amounts:
            if length:
                laid.append((session, start, length))
                start += length
        return laid


@dataclass(frozen=True, slots=True)
class Purpose:
    """A part of a link's key for each use (Quantum Canada: direct, own, transit, S; AIT: internal, external, S)."""

    shares: tuple[tuple[str, int | float], ...]
    """A whole number is so many units, filled first and in this order (AIT: 32 internal, K); a fraction is a share of
    what is left (Quantum Canada: .4, .3, .3, K)."""
    contested = True

    def __post_init__(self) -> None:
        fractions = sum(_exact(share) for _, share in self.shares if isinstance(share, float))
        if not self.shares or any(share < 0 for _, share in self.shares) or fractions > 1:
            raise ValueError(f"purpose.shares = {self.shares}: must be 0 or more, the fractions together at most 1")

    def label(self, use: Use) -> str:
        return use.purpose

    def limits(self, total_units: int) -> dict[str, int]:
        """How many of so many units each purpose may have; rounded down, the rest stays free."""
        found: dict[str, int] = {}
        left = total_units
        for name, share in self.shares:
            if not isinstance(share, float):
                found[name] = min(share, left)
                left -= found[name]
        for name, share in self.shares:
            if isinstance(share, float):
                found[name] = int(left * _exact(share))
        return found

    def may_take(self, purpose: str, units: int, taken_units: int, total_units: int) -> bool:
        """Whether a purpose that has taken so many of a link's units may take more, whatever the others leave."""
        return taken_units + units <= self.limits(total_units).get(purpose, 0)


def _exact(share: float) -> Fraction:
    """0.3 as three tenths, so that 30 % of 1000 units are 300 on every machine."""
    return Fraction(str(share))
