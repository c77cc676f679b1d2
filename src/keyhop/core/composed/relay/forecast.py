"""Global key made at the rate at which it is drawn, and by the piece in need; at hops, flows take turns by deficit."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import KeyAsked, StreamOpened
from keyhop.core.composed.relay.parcels import HopQueue, Parcel
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.stock.purposes import OWN, TRANSIT, Purposed
from keyhop.core.composed.stock.serving import Pending, Taken, Then
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.refill import ByDemand
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.sharing import DeficitRoundRobin, Turn

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

ALLOCATE_NS = NANOSECONDS
"""Between two orders for a site (K)."""
FORGETTING = 0.2
"""Weight of the last second in the measured demand (K)."""
AHEAD_S = 3
"""So many seconds of a demand may be under way (K)."""
LARGEST_BITS = 4096
"""Of one batch of a continuous demand: flows take turns with pieces of this size at most (K)."""
CONTINUOUS, ONE_TIME = 0, 1
"""Ranks of parcels."""

Flow = tuple[str, str]
"""(source, destination)"""


class Rounds:
    """Continuous flows by deficit round robin; one-time demands first in, first out, with their share of each round."""

    def __init__(self, part: DeficitRoundRobin, weights: dict[Flow, int]) -> None:
        self._part = part
        self._weights = weights
        """Of 1 where nothing is said."""
        self._flows: list[Flow] = []
        self._waiting: dict[Flow, deque[Parcel]] = {}
        self._turn = part.first(0)
        self._once: deque[Parcel] = deque()
        self._once_bits = 0
        """What one-time demands may take before the next continuous one."""
        self._next: tuple[Parcel, Turn | None] | None = None

    def put(self, parcel: Parcel) -> None:
        if parcel.rank == ONE_TIME:
            self._once.append(parcel)
            return
        flow = parcel.path[0], parcel.path[-1]
        if flow not in self._waiting:
            self._flows.append(flow)
            self._waiting[flow] = deque()
            self._turn = self._turn._replace(deficits=(*self._turn.deficits, 0))
            if self._next is not None and self._next[1] is not None:
                self._next = self._next[0], self._next[1]._replace(deficits=(*self._next[1].deficits, 0))
        self._waiting[flow].append(parcel)

    def head(self) -> Parcel | None:
        if self._next is None:
            self._next = self._choose()
        return None if self._next is None else self._next[0]

    def pop(self) -> Parcel:
        head = self.head()
        assert head is not None
        assert self._next is not None
        turn, self._next = self._next[1], None
        if turn is None:
            self._once.popleft()
            self._once_bits = max(0, self._once_bits - head.bits)
        else:
            self._turn = turn
            self._waiting[head.path[0], head.path[-1]].popleft()
            self._once_bits += self._part.one_time_bits(head.bits)
        return head

    def _choose(self) -> tuple[Parcel, Turn | None] | None:
        waiting = [self._waiting[flow] for flow in self._flows]
        heads = [queue[0].bits if queue else None for queue in waiting]
        if self._once and (self._once[0].bits <= self._once_bits or not any(waiting)):
            return self._once[0], None
        chosen = self._part.next(heads, [self._weights.get(flow, 1) for flow in self._flows], self._turn)
        return None if chosen is None else (waiting[chosen[0]][0], chosen[1])


class Forecast(HopWise):
    """The control plane at a source: ALLOC of a rate to a site, or of so much once."""

    def __init__(self, site: Site, part: HopByHop, refill: ByDemand, sharing: DeficitRoundRobin) -> None:
        super().__init__(site, part)
        self._refill = refill
        self._sharing = sharing
        self.weights: dict[Flow, int] = {}
        self._asked_bits: dict[str, int] = {}
        """Since the last order, by site."""
        self._rates: dict[str, float] = {}
        """Bit/s, measured or declared."""
        self._ticks = False

    def queue(self) -> HopQueue:
        return Rounds(self._sharing, self.weights)

    def lane(self, parcel: Parcel, hop: str) -> str:
        """What begins here and what passes draw on different shares: neither waits for the other."""
        return f"{hop} {OWN}" if parcel.path[0] == self._site.node else hop

    def grew(self, link: Line) -> None:
        super().grew(link)
        self._drain(f"{link.peer} {OWN}")

    def pad(self, link: Line, parcel: Parcel, then: Then) -> Taken | Pending | None:
        """Where it begins, link key of the own share is the payload; later the pad is of the transit share."""
        own = parcel.path[0] == self._site.node
        purpose = (OWN if own else TRANSIT) if isinstance(link.dealing, Purposed) else ""
        return link.serving.take(purpose, parcel.bits, then)

    def refusal(self, asked: KeyAsked) -> str:
        if asked.peer not in self._site.links:
            self._asked_bits[asked.peer] = self._asked_bits.get(asked.peer, 0) + asked.size_bits
            self._start_ticking()
        return ""

    def opened(self, stream: StreamOpened) -> None:
        if stream.asks and stream.peer not in self._site.links:
            self._rates[stream.peer] = self._rates.get(stream.peer, 0.0) + stream.rate_bps
            self._start_ticking()

    def closed(self, stream: str) -> None:
        """What nobody draws any more is forgotten with time."""

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        """A one-time demand for what waits and is not on its way."""
        if line.distant:
            missing = bits - self._under_way_bits(line.peer) - line.serving.stock_bits(stream)
            self._alloc(line, missing, ONE_TIME)

    def brings(self, line: Line) -> bool:
        """Whether anybody waits is the category's matter."""
        return False

    def _start_ticking(self) -> None:
        if not self._ticks:
            self._ticks = True
            self._site.later(ALLOCATE_NS, self._tick)

    def _tick(self) -> None:
        """Demand statistics drive generation (S)."""
        for peer in sorted({*self._rates, *self._asked_bits}):
            measured = self._asked_bits.pop(peer, 0) * NANOSECONDS / ALLOCATE_NS
            before = self._rates.get(peer, measured)
            rate = self._rates[peer] = before + FORGETTING * (measured - before)
            line = self._site.line(peer, True)
            bits = int(self._refill.order(rate / 8) * 8)
            if line is None or bits < 1:
                continue
            if self._under_way_bits(peer) < AHEAD_S * bits:
                self._alloc(line, bits, CONTINUOUS)
        self._site.later(ALLOCATE_NS, self._tick)

    def _alloc(self, line: Line, bits: int, rank: int) -> None:
        """A continuous demand, which may be any number that was declared, orders no more than its first link brings."""
        site, unit_bits = self._site, line.run.unit_bits
        paths = site.network.paths(site.design, site.node, line.peer) if bits > 0 else []
        if paths and rank == CONTINUOUS:
            bits = min(bits, AHEAD_S * site.network.rates[frozenset(paths[0][:2])])
        while bits > 0 and paths:
            size = -(-min(bits, LARGEST_BITS) // unit_bits) * unit_bits
            bits -= size
            self.start(line, size, paths[0], rank=rank)
