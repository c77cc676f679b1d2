"""How much of what there is each stream gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class FirstCome:
    """Whoever asks first is served, as far as the stock goes."""


@dataclass(frozen=True, slots=True)
class Proportional:
    """An amount per pass in proportion to registered rates."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """Unit by unit to whoever is owed most, at no more than the path carries."""

    unit_bits: int
    ceiling: Literal["none", "path"] = "none"
    retune: float = 0.2


@dataclass(frozen=True, slots=True)
class DeficitRoundRobin:
    """Rounds in which every backlogged flow may send its quantum and what it saved."""

    quantum: int = 512
