"""What grows too old is destroyed at both ends, also when the other end has fallen silent."""

from __future__ import annotations

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS, NodeId
from keyhop.core.node.context import Neighbour, NodeSettings
from keyhop.core.node.ledger import Account
from keyhop.core.node.pair import Pair
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import World

BLOCK_LIFETIME_S, FETCH_LIFETIME_S = 10, 5
BLOCK_BYTES = 1 << 16


def filled() -> World:
    settings = [
        NodeSettings(
            node=NodeId(name),
            neighbours=(Neighbour(node=NodeId(peer), link=b"a-b".ljust(16, b"."), rate_bps=10**6, segment_bytes=1024),),
            block_lifetime_ns=BLOCK_LIFETIME_S * NANOSECONDS,
            fetch_lifetime_ns=FETCH_LIFETIME_S * NANOSECONDS,
        )
        for name, peer in ("ab", "ba")
    ]
    world = World(1, settings, DESIGNS["keyhop"], NodeVault)
    world.start()
    world.run(world.now + NANOSECONDS)
    bits = world.random.randbytes(BLOCK_BYTES)
    world.deliver_block("a", "b", "m", 0, bits)
    world.deliver_block("b", "a", "m", 0, bits)
    world.run(world.now + 3 * NANOSECONDS)
    assert pair(world, "a", "b").own_key.book.stock > BLOCK_BYTES // 4
    return world


def pair(world: World, here: str, there: str) -> Pair:
    return world.processes[NodeId(here)].node.context.pairs[there]


def test_all_of_one_age_expires_together_also_what_was_leased_and_not_used() -> None:
    world = filled()
    assert pair(world, "a", "b").stock.left, "a lease is in hand"
    world.run(world.now + (BLOCK_LIFETIME_S + 3) * NANOSECONDS)
    for here, there in ("ab", "ba"):
        run = pair(world, here, there).own_key
        assert run.untouched == 0
        assert not pair(world, here, there).stock.left
        assert run.book.stock == 0
    # Two statements later the other end has destroyed it, too.
    world.run(world.now + (FETCH_LIFETIME_S + 22) * NANOSECONDS)
    for here, there in ("ab", "ba"):
        run = pair(world, here, there).their_key
        assert (run.floor, run.book.stock) == (run.append, 0)
        assert not run.segments


def test_key_of_an_owner_that_stays_away_is_destroyed_in_the_end() -> None:
    world = filled()
    world.cut("a", "b")
    silence_s = (BLOCK_LIFETIME_S + FETCH_LIFETIME_S) * 5 // 4
    run = pair(world, "b", "a").their_key
    world.run(world.now + (silence_s - 1) * NANOSECONDS)
    assert run.book.stock > 0, "its owner may still come back with keys from it"
    world.run(world.now + 4 * NANOSECONDS)
    assert run.book.stock == 0
    assert run.book[Account.Y] > 0
    assert not world.processes[NodeId("b")].disk.image.index(run.id)
    world.mend("a", "b")
    bits = world.random.randbytes(BLOCK_BYTES)
    world.run(world.now + 5 * NANOSECONDS)
    assert pair(world, "a", "b").is_open
    world.deliver_block("a", "b", "m", 1, bits)
    world.deliver_block("b", "a", "m", 1, bits)
    world.run(world.now + 2 * NANOSECONDS)
    assert pair(world, "a", "b").stock.left, "they go on with fresh key"
