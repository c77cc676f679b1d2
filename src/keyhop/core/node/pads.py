"""Pads for relay: leased ahead by demand, set aside for a batch before it moves, shared out among those who ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from keyhop.core.designs import Running
from keyhop.core.messages import RANGES_PER_MESSAGE, Span
from keyhop.core.model import NANOSECONDS, TAG_KEY_BYTES, Action, Purpose, Range, State
from keyhop.core.node.context import Context
from keyhop.core.node.leases import Leases
from keyhop.core.node.pair import Pair
from keyhop.core.node.placing import DISTANT_FLOOR_BYTES
from keyhop.core.policy.relay import Held

CONFIRMATION_BYTES = 2 * TAG_KEY_BYTES
SEGMENT_BYTES = 1024
"""The least that a batch brings beside its confirmation keys: one segment of the smallest size."""
FIRST_BATCH_BYTES = CONFIRMATION_BYTES + DISTANT_FLOOR_BYTES + DISTANT_FLOOR_BYTES // 2 + SEGMENT_BYTES
"""What lets a distant pair open and share a first key."""
GRANTED_BYTES = 4096
"""A poor link lets every source hold as much."""
AHEAD_NS = 60 * NANOSECONDS
"""A link that was asked for pads keeps some in hand for this long, so that the next reservation need not be refused."""
RATE_WEIGHT_PER_S = 0.5
"""Of what a second has shown in the average: it follows in about two."""


class Demand(msgspec.Struct):
    """Of one link."""

    length: int
    """Bytes last asked for."""
    asked_at: int
    taken: int = 0
    """Bytes set aside since the last look."""
    rate: float = 0.0
    """Slow average, bytes per second."""


class Way(NamedTuple):
    """Where a batch comes from and goes to, as far as a node on its path tells batches apart."""

    neighbour: str
    """By way of whom it came; this node for its own batches."""
    source: str
    destination: str


class Holding(NamedTuple):
    """Pads of a link that are set aside for a batch and still to be spent."""

    way: Way
    """As the reservation says: only the neighbour is known to be who it says it is."""
    pads: list[Span]


class Pads:
    def __init__(self, context: Context, leases: Leases, design: Running) -> None:
        self.context = context
        self.leases = leases
        self.design = design
        self.holders: list[Callable[[Pair], Iterable[Holding]]] = []
        """Who sets pads aside: each says what it holds of a link."""
        self.covered_bytes: Callable[[str, Way], int] = lambda peer, way: 0
        """Set by the node, as those that follow: what guaranteed flows this way may take of a link now."""
        self.kept_bytes: Callable[[Pair, Mapping[Way, int]], int] = lambda pair, under_way: 0
        """What stays in the stock for flows, but for what is set aside for them already."""
        self.alone: Callable[[Pair], bool] = lambda pair: False
        """Whether no application here draws on a link."""
        self.on_spent: Callable[[str, Way, int], None] = lambda peer, way, length: None
        self._demand: dict[str, Demand] = {}
        """By neighbour."""

    def look(self, elapsed_ns: int) -> None:
        """Called from time to time: measures the demand, and leases ahead where there was some lately.

        Where batches may pass, what lets one in is there before anybody asks: else the first of a path would be refused
        at each of its nodes in turn.
        """
        context = self.context
        hops = [pair.peer for pair in context.pairs.values() if pair.direct and pair.is_hop]
        first = GRANTED_BYTES if len(hops) > 1 else 0
        for hop in hops if first else ():
            self._demand.setdefault(hop, Demand(0, -AHEAD_NS))
        for peer, demand in self._demand.items():
            pair = context.pairs[peer]
            weight = min(1.0, RATE_WEIGHT_PER_S * elapsed_ns / NANOSECONDS)
            demand.rate += (demand.taken * NANOSECONDS / max(1, elapsed_ns) - demand.rate) * weight
            demand.taken = 0
            # Flows have theirs in hand: they do not wait for a lease.
            lately = context.now - demand.asked_at < AHEAD_NS
            ahead = max(demand.length, self.kept_bytes(pair, self.under_way(pair))) if lately else first
            if self.in_hand(pair) < ahead and pair.is_hop:
                self.want(pair, ahead)

    def ahead(self, pair: Pair) -> None:
        """Fresh key is there: leases ahead in the frame that says so, where it costs no tag."""
        demand = self._demand.get(pair.peer)
        if demand is not None and pair.is_hop and self.context.now - demand.asked_at < AHEAD_NS:
            wanted = self.design.synchronisation.size(demand.rate)
            if self.in_hand(pair) < max(wanted, demand.length):
                self.want(pair, demand.length)

    def reserved(self, pair: Pair) -> list[tuple[int, int]]:
        """Pads of a link that are set aside for batches under way: still to be spent."""
        return [(start, start + size) for holding in self._holdings(pair) for start, size in holding.pads]

    def _holdings(self, pair: Pair) -> Iterator[Holding]:
        for holder in self.holders:
            yield from holder(pair)

    def under_way(self, pair: Pair) -> dict[Way, int]:
        """Bytes of a link that are set aside, by where their batches come from and go to."""
        found: dict[Way, int] = {}
        for holding in self._holdings(pair):
            found[holding.way] = found.get(holding.way, 0) + sum(span for _, span in holding.pads)
        return found

    def in_hand(self, pair: Pair) -> int:
        """Bytes leased as pads and not set aside, or in a moment."""
        return pair.pads.total() + self.leases.committing_pads.get(pair.peer, 0)

    def sure_bytes(self, pair: Pair, way: Way) -> int:
        """What a batch this way may have whatever others hold: of guaranteed flows that were booked."""
        return max(0, self.covered_bytes(pair.peer, way) - self.under_way(pair).get(way, 0))

    def refusal(self, pair: Pair, length: int, way: Way) -> str:
        """Why a source may not set so much more aside; empty if it may. The stock of a link is for all who relay, but
        for what is kept for flows and streams that have a guarantee."""
        sure = self.sure_bytes(pair, way)
        if length <= sure:
            return ""
        kept = self.kept_bytes(pair, self.under_way(pair)) - sure + self.leases.promised_bytes(pair)
        free = pair.own_key.untouched + self.in_hand(pair) - kept
        if kept > 0 and length > free:
            return f"{kept} bytes of the next link are kept for guarantees: {max(0, free)} are free, {length} asked for"
        source, neighbour = way.source, way.neighbour
        by_source = by_neighbour = by_all = 0
        for holding in self._holdings(pair):
            size = sum(span for _, span in holding.pads)
            by_all += size
            by_source += size if holding.way.source == source else 0
            by_neighbour += size if holding.way.neighbour == neighbour else 0
        stock = pair.own_key.untouched + pair.pads.total() + by_all
        held = Held(by_source, by_neighbour, by_all)
        return self.design.relay.refusal(length - sure, GRANTED_BYTES, stock, held, alone=self.alone(pair))

    def take(self, pair: Pair, length: int) -> list[Span] | None:
        """Sets pads aside, all or nothing."""
        demand = self._demand.setdefault(pair.peer, Demand(length, 0))
        demand.length, demand.asked_at = length, self.context.now
        if pair.pads.total() < length:
            return None
        taken: list[Span] = []
        missing = length
        for start, end in pair.pads:
            size = min(missing, end - start)
            taken.append((start, size))
            missing -= size
            if not missing:
                break
        if len(taken) > RANGES_PER_MESSAGE:
            return None
        for start, size in taken:
            pair.pads.remove(start, start + size)
        demand.taken += length
        return taken

    def want(self, pair: Pair, batch_bytes: int) -> None:
        """Asks for a lease that lasts for some seconds of what relay takes of this link."""
        demand = self._demand.get(pair.peer)
        by_demand = self.design.synchronisation.size(demand.rate if demand else 0.0)
        stock, pads = pair.own_key.untouched, self.in_hand(pair)
        size = self.design.relay.pad_lease_bytes(batch_bytes, by_demand, stock, pads, alone=self.alone(pair))
        self.leases.want(pair, Purpose.PAD, size)

    def spend(self, pair: Pair, pads: tuple[Range, ...], way: Way) -> None:
        """Own pads are used: booked, and overwritten once the frame is out."""
        self.on_spent(pair.peer, way, sum(pad.length for pad in pads))
        for pad in pads:
            pair.own_key.book.move(State.RESERVED_INTERNAL, Action.RELAY, pad.length)
        self.context.out.wipe.extend(pads)
        self.context.book(pair.own_key)

    def give_back(self, pair: Pair, pads: list[Span]) -> None:
        """Not a bit of them has left and no position was named: they are pads again, but for what was burnt."""
        run, demand = pair.own_key, self._demand.get(pair.peer)
        if demand is not None:
            demand.taken = max(0, demand.taken - sum(length for _, length in pads))
        for start, length in pads:
            for low, high, segment in run.parts(start, start + length):
                if segment.mark == Purpose.PAD:
                    pair.pads.add(low, high)
                else:
                    run.book.move(State.RESERVED_INTERNAL, Action.BURN, high - low)
                    self.context.book(run)
