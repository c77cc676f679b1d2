"""When a pool of global key is filled, and how far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ByDemand:
    """Low mark = demand x measured relay time x margin, never below `min_bytes`; filled to a multiple of it."""

    margin: float = 4.0
    min_bytes: int = 2048
    max_bytes: int = 1 << 20
    high_factor: float = 2.0

    def marks(self, demand_bytes_per_s: float, relay_seconds: float) -> tuple[int, int]:
        """(low, high) in bytes."""
        low = int(demand_bytes_per_s * relay_seconds * self.margin)
        low = max(self.min_bytes, min(self.max_bytes, low))
        return low, min(self.max_bytes, int(low * self.high_factor))
