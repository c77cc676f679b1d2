"""A distant pair goes on after a frame of it was lost on its way, and after its far end has started anew."""

from __future__ import annotations

import msgspec
import pytest
from small_worlds import deliver, pair, run, settings, started

from keyhop.core.machine import Frame
from keyhop.core.messages import Forward, FrameType, Plain, decode
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node.context import Application
from keyhop.core.node.events import KeysWanted
from keyhop.core.node.pair import Pair
from keyhop.core.node.placing import DISTANT_FLOOR_BYTES
from keyhop.simulator.world import Answered

BLOCK_BYTES = 1 << 17


class Line:
    """a - b - c, with applications at a and c and key on both links."""

    def __init__(self) -> None:
        self.world = started(
            [
                settings("a", "b", applications=(Application(id=AppId("a1"), peers=frozenset({AppId("c1")})),)),
                settings("b", "ac"),
                settings("c", "b", applications=(Application(id=AppId("c1"), peers=frozenset({AppId("a1")})),)),
            ]
        )
        self.answers: dict[int, Answered] = {}
        self.world.on_answer.append(lambda answer: self.answers.update({answer.request: answer}))
        for number in range(3):
            for one, other in ("ab", "bc"):
                deliver(self.world, one, other, number, BLOCK_BYTES)
            self.run(1)

    def run(self, seconds: float) -> None:
        run(self.world, seconds)

    def pair(self, here: str, there: str) -> Pair:
        return pair(self.world, here, there)

    def asks(self, number: int = 1) -> bool:
        """Whether a is given keys for c within the time a request waits."""
        request = self.world.request()
        self.world.processes[NodeId("a")].feed(KeysWanted(request, "a1", "c1", number, 256))
        self.run(1.1)
        return self.answers[request].deliver.refusal is None

    def breaks_off_and_opens_again(self, owner: str, other: str) -> None:
        for end, peer in ((owner, other), (other, owner)):
            pair = self.pair(end, peer)
            assert pair.current is not None
            self.world.processes[NodeId(end)].node.links.drop(pair, pair.current, "broken off by the test")
        self.run(1)
        assert not self.pair(owner, other).is_open
        self.run(60)
        assert self.pair(owner, other).is_open and self.pair(other, owner).is_open

    def seconds_until_supplied(self, limit: int) -> int:
        for seconds in range(1, limit + 1):
            if self.asks():
                return seconds
        raise AssertionError(f"nothing came within {limit} s")


@pytest.fixture
def line() -> Line:
    line = Line()
    line.seconds_until_supplied(20)
    line.run(3)
    assert line.asks()
    return line


def test_what_waits_for_an_answer_to_a_lost_frame_does_not_wait_for_ever(line: Line) -> None:
    lost: list[str] = []

    def lose(sender: str, receiver: str, frame: Frame) -> list[Frame]:
        if frame.type == FrameType.PLAIN:
            body = decode(frame.type, frame.payload)
            assert isinstance(body, Plain)
            kept = tuple(
                m for m in body.messages if not (isinstance(m, Forward) and m.kind == FrameType.STATE and not lost)
            )
            if kept != body.messages:
                lost.append(sender)
                return [Frame(frame.type, 0, msgspec.msgpack.encode(Plain(kept)), b"")] if kept else []
        return [frame]

    line.world.tamper = lose
    # More than is leased: a lease must be asked for, and the frame that asks, or its answer, is lost.
    line.asks(line.pair("a", "c").stock.left // 32 + 1)
    assert lost
    assert line.seconds_until_supplied(15) <= 12


def test_a_far_end_that_started_anew_is_met_again_at_once(line: Line) -> None:
    line.world.restart_after = (NANOSECONDS // 10, NANOSECONDS // 10)
    line.world.crash("c")
    line.run(2.5)
    assert line.pair("a", "c").is_open
    assert line.pair("c", "a").is_open
    assert line.seconds_until_supplied(5) <= 4


@pytest.mark.parametrize(("owner", "other"), ["ac", "ca"])
def test_tag_keys_that_only_their_owner_still_has_are_not_waited_for_for_ever(
    line: Line, owner: str, other: str
) -> None:
    """The other end granted all of them in openings that came to nothing: it may not grant them again."""
    granted = line.pair(other, owner).their_tags
    granted.mark = granted.append
    assert not granted.fresh(0, granted.append)
    line.breaks_off_and_opens_again(owner, other)
    assert line.asks()
    assert line.pair(owner, other).openings_failed == 0


@pytest.mark.parametrize(("owner", "other"), ["ac", "ca"])
def test_an_owner_that_takes_its_keys_for_enough_hears_that_they_are_used_up(owner: str, other: str) -> None:
    """What is left to it is no less than half of its floor, so by itself it relays no more."""
    line = Line()
    for _ in range(200):
        line.run(0.1)
        if "c" in line.world.processes[NodeId("a")].node.context.pairs and line.pair("a", "c").is_open:
            break
    run = line.pair(owner, other).own_tags
    assert run.grantable() >= DISTANT_FLOOR_BYTES // 2
    granted = line.pair(other, owner).their_tags
    line.world.processes[NodeId(other)].node.links.burning.burn(granted, 0, granted.append)
    assert not granted.available()
    line.breaks_off_and_opens_again(owner, other)
    assert line.seconds_until_supplied(5) <= 4


def test_an_end_that_has_keys_the_other_was_not_told_of_and_none_to_say_so_opens_anew(line: Line) -> None:
    pair = line.pair("a", "c")
    assert pair.current is not None
    first = pair.current.id
    while pair.current.sender.left:
        pair.current.sender.take()
    # More than is leased: a lease must be asked for, and there is no key to ask with.
    assert not line.asks(pair.stock.left // 32 + 1)
    line.run(12)
    assert pair.current is not None and pair.current.id != first and pair.is_open
    assert line.seconds_until_supplied(5) <= 4


def test_nothing_comes_leased_while_a_secret_for_key_ids_waits_for_its_word(line: Line) -> None:
    """Only the answer to a lease says that the far end has the secret."""
    relay, pair = line.world.processes[NodeId("a")].node.relay, line.pair("a", "c")
    for _ in range(60):
        line.asks(16)
        if relay._lends(pair, 64):
            break
    else:
        raise AssertionError("with little stock key comes leased")
    pair.namings += 1
    assert not relay._lends(pair, 64)
