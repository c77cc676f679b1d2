"""Another design than our own on this node: its sites deal out what the node's links lease to them.

Opening, agreement on blocks, marks that are durable before first use, and burning after a restart lie below every
design. The lower-named end of a link leases all key to the design and says in which order; from there on the parts of
the design decide. Nothing of it outlives a process at either end: what was in stock is burnt.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from typing import NamedTuple, TypeAlias

import msgspec

from keyhop.core.composed.line import LineSettings
from keyhop.core.composed.messages import (
    Answered,
    BlockArrived,
    KeyAsked,
    KeyFetched,
    Kx,
    KxArrived,
    Moves,
    Name,
    StreamClosed,
    StreamOpened,
    StreamRetuned,
    Woke,
)
from keyhop.core.composed.network import Network
from keyhop.core.composed.site import Site
from keyhop.core.designs import Design
from keyhop.core.machine import Audit, Deliver, Made, Used
from keyhop.core.messages import DesignMessage, Span
from keyhop.core.model import (
    NANOSECONDS,
    Action,
    AppId,
    PeerError,
    Purpose,
    Range,
    Refusal,
    RequestError,
    State,
    joined,
)
from keyhop.core.node.context import Context
from keyhop.core.node.events import KeysWanted, RecordsFetched, SessionAsked
from keyhop.core.node.leases import Leases
from keyhop.core.node.link import Links
from keyhop.core.node.local import NOT_FOUND, random_uuid
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import GONE
from keyhop.core.node.supply import Supply
from keyhop.core.policy.relay import NoRelay

LOOK_NS = NANOSECONDS // 2
BYTE_BITS = 8
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


# --- what hosts say to each other -------------------------------------------------------------------------------------


class Greeting(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    design: str
    life: bytes
    """Of this end's stock: another one means that nothing is left of what was."""


class Material(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """These segments of the sender's run, leased for the design, are its next block."""

    number: int
    spans: tuple[Span, ...]


class Spoken(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    kx: Kx


class Opened(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """A pair of applications, registered at the sender, whose master asks there."""

    stream: str
    rate_bps: int
    size_bits: int
    service_class: str
    category: int


class Retuned(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    stream: str
    rate_bps: int


class Closed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    stream: str


class Named(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """A key that the sender has given to a master, under the ID that its slave will come with."""

    key_id: str
    stream: str
    name: Name


Message: TypeAlias = Greeting | Material | Spoken | Opened | Named | Retuned | Closed

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Asking(NamedTuple):
    """A request of an application that the site has."""

    request: int
    master: str
    slave: str
    size_bits: int


class Record(NamedTuple):
    peer: str
    stream: str
    name: Name


class Stock:
    """Which bytes of the leased segments are which bits of the design's stream."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        """In bytes of the stream, rising."""
        self.ranges: list[Range] = []
        self.blocks = 0
        self.life = b""
        """The peer's, as its greeting said; empty while it has not greeted."""
        self.own_life = b""

    @property
    def length(self) -> int:
        return self.ends[-1] if self.ends else 0

    def add(self, taken: Range) -> None:
        self.ends.append(self.length + taken.length)
        self.ranges.append(taken)

    def find(self, start: int, end: int) -> list[Range]:
        """The ranges of [start, end) of the stream."""
        found: list[Range] = []
        at = bisect_right(self.ends, start)
        while start < end:
            taken = self.ranges[at]
            offset = start - (self.ends[at] - taken.length)
            length = min(end - start, taken.length - offset)
            found.append(Range(taken.run, taken.start + offset, length))
            start += length
            at += 1
        return found


class Hosted:
    def __init__(self, context: Context, links: Links, leases: Leases, supply: Supply, design: Design) -> None:
        self.context = context
        self.burning = links.burning
        self.leases = leases
        self.supply = supply
        self.design = design
        self.stocks: dict[str, Stock] = {}
        self.named: dict[str, Record] = {}
        """Key ID -> what its slave gets here."""
        self._asking: dict[int, Asking] = {}
        self._fetching: dict[int, tuple[RecordsFetched, Record]] = {}
        self._requests = 0
        self._wake_due: int | None = None
        rates = {frozenset((str(context.node), str(n.node))): max(1, n.rate_bps) for n in context.settings.neighbours}
        # Key ends where its link ends: relay of historical designs has no place on nodes yet.
        alone = dataclasses.replace(design, relay=NoRelay())
        self.site = Site(str(context.node), alone, Network(rates), self._draw, self._settings)
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
        for pair in context.pairs.values():
            stock = self.stocks.get(pair.peer)
            if stock is None or not stock.life or not pair.is_open:
                continue
            # Link state tells of applications later than the link opens.
            self._register_all(pair)
            if pair.leads and pair.own_key.untouched:
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
        stock.own_life = self.context.entropy(8)
        self.site.renew(pair.peer)
        for key_id in [key_id for key_id, record in self.named.items() if record.peer == pair.peer]:
            del self.named[key_id]
        self._say(pair, Greeting(self.design.name, stock.own_life))

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
        try:
            said = _decoder.decode(message.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PeerError(f"a message of design {self.design.name} does not decode: {error}") from None
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
            case Spoken():
                self._step(KxArrived(pair.peer, said.kx))
            case Opened():
                self._open(pair.peer, said, asks=False)
            case Retuned():
                self._step(StreamRetuned(said.stream, said.rate_bps))
            case Closed():
                self._step(StreamClosed(said.stream))
            case Named():
                waiting = sum(record.peer == pair.peer for record in self.named.values())
                if waiting >= NAMED_LIMIT:
                    raise PeerError(f"{waiting} keys wait to be fetched: {NAMED_LIMIT} may wait")
                self.named[said.key_id] = Record(pair.peer, said.stream, said.name)

    def _greeted(self, pair: Pair, stock: Stock, said: Greeting) -> None:
        if said.design != self.design.name:
            self.context.notice(
                "KH-2303", f"{pair.peer} runs design {said.design}, this node {self.design.name}: no key is shared",
                pair.peer,
            )  # fmt: skip
            return
        stock.life = said.life
        self._register_all(pair)

    def _register_all(self, pair: Pair) -> None:
        """Designs with sessions deal key to the pairs of applications that they know."""
        for application in self.supply.applications.values():
            for peer in sorted(application.peers):
                stream = f"{application.id}>{peer}"
                if self.supply.directory.get(peer) == pair.peer and stream not in self.site.streams:
                    self._register(pair, stream)

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
        stock = self.stocks.get(peer)
        if event.number != 1:
            text = f"number {event.number}: design {self.design.name} gives one key per request here"
            raise RequestError(Refusal.BAD_REQUEST, text)
        if stock is None or not stock.life:
            raise RequestError(Refusal.UNAVAILABLE, f"the link to KME {peer} is down, or runs another design")
        stream = f"{event.master}>{event.slave}"
        if stream not in self.site.streams:
            self._register(self.context.pairs[peer], stream)
        self._requests += 1
        self._asking[self._requests] = Asking(event.request, event.master, event.slave, event.size_bits)
        wait_ns = self.context.settings.request_wait_ns
        known = self.site.streams[stream]
        self._step(
            KeyAsked(self._requests, peer, stream, event.size_bits, wait_ns, known.service_class, known.category)
        )

    def available_bits(self, peer: str, master: str, slave: str) -> int:
        """What this pair of applications could be given now, if nobody else asked."""
        line = self.site.links.get(peer)
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

    def _register(self, pair: Pair, stream: str) -> None:
        """A pair of applications whose master is here and has asked for nothing in particular, at both ends."""
        size_bits = self.context.settings.default_key_bits
        self._open_both(pair, Opened(stream, RATE_BPS, size_bits, "best_effort", CATEGORY))

    def _open_both(self, pair: Pair, opened: Opened) -> None:
        self._say(pair, opened)
        self._open(pair.peer, opened, asks=True)

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
            stock = self.stocks.get(peer)
            if stock is None or not stock.life:
                raise RequestError(Refusal.UNAVAILABLE, f"the link to KME {peer} is down, or runs another design")
            if event.verb != "open" and stream not in self.site.streams:
                raise RequestError(Refusal.NOT_FOUND, f"no session of {event.master} with {event.slave} is open")
        except RequestError as error:
            context.refuse(event.request, error)
            return
        pair = context.pairs[peer]
        match event.verb:
            case "open":
                if stream in self.site.streams:
                    self._close(pair, stream)
                opened = Opened(stream, event.rate_bps, event.size_bits, event.service_class, event.category)
                self._open_both(pair, opened)
            case "retune":
                self._say(pair, Retuned(stream, event.rate_bps))
                self._step(StreamRetuned(stream, event.rate_bps))
            case "close":
                self._close(pair, stream)
        context.out.answer.append(Deliver(event.request))

    def _close(self, pair: Pair, stream: str) -> None:
        self._say(pair, Closed(stream))
        self._step(StreamClosed(stream))

    # --- the site -----------------------------------------------------------------------------------------------------

    def _step(self, event: object) -> None:
        context = self.context
        self._done(self.site.step(event, context.now))

    def _done(self, moves: Moves) -> None:
        context = self.context
        for said in moves.send:
            self._say(context.pairs[said.peer], Spoken(said.message))
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
        peer = self.supply.directory[AppId(asking.slave)]
        pair = context.pairs[peer]
        name, stream = answered.name, f"{asking.master}>{asking.slave}"
        if not name.ranges:
            text = f"design {self.design.name} has no QKD key now, and nodes exchange none"
            context.refuse(asking.request, RequestError(Refusal.NOT_ENOUGH_KEY, text))
            return
        key_id = random_uuid(context.entropy(16))
        ranges = self._ranges(pair, name)
        self._say(pair, Named(key_id, stream, name))
        context.out.answer.append(Deliver(asking.request, ranges, ids=(key_id,), made=made_of(name)))
        self._use(pair, name, ranges)

    def _answer_fetch(self, event: RecordsFetched, record: Record, answered: Answered) -> None:
        context, pair = self.context, self.context.pairs[record.peer]
        if answered.name is None:
            context.refuse(event.request, RequestError(Refusal.NOT_FOUND, answered.refusal))
            return
        ranges = self._ranges(pair, record.name)
        if event.audit is not None:
            context.save(Audit(event.audit))
        context.out.answer.append(Deliver(event.request, ranges, made=made_of(record.name)))
        self._use(pair, record.name, ranges)

    def _ranges(self, pair: Pair, name: Name) -> tuple[Range, ...]:
        line, stock = self.site.links[pair.peer], self.stocks[pair.peer]
        found: list[Range] = []
        for units in name.ranges:
            for start_bit, end_bit in line.came_from(units, name.unit_bits):
                found += stock.find(start_bit // BYTE_BITS, end_bit // BYTE_BITS)
        return tuple(found)

    def _use(self, pair: Pair, name: Name, ranges: tuple[Range, ...]) -> None:
        """These bytes are out: booked, marked durably where the other end owns them, overwritten once they are out."""
        context, run = self.context, pair.own_key if pair.leads else pair.their_key
        length = sum(taken.length for taken in ranges)
        given = length if name.derived_bits else min(length, -(-name.size_bits // BYTE_BITS))
        run.book.move(State.RESERVED_APP, Action.SUPPLY, given)
        if length > given:
            run.book.move(State.RESERVED_APP, Action.WASTE, length - given)
        context.out.wipe += ranges
        context.book(run)
        for taken in joined(ranges):
            if pair.leads:
                pair.hosted.remove(taken.start, taken.end)
                continue
            run.used.add(taken.start, taken.end)
            context.save(Used(taken))
            for _, _, segment in list(run.parts(taken.start, taken.end)):
                if segment.mark != GONE:
                    context.used_up(run, segment)

    def _say(self, pair: Pair, message: Message) -> None:
        self.context.say(pair, DesignMessage(_encoder.encode(message)))

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
    return Made(name.size_bits, derivation=_encoder.encode(name))
