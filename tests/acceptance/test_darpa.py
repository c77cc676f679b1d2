"""DARPA: blocks in memory that applications list, reserve and obtain."""

from __future__ import annotations

from typing import cast

from keyhop.core.composed.nouns.messages import Name, Restarted
from keyhop.core.composed.nouns.units import Units
from keyhop.core.composed.stock.negotiated import NOT_RESERVED, Negotiated
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.designs import DESIGNS

from .benches import Bench

DARPA = DESIGNS["darpa"]
BLOCK = 1024


def bench(blocks: int = 4) -> Bench:
    made = Bench(DARPA)
    made.open("s", "A", "B")
    made.give(blocks * BLOCK)
    return made


def qpd(made: Bench, at: str, peer: str) -> Negotiated:
    return cast(Negotiated, made.line(at, peer).serving)


def unit(number: int) -> tuple[Units, ...]:
    return ((number, number + 1),)


def test_at_darpa_1_a_block_is_listed_reserved_and_obtained_once() -> None:
    """Blocks count from 0 here."""
    made = bench()
    one, other = qpd(made, "A", "B"), qpd(made, "B", "A")
    assert one.listed() == other.listed() == [0, 1, 2, 3]
    assert one.reserve(unit(1), "ike") and other.reserve(unit(1), "ike")
    assert not one.reserve(unit(1), "another")
    got = one.get(unit(1), "ike"), other.get(unit(1), "ike")
    assert all(isinstance(taken, Taken) and taken.ranges == unit(1) and taken.bits == BLOCK for taken in got)
    name = Name(False, "", unit(1), BLOCK, BLOCK, unit_bits=BLOCK)
    assert made.equal("A", "B", name), "the same bits"
    assert one.listed() == other.listed() == [0, 2, 3]
    assert one.get(unit(1), "ike") == other.get(unit(1), "ike") == NOT_RESERVED


def test_a_reservation_that_nobody_uses_is_given_back_after_30_seconds() -> None:
    made = bench()
    one = qpd(made, "A", "B")
    assert one.reserve(unit(0), "ike")
    made.go(29.9)
    assert one.listed() == [1, 2, 3]
    made.ask("A", "B")
    made.go(0.2)
    made.ask("A", "B")
    assert one.get(unit(0), "ike") == NOT_RESERVED
    assert one.listed()[0] in (0, 2)
    made.balanced()


def test_at_darpa_2_four_keys_of_128_bits_waste_3584() -> None:
    made = bench()
    for _ in range(4):
        request = made.ask("A", "B", 128)
        made.go(0.02)
        made.fetch("B", "A", made.name(request))
    for book in made.balanced():
        assert (book.D, book.O, book.S) == (512, 3584, 0)
        assert book.D / book.G == 0.125
        assert book.A == book.burnt == 0


def test_keys_of_256_bits_waste_three_quarters() -> None:
    made = bench(1)
    made.ask("A", "B", 256)
    made.go(0.02)
    book = made.book("A", "B")
    assert book.O / (book.D + book.O) == 0.75


def test_at_darpa_3_crossing_reservations_are_both_refused_and_tried_again() -> None:
    made = bench()
    made.open("t", "B", "A")
    requests = made.ask("A", "B"), made.ask("B", "A", stream="t")
    # One way: both offers meet a block that is reserved; two ways: both releases.
    made.go(0.0201)
    assert made.words("answer") == ["BUSY", "BUSY"]
    assert [said.message.ranges for _, said in made.said if said.message.word == "OFFER"] == [unit(0), unit(0)]
    assert not any(request in made.answers for request in requests)
    assert qpd(made, "A", "B").listed() == qpd(made, "B", "A").listed() == [0, 1, 2, 3]
    made.go(5)
    names = [made.name(request) for request in requests]
    assert names[0].ranges != names[1].ranges
    made.fetch("B", "A", names[0])
    made.fetch("A", "B", names[1])
    assert made.words("ask").count("OFFER") >= 4, "a round trip more for each, at least"
    for book in made.balanced():
        assert (book.C, book.Y, book.D, book.S) == (0, 0, 512, 2 * BLOCK)


def test_a_negotiation_ends_when_five_retries_were_refused() -> None:
    made = bench(8)
    other = qpd(made, "B", "A")
    for number in range(8):
        assert other.reserve(unit(number), "somebody")
    request = made.ask("A", "B", deadline_s=20)
    made.go(10)
    assert made.words("answer") == ["BUSY"] * 6
    assert made.refusal(request) == "the peer refused 6 offers"
    assert qpd(made, "A", "B").listed() == list(range(8))
    made.balanced()


def test_an_empty_store_refuses_at_once() -> None:
    made = bench(0)
    made.give(BLOCK - 8)
    request = made.ask("A", "B", 128)
    assert "not enough key" in made.refusal(request)
    assert made.words() == []


def test_a_peer_that_does_not_answer_costs_no_block() -> None:
    made = bench()
    made.lose = lambda node, said: said.message.word == "OFFER"
    request = made.ask("A", "B", deadline_s=100)
    made.go(70)
    assert made.refusal(request) == "the peer's application does not answer"
    assert qpd(made, "A", "B").listed() == [0, 1, 2, 3]
    assert made.book("A", "B").S == 4 * BLOCK


def test_a_restart_loses_what_was_in_memory_and_the_peer_comes_to_know() -> None:
    made = bench()
    made.give(100 * 8)
    made.step("A", Restarted())
    assert made.book("A", "B").Y == 4 * BLOCK + 800
    made.give(4 * BLOCK)
    assert qpd(made, "A", "B").listed() == [5, 6, 7]
    request = made.ask("B", "A", deadline_s=5)
    made.go(5)
    name = made.name(request)
    assert name.ranges == unit(5)
    fetched = made.fetch("A", "B", name)
    assert made.name(fetched) == name
    # What B had from before was of no use any more; of the block in which the memory was lost A has the end alone.
    assert made.book("B", "A").Y == 5 * BLOCK


def test_a_block_that_one_end_never_had_is_passed_over() -> None:
    made = bench()
    made.give(2 * BLOCK, only="A")
    made.give(2 * BLOCK)
    assert qpd(made, "A", "B").listed() == list(range(8))
    assert qpd(made, "B", "A").listed() == [0, 1, 2, 3, 6, 7]
    for number in range(6):
        request = made.ask("A", "B")
        made.go(2)
        made.fetch("B", "A", made.name(request))
        assert made.name(request).ranges == unit(number if number < 4 else number + 2)
    assert (made.book("A", "B").Y, made.book("B", "A").Y) == (2 * BLOCK, 0)


def starved(associations: int, minutes: int) -> list[int]:
    """Which of them found no block, when each takes one in every minute, one after the other."""
    made, found = bench(0), []
    for _ in range(minutes):
        for _ in range(60):
            made.give(1000)
            made.go(1)
        asked = [made.ask("A", "B", 256) for _ in range(associations)]
        made.go(0.02)
        found += [number for number, request in enumerate(asked, 1) if made.refusal(request)]
    made.balanced()
    return found


def test_at_darpa_4_a_link_of_1000_bit_per_s_keeps_58_associations_and_the_59th_starves() -> None:
    assert 1000 * 60 // BLOCK == 58
    assert starved(58, 10) == []
    assert starved(59, 10) == [59] * (590 - 600_000 // BLOCK)
