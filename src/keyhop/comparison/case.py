"""One run of a comparison: what it is given, the row that it leaves, and the grid of all runs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cache

import msgspec
import orjson

from keyhop.comparison.version import code_version
from keyhop.core.designs import DESIGNS, check
from keyhop.core.policy.relay import NoRelay
from keyhop.simulator import topology
from keyhop.simulator.pairs import asking

RUN_ID_CHARACTERS = 32
Value = int | float | None
"""Of a metric; None: it says nothing about this run."""


class Case(msgspec.Struct, frozen=True, order=True):
    """Everything a run depends on, beside the code."""

    design: str
    workload: str
    load: float
    """Demand over the key rate of the path."""
    topology: str
    seed: int
    seconds: float
    """Simulated."""

    def __str__(self) -> str:
        return f"{self.design} {self.workload} load {self.load:g} {self.topology} seed {self.seed}"


class Row(msgspec.Struct, frozen=True):
    """What is known of one run. Nothing in it tells when, where or how fast it ran."""

    case: Case
    trace: str
    """Hash of the demands, the same for every design of one workload, load, topology and seed; empty if it did not
    run."""
    metrics: Mapping[str, Value]
    not_applicable: str = ""
    """Why this design cannot be run there at all. Such a row has no metrics, and nobody scores it."""
    version: str = ""
    """Of the code; that of the running code if not given."""

    def __post_init__(self) -> None:
        if not self.version:
            msgspec.structs.force_setattr(self, "version", code_version())
        for name, value in self.metrics.items():
            if name in FIXED:
                raise ValueError(f"metric {name}: that is the name of a column that every row has")
            if value is not None and not math.isfinite(value):
                raise ValueError(f"metric {name} = {value}: must be finite, or None where it says nothing")

    @property
    def run_id(self) -> str:
        return run_id(self.case, self.version)

    def flat(self) -> dict[str, str | Value]:
        """One mapping without depth, as files hold it."""
        return {
            **msgspec.structs.asdict(self.case),
            **self.metrics,
            "run_id": self.run_id,
            "trace": self.trace,
            "not_applicable": self.not_applicable,
            "own_share": DESIGNS[self.case.design].own_share,
            "version": self.version,
        }

    def line(self) -> bytes:
        """Canonical JSON without the end of the line: the same bytes for the same case, whoever ran it."""
        return orjson.dumps(self.flat(), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_line(cls, line: bytes) -> Row:
        """Raises ValueError where it is no row."""
        flat = orjson.loads(line)
        if not isinstance(flat, dict) or (lacking := [name for name in FIXED if name not in flat]):
            raise ValueError("no row of a comparison" + (f": lacks {lacking[0]}" if isinstance(flat, dict) else ""))
        try:
            case = msgspec.convert({name: flat[name] for name in Case.__struct_fields__}, Case)
            metrics = {name: value for name, value in flat.items() if name not in FIXED}
            return cls(
                case,
                msgspec.convert(flat["trace"], str),
                msgspec.convert(metrics, dict[str, Value]),
                msgspec.convert(flat["not_applicable"], str),
                msgspec.convert(flat["version"], str),
            )
        except msgspec.ValidationError as error:
            raise ValueError(f"no row of a comparison: {error}") from None


FIXED = (*Case.__struct_fields__, "run_id", "trace", "not_applicable", "own_share", "version")


def run_id(case: Case, version: str) -> str:
    text = orjson.dumps([version, msgspec.structs.asdict(case)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:RUN_ID_CHARACTERS]


class Grid(msgspec.Struct, frozen=True):
    """Every combination is one case."""

    designs: tuple[str, ...]
    workloads: tuple[str, ...]
    loads: tuple[float, ...]
    topologies: tuple[str, ...]
    seeds: tuple[int, ...]
    seconds: float

    def cases(self) -> Iterator[Case]:
        """By seed first, so that a sweep that is stopped early has a little of everything."""
        for seed in self.seeds:
            for place in self.topologies:
                for workload in self.workloads:
                    for load in self.loads:
                        for design in self.designs:
                            yield Case(design, workload, load, place, seed, self.seconds)

    def __len__(self) -> int:
        axes = (self.designs, self.workloads, self.loads, self.topologies, self.seeds)
        return math.prod(len(axis) for axis in axes)


@cache
def not_applicable(design: str, place: str) -> str:
    """Why a design cannot be run on a built-in topology; empty if it can."""
    chosen = DESIGNS[design]
    links = max(len(path) - 1 for path in paths(place))
    if links > 1 and isinstance(chosen.relay, NoRelay):
        return f"it has no relay, and {place} has pairs without a common link"
    return "; ".join(check(chosen, links))


@cache
def paths(place: str) -> tuple[tuple[str, ...], ...]:
    """Along which applications of a built-in topology ask for keys; raises TopologyError."""
    found = topology.load_builtin(place)
    # Which nodes ask does not depend on how fast the links are.
    return asking(found, {link.id: 1.0 for link in found.links}).paths
