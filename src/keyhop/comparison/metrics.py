"""What a run is judged by: every metric with its formula.

Letters are those of the ledger, summed over all ends (`docs/concepts.md`). None is "not applicable": a ratio of
nothing, never a nought. Requests that a design cannot serve at all count in no ratio but `unservable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Literal, NamedTuple

from keyhop.comparison.tally import Ledger, Path, Requests, Tally, ledger, tally
from keyhop.comparison.windows import violations
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.priority import CLASSES
from keyhop.simulator.record import Record

Value = float | None


def ratio(part: float, whole: float) -> Value:
    """None where there is no whole."""
    return part / whole if whole else None


def success(requests: Requests) -> Value:
    """Requests whose key, the same at both ends, both held within the deadline / requests."""
    return ratio(requests.supplied, requests.asked)


def blocking(requests: Requests) -> Value:
    """Refused or timed out / requests."""
    return ratio(requests.refused + requests.timed_out, requests.asked)


def refused(requests: Requests) -> Value:
    """Refused / requests: these are not in the latency."""
    return ratio(requests.refused, requests.asked)


def unequal(requests: Requests) -> Value:
    """Requests whose two ends got different keys / requests."""
    return ratio(requests.unequal, requests.asked)


def unservable(requests: Requests) -> Value:
    """Requests that the design cannot serve at all / all requests."""
    return ratio(requests.unservable, requests.asked + requests.unservable)


def rounding_waste(book: Ledger) -> Value:
    """O / G: handed out beyond what was asked for."""
    return ratio(book.O, book.G)


def collision_waste(book: Ledger) -> Value:
    """C / G."""
    return ratio(book.C, book.G)


def loss(book: Ledger) -> Value:
    """Y / G: lost because the ends differed."""
    return ratio(book.Y, book.G)


def expiry(book: Ledger) -> Value:
    """X / G: deleted by age or purge."""
    return ratio(book.X, book.G)


def waste(book: Ledger) -> Value:
    """(O + C + Y + X) / G."""
    return ratio(book.O + book.C + book.Y + book.X, book.G)


def key_utilisation(book: Ledger) -> Value:
    """D / (G - S at the end + S at the start), the stores being empty at the start. G and S are those of links."""
    return ratio(book.D, book.G - book.local_S)


def path_utilisation(book: Ledger) -> Value:
    """Sum over pairs of h x D / (G - S of the links on the paths and of those that relayed beside them): 1.0 is the
    ideal however many hops h the shortest path has; who goes a longer way spends more."""
    return ratio(book.path_ideal, book.path_consumed)


def sync_overhead(book: Ledger) -> Value:
    """A / D: key bits burnt on messages for each bit delivered."""
    return ratio(book.A, book.D)


def tag_overhead(book: Ledger) -> Value:
    """Tag bits of all messages, those from pre-shared key too / D."""
    return ratio(book.burnt, book.D)


def relay_cost(book: Ledger) -> Value:
    """R / D."""
    return ratio(book.R, book.D)


def derived(book: Ledger) -> Value:
    """F / (F + D): the part of derived and exchanged bits, which are no QKD key."""
    return ratio(book.F, book.F + book.D)


def messages_per_key(messages: int, requests: Requests) -> Value:
    """Messages between key managers / keys delivered at both ends."""
    return ratio(messages, requests.supplied)


def percentile(ordered: Sequence[int], percent: float) -> int | None:
    """Nearest rank: the smallest value that `percent` of a hundred do not exceed; None of nothing."""
    if not 0 < percent <= 100:
        raise ValueError(f"percentile {percent}: must be above 0 and at most 100")
    return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else None


def latency_s(latencies_ns: Sequence[int], percent: float) -> Value:
    """From asking to both ends holding the key, waiting included, of supplied requests alone; sorted input."""
    found = percentile(latencies_ns, percent)
    return None if found is None else found / NANOSECONDS


def collision_rate(collided: int, serves: int) -> Value:
    """Keys destroyed because both ends had taken them / keys taken at an end."""
    return ratio(collided, serves)


def shares(found: Tally) -> list[float]:
    """For each stream that asked: bits delivered / bits asked."""
    return [served.supplied_bits / served.asked_bits for served in found.by_stream.values() if served.asked_bits]


def jain(values: Sequence[float]) -> Value:
    """(sum x)² / (n x sum x²): 1 if all are equal, 1/n if one has all; None where nobody has anything."""
    return ratio(sum(values) ** 2, len(values) * sum(value * value for value in values))


def its_ratio(found: Tally) -> Value:
    """Bits supplied as information-theoretically secure / bits supplied."""
    return ratio(found.its_bits, found.supplied_bits)


def idle_reservation(record: Record) -> Value:
    """Bit-seconds reserved and unused / bit-seconds in stock."""
    return ratio(record.reserved_bit_ns, record.stock_bit_ns)


def resync_s(record: Record) -> Value:
    """The longest time from a first difference of the ends to their next equal key; None if they never differed."""
    return max(record.resync_ns) / NANOSECONDS if record.resync_ns else None


def exposure_bit_s(record: Record) -> float:
    """Bits used and still present, times the time they were."""
    return record.exposed_bit_ns / NANOSECONDS


def cpu_s_per_1000_keys(record: Record, requests: Requests) -> Value:
    """Processor time of all key managers / keys delivered x 1000; None where it was not measured."""
    return None if record.cpu_ns is None else ratio(record.cpu_ns / NANOSECONDS * 1000, requests.supplied)


class Metric(NamedTuple):
    """How a metric is read; `measure` gives the figures."""

    name: str
    unit: str
    better: Literal["high", "low", ""]
    """Empty: neither is."""
    sentence: str


class _Run(NamedTuple):
    record: Record
    tally: Tally
    book: Ledger


_Reading = tuple[Metric, Callable[[_Run], Value]]


def _requests(of: Callable[[Requests], Value]) -> Callable[[_Run], Value]:
    return lambda run: of(run.tally.total)


def _book(of: Callable[[Ledger], Value]) -> Callable[[_Run], Value]:
    return lambda run: of(run.book)


def _latency(percent: float) -> Callable[[_Run], Value]:
    return lambda run: latency_s(run.tally.latencies_ns, percent)


_READINGS: tuple[_Reading, ...] = (
    (Metric("success", "", "high", "keys at both ends within the deadline, of requests"), _requests(success)),
    (Metric("blocking", "", "low", "refused or timed out, of requests"), _requests(blocking)),
    (Metric("refused", "", "low", "refused, of requests"), _requests(refused)),
    (Metric("unequal", "", "low", "both ends got a key and not the same, of requests"), _requests(unequal)),
    (Metric("unservable", "", "", "cannot be served by this design, of all requests"), _requests(unservable)),
    (Metric("rounding_waste", "", "low", "O/G: handed out beyond the size asked"), _book(rounding_waste)),
    (Metric("collision_waste", "", "low", "C/G: destroyed because both ends took it"), _book(collision_waste)),
    (Metric("loss", "", "low", "Y/G: lost because the ends differed"), _book(loss)),
    (Metric("expiry", "", "low", "X/G: deleted by age or purge"), _book(expiry)),
    (Metric("waste", "", "low", "(O+C+Y+X)/G"), _book(waste)),
    (Metric("key_utilisation", "", "high", "D/(G-S): delivered, of what left the stores"), _book(key_utilisation)),
    (
        Metric("path_utilisation", "", "high", "h*D/(G-S where key was relayed): 1 at best over any hops"),
        _book(path_utilisation),
    ),
    (Metric("sync_overhead", "", "low", "A/D: key burnt on messages per bit delivered"), _book(sync_overhead)),
    (Metric("tag_overhead", "", "low", "all tag bits, pre-shared too, per bit delivered"), _book(tag_overhead)),
    (
        Metric("messages_per_key", "", "low", "messages between key managers per key delivered"),
        lambda run: messages_per_key(run.record.messages, run.tally.total),
    ),
    (Metric("relay_cost", "", "low", "R/D: spent on relay per bit delivered"), _book(relay_cost)),
    (Metric("derived", "", "", "F/(F+D): derived or exchanged, no QKD key"), _book(derived)),
    (Metric("latency_p50_s", "s", "low", "from asking to both ends holding the key, half of keys"), _latency(50)),
    (Metric("latency_p99_s", "s", "low", "the same, 99 of 100 keys"), _latency(99)),
    (Metric("latency_max_s", "s", "low", "the same, all keys"), _latency(100)),
    (
        Metric("collision_rate", "", "low", "collided keys, of keys taken"),
        lambda run: collision_rate(run.record.collided, run.record.serves),
    ),
    (
        Metric("fairness", "", "high", "Jain's index over delivered/asked of each stream"),
        lambda run: jain(shares(run.tally)),
    ),
    (
        Metric("least_share", "", "high", "delivered/asked of the stream that got least"),
        lambda run: min(shares(run.tally), default=None),
    ),
    (
        Metric("idle_reservation", "", "low", "reserved and unused, of stock over time"),
        lambda run: idle_reservation(run.record),
    ),
    (
        Metric("resync_s", "s", "low", "longest time from a difference to the next equal key"),
        lambda run: resync_s(run.record),
    ),
    (
        Metric("its_ratio", "", "high", "supplied as information-theoretically secure, of bits supplied"),
        lambda run: its_ratio(run.tally),
    ),
    (
        Metric("exposure_bit_s", "bit·s", "low", "used key that was still there, over time"),
        lambda run: exposure_bit_s(run.record),
    ),
    (
        Metric("peak_stored_bytes", "B", "low", "most bytes in the stores at once"),
        lambda run: float(run.record.peak_stored_bytes),
    ),
    (
        Metric("cpu_s_per_1000_keys", "s", "low", "processor time per 1000 keys"),
        lambda run: cpu_s_per_1000_keys(run.record, run.tally.total),
    ),
    (
        Metric("delivered_bps", "bit/s", "high", "keys that both ends hold, in bits per second of the run"),
        lambda run: run.tally.supplied_bits / run.record.seconds,
    ),
)

_BY_CLASS = (
    Metric("blocking", "", "low", "refused or timed out, of requests"),
    Metric("qos_violations", "", "low", "of the 1 s windows of its streams: too little, or a key too late"),
    Metric("qos_violations_admitted", "", "low", "the same, of streams that were admitted"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric, _ in _READINGS} | {
    f"{metric.name}_{name}": metric._replace(name=f"{metric.name}_{name}", sentence=f"{name}: {metric.sentence}")
    for metric in _BY_CLASS
    for name in CLASSES
}


def measure(record: Record, paths: Iterable[Path] = ()) -> dict[str, Value]:
    """Every metric of `METRICS`, in its order. `paths`: those the scenario was made for; they give the hops.

    Raises ValueError where the ledger does not balance or outcomes do not belong to the demands: such a run says
    nothing.
    """
    run = _Run(record, tally(record), ledger(record.books, paths))
    figures = {metric.name: read(run) for metric, read in _READINGS}
    kept, kept_admitted = violations(record), violations(record, admitted_only=True)
    for name in CLASSES:
        figures[f"blocking_{name}"] = blocking(run.tally.by_class.get(name, Requests()))
        figures[f"qos_violations_{name}"] = kept.get(name)
        figures[f"qos_violations_admitted_{name}"] = kept_admitted.get(name)
    return {name: figures[name] for name in METRICS}
