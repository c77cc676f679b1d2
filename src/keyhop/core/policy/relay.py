"""How global key is carried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple


class Held(NamedTuple):
    """Bytes of a link that reservations hold: those of one source, those by way of one neighbour, all of them."""

    by_source: int
    by_neighbour: int
    by_all: int


RANDOM = "random"
"""Bits that the source of a plan draws itself."""


def link(one: str, other: str) -> str:
    """The name of the key that both ends of a link hold; every name in a plan but RANDOM is one of these."""
    return f"{min(one, other)}|{max(one, other)}"


class Leg(NamedTuple):
    """`at` sends the XOR of these keys, of equal length, to `to`."""

    at: str
    xor: tuple[str, ...]
    to: str


class Plan(NamedTuple):
    """How both ends of a path come to one key."""

    key: tuple[str, ...]
    """What the key is the XOR of."""
    legs: tuple[Leg, ...]
    links_spent: int
    """Links on which key of the same length is used up."""


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
    """local: the first link's own key is carried; random: fresh bits of the source are (SECOQC, Toshiba, NICT: S)."""
    paths: Literal["one", "aggregate", "xor"] = "one"
    """Between two paths: each fills the pool, or both make up one key (SwissQuantum; which of the two is ours, K)."""
    queued: bool = False
    """Relayed key waits at each hop for unreserved key, by priority (QoS-supported KM, S)."""

    def plan(self, path: Sequence[str]) -> Plan:
        links = _links(path)
        if self.payload == "random":
            legs = [Leg(path[n], (RANDOM, links[n]), path[n + 1]) for n in range(len(links))]
            return Plan((RANDOM,), tuple(legs), len(links))
        legs = [Leg(path[n], (links[0], links[n]), path[n + 1]) for n in range(1, len(links))]
        return Plan((links[0],), tuple(legs), len(links))

    def rate_bps(self, path_rates_bps: Sequence[int]) -> int:
        """What several paths together bring, the first or only one being the route."""
        if self.paths == "aggregate":
            return sum(path_rates_bps)
        return min(path_rates_bps, default=0) if self.paths == "xor" else next(iter(path_rates_bps), 0)

    def batch_bytes(self, wanted: int, poorest_stock_bytes: int, minimum: int, granted: int = 0) -> int:
        """How much to carry now; 0 if the poorest hop cannot even give the minimum.

        `granted`: what hops grant to every source that holds nothing, if all together keep to their share.
        """
        if poorest_stock_bytes < minimum:
            return 0
        share = max(int(poorest_stock_bytes * self.stock_share), min(granted, poorest_stock_bytes))
        allowed = min(self.max_batch_bytes, max(minimum, share))
        return max(minimum, min(wanted, allowed))

    def all_may_hold(self, stock_bytes: int, *, alone: bool = False) -> int:
        """What of a link's stock reservations may hold together; `alone`: no application at its end draws on it."""
        return stock_bytes if alone else int(stock_bytes * self.path_share)

    def refusal(self, length: int, minimum: int, stock_bytes: int, held: Held, *, alone: bool = False) -> str:
        """Why a link refuses to set `length` bytes more aside; empty if it does not.

        One batch of the minimum is granted to everybody who holds nothing, and a second one to a neighbour that brings
        more than one source, as long as all together keep to their share.
        """
        all_may_hold = self.all_may_hold(stock_bytes, alone=alone)
        granted = max(minimum, min(2 * minimum, all_may_hold // 2))
        for who, limit, holds in (
            ("this source", max(minimum, int(stock_bytes * self.source_share)), held.by_source),
            ("this neighbour", max(granted, int(stock_bytes * self.neighbour_share)), held.by_neighbour),
            ("relay", all_may_hold, held.by_all),
        ):
            if holds + length > limit:
                return f"{who} may hold {limit} bytes of the next link: {holds} are held, {length} more asked for"
        return ""

    def pad_lease_bytes(
        self, batch_bytes: int, by_demand: int, stock_bytes: int, pads_bytes: int, *, alone: bool = False
    ) -> int:
        """How much to lease as pads: what the demand asks for, at least two batches, and never so much that paths
        hold more than their share of what the link has for everybody."""
        share = self.all_may_hold(stock_bytes + pads_bytes, alone=alone) - pads_bytes
        return max(batch_bytes, min(max(2 * batch_bytes, by_demand), share))

    def segment_bytes(self, payload_bytes: int) -> int:
        """How the key of a batch is cut: into some sixteen pieces, so that what applications lease of it is small."""
        wanted = max(1, payload_bytes // self.segments_per_batch)
        return max(self.min_segment_bytes, min(self.max_segment_bytes, 1 << (wanted.bit_length() - 1)))


@dataclass(frozen=True, slots=True)
class NoRelay:
    """Key ends where its link ends (NIST, QCC, MagiQ: S; DARPA and Cisco as they are run here, K)."""

    def plan(self, path: Sequence[str]) -> Plan:
        if len(path) != 2:
            raise ValueError(f"path {'-'.join(path)}: this design has no relay, both ends must share a link")
        return Plan((link(*path),), (), 1)


@dataclass(frozen=True, slots=True)
class RelayXor:
    """The node in the middle sends one end its link's key under the other's, and keeps neither (NEC, S)."""

    def plan(self, path: Sequence[str]) -> Plan:
        """Both ends come to the key of the second link; the far end has it already."""
        if len(path) == 2:
            return Plan((link(*path),), (), 1)
        if len(path) != 3:
            raise ValueError(f"path {'-'.join(path)}: relay_xor joins two links of one node, not {len(path) - 1}")
        source, middle, destination = path
        near, far = link(source, middle), link(middle, destination)
        return Plan((far,), (Leg(middle, (near, far), source),), 2)


@dataclass(frozen=True, slots=True)
class SplitPath:
    """A random key goes straight to the destination under the first link's key, which follows hop by hop (NECTEC, S).

    Nobody on the way learns the key from its links alone; with the direct message every relay node does.
    """

    join_ns: int = 10_000_000_000
    """After so long half a join is destroyed at both ends, booked R and Y (K)."""

    def plan(self, path: Sequence[str]) -> Plan:
        links = _links(path)
        direct = Leg(path[0], (RANDOM, links[0]), path[-1])
        hops = [Leg(path[n], (links[0], links[n]), path[n + 1]) for n in range(1, len(links))]
        return Plan((RANDOM,), (direct, *hops), len(links))

    def given_up(self, first_half_ns: int, now_ns: int) -> bool:
        return now_ns - first_half_ns >= self.join_ns


def _links(path: Sequence[str]) -> list[str]:
    if len(path) < 2 or len(set(path)) != len(path):
        raise ValueError(f"path {'-'.join(path)}: must be two nodes or more, none of them twice")
    return [link(one, other) for one, other in pairwise(path)]


def learns(plan: Plan, path: Sequence[str], node: str, heard: Iterable[Leg]) -> bool:
    """Whether a node of the path can compute the key out of its links' keys and the legs that it hears."""
    own = [frozenset({link(one, other)}) for one, other in pairwise(path) if node in (one, other)]
    if node == path[0]:
        own.append(frozenset({RANDOM}))
    return spanned([*own, *(frozenset(leg.xor) for leg in heard)], plan.key)


def spanned(known: Iterable[frozenset[str]], wanted: Iterable[str]) -> bool:
    """Whether a XOR of some of these sums of keys is the wanted sum (elimination over the field of two)."""
    pivots: dict[str, frozenset[str]] = {}

    def reduced(row: frozenset[str]) -> frozenset[str]:
        for pivot in sorted(pivots):
            if pivot in row:
                row ^= pivots[pivot]
        return row

    for row in known:
        row = reduced(row)
        if row:
            pivot = min(row)
            pivots = {name: other ^ row if pivot in other else other for name, other in pivots.items()} | {pivot: row}
    return not reduced(frozenset(wanted))
