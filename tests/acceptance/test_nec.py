"""AT-NEC: files of a relay node's links become files of pairs of terminals by one XOR."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.acceptance.benches import Bench
from tests.acceptance.bits import Told, with_bits

from keyhop.core.composed.nouns.messages import Restarted, Said
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.policy.refill import LowHigh

FILE_BITS = 4096
NEC = DESIGNS["nec"]
ONE_EACH = replace(DESIGNS["nec.fixed"], refill=LowHigh(low=1, high=1))


def star(terminals: int) -> list[str]:
    return [f"RN-T{number:02d}" for number in range(terminals)]


def pool(bench: Bench, at: str, peer: str, owner: str) -> int:
    """Files in the pool that `owner` supplies from, as this end holds it."""
    line = bench.line(at, peer)
    return line.run_of(f"{owner}>").units


def test_at_nec_1_a_request_turns_one_file_of_each_link_into_one_of_the_pair() -> None:
    bench = Bench(NEC, *star(2))
    told = Told({"RN-T00": 0b1010, "RN-T01": 0b0110}, drawn=0)
    bits = with_bits(bench, told)
    for link in star(2):
        bench.give(FILE_BITS, link)
    bench.go(1)
    request = bench.ask("T00", "T01", FILE_BITS)
    bench.go(1)
    name = bench.name(request)
    assert bench.name(bench.fetch("T01", "T00", name)) == name
    assert name.ranges == ((0, 1),)
    key = told.keys[frozenset(("RN", "T01"))]
    assert bits["T00"].entered == bits["T01"].entered == [key], "P[TN2].enc is P[TN1].dec: the second link's file"
    for at, peer in (("T00", "RN"), ("T01", "RN"), ("RN", "T00"), ("RN", "T01")):
        assert bench.line(at, peer).usable_bits == 0
    near, far = bench.book("T00", "RN"), bench.book("T01", "RN")
    assert (near.R, near.T, far.R, far.T) == (FILE_BITS, 0, 0, FILE_BITS)
    assert bench.book("RN", "T00").R == bench.book("RN", "T01").R == FILE_BITS
    assert (bench.book("T00", "T01").N, bench.book("T01", "T00").T) == (FILE_BITS, FILE_BITS)
    second = bench.ask("T00", "T01", FILE_BITS)
    bench.go(1)
    assert bench.refusal(second) == "blocked: a link has too few files"
    bench.balanced()


def test_one_link_without_a_file_blocks_and_leaves_the_other_links_file_alone() -> None:
    bench = Bench(NEC, *star(2))
    bench.give(FILE_BITS, "RN-T00")
    bench.go(1)
    request = bench.ask("T00", "T01", 128)
    bench.go(1)
    assert "blocked" in bench.refusal(request)
    assert bench.line("RN", "T00").usable_bits == bench.line("T00", "RN").usable_bits == FILE_BITS
    bench.balanced()


def test_at_nec_2_nothing_is_supplied_before_the_far_terminal_has_confirmed() -> None:
    def lost(node: str, said: Said) -> bool:
        return node == "T01" and said.message.word == "SET-OK"

    bench = Bench(NEC, *star(2))
    bench.lose = lost
    for link in star(2):
        bench.give(FILE_BITS, link)
    bench.go(1)
    request = bench.ask("T00", "T01", 128, deadline_s=5)
    bench.go(4)
    assert request not in bench.answers
    bench.go(2)
    assert bench.answers[request].timed_out
    assert pool(bench, "T00", "T01", "T00") == 0
    assert bench.book("T01", "T00").T == FILE_BITS
    bench.balanced()


def test_a_lost_confirmation_is_said_again_when_the_next_one_comes() -> None:
    bench = Bench(NEC, *star(2))
    for link in star(2):
        bench.give(3 * FILE_BITS, link)
    bench.go(1)
    bench.lose = lambda node, said: said.message.word == "READY"
    first = bench.ask("T00", "T01", 128, deadline_s=3)
    bench.go(5)
    assert bench.answers[first].timed_out
    bench.lose = lambda node, said: False
    second = bench.ask("T00", "T01", 128, deadline_s=30)
    third = bench.ask("T00", "T01", 128, deadline_s=30)
    bench.go(1)
    assert [bench.name(request).ranges for request in (second, third)] == [((0, 1),), ((1, 2),)]
    bench.balanced()


def test_a_file_that_a_restart_has_lost_is_passed_over_and_never_supplied() -> None:
    bench = Bench(NEC, *star(2))
    for link in star(2):
        bench.give(3 * FILE_BITS, link)
    bench.go(1)
    bench.lose = lambda node, said: node == "T01" and said.message.word == "SET-OK"
    bench.ask("T00", "T01", 128, deadline_s=3)
    bench.go(5)
    bench.step("T00", Restarted())
    bench.lose = lambda node, said: False
    request = bench.ask("T00", "T01", 128, deadline_s=30)
    bench.go(20)
    name = bench.name(request)
    assert name.ranges == ((1, 2),)
    bench.fetch("T01", "T00", name)
    far = bench.line("T01", "T00")
    assert (far.book.D, far.book.O, far.usable_bits) == (128, FILE_BITS - 128, FILE_BITS)
    bench.balanced()


def test_at_nec_3_fixed_files_for_all_pairs_of_ten_terminals() -> None:
    bench = Bench(ONE_EACH, *star(10))
    for link in star(10):
        bench.give(18 * FILE_BITS, link)
    bench.go(2)
    sources = [(line.own, line.peer) for line in bench.lines() if line.distant and line.run.units]
    assert len(sources) == 90
    links = [line for line in bench.lines() if not line.distant]
    assert all(line.book.R + line.book.T == 18 * FILE_BITS and not line.usable_bits for line in links)
    given = sum(line.book.R for line in links if line.own == "RN") // FILE_BITS
    assert given == 180
    # Each file of a pair is at its source and, under the source's name, at its destination.
    files = [
        line.run_of(f"{source}>").units for line in bench.lines() if line.distant for source in (line.own, line.peer)
    ]
    assert files == [1] * 2 * 90
    bench.balanced()


def pools(bench: Bench) -> set[tuple[str, str]]:
    """(source, destination) of pools that hold files at their source."""
    return {(line.own, line.peer) for line in bench.lines() if line.distant and line.run_of(f"{line.own}>").units}


@pytest.mark.parametrize(("design", "made"), [(ONE_EACH, 90), (NEC, 0)], ids=["fixed", "on demand"])
def test_at_nec_3_an_eleventh_terminal_creates_twenty_pools_and_none_on_demand(design: Design, made: int) -> None:
    bench = Bench(design, *star(11))
    for link in star(10):
        bench.give(40 * FILE_BITS, link)
    bench.go(2)
    before = pools(bench)
    assert len(before) == made
    # The eleventh joins with the first key of its link.
    bench.give(40 * FILE_BITS, "RN-T10")
    bench.go(2)
    created = pools(bench) - before
    assert len(created) == (20 if made else 0)
    assert all("T10" in pair for pair in created)
    bench.balanced()


def test_fixed_files_are_built_again_when_a_pair_falls_below_its_low_mark() -> None:
    bench = Bench(DESIGNS["nec.fixed"], *star(2))
    for link in star(2):
        bench.give(100 * FILE_BITS, link)
    bench.go(2)
    assert pool(bench, "T00", "T01", "T00") == pool(bench, "T01", "T00", "T00") == 16
    for _ in range(12):
        bench.name(bench.ask("T00", "T01", 128))
    bench.go(1)
    assert pool(bench, "T00", "T01", "T00") == 4
    bench.name(bench.ask("T00", "T01", 128))
    bench.go(1)
    assert pool(bench, "T00", "T01", "T00") == 16
    bench.balanced()


def test_an_empty_fixed_pool_refuses_at_once() -> None:
    bench = Bench(DESIGNS["nec.fixed"], *star(2))
    request = bench.ask("T00", "T01", 128)
    assert "not enough key" in bench.refusal(request)


def test_at_nec_4_a_key_of_128_bits_wastes_the_rest_of_its_file() -> None:
    bench = Bench(NEC, *star(2))
    for link in star(2):
        bench.give(FILE_BITS, link)
    bench.go(1)
    request = bench.ask("T00", "T01", 128)
    bench.go(1)
    assert bench.name(request).taken_bits == FILE_BITS
    book = bench.book("T00", "T01")
    assert (book.D, book.O) == (128, 3968)


def test_a_terminal_beyond_two_links_is_out_of_reach() -> None:
    bench = Bench(NEC, "A-B", "B-C", "C-D")
    request = bench.ask("A", "D", 128)
    assert bench.answers[request].unservable
