"""How both ends come to the same range."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """The owner reserves ahead with one acknowledged lease per some seconds; keys inside it need no message."""

    seconds: float = 10.0
    min_bytes: int = 1024
    max_bytes: int = 8 << 20

    def size(self, demand_bytes_per_s: float) -> int:
        """Bytes to lease for the next `seconds` at this demand."""
        return max(self.min_bytes, min(self.max_bytes, int(demand_bytes_per_s * self.seconds)))

    def low(self, lease_bytes: int) -> int:
        """Below this the next lease is asked for, so that it is there before this one ends."""
        return lease_bytes // 2
