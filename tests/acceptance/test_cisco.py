"""Cisco: rows of 64 bits, files pulled below a threshold, keys proposed and accepted, routers that register."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from keyhop.core.composed.nouns.messages import BlockArrived, Restarted
from keyhop.core.composed.stock.pulling import Pulled
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.policy.refill import PullBelow
from keyhop.core.policy.storage import FixedBlock
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Scenario, Stream

from .benches import SECOND, Bench

CISCO = DESIGNS["cisco"]
AB = frozenset("AB")
ROW = 64
FILE_BITS = 4096 * 8
PROPOSED_S = 0.02
"""There and back."""


def bench(bits: int = FILE_BITS, design: Design = CISCO) -> Bench:
    made = Bench(design)
    made.open("s", "A", "B")
    made.open("t", "B", "A")
    made.give(bits)
    return made


def rows(made: Bench, at: str = "A", peer: str = "B") -> int:
    return made.line(at, peer).run.free.level


def pulled(made: Bench, at: str, peer: str) -> Pulled:
    return cast(Pulled, made.line(at, peer).intake)


def test_at_cisco_1_a_file_of_4096_bytes_is_512_rows_and_a_key_takes_whole_rows() -> None:
    made = bench()
    assert rows(made) == rows(made, "B", "A") == 512
    storage = CISCO.storage
    assert isinstance(storage, FixedBlock) and storage.encoding == "hex"
    assert storage.rest_bytes(ROW // 8) == len(bytes(ROW // 8).hex()) == 16
    made.ask("A", "B", 256)
    made.go(PROPOSED_S)
    assert rows(made) == rows(made, "B", "A") == 508
    made.ask("A", "B", 100)
    made.go(PROPOSED_S)
    assert rows(made) == 506
    book = made.book("A", "B")
    assert (book.D, book.O) == (356, 28)


def test_a_tail_of_less_than_8_bytes_waits_for_the_next_file() -> None:
    made = bench(3 * ROW + 24)
    assert rows(made) == 3
    made.give(40)
    assert rows(made) == rows(made, "B", "A") == 4
    assert made.book("A", "B").S == 4 * ROW


def test_at_cisco_2_126_rows_of_128_pull_the_next_file_at_both_ends_once() -> None:
    design = replace(CISCO, refill=PullBelow(threshold=128))
    made = bench(130 * ROW, design)
    for _ in range(3):
        made.give(1024 * ROW)
    assert rows(made) == rows(made, "B", "A") == 130
    assert made.book("A", "B").G == 130 * ROW
    made.ask("A", "B", 256)
    made.go(PROPOSED_S)
    for one, other in (("A", "B"), ("B", "A")):
        assert rows(made, one, other) == 126 + 1024
        assert made.book(one, other).G == (130 + 1024) * ROW
        assert pulled(made, one, other).waiting == 2


def test_a_module_without_a_file_is_asked_for_one() -> None:
    made = Bench(CISCO)
    for bits, pulls in ((FILE_BITS, ["B"]), (4096 * ROW, []), (FILE_BITS, [])):
        block = BlockArrived("B", made.numbers[AB], bits, made.stamps[AB], 0)
        made.numbers[AB] += 1
        made.stamps[AB] += bits
        assert made.sites["A"].step(block, made.now).pull == pulls


def test_at_cisco_3_a_key_is_got_once_by_its_id_and_by_registered_routers_alone() -> None:
    made = bench()
    name = made.name(_served(made))
    assert made.refusal(made.fetch("B", "C", name)) == "no such pair of key managers"
    assert made.name(made.fetch("B", "A", name)) == name
    assert made.refusal(made.fetch("B", "A", name)) == "no key of this name"
    nobody = made.ask("A", "", 256)
    assert made.refusal(nobody)
    stranger = made.ask("A", "B", 256, stream="stranger")
    assert made.refusal(stranger) == "stranger is not registered here"
    name = made.name(_served(made))
    assert made.refusal(made.fetch("B", "A", name, stream="stranger")) == "stranger is not registered here"
    assert {book.D for book in made.balanced()} == {512, 256}


def test_a_router_stays_registered_when_its_stream_ends() -> None:
    made = bench()
    made.close("s", "A", "B")
    made.name(_served(made))


def test_what_is_never_fetched_is_erased_after_60_seconds() -> None:
    made = bench()
    name = made.name(_served(made))
    made.go(59.9)
    assert made.book("B", "A").X == 0
    made.go(0.2)
    assert made.book("B", "A").X == 256
    assert made.refusal(made.fetch("B", "A", name)) == "no key of this name"
    assert made.book("A", "B").D == 256


def test_proposals_that_cross_give_each_its_own_rows() -> None:
    made = bench()
    one, other = made.ask("A", "B"), made.ask("B", "A", stream="t")
    made.go(1)
    assert made.words("answer").count("REFUSE") == 1
    assert made.name(one).ranges == ((0, 4),)
    assert made.name(other).ranges == ((4, 8),)
    made.fetch("B", "A", made.name(one))
    made.fetch("A", "B", made.name(other))
    assert all(book.D == 512 for book in made.balanced())


def test_a_lost_answer_is_given_again_and_moves_nothing_twice() -> None:
    made = bench()
    lost: list[object] = []

    def once(node: str, said: object) -> bool:
        if node == "B" and not lost:
            lost.append(said)
            return True
        return False

    made.lose = once
    request = made.ask("A", "B", deadline_s=10)
    made.go(6)
    assert made.name(request).ranges == ((0, 4),)
    assert rows(made) == rows(made, "B", "A") == 508
    made.balanced()


def test_rows_that_one_end_never_had_are_skipped_there_and_booked_lost_at_the_other() -> None:
    made = bench(8 * ROW)
    made.give(8 * ROW, only="A")
    made.give(8 * ROW)
    assert (rows(made), rows(made, "B", "A")) == (24, 16)
    names = []
    for _ in range(4):
        request = made.ask("A", "B")
        made.go(1)
        names.append(made.name(request).ranges)
        made.fetch("B", "A", made.name(request))
    assert names == [((0, 4),), ((4, 8),), ((16, 20),), ((20, 24),)]
    assert (made.book("A", "B").Y, made.book("B", "A").Y) == (8 * ROW, 0)


def test_a_restart_keeps_what_is_on_disk() -> None:
    made = bench()
    made.step("A", Restarted())
    assert rows(made) == 512
    made.name(_served(made))
    made.balanced()


def test_at_cisco_4_hex_text_takes_twice_what_bytes_take() -> None:
    scenario = Scenario(
        (Stream("s", "A", "B", 1000, 256),),
        tuple(Demand(n, n * SECOND, "s", "A", "B", 256, SECOND) for n in range(1, 20)),
    )
    peaks: dict[str, int] = {}
    for encoding in ("hex", "raw"):
        design = replace(CISCO, storage=FixedBlock(unit_bits=64, encoding=encoding))
        record = Arena(design, {AB: 10_000}, scenario, seed=1).run(20)
        peaks[encoding] = record.peak_stored_bytes
    print(f"at rest: raw {peaks['raw']}, hex {peaks['hex']}, bit text {8 * peaks['raw']} bytes")
    assert peaks["hex"] == 2 * peaks["raw"]
    assert peaks["raw"] > 0
    # Text of single bits has a character for each.
    text = 8 * peaks["raw"]
    assert peaks["hex"] == text / 4 < text, "against that alone it saves anything"


def _served(made: Bench) -> int:
    request = made.ask("A", "B", 256)
    made.go(PROPOSED_S)
    return request
