"""What this node has booked at others for its own guaranteed streams: one flow each, along the path of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import msgspec

from keyhop.core.messages import RATE_LIMIT_BPS, AnswerFlow, BookFlow, EndFlow
from keyhop.core.model import NANOSECONDS
from keyhop.core.node.context import Context
from keyhop.core.node.flows import MILLISECONDS, Flows
from keyhop.core.node.pads import CONFIRMATION_BYTES, SEGMENT_BYTES
from keyhop.core.policy.routing import Edge, Route
from keyhop.core.services.promises import Contract, held_for_gap

LIFETIME_NS = 30 * NANOSECONDS
REFRESH_NS = 10 * NANOSECONDS
"""A flow outlives two words of it that were lost."""
ANSWER_NS = 3 * NANOSECONDS
RETRY_NS = 5 * NANOSECONDS
"""After a refusal; twice as long after each further one in a row."""
RETRY_DOUBLINGS = 3
LEAST_BURST_BITS = 2 * (CONFIRMATION_BYTES + SEGMENT_BYTES) * 8
"""Relayed key comes in batches: a flow that cannot take one at once takes none."""
GAP_NS = 2 * NANOSECONDS
"""Between two batches."""
OVERHEAD = (9, 8)
"""Key of links for one bit of relayed key: tag keys of the pair and confirmation keys of batches come with it."""


def flow_of(contract: Contract) -> Contract:
    """What a stream's contract takes of every link of its path."""
    more, of = OVERHEAD
    burst = contract.burst_bits + held_for_gap(contract.rate_bps, GAP_NS)
    rate = min(RATE_LIMIT_BPS, -(-contract.rate_bps * more // of))
    return Contract(rate, min(RATE_LIMIT_BPS, max(LEAST_BURST_BITS, -(-burst * more // of))))


def stream_of(flow: Contract) -> Contract:
    """The contract that such a flow is enough for."""
    more, of = OVERHEAD
    rate = flow.rate_bps * of // more
    return Contract(rate, max(0, flow.burst_bits * of // more - held_for_gap(rate, GAP_NS)))


class Booking(msgspec.Struct):
    number: int
    path: tuple[str, ...]
    contract: Contract
    """Of the flow."""
    asked_at: int
    said_at: int
    heard_at: int | None = None
    """When the destination said yes last; None: not yet."""


class Refused(msgspec.Struct, frozen=True):
    at: str
    reason: str
    offer: Contract | None
    """For the stream."""


class Bookings:
    def __init__(self, context: Context, flows: Flows) -> None:
        self.context = context
        self.flows = flows
        self.bookings: dict[str, Booking] = {}
        """By stream."""
        self.edges: Callable[[], Iterable[Edge]] = lambda: ()
        """Set by the node: the links of the network, as link state tells."""
        self.on_booked: Callable[[str], None] = lambda stream: None
        """Set by the guarantees, as the next."""
        self.on_refused: Callable[[str, Refused], None] = lambda stream, refused: None
        self._retry_at: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        """In a row."""
        flows.answered_to_us = self.answered

    def rests(self, stream: str) -> bool:
        """Whether it was refused a moment ago."""
        return self._retry_at.get(stream, 0) > self.context.now

    def ask(self, stream: str, path: tuple[str, ...], contract: Contract) -> None:
        """`contract`: of the stream; on our own link it is promised already."""
        number = int.from_bytes(self.context.entropy(7), "big")
        now, flow = self.context.now, flow_of(contract)
        booking = self.bookings[stream] = Booking(number, path, flow, now, now)
        self.flows.begin_own(number, path, flow)
        self._say(booking)

    def _say(self, booking: Booking) -> None:
        booking.said_at = self.context.now
        rate_bps, burst_bits = booking.contract
        message = BookFlow(booking.number, booking.path, rate_bps, burst_bits, LIFETIME_NS // MILLISECONDS)
        self.context.say_plain(booking.path[1], message)

    def answered(self, message: AnswerFlow) -> None:
        about = (message.number, message.path)
        found = [(stream, one) for stream, one in self.bookings.items() if (one.number, one.path) == about]
        if not found:
            return
        stream, booking = found[0]
        if message.booked:
            first = booking.heard_at is None
            booking.heard_at = self.context.now
            if first:
                self._refusals.pop(stream, None)
                self.on_booked(stream)
            return
        offer = stream_of(Contract(message.offer_bps, message.offer_bits)) if message.offer_bps else None
        at = message.at if message.at in booking.path else booking.path[1]
        self._refused(stream, Refused(at, message.reason, offer))

    def _refused(self, stream: str, refused: Refused) -> None:
        self.end(stream)
        again = self._refusals[stream] = self._refusals.get(stream, 0) + 1
        self._retry_at[stream] = self.context.now + (RETRY_NS << min(again - 1, RETRY_DOUBLINGS))
        self.on_refused(stream, refused)

    def end(self, stream: str) -> None:
        booking = self.bookings.pop(stream, None)
        if booking is not None:
            self.flows.end_own(booking.number)
            self.context.say_plain(booking.path[1], EndFlow(booking.number, booking.path))

    def look(self, stream: str) -> bool:
        """Called from time to time: says again what is booked; False if its path is no more, and the booking ended."""
        booking, now = self.bookings.get(stream), self.context.now
        if booking is None:
            return True
        if not self._is_up(booking.path):
            self.end(stream)
            return False
        last = booking.asked_at + ANSWER_NS if booking.heard_at is None else booking.heard_at + LIFETIME_NS
        if now >= last:
            self._refused(stream, Refused(booking.path[1], "no answer came in time", None))
        elif now - booking.said_at >= REFRESH_NS:
            self._say(booking)
        return True

    def _is_up(self, path: tuple[str, ...]) -> bool:
        up = {(edge.start, edge.end) for edge in self.edges() if edge.up}
        return all(hop in up for hop in pairwise(path))

    def route(self, destination: str) -> Route | None:
        """The path on which key for a key manager is booked, if it is up."""
        for booking in self.bookings.values():
            if booking.path[-1] == destination and booking.heard_at is not None:
                stock = {(edge.start, edge.end): edge.usable_bytes for edge in self.edges() if edge.up}
                hops = list(pairwise(booking.path))
                if all(hop in stock for hop in hops):
                    return Route(booking.path, float(len(hops)), min(stock[hop] for hop in hops))
        return None
