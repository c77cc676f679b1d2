"""Which path global key takes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple


class Edge(NamedTuple):
    """A directed link as its own node tells of it."""

    start: str
    end: str
    usable_bytes: int
    rate_bps: int
    up: bool


class Route(NamedTuple):
    path: tuple[str, ...]
    cost: float
    narrowest_bytes: int


@dataclass(frozen=True, slots=True)
class LinkState:
    """Cheapest path by hops and by how empty the links are; every node decides for itself."""

    alpha: float = 4.0
    capacity_bytes: int = 1 << 16
    """Stock at which a link counts as full."""

    dry_cost: float = 9.5
    """Added where no fresh key comes: a load term of 0.5 x u / (1 - u) at its bound, u = 0.95."""
    measure: Literal["fill", "hops", "least_loaded", "widest"] = "fill"
    directory: str = ""
    """The node that knows at which node an application is; empty if nobody is asked."""

    def cost(self, edge: Edge) -> float:
        fill = min(1.0, edge.usable_bytes / self.capacity_bytes)
        return 1.0 + self.alpha * (1.0 - fill) ** 2 + (0.0 if edge.rate_bps > 0 else self.dry_cost)

    def route(
        self,
        edges: Iterable[Edge],
        source: str,
        destination: str,
        need_bytes: int = 1,
        avoid: frozenset[str] = frozenset(),
    ) -> Route | None:
        """The cheapest path whose every link is up and has `need_bytes`; ties go to fewer hops, then to names."""
        leaving: dict[str, list[Edge]] = {}
        for edge in edges:
            if edge.up and edge.usable_bytes >= need_bytes and edge.end not in avoid:
                leaving.setdefault(edge.start, []).append(edge)
        heap: list[tuple[float, int, tuple[str, ...], int]] = [(0.0, 0, (source,), 1 << 62)]
        settled: set[str] = set()
        while heap:
            cost, hops, path, narrowest = heapq.heappop(heap)
            at = path[-1]
            if at == destination:
                return Route(path, cost, narrowest)
            if at in settled:
                continue
            settled.add(at)
            for edge in leaving.get(at, ()):
                if edge.end not in settled:
                    step = (cost + self.cost(edge), hops + 1, (*path, edge.end), min(narrowest, edge.usable_bytes))
                    heapq.heappush(heap, step)
        return None

    def reachable(self, links: Mapping[str, Iterable[str]], source: str) -> set[str]:
        """Every node with some path of links, whatever their stock."""
        seen, waiting = {source}, [source]
        while waiting:
            for peer in links.get(waiting.pop(), ()):
                if peer not in seen:
                    seen.add(peer)
                    waiting.append(peer)
        return seen


@dataclass(frozen=True, slots=True)
class NoRouting:
    """Paths stand in the configuration or there are none."""


@dataclass(frozen=True, slots=True)
class CentralKms:
    """A central server finds the path from what the nodes report."""

    cost: Literal["hops", "least_loaded", "widest"] = "widest"
    horizon_seconds: int = 60
    report_ns: int = 1_000_000_000
    low_stock: float = 0.1


@dataclass(frozen=True, slots=True)
class Sdn:
    """A controller tries the shortest paths in turn."""

    k_paths: int = 3
