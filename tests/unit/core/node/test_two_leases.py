"""Leases for supply and for pads, asked for at the same moment."""

from __future__ import annotations

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS, NodeId, Purpose
from keyhop.core.node.context import Neighbour, NodeSettings
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import World


def test_two_purposes_asked_for_at_once_are_given_different_segments() -> None:
    settings = [
        NodeSettings(
            node=NodeId(name),
            neighbours=(Neighbour(node=NodeId(peer), link=b"a-b".ljust(16, b"."), rate_bps=10**6, segment_bytes=1024),),
        )
        for name, peer in ("ab", "ba")
    ]
    world = World(1, settings, DESIGNS["keyhop"], NodeVault)
    world.start()
    world.run(world.now + NANOSECONDS)
    bits = world.random.randbytes(1 << 16)
    world.deliver_block("a", "b", "m", 0, bits)
    world.deliver_block("b", "a", "m", 0, bits)
    world.run(world.now + NANOSECONDS)
    node = world.processes[NodeId("a")].node
    pair = node.context.pairs["b"]
    assert node.leases.want(pair, Purpose.SUPPLY, 4096)
    assert node.leases.want(pair, Purpose.PAD, 4096)
    spans = [span for asked in node.leases.asked["b"].values() for span in asked.spans]
    assert len(spans) == len(set(spans)) > 1
