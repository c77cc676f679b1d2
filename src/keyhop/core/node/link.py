"""A connection between two key managers: opening, comparing what each end knows, and the tagged frames after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hmac import compare_digest
from typing import Any

import msgspec

from keyhop.core.machine import Close, Drop, Frame, Send
from keyhop.core.messages import (
    MESSAGES_PER_FRAME,
    PROTOCOL_VERSION,
    FrameType,
    Grant,
    Hello,
    KeepAlive,
    Plain,
    PlainMessage,
    Proof,
    RunState,
    Span,
    State,
    TaggedMessage,
    decode,
    encode,
    signed,
)
from keyhop.core.model import NANOSECONDS, TAG_KEY_BYTES, Action, PeerError, Purpose, Range, RunKind
from keyhop.core.model import State as RangeState
from keyhop.core.node.context import Context, MessageHandler
from keyhop.core.node.events import FrameArrived, PeerConnected, PeerLost
from keyhop.core.node.extents import Extents
from keyhop.core.node.pair import Connection, Keyed, Pair, Phase
from keyhop.core.node.rows import StartRow
from keyhop.core.node.run import GONE, GONE_LIMIT, UNTOUCHED, Run
from keyhop.core.node.tags import Receiver, check_credit, slots
from keyhop.core.node.vault import RELAY

KEEP_ALIVE_NS = 5 * NANOSECONDS
STARTS_LIMIT = 256
"""Starts whose numbers a neighbour may return; who was silent for longer returns nothing that counts."""
SILENCE_NS = 15 * NANOSECONDS
"""A peer that says nothing for this long is taken for gone; the next connection opens anew."""
FRAME_PAYLOAD_BYTES = 512 * 1024
"""A frame is closed when its messages reach this; the last may take it on by a third of a mebibyte, a relay batch."""
CONNECTIONS_PER_PEER = 4


OPENING_RESERVE_BYTES = 2048
"""Openings of a link by way of other nodes stop here: whoever stands on that way can make them fail at no cost."""
TAGGED = (FrameType.PROOF, FrameType.STATE)
FIRST_CREDIT_SLOTS = 2
"""A first frame must be able to leave, and one that carries a credit after it."""


class LinkTick(msgspec.Struct, frozen=True, gc=False):
    peer: str
    connection: int


def present_above(run: Run) -> tuple[Span, ...]:
    return tuple((start, end - start) for start, end in run.fresh(0, 1 << 40))


def agreed(spans: tuple[Span, ...], run: Run) -> Extents:
    """What the peer claims of its own authentication run, as far as we have it too and never granted it."""
    common = Extents()
    for start, length in spans:
        for low, high in run.fresh(start, start + length):
            common.add(low, high)
    return common


def merged_opening(run: Run, states: Sequence[RunState]) -> Extents:
    """What of an opening run neither end uses or grants again, from its mark on. Raises PeerError if it is too much."""
    (state,) = (state for state in states if state.run == run.id.number)
    gone = Extents([*run.gone, *((start, start + length) for start, length in state.touched)])
    gone.remove(0, max(run.mark, state.floor))
    if len(gone) > max(GONE_LIMIT, len(run.gone)):
        raise PeerError(f"opening run {run.id.number} in {len(gone)} pieces above its mark: {GONE_LIMIT} are kept")
    return gone


class Links:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.handlers: dict[type, MessageHandler] = {}
        """Tagged messages of an open or proved connection, by type."""
        self.plain_handlers: dict[type, Callable[[str, Any], None]] = {}
        self.on_compared: list[Callable[[Pair, Proof], None]] = []
        """Called when the peer's PROOF has been merged, before anything further is said."""
        self.on_open: list[Callable[[Pair], None]] = []
        self.on_lost: list[Callable[[Pair], None]] = []
        self.starts: dict[int, StartRow] = {}
        """Starts of this node since leases were burnt last."""
        self.found_restored: Callable[[str, int], None] = lambda reason, start: None

    # --- starts of this node ------------------------------------------------------------------------------------------

    def record_start(self) -> None:
        """Names the present start, durably before a number of it is told."""
        context = self.context
        while len(self.starts) >= STARTS_LIMIT:
            context.remove(self.starts.pop(min(self.starts)))
        self.starts[context.start] = StartRow(context.start, context.incarnation, -1)
        context.put(self.starts[context.start])

    def forget_starts(self) -> None:
        """After a burning, which has taken a start number of its own: what was told before it needs no second one."""
        for row in self.starts.values():
            self.context.remove(row)
        self.starts.clear()
        self.record_start()

    # --- connections --------------------------------------------------------------------------------------------------

    def connected(self, event: PeerConnected) -> None:
        pair = self.context.pairs.get(event.peer)
        if pair is None or not pair.direct:
            raise PeerError(f"{event.peer} is not a neighbour of {self.context.node}")
        if self._rests(pair):
            # Closed before anything is said: the other end would spend a key on our HELLO.
            self.context.out.send.append(Close(pair.peer, event.connection, "openings failed: the next one waits"))
            return
        self.begin(pair, event.connection)

    def _rests(self, pair: Pair, tunnelled: bool = False) -> bool:
        """Whether openings failed and the next one waits. By way of others they have a reserve of their own."""
        return not tunnelled and self.context.now < pair.openings_at

    def begin(self, pair: Pair, connection_id: int, *, tunnelled: bool = False) -> Connection | None:
        """Starts an opening: HELLO goes out."""
        context = self.context
        if len(pair.connections) >= CONNECTIONS_PER_PEER:
            oldest = next(c for c in pair.connections.values() if c is not pair.current)
            context.close(pair, oldest, "too many openings at once")
        hello = Hello(
            PROTOCOL_VERSION,
            PROTOCOL_VERSION,
            pair.link,
            context.start,
            context.incarnation,
            context.entropy(16),
            present_above(pair.own_opening),
            present_above(pair.own_tags),
        )
        connection = Connection(connection_id, context.now, hello, tunnelled=tunnelled)
        pair.connections[connection_id] = connection
        self._emit(pair, connection, FrameType.HELLO, 0, encode(hello), b"")
        context.at(context.now + KEEP_ALIVE_NS, LinkTick(pair.peer, connection_id))
        return connection

    def lost(self, event: PeerLost) -> None:
        pair = self.context.pairs.get(event.peer)
        connection = pair.connections.pop(event.connection, None) if pair else None
        if pair is None or connection is None:
            return
        self.context.ended(pair, connection)
        if pair.current is connection:
            self._down(pair)

    def _down(self, pair: Pair) -> None:
        pair.current = None
        pair.outbox.clear()
        self.context.notice("KH-1201", f"link to {pair.peer} is down", pair.peer)
        for call in self.on_lost:
            call(pair)

    def tick(self, event: LinkTick) -> None:
        context = self.context
        pair = context.pairs[event.peer]
        connection = pair.connections.get(event.connection)
        if connection is None:
            return
        if context.now - connection.heard_at >= SILENCE_NS:
            self.drop(pair, connection, "the peer is silent")
            return
        if connection.phase is Phase.OPEN and context.now - connection.said_at >= KEEP_ALIVE_NS:
            self._emit(pair, connection, FrameType.PLAIN, 0, encode(Plain((KeepAlive(connection.sender.next),))), b"")
        context.at(context.now + KEEP_ALIVE_NS, event)

    def drop(self, pair: Pair, connection: Connection, reason: str) -> None:
        """Closes a connection and lets the parts know if it was the one in use."""
        current = pair.current is connection
        self.context.close(pair, connection, reason)
        if current:
            self._down(pair)

    # --- frames in ----------------------------------------------------------------------------------------------------

    def arrived(self, event: FrameArrived) -> None:
        pair = self.context.pairs.get(event.peer)
        connection = pair.connections.get(event.connection) if pair else None
        if pair is None or connection is None:
            return
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
                self._hello(pair, connection, body)
            case Grant():
                self._grant(pair, connection, body)
            case Proof():
                self._proof(pair, connection, body, frame)
            case State():
                self._state(pair, connection, body, frame)
            case Plain():
                if connection.phase < Phase.PROVED:
                    raise PeerError("a plain frame came before the PROOF")
                for message in body.messages:
                    if type(message) is KeepAlive:
                        self._kept_alive(pair, connection, message)
                        continue
                    if connection.tunnelled:
                        raise PeerError(f"{type(message).__name__} inside the frames of a distant pair")
                    self.plain_handlers[type(message)](pair.peer, message)

    def _kept_alive(self, pair: Pair, connection: Connection, message: KeepAlive) -> None:
        """Frames of a distant pair can be lost on their way: what waits for an answer to one would wait for ever."""
        receiver = connection.receiver
        if message.next is None or receiver is None or connection.phase is not Phase.OPEN:
            return
        if receiver.credit.next != message.next and pair.connections.get(connection.id) is connection:
            self.drop(pair, connection, f"a frame before tag position {message.next} was lost on its way")

    def _hello(self, pair: Pair, connection: Connection, hello: Hello) -> None:
        context = self.context
        if connection.phase is not Phase.HELLO or connection.peer_hello is not None:
            raise PeerError("a second HELLO")
        if not hello.version_low <= PROTOCOL_VERSION <= hello.version_high:
            raise PeerError(
                f"protocol versions {hello.version_low} to {hello.version_high}: {PROTOCOL_VERSION} is spoken"
            )
        if hello.link != pair.link:
            raise PeerError("the link number differs: the two ends were given different first-contact files")
        if len(hello.nonce) != 16 or len(hello.incarnation) != 8:
            raise PeerError("HELLO: nonce must have 16 bytes, incarnation 8")
        if self._rests(pair, connection.tunnelled):
            self.drop(pair, connection, "openings failed: the next one waits")
            return
        connection.peer_hello = hello
        run = pair.their_opening
        reserve = OPENING_RESERVE_BYTES if connection.tunnelled and pair.direct else 0
        if run.fresh(0, 1 << 40).total() <= reserve:
            raise PeerError("what is left of the opening run is for the link itself")
        for start, end in agreed(hello.opening, run):
            if end - start >= TAG_KEY_BYTES:
                break
        else:
            context.notice(
                "KH-1302", f"no opening key is left with {pair.peer}: a new first-contact file is needed", pair.peer
            )
            raise PeerError("no position of the peer's opening run is left")
        # Nobody has proved anything: a claim far up takes out this position, and moves no mark.
        run.take_out(start, start + TAG_KEY_BYTES)
        connection.own_grant = Grant(start)
        context.put(run.row())
        connection.phase = Phase.GRANTED
        self._emit(pair, connection, FrameType.GRANT, 0, encode(connection.own_grant), b"")
        self._prove(pair, connection)

    def _grant(self, pair: Pair, connection: Connection, grant: Grant) -> None:
        if connection.peer_hello is None or connection.peer_grant is not None:
            raise PeerError("a GRANT before the HELLO, or a second one")
        if connection.peer_hello.start < connection.least_start:
            # Its later incarnation was told what we had used by then, and could grant the same again.
            raise PeerError(f"GRANT by start {connection.peer_hello.start}: {connection.least_start} has come since")
        run, end = pair.own_opening, grant.position + TAG_KEY_BYTES
        if not run.fresh(grant.position, end).covers(grant.position, end):
            raise PeerError(f"GRANT of position {grant.position}: below the own mark {run.mark}, or used, or not here")
        connection.peer_grant = grant
        self._prove(pair, connection)

    def _transcript(self, pair: Pair, connection: Connection) -> bytes:
        """HELLO and GRANT of the lower-named end, then of the other, as they went over the wire."""
        parts = connection.said + connection.heard if pair.leads else connection.heard + connection.said
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    def _prove(self, pair: Pair, connection: Connection) -> None:
        context, hello = self.context, connection.peer_hello
        if hello is None or connection.peer_grant is None:
            return
        run, position = pair.own_opening, connection.peer_grant.position
        # What the grant jumped over is burnt only after the peer's PROOF.
        run.take_out(position, position + TAG_KEY_BYTES)
        for other in pair.connections.values():
            other.least_start = max(other.least_start, hello.start)
        tags = pair.their_tags
        receiver = Receiver(agreed(hello.tags, tags))
        credit, tags.mark = receiver.top_up(tags.mark)
        if receiver.credit.left < FIRST_CREDIT_SLOTS:
            context.notice(
                "KH-1303", f"no tag key is left with {pair.peer}: a new first-contact file is needed", pair.peer
            )
            raise PeerError("no position of the peer's tag run is left")
        connection.receiver = receiver
        # Durable before use: the saves of this step come before its frames.
        context.put(run.row(), tags.row())
        # Numbers of relay batches are each sender's own: comparing them would mix two counts.
        intake = tuple(
            (module, *marks)
            for (peer, module), marks in sorted(context.intake_marks.items())
            if peer == pair.peer and module != RELAY
        )
        proof = Proof(
            context.epoch,
            context.epoch_incarnation,
            context.journal + 1,
            self.vouch(context.start, context.journal + 1),
            pair.peer_start,
            pair.peer_journal,
            pair.peer_vouch,
            tuple(run.state() for run in pair.runs.values()),
            intake,
            tuple(pair.secrets[pair.peer]),
            credit,
        )
        payload = encode(proof)
        key = Range(run.id, position, TAG_KEY_BYTES)
        tag = context.vault.tag(key, self._transcript(pair, connection) + signed(FrameType.PROOF, position, payload))
        self._spent(run, position)
        connection.proof_sent = True
        self._emit(pair, connection, FrameType.PROOF, position, payload, tag)

    def _proof(self, pair: Pair, connection: Connection, proof: Proof, frame: Frame) -> None:
        context = self.context
        granted = connection.own_grant
        if connection.phase is not Phase.GRANTED or granted is None or not connection.proof_sent:
            raise PeerError("a PROOF before its time")
        if frame.position != granted.position:
            raise PeerError(f"PROOF at position {frame.position}: {granted.position} was granted")
        run = pair.their_opening
        if not run.present.covers(frame.position, frame.position + TAG_KEY_BYTES):
            raise PeerError(f"PROOF at position {frame.position}: burnt by a newer opening")
        key = Range(run.id, frame.position, TAG_KEY_BYTES)
        message = self._transcript(pair, connection) + signed(FrameType.PROOF, frame.position, frame.payload)
        genuine = context.vault.verify(key, message, frame.tag)
        self._spent(run, frame.position)
        if not genuine:
            raise PeerError("the PROOF's tag is wrong")
        hello = connection.peer_hello
        assert hello is not None
        rival = pair.current
        if rival is not None and rival.peer_hello is not None and rival.peer_hello.start > hello.start:
            raise PeerError(f"an incarnation with start number {rival.peer_hello.start} has proved itself already")
        if not self._check_restored(pair, proof):
            return
        # Check everything, then change state.
        self._check_runs(pair, proof.runs)
        openings = {run.id.number: merged_opening(run, proof.runs) for run in (pair.own_opening, pair.their_opening)}
        tags = pair.own_tags
        mark = check_credit(proof.credit, tags.mark, tags.present)
        if sum(slots(length) for _, length in proof.credit) < FIRST_CREDIT_SLOTS:
            raise PeerError(f"a PROOF with a credit of fewer than {FIRST_CREDIT_SLOTS} keys")
        for other in list(pair.connections.values()):
            if other is not connection and other.phase >= Phase.PROVED:
                self.drop(pair, other, "a newer connection has proved itself")
        for start, length in proof.credit:
            connection.sender.add(start, length)
        # Positions of earlier connections are void, and what the jump to the new ones skips is burnt now.
        assert connection.receiver is not None
        self._burn(tags, 0, proof.credit[0][0])
        self._burn(pair.their_tags, 0, connection.receiver.credit.next or 0)
        assert connection.peer_grant is not None
        for opened, position in (
            (pair.own_opening, connection.peer_grant.position),
            (pair.their_opening, granted.position),
        ):
            opened.gone = openings[opened.id.number]
            opened.raise_mark(position + TAG_KEY_BYTES)
        tags.mark = mark
        context.put(tags.row())
        self._merge_runs(pair, proof)
        # Its numbers are kept from its first further frame on: only then has it seen what we return.
        pair.peer_epoch, pair.peer_epoch_incarnation = proof.epoch, proof.epoch_incarnation
        context.put(pair.row())
        connection.phase = Phase.PROVED
        pair.current = connection
        pair.compared = True
        pair.outbox.clear()
        pair.failures = pair.openings_failed = pair.openings_at = 0
        for call in self.on_compared:
            call(pair, proof)
        # The first further frame says that we have merged and written.
        self._state_frame(pair, connection, force=True)

    def _check_restored(self, pair: Pair, proof: Proof) -> bool:
        """Whether this node is what it was when the neighbour last heard of it; if not, everything opens anew."""
        context = self.context
        start, journal, incarnation = proof.told_start, proof.told_journal, proof.told_vouch[:8]
        if not proof.told_vouch:
            return True
        genuine = context.vault.vouch(encode_numbers(start, journal) + incarnation)[:8]
        if not compare_digest(genuine, proof.told_vouch[8:]):
            # An invented number; closing for it would let a neighbour with a damaged store keep the link down.
            context.count("unvouched_numbers")
            return True
        if start < min(self.starts):
            return True
        # Behind is judged by what the store held when that start ended: since then this one has counted on.
        known = self.starts.get(start)
        ended = -1 if known is None or known.incarnation != incarnation else known.ended
        if known is not None and start == context.start and incarnation == context.incarnation:
            ended = context.journal
        if journal <= ended:
            return True
        reason = f"{pair.peer} heard of start {start}, journal {journal}; of that start this store knows {ended}"
        self.found_restored(reason, max(start, context.start))
        return False

    # --- comparing what both ends know --------------------------------------------------------------------------------

    def _check_runs(self, pair: Pair, states: tuple[RunState, ...]) -> None:
        if sorted(state.run for state in states) != sorted(pair.runs):
            raise PeerError(f"PROOF names runs {[s.run for s in states]}: {sorted(pair.runs)} exist")
        for state in states:
            last = state.floor
            if last > state.append:
                raise PeerError(f"PROOF: floor {last} of run {state.run}, which ends at {state.append}")
            for start, length in state.touched:
                if start < last or start + length > state.append:
                    raise PeerError(f"PROOF: touched span {start}+{length} of run {state.run} is out of order")
                last = start + length

    def _merge_runs(self, pair: Pair, proof: Proof) -> None:
        context = self.context
        for state in proof.runs:
            run = pair.runs[state.run]
            touched = Extents((start, start + length) for start, length in state.touched)
            if run.kind is RunKind.KEY:
                self._merge_key_run(pair, run, state, touched)
            else:
                for start, end in list(touched):
                    self._burn(run, start, end)
                self._burn(run, max(state.append, state.floor), 1 << 40)
                if run.kind is RunKind.OPENING:
                    run.raise_mark(state.floor)
                    self._burn(run, 0, run.mark)
            if state.append > run.append:
                # Positions that one end lacks are burnt, never refilled.
                run.append = state.append
            context.put(run.row())
            context.book(run)
        known = (pair.peer_epoch, pair.peer_epoch_incarnation)
        if pair.peer_epoch and (proof.epoch, proof.epoch_incarnation) != known:
            self.burn_leases(pair, f"{pair.peer} began epoch {proof.epoch}")

    def _merge_key_run(self, pair: Pair, run: Run, state: RunState, touched: Extents) -> None:
        if run.owned:
            # What the follower destroyed below its floor serves nobody: an owner with a lower floor was restored.
            touched.add(0, state.floor)
        for segment in list(run.segments.values()):
            known = segment.end <= state.append
            if segment.mark == UNTOUCHED and (not known or touched.touches(segment.start, segment.end)):
                self.burn_segment(run, segment.start)
                continue
            leased_there = known and segment.start >= state.floor and touched.covers(segment.start, segment.end)
            if segment.mark in (Purpose.SUPPLY, Purpose.PAD) and run.owned and not leased_there:
                # A lease that the follower does not know of cannot be fetched from: the follower was restored.
                self.take_back(pair, segment.start, segment.end)
                self.burn_segment(run, segment.start)

    def burn_segment(self, run: Run, start: int) -> None:
        """The segment's bytes are never used again; what was not used yet is lost."""
        context, segment = self.context, run.segments[start]
        left = segment.length - sum(b - a for a, b in run.used.within(segment.start, segment.end))
        before = {
            UNTOUCHED: RangeState.STORED,
            Purpose.SUPPLY: RangeState.RESERVED_APP,
            Purpose.PAD: RangeState.RESERVED_INTERNAL,
        }[segment.mark]
        if segment.mark == UNTOUCHED or not run.owned:
            # An owner's lease: what of it was spent is booked where it was spent, the rest by whoever takes it back.
            run.book.move(before, Action.BURN, left)
        run.set_mark(segment, GONE)
        segment.spent_at = context.now
        context.put(run.segment_row(segment))
        if segment.stored:
            segment.stored = False
            context.save(Drop(run.range(segment)))
        context.out.wipe.append(run.range(segment))
        context.book(run)

    def take_back(self, pair: Pair, start: int, end: int) -> None:
        """Takes what is unspent of a lease out of the Desk and the pads; it is lost."""
        lost = 0
        kept: list[tuple[int, int]] = []
        for low, high in pair.stock.clear():
            cut_low, cut_high = max(low, start), min(high, end)
            if cut_low >= cut_high:
                kept.append((low, high))
                continue
            lost += cut_high - cut_low
            kept += [(a, b) for a, b in ((low, cut_low), (cut_high, high)) if a < b]
        for low, high in kept:
            pair.stock.add(low, high)
        for low, high in list(pair.pads.within(start, end)):
            lost += high - low
            pair.pads.remove(low, high)
        if lost:
            pair.own_key.book.move(RangeState.RESERVED_APP, Action.BURN, lost)

    def burn_leases(self, pair: Pair, reason: str) -> None:
        """Everything leased with this peer, in both directions, is burnt: a restore at either end."""
        self.take_back(pair, 0, 1 << 40)
        for run in (pair.own_key, pair.their_key):
            for start, segment in list(run.segments.items()):
                if segment.mark in (Purpose.SUPPLY, Purpose.PAD):
                    self.burn_segment(run, start)
        self.context.notice("KH-5201", f"leases with {pair.peer} are burnt: {reason}", pair.peer)

    # --- authentication runs ------------------------------------------------------------------------------------------

    def _spent(self, run: Run, position: int) -> None:
        """One key is used up at this end."""
        self._consume(run, position, position + TAG_KEY_BYTES, Action.AUTHENTICATE)

    def _burn(self, run: Run, start: int, end: int) -> None:
        self._consume(run, start, end, Action.BURN)

    def _consume(self, run: Run, start: int, end: int, action: Action) -> None:
        for low, high in list(run.present.within(start, end)):
            run.present.remove(low, high)
            run.book.move(RangeState.STORED, action, high - low)
            self.context.out.wipe.append(Range(run.id, low, high - low))
        for block, length in list(run.blocks.items()):
            if block < end and not run.present.touches(block, block + length):
                del run.blocks[block]
                self.context.save(Drop(Range(run.id, block, length)))
                self.context.book(run)

    # --- tagged frames ------------------------------------------------------------------------------------------------

    def vouch(self, start: int, journal: int) -> bytes:
        """Names the incarnation, too: an old copy of store and anchor may count up to the same numbers again."""
        incarnation = self.context.incarnation
        return incarnation + self.context.vault.vouch(encode_numbers(start, journal) + incarnation)[:8]

    def _state(self, pair: Pair, connection: Connection, state: State, frame: Frame) -> None:
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
        self._spent(run, frame.position)
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
        self._spent(pair.runs[key.run.number], key.start)

    def flush(self) -> None:
        """Makes frames of all that waits; called once at the end of a step."""
        context = self.context
        for pair in context.pairs.values():
            connection = pair.current
            if connection is None:
                continue
            receiver = connection.receiver
            while pair.outbox and connection.sender.left > 0:
                if not self._state_frame(pair, connection):
                    break
            if pair.heard and context.out.save:
                pair.heard = False
                context.put(pair.row())
            if receiver is not None and receiver.starved and connection.sender.left and pair.current is connection:
                self._state_frame(pair, connection, force=True, only_with_credit=True)
        for peer, messages in context.plain_outbox.items():
            neighbour = context.pairs.get(peer)
            current = neighbour.current if neighbour else None
            if neighbour is not None and current is not None and not current.tunnelled:
                for some in fitting(messages):
                    self._emit(neighbour, current, FrameType.PLAIN, 0, encode(Plain(some)), b"")
        context.plain_outbox.clear()

    def _state_frame(
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
        if receiver.credit.left < 1 or (sender.left == 1 and not credit and not force):
            # The other end must always have a key to answer with, and our last one must carry a credit.
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
                self._spent(own, key.start)
            pair.outbox.popleft()
            messages.append(waiting)
            size += len(encode(waiting))
        journal = context.journal + (1 if context.out.save else 0)
        payload = encode(State(journal, self.vouch(context.start, journal), credit, tuple(messages)))
        key = Range(own.id, position, TAG_KEY_BYTES)
        tag = context.vault.tag(key, signed(FrameType.STATE, position, payload))
        self._spent(own, position)
        self._emit(pair, connection, FrameType.STATE, position, payload, tag)
        return True

    def _emit(
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


def encode_numbers(start: int, journal: int) -> bytes:
    return start.to_bytes(8, "big") + journal.to_bytes(8, "big")
