"""How global key is carried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Held(NamedTuple):
    """Bytes of a link that reservations hold: those of one source, those by way of one neighbour, all of them."""

    by_source: int
    by_neighbour: int
    by_all: int


@dataclass(frozen=True, slots=True)
class HopByHop:
    """Over any number of trusted nodes, one pad per hop; the payload is the first link's own key (Y.3803 case A)."""

    max_batch_bytes: int = 262_144
    """What a batch costs beside its bytes (four messages, a commit at each node) is shared by more of them."""
    stock_share: float = 0.08
    """A batch takes at most this share of the poorest hop's stock: a fifth below what a hop lets one source hold,
    because what links tell of their stock is a moment old."""
    source_share: float = 0.1
    """What of a link's stock the reservations of one source may hold."""
    neighbour_share: float = 0.25
    """The same for all sources that come by way of one neighbour: it may have invented them."""
    path_share: float = 0.5
    """The same for all reservations together."""
    segments_per_batch: int = 16
    min_segment_bytes: int = 1024
    max_segment_bytes: int = 65_536
    payload: Literal["random", "local"] = "local"
    paths: Literal["one", "aggregate", "xor"] = "one"
    queued: bool = False

    def batch_bytes(self, wanted: int, poorest_stock_bytes: int, minimum: int) -> int:
        """How much to carry now; 0 if the poorest hop cannot even give the minimum."""
        allowed = min(self.max_batch_bytes, max(minimum, int(poorest_stock_bytes * self.stock_share)))
        if self.all_may_hold(poorest_stock_bytes) < minimum:
            return 0
        return max(minimum, min(wanted, allowed))

    def all_may_hold(self, stock_bytes: int) -> int:
        """What of a link's stock reservations may hold together."""
        return int(stock_bytes * self.path_share)

    def refusal(self, length: int, minimum: int, stock_bytes: int, held: Held) -> str:
        """Why a link refuses to set `length` bytes more aside; empty if it does not.

        One batch of the minimum is granted to everybody who holds nothing, as long as all together keep to their share.
        """
        for who, limit, holds in (
            ("this source", max(minimum, int(stock_bytes * self.source_share)), held.by_source),
            ("this neighbour", max(minimum, int(stock_bytes * self.neighbour_share)), held.by_neighbour),
            ("relay", self.all_may_hold(stock_bytes), held.by_all),
        ):
            if holds + length > limit:
                return f"{who} may hold {limit} bytes of the next link: {holds} are held, {length} more asked for"
        return ""

    def pad_lease_bytes(self, batch_bytes: int, by_demand: int, stock_bytes: int, pads_bytes: int) -> int:
        """How much to lease as pads: what the demand asks for, at least two batches, and never so much that paths
        hold more than their share of what the link has for everybody."""
        share = int((stock_bytes + pads_bytes) * self.path_share) - pads_bytes
        return max(batch_bytes, min(max(2 * batch_bytes, by_demand), share))

    def segment_bytes(self, payload_bytes: int) -> int:
        """How the key of a batch is cut: into some sixteen pieces, so that what applications lease of it is small."""
        wanted = max(1, payload_bytes // self.segments_per_batch)
        return max(self.min_segment_bytes, min(self.max_segment_bytes, 1 << (wanted.bit_length() - 1)))


@dataclass(frozen=True, slots=True)
class NoRelay:
    """Key ends where its link ends."""


@dataclass(frozen=True, slots=True)
class RelayXor:
    """The node in the middle sends one link's key under the other's."""


@dataclass(frozen=True, slots=True)
class SplitPath:
    """A random key goes straight to the destination, the key that hides it hop by hop."""

    join_ns: int = 10_000_000_000
