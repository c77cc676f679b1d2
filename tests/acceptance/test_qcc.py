"""QCC's buffers: AT-QCC-1 to 5, and what a threshold is for."""

from __future__ import annotations

import dataclasses

import pytest
from tests.acceptance.benches import Bench

from keyhop.core.composed.nouns.messages import Said
from keyhop.core.composed.stock.refills import Buffers
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.refill import PerSession

QCC = DESIGNS["qcc"]
BUFFERS = {"a1": (256, 4096, 1000, 100), "a2": (2048, 4096, 3000, 200), "a3": (256, 8192, 2000, 100)}
"""Application -> longest read, size, level, rate."""


def dealing(bench: Bench, at: str = "A") -> Buffers:
    found = bench.line(at, "B" if at == "A" else "A").dealing
    assert isinstance(found, Buffers)
    return found


def levels(bench: Bench, at: str = "A") -> tuple[int, ...]:
    return tuple(dealing(bench, at).level_bits(name) for name in BUFFERS)


def unassigned(bench: Bench, at: str = "A") -> int:
    return bench.line(at, "B" if at == "A" else "A").run.free.level * 8


def read(bench: Bench, name: str, bits: int, longest: int) -> None:
    """At both ends, in reads that are not too long."""
    while bits:
        size = min(bits, longest)
        got = bench.name(bench.ask("A", "B", size, stream=name))
        bench.name(bench.fetch("B", "A", got, stream=name))
        bits -= size


def as_in_the_example(**levels_bits: int) -> Bench:
    """Buffers filled and then read down; nothing is unassigned."""
    bench = Bench(QCC)
    for name, (longest, size, _, rate) in BUFFERS.items():
        bench.open(name, "A", "B", rate_bps=rate, size_bits=longest, buffer_bits=size)
    bench.go(1)
    bench.give(4096 + 4096 + 8192)
    bench.go(1)
    assert levels(bench) == levels(bench, "B") == (4096, 4096, 8192)
    for name, (longest, size, level, _) in BUFFERS.items():
        read(bench, name, size - levels_bits.get(name, level), longest)
    bench.go(1)
    assert unassigned(bench) == 0 and bench.words("ask")[-1] == "REFILL"
    return bench


def test_at_qcc_1_low_buffers_share_what_there_is_by_rate() -> None:
    bench = as_in_the_example()
    room = dealing(bench)
    part = QCC.refill
    assert isinstance(part, PerSession)
    assert [part.threshold(room.buffer(name)) for name in BUFFERS] == [1024, 2048, 2048]
    assert [name for name in BUFFERS if room.due(name)] == ["a1", "a3"]
    bench.give(2000)
    bench.go(1)
    assert levels(bench) == levels(bench, "B") == (2000, 3000, 3000)
    assert unassigned(bench) == unassigned(bench, "B") == 0
    bench.balanced()


def test_at_qcc_2_low_buffers_are_filled_first_then_the_others_and_the_rest_stays_unassigned() -> None:
    bench = as_in_the_example()
    bench.give(12_000)
    bench.go(1)
    assert levels(bench) == levels(bench, "B") == (4096, 4096, 8192)
    assert unassigned(bench) == unassigned(bench, "B") == 1616
    bench.balanced()


def test_at_qcc_3_the_longest_read_sets_the_threshold_where_it_is_more_than_a_quarter() -> None:
    bench = Bench(QCC)
    bench.open("a", "A", "B", size_bits=2048, buffer_bits=4096)
    bench.go(1)
    bench.give(4096)
    bench.go(1)
    read(bench, "a", 2048, 2048)
    assert not dealing(bench).due("a")
    read(bench, "a", 8, 2048)
    assert dealing(bench).due("a")
    bench.balanced()


def test_at_qcc_4_a_level_exactly_at_the_threshold_does_not_trigger() -> None:
    bench = as_in_the_example(a1=1024, a3=2048)
    refills = bench.words("ask").count("REFILL")
    bench.give(2000)
    bench.go(1)
    assert bench.words("ask").count("REFILL") == refills and unassigned(bench) == 2000
    read(bench, "a1", 8, 256)
    bench.go(1)
    assert bench.words("ask").count("REFILL") == refills + 1 and unassigned(bench) == 0
    bench.balanced()


def test_at_qcc_5_where_the_slave_lacks_a_range_no_side_moves_any() -> None:
    bench = as_in_the_example()
    # Between the agreement and the refill a part is lost at the slave.
    before = bench.line("B", "A").run.end

    def loses(node: str, said: Said) -> bool:
        if said.message.word == "REFILL" and not bench.line("B", "A").book.Y:
            bench.line("B", "A").destroy((before + 10, before + 20), "Y")
        return False

    bench.lose = loses
    bench.give(2000)
    bench.go(0.5)
    assert levels(bench) == levels(bench, "B") == (1000, 3000, 2000)
    # What the slave will never have goes at the master, too; then the rest is moved at both.
    bench.go(2)
    assert bench.book("A", "B").Y == bench.book("B", "A").Y == 80
    assert levels(bench) == levels(bench, "B") == (1960, 3000, 2960)
    bench.balanced()


@pytest.mark.parametrize("word", ["REFILL", "REFILL-ACK"])
@pytest.mark.parametrize("seconds", [3, 70])
def test_a_refill_whose_words_are_lost_is_moved_once_at_both_ends(word: str, seconds: int) -> None:
    bench = as_in_the_example()
    until = bench.now + seconds * 1_000_000_000
    bench.lose = lambda node, said: said.message.word == word and bench.now < until
    bench.give(2000)
    bench.go(seconds + 6)
    assert levels(bench) == levels(bench, "B") == (2000, 3000, 3000)
    bench.balanced()


def test_a_slave_that_restarts_during_a_refill_moves_it_once() -> None:
    bench = as_in_the_example()
    bench.lose = lambda node, said: said.message.word == "REFILL-ACK" and "B" not in bench.restarted
    bench.give(2000)
    bench.go(0.5)
    bench.restart("B")
    bench.go(10)
    assert levels(bench) == levels(bench, "B") == (2000, 3000, 3000)
    bench.balanced()


def test_a_master_that_restarts_during_a_refill_moves_it_once() -> None:
    bench = as_in_the_example()
    bench.lose = lambda node, said: said.message.word == "REFILL-ACK" and "A" not in bench.restarted
    bench.give(2000)
    bench.go(0.5)
    bench.restart("A")
    bench.go(10)
    assert levels(bench) == levels(bench, "B") == (2000, 3000, 3000)
    bench.balanced()


def test_a_session_is_active_once_both_ends_have_connected() -> None:
    bench = Bench(QCC)
    bench.connect("s", "A", "B", asks=True)
    bench.give(8000)
    bench.go(1)
    assert bench.refusal(bench.ask("A", "B", 8)) and unassigned(bench) == 8000
    bench.connect("s", "B", "A", asks=False)
    bench.go(1)
    read(bench, "s", 256, 256)
    bench.balanced()


def test_a_read_longer_than_agreed_is_refused() -> None:
    bench = as_in_the_example()
    assert "more than" in bench.refusal(bench.ask("A", "B", 264, stream="a1"))
    bench.balanced()


def test_the_buffer_of_a_closed_session_is_destroyed_at_both_ends() -> None:
    bench = as_in_the_example()
    bench.close("a2", "A", "B")
    bench.give(12_000)
    bench.go(1)
    assert [book.X for book in bench.balanced()] == [3000, 3000]
    assert levels(bench)[::2] == (4096, 8192) and unassigned(bench) == 12_000 - 3096 - 6192


def test_the_end_that_is_not_master_may_be_the_one_that_asks() -> None:
    bench = Bench(QCC)
    bench.open("s", "B", "A", size_bits=256, buffer_bits=1024)
    bench.go(1)
    bench.give(8000)
    bench.go(1)
    for _ in range(20):
        name = bench.name(bench.ask("B", "A", 256))
        bench.fetch("A", "B", name)
        bench.go(0.1)
    assert bench.refusal(bench.ask("A", "B", 256)), "its buffer is read in one order"
    bench.balanced()


def stalls(global_thr: float, **others: int) -> int:
    """Refused renewals of 11 one-way associations, one second each, on 3 kbit/s, when blocks come every 2 s."""
    bench = Bench(dataclasses.replace(QCC, refill=PerSession(global_thr=global_thr)), rate_bps=3000)
    for n in range(11):
        bench.open(f"sa{n}", "A", "B", rate_bps=256, size_bits=256, buffer_bits=2048, **others)
    bench.go(1)
    bench.give(11 * 2048)
    bench.go(1)
    refused = 0
    for second in range(60):
        if second % 2 == 0:
            bench.give(6000)
        for n in range(11):
            request = bench.ask("A", "B", 256, stream=f"sa{n}")
            bench.go(1 / 11)
            if bench.refusal(request):
                refused += 1
            else:
                bench.fetch("B", "A", bench.name(request), stream=f"sa{n}")
    bench.balanced()
    return refused


def test_headline_eleven_associations_renew_every_second_on_3_kbit_s_without_a_stall() -> None:
    assert stalls(0.25) == 0
