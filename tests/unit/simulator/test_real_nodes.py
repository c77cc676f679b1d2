"""The nodes that daemons run, in a comparison: supplied over one hop and over two, for long, with books that close."""

from __future__ import annotations

import gc
import random
import weakref
from itertools import pairwise

import pytest

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS
from keyhop.simulator.real_nodes import LARGE_NODES, RealNodes
from keyhop.simulator.record import Demand, Fault, Record, Scenario, Stream, Trouble, Verdict

RATE_BPS = 10_000
SECONDS = 120


def scenario(ends: tuple[str, str], load: float, faults: tuple[Fault, ...] = ()) -> Scenario:
    draw = random.Random(1)
    streams = tuple(Stream(f"s{n}", *way, 4000, 256) for n, way in enumerate((ends, ends[::-1])))
    demands: list[Demand] = []
    at = 0
    while (at := at + int(draw.expovariate(load * RATE_BPS / 256) * NANOSECONDS)) < SECONDS * NANOSECONDS:
        stream = streams[len(demands) % 2]
        demands.append(Demand(len(demands), at, stream.name, stream.master, stream.slave, 256, 5 * NANOSECONDS))
    return Scenario(streams, tuple(demands), faults)


def run(names: str, load: float, faults: tuple[Fault, ...] = ()) -> Record:
    links = {frozenset(pair): RATE_BPS for pair in pairwise(names)}
    fed = scenario((names[0], names[-1]), load, faults)
    record = RealNodes(DESIGNS["keyhop"], links, fed, seed=1, delay_ns=NANOSECONDS // 100).run(SECONDS)
    for book in record.books:
        assert book.balanced, book
    return record


def supplied(record: Record) -> float:
    return sum(outcome.verdict is Verdict.SUPPLIED for outcome in record.outcomes) / len(record.outcomes)


@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_half_of_the_rate_is_supplied_over_any_number_of_hops(names: str) -> None:
    # The first seconds are cold: links and the pair have yet to agree on a first block.
    assert supplied(run(names, 0.5)) > 0.9


def test_a_distant_pair_never_falls_silent_for_want_of_tag_keys() -> None:
    record = run("ABC", 0.5)
    late = [o for o, d in zip(record.outcomes, record.scenario.demands, strict=True) if d.at_ns > 100 * NANOSECONDS]
    assert sum(outcome.verdict is Verdict.SUPPLIED for outcome in late) / len(late) > 0.97


def most_known(nodes: int) -> int:
    names = [f"n{number:04}" for number in range(nodes)]
    links = {frozenset(pair): RATE_BPS for pair in pairwise(names)}
    streams = (Stream("s", names[0], names[2], 4000, 256), Stream("t", names[10], names[15], 4000, 256))
    network = RealNodes(DESIGNS["keyhop"], links, Scenario(streams, ()), seed=1, delay_ns=NANOSECONDS // 100)
    network.run(1)
    return max(len(process.node.states.known) for process in network.world.processes.values())


def test_in_large_networks_what_a_node_knows_does_not_grow_with_their_size() -> None:
    # Twelve links to either side: twice the longest path and two more.
    assert most_known(LARGE_NODES + 1) == most_known(2 * LARGE_NODES) == 2 * (2 * 5 + 2)
    assert most_known(LARGE_NODES // 2) == LARGE_NODES // 2 - 1


def test_a_run_that_refuses_and_starts_anew_leaves_nothing_behind() -> None:
    links = {frozenset("AB"): RATE_BPS}
    fed = scenario(("A", "B"), 2.0, (Fault(40 * NANOSECONDS, Trouble.NODE_RESTARTS, "A", 5 * NANOSECONDS),))
    thresholds = gc.get_threshold()
    network = RealNodes(DESIGNS["keyhop"], links, fed, seed=1, delay_ns=NANOSECONDS // 100)
    record = network.run(60)
    assert gc.get_threshold() == thresholds
    assert any(outcome.attempts > 1 for outcome in record.outcomes), "nobody was refused"
    nodes = [weakref.ref(process.node) for process in network.world.processes.values()]
    del network
    gc.collect()
    assert [node() for node in nodes] == [None, None]


def test_the_same_seed_gives_the_same_record() -> None:
    assert run("AB", 0.5) == run("AB", 0.5)


def test_a_restart_costs_keys_and_never_gives_one_twice() -> None:
    record = run("AB", 0.5, (Fault(40 * NANOSECONDS, Trouble.NODE_RESTARTS, "A", 5 * NANOSECONDS),))
    assert supplied(record) > 0.8
    assert sum(book.Y for book in record.books) > 0
    assert record.resync_ns


def test_a_lost_chunk_is_destroyed_at_the_other_end_and_supply_goes_on() -> None:
    record = run("AB", 0.5, (Fault(40 * NANOSECONDS, Trouble.CHUNK_LOST, "A|B"),))
    assert supplied(record) > 0.93
