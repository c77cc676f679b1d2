"""What a report shows, drawn together from rows: for each workload and network the figures of every design and load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from keyhop.comparison.case import Case, Grid, Row, not_applicable
from keyhop.comparison.measures import span, words
from keyhop.comparison.statistics import Estimate, estimate
from keyhop.core.designs import DESIGNS
from keyhop.simulator.workloads import WORKLOADS

REFERENCE_LOAD = 0.8
"""Where a picture shows one load alone: the nearest to this."""


@dataclass(frozen=True)
class Scene:
    """One workload on one network."""

    workload: str
    topology: str
    designs: tuple[str, ...]
    loads: tuple[float, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    cells: dict[tuple[str, float, str], Estimate] = field(default_factory=dict)
    done: dict[tuple[str, float], int] = field(default_factory=dict)
    """Seeds that have run."""
    failed: dict[tuple[str, float], str] = field(default_factory=dict)
    """Runs that ended in an error, and the last one."""

    @property
    def name(self) -> str:
        return f"{self.workload.lower()}-{self.topology}"

    @property
    def title(self) -> str:
        return f"{self.workload} {WORKLOADS[self.workload].name} on {self.topology}"

    @property
    def reference_load(self) -> float:
        return min(self.loads, key=lambda load: (abs(load - REFERENCE_LOAD), load))

    def cell(self, design: str, load: float, metric: str) -> Estimate | None:
        """None: it says nothing, or nothing has run yet."""
        return self.cells.get((design, load, metric))

    def why_empty(self, design: str, load: float | None = None) -> str:
        """In the place of a figure that is not there."""
        if not_applicable(design, self.topology):
            return "n/a"
        places = [(design, one) for one in ([load] if load is not None else self.loads)]
        if any(self.done.get(place) for place in places):
            return "n/a"
        return "failed" if any(place in self.failed for place in places) else "no run yet"

    def left_out(self) -> dict[str, list[str]]:
        """Designs that cannot be run here, by why."""
        found: dict[str, list[str]] = {}
        for design in self.designs:
            if why := not_applicable(design, self.topology):
                found.setdefault(why, []).append(design)
        return found

    def of_those_that_run(self) -> Scene:
        """Without the others; that may be nobody."""
        running = tuple(design for design in self.designs if not not_applicable(design, self.topology))
        return replace(self, designs=running)

    def has(self, metric: str) -> bool:
        return any(name == metric for _, _, name in self.cells)

    def values(self, metric: str) -> Iterator[Estimate]:
        return (cell for (_, _, name), cell in self.cells.items() if name == metric)

    def unpaired(self) -> list[tuple[float, int]]:
        """Loads and seeds at which two designs were not asked the same: such figures must not be compared."""
        traces: dict[tuple[float, int], set[str]] = defaultdict(set)
        for row in self.rows:
            if not row.not_applicable:
                traces[row.case.load, row.case.seed].add(row.trace)
        return sorted(key for key, seen in traces.items() if len(seen) > 1)


def scenes(grid: Grid, rows: Iterable[Row], failures: Mapping[Case, str] = MappingProxyType({})) -> list[Scene]:
    """One for each workload and network of the grid, also where nothing has run yet."""
    by_place: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_place[row.case.workload, row.case.topology].append(row)
    made = {
        (workload, place): _scene(workload, place, grid, by_place[workload, place])
        for place in grid.topologies
        for workload in grid.workloads
    }
    for case, error in failures.items():
        if (case.workload, case.topology) in made:
            made[case.workload, case.topology].failed[case.design, case.load] = error
    return list(made.values())


def _scene(workload: str, place: str, grid: Grid, rows: Sequence[Row]) -> Scene:
    made = Scene(workload, place, grid.designs, grid.loads, grid.seeds, tuple(rows))
    values: dict[tuple[str, float, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.not_applicable:
            continue
        where = row.case.design, row.case.load
        made.done[where] = made.done.get(where, 0) + 1
        for name, value in row.metrics.items():
            if value is not None:
                values[*where, name].append(float(value))
    for key, found in values.items():
        if (estimated := estimate(found)) is not None:
            made.cells[key] = estimated
    return made


def own_share(design: str) -> str:
    """Beside every figure of a design: how much of it is a choice of ours."""
    return f"K {DESIGNS[design].own_share:.0%}"


def spread(metric: str, found: Estimate) -> str:
    """The interval in words; nothing where one value says nothing of it."""
    if found.low is None or found.high is None:
        return ""
    return span(words(metric, found.low), words(metric, found.high))
