"""A design on nodes and the same design in the simulator, fed alike: their books agree to the bit."""

from __future__ import annotations

import dataclasses
import random
from typing import NamedTuple

import pytest

from keyhop.core.composed.book import LETTERS
from keyhop.core.composed.line import LineSettings
from keyhop.core.composed.messages import BlockArrived
from keyhop.core.designs import DESIGNS, not_hosted
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.policy.relay import NoRelay
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Scenario, Stream
from keyhop.simulator.world import Answered, Timing, World

HOSTED = sorted(name for name in DESIGNS if name != "keyhop" and not not_hosted(DESIGNS[name]))
DELAY_NS = NANOSECONDS // 200
BLOCK_BYTES = 8192
RATE_BPS = 10_000
WAIT_NS = 5 * NANOSECONDS
ASKS = 24


class Taken(NamedTuple):
    """What the links of the nodes leased to the design, and when."""

    at: int
    bits: int
    stamp: int


class OnNodes:
    """Two nodes with bits; each key is fetched as soon as it was given, one message later."""

    def __init__(self, design: str, sizes: list[int]) -> None:
        timing = Timing(delay=(DELAY_NS, DELAY_NS), commit=(1, 1))
        self.world = world = World(
            1, [self.settings("a", "b"), self.settings("b", "a")], DESIGNS[design], NodeVault, timing
        )
        self.taken: list[Taken] = []
        self.fetches: dict[int, str] = {}
        self.outcomes: list[bool] = []
        world.on_answer.append(self.answered)
        world.start()
        self.watch("a")
        world.run(world.now + 2 * NANOSECONDS)
        for number in range(8):
            world.at(world.now + number * NANOSECONDS, self.block, number)
        self.begin = world.now + 4 * NANOSECONDS
        for number, size in enumerate(sizes):
            world.at(self.begin + number * NANOSECONDS // 4, self.ask, "ab"[number % 2], size)
        world.run(self.begin + (len(sizes) // 4 + 10) * NANOSECONDS)

    @staticmethod
    def settings(name: str, peer: str) -> NodeSettings:
        return NodeSettings(
            node=NodeId(name),
            neighbours=(Neighbour(node=NodeId(peer), link=bytes(16), segment_bytes=1024, rate_bps=RATE_BPS),),
            applications=(Application(id=AppId(f"sae-{name}"), peers=frozenset({AppId(f"sae-{peer}")})),),
            directory={AppId(f"sae-{peer}"): NodeId(peer)},
            request_wait_ns=WAIT_NS,
            max_key_bits=8192,
        )

    def watch(self, name: str) -> None:
        """Notes the blocks that the lower end hands to its site."""
        hosted = self.world.processes[NodeId(name)].node.hosted
        assert hosted is not None
        step = hosted.site.step

        def noted(event: object, now: int) -> object:
            if isinstance(event, BlockArrived):
                self.taken.append(Taken(now, event.bits, event.stamp_bits))
            return step(event, now)

        hosted.site.step = noted  # type: ignore[method-assign, assignment]

    def block(self, number: int) -> None:
        bits = self.world.random.randbytes(BLOCK_BYTES)
        for node, peer in ("ab", "ba"):
            self.world.deliver_block(node, peer, "qkd", number, bits)

    def ask(self, node: str, bits: int) -> None:
        peer = "b" if node == "a" else "a"
        request = self.world.request()
        self.fetches[request] = peer
        self.world.processes[NodeId(node)].feed(events.KeysWanted(request, f"sae-{node}", f"sae-{peer}", 1, bits))

    def answered(self, answered: Answered) -> None:
        peer = self.fetches.pop(answered.request, "")
        if not peer:
            self.outcomes.append(answered.deliver.refusal is None)
            return
        if answered.deliver.refusal is None:
            self.world.at(self.world.now + DELAY_NS, self.fetch, peer, answered.node, answered.deliver.ids[0])

    def fetch(self, node: str, master: str, key_id: str) -> None:
        event = events.RecordsFetched(self.world.request(), f"sae-{node}", f"sae-{master}", (key_id,))
        self.world.processes[NodeId(node)].feed(event)

    def books(self) -> dict[str, dict[str, int]]:
        found = {}
        for name, peer in ("ab", "ba"):
            hosted = self.world.processes[NodeId(name)].node.hosted
            assert hosted is not None
            found[name] = {letter: getattr(hosted.site.links[peer].book, letter) for letter in LETTERS}
        return found


def simulated(design: str, nodes: OnNodes, sizes: list[int]) -> dict[str, dict[str, int]]:
    streams = tuple(Stream(f"sae-{a}>sae-{b}", a, b, 1000, 256) for a, b in ("ab", "ba"))
    start = nodes.taken[0].at - NANOSECONDS
    demands = tuple(
        Demand(n, nodes.begin + n * NANOSECONDS // 4 - start, streams[n % 2].name, *("ab", "ba")[n % 2], size, WAIT_NS)
        for n, size in enumerate(sizes)
    )
    link = frozenset("ab")
    arena = Arena(
        dataclasses.replace(DESIGNS[design], relay=NoRelay()),
        {link: RATE_BPS},
        Scenario(streams, demands),
        seed=1,
        delay_ns=DELAY_NS,
        line_settings=lambda *_: LineSettings(rate_bps=RATE_BPS, tag_bits=0),
    )
    # The module of the link is silent: the nodes' own blocks come instead.
    arena.stopped[link] = 1 << 62
    for taken in nodes.taken:
        arena.at(taken.at - start, arena.block, link, taken.bits)
    arena.run((nodes.world.now - start) / NANOSECONDS)
    return {
        name: {letter: getattr(arena.sites[name].links[peer].book, letter) for letter in LETTERS}
        for name, peer in ("ab", "ba")
    }


@pytest.mark.parametrize("design", HOSTED)
def test_nodes_and_simulator_book_the_same(design: str) -> None:
    draw = random.Random(7)
    sizes = [256 if DESIGNS[design].name == "darpa" else draw.choice([128, 256, 512]) for _ in range(ASKS)]
    nodes = OnNodes(design, sizes)
    assert sum(nodes.outcomes) > ASKS // 2, "most keys come to both ends"
    on_nodes, in_simulator = nodes.books(), simulated(design, nodes, sizes)
    assert on_nodes["a"]["D"] > 0
    assert on_nodes == in_simulator
