"""The controller of designs that let in at one: a named node carries its part, all others ask it from afar.

It hears which services a node wants and says what it has granted; no key, and no name of one, comes to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from keyhop.core.composed.network import Network
from keyhop.core.composed.relay.services import SERVICES_OF_A_SOURCE, Controller, Granted
from keyhop.core.designs import Design
from keyhop.core.model import PeerError
from keyhop.core.node.context import Context
from keyhop.core.node.hosted_messages import Allowed, Wanted
from keyhop.core.node.hosted_ties import Ties
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import Edge, Sdn

SERVICES_LIMIT = 65_536
"""That one controller knows."""

Allow = Callable[[str, Allowed], None]


class Wish(NamedTuple):
    destination: str
    slots: int
    number: int


class Agent(Controller):
    """A node's view: its own services, as the controller has last said of them."""

    def __init__(self, admission: Reservation, routing: Sdn, own: str, ask: Callable[[Wanted], None]) -> None:
        super().__init__(admission, routing, {})
        self._own = own
        self._ask = ask
        self._wishes: dict[str, Wish] = {}
        self._number = 0

    def create(self, name: str, source: str, destination: str, slots: int, now: int = 0) -> None:
        self._wish(name, destination, slots)

    def modify(self, name: str, slots: int) -> bool:
        wish = self._wishes.get(name)
        if wish is not None:
            self._wish(name, wish.destination, slots)
        return wish is not None

    def delete(self, name: str) -> None:
        self.services.pop(name, None)
        wish = self._wishes.pop(name, None)
        if wish is not None:
            self._number += 1
            self._ask(Wanted(name, wish.destination, 0, self._number))

    def settle(self, now: int) -> None:
        """The controller does."""

    def forgotten(self) -> None:
        """The controller began anew and knows nothing of this node; what was granted goes on until it answers."""
        for name, wish in list(self._wishes.items()):
            self._wish(name, wish.destination, wish.slots)

    def heard(self, said: Allowed) -> None:
        """Raises PeerError."""
        wish = self._wishes.get(said.service)
        if wish is None or wish.number != said.number:
            # It has changed its mind meanwhile.
            return
        if not said.path:
            self.services.pop(said.service, None)
            return
        whole = said.path[0] == self._own and said.path[-1] == wish.destination and len(said.path) > 1
        if not whole or len(set(said.path)) < len(said.path):
            raise PeerError(f"a path for {said.service[:64]!r} that does not lead from here to {wish.destination}")
        self.services[said.service] = Granted(self._own, wish.destination, said.slots, said.path)

    def _wish(self, name: str, destination: str, slots: int) -> None:
        self._number += 1
        self._wishes[name] = Wish(destination, slots, self._number)
        self._ask(Wanted(name, destination, slots, self._number))


class Office(Controller):
    """The controller itself. It decides on a service once it knows a way for it, and learns the network as nodes do."""

    def __init__(self, admission: Reservation, routing: Sdn, network: Network, answer: Allow) -> None:
        super().__init__(admission, routing, {})
        self._network = network
        self._answer = answer
        self._told: dict[frozenset[str], int] = {}
        self._open: dict[str, tuple[str, Wanted]] = {}
        """Service -> who wants it and what; not decided yet."""
        self._sources: dict[str, str] = {}
        """Of every service that is wanted, refused ones among them: its source may ask again under the same name."""
        self._names_of: Counter[str] = Counter()
        """Of these, by source: one alone cannot take all that there may be."""

    def heard(self, source: str, said: Wanted) -> None:
        """Raises PeerError."""
        name = said.service
        if self._sources.get(name, source) != source:
            raise PeerError(f"service {name[:64]!r}, which is one of {self._sources[name]}")
        if said.destination == source:
            raise PeerError(f"service {name[:64]!r} from {source} to itself")
        if not said.slots:
            self._forget(name)
            return
        if name not in self._sources:
            if self._names_of[source] >= SERVICES_OF_A_SOURCE:
                raise PeerError(f"{SERVICES_OF_A_SOURCE} services of {source} are known: no more of it may be")
            if len(self._sources) >= SERVICES_LIMIT:
                raise PeerError(f"{SERVICES_LIMIT} services are known: no more may be")
            self._names_of[source] += 1
        self._sources[name] = source
        self._open[name] = source, said

    def parted(self, source: str) -> None:
        """This node began anew: it asks again for what it still wants."""
        for name in [name for name, known in self._sources.items() if known == source]:
            self._forget(name)

    def look(self, now: int) -> None:
        """Decides what can be decided."""
        self._learn()
        for name, (source, said) in list(self._open.items()):
            held = self.services.get(name)
            if held is not None and held.destination == said.destination:
                self.modify(name, said.slots)
            elif name not in self._waiting and self._routing.paths(self._edges, source, said.destination):
                if held is not None:
                    self.delete(name)
                self.create(name, source, said.destination, said.slots, now)
            else:
                continue
            if name not in self._waiting:
                self._decided(name)
        matched = [name for name in self._open if name in self._waiting]
        self.settle(now)
        for name in matched:
            if name not in self._waiting:
                self._decided(name)
        # Nodes are told what was granted, not orders for each hop.
        self.orders.clear()

    def _decided(self, name: str) -> None:
        source, said = self._open.pop(name)
        granted = self.services.get(name)
        if granted is None:
            self._answer(source, Allowed(name, said.number, 0, ()))
        else:
            self._answer(source, Allowed(name, said.number, granted.slots, granted.path))

    def _forget(self, name: str) -> None:
        self.delete(name)
        source = self._sources.pop(name, None)
        if source is not None:
            self._names_of[source] -= 1
            if not self._names_of[source]:
                del self._names_of[source]
        self._open.pop(name, None)

    def _learn(self) -> None:
        """A link counts with what it was configured with until it is told to make something else."""
        for link, rate_bps in self._network.rates.items():
            one, other = sorted(link)
            told = self._network.told_bps(one, other)
            told = told if told > 1 else rate_bps
            if told <= 1 or self._told.get(link) == told:
                continue
            if link not in self._told:
                self._edges += [Edge(one, other, 1, told, True), Edge(other, one, 1, told, True)]
                self._candidates.clear()
            self._told[link] = told
            self.rate_is(link, told)


class Asking(Network):
    """A network whose controller is asked through this node's agent."""

    def __init__(self, links: dict[frozenset[str], int], agent: Agent) -> None:
        super().__init__(links)
        self._agent = agent

    def controller(self, admission: Reservation, routing: Sdn) -> Controller:
        return self._agent


def slots_of(design: Design) -> tuple[Reservation, Sdn] | None:
    """What a controller decides by; None where the design has none."""
    match design.relay, design.admission, design.routing:
        case HopByHop(), Reservation(of="slots") as admission, Sdn() as routing:
            return admission, routing
    return None


class Control:
    """What this node has of the controller's part: the part itself, if it is the one, and its own agent."""

    def __init__(self, context: Context, design: Design, ties: Ties, fail: Callable[[Exception, str], None]) -> None:
        self._context = context
        self._slots = slots_of(design)
        self._ties = ties
        self._fail = fail
        self._own = str(context.node)
        self._controller = str(context.settings.controller or "")
        self.agent: Agent | None = None
        self.office: Office | None = None

    def network(self, links: dict[frozenset[str], int]) -> Network:
        """Nothing is granted in it yet."""
        if self._slots is None:
            return Network(links)
        self.agent = Agent(*self._slots, self._own, self._ask)
        made = Asking(links, self.agent)
        self.office = Office(*self._slots, made, self._allow) if self._controller == self._own else None
        return made

    def told(self, peer: str, said: Wanted | Allowed, *, distant: bool) -> None:
        """Raises PeerError."""
        match said:
            case Wanted() if self.office is not None and distant:
                self.office.heard(peer, said)
                self.look()
            case Allowed() if self.agent is not None and distant and peer == self._controller:
                self.agent.heard(said)
            case _:
                raise PeerError(f"{type(said).__name__} of service {said.service[:64]!r}: no matter between these two")

    def begun(self, peer: str) -> None:
        if self.office is not None:
            self.office.parted(peer)
        if self.agent is not None and peer == self._controller:
            self.agent.forgotten()

    def look(self) -> None:
        try:
            if self.office is not None:
                self.office.look(self._context.now)
        except Exception as error:
            self._fail(error, "")

    def _ask(self, wanted: Wanted) -> None:
        if self.office is None:
            self._ties.say(self._controller, wanted)
            return
        self.office.heard(self._own, wanted)
        self.look()

    def _allow(self, source: str, allowed: Allowed) -> None:
        if source != self._own:
            self._ties.say(source, allowed)
        elif self.agent is not None:
            self.agent.heard(allowed)
