"""How long requests of each class wait for relayed key, over load (QKRA and HHQA), beside one queue for all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from keyhop.core.composed.line import LineSettings
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.model import NANOSECONDS
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Record, Scenario, Stream, Verdict
from studies.all_designs import charts, variants
from studies.all_designs.beside import Beside

LOADS = (0.5, 0.7, 0.9, 1.0, 1.2)
SEEDS = (1, 2)
SECONDS = 210.0
KEY_BITS = 256
RATE_BPS = 10 * KEY_BITS
STOCK_BITS = 2 * RATE_BPS
"""Two seconds of key: with a larger store nobody waits at a load below 1, and no queue has anything to order."""
BEGINS_S, PATIENCE_S = 10.0, 60.0
"""Stores are full when requests begin; whoever asks last is served or given up within the run."""
PAIR = ("A", "C")
LINKS = {frozenset("AB"): RATE_BPS, frozenset("BC"): RATE_BPS}

SHARES = {"guaranteed": 0.2, "prioritised": 0.3, "best_effort": 0.5}
"""Of the demand, as in W5."""
UNRESERVED = {"guaranteed": "prioritised", "prioritised": "prioritised", "best_effort": "best_effort"}
"""The same requests where nobody reserves: what the two queues alone do."""
WAITS_S = 0.01
"""Below this hardly anybody waits, and there is no order to look for."""


class Waits(NamedTuple):
    """Of one design at one load, all seeds together."""

    mean_s: dict[str, float]
    """By class; without those that were given up."""
    given_up: int
    idle: float
    """Share of all bit-seconds in stock that were reserved and not used."""


def hhqa(loads: Sequence[float] = LOADS, seeds: Sequence[int] = SEEDS, seconds: float = SECONDS) -> Beside:
    """Mean time from a request to both ends holding the key; neither way nor work takes time."""
    qos, one_queue = DESIGNS["qos"], variants.VARIANTS[variants.ONE_QUEUE]
    two = {load: _waits(qos, UNRESERVED, load, seeds, seconds) for load in loads}
    one = {load: _waits(one_queue, UNRESERVED, load, seeds, seconds) for load in loads}
    three = {load: _waits(qos, {name: name for name in SHARES}, load, seeds, seconds) for load in loads}
    everybody = {load: fmean(waits.mean_s.values()) for load, waits in one.items()}
    ordered = {
        load: two[load].mean_s["prioritised"] < everybody[load] < two[load].mean_s["best_effort"]
        for load in loads
        if everybody[load] > WAITS_S
    }
    first = all(
        waits.mean_s["guaranteed"] <= min(waits.mean_s["prioritised"], waits.mean_s["best_effort"])
        for waits in three.values()
    )
    series: dict[str, charts.Points] = {
        "best effort": [(load, waits.mean_s["best_effort"]) for load, waits in two.items()],
        "one queue (FIFO)": list(everybody.items()),
        "prioritised": [(load, waits.mean_s["prioritised"]) for load, waits in two.items()],
        "prioritised, reserved": [(load, waits.mean_s["prioritised"]) for load, waits in three.items()],
        "guaranteed": [(load, waits.mean_s["guaranteed"]) for load, waits in three.items()],
    }
    return Beside(
        "QoS-supported KM 2011 (QKRA, HHQA): delay by class over load",
        "simulation shows an advantage over no QoS; figures not in reach",
        "; ".join(
            f"load {load:g}: prioritised {two[load].mean_s['prioritised']:.3f} s, one queue {everybody[load]:.3f} s, "
            f"best effort {two[load].mean_s['best_effort']:.3f} s ({two[load].given_up} given up); with reservation "
            f"guaranteed {three[load].mean_s['guaranteed']:.3f} s, prioritised "
            f"{three[load].mean_s['prioritised']:.3f} s, {100 * three[load].idle:.0f} % of stock reserved and idle"
            for load in loads
        ),
        ("shape" if all(ordered.values()) and first else "no") if ordered else "not decided",
        f"Line of three nodes, 10 keys of {KEY_BITS} bits a second on each link, stores of two seconds, Poisson "
        "requests. Their network, traffic and figures are not known, so that no number can be compared, only the order "
        "of classes; and only where a queue forms. What is reserved and idle is missing to others: at loads below 1 "
        "prioritised requests then wait longer than in one queue without reservation.",
        charts.lines(
            "delay by class", "load", "mean s to the key (log)", series, logarithmic=(False, True)
        ),
    )  # fmt: skip


def _waits(design: Design, classes: dict[str, str], load: float, seeds: Sequence[int], seconds: float) -> Waits:
    waited: dict[str, list[float]] = {name: [] for name in SHARES}
    given_up = reserved = stock = 0
    for seed in seeds:
        record = _run(design, classes, load, seed, seconds)
        reserved += record.reserved_bit_ns
        stock += record.stock_bit_ns
        for demand, outcome in zip(record.scenario.demands, record.outcomes, strict=True):
            if outcome.verdict is Verdict.SUPPLIED:
                waited[demand.service_class].append((outcome.done_ns - demand.at_ns) / NANOSECONDS)
            else:
                given_up += 1
    return Waits({name: fmean(times) for name, times in waited.items() if times}, given_up, reserved / max(1, stock))


def _run(design: Design, classes: dict[str, str], load: float, seed: int, seconds: float) -> Record:
    streams = tuple(
        Stream(name, *PAIR, round(load * RATE_BPS * share), KEY_BITS, classes[name]) for name, share in SHARES.items()
    )
    asked: list[tuple[int, Stream]] = []
    for stream in streams:
        draw = random.Random(f"queues {seed} {stream.name}")  # noqa: S311 no key comes of it
        at_s = BEGINS_S
        while (at_s := at_s + draw.expovariate(stream.rate_bps / KEY_BITS)) < seconds - PATIENCE_S:
            asked.append((round(at_s * NANOSECONDS), stream))
    demands = tuple(
        Demand(number, at, one.name, *PAIR, KEY_BITS, round(PATIENCE_S * NANOSECONDS), one.service_class)
        for number, (at, one) in enumerate(sorted(asked))
    )
    scenario = Scenario(streams, demands, block_ns=NANOSECONDS)
    return Arena(design, LINKS, scenario, seed=seed, delay_ns=0, line_settings=_small).run(seconds)


def _small(node: str, peer: str, rate_bps: int, distant: bool) -> LineSettings:
    """No tags, as in the published reckoning: what waits then waits for the queue alone."""
    return LineSettings(rate_bps=rate_bps, capacity_bits=STOCK_BITS, tag_bits=0)
