"""NIST's queues of stamped bytes: AT-NIST-1 to 4, and what a switch of the quantum link costs."""

from __future__ import annotations

import dataclasses

import pytest
from tests.acceptance.benches import Bench

from keyhop.core.composed.nouns.messages import Said
from keyhop.core.composed.stock.fifos import Fifos
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.policy.synchronisation import StampSequence
from keyhop.simulator.damage import Mishap

NIST = DESIGNS["nist"]
LINK = frozenset("AB")
BYTE = 8
CHUNK = 4096 * BYTE


def stamped(on_gap: str) -> Design:
    return dataclasses.replace(NIST, synchronisation=StampSequence(on_gap=on_gap))  # type: ignore[arg-type]


def connected(design: Design = NIST, **rates: int) -> Bench:
    bench = Bench(design)
    for stream, rate in (rates or {"s": 1000}).items():
        bench.open(stream, "A", "B", rate_bps=rate)
    bench.go(0.1)
    return bench


def both_get(bench: Bench, size_bits: int, stream: str = "s") -> bool:
    """Whether both ends got the same bits."""
    name = bench.name(bench.ask("A", "B", size_bits, stream=stream))
    bench.go(0.01)
    assert bench.name(bench.fetch("B", "A", name, stream=stream)) == name
    return bench.equal("A", "B", name)


def test_at_nist_1_a_pass_of_4096_bytes_is_dealt_one_to_three_and_each_queue_begins_at_stamp_0() -> None:
    bench = connected(one=100, three=300)
    bench.give(CHUNK)
    bench.go(0.05)
    for at, peer in (("A", "B"), ("B", "A")):
        line = bench.line(at, peer)
        one, three = line.run.pool("one"), line.run.pool("three")
        assert (one.level, three.level, line.run.free.level) == (1024, 3072, 0)
        dealing = line.dealing
        assert isinstance(dealing, Fifos)
        assert dealing.stamp("one", one.first[0]) == dealing.stamp("three", three.first[0]) == 0  # type: ignore[index]
    bench.balanced()


def test_a_pass_comes_every_tenth_of_a_second() -> None:
    bench = connected()
    bench.give(3 * CHUNK)
    pool = bench.line("A", "B").run.pool("s")
    for passes in (1, 2, 3):
        bench.go(0.05)
        assert pool.level == passes * 4096
        bench.go(0.05)
    bench.balanced()


def test_at_nist_2_a_gap_is_detected_and_both_ends_fall_back_to_the_last_common_base() -> None:
    bench = connected()
    bench.give(CHUNK)
    bench.give(CHUNK)
    # B lacks the first 1024 bytes of the third chunk.
    bench.give(1024 * BYTE, only="A")
    bench.give(3072 * BYTE)
    assert bench.words("ask")[-1] == "SYNC"
    assert next(said.message.counts for _, said in bench.said if said.message.word == "SYNC") == (
        8192 * BYTE,
        9216 * BYTE,
    )
    bench.go(1)
    lost, other = bench.book("A", "B"), bench.book("B", "A")
    assert (lost.Y, other.Y) == (8192, 0)
    assert lost.S == other.S == (8192 + 3072) * BYTE
    assert both_get(bench, 8192 * BYTE) and both_get(bench, 3072 * BYTE)
    bench.balanced()


def test_at_nist_2_a_restart_loses_everything_unread_at_both_ends_and_reads_are_equal_afterwards() -> None:
    bench = connected(stamped("restart"))
    bench.give(CHUNK)
    bench.give(CHUNK)
    bench.give(1024 * BYTE, only="A")
    bench.give(3072 * BYTE)
    bench.go(1)
    assert bench.book("A", "B").Y == (8192 + 4096) * BYTE and bench.book("B", "A").Y == (8192 + 3072) * BYTE
    assert bench.book("A", "B").S == bench.book("B", "A").S == 0
    bench.give(CHUNK)
    bench.go(1)
    assert both_get(bench, CHUNK)
    bench.balanced()


def test_gaps_at_both_ends_fall_back_to_the_higher_base() -> None:
    bench = connected()
    bench.give(CHUNK)
    bench.give(800, only="A")
    bench.give(1600, only="B")
    bench.give(CHUNK)
    bench.go(1)
    bench.give(CHUNK)
    bench.go(1)
    assert bench.book("A", "B").Y == 800 and bench.book("B", "A").Y == 1600
    assert bench.line("A", "B").run.end == bench.line("B", "A").run.end
    assert both_get(bench, 3 * CHUNK)
    bench.balanced()


@pytest.mark.parametrize("word", ["SYNC", "SYNC-ACK"])
def test_a_lost_word_of_a_resynchronisation_is_said_again(word: str) -> None:
    bench = connected()
    lost: list[str] = []

    def once(node: str, said: Said) -> bool:
        if said.message.word == word and not lost:
            lost.append(word)
            return True
        return False

    bench.lose = once
    bench.give(1024 * BYTE, only="A")
    bench.give(CHUNK)
    bench.go(1)
    assert lost and not bench.line("B", "A").run.pool("s").level
    bench.go(10)
    assert bench.book("A", "B").Y == 8192 and both_get(bench, CHUNK)
    bench.balanced()


def test_at_nist_3_a_flipped_byte_makes_exactly_one_key_differ() -> None:
    bench = connected()
    bench.damage.plan(LINK, Mishap("B", at_byte=40, lost=False))
    bench.give(CHUNK)
    bench.go(0.1)
    assert [both_get(bench, 256) for _ in range(4)] == [True, False, True, True]
    bench.balanced()


def test_at_nist_3_with_stamps_off_a_lost_byte_makes_all_later_keys_differ() -> None:
    bench = connected(stamped("unseen"))
    bench.damage.plan(LINK, Mishap("B", at_byte=40, lost=True))
    bench.give(CHUNK)
    bench.give(CHUNK)
    bench.go(1)
    assert [both_get(bench, 256) for _ in range(8)] == [True, *[False] * 7]
    assert not any(both_get(bench, 512 * BYTE) for _ in range(14))
    bench.give(CHUNK)
    bench.go(1)
    assert not both_get(bench, 256)
    bench.balanced()


def test_at_nist_3_with_stamps_on_a_lost_byte_is_detected_at_the_next_chunk() -> None:
    bench = connected()
    bench.damage.plan(LINK, Mishap("B", at_byte=4000, lost=True))
    bench.give(CHUNK)
    bench.go(0.2)
    assert "SYNC" not in bench.words()
    bench.give(CHUNK)
    assert "SYNC" in bench.words()
    bench.go(1)
    # The chunk itself cannot be mended; behind it all is equal again.
    assert both_get(bench, 4000 * BYTE) and not both_get(bench, 95 * BYTE) and both_get(bench, 4096 * BYTE)
    assert bench.book("A", "B").Y == 8 and bench.book("B", "A").Y == 0
    bench.balanced()


def test_at_nist_4_a_read_of_13_bits_is_refused_and_one_of_16_gives_2_bytes() -> None:
    bench = connected()
    bench.give(CHUNK)
    refused = bench.ask("A", "B", 13)
    assert bench.answers[refused].unservable and "multiple of 8" in bench.refusal(refused)
    name = bench.name(bench.ask("A", "B", 16))
    assert name.taken_bits == 16 and name.ranges == ((0, 2),)
    bench.balanced()


def test_a_disengaged_queue_keeps_its_bytes_and_gets_no_more() -> None:
    bench = connected(one=100, two=100)
    bench.give(CHUNK)
    bench.go(0.1)
    bench.retune("one", 0, "A", "B")
    bench.go(0.1)
    bench.give(CHUNK)
    bench.go(0.2)
    for line in bench.lines():
        assert line.run.pool("one").level == 2048 and line.run.pool("two").level == 2048 + 4096
    assert both_get(bench, 2048 * BYTE, "one")
    assert bench.refusal(bench.ask("A", "B", 8, stream="one"))
    bench.balanced()


def test_a_closed_queue_is_destroyed_at_both_ends() -> None:
    bench = connected(one=100, two=100)
    bench.give(CHUNK)
    bench.go(0.1)
    bench.close("one", "A", "B")
    bench.go(0.1)
    assert [book.X for book in bench.balanced()] == [2048 * BYTE] * 2
    assert bench.refusal(bench.ask("A", "B", 8, stream="one"))
    bench.give(CHUNK)
    bench.go(0.2)
    assert [line.run.pool("two").level for line in bench.lines()] == [2048 + 4096] * 2
    bench.balanced()


def test_nothing_is_dealt_before_both_ends_have_connected() -> None:
    bench = Bench(NIST)
    bench.give(CHUNK)
    bench.connect("s", "A", "B", asks=True)
    bench.go(1)
    assert bench.refusal(bench.ask("A", "B", 8))
    bench.connect("s", "B", "A", asks=False)
    bench.go(1)
    assert both_get(bench, CHUNK)
    bench.balanced()


@pytest.mark.parametrize(("seconds", "misses"), [(8, False), (9, True)])
def test_headline_a_switch_is_hidden_exactly_as_long_as_the_queue_lasts(seconds: int, misses: bool) -> None:
    """Stock at the switch 8192 bits, demand 1024 bit/s: the queue lasts for 8 s."""
    bench = connected(s=1024)
    bench.give(8192)
    bench.go(0.1)
    failed = 0
    for _ in range(4 * seconds):
        failed += bool(bench.refusal(bench.ask("A", "B", 256)))
        bench.go(0.25)
    assert (failed > 0) is misses
    bench.balanced()
