"""Another design than our own on this node: its sites deal out what the node's links lease to them.

Opening, agreement on blocks, marks that are durable before first use, and burning after a restart lie below every
design. The lower-named end of a link leases all key to the design and says in which order; from there on the parts of
the design decide. Nothing of it outlives a process at either end: what was in stock is burnt.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import msgspec

from keyhop.core.composed.line import Line, LineSettings, Run
from keyhop.core.composed.messages import (
    Answered,
    BlockArrived,
    KeyAsked,
    KeyFetched,
    KxArrived,
    LinkRenewed,
    Moves,
    Name,
    NetworkLearned,
    PairParted,
    StreamClosed,
    StreamOpened,
    StreamRetuned,
    Woke,
)
from keyhop.core.composed.network import Network
from keyhop.core.composed.site import Site
from keyhop.core.composed.units import Units
from keyhop.core.designs import Design, no_relay
from keyhop.core.machine import Audit, Deliver, Made
from keyhop.core.messages import DesignMessage, Span
from keyhop.core.model import (
    NANOSECONDS,
    Action,
    PeerError,
    Purpose,
    Range,
    Refusal,
    RequestError,
    State,
)
from keyhop.core.node.context import Context
from keyhop.core.node.events import KeysWanted, RecordsFetched, SessionAsked
from keyhop.core.node.hosted_cargo import HostedCargo
from keyhop.core.node.hosted_messages import (
    LIFE_BYTES,
    Carried,
    Closed,
    Greeting,
    Hail,
    Material,
    Message,
    Named,
    Opened,
    Retuned,
    Said,
    Spoken,
    decode,
    encode,
)
from keyhop.core.node.hosted_stock import Stock, use
from keyhop.core.node.hosted_ties import Ties
from keyhop.core.node.leases import Leases
from keyhop.core.node.link import Links
from keyhop.core.node.linkstate import LinkStates
from keyhop.core.node.local import NOT_FOUND, random_uuid
from keyhop.core.node.pair import Pair
from keyhop.core.node.supply import Supply
from keyhop.core.policy.relay import NoRelay

LOOK_NS = NANOSECONDS // 2
BYTE_BITS = 8
ACTIONS = {"R": Action.RELAY, "T": Action.RELAY, "X": Action.EXPIRE, "Y": Action.BURN, "C": Action.BURN}
"""Letter of a site's book -> what that is in the book of the link below; promoted key leaves its link like a pad."""
RATE_BPS = 1000
"""What a pair of applications is registered with, where a design asks for a rate."""
CATEGORY = 3
"""Of applications that have said nothing of their need for security."""
NAMED_LIMIT = 65_536
"""Keys that were given to their master and that nobody has fetched here, per peer."""


class HostedTick(msgspec.Struct, frozen=True, gc=False):
    pass


class HostedWake(msgspec.Struct, frozen=True, gc=False):
    due: int


class Asking(NamedTuple):
    """A request of an application that the site has."""

    request: int
    master: str
    slave: str
    peer: str
    size_bits: int


class Record(NamedTuple):
    peer: str
    stream: str
    name: Name


class Hosted:
    def __init__(
        self,
        context: Context,
        links: Links,
        leases: Leases,
        supply: Supply,
        states: LinkStates,
        design: Design,
    ) -> None:
        self.context = context
        self.burning = links.burning
        self.leases = leases
        self.supply = supply
        self.states = states
        self.design = design
        self.ties = Ties(context, states, design.name, self)
        self.cargo = HostedCargo(context, self)
        self._lost: set[str] = set()
        """Distant peers of which this end lacks key: their pairs begin anew once the site has done its step."""
        self.stocks: dict[str, Stock] = {}
        self.named: dict[str, Record] = {}
        """Key ID -> what its slave gets here."""
        self._asking: dict[int, Asking] = {}
        self._fetching: dict[int, tuple[RecordsFetched, Record]] = {}
        self._requests = 0
        self._wake_due: int | None = None
        self._links = tuple((str(n.node), max(1, n.rate_bps)) for n in context.settings.neighbours)
        self.network = Network({frozenset((str(context.node), peer)): rate for peer, rate in self._links})
        runs = dataclasses.replace(design, relay=NoRelay()) if no_relay(design) else design
        self.site = Site(str(context.node), runs, self.network, self._draw, self._settings, self.cargo)
        states.own_link = self._own_link
        links.handlers[DesignMessage] = self.heard
        links.on_open.append(self.opened)
        leases.purposes.add(Purpose.DESIGN)
        leases.on_stock = self.lent
        supply.hosted = self

    def watch(self) -> None:
        """Once the store is read: what an earlier process held of anybody's run for a design is burnt."""
        for pair in self.context.pairs.values():
            self._burn(pair)
        self.context.at(self.context.now + LOOK_NS, HostedTick())

    def tick(self, event: HostedTick) -> None:
        context = self.context
        context.at(context.now + LOOK_NS, event)
        self._learn()
        self.ties.tick()
        self.cargo.tick()
        # Link state tells of applications later than the link opens.
        self._register_all()
        for pair in context.pairs.values():
            if self._greeted_by(pair.peer) and pair.is_open and pair.leads and pair.own_key.untouched:
                self.leases.want(pair, Purpose.DESIGN, pair.own_key.untouched)

    def wake(self, event: HostedWake) -> None:
        if self._wake_due == event.due:
            self._wake_due = None
            self._step(Woke())

    # --- links --------------------------------------------------------------------------------------------------------

    def opened(self, pair: Pair) -> None:
        """Both ends begin with nothing on each connection that stands: what one has lost the other cannot use."""
        if pair.direct:
            self._begin(pair)

    def _begin(self, pair: Pair) -> None:
        self._burn(pair)
        stock = self.stocks[pair.peer] = Stock()
        stock.own_life = self.context.entropy(LIFE_BYTES)
        # With the greeting both ends begin once more: then they know the same of the network.
        self._step(LinkRenewed(pair.peer, silent=True))
        self._forget_named(pair.peer, distant=False)
        self._say(pair, Greeting(self.design.name, stock.own_life, self._links))

    def _forget_named(self, peer: str, *, distant: bool) -> None:
        for key_id, record in list(self.named.items()):
            if record.peer == peer and record.name.distant is distant:
                del self.named[key_id]

    def _burn(self, pair: Pair) -> None:
        for run in (pair.own_key, pair.their_key):
            for stretch in list(run.segments.stretches()):
                if stretch.mark == Purpose.DESIGN:
                    for segment in stretch.segments():
                        self.burning.burn_segment(run, segment.start)
        left = pair.hosted.total()
        if left:
            pair.own_key.book.move(State.RESERVED_APP, Action.BURN, left)
            pair.hosted.remove(0, 1 << 40)
            self.context.book(pair.own_key)

    def lent(self, pair: Pair, spans: tuple[Span, ...]) -> None:
        """Our lease is durable at both ends: the peer hears of it before anything that the design says of it."""
        stock = self.stocks.get(pair.peer)
        if stock is None or not stock.life:
            return
        self._say(pair, Material(stock.blocks, spans))
        self._take_in(pair, stock, spans)

    def heard(self, pair: Pair, message: DesignMessage) -> None:
        said = decode(message.payload)
        stock = self.stocks.get(pair.peer)
        if stock is None:
            raise PeerError("a message of a design outside a connection")
        match said:
            case Greeting():
                self._greeted(pair, stock, said)
            case _ if not stock.life:
                raise PeerError(f"{type(said).__name__} before the greeting")
            case Material():
                self._material(pair, stock, said)
            case Hail():
                self.ties.hailed(pair.peer, said)
            case Carried():
                self.ties.carried(pair.peer, said)
            case _:
                self._told(pair.peer, said, distant=False)

    def _greeted(self, pair: Pair, stock: Stock, said: Greeting) -> None:
        if said.design != self.design.name:
            self.context.notice(
                "KH-2303", f"{pair.peer} runs design {said.design}, this node {self.design.name}: no key is shared",
                pair.peer,
            )  # fmt: skip
            return
        stock.life = said.life
        news = [self.network.learn(pair.peer, peer, rate) for peer, rate in said.links if peer != pair.peer]
        self._step(LinkRenewed(pair.peer))
        if any(news):
            self._step(NetworkLearned())
        self._register_all()

    def _greeted_by(self, peer: str) -> bool:
        stock = self.stocks.get(peer)
        return stock is not None and bool(stock.life)

    # --- the network --------------------------------------------------------------------------------------------------

    def _own_link(self, pair: Pair) -> tuple[int, int]:
        """(bytes that may still be used, bit/s) as other nodes are told."""
        rate_bps = pair.rate_bps
        if not rate_bps and pair.module_state == "up":
            rate_bps = self.network.rates[frozenset((self.context.node, pair.peer))]
        return self.site.links[pair.peer].usable_bits // BYTE_BITS, rate_bps

    def _learn(self) -> None:
        """A link is one that both its ends tell of."""
        edges = list(self.states.edges())
        told, news = {(edge.start, edge.end) for edge in edges}, False
        for edge in edges:
            if (edge.end, edge.start) in told:
                news = self.network.learn(edge.start, edge.end, edge.rate_bps) or news
            if frozenset((edge.start, edge.end)) in self.network.rates:
                self.network.tell(edge)
        if news:
            self._step(NetworkLearned())

    def lives(self, source: str, destination: str) -> bytes:
        return self.ties.lives(source, destination)

    def lost(self, peer: str) -> None:
        self._lost.add(peer)

    def _renew_lost(self) -> None:
        while self._lost:
            peer = self._lost.pop()
            self.context.count("design_pairs_renewed")
            self.ties.renew(peer)

    def begun(self, peer: str) -> None:
        """Of a distant pair nothing is left, at either end."""
        self._step(PairParted(peer))
        self.cargo.forget(peer)
        self._forget_named(peer, distant=True)

    def pass_on(self, hop: str, message: Hail | Carried) -> None:
        pair = self.context.pairs.get(hop)
        if pair is not None and self._greeted_by(hop):
            self._say(pair, message)

    def told(self, peer: str, said: Said) -> None:
        self._told(peer, said, distant=True)

    def _told(self, peer: str, said: Said, *, distant: bool) -> None:
        """What a site says, over its link or from afar."""
        match said:
            case Spoken():
                if said.kx.distant is not distant:
                    raise PeerError(f"{said.kx.word} of the {'pair' if said.kx.distant else 'link'}, on the other one")
                kx = msgspec.structs.replace(said.kx, cargo=self.cargo.arrive(said.load))
                try:
                    self._step(KxArrived(peer, kx))
                except (LookupError, ValueError, TypeError) as error:
                    text = f"{said.kx.word} that its design does not say so ({type(error).__name__})"
                    raise PeerError(text) from None
            case Opened():
                self._open(peer, said, asks=False)
            case Retuned():
                self._step(StreamRetuned(said.stream, said.rate_bps))
            case Closed():
                self._step(StreamClosed(said.stream))
            case Named():
                waiting = sum(record.peer == peer for record in self.named.values())
                if waiting >= NAMED_LIMIT:
                    raise PeerError(f"{waiting} keys wait to be fetched: {NAMED_LIMIT} may wait")
                if said.name.distant is not distant:
                    raise PeerError(f"a key of the {'pair' if said.name.distant else 'link'}, named on the other one")
                self.named[said.key_id] = Record(peer, said.stream, said.name)

    def _register_all(self) -> None:
        """Designs with sessions deal key to the pairs of applications that they know."""
        for application in self.supply.applications.values():
            for slave in sorted(application.peers):
                node, stream = self.supply.directory.get(slave), f"{application.id}>{slave}"
                if node is None or node == self.context.node or stream in self.site.streams:
                    continue
                if self._line(node) is not None:
                    self._register(node, stream)

    def _line(self, peer: str) -> Line | None:
        """To a site that can be talked to now; whoever has not answered yet is hailed."""
        line = self.site.line(peer)
        if line is None:
            return None
        if not line.distant:
            return line if self._greeted_by(peer) and self.context.pairs[peer].is_open else None
        if self.ties.stands(peer):
            return line
        self.ties.want(peer)
        return None

    def _line_or_refuse(self, peer: str) -> Line:
        """Raises RequestError."""
        line = self._line(peer)
        if line is not None:
            return line
        if peer in self.site.links:
            raise RequestError(Refusal.UNAVAILABLE, f"the link to KME {peer} is down, or runs another design")
        if isinstance(self.site.design.relay, NoRelay):
            why = no_relay(self.design) or f"design {self.design.name} has no relay"
            raise RequestError(Refusal.UNSUPPORTED, f"{why}: there is no key for KME {peer}, which is no neighbour")
        text = f"KME {peer} has not answered over the nodes between, or runs another design"
        raise RequestError(Refusal.UNAVAILABLE, text, retry_after_s=1.0)

    def _material(self, pair: Pair, stock: Stock, said: Material) -> None:
        run = pair.their_key
        if pair.leads or said.number != stock.blocks:
            raise PeerError(f"block {said.number} of the design's stock: {stock.blocks} of the lower-named end is next")
        if run.exactly(said.spans, Purpose.DESIGN) is None:
            raise PeerError("the design's stock: segments that are not leased for it")
        self._take_in(pair, stock, said.spans)

    def _take_in(self, pair: Pair, stock: Stock, spans: tuple[Span, ...]) -> None:
        run = pair.own_key if pair.leads else pair.their_key
        before = stock.length
        for start, length in spans:
            stock.add(Range(run.id, start, length))
        number = stock.blocks
        stock.blocks += 1
        bits = (stock.length - before) * BYTE_BITS
        self._step(BlockArrived(pair.peer, number, bits, before * BYTE_BITS, number))

    # --- applications -------------------------------------------------------------------------------------------------

    def wanted(self, event: KeysWanted, peer: str) -> None:
        """Raises RequestError for what no design has."""
        if event.number != 1:
            text = f"number {event.number}: design {self.design.name} gives one key per request here"
            raise RequestError(Refusal.BAD_REQUEST, text)
        self._line_or_refuse(peer)
        stream = f"{event.master}>{event.slave}"
        if stream not in self.site.streams:
            self._register(peer, stream)
        self._requests += 1
        self._asking[self._requests] = Asking(event.request, event.master, event.slave, peer, event.size_bits)
        wait_ns = self.context.settings.request_wait_ns
        known = self.site.streams[stream]
        self._step(
            KeyAsked(self._requests, peer, stream, event.size_bits, wait_ns, known.service_class, known.category)
        )

    def available_bits(self, peer: str, master: str, slave: str) -> int:
        """What this pair of applications could be given now, if nobody else asked."""
        line = self._line(peer)
        return line.serving.stock_bits(f"{master}>{slave}") if line is not None else 0

    def size_bits(self, key_id: str) -> int:
        """Of a key that its slave may fetch here; 0 if there is none of this name."""
        record = self.named.get(key_id)
        return record.name.size_bits if record is not None else 0

    def fetched(self, event: RecordsFetched) -> None:
        """One key by ID: it goes before the answer, and never comes back."""
        context = self.context
        records = [self.named.get(key_id) for key_id in event.ids]
        stream = f"{event.master}>{event.slave}"
        if any(record is not None and not record.stream.endswith(f">{event.slave}") for record in records):
            text = f"SAE {event.slave!r} was not named for every one of these keys"
            context.refuse(event.request, RequestError(Refusal.NOT_AUTHORISED, text))
            return
        record = records[0]
        if len(event.ids) != 1 or record is None or record.stream != stream:
            context.refuse(event.request, RequestError(Refusal.NOT_FOUND, NOT_FOUND))
            return
        del self.named[event.ids[0]]
        self._requests += 1
        self._fetching[self._requests] = event, record
        wait_ns = context.settings.request_wait_ns
        self._step(KeyFetched(self._requests, record.peer, stream, record.name, wait_ns))

    def _register(self, peer: str, stream: str) -> None:
        """A pair of applications whose master is here and has asked for nothing in particular, at both ends."""
        size_bits = self.context.settings.default_key_bits
        self._open_both(peer, Opened(stream, RATE_BPS, size_bits, "best_effort", CATEGORY))

    def _open_both(self, peer: str, opened: Opened) -> None:
        self._tell(peer, opened)
        self._open(peer, opened, asks=True)

    def _open(self, peer: str, opened: Opened, *, asks: bool) -> None:
        event = StreamOpened(
            opened.stream, peer, opened.rate_bps, opened.size_bits, asks, opened.service_class, opened.category
        )
        self._step(event)

    def session(self, event: SessionAsked) -> None:
        """What a master registers goes to both ends before it asks for its first key."""
        context, stream = self.context, f"{event.master}>{event.slave}"
        try:
            peer = self.supply.entitle(event.master, event.slave)
            self._line_or_refuse(peer)
            if event.verb != "open" and stream not in self.site.streams:
                raise RequestError(Refusal.NOT_FOUND, f"no session of {event.master} with {event.slave} is open")
        except RequestError as error:
            context.refuse(event.request, error)
            return
        match event.verb:
            case "open":
                if stream in self.site.streams:
                    self._close(peer, stream)
                opened = Opened(stream, event.rate_bps, event.size_bits, event.service_class, event.category)
                self._open_both(peer, opened)
            case "retune":
                self._tell(peer, Retuned(stream, event.rate_bps))
                self._step(StreamRetuned(stream, event.rate_bps))
            case "close":
                self._close(peer, stream)
        context.out.answer.append(Deliver(event.request))

    def _close(self, peer: str, stream: str) -> None:
        self._tell(peer, Closed(stream))
        self._step(StreamClosed(stream))

    # --- the site -----------------------------------------------------------------------------------------------------

    def _step(self, event: object) -> None:
        self._done(self.site.step(event, self.context.now))
        self._renew_lost()

    def _done(self, moves: Moves) -> None:
        context = self.context
        for said in moves.send:
            load = self.cargo.leave(said.message.cargo) if said.message.cargo else None
            spoken = Spoken(msgspec.structs.replace(said.message, cargo=0), load)
            if said.message.distant:
                self.ties.say(said.peer, spoken)
            else:
                self._say(context.pairs[said.peer], spoken)
        for answered in moves.answer:
            if answered.request in self._asking:
                self._answer(self._asking.pop(answered.request), answered)
            elif answered.request in self._fetching:
                self._answer_fetch(*self._fetching.pop(answered.request), answered)
        due = moves.wake_at
        if due is not None and (self._wake_due is None or due < self._wake_due):
            self._wake_due = due
            context.at(due, HostedWake(due))

    def _answer(self, asking: Asking, answered: Answered) -> None:
        context = self.context
        if answered.name is None:
            reason = Refusal.UNSUPPORTED if answered.unservable else Refusal.NOT_ENOUGH_KEY
            context.refuse(asking.request, RequestError(reason, answered.refusal))
            return
        name, stream = answered.name, f"{asking.master}>{asking.slave}"
        if not name.ranges:
            text = f"design {self.design.name} has no QKD key now, and nodes exchange none"
            context.refuse(asking.request, RequestError(Refusal.NOT_ENOUGH_KEY, text))
            return
        key_id = random_uuid(context.entropy(16))
        named = Named(key_id, stream, name)
        if name.distant:
            self.ties.say(asking.peer, named)
        else:
            self._say(context.pairs[asking.peer], named)
        self._give(asking.peer, name, asking.request, (key_id,))

    def _answer_fetch(self, event: RecordsFetched, record: Record, answered: Answered) -> None:
        context = self.context
        if answered.name is None:
            context.refuse(event.request, RequestError(Refusal.NOT_FOUND, answered.refusal))
            return
        if event.audit is not None:
            context.save(Audit(event.audit))
        self._give(record.peer, record.name, event.request, ())

    def _give(self, peer: str, name: Name, request: int, ids: tuple[str, ...]) -> None:
        """The bytes of a key go out and are overwritten; those of a link are booked, too."""
        context, line = self.context, self.site.line(peer, name.distant)
        assert line is not None
        if name.distant:
            ranges = self.cargo.named(line, name)
            context.out.wipe += ranges
        else:
            found = self.link_ranges(line, line.run_of(name.label, name.unit_bits), name.ranges)
            assert found is not None
            ranges = found
            length = sum(taken.length for taken in ranges)
            given = length if name.derived_bits else min(length, -(-name.size_bits // BYTE_BITS))
            use(context, context.pairs[peer], ranges, {Action.SUPPLY: given, Action.WASTE: length - given})
        context.out.answer.append(Deliver(request, ranges, ids=ids, made=made_of(name)))

    def link_ranges(self, line: Line, run: Run, ranges: tuple[Units, ...]) -> tuple[Range, ...] | None:
        if self.site.links.get(line.peer) is not line or line.run_of("", run.unit_bits) is not run:
            return None
        stock = self.stocks[line.peer]
        found: list[Range] = []
        for units in ranges:
            for start_bit, end_bit in line.came_from(units, run.unit_bits):
                found += stock.find(start_bit // BYTE_BITS, end_bit // BYTE_BITS)
        return tuple(found)

    def is_pair(self, line: Line) -> bool:
        return self.site.pairs.get(line.peer) is line

    def spent(self, line: Line, ranges: tuple[Range, ...], letter: str) -> None:
        length = sum(taken.length for taken in ranges)
        use(self.context, self.context.pairs[line.peer], ranges, {ACTIONS[letter]: length})

    def _tell(self, peer: str, said: Said) -> None:
        """Over the link, or from afar where the design serves this peer so."""
        line = self.site.line(peer)
        if line is not None and line.distant:
            self.ties.say(peer, said)
        else:
            self._say(self.context.pairs[peer], said)

    def _say(self, pair: Pair, message: Message) -> None:
        if pair.is_open:
            # With the next connection both ends begin anew: what is said between two would come before the greeting.
            self.context.say(pair, DesignMessage(encode(message)))

    def _draw(self) -> float:
        return int.from_bytes(self.context.entropy(4), "big") / (1 << 32)

    @staticmethod
    def _settings(node: str, peer: str, rate_bps: int, distant: bool) -> LineSettings:
        """Tags are the link's own: real ones, on every frame, out of its tag runs."""
        return LineSettings(rate_bps=rate_bps, tag_bits=0)


def made_of(name: Name) -> Made:
    """Both ends derive the same: what a name says is the same at both."""
    if not name.derived_bits:
        return Made(name.size_bits)
    return Made(name.size_bits, derivation=encode(name))
