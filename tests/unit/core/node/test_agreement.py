"""Blocks that are agreed together: nothing that both ends hold is lost for the company it is in, or for being late."""

from __future__ import annotations

import pytest
from small_worlds import pair, run, settings, started

from keyhop.core.model import AppId, NodeId
from keyhop.core.node.block_numbers import WINDOW
from keyhop.core.node.context import Application
from keyhop.core.node.events import BlockRepeated, KeysWanted
from keyhop.core.node.intake import Intake
from keyhop.core.node.node import Node
from keyhop.simulator.world import Answered

MODULE = "qkd"
LARGE = 1 << 17


class Link:
    """a - b, with so much in stock that small blocks wait for each other; an application at each end."""

    def __init__(self) -> None:
        self.world = started(
            [
                settings("a", "b", applications=(Application(id=AppId("a1"), peers=frozenset({AppId("b1")})),)),
                settings("b", "a", applications=(Application(id=AppId("b1"), peers=frozenset({AppId("a1")})),)),
            ]
        )
        for number in (0, 1):
            self.both(number, length=LARGE)
            self.run(2)

    def run(self, seconds: float) -> None:
        run(self.world, seconds)

    def node(self, name: str) -> Node:
        return self.world.processes[NodeId(name)].node

    def intake(self, name: str) -> Intake:
        return self.node(name).intake

    def at(self, name: str, number: int, bits: bytes) -> None:
        self.world.deliver_block(name, "b" if name == "a" else "a", MODULE, number, bits)

    def both(self, *numbers: int, length: int = 1024, differs: bool = False) -> None:
        for number in numbers:
            bits = self.world.random.randbytes(length)
            self.at("a", number, bits)
            self.at("b", number, bytes([bits[0] ^ differs]) + bits[1:])

    def late(self, *numbers: int, length: int = 12_000) -> dict[int, bytes]:
        """At a alone; b's copies come when they come."""
        found = {number: self.world.random.randbytes(length) for number in numbers}
        for number, bits in found.items():
            self.at("a", number, bits)
        return found

    def counted(self, what: str) -> tuple[int, int]:
        return self.node("a").context.counters.get(what, 0), self.node("b").context.counters.get(what, 0)


@pytest.fixture
def link() -> Link:
    return Link()


def test_of_many_groups_only_the_block_that_differs_is_destroyed(link: Link) -> None:
    link.world.cut("a", "b")
    link.run(1)
    link.both(2, differs=True)
    link.both(*range(3, 163))
    link.world.mend("a", "b")
    link.run(90)
    assert link.counted("blocks_refused") == (1, 1)
    assert not link.intake("a").waiting["b"] and not link.intake("b").waiting["a"]


def test_a_block_that_lacks_far_above_its_company_takes_none_of_it_along(link: Link) -> None:
    link.both(100, 110, length=12_000)
    link.late(110 + WINDOW)
    link.run(100)
    assert link.counted("blocks_refused") == (1, 1)


def test_a_late_block_is_waited_for_although_another_one_is_overtaken(link: Link) -> None:
    bits = link.late(10, 11, 12, 13)
    for number in (10, 12):
        link.at("b", number, bits[number])
    link.run(2)
    link.at("b", 13, bits[13])
    link.run(70)
    assert link.counted("blocks_refused") == (1, 1) and link.counted("blocks_repeated") == (0, 0)


def test_a_block_that_comes_behind_a_later_one_is_not_passed_by_it(link: Link) -> None:
    bits = link.late(10, length=LARGE) | link.late(11, length=LARGE)
    link.run(0.1)
    assert len(link.intake("a").proposed["b"]) == 2
    link.at("b", 11, bits[11])
    link.run(0.5)
    link.at("b", 10, bits[10])
    link.run(5)
    assert link.counted("blocks_refused") == (0, 0)
    assert not link.intake("a").waiting["b"] and not link.intake("b").waiting["a"]


def test_no_more_is_lost_than_the_block_that_does_not_come(link: Link) -> None:
    bits = link.late(10, length=LARGE) | link.late(11, length=LARGE) | link.late(12, length=LARGE)
    link.run(0.1)
    for number in (11, 12):
        link.at("b", number, bits[number])
    link.run(5)
    assert link.counted("blocks_refused") == (1, 1)
    assert not link.intake("a").waiting["b"] and not link.intake("b").waiting["a"]


def test_a_block_that_is_pushed_out_while_it_waits_for_another_is_not_waited_for_for_ever(link: Link) -> None:
    bits = link.world.random.randbytes(LARGE)
    link.at("b", 11, bits)
    link.late(10, length=LARGE)
    link.at("a", 11, bits)
    link.run(0.1)
    # As newer ones do, where too many wait.
    del link.intake("b").waiting["a"][MODULE, 11]
    link.run(35)
    assert link.counted("blocks_refused") == (2, 2)
    link.both(12, length=LARGE)
    link.run(2)
    assert not link.intake("a").proposed["b"] and not link.intake("b").waiting["a"]


def test_the_wait_of_a_refused_proposal_does_not_end_the_next_one(link: Link) -> None:
    bits = link.late(10, 11, 12)
    link.at("b", 10, bits[10])
    link.run(20)
    link.at("b", 12, bits[12])
    link.run(2)
    bits |= link.late(13)
    link.run(10)
    link.at("b", 13, bits[13])
    link.run(70)
    assert link.counted("blocks_refused") == (1, 1)


def test_what_was_not_proposed_yet_stays_when_the_link_breaks(link: Link) -> None:
    link.world.cut("a", "b")
    link.run(1)
    link.both(*range(2, 402))
    link.world.mend("a", "b")
    while not pair(link.world, "a", "b").is_open:
        link.world.run(link.world.now + 100_000)
    link.world.cut("a", "b")
    link.run(1)
    lost, _ = link.counted("blocks_lost")
    assert 0 < lost <= WINDOW
    assert len(link.intake("a").waiting["b"]) == 400 - lost
    link.world.mend("a", "b")
    link.run(90)
    assert not link.intake("a").waiting["b"]


def test_a_block_that_waits_for_company_goes_when_the_stock_runs_out(link: Link) -> None:
    link.both(2, length=30_000)
    link.run(2)
    assert link.intake("a").waiting["b"]
    answers: list[Answered] = []
    link.world.on_answer.append(answers.append)
    for _ in range(20):
        link.world.processes[NodeId("a")].feed(KeysWanted(link.world.request(), "a1", "b1", 16, 8192))
        link.run(0.3)
    assert not link.intake("a").waiting["b"]
    assert sum(answer.deliver.refusal is None for answer in answers) > 4


def test_very_small_blocks_are_proposed_before_they_are_too_many(link: Link) -> None:
    for number in range(2, 1402):
        link.both(number, length=16)
        link.run(0.05)
    assert link.counted("blocks_overdue") == (0, 0)


def test_a_repeated_block_is_told_of_and_nothing_waits_for_its_bits(link: Link) -> None:
    link.world.processes[NodeId("a")].feed(BlockRepeated("b", MODULE, 7))
    link.run(1)
    assert link.counted("blocks_repeated") == (1, 0)
    assert not link.intake("a").waiting["b"]
    assert [notice.code for notice in link.world.processes[NodeId("a")].notices][-1] == "KH-1102"
