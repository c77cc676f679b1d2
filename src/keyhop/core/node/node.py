"""One key manager: `step(event, now) -> Output`, the same object in the daemon, the emulator and the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyhop.core.designs import Design, carrier, hosted
from keyhop.core.machine import Output, Put
from keyhop.core.messages import DesignMessage
from keyhop.core.model import AppId, PeerError
from keyhop.core.node import events
from keyhop.core.node.bookings import Bookings
from keyhop.core.node.context import Context, NodeSettings
from keyhop.core.node.exchanges import Exchanges, KeyExchange
from keyhop.core.node.flows import Flows, FlowTick
from keyhop.core.node.full_stores import FullStores
from keyhop.core.node.hosted import Hosted, HostedTick, HostedWake
from keyhop.core.node.intake import GatheringEnded, Intake, OfferEnded
from keyhop.core.node.leases import Leases
from keyhop.core.node.lifecycle import Lifecycle, PairTick
from keyhop.core.node.link import Links, LinkTick
from keyhop.core.node.linkstate import LinkStates, LinkStateTick
from keyhop.core.node.local import RecordsAged
from keyhop.core.node.pair import Pair
from keyhop.core.node.recovery import first_contact, recover
from keyhop.core.node.relay import Relay, RelayTick
from keyhop.core.node.routes import Routes
from keyhop.core.node.secrets import SecretAged, Secrets
from keyhop.core.node.sizes import Sizes
from keyhop.core.node.store import Snapshot
from keyhop.core.node.supply import Supply
from keyhop.core.node.tunnel import Tunnel, TunnelTick
from keyhop.core.node.vault import Vault


class Node:
    """Holds no bits, reads no clock, writes nothing: it decides, and its Output says what is to be done.

    Raises NotRunning if a part of the design is not wired here.
    `entropy(n)` gives n unpredictable bytes for nonces, incarnations and random IDs; never for key bits.
    `restored` says why this store is known to be an old copy, if it is. `wall_ahead_ns`: how far the clock by which key
    ages over restarts is ahead of `now`. `kem`: who has the bits of exchanges; None: there are none.
    """

    def __init__(
        self,
        settings: NodeSettings,
        design: Design,
        vault: Vault,
        entropy: Callable[[int], bytes],
        snapshot: Snapshot,
        *,
        start: int,
        now: int,
        restored: str = "",
        wall_ahead_ns: int = 0,
        kem: KeyExchange | None = None,
    ) -> None:
        context = Context(settings, vault, entropy, start, now, wall_ahead_ns)
        self.context = context
        # Another design deals out what the links of our own lease to it.
        self.design = answers = carrier(design)
        hosts = hosted(design)
        self.links = Links(context)
        sizes = Sizes(context, answers, follows=not hosts)
        self.intake = Intake(context, self.links, answers, sizes)
        self.leases = Leases(context, self.links, answers)
        self.exchanges = Exchanges(context, self.links, kem)
        self.supply = Supply(context, self.leases, answers, self.exchanges)
        self.supply.least_lease_bytes = sizes.least_lease_bytes
        self.secrets = Secrets(context, self.links)
        self.states = LinkStates(context, self.links, self.supply)
        self.routes = Routes(self.states, answers)
        self.tunnel = Tunnel(context, self.links, self.routes)
        self.relay = Relay(
            context, self.links, self.intake, self.leases, self.supply, self.routes, self.tunnel, answers
        )
        self.flows = Flows(context, self.links, self.relay.hops.on_path)
        self.bookings = Bookings(context, self.flows)
        self.stores = FullStores(context, self.links, self.leases, answers)
        self.lifecycle = Lifecycle(context, self.links, self.leases, self.supply, self.stores, sizes, answers)
        for neighbour in settings.neighbours:
            context.pairs[neighbour.node] = Pair(settings.node, neighbour.node, neighbour.link, direct=True)
        self._dispatch: dict[type, Callable[[Any], None]] = {
            events.PeerConnected: self.links.connected,
            events.PeerLost: self.links.lost,
            events.FrameArrived: self.links.arrived,
            events.BlockArrived: self.intake.arrived,
            events.BlockRepeated: self.intake.repeated,
            events.SecretLoaded: self._secret_loaded,
            events.ModuleReported: self._module_reported,
            events.KeysWanted: self._keys_wanted,
            events.KeysFetched: self.supply.fetched,
            events.RecordsFetched: self.supply.fetched_by_record,
            RecordsAged: self.supply.local.aged,
            events.SessionAsked: self.supply.session,
            events.StockLow: self._stock_low,
            events.LeaseCommitted: self.leases.committed,
            events.RequestEnded: self.supply.ended,
            events.Woke: self._woke,
            events.RestoreDeclared: self._restore_declared,
            events.AuditHead: self._audit_head,
            LinkTick: self.links.tick,
            PairTick: self.lifecycle.tick,
            SecretAged: self.secrets.aged,
            LinkStateTick: self.states.tick,
            TunnelTick: self.tunnel.tick,
            RelayTick: self.relay.tick,
            FlowTick: self.flows.tick,
            OfferEnded: self.intake.offer_ended,
            GatheringEnded: self.intake.gathering_ended,
        }
        self.hosted = Hosted(context, self.links, self.leases, self.supply, self.routes, design) if hosts else None
        self.lifecycle.hosts = self.intake.placing.one_run = hosts
        if not hosts:
            self.intake.rest_expires = self.stores.rest_expires
            self.intake.on_agreed = self.stores.agreed
        if self.hosted is not None:
            self._dispatch[HostedTick] = self.hosted.tick
            self._dispatch[HostedWake] = self.hosted.wake
        else:
            self.links.handlers[DesignMessage] = _no_design
        self.links.starts.found_restored = self._found_restored
        self.leases.on_lent.insert(0, self.secrets.lent)
        recover(context, snapshot, self.supply, self.secrets, self.links.starts)
        if restored:
            self._found_restored(restored, start)
        self.lifecycle.reserved = self.relay.pads.reserved
        self.relay.lent = self.lifecycle.top_up
        self.intake.on_key, self.exchanges.on_ready = self._fresh_key, self.supply.governed.serve
        self.supply.governed.can_name = lambda peer: peer in self.secrets.confirmed
        # Blocks that waited for others may not wait any longer.
        self.leases.on_asked = self.intake.propose
        self._share_links()
        self.supply.governed.guarantees.path = self.routes.rates_towards
        self.tunnel.on_made = self._pair_made
        for pair in context.pairs.values():
            self.lifecycle.watch(pair)
            self.tunnel.watch(pair)
        if self.hosted is not None:
            self.hosted.watch()
        self.states.watch()
        self.relay.watch()
        context.put(context.node_row())
        self._first = self._finish()

    def _share_links(self) -> None:
        """What is promised of our links: to streams of applications here, and to flows of others."""
        flows, pads, leases = self.flows, self.relay.pads, self.leases
        guarantees, reserved_bytes = self.supply.governed.guarantees, self.leases.reserved_bytes
        pads.alone = lambda pair: not self.supply.draws_on(pair.peer)
        pads.covered_bytes, pads.kept_bytes, pads.on_spent = flows.covered_bytes, flows.kept_bytes, flows.spend

        def kept(pair: Pair, *, at_once: bool = False) -> int:
            return flows.kept_bytes(pair, pads.under_way(pair), at_once=at_once) if flows.flows else 0

        def claimed(pair: Pair) -> int:
            return reserved_bytes(pair) + max(0, kept(pair, at_once=True) - pads.in_hand(pair))

        # What of it is leased as pads already, supply cannot have in any case.
        leases.reserved_bytes = lambda pair: reserved_bytes(pair) + max(0, kept(pair) - pads.in_hand(pair))
        guarantees.claimed_bytes = claimed
        leases.promised_bytes = guarantees.held_bytes
        guarantees.kept_bits = lambda pair: kept(pair) * 8
        guarantees.pad_bits = lambda pair: pads.in_hand(pair) * 8
        guarantees.asks(self.bookings)
        guarantees.serves(flows)
        self.bookings.edges = self.routes.edges
        self.relay.booked = self.bookings.route
        if self.hosted is not None:
            flows.closed = "this node runs another design than keyhop"

    def begin(self) -> Output:
        """What the start itself asks for: done before the first event."""
        first, self._first = self._first, Output()
        return first

    def step(self, event: events.Event | object, now: int, batch: Output | None = None) -> Output:
        """Takes one event in; what it asks for is added to `batch`, where one is given.

        Raises IllegalMove or AssertionError on a bug of ours: then the process must stop.
        """
        context = self.context
        if now > context.now:
            context.now = now
        context.out = Output() if batch is None else batch
        self._dispatch[type(event)](event)
        return self._finish()

    def complete(self, batch: Output) -> None:
        """Called once on all that is committed together: it gets its journal number. Nothing may be added after it."""
        if batch.save:
            self.context.journal += 1
            batch.save.append(Put(self.context.node_row()))

    def _finish(self) -> Output:
        context, out = self.context, self.context.out
        if context.touched or context.plain_outbox:
            self.links.frames.flush()
        context.flush_books()
        out.wake_at = context.wake_at
        return out

    # --- events of no single part -------------------------------------------------------------------------------------

    def _woke(self, event: events.Woke) -> None:
        for due in self.context.due():
            self._dispatch[type(due)](due)

    def _pair_made(self, pair: Pair) -> None:
        self.lifecycle.watch(pair)
        self.relay.nudge()

    def _keys_wanted(self, event: events.KeysWanted) -> None:
        self.supply.wanted(event)
        self.relay.nudge()
        peer = self.supply.directory.get(AppId(event.slave))
        if peer is not None and (pair := self.context.pairs.get(peer)) is not None:
            self.intake.propose(pair)

    def _fresh_key(self, pair: Pair) -> None:
        self.supply.serve(pair)
        # A lease that is wanted anyway shares the frame that says that the block is agreed.
        self.lifecycle.top_up(pair)
        self.relay.key_came(pair)
        self.states.stocked(pair)

    def _stock_low(self, event: events.StockLow) -> None:
        pair = self.context.pairs.get(event.peer)
        if pair is not None:
            self.lifecycle.look(pair)
            self.relay.nudge()
            self.intake.propose(pair)

    def _module_reported(self, event: events.ModuleReported) -> None:
        pair = self.context.pairs.get(event.peer)
        if pair is None:
            return
        reason = "" if event.state == "up" else event.reason or event.state
        if event.state != pair.module_state:
            code = "KH-1203" if event.state == "suspended" else "KH-1204"
            text = (
                f"quantum link to {pair.peer}: {reason}" if reason else f"quantum link to {pair.peer} gives key again"
            )
            self.context.notice(code if reason else "KH-1205", text, pair.peer)
            self.relay.nudge()
        pair.suspended, pair.module_state = reason, event.state
        pair.rate_bps, pair.period_ns = event.skr_bps, event.period_ns

    def _secret_loaded(self, event: events.SecretLoaded) -> None:
        first_contact(self.context, self.intake, event)

    def _audit_head(self, event: events.AuditHead) -> None:
        self.context.audit_head = event.head

    def _restore_declared(self, event: events.RestoreDeclared) -> None:
        self._found_restored("declared by the operator", self.context.start)

    def _found_restored(self, reason: str, start: int) -> None:
        """This store is an old copy of itself: what was leased is burnt, a new epoch begins, every link opens anew."""
        context = self.context
        context.start = max(context.start, start + 1)
        # The stored epoch plus one would come twice from two restores of one copy: the peers would not burn again.
        context.epoch, context.epoch_incarnation = context.start, context.incarnation
        self.links.starts.forget()
        context.notice("KH-5101", f"this node was restored from an old copy: {reason}; open keys and leases are burnt")
        for pair in context.pairs.values():
            self.links.burning.burn_leases(pair, "this node was restored")
            pair.compared = False
            for connection in list(pair.connections.values()):
                self.links.drop(pair, connection, "this node was restored")
        self.secrets.renew_all()


def _no_design(pair: Pair, message: DesignMessage) -> None:
    raise PeerError(f"{pair.peer} runs another design than our own: this node runs keyhop")
