"""Global key: carried leg by leg under one-time pads, confirmed end to end, kept by no node in between.

The source names each batch and where its bytes go. Pads are set aside on every hop before the first key moves; nobody
waits while holding. The payload is the first link's own key (Y.3803 case A), so the first hop only names it. The batch
brings two confirmation keys along; the destination appends when the source's tag verifies, the source when the answer
does, and a batch that dies leaves a hole (DESIGN 8; network digest 6.7).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from keyhop.core.designs import Design
from keyhop.core.machine import Drop, ForgetUsed, Used
from keyhop.core.messages import (
    AnswerReserve,
    Confirm,
    Manifest,
    Proof,
    RelayBatch,
    Reserve,
    Span,
    decode_manifest,
    encode,
)
from keyhop.core.model import NANOSECONDS, TAG_KEY_BYTES, Action, NodeId, PeerError, Purpose, Range, State
from keyhop.core.node.context import Context
from keyhop.core.node.intake import DISTANT_FLOOR_BYTES, FLOOR_BYTES, Intake, seen
from keyhop.core.node.leases import Leases
from keyhop.core.node.ledger import Account
from keyhop.core.node.link import Links
from keyhop.core.node.linkstate import LinkStates
from keyhop.core.node.pads import CONFIRMATION_BYTES, FIRST_BATCH_BYTES, SEGMENT_BYTES, Holding, Pads
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import GONE
from keyhop.core.node.supply import Supply
from keyhop.core.node.tunnel import Tunnel
from keyhop.core.node.vault import RELAY, RELAY_SENT, BlockName

RESERVATION_NS = 2 * NANOSECONDS
BATCH_NS = 10 * NANOSECONDS
"""A batch without an answer after this is given up."""
LOOK_NS = NANOSECONDS // 5
FAILURES_BEFORE_NOTICE = 5
"""A path that lacks pad for a moment is business as usual; people hear of a destination that stays out of reach."""
PAD_WAIT_NS = NANOSECONDS // 20
"""A node that lacked pad has asked for a lease: it is there after one round trip and two commits."""
RESERVATIONS_LIMIT = 256
RESERVATIONS_PER_NEIGHBOUR = 64
PATH_LIMIT = 32
PAIRS_LIMIT = 4096
"""A neighbour that invents sources makes no more pairs than this."""


class RelayTick(msgspec.Struct, frozen=True, gc=False):
    pass


class Batch(msgspec.Struct):
    """At the source."""

    number: int
    path: tuple[str, ...]
    length: int
    pads: list[Span]
    began: int
    manifest: bytes = b""
    """Empty until the path is reserved."""


class Reservation(msgspec.Struct):
    """At a relay node (pads of the next hop), or at the destination (none)."""

    path: tuple[str, ...]
    length: int
    pads: list[Span]
    expires: int


class Relay:
    def __init__(
        self,
        context: Context,
        links: Links,
        intake: Intake,
        leases: Leases,
        supply: Supply,
        states: LinkStates,
        tunnel: Tunnel,
        design: Design,
    ) -> None:
        self.context = context
        self.links = links
        self.intake = intake
        self.leases = leases
        self.supply = supply
        self.states = states
        self.tunnel = tunnel
        self.design = design
        self.pads = Pads(context, leases, design)
        self.batches: dict[int, Batch] = {}
        self.reservations: dict[tuple[str, str, int], Reservation] = {}
        """By the neighbour it came from, source and number: nobody can take the place of another's."""
        self.relay_ns: dict[str, int] = {}
        """Slow average of the time from decision to append, by destination."""
        self.paths: dict[tuple[str, str], tuple[str, ...]] = {}
        """(source, destination) -> nodes of the last batch that arrived, for people: one end is this node."""
        self._retry_at: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        """Batches in a row that failed, by destination."""
        self._starved: dict[str, int] = {}
        """Nodes that lacked pad, until when routes go round them."""
        self._next_number = 0
        self._held_back = False
        """Whether a batch of ours did not start because we hold our share of its first link."""
        links.handlers[RelayBatch] = self.arrived
        links.on_compared.append(self.compared)
        links.plain_handlers[Reserve] = self.reserve
        links.plain_handlers[AnswerReserve] = self.answered
        links.plain_handlers[Confirm] = self.confirmed
        leases.on_lent.append(lambda pair, purpose: self.fill() if purpose is Purpose.PAD else None)
        supply.can_relay = self.can_relay  # type: ignore[method-assign]

    def watch(self) -> None:
        self._next_number = self.context.relay_number
        self.context.at(self.context.now + LOOK_NS, RelayTick())

    def tick(self, event: RelayTick) -> None:
        context = self.context
        context.at(context.now + LOOK_NS, event)
        for key, reservation in list(self.reservations.items()):
            if reservation.expires <= context.now:
                self._release(reservation)
                del self.reservations[key]
        for batch in list(self.batches.values()):
            if context.now - batch.began >= (BATCH_NS if batch.manifest else RESERVATION_NS):
                self._give_up(batch, "no answer came in time")
        self.pads.look(LOOK_NS)
        self.fill()

    # --- the source ---------------------------------------------------------------------------------------------------

    def can_relay(self, node: str) -> bool:
        return self.states.next_hop(node) is not None

    def wanted(self) -> set[str]:
        """Key managers whose pools are filled ahead: where applications are that ours may share keys with."""
        wanted = set(self.supply.wanted_peers)
        for application in self.supply.applications.values():
            for peer in application.peers:
                node = self.supply.directory.get(peer)
                if node is not None:
                    wanted.add(node)
        wanted.discard(self.context.node)
        return wanted

    def fill(self) -> None:
        """Starts a batch for each destination whose pool is below its low mark; the emptiest first."""
        self._held_back = False
        due: list[tuple[int, str, int]] = []
        busy = {batch.path[-1] for batch in self.batches.values()}
        wanted = self.wanted()
        # Who relays to us needs tag keys of ours to be answered with, whether or not we want key.
        distant = {pair.peer for pair in self.context.pairs.values() if not pair.direct}
        for node in (wanted | distant) - busy:
            pair = self.context.pairs.get(node)
            if pair is not None and pair.direct and not pair.suspended and pair.is_hop:
                continue
            if self._retry_at.get(node, 0) > self.context.now:
                continue
            demand = self.supply.demand(pair) if pair else 0.0
            low, high = self.design.refill.marks(demand, self.relay_ns.get(node, NANOSECONDS) / NANOSECONDS)
            stock = pair.own_key.untouched + pair.stock.left if pair else 0
            missing = self._missing_tags(pair)
            if (stock < low and node in wanted) or missing:
                due.append((stock, node, max(0, high - stock) + missing + CONFIRMATION_BYTES))
        for _, node, size in sorted(due):
            self._start(node, size)

    def _missing_tags(self, pair: Pair | None) -> int:
        """What the pair's authentication runs lack to their floors; 0 while they are half full."""
        if pair is None:
            return 2 * DISTANT_FLOOR_BYTES
        floor = FLOOR_BYTES if pair.direct else DISTANT_FLOOR_BYTES
        runs = (pair.own_tags, pair.own_opening)
        if all(run.available() >= floor // 2 for run in runs):
            return 0
        return sum(max(0, floor - run.available()) for run in runs)

    def _start(self, node: str, wanted: int) -> None:
        context = self.context
        avoid = frozenset(at for at, until in self._starved.items() if until > context.now and at != node)
        minimum = CONFIRMATION_BYTES + SEGMENT_BYTES
        route = self.states.route(node, minimum, avoid) or self.states.route(node, minimum)
        if route is None or len(route.path) < 3:
            self._later(node)
            return
        length = self.design.relay.batch_bytes(wanted, route.narrowest_bytes, minimum)
        pair = context.pairs.get(node)
        if not pair or not pair.own_opening.append:
            # The first batch must at least bring the keys to open with, and something to share.
            length = max(length, min(wanted, FIRST_BATCH_BYTES, self.design.relay.all_may_hold(route.narrowest_bytes)))
        first = context.pairs[route.path[1]]
        if length == 0 or not first.is_hop:
            self._later(node)
            return
        if self.pads.refusal(first, length, context.node, context.node, self._holdings(first)):
            self._held_back = True
            return
        pads = self.pads.take(first, length)
        if pads is None:
            self.pads.want(first, length)
            return
        self._next_number += 1
        batch = Batch(self._next_number, route.path, length, pads, context.now)
        self.batches[batch.number] = batch
        context.say_plain(first.peer, Reserve(batch.number, batch.path, length))

    def _later(self, node: str, wait_ns: int = NANOSECONDS // 4) -> None:
        """The next try, with jitter of as much again: two sources that collided do not collide in step."""
        self._retry_at[node] = (
            self.context.now + wait_ns + wait_ns * int.from_bytes(self.context.entropy(2), "big") // 65_536
        )

    def _send(self, batch: Batch) -> None:
        """The path is reserved: the batch gets its place and leaves."""
        context, destination = self.context, batch.path[-1]
        pair, first = self.tunnel.distant(destination), context.pairs[batch.path[1]]
        if any(not first.own_key.leased(start, start + length, Purpose.PAD) for start, length in batch.pads):
            self._give_up(batch, "the pads were burnt")
            return
        name = BlockName(pair.peer, RELAY_SENT, batch.number)
        pads = tuple(Range(first.own_key.id, start, length) for start, length in batch.pads)
        context.vault.gather(name, pads)
        floor = FLOOR_BYTES if pair.direct else DISTANT_FLOOR_BYTES
        placements = self.intake.place(pair, batch.length - CONFIRMATION_BYTES, floor, own_only=True)
        segment_bytes = self.design.relay.segment_bytes(batch.length - CONFIRMATION_BYTES)
        covered = self._covered(batch.path, batch.number, placements, segment_bytes)
        manifest = Manifest(
            placements, segment_bytes, context.vault.fingerprint_inside(name, 0, covered), 0.0, batch.path
        )
        batch.manifest = encode(manifest)
        context.relay_number = max(context.relay_number, batch.number)
        self._spend(first, pads)
        context.say(
            first,
            RelayBatch(context.node, destination, batch.number, tuple(batch.pads), batch.length, b"", batch.manifest),
        )
        if self._held_back:
            self.fill()

    def _spend(self, pair: Pair, pads: tuple[Range, ...]) -> None:
        """Own pads are used: booked, and overwritten once the frame is out."""
        for pad in pads:
            pair.own_key.book.move(State.RESERVED_INTERNAL, Action.RELAY, pad.length)
        self.context.out.wipe.extend(pads)
        self.context.book(pair.own_key)

    @staticmethod
    def _covered(
        path: tuple[str, ...], number: int, placements: tuple[tuple[int, int, int], ...], segment_bytes: int
    ) -> bytes:
        """What both confirmation tags cover beside the bits."""
        return encode(Manifest(placements, segment_bytes, number.to_bytes(8, "big"), 0.0, path))

    def confirmed(self, peer: str, message: Confirm) -> None:
        context = self.context
        if not self._on_path(message.path, peer, backwards=True):
            raise PeerError("a confirmation that did not come along its path")
        if message.path[0] != context.node:
            self._drop_reservation(message.path, message.number)
            context.say_plain(message.path[message.path.index(context.node) - 1], message)
            return
        batch = self.batches.get(message.number)
        if batch is None or batch.path != message.path or not batch.manifest:
            return
        if not message.fingerprint:
            self._give_up(batch, "it died on its way")
            return
        pair = context.pairs[batch.path[-1]]
        name = BlockName(pair.peer, RELAY_SENT, batch.number)
        manifest = decode_manifest(batch.manifest)
        covered = self._covered(batch.path, batch.number, manifest.placements, manifest.segment_bytes)
        if not context.vault.matches_inside(name, TAG_KEY_BYTES, covered, message.fingerprint):
            self._give_up(batch, "its confirmation is wrong")
            return
        del self.batches[batch.number]
        self.intake.store(
            pair, name, manifest.placements, manifest.segment_bytes, 0.0,
            placed=True, account=Account.N, offset=CONFIRMATION_BYTES,
        )  # fmt: skip
        took = context.now - batch.began
        self.relay_ns[pair.peer] = max(took, (self.relay_ns.get(pair.peer, took) * 7 + took) // 8)
        self.paths[context.node, pair.peer] = batch.path
        context.count("batches_relayed")
        self._failures.pop(pair.peer, None)
        self.lent(pair)

    def lent(self, pair: Pair) -> None:
        """Replaced by the node: fresh global key is there, so a lease may be asked for at once."""

    def compared(self, pair: Pair, proof: Proof) -> None:
        """What was under way when the ends compared is burnt at the destination: it had a place and was not there."""
        for batch in [batch for batch in self.batches.values() if batch.manifest and batch.path[-1] == pair.peer]:
            self._give_up(batch, "the pair opened anew meanwhile")

    def _give_up(self, batch: Batch, reason: str, wait_ns: int = NANOSECONDS // 4) -> None:
        context, destination = self.context, batch.path[-1]
        self.batches.pop(batch.number, None)
        if batch.manifest:
            context.vault.discard(BlockName(NodeId(destination), RELAY_SENT, batch.number))
        else:
            self.pads.give_back(context.pairs[batch.path[1]], batch.pads)
        context.count("batches_given_up")
        failures = self._failures[destination] = self._failures.get(destination, 0) + 1
        if failures == FAILURES_BEFORE_NOTICE:
            context.notice(
                "KH-3201", f"a batch for {destination} over {'-'.join(batch.path)} failed: {reason}", destination
            )
        self._later(destination, wait_ns)

    def _holdings(self, pair: Pair) -> Iterator[Holding]:
        """What is set aside of a link and still to be spent."""
        for batch in self.batches.values():
            if not batch.manifest and batch.path[1] == pair.peer:
                yield Holding(pair.own, pair.own, batch.pads)
        for (neighbour, source, _), reservation in self.reservations.items():
            if reservation.pads and reservation.path[reservation.path.index(pair.own) + 1] == pair.peer:
                yield Holding(source, neighbour, reservation.pads)

    def reserved(self, pair: Pair) -> list[tuple[int, int]]:
        """Pads of a link that are set aside for batches under way: still to be spent."""
        return [(start, start + length) for holding in self._holdings(pair) for start, length in holding.pads]

    # --- every node of the path ---------------------------------------------------------------------------------------

    def _on_path(self, path: tuple[str, ...], peer: str, *, backwards: bool = False) -> bool:
        """Whether we stand on this path with `peer` beside us on the right side, and nobody stands on it twice."""
        node = self.context.node
        if node not in path or len(path) > PATH_LIMIT or len(set(path)) != len(path):
            return False
        index = path.index(node)
        beside = index + 1 if backwards else index - 1
        return 0 <= beside < len(path) and path[beside] == peer

    def reserve(self, peer: str, message: Reserve) -> None:
        context, path = self.context, message.path
        if (
            not self._on_path(path, peer)
            or not CONFIRMATION_BYTES < message.length <= self.design.relay.max_batch_bytes
        ):
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
            elif not (reason := self.pads.refusal(following, message.length, path[0], peer, self._holdings(following))):
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

    def answered(self, peer: str, message: AnswerReserve) -> None:
        context, path = self.context, message.path
        if not self._on_path(path, peer, backwards=True):
            raise PeerError("an answer to a reservation that did not come along its path")
        if path[0] != context.node:
            if not message.reserved:
                self._drop_reservation(path, message.number)
            context.say_plain(path[path.index(context.node) - 1], message)
            return
        batch = self.batches.get(message.number)
        if batch is None or batch.path != path or batch.manifest:
            return
        if message.reserved:
            self._send(batch)
        else:
            self._starved[message.at] = context.now + NANOSECONDS
            self._give_up(batch, f"{message.at}: {message.reason}", PAD_WAIT_NS)

    def _release(self, reservation: Reservation) -> None:
        if reservation.pads:
            following = reservation.path[reservation.path.index(self.context.node) + 1]
            self.pads.give_back(self.context.pairs[following], reservation.pads)

    def _drop_reservation(self, path: tuple[str, ...], number: int) -> None:
        neighbour = path[path.index(self.context.node) - 1]
        reservation = self.reservations.pop((neighbour, path[0], number), None)
        if reservation is not None:
            self._release(reservation)

    def arrived(self, pair: Pair, message: RelayBatch) -> None:
        """A batch on its hop to us: the pads it names are used up, whatever becomes of it."""
        context, run = self.context, pair.their_key
        if sum(length for _, length in message.pads) != message.length or message.length <= CONFIRMATION_BYTES:
            raise PeerError("a batch whose pads do not have its length")
        if message.ciphertext and len(message.ciphertext) != message.length:
            raise PeerError(f"a batch of {message.length} bytes with a ciphertext of {len(message.ciphertext)}")
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
            or not self._on_path(reservation.path, pair.peer)
        ):
            # Data without a live reservation dies end to end.
            context.count("batches_refused")
            context.out.wipe.extend(pads)
            if reservation is not None:
                self._release(reservation)
            return
        if message.ciphertext:
            context.vault.decipher(name, message.ciphertext, pads)
        else:
            context.vault.gather(name, pads)
        context.out.wipe.extend(pads)
        if message.destination == context.node:
            self._receive(reservation.path, name, message)
        else:
            self._hand_on(reservation, name, message)

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
            if segment.mark != GONE and run.used.covers(segment.start, segment.end):
                run.set_mark(segment, GONE)
                segment.spent_at = context.now
                segment.stored = False
                context.put(run.segment_row(segment))
                context.save(Drop(run.range(segment)), ForgetUsed(run.range(segment)))
                run.used.remove(segment.start, segment.end)
        context.book(run)

    def _hand_on(self, reservation: Reservation, name: BlockName, message: RelayBatch) -> None:
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
        self._spend(following, pads)
        context.count("relay_hops")
        context.say(following, msgspec.structs.replace(message, pads=tuple(reservation.pads), ciphertext=ciphertext))

    def _dead(self, path: tuple[str, ...], number: int) -> None:
        self.context.say_plain(path[path.index(self.context.node) - 1], Confirm(number, path, b""))

    def _receive(self, path: tuple[str, ...], name: BlockName, message: RelayBatch) -> None:
        """The destination: appends when the source's tag verifies, and answers under the second key inside."""
        context = self.context
        try:
            manifest = decode_manifest(message.manifest)
            if manifest.path != path or path[0] != name.peer:
                raise PeerError("a manifest of another path")
            if name.peer not in context.pairs and len(context.pairs) >= PAIRS_LIMIT:
                raise PeerError(f"a source beyond the {PAIRS_LIMIT} that are known")
            pair = self.tunnel.distant(name.peer)
            payload_bytes = message.length - CONFIRMATION_BYTES
            if not self.intake.check(pair, manifest.placements, manifest.segment_bytes, payload_bytes):
                raise PeerError("its place is below the append mark")
            if any(pair.runs[number].owned for number, _, _ in manifest.placements):
                raise PeerError("only the source's own runs may be filled by its batch")
            if seen(self.intake.marks(pair.peer, RELAY), message.number):
                raise PeerError("a batch number seen before")
            covered = self._covered(path, message.number, manifest.placements, manifest.segment_bytes)
            if not context.vault.matches_inside(name, 0, covered, manifest.fingerprint):
                raise PeerError("the source's tag is wrong")
        except PeerError as error:
            # The batch is damaged, not the neighbour's frame: the exchange is dropped, the link stays.
            context.notice("KH-3202", f"a batch from {name.peer} is refused: {error}", name.peer)
            context.vault.discard(name)
            self._dead(path, message.number)
            return
        answer = context.vault.fingerprint_inside(name, TAG_KEY_BYTES, covered)
        self.intake.store(
            pair, name, manifest.placements, manifest.segment_bytes, 0.0,
            placed=False, account=Account.N, offset=CONFIRMATION_BYTES,
        )  # fmt: skip
        self.intake.remember(pair, RELAY, message.number)
        self.paths[pair.peer, context.node] = path
        context.say_plain(path[-2], Confirm(message.number, path, answer))
