"""What services promise, they keep on loaded links: in virtual time, block by block and request by request."""

from __future__ import annotations

from fractions import Fraction

import pytest
from loaded import Link, Loaded, Talk

from keyhop.core.model import NANOSECONDS
from keyhop.core.policy_rules import ServiceClass
from keyhop.core.services.promises import Contract
from keyhop.core.services.shares import Shares

SECONDS = 60
RATE = 100_000
"""Of each link, bit/s."""
GAP_NS = NANOSECONDS // 5
GUARANTEED, PRIORITISED, BEST_EFFORT = ServiceClass
PATH = ("a-b", "b-c", "c-d")


def loaded(seed: int = 1) -> Loaded:
    return Loaded(dict.fromkeys(PATH, (RATE, GAP_NS)), floor=Fraction(1, 10), seed=seed)


def overload(world: Loaded, *, share: float, path_share: float = 0.0) -> None:
    """Others ask for `share` of each link's rate, two thirds of it prioritised."""
    for link in PATH:
        for service_class, part in ((PRIORITISED, 2 / 3), (BEST_EFFORT, 1 / 3)):
            rate = int(RATE * share * part)
            world.join(Talk(f"{service_class}-{link}", service_class, (link,), 1024, rate))
    if path_share:
        world.join(Talk("prioritised-path", PRIORITISED, PATH, 2048, int(RATE * path_share)))


def guaranteed(world: Loaded, name: str, path: tuple[str, ...], rate_bps: int, **more: bool) -> None:
    contract = Contract(rate_bps, 4096)
    assert world.promises.ask(name, contract, path, 256).admitted
    world.join(Talk(name, GUARANTEED, path, 256, rate_bps, contract, regular=True, **more))


@pytest.mark.parametrize("seed", range(3))
def test_no_admitted_guarantee_is_broken_at_twice_the_load_that_links_carry(seed: int) -> None:
    world = loaded(seed)
    guaranteed(world, "far", PATH, 40_000)
    guaranteed(world, "near", PATH[:1], 30_000)
    guaranteed(world, "middle", PATH[1:], 20_000)
    overload(world, share=1.3, path_share=0.2)
    world.run(SECONDS)
    asked_on_first = sum(bits for name, bits in world.asked.items() if PATH[0] in world.talks[name].path)
    assert asked_on_first > 2.0 * RATE * SECONDS
    assert world.late == []
    for name, rate in (("far", 40_000), ("near", 30_000), ("middle", 20_000)):
        assert world.given[name] == world.asked[name]
        # No second gave less than its keys, but for the first and the one that the run broke off.
        assert min(world.windows[name][second] for second in range(1, SECONDS - 1)) >= rate - 256


@pytest.mark.parametrize("seed", range(3))
def test_best_effort_gets_its_floor_under_guarantees_and_prioritised_overload(seed: int) -> None:
    world = loaded(seed)
    guaranteed(world, "far", PATH, 90_000)
    overload(world, share=1.5)
    world.run(SECONDS)
    assert world.late == []
    for link in PATH:
        assert world.rate([f"best_effort-{link}"], SECONDS) >= 0.99 * RATE / 10


def test_without_a_floor_best_effort_would_starve() -> None:
    world = Loaded(dict.fromkeys(PATH, (RATE, GAP_NS)), floor=Fraction(0))
    overload(world, share=3.0)
    world.run(SECONDS)
    later = range(SECONDS // 2, SECONDS)
    assert sum(world.windows["best_effort-a-b"][second] for second in later) == 0
    assert sum(world.windows["prioritised-a-b"][second] for second in later) > 0.99 * RATE * len(later)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_guaranteed_and_idle_is_lent(seed: int) -> None:
    world = loaded(seed)
    contract = Contract(80_000, 4096)
    assert world.promises.ask("idle", contract, PATH, 256).admitted
    for link in PATH:
        world.links[link].shares.join("idle", GUARANTEED, 0, contract=contract)
    overload(world, share=1.2)
    world.run(SECONDS)
    for link in PATH:
        assert world.utilisation(link) >= Fraction(9, 10)


def test_what_was_lent_is_back_at_once() -> None:
    world = loaded()
    contract = Contract(80_000, 4096)
    assert world.promises.ask("sleeper", contract, PATH, 256).admitted
    awake = (SECONDS // 2 * NANOSECONDS, 1 << 62)
    world.join(Talk("sleeper", GUARANTEED, PATH, 256, 80_000, contract, regular=True, on_ns=awake))
    overload(world, share=1.5)
    world.run(SECONDS)
    assert world.late == []
    assert world.windows["sleeper"][SECONDS // 2] >= 80_000 - 256
    assert all(world.utilisation(link) >= Fraction(9, 10) for link in PATH)


def test_a_reservation_that_was_not_admitted_does_break() -> None:
    """The measure sees violations where there are some."""
    world = loaded()
    for number in range(3):
        world.join(Talk(f"g{number}", GUARANTEED, PATH, 256, 60_000, Contract(60_000, 4096), regular=True))
    world.run(SECONDS)
    assert world.late


def test_what_a_guaranteed_stream_asks_beyond_its_contract_is_best_effort() -> None:
    world = loaded()
    contract = Contract(20_000, 4096)
    assert world.promises.ask("greedy", contract, PATH[:1], 256).admitted
    world.join(Talk("greedy", GUARANTEED, PATH[:1], 256, 200_000, contract, regular=True))
    overload(world, share=1.0)
    world.run(SECONDS)
    assert 20_000 <= world.rate(["greedy"], SECONDS) < 100_000
    assert world.given["prioritised-a-b"] >= 0.95 * world.asked["prioritised-a-b"]


def test_streams_of_a_class_share_by_weight() -> None:
    link = Link(RATE, GAP_NS, Fraction(0), 0, Shares(RATE, GAP_NS, 0, floor=Fraction(0)))
    given = {"one": 0, "three": 0}
    link.shares.join("one", PRIORITISED, 0, weight=1)
    link.shares.join("three", PRIORITISED, 0, weight=3)
    for step in range(2000):
        for name in given:
            while link.shares.queue(name, 256) is not None:
                pass
        for served in link.shares.serve(RATE // 5, step * GAP_NS):
            given[served.stream] += served.bits
    assert 2.9 < given["three"] / given["one"] < 3.1
