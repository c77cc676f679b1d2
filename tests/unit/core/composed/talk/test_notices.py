"""Notices come in order, each once, whatever is lost on the way."""

from __future__ import annotations

import random

import pytest
from tests.acceptance.benches import SECOND, Bench

from keyhop.core.composed.nouns.messages import Kx, Moves
from keyhop.core.composed.talk.conversation import REPEAT, REPEATED_AT_ONCE
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.synchronisation import Verb


class Two(Bench):
    def __init__(self) -> None:
        super().__init__(DESIGNS["nict"], tag_bits=0)
        self.heard: list[int] = []
        self.line("B", "A").talk.handlers["CONFIRM"] = lambda message: self.heard.append(message.counts[0])

    def tell(self, number: int) -> None:
        site = self.sites["A"]
        site.now, site.moves = self.now, Moves()
        self.line("A", "B").talk.tell(Kx("CONFIRM", Verb.AGREE, counts=(number,)))
        self.perform("A", site.moves)


def test_a_lost_notice_is_said_again_when_the_next_one_shows_the_gap() -> None:
    two = Two()
    two.lose = lambda node, said: said.message.number == 2 and two.now == 0
    for number in range(1, 4):
        two.tell(number)
    two.go(1)
    assert two.heard == [1, 2, 3]


@pytest.mark.parametrize("lost", ["CONFIRM", REPEAT])
def test_a_gap_is_named_again_when_what_closes_it_was_lost(lost: str) -> None:
    two = Two()
    two.tell(1)
    two.go(1)
    two.lose = lambda node, said: said.message.number == 2 and said.message.word == "CONFIRM"
    two.tell(2)
    two.lose = lambda node, said: said.message.word == lost and two.now < 5 * SECOND and said.message.number != 3
    two.tell(3)
    two.go(3.5)
    assert two.heard == [1]
    # Nothing new is said: the gap closes all the same.
    two.go(5)
    assert two.heard == [1, 2, 3]


def test_what_was_said_to_a_node_that_was_away_comes_in_order_when_it_is_back() -> None:
    two = Two()
    two.tell(1)
    two.go(1)
    two.down.add("B")
    for number in range(2, 1000):
        two.tell(number)
    two.go(1)
    two.down.discard("B")
    two.tell(1000)
    two.go(1000 / REPEATED_AT_ONCE)
    assert two.heard == list(range(1, 1001))


@pytest.mark.parametrize("seed", range(5))
def test_half_of_all_messages_may_be_lost(seed: int) -> None:
    draw = random.Random(seed)
    two = Two()
    two.lose = lambda node, said: draw.random() < 0.5
    for number in range(1, 200):
        two.tell(number)
        two.go(0.1)
    two.lose = lambda node, said: False
    two.tell(200)
    two.go(10)
    assert two.heard == list(range(1, 201))
