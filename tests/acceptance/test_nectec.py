"""AT-NECTEC (relay): a random key goes straight to the far end under the first link's key, which follows hop by hop."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.acceptance.benches import Bench
from tests.unit.core.policy.test_relay_plans import knows

from keyhop.core.composed.nouns.messages import KxArrived, Said
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.relay import SplitPath, link

NECTEC = DESIGNS["nectec"]
UNIT_BITS = 256
LINE = ("A", "B", "C", "D", "E")


def filled(links: int, bits: int = 16 * 4096) -> Bench:
    """A line whose links hold key for both directions."""
    names = [f"{one}-{other}" for one, other in pairwise(LINE[: links + 1])]
    bench = Bench(NECTEC, *names)
    for name in names:
        bench.give(bits, name)
    bench.go(2)
    return bench


def carried(bench: Bench) -> list[tuple[str, str]]:
    return [(node, said.message.word) for node, said in bench.said if said.message.word in ("DIRECT", "PPETP")]


def test_at_nectec_1_the_far_end_comes_to_the_same_key() -> None:
    bench = filled(2)
    request = bench.ask("A", "C")
    bench.go(1)
    assert carried(bench) == [("A", "DIRECT"), ("B", "PPETP")]
    route, relayed = (next(said for _, said in bench.said if said.message.word == word) for word in ("ROUTE", "PPETP"))
    # What the ranges hold, in the published values: the link A-B's key is the pad of the direct message.
    key_ab, key_bc, random = 0b1010, 0b0110, 0b1100
    held = {("A-B", route.message.ranges): key_ab, ("B-C", relayed.message.ranges): key_bc}
    direct = random ^ held["A-B", route.message.ranges]
    hop = held["A-B", route.message.ranges] ^ held["B-C", relayed.message.ranges]
    assert (direct, hop) == (0b0110, 0b1100)
    assert direct ^ (hop ^ key_bc) == random
    name = bench.name(request)
    other = bench.fetch("C", "A", name)
    assert bench.name(other).ranges == name.ranges
    assert bench.book("A", "C").D == bench.book("C", "A").D == UNIT_BITS


@pytest.mark.parametrize("links", [2, 3, 4])
def test_at_nectec_2_as_many_local_keys_as_links_and_one_relay_message_less(links: int) -> None:
    bench = filled(links)
    bench.ask("A", LINE[links])
    bench.go(1)
    words = [word for _, word in carried(bench)]
    assert (words.count("PPETP"), words.count("DIRECT")) == (links - 1, 1)
    spent = [line.book.R for line in bench.lines() if not line.distant]
    assert spent == [UNIT_BITS] * (2 * links)
    bench.balanced()


def test_at_nectec_3_a_relay_node_needs_the_direct_message_and_the_report_says_so() -> None:
    path = ("A", "B", "C")
    plan = SplitPath().plan(path)
    direct = plan.legs[0]
    assert direct.xor == ("random", link("A", "B"))
    assert not knows(plan, path, "B", [leg for leg in plan.legs if leg is not direct])
    assert knows(plan, path, "B", plan.legs)


@pytest.mark.parametrize("first", ["DIRECT", "PPETP"])
def test_at_nectec_5_either_half_may_come_first(first: str) -> None:
    held: list[tuple[str, Said]] = []

    def hold(node: str, said: Said) -> bool:
        late = said.message.word in ("DIRECT", "PPETP") and said.message.word != first
        held.extend([(node, said)] if late else [])
        return late

    bench = filled(2)
    bench.lose = hold
    request = bench.ask("A", "C", deadline_s=9)
    bench.go(3)
    assert request not in bench.answers
    ((node, said),) = held
    bench.step(said.peer, KxArrived(node, said.message))
    bench.go(1)
    bench.name(bench.fetch("C", "A", bench.name(request)))
    assert bench.book("A", "C").N == bench.book("C", "A").N == UNIT_BITS


@pytest.mark.parametrize("lost", ["DIRECT", "PPETP"])
def test_at_nectec_5_without_the_other_half_both_ends_destroy_what_they_hold(lost: str) -> None:
    bench = filled(2)
    bench.lose = lambda node, said: said.message.word == lost
    request = bench.ask("A", "C", deadline_s=5)
    bench.go(9)
    assert bench.book("A", "C").Y == bench.book("C", "A").Y == 0
    bench.go(3)
    assert bench.answers[request].timed_out
    for at, peer in (("A", "C"), ("C", "A")):
        book = bench.book(at, peer)
        assert (book.N, book.Y, book.S) == (UNIT_BITS, UNIT_BITS, 0)
    assert bench.book("A", "B").R == bench.book("B", "A").R == UNIT_BITS


def test_a_half_that_comes_after_the_join_was_given_up_is_no_key() -> None:
    held: list[tuple[str, Said]] = []

    def hold(node: str, said: Said) -> bool:
        late = said.message.word == "PPETP"
        held.extend([(node, said)] if late else [])
        return late

    bench = filled(2)
    bench.lose = hold
    bench.ask("A", "C", deadline_s=5)
    bench.go(12)
    ((node, said),) = held
    bench.step(said.peer, KxArrived(node, said.message))
    bench.go(1)
    assert bench.line("C", "A").usable_bits == bench.line("A", "C").usable_bits == 0
    bench.balanced()


def test_a_lost_confirmation_does_not_make_one_end_destroy_what_the_other_holds() -> None:
    bench = filled(2)
    bench.lose = lambda node, said: said.message.word == "CONFIRM"
    bench.ask("A", "C", deadline_s=5)
    bench.go(12)
    bench.lose = lambda node, said: False
    request = bench.ask("A", "C", deadline_s=30)
    bench.go(25)
    bench.name(bench.fetch("C", "A", bench.name(request)))
    assert bench.book("A", "C").Y == bench.book("C", "A").Y == 0
