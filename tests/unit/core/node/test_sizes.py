"""How large segments and leases become on real nodes, after what applications ask of a link."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_worlds import deliver, pair, run

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.lifecycle import LOOK_LIMIT_NS
from keyhop.core.node.sizes import (
    LEARNING_NS,
    PIECES_PER_BLOCK,
    STATEMENT_LIMIT_NS,
    STATEMENT_NS,
    WINDOW_NS,
    Window,
)
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import World

BLOCK_BYTES = 1 << 18
ENDS = {"a": "b", "b": "a"}


def linked(rate_bps: int, design: str = "keyhop", segment_bytes: int = 0, **more: Any) -> World:
    nodes = [
        NodeSettings(
            node=NodeId(name),
            neighbours=(
                Neighbour(node=NodeId(peer), link=b"a-b".ljust(16), rate_bps=rate_bps, segment_bytes=segment_bytes),
            ),
            applications=(Application(id=AppId(f"{name}1"), peers=frozenset({AppId(f"{peer}1")})),),
            directory={AppId(f"{peer}1"): NodeId(peer)},
            **more,
        )
        for name, peer in ENDS.items()
    ]
    world = World(1, nodes, DESIGNS[design], NodeVault)
    world.start()
    run(world, 1)
    return world


def ask(world: World, node: str, times: int, pause_s: float, number: int = 1, size_bits: int = 256) -> None:
    for _ in range(times):
        wanted = events.KeysWanted(world.request(), f"{node}1", f"{ENDS[node]}1", number, size_bits)
        world.processes[NodeId(node)].feed(wanted)
        run(world, pause_s)


def agreed(world: World, number: int) -> int:
    """Brings a block, and gives the largest piece that it is cut into: at both ends the same."""
    before = [pair(world, at, ENDS[at]).own_key.append for at in ENDS]
    deliver(world, "a", "b", number, BLOCK_BYTES)
    run(world, 1)
    found = set()
    for at, from_ in zip(ENDS, before, strict=True):
        for run_ in (pair(world, at, ENDS[at]).own_key, pair(world, ENDS[at], at).their_key):
            found.add(max(segment.length for segment in run_.segments.values() if segment.start >= from_))
    (size,) = found
    return size


def test_until_something_is_known_segments_are_for_all_that_the_link_gives() -> None:
    assert agreed(linked(1000), 0) == 16_384
    assert agreed(linked(10_000), 0) == 32_768


@pytest.mark.parametrize("asking", ["a", "b"])
def test_segments_follow_what_either_end_is_asked_for(asking: str) -> None:
    world = linked(1000)
    agreed(world, 0)
    run(world, 2 * WINDOW_NS / NANOSECONDS)
    assert agreed(world, 1) == 1024, "nobody asks"
    ask(world, asking, 300, 1.0, number=2)
    run(world, STATEMENT_LIMIT_NS / NANOSECONDS)
    grown = agreed(world, 2)
    assert 8192 <= grown <= 32_768
    run(world, 3 * WINDOW_NS / NANOSECONDS)
    assert agreed(world, 3) == 1024, "what was asked long ago is forgotten"


def test_one_large_request_makes_segments_that_hold_it() -> None:
    world = linked(1000)
    agreed(world, 0)
    run(world, 2 * WINDOW_NS / NANOSECONDS)
    ask(world, "a", 1, 1.0, number=128, size_bits=512)
    run(world, LOOK_LIMIT_NS / NANOSECONDS)
    assert agreed(world, 1) >= 128 * 64


def test_leases_of_small_segments_are_as_large_as_what_is_asked_makes_them() -> None:
    world = linked(1000)
    agreed(world, 0)
    run(world, 2 * WINDOW_NS / NANOSECONDS)
    for number in range(1, 6):
        agreed(world, number)
    here = pair(world, "a", "b")
    # Of the first block, large segments; then 1 KiB each.
    ask(world, "a", 600, 0.5, number=8)
    run(world, 1)
    assert next(here.own_key.oldest_untouched()).length == 1024
    assert world.processes[NodeId("a")].node.supply.lease_bytes(here) >= 8192
    assert here.stock.left > 4096


def test_half_of_a_poor_link_is_left_for_relay() -> None:
    world = linked(100_000)
    for number in range(10):
        deliver(world, "a", "b", number, 1024)
        run(world, 1)
    here = pair(world, "a", "b")
    supply = world.processes[NodeId("a")].node.supply
    assert supply.wanted_bytes(here) > here.stock.left + here.own_key.untouched, "more would be leased if it were there"
    assert supply.lease_bytes(here) <= (here.stock.left + here.own_key.untouched) // 2
    assert 0 < here.stock.left <= here.own_key.untouched


def test_a_small_store_is_cut_small() -> None:
    world = linked(10_000_000, stock_limit_bytes=32 * 1024)
    deliver(world, "a", "b", 0, 4096)
    run(world, 1)
    for number in range(1, 6):
        deliver(world, "a", "b", number, 8192)
        run(world, 1)
    lengths = {segment.length for segment in pair(world, "a", "b").own_key.segments.values()}
    assert max(lengths) == 2048


def test_a_block_has_pieces_for_several_who_share_the_link() -> None:
    world = linked(100_000)
    node = world.processes[NodeId("a")].node
    for block_bytes in (8192, 65_536, BLOCK_BYTES):
        assert node.intake.sizes.segment_bytes(pair(world, "a", "b"), block_bytes) * PIECES_PER_BLOCK == block_bytes
    assert node.intake.sizes.least_lease_bytes(pair(world, "a", "b")) == 65_536, "a lease may hold many pieces"


def test_a_fast_link_is_cut_large_whatever_its_blocks_are() -> None:
    world = linked(100_000_000)
    assert world.processes[NodeId("a")].node.intake.sizes.segment_bytes(pair(world, "a", "b"), 65_536) == 65_536


def test_what_a_node_file_or_another_design_fixes_stays() -> None:
    assert agreed(linked(1000, segment_bytes=2048), 0) == 2048
    world = linked(10_000, design="cisco")
    node = world.processes[NodeId("a")].node
    assert node.intake.sizes.segment_bytes(pair(world, "a", "b"), 4096) == 16_384
    assert node.intake.sizes.least_lease_bytes(pair(world, "a", "b")) == 0


@pytest.mark.parametrize(
    ("rate_bps", "apart_ns"),
    [(0, STATEMENT_NS), (100, STATEMENT_LIMIT_NS), (1000, 307_200_000_000), (1_000_000, STATEMENT_NS)],
)
def test_on_a_slow_link_statements_are_as_far_apart_as_their_tags_cost(rate_bps: int, apart_ns: int) -> None:
    world = linked(rate_bps)
    assert world.processes[NodeId("a")].node.intake.sizes.statement_ns(pair(world, "a", "b")) == apart_ns


@given(st.lists(st.tuples(st.integers(0, 2 * WINDOW_NS), st.integers(0, 1 << 20)), max_size=20))
def test_a_window_counts_what_came_lately_and_never_more(steps: list[tuple[int, int]]) -> None:
    now = total = 0
    window = Window(now, total)
    came: list[tuple[int, int]] = []
    for passed, amount in steps:
        now, total = now + passed, total + amount
        window.add(now, total, amount)
        came.append((now, amount))
        span = max(LEARNING_NS, window.span_ns(now))
        assert window.per_second(now) <= -(-sum(more for _, more in came) * NANOSECONDS // span)
        assert window.largest >= max(more for at, more in came if now - at < WINDOW_NS)
        assert window.largest in {more for _, more in came}


def test_a_total_that_falls_counts_as_nothing() -> None:
    window = Window(0, 1000)
    window.add(NANOSECONDS, 10)
    window.add(2 * NANOSECONDS, 70)
    assert window.per_second(2 * NANOSECONDS) == 1
