"""Nodes that report to a central server: it finds the paths and hears of every key that was supplied."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.messages import Name
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.relay.server import KEPT, Metadata, SuppliedKey
from keyhop.core.composed.stock.disposal import ByAge
from keyhop.core.model import BYTE_BITS
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import CentralKms, Edge

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site


class Route(NamedTuple):
    path: tuple[str, ...]
    """Empty: none has any key."""
    until_ns: int
    """The next report may change it."""


class Reported(HopWise):
    """NICT: the widest path now, over relay nodes even to a neighbour if that is wider than the link."""

    def __init__(self, site: Site, part: HopByHop, routing: CentralKms) -> None:
        super().__init__(site, part)
        self._routing = routing
        self._routes: dict[str, Route] = {}
        self.records: deque[Metadata] = deque(maxlen=KEPT)
        """Of the keys that this node's supply agent gave to applications."""

    def over(self, peer: str) -> bool:
        return len(self.path(peer)) > 2

    def path(self, peer: str) -> tuple[str, ...]:
        """As the server finds it from the last reports; what is low on key or had an incident is taken only at need."""
        site = self._site
        known = self._routes.get(peer)
        if known is not None and site.now < known.until_ns:
            return known.path
        edges = site.network.edges
        sound = [edge for edge in edges if not self._leaves(edge)]
        path = self._routing.route(sound, site.node, peer) or self._routing.route(edges, site.node, peer) or ()
        self._routes[peer] = Route(path, site.now + self._routing.report_ns)
        return path

    def _leaves(self, edge: Edge) -> bool:
        """A link that makes nothing has had an incident; its full stock is what it makes within the horizon (K)."""
        rate_bps = self._site.network.rates[frozenset((edge.start, edge.end))]
        full_bytes = rate_bps * self._routing.horizon_seconds // BYTE_BITS
        return not edge.rate_bps or self._routing.leaves(edge, full_bytes)

    def supplied(self, line: Line, name: Name, stream: str) -> None:
        key = self.described(line, name, stream)
        self.records.append(key.metadata)
        self._site.network.server.recorded(key.metadata)

    def described(self, line: Line, name: Name, stream: str) -> SuppliedKey:
        """The seventeen fields of a key that leaves now."""
        site = self._site
        source, _, destination = name.label.partition(">")
        first, _ = name.ranges[0]
        disposal = line.disposal
        times = (
            disposal.times.of(line.run_of(name.label, name.unit_bits), first) if isinstance(disposal, ByAge) else None
        )
        metadata = Metadata(
            timestamp=times.made_ns if times else 0,
            machine_name=f"{line.own}-{line.peer}",
            partner_name=f"{line.peer}-{line.own}",
            key_type="enc" if source == line.own else "dec",
            key_size=name.size_bits,
            kma_id=f"kma-{line.own}",
            kid=first,
            relay_timestamp=times.entered_ns if times else 0,
            source=source,
            destination=destination,
            ksa_id=f"ksa-{line.own}",
            receive_timestamp=site.now,
            supply_timestamp=site.now,
            app_source=f"{stream}@{source}",
            app_destination=f"{stream}@{destination}",
            application_id=stream,
        )
        return SuppliedKey(metadata=metadata, key_data=name.ranges)
