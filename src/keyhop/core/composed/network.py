"""What a site knows of the rest of the network: told by the configuration, by other nodes or by a controller."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from keyhop.core.composed.relay.server import CentralServer
from keyhop.core.composed.relay.services import Controller
from keyhop.core.designs import Design
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.routing import CentralKms, Edge, LinkState, NoRouting, Sdn, fewest_hops


class Network:
    """Links with their nominal rates in bit/s, and what was last told of their stock."""

    def __init__(self, links: Mapping[frozenset[str], int]) -> None:
        self.rates = dict(links)
        self.server = CentralServer()
        self._controller: Controller | None = None
        self._edges: dict[tuple[str, str], Edge] = {}
        self._shortest: dict[tuple[str, str], tuple[str, ...] | None] = {}
        self._ways: dict[tuple[Sdn, str, str], list[tuple[str, ...]]] = {}
        """Among the links that are up, as long as these stay the same: stock is no matter of a controller's."""
        self._neighbours: dict[str, list[str]] = {}
        self.version = 0
        """Rises with every link that becomes known."""
        for link, rate in links.items():
            self._add(link, rate)

    def _add(self, link: frozenset[str], rate_bps: int) -> None:
        one, other = sorted(link)
        for start, end in ((one, other), (other, one)):
            self._edges[start, end] = Edge(start, end, 1, rate_bps, True)
            self._neighbours.setdefault(start, []).append(end)

    def learn(self, one: str, other: str, rate_bps: int) -> bool:
        """A link that others tell of; whether it is news. A rate of 0 says that its end does not know it yet."""
        link = frozenset((one, other))
        known = self.rates.get(link)
        if known is not None:
            if known <= 1 < rate_bps:
                self.rates[link] = rate_bps
            return False
        self.rates[link] = max(1, rate_bps)
        self._add(link, self.rates[link])
        self._shortest.clear()
        self._ways.clear()
        self.version += 1
        return True

    def controller(self, admission: Reservation, routing: Sdn) -> Controller:
        """The one of this network, which all its sites ask."""
        if self._controller is None:
            self._controller = Controller(admission, routing, self.rates)
        return self._controller

    def nodes(self) -> list[str]:
        return sorted(self._neighbours)

    def neighbours(self, node: str) -> list[str]:
        return sorted(self._neighbours.get(node, []))

    def tell(self, edge: Edge) -> None:
        known = self._edges.get((edge.start, edge.end))
        self._edges[edge.start, edge.end] = edge
        if known is None or known.up is not edge.up:
            self._ways.clear()
        if self._controller is not None and known is not None and known.rate_bps != edge.rate_bps:
            self._controller.rate_is(frozenset((edge.start, edge.end)), edge.rate_bps)

    @property
    def edges(self) -> list[Edge]:
        return list(self._edges.values())

    def told_bps(self, start: str, end: str) -> int:
        """What a link was last said to make."""
        return self._edges[start, end].rate_bps

    def rate_bps(self, path: tuple[str, ...]) -> int:
        """Of the narrowest link."""
        return min(self.rates[frozenset(hop)] for hop in pairwise(path))

    def paths(self, design: Design, source: str, destination: str) -> list[tuple[str, ...]]:
        """As the design's routing has it, best first; none if there is none now."""
        routing = design.routing
        match routing:
            case LinkState():
                route = routing.route(self.edges, source, destination, need_bytes=0)
                return [route.path] if route else []
            case CentralKms():
                path = routing.route(self.edges, source, destination)
                return [path] if path else []
            case Sdn():
                if destination not in self._neighbours:
                    # Applications name such as they please: nothing is kept of them.
                    return []
                ends = routing, source, destination
                if ends not in self._ways:
                    self._ways[ends] = routing.paths(self._edges.values(), source, destination)
                return list(self._ways[ends])
            case NoRouting():
                # Configured, whatever the state of links: the shortest, and the one beside it.
                links = [edge._replace(usable_bytes=1, up=True) for edge in self._edges.values()]
                return Sdn(k_paths=2).paths(links, source, destination)

    def shortest(self, source: str, destination: str) -> tuple[str, ...] | None:
        """By the links that exist, whatever their state."""
        ends = source, destination
        if ends not in self._shortest:
            self._shortest[ends] = fewest_hops(self._edges.values(), source, destination)
        return self._shortest[ends]
