"""What is run, quick and full, and the figures of its rows by name."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from keyhop.comparison import report, sweep
from keyhop.comparison.case import Grid, Row, Value
from keyhop.comparison.executors import Processes
from keyhop.comparison.plan import LOADS
from keyhop.comparison.progress import Progress
from keyhop.comparison.statistics import Estimate, difference, estimate
from keyhop.core.designs import DESIGNS
from studies.all_designs import variants

BASE = tuple(name for name in DESIGNS if "~" not in name)

AMPLE = 0.05
"""A load at which a store never runs dry: else both ends take the last keys of it, whatever the rule (H3)."""


CITIES = ("tokyo_2010", "secoqc_vienna_2008", "ukqn_backbone")
"""Networks that were built, of 4, 6 and 10 nodes: a run takes about a second."""
COUNTRY = "nsfnet_14"
"""268 nodes with the relays on its long spans."""
COUNTRY_SECONDS = 100.0
"""At most: a run of one design takes from 5 s to a minute of processor, against one second in a city."""
WIDE_SEEDS = 3
WIDE_LOADS = (0.8, 1.2)
CITY_WORKLOADS, COUNTRY_WORKLOADS = ("W2", "W5"), ("W2",)
"""No W5 across the country: messages alone take longer there than the 0.1 s in which a guaranteed key is due."""


class Extent(NamedTuple):
    """How much of everything."""

    name: str
    seconds: float
    seeds: tuple[int, ...]
    loads: tuple[float, ...]
    workloads: tuple[str, ...]
    places: tuple[str, ...]
    omegas: tuple[float, ...]


QUICK = Extent("quick", 30.0, (1, 2, 3), (0.5, 1.2), ("W2", "W3", "W5", "W6"), ("p2p",), (0.0, 0.7, 0.86, 1.0))
FULL = Extent(
    "full",
    600.0,
    tuple(range(1, 21)),
    LOADS,
    ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8"),
    ("p2p", "line3"),
    variants.OMEGAS,
)


def grids(extent: Extent) -> dict[str, tuple[Grid, str]]:
    """Name -> grid and runner."""

    def grid(
        designs: Iterable[str],
        workloads: tuple[str, ...],
        loads: tuple[float, ...],
        places: tuple[str, ...] = ("p2p",),
    ) -> Grid:
        return Grid(tuple(designs), workloads, loads, places, extent.seeds, extent.seconds)

    few = tuple(dict.fromkeys((0.5, max(extent.loads))))
    sets = (variants.SAME_END, *(f"qcanada.working_set~{size}" for size in variants.SET_SIZES))
    omegas = [f"ddka~{omega:g}" for omega in extent.omegas]
    made = {
        "all": (grid(BASE, extent.workloads, extent.loads, extent.places), variants.RUNNER),
        "division": (grid((*variants.ENC_DEC_OF, *variants.ENC_DEC_OF.values()), ("W7",), few), variants.RUNNER),
        "sets": (grid(sets, ("W6",), (AMPLE,)), variants.RUNNER),
        "thresholds": (
            grid((*variants.WITHOUT_THRESHOLDS, *variants.WITHOUT_THRESHOLDS.values()), ("W2",), (0.5,), ("line3",)),
            variants.RUNNER,
        ),
        "batches": (grid([f"ait~{n}" for n in variants.BATCHES], ("W8",), (0.8,)), variants.RUNNER),
        "derivation": (grid(("kisti", variants.RAW_FIRST), ("W2",), extent.loads), variants.RUNNER),
        "weights": (grid(omegas, ("W2",), (1.5,)), variants.SLOT_RUNNER),
        "erasing": (grid([f"toshiba.2019~{n}" for n in variants.ERASED], ("W2",), (0.5,)), variants.RUNNER),
    }
    if extent.name == FULL.name:
        seeds = extent.seeds[:WIDE_SEEDS]
        cities = Grid(BASE, CITY_WORKLOADS, WIDE_LOADS, CITIES, seeds, extent.seconds)
        seconds = min(extent.seconds, COUNTRY_SECONDS)
        country = Grid(BASE, COUNTRY_WORKLOADS, WIDE_LOADS, (COUNTRY,), seeds, seconds)
        made |= {"networks": (cities, variants.RUNNER), "country": (country, variants.RUNNER)}
    return made


class Figures:
    """Of one sweep."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._found: dict[tuple[str, str, float, str], dict[int, Mapping[str, Value]]] = defaultdict(dict)
        for row in rows:
            if not row.not_applicable:
                case = row.case
                self._found[case.design, case.workload, case.load, case.topology][case.seed] = row.metrics

    def of(self, design: str, metric: str, workload: str, load: float, place: str = "p2p") -> dict[int, Value]:
        """By seed; empty if that was not run."""
        found = self._found.get((design, workload, load, place), {})
        return {seed: metrics.get(metric) for seed, metrics in found.items()}

    def ratio(
        self, design: str, part: str, whole: str, workload: str, load: float, place: str = "p2p"
    ) -> dict[int, Value]:
        """Of two sums of letters of the ledger, links and distant pairs together."""
        found = self._found.get((design, workload, load, place), {})
        return {
            seed: _sum(metrics, part) / total if (total := _sum(metrics, whole)) else None
            for seed, metrics in found.items()
        }

    def median(self, design: str, metric: str, workload: str, load: float, place: str = "p2p") -> Estimate | None:
        return estimate(self.of(design, metric, workload, load, place).values())

    def gap(self, one: str, other: str, metric: str, workload: str, load: float, place: str = "p2p") -> Estimate | None:
        """One minus the other, seed by seed."""
        return difference(self.of(one, metric, workload, load, place), self.of(other, metric, workload, load, place))

    def loads(self) -> list[float]:
        return sorted({load for _, _, load, _ in self._found})

    def designs(self) -> list[str]:
        return list(dict.fromkeys(design for design, _, _, _ in self._found))


def _sum(metrics: Mapping[str, Value], letters: str) -> float:
    return sum(metrics.get(f"{kind}_{letter}_bits") or 0 for kind in ("local", "global") for letter in letters)


class Swept(NamedTuple):
    figures: dict[str, Figures]
    failures: list[str]
    runs: int
    not_run: int
    """Where a design cannot be run at all."""


def run(extent: Extent, out: Path, workers: int | None, tell: Callable[[str, Progress], None]) -> Swept:
    """Goes on where an earlier start stopped. Raises what a sweep raises."""
    variants.register()
    figures: dict[str, Figures] = {}
    failures: list[str] = []
    runs = not_run = 0
    for name, (grid, runner) in grids(extent).items():
        directory = out / "sweeps" / name
        command = f"python -m studies.all_designs --{extent.name} --out {out.absolute().name}"
        end = sweep.run(
            directory,
            grid,
            Processes(workers or len(os.sched_getaffinity(0))),
            command=command,
            runner_name=runner,
            tell=partial(tell, name),
        )
        if end.first_failure:
            failures.append(f"{name}: {end.failed} of {end.total} failed, the first: {end.first_failure}")
        rows = sweep.read_rows(directory)
        runs += len(rows)
        not_run += sum(bool(row.not_applicable) for row in rows)
        figures[name] = Figures(rows)
        if runner == variants.RUNNER:
            report.write(directory)
    return Swept(figures, failures, runs, not_run)
