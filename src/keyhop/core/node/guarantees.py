"""What this node has promised to guaranteed streams, and who may take of the key shared with one peer now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node.context import Context
from keyhop.core.node.pair import Pair
from keyhop.core.policy_rules import LinkTerms, Policy, ServiceClass, Terms
from keyhop.core.services.promises import Answer, Contract, LinkRoom, Promises
from keyhop.core.services.shares import Shares

UNKNOWN_GAP_NS = NANOSECONDS
"""Between two blocks of a link whose module has not said."""
RELAY_GAP_NS = 2 * NANOSECONDS
"""Between two batches of relayed key."""
CATEGORIES = 5

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
        self._joined: dict[str, dict[str, ServiceClass]] = {}
        self._weights: dict[str, int] = {}
        self._told: set[str] = set()
        """Streams that people were told have no guarantee."""
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

    def stock_bits(self, pair: Pair) -> int:
        """What supply may take, but for the reserve: leased or leasable."""
        leasable = pair.own_key.untouched if pair.is_open else 0
        return (pair.stock.left + self.committing(pair) + leasable) * 8

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
        return shares

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
        if pair.peer not in self.shares and not any(directory.get(slave) == pair.peer for _, slave, _ in self.streams):
            return
        shares = self.of(pair)
        shares.measured(*self._measured(pair), self.context.now)
        for name, room in self._rooms(pair).items():
            for stream in self.promises.change(name, room):
                self._break(stream, name)
        if not pair.compared:
            return
        for master, slave, terms in self.streams:
            if directory.get(slave) != pair.peer:
                continue
            stream = self.join(pair, master, slave, terms)
            refused = self._joined[pair.peer][stream] is not terms.service_class
            if refused and (contract := self._admit(pair, stream, terms)) is not None:
                shares.rejoin(
                    stream, ServiceClass.GUARANTEED, self.context.now, contract=contract, weight=_weight(terms)
                )
                self._joined[pair.peer][stream] = ServiceClass.GUARANTEED
                if stream in self._told:
                    self._told.discard(stream)
                    text = f"{stream} has its guarantee of {terms.rate_bps} bit/s"
                    self.context.notice("KH-2105", text, master)

    def _break(self, stream: str, link: str) -> None:
        """The link gives too little now: whoever was admitted last is best effort from here on."""
        self.promises.end(stream)
        self._told.add(stream)
        for peer, joined in self._joined.items():
            if joined.get(stream) is ServiceClass.GUARANTEED:
                weight = self._weights[stream]
                self.shares[peer].rejoin(stream, ServiceClass.BEST_EFFORT, self.context.now, weight=weight)
                joined[stream] = ServiceClass.BEST_EFFORT
        text = f"{stream} loses its guarantee: link {link} gives too little"
        self.context.notice("KH-2104", text, stream.partition(" -> ")[0])

    def _admit(self, pair: Pair, stream: str, terms: Terms) -> Contract | None:
        rooms = self._rooms(pair)
        if not rooms:
            # Nothing is known yet of what its path gives: that is no refusal.
            return None
        for name, room in rooms.items():
            for broken in self.promises.change(name, room):
                self._break(broken, name)
        contract = Contract(terms.rate_bps, terms.burst_bits)
        answer = self.promises.ask(stream, contract, tuple(rooms), terms.key_size_bits)
        if answer.admitted:
            self.answers.pop(stream, None)
            return contract
        if stream not in self._told:
            self._told.add(stream)
            offer = answer.offer
            offered = f"{offer.rate_bps} bit/s, burst {offer.burst_bits} bit" if offer else "nothing"
            text = f"{stream} is not guaranteed {terms.rate_bps} bit/s: {answer.why or 'no path'}; offered: {offered}"
            self.context.notice("KH-2104", text, stream.partition(" -> ")[0])
        self.answers[stream] = answer
        return None

    def _rooms(self, pair: Pair) -> dict[str, LinkRoom]:
        """The links that a key shared with this peer costs, with what each can promise in our direction."""
        terms = self.link_of(pair.peer)
        if pair.direct and pair.rate_bps:
            rate_bps, gap_ns = self._measured(pair)
            usable = terms.usable_bits(self.stock_bits(pair))
            return {_link(pair.own, pair.peer): LinkRoom(rate_bps, usable, gap_ns, terms.floor)}
        rooms = {}
        stock = self.stock_bits(pair)
        for one, other, rate_bps in self.path(pair.peer):
            # Key is carried ahead of demand: what a guarantee lives on between two batches is in our own pool.
            rooms[_link(one, other)] = LinkRoom(rate_bps // 2, stock, RELAY_GAP_NS, terms.floor)
        return rooms

    def _measured(self, pair: Pair) -> tuple[int, int]:
        """(bit/s, longest time between two deliveries) of fresh key for our own direction: half of the link's."""
        if pair.direct and pair.rate_bps:
            # A tenth may go to tags, and now and then a whole block does.
            return pair.rate_bps * 9 // 20, 2 * (pair.period_ns or UNKNOWN_GAP_NS)
        rates = [rate_bps for _, _, rate_bps in self.path(pair.peer)]
        return min(rates, default=0) // 2, RELAY_GAP_NS


def _weight(terms: Terms) -> int:
    """A better category counts as twice the weight."""
    return terms.weight << CATEGORIES - terms.category


def _link(one: str, other: str) -> str:
    return "-".join(sorted((one, other)))
