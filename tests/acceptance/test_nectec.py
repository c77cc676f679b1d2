"""AT-NECTEC (relay): a random key goes straight to the far end under the first link's key, which follows hop by hop."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.acceptance.benches import Bench
from tests.acceptance.bits import Told, with_bits

from keyhop.core.composed.nouns.messages import KxArrived, Said
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.policy.relay import HopByHop, SplitPath, learns, link

NECTEC = DESIGNS["nectec"]
PAGES = Path(__file__).parents[2] / "docs" / "designs"
UNIT_BITS = 256
LINE = ("A", "B", "C", "D", "E")
LINKS = tuple(f"{one}-{other}" for one, other in pairwise(LINE))
HOP_BY_HOP = replace(NECTEC, relay=HopByHop(payload="random"))


def filled(links: int, bits: int = 16 * 4096, design: Design = NECTEC) -> Bench:
    """A line whose links hold key for both directions."""
    names = LINKS[:links]
    bench = Bench(design, *names)
    for name in names:
        bench.give(bits, name)
    bench.go(2)
    return bench


def carried(bench: Bench) -> list[tuple[str, str]]:
    return [(node, said.message.word) for node, said in bench.said if said.message.word in ("DIRECT", "PPETP")]


def beside(bench: Bench, told: Told) -> dict[str, list[int]]:
    """The bits that went beside messages, by word; of those without any nothing."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for _, said in bench.said:
        if said.message.cargo:
            found[said.message.word].append(told.loads[said.message.cargo - 1])
    return dict(found)


def spent(bench: Bench) -> list[int]:
    """Of each end of each link, for relay."""
    return [line.book.R for line in bench.lines() if not line.distant]


def test_at_nectec_1_the_far_end_comes_to_the_same_key() -> None:
    bench, told = filled(2), Told({"A-B": 0b1010, "B-C": 0b0110}, drawn=0b1100)
    vaults = with_bits(bench, told)
    request = bench.ask("A", "C")
    bench.go(1)
    assert carried(bench) == [("A", "DIRECT"), ("B", "PPETP")]
    assert beside(bench, told) == {"DIRECT": [0b0110], "PPETP": [0b1100]}
    assert vaults["C"].pads == [0b1010]
    assert vaults["C"].entered == vaults["A"].entered == [0b1100]
    name = bench.name(request)
    other = bench.fetch("C", "A", name)
    assert bench.name(other).ranges == name.ranges
    assert bench.book("A", "C").D == bench.book("C", "A").D == UNIT_BITS


def messages(bench: Bench) -> dict[str, int]:
    """What was said for one batch, on whatever link."""
    found = Counter(said.message.word for _, said in bench.said)
    return dict(found)


@pytest.mark.parametrize("links", [2, 3, 4])
def test_at_nectec_2_as_many_local_keys_as_links_and_one_relay_message_less(links: int) -> None:
    bench, told = filled(links), Told(dict.fromkeys(LINKS[:links], 1), drawn=0)
    with_bits(bench, told)
    bench.said.clear()
    bench.ask("A", LINE[links])
    bench.go(1)
    # ROUTE tells the first relay node which range and path are meant; it has that key already, and none is sent.
    assert messages(bench) == {"ROUTE": 1, "DIRECT": 1, "PPETP": links - 1, "CONFIRM": 1}
    assert {word: len(loads) for word, loads in beside(bench, told).items()} == {"DIRECT": 1, "PPETP": links - 1}
    assert len(SplitPath().plan(LINE[: links + 1]).legs) == links
    assert spent(bench) == [UNIT_BITS] * (2 * links)
    bench.balanced()


@pytest.mark.parametrize("links", [2, 3, 4])
def test_at_nectec_2_hop_by_hop_takes_as_many_keys_and_as_many_messages_as_links(links: int) -> None:
    bench, told = filled(links, design=HOP_BY_HOP), Told(dict.fromkeys(LINKS[:links], 1), drawn=0)
    with_bits(bench, told)
    bench.said.clear()
    bench.ask("A", LINE[links])
    bench.go(1)
    assert messages(bench) == {"RELAY": links, "STORED": 1}
    assert {word: len(loads) for word, loads in beside(bench, told).items()} == {"RELAY": links}
    assert spent(bench) == [UNIT_BITS] * (2 * links)
    bench.balanced()


@pytest.mark.parametrize("units", [2, 5])
def test_at_nectec_2_local_keys_are_as_long_as_the_key(units: int) -> None:
    bench = filled(3)
    bench.ask("A", "D", units * UNIT_BITS)
    bench.go(1)
    assert spent(bench) == [units * UNIT_BITS] * 6
    assert units * UNIT_BITS == bench.book("A", "D").N
    bench.balanced()


def test_at_nectec_3_a_relay_node_needs_the_direct_message_and_the_report_says_so() -> None:
    path = ("A", "B", "C")
    plan = SplitPath().plan(path)
    direct = plan.legs[0]
    assert direct.xor == ("random", link("A", "B"))
    assert not learns(plan, path, "B", [leg for leg in plan.legs if leg is not direct])
    assert learns(plan, path, "B", plan.legs)
    assert NECTEC.on_the_way == (
        "A node on the way cannot compute a relayed key out of what passes through it; with the message that goes "
        "straight from end to end it can."
    )
    assert "with the message that goes straight" in " ".join((PAGES / "nectec.md").read_text().split())
    assert HOP_BY_HOP.on_the_way == "A node on the way learns a relayed key out of what passes through it."


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
