"""Routes as people want to see them: the chosen one, the next best, and what stands in the way of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from keyhop.core.node.pads import CONFIRMATION_BYTES, SEGMENT_BYTES
from keyhop.core.policy.routing import Edge, LinkState
from keyhop.core.policy.routing import Route as Found
from keyhop.wire.manage import Route, RouteAnswer

NEED_BYTES = CONFIRMATION_BYTES + SEGMENT_BYTES
"""The smallest batch: a link with less carries none."""
ALTERNATIVES_LIMIT = 4


class Paths:
    """One look at all links this node has heard of. Between two neighbours key need not be relayed at all."""

    def __init__(
        self,
        edges: Sequence[Edge],
        policy: LinkState,
        names: Mapping[tuple[str, str], str],
        *,
        troubles: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        """`names` and `troubles` go by the two nodes in order of their names."""
        self._edges = edges
        self._policy = policy
        self._names = names
        self._troubles = troubles or {}
        self._of: dict[tuple[str, str], Edge] = {(edge.start, edge.end): edge for edge in edges}

    def nodes(self) -> set[str]:
        return {name for edge in self._edges for name in (edge.start, edge.end)}

    def best(self, origin: str, to: str) -> Route:
        """The chosen route; where there is none, an empty path and why."""
        chosen = self._chosen(origin, to)
        if chosen is not None:
            return chosen
        excluded = self._if_all_were_well(origin, to)
        reason = excluded.reason if excluded is not None else f"no path of links leads from {origin} to {to}"
        return Route(origin=origin, to=to, path=(), hops=0, feasible=False, reason=reason)

    def between(self, origin: str, to: str) -> RouteAnswer:
        """The chosen route and what else there is, best first; what carries no key now says why."""
        if origin == to:
            return RouteAnswer(chosen=Route(origin=origin, to=to, path=(origin,), hops=0, cost=0.0))
        chosen = self._chosen(origin, to)
        others: list[Route] = []
        if chosen is not None:
            for near, far in pairwise(chosen.path):
                found = self._search(origin, to, without=(near, far))
                if found is not None and all(found.path != other.path for other in others):
                    others.append(found)
        excluded = self._if_all_were_well(origin, to)
        if excluded is not None and (chosen is None or excluded.path != chosen.path):
            others = [other for other in others if other.path != excluded.path] + [excluded]
        if chosen is None and excluded is None:
            return RouteAnswer(chosen=None, reason=f"no path of links leads from {origin} to {to}")
        if chosen is None:
            return RouteAnswer(chosen=None, alternatives=tuple(others), reason=excluded.reason if excluded else "")
        others.sort(key=lambda route: (not route.feasible, route.cost or 0.0))
        return RouteAnswer(chosen=chosen, alternatives=tuple(others[:ALTERNATIVES_LIMIT]))

    def _chosen(self, origin: str, to: str) -> Route | None:
        direct = self._of.get((origin, to))
        if direct is not None and direct.up and direct.rate_bps > 0:
            # Neighbours share their link's own key, however little of it there is.
            return self._shown(origin, to, Found((origin, to), self._policy.cost(direct), direct.usable_bytes))
        return self._search(origin, to) or (
            self._shown(origin, to, Found((origin, to), self._policy.cost(direct), direct.usable_bytes))
            if direct is not None and direct.up
            else None
        )

    def _search(self, origin: str, to: str, without: tuple[str, str] | None = None) -> Route | None:
        edges = (edge for edge in self._edges if (edge.start, edge.end) != without)
        found = self._policy.route(edges, origin, to, NEED_BYTES)
        return self._shown(origin, to, found) if found is not None else None

    def _if_all_were_well(self, origin: str, to: str) -> Route | None:
        """The route over links as they would be: up, and full of key. What it lacks today is its reason."""
        full = self._policy.capacity_bytes
        well = [edge._replace(up=True, usable_bytes=full, rate_bps=max(1, edge.rate_bps)) for edge in self._edges]
        found = self._policy.route(well, origin, to)
        if found is None:
            return None
        wrong = [reason for near, far in pairwise(found.path) if (reason := self._trouble(near, far))]
        if not wrong:
            return self._shown(origin, to, found._replace(cost=self._cost(found.path)))
        return Route(
            origin=origin, to=to, path=found.path, hops=len(found.path) - 1, feasible=False, reason="; ".join(wrong)
        )

    def _trouble(self, near: str, far: str) -> str:
        edge = self._of[near, far]
        name = self.link(near, far)
        if not edge.up:
            return f"{name} is down"
        if known := self._troubles.get(_in_order(near, far)):
            return f"{name}: {known}"
        if edge.rate_bps <= 0:
            return f"{name} gives no key"
        return f"{name} has {edge.usable_bytes} B left" if edge.usable_bytes < NEED_BYTES else ""

    def _cost(self, path: tuple[str, ...]) -> float:
        return sum(self._policy.cost(self._of[hop]) for hop in pairwise(path))

    def _shown(self, origin: str, to: str, found: Found) -> Route:
        hops = list(pairwise(found.path))
        narrowest = min((self._of[hop] for hop in hops), key=lambda edge: edge.usable_bytes)
        return Route(
            origin=origin,
            to=to,
            path=found.path,
            hops=len(hops),
            cost=round(found.cost, 3),
            narrowest_link=self.link(narrowest.start, narrowest.end),
            narrowest_bps=float(narrowest.rate_bps),
            narrowest_stored_bytes=narrowest.usable_bytes,
        )

    def link(self, one: str, other: str) -> str:
        """The name of the link between two nodes; where only its ends are known, those."""
        return self._names.get(_in_order(one, other)) or "-".join(_in_order(one, other))


def _in_order(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)
