"""Nodes of other designs while links break and processes die: what both ends get is equal, and nothing serves twice."""

from __future__ import annotations

import random

import pytest
from tests.unit.core.node.test_hosted_relay import BLOCK_BYTES, RELAYING, Watched, settings

from keyhop.core.designs import DESIGNS
from keyhop.core.designs.design import Access
from keyhop.core.model import NANOSECONDS, NodeId
from keyhop.core.node import events
from keyhop.core.node.store import Store
from keyhop.simulator.world import Answered, World

RING = ("ab", "bc", "cd", "ad")
NAMES = "abcd"
SECONDS = 30
ASKS_PER_SECOND = 8
CRASHES_PER_SECOND = 0.12
CUTS_PER_SECOND = 0.1
CUT_NS = 3 * NANOSECONDS


class Ring:
    """Four nodes; every pair of them asks, and fetches some time later."""

    def __init__(self, design: str, seed: int) -> None:
        nodes = []
        for name in NAMES:
            around = "".join(link.replace(name, "") for link in RING if name in link)
            nodes.append(settings(name, around, NAMES.replace(name, "")))
        self.vaults: list[Watched] = []
        self.world = World(seed, nodes, DESIGNS[design], self.vault)
        self.draw = random.Random(seed)
        self.asked: dict[int, tuple[str, str]] = {}
        self.fetching: dict[int, Answered] = {}
        self.given: list[bytes] = []
        self.fetched = 0
        self.blocks = 0
        self.world.on_answer.append(self.answered)
        self.world.start()

    def vault(self, store: Store, vouch_key: bytes) -> Watched:
        self.vaults.append(Watched(store, vouch_key))
        return self.vaults[-1]

    def second(self, *, faults: bool) -> None:
        world, draw = self.world, self.draw
        for one, other in ((link[0], link[1]) for link in RING):
            bits = world.random.randbytes(BLOCK_BYTES)
            world.deliver_block(one, other, "qkd", self.blocks, bits)
            world.deliver_block(other, one, "qkd", self.blocks, bits)
        self.blocks += 1
        for _ in range(ASKS_PER_SECOND):
            master, slave = draw.sample(NAMES, 2)
            request = world.request()
            self.asked[request] = master, slave
            self.feed(master, events.KeysWanted(request, f"sae-{master}", f"sae-{slave}", 1, 256))
            world.run(world.now + NANOSECONDS // ASKS_PER_SECOND)
        if faults and draw.random() < CRASHES_PER_SECOND:
            world.crash(draw.choice(NAMES))
        if faults and draw.random() < CUTS_PER_SECOND:
            link = draw.choice(RING)
            one, other = link[0], link[1]
            world.cut(one, other)
            world.at(world.now + CUT_NS, world.mend, one, other)

    def feed(self, node: str, event: object) -> None:
        process = self.world.processes[NodeId(node)]
        if process.alive:
            process.feed(event)

    def answered(self, answered: Answered) -> None:
        deliver = answered.deliver
        if answered.request in self.asked:
            master, slave = self.asked.pop(answered.request)
            if deliver.refusal is None:
                self.given.append(b"".join(answered.bits))
                request = self.world.request()
                self.fetching[request] = answered
                event = events.RecordsFetched(request, f"sae-{slave}", f"sae-{master}", (deliver.ids[0],))
                self.world.at(self.world.now + self.draw.randint(0, 3 * NANOSECONDS), self.feed, slave, event)
        elif deliver.refusal is None:
            given = self.fetching.pop(answered.request)
            assert (answered.bits, deliver.made) == (given.bits, given.deliver.made), "both ends have the same key"
            self.fetched += 1


@pytest.mark.worlds
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("design", RELAYING)
def test_keys_stay_equal_and_bytes_serve_once_while_links_break_and_processes_die(design: str, seed: int) -> None:
    ring = Ring(design, seed)
    for _ in range(SECONDS):
        ring.second(faults=True)
    for _ in range(5):
        ring.second(faults=False)
    assert ring.fetched > len(ring.given) // 2 > SECONDS
    if DESIGNS[design].access.local is not Access.TAKEN:
        # Who takes first and tells afterwards may take what the other end has just given.
        assert len(set(ring.given)) == len(ring.given)
    for vault in ring.vaults:
        assert len(set(vault.used)) == len(vault.used)
