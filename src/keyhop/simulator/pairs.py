"""Which nodes of a network ask for common keys, along which paths, and how much key these can give."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from keyhop.simulator.topology import Topology, TopologyError

PAIRS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "tokyo_2010": (("KOG", "HAK"), ("KOG", "HON"), ("HAK", "HON")),
        "ukqn_backbone": (("READ", "LON"), ("LON", "CAM"), ("BRIS", "IPS")),
        "nsfnet_14": (("9", "12"), ("5", "7"), ("2", "5"), ("1", "14")),
    }
)
"""Of networks that name no applications that talk to each other. Tokyo: all pairs that Otemachi stands between, two
hops each. UKQN: Reading and London, London and Cambridge (two hops each), and the whole backbone (nine). NSFNET:
Pittsburgh and Ithaca (300 km), Boulder and Lincoln (600 km), Palo Alto and Boulder (1350 km), Seattle to College Park
(the whole country)."""


class Asking(NamedTuple):
    paths: tuple[tuple[str, ...], ...]
    """One for each pair, over the fewest links; of equally short ones the first by names."""
    rate_bps: float
    """What all of them together can give, the same on each, after the links that several share are divided."""


def pairs(topology: Topology) -> tuple[tuple[str, str], ...]:
    """Those of `PAIRS`, else those of the applications that the file lets talk; raises TopologyError."""
    if topology.name in PAIRS:
        return PAIRS[topology.name]
    found: dict[frozenset[str], tuple[str, str]] = {}
    for app in topology.apps:
        one, other = (topology.home(name) for name in app.between)
        if one != other:
            found.setdefault(frozenset((one, other)), (one, other))
    if not found:
        raise TopologyError(f"network {topology.name}: no two applications at different nodes; name them under apps:")
    return tuple(found.values())


def asking(topology: Topology, rates_bps: Mapping[str, float] = MappingProxyType({})) -> Asking:
    """`rates_bps` by link id comes before what the file says. Raises TopologyError, also where there is no path."""
    paths = tuple(shortest(topology, one, other) for one, other in pairs(topology))
    spans = [frozenset(span) for path in paths for span in pairwise(path)]
    capacity = {
        span: sum(
            _rate(topology, link.id, link.rate_bps, rates_bps) for link in topology.links if set(link.ends) == span
        )
        for span in spans
    }
    for span, rate in capacity.items():
        if rate <= 0:
            raise TopologyError(f"network {topology.name}: the links of {'|'.join(sorted(span))} give no key")
    return Asking(paths, len(paths) * min(capacity[span] / users for span, users in Counter(spans).items()))


def _rate(topology: Topology, link: str, written: float | None, given: Mapping[str, float]) -> float:
    rate = given.get(link, written)
    if rate is None:
        raise TopologyError(f"network {topology.name}: link {link} has no rate; give it one in the file or here")
    return rate


def shortest(topology: Topology, one: str, other: str) -> tuple[str, ...]:
    """The path over the fewest links, of equally short ones the first by names; raises TopologyError."""
    came_from: dict[str, str] = {one: ""}
    waiting = deque([one])
    while waiting and other not in came_from:
        here = waiting.popleft()
        ends = {end for link in topology.links_of(here) for end in link.ends}
        for there in sorted(ends - came_from.keys()):
            came_from[there] = here
            waiting.append(there)
    if other not in came_from:
        raise TopologyError(f"network {topology.name}: no path from {one} to {other}; link them or ask elsewhere")
    path = [other]
    while came_from[path[-1]]:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))
