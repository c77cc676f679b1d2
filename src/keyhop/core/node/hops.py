"""What each node of a path does for a batch: sets pads aside, hands it on and keeps nothing, or takes it in at last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from keyhop.core.designs import Running
from keyhop.core.machine import Used
from keyhop.core.messages import (
    PATH_LIMIT,
    AnswerReserve,
    Confirm,
    LabelPiece,
    Manifest,
    RelayBatch,
    Reserve,
    Span,
    decode_manifest,
    encode,
)
from keyhop.core.model import NANOSECONDS, TAG_KEY_BYTES, Action, NodeId, PeerError, Purpose, Range, State
from keyhop.core.node import provenance
from keyhop.core.node.context import Context
from keyhop.core.node.intake import Intake
from keyhop.core.node.ledger import Account
from keyhop.core.node.link import Links
from keyhop.core.node.pads import CONFIRMATION_BYTES, Holding, Pads, Way
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import UNTOUCHED
from keyhop.core.node.tunnel import Tunnel
from keyhop.core.node.vault import RELAY, BlockName

RESERVATION_NS = 2 * NANOSECONDS
BATCH_NS = 10 * NANOSECONDS
"""A batch without an answer after this is given up."""
RESERVATIONS_LIMIT = 256
RESERVATIONS_PER_NEIGHBOUR = 64
HANDED_ON_LIMIT = 4096
"""Batches whose confirmation is awaited; the oldest is forgotten for one more, and its source waits in vain."""
PAIRS_LIMIT = 4096
"""Key managers that this one shares key with, neighbours among them."""


class Reservation(msgspec.Struct):
    """At a relay node (pads of the next hop), or at the destination (none)."""

    path: tuple[str, ...]
    length: int
    pads: list[Span]
    expires: int


class HandedOn(msgspec.Struct, frozen=True):
    """At a relay node: of a batch that it has no copy of any more, until its confirmation comes back."""

    path: tuple[str, ...]
    following: str
    expires: int


def covered_by(number: int, manifest: Manifest) -> bytes:
    """What both confirmation tags cover beside the bits; the destination's covers the labels, too."""
    return encode(msgspec.structs.replace(manifest, fingerprint=number.to_bytes(8, "big")))


class Hops:
    def __init__(
        self, context: Context, links: Links, intake: Intake, tunnel: Tunnel, design: Running, pads: Pads
    ) -> None:
        self.context = context
        self.intake = intake
        self.tunnel = tunnel
        self.design = design
        self.pads = pads
        self.reservations: dict[tuple[str, str, int], Reservation] = {}
        """By the neighbour it came from, source and number: nobody can take the place of another's."""
        self.handed_on: dict[tuple[str, str, int], HandedOn] = {}
        """By the same, in the order in which they expire."""
        self.paths: dict[tuple[str, str], tuple[str, ...]] = {}
        """(source, destination) -> nodes of the last batch that arrived, for people: one end is this node."""
        links.handlers[RelayBatch] = self.arrived
        links.on_lost.append(self.lost)
        pads.holders.append(self._holdings)

    def on_path(self, path: tuple[str, ...], peer: str, *, backwards: bool = False) -> bool:
        """Whether we stand on this path with `peer` beside us on the right side, and nobody stands on it twice."""
        node = self.context.node
        if node not in path or len(path) > PATH_LIMIT or len(set(path)) != len(path):
            return False
        index = path.index(node)
        beside = index + 1 if backwards else index - 1
        return 0 <= beside < len(path) and path[beside] == peer

    def reserve(self, peer: str, message: Reserve) -> None:
        context, path = self.context, message.path
        if not self.on_path(path, peer) or not CONFIRMATION_BYTES < message.length <= self.design.relay.max_batch_bytes:
            raise PeerError("a reservation that is not along its path, or of an illegal length")
        key = (peer, path[0], message.number)
        pads: list[Span] = []
        reason = ""
        if key in self.reservations:
            reason = f"batch {message.number} of {path[0]} is reserved already"
        elif len(self.reservations) >= RESERVATIONS_LIMIT:
            reason = f"{RESERVATIONS_LIMIT} reservations are open: no more are legal"
        elif sum(way == peer for way, _, _ in self.reservations) >= RESERVATIONS_PER_NEIGHBOUR:
            reason = f"{RESERVATIONS_PER_NEIGHBOUR} reservations by way of {peer} are open: no more are legal"
        elif path[-1] != context.node:
            following = context.pairs.get(path[path.index(context.node) + 1])
            if following is None or not following.is_hop:
                reason = "the next link is down"
            elif not (reason := self.pads.refusal(following, message.length, Way(peer, path[0], path[-1]))):
                taken = self.pads.take(following, message.length)
                if taken is None:
                    reason = "not enough pad on the next link"
                    self.pads.want(following, message.length)
                else:
                    pads = taken
        if reason:
            context.say_plain(peer, AnswerReserve(message.number, path, False, context.node, reason))
            return
        self.reservations[key] = Reservation(path, message.length, pads, context.now + RESERVATION_NS)
        if path[-1] == context.node:
            context.say_plain(peer, AnswerReserve(message.number, path, True, "", ""))
        else:
            context.say_plain(path[path.index(context.node) + 1], message)

    def _release(self, reservation: Reservation) -> None:
        if reservation.pads:
            following = reservation.path[reservation.path.index(self.context.node) + 1]
            self.pads.give_back(self.context.pairs[following], reservation.pads)

    def answered(self, message: AnswerReserve) -> None:
        """An answer on its way to the source; a refusal frees what was set aside."""
        path = message.path
        neighbour = path[path.index(self.context.node) - 1]
        if not message.reserved:
            reservation = self.reservations.pop((neighbour, path[0], message.number), None)
            if reservation is not None:
                self._release(reservation)
        self.context.say_plain(neighbour, message)

    def confirmed(self, message: Confirm) -> None:
        """A confirmation on its way to the source, of a batch that went this way and was not confirmed yet."""
        path = message.path
        key = (path[path.index(self.context.node) - 1], path[0], message.number)
        handed_on = self.handed_on.get(key)
        if handed_on is None or handed_on.path != path:
            self.context.count("confirmations_dropped")
            return
        del self.handed_on[key]
        self.context.say_plain(key[0], message)

    def lost(self, pair: Pair) -> None:
        """No confirmation comes over a connection that has ended: the source is told so, and need not wait for it."""
        for key, handed_on in list(self.handed_on.items()):
            if handed_on.following == pair.peer:
                del self.handed_on[key]
                self._dead(handed_on.path, key[2])

    def expire(self) -> None:
        for key, reservation in list(self.reservations.items()):
            if reservation.expires <= self.context.now:
                self._release(reservation)
                del self.reservations[key]
        for key, handed_on in list(self.handed_on.items()):
            if handed_on.expires > self.context.now:
                break
            del self.handed_on[key]

    def _holdings(self, pair: Pair) -> Iterator[Holding]:
        """What is set aside of a link and still to be spent."""
        for (neighbour, source, _), reservation in self.reservations.items():
            if reservation.pads and reservation.path[reservation.path.index(pair.own) + 1] == pair.peer:
                yield Holding(Way(neighbour, source, reservation.path[-1]), reservation.pads)

    def arrived(self, pair: Pair, message: RelayBatch) -> None:
        """A batch on its hop to us: the pads it names are used up, whatever becomes of it."""
        context, run = self.context, pair.their_key
        if sum(length for _, length in message.pads) != message.length or message.length <= CONFIRMATION_BYTES:
            raise PeerError("a batch whose pads do not have its length")
        if message.ciphertext and len(message.ciphertext) != message.length:
            raise PeerError(f"a batch of {message.length} bytes with a ciphertext of {len(message.ciphertext)}")
        known = provenance.read(message.labels, message.length)
        if not message.ciphertext and message.source != pair.peer:
            raise PeerError("only the source may send its own link key as the payload")
        pads = tuple(Range(run.id, start, length) for start, length in message.pads)
        self._use(pair, pads)
        reservation = self.reservations.pop((pair.peer, message.source, message.number), None)
        name = BlockName(NodeId(message.source), RELAY, message.number)
        if (
            reservation is None
            or reservation.length != message.length
            or reservation.path[-1] != message.destination
            or not self.on_path(reservation.path, pair.peer)
        ):
            # Data without a live reservation dies end to end.
            context.count("batches_refused")
            context.out.wipe.extend(pads)
            if reservation is not None:
                self._release(reservation)
            self._refuse(pair, message)
            return
        if message.ciphertext:
            context.vault.decipher(name, message.ciphertext, pads)
        else:
            context.vault.gather(name, pads)
        context.out.wipe.extend(pads)
        if message.destination == context.node:
            self._receive(reservation.path, name, message)
        else:
            self._hand_on(reservation, name, message, known)

    def _use(self, pair: Pair, pads: tuple[Range, ...]) -> None:
        """Checks first, all of them: leased to the peer as pads in our own record, and no byte used."""
        context, run = self.context, pair.their_key
        segments = []
        for pad in pads:
            covering = run.leased(pad.start, pad.end, Purpose.PAD) if pad.length > 0 else None
            if covering is None or run.used.touches(pad.start, pad.end):
                context.notice("KH-3301", f"{pair.peer} named a pad that is not its own or is used", pair.peer)
                raise PeerError(f"pad at {pad.start}: not leased for pads, or used")
            segments += covering
        for first, second in zip(sorted(pads), sorted(pads)[1:], strict=False):
            if first.end > second.start:
                raise PeerError("a batch that names a pad twice")
        for pad in pads:
            run.used.add(pad.start, pad.end)
            run.book.move(State.RESERVED_INTERNAL, Action.RELAY, pad.length)
            context.save(Used(pad))
        for segment in segments:
            context.used_up(run, segment)
        context.book(run)

    def _hand_on(
        self, reservation: Reservation, name: BlockName, message: RelayBatch, known: Sequence[LabelPiece]
    ) -> None:
        context = self.context
        following = context.pairs[reservation.path[reservation.path.index(context.node) + 1]]
        live = all(following.own_key.leased(start, start + length, Purpose.PAD) for start, length in reservation.pads)
        if not following.is_hop or not live:
            context.vault.discard(name)
            self.pads.give_back(following, reservation.pads)
            self._dead(reservation.path, message.number)
            return
        pads = tuple(Range(following.own_key.id, start, length) for start, length in reservation.pads)
        ciphertext = context.vault.cipher(name, pads)
        context.vault.discard(name)
        neighbour = reservation.path[reservation.path.index(context.node) - 1]
        self.pads.spend(following, pads, Way(neighbour, message.source, message.destination))
        key = (neighbour, message.source, message.number)
        if len(self.handed_on) >= HANDED_ON_LIMIT:
            del self.handed_on[next(iter(self.handed_on))]
        self.handed_on.pop(key, None)
        self.handed_on[key] = HandedOn(reservation.path, following.peer, context.now + BATCH_NS)
        context.count("relay_hops")
        labels = provenance.written(provenance.over(known, self.told(following, reservation.pads)))
        handed_on = msgspec.structs.replace(message, pads=tuple(reservation.pads), ciphertext=ciphertext, labels=labels)
        context.say(following, handed_on)

    def told(self, pair: Pair, pads: list[Span]) -> list[LabelPiece]:
        """What we know of the bytes at these pads of ours."""
        ends = sorted((pair.own, pair.peer))
        return provenance.told(pair.own_key.origins, pads, ends, self.context.wall_now)

    def _refuse(self, pair: Pair, message: RelayBatch) -> None:
        """Says so to whoever handed it on, which looks whether the path that the batch claims is the one it came by."""
        try:
            path = decode_manifest(message.manifest).path
        except PeerError:
            return
        if self.on_path(path, pair.peer) and (path[0], path[-1]) == (message.source, message.destination):
            self._dead(path, message.number)

    def _dead(self, path: tuple[str, ...], number: int) -> None:
        self.context.say_plain(path[path.index(self.context.node) - 1], Confirm(number, path, b"", b""))

    def _receive(self, path: tuple[str, ...], name: BlockName, message: RelayBatch) -> None:
        """The destination: appends when the source's tag verifies, and answers under the second key inside."""
        context, known = self.context, name.peer in self.context.pairs
        try:
            manifest = decode_manifest(message.manifest)
            if manifest.path != path or path[0] != name.peer:
                raise PeerError("a manifest of another path")
            if not known and name.peer not in self.tunnel.routes.states.known:
                # A pair is kept for ever. The neighbour can invent a name, but not the signature of its link state.
                raise PeerError("a source whose link state nobody has told")
            if not known and len(context.pairs) >= PAIRS_LIMIT:
                raise PeerError(f"a source beyond the {PAIRS_LIMIT} that are known")
            pair = self.tunnel.distant(name.peer)
            payload_bytes = message.length - CONFIRMATION_BYTES
            if not self.intake.placing.check(pair, manifest.placements, manifest.segment_bytes, payload_bytes):
                raise PeerError("its place is below the append mark")
            if any(pair.runs[number].owned for number, _, _ in manifest.placements):
                raise PeerError("only the source's own runs may be filled by its batch")
            if self.intake.numbers.are_seen(pair.peer, RELAY, message.number):
                raise PeerError("a batch number seen before")
            if manifest.lent and self.intake.placing.one_run:
                raise PeerError("a lease for supply, where another design has the stock")
            covered = covered_by(message.number, manifest)
            if not context.vault.matches_inside(name, 0, covered, manifest.fingerprint):
                raise PeerError("the source's tag is wrong")
        except PeerError as error:
            # The batch is damaged, not the neighbour's frame: the exchange is dropped, the link stays.
            about = name.peer if known else path[-2]
            context.notice("KH-3202", f"a batch from {name.peer} over {path[-2]} is refused: {error}", about)
            context.vault.discard(name)
            self._dead(path, message.number)
            return
        answer = context.vault.fingerprint_inside(name, TAG_KEY_BYTES, covered + message.labels)
        origins = provenance.at_the_end(message.labels, message.length, path, context.wall_now)
        self.intake.placing.store(
            pair, name, manifest.placements, manifest.segment_bytes, origins,
            placed=False, account=Account.N, offset=CONFIRMATION_BYTES,
            mark=Purpose.SUPPLY if manifest.lent else UNTOUCHED,
        )  # fmt: skip
        self.intake.numbers.remember(pair, RELAY, message.number)
        self.paths[pair.peer, context.node] = path
        context.say_plain(path[-2], Confirm(message.number, path, answer, message.labels))
