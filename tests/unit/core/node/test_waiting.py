"""Requests that must wait for a lease: how much is leased for them, and when they are refused instead."""

from __future__ import annotations

from small_worlds import deliver, pair, run, settings, started

from keyhop.core.machine import Frame
from keyhop.core.model import AppId, NodeId, Refusal
from keyhop.core.node.context import Application
from keyhop.core.node.events import KeysWanted
from keyhop.core.node.pair import Pair
from keyhop.simulator.world import Answered

BLOCK_BYTES = 1 << 17


class Asking:
    """Two nodes with a filled link and nothing leased beyond the least."""

    def __init__(self) -> None:
        self.world = started(
            [
                settings(
                    name,
                    peer,
                    applications=(Application(id=AppId(f"{name}1"), peers=frozenset({AppId(f"{peer}1")})),),
                    directory={AppId(f"{peer}1"): NodeId(peer)},
                )
                for name, peer in ("ab", "ba")
            ]
        )
        self.answers: list[Answered] = []
        self.frames = 0
        self.world.on_answer.append(self.answers.append)
        self.world.on_frame.append(self._count)
        deliver(self.world, "a", "b", 0, BLOCK_BYTES)
        self.run(3)

    def _count(self, sender: str, receiver: str, frame: Frame) -> None:
        self.frames += bool(frame.tag)

    def run(self, seconds: float) -> None:
        run(self.world, seconds)

    @property
    def pair(self) -> Pair:
        return pair(self.world, "a", "b")

    def ask(self, number: int, size_bits: int) -> None:
        event = KeysWanted(self.world.request(), "a1", "b1", number, size_bits)
        self.world.processes[NodeId("a")].feed(event)

    def refusal(self) -> str:
        refusal = self.answers[-1].deliver.refusal
        return "" if refusal is None else refusal.reason


def test_a_large_request_takes_one_lease_not_one_per_kibibyte() -> None:
    asking = Asking()
    before = asking.frames
    asking.ask(32, 8192)
    asking.run(0.5)
    assert asking.refusal() == ""
    assert asking.frames - before <= 4


def test_what_all_of_the_stock_would_not_answer_is_refused_at_once_and_leases_nothing() -> None:
    asking = Asking()
    untouched = asking.pair.own_key.untouched
    assert untouched < 128 * 1024
    asking.ask(128, 8192)
    asking.run(0.01)
    assert asking.refusal() == Refusal.NOT_ENOUGH_KEY
    asking.run(2)
    assert asking.pair.own_key.untouched == untouched


def test_a_request_that_waits_while_the_link_opens_is_answered_when_it_is_open() -> None:
    asking = Asking()
    asking.ask(1, 8192)
    asking.world.cut("a", "b")
    asking.ask(8, 8192)
    asking.run(0.05)
    asking.world.mend("a", "b")
    asking.run(0.9)
    assert [answer.deliver.refusal for answer in asking.answers][-1] is None
