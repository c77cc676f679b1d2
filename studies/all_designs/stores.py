"""What sizes of key to prepare, and in what ratio: DDKA leaves it open, the survey asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from keyhop.core.designs import DESIGNS, Design
from keyhop.core.model import NANOSECONDS
from keyhop.simulator import runs
from keyhop.simulator.record import Verdict
from keyhop.simulator.workloads import scenario
from studies.all_designs import charts, variants
from studies.all_designs.beside import Beside

WORKLOADS = {"W1": "all of 256 bits", "W2": "four sizes, three of them stored", "W3": "any multiple of 8 bits"}
LOADS = (0.5, 0.8, 1.2)
SEEDS = (1, 2)
SECONDS = 100.0
RATE_BPS = 10_000
ENDS = ("alice", "bob")


class Found(NamedTuple):
    success: float
    """Without those that need no key (level 0)."""
    waste: float
    """What was handed out beyond what was asked for, of all that was handed out."""
    wait_s: float
    """Median, of what was supplied."""


def preparing(loads: Sequence[float] = LOADS, seeds: Sequence[int] = SEEDS, seconds: float = SECONDS) -> Beside:
    designs = {"equal": DESIGNS["ddka"], "demand": variants.VARIANTS[variants.BY_DEMAND]}
    found = {
        (workload, load, split): _found(design, workload, load, seeds, seconds)
        for workload in WORKLOADS
        for load in loads
        for split, design in designs.items()
    }
    said = []
    for workload, sizes in WORKLOADS.items():
        for load in loads:
            equal, demand = found[workload, load, "equal"], found[workload, load, "demand"]
            said.append(
                f"{workload} ({sizes}) at load {load:g}: success {100 * equal.success:.0f} % equal, "
                f"{100 * demand.success:.0f} % by demand; waste {100 * equal.waste:.0f} %, {100 * demand.waste:.0f} %; "
                f"median wait {equal.wait_s:.2f} s, {demand.wait_s:.2f} s"
            )
    return Beside(
        "DDKA 2022: equal shares of bits for the five sizes, or shares by demand",
        "how many keys of each size to prepare is not said; the survey names it as open",
        "; ".join(said),
        "open",
        f"One link of {RATE_BPS // 1000} kbit/s. By demand each end deals the key of its own direction in shares of "
        "the bits that its applications asked for of late, each request counted at the smallest size that fits it. "
        "Both marks, the order of requests and the joining of several keys are the same.",
        charts.lines(
            "success by how sizes are prepared", "load", "success",
            {
                f"{workload}, {split}": [(load, found[workload, load, split].success) for load in loads]
                for workload in WORKLOADS
                for split in designs
            },
        ),
    )  # fmt: skip


def _found(design: Design, workload: str, load: float, seeds: Sequence[int], seconds: float) -> Found:
    asked = supplied = given_bits = beyond_bits = 0
    waits: list[float] = []
    for seed in seeds:
        made = scenario(workload, [ENDS], RATE_BPS, load, seconds, seed)
        record = runs.run(design, {frozenset(ENDS): RATE_BPS}, made, seconds=seconds, seed=seed)
        settled_ns = round(seconds * NANOSECONDS * variants.SETTLING)
        for demand, outcome in zip(record.scenario.demands, record.outcomes, strict=True):
            if demand.at_ns < settled_ns or outcome.verdict is Verdict.UNSERVABLE:
                continue
            asked += 1
            if outcome.verdict is Verdict.SUPPLIED:
                supplied += 1
                waits.append((outcome.done_ns - demand.at_ns) / NANOSECONDS)
        given_bits += sum(book.D + book.O for book in record.books)
        beyond_bits += sum(book.O for book in record.books)
    return Found(supplied / max(1, asked), beyond_bits / max(1, given_bits), median(waits) if waits else 0.0)
