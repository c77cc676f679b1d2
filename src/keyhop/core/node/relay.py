"""Global key: carried leg by leg under one-time pads, confirmed end to end, kept by no node in between.

The source names each batch and where its bytes go. Pads are set aside on every hop before the first key moves; nobody
waits while holding. The payload is the first link's own key (Y.3803 case A), so the first hop only names it. The batch
brings two confirmation keys along; the destination appends when the source's tag verifies, the source when the answer
does, and a batch that dies leaves a hole (`docs/protocol.md` 13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from keyhop.core.designs import Running
from keyhop.core.messages import (
    AnswerReserve,
    Confirm,
    Manifest,
    Proof,
    RelayBatch,
    Reserve,
    Span,
    StoredBlock,
    decode_manifest,
    encode,
    too_long,
)
from keyhop.core.model import NANOSECONDS, TAG_KEY_BYTES, NodeId, PeerError, Purpose, Range
from keyhop.core.node.context import LEISURE_NS, Context
from keyhop.core.node.hops import BATCH_NS, RESERVATION_NS, Hops, covered_by
from keyhop.core.node.intake import Intake
from keyhop.core.node.leases import Leases
from keyhop.core.node.ledger import Account
from keyhop.core.node.link import Links
from keyhop.core.node.pads import (
    CONFIRMATION_BYTES,
    FIRST_BATCH_BYTES,
    GRANTED_BYTES,
    SEGMENT_BYTES,
    Holding,
    Pads,
    Way,
)
from keyhop.core.node.pair import Pair
from keyhop.core.node.placing import DISTANT_FLOOR_BYTES, FLOOR_BYTES
from keyhop.core.node.provenance import at_the_end, written
from keyhop.core.node.routes import Routes
from keyhop.core.node.run import UNTOUCHED
from keyhop.core.node.supply import Supply
from keyhop.core.node.tunnel import Tunnel
from keyhop.core.node.vault import RELAY, RELAY_SENT, BlockName
from keyhop.core.policy.routing import Route
from keyhop.core.services.filling import P99, Filling, Pool, Times

LOOK_NS, IDLE_LOOK_NS, IDLE_LOOK_LIMIT_NS = NANOSECONDS // 5, NANOSECONDS, 4 * LEISURE_NS
"""How often a node looks after its batches and pools: while something is under way, and else."""
LACKING_LOOK_LIMIT_NS = 4 * LOOK_NS
"""While a pool lacks key and nothing happens, looks are doubled up to this."""
FAILURES_BEFORE_NOTICE = 5
"""A path that lacks pad for a moment is business as usual; people hear of a destination that stays out of reach."""
BURNT_DOUBLINGS = 5
"""The wait after a batch that died on its way, a quarter of a second, is doubled with each further one, up to 8 s."""
OPENINGS_IN_VAIN = 4
"""For so many openings of a distant pair that failed in a row, one floor more of tag keys is relayed: as they are 64 s
apart at last, that is a floor in four minutes."""
LEASES_AT_MOST = 2
"""A batch comes leased if all in hand is then no more than so many leases: a restart burns it."""
SURE_MARGIN = 16
"""A batch takes this part less of a booking than may be: the books of the hops are a moment behind ours."""
POOR_BYTES = 16_384
"""Where a path has less, pools are not filled ahead that nobody draws on."""
WORTH_BYTES, PATIENCE_NS = 3072, 1 * NANOSECONDS
"""Where a path has less than so much, a batch waits for more, but no longer."""
PAD_WAIT_NS = NANOSECONDS // 20
"""A node that lacked pad has asked for a lease: it is there after one round trip and two commits."""
PAD_DOUBLINGS = 4
"""Where it is not, fresh key must come first: the wait is doubled up to 0.8 s."""


class RelayTick(msgspec.Struct, frozen=True, gc=False):
    due: int
    """Only the look that was planned last is taken."""


class Batch(msgspec.Struct):
    """At the source."""

    number: int
    path: tuple[str, ...]
    length: int
    pads: list[Span]
    began: int
    manifest: bytes = b""
    """Empty until the path is reserved."""


class Relay:
    def __init__(
        self,
        context: Context,
        links: Links,
        intake: Intake,
        leases: Leases,
        supply: Supply,
        routes: Routes,
        tunnel: Tunnel,
        design: Running,
    ) -> None:
        self.context = context
        self.links = links
        self.intake = intake
        self.leases = leases
        self.supply = supply
        self.routes = routes
        self.tunnel = tunnel
        self.design = design
        self.pads = Pads(context, leases, design)
        self.hops = Hops(context, links, intake, tunnel, design, self.pads)
        self.batches: dict[int, Batch] = {}
        self.relay_ns: dict[str, int] = {}
        """Slow average of the time from decision to append, by destination."""
        self.lent: Callable[[Pair], None] = lambda pair: None
        """Set by the node: fresh global key is there, so a lease may be asked for at once."""
        self.booked: Callable[[str], Route | None] = lambda node: None
        """Set by the node: the path on which key for a key manager is guaranteed."""
        self._times: dict[str, Times] = {}
        self._relay_p99_ns: dict[str, int] = {}
        """What 99 of 100 relays to a destination did not exceed: pools are kept full for so long."""
        self._filling = Filling(design.relay.max_batch_bytes)
        """Whose pool is next: by class and weight, the emptiest of equals first."""
        self._retry_at: dict[str, int] = {}
        self._wanting: dict[str, int] = {}
        """Since when the path to a destination gives small batches alone."""
        self._failures: dict[str, int] = {}
        """Batches in a row that failed, by destination."""
        self._failed: dict[str, str] = {}
        """Why the last of them failed."""
        self._burnt: dict[str, int] = {}
        """Of those, how many had left and took their pads with them."""
        self._starved: dict[str, int] = {}
        """Nodes that lacked pad, until when routes go round them."""
        self._next_number = 0
        self._lacking = False
        """Whether a pool was below its low mark at the last look."""
        self._looked_at = self._due = context.now
        self._lacking_ns = LOOK_NS
        """Until the next look while a pool lacks key: doubled while nothing happens."""
        self._idle_ns = IDLE_LOOK_NS
        """Until the next look if nothing happens: doubled while nothing does."""
        self._held_back = False
        """Whether a batch of ours did not start because we hold our share of its first link."""
        links.on_compared.append(self.compared)
        links.on_lost.append(self.lost)
        links.plain_handlers[Reserve] = self._reserve
        links.plain_handlers[AnswerReserve] = self.answered
        links.plain_handlers[Confirm] = self.confirmed
        self.pads.holders.append(self._holdings)
        leases.on_lent.append(lambda pair, purpose: self.fill() if purpose is Purpose.PAD else None)
        supply.can_relay = self.can_relay
        supply.why_none = self.why_none

    def watch(self) -> None:
        self._next_number = self.context.relay_number
        self._plan(LOOK_NS)

    def _plan(self, wait_ns: int) -> None:
        self._due = self.context.after(wait_ns)
        self.context.at(self._due, RelayTick(self._due))

    def nudge(self) -> None:
        """Something has happened: some pool may be low now, or lack a link."""
        self._idle_ns, self._lacking_ns = IDLE_LOOK_NS, LOOK_NS
        if self._due > self.context.now + LOOK_NS:
            self._plan(LOOK_NS)

    def key_came(self, pair: Pair) -> None:
        """Fresh key of a pair is there: pads can be leased of it, and a path may have what it lacked."""
        self.pads.ahead(pair)
        if self._lacking:
            self.nudge()

    def tick(self, event: RelayTick) -> None:
        context = self.context
        if event.due != self._due:
            return
        self.hops.expire()
        for batch in list(self.batches.values()):
            if context.now - batch.began >= (BATCH_NS if batch.manifest else RESERVATION_NS):
                self._give_up(batch, "no answer came in time")
        self.pads.look(context.now - self._looked_at)
        self._looked_at = context.now
        self.fill()
        if self._lacking or self.batches or self.hops.reservations:
            if self.batches or self.hops.reservations:
                self._lacking_ns = LOOK_NS
            self._idle_ns = IDLE_LOOK_NS
            self._plan(self._lacking_ns)
            self._lacking_ns = min(2 * self._lacking_ns, LACKING_LOOK_LIMIT_NS)
            return
        self._lacking_ns = LOOK_NS
        if self.supply.governed.enforces or self.hops.handed_on:
            # More is to be seen to than what events bring: guarantees, and confirmations that never came.
            self._idle_ns = IDLE_LOOK_NS
        self._plan(self._idle_ns)
        self._idle_ns = min(2 * self._idle_ns, IDLE_LOOK_LIMIT_NS)

    def _reserve(self, peer: str, message: Reserve) -> None:
        self.hops.reserve(peer, message)
        self.nudge()

    # --- the source ---------------------------------------------------------------------------------------------------

    def can_relay(self, node: str) -> bool:
        return self.routes.next_hop(node) is not None

    def why_none(self, node: str) -> str:
        pair = self.context.pairs.get(node)
        if pair is not None and pair.direct and pair.is_hop:
            return f"none came from KME {node} in time"
        if self.routes.next_hop(node) is None:
            return f"no path leads to KME {node} now"
        if self.routes.route(node, SEGMENT_BYTES) is None:
            return f"no path to KME {node} has key left to relay with"
        failed = self._failed.get(node)
        return f"nothing was relayed to KME {node} in time" + (f"; the last try failed: {failed}" if failed else "")

    def wanted(self) -> set[str]:
        """Key managers whose pools are filled ahead: where applications are that ours may share keys with."""
        return self.supply.wanted_peers | (self.supply.sharing - {self.context.node})

    def fill(self) -> None:
        """Starts a batch for each destination whose pool is below its low mark; the emptiest first."""
        self._held_back = self._lacking = False
        if self.supply.hosted is not None:
            # Another design has the stock of the links.
            return
        due: dict[str, int] = {}
        pools: list[Pool] = []
        busy = {batch.path[-1] for batch in self.batches.values()}
        wanted = self.wanted()
        # Who relays to us needs tag keys of ours to be answered with, whether or not we want key.
        distant = {pair.peer for pair in self.context.pairs.values() if not pair.direct}
        for node in (wanted | distant) - busy:
            pair = self.context.pairs.get(node)
            if pair is not None and pair.direct and not pair.suspended and pair.is_hop:
                continue
            if self._retry_at.get(node, 0) > self.context.now:
                # It lacked key a moment ago: the next look must not be far.
                self._lacking = True
                continue
            demand = self.supply.demand(pair) if pair else 0.0
            low, high = self.design.refill.marks(demand, self._relay_p99_ns.get(node, NANOSECONDS) / NANOSECONDS)
            ahead = max(self.supply.governed.ahead_bytes(node), self.supply.waiting_bytes(node))
            low, high = max(low, ahead), max(high, 2 * ahead)
            in_hand = self.leases.committing.get(node, 0)
            stock = pair.own_key.untouched + pair.stock.left + in_hand if pair else 0
            missing = self._missing_tags(pair)
            if (stock < low and node in wanted) or missing:
                self._lacking = True
                due[node] = max(0, high - stock) + missing + CONFIRMATION_BYTES
                service_class, weight, _ = self.supply.governed.towards(node)
                pools.append(Pool(node, service_class, min(stock, low - 1), low, high, weight))
        pools.sort(key=lambda pool: (pool.level_bytes, pool.name))
        while (chosen := self._filling.next(pools)) is not None:
            pools = [pool for pool in pools if pool.name != chosen]
            self._start(chosen, due[chosen])

    def _missing_tags(self, pair: Pair | None) -> int:
        """What the pair's authentication runs lack to their floors; 0 while that is little."""
        if pair is None:
            return DISTANT_FLOOR_BYTES + DISTANT_FLOOR_BYTES // 2
        floors = self.intake.placing.distant_floors(pair, self._floor_bytes(pair))
        return sum(want.limit_bytes - want.stock_bytes for want in floors)

    def _floor_bytes(self, pair: Pair) -> int:
        """How far relay fills the pair's authentication runs."""
        if pair.direct:
            return FLOOR_BYTES
        if self.supply.governed.enforces and pair.is_open:
            # Leases are asked for one by one.
            return 2 * DISTANT_FLOOR_BYTES
        if pair.is_open or pair.openings_failed < OPENINGS_IN_VAIN:
            return DISTANT_FLOOR_BYTES
        # What is left here the other end may have lost, or granted in openings that came to nothing: more is needed.
        return DISTANT_FLOOR_BYTES * (1 + pair.openings_failed // OPENINGS_IN_VAIN)

    def _start(self, node: str, wanted: int) -> None:
        context = self.context
        avoid = frozenset(at for at, until in self._starved.items() if until > context.now and at != node)
        minimum = CONFIRMATION_BYTES + SEGMENT_BYTES
        _, _, refused = self.supply.governed.towards(node)
        booked = self.booked(node) if self._failures.get(node, 0) < FAILURES_BEFORE_NOTICE else None
        route = booked
        # Round whom a policy avoids, if there is such a way; else for those who do not mind.
        for around in dict.fromkeys((avoid | refused, refused, avoid, frozenset())):
            # What links tell is rounded down to whole segments.
            route = route or self.routes.route(node, SEGMENT_BYTES, around - {node})
        if route is None or len(route.path) < 3:
            self._later(node)
            return
        if why := too_long(route.path):
            self._failed[node] = why
            self._later(node)
            return
        poorest = max(minimum, route.narrowest_bytes)
        if poorest < POOR_BYTES and not self._is_asked_for(node):
            # Others may wait for what such a path has: no more than what opens the pair.
            missing = self._missing_tags(context.pairs.get(NodeId(node)))
            if not missing:
                self._later(node)
                return
            wanted = min(wanted, max(minimum, missing + CONFIRMATION_BYTES))
        length = self.design.relay.batch_bytes(
            wanted, poorest, minimum, 0 if self._failures.get(node) else GRANTED_BYTES
        )
        small = length < min(wanted, WORTH_BYTES)
        if small and booked is None and not self._failures.get(node) and not self._has_waited(node):
            self._lacking = True
            return
        pair = context.pairs.get(node)
        if not pair or not pair.own_opening.append:
            # The first batch must at least bring the keys to open with, and something to share.
            length = max(length, min(wanted, FIRST_BATCH_BYTES, self.design.relay.all_may_hold(poorest)))
        first = context.pairs[route.path[1]]
        if not first.is_hop:
            self._later(node)
            return
        if booked is not None:
            # What was booked is there: more, only where others leave it.
            sure = self.pads.sure_bytes(first, self._way(node))
            sure -= sure // SURE_MARGIN
            if sure >= minimum and (self._failures.get(node) or self.pads.refusal(first, length, self._way(node))):
                length = min(length, sure)
        if self.pads.refusal(first, length, self._way(node)):
            # What a poor link grants to everybody may be more than it lets go now: then the share of its stock.
            length = min(length, self.design.relay.batch_bytes(wanted, poorest, minimum))
            if self.pads.refusal(first, length, self._way(node)):
                self._held_back = True
                return
        pads = self.pads.take(first, length)
        if pads is None:
            self.pads.want(first, length)
            return
        self._next_number += 1
        self._wanting.pop(node, None)
        batch = Batch(self._next_number, route.path, length, pads, context.now)
        self.batches[batch.number] = batch
        context.say_plain(first.peer, Reserve(batch.number, batch.path, length))

    def _has_waited(self, node: str) -> bool:
        """Whether a small batch is better than none: its tags and confirmation are a tenth of it."""
        pair, now = self.context.pairs.get(node), self.context.now
        if pair is None or not pair.is_open:
            return True
        return now - self._wanting.setdefault(node, now) >= PATIENCE_NS

    def _is_asked_for(self, node: str) -> bool:
        """Whether applications have drawn on this pool of late, or wait for it, where the pair can give what comes."""
        pair = self.context.pairs.get(NodeId(node))
        if pair is None or not pair.is_open:
            return False
        governed = self.supply.governed
        return bool(self.supply.demand(pair) or self.supply.waiting_bytes(node) or governed.ahead_bytes(node))

    def _way(self, destination: str) -> Way:
        return Way(self.context.node, self.context.node, destination)

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
        floor = self._floor_bytes(pair)
        placements = self.intake.placing.place(pair, batch.length - CONFIRMATION_BYTES, floor, own_only=True)
        segment_bytes = self.design.relay.segment_bytes(batch.length - CONFIRMATION_BYTES)
        lent = self._lends(pair, sum(take for number, _, take in placements if number == pair.own_key.id.number))
        manifest = Manifest(placements, segment_bytes, b"", batch.path, lent)
        fingerprint = context.vault.fingerprint_inside(name, 0, covered_by(batch.number, manifest))
        batch.manifest = encode(msgspec.structs.replace(manifest, fingerprint=fingerprint))
        context.relay_number = max(context.relay_number, batch.number)
        self.pads.spend(first, pads, self._way(destination))
        context.say(
            first,
            RelayBatch(
                context.node,
                destination,
                batch.number,
                tuple(batch.pads),
                batch.length,
                b"",
                batch.manifest,
                written(self.hops.told(first, batch.pads)),
            ),
        )
        if self._held_back:
            self.fill()

    def _lends(self, pair: Pair, length: int) -> bool:
        """Whether applications wait for this key, or soon will: then it comes leased, and nothing more is said."""
        supply = self.supply
        if not pair.is_open or supply.governed.enforces or not supply.draws_on(pair.peer):
            return False
        if pair.namings_handled < pair.namings:
            # The answer to a lease says that the peer has our secret for key IDs.
            return False
        in_hand = pair.stock.left + self.leases.committing.get(pair.peer, 0)
        size, spare = supply.lease_bytes(pair), pair.own_key.untouched - self.leases.reserved_bytes(pair)
        # What lies there unleased goes first, and nothing is lent out of a reserve.
        return 0 <= spare < size and in_hand + length <= LEASES_AT_MOST * size

    def answered(self, peer: str, message: AnswerReserve) -> None:
        context, path = self.context, message.path
        if not self.hops.on_path(path, peer, backwards=True):
            raise PeerError("an answer to a reservation that did not come along its path")
        if path[0] != context.node:
            self.hops.answered(message)
            return
        batch = self.batches.get(message.number)
        if batch is None or batch.path != path or batch.manifest:
            return
        if message.reserved:
            self._send(batch)
        else:
            if message.at in path:
                self._starved[message.at] = context.now + NANOSECONDS
            refused = self._failures.get(path[-1], 0)
            self._give_up(batch, f"{message.at}: {message.reason}", PAD_WAIT_NS << min(refused, PAD_DOUBLINGS))

    def confirmed(self, peer: str, message: Confirm) -> None:
        context = self.context
        if not self.hops.on_path(message.path, peer, backwards=True):
            raise PeerError("a confirmation that did not come along its path")
        if message.path[0] != context.node:
            self.hops.confirmed(message)
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
        covered = covered_by(batch.number, manifest) + message.labels
        if not context.vault.matches_inside(name, TAG_KEY_BYTES, covered, message.fingerprint):
            self._give_up(batch, "its confirmation is wrong")
            return
        # Ages were told on the way: counted from when the batch was begun, no bit is taken for younger than it is.
        try:
            known = at_the_end(message.labels, batch.length, batch.path, batch.began + context.wall_ahead_ns)
        except PeerError as error:
            self._give_up(batch, str(error))
            return
        del self.batches[batch.number]
        spans = self.intake.placing.store(
            pair, name, manifest.placements, manifest.segment_bytes, known,
            placed=True, account=Account.N, offset=CONFIRMATION_BYTES,
            mark=Purpose.SUPPLY if manifest.lent else UNTOUCHED,
        )  # fmt: skip
        if manifest.lent and spans:
            self.leases.granted(pair, Purpose.SUPPLY, spans)
        if pair.is_open and any(number == pair.own_tags.id.number for number, _, _ in manifest.placements):
            # From here on the destination may grant what of it are tag keys; without them the pair falls silent.
            context.say_first(pair, StoredBlock(RELAY, batch.number))
        took = context.now - batch.began
        times = self._times.setdefault(pair.peer, Times())
        times.took(took)
        self._relay_p99_ns[pair.peer] = times.quantile(P99, took)
        self.relay_ns[pair.peer] = max(took, (self.relay_ns.get(pair.peer, took) * 7 + took) // 8)
        self.hops.paths[context.node, pair.peer] = batch.path
        context.count("batches_relayed")
        self._failures.pop(pair.peer, None)
        self._failed.pop(pair.peer, None)
        self._burnt.pop(pair.peer, None)
        self.intake.on_key(pair)
        self.lent(pair)

    def compared(self, pair: Pair, proof: Proof) -> None:
        """What was under way when the ends compared is burnt at the destination: it had a place and was not there."""
        for batch in [batch for batch in self.batches.values() if batch.manifest and batch.path[-1] == pair.peer]:
            self._give_up(batch, "the pair opened anew meanwhile")
        self.nudge()

    def lost(self, pair: Pair) -> None:
        """What was under way over this link is not answered any more: a later answer would come too late."""
        for batch in [batch for batch in self.batches.values() if batch.path[1] == pair.peer]:
            self._give_up(batch, f"the link to {pair.peer} went down")
        self.nudge()

    def _give_up(self, batch: Batch, reason: str, wait_ns: int = NANOSECONDS // 4) -> None:
        context, destination = self.context, batch.path[-1]
        self.batches.pop(batch.number, None)
        if batch.manifest:
            context.vault.discard(BlockName(NodeId(destination), RELAY_SENT, batch.number))
            # A path that kills each batch must not burn the pads of all its hops at the rate of a round trip.
            wait_ns <<= min(self._burnt.get(destination, 0), BURNT_DOUBLINGS)
            self._burnt[destination] = self._burnt.get(destination, 0) + 1
        else:
            self.pads.give_back(context.pairs[batch.path[1]], batch.pads)
        context.count("batches_given_up")
        failures = self._failures[destination] = self._failures.get(destination, 0) + 1
        self._failed[destination] = reason
        if failures == FAILURES_BEFORE_NOTICE:
            context.notice(
                "KH-3201", f"a batch for {destination} over {'-'.join(batch.path)} failed: {reason}", destination
            )
        self._later(destination, wait_ns)

    def _holdings(self, pair: Pair) -> Iterator[Holding]:
        """What is set aside of a link and still to be spent."""
        for batch in self.batches.values():
            if not batch.manifest and batch.path[1] == pair.peer:
                yield Holding(self._way(batch.path[-1]), batch.pads)
