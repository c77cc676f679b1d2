"""Who may draw from a path at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class AdmitAll:
    """Every request is let in; who comes to an empty store is the fallback's matter."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A flow is let in if every link of its path can still promise what it asks for."""

    of: Literal["stock", "rate", "slots"] = "stock"
    order: Literal["online", "mtka"] = "online"
    lend: bool = False
    slot_bps: int = 1000
    k_paths: int = 3
    max_share: float = 1.0
