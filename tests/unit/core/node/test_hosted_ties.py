"""What distant sites say to each other: in order, each word once, and only in the lives that both ends mean."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.messages import PATH_LIMIT
from keyhop.core.model import NANOSECONDS, NodeId, PeerError
from keyhop.core.node.context import Context, NodeSettings
from keyhop.core.node.hosted_messages import Carried, Closed, Hail, Opened, Retuned, Said, Spoken, decode, encode
from keyhop.core.node.hosted_ties import REPEAT_NS, UNHEARD_LIMIT, Ties
from keyhop.core.policy.synchronisation import Verb
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import PretendDisk

DESIGN = "nict"


class Ways:
    """Next hops, as link state would give them."""

    def __init__(self) -> None:
        self.hops: dict[str, str] = {}

    def next_hop(self, destination: str) -> str | None:
        return self.hops.get(destination)


class End:
    """A node with nothing but ties."""

    def __init__(self, net: Net, name: str) -> None:
        self.net = net
        self.name = name
        self.ways = Ways()
        self.heard: list[Said] = []
        self.begun_with: list[str] = []
        self.lost_peers: list[str] = []
        self.fails = False
        self.start()

    def start(self) -> None:
        self.net.lives += 1
        self.context = Context(
            NodeSettings(node=NodeId(self.name)), NodeVault(PretendDisk(), bytes(32)), self.entropy, 1, self.net.now
        )
        self.ties = Ties(self.context, cast(Any, self.ways), DESIGN, self)

    def entropy(self, length: int) -> bytes:
        self.net.lives += 1
        return self.net.lives.to_bytes(length, "big")

    def pass_on(self, hop: str, message: Hail | Carried) -> None:
        self.net.wire.append((self.name, hop, message))

    def begun(self, peer: str) -> None:
        self.begun_with.append(peer)

    def lost(self, peer: str) -> None:
        self.lost_peers.append(peer)

    def told(self, peer: str, said: Said) -> None:
        if self.fails:
            raise PeerError("nonsense")
        self.heard.append(said)


class Net:
    """a - b - c."""

    def __init__(self) -> None:
        self.now = 10 * NANOSECONDS
        self.lives = 0
        self.wire: list[tuple[str, str, Hail | Carried]] = []
        self.passed: list[tuple[str, str, Hail | Carried]] = []
        self.ends = {name: End(self, name) for name in "abc"}
        for name, ways in (("a", {"c": "b"}), ("b", {"a": "a", "c": "c"}), ("c", {"a": "b"})):
            self.ends[name].ways.hops = ways

    def run(self) -> None:
        for _ in range(10_000):
            if not self.wire:
                return
            sender, receiver, message = self.wire.pop(0)
            self.passed.append((sender, receiver, message))
            ties = self.ends[receiver].ties
            if isinstance(message, Hail):
                ties.hailed(sender, message)
            else:
                ties.carried(sender, message)
        raise AssertionError("they do not come to an end")

    def pass_time(self, nanoseconds: int = REPEAT_NS) -> None:
        self.now += nanoseconds
        for end in self.ends.values():
            end.context.now = self.now
            end.ties.tick()
        self.run()

    def tied(self) -> Net:
        self.ends["a"].ties.want("c")
        self.run()
        return self


def say(number: int) -> Closed:
    return Closed(f"stream {number}")


def test_two_sites_that_hail_at_once_are_tied() -> None:
    net = Net()
    net.ends["a"].ties.want("c")
    net.ends["c"].ties.want("a")
    net.run()
    a, c = net.ends["a"].ties, net.ends["c"].ties
    assert a.stands("c") and c.stands("a")
    assert a.lives("a", "c") == c.lives("a", "c") != a.lives("c", "a")
    assert not net.ends["a"].begun_with


def test_what_was_said_before_they_were_tied_is_heard_in_order() -> None:
    net = Net()
    for number in range(3):
        net.ends["a"].ties.say("c", say(number))
    net.run()
    net.pass_time()
    assert net.ends["c"].heard == [say(0), say(1), say(2)]


def test_what_gets_lost_is_said_again_and_heard_once() -> None:
    net = Net().tied()
    for number in range(4):
        net.ends["a"].ties.say("c", say(number))
    del net.wire[1]
    net.run()
    assert net.ends["c"].heard == [say(0)]
    for _ in range(3):
        net.pass_time()
    assert net.ends["c"].heard == [say(0), say(1), say(2), say(3)]
    before = len(net.passed)
    net.pass_time(5 * REPEAT_NS)
    assert len(net.passed) == before, "both know that all was heard"


def test_an_answer_that_gets_lost_is_given_again() -> None:
    net = Net().tied()
    net.ends["a"].ties.say("c", say(0))
    net.run()
    net.ends["c"].ties.tick()
    net.wire.clear()
    net.pass_time()
    net.pass_time()
    assert net.ends["c"].heard == [say(0)]
    assert not net.ends["a"].ties.ties["c"].unheard


def test_a_message_that_is_replayed_moves_nothing() -> None:
    net = Net().tied()
    net.ends["a"].ties.say("c", say(0))
    replayed = net.wire[0]
    net.run()
    net.wire.append(replayed)
    net.run()
    assert net.ends["c"].heard == [say(0)]


def test_after_a_restart_nothing_of_the_life_before_is_heard() -> None:
    net = Net().tied()
    net.ends["a"].ties.say("c", say(0))
    under_way = list(net.wire)
    net.wire.clear()
    net.ends["c"].start()
    net.ends["c"].ties.want("a")
    net.run()
    assert net.ends["a"].begun_with == ["c"]
    net.wire += under_way
    net.run()
    net.pass_time(3 * REPEAT_NS)
    assert net.ends["c"].heard == []
    net.ends["a"].ties.say("c", say(1))
    net.run()
    assert net.ends["c"].heard == [say(1)]


def test_an_end_that_has_lost_key_makes_both_begin_anew() -> None:
    net = Net().tied()
    lives = net.ends["a"].ties.lives("a", "c")
    net.ends["a"].ties.renew("c")
    net.run()
    a, c = net.ends["a"], net.ends["c"]
    assert (a.begun_with, c.begun_with) == (["c"], ["a"])
    assert a.ties.stands("c") and c.ties.stands("a")
    assert a.ties.lives("a", "c") == c.ties.lives("a", "c") != lives


def test_nonsense_from_afar_costs_the_pair_and_no_link() -> None:
    net = Net().tied()
    net.ends["c"].fails = True
    net.ends["a"].ties.say("c", say(0))
    net.run()
    assert net.ends["c"].context.counters["peer_errors"] == 1
    assert net.ends["a"].begun_with == ["c"]


def test_a_message_that_loops_is_dropped_after_its_hops() -> None:
    net = Net()
    net.ends["d"] = End(net, "d")
    # b, c and d send it round.
    net.ends["b"].ways.hops, net.ends["c"].ways.hops, net.ends["d"].ways.hops = {"x": "c"}, {"x": "d"}, {"x": "b"}
    net.ends["a"].ways.hops = {"x": "b"}
    net.ends["a"].ties.want("x")
    net.run()
    assert len(net.passed) == PATH_LIMIT + 1
    assert sum(end.context.counters.get("design_messages_dropped", 0) for end in net.ends.values()) == 1


def test_what_names_oneself_as_its_source_is_dropped() -> None:
    net = Net().tied()
    forged = Hail("c", "a", 5, DESIGN, b"forged", b"")
    net.ends["c"].ties.hailed("b", forged)
    assert net.ends["c"].context.counters["design_messages_dropped"] == 1
    assert not net.wire


def test_another_design_is_not_answered() -> None:
    net = Net()
    net.ends["c"].ties.hailed("b", Hail("a", "c", 5, "nec", b"a life", b""))
    assert not net.wire
    assert not net.ends["c"].ties.stands("a")


def test_a_peer_that_hears_nothing_for_long_loses_the_pair() -> None:
    net = Net().tied()
    net.ends["a"].ways.hops = {}
    net.pass_time()
    for number in range(UNHEARD_LIMIT + 1):
        net.ends["a"].ties.say("c", say(number))
    assert net.ends["a"].lost_peers == ["c"]


def test_messages_come_back_as_they_were() -> None:
    for said in (Spoken(Kx("USED", Verb.TAKE, cargo=0)), Opened("s", 1, 2, "best_effort", 3), Retuned("s", 1)):
        assert decode(encode(said)) == said


@pytest.mark.parametrize("payload", [b"", b"\x00", msgspec.msgpack.encode([9, "", "c"]), b"\x91" * 5000])
def test_what_does_not_decode_is_an_error_of_the_peer(payload: bytes) -> None:
    with pytest.raises(PeerError):
        decode(payload)
