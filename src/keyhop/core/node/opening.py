"""How a connection opens: HELLO, GRANT and PROOF, each checked and durable before the next step."""

from __future__ import annotations

from collections.abc import Callable

from keyhop.core.machine import Frame
from keyhop.core.messages import PROTOCOL_VERSION, FrameType, Grant, Hello, Proof, Span, encode, signed
from keyhop.core.model import TAG_KEY_BYTES, PeerError, Range
from keyhop.core.node.burning import Burning
from keyhop.core.node.context import Context
from keyhop.core.node.extents import Extents
from keyhop.core.node.frames import Frames
from keyhop.core.node.merging import Merging, merged_opening
from keyhop.core.node.pair import Connection, Pair, Phase
from keyhop.core.node.run import Run
from keyhop.core.node.starts import Starts
from keyhop.core.node.tags import DISTANT_WINDOW_LOW, WINDOW_LOW, Receiver, check_credit, slots
from keyhop.core.node.vault import RELAY

OPENING_RESERVE_BYTES = 2048
"""Openings of a link by way of other nodes stop here: whoever stands on that way can make them fail at no cost."""
FIRST_CREDIT_SLOTS = 2
"""A first frame must be able to leave, and one that carries a credit after it."""


def present_above(run: Run) -> tuple[Span, ...]:
    return tuple((start, end - start) for start, end in run.fresh(0, 1 << 40))


def agreed(spans: tuple[Span, ...], run: Run) -> Extents:
    """What the peer claims of its own authentication run, as far as we have it too and never granted it."""
    common = Extents()
    for start, length in spans:
        for low, high in run.fresh(start, start + length):
            common.add(low, high)
    return common


class Opening:
    def __init__(self, context: Context, burning: Burning, starts: Starts, frames: Frames) -> None:
        self.context = context
        self.burning = burning
        self.starts = starts
        self.frames = frames
        self.merging = Merging(context, burning)
        self.on_compared: list[Callable[[Pair, Proof], None]] = []
        """Called when the peer's PROOF has been merged, before anything further is said."""
        self.drop: Callable[[Pair, Connection, str], None] = lambda pair, connection, reason: None
        """Set by the link: closes a connection."""

    def rests(self, pair: Pair, tunnelled: bool = False) -> bool:
        """Whether openings failed and the next one waits. By way of others they have a reserve of their own."""
        return not tunnelled and self.context.now < pair.openings_at

    def begin(self, pair: Pair, connection_id: int, *, tunnelled: bool = False) -> None:
        """HELLO goes out."""
        context = self.context
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
        self.frames.emit(pair, connection, FrameType.HELLO, 0, encode(hello), b"")

    def hello(self, pair: Pair, connection: Connection, hello: Hello) -> None:
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
        if self.rests(pair, connection.tunnelled):
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
            self._none_left(pair, "KH-1302", "opening")
            raise PeerError("no position of the peer's opening run is left")
        # Looked at here too, before a key of the opening run is taken out on either side.
        self._agreed_tags(pair, hello)
        # Nobody has proved anything: a claim far up takes out this position, and moves no mark.
        run.take_out(start, start + TAG_KEY_BYTES)
        connection.own_grant = Grant(start)
        context.put(run.row())
        connection.phase = Phase.GRANTED
        self.frames.emit(pair, connection, FrameType.GRANT, 0, encode(connection.own_grant), b"")
        self._prove(pair, connection)

    def _agreed_tags(self, pair: Pair, hello: Hello) -> Extents:
        """What of the peer's tag run can be granted to it."""
        run = pair.their_tags
        common = agreed(hello.tags, run)
        if sum(slots(end - start) for start, end in common.within(run.mark, 1 << 40)) < FIRST_CREDIT_SLOTS:
            self._none_left(pair, "KH-1303", "tag")
            raise PeerError("no position of the peer's tag run is left")
        return common

    def _none_left(self, pair: Pair, code: str, kind: str) -> None:
        """Only on a link: a distant pair is sent more by relay."""
        if pair.direct:
            text = f"no {kind} key is left with {pair.peer}: a new first-contact file is needed"
            self.context.notice(code, text, pair.peer)

    def grant(self, pair: Pair, connection: Connection, grant: Grant) -> None:
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
        window = WINDOW_LOW if pair.direct else DISTANT_WINDOW_LOW
        receiver = Receiver(self._agreed_tags(pair, hello), window)
        credit, tags.mark = receiver.top_up(tags.mark)
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
            self.starts.vouch(context.start, context.journal + 1),
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
        self.burning.spent(run, position)
        connection.proof_sent = True
        self.frames.emit(pair, connection, FrameType.PROOF, position, payload, tag)

    def proof(self, pair: Pair, connection: Connection, proof: Proof, frame: Frame) -> None:
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
        self.burning.spent(run, frame.position)
        if not genuine:
            raise PeerError("the PROOF's tag is wrong")
        hello = connection.peer_hello
        assert hello is not None
        rival = pair.current
        if rival is not None and rival.peer_hello is not None and rival.peer_hello.start > hello.start:
            raise PeerError(f"an incarnation with start number {rival.peer_hello.start} has proved itself already")
        if not self.starts.check(pair, proof):
            return
        # Check everything, then change state.
        self.merging.check(pair, proof.runs)
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
        self._burn_skipped(pair, connection, proof, openings)
        tags.mark = mark
        context.put(tags.row())
        self.merging.merge(pair, proof)
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
        self.frames.state_frame(pair, connection, force=True)

    def _burn_skipped(self, pair: Pair, connection: Connection, proof: Proof, openings: dict[int, Extents]) -> None:
        """Positions of earlier connections are void, and what the jump to the new ones skips is burnt now."""
        assert connection.receiver is not None
        assert connection.own_grant is not None
        self.burning.burn(pair.own_tags, 0, proof.credit[0][0])
        self.burning.burn(pair.their_tags, 0, connection.receiver.credit.next or 0)
        assert connection.peer_grant is not None
        for run, grant in ((pair.own_opening, connection.peer_grant), (pair.their_opening, connection.own_grant)):
            run.gone = openings[run.id.number]
            run.raise_mark(grant.position + TAG_KEY_BYTES)
