"""Runs many schedules: `python -m tests.worlds.run --schedules N [--first K]`, or one again: `--seed S`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .schedules import FULL_STORES, SHAPES, Schedule

KEPT = Path(__file__).parent / "kept_seeds.txt"


class Case(NamedTuple):
    """What makes one schedule."""

    seed: int
    nodes: int | None = None
    """None: the seed decides."""
    shape: str | None = None
    full_store: str | None = None

    @property
    def command(self) -> str:
        nodes = "" if self.nodes is None else f" --nodes {self.nodes}"
        shape = "" if self.shape is None else f" --shape {self.shape}"
        full_store = "" if self.full_store is None else f" --full-store {self.full_store}"
        return f"python -m tests.worlds.run --seed {self.seed}{nodes}{shape}{full_store}"


class Result(NamedTuple):
    case: Case
    wrong: str
    """Empty if nothing is."""
    where: str
    delivered: int
    fetched: int
    steps: int

    @property
    def kind(self) -> str:
        return re.sub(r"[0-9]+", "N", self.wrong)[:70]


def run_case(case: Case, *, log: bool = False) -> Result:
    schedule = Schedule(case.seed, nodes=case.nodes, shape=case.shape, full_store=case.full_store)
    if log:
        schedule.log = []
    wrong = where = ""
    try:
        schedule.run()
    except Exception as error:  # whatever a node raises is a failure of the schedule
        wrong, where = f"{type(error).__name__}: {error}", traceback.format_exc()
    for line in schedule.log or ():
        print(line)
    checker = schedule.checker
    return Result(case, wrong, where, checker.delivered, checker.fetched, schedule.world.steps)


def kept_cases() -> list[Case]:
    """Seeds that failed once: `seed [nodes [shape]]`, then what they showed; in none of them a full store mattered."""
    cases = []
    for line in KEPT.read_text().splitlines():
        fields = line.partition("#")[0].split()
        if fields:
            nodes, shape = [*map(int, fields[1:2]), None][0], [*fields[2:3], None][0]
            cases.append(Case(int(fields[0]), nodes, shape, "stop"))
    return cases


def run_cases(cases: Iterable[Case], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(run_case, cases)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run_case, cases, chunksize=8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=100, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="the first seed; the others follow it")
    parser.add_argument("--seed", type=int, metavar="S", help="this one alone, with its log")
    parser.add_argument("--nodes", type=int, choices=range(2, 7))
    parser.add_argument("--shape", choices=sorted(SHAPES))
    parser.add_argument("--full-store", choices=sorted(set(FULL_STORES)))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sabotages", action="store_true", help="break the core on purpose, and see that it is found")
    options = parser.parse_args()
    if options.sabotages:
        from .sabotages import hunt_all

        return hunt_all(options.jobs)
    if options.seed is not None:
        result = run_case(Case(options.seed, options.nodes, options.shape, options.full_store), log=True)
        print(result.where or "nothing is wrong")
        return int(bool(result.wrong))
    cases = kept_cases()
    cases += [
        Case(seed, options.nodes, options.shape, options.full_store)
        for seed in range(options.first, options.first + options.schedules)
    ]
    print(f"{len(cases)} schedules, seeds from {options.first}, after {len(cases) - options.schedules} kept ones")
    began = time.monotonic()
    failures: dict[str, list[Result]] = {}
    delivered = fetched = steps = 0
    for result in run_cases(cases, options.jobs):
        delivered, fetched, steps = delivered + result.delivered, fetched + result.fetched, steps + result.steps
        if result.wrong:
            failures.setdefault(result.kind, []).append(result)
    for results in sorted(failures.values(), key=len, reverse=True):
        first = min(results, key=lambda result: result.case.seed)
        print(f"\n{len(results)} x {first.wrong}\n  again: {first.case.command}\n{first.where}")
        print("  seeds:", *sorted(result.case.seed for result in results)[:20])
    took = time.monotonic() - began
    print(
        f"{len(cases)} schedules in {took:.0f} s ({len(cases) / took:.1f}/s), {steps} steps, {delivered} keys given, "
        f"{fetched} fetched: {sum(map(len, failures.values()))} failed"
    )
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
