"""What grows too old is destroyed at both ends, also when the other end has fallen silent."""

from __future__ import annotations

from small_worlds import deliver, pair, run, settings, started

from keyhop.core.model import NANOSECONDS, NodeId
from keyhop.core.node.context import STEPS_OF_A_LIFETIME
from keyhop.core.node.ledger import Account
from keyhop.simulator.world import World

BLOCK_LIFETIME_S, FETCH_LIFETIME_S = 10, 5
BLOCK_BYTES = 1 << 16


def filled() -> World:
    lifetimes = {
        "block_lifetime_ns": BLOCK_LIFETIME_S * NANOSECONDS,
        "fetch_lifetime_ns": FETCH_LIFETIME_S * NANOSECONDS,
    }
    world = started([settings("a", "b", **lifetimes), settings("b", "a", **lifetimes)])
    for one, other in ("ab", "ba"):
        world.processes[NodeId(one)].node.supply.wanted_peers.add(other)
    deliver(world, "a", "b", 0, BLOCK_BYTES)
    run(world, 3)
    assert pair(world, "a", "b").own_key.book.stock > BLOCK_BYTES // 4
    return world


def test_all_of_one_age_expires_together_also_what_was_leased_and_not_used() -> None:
    world = filled()
    assert pair(world, "a", "b").stock.left, "a lease is in hand"
    run(world, BLOCK_LIFETIME_S + 3)
    for here, there in ("ab", "ba"):
        own = pair(world, here, there).own_key
        assert own.untouched == 0
        assert not pair(world, here, there).stock.left
        assert own.book.stock == 0
    # Two statements later the other end has destroyed it, too.
    run(world, FETCH_LIFETIME_S + 22)
    for here, there in ("ab", "ba"):
        theirs = pair(world, here, there).their_key
        assert (theirs.floor, theirs.book.stock) == (theirs.append, 0)
        assert not theirs.segments


def test_key_of_an_owner_that_stays_away_is_destroyed_in_the_end() -> None:
    world = filled()
    world.cut("a", "b")
    silence_s = (BLOCK_LIFETIME_S + FETCH_LIFETIME_S) * 5 // 4
    theirs = pair(world, "b", "a").their_key
    run(world, silence_s - 1)
    assert theirs.book.stock > 0, "its owner may still come back with keys from it"
    run(world, 4)
    assert theirs.book.stock == 0
    assert theirs.book[Account.Y] > 0
    assert not world.processes[NodeId("b")].disk.image.index(theirs.id)
    world.mend("a", "b")
    run(world, 5)
    assert pair(world, "a", "b").is_open
    deliver(world, "a", "b", 1, BLOCK_BYTES)
    run(world, 2)
    assert pair(world, "a", "b").stock.left, "they go on with fresh key"


def test_a_lifetime_ends_never_early_and_hardly_late() -> None:
    world = filled()
    context = world.processes[NodeId("a")].node.context
    for now in (0, 1, 7 * NANOSECONDS + 1, 10**18 + 12345):
        context.now = now
        for rounded, lifetime in (
            (context.born_now, context.settings.block_lifetime_ns),
            (context.spent_now, context.settings.fetch_lifetime_ns),
        ):
            assert now <= rounded <= now + lifetime // STEPS_OF_A_LIFETIME
