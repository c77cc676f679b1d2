"""Another design than our own on this node: its sites deal out what the node's links lease to them.

Opening, agreement on blocks, marks that are durable before first use, and burning after a restart lie below every
design. The lower-named end of a link leases all key to the design and says in which order; from there on the parts of
the design decide. Nothing of it outlives a process at either end: what was in stock is burnt.
"""

from __future__ import annotations

import dataclasses

import msgspec

from keyhop.core.composed.line import Line, LineSettings, Run
from keyhop.core.composed.nouns.messages import (
    BlockArrived,
    KxArrived,
    LinkRenewed,
    Moves,
    NetworkLearned,
    PairParted,
    Woke,
)
from keyhop.core.composed.nouns.units import Units
from keyhop.core.designs import Design, no_relay
from keyhop.core.messages import DESIGN_LIMIT_BYTES, DesignMessage, Span
from keyhop.core.model import (
    BYTE_BITS,
    NANOSECONDS,
    Action,
    PeerError,
    Purpose,
    Range,
    State,
)
from keyhop.core.node.context import Context
from keyhop.core.node.hosted_cargo import HostedCargo
from keyhop.core.node.hosted_containment import Contained, raised_in
from keyhop.core.node.hosted_controller import Control
from keyhop.core.node.hosted_messages import (
    LIFE_BYTES,
    Allowed,
    Carried,
    Greeting,
    Hail,
    Material,
    Message,
    Said,
    Spoken,
    Wanted,
    decode,
    encode,
)
from keyhop.core.node.hosted_stock import Stock, use
from keyhop.core.node.hosted_supply import HostedSupply
from keyhop.core.node.hosted_ties import Ties
from keyhop.core.node.leases import Leases
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Pair
from keyhop.core.node.routes import Routes
from keyhop.core.node.supply import Supply
from keyhop.core.policy.relay import NoRelay

LOOK_NS = NANOSECONDS // 2
ACTIONS = {"R": Action.RELAY, "T": Action.RELAY, "X": Action.EXPIRE, "Y": Action.BURN, "C": Action.BURN}
"""Letter of a site's book -> what that is in the book of the link below; promoted key leaves its link like a pad."""


class HostedTick(msgspec.Struct, frozen=True, gc=False):
    pass


class HostedWake(msgspec.Struct, frozen=True, gc=False):
    due: int


class Hosted:
    def __init__(
        self,
        context: Context,
        links: Links,
        leases: Leases,
        supply: Supply,
        routes: Routes,
        design: Design,
    ) -> None:
        self.context = context
        self.links = links
        self.leases = leases
        self.routes = routes
        self.design = design
        self.ties = Ties(context, routes, design.name, self)
        self.cargo = HostedCargo(context, self)
        self._lost: set[str] = set()
        """Distant peers of which this end lacks key: their pairs begin anew once the site has done its step."""
        self._ending = False
        self.stocks: dict[str, Stock] = {}
        self._wake_due: int | None = None
        self._links = tuple((str(n.node), max(1, n.rate_bps)) for n in context.settings.neighbours)
        alone = no_relay(design, controller=bool(context.settings.controller))
        self._runs = dataclasses.replace(design, relay=NoRelay()) if alone else design
        self.control = Control(context, self._runs, self.ties, lambda error, peer: self.site.fail(error, peer))
        self._build()
        self.applications = HostedSupply(context, supply, design, self)
        routes.states.own_link = self._own_link
        links.handlers[DesignMessage] = self.heard
        links.on_open.append(self.opened)
        leases.purposes.add(Purpose.DESIGN)
        leases.on_stock = self.lent
        supply.hosted = self.applications

    def _build(self) -> None:
        own = str(self.context.node)
        self.network = self.control.network({frozenset((own, peer)): rate for peer, rate in self._links})
        self.site = Contained(own, self._runs, self.network, self._draw, self._settings, self.cargo)

    def watch(self) -> None:
        """Once the store is read: what an earlier process held of anybody's run for a design is burnt."""
        for pair in self.context.pairs.values():
            self._burn(pair)
        self.context.at(self.context.now + LOOK_NS, HostedTick())

    def tick(self, event: HostedTick) -> None:
        context = self.context
        context.at(context.now + LOOK_NS, event)
        # Also what failed outside of a step, while somebody asked for numbers.
        self._end_failed()
        self._learn()
        self.ties.tick()
        self.cargo.tick()
        self.applications.tick()
        self.control.look()
        # Link state tells of applications later than the link opens.
        self.applications.register_all()
        for pair in context.pairs.values():
            if self._greeted_by(pair.peer) and pair.is_open and pair.leads and pair.own_key.untouched:
                self.leases.want(pair, Purpose.DESIGN, pair.own_key.untouched)

    def wake(self, event: HostedWake) -> None:
        if self._wake_due == event.due:
            self._wake_due = None
            self.step(Woke())

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
        self.step(LinkRenewed(pair.peer, silent=True))
        self.applications.forget(pair.peer, distant=False)
        self._check_stands(pair, stock)
        self._say(pair, Greeting(self.design.name, stock.own_life, self._links))

    def _check_stands(self, pair: Pair, stock: Stock) -> None:
        """What else the frame brought is not for the next connection. Raises PeerError."""
        if self.stocks.get(pair.peer) is not stock:
            raise PeerError("the link was ended while this was worked")

    def _burn(self, pair: Pair) -> None:
        for run in (pair.own_key, pair.their_key):
            for stretch in list(run.segments.stretches()):
                if stretch.mark == Purpose.DESIGN:
                    for segment in stretch.segments():
                        self.links.burning.burn_segment(run, segment.start)
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
        self._check_stands(pair, stock)

    def _greeted(self, pair: Pair, stock: Stock, said: Greeting) -> None:
        if said.design != self.design.name:
            self.context.notice(
                "KH-2303", f"{pair.peer} runs design {said.design}, this node {self.design.name}: no key is shared",
                pair.peer,
            )  # fmt: skip
            return
        if stock.life:
            raise PeerError("a second greeting in one connection")
        stock.life = said.life
        news = [self.network.learn(pair.peer, peer, rate) for peer, rate in said.links if peer != pair.peer]
        self.step(LinkRenewed(pair.peer))
        if any(news):
            self.step(NetworkLearned(), pair.peer)
        self.applications.register_all()

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
        edges = list(self.routes.edges())
        told, news = {(edge.start, edge.end) for edge in edges}, False
        for edge in edges:
            if (edge.end, edge.start) in told:
                news = self.network.learn(edge.start, edge.end, edge.rate_bps) or news
            if frozenset((edge.start, edge.end)) in self.network.rates:
                self.network.tell(edge)
        if news:
            self.step(NetworkLearned())

    def lives(self, source: str, destination: str) -> bytes:
        return self.ties.lives(source, destination)

    def lost(self, peer: str) -> None:
        self._lost.add(peer)

    def lacks(self, peer: str) -> bool:
        return peer in self._lost

    def _renew_lost(self) -> None:
        while self._lost:
            peer = self._lost.pop()
            self.context.count("design_pairs_renewed")
            self.ties.renew(peer)

    def begun(self, peer: str) -> None:
        """Of a distant pair nothing is left, at either end."""
        self.step(PairParted(peer))
        self.control.begun(peer)
        self.cargo.forget(peer)
        self.applications.forget(peer, distant=True)

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
                moves, error = self.site.attempt(KxArrived(peer, kx), self.context.now, peer)
                if error is not None and not isinstance(error, ValueError) and raised_in(error) != peer:
                    self.site.fail(error, peer)
                self._done(moves)
                if error is not None:
                    text = f"{said.kx.word} that its design does not say so ({type(error).__name__})"
                    raise PeerError(text)
            case Wanted() | Allowed():
                self.control.told(peer, said, distant=distant)
            case _:
                self.applications.told(peer, said, distant=distant)

    def line(self, peer: str) -> Line | None:
        """To a site that can be talked to now; whoever has not answered yet is hailed."""
        try:
            line = self.site.line(peer)
        except Exception as error:
            self.site.fail(error, peer)
            return None
        if line is None:
            return None
        if not line.distant:
            return line if self._greeted_by(peer) and self.context.pairs[peer].is_open else None
        if self.ties.stands(peer):
            return line
        self.ties.want(peer)
        return None

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
        self.step(BlockArrived(pair.peer, number, bits, before * BYTE_BITS, number))

    # --- the site -----------------------------------------------------------------------------------------------------

    def step(self, event: object, about: str = "") -> bool:
        """`about`: the peer whose matter it is, where the event does not name one. False if it failed."""
        about = about or getattr(event, "peer", "")
        moves, error = self.site.attempt(event, self.context.now, about)
        if error is not None:
            self.site.fail(error, about)
        self._done(moves)
        return error is None

    def _done(self, moves: Moves) -> None:
        context = self.context
        for said in moves.send:
            load = self.cargo.leave(said.message.cargo) if said.message.cargo else None
            spoken = Spoken(msgspec.structs.replace(said.message, cargo=0), load)
            try:
                self.say(said.peer, spoken, distant=said.message.distant)
            except Exception as error:
                # Numbers that a neighbour has stored here may be more than a message can say.
                self.site.fail(error, said.peer)
        for answered in moves.answer:
            self.applications.answered(answered)
        due = moves.wake_at
        if due is not None and (self._wake_due is None or due < self._wake_due):
            self._wake_due = due
            context.at(due, HostedWake(due))
        self._renew_lost()
        self._end_failed()

    # --- what failed --------------------------------------------------------------------------------------------------

    def _end_failed(self) -> None:
        """Whatever this node shares with such a peer is burnt at this end, and begins anew."""
        if self._ending:
            return
        self._ending, ended = True, set()
        try:
            while self.site.failures:
                peer, why = self.site.failures.pop(0)
                self.context.count("design_failures")
                if peer in ended:
                    continue
                ended.add(peer)
                if peer:
                    self._tell_failure(peer, why)
                if not peer or not self._end(peer):
                    # It is nobody's, or one who cannot even begin anew: then it is not about one peer alone.
                    for other in self.stocks:
                        self._tell_failure(other, why)
                    self._begin_all()
                    return
        finally:
            self._ending = False

    def _tell_failure(self, peer: str, why: str) -> None:
        text = f"design {self.design.name} failed on what {peer} and this node share ({why}): it is burnt at this end"
        self.context.notice("KH-2304", text, peer)

    def _end(self, peer: str) -> bool:
        """Whether the site could let it begin anew."""
        pair, renewed = self.context.pairs.get(peer), True
        if pair is not None and self.stocks.pop(peer, None) is not None:
            self._burn(pair)
            renewed = self.step(LinkRenewed(peer, silent=True))
            self.applications.forget(peer, distant=False)
            self._drop(pair)
        if peer in self.ties.ties:
            self.ties.renew(peer)
        elif peer in self.site.pairs:
            self.begun(peer)
        return renewed

    def _drop(self, pair: Pair) -> None:
        if pair.current is not None:
            self.links.drop(pair, pair.current, f"design {self.design.name} failed on it")

    def _begin_all(self) -> None:
        """As after a start of this process."""
        stocks, self.stocks = self.stocks, {}
        self._build()
        self._lost.clear()
        self.applications.forget_all()
        for peer in stocks:
            self._burn(self.context.pairs[peer])
            self._drop(self.context.pairs[peer])
        for peer in list(self.ties.ties):
            self.ties.renew(peer)

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

    def tell(self, peer: str, said: Said) -> None:
        """Over the link, or from afar where the design serves this peer so."""
        line = self.site.line(peer)
        self.say(peer, said, distant=line is not None and line.distant)

    def say(self, peer: str, said: Said, *, distant: bool) -> None:
        if distant:
            self.ties.say(peer, said)
        else:
            self._say(self.context.pairs[peer], said)

    def _say(self, pair: Pair, message: Message) -> None:
        if not pair.is_open:
            # With the next connection both ends begin anew: what is said between two would come before the greeting.
            return
        payload = encode(message)
        if len(payload) > DESIGN_LIMIT_BYTES:
            raise ValueError(f"a message of {len(payload)} bytes: at most {DESIGN_LIMIT_BYTES} are legal")
        self.context.say(pair, DesignMessage(payload))

    def _draw(self) -> float:
        return int.from_bytes(self.context.entropy(4), "big") / (1 << 32)

    def _settings(self, node: str, peer: str, rate_bps: int, distant: bool) -> LineSettings:
        """Tags are the link's own: real ones, on every frame, out of its tag runs. What both directions may hold lies
        in one run here."""
        capacity_bits = 2 * self.context.settings.stock_limit_bytes * BYTE_BITS
        return LineSettings(rate_bps, capacity_bits, tag_bits=0)
