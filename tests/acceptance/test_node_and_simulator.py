"""A design on nodes and the same design in the simulator, fed alike: their books agree."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import pytest

from keyhop.core.composed.line import Line, LineSettings
from keyhop.core.composed.nouns.book import LETTERS
from keyhop.core.composed.nouns.messages import BlockArrived, StreamOpened
from keyhop.core.composed.site import Site
from keyhop.core.designs import DESIGNS, not_hosted
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.policy.relay import NoRelay
from keyhop.core.policy.storage import MultiSizeBlock
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Scenario, Stream
from keyhop.simulator.world import Answered, Timing, World

HOSTED = sorted(name for name in DESIGNS if name != "keyhop" and not not_hosted(DESIGNS[name]))
RELAYING = [name for name in HOSTED if not isinstance(DESIGNS[name].relay, NoRelay)]
DELAY_NS = NANOSECONDS // 200
BLOCK_BYTES = 8192
RATE_BPS = 65_536
WAIT_NS = 5 * NANOSECONDS
ASKS = 24
DRAWING = {"qcanada.working_set"}
"""Both ends may take the same key first; how long they wait before another try is drawn, and each engine draws."""
SHARE = 0.02
"""Of what came in, by which books of those may differ; one key is the least that can."""
ONE_KEY_BITS = 512

MATCHED_BITS = {"sdqaas.mtka": 2048}
"""The controller matches services in the step in which the first batch of each would begin; nodes hear of it a message
later, and begin with the next one: so much is under way a second later, of two services together."""

Books = dict[tuple[str, str, bool], dict[str, int]]
"""(end, other end, over relay nodes) -> letter of the book, S for the stock -> bits"""


class Taken(NamedTuple):
    """What a link of the nodes leased to the design, and when."""

    at: int
    link: str
    bits: int


class Registered(NamedTuple):
    """A pair of applications, at its master's node."""

    at: int
    stream: StreamOpened
    master: str


def assert_alike(design: str, on_nodes: Books, in_simulator: Books) -> None:
    apart = MATCHED_BITS.get(design, 0)
    assert on_nodes.keys() == in_simulator.keys()
    for end, book in on_nodes.items():
        assert {letter: bits for letter, bits in book.items() if abs(bits - in_simulator[end][letter]) > apart} == {}
        assert apart or book == in_simulator[end]


class OnNodes:
    """Nodes in a line, with bits; the two at its ends ask in turn, and each key is fetched as soon as it was given."""

    def __init__(self, design: str, names: str, sizes: list[int]) -> None:
        timing = Timing(delay=(DELAY_NS, DELAY_NS), commit=(1, 1))
        self.names, self.ends = names, names[0] + names[-1]
        self.links = list(pairwise(names))
        nodes = [dataclasses.replace(self.settings(name), controller=NodeId(names[-2])) for name in names]
        self.world = world = World(1, nodes, DESIGNS[design], NodeVault, timing)
        self.taken: list[Taken] = []
        self.registered: list[Registered] = []
        self.fetches: dict[int, str] = {}
        self.outcomes: list[bool] = []
        world.on_answer.append(self.answered)
        world.start()
        for name in names:
            self.watch(name)
        world.run(world.now + 3 * NANOSECONDS)
        for number in range(8):
            world.at(world.now + number * NANOSECONDS, self.block, number)
        self.begin = world.now + 4 * NANOSECONDS
        for number, size in enumerate(sizes):
            world.at(self.begin + number * NANOSECONDS // 4, self.ask, self.ends[number % 2], size)
        world.run(self.begin + (len(sizes) // 4 + 10) * NANOSECONDS)

    def settings(self, name: str) -> NodeSettings:
        around = [one if other == name else other for one, other in self.links if name in (one, other)]
        other = self.ends.replace(name, "") if name in self.ends else ""
        return NodeSettings(
            node=NodeId(name),
            neighbours=tuple(
                Neighbour(
                    node=NodeId(peer),
                    link="".join(sorted(name + peer)).encode().ljust(16, b"-"),
                    segment_bytes=1024,
                    rate_bps=RATE_BPS,
                )
                for peer in around
            ),
            applications=(
                Application(id=AppId(f"sae-{name}"), peers=frozenset({AppId(f"sae-{other}")} if other else ())),
            ),
            directory={AppId(f"sae-{other}"): NodeId(other)} if other else {},
            request_wait_ns=WAIT_NS,
            max_key_bits=8192,
        )

    def site(self, name: str) -> Site:
        hosted = self.world.processes[NodeId(name)].node.hosted
        assert hosted is not None
        return hosted.site

    def watch(self, name: str) -> None:
        """Notes the blocks that the lower end of a link hands to its site, and who is registered."""
        site = self.site(name)
        step = site.step

        def noted(event: object, now: int) -> object:
            if isinstance(event, BlockArrived) and name < event.peer:
                self.taken.append(Taken(now, name + event.peer, event.bits))
            if isinstance(event, StreamOpened) and event.asks:
                self.registered.append(Registered(now, event, name))
            return step(event, now)

        site.step = noted  # type: ignore[method-assign, assignment]

    def block(self, number: int) -> None:
        for one, other in self.links:
            bits = self.world.random.randbytes(BLOCK_BYTES)
            self.world.deliver_block(one, other, "qkd", number, bits)
            self.world.deliver_block(other, one, "qkd", number, bits)

    def ask(self, node: str, bits: int) -> None:
        peer = self.ends.replace(node, "")
        request = self.world.request()
        self.fetches[request] = peer
        self.world.processes[NodeId(node)].feed(events.KeysWanted(request, f"sae-{node}", f"sae-{peer}", 1, bits))

    def answered(self, answered: Answered) -> None:
        peer = self.fetches.pop(answered.request, "")
        if not peer:
            self.outcomes.append(answered.deliver.refusal is None)
            return
        if answered.deliver.refusal is None:
            # Commits on the way take their nanosecond, too.
            due = self.world.now + len(self.links) * DELAY_NS + len(self.names)
            self.world.at(due, self.fetch, peer, answered.node, answered.deliver.ids[0])

    def fetch(self, node: str, master: str, key_id: str) -> None:
        event = events.RecordsFetched(self.world.request(), f"sae-{node}", f"sae-{master}", (key_id,))
        self.world.processes[NodeId(node)].feed(event)

    def books(self) -> Books:
        return books(self.site, self.names)


def books(site: Callable[[str], Site], names: str) -> Books:
    lines: list[Line] = [line for name in names for line in site(name).lines()]
    return {
        (line.own, line.peer, line.distant): {
            **{letter: getattr(line.book, letter) for letter in LETTERS},
            "S": line.stock_bits,
        }
        for line in lines
    }


def simulated(design: str, nodes: OnNodes, sizes: list[int]) -> Books:
    begins = min(nodes.taken[0].at, *(one.at for one in nodes.registered))
    start = begins - NANOSECONDS
    streams = tuple(
        Stream(one.stream.stream, one.master, one.stream.peer, 1000, 256, starts_ns=one.at - start)
        for one in nodes.registered
    )
    demands = tuple(
        Demand(
            number=n,
            at_ns=nodes.begin + n * NANOSECONDS // 4 - start,
            stream=f"sae-{nodes.ends[n % 2]}>sae-{nodes.ends[1 - n % 2]}",
            master=nodes.ends[n % 2],
            slave=nodes.ends[1 - n % 2],
            size_bits=size,
            deadline_ns=WAIT_NS,
        )
        for n, size in enumerate(sizes)
    )
    arena = Arena(
        DESIGNS[design],
        {frozenset(link): RATE_BPS for link in nodes.links},
        Scenario(streams, demands),
        seed=1,
        delay_ns=DELAY_NS,
        line_settings=lambda *_: LineSettings(rate_bps=RATE_BPS, tag_bits=0),
    )
    # The modules of the links are silent but make what they did: the nodes' own blocks come instead.
    for link in arena.links:
        arena._blocks[link] = iter(())
    arena._next_block = lambda link: None  # type: ignore[method-assign]
    for taken in nodes.taken:
        arena.at(taken.at - start, arena.block, frozenset(taken.link), taken.bits)
    arena.run((nodes.world.now - start) / NANOSECONDS)
    return books(arena.sites.__getitem__, nodes.names)


def asked_for(design: str) -> list[int]:
    draw = random.Random(7)
    return [256 if DESIGNS[design].name == "darpa" else draw.choice([128, 256, 512]) for _ in range(ASKS)]


@pytest.mark.parametrize("design", HOSTED)
def test_two_nodes_and_simulator_book_the_same(design: str) -> None:
    sizes = asked_for(design)
    nodes = OnNodes(design, "ab", sizes)
    assert sum(nodes.outcomes) > ASKS // 2, "most keys come to both ends"
    on_nodes, in_simulator = nodes.books(), simulated(design, nodes, sizes)
    assert sum(book["D"] for book in on_nodes.values()) > 0
    assert_alike(design, on_nodes, in_simulator)


@pytest.mark.parametrize("design", RELAYING)
def test_three_nodes_in_a_line_and_simulator_book_the_same(design: str) -> None:
    sizes = asked_for(design)
    nodes = OnNodes(design, "abc", sizes)
    assert sum(nodes.outcomes) > ASKS // 2, "most keys come to both ends"
    on_nodes, in_simulator = nodes.books(), simulated(design, nodes, sizes)
    assert any(distant and book["N"] + book["T"] for (_, _, distant), book in on_nodes.items())
    if design not in DRAWING:
        assert_alike(design, on_nodes, in_simulator)
        return
    assert on_nodes.keys() == in_simulator.keys()
    for end, book in on_nodes.items():
        came_in = book["G"] + book["N"] + book["T"] if end[2] else book["G"]
        apart = {letter: bits - in_simulator[end][letter] for letter, bits in book.items()}
        assert max(map(abs, apart.values())) <= max(SHARE * came_in, ONE_KEY_BITS), (end, apart, came_in)


def test_stores_filled_by_demand_are_booked_alike_on_nodes_and_in_the_simulator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = MultiSizeBlock((128, 256, 512), split="demand")
    monkeypatch.setitem(DESIGNS, "by demand", dataclasses.replace(DESIGNS["ddka"], storage=storage))
    test_three_nodes_in_a_line_and_simulator_book_the_same("by demand")
