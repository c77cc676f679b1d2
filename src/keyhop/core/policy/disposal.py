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
