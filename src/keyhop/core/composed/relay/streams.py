"""Streams of relayed key at a declared rate: let in hop by hop, carried in a window, given away as they arrive."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.cargo import Payload
from keyhop.core.composed.nouns.messages import KeyAsked, Kx, StreamOpened
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.nouns.units import Queue
from keyhop.core.composed.relay.declared import SYN_NS, DeclaredRates
from keyhop.core.composed.relay.parcels import Parcel, place_of
from keyhop.core.composed.relay.relaying import HOP_WAIT_NS, HopWise
from keyhop.core.composed.stock.dealing import Directed, direction
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

SEGMENT_BITS = 8192
"""Of key in one message, at most (K)."""
FIRST_WINDOW = 1
"""Segments; one more each time a window has been acknowledged (K)."""
LARGEST_WINDOW = 64
TIMEOUT_NS = NANOSECONDS
"""Silence after which a segment counts as lost and the window is halved (the halving S, the time K)."""
DELAYED_NS = 3 * NANOSECONDS // 2
"""By so much the destination holds back its word when the way is short of key: longer than the source waits (K)."""
FORGOTTEN_NS = 4 * HOP_WAIT_NS
"""What no application has asked for by then is destroyed at the destination: nothing is stored (K)."""
SHORT_SHARE = 0.25
"""A link whose outgoing buffer is emptier than this part of its size is short of key (K)."""
SHORT_SECONDS = 10
"""Where the buffer holds more than its link makes in so much time, that counts as its size (K)."""


class Segment(NamedTuple):
    bits: int
    sent_ns: int


class Connection:
    """A stream at its source."""

    __slots__ = (
        "acknowledged",
        "asked_bps",
        "flight",
        "halved_ns",
        "late",
        "path",
        "peer",
        "rate_bps",
        "stream",
        "window",
    )

    def __init__(self, stream: str, peer: str, asked_bps: int) -> None:
        self.stream = stream
        self.peer = peer
        self.asked_bps = asked_bps
        """What no answer has come for; 0 if none is expected."""
        self.rate_bps = 0
        """Let in at; 0: not."""
        self.path: tuple[str, ...] = ()
        self.window = FIRST_WINDOW
        self.acknowledged = 0
        self.halved_ns = -1
        self.flight: dict[int, Segment] = {}
        self.late: dict[int, Segment] = {}
        """Timed out; their acknowledgement may still come."""

    @property
    def under_way_bits(self) -> int:
        return sum(segment.bits for segment in (*self.flight.values(), *self.late.values()))


class ByStream(Directed):
    """Each stream's key apart: what one is let in for is of no use to another."""

    def label(self, stream: str, outgoing: bool) -> str:
        return f"{super().label(stream, outgoing)}/{stream}"


class Streams(HopWise):
    """SECOQC's QKDTL: a variant of TCP that repeats nothing, over links that are protected hop by hop."""

    def __init__(self, site: Site, part: HopByHop, admission: Reservation, routing: LinkState) -> None:
        super().__init__(site, part)
        self.rates = DeclaredRates(site, admission, routing, self._let_in)
        self.connections: dict[str, Connection] = {}
        self._thirsty: dict[str, None] = {}
        """Streams that may have to send."""
        self._were_let_in: set[str] = set()
        self._entered: dict[str, Queue] = {}
        """Destination -> where key of this source has entered."""
        self._arrivals: deque[tuple[int, Line, str, int, int]] = deque()
        """At the destination: (when, line, pool, start, end)."""
        for link in site.links.values():
            link.talk.handlers["ACK"] = partial(self._acknowledged, link.peer)

    # --- what the site asks -------------------------------------------------------------------------------------------

    def refusal(self, asked: KeyAsked) -> str:
        connection = self.connections.get(asked.stream)
        if connection is None:
            return f"stream {asked.stream} has no connection: its rate must be declared first"
        if connection.rate_bps or (connection.asked_bps and asked.peer not in self._site.links):
            return ""
        return f"stream {asked.stream} was not let in: a link of its path cannot promise its rate"

    def admitted(self) -> frozenset[str] | None:
        return frozenset(self._were_let_in)

    def brings(self, line: Line) -> bool:
        return line.distant

    def opened(self, stream: StreamOpened) -> None:
        if stream.asks:
            self.connections[stream.stream] = Connection(stream.stream, stream.peer, stream.rate_bps)
            self._declare(self.connections[stream.stream])

    def retuned(self, stream: str, rate_bps: int) -> None:
        connection = self.connections.get(stream)
        if connection is not None:
            connection.asked_bps = rate_bps
            self._declare(connection)

    def closed(self, stream: str) -> None:
        connection = self.connections.pop(stream, None)
        if connection is not None and connection.path:
            self.rates.release(stream, connection.path)

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        self._thirsty[stream] = None
        # A request that is only about to wait is heard of before it does.
        self._feed(keep=stream)

    def restarted(self) -> None:
        super().restarted()
        for connection in self.connections.values():
            connection.flight.clear()
            connection.late.clear()

    def renewed(self, link: Line) -> None:
        """Nothing is promised on the new one yet."""
        super().renewed(link)
        self.rates.reserved[link.peer] = {}
        for connection in self.connections.values():
            if connection.path[1:2] == (link.peer,) and connection.rate_bps:
                connection.asked_bps = connection.rate_bps
                self._declare(connection)

    def parted(self, peer: str) -> None:
        super().parted(peer)
        self._entered.pop(peer, None)
        for name in [name for name, connection in self.connections.items() if connection.peer == peer]:
            connection = self.connections[name]
            for number in (*connection.flight, *connection.late):
                self._site.cargo.discard(Payload(self._site.node, peer, number))
            self.closed(name)

    # --- letting in ---------------------------------------------------------------------------------------------------

    def _declare(self, connection: Connection) -> None:
        self.rates.declare(connection.stream, connection.peer, connection.asked_bps, connection.path)
        self._site.later(SYN_NS, self._unanswered, connection, connection.asked_bps)

    def _let_in(self, stream: str, path: tuple[str, ...], rate_bps: int) -> bool:
        connection = self.connections.get(stream)
        if connection is None:
            return False
        if path[-1] != connection.peer:
            raise Malformed(f"a path to {path[-1]} for stream {stream}, which goes to {connection.peer}")
        self._were_let_in.add(stream)
        connection.path, connection.rate_bps = path, rate_bps
        if connection.asked_bps == rate_bps:
            connection.asked_bps = 0
        self._thirsty[stream] = None
        self._feed()
        return True

    def _unanswered(self, connection: Connection, asked_bps: int) -> None:
        """A node has dropped the SYN: what the stream had, it keeps."""
        if connection.asked_bps != asked_bps:
            return
        connection.asked_bps = 0
        if connection.rate_bps:
            return
        for request in self._site.waiting.of(connection.peer):
            if request.stream == connection.stream and (why := self.refusal(request.asked)):
                self._site.refuse(request, why)

    # --- key ----------------------------------------------------------------------------------------------------------

    def _feed(self, keep: str = "") -> None:
        """Sends what the applications that wait need and the windows let through."""
        for stream in list(self._thirsty):
            connection = self.connections.get(stream)
            if connection is None or not connection.rate_bps or connection.peer in self._site.links:
                del self._thirsty[stream]
                continue
            missing = self._site.waiting.by_stream.get(stream, 0) - connection.under_way_bits
            while missing > 0 and len(connection.flight) < connection.window:
                missing -= self._send_segment(connection, missing)
            if missing <= 0 and stream != keep:
                del self._thirsty[stream]

    def _send_segment(self, connection: Connection, bits: int) -> int:
        site = self._site
        line = site.line(connection.peer)
        assert line is not None
        unit_bits = line.run.unit_bits
        bits = -(-min(bits, SEGMENT_BITS) // unit_bits) * unit_bits
        self._numbers += 1
        connection.flight[self._numbers] = Segment(bits, site.now)
        site.later(TIMEOUT_NS, self._timed_out, connection, self._numbers)
        parcel = Parcel(self._numbers, bits, connection.path, site.now, True, flow=connection.stream, made_ns=site.now)
        self._pass_on(parcel, 0)
        return bits

    def _send(self, link: Line, parcel: Parcel, pad: Taken) -> None:
        """A node that is short of key says so to the destination."""
        rate_bps = self._site.network.rates[frozenset((link.own, link.peer))]
        size_bits = min(link.settings.capacity_bits, rate_bps * SHORT_SECONDS)
        if link.serving.stock_bits("") < SHORT_SHARE * size_bits:
            parcel = parcel._replace(congested=True)
        super()._send(link, parcel, pad)

    def received(self, parcel: Parcel) -> None:
        """To the application at once; the source learns where the key lies."""
        site = self._site
        source = parcel.path[0]
        line = self.line_to_source(parcel)
        if line is None:
            return
        label = f"{direction(source, site.node)}/{parcel.flow}"
        run = line.run_of(label)
        start, run.end = run.end, run.end + parcel.bits // run.unit_bits
        line.book.N += parcel.bits
        run.pool(label).put(start, run.end)
        self._arrivals.append((site.now, line, label, start, run.end))
        if len(self._arrivals) == 1:
            site.later(FORGOTTEN_NS, self._forget_old)
        site.grew(line)
        site.cargo.enter(parcel.payload, line, run, start)
        names, beginning = (parcel.flow, *parcel.path), site.cargo.stamp(line)
        word = Kx("ACK", Verb.AGREE, counts=(parcel.number, start, parcel.bits), names=names, cargo=beginning)
        if parcel.congested:
            site.later(DELAYED_NS, self._back, word)
        else:
            self._back(word)

    def _back(self, message: Kx) -> None:
        """To the node before this one on the path."""
        _, *path = message.names
        self._site.links[path[path.index(self._site.node) - 1]].talk.tell(message)

    def _forget_old(self) -> None:
        """What nobody has fetched is not stored."""
        arrivals, oldest = self._arrivals, self._site.now - FORGOTTEN_NS
        while arrivals and arrivals[0][0] <= oldest:
            _, line, label, start, end = arrivals.popleft()
            self._destroy(line, label, line.run_of(label).pool(label).within(start, end))
        if arrivals:
            self._site.later(arrivals[0][0] - oldest, self._forget_old)

    def _destroy(self, line: Line, label: str, parts: tuple[tuple[int, int], ...]) -> None:
        run = line.run_of(label)
        if parts and run.pool(label).remove(parts):
            line.gone(parts, "X", run)

    def _acknowledged(self, peer: str, message: Kx) -> None:
        stream, *way = message.names
        path = tuple(way)
        place_of(self._site, path, peer, back=True)
        if path[0] != self._site.node:
            self._back(message)
            return
        connection = self.connections.get(stream)
        number, start, bits = message.counts
        if connection is None:
            return
        in_time = number in connection.flight
        sent = connection.flight.get(number) or connection.late.get(number)
        if sent is not None and (sent.bits != bits or path != connection.path):
            raise Malformed(f"{bits} bit of number {number} are acknowledged: {sent.bits} were sent, on another path")
        segment = connection.flight.pop(number, None) or connection.late.pop(number, None)
        if segment is None:
            return
        if in_time:
            connection.acknowledged += 1
            if connection.acknowledged >= connection.window:
                connection.window, connection.acknowledged = min(LARGEST_WINDOW, connection.window + 1), 0
        site = self._site
        line = site.line(connection.peer, True)
        if line is None or not site.cargo.fits(line, message.cargo):
            return
        label = line.dealing.label(stream, True)
        run = line.run_of(label)
        # Out of order at most: what lies where key lay before would be given twice.
        self._entered.setdefault(line.peer, Queue()).put(start, start + bits // run.unit_bits)
        site.cargo.enter(Payload(site.node, line.peer, number), line, run, start)
        run.end = max(run.end, start + bits // run.unit_bits)
        line.book.N += bits
        run.pool(label).put(start, start + bits // run.unit_bits)
        site.grew(line)
        site.later(0, self._leave_nothing, line, label)
        self._thirsty[stream] = None

    def _leave_nothing(self, line: Line, label: str) -> None:
        """What no request has taken, its application has given up."""
        run = line.run_of(label)
        self._destroy(line, label, tuple(run.pool(label)))

    def _timed_out(self, connection: Connection, number: int) -> None:
        """Once for all that were sent before the last halving."""
        segment = connection.flight.pop(number, None)
        if segment is None:
            return
        connection.late[number] = segment
        self._site.later(HOP_WAIT_NS, self._given_up, connection, number)
        if segment.sent_ns > connection.halved_ns:
            connection.window = max(1, connection.window // 2)
            connection.acknowledged = 0
            connection.halved_ns = self._site.now
        self._thirsty[connection.stream] = None
        self._feed()

    def _given_up(self, connection: Connection, number: int) -> None:
        if connection.late.pop(number, None) is not None:
            self._thirsty[connection.stream] = None
            self._feed()
