"""Batches of a service that are under way: never more than so many, and never so many for ever."""

from __future__ import annotations

import pytest
from tests.acceptance.benches import Bench

from keyhop.core.composed.nouns.messages import PairParted, Said
from keyhop.core.composed.relay.slots import AHEAD
from keyhop.core.designs import DESIGNS

DESIGNS_OF_SLOTS = ("sdqaas", "sdqaas.mtka")
SLOT_BPS = 1000


def served(design: str) -> Bench:
    """A service from A to C over B that has had its first key."""
    made = Bench(DESIGNS[design], "A-B", "B-C")
    made.open("s", "A", "C", rate_bps=SLOT_BPS)
    feed(made, 5)
    made.name(made.ask("A", "C"))
    # Between two batches, with none under way.
    made.go(0.5)
    return made


def feed(made: Bench, seconds: int) -> None:
    for _ in range(seconds):
        for link in ("A-B", "B-C"):
            made.give(16_384, link)
        made.go(1)


def answers(said: Said) -> bool:
    return said.message.word == "STORED"


def started(made: Bench, since: int) -> int:
    return sum(said.peer == "B" and said.message.word == "RELAY" for _, said in made.said[since:])


@pytest.mark.parametrize("design", DESIGNS_OF_SLOTS)
def test_no_more_batches_are_begun_than_may_be_under_way(design: str) -> None:
    made = served(design)
    before = len(made.said)
    made.lose = lambda node, said: answers(said)
    feed(made, AHEAD + 5)
    assert started(made, before) == AHEAD


@pytest.mark.parametrize("design", DESIGNS_OF_SLOTS)
def test_a_service_goes_on_after_its_pair_began_anew_with_batches_under_way(design: str) -> None:
    made = served(design)
    made.lose = lambda node, said: answers(said)
    feed(made, AHEAD + 2)
    for end, other in ("AC", "CA"):
        made.step(end, PairParted(other))
    made.lose = lambda node, said: False
    made.open("s", "A", "C", rate_bps=SLOT_BPS)
    feed(made, 5)
    assert made.name(made.ask("A", "C"))
    before = len(made.said)
    feed(made, 5)
    assert started(made, before) == 5


def test_a_pair_that_begins_anew_leaves_the_services_to_others_alone() -> None:
    made = served("sdqaas")
    made.open("t", "A", "B", rate_bps=SLOT_BPS)
    feed(made, 3)
    made.step("A", PairParted("C"))
    made.step("C", PairParted("A"))
    feed(made, 3)
    assert made.name(made.ask("A", "B", stream="t"))
