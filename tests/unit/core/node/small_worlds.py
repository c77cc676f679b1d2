"""A few nodes in virtual time, whose links deliver blocks when a test says so."""

from __future__ import annotations

from typing import Any

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS, NodeId
from keyhop.core.node.context import Neighbour, NodeSettings
from keyhop.core.node.pair import Pair
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import World

RATE_BPS = 10**6
SEGMENT_BYTES = 1024


def settings(name: str, neighbours: str, **more: Any) -> NodeSettings:
    """A node whose neighbours are named by a letter each; `more` as NodeSettings has it."""
    return NodeSettings(
        node=NodeId(name),
        neighbours=tuple(
            Neighbour(
                node=NodeId(peer),
                link="-".join(sorted((name, peer))).encode().ljust(16, b"."),
                rate_bps=RATE_BPS,
                segment_bytes=SEGMENT_BYTES,
            )
            for peer in neighbours
        ),
        **more,
    )


def started(nodes: list[NodeSettings]) -> World:
    """A world a second after its start: its links are open."""
    world = World(1, nodes, DESIGNS["keyhop"], NodeVault)
    world.start()
    run(world, 1)
    return world


def run(world: World, seconds: float) -> None:
    world.run(world.now + int(seconds * NANOSECONDS))


def deliver(world: World, one: str, other: str, number: int, length_bytes: int) -> None:
    """The same block at both ends of a link."""
    bits = world.random.randbytes(length_bytes)
    world.deliver_block(one, other, "m", number, bits)
    world.deliver_block(other, one, "m", number, bits)


def pair(world: World, here: str, there: str) -> Pair:
    return world.processes[NodeId(here)].node.context.pairs[there]
