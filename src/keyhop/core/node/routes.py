"""The network as link states draw it, and the routes through it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, pairwise

from keyhop.core.designs import Running
from keyhop.core.node.linkstate import LinkStates
from keyhop.core.policy.routing import Edge, Route

FOUND_LIMIT = 4096
"""Destinations whose routes are kept: neighbours hand on frames for names that they may have invented."""

Told = tuple[str, int, int, bool]
"""Neighbour, usable bytes, bit/s, up."""


class Routes:
    """Read off what is known when it is asked for: a search looks at the nodes near its source, not at all of them."""

    def __init__(self, states: LinkStates, design: Running) -> None:
        self.states = states
        self.policy = design.routing
        self._own: tuple[Told, ...] = ()
        """Our links, as they would be told now."""
        self._version = -1
        self._routes: dict[tuple[str, int, frozenset[str]], Route | None] = {}
        """What was found since anything changed."""
        self._hops: dict[str, str | None] = {}

    def _look(self) -> None:
        own = self.states.own().links
        full = len(self._routes) >= FOUND_LIMIT or len(self._hops) >= FOUND_LIMIT
        if full or self._version != self.states.version or own != self._own:
            self._own, self._version = own, self.states.version
            self._routes.clear()
            self._hops.clear()

    def edges(self) -> Iterator[Edge]:
        """All links that anybody tells of; up where both ends say so."""
        self._look()
        return chain.from_iterable(map(self._leaving, (self.states.context.node, *self.states.known)))

    def _leaving(self, node: str) -> Iterator[Edge]:
        states = self.states
        if node == states.context.node:
            links = self._own
        else:
            known = states.known.get(node)
            links = known.state.links if known is not None else ()
        for peer, usable, rate_bps, is_up in links:
            yield Edge(node, peer, usable, rate_bps, is_up and self._says_up(peer, node))

    def _says_up(self, node: str, peer: str) -> bool:
        states = self.states
        if node == states.context.node:
            pair = states.context.pairs.get(peer)
            return pair is not None and pair.direct and pair.is_hop
        known = states.known.get(node)
        return known is not None and peer in known.up

    def route(self, destination: str, need_bytes: int, avoid: frozenset[str] = frozenset()) -> Route | None:
        """The path for relayed key: over at least one node in between, even to a neighbour."""
        self._look()
        wanted = (destination, need_bytes, avoid)
        if wanted not in self._routes:
            around = partial(self._leaving_but, destination)
            self._routes[wanted] = self.policy.search(around, self.states.context.node, *wanted)
        return self._routes[wanted]

    def _leaving_but(self, destination: str, node: str) -> Iterator[Edge]:
        straight = (self.states.context.node, destination)
        return (edge for edge in self._leaving(node) if (edge.start, edge.end) != straight)

    def next_hop(self, destination: str) -> str | None:
        """Towards a node over links that are up, whatever their stock: for what spends no key."""
        if destination not in self.states.known:
            # Nobody leads there, and whoever invents names is not searched for.
            return None
        self._look()
        if destination not in self._hops:
            found = self.policy.search(self._alike, self.states.context.node, destination)
            self._hops[destination] = found.path[1] if found is not None and len(found.path) > 1 else None
        return self._hops[destination]

    def _alike(self, node: str) -> Iterator[Edge]:
        return (edge._replace(usable_bytes=1) for edge in self._leaving(node))

    def rates_towards(self, destination: str) -> list[tuple[str, str, int]]:
        """(one node, the next, bit/s) of the links that key for this node would cross now."""
        found = self.route(destination, 1)
        if found is None:
            return []
        rates = {(edge.start, edge.end): edge.rate_bps for node in found.path[:-1] for edge in self._leaving(node)}
        return [(one, other, rates.get((one, other), 0)) for one, other in pairwise(found.path)]
