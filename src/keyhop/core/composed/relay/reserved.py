"""Relay in classes: reserved key for guaranteed flows on every hop, two queues for the rest (QKRA and HHQA)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.messages import KeyAsked, Kx, StreamOpened
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.relay.parcels import Parcel, place_of
from keyhop.core.composed.relay.relaying import BATCH_BITS, OUTSTANDING_NS, HopWise
from keyhop.core.composed.stock.owner import Owned
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.priority import CLASSES, StrictPriority
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

GUARANTEED = CLASSES[0]
RESERVE_SECONDS = 2
"""A guaranteed flow reserves what it asks for in so much time, at least its largest key twice (K)."""
MARKS_LIMIT = 4096
"""Flows on one link."""
TIMEOUT_NS = 60 * NANOSECONDS
"""What nobody has used or renewed for so long is free again (K)."""
RENEW_NS = TIMEOUT_NS // 2
RETRY_NS = NANOSECONDS // 2
"""A flow that was refused tries again when there is fresh key, not sooner (K)."""
ROUTE_NS = NANOSECONDS
"""A route is kept so long (K)."""

Path = tuple[str, ...]


class Mark:
    """Of one flow on one link, at the link's owner."""

    __slots__ = ("held_bits", "target_bits", "used_ns")

    def __init__(self, target_bits: int, now: int) -> None:
        self.target_bits = self.held_bits = target_bits
        self.used_ns = now


class Flow:
    """A guaranteed stream at its source."""

    __slots__ = ("bits", "held", "path", "peer", "tried_ns", "waits")

    def __init__(self, peer: str, bits: int) -> None:
        self.peer = peer
        self.bits = bits
        self.path: Path = ()
        self.held = False
        """Reserved on every link of its path."""
        self.tried_ns = 0
        self.waits = False
        """For the answer to RESV."""


class Counted(NamedTuple):
    stream: str
    bits: int


class Reserving(HopWise):
    """Key is carried for each request, under the class of its stream."""

    patience_ns = OUTSTANDING_NS

    def __init__(self, site: Site, part: HopByHop, admission: Reservation) -> None:
        super().__init__(site, part)
        self._admission = admission
        self._flows: dict[str, Flow] = {}
        self._marks: dict[str, dict[str, Mark]] = {}
        """Next hop -> "source/stream", of links that this node owns."""
        self._ranks: dict[str, int] = {}
        """Of streams that have asked."""
        self._streams: dict[str, list[str]] = {}
        """By peer."""
        self._under_way: dict[str, int] = {}
        """Bits by stream."""
        self._counted: dict[tuple[str, int], Counted] = {}
        self._routes: dict[str, tuple[int, list[Path]]] = {}
        for link in site.links.values():
            self._attach(link)
            link.talk.handlers |= {
                "RESV": partial(self._asked, link.peer),
                "RESV-OK": partial(self._went_well, link.peer),
                "RESV-FAIL": partial(self._went_wrong, link.peer),
                "RELEASE": partial(self._released, link.peer),
            }

    def _attach(self, link: Line) -> None:
        assert isinstance(link.serving, Owned), "a link whose key is reserved has an owner"
        link.serving.claim = partial(self._claim, link.peer)
        link.serving.rank_of = self._rank

    def renewed(self, link: Line) -> None:
        """What was reserved of the old one is gone; its sources reserve again when they renew, or at once if here."""
        super().renewed(link)
        self._marks.pop(link.peer, None)
        self._attach(link)
        for flow in self._flows.values():
            if flow.path[1:2] == (link.peer,):
                flow.waits, flow.held, flow.path = False, False, ()

    def parted(self, peer: str) -> None:
        super().parted(peer)
        for key in [key for key in self._counted if key[0] == peer]:
            self._uncount(key)

    # --- the source ---------------------------------------------------------------------------------------------------

    def admitted(self) -> frozenset[str]:
        return frozenset(name for name, flow in self._flows.items() if flow.held)

    def refusal(self, asked: KeyAsked) -> str:
        if asked.stream not in self._ranks:
            ranked = isinstance(self._site.design.priority, StrictPriority)
            self._ranks[asked.stream] = CLASSES.index(asked.service_class) if ranked else 0
            self._streams.setdefault(asked.peer, []).append(asked.stream)
        if asked.service_class == GUARANTEED and not self._holds(asked.stream):
            return "nothing is reserved for this flow"
        return ""

    def opened(self, stream: StreamOpened) -> None:
        if stream.asks and stream.service_class == GUARANTEED:
            bits = max(2 * stream.size_bits, stream.rate_bps * RESERVE_SECONDS)
            self.reserve(stream.stream, stream.peer, bits)

    def retuned(self, stream: str, rate_bps: int) -> None:
        flow, opened = self._flows.get(stream), self._site.streams.get(stream)
        if flow is not None and opened is not None:
            self.release(stream)
            self.reserve(stream, flow.peer, max(2 * opened.size_bits, rate_bps * RESERVE_SECONDS))

    def closed(self, stream: str) -> None:
        self.release(stream)

    def reserve(self, name: str, peer: str, bits: int) -> None:
        """RESV forwards: every link's owner marks the amount, or nothing stays marked on any."""
        flow = self._flows[name] = Flow(peer, -(-bits // 8) * 8)
        self._reserve(name, flow)
        self._site.later(RENEW_NS, self._renew, name, flow)

    def release(self, name: str) -> None:
        flow = self._flows.pop(name, None)
        if flow is not None and flow.path:
            self._release(Kx("RELEASE", Verb.GIVE_BACK, to=f"{self._site.node}/{name}", names=flow.path))

    def _reserve(self, name: str, flow: Flow) -> None:
        routes = self._route(flow.peer)
        if routes and not flow.waits:
            flow.path = flow.path or routes[0]
            flow.waits, flow.tried_ns = True, self._site.now
            self._forward(Kx("RESV", Verb.ASSIGN, to=f"{self._site.node}/{name}", counts=(flow.bits,), names=flow.path))

    def _renew(self, name: str, flow: Flow) -> None:
        if self._flows.get(name) is flow:
            flow.waits = False
            self._reserve(name, flow)
            self._site.later(RENEW_NS, self._renew, name, flow)

    def _holds(self, stream: str) -> bool:
        flow = self._flows.get(stream)
        return flow is not None and flow.held

    def _answered(self, key: str, path: Path, *, held: bool) -> None:
        flow = self._flows.get(key.partition("/")[2])
        if flow is None or flow.path != path:
            return
        flow.waits, flow.held = False, held
        if not held:
            flow.path = ()

    def restarted(self) -> None:
        super().restarted()
        for flow in self._flows.values():
            flow.waits = flow.held = False
        self._counted.clear()
        self._under_way.clear()

    # --- on the way ---------------------------------------------------------------------------------------------------

    def _place(self, peer: str, message: Kx, *, back: bool = False) -> int:
        """Raises Malformed."""
        at = place_of(self._site, message.names, peer, back=back)
        if not message.to.startswith(f"{message.names[0]}/"):
            raise Malformed(f"{message.word} for {message.to[:64]!r}: must be a flow of {message.names[0]}")
        return at

    def _asked(self, peer: str, message: Kx) -> None:
        """RESV from the node before: the link between may be this node's, then the next one."""
        at = self._place(peer, message)
        for hop in (peer, *message.names[at + 1 : at + 2]):
            marks = self._marks.get(hop, {})
            if message.to not in marks and len(marks) >= MARKS_LIMIT:
                raise Malformed(f"flow {message.to[:64]!r}: {MARKS_LIMIT} may reserve on the link to {hop}")
        if self._mark(message, peer):
            self._forward(message)
        else:
            self._back(message, "RESV-FAIL")

    def _forward(self, message: Kx) -> None:
        path = message.names
        at = path.index(self._site.node)
        if at + 1 == len(path):
            self._back(message, "RESV-OK")
        elif self._mark(message, path[at + 1]):
            self._site.links[path[at + 1]].talk.tell(message)
        else:
            self._failed(message)

    def _back(self, message: Kx, word: str) -> None:
        """To the node before."""
        path = message.names
        at = path.index(self._site.node)
        if at == 0:
            self._answered(message.to, path, held=word == "RESV-OK")
            return
        answer = Kx(word, Verb.GIVE_BACK, to=message.to, counts=message.counts, names=path)
        self._site.links[path[at - 1]].talk.tell(answer)

    def _went_well(self, peer: str, message: Kx) -> None:
        self._place(peer, message, back=True)
        self._back(message, "RESV-OK")

    def _went_wrong(self, peer: str, message: Kx) -> None:
        self._place(peer, message, back=True)
        self._failed(message)

    def _failed(self, message: Kx) -> None:
        """Nothing stays marked on this node's links of the path."""
        self._unmark(message)
        self._back(message, "RESV-FAIL")

    def _released(self, peer: str, message: Kx) -> None:
        self._place(peer, message)
        self._release(message)

    def _release(self, message: Kx) -> None:
        path = message.names
        at = path.index(self._site.node)
        self._unmark(message)
        if at + 1 < len(path):
            self._site.links[path[at + 1]].talk.tell(message)

    # --- marks --------------------------------------------------------------------------------------------------------

    def reserved_bits(self) -> int:
        return sum(mark.held_bits for marks in self._marks.values() for mark in marks.values())

    def _stock(self, hop: str) -> Owned:
        stock = self._site.links[hop].serving
        assert isinstance(stock, Owned)
        return stock

    def _mark(self, message: Kx, hop: str) -> bool:
        """Whether the amount is marked on this link now, or the link is the other end's to decide on."""
        stock, (bits,) = self._stock(hop), message.counts
        if not stock.owns:
            return True
        marks = self._marks.setdefault(hop, {})
        known = marks.get(message.to)
        if known is not None and known.target_bits == bits:
            known.used_ns = self._site.now
            return True
        there = stock.unreserved_bits + stock.reserved_bits
        others = sum(mark.target_bits for key, mark in marks.items() if key != message.to)
        free = self._admission.free(there, others)
        if not self._admission.offer(bits, [free]).admitted:
            return False
        marks[message.to] = Mark(bits, self._site.now)
        stock.reserved_bits += bits - (0 if known is None else known.held_bits)
        if known is None:
            self._site.later(TIMEOUT_NS, self._look, hop, message.to)
        return True

    def _unmark(self, message: Kx) -> None:
        path = message.names
        at = path.index(self._site.node)
        for hop in (*path[at - 1 : at], *path[at + 1 : at + 2]):
            self._drop_mark(hop, message.to)

    def _drop_mark(self, hop: str, key: str) -> None:
        mark = self._marks.get(hop, {}).pop(key, None)
        if mark is not None:
            self._stock(hop).reserved_bits -= mark.held_bits
            self._site.grew(self._site.links[hop])

    def _look(self, hop: str, key: str) -> None:
        """Neither used nor renewed in time: its source is gone."""
        mark = self._marks.get(hop, {}).get(key)
        if mark is None:
            return
        left_ns = mark.used_ns + TIMEOUT_NS - self._site.now
        if left_ns > 0:
            self._site.later(left_ns, self._look, hop, key)
        else:
            self._drop_mark(hop, key)

    def _claim(self, hop: str, key: str, bits: int) -> bool:
        """Reserved key is relayed at once, whatever waits; ranges are bound only now."""
        mark = self._marks.get(hop, {}).get(key)
        stock = self._stock(hop)
        if mark is None or mark.held_bits + max(0, stock.unreserved_bits) < bits:
            return False
        from_mark = min(bits, mark.held_bits)
        mark.held_bits -= from_mark
        mark.used_ns = self._site.now
        stock.reserved_bits -= from_mark
        return True

    def grew(self, link: Line) -> None:
        """What was used of reservations comes first out of fresh key; who waits to reserve is next."""
        stock = self._stock(link.peer)
        for mark in self._marks.get(link.peer, {}).values():
            more = min(mark.target_bits - mark.held_bits, stock.unreserved_bits)
            if more > 0:
                mark.held_bits += more
                stock.reserved_bits += more
        for name, flow in self._flows.items():
            if not flow.held and self._site.now - flow.tried_ns >= RETRY_NS:
                self._reserve(name, flow)
        super().grew(link)

    # --- orders -------------------------------------------------------------------------------------------------------

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        """For each stream what its requests wait for, less what is under way for it."""
        if not line.distant:
            return
        waiting = self._site.waiting.by_stream
        for name in self._streams.get(line.peer, ()):
            missing = max(
                waiting.get(name, 0), bits if name == stream and not self._site.waiting.any_for(line.peer) else 0
            )
            missing -= self._under_way.get(name, 0)
            if missing > 0:
                self._carry(line, name, self._rank(name), missing)

    def _carry(self, line: Line, stream: str, rank: int, bits: int) -> None:
        flow, unit_bits = self._flows.get(stream), line.run.unit_bits
        paths = [flow.path] if flow is not None and flow.held else self._route(line.peer)
        while bits > 0 and paths:
            size = -(-min(bits, BATCH_BITS) // unit_bits) * unit_bits
            bits -= size
            key = line.peer, self._numbers + 1
            self._counted[key] = Counted(stream, size)
            self._under_way[stream] = self._under_way.get(stream, 0) + size
            self._site.later(OUTSTANDING_NS, self._uncount, key)
            self.start(line, size, paths[0], flow=stream, rank=rank)

    def _uncount(self, key: tuple[str, int]) -> None:
        counted = self._counted.pop(key, None)
        if counted is not None:
            self._under_way[counted.stream] -= counted.bits

    def _stored(self, line: Line, message: Kx) -> None:
        self._uncount((line.peer, message.counts[0]))
        super()._stored(line, message)

    def dropped(self, parcel: Parcel) -> None:
        if parcel.path[0] == self._site.node:
            self._uncount((parcel.path[-1], parcel.number))
        super().dropped(parcel)

    def _rank(self, stream: str) -> int:
        return self._ranks.get(stream, 0)

    def _route(self, peer: str) -> list[Path]:
        known = self._routes.get(peer)
        if known is None or self._site.now - known[0] >= ROUTE_NS:
            site = self._site
            known = self._routes[peer] = site.now, site.network.paths(site.design, site.node, peer)
        return known[1]
