"""What two nodes do when a store is full: who decides, what the books of both ends say, and which key is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from small_worlds import deliver, pair, run, settings

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Frame
from keyhop.core.messages import ExpireSegments, State, decode
from keyhop.core.model import NANOSECONDS, AppId, NodeId, PeerError, Purpose
from keyhop.core.node import events
from keyhop.core.node.context import Application
from keyhop.core.node.ledger import Account
from keyhop.core.node.run import GONE, Run
from keyhop.core.policy_rules import BUILT_IN, LinkRule, Policy, Value
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import Answered, World

LIMIT_BYTES = 16 * 1024
BLOCK_BYTES = 8 * 1024
ENDS = {"a": "b", "b": "a"}
BLOCKS_TO_FILL = 10
"""Authentication runs take their part first."""


def rule(full_store: str) -> Policy:
    return Policy(links=(LinkRule(("ab",), {"full_store": Value(full_store, BUILT_IN)}, BUILT_IN),))


def linked(first: str, second: str = "", **more: Any) -> World:
    """Two nodes whose policies have these rules for a full store."""
    nodes = [
        settings(
            name,
            peer,
            applications=(Application(id=AppId(f"{name}1"), peers=frozenset({AppId(f"{peer}1")})),),
            directory={AppId(f"{peer}1"): NodeId(peer)},
            stock_limit_bytes=LIMIT_BYTES,
            policy=rule(wanted),
            link_names={peer: "ab"},
            **more,
        )
        for (name, peer), wanted in zip(ENDS.items(), (first, second or first), strict=True)
    ]
    world = World(1, nodes, DESIGNS["keyhop"], NodeVault)
    world.start()
    run(world, 1)
    return world


def bring(world: World, blocks: range, pause_s: float = 0.5) -> None:
    for number in blocks:
        deliver(world, "a", "b", number, BLOCK_BYTES)
        run(world, pause_s)


def run_of(world: World, owner: str, at: str) -> Run:
    found = pair(world, at, ENDS[at])
    return found.own_key if owner == at else found.their_key


def books_agree(world: World) -> None:
    """Both ends of each run have the same marks and totals, and the stock is what is there."""
    for owner in ENDS:
        here, there = (run_of(world, owner, at) for at in (owner, ENDS[owner]))
        for account in (Account.G, Account.X):
            assert here.book[account] == there.book[account], f"run of {owner}: {account.name}"
        assert here.untouched == there.untouched
        stock_is_there(world)


def stock_is_there(world: World) -> None:
    """What the books have left is what lies there, at each end."""
    for at, other in ENDS.items():
        here = pair(world, at, other)
        stock = here.stock
        assert not here.pads and not here.parents
        assert here.own_key.book.stock == here.own_key.untouched + stock.left + stock.taken + stock.wasted
        held = sum(segment.length for segment in here.their_key.segments.values() if segment.mark != GONE)
        assert here.their_key.book.stock == held - here.their_key.used.total()


def give(world: World, node: str, number: int = 1, size_bits: int = 256) -> Answered:
    answers: list[Answered] = []
    world.on_answer.append(answers.append)
    wanted = events.KeysWanted(world.request(), f"{node}1", f"{ENDS[node]}1", number, size_bits)
    world.processes[NodeId(node)].feed(wanted)
    run(world, 0.5)
    (answer,) = answers
    return answer


def test_a_store_that_stops_leaves_what_does_not_fit_outside_the_books() -> None:
    world = linked("stop")
    bring(world, range(BLOCKS_TO_FILL))
    taken = [run_of(world, owner, owner).book[Account.G] for owner in ENDS]
    bring(world, range(10, 14))
    assert [run_of(world, owner, owner).book[Account.G] for owner in ENDS] == taken
    assert run_of(world, "a", "a").book[Account.X] == 0
    books_agree(world)


def test_a_store_that_drops_what_is_new_books_it_as_expired_at_both_ends() -> None:
    world = linked("drop_new")
    bring(world, range(BLOCKS_TO_FILL))
    before = run_of(world, "a", "b").book.snapshot()
    oldest = next(run_of(world, "a", "a").oldest_untouched())
    bring(world, range(10, 14))
    for at in ENDS:
        book = run_of(world, "a", at).book
        dropped = book[Account.X] - before[Account.X]
        # The rest of the blocks, if any, is what tags were paid from meanwhile.
        assert 4 * BLOCK_BYTES * 0.9 < dropped <= 4 * BLOCK_BYTES and dropped == book[Account.G] - before[Account.G]
    assert next(run_of(world, "a", "a").oldest_untouched()).start == oldest.start, "what was there stays"
    assert run_of(world, "a", "a").append < 2 * LIMIT_BYTES, "no position is spent on what is dropped"
    books_agree(world)


def test_the_end_that_proposes_says_what_becomes_of_that_which_fits_nowhere() -> None:
    for first, second, booked in (("stop", "drop_new", False), ("drop_new", "stop", True)):
        world = linked(first, second)
        bring(world, range(14))
        assert bool(run_of(world, "a", "b").book[Account.X]) is booked
        books_agree(world)


def test_an_idle_full_store_replaces_its_oldest_at_both_ends() -> None:
    world = linked("replace_oldest")
    bring(world, range(BLOCKS_TO_FILL))
    ends = [run_of(world, owner, owner).append for owner in ENDS]
    bring(world, range(10, 30))
    for owner, end in zip(ENDS, ends, strict=True):
        found = run_of(world, owner, ENDS[owner])
        assert next(found.oldest_untouched()).start >= end, "all of it came since"
        assert LIMIT_BYTES // 2 - 1024 < found.untouched <= LIMIT_BYTES
        assert found.book[Account.X] > LIMIT_BYTES
    books_agree(world)


def test_of_two_ends_only_the_one_that_says_so_replaces_its_own() -> None:
    world = linked("stop", "replace_oldest")
    bring(world, range(20))
    assert run_of(world, "a", "b").book[Account.X] == 0 and run_of(world, "b", "a").book[Account.X] > LIMIT_BYTES
    books_agree(world)


def test_what_is_replaced_is_in_no_store_and_no_memory() -> None:
    world = linked("replace_oldest")
    bring(world, range(30))
    for at in ENDS:
        for owner in ENDS:
            found = run_of(world, owner, at)
            gone = [segment for segment in found.segments.values() if segment.mark == GONE]
            assert gone or found.floor
            stored = world.processes[NodeId(at)].disk.image.blocks
            assert not [segment for segment in gone if found.range(segment) in stored]


def test_a_key_given_after_the_store_was_full_is_new_and_the_same_at_both_ends() -> None:
    world = linked("replace_oldest")
    bring(world, range(60))
    append = run_of(world, "a", "a").append
    answer = give(world, "a")
    (given,) = answer.deliver.ranges
    assert given.start > append - 3 * LIMIT_BYTES > LIMIT_BYTES
    fetch = events.Fetch(world.request(), ((given.run.number, given.start, given.length),))
    answers: list[Answered] = []
    world.on_answer.append(answers.append)
    world.processes[NodeId("b")].feed(events.KeysFetched("a", [fetch]))
    run(world, 0.5)
    assert answers[-1].bits == answer.bits


def test_a_key_given_before_can_be_fetched_when_all_of_its_lease_was_replaced() -> None:
    world = linked("replace_oldest", idle_store_ns=2 * NANOSECONDS)
    bring(world, range(4))
    answer = give(world, "a")
    bring(world, range(4, 60))
    (given,) = answer.deliver.ranges
    assert given.end < run_of(world, "a", "a").append - 3 * LIMIT_BYTES
    fetch = events.Fetch(world.request(), ((given.run.number, given.start, given.length),))
    answers: list[Answered] = []
    world.on_answer.append(answers.append)
    world.processes[NodeId("b")].feed(events.KeysFetched("a", [fetch]))
    run(world, 0.5)
    assert answers[-1].bits == answer.bits


def test_the_oldest_of_a_store_that_is_drawn_from_stays_and_fresh_key_is_dropped() -> None:
    world = linked("replace_oldest", idle_store_ns=3 * NANOSECONDS)
    bring(world, range(6))
    assert give(world, "a").deliver.ranges and give(world, "b").deliver.ranges
    run(world, 1)
    replaced = run_of(world, "b", "b").book[Account.X]
    for number in range(6, 20):
        deliver(world, "a", "b", number, BLOCK_BYTES)
        assert give(world, "a").deliver.refusal is None
        assert give(world, "b").deliver.refusal is None
    assert run_of(world, "b", "b").book[Account.X] == replaced, "nothing of its own"
    dropped = run_of(world, "a", "b").book[Account.X]
    assert dropped > 0
    books_agree_but_for_use(world)
    run(world, 4)
    bring(world, range(20, 24))
    assert run_of(world, "b", "a").book[Account.X] > replaced, "nobody draws any more"


def books_agree_but_for_use(world: World) -> None:
    for owner in ENDS:
        here, there = (run_of(world, owner, at) for at in (owner, ENDS[owner]))
        assert [here.book[account] for account in (Account.G, Account.X)] == [
            there.book[account] for account in (Account.G, Account.X)
        ]
        assert here.untouched == there.untouched


@pytest.mark.parametrize("crashed", ["a", "b"])
@pytest.mark.parametrize("when_s", [0.001, 0.003, 0.006, 0.02])
def test_a_crash_while_the_oldest_is_replaced_leaves_two_ends_that_go_on_alike(crashed: str, when_s: float) -> None:
    world = linked("replace_oldest")
    bring(world, range(12))
    for number in range(12, 24):
        deliver(world, "a", "b", number, BLOCK_BYTES)
        run(world, when_s)
        world.crash(crashed)
        run(world, 8)
    bring(world, range(24, 60))
    for owner in ENDS:
        here, there = (run_of(world, owner, at) for at in (owner, ENDS[owner]))
        assert here.untouched == there.untouched > 0
    stock_is_there(world)
    (given,) = give(world, "a").deliver.ranges
    assert given.start > run_of(world, "a", "a").append - 3 * LIMIT_BYTES


def say(world: World, *segments: tuple[int, int]) -> Callable[[], None]:
    node = world.processes[NodeId("b")].node
    return lambda: node.stores.told(node.context.pairs["a"], ExpireSegments(segments))


@pytest.mark.parametrize(
    "spans",
    [(), ((1024, 1024), (0, 1024)), ((0, 2048), (1024, 1024)), ((0, 1 << 30),)],
    ids=["none", "falling", "overlapping", "above the run"],
)
def test_spans_that_are_no_spans_break_the_protocol(spans: tuple[tuple[int, int], ...]) -> None:
    world = linked("stop")
    bring(world, range(BLOCKS_TO_FILL))
    before = run_of(world, "a", "b").untouched
    with pytest.raises(PeerError):
        say(world, *spans)()
    assert run_of(world, "a", "b").untouched == before


def test_a_peer_that_expires_what_it_leased_moves_nothing() -> None:
    world = linked("stop")
    bring(world, range(BLOCKS_TO_FILL))
    found = run_of(world, "a", "b")
    leased = [segment for segment in found.segments.values() if segment.mark == Purpose.SUPPLY]
    assert leased
    before = found.book.snapshot()
    say(world, (leased[0].start, leased[0].length))()
    assert found.book.snapshot() == before and found.segments[leased[0].start] == leased[0]
    # A part of a segment is no segment.
    untouched = next(found.oldest_untouched())
    say(world, (untouched.start, untouched.length - 1))()
    assert found.book.snapshot() == before


def test_nothing_is_expired_that_a_lease_is_asked_for() -> None:
    world = linked("replace_oldest")
    bring(world, range(BLOCKS_TO_FILL))
    said: list[ExpireSegments] = []

    def read(sender: str, receiver: str, frame: Frame) -> None:
        if frame.type == 4:
            body = decode(frame.type, frame.payload)
            assert isinstance(body, State)
            said.extend(message for message in body.messages if isinstance(message, ExpireSegments))

    world.on_frame.append(read)
    node = world.processes[NodeId("a")].node
    here = node.context.pairs["b"]
    oldest = next(here.own_key.oldest_untouched())
    assert node.leases.want(here, Purpose.PAD, 1024)
    node.stores.agreed(here, LIMIT_BYTES // 2)
    assert here.own_key.segments[oldest.start].mark != GONE
    assert any(segment.mark == GONE for segment in here.own_key.segments.values())
