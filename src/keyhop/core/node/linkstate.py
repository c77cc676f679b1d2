"""What nodes tell all others about their links and applications, and the routes that follow from it.

Each node signs its own with the key of its certificate, so that nobody on the way can speak for it. A lie of a node
about itself can cost time, never a second use of a bit (`docs/security.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec

from keyhop.core.designs import Running
from keyhop.core.messages import LinkState, SignedLinkState, decode_link_state, encode
from keyhop.core.model import NANOSECONDS, AppId, NodeId
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
SEQUENCE_LIMIT = (1 << 63) - 1
HOLDING_NS = 24 * 3600 * NANOSECONDS
"""An application stays with the node that served it for so long after that was last heard of: who cuts a node off does
not get its keys."""
DIRECTORY_LIMIT = 1 << 18
"""Applications of other nodes that are remembered: who invents names without end fills no more than this."""
DOUBTS_LIMIT = 1024
"""Doubted statements that are reported one by one, by who brought them and whom they speak of."""
STOCK_STEP_BYTES = 1024


class LinkStateTick(msgspec.Struct, frozen=True, gc=False):
    pass


class Known(msgspec.Struct, gc=False):
    state: LinkState
    message: SignedLinkState
    """As its node signed it, to be handed on."""
    heard_at: int


class LinkStates:
    def __init__(self, context: Context, links: Links, supply: Supply, design: Running) -> None:
        self.context = context
        self.links = links
        self.supply = supply
        self.policy = design.routing
        self.known: dict[str, Known] = {}
        self.forgotten: dict[str, Known] = {}
        """The last of nodes that fell silent: what they signed once is not taken again."""
        self._claimed_at: dict[AppId, int] = {}
        """When the node that is believed to serve an application said so last."""
        self._doubted: set[tuple[str, str]] = set()
        """(neighbour that brought it, node it speaks of) of statements that were dropped and have been reported."""
        self._contested: set[tuple[str, str]] = set()
        """Claims that were not believed and have been reported."""
        self._sequence = 0
        self._told: LinkState | None = None
        self._told_at = 0
        self.own_link: Callable[[Pair], tuple[int, int]] = lambda pair: (
            pair.own_key.untouched + pair.pads.total(),
            pair.rate_bps,
        )
        """(usable bytes, bit/s) of a link; another design than our own has its own count."""
        links.plain_handlers[SignedLinkState] = self.heard
        links.on_open.append(self._opened)
        links.on_lost.append(lambda pair: self.tell())

    def watch(self) -> None:
        self.context.at(self.context.now + LOOK_NS, LinkStateTick())

    def tick(self, event: LinkStateTick) -> None:
        context = self.context
        context.at(context.now + LOOK_NS, event)
        for node in [node for node, known in self.known.items() if context.now - known.heard_at > LIFETIME_NS]:
            self.forgotten[node] = self.known.pop(node)
            text = f"nothing was heard of {node} for {LIFETIME_NS // NANOSECONDS} s: its links are forgotten"
            context.notice("KH-3101", text, node)
        self.tell(refresh=context.now - self._told_at >= REFRESH_NS)

    # --- telling ------------------------------------------------------------------------------------------------------

    def own(self) -> LinkState:
        context = self.context
        told = []
        for pair in context.pairs.values():
            if pair.direct:
                usable, rate_bps = self.own_link(pair)
                told.append((pair.peer, step(usable), rate_bps, pair.is_hop))
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
        statement = encode(state)
        self._flood(SignedLinkState(statement, *self.context.vault.sign(statement)), but="")

    def _flood(self, message: SignedLinkState, but: str) -> None:
        for pair in self.context.pairs.values():
            if pair.is_hop and pair.peer != but:
                self.context.say_plain(pair.peer, message)

    def _opened(self, pair: Pair) -> None:
        if not pair.is_hop:
            return
        for known in self.known.values():
            if known.state.node != pair.peer:
                self.context.say_plain(pair.peer, known.message)
        self._told = None
        self.tell()

    # --- hearing ------------------------------------------------------------------------------------------------------

    def heard(self, peer: str, message: SignedLinkState) -> None:
        context, state = self.context, decode_link_state(message.statement)
        node = state.node
        known = self.known.get(node)
        last = known or self.forgotten.get(node)
        if node == context.node:
            if state.sequence > self._sequence and not self._doubts(peer, node, message):
                self._overtaken(state)
            return
        if last is not None and last.state.sequence >= state.sequence:
            if peer == node and last.state.sequence > state.sequence:
                # Its numbers fell back, or it would not say this: shown its own, it goes on above it.
                context.say_plain(peer, last.message)
            return
        if last is None and len(self.known) + len(self.forgotten) >= NODES_LIMIT and not self._make_room():
            context.count("link_states_refused")
            return
        if self._doubts(peer, node, message):
            return
        self.forgotten.pop(node, None)
        self.known[node] = Known(state, message, context.now)
        for application in state.applications:
            self._learn(AppId(application), NodeId(node))
        self._flood(message, but=peer)

    def _doubts(self, peer: str, node: str, message: SignedLinkState) -> bool:
        """Whether a statement is not the word of the node it speaks of; the neighbour that brought it is reported."""
        context = self.context
        reason = context.vault.doubt(node, message.statement, message.certificate, message.signature)
        if not reason:
            return False
        context.count("link_states_doubted")
        if (peer, node) not in self._doubted and len(self._doubted) < DOUBTS_LIMIT:
            self._doubted.add((peer, node))
            context.notice("KH-3103", f"link state of {node}, brought by {peer}, is dropped: {reason}", peer)
        return True

    def _overtaken(self, state: LinkState) -> None:
        """We signed this in an earlier life that our start number forgets: what we tell next stands above it."""
        if state.sequence < SEQUENCE_LIMIT:
            self._sequence = state.sequence
            # Told at the next look, not at once: two nodes with one certificate would not stop.
            self._told = None

    def _make_room(self) -> bool:
        if not self.forgotten:
            return False
        del self.forgotten[next(iter(self.forgotten))]
        return True

    def _learn(self, application: AppId, node: NodeId) -> None:
        """Who serves an application: the operator's word, then ours, then whoever told of it first and still does.

        A later claim changes nothing: else any node could draw the keys of others' applications to itself. A node that
        fell silent keeps its applications for `HOLDING_NS`; one that speaks and does not name them any more lets go.
        """
        if application in self.context.settings.directory or application in self.supply.applications:
            return
        now, holder = self.context.now, self.supply.directory.get(application)
        if holder is not None and holder != node:
            known = self.known.get(holder)
            held = (
                application in known.state.applications
                if known is not None
                else (now - self._claimed_at.get(application, now - HOLDING_NS) < HOLDING_NS)
            )
            if held:
                if (application, node) not in self._contested and len(self._contested) < DOUBTS_LIMIT:
                    self._contested.add((application, node))
                    text = f"{node} says that it serves {application}, which {holder} serves: not believed"
                    self.context.notice("KH-3102", text, node)
                return
        elif holder is None and len(self.supply.directory) >= DIRECTORY_LIMIT:
            self.context.count("claims_refused")
            return
        self.supply.directory[application] = node
        self._claimed_at[application] = now

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

    def rates_towards(self, destination: str) -> list[tuple[str, str, int]]:
        """(one node, the next, bit/s) of the links that key for this node would cross now."""
        found = self.route(destination, 1)
        if found is None:
            return []
        rates = {(edge.start, edge.end): edge.rate_bps for edge in self.edges()}
        return [(one, other, rates.get((one, other), 0)) for one, other in pairwise(found.path)]

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
