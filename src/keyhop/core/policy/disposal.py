"""When stored material is deleted."""

from __future__ import annotations

from dataclasses import dataclass

DAY_NS = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class AgePurge:
    """Untouched segments older than `max_age_ns` expire; only the owner expires."""

    max_age_ns: int = 30 * DAY_NS
    full_store: str = "stop"
    """A full run takes no fresh block."""

    def expired(self, age_ns: int) -> bool:
        return age_ns > self.max_age_ns


@dataclass(frozen=True, slots=True)
class EraseNow:
    """A used key is erased before the next is given."""

    full_store: str = "stop"


@dataclass(frozen=True, slots=True)
class EraseInBatches:
    """Used keys are erased many at a time."""

    n: int = 1024
    full_store: str = "stop"
