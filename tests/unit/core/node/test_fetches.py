"""Keys fetched together: what a turn brings is judged at once, exactly as if each request had come alone."""

from __future__ import annotations

from random import Random

import pytest
from small_worlds import deliver, pair, run, settings, started

from keyhop.core.machine import Audit, Output, Used
from keyhop.core.model import NodeId, Purpose, Range, joined
from keyhop.core.node.events import Fetch, KeysFetched, Woke
from keyhop.core.node.node import Node
from keyhop.crypto.keyid import Coordinates
from keyhop.simulator.world import World

LEASED_BYTES = 4096
AROUND = (b'{"ids":["', b'"]}')


def follower() -> tuple[World, Node, int]:
    """The node b, which follows a run of a's of which 4 KiB are leased, and the run's number."""
    world = started([settings("a", "b"), settings("b", "a")])
    deliver(world, "a", "b", 0, 1 << 16)
    run(world, 1)
    owner = world.processes[NodeId("a")].node
    assert owner.leases.want(pair(world, "a", "b"), Purpose.SUPPLY, LEASED_BYTES)
    world.processes[NodeId("a")].feed(Woke())
    run(world, 1)
    node = world.processes[NodeId("b")].node
    return world, node, pair(world, "b", "a").their_key.id.number


def fetched(world: World, node: Node, fetches: list[Fetch]) -> Output:
    return node.step(KeysFetched("a", fetches, AROUND), world.now)


def used(output: Output) -> list[Range]:
    return joined(save.range for save in output.save if isinstance(save, Used))


def recorded(output: Output) -> list[bytes]:
    return [save.entry for save in output.save if isinstance(save, Audit)]


def key(number: int, start: int, length: int = 32) -> tuple[Coordinates, ...]:
    return (Coordinates(number, start, length),)


@pytest.mark.parametrize("seed", range(40))
def test_together_or_one_by_one_the_same_requests_get_the_same_keys(seed: int) -> None:
    random = Random(seed)
    together, apart = follower(), follower()
    assert pair(together[0], "b", "a").their_key.used == pair(apart[0], "b", "a").their_key.used
    for batch in range(6):
        fetches = []
        for request in range(random.randint(1, 12)):
            # Most requests are for neighbours and fresh; some overlap, lie outside the leases or name another run.
            keys = [
                Coordinates(
                    together[2] if random.random() < 0.98 else together[2] ^ 1,
                    (batch * 700 + request * 64 + random.choice((0, 0, 0, 32, 16, 5000))) // 16 * 16,
                    random.choice((16, 32, 32, 64)),
                )
                for _ in range(random.choice((1, 1, 1, 2, 3)))
            ]
            fetches.append(Fetch(request, tuple(keys), b"%d" % request))
        once = fetched(*together[:2], fetches)
        single = [fetched(*apart[:2], [fetch]) for fetch in fetches]
        assert [(deliver.request, deliver.ranges, deliver.refusal is None) for deliver in once.answer] == [
            (deliver.request, deliver.ranges, deliver.refusal is None) for output in single for deliver in output.answer
        ]
        assert used(once) == joined(range for output in single for range in used(output))
        assert joined(once.wipe) == joined(range for output in single for range in output.wipe)
        runs = [pair(world, "b", "a").their_key for world, _, _ in (together, apart)]
        assert runs[0].used == runs[1].used and runs[0].book.snapshot() == runs[1].book.snapshot()
        granted = [b"%d" % deliver.request for deliver in once.answer if deliver.refusal is None]
        assert recorded(once) == ([AROUND[0] + b'","'.join(granted) + AROUND[1]] if granted else [])


def test_neighbours_leave_one_mark_and_one_record() -> None:
    world, node, number = follower()
    fetches = [Fetch(request, key(number, 32 * request), b"%d" % request) for request in (3, 0, 2, 1)]
    output = fetched(world, node, fetches)
    run_id = pair(world, "b", "a").their_key.id
    assert [save.range for save in output.save if isinstance(save, Used)] == [Range(run_id, 0, 128)]
    assert recorded(output) == [b'{"ids":["3","0","2","1"]}']
    assert [deliver.ranges for deliver in output.answer] == [(Range(run_id, 32 * n, 32),) for n in (3, 0, 2, 1)]


def test_one_that_may_not_be_given_takes_nothing_from_the_others() -> None:
    world, node, number = follower()
    refused = key(number, LEASED_BYTES * 8)
    output = fetched(world, node, [Fetch(1, key(number, 0), b"1"), Fetch(2, refused, b"2"), Fetch(3, refused, b"3")])
    assert [deliver.refusal is None for deliver in output.answer] == [True, False, False]
    assert recorded(output) == [b'{"ids":["1"]}']


def test_where_nothing_is_given_nothing_is_saved() -> None:
    world, node, number = follower()
    output = fetched(world, node, [Fetch(n, key(number ^ 1, 0), b"1") for n in range(3)])
    assert not output.save and not output.wipe
    assert all(deliver.refusal is not None for deliver in output.answer)
