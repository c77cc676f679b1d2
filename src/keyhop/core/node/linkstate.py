"""What nodes tell all others about their links and applications, and the routes that follow from it.

It rides on TLS alone: a lie here can cost time, never a second use of a bit (DESIGN 8).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from keyhop.core.designs import Design
from keyhop.core.messages import NAME_LIMIT, LinkState
from keyhop.core.model import NANOSECONDS, AppId, NodeId, PeerError
from keyhop.core.node.context import Context
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Pair
from keyhop.core.node.supply import Supply
from keyhop.core.policy.routing import Edge, Route

REFRESH_NS = 30 * NANOSECONDS
LIFETIME_NS = 3 * REFRESH_NS
LOOK_NS = NANOSECONDS // 2
"""How often a change of stock may be told."""
NODES_LIMIT = 4096
LINKS_PER_NODE = 256
APPLICATIONS_PER_NODE = 4096
STOCK_STEP_BYTES = 1024


class LinkStateTick(msgspec.Struct, frozen=True, gc=False):
    pass


class Known(msgspec.Struct, gc=False):
    state: LinkState
    heard_at: int


class LinkStates:
    def __init__(self, context: Context, links: Links, supply: Supply, design: Design) -> None:
        self.context = context
        self.links = links
        self.supply = supply
        self.policy = design.routing
        self.known: dict[str, Known] = {}
        self._contested: set[tuple[str, str]] = set()
        """Claims that were not believed and have been reported."""
        self._sequence = 0
        self._told: LinkState | None = None
        self._told_at = 0
        links.plain_handlers[LinkState] = self.heard
        links.on_open.append(self._opened)
        links.on_lost.append(lambda pair: self.tell())

    def watch(self) -> None:
        self.context.at(self.context.now + LOOK_NS, LinkStateTick())

    def tick(self, event: LinkStateTick) -> None:
        context = self.context
        context.at(context.now + LOOK_NS, event)
        for node in [node for node, known in self.known.items() if context.now - known.heard_at > LIFETIME_NS]:
            del self.known[node]
            text = f"nothing was heard of {node} for {LIFETIME_NS // NANOSECONDS} s: its links are forgotten"
            context.notice("KH-3101", text, node)
        self.tell(refresh=context.now - self._told_at >= REFRESH_NS)

    # --- telling ------------------------------------------------------------------------------------------------------

    def own(self) -> LinkState:
        context = self.context
        told = []
        for pair in context.pairs.values():
            if pair.direct:
                usable = pair.own_key.untouched + pair.pads.total()
                told.append((pair.peer, step(usable), pair.rate_bps, pair.is_hop))
        applications = tuple(sorted(self.supply.applications))
        return LinkState(context.node, self._sequence, tuple(told), applications)

    def tell(self, *, refresh: bool = False) -> None:
        """Sends our state to all neighbours if it changed, or if it is time again."""
        state = self.own()
        last = self._told
        same = last is not None and last.links == state.links and last.applications == state.applications
        if same and not refresh:
            return
        # Above every number of an earlier life: the start number stands in front.
        self._sequence = max(self._sequence + 1, self.context.start << 32)
        state = msgspec.structs.replace(state, sequence=self._sequence)
        self._told, self._told_at = state, self.context.now
        self._flood(state, but="")

    def _flood(self, state: LinkState, but: str) -> None:
        for pair in self.context.pairs.values():
            if pair.is_hop and pair.peer != but:
                self.context.say_plain(pair.peer, state)

    def _opened(self, pair: Pair) -> None:
        if not pair.is_hop:
            return
        for known in self.known.values():
            if known.state.node != pair.peer:
                self.context.say_plain(pair.peer, known.state)
        self._told = None
        self.tell()

    # --- hearing ------------------------------------------------------------------------------------------------------

    def heard(self, peer: str, state: LinkState) -> None:
        context = self.context
        if len(state.links) > LINKS_PER_NODE or len(state.applications) > APPLICATIONS_PER_NODE or not state.node:
            raise PeerError("link state with too many links or applications")
        if any(len(name) > NAME_LIMIT for name in (state.node, *(link[0] for link in state.links))):
            raise PeerError(f"link state with a name longer than {NAME_LIMIT}")
        if state.node == context.node:
            return
        known = self.known.get(state.node)
        if known is not None and known.state.sequence >= state.sequence:
            return
        if known is None and len(self.known) >= NODES_LIMIT:
            context.count("link_states_refused")
            return
        self.known[state.node] = Known(state, context.now)
        for application in state.applications:
            self._learn(AppId(application), NodeId(state.node))
        self._flood(state, but=peer)

    def _learn(self, application: AppId, node: NodeId) -> None:
        """Who serves an application: the operator's word, then ours, then whoever told of it first and still does.

        A later claim changes nothing: else any node could draw the keys of others' applications to itself.
        """
        if application in self.context.settings.directory or application in self.supply.applications:
            return
        holder = self.supply.directory.get(application)
        known = self.known.get(holder) if holder is not None else None
        if holder is None or holder == node or known is None or application not in known.state.applications:
            self.supply.directory[application] = node
        elif (application, node) not in self._contested:
            self._contested.add((application, node))
            text = f"{node} says that it serves {application}, which {holder} serves: not believed"
            self.context.notice("KH-3102", text, node)

    # --- routes -------------------------------------------------------------------------------------------------------

    def edges(self) -> Iterator[Edge]:
        states = [self.own(), *(known.state for known in self.known.values())]
        up = {(state.node, peer) for state in states for peer, _, _, is_up in state.links if is_up}
        for state in states:
            for peer, usable, rate, is_up in state.links:
                yield Edge(state.node, peer, usable, rate, is_up and (peer, state.node) in up)

    def route(self, destination: str, need_bytes: int, avoid: frozenset[str] = frozenset()) -> Route | None:
        """The path for relayed key: over at least one node in between, even to a neighbour."""
        direct = (self.context.node, destination)
        edges = (edge for edge in self.edges() if (edge.start, edge.end) != direct)
        return self.policy.route(edges, self.context.node, destination, need_bytes, avoid)

    def next_hop(self, destination: str) -> str | None:
        """Towards a node over links that are up, whatever their stock: for what spends no key."""
        found = self.policy.route(
            (edge._replace(usable_bytes=1) for edge in self.edges()), self.context.node, destination
        )
        return found.path[1] if found is not None and len(found.path) > 1 else None


def step(usable_bytes: int) -> int:
    """Stock as it is told: whole KiB up to 16, then to two digits in binary, so that small changes say nothing."""
    kibibytes = usable_bytes // STOCK_STEP_BYTES
    if kibibytes < 16:
        return kibibytes * STOCK_STEP_BYTES
    shift = kibibytes.bit_length() - 3
    return (kibibytes >> shift << shift) * STOCK_STEP_BYTES
