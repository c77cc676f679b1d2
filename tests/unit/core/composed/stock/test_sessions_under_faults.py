"""Whatever is lost, restarted, opened and closed: in the end both ends have the same units in the same pools."""

from __future__ import annotations

import random

import pytest
from tests.acceptance.benches import Bench

from keyhop.core.designs import DESIGNS

SEEDS = range(12)
STREAMS = ("one", "two", "three")


def schedule(design: str, seed: int) -> Bench:
    """A minute of everything at once, then quiet."""
    chance = random.Random(f"{design} {seed}")
    bench = Bench(DESIGNS[design])
    known: set[str] = set()
    bench.lose = lambda node, said: chance.random() < 0.15
    for _ in range(120):
        match chance.randrange(12):
            case 0:
                name = chance.choice(STREAMS)
                (bench.close(name, "A", "B") if name in known else bench.open(name, *ends(chance), rate_bps=800))
                known ^= {name}
            case 1:
                bench.retune(chance.choice(STREAMS), chance.choice((0, 200, 5000)), "A", "B")
            case 2:
                bench.restart(chance.choice("AB"), down_s=chance.random())
            case 3:
                bench.give(8 * chance.randrange(1, 400), only=chance.choice("AB"))
            case _:
                bench.give(8 * chance.randrange(1, 800))
        bench.go(chance.random())
    bench.lose = lambda node, said: False
    for _ in range(60):
        # Notices and stamps find what is missing when the next one comes.
        bench.give(2048)
        bench.go(2)
    bench.go(60)
    return bench


def ends(chance: random.Random) -> list[str]:
    return chance.sample("AB", 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("design", ["nist", "qcc", "magiq", "nectec", "qkdnetsim_like"])
def test_both_ends_come_to_the_same(design: str, seed: int) -> None:
    bench = schedule(design, seed)
    bench.balanced()
    here, there = bench.line("A", "B"), bench.line("B", "A")
    assert here.run.end == there.run.end and here.run.held == there.run.held == 0
    assert [list(here.run.free), pools(here.run.pools)] == [list(there.run.free), pools(there.run.pools)]
    for queue in (here.run.free, *here.run.pools.values()):
        for units in queue:
            assert here.came_from(units) == there.came_from(units), "the same positions, other bits"


def pools(found: dict[str, object]) -> dict[str, list[object]]:
    return {label: sorted(queue) for label, queue in found.items() if list(queue)}  # type: ignore[call-overload]
