"""What this node has promised to guaranteed streams and flows, and who may take of the key shared with one peer now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from keyhop.core.messages import too_long
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node.bookings import Bookings, Refused, flow_of
from keyhop.core.node.bookings import stream_of as carried_by
from keyhop.core.node.context import Context
from keyhop.core.node.flows import LEAST_KEY_BITS, Flows
from keyhop.core.node.pair import Pair
from keyhop.core.policy_rules import LinkTerms, Policy, ServiceClass, Terms
from keyhop.core.services.promises import Answer, Contract, LinkRoom, Promises, held_for_gap
from keyhop.core.services.shares import Shares

UNKNOWN_GAP_NS = NANOSECONDS
"""Between two blocks of a link whose module has not said."""
RELAY_GAP_NS = 2 * NANOSECONDS
"""Between two batches of relayed key."""
FAR_STOCK_BITS = 1 << 62
"""Of a link that is not ours: what lies there its own node knows, and is asked."""
CATEGORIES = 5
RELAYED = " relayed"
"""After the name of a stream: what it takes of the first link of its path, in the book of promises."""

Hop = tuple[str, str, int]
"""(one node, the next, bit/s) of a link on a path."""


def stream_of(master: str, slave: str) -> str:
    return f"{master} -> {slave}"


class Guarantees:
    """A stream is a pair of applications, as master and slave; it is admitted when its link is there, and once."""

    def __init__(self, context: Context, policy: Policy, link_of: Callable[[str], LinkTerms]) -> None:
        self.context = context
        self.policy = policy
        self.link_of = link_of
        self.shares: dict[str, Shares] = {}
        """By peer: only where somebody has a better class than others."""
        self.promises = Promises()
        self.answers: dict[str, Answer] = {}
        """Streams that were not admitted, and what they were offered."""
        self.path: Callable[[str], list[Hop]] = lambda node: []
        """Set by the node: the links towards a distant key manager."""
        self.committing: Callable[[Pair], int] = lambda pair: 0
        """Bytes of leases whose commit is under way."""
        self.bookings: Bookings | None = None
        """Set by the node: what is asked of the other nodes of a path."""
        self.kept_bits: Callable[[Pair], int] = lambda pair: 0
        """Set by the node: what of a link's stock is kept for flows over it."""
        self.pad_bits: Callable[[Pair], int] = lambda pair: pair.pads.total() * 8
        """Set by the node: what of it is leased as pads, and not supply's in any case."""
        self.claimed_bytes: Callable[[Pair], int] = lambda pair: 0
        """Set by the node: what even a guaranteed stream leaves to flows, which may take it at once."""
        self.revoke: Callable[[str], None] = lambda name: None
        """Set by the node: a flow of others is not carried any more."""
        self._asking: dict[str, tuple[Pair, Terms]] = {}
        """Streams whose path is asked for or booked."""
        self._joined: dict[str, dict[str, ServiceClass]] = {}
        self._weights: dict[str, int] = {}
        self._told: dict[str, str] = {}
        """Streams that people were told have no guarantee, and who refused it then."""
        self.streams: list[tuple[AppId, AppId, Terms]] = []
        """All that are not like any other: of a better class than best effort, or of another weight."""
        for application in context.settings.applications:
            for peer in sorted(application.peers):
                terms = policy.terms(application.id, peer)
                if terms.service_class is not ServiceClass.BEST_EFFORT or _weight(terms) > 1:
                    self.streams.append((application.id, peer, terms))

    def matters(self, node: str, directory: Mapping[AppId, NodeId]) -> bool:
        """Whether some stream of a better class draws on what is shared with this key manager, as far as is known."""
        return any(directory.get(slave, NodeId(node)) == node for _, slave, _ in self.streams)

    def pool_bytes(self, node: str, directory: Mapping[AppId, NodeId]) -> int:
        """What of relayed key must lie here so that guaranteed streams to this key manager can live on it."""
        bits = 0
        for _, slave, terms in self.streams:
            if terms.service_class is ServiceClass.GUARANTEED and directory.get(slave) == node:
                bits += 2 * (terms.burst_bits + held_for_gap(terms.rate_bps, RELAY_GAP_NS))
        return -(-bits // 8)

    def stock_bits(self, pair: Pair) -> int:
        """What supply may take, but for the reserve: leased or leasable."""
        leasable = pair.own_key.untouched if pair.is_open else 0
        return (pair.stock.left + self.committing(pair) + leasable) * 8

    def held_bytes(self, pair: Pair) -> int:
        """What relay cannot have of the stock that is not leased: our own guaranteed streams may claim it.

        What flows may claim beside them is relay's.
        """
        shares = self.shares.get(pair.peer)
        held = shares.own_held_bits(self.context.now) if shares is not None else 0
        return max(0, -(-held // 8) - pair.stock.left - self.committing(pair))

    def of(self, pair: Pair) -> Shares:
        """The shares of what is shared with this peer, made on first use."""
        shares = self.shares.get(pair.peer)
        if shares is None:
            context, terms = self.context, self.link_of(pair.peer)
            rate_bps, gap_ns = self._measured(pair)
            shares = self.shares[pair.peer] = Shares(
                rate_bps,
                gap_ns,
                context.now,
                floor=terms.floor,
                reserve_bits=terms.reserve_bits,
                floor_burst_bits=context.settings.max_key_bits,
            )
            shares.beside = lambda: max(0, self.kept_bits(pair) - self.pad_bits(pair))
        return shares

    def is_guaranteed(self, pair: Pair, stream: str | None) -> bool:
        return self._joined.get(pair.peer, {}).get(stream or "") is ServiceClass.GUARANTEED

    def join(self, pair: Pair, master: str, slave: str, terms: Terms) -> str:
        """The stream as the shares know it; guaranteed if it is admitted, until then best effort."""
        stream, shares = stream_of(master, slave), self.of(pair)
        joined = self._joined.setdefault(pair.peer, {})
        if stream not in joined:
            weight = self._weights[stream] = _weight(terms)
            contract = self._admit(pair, stream, terms) if terms.service_class is ServiceClass.GUARANTEED else None
            guaranteed = terms.service_class is ServiceClass.GUARANTEED
            reached = ServiceClass.BEST_EFFORT if guaranteed and contract is None else terms.service_class
            shares.join(stream, reached, self.context.now, contract=contract, weight=weight)
            joined[stream] = reached
        return stream

    def look(self, pair: Pair, directory: Mapping[AppId, NodeId]) -> None:
        """Called from time to time: figures change, links come and go, and who was refused may fit now."""
        self._keep_booked(pair)
        if pair.peer not in self.shares and not any(directory.get(slave) == pair.peer for _, slave, _ in self.streams):
            return
        shares = self.of(pair)
        shares.measured(*self._measured(pair), self.context.now)
        self._changed(self._rooms(pair))
        if not pair.compared:
            return
        for master, slave, terms in self.streams:
            if directory.get(slave) != pair.peer:
                continue
            stream = self.join(pair, master, slave, terms)
            refused = self._joined[pair.peer][stream] is not terms.service_class
            if refused and (contract := self._admit(pair, stream, terms)) is not None:
                self._guaranteed(pair, stream, terms, contract)

    def _guaranteed(self, pair: Pair, stream: str, terms: Terms, contract: Contract) -> None:
        self.of(pair).rejoin(
            stream, ServiceClass.GUARANTEED, self.context.now, contract=contract, weight=_weight(terms)
        )
        self._joined[pair.peer][stream] = ServiceClass.GUARANTEED
        if stream in self._told:
            del self._told[stream]
            text = f"{stream} has its guarantee of {terms.rate_bps} bit/s"
            self.context.notice("KH-2105", text, stream.partition(" -> ")[0])

    def _changed(self, rooms: Mapping[str, LinkRoom]) -> None:
        for name, room in rooms.items():
            for promised in self.promises.change(name, room):
                stream = promised.removesuffix(RELAYED)
                if stream in self._weights:
                    self._break(stream, f"link {name} gives too little")
                else:
                    self.revoke(stream)

    def _break(self, stream: str, why: str) -> None:
        """A link gives too little now: whoever was admitted last is best effort from here on."""
        self._end(stream)
        if self.bookings is not None:
            self.bookings.end(stream)
        self._told[stream] = ""
        self._lower(stream)
        text = f"{stream} loses its guarantee: {why}"
        self.context.notice("KH-2104", text, stream.partition(" -> ")[0])

    def _end(self, stream: str) -> None:
        self._asking.pop(stream, None)
        for name in (stream, stream + RELAYED):
            if name in self.promises.streams:
                self.promises.end(name)

    def _lower(self, stream: str) -> None:
        """From here on it is best effort."""
        for peer, joined in self._joined.items():
            if joined.get(stream) is ServiceClass.GUARANTEED:
                weight = self._weights[stream]
                self.shares[peer].rejoin(stream, ServiceClass.BEST_EFFORT, self.context.now, weight=weight)
                joined[stream] = ServiceClass.BEST_EFFORT

    def _admit(self, pair: Pair, stream: str, terms: Terms) -> Contract | None:
        """None: not, or not yet."""
        bookings = self.bookings
        if stream in self._asking or (bookings is not None and bookings.rests(stream)):
            return None
        rooms = self._rooms(pair)
        if not rooms:
            # Nothing is known yet of what its path gives: that is no refusal.
            return None
        self._changed(rooms)
        contract = Contract(terms.rate_bps, terms.burst_bits)
        path = () if self._is_near(pair) else self._path(pair)
        if why := too_long(path):
            self._refused(stream, terms, Answer(False, None, "", why))
            return None
        answer = self.promises.ask(stream, contract, tuple(rooms), terms.key_size_bits)
        if answer.admitted and bookings is not None and len(path) > 2:
            answer = self._leave(stream, path, contract)
        else:
            bookings = None
        if answer.admitted:
            if bookings is None:
                self.answers.pop(stream, None)
                return contract
            self._asking[stream] = pair, terms
            bookings.ask(stream, path, contract)
            return None
        self._end(stream)
        self._refused(stream, terms, answer)
        return None

    def _leave(self, stream: str, path: tuple[str, ...], contract: Contract) -> Answer:
        """Promises our own link, the first of the path, to what the stream takes of it."""
        first, flow = self.context.pairs[NodeId(path[1])], flow_of(contract)
        answer = self._near(first, lambda link: self.promises.ask(stream + RELAYED, flow, (link,), LEAST_KEY_BITS))
        offer = carried_by(answer.offer) if answer.offer is not None else None
        return answer if answer.admitted else answer._replace(offer=self._fitting(offer, contract))

    def _fitting(self, offer: Contract | None, asked: Contract, key_bits: int = LEAST_KEY_BITS) -> Contract | None:
        """Not more than was asked, and enough for a key."""
        if offer is None or offer.rate_bps < 1 or offer.burst_bits < key_bits:
            return None
        return Contract(min(offer.rate_bps, asked.rate_bps), min(offer.burst_bits, asked.burst_bits))

    def _refused(self, stream: str, terms: Terms, answer: Answer) -> None:
        if self._told.get(stream) not in (answer.narrowest, ""):
            self._told[stream] = answer.narrowest
            offer = answer.offer
            offered = f"{offer.rate_bps} bit/s, burst {offer.burst_bits} bit" if offer else "nothing"
            text = f"{stream} is not guaranteed {terms.rate_bps} bit/s: {answer.why or 'no path'}; offered: {offered}"
            self.context.notice("KH-2104", text, stream.partition(" -> ")[0])
        self.answers[stream] = answer

    # --- along the path -----------------------------------------------------------------------------------------------

    def asks(self, bookings: Bookings) -> None:
        """From here on the other nodes of a path have their say."""
        self.bookings = bookings
        bookings.on_booked, bookings.on_refused = self._booked, self._unbooked

    def _booked(self, stream: str) -> None:
        pair, terms = self._asking[stream]
        self.answers.pop(stream, None)
        if self._joined[pair.peer][stream] is not ServiceClass.GUARANTEED:
            self._guaranteed(pair, stream, terms, Contract(terms.rate_bps, terms.burst_bits))

    def _unbooked(self, stream: str, refused: Refused) -> None:
        """Some node of the path does not carry it, or not any more."""
        _, terms = self._asking[stream]
        self._end(stream)
        self._lower(stream)
        asked = Contract(terms.rate_bps, terms.burst_bits)
        offer = self._fitting(refused.offer, asked, terms.key_size_bits)
        self._refused(stream, terms, Answer(False, offer, refused.at, f"{refused.at} refuses: {refused.reason}"))

    def _keep_booked(self, pair: Pair) -> None:
        """Flows are said again; where a path is no more, the stream keeps its class while another is asked for."""
        if self.bookings is None:
            return
        for stream, (peer, terms) in list(self._asking.items()):
            if peer is not pair or self.bookings.look(stream):
                continue
            self._end(stream)
            guaranteed = self._joined[pair.peer].get(stream) is ServiceClass.GUARANTEED
            contract = self._admit(pair, stream, terms)
            if contract is not None and not guaranteed:
                # It costs our own link alone by now.
                self._guaranteed(pair, stream, terms, contract)
            elif contract is None and guaranteed and stream not in self._asking:
                self._lower(stream)

    # --- flows of others over our links -------------------------------------------------------------------------------

    def serves(self, flows: Flows) -> None:
        """From here on our own links are promised to flows of others, too."""
        flows.offer = lambda pair, contract: self._near(pair, lambda link: self._offered(contract, link))
        flows.promise = lambda pair, name, contract: self._near(
            pair, lambda link: self.promises.ask(name, contract, (link,), LEAST_KEY_BITS)
        )
        flows.release = lambda name: self.promises.end(name) if name in self.promises.streams else None
        flows.promisable, flows.measure = self._promisable, self.measure
        flows.gap_ns = self._gap_ns
        self.revoke = flows.revoke

    def measure(self, pair: Pair) -> None:
        """Looks whether a link of ours, as it is now, carries all its promises."""
        if self._is_near(pair):
            self._changed(self._rooms(pair))

    def _near(self, pair: Pair, ask: Callable[[str], Answer]) -> Answer:
        if not self._is_near(pair):
            return Answer(False, None, _link(pair.own, pair.peer), "its rate is not known yet")
        self._changed(self._rooms(pair))
        return ask(_link(pair.own, pair.peer))

    def _offered(self, contract: Contract, link: str) -> Answer:
        return self.promises.offer(contract, (link,), LEAST_KEY_BITS)

    def _promisable(self, pair: Pair) -> Contract:
        if not self._is_near(pair):
            return Contract(0, 0)
        # Of stock what relay can have: what supply has leased is not pads any more.
        stock = pair.own_key.untouched * 8 + self.pad_bits(pair)
        (room,) = self._rooms(pair).values()
        # The floor of best effort is one of stock, too: else flows that spend nothing would close a full link.
        return Contract(room.promisable_bps, int(stock * (1 - room.floor)))

    # --- links --------------------------------------------------------------------------------------------------------

    def _is_near(self, pair: Pair) -> bool:
        return pair.direct and pair.rate_bps > 0

    def _path(self, pair: Pair) -> tuple[str, ...]:
        hops = self.path(pair.peer)
        return (hops[0][0], *(other for _, other, _ in hops)) if hops else ()

    def _rooms(self, pair: Pair) -> dict[str, LinkRoom]:
        """The links that a key shared with this peer costs, with what each can promise in our direction."""
        terms = self.link_of(pair.peer)
        if self._is_near(pair):
            rate_bps, gap_ns = self._measured(pair)
            # What flows have leased as pads is theirs, and counts among what is held.
            stock = self.stock_bits(pair) + min(self.kept_bits(pair), self.pad_bits(pair))
            return {_link(pair.own, pair.peer): LinkRoom(rate_bps, terms.usable_bits(stock), gap_ns, terms.floor)}
        rooms = {}
        hops = self.path(pair.peer)
        for one, other, rate_bps in hops:
            if one != pair.own:
                rooms[_link(one, other)] = LinkRoom(rate_bps // 2, FAR_STOCK_BITS, RELAY_GAP_NS, terms.floor)
        if rooms:
            # Key is carried ahead of demand: what a guarantee lives on between two batches is in our own pool.
            narrowest = min(rate_bps for _, _, rate_bps in hops) // 2
            pool = LinkRoom(narrowest, self.stock_bits(pair), RELAY_GAP_NS, terms.floor)
            rooms[f"pool of {pair.peer}"] = pool
        return rooms

    def _measured(self, pair: Pair) -> tuple[int, int]:
        """(bit/s, longest time between two deliveries) of fresh key for our own direction: half of the link's."""
        if self._is_near(pair):
            # A tenth may go to tags, and now and then a whole block does.
            return pair.rate_bps * 9 // 20, self._gap_ns(pair)
        rates = [rate_bps for _, _, rate_bps in self.path(pair.peer)]
        return min(rates, default=0) // 2, self._gap_ns(pair)

    def _gap_ns(self, pair: Pair) -> int:
        return 2 * (pair.period_ns or UNKNOWN_GAP_NS) if self._is_near(pair) else RELAY_GAP_NS


def _weight(terms: Terms) -> int:
    """A better category counts as twice the weight."""
    return terms.weight << CATEGORIES - terms.category


def _link(one: str, other: str) -> str:
    return "-".join(sorted((one, other)))
