"""How global key is carried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HopByHop:
    """Over any number of trusted nodes, one pad per hop; the payload is the first link's own key (Y.3803 case A)."""

    max_batch_bytes: int = 65_536
    stock_share: float = 0.1
    """A batch takes at most this share of the poorest hop's stock."""
    path_share: float = 0.5
    """All reservations together take at most this share of a link's pads."""

    def batch_bytes(self, wanted: int, poorest_stock_bytes: int, minimum: int) -> int:
        """How much to carry now; 0 if the poorest hop cannot even give the minimum."""
        allowed = min(self.max_batch_bytes, max(minimum, int(poorest_stock_bytes * self.stock_share)))
        if poorest_stock_bytes * self.path_share < minimum:
            return 0
        return max(minimum, min(wanted, allowed))
