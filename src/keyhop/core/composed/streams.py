"""Streams of relayed key at a declared rate: let in hop by hop, carried in a window, given away as they arrive."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.buffers import within
from keyhop.core.composed.dealing import Directed, direction
from keyhop.core.composed.messages import KeyAsked, Kx, StreamOpened
from keyhop.core.composed.relaying import HOP_WAIT_NS, HopWise, Parcel
from keyhop.core.composed.serving import Taken
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
SYN_NS = 5 * NANOSECONDS
"""A SYN that is not answered by then was dropped."""
HALF_OPEN_NS = 2 * SYN_NS
"""After this a node frees what a SYN reserved and no answer confirmed."""

Key = tuple[str, str]
"""(source, stream)"""


class Reserved:
    """Of one link, for one stream."""

    __slots__ = ("before_bps", "confirmed", "rate_bps")

    def __init__(self, rate_bps: int, before_bps: int) -> None:
        self.rate_bps = rate_bps
        self.before_bps = before_bps
        """What it goes back to if the new rate is not confirmed."""
        self.confirmed = False


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
        self._admission = admission
        self._routing = routing
        self.connections: dict[str, Connection] = {}
        self._thirsty: dict[str, None] = {}
        """Streams that may have to send."""
        self.reserved: dict[str, dict[Key, Reserved]] = {peer: {} for peer in site.links}
        """By link; both ends of it hold the same."""
        self._arrivals: deque[tuple[int, Line, str, int, int]] = deque()
        """At the destination: (when, line, pool, start, end)."""
        for link in site.links.values():
            link.talk.handlers["SYN"] = self._syn
            link.talk.handlers["SYN-ACK"] = self._syn_acknowledged
            link.talk.handlers["FIN"] = self._fin
            link.talk.handlers["ACK"] = self._acknowledged

    # --- what the site asks -------------------------------------------------------------------------------------------

    def refusal(self, asked: KeyAsked) -> str:
        connection = self.connections.get(asked.stream)
        if connection is None:
            return f"stream {asked.stream} has no connection: its rate must be declared first"
        if connection.rate_bps or (connection.asked_bps and asked.peer not in self._site.links):
            return ""
        return f"stream {asked.stream} was not let in: a link of its path cannot promise its rate"

    def admitted(self) -> frozenset[str] | None:
        return frozenset(name for name, connection in self.connections.items() if connection.rate_bps)

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
            self._pass_fin((self._site.node, stream), connection.path)

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        self._thirsty[stream] = None
        # A request that is only about to wait is heard of before it does.
        self._feed(keep=stream)

    def restarted(self) -> None:
        super().restarted()
        for connection in self.connections.values():
            connection.flight.clear()
            connection.late.clear()

    # --- letting in ---------------------------------------------------------------------------------------------------

    def free_bps(self, peer: str, key: Key) -> int:
        """What the link to a neighbour can still promise this stream, with what it holds already."""
        total = self._site.network.rates[frozenset((self._site.node, peer))]
        others = sum(held.rate_bps for other, held in self.reserved[peer].items() if other != key)
        return self._admission.free(total, others)

    def _declare(self, connection: Connection) -> None:
        site = self._site
        key = (site.node, connection.stream)
        self._pass_syn(key, connection.peer, connection.asked_bps, (site.node,), connection.path)
        site.later(SYN_NS, self._unanswered, connection, connection.asked_bps)

    def _unanswered(self, connection: Connection, asked_bps: int) -> None:
        """A node has dropped the SYN: what the stream had, it keeps."""
        if connection.asked_bps != asked_bps:
            return
        connection.asked_bps = 0
        if not connection.rate_bps:
            self._refuse(connection)

    def _refuse(self, connection: Connection) -> None:
        for request in self._site.waiting.of(connection.peer):
            if request.stream == connection.stream and (why := self.refusal(request.asked)):
                self._site.refuse(request, why)

    def _pass_syn(self, key: Key, to: str, rate_bps: int, path: tuple[str, ...], pinned: tuple[str, ...]) -> None:
        """Reserves on the next link and goes on; a node that cannot carry the rate drops it.

        The path of a stream is chosen once, by the first SYN (K).
        """
        hops = [pinned[len(path)]] if pinned else self._hops(to, path)
        loads = [1 - self.free_bps(hop, key) / max(1, self._rate(hop)) for hop in hops]
        first = self._routing.forward(loads)
        order = [hops[first]] if first is not None else []
        for hop in [*order, *hops]:
            if self._admission.offer(rate_bps, [self.free_bps(hop, key)]).admitted:
                self._reserve(hop, key, rate_bps)
                message = Kx("SYN", Verb.ASSIGN, to=to, counts=(rate_bps,), names=(key[1], *path, hop))
                self._site.links[hop].talk.tell(message)
                return

    def _hops(self, to: str, path: tuple[str, ...]) -> list[str]:
        """Neighbours in ascending weight of the way over them."""
        site = self._site
        found: list[tuple[int, str]] = []
        for hop in site.links:
            way = site.network.shortest(hop, to)
            if hop not in path and way is not None and not set(path) & set(way):
                found.append((len(way), hop))
        return [hop for _, hop in sorted(found)]

    def _rate(self, peer: str) -> int:
        return self._site.network.rates[frozenset((self._site.node, peer))]

    def _reserve(self, peer: str, key: Key, rate_bps: int) -> None:
        held = self.reserved[peer].get(key)
        entry = Reserved(rate_bps, held.rate_bps if held is not None and held.confirmed else 0)
        self.reserved[peer][key] = entry
        self._site.later(HALF_OPEN_NS, self._half_open, peer, key, entry)

    def _half_open(self, peer: str, key: Key, entry: Reserved) -> None:
        if self.reserved[peer].get(key) is entry and not entry.confirmed:
            entry.rate_bps, entry.confirmed = entry.before_bps, True
            if not entry.rate_bps:
                del self.reserved[peer][key]

    def _syn(self, message: Kx) -> None:
        stream, *path = message.names
        key, rate_bps = (path[0], stream), message.counts[0]
        self._reserve(path[-2], key, rate_bps)
        if message.to != self._site.node:
            self._pass_syn(key, message.to, rate_bps, tuple(path), ())
            return
        # Nothing goes the other way but acknowledgements, which take no key but their tags: its rate is 0.
        self._pass_back(Kx("SYN-ACK", Verb.ASSIGN, counts=(rate_bps, 0), names=message.names))

    def _pass_back(self, message: Kx) -> None:
        """To the previous node of the path in a message; confirms what is reserved there."""
        stream, *path = message.names
        before = path[path.index(self._site.node) - 1]
        if message.word == "SYN-ACK":
            self._confirm(before, (path[0], stream))
        self._site.links[before].talk.tell(message)

    def _confirm(self, peer: str, key: Key) -> None:
        held = self.reserved[peer].get(key)
        if held is not None:
            held.confirmed = True

    def _syn_acknowledged(self, message: Kx) -> None:
        stream, *path = message.names
        at = path.index(self._site.node)
        self._confirm(path[at + 1], (path[0], stream))
        if at:
            self._pass_back(message)
            return
        connection = self.connections.get(stream)
        if connection is None:
            self._pass_fin((path[0], stream), tuple(path))
            return
        connection.path = tuple(path)
        connection.rate_bps = message.counts[0]
        if connection.asked_bps == message.counts[0]:
            connection.asked_bps = 0
        self._thirsty[stream] = None
        self._feed()

    def _pass_fin(self, key: Key, path: tuple[str, ...]) -> None:
        hop = path[path.index(self._site.node) + 1]
        self.reserved[hop].pop(key, None)
        self._site.links[hop].talk.tell(Kx("FIN", Verb.GIVE_BACK, names=(key[1], *path)))

    def _fin(self, message: Kx) -> None:
        stream, *path = message.names
        at = path.index(self._site.node)
        self.reserved[path[at - 1]].pop((path[0], stream), None)
        if at + 1 < len(path):
            self._pass_fin((path[0], stream), tuple(path))

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
        rate_bps = self._rate(link.peer)
        size_bits = min(link.settings.capacity_bits, rate_bps * SHORT_SECONDS)
        if link.serving.stock_bits("") < SHORT_SHARE * size_bits:
            parcel = parcel._replace(congested=True)
        super()._send(link, parcel, pad)

    def received(self, parcel: Parcel) -> None:
        """To the application at once; the source learns where the key lies."""
        site = self._site
        source = parcel.path[0]
        line = site.line(source, True)
        assert line is not None
        label = f"{direction(source, site.node)}/{parcel.flow}"
        run = line.run_of(label)
        start, run.end = run.end, run.end + parcel.bits // run.unit_bits
        line.book.N += parcel.bits
        run.pool(label).put(start, run.end)
        self._arrivals.append((site.now, line, label, start, run.end))
        if len(self._arrivals) == 1:
            site.later(FORGOTTEN_NS, self._forget_old)
        site.grew(line)
        word = Kx("ACK", Verb.AGREE, counts=(parcel.number, start, parcel.bits), names=(parcel.flow, *parcel.path))
        if parcel.congested:
            site.later(DELAYED_NS, self._pass_back, word)
        else:
            self._pass_back(word)

    def _forget_old(self) -> None:
        """What nobody has fetched is not stored."""
        arrivals, oldest = self._arrivals, self._site.now - FORGOTTEN_NS
        while arrivals and arrivals[0][0] <= oldest:
            _, line, label, start, end = arrivals.popleft()
            self._destroy(line, label, within(line.run_of(label).pool(label), (start, end)))
        if arrivals:
            self._site.later(arrivals[0][0] - oldest, self._forget_old)

    def _destroy(self, line: Line, label: str, parts: tuple[tuple[int, int], ...]) -> None:
        run = line.run_of(label)
        if parts and run.pool(label).remove(parts):
            line.gone(parts, "X", run)

    def _acknowledged(self, message: Kx) -> None:
        stream, *path = message.names
        if path[0] != self._site.node:
            self._pass_back(message)
            return
        connection = self.connections.get(stream)
        number, start, bits = message.counts
        if connection is None:
            return
        in_time = number in connection.flight
        segment = connection.flight.pop(number, None) or connection.late.pop(number, None)
        if segment is None:
            return
        if in_time:
            connection.acknowledged += 1
            if connection.acknowledged >= connection.window:
                connection.window, connection.acknowledged = min(LARGEST_WINDOW, connection.window + 1), 0
        site = self._site
        line = site.line(connection.peer, True)
        assert line is not None
        label = line.dealing.label(stream, True)
        run = line.run_of(label)
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
