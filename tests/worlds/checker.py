"""What must hold in a pretend world, looked at over both ends at once after every step: invariants I1 to I7 and I14."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keyhop.core.machine import Frame, Put, Seal
from keyhop.core.messages import (
    AgreeBlock,
    Forward,
    FrameType,
    NameSecret,
    Plain,
    Proof,
    RelayBatch,
    State,
    decode,
)
from keyhop.core.model import TAG_KEY_BYTES, NodeId, Range, Refusal, RunId, RunKind, run_number
from keyhop.core.node.events import LeaseCommitted
from keyhop.core.node.extents import Extents
from keyhop.core.node.pair import Pair, Phase
from keyhop.core.node.rows import NodeRow, secret_name
from keyhop.core.node.run import GONE, UNTOUCHED, Run
from keyhop.core.node.store import Store
from keyhop.core.node.vault import BlockName
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import Image, PretendDisk
from keyhop.simulator.world import Answered, Process, World

WINDOW_BYTES = 8
"""Bits are compared by pieces of the shortest key there is; by chance two are alike once in 2^64."""
ALARMS_PER_RESTORE = 3
"""A restored node may find itself out again at its next openings, until every neighbour has heard its new numbers."""


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class Wanted(NamedTuple):
    """An enc_keys under way."""

    node: str
    master: str
    slave: str
    number: int
    length: int


class Fetch(NamedTuple):
    """A dec_keys under way."""

    node: str
    peer: str
    keys: tuple[tuple[int, int, int], ...]
    """(run, start, length)."""


class LocalFetch(NamedTuple):
    node: str
    ids: tuple[str, ...]


class Issued:
    """A key that a master application was given."""

    def __init__(self, owner: str, follower: str, range: Range, bits: bytes, expires: int, epoch: int) -> None:
        self.owner = owner
        self.follower = follower
        self.run = range.run.number
        self.start = range.start
        self.length = range.length
        self.bits = bits
        self.expires = expires
        """On the owner's clock: until then it must be there for its slave."""
        self.epoch = epoch
        """Of the secret that seals its ID."""
        self.excused = ""
        """Why it need not be there: one of the ends was restored."""
        self.fetched_at: list[int] = []

    def __repr__(self) -> str:
        return f"key {self.owner}>{self.follower} {self.start}+{self.length}"


class Restored(NamedTuple):
    """A node that goes on from an old copy."""

    copied_at: int
    died_at: int
    start: int
    journal: int
    """What the copy says of itself."""
    told: set[bytes]
    """Authenticators of the numbers that it told since."""


class WatchingDisk(PretendDisk):
    """Shows the checker what is sealed where."""

    def __init__(self, sealed: Callable[[Range, bytes], None]) -> None:
        super().__init__()
        self._sealed = sealed

    def commit(self, saves: Any, bits: Callable[[Range], Any]) -> None:
        for save in saves:
            if type(save) is Seal:
                self._sealed(save.block, bytes(bits(save.block)))
        super().commit(saves, bits)


class WatchingVault(NodeVault):
    """Remembers the bits of every key that made a tag: they may be wiped when the frame leaves."""

    def __init__(self, store: Store, vouch_key: bytes) -> None:
        super().__init__(store, vouch_key)
        self.masked: dict[Range, bytes] = {}

    def tag(self, key: Range, message: bytes) -> bytes:
        self.masked[key] = self.read(key)
        return super().tag(key, message)

    def fingerprint(self, blocks: tuple[BlockName, ...], key: Range, context: bytes) -> bytes:
        self.masked[key] = self.read(key)
        return super().fingerprint(blocks, key, context)

    def keep_secret(self, name: str, source: Range) -> None:
        self.masked[source] = self.read(source)
        super().keep_secret(name, source)


class Checker:
    """Watches one world. Every callback raises Violation where an invariant is broken."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: dict[int, Wanted | Fetch | LocalFetch] = {}
        self.issued: dict[tuple[str, str, int], Issued] = {}
        """By owner, follower and start."""
        self.local: dict[str, tuple[bytes, list[int]]] = {}
        """Keys of two applications at one node, by ID: their bits, and when they were fetched."""
        self.delivered = 0
        self.fetched = 0
        self.refused: dict[str, int] = {}
        self.restores: dict[str, list[Restored]] = {}
        self.noticed: dict[str, int] = {}
        """Node -> how many of its restores it knows of."""
        self.alarms: dict[str, int] = {}
        self._windows: dict[bytes, str] = {}
        self._spans: dict[tuple[str, str], Extents] = {}
        """Bytes of a key run that left as key or pad, by owner and follower."""
        self._pads: dict[tuple[str, str, int], tuple[Any, ...]] = {}
        self._tags: dict[tuple[str, str, int, int], tuple[bytes, bytes]] = {}
        self._tag_bits: dict[bytes, tuple[str, str, int, int]] = {}
        self.forged: set[tuple[str, str, int]] = set()
        """Opening keys (owner, follower, position) that somebody inside a connection granted in the follower's place.

        An owner that is restored, too, may prove itself twice under one: a limit that `docs/security.md` states.
        """
        self._proofs: dict[tuple[str, str, int], Proof] = {}
        self._sealed: dict[tuple[str, str, int, int], bytes] = {}
        self._places: dict[tuple[str, str, bytes], tuple[int, int]] = {}
        """Where the bits that begin so were sealed first, by pair."""
        self._marks: dict[tuple[str, int, str, int], tuple[int, int, int]] = {}
        self._hands: dict[tuple[str, int, str], tuple[int, int, int]] = {}
        self._read_notices: dict[str, int] = {}
        self._judged: dict[tuple[str, str], int] = {}
        self._unmet: set[tuple[str, str]] = set()
        """(restored node, peer) that have not met since."""
        self._stale: dict[tuple[str, str], set[int]] = {}
        """(node, peer) -> connections of before the last restore of either: while one is in use, keys are excused."""
        world.on_answer.append(self.answered)
        world.on_frame.append(self.framed)
        world.on_step.append(self.stepped)
        world.on_crash.append(self.crashed)
        for name, process in world.processes.items():
            process.disk = WatchingDisk(lambda block, bits, name=name: self.sealed(name, block, bits))  # type: ignore[misc]

    # --- what applications get: I1 to I4 ---------------------------------------------------------------------------

    def answered(self, answer: Answered) -> None:
        asked = self.asked.pop(answer.request, None)
        if asked is None:
            raise Violation("I1", f"request {answer.request} at {answer.node} is answered twice, or was never made")
        refusal = answer.deliver.refusal
        if refusal is not None:
            self.refused[refusal.reason] = self.refused.get(refusal.reason, 0) + 1
        match asked:
            case Wanted():
                if refusal is None:
                    self._given(asked, answer)
            case Fetch():
                if refusal is None:
                    self._handed_out(asked, answer)
                elif refusal.reason is Refusal.NOT_FOUND:
                    self._not_found(asked)
                elif refusal.reason is not Refusal.UNAVAILABLE:
                    raise Violation("I3", f"dec_keys at {asked.node} is refused with {refusal.reason}")
            case LocalFetch():
                if refusal is None:
                    self._handed_out_locally(asked, answer)

    def _given(self, asked: Wanted, answer: Answered) -> None:
        process = self.world.processes[NodeId(asked.node)]
        if len(answer.bits) != asked.number or any(len(bits) != asked.length for bits in answer.bits):
            raise Violation("I1", f"enc_keys at {asked.node}: {len(answer.bits)} keys for {asked.number} asked")
        if answer.deliver.ids:
            for id, bits in zip(answer.deliver.ids, answer.bits, strict=True):
                if id in self.local:
                    raise Violation("I1", f"key ID {id} is given twice")
                self.local[id] = (bits, [])
                self._once(bits, f"local key {id}")
                self.delivered += 1
            return
        for range, bits in zip(answer.deliver.ranges, answer.bits, strict=True):
            follower = range.run.peer
            epoch = process.node.secrets.confirmed.get(follower, 0)
            key = Issued(asked.node, follower, range, bits, process.clock + process.settings.fetch_lifetime_ns, epoch)
            if range.run.number != run_number(RunKind.KEY, NodeId(asked.node), follower):
                raise Violation("I1", f"{key} is dealt from run {range.run.number}, which {asked.node} does not own")
            self._leaves(asked.node, follower, range.start, range.end, repr(key))
            self._once(bits, repr(key))
            if not epoch:
                # No secret seals its ID: the edge refuses, and the key is lost unseen.
                continue
            if (asked.node, follower) in self._stale:
                key.excused = "an end was restored and the two have not met since"
            self.issued[asked.node, follower, range.start] = key
            self.delivered += 1

    def _leaves(self, owner: str, follower: str, start: int, end: int, what: str) -> None:
        """I1, I4, I5 by position: no byte leaves as two keys, as key and pad, or as two pads."""
        spans = self._spans.setdefault((owner, follower), Extents())
        if spans.touches(start, end):
            raise Violation("I4", f"{what}: a byte of it left {owner} before, as key or pad")
        spans.add(start, end)

    def _once(self, bits: bytes, what: str) -> None:
        """The same by bits, wherever they come from."""
        windows = self._windows
        for at in range(len(bits) - WINDOW_BYTES + 1):
            found = windows.get(bits[at : at + WINDOW_BYTES])
            if found is not None:
                raise Violation("I1", f"bits of {what} at byte {at} were used before: {found}")
        for at in range(0, len(bits) - WINDOW_BYTES + 1):
            windows[bits[at : at + WINDOW_BYTES]] = what

    def _handed_out(self, asked: Fetch, answer: Answered) -> None:
        for (run, start, length), bits in zip(asked.keys, answer.bits, strict=True):
            key = self.issued.get((asked.peer, asked.node, start))
            if key is None or key.run != run or key.length != length:
                raise Violation("I3", f"{asked.node} hands out {start}+{length} of run {run}: no such key was given")
            if key.bits != bits:
                raise Violation("I2", f"{key}: the two ends hold different bits")
            if key.fetched_at and not self._unseen(key.follower, key.fetched_at[-1]):
                raise Violation("I1", f"{key} is handed out twice at the far end")
            key.fetched_at.append(self.world.now)
            self.fetched += 1

    def _unseen(self, node: str, fetched_at: int) -> bool:
        """Whether a restore that nobody could see took back what the node knew of a fetch (the exception of I1)."""
        return any(
            restored.copied_at <= fetched_at <= restored.died_at
            for restored in self.restores.get(node, [])[self.noticed.get(node, 0) :]
        )

    def _not_found(self, asked: Fetch) -> None:
        keys = [self.issued.get((asked.peer, asked.node, start)) for _, start, _ in asked.keys]
        if len(set(asked.keys)) != len(keys):
            return
        for (run, _, length), key in zip(asked.keys, keys, strict=True):
            if key is None or key.run != run or key.length != length or key.fetched_at or not self.is_due(key):
                return
        raise Violation("I3", f"{keys} cannot be fetched at {asked.node}: not found")

    def is_due(self, key: Issued) -> bool:
        """Whether it must be there for its slave."""
        owner = self.world.processes[NodeId(key.owner)]
        return not key.excused and not key.fetched_at and owner.clock < key.expires

    def opens(self, key: Issued) -> bool:
        """Whether the far end can open the key's ID: it holds the secret that seals it, with the same bits."""
        process = self.world.processes[NodeId(key.follower)]
        bits = []
        for disk, peer in ((process.disk, key.owner), (self.world.processes[NodeId(key.owner)].disk, key.follower)):
            bits.append(disk.image.secrets.get(secret_name(peer, key.owner, key.epoch)))
        if bits[0] is not None and bits[1] is not None and bits[0] != bits[1]:
            raise Violation("I2", f"key-ID secret {key.epoch} of {key.owner} differs at {key.follower}")
        if bits[0] is None and self.is_due(key):
            raise Violation("I3", f"{key}: {key.follower} does not hold key-ID secret {key.epoch}")
        return bits[0] is not None

    def _handed_out_locally(self, asked: LocalFetch, answer: Answered) -> None:
        for id, bits in zip(asked.ids, answer.bits, strict=True):
            expected, fetched_at = self.local[id]
            if bits != expected:
                raise Violation("I2", f"local key {id}: other bits")
            if fetched_at and not self._unseen(asked.node, fetched_at[-1]):
                raise Violation("I1", f"local key {id} is handed out twice")
            fetched_at.append(self.world.now)

    def crashed(self, node: str) -> None:
        """Requests die with the process. A fetch in doubt counts as served: its keys need not be there again."""
        for request, asked in list(self.asked.items()):
            if asked.node == node:
                del self.asked[request]
                if isinstance(asked, Fetch):
                    for _, start, _ in asked.keys:
                        key = self.issued.get((asked.peer, node, start))
                        if key is not None:
                            key.excused = key.excused or "the answer to its fetch was lost in a crash"

    # --- what leaves in frames: I5, I6 -------------------------------------------------------------------------------

    def framed(self, sender: str, receiver: str, frame: Frame) -> None:
        if frame.type == FrameType.PLAIN:
            body = decode(frame.type, frame.payload)
            assert isinstance(body, Plain)
            for message in body.messages:
                if type(message) is Forward and message.source == sender:
                    self._tagged(sender, message.destination, message.kind, message.position, message)
        else:
            self._tagged(sender, receiver, frame.type, frame.position, frame)

    def _tagged(self, sender: str, receiver: str, kind: int, position: int, frame: Frame | Forward) -> None:
        if kind == FrameType.PROOF:
            proof = decode(kind, frame.payload)
            assert isinstance(proof, Proof)
            self._proofs[sender, receiver, position] = proof
            self._tells(sender, proof.vouch)
            self._masks(sender, receiver, RunKind.OPENING, position, frame.payload, frame.tag)
        elif kind == FrameType.STATE:
            state = decode(kind, frame.payload)
            assert isinstance(state, State)
            self._tells(sender, state.vouch)
            self._masks(sender, receiver, RunKind.TAG, position, frame.payload, frame.tag)
            for message in state.messages:
                if type(message) is AgreeBlock:
                    name = f"{message.module} {message.number}".encode()
                    self._masks(sender, receiver, RunKind.TAG, message.key_position, name, message.fingerprint)
                elif type(message) is NameSecret:
                    name = f"secret {message.epoch}".encode()
                    self._masks(sender, receiver, RunKind.TAG, message.key_position, name, b"")
                elif type(message) is RelayBatch:
                    self._batch(sender, receiver, message)

    def _tells(self, sender: str, vouch: bytes) -> None:
        restored = self.restores.get(sender)
        if restored:
            restored[-1].told.add(vouch)

    def _masks(self, sender: str, receiver: str, kind: RunKind, position: int, message: bytes, tag: bytes) -> None:
        """I6: by position and by bits, a one-time key masks one message."""
        name = (sender, receiver, int(kind), position)
        near = range(position - TAG_KEY_BYTES + 1, position + TAG_KEY_BYTES)
        forged = kind is RunKind.OPENING and any((sender, receiver, at) in self.forged for at in near)
        if forged and self.restores.get(sender):
            return
        if self._tags.setdefault(name, (message, tag)) != (message, tag):
            raise Violation("I6", f"tag key {position} of {sender} to {receiver} ({kind.name}) masks two messages")
        run = RunId(NodeId(receiver), run_number(kind, NodeId(sender), NodeId(receiver)))
        vault = self.world.processes[NodeId(sender)].vault
        assert isinstance(vault, WatchingVault)
        bits = vault.masked[Range(run, position, TAG_KEY_BYTES)]
        if self._tag_bits.setdefault(bits, name) != name:
            raise Violation("I6", f"the bits of tag key {name} were used at {self._tag_bits[bits]}")
        for at in range(0, TAG_KEY_BYTES, WINDOW_BYTES):
            found = self._windows.setdefault(bits[at : at + WINDOW_BYTES], f"tag key {name}")
            if found != f"tag key {name}":
                raise Violation("I6", f"bits of tag key {name} were used before: {found}")

    def _batch(self, sender: str, receiver: str, message: RelayBatch) -> None:
        """I5: a pad masks one message; a batch's first hop names the bytes that it carries."""
        content = (message.source, message.destination, message.number, message.pads, message.ciphertext)
        for start, length in message.pads:
            name = (sender, receiver, start)
            if self._pads.get(name) == content:
                continue
            self._pads[name] = content
            self._leaves(sender, receiver, start, start + length, f"pad {sender}>{receiver} {start}+{length}")

    # --- what is stored: I2, I14 -------------------------------------------------------------------------------------

    def sealed(self, node: str, block: Range, bits: bytes) -> None:
        """Whatever a position ever held, durably, at either end, is the same."""
        low, high = sorted((node, str(block.run.peer)))
        if low == high:
            return
        known = self._sealed.setdefault((low, high, block.run.number, block.start), bits)
        if known != bits:
            raise Violation("I2", f"run {block.run.number} of {low}-{high} holds two different blocks at {block.start}")
        place = (block.run.number, block.start)
        if len(bits) >= 16 and self._places.setdefault((low, high, bits[:16]), place) != place:
            raise Violation("I1", f"a block of {low}-{high} was taken in twice, the second time at {place}")

    def stepped(self, process: Process) -> None:
        self._read(process)
        name, life = process.name, process.life
        touched = {getattr(save.row, "peer", "") for save in process.under_way[-1].save if type(save) is Put}
        for pair in process.node.context.pairs.values():
            self._met(process, pair)
            hand = (pair.stock.left, pair.stock.taken, pair.pads.total())
            if pair.peer not in touched and self._hands.get((name, life, pair.peer)) == hand:
                # Nothing of this pair was written and nothing dealt.
                continue
            self._hands[name, life, pair.peer] = hand
            for number, run in pair.runs.items():
                key = (name, life, pair.peer, number)
                marks = (run.append, run.floor, run.mark)
                before = self._marks.get(key, marks)
                if any(now < then for now, then in zip(marks, before, strict=True)):
                    raise Violation("I7", f"marks of run {number} at {name} with {pair.peer} fell: {before} to {marks}")
                self._marks[key] = marks
                self._balance(process, pair, run)

    def _balance(self, process: Process, pair: Pair, run: Run) -> None:
        """I14: what the book calls stock is what is there."""
        where = f"run {run.id.number} at {process.name} with {pair.peer}"
        stock = run.book.stock
        if run.kind is not RunKind.KEY:
            if stock != run.present.total():
                raise Violation("I14", f"{where}: stock {stock}, present {run.present.total()}")
            return
        untouched = sum(s.length for s in run.segments.values() if s.mark == UNTOUCHED)
        if untouched != run.untouched:
            raise Violation("I14", f"{where}: {run.untouched} bytes counted as untouched, {untouched} are")
        if run.owned:
            hand = pair.stock
            # What was dealt since the last look is booked at the next.
            held = hand.left + hand.taken + hand.wasted + pair.pads.total() + self._pending(process, pair)
            held += sum(end - start for start, end in process.node.lifecycle.reserved(pair))
        else:
            held = 0
            for segment in run.segments.values():
                if segment.mark not in (UNTOUCHED, GONE):
                    held += segment.length
                    held -= sum(high - low for low, high in run.used.within(segment.start, segment.end))
        if stock != untouched + held:
            raise Violation("I14", f"{where}: stock {stock}, untouched {untouched} and leased {held}")

    @staticmethod
    def _pending(process: Process, pair: Pair) -> int:
        """Leases on their way through the commit that lets them be spent; what is burnt of them is booked after it."""
        total = 0
        for output in process.under_way:
            for event in output.after:
                if isinstance(event, LeaseCommitted) and event.peer == pair.peer:
                    total += sum(length for _, length in event.spans)
        return total

    # --- restores: I7 ------------------------------------------------------------------------------------------------

    def restored(self, node: str, copied_at: int, image: Image) -> None:
        """Told by the schedule when it puts an old copy back."""
        row = image.rows["NodeRow", ""]
        assert isinstance(row, NodeRow)
        self.restores.setdefault(node, []).append(Restored(copied_at, self.world.now, row.start, row.journal, set()))
        for name, process in self.world.processes.items():
            if ("PairRow", node) in process.disk.image.rows:
                self._unmet.add((node, name))
        self._excuse(node, "an end was restored")

    def _excuse(self, node: str, why: str) -> None:
        for key in self.issued.values():
            if node in (key.owner, key.follower) and not key.fetched_at:
                key.excused = key.excused or why
        for name, process in self.world.processes.items():
            for peer in self.world.processes:
                if name != peer and node in (name, peer):
                    known = process.node.context.pairs.get(peer) if process.alive else None
                    self._stale[name, peer] = set(known.connections) if known else set()

    def is_settled(self, node: str) -> bool:
        """Whether a restore of this node, too, leaves somebody who remembers: no peer of its is freshly restored."""
        return not any(peer == node for _, peer in self._unmet)

    def _met(self, process: Process, pair: Pair) -> None:
        connection = pair.current
        if connection is None or connection.phase < Phase.PROVED:
            return
        name, peer = process.name, str(pair.peer)
        stale = self._stale.get((name, peer))
        if stale is not None and connection.id not in stale and connection.phase is Phase.OPEN:
            del self._stale[name, peer]
            self._unmet.discard((peer, name))
        if self._judged.get((name, peer)) == connection.id:
            return
        self._judged[name, peer] = connection.id
        restores = self.restores.get(name, [])
        granted = connection.own_grant
        if len(restores) <= self.noticed.get(name, 0) or granted is None:
            return
        last, proof = restores[-1], self._proofs.get((peer, name, granted.position))
        if proof is None or not proof.told_vouch or proof.told_vouch in last.told:
            return
        told = proof.told_start, proof.told_journal
        if told > (last.start, last.journal):
            raise Violation(
                "I7", f"{name} goes on from a copy of {(last.start, last.journal)} although {peer} returns {told}"
            )

    def _read(self, process: Process) -> None:
        """Alarms: who finds itself restored must have been, and none burns its neighbours' keys without need."""
        name = process.name
        fresh = process.notices[self._read_notices.get(name, 0) :]
        self._read_notices[name] = len(process.notices)
        for notice in fresh:
            if notice.code == "KH-5101":
                restores = len(self.restores.get(name, ()))
                self.alarms[name] = self.alarms.get(name, 0) + 1
                if self.alarms[name] > restores * (ALARMS_PER_RESTORE + len(self.world.processes)):
                    raise Violation("I13", f"{name} was restored {restores} times, raises alarm {self.alarms[name]}")
                self.noticed[name] = restores
                self._excuse(name, "an end found itself restored")
            elif notice.code == "KH-5201" and not (self.restores.get(name) or self.restores.get(notice.peer)):
                raise Violation("I13", f"{name} burns its leases with {notice.peer}: neither was restored")
