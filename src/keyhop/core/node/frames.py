"""Tagged frames of an open connection: one-time keys out of the peer's credit, in the order in which it was granted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from keyhop.core.machine import Frame, Send
from keyhop.core.messages import (
    MESSAGES_PER_FRAME,
    FrameType,
    Plain,
    PlainMessage,
    State,
    StoredBlock,
    TaggedMessage,
    encode,
    signed,
)
from keyhop.core.model import TAG_KEY_BYTES, PeerError, Range
from keyhop.core.node.burning import Burning
from keyhop.core.node.context import Context, MessageHandler
from keyhop.core.node.pair import Connection, Keyed, Pair, Phase
from keyhop.core.node.starts import Starts
from keyhop.core.node.tags import check_credit

FRAME_PAYLOAD_BYTES = 512 * 1024
"""A frame is closed when its messages reach this; the last may take it on by under half a mebibyte, a relay batch."""


class Frames:
    def __init__(self, context: Context, burning: Burning, starts: Starts) -> None:
        self.context = context
        self.burning = burning
        self.starts = starts
        self.handlers: dict[type, MessageHandler] = {}
        """Tagged messages of an open or proved connection, by type."""
        self.on_open: list[Callable[[Pair], None]] = []

    def arrived(self, pair: Pair, connection: Connection, state: State, frame: Frame) -> None:
        context = self.context
        receiver, hello = connection.receiver, connection.peer_hello
        if connection.phase < Phase.PROVED or receiver is None or hello is None or pair.current is not connection:
            raise PeerError("a tagged frame before the PROOF")
        receiver.accept(frame.position)
        run = pair.their_tags
        genuine = context.vault.verify(
            Range(run.id, frame.position, TAG_KEY_BYTES),
            signed(FrameType.STATE, frame.position, frame.payload),
            frame.tag,
        )
        self.burning.spent(run, frame.position)
        if not genuine:
            raise PeerError(f"the tag at position {frame.position} is wrong")
        if state.credit:
            own = pair.own_tags
            own.mark = check_credit(state.credit, own.mark, own.present)
            for start, length in state.credit:
                connection.sender.add(start, length)
            context.put(own.row())
        # Its PROOF came before: it has seen what we returned. A lost anchor may lead to a lower start number.
        if hello.start != pair.peer_start or state.journal >= pair.peer_journal:
            pair.peer_start, pair.peer_journal, pair.peer_vouch = hello.start, state.journal, state.vouch
            pair.heard = True
        opened = connection.phase is Phase.PROVED
        if opened:
            connection.phase = Phase.OPEN
            context.put(pair.row())
        for message in state.messages:
            self.handlers[type(message)](pair, message)
        if opened:
            context.notice("KH-1200", f"link to {pair.peer} is up", pair.peer)
            for call in self.on_open:
                call(pair)

    def accept_key(self, pair: Pair, position: int) -> Range:
        """The tag key that a message brings beside its frame's own: granted, next in order."""
        connection = pair.current
        if connection is None or connection.receiver is None:
            raise PeerError("a keyed message outside a connection")
        connection.receiver.accept(position)
        return Range(pair.their_tags.id, position, TAG_KEY_BYTES)

    def spend_key(self, pair: Pair, key: Range) -> None:
        """The key of a keyed message was used at this end."""
        self.burning.spent(pair.runs[key.run.number], key.start)

    def flush(self) -> None:
        """Makes frames of all that waits; called once at the end of a step."""
        context = self.context
        if context.touched:
            touched, context.touched = context.touched, {}
            for pair in touched.values():
                if self._flush_pair(pair):
                    context.touched[pair.peer] = pair
        for peer, messages in context.plain_outbox.items():
            neighbour = context.pairs.get(peer)
            current = neighbour.current if neighbour else None
            if neighbour is not None and current is not None and not current.tunnelled:
                for some in fitting(messages):
                    self.emit(neighbour, current, FrameType.PLAIN, 0, encode(Plain(some)), b"")
        context.plain_outbox.clear()

    def _flush_pair(self, pair: Pair) -> bool:
        """Says whether something is left that could not be said or written down yet."""
        context, connection = self.context, pair.current
        if connection is not None:
            receiver = connection.receiver
            while pair.outbox and connection.sender.left > 0:
                if not self.state_frame(pair, connection):
                    break
            if pair.heard and context.out.save:
                pair.heard = False
                context.put(pair.row())
            if receiver is not None and receiver.starved:
                if connection.sender.left and pair.current is connection:
                    self.state_frame(pair, connection, force=True, only_with_credit=True)
                if receiver.starved:
                    return True
        return pair.heard or bool(pair.outbox)

    def state_frame(
        self, pair: Pair, connection: Connection, *, force: bool = False, only_with_credit: bool = False
    ) -> bool:
        """One tagged frame with what waits and fits; False if nothing was sent."""
        context, receiver, sender = self.context, connection.receiver, connection.sender
        assert receiver is not None
        keyed_first = bool(pair.outbox) and isinstance(pair.outbox[0], Keyed)
        if sender.left < (2 if keyed_first and not only_with_credit else 1):
            return False
        credit, mark = receiver.top_up(pair.their_tags.mark)
        if credit:
            pair.their_tags.mark = mark
            context.put(pair.their_tags.row())
        elif only_with_credit:
            return False
        brings_keys = credit or (pair.outbox and isinstance(pair.outbox[0], StoredBlock))
        if receiver.credit.left < 1 or (sender.left == 1 and not brings_keys and not force):
            # The other end must always have a key to answer with, and our last one must carry a credit, or let it give
            # one.
            return False
        own = pair.own_tags
        position = sender.take()
        messages: list[TaggedMessage] = []
        size = 0
        while pair.outbox and len(messages) < MESSAGES_PER_FRAME and size < FRAME_PAYLOAD_BYTES:
            waiting = pair.outbox[0]
            if isinstance(waiting, Keyed):
                if sender.left < 2:
                    break
                key = Range(own.id, sender.take(), TAG_KEY_BYTES)
                waiting = waiting.make(key)
                self.burning.spent(own, key.start)
            pair.outbox.popleft()
            messages.append(waiting)
            size += len(encode(waiting))
        journal = context.journal + (1 if context.out.save else 0)
        payload = encode(State(journal, self.starts.vouch(context.start, journal), credit, tuple(messages)))
        key = Range(own.id, position, TAG_KEY_BYTES)
        tag = context.vault.tag(key, signed(FrameType.STATE, position, payload))
        self.burning.spent(own, position)
        self.emit(pair, connection, FrameType.STATE, position, payload, tag)
        return True

    def emit(
        self, pair: Pair, connection: Connection, kind: FrameType, position: int, payload: bytes, tag: bytes
    ) -> None:
        connection.said_at = self.context.now
        if kind in (FrameType.HELLO, FrameType.GRANT):
            connection.said.append(payload)
        frame = Frame(int(kind), position, payload, tag)
        if not connection.tunnelled:
            self.context.out.send.append(Send(pair.peer, connection.id, frame))
        elif self.context.tunnel is not None:
            self.context.tunnel(pair, connection, frame)


def fitting(messages: Sequence[PlainMessage]) -> Iterator[tuple[PlainMessage, ...]]:
    """The messages in order, in portions that a frame has room for."""
    portion: list[PlainMessage] = []
    size = 0
    for message in messages:
        length = len(encode(Plain((message,))))
        if portion and (len(portion) == MESSAGES_PER_FRAME or size + length > FRAME_PAYLOAD_BYTES):
            yield tuple(portion)
            portion, size = [], 0
        portion.append(message)
        size += length
    yield tuple(portion)
