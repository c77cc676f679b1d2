"""How global key is carried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HopByHop:
    """Over any number of trusted nodes, one pad per hop; the payload is the first link's own key (Y.3803 case A)."""

    max_batch_bytes: int = 262_144
    """What a batch costs beside its bytes (four messages, a commit at each node) is shared by more of them."""
    stock_share: float = 0.1
    """A batch takes at most this share of the poorest hop's stock."""
    path_share: float = 0.5
    """All reservations together take at most this share of a link's pads."""
    segments_per_batch: int = 16
    min_segment_bytes: int = 1024
    max_segment_bytes: int = 65_536

    def batch_bytes(self, wanted: int, poorest_stock_bytes: int, minimum: int) -> int:
        """How much to carry now; 0 if the poorest hop cannot even give the minimum."""
        allowed = min(self.max_batch_bytes, max(minimum, int(poorest_stock_bytes * self.stock_share)))
        if poorest_stock_bytes * self.path_share < minimum:
            return 0
        return max(minimum, min(wanted, allowed))

    def pad_lease_bytes(self, batch_bytes: int, by_demand: int, stock_bytes: int, pads_bytes: int) -> int:
        """How much to lease as pads: what the demand asks for, at least two batches, and never so much that paths
        hold more than their share of what the link has for everybody."""
        share = int((stock_bytes + pads_bytes) * self.path_share) - pads_bytes
        return max(batch_bytes, min(max(2 * batch_bytes, by_demand), share))

    def segment_bytes(self, payload_bytes: int) -> int:
        """How the key of a batch is cut: into some sixteen pieces, so that what applications lease of it is small."""
        wanted = max(1, payload_bytes // self.segments_per_batch)
        return max(self.min_segment_bytes, min(self.max_segment_bytes, 1 << (wanted.bit_length() - 1)))
