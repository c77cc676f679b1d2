"""Another design on nodes: its parts deal out what links lease to them, and both ends get the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Deliver
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import Answered, World

BLOCK_BYTES = 16_384
HOSTED = sorted(set(DESIGNS) - {"keyhop"})


def settings(name: str, peer: str, **more: Any) -> NodeSettings:
    return NodeSettings(
        node=NodeId(name),
        neighbours=(Neighbour(node=NodeId(peer), link=bytes(16), segment_bytes=1024, rate_bps=10_000),),
        applications=(
            Application(id=AppId(f"sae-{name}"), peers=frozenset({AppId(f"sae-{peer}"), AppId(f"other-{peer}")})),
            Application(id=AppId(f"other-{name}"), peers=frozenset({AppId(f"sae-{peer}")})),
        ),
        directory={AppId(f"{kind}-{peer}"): NodeId(peer) for kind in ("sae", "other")},
        request_wait_ns=5 * NANOSECONDS,
        **more,
    )


class Two:
    """Nodes a and b of one design, a link that has given blocks, and what applications got."""

    def __init__(self, design: str, blocks: int = 6, **more: Any) -> None:
        self.world = World(1, [settings("a", "b", **more), settings("b", "a", **more)], DESIGNS[design], NodeVault)
        self.answers: dict[int, Answered] = {}
        self.world.on_answer.append(lambda answered: self.answers.__setitem__(answered.request, answered))
        self.world.start()
        self.pass_time(3)
        for number in range(blocks):
            self.block(number)
        self.pass_time(4)

    def pass_time(self, seconds: float) -> None:
        self.world.run(self.world.now + int(seconds * NANOSECONDS))

    def block(self, number: int) -> None:
        bits = self.world.random.randbytes(BLOCK_BYTES)
        for node, peer in ("ab", "ba"):
            self.world.deliver_block(node, peer, "qkd", number, bits)

    def feed(self, node: str, make: Callable[[int], object], seconds: float = 6) -> tuple[Deliver, bytes]:
        request = self.world.request()
        self.world.processes[NodeId(node)].feed(make(request))
        self.pass_time(seconds)
        answered = self.answers[request]
        return answered.deliver, b"".join(answered.bits)

    def ask(self, node: str, bits: int, slave: str = "sae") -> tuple[Deliver, bytes]:
        peer = "b" if node == "a" else "a"
        return self.feed(node, lambda request: events.KeysWanted(request, f"sae-{node}", f"{slave}-{peer}", 1, bits))

    def fetch(self, node: str, key_id: str, slave: str = "sae") -> tuple[Deliver, bytes]:
        peer = "b" if node == "a" else "a"
        return self.feed(
            node,
            lambda request: events.RecordsFetched(request, f"{slave}-{node}", f"sae-{peer}", (key_id,)),
        )


@pytest.mark.parametrize("design", HOSTED)
def test_both_ends_get_the_same_key_and_no_key_twice(design: str) -> None:
    two, seen = Two(design), set()
    for node, peer in ("ab", "ba", "ab"):
        given, bits = two.ask(node, 256)
        assert given.refusal is None, given.refusal
        assert given.made is not None and given.made.size_bits == 256
        assert len(bits) >= 32
        fetched, same = two.fetch(peer, given.ids[0])
        assert fetched.refusal is None, fetched.refusal
        assert (same, fetched.made) == (bits, given.made)
        assert bits not in seen
        seen.add(bits)


@pytest.mark.parametrize("design", HOSTED)
def test_no_more_is_taken_in_than_the_node_may_hold(design: str) -> None:
    limit = 32_768
    two = Two(design, blocks=0, stock_limit_bytes=limit)
    for number in range(14):
        two.block(number)
        two.pass_time(1)
    node = two.world.processes[NodeId("a")].node
    pair = node.context.pairs[NodeId("b")]
    held = pair.own_key.untouched + pair.hosted.total()
    assert limit < held <= 2 * limit
    given, bits = two.ask("a", 256)
    assert given.refusal is None
    assert two.fetch("b", given.ids[0])[1] == bits


def test_a_key_is_given_once_and_to_its_slave_alone() -> None:
    two = Two("nict")
    given, _ = two.ask("a", 256)
    assert two.fetch("b", given.ids[0], "other")[0].refusal is not None
    assert two.fetch("b", given.ids[0])[0].refusal is None
    assert two.fetch("b", given.ids[0])[0].refusal is not None


def test_an_empty_link_refuses() -> None:
    given, _ = Two("cisco", blocks=0).ask("a", 256)
    assert given.refusal is not None


def test_nodes_of_two_designs_share_no_key() -> None:
    two = Two("cisco", blocks=0)
    process = two.world.processes[NodeId("b")]
    two.world.design = DESIGNS["nict"]
    two.world.crash("b")
    two.pass_time(5)
    assert process.alive
    two.block(0)
    two.pass_time(5)
    given, _ = two.ask("a", 256)
    assert given.refusal is not None
    assert any(notice.code == "KH-2303" for notice in process.notices)


@pytest.mark.parametrize("node", ["a", "b"])
def test_after_a_restart_of_either_end_the_old_stock_is_burnt_and_fresh_key_is_supplied(node: str) -> None:
    two = Two("nict")
    before, old = two.ask("a", 256)
    two.world.crash(node)
    two.pass_time(8)
    for number in range(10, 16):
        two.block(number)
    two.pass_time(5)
    assert two.fetch("b", before.ids[0])[0].refusal is not None
    given, bits = two.ask("a", 256)
    assert given.refusal is None, given.refusal
    assert bits != old
    assert two.fetch("b", given.ids[0])[1] == bits
