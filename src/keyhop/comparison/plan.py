"""What a comparison is asked for, by options or by a file: names and numbers checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from keyhop.comparison.case import Grid, paths
from keyhop.core.designs import DESIGNS
from keyhop.files import CheckError
from keyhop.files.records import Between, Key, OneOrMany
from keyhop.files.words import nearest
from keyhop.simulator import topology
from keyhop.simulator.workloads import WORKLOADS, WorkloadError, find

ALL = "all"
TOPOLOGY_ALIASES = {"tokyo2010": "tokyo_2010", "nsfnet14": "nsfnet_14", **topology.ALIASES}

USUAL_TOPOLOGIES = ("p2p", "line3", "line5", "tokyo_2010", "nsfnet_14")

LOADS = (0.2, 0.5, 0.8, 1.0, 1.2, 2.0)
LOAD_LIMIT = 100.0
SEED_LIMIT = 2**63 - 1
SEEDS_LIMIT = 100_000
WORKERS_LIMIT = 4096
RUNS_LIMIT = 1_000_000
SECONDS_LEAST = 0.001
SECONDS_LIMIT = 86_400.0 * 365

Executor = Literal["processes", "dask"]
ValueT = TypeVar("ValueT")
Texts = Annotated[tuple[str, ...], OneOrMany()]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A file for `keyhop compare`; each member is also an option of the command."""

    api_version: Annotated[Literal["keyhop/v1"], Key("apiVersion")] = "keyhop/v1"
    designs: Texts = (ALL,)
    workloads: Texts = ("W2",)
    loads: Annotated[tuple[float, ...], OneOrMany()] = LOADS
    topologies: Texts = ("p2p",)
    seeds: Texts = ("1..5",)
    seconds: Annotated[float, Between(SECONDS_LEAST, SECONDS_LIMIT)] = 600.0
    out: Path = Path("keyhop-compare")
    """Directory; a file names it from its own."""
    executor: Executor = "processes"
    workers: Annotated[int, Between(1, WORKERS_LIMIT)] | None = None

    def __post_init__(self) -> None:
        """Raises CheckError, naming the member."""
        if not SECONDS_LEAST <= self.seconds <= SECONDS_LIMIT:
            legal = f"must be {SECONDS_LEAST:g} to {SECONDS_LIMIT:g}"
            raise CheckError(f"{self.seconds:g} seconds are out of range", legal, "seconds")
        runs = len(self.grid())
        if runs > RUNS_LIMIT:
            raise CheckError(f"{runs} runs", f"at most {RUNS_LIMIT} in one directory: ask for less, or in parts")

    def grid(self) -> Grid:
        return Grid(
            designs=_chosen("designs", self.designs, _design, DESIGNS),
            workloads=_chosen("workloads", self.workloads, _workload, WORKLOADS),
            loads=_chosen("loads", self.loads, _load),
            topologies=_chosen("topologies", self.topologies, _topology),
            seeds=_seeds(self.seeds),
            seconds=float(self.seconds),
        )


def arguments(plan: Plan) -> list[str]:
    """The options that make this plan, without those that are default anyway."""
    words: list[str] = []
    for field in fields(plan):
        value = getattr(plan, field.name)
        if value == field.default or field.name == "api_version":
            continue
        text = ",".join(map(_text, value)) if isinstance(value, tuple) else _text(value)
        words += [f"--{field.name}", text]
    return words


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _chosen(
    member: str, given: Sequence[Any], check: Callable[[Any], ValueT], everything: Iterable[ValueT] = ()
) -> tuple[ValueT, ...]:
    if not given:
        raise CheckError("the list is empty", "name at least one", member)
    every = tuple(everything)
    if every and tuple(given) == (ALL,):
        return every
    chosen: list[ValueT] = []
    for at, word in enumerate(given):
        try:
            value = check(word)
        except ValueError as error:
            what, legal = error.args
            raise CheckError(what, legal, member, at) from None
        if value in chosen:
            raise CheckError(f"{word} stands there twice", "each once: two equal runs would weigh double", member, at)
        chosen.append(value)
    return tuple(chosen)


def _design(name: str) -> str:
    if name not in DESIGNS:
        raise ValueError(f"no design is called {name}", nearest(name, DESIGNS))
    return name


def _workload(name: str) -> str:
    try:
        return find(name).id
    except WorkloadError:
        known = (*WORKLOADS, *(workload.name for workload in WORKLOADS.values()))
        raise ValueError(f"no workload is called {name}", nearest(name, known)) from None


def _load(load: float) -> float:
    if not 0 < load <= LOAD_LIMIT:
        raise ValueError(f"load {load:g} is out of range", f"must be more than 0 and at most {LOAD_LIMIT:g}")
    return float(load)


def _topology(name: str) -> str:
    known = (*topology.names(), *TOPOLOGY_ALIASES)
    if name not in known:
        raise ValueError(f"no built-in network is called {name}", nearest(name, known))
    builtin = TOPOLOGY_ALIASES.get(name, name)
    try:
        paths(builtin)
    except topology.TopologyError as error:
        raise ValueError(str(error), f"take another, such as {', '.join(USUAL_TOPOLOGIES)}") from None
    return builtin


def _seeds(given: Sequence[str]) -> tuple[int, ...]:
    """`1..20` is all of them, ends included."""
    if not given:
        raise CheckError("the list is empty", "name at least one", "seeds")
    seeds: dict[int, None] = {}
    for at, text in enumerate(given):
        match = re.fullmatch(r"(\d{1,19})(?:\.\.(\d{1,19}))?", text, re.ASCII)
        low = int(match[1]) if match else -1
        high = int(match[2] or match[1]) if match else -1
        if not 0 <= low <= high <= SEED_LIMIT or high - low >= SEEDS_LIMIT:
            legal = f"write numbers such as 7 or 1..20, from the lower to the higher, at most {SEEDS_LIMIT}"
            raise CheckError(f"{text} is no seed", legal, "seeds", at)
        for seed in range(low, high + 1):
            if seed in seeds:
                raise CheckError(f"seed {seed} stands there twice", "each once", "seeds", at)
            seeds[seed] = None
    return tuple(seeds)
