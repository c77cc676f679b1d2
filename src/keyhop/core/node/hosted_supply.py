"""Applications of a node that hosts another design: who asks, which keys they were given, and who may fetch them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from keyhop.core.composed.line import Line, Run
from keyhop.core.composed.nouns.messages import (
    Answered,
    KeyAsked,
    KeyFetched,
    Name,
    StreamClosed,
    StreamOpened,
    StreamRetuned,
)
from keyhop.core.composed.nouns.units import Units
from keyhop.core.designs import Design, no_relay
from keyhop.core.machine import Audit, Deliver, Made
from keyhop.core.model import BYTE_BITS, Action, AppId, PeerError, Range, Refusal, RequestError
from keyhop.core.node.context import Context
from keyhop.core.node.events import KeysWanted, RecordsFetched, SessionAsked
from keyhop.core.node.hosted_cargo import HostedCargo
from keyhop.core.node.hosted_containment import Contained
from keyhop.core.node.hosted_messages import Closed, Named, Opened, Retuned, Said, check_name, encode
from keyhop.core.node.hosted_stock import use
from keyhop.core.node.local import NOT_FOUND, random_uuid
from keyhop.core.node.supply import Supply
from keyhop.core.policy.relay import NoRelay

RATE_BPS = 1000
"""What a pair of applications is registered with, where a design asks for a rate."""
CATEGORY = 3
"""Of applications that have said nothing of their need for security."""
NAMED_LIMIT = 65_536
"""Keys that were given to their master and that nobody has fetched here; after the fetch lifetime nobody may."""
STREAMS_LIMIT = 65_536
"""Pairs of applications."""
FAILED = "the design failed on this request"
BEGUN_ANEW = "the key managers began anew"


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
    named_ns: int


class Sites(Protocol):
    """Whoever has the site and speaks to others."""

    site: Contained
    cargo: HostedCargo

    def line(self, peer: str) -> Line | None:
        """To a site that can be talked to now; whoever has not answered yet is hailed."""

    def step(self, event: object, about: str = "") -> bool:
        """False if it failed: what it was about begins anew."""

    def lacks(self, peer: str) -> bool:
        """Whether this end lacks key that the books of a distant pair have: it is about to begin anew."""

    def tell(self, peer: str, said: Said) -> None:
        """The way on which this design serves the peer."""

    def say(self, peer: str, said: Said, *, distant: bool) -> None:
        """Over the link, or from afar."""

    def link_ranges(self, line: Line, run: Run, ranges: tuple[Units, ...]) -> tuple[Range, ...] | None:
        """Where these units of a link lie; None if the link has begun anew since."""


class HostedSupply:
    def __init__(self, context: Context, supply: Supply, design: Design, sites: Sites) -> None:
        self.context = context
        self.supply = supply
        self.design = design
        self._sites = sites
        self.named: dict[str, Record] = {}
        """Key ID -> what its slave gets here."""
        self._asking: dict[int, Asking] = {}
        self._fetching: dict[int, tuple[RecordsFetched, Record]] = {}
        self._expiring: dict[int, Record] = {}
        self._requests = 0

    def tick(self) -> None:
        """What nobody has fetched in time is taken as if somebody did, and destroyed."""
        oldest = self.context.now - self.context.settings.fetch_lifetime_ns
        while self.named and (record := self.named[key_id := next(iter(self.named))]).named_ns < oldest:
            del self.named[key_id]
            self.context.count("design_keys_expired")
            self._requests += 1
            self._expiring[self._requests] = record
            self._sites.step(KeyFetched(self._requests, record.peer, record.stream, record.name, 0))

    def register_all(self) -> None:
        """Designs with sessions deal key to the pairs of applications that they know."""
        for application in self.supply.applications.values():
            for slave in sorted(application.peers):
                node, stream = self.supply.directory.get(slave), f"{application.id}>{slave}"
                if node is None or node == self.context.node or stream in self._sites.site.streams:
                    continue
                if self._sites.line(node) is not None:
                    self._register(node, stream)

    def forget(self, peer: str, *, distant: bool) -> None:
        """The link, or what lies over relay nodes, has begun anew."""
        for key_id, record in list(self.named.items()):
            if record.peer == peer and record.name.distant is distant:
                del self.named[key_id]

    def forget_all(self) -> None:
        """The site has begun anew: who waits for it gets no answer any more."""
        self.named.clear()
        for asking in self._asking.values():
            self.context.refuse(asking.request, RequestError(Refusal.UNAVAILABLE, BEGUN_ANEW, retry_after_s=1.0))
        for event, _ in self._fetching.values():
            self.context.refuse(event.request, RequestError(Refusal.NOT_FOUND, BEGUN_ANEW))
        self._asking.clear()
        self._fetching.clear()
        self._expiring.clear()

    def told(self, peer: str, said: Opened | Retuned | Closed | Named, *, distant: bool) -> None:
        """What the other end says of its applications. Raises PeerError."""
        master, _, slave = said.stream.partition(">")
        if AppId(slave) not in self.supply.applications or self.supply.directory.get(AppId(master)) not in (None, peer):
            raise PeerError(f"{type(said).__name__} of {said.stream!r}: not a master of {peer} and a slave of ours")
        known = self._sites.site.streams.get(said.stream)
        if known is not None and known.peer != peer:
            raise PeerError(f"{type(said).__name__} of {said.stream!r}, which {known.peer} has opened")
        match said:
            case Opened():
                if known is None and len(self._sites.site.streams) >= STREAMS_LIMIT:
                    raise PeerError(f"{STREAMS_LIMIT} pairs of applications are open: no more may be")
                self._open(peer, said, asks=False)
            case Retuned():
                self._sites.step(StreamRetuned(said.stream, said.rate_bps), peer)
            case Closed():
                self._sites.step(StreamClosed(said.stream), peer)
            case Named():
                if said.key_id in self.named or len(self.named) >= NAMED_LIMIT:
                    raise PeerError(f"a key ID that is known, or more than {NAMED_LIMIT} keys that wait to be fetched")
                check_name(said.name)
                if said.name.distant is not distant:
                    raise PeerError(f"a key of the {'pair' if said.name.distant else 'link'}, named on the other one")
                self.named[said.key_id] = Record(peer, said.stream, said.name, self.context.now)

    def _line_or_refuse(self, peer: str) -> Line:
        """Raises RequestError."""
        line = self._sites.line(peer)
        if line is not None:
            return line
        if peer in self._sites.site.links:
            raise RequestError(Refusal.UNAVAILABLE, f"the link to KME {peer} is down, or runs another design")
        if isinstance(self._sites.site.design.relay, NoRelay):
            why = no_relay(self.design) or f"design {self.design.name} has no relay"
            raise RequestError(Refusal.UNSUPPORTED, f"{why}: there is no key for KME {peer}, which is no neighbour")
        text = f"KME {peer} has not answered over the nodes between, or runs another design"
        raise RequestError(Refusal.UNAVAILABLE, text, retry_after_s=1.0)

    def wanted(self, event: KeysWanted, peer: str) -> None:
        """Raises RequestError for what no design has."""
        if event.number != 1:
            text = f"number {event.number}: design {self.design.name} gives one key per request here"
            raise RequestError(Refusal.BAD_REQUEST, text)
        self._line_or_refuse(peer)
        stream = f"{event.master}>{event.slave}"
        if stream not in self._sites.site.streams:
            self._register(peer, stream)
        self._requests += 1
        self._asking[self._requests] = Asking(event.request, event.master, event.slave, peer, event.size_bits)
        wait_ns = self.context.settings.request_wait_ns
        known = self._sites.site.streams[stream]
        self._sites.step(
            KeyAsked(self._requests, peer, stream, event.size_bits, wait_ns, known.service_class, known.category)
        )

    def available_bits(self, peer: str, master: str, slave: str) -> int:
        """What this pair of applications could be given now, if nobody else asked."""
        line = self._sites.line(peer)
        try:
            return line.serving.stock_bits(f"{master}>{slave}") if line is not None else 0
        except Exception as error:
            self._sites.site.fail(error, peer)
            return 0

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
        self._sites.step(KeyFetched(self._requests, record.peer, stream, record.name, wait_ns))

    def _register(self, peer: str, stream: str) -> None:
        """A pair of applications whose master is here and has asked for nothing in particular, at both ends."""
        size_bits = self.context.settings.default_key_bits
        self._open_both(peer, Opened(stream, RATE_BPS, size_bits, "best_effort", CATEGORY))

    def _open_both(self, peer: str, opened: Opened) -> bool:
        self._sites.tell(peer, opened)
        return self._open(peer, opened, asks=True)

    def _open(self, peer: str, opened: Opened, *, asks: bool) -> bool:
        event = StreamOpened(
            opened.stream, peer, opened.rate_bps, opened.size_bits, asks, opened.service_class, opened.category
        )
        return self._sites.step(event, peer)

    def session(self, event: SessionAsked) -> None:
        """What a master registers goes to both ends before it asks for its first key."""
        context, stream = self.context, f"{event.master}>{event.slave}"
        try:
            peer = self.supply.entitle(event.master, event.slave)
            self._line_or_refuse(peer)
            if event.verb != "open" and stream not in self._sites.site.streams:
                raise RequestError(Refusal.NOT_FOUND, f"no session of {event.master} with {event.slave} is open")
        except RequestError as error:
            context.refuse(event.request, error)
            return
        match event.verb:
            case "open":
                if stream in self._sites.site.streams:
                    self._close(peer, stream)
                opened = Opened(stream, event.rate_bps, event.size_bits, event.service_class, event.category)
                done = self._open_both(peer, opened)
            case "retune":
                self._sites.tell(peer, Retuned(stream, event.rate_bps))
                done = self._sites.step(StreamRetuned(stream, event.rate_bps), peer)
            case "close":
                done = self._close(peer, stream)
        if not done:
            context.refuse(event.request, RequestError(Refusal.UNAVAILABLE, FAILED, retry_after_s=1.0))
            return
        context.out.answer.append(Deliver(event.request))

    def _close(self, peer: str, stream: str) -> bool:
        self._sites.tell(peer, Closed(stream))
        return self._sites.step(StreamClosed(stream), peer)

    def answered(self, answered: Answered) -> None:
        """What the site says to one of our requests."""
        expired = self._expiring.pop(answered.request, None)
        if expired is not None:
            self._destroy(expired, answered)
            return
        asking, fetching = self._asking.pop(answered.request, None), self._fetching.pop(answered.request, None)
        try:
            if asking is not None:
                self._answer(asking, answered)
            elif fetching is not None:
                self._answer_fetch(*fetching, answered)
        except Exception as error:
            # What is taken for it is given to nobody, and goes with the rest of the stock.
            request, peer = (asking.request, asking.peer) if asking else _of(fetching)
            self._sites.site.fail(error, peer)
            self.context.refuse(request, RequestError(Refusal.UNAVAILABLE, FAILED, retry_after_s=1.0))

    def _answer(self, asking: Asking, answered: Answered) -> None:
        context = self.context
        if answered.name is None:
            reason = Refusal.UNSUPPORTED if answered.unservable else Refusal.NOT_ENOUGH_KEY
            context.refuse(asking.request, RequestError(reason, answered.refusal))
            return
        name, stream = answered.name, f"{asking.master}>{asking.slave}"
        if name.distant and self._sites.lacks(asking.peer):
            context.refuse(asking.request, RequestError(Refusal.UNAVAILABLE, BEGUN_ANEW, retry_after_s=1.0))
            return
        if not name.ranges:
            text = f"design {self.design.name} has no QKD key now, and nodes exchange none"
            context.refuse(asking.request, RequestError(Refusal.NOT_ENOUGH_KEY, text))
            return
        key_id = random_uuid(context.entropy(16))
        named = Named(key_id, stream, name)
        self._sites.say(asking.peer, named, distant=name.distant)
        self._give(asking.peer, name, asking.request, (key_id,))

    def _answer_fetch(self, event: RecordsFetched, record: Record, answered: Answered) -> None:
        context = self.context
        if answered.name is None:
            context.refuse(event.request, RequestError(Refusal.NOT_FOUND, answered.refusal))
            return
        if answered.name.distant and self._sites.lacks(record.peer):
            context.refuse(event.request, RequestError(Refusal.NOT_FOUND, BEGUN_ANEW))
            return
        if event.audit is not None:
            context.save(Audit(event.audit))
        self._give(record.peer, record.name, event.request, ())

    def _destroy(self, expired: Record, answered: Answered) -> None:
        """Where it was known here at all; what never came goes with the rest of its line."""
        if answered.name is None or (answered.name.distant and self._sites.lacks(expired.peer)):
            return
        try:
            self._take(expired.peer, expired.name, lambda length: {Action.EXPIRE: length})
        except Exception as error:
            self._sites.site.fail(error, expired.peer)

    def _give(self, peer: str, name: Name, request: int, ids: tuple[str, ...]) -> None:
        def booked(length: int) -> dict[Action, int]:
            given = length if name.derived_bits else min(length, -(-name.size_bits // BYTE_BITS))
            return {Action.SUPPLY: given, Action.WASTE: length - given}

        ranges = self._take(peer, name, booked)
        self.context.out.answer.append(Deliver(request, ranges, ids=ids, made=made_of(name)))

    def _take(self, peer: str, name: Name, booked: Callable[[int], dict[Action, int]]) -> tuple[Range, ...]:
        """The bytes of a key, overwritten once the step is done; those of a link are booked, too."""
        line = self._sites.site.line(peer, name.distant)
        assert line is not None
        if name.distant:
            ranges = self._sites.cargo.named(line, name)
            self.context.out.wipe += ranges
            return ranges
        found = self._sites.link_ranges(line, line.run_of(name.label, name.unit_bits), name.ranges)
        assert found is not None
        use(self.context, self.context.pairs[peer], found, booked(sum(taken.length for taken in found)))
        return found


def _of(fetching: tuple[RecordsFetched, Record] | None) -> tuple[int, str]:
    assert fetching is not None
    event, record = fetching
    return event.request, record.peer


def made_of(name: Name) -> Made:
    """Both ends derive the same: what a name says is the same at both."""
    if not name.derived_bits:
        return Made(name.size_bits)
    return Made(name.size_bits, derivation=encode(name))
