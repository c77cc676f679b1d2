"""A running node read into the records of its node API. Nothing here changes the node, and no bit is in reach."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from keyhop import __version__
from keyhop.core.model import NANOSECONDS, AppId
from keyhop.core.node.pair import Pair, Phase
from keyhop.daemon.measures import Measures, stored_bytes, totals
from keyhop.daemon.paths import Paths
from keyhop.wire.manage import (
    Application,
    Flows,
    Health,
    Link,
    LinkState,
    Pool,
    PoolKind,
    Route,
    Severity,
    StatusAnswer,
    Stock,
    shown_key_id,
)

if TYPE_CHECKING:
    from keyhop.daemon.app import NodeProcess
    from keyhop.daemon.devices import Module

EMULATED_DRIVER = "emulated"


class View:
    def __init__(self, process: NodeProcess, measures: Measures) -> None:
        self._process = process
        self._measures = measures
        self.since: dict[str, tuple[LinkState, float]] = {}
        """Link -> its state, and since when on the monotonic clock; kept by who looks regularly."""

    # --- health -------------------------------------------------------------------------------------------------------

    def unready(self) -> tuple[str, ...]:
        """Why applications are not served; empty if they are."""
        process = self._process
        if not process.started:
            return ("the node has not started yet",)
        reasons = []
        if process.driver.failed.done():
            reasons.append(f"the store or the node failed: {process.driver.failed.result()}")
        elif not process.ready:
            reasons.append("the node is stopping")
        if process.audit is not None and process.audit.failure:
            reasons.append(process.audit.failure)
        neighbours = [pair for pair in process.node.context.pairs.values() if pair.direct]
        if neighbours and not any(pair.is_hop for pair in neighbours) and not self._can_supply():
            reasons.append("all links are down")
        return tuple(reasons)

    def _can_supply(self) -> bool:
        """Leases in hand are good without any link; and so are pairs of applications at this very node."""
        pairs = self._process.node.context.pairs.values()
        return any(pair.compared and pair.stock.left for pair in pairs)

    def degraded(self) -> tuple[str, ...]:
        """What is not as it should be, one sentence each."""
        reasons = list(self.unready())
        for alarm in self._process.alarms.all():
            if alarm.state == "raised" and alarm.severity is not Severity.WARNING and alarm.summary not in reasons:
                reasons.append(f"{alarm.object}: {alarm.summary} ({alarm.code})")
        return tuple(reasons)

    def status(self) -> StatusAnswer:
        process = self._process
        links, reasons, unready = self.links(), self.degraded(), self.unready()
        tallies = process.counter.tallies.values()
        return StatusAnswer(
            node=process.file.node.id,
            name=process.file.node.kme_id,
            version=__version__,
            design=process.file.design,
            health=Health.DEGRADED if reasons else Health.HEALTHY,
            reasons=reasons,
            ready=not unready,
            emulated=any(link.emulated for link in links),
            started_at=datetime.fromtimestamp(process.started_at, UTC),
            uptime_s=round((time.monotonic_ns() - process.started_ns) / NANOSECONDS, 3),
            links_up=sum(link.state is LinkState.UP for link in links),
            links_total=len(links),
            applications=len(process.file.applications),
            keys_delivered=sum(sum(tally.keys.values()) for tally in tallies),
            keys_refused=sum(sum(tally.refused.values()) for tally in tallies),
            keys_per_s=_rounded(self._measures.keys_per_s()),
            stored_bytes=sum(pool.stored_bytes for pool in self.pools()),
            alarms_active=sum(process.alarms.active().values()),
            audit_head="" if process.audit is None else process.audit.head[1],
            etsi014_address=f"{process.address[0]}:{process.address[1]}",
        )

    # --- links and pools ----------------------------------------------------------------------------------------------

    def links(self) -> tuple[Link, ...]:
        return tuple(self.link(module) for module in self._process.modules.values())

    def link(self, module: Module) -> Link:
        process = self._process
        own, peer = process.file.node.id, module.entry.to
        pair = process.node.context.pairs[peer]
        state, reason, alarm = self.state(module, pair)
        report, rates = module.report, self._measures.rates(peer)
        stock = tuple(self._stock(pair, owner) for owner in sorted((own, peer)))
        known, since_s = self.since.get(module.link, (None, 0.0))
        return Link(
            id=module.link,
            ends=(own, peer) if own < peer else (peer, own),
            peer=peer,
            state=state,
            reason=reason,
            alarm=alarm,
            emulated=module.entry.driver == EMULATED_DRIVER,
            driver=module.entry.driver,
            qber=None if report is None else report.qber_ratio,
            skr_bps=None if report is None else report.skr_bps,
            net_bps=None if rates is None else _rounded(rates.net_bps),
            block_period_s=None if report is None else report.block_period_s,
            stock=stock,
            stored_bytes=sum(one.stored_bytes for one in stock),
            capacity_bytes=sum(one.capacity_bytes for one in stock),
            threshold_bytes=self._threshold(pair),
            age_s=round(time.monotonic() - since_s, 3) if known is state else 0.0,
        )

    def state(self, module: Module, pair: Pair) -> tuple[LinkState, str, str]:
        """(state, why it is not up, code of the alarm about it)."""
        if not pair.is_hop:
            peer = pair.peer
            if any(connection.phase is not Phase.OPEN for connection in pair.connections.values()):
                return LinkState.OPENING, f"the key managers prove themselves to each other, {peer} and this one", ""
            alarm = next((c for c in ("KH-1302", "KH-1303", "KH-1201") if self._process.alarms.is_active(c, peer)), "")
            why = self._process.peers.trouble.get(peer, "")
            return LinkState.DOWN, f"key manager {peer} is not connected" + (f": {why}" if why else ""), alarm
        report = module.report
        if report is None:
            return LinkState.SUSPENDED, "its module has not reported yet", ""
        if report.state != "up":
            alarm = "KH-1203" if report.state == "suspended" else "KH-1204"
            return LinkState.SUSPENDED, report.reason or f"its module is {report.state}", alarm
        return LinkState.UP, "", ""

    def _stock(self, pair: Pair, owner: str) -> Stock:
        run = pair.own_key if owner == pair.own else pair.their_key
        return Stock(
            owner=owner,
            stored_bytes=stored_bytes(pair, run),
            capacity_bytes=self._process.node.context.settings.stock_limit_bytes,
            oldest_age_s=_rounded(self._measures.oldest_age_s(run, time.monotonic())),
        )

    def _threshold(self, pair: Pair) -> int:
        """Below it a link has less than the forecast asks for, and a relayed pool is filled."""
        node = self._process.node
        if pair.direct:
            return node.supply.wanted_bytes(pair)
        seconds = node.relay.relay_ns.get(pair.peer, NANOSECONDS) / NANOSECONDS
        return node.design.refill.marks(node.supply.demand(pair), seconds)[0]

    def pools(self) -> tuple[Pool, ...]:
        pairs = self._process.node.context.pairs.values()
        local = self._local_pool()
        return (*map(self._pool, pairs), *((local,) if local is not None else ()))

    def pools_with(self, peer: str) -> tuple[Pool, ...]:
        return tuple(pool for pool in self.pools() if pool.peer == peer)

    def _pool(self, pair: Pair) -> Pool:
        rates, sums = self._measures.rates(pair.peer), totals(pair)
        limit = self._process.node.context.settings.stock_limit_bytes
        following = stored_bytes(pair, pair.their_key)
        pads = pair.pads.total() + sum(high - low for low, high in self._process.node.relay.pads.reserved(pair))
        ages = [self._measures.oldest_age_s(run, time.monotonic()) for run in (pair.own_key, pair.their_key)]
        return Pool(
            peer=pair.peer,
            kind=PoolKind.LINK if pair.direct else PoolKind.RELAYED,
            stored_bytes=stored_bytes(pair, pair.own_key) + following,
            leasable_bytes=pair.own_key.untouched,
            leased_bytes=pair.stock.left + pads,
            following_bytes=following,
            threshold_bytes=self._threshold(pair),
            capacity_bytes=2 * limit,
            oldest_age_s=_rounded(max((age for age in ages if age is not None), default=None)),
            in_bps=None if rates is None else _rounded(rates.taken_in_bps),
            out_bps=None if rates is None else _rounded(rates.used_bps),
            flows=Flows(
                in_bytes=sums.taken_in,
                delivered_bytes=sums.delivered,
                relayed_bytes=sums.relayed,
                authentication_bytes=sums.authentication,
                wasted_bytes=sums.wasted,
                expired_bytes=sums.expired,
                lost_bytes=sums.lost,
            ),
        )

    def _local_pool(self) -> Pool | None:
        """Keys for two applications at this node: drawn when asked for, kept until fetched."""
        supply = self._process.node.supply
        if not supply.local.run.append:
            return None
        stored = sum(row.length for row in supply.local.records.values())
        drawn = supply.local.run.append
        return Pool(
            peer=self._process.file.node.id,
            kind=PoolKind.LOCAL,
            stored_bytes=stored,
            leasable_bytes=0,
            leased_bytes=0,
            flows=Flows(in_bytes=drawn, delivered_bytes=drawn - stored),
        )

    # --- routes -------------------------------------------------------------------------------------------------------

    def paths(self) -> Paths:
        """What is known of all links now."""
        process = self._process
        own = process.file.node.id
        names: dict[tuple[str, str], str] = {}
        troubles: dict[tuple[str, str], str] = {}
        for module in process.modules.values():
            peer = module.entry.to
            ends = (own, peer) if own < peer else (peer, own)
            names.setdefault(ends, module.link)
            pair = process.node.context.pairs[peer]
            if pair.suspended:
                troubles[ends] = pair.suspended
        routes = process.node.routes
        return Paths(list(routes.edges()), routes.policy, names, troubles=troubles)

    def destinations(self) -> set[str]:
        """Key managers that applications here may share keys with."""
        return self._process.node.relay.wanted()

    def known_nodes(self) -> set[str]:
        """Every node this one knows of, itself included."""
        node = self._process.node
        return {str(node.context.node)} | self.paths().nodes() | set(node.context.pairs) | set(node.states.known)

    def locate(self, name: str) -> str | None:
        """The node that a name stands for: its own, or that of the application of this name; None: unknown."""
        if name in self.known_nodes():
            return name
        return self._process.node.supply.directory.get(AppId(name))

    def routes(self) -> tuple[Route, ...]:
        own, paths = self._process.file.node.id, self.paths()
        return tuple(paths.best(own, to) for to in sorted(self.known_nodes() - {own}))

    def key_path(self, source: str, destination: str) -> tuple[str, ...]:
        """Nodes that a key between this one and another crossed: as its last relayed batch did, if there was any."""
        if source == destination:
            return (source,)
        taken = self._process.node.relay.hops.paths.get((source, destination))
        if taken is not None:
            return taken
        other = destination if source == self._process.file.node.id else source
        pair = self._process.node.context.pairs.get(other)
        return (source, destination) if pair is not None and pair.direct else ()

    # --- applications -------------------------------------------------------------------------------------------------

    def applications(self) -> tuple[Application, ...]:
        return tuple(self._applications(entry.id for entry in self._process.file.applications))

    def application(self, name: str) -> Application | None:
        known = any(entry.id == name for entry in self._process.file.applications)
        return next(iter(self._applications([name]))) if known else None

    def _applications(self, names: Iterable[str]) -> Iterable[Application]:
        process, own = self._process, self._process.file.node.id
        peers = {entry.id: entry.peers for entry in process.file.applications}
        now_ns = time.monotonic_ns()
        for name in names:
            tally = process.counter.tallies.get(name)
            expires = process.identities.expiries.get(name)
            if tally is None:
                yield Application(id=name, node=own, peers=peers[name], certificate_expires_at=expires)
                continue
            node = process.node.supply.directory.get(AppId(tally.last_peer))
            ends = (node, own) if tally.last_role == "dec" else (own, node)
            yield Application(
                id=name,
                node=own,
                peers=peers[name],
                delivered_enc=tally.keys["enc"],
                delivered_dec=tally.keys["dec"],
                delivered_bytes=sum(tally.bytes.values()),
                refused=sum(tally.refused.values()),
                last_refusal=tally.last_refusal,
                last_key_id=shown_key_id(tally.last_id),
                last_key_age_s=round((now_ns - tally.last_ns) / NANOSECONDS, 3) if tally.last_id else None,
                last_peer=tally.last_peer,
                last_path=self.key_path(str(ends[0]), str(ends[1])) if node is not None else (),
                certificate_expires_at=expires,
            )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
