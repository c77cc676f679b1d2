"""What Prometheus may ask: made from plain counters at the moment of the question, so that the hot path pays nothing.

Base units throughout: bytes, seconds, ratios. Labels are bounded by the configuration; none ever holds a key ID or a
pair of applications.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from itertools import accumulate, product
from typing import TYPE_CHECKING

from prometheus_client import GCCollector, ProcessCollector
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from keyhop import __version__
from keyhop.core.model import Refusal
from keyhop.core.node.ledger import Account
from keyhop.daemon.live import Live
from keyhop.daemon.routes import DURATION_BOUNDS_NS, Series
from keyhop.daemon.supply.tallies import ETSI014
from keyhop.wire.manage import LinkState, PoolKind

if TYPE_CHECKING:
    from keyhop.daemon.app import NodeProcess


class NodeCollector(Collector):
    def __init__(self, process: NodeProcess, live: Live) -> None:
        self._process = process
        self._live = live

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would ask for all values only to learn their names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "keyhop_build_info", "Version of this node.", labels=("version", "python", "revision")
        )
        build.add_metric((__version__, platform.python_version(), ""), 1)
        yield build
        yield from self._alarms()
        if not self._process.started:
            return
        yield from self._links()
        yield from self._pools()
        yield from self._supply()
        yield from self._requests()
        yield from self._relay()
        yield from self._audit_and_store()

    def _alarms(self) -> Iterator[Metric]:
        active = GaugeMetricFamily("keyhop_alarms_active", "Alarms that are raised.", labels=("severity",))
        for severity, count in self._process.alarms.active().items():
            active.add_metric((severity.value,), count)
        yield active

    def _links(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("keyhop_link_up", "1 if the link is open and gives key.", labels=("link",))
        state = StateSetMetricFamily("keyhop_link_state", "State of the link.", labels=("link",))
        qber = GaugeMetricFamily("keyhop_link_qber_ratio", "Quantum bit error rate.", labels=("link",))
        key = CounterMetricFamily(
            "keyhop_link_secret_key_bytes",
            "Key delivered by the quantum layer; its rate times 8 is the SKR.",
            labels=("link",),
        )
        for link in self._live.view.links():
            up.add_metric((link.id,), int(link.state is LinkState.UP))
            state.add_metric((link.id,), {one.value: one is link.state for one in LinkState})
            if link.qber is not None:
                qber.add_metric((link.id,), link.qber)
        for module in self._process.modules.values():
            key.add_metric((module.link,), module.bytes)
        yield from (up, state, qber, key)

    def _pools(self) -> Iterator[Metric]:
        labels = ("link", "kind")
        stored = GaugeMetricFamily("keyhop_pool_stored_bytes", "Key in stock here, leased or not.", labels=labels)
        reserved = GaugeMetricFamily("keyhop_pool_reserved_bytes", "Key leased and not used yet.", labels=labels)
        capacity = GaugeMetricFamily(
            "keyhop_pool_capacity_bytes", "Stock above which no key is taken in.", labels=labels
        )
        threshold = GaugeMetricFamily("keyhop_pool_threshold_bytes", "Stock below which key is short.", labels=labels)
        age = GaugeMetricFamily("keyhop_pool_oldest_key_age_seconds", "Age of the oldest key in stock.", labels=labels)
        expired = CounterMetricFamily("keyhop_pool_expired_bytes", "Key destroyed by age.", labels=labels)
        lost = CounterMetricFamily("keyhop_pool_lost_bytes", "Key burnt or missing at one end.", labels=labels)
        families: list[GaugeMetricFamily | CounterMetricFamily] = [
            stored, reserved, capacity, threshold, age, expired, lost,
        ]  # fmt: skip
        for pool in self._live.view.pools():
            name = (self._pool_name(pool.peer, pool.kind), pool.kind.value)
            for family, value in zip(
                families,
                (
                    pool.stored_bytes,
                    pool.leased_bytes,
                    pool.capacity_bytes,
                    pool.threshold_bytes,
                    pool.oldest_age_s,
                    pool.flows.expired_bytes,
                    pool.flows.lost_bytes,
                ),
                strict=True,
            ):
                if value is not None:
                    family.add_metric(name, value)
        yield from families

    def _pool_name(self, peer: str, kind: PoolKind) -> str:
        """A pool of a neighbour is named after the link; any other after its two ends."""
        if kind is PoolKind.LINK:
            return self._process.links_to[peer]
        return "-".join(sorted((self._process.file.node.id, peer)))

    def _supply(self) -> Iterator[Metric]:
        labels = ("interface", "role")
        keys = CounterMetricFamily("keyhop_keys_delivered", "Keys given to applications.", labels=labels)
        size = CounterMetricFamily("keyhop_key_delivered_bytes", "The same in bytes.", labels=labels)
        counter = self._process.counter
        doors = sorted({ETSI014, *(interface for interface, _ in counter.keys)})
        for door, role in product(doors, ("enc", "dec")):
            keys.add_metric((door, role), counter.keys[door, role])
            size.add_metric((door, role), counter.bytes[door, role])
        refused = CounterMetricFamily("keyhop_requests_refused", "Requests refused, by reason.", labels=("reason",))
        for reason in Refusal:
            refused.add_metric((reason.value,), self._process.counter.refused[reason])
        yield from (keys, size, refused)

    def _requests(self) -> Iterator[Metric]:
        door, server = self._process.door, self._process.server
        requests = CounterMetricFamily(
            "keyhop_requests", "Requests answered, by status code.", labels=("interface", "method", "code")
        )
        duration = HistogramMetricFamily(
            "keyhop_request_duration_seconds", "From the whole request to its answer.", labels=("interface", "method")
        )
        for operation, series in door.series.items():
            for code, count in sorted(series.codes.items()):
                requests.add_metric((ETSI014, operation.value, str(code)), count)
            duration.add_metric((ETSI014, operation.value), *_histogram(series))
        for code, count in sorted(server.refused.codes.items()):
            requests.add_metric((ETSI014, "none", str(code)), count)
        yield from (requests, duration)

    def _relay(self) -> Iterator[Metric]:
        node, counters = self._process.node, self._process.node.context.counters
        hops = CounterMetricFamily("keyhop_relay_hops", "Batches handed on for others, re-encrypted for the next hop.")
        hops.add_metric((), counters.get("relay_hops", 0))
        failures = CounterMetricFamily("keyhop_relay_failures", "Batches that died, by where.", labels=("reason",))
        failures.add_metric(("given_up",), counters.get("batches_given_up", 0))
        failures.add_metric(("refused",), counters.get("batches_refused", 0))
        spent = CounterMetricFamily("keyhop_relay_key_spent_bytes", "Key of links used up as pads.", labels=("link",))
        mismatches = CounterMetricFamily(
            "keyhop_pool_sync_mismatches", "Blocks and leases on which the two ends disagree.", labels=("link",)
        )
        booked = GaugeMetricFamily(
            "keyhop_flow_booked_bps", "Rate that guaranteed flows have booked of a link, in bit/s.", labels=("link",)
        )
        refusals = CounterMetricFamily(
            "keyhop_flow_refusals", "Guaranteed flows of others that a link could not take, or not any more.",
            labels=("link",),
        )  # fmt: skip
        totals = self._process.alarms.totals
        for peer, link in self._process.links_to.items():
            pair = node.context.pairs[peer]
            spent.add_metric((link,), sum(run.book[Account.R] for run in pair.runs.values()))
            mismatches.add_metric((link,), sum(totals[code, f"link {link}"] for code in ("KH-1103", "KH-2302")))
            booked.add_metric((link,), node.flows.booked_bps(peer))
            refusals.add_metric((link,), node.flows.refused.get(peer, 0))
        changes = CounterMetricFamily("keyhop_route_changes", "Routes that took another path.")
        changes.add_metric((), self._live.route_changes)
        unreachable = GaugeMetricFamily(
            "keyhop_route_unreachable_pairs", "Nodes that keys are wanted for, without path."
        )
        unreachable.add_metric((), len(self._live.unreachable))
        yield from (hops, failures, spent, mismatches, booked, refusals, changes, unreachable)

    def _audit_and_store(self) -> Iterator[Metric]:
        records = CounterMetricFamily("keyhop_audit_records", "Lines of the audit chain.", labels=("sink",))
        failures = CounterMetricFamily("keyhop_audit_failures", "Times it could not be written.", labels=("sink",))
        if self._process.audit is not None:
            records.add_metric(("file",), self._process.audit.head[0])
            failures.add_metric(("file",), self._live.audit_failures)
        sealed = GaugeMetricFamily("keyhop_store_sealed", "1 while the store waits to be unsealed.")
        sealed.add_metric((), 0)
        expiry = GaugeMetricFamily(
            "keyhop_certificate_expiry_timestamp_seconds",
            "When a certificate of this node ends.",
            labels=("certificate",),
        )
        for name, (_, ends) in self._process.certificates.items():
            expiry.add_metric((name,), ends.timestamp())
        yield from (records, failures, sealed, expiry)


def _histogram(series: Series) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets and the sum in seconds."""
    counts = list(accumulate(series.buckets))
    bounds = [str(bound / 1e9) for bound in DURATION_BOUNDS_NS]
    return list(zip([*bounds, "+Inf"], map(float, counts), strict=True)), series.total_ns / 1e9


class Exposition:
    """The page at `/metrics`."""

    def __init__(self, process: NodeProcess, live: Live) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(NodeCollector(process, live))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """(body, Content-Type): OpenMetrics where it is asked for, else the older text."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
