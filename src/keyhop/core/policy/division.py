"""How fresh material is dealt to pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple


class Want(NamedTuple):
    """One run that may take of a block."""

    run: int
    stock_bytes: int
    limit_bytes: int
    """What it may hold: the floor of an authentication run, the stock limit of a key run."""


@dataclass(frozen=True, slots=True)
class EncDec:
    """Two directed runs per pair; the shorter stock is fed first, so that supply follows demand in both directions.

    Authentication comes before supply: up to its floor each authentication run takes all of a block, then the tag runs
    go on with a share (DESIGN 5, Tags).
    """

    tag_share: float = 0.1

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
    """One pool for everybody."""


@dataclass(frozen=True, slots=True)
class Session:
    """A pool per application session."""

    deal: Literal["turn", "credit", "quota", "slots"] = "turn"


@dataclass(frozen=True, slots=True)
class Purpose:
    """A part of a link's key per use; a whole number counts units, a fraction is a share of the rest."""

    shares: tuple[tuple[str, int | float], ...]
