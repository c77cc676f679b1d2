"""Which path global key takes."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
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
    measure: Literal["fill", "hops", "least_loaded"] = "fill"
    """What a link costs: its hop and how empty it is; its hop alone (K); the same, and a node leaves a path whose first
    link is overloaded for its next one (SECOQC, S)."""
    max_load: float = 0.8
    """What counts as overloaded is more than this (K)."""
    directory: str = ""
    """The node that knows at which node an application is; empty if nobody is asked."""

    def cost(self, edge: Edge) -> float:
        if self.measure != "fill":
            return 1.0
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
            leaving.setdefault(edge.start, []).append(edge)
        return self.search(lambda node: leaving.get(node, ()), source, destination, need_bytes, avoid)

    def search(
        self,
        leaving: Callable[[str], Iterable[Edge]],
        source: str,
        destination: str,
        need_bytes: int = 1,
        avoid: frozenset[str] = frozenset(),
    ) -> Route | None:
        """As `route`, with the links that leave a node looked up when the search comes to it."""
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
            for edge in leaving(at):
                usable = edge.up and edge.usable_bytes >= need_bytes and edge.end not in avoid
                if usable and edge.end not in settled:
                    step = (cost + self.cost(edge), hops + 1, (*path, edge.end), min(narrowest, edge.usable_bytes))
                    heapq.heappush(heap, step)
        return None

    def forward(self, loads: Sequence[float]) -> int | None:
        """Which of a node's paths, in ascending weight, takes the next packet; None if none may."""
        limit = self.max_load if self.measure == "least_loaded" else inf
        return next((number for number, load in enumerate(loads) if load <= limit), None)

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
    """Paths stand in the configuration, or there are none (SwissQuantum K; all designs of one link)."""

    def route(self, configured: Sequence[tuple[str, ...]], source: str, destination: str) -> tuple[str, ...] | None:
        return next((path for path in configured if (path[0], path[-1]) == (source, destination)), None)


@dataclass(frozen=True, slots=True)
class CentralKms:
    """A central server finds the path from what the nodes report (NICT, NEC, KISTI)."""

    cost: Literal["hops", "widest"] = "widest"
    """widest: by stored amount and generation rate (NICT, P)."""
    horizon_seconds: int = 60
    """How far ahead the rate counts as stock (K)."""
    report_ns: int = 1_000_000_000
    """(K)"""
    low_stock: float = 0.1
    """A link with less than this part of its capacity is left (K)."""

    def width_bits(self, edge: Edge) -> int:
        return edge.usable_bytes * 8 + edge.rate_bps * self.horizon_seconds

    def route(
        self, edges: Iterable[Edge], source: str, destination: str, avoid: frozenset[str] = frozenset()
    ) -> tuple[str, ...] | None:
        """The path whose narrowest link is widest, ties to fewer hops, then to names; None if none has any key."""
        usable = [edge for edge in edges if edge.up and self.width_bits(edge) > 0 and edge.end not in avoid]
        if self.cost == "widest":
            # A wide detour at the start may end at the same narrow link: the width first, then hops among all as wide.
            width = self._width(usable, source, destination)
            usable = [edge for edge in usable if self.width_bits(edge) >= width]
        return fewest_hops(usable, source, destination)

    def leaves(self, edge: Edge, capacity_bytes: int) -> bool:
        """Whether a link in use sends its traffic elsewhere: an incident, or low stock."""
        return not edge.up or edge.usable_bytes < capacity_bytes * self.low_stock

    def _width(self, edges: Sequence[Edge], source: str, destination: str) -> int:
        widths = sorted({self.width_bits(edge) for edge in edges})
        low, high = 0, len(widths)
        while low + 1 < high:
            middle = (low + high) // 2
            wide = [edge for edge in edges if self.width_bits(edge) >= widths[middle]]
            low, high = (middle, high) if fewest_hops(wide, source, destination) else (low, middle)
        return widths[low] if widths else 0


@dataclass(frozen=True, slots=True)
class Sdn:
    """A controller tries the shortest paths in turn until one can carry the request (SDQaaS, S; their number, K)."""

    k_paths: int = 3

    def __post_init__(self) -> None:
        if self.k_paths < 1:
            raise ValueError(f"sdn.k_paths = {self.k_paths}: must be 1 or more")

    def paths(self, edges: Iterable[Edge], source: str, destination: str) -> list[tuple[str, ...]]:
        """The `k_paths` shortest by hops, then by names, none with a loop (Yen 1971)."""
        leaving = _by_name(edge for edge in edges if edge.up)
        first = _shortest(leaving, source, destination, {source})
        found: list[tuple[str, ...]] = [first] if first else []
        waiting: list[tuple[int, tuple[str, ...]]] = []
        while found and len(found) < self.k_paths:
            last = found[-1]
            for turn in range(len(last) - 1):
                root = last[: turn + 1]
                taken = {path[turn + 1] for path in found if path[: turn + 1] == root}
                rest = _shortest(leaving, root[-1], destination, set(root), taken)
                if rest and (candidate := (len(root) + len(rest), root[:-1] + rest)) not in waiting:
                    heapq.heappush(waiting, candidate)
            if not waiting:
                break
            found.append(heapq.heappop(waiting)[1])
        return found


def fewest_hops(edges: Iterable[Edge], source: str, destination: str) -> tuple[str, ...] | None:
    """The shortest path; of several the first by names."""
    return _shortest(_by_name(edges), source, destination, {source})


def _by_name(edges: Iterable[Edge]) -> dict[str, list[str]]:
    """The ends of the links that leave each node."""
    leaving: dict[str, set[str]] = {}
    for edge in edges:
        leaving.setdefault(edge.start, set()).add(edge.end)
    return {start: sorted(ends) for start, ends in leaving.items()}


def _shortest(
    leaving: Mapping[str, Sequence[str]],
    source: str,
    destination: str,
    seen: set[str],
    not_next: Container[str] = (),
) -> tuple[str, ...] | None:
    """The shortest path through no node of `seen`, which it adds to, and not first to one of `not_next`."""
    if source == destination:
        return (source,)
    # Level by level, nodes in the order of their paths: the first that comes to a node has the first path by names of
    # the shortest to it.
    before = {source: ""}
    waiting = deque([source])
    while waiting:
        node = waiting.popleft()
        for end in leaving.get(node, ()):
            if end in seen or (node == source and end in not_next):
                continue
            seen.add(end)
            before[end] = node
            if end == destination:
                return _back(before, end)
            waiting.append(end)
    return None


def _back(before: Mapping[str, str], end: str) -> tuple[str, ...]:
    path = [end]
    while before[path[-1]]:
        path.append(before[path[-1]])
    return tuple(reversed(path))
