"""The simulator by itself: `python -m bench.simulator [events|factorial|stock|waste|scale]`; all without a word.

One process on one core throughout; processor time, not the clock, is what is divided by. Nothing here is a bar.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

from keyhop.comparison.case import Case, not_applicable
from keyhop.comparison.plan import LOADS
from keyhop.comparison.runner import link_rates, run_case
from keyhop.core.composed.nouns.units import Queue
from keyhop.core.designs import DESIGNS, hosted
from keyhop.core.model import NANOSECONDS
from keyhop.core.node.extents import Extents
from keyhop.simulator import runs, topology
from keyhop.simulator.pairs import asking
from keyhop.simulator.record import Demand, Record, Scenario, Stream, Verdict
from keyhop.simulator.workloads import WORKLOADS, scenario

SECONDS = 600.0
SYSTEMS = 17
SEEDS = 20
FACTORIAL_RUNS = SYSTEMS * len(WORKLOADS) * len(LOADS) * 2 * SEEDS
CORES = 16
PUBLISHED = tuple(name for name in DESIGNS if name not in ("keyhop", "qkdnetsim_like"))
"""The designs of the survey, with the variants of some."""


class Run(NamedTuple):
    record: Record
    cpu_s: float

    @property
    def events_per_s(self) -> float:
        return self.record.events / self.cpu_s


def run_timed(design: str, workload: str, load: float, place: str, seconds: float) -> Run:
    """The engine alone, without making demands and reading figures."""
    network = topology.load_builtin(place)
    rates = link_rates(Case(design, workload, load, place, 1, seconds), network)
    asked = asking(network, rates)
    made = scenario(workload, asked.paths, asked.rate_bps, load, seconds, 1)
    links = {frozenset(link.ends): round(rates[link.id]) for link in network.links}
    began = time.process_time()
    record = runs.run(DESIGNS[design], links, made, seconds=seconds, seed=1)
    return Run(record, time.process_time() - began)


def events(seconds: float) -> None:
    """An event is one entry of the queue of virtual time that was due and done: of sites a message, a block, a request,
    a fetch, a timer; of nodes besides, because they have a disk, a commit and the turn of a node in which it takes in
    whatever has come."""
    print(f"events per second of one core, W2, {seconds:g} simulated seconds; the run alone")
    for place, load in (("p2p", 1.2), ("line3", 0.8)):
        rates: dict[str, float] = {}
        for name in DESIGNS:
            if not not_applicable(name, place):
                rates[name] = max(run_timed(name, "W2", load, place, seconds).events_per_s for _ in range(2))
        sites = sorted((rate, name) for name, rate in rates.items() if hosted(DESIGNS[name]))
        middle = median(rate for rate, _ in sites)
        print(
            f"  {place}, load {load:g}: sites {sites[0][0]:,.0f} ({sites[0][1]}) to {sites[-1][0]:,.0f} "
            f"({sites[-1][1]}), median {middle:,.0f}; keyhop by its nodes {rates['keyhop']:,.0f}",
            flush=True,
        )


def factorial(sample: int, seconds: float) -> None:
    """A sample spread evenly over the grid of the full factorial, one worker; the rest by division."""
    print(f"the full factorial: {FACTORIAL_RUNS:,} runs of {SECONDS:g} simulated seconds on p2p and line3")
    cases = [
        Case(design, workload, load, place, 1, seconds)
        for place in ("p2p", "line3")
        for workload in WORKLOADS
        for load in LOADS
        for design in PUBLISHED
    ]
    chosen = cases[:: max(1, len(cases) // sample)]
    took: dict[str, float] = {}
    done = failed = empty = 0
    began_all = time.process_time()
    for case in chosen:
        if not_applicable(case.design, case.topology):
            empty += 1
            continue
        began = time.process_time()
        try:
            run_case(case)
        except Exception as error:
            failed += 1
            print(f"  failed: {case}: {type(error).__name__}: {error}"[:200])
            continue
        done += 1
        took[case.workload] = took.get(case.workload, 0.0) + time.process_time() - began
    each_s = (time.process_time() - began_all) / len(chosen) * SECONDS / seconds
    whole_s = each_s * FACTORIAL_RUNS
    cores = multiprocessing.cpu_count()
    print(f"  sample of {len(chosen)}: {done} run, {empty} not applicable, {failed} failed")
    print(f"  {1 / each_s:.1f} runs per second of one core; by workload, s of processor in the sample: "
          + ", ".join(f"{name} {cpu:.1f}" for name, cpu in sorted(took.items())))  # fmt: skip
    print(
        f"  all of them: {whole_s / 3600:.1f} h of processor; {whole_s / cores / 3600:.1f} h on {cores} cores, "
        f"{whole_s / CORES / 60:.0f} min on {CORES} cores like these",
        flush=True,
    )


STORED = tuple(10**power for power in range(3, 8))
KEY_BYTES = 32
PIECES = (1, 100, 10_000)


class Store(NamedTuple):
    """The four things that are done to stored key, by positions in bytes."""

    add: Callable[[int, int], object]
    take: Callable[[], object]
    """The oldest key."""
    split: Callable[[int, int], object]
    """A part is cut out of what lies there."""
    merge: Callable[[int, int], object]
    """It is put back, and is one stretch with what is beside it again."""


def of_sites(stretches: list[tuple[int, int]]) -> Store:
    queue = Queue(stretches)
    return Store(
        queue.put,
        lambda: queue.take(KEY_BYTES),
        lambda start, end: queue.remove(((start, end),)),
        lambda start, end: queue.put_back(((start, end),)),
    )


def of_nodes(stretches: list[tuple[int, int]]) -> Store:
    kept = Extents(stretches)
    oldest = iter(range(stretches[0][0], 1 << 62, KEY_BYTES))

    def take() -> None:
        start = next(oldest)
        kept.remove(start, start + KEY_BYTES)

    return Store(kept.add, take, kept.remove, kept.add)


def stock(operations: int) -> None:
    """Positions of stored key, in one stretch and in pieces with holes between them: what a ledger of ranges does."""
    print(f"ns for each operation on stored keys of {KEY_BYTES} bytes, medians of 5 times {operations}")
    print(f"  {'':<6} {'keys':>11} {'pieces':>7} {'add':>7} {'take':>7} {'split':>7} {'merge':>7}")
    for kind, make in (("nodes", of_nodes), ("sites", of_sites)):
        for keys in STORED:
            for pieces in PIECES:
                if keys >= 10 * pieces:
                    figures = " ".join(f"{figure:>7.0f}" for figure in costs(make, keys, pieces, operations))
                    print(f"  {kind:<6} {keys:>11,} {pieces:>7,} {figures}", flush=True)


def costs(
    make: Callable[[list[tuple[int, int]]], Store], keys: int, pieces: int, operations: int
) -> tuple[float, float, float, float]:
    """In nanoseconds: add, take, split, merge."""
    length, gap = keys // pieces * KEY_BYTES, KEY_BYTES
    store = make([(piece * (length + gap), piece * (length + gap) + length) for piece in range(pieces)])
    end = pieces * (length + gap)
    begin = pieces // 2 * (length + gap) + length // 2 // KEY_BYTES * KEY_BYTES + KEY_BYTES // 4
    part = (begin, begin + KEY_BYTES // 2)
    rounds: list[tuple[float, float, float, float]] = []
    clock = time.perf_counter_ns
    for _ in range(5):
        spent = [0, 0, 0, 0]
        for _ in range(operations):
            times = [clock()]
            store.add(end, end + KEY_BYTES)
            times.append(clock())
            store.take()
            times.append(clock())
            store.split(*part)
            times.append(clock())
            store.merge(*part)
            times.append(clock())
            end += KEY_BYTES
            for at in range(4):
                spent[at] += times[at + 1] - times[at]
        rounds.append((spent[0] / operations, spent[1] / operations, spent[2] / operations, spent[3] / operations))
    add, take, split, merge = (median(column) for column in zip(*rounds, strict=True))
    return add, take, split, merge


RATES_BPS = (10_000, 100_000, 1_000_000)


def waste(seconds: float) -> None:
    """Letters of the ledger, both ends together. Tags are those of all messages, whoever paid: QKD key or the secret
    that the ends shared before. D is what applications got."""
    print(f"keyhop on W3, p2p, {seconds:g} s: bars are waste O/G <= 1 %, tags burnt/D <= 5 %")
    for rate_bps in RATES_BPS:
        for load in (0.2, 0.8, 1.2):
            link = frozenset(("alice", "bob"))
            made = scenario("W3", [("alice", "bob")], rate_bps, load, seconds, 1)
            record = runs.run(DESIGNS["keyhop"], {link: rate_bps}, made, seconds=seconds, seed=1)
            total = {
                letter: sum(getattr(book, letter) for book in record.books) for letter in ("G", "D", "O", "A", "Y")
            }
            burnt = sum(book.burnt for book in record.books)
            print(
                f"  {rate_bps // 1000:>5} kbit/s, load {load}: O/G {100 * total['O'] / total['G']:.3f} %, "
                f"A/D {100 * total['A'] / total['D']:.2f} %, tags burnt/D {100 * burnt / total['D']:.2f} %, "
                f"Y/G {100 * total['Y'] / total['G']:.3f} %",
                flush=True,
            )


RING_RATE_BPS = 10_000
KEY_EVERY_S = 10.0
DAY_S = 86_400
BLOCK_NS = 52 * NANOSECONDS
SCALE_S = {10: 1200.0, 100: 1200.0, 1000: 600.0, 10_000: 60.0}
"""Simulated seconds by number of nodes."""
SETTLED_S = 300
"""A shorter run is all start: nothing is said of a day from it."""


def ring(nodes: int) -> tuple[dict[frozenset[str], int], list[tuple[str, ...]]]:
    """Nodes in a line, ten by ten closed to a ring; every second one asks for keys with the node two on."""
    names = [f"n{number:05}" for number in range(nodes)]
    links = {frozenset((names[at], names[at + 1])): RING_RATE_BPS for at in range(nodes - 1)}
    for at in range(0, nodes - 9, 10):
        links[frozenset((names[at], names[at + 9]))] = RING_RATE_BPS
    paths = [tuple(names[at : at + 3]) for at in range(0, nodes - 2, 2)]
    return links, paths


def grown(nodes: int, seconds: float, send: Callable[[tuple[float, float, float, int, float]], object]) -> None:
    """In a process of its own, so that memory is its own."""
    links, paths = ring(nodes)
    streams, demands = [], []
    for path in paths:
        name = f"{path[0]}|{path[-1]}"
        streams.append(Stream(name, path[0], path[-1], round(256 / KEY_EVERY_S), 256))
    number = 0
    at = 1.0
    while at < seconds:
        for position, stream in enumerate(streams):
            at_ns = round((at + KEY_EVERY_S * position / len(streams)) * NANOSECONDS)
            demands.append(Demand(number, at_ns, stream.name, stream.master, stream.slave, 256, 10 * NANOSECONDS))
            number += 1
        at += KEY_EVERY_S
    before = largest_kib()
    began = time.process_time()
    marks: list[float] = []
    """Processor time at the end of each simulated second."""
    record = runs.run(
        DESIGNS["keyhop"],
        links,
        Scenario(tuple(streams), tuple(demands), block_ns=BLOCK_NS),
        seconds=seconds,
        seed=1,
        tell=lambda _: marks.append(time.process_time()),
    )
    settled = len(marks) // 2
    each_s = (marks[-1] - marks[settled]) / (len(marks) - 1 - settled)
    start_s = marks[settled] - began - each_s * settled
    memory = largest_kib() - before
    late = [outcome for outcome in record.outcomes if outcome.done_ns >= settled * NANOSECONDS]
    supplied = sum(outcome.verdict is Verdict.SUPPLIED for outcome in late) / max(1, len(late))
    send((start_s, each_s, supplied, record.events, memory / nodes))


def largest_kib() -> int:
    """The most memory that this process has had resident; the system's own counter has that of its parent in it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def scale(sizes: list[int], given_s: float) -> None:
    """Every second node asks the node two hops on for a key of 256 bits every 10 s, links of 10 kbit/s, which deliver
    64 KiB every 52 s. `given_s` 0: by the number of nodes."""
    print("keyhop by its nodes; memory: growth of the largest resident set by the run; entries of the queue as events")
    print("  the start is what the first half costs beyond the second: links open, nodes hear of others, stores fill")
    for nodes in sizes:
        seconds = given_s or SCALE_S.get(nodes, min(SCALE_S.values()))
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(False)
        process = context.Process(target=_grow, args=(nodes, seconds, theirs))
        process.start()
        theirs.close()
        try:
            start_s, each_s, supplied, entries, memory_kib = ours.recv()
        except EOFError:
            print(f"  {nodes:>6,} nodes: not finished (exit {process.exitcode})")
            continue
        finally:
            process.join()
        print(
            f"  {nodes:>6,} nodes, {seconds:g} s: {start_s + seconds * each_s:.1f} s of processor, "
            f"{entries / (start_s + seconds * each_s):,.0f} events a second, {memory_kib:,.0f} KiB per node, "
            f"{100 * supplied:.0f} % of keys in the second half"
            + (
                f"; start {start_s:.1f} s, then {each_s:.4f} s for a simulated second "
                f"({1e3 * each_s / nodes:.3f} ms per node), a day {(start_s + DAY_S * each_s) / 60:,.0f} min"
                if seconds >= SETTLED_S
                else ""
            ),
            flush=True,
        )


def _grow(nodes: int, seconds: float, pipe: Connection) -> None:
    grown(nodes, seconds, pipe.send)


BENCHES = ("events", "factorial", "stock", "waste", "scale")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benches", nargs="*", choices=[*BENCHES, []], default=list(BENCHES), metavar="|".join(BENCHES))
    parser.add_argument("--quick", action="store_true", help="shorter runs and fewer of them")
    parser.add_argument("--nodes", default="", help="of scale: sizes with commas")
    parser.add_argument("--seconds", type=float, default=0.0, help="of scale: simulated")
    options = parser.parse_args()
    quick: bool = options.quick
    sizes = [int(word) for word in options.nodes.split(",") if word] or ([10, 100] if quick else list(SCALE_S))
    calls: dict[str, Callable[[], None]] = {
        "events": lambda: events(60.0 if quick else SECONDS),
        "factorial": lambda: factorial(40 if quick else 240, 60.0 if quick else SECONDS),
        "stock": lambda: stock(200 if quick else 2000),
        "waste": lambda: waste(60.0 if quick else SECONDS),
        "scale": lambda: scale(sizes, options.seconds or (150.0 if quick else 0.0)),
    }
    print(f"{sys.implementation.name} {sys.version.split()[0]}, {multiprocessing.cpu_count()} cores")
    for name in options.benches:
        calls[name]()


if __name__ == "__main__":
    main()
