"""Quantum Canada with working sets: keys taken first and told afterwards, and what that costs."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal, cast

import pytest

from keyhop.core.composed.line import LineSettings
from keyhop.core.composed.nouns.messages import Name
from keyhop.core.composed.nouns.units import Units
from keyhop.core.composed.stock.working_sets import COLLIDED, TakenFirst
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.policy.division import EncDec, Shared
from keyhop.core.policy.synchronisation import WorkingSet
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Record, Scenario, Stream, Verdict

from .benches import SECOND, Bench

WORKING_SET = DESIGNS["qcanada.working_set"]
KEY = 256
AGREED_S = 0.05


def design(part: WorkingSet) -> Design:
    """Of a pool that is all for the two sites, as the scenarios have it."""
    return replace(WORKING_SET, synchronisation=part, division=Shared())


def bench(units: int = 8, part: WorkingSet | None = None) -> Bench:
    made = Bench(design(part or WorkingSet(size=4)))
    made.open("s", "A", "B")
    made.open("t", "B", "A")
    made.give(units * KEY)
    made.go(AGREED_S)
    return made


def unit(name: Name) -> int:
    """Counted from 1, as the pool of the scenario is."""
    ((low, high),) = name.ranges
    assert high == low + 1
    return low + 1


def serve(made: Bench, at: str, size_bits: int = KEY) -> Name:
    return made.name(made.ask(at, "B" if at == "A" else "A", size_bits))


def test_at_qcanada_1_the_last_key_of_a_set_may_be_served_at_both_ends() -> None:
    made = bench()
    served = []
    for at, other in (("A", "B"), ("B", "A"), ("A", "B")):
        name = serve(made, at)
        made.go(AGREED_S)
        served.append((at, unit(name)))
        assert made.refusal(made.fetch(other, at, name)) == ""
    assert served == [("A", 1), ("B", 4), ("A", 2)]
    crossing = serve(made, "A"), serve(made, "B")
    assert [unit(name) for name in crossing] == [3, 3]
    made.go(AGREED_S)
    assert made.refusal(made.fetch("B", "A", crossing[0])) == COLLIDED
    assert made.refusal(made.fetch("A", "B", crossing[1])) == COLLIDED
    for book in made.balanced():
        assert (book.C, book.D) == (KEY, 3 * KEY)
    assert [unit(serve(made, at)) for at in ("A", "B")] == [5, 8]


def test_a_key_is_fetched_once() -> None:
    made = bench()
    name = serve(made, "A")
    made.go(AGREED_S)
    first, second = made.fetch("B", "A", name), made.fetch("B", "A", name)
    made.go(6)
    assert made.name(first) == name
    assert made.refusal(second)
    made.balanced()


def test_a_key_of_several_units_is_spoilt_by_one_of_them_and_costs_them_all() -> None:
    made = bench()
    long, short = serve(made, "A", 3 * KEY), serve(made, "B", 2 * KEY)
    assert (long.ranges, short.ranges) == (((0, 3),), ((2, 4),))
    made.go(AGREED_S)
    assert made.refusal(made.fetch("B", "A", long)) == COLLIDED
    assert made.refusal(made.fetch("A", "B", short)) == COLLIDED
    for book in made.balanced():
        assert (book.D, book.O, book.C, book.S) == (0, 0, 4 * KEY, 4 * KEY)


def test_a_lost_notice_is_asked_for_and_the_key_fetched() -> None:
    made = bench()
    made.lose = lambda node, said: said.message.word == "USED" and said.message.number == 3
    name = serve(made, "A")
    made.go(AGREED_S)
    request = made.fetch("B", "A", name)
    assert request not in made.answers
    made.lose = lambda node, said: False
    other = serve(made, "A")
    made.go(AGREED_S)
    assert made.name(request) == name
    assert made.name(made.fetch("B", "A", other)) == other
    made.balanced()


def test_the_end_that_makes_no_sets_asks_for_one() -> None:
    made = bench(6, WorkingSet(size=4))
    request = made.ask("B", "A", 5 * KEY)
    assert request not in made.answers or made.answers[request].name is not None
    made.go(2)
    assert made.name(request).taken_bits == 5 * KEY
    made.balanced()


def test_an_empty_store_serves_nothing_and_says_nothing() -> None:
    made = bench(0)
    request = made.ask("A", "B", category=1)
    made.go(6)
    assert made.refusal(request)
    assert "USED" not in made.words()
    made.balanced()


def run(part: WorkingSet, seconds: int, deadline_s: float, seed: int = 15) -> Record:
    return full(design(part), seconds, deadline_s, seed)[1]


def full(of: Design, seconds: int, deadline_s: float, seed: int = 15, *, later_keys: int = 0) -> tuple[Arena, Record]:
    """Poisson requests, 10 in a second at each of two sites, of a store that is full from the start; 10 ms one way.

    `later_keys` come when nobody asks any more.
    """
    draw = random.Random(seed)
    demands: list[Demand] = []
    for master, slave in ("AB", "BA"):
        at = 10 * SECOND
        while (at := at + round(draw.expovariate(10) * SECOND)) < (10 + seconds) * SECOND:
            demands.append(Demand(len(demands), at, master + slave, master, slave, KEY, round(deadline_s * SECOND)))
    streams = tuple(Stream(one + other, one, other, 2560, KEY) for one, other in ("AB", "BA"))

    def settings(node: str, peer: str, rate_bps: int, distant: bool) -> LineSettings:
        return LineSettings(rate_bps=rate_bps, tag_bits=0)

    ab = frozenset("AB")
    arena = Arena(of, {ab: 8}, Scenario(streams, tuple(demands)), seed=1, line_settings=settings)
    arena.block(ab, KEY * int(20 * seconds * 1.2))
    if later_keys:
        arena.at((seconds + 15) * SECOND, arena.block, ab, KEY * later_keys)
    return arena, arena.run(seconds + 20)


def collided(part: WorkingSet, seconds: int) -> float:
    """In per cent of the keys that were taken. The deadline leaves no time to come again, as every retry would be one
    more request."""
    record = run(part, seconds, deadline_s=0.01)
    assert record.collided == sum(book.C for book in record.books) / 2 / KEY
    assert record.serves == len(record.outcomes)
    supplied = sum(outcome.verdict is Verdict.SUPPLIED for outcome in record.outcomes)
    assert supplied == record.serves - 2 * record.collided
    percent = 100 * record.collided / record.serves
    print(f"{part}: {record.collided} of {record.serves} keys collided, {percent:.3f} %")
    return percent


@pytest.mark.parametrize("ends", ["same", "opposite"])
def test_whose_key_collided_gets_another(ends: Literal["same", "opposite"]) -> None:
    record = run(WorkingSet(size=8, ends=ends), 100, deadline_s=5)
    assert all(outcome.verdict is Verdict.SUPPLIED for outcome in record.outcomes)
    assert record.serves == len(record.outcomes) + 2 * record.collided
    assert record.collided > 0


CURVE = [
    (WorkingSet(ends="same"), 8.2, 0.3),
    (WorkingSet(size=8), 1.2, 0.15),
    (WorkingSet(size=64), 0.15, 0.03),
    (WorkingSet(size=512), 0.02, 0.01),
]


@pytest.mark.parametrize(("part", "percent", "within"), CURVE)
def test_at_qcanada_2_collisions_fall_as_one_over_the_size_of_the_set(
    part: WorkingSet, percent: float, within: float
) -> None:
    """For a twentieth of the 20,000 s of the scenario, which the next test takes."""
    assert collided(part, 1000) == pytest.approx(percent, abs=2 * within)


@pytest.mark.worlds
@pytest.mark.parametrize(("part", "percent", "within"), CURVE)
def test_at_qcanada_2_over_20_000_seconds(part: WorkingSet, percent: float, within: float) -> None:
    assert collided(part, 20_000) == pytest.approx(percent, abs=within)


def test_at_qcanada_2_directed_pools_never_collide() -> None:
    """The same requests; the store is divided by direction and by nothing else."""
    directed = replace(DESIGNS["qcanada"], division=EncDec())
    _, record = full(directed, 1000, deadline_s=5)
    assert record.collided == 0
    assert all(book.C == 0 for book in record.books)
    assert record.serves == len(record.outcomes) > 15_000
    assert all(outcome.verdict is Verdict.SUPPLIED for outcome in record.outcomes)


def test_at_qcanada_2_the_whole_store_as_one_set_hardly_collides_and_both_remedies_stand_side_by_side() -> None:
    """The rejected remedy: the collisions of the largest set or fewer, and a store that is used from both ends."""
    arena, record = full(design(WorkingSet(size="all")), 200, deadline_s=0.01, later_keys=800)
    assert record.collided / record.serves < 0.002
    small, _ = full(design(WorkingSet(size=64)), 200, deadline_s=0.01, later_keys=800)
    split, whole = (fragmentation(one.sites["A"].links["B"].serving) for one in (arena, small))
    print(f"fragmentation {split:.2f}, of sets of 64 {whole:.2f}")
    assert split > 0.4 > 0.1 > whole


def fragmentation(serving: object) -> float:
    """1 - longest contiguous stretch that is ready / stock."""
    ready = cast(TakenFirst, serving).ready()
    return 1 - max(high - low for low, high in ready) / sum(high - low for low, high in ready)


def test_at_qcanada_2_a_set_of_the_whole_store_fragments_it() -> None:
    """From opposite ends of all there is: what comes later lies behind a gap."""
    made = bench(100, WorkingSet(size="all"))
    taken = []
    for n in range(40):
        at, other = ("A", "B") if n % 2 else ("B", "A")
        name = serve(made, at)
        taken.append(unit(name))
        made.go(AGREED_S)
        made.fetch(other, at, name)
    assert sorted(taken) == [*range(1, 21), *range(81, 101)]
    made.give(60 * KEY)
    made.go(AGREED_S)
    serving = cast(TakenFirst, made.line("A", "B").serving)
    assert serving.ready() == [(20, 80), (100, 160)]
    assert fragmentation(serving) == 0.5
    made.balanced()


def test_at_qcanada_6_no_pad_is_used_twice_in_1000_relayed_blocks() -> None:
    made = Bench(WORKING_SET, "A-B", "B-C", preshared_bits=1 << 22)
    made.open("s", "A", "C")
    made.open("t", "C", "A")
    pads: dict[tuple[str, str], set[int]] = {}
    blocks = 0
    for _ in range(900):
        for link in ("A-B", "B-C"):
            made.give(40 * KEY, link)
        made.go(0.2)
        for at, peer in (("A", "C"), ("C", "A")):
            made.ask(at, peer)
        made.go(0.2)
    for node, said in made.said:
        if said.message.word != "RELAY" or said.message.kind != "tell":
            continue
        blocks += 1
        one, other = sorted((node, said.peer))
        used = pads.setdefault((one, other), set())
        for unit_ in units(said.message.ranges):
            assert unit_ not in used, (one, other, unit_)
            used.add(unit_)
    assert blocks >= 1000
    made.balanced()


def units(ranges: tuple[Units, ...]) -> list[int]:
    return [unit for low, high in ranges for unit in range(low, high)]
