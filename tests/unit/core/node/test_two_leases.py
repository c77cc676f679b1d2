"""Leases for supply and for pads, asked for at the same moment."""

from __future__ import annotations

from small_worlds import deliver, pair, run, settings, started

from keyhop.core.model import NodeId, Purpose


def test_two_purposes_asked_for_at_once_are_given_different_segments() -> None:
    world = started([settings("a", "b"), settings("b", "a")])
    deliver(world, "a", "b", 0, 1 << 16)
    run(world, 1)
    node = world.processes[NodeId("a")].node
    to_b = pair(world, "a", "b")
    assert node.leases.want(to_b, Purpose.SUPPLY, 4096)
    assert node.leases.want(to_b, Purpose.PAD, 4096)
    spans = [span for asked in node.leases.asked["b"].values() for span in asked.spans]
    assert len(spans) == len(set(spans)) > 1
