"""Stores that are full, and the used-log."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.acceptance.benches import Bench

from keyhop.core.composed.line import Run
from keyhop.core.composed.nouns.units import Units
from keyhop.core.composed.stock.disposal import InBatches, Times
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.disposal import AgePurge, EraseInBatches, FullStore

UNIT = 256
CAPACITY = 16 * UNIT
NICT = DESIGNS["nict"]


def full(rule: FullStore) -> Bench:
    """A link with room for sixteen units, and sixteen in it."""
    design = replace(NICT, disposal=AgePurge(full_store=rule))
    bench = Bench(design, capacity_bits=CAPACITY, tag_bits=0)
    bench.give(CAPACITY)
    bench.go(2)
    assert [book.S for book in bench.balanced()] == [CAPACITY, CAPACITY]
    return bench


def test_a_full_store_that_stops_leaves_fresh_key_with_the_module_until_there_is_room() -> None:
    bench = full("stop")
    bench.give(UNIT)
    bench.go(2)
    assert [book.G for book in bench.balanced()] == [CAPACITY, CAPACITY]
    request = bench.ask("A", "B")
    bench.fetch("B", "A", bench.name(request))
    bench.give(UNIT)
    bench.go(2)
    # The one that waited came in, the next waits.
    assert [(book.G, book.S, book.D) for book in bench.balanced()] == [(CAPACITY + UNIT, CAPACITY, UNIT)] * 2


def test_a_full_store_that_drops_what_is_new_books_it_as_expired() -> None:
    bench = full("drop_new")
    bench.go(3600)
    bench.give(UNIT)
    bench.go(2)
    assert [(book.G, book.X, book.S) for book in bench.balanced()] == [(CAPACITY + UNIT, UNIT, CAPACITY)] * 2
    assert bench.name(bench.ask("A", "B")).ranges == ((0, 1),)


def test_an_idle_full_store_replaces_its_oldest_at_both_ends() -> None:
    bench = full("replace_oldest")
    bench.go(3600)
    bench.give(8 * UNIT)
    bench.go(2)
    assert [(book.X, book.S) for book in bench.balanced()] == [(8 * UNIT, CAPACITY)] * 2
    for at, peer in (("A", "B"), ("B", "A")):
        pools = {label: list(pool) for label, pool in bench.line(at, peer).run.pools.items() if pool.level}
        assert pools == {"A>B": [(8, 16)], "B>A": [(16, 24)]}


def test_a_full_store_that_is_drawn_from_keeps_its_oldest() -> None:
    bench = full("replace_oldest")
    bench.go(3600)
    request = bench.ask("A", "B")
    bench.fetch("B", "A", bench.name(request))
    bench.give(8 * UNIT)
    bench.go(2)
    for book in bench.balanced():
        assert (book.X, book.S) == (8 * UNIT, CAPACITY - UNIT)
    assert bench.name(bench.ask("A", "B")).ranges == ((1, 2),)


@pytest.mark.parametrize("rule", ["stop", "drop_new", "replace_oldest"])
def test_a_full_store_never_holds_more_than_it_has_room_for(rule: FullStore) -> None:
    bench = full(rule)
    for _ in range(200):
        bench.give(3 * UNIT)
        bench.go(1)
        assert all(book.S <= CAPACITY for book in bench.balanced())


def logged(n: int) -> tuple[InBatches, Run]:
    return InBatches(EraseInBatches(n=n)), Run(UNIT)


@pytest.mark.parametrize("ranges", [((0, 1),), ((0, 3), (7, 9)), ((5, 40),)])
def test_what_is_used_and_not_erased_is_exposed(ranges: tuple[Units, ...]) -> None:
    log, run = logged(4)
    used = 0
    for shift in range(0, 1000, 50):
        log.used(run, "", tuple((low + shift, high + shift) for low, high in ranges))
        used += sum(high - low for low, high in ranges)
        assert log.present == used % 4
        assert log.erased == used - used % 4
        assert log.exposed_bits == log.present * UNIT


def test_a_restart_gives_nothing_of_the_log_back() -> None:
    log, run = logged(100)
    log.used(run, "a", ((0, 30), (60, 80)))
    log.restarted()
    assert run.units == 0
    assert log.present == 50


def test_units_know_when_they_were_made_until_they_are_too_old() -> None:
    times, run, other = Times(), Run(UNIT), Run(UNIT, "B")
    times.entered(run, 10, 100, 110)
    times.entered(run, 20, 200, 210)
    times.entered(other, 5, 150, 160)
    made = [stretch.made_ns for unit in (0, 9, 10, 19) if (stretch := times.of(run, unit)) is not None]
    assert made == [100, 100, 200, 200]
    assert times.of(run, 20) is None
    assert times.aged(lambda made_ns: made_ns < 160) == {run: 10, other: 5}
    assert times.aged(lambda made_ns: made_ns < 160) == {}
    assert times.of(other, 0) is None
