"""Connections between this node and its peers: how they begin, what keeps them alive, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from keyhop.core.machine import Close, Frame
from keyhop.core.messages import (
    FrameType,
    Grant,
    Hello,
    KeepAlive,
    Plain,
    Proof,
    State,
    decode,
    encode,
)
from keyhop.core.model import NANOSECONDS, TAG_KEY_BYTES, PeerError
from keyhop.core.node.burning import Burning
from keyhop.core.node.context import Context
from keyhop.core.node.events import FrameArrived, PeerConnected, PeerLost
from keyhop.core.node.frames import Frames
from keyhop.core.node.opening import FIRST_CREDIT_SLOTS, Opening
from keyhop.core.node.pair import Connection, Pair, Phase
from keyhop.core.node.starts import Starts

SILENCE = 3
"""A peer that says nothing for so many times of a keep-alive is taken for gone; the next connection opens anew."""
CONNECTIONS_PER_PEER = 4
OPENINGS_WAIT_FROM = 3
"""Openings that fail in a row before the next one waits: connections do break."""
OPENINGS_WAIT_NS = NANOSECONDS // 2
"""Doubled with every further failure."""
OPENINGS_WAIT_LIMIT_NS = 600 * NANOSECONDS
OPENINGS_ALARM = 6
TAGGED = (FrameType.PROOF, FrameType.STATE)


class LinkTick(msgspec.Struct, frozen=True, gc=False):
    peer: str
    connection: int


class Links:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.burning = Burning(context)
        self.starts = Starts(context)
        self.frames = Frames(context, self.burning, self.starts)
        self.opening = Opening(context, self.burning, self.starts, self.frames)
        self.opening.drop = self.drop
        self.handlers = self.frames.handlers
        """Tagged messages of an open or proved connection, by type."""
        self.plain_handlers: dict[type, Callable[[str, Any], None]] = {}
        self.on_compared = self.opening.on_compared
        self.on_open = self.frames.on_open
        self.on_lost: list[Callable[[Pair], None]] = []

    def connected(self, event: PeerConnected) -> None:
        pair = self.context.pairs.get(event.peer)
        if pair is None or not pair.direct:
            raise PeerError(f"{event.peer} is not a neighbour of {self.context.node}")
        if self.opening.rests(pair):
            # Closed before anything is said: the other end would spend a key on our HELLO.
            self.context.out.send.append(Close(pair.peer, event.connection, "openings failed: the next one waits"))
            return
        self.begin(pair, event.connection)

    def begin(self, pair: Pair, connection_id: int, *, tunnelled: bool = False) -> None:
        """Starts an opening; connections of a distant pair, too, are timed here."""
        context = self.context
        if len(pair.connections) >= CONNECTIONS_PER_PEER:
            oldest = next(c for c in pair.connections.values() if c is not pair.current)
            self.drop(pair, oldest, "too many openings at once")
        self.opening.begin(pair, connection_id, tunnelled=tunnelled)
        context.at(context.now + context.settings.keep_alive_ns, LinkTick(pair.peer, connection_id))

    def arrived(self, event: FrameArrived) -> None:
        pair = self.context.pairs.get(event.peer)
        connection = pair.connections.get(event.connection) if pair else None
        if pair is None or connection is None:
            return
        self.context.touched[pair.peer] = pair
        try:
            self._arrived(pair, connection, event.frame)
        except PeerError as error:
            self.context.count("peer_errors")
            pair.failures += 1
            self.context.notice("KH-1301", f"{pair.peer} broke the protocol: {error}", pair.peer)
            self.drop(pair, connection, str(error))

    def _arrived(self, pair: Pair, connection: Connection, frame: Frame) -> None:
        connection.heard_at = self.context.now
        body = decode(frame.type, frame.payload)
        if bool(frame.tag) is not (frame.type in TAGGED) or (frame.position and not frame.tag):
            raise PeerError(f"a frame of type {frame.type} with a tag of {len(frame.tag)} bytes at {frame.position}")
        if type(body) is Hello or type(body) is Grant:
            connection.heard.append(frame.payload)
        match body:
            case Hello():
                self.opening.hello(pair, connection, body)
            case Grant():
                self.opening.grant(pair, connection, body)
            case Proof():
                self.opening.proof(pair, connection, body, frame)
            case State():
                self.frames.arrived(pair, connection, body, frame)
            case Plain():
                self._plain(pair, connection, body)

    def _plain(self, pair: Pair, connection: Connection, body: Plain) -> None:
        if connection.phase < Phase.PROVED:
            raise PeerError("a plain frame came before the PROOF")
        for message in body.messages:
            if type(message) is KeepAlive:
                self._kept_alive(pair, connection, message)
                continue
            if connection.tunnelled:
                raise PeerError(f"{type(message).__name__} inside the frames of a distant pair")
            self.plain_handlers[type(message)](pair.peer, message)

    # --- keep-alive ---------------------------------------------------------------------------------------------------

    def tick(self, event: LinkTick) -> None:
        context = self.context
        pair = context.pairs[event.peer]
        connection = pair.connections.get(event.connection)
        if connection is None:
            return
        apart_ns = context.settings.keep_alive_ns
        if context.now - connection.heard_at >= SILENCE * apart_ns:
            self.drop(pair, connection, "the peer is silent")
            return
        if connection.phase is Phase.OPEN and context.now - connection.said_at >= apart_ns:
            lacks = connection.sender.left <= 1 and pair.current is connection and pair.outbox
            if lacks and pair.own_tags.grantable() >= FIRST_CREDIT_SLOTS * TAG_KEY_BYTES:
                # Keys are here that the other end was not told of for want of keys: an opening compares them.
                self.drop(pair, connection, "no tag key is left to speak with")
                return
            alive = Plain((KeepAlive(connection.sender.next),))
            self.frames.emit(pair, connection, FrameType.PLAIN, 0, encode(alive), b"")
        context.at(context.now + apart_ns, event)

    def _kept_alive(self, pair: Pair, connection: Connection, message: KeepAlive) -> None:
        """Frames of a distant pair can be lost on their way: what waits for an answer to one would wait for ever."""
        receiver = connection.receiver
        if message.next is None or receiver is None or connection.phase is not Phase.OPEN:
            return
        if receiver.credit.next != message.next and pair.connections.get(connection.id) is connection:
            self.drop(pair, connection, f"a frame before tag position {message.next} was lost on its way")

    # --- the end of a connection --------------------------------------------------------------------------------------

    def lost(self, event: PeerLost) -> None:
        pair = self.context.pairs.get(event.peer)
        connection = pair.connections.pop(event.connection, None) if pair else None
        if pair is None or connection is None:
            return
        self._ended(pair, connection)

    def drop(self, pair: Pair, connection: Connection, reason: str) -> None:
        """Closes a connection and lets the parts know if it was the one in use."""
        context = self.context
        if pair.connections.pop(connection.id, None) is None:
            return
        if connection.tunnelled:
            if context.tunnel is not None:
                context.tunnel(pair, connection, None)
        else:
            context.out.send.append(Close(pair.peer, connection.id, reason))
        self._ended(pair, connection)

    def _ended(self, pair: Pair, connection: Connection) -> None:
        """Its credits are void from here on."""
        self._back_off(pair, connection)
        if pair.current is not connection:
            return
        pair.current = None
        pair.outbox.clear()
        self.context.notice("KH-1201", f"link to {pair.peer} is down", pair.peer)
        for call in self.on_lost:
            call(pair)

    def _back_off(self, pair: Pair, connection: Connection) -> None:
        """Counts an opening that took a key and led nowhere: whoever has TLS, or is broken, could use them all up."""
        took = connection.own_grant is not None or connection.proof_sent
        if connection.phase >= Phase.PROVED or not (took or connection.tunnelled):
            return
        if connection.tunnelled:
            # Nobody waits for these: whoever can inject frames on the way could keep the ends apart.
            pair.openings_failed += not pair.direct
            return
        pair.openings_failed += 1
        failed = pair.openings_failed
        if failed >= OPENINGS_WAIT_FROM:
            wait = OPENINGS_WAIT_NS << min(failed - OPENINGS_WAIT_FROM, 16)
            pair.openings_at = self.context.now + min(wait, OPENINGS_WAIT_LIMIT_NS)
        if failed >= OPENINGS_ALARM:
            left = min(pair.own_opening.fresh(0, 1 << 40).total(), pair.their_opening.fresh(0, 1 << 40).total())
            self.context.notice(
                "KH-1306",
                f"{failed} openings with {pair.peer} in a row took a key and failed; there is key for "
                f"{left // TAG_KEY_BYTES} more",
                pair.peer,
            )
