"""Frames of a pair that share no link: handed on from node to node, protected end to end by the pair's own tags."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from keyhop.core.machine import Frame
from keyhop.core.messages import PATH_LIMIT, Forward, FrameType
from keyhop.core.model import NANOSECONDS, NodeId, PeerError
from keyhop.core.node.context import Context
from keyhop.core.node.events import FrameArrived, PeerLost
from keyhop.core.node.link import Links
from keyhop.core.node.pair import NO_LINK, Connection, Pair
from keyhop.core.node.routes import Routes

LOOK_NS = NANOSECONDS // 2
"""How often the opening end looks at a pair, until it is open."""
BACKOFF_LIMIT = 7
"""Openings of a distant pair are tried again after 0.5 s, doubled up to 64 s."""
USED_UP_NS = 8 * NANOSECONDS
"""Where the peer's keys are used up here, it may not know: after so long it is told, by openings that fail."""
CLOSED = 0
"""Forwarded frame type that says: this connection is over. It costs time only, so it carries no tag."""


class TunnelTick(msgspec.Struct, frozen=True, gc=False):
    peer: str
    tries: int


class Tunnel:
    def __init__(self, context: Context, links: Links, routes: Routes) -> None:
        self.context = context
        self.links = links
        self.routes = routes
        self.on_made: Callable[[Pair], None] = lambda pair: None
        self._open: set[str] = set()
        """Pairs that need no look until they are lost."""
        self._used_up_since: dict[str, int] = {}
        context.tunnel = self.send
        links.on_lost.append(self._lost)
        routes.states.on_restarted.append(self._restarted)
        links.plain_handlers[Forward] = self.forward

    def distant(self, peer: str) -> Pair:
        """The pair with this node; made on first use."""
        pair = self.context.pairs.get(peer)
        if pair is None:
            pair = self.context.pairs[peer] = Pair(self.context.node, NodeId(peer), NO_LINK, direct=False)
            self.context.put(pair.row())
            self.watch(pair)
            self.on_made(pair)
        return pair

    def watch(self, pair: Pair) -> None:
        if pair.leads:
            self.context.at(self.context.now + LOOK_NS, TunnelTick(pair.peer, 0))

    def _lost(self, pair: Pair) -> None:
        if pair.peer in self._open:
            self._open.discard(pair.peer)
            self.watch(pair)

    def _restarted(self, node: str) -> None:
        """What it knew of its connections is gone: it says nothing, so silence would tell of it much later."""
        pair = self.context.pairs.get(NodeId(node))
        for connection in list(pair.connections.values()) if pair is not None else ():
            if pair is not None and connection.tunnelled:
                self.links.drop(pair, connection, f"{node} has started anew")

    def tick(self, event: TunnelTick) -> None:
        """The lower-named end opens when there is key to open with, a way, and no better connection."""
        context, pair = self.context, self.context.pairs[event.peer]
        if pair.is_open:
            self._open.add(pair.peer)
            self._used_up_since.pop(pair.peer, None)
            return
        tries = 0
        # Own keys that were granted already are of no use, and more are on their way; of the peer's only it knows.
        ready = all(run.grantable() for run in (pair.own_opening, pair.own_tags)) and self._theirs_will_do(pair)
        if not pair.connections and ready and self.routes.next_hop(pair.peer):
            self.links.begin(pair, int.from_bytes(context.entropy(7), "big") << 1 | 1, tunnelled=True)
            tries = event.tries + 1
        elif pair.connections:
            tries = event.tries
        context.at(context.now + (LOOK_NS << min(tries, BACKOFF_LIMIT)), TunnelTick(pair.peer, tries))

    def _theirs_will_do(self, pair: Pair) -> bool:
        """Whether there are keys of the peer's to open with, or were and it should hear that there are none."""
        theirs = (pair.their_opening, pair.their_tags)
        if all(run.available() for run in theirs):
            self._used_up_since.pop(pair.peer, None)
            return True
        since = self._used_up_since.setdefault(pair.peer, self.context.now)
        return all(run.append for run in theirs) and self.context.now - since >= USED_UP_NS

    def send(self, pair: Pair, connection: Connection, frame: Frame | None) -> None:
        hop = self.routes.next_hop(pair.peer)
        if hop is None:
            # Lost: whoever waits for an answer to it would wait for ever.
            self.context.at(self.context.now, PeerLost(pair.peer, connection.id))
            return
        frame = frame or Frame(CLOSED, 0, b"", b"")
        message = Forward(
            pair.own, pair.peer, PATH_LIMIT, connection.id, frame.type, frame.position, frame.payload, frame.tag
        )
        self.context.say_plain(hop, message)

    def forward(self, peer: str, message: Forward) -> None:
        context = self.context
        if message.destination != context.node:
            hop = self.routes.next_hop(message.destination)
            if hop is not None and hop != peer and message.hops_left > 0:
                context.say_plain(hop, msgspec.structs.replace(message, hops_left=message.hops_left - 1))
            else:
                context.count("forwards_dropped")
                self._return(peer, message)
            return
        pair = context.pairs.get(message.source)
        if pair is None or message.source == context.node:
            return
        connection = pair.connections.get(message.connection)
        if connection is not None and not connection.tunnelled:
            # Anybody can name a neighbour as the source: what it says on its own connection comes over that alone.
            return
        if message.kind == CLOSED:
            self.links.lost(PeerLost(pair.peer, message.connection))
            return
        if connection is None:
            if message.kind != FrameType.HELLO or pair.leads:
                self._return(peer, message)
                return
            try:
                self.links.begin(pair, message.connection, tunnelled=True)
            except PeerError:
                return
        frame = Frame(message.kind, message.position, message.payload, message.tag)
        self.links.arrived(FrameArrived(pair.peer, message.connection, frame))

    def _return(self, peer: str, message: Forward) -> None:
        """Says where a frame came from that its connection is over: the frame reaches nobody."""
        if message.kind != CLOSED:
            closed = Forward(message.destination, message.source, PATH_LIMIT, message.connection, CLOSED, 0, b"", b"")
            self.context.say_plain(peer, closed)
