"""Leases for supply and for pads, asked for at the same moment."""

from __future__ import annotations

import pytest
from small_worlds import deliver, pair, run, settings, started
from test_sizes import BLOCK_BYTES, agreed, linked

from keyhop.core.model import NANOSECONDS, NodeId, Purpose
from keyhop.core.node.leases import TOO_LARGE_LIMIT
from keyhop.core.node.node import Node
from keyhop.core.node.pair import Pair
from keyhop.core.node.sizes import WINDOW_NS

SMALL_BYTES = 1024


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


def asked_bytes(node: Node, purpose: Purpose) -> int:
    """Bytes of our run that leases of this purpose are asked for and not yet answered."""
    pending = [asked for asked in node.leases.asked.get("b", {}).values() if asked.purpose == purpose]
    return sum(length for asked in pending for _, length in asked.spans)


@pytest.mark.parametrize("purposes", [(Purpose.PAD, Purpose.SUPPLY), (Purpose.DERIVE, Purpose.SUPPLY)])
def test_a_reserve_is_kept_though_two_leases_are_asked_for_at_once(purposes: tuple[Purpose, Purpose]) -> None:
    world = started([settings("a", "b"), settings("b", "a")])
    deliver(world, "a", "b", 0, 1 << 16)
    run(world, 1)
    node = world.processes[NodeId("a")].node
    to_b = pair(world, "a", "b")
    untouched = to_b.own_key.untouched
    reserve = untouched // 2
    node.leases.reserved_bytes = lambda pair: reserve
    node.leases.want(to_b, purposes[0], untouched // 4)
    node.leases.want(to_b, purposes[1], untouched)
    first, second = (asked_bytes(node, purpose) for purpose in purposes)
    assert first >= untouched // 4 and second > 0
    assert untouched - first - second >= reserve


def large_then_small(blocks: int) -> tuple[Node, Pair]:
    """Segments of that many blocks that are large, and behind them those of one that are small."""
    world = linked(1000, stock_limit_bytes=1 << 24)
    for number in range(blocks):
        deliver(world, "a", "b", number, BLOCK_BYTES)
        run(world, 1)
    run(world, 2 * WINDOW_NS / NANOSECONDS)
    assert agreed(world, blocks) == SMALL_BYTES
    return world.processes[NodeId("a")].node, pair(world, "a", "b")


def test_small_segments_behind_those_that_are_too_large_are_leased() -> None:
    node, to_b = large_then_small(1)
    assert next(to_b.own_key.oldest_untouched()).length > 4096
    assert node.leases.want(to_b, Purpose.SUPPLY, 4096, kept_bytes=to_b.own_key.untouched - 4096)
    assert asked_bytes(node, Purpose.SUPPLY) == 4096


def test_segments_that_do_not_suit_hide_no_others_however_many_there_are() -> None:
    node, to_b = large_then_small(12)
    large = [segment for segment in to_b.own_key.oldest_untouched() if segment.length > 4096]
    assert len(large) > TOO_LARGE_LIMIT
    assert node.leases.want(
        to_b,
        Purpose.SUPPLY,
        4096,
        suits=lambda segment: segment.length == SMALL_BYTES,
        kept_bytes=to_b.own_key.untouched - 4096,
    )
    assert asked_bytes(node, Purpose.SUPPLY) == 4096
