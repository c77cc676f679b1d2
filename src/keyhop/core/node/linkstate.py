"""What nodes tell all others about their links and applications.

Each node signs its own with the key of its certificate, so that nobody on the way can speak for it. A lie of a node
about itself can cost time, never a second use of a bit (`docs/security.md`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from keyhop.core.messages import EVERYWHERE, LinkState, SignedLinkState, decode_link_state, encode
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node.context import LEISURE_NS, Context
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Pair
from keyhop.core.node.supply import Supply

LOOK_NS, LOOK_LIMIT_NS = NANOSECONDS // 2, LEISURE_NS
"""How often a node looks whether it has anything to tell: at most, at least."""
QUIET = 4
"""Looks that find nothing to tell get rarer, up to so many times: what changes then is told so much later."""
HOLD_NS_PER_NODE = NANOSECONDS // 10
"""A change of stock or rate is told once in so much for each node that is known: all nodes together tell ten a second
at most, however many they are. What links are up is told at once."""
REFRESH_NS, REFRESH_LIMIT_NS = 30 * NANOSECONDS, 3600 * NANOSECONDS
REFRESH_NS_PER_NODE = 15 * NANOSECONDS
"""What did not change is told anew once in so much for each node: connections lose nothing, and bring all that is known
when they open, so this is for what nobody has thought of, and lets go of nodes that are gone for good."""
PACE_NS, AT_ONCE = LOOK_NS, 16
"""Of one node so much is heard: a statement in so long, and so many beyond that. All nodes sign what they like as often
as they like; the last word of one that speaks faster is handed on when it is its turn again."""
LIFETIMES = 3
"""A node is forgotten after so many refreshes without one: 90 s where there are two, three hours from 240 on. Routes do
not wait for that: the neighbours of a node that is gone say at once that their links to it are down."""
FARTHER_LIMIT = 16
"""A statement that comes again with more hops left is handed on again, so often: nobody can make all of them go round
for each number that there is."""
NODES_LIMIT = 4096
SEQUENCE_LIMIT = (1 << 63) - 1
START_SHIFT = 32
"""A sequence number begins with the start number."""
HOLDING_NS = 24 * 3600 * NANOSECONDS
"""An application stays with the node that served it for so long after that was last heard of: who cuts a node off does
not get its keys."""
DIRECTORY_LIMIT = 1 << 18
"""Applications of other nodes that are remembered: who invents names without end fills no more than this."""
DOUBTS_LIMIT = 1024
"""Doubted statements that are reported one by one, by who brought them and whom they speak of."""
STOCK_STEP_BYTES = 1024
FIRST_STOCK_BYTES = (1024, 4096)
"""When a link that has opened comes to so much it is told at once, once each: a segment, what a source is granted.
Until then no path leads over it."""
STOCK_TOLD_BYTES = 4 << 20
"""More than this is told as this: no route is better for it."""
RATE_STEP = 1.25
"""A rate is told anew when it has changed by this factor."""


class LinkStateTick(msgspec.Struct, frozen=True, gc=False):
    due: int
    """Only the look that was planned last is taken."""


class Known(msgspec.Struct, gc=False):
    state: LinkState
    message: SignedLinkState
    """As its node signed it, to be handed on."""
    hops_left: int
    """The most with which it came, within our own horizon."""
    heard_at: int
    up: frozenset[str]
    """The neighbours to which it says its links are up."""
    credit_ns: int
    """When this was heard: the time in which the node could have spoken and did not."""
    farther: int = 0
    """How often it came again with more hops left."""

    @property
    def onward(self) -> SignedLinkState:
        """As it is handed on, if it is."""
        hops_left = self.hops_left if self.hops_left == EVERYWHERE else self.hops_left - 1
        return msgspec.structs.replace(self.message, hops_left=hops_left)


class Held(NamedTuple):
    """The last word of a node that speaks too often."""

    peer: str
    sequence: int
    message: SignedLinkState


class LinkStates:
    def __init__(self, context: Context, links: Links, supply: Supply) -> None:
        self.context = context
        self.links = links
        self.supply = supply
        self.known: dict[str, Known] = {}
        self.forgotten: dict[str, Known] = {}
        """The last of nodes that fell silent: what they signed once is not taken again."""
        self._claimed_at: dict[AppId, int] = {}
        """When the node that is believed to serve an application said so last."""
        self._held: dict[str, Held] = {}
        """By the node that speaks."""
        self._doubted: set[tuple[str, str]] = set()
        """(neighbour that brought it, node it speaks of) of statements that were dropped and have been reported."""
        self._contested: set[tuple[str, str]] = set()
        """Claims that were not believed and have been reported."""
        self._stocked: dict[str, int] = {}
        """Neighbour -> how many marks of first stock its link has come to since it opened."""
        self.version = 0
        """Rises whenever what is known of others changes."""
        self._sequence = 0
        self._told: LinkState | None = None
        self._told_at = 0
        self._looked_for_silent_at = 0
        self._wait_ns = LOOK_NS
        self.due = 0
        """When the next look is planned."""
        self.own_link: Callable[[Pair], tuple[int, int]] = lambda pair: (
            pair.own_key.untouched + pair.pads.total(),
            pair.rate_bps,
        )
        """(usable bytes, bit/s) of a link; another design than our own has its own count."""
        self.on_restarted: list[Callable[[str], None]] = []
        """Told of nodes that have started anew since they were last heard."""
        links.plain_handlers[SignedLinkState] = self.heard
        links.on_open.append(self._opened)
        links.on_lost.append(self._lost)

    def watch(self) -> None:
        self._plan(LOOK_NS)

    def _plan(self, wait_ns: int) -> None:
        self._wait_ns = wait_ns
        self.due = self.context.after(wait_ns)
        self.context.at(self.due, LinkStateTick(self.due))

    @property
    def _hold_ns(self) -> int:
        return len(self.known) * HOLD_NS_PER_NODE

    @property
    def _look_ns(self) -> int:
        return min(max(LOOK_NS, self._hold_ns), LOOK_LIMIT_NS)

    @property
    def refresh_ns(self) -> int:
        if self.context.settings.horizon_hops:
            # Each node has other nodes within its horizon: what followed their number would differ from node to node.
            return REFRESH_LIMIT_NS
        return min(max(REFRESH_NS, len(self.known) * REFRESH_NS_PER_NODE), REFRESH_LIMIT_NS)

    def tick(self, event: LinkStateTick) -> None:
        context, look_ns = self.context, self._look_ns
        if event.due != self.due:
            return
        refresh_ns, passed_ns, told_at = self.refresh_ns, context.now - self._told_at, self._told_at
        if context.now - self._looked_for_silent_at >= REFRESH_NS:
            self._forget_silent(LIFETIMES * refresh_ns)
        self._hear_held()
        self.tell(refresh=passed_ns >= refresh_ns, amounts=passed_ns >= self._hold_ns)
        quiet = self._told_at == told_at and not self._held
        self._plan(min(2 * self._wait_ns, QUIET * look_ns, LOOK_LIMIT_NS) if quiet else look_ns)

    def _forget_silent(self, lifetime_ns: int) -> None:
        context = self.context
        self._looked_for_silent_at = context.now
        for node in [node for node, known in self.known.items() if context.now - known.heard_at > lifetime_ns]:
            self.forgotten[node] = self.known.pop(node)
            self.version += 1
            text = f"nothing was heard of {node} for {lifetime_ns // NANOSECONDS} s: its links are forgotten"
            context.notice("KH-3101", text, node)

    # --- telling ------------------------------------------------------------------------------------------------------

    def own(self) -> LinkState:
        context, last = self.context, self._told
        before = {link[0]: link for link in last.links} if last is not None else {}
        told = []
        for pair in context.pairs.values():
            if pair.direct:
                usable, rate_bps = self.own_link(pair)
                _, told_bytes, told_bps, _ = before.get(pair.peer, (pair.peer, 0, 0, False))
                told.append((pair.peer, step(usable, told_bytes), rate(rate_bps, told_bps), pair.is_hop))
        applications = tuple(sorted(self.supply.applications))
        return LinkState(context.node, self._sequence, tuple(told), applications)

    def tell(self, *, refresh: bool = False, amounts: bool = False) -> None:
        """Sends our state to all neighbours if links or applications changed, or if it is time again.

        `amounts`: a change of stock or rate is a reason too.
        """
        state, last = self.own(), self._told
        if last is not None and not refresh and last.applications == state.applications:
            if amounts and last.links == state.links:
                return
            if not amounts and _ways(last) == _ways(state):
                return
        # Above every number of an earlier life: the start number stands in front.
        self._sequence = max(self._sequence + 1, self.context.start << START_SHIFT)
        state = msgspec.structs.replace(state, sequence=self._sequence)
        self._told, self._told_at = state, self.context.now
        statement = encode(state)
        if self.due > self.context.now + self._look_ns:
            # What has begun to change goes on changing.
            self._plan(self._look_ns)
        self._flood(SignedLinkState(statement, *self.context.vault.sign(statement), self._within(EVERYWHERE)), but="")

    def stocked(self, pair: Pair) -> None:
        """Fresh key is there."""
        if not pair.is_hop:
            return
        usable, _ = self.own_link(pair)
        marks = sum(usable >= mark for mark in FIRST_STOCK_BYTES)
        if marks > self._stocked.get(pair.peer, 0):
            self._stocked[pair.peer] = marks
            self.tell(amounts=True)

    def _lost(self, pair: Pair) -> None:
        self._stocked.pop(pair.peer, None)
        self.tell()

    def _flood(self, message: SignedLinkState, but: str) -> None:
        for pair in self.context.pairs.values():
            if pair.is_hop and pair.peer != but:
                self.context.say_plain(pair.peer, message)

    def _within(self, hops_left: int) -> int:
        """Bounded by our own horizon: a neighbour can make nothing go farther than what it signs itself."""
        horizon = self.context.settings.horizon_hops
        return min(hops_left, horizon - 1) if horizon else hops_left

    def _hand_on(self, known: Known, but: str) -> None:
        if known.hops_left:
            self._flood(known.onward, but)

    def _opened(self, pair: Pair) -> None:
        if not pair.is_hop:
            return
        for known in self.known.values():
            if known.state.node != pair.peer and known.hops_left:
                self.context.say_plain(pair.peer, known.onward)
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
            elif known is not None and known.message.statement == message.statement:
                self._heard_nearer(peer, known, message)
            return
        if last is None and len(self.known) + len(self.forgotten) >= NODES_LIMIT and not self._make_room():
            context.count("link_states_refused")
            return
        held = self._held.get(node)
        if held is not None and held.sequence >= state.sequence:
            if held.message.statement == message.statement and held.message.hops_left < message.hops_left:
                farther = msgspec.structs.replace(held.message, hops_left=message.hops_left)
                self._held[node] = Held(peer, held.sequence, farther)
            return
        if self._doubts(peer, node, message):
            return
        credit_ns = self._credit_ns(last)
        if credit_ns < PACE_NS:
            self._held[node] = Held(peer, state.sequence, message)
            if self.due > context.now + self._look_ns:
                self._plan(self._look_ns)
            context.count("link_states_held")
            return
        self._held.pop(node, None)
        self.forgotten.pop(node, None)
        self.version += 1
        ways, hops_left = frozenset(_ways(state)), self._within(message.hops_left)
        self.known[node] = known = Known(state, message, hops_left, context.now, ways, credit_ns - PACE_NS)
        for application in state.applications:
            self._learn(AppId(application), NodeId(node))
        if last is not None and state.sequence >> START_SHIFT > last.state.sequence >> START_SHIFT:
            for call in self.on_restarted:
                call(node)
        self._hand_on(known, but=peer)

    def _heard_nearer(self, peer: str, known: Known, message: SignedLinkState) -> None:
        """The same statement over fewer links than it came before: it may go farther than it went."""
        hops_left = self._within(message.hops_left)
        if hops_left > known.hops_left and known.farther < FARTHER_LIMIT:
            known.hops_left = hops_left
            known.farther += 1
            self._hand_on(known, but=peer)

    def _credit_ns(self, last: Known | None) -> int:
        most = AT_ONCE * PACE_NS
        return most if last is None else min(most, last.credit_ns + self.context.now - last.heard_at)

    def _hear_held(self) -> None:
        for node, held in list(self._held.items()):
            if self._credit_ns(self.known.get(node) or self.forgotten.get(node)) >= PACE_NS:
                del self._held[node]
                self.heard(held.peer, held.message)

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
        self.supply.serves(application, node)
        self._claimed_at[application] = now


def _ways(state: LinkState) -> list[str]:
    return [peer for peer, _, _, is_up in state.links if is_up]


def step(usable_bytes: int, told_bytes: int = 0) -> int:
    """Stock as it is told: whole KiB up to 16, then powers of two, so that small changes say nothing.

    What rises to the next power is told with the one after it: a stock that is drawn on and filled by turns is quiet.
    """
    kibibytes = usable_bytes // STOCK_STEP_BYTES
    if kibibytes < 16:
        return kibibytes * STOCK_STEP_BYTES
    stepped = min(1 << usable_bytes.bit_length() - 1, STOCK_TOLD_BYTES)
    return told_bytes if stepped == 2 * told_bytes and stepped < STOCK_TOLD_BYTES else stepped


def rate(rate_bps: int, told_bps: int) -> int:
    """As it was told, while it has hardly changed."""
    return told_bps if told_bps / RATE_STEP < rate_bps < told_bps * RATE_STEP else rate_bps
