"""NECTEC's local part: AT-NECTEC-4, and how blocks are split among applications and their two directions."""

from __future__ import annotations

from tests.acceptance.benches import Bench

from keyhop.core.designs import DESIGNS
from keyhop.simulator.damage import Mishap

NECTEC = DESIGNS["nectec"]
LINK = frozenset("AB")
BLOCK = 4096
UNIT = 256


def pools(bench: Bench, at: str, *applications: str) -> list[list[int]]:
    """Units by application: out of A, then into A."""
    run = bench.line(at, "B" if at == "A" else "A").run
    found = [run.pool(f"{name}/{way}") for name in applications for way in ("A>B", "B>A")]
    return [[unit for start, end in pool for unit in range(start, end)] for pool in found]


def test_at_nectec_4_a_block_that_differs_in_one_bit_is_destroyed_at_both_and_no_other() -> None:
    bench = Bench(NECTEC)
    bench.open("s", "A", "B")
    bench.go(0.1)
    bench.give(BLOCK)
    bench.damage.plan(LINK, Mishap("B", at_byte=7, lost=False))
    bench.give(BLOCK)
    bench.give(BLOCK)
    bench.go(3)
    answers = [said.message for _, said in bench.said if said.message.word == "VERIFY-ACK"]
    assert [answer.ok for answer in answers].count(False) == 1
    for book in bench.balanced():
        assert (book.G, book.Y, book.S) == (3 * BLOCK, BLOCK, 2 * BLOCK)
    name = bench.name(bench.ask("A", "B", BLOCK))
    assert bench.name(bench.fetch("B", "A", name)) == name and bench.equal("A", "B", name)


def test_pieces_go_to_applications_in_turn_and_to_their_directions_in_turn() -> None:
    bench = Bench(NECTEC)
    bench.open("one", "A", "B")
    bench.open("two", "B", "A")
    bench.go(0.1)
    bench.give(8 * UNIT)
    bench.go(2)
    assert pools(bench, "A", "one", "two") == pools(bench, "B", "one", "two") == [[0, 4], [2, 6], [1, 5], [3, 7]]
    bench.balanced()


def test_either_end_takes_out_of_its_own_direction_alone() -> None:
    bench = Bench(NECTEC)
    bench.open("s", "A", "B")
    bench.go(0.1)
    bench.give(4 * UNIT)
    bench.go(2)
    here, there = bench.name(bench.ask("A", "B")), bench.name(bench.ask("B", "A"))
    assert (here.ranges, there.ranges) == (((0, 1),), ((1, 2),))
    assert bench.name(bench.fetch("B", "A", here)) and bench.name(bench.fetch("A", "B", there))
    bench.balanced()


def test_pads_and_applications_never_meet() -> None:
    bench = Bench(NECTEC, "A-B", "B-C")
    bench.open("near", "A", "B")
    bench.go(0.1)
    bench.give(8 * UNIT)
    bench.go(2)
    assert pools(bench, "A", "", "near") == pools(bench, "B", "", "near") == [[0, 4], [2, 6], [1, 5], [3, 7]]
    bench.balanced()


def test_an_application_that_joins_gets_its_turn_from_one_position_on_at_both_ends() -> None:
    bench = Bench(NECTEC)
    bench.open("one", "A", "B")
    bench.go(0.1)
    for n in range(100):
        bench.give(3 * UNIT)
        bench.go(0.003)
        if n == 10:
            bench.open("two", "A", "B")
    bench.go(3)
    assert pools(bench, "A", "one", "two") == pools(bench, "B", "one", "two")
    assert all(map(len, pools(bench, "A", "one", "two")))
    bench.balanced()
