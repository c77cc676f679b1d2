"""Which waiting request is tried next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Fifo:
    """In order of arrival."""


@dataclass(frozen=True, slots=True)
class StrictPriority:
    """The better class or category first, within one the earlier."""

    by: Literal["class", "category"] = "class"


@dataclass(frozen=True, slots=True)
class ResponseWeight:
    """Requests that arrive together by size and security level."""

    omega: float = 0.5
    slot_ns: int = 10_000_000
