"""How a report orders the metrics and writes their figures."""

from __future__ import annotations

from keyhop.comparison.metrics import METRICS, Metric


def ratio(value: float) -> str:
    """`98.2 %`; what is small keeps two digits."""
    percent = 100 * value
    if percent == 0:
        return "0 %"
    if abs(percent) >= 99.95 or abs(percent) >= 10:
        return f"{percent:.1f} %".replace("100.0 %", "100 %")
    return f"{percent:.2f} %" if abs(percent) >= 0.01 else f"{'< 0.01' if percent > 0 else '> -0.01'} %"


def brief(metric: str, value: float) -> str:
    """For an axis: `50 %`."""
    return words(metric, value).replace(".0 %", " %").replace(".00 %", " %")


def span(low: str, high: str) -> str:
    """`99.1–99.7 %`: a unit that both have stands once."""
    if low == high:
        return "±0"
    (one, _, unit), (other, _, same) = low.rpartition(" "), high.rpartition(" ")
    return f"{one}–{other} {unit}" if one and unit == same else f"{low} – {high}"


def duration(seconds: float) -> str:
    if seconds == 0:
        return "0"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            value = seconds / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{seconds:.0e} s"


def number(value: float) -> str:
    if value and abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(value_bytes: float) -> str:
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value_bytes >= factor:
            return f"{value_bytes / factor:.3g} {unit}"
    return f"{value_bytes:.0f} B"


SUCCESS, WASTE, FAIRNESS, COLLISIONS = "success", "waste", "fairness", "collision_rate"
P50, P99 = "latency_p50_s", "latency_p99_s"

TABLE = (
    SUCCESS,
    P50,
    P99,
    FAIRNESS,
    "path_utilisation",
    WASTE,
    "tag_overhead",
    "its_ratio",
    "messages_per_key",
    "relay_cost",
    COLLISIONS,
)
"""Side by side in the first table of each load, what is looked for first to the left; the others follow below it."""
PURE = frozenset({FAIRNESS, "least_share", "messages_per_key", "delivered_bps"})
"""Without a unit, and no share of a hundred either."""


def words(metric: str, value: float) -> str:
    found = METRICS.get(metric)
    match found.unit if found else "none":
        case "" if metric not in PURE:
            return ratio(value)
        case "s":
            return duration(value)
        case "B":
            return size(value)
    return number(value)


def title(metric: str) -> str:
    """`latency_p99_s` is `latency p99`."""
    return (
        metric.removesuffix("_s").removesuffix("_bit").removesuffix("_bytes").replace("_", " ").replace("its ", "ITS ")
    )


def known(metric: str) -> Metric:
    return METRICS[metric]
