"""A batch of relayed key that is lost with its link is given up at once, and the next one takes another way."""

from __future__ import annotations

from typing import Any

import pytest
from small_worlds import deliver, pair, run, settings, started

from keyhop.core.machine import Frame
from keyhop.core.messages import Confirm, FrameType, Plain, PlainMessage, RelayBatch, State, decode, encode
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node.context import Application
from keyhop.core.node.events import FrameArrived, StockLow
from keyhop.core.node.hops import BATCH_NS, HANDED_ON_LIMIT, HandedOn
from keyhop.core.node.ledger import Account
from keyhop.core.node.relay import BURNT_DOUBLINGS, Relay
from keyhop.simulator.world import World

LINKS = ("ab", "bc", "cd", "ad")
BLOCK_BYTES = 1 << 16


class Watch:
    """The RelayBatch frames of a world, and what befalls the next of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cut: tuple[str, str] | None = None
        """The link that is cut while the next batch is on it."""
        self.overdue = False
        """Whether the next batch finds that its reservation has ended."""
        self.batches: list[tuple[str, str, RelayBatch]] = []
        self.confirms: list[tuple[str, str, Confirm]] = []
        world.on_frame.append(self.see)

    def see(self, sender: str, receiver: str, frame: Frame) -> None:
        if frame.type not in (FrameType.STATE, FrameType.PLAIN):
            return
        body = decode(frame.type, frame.payload)
        assert isinstance(body, State | Plain)
        for message in body.messages:
            if isinstance(message, Confirm):
                self.confirms.append((sender, receiver, message))
            if isinstance(message, RelayBatch):
                self.batches.append((sender, receiver, message))
                if self.overdue:
                    hops = relay(self.world, receiver).hops
                    for reservation in hops.reservations.values():
                        reservation.expires = 0
                    hops.expire()
                    self.overdue = False
                if self.cut == (sender, receiver):
                    self.world.cut(sender, receiver)
                    self.cut = None


def ring(**more: Any) -> World:
    """a and c, whose applications share keys, have a way over b and one over d. Their pools are filled."""
    around = {name: "".join(sorted({*"".join(link for link in LINKS if name in link)} - {name})) for name in "abcd"}
    wanted = {"a": frozenset({AppId("c1")})}
    world = started(
        [
            settings(
                name,
                near,
                applications=(Application(id=AppId(f"{name}1"), peers=wanted.get(name, frozenset())),),
                **more,
            )
            for name, near in around.items()
        ]
    )
    for link in LINKS:
        deliver(world, link[0], link[1], 0, BLOCK_BYTES)
    run(world, 15)
    assert pair(world, "a", "c").is_open and not relay(world, "a").batches
    return world


@pytest.fixture
def world() -> World:
    return ring()


def relay(world: World, name: str) -> Relay:
    return world.processes[NodeId(name)].node.relay


def spend(world: World, watch: Watch) -> None:
    """What a holds for c is used up, until the next batch leaves."""
    stock, begun = pair(world, "a", "c").stock, len(watch.batches)
    for _ in range(500):
        stock.take(stock.left // 32, 32)
        # As the door says it.
        world.processes[NodeId("a")].feed(StockLow("c"))
        run(world, 0.01)
        if any(batch.source == "a" for _, _, batch in watch.batches[begun:]):
            return
    raise AssertionError("no batch left in 5 s")


@pytest.mark.parametrize("where", [0, 1])
def test_the_source_gives_up_at_once_and_goes_on_by_the_other_way(world: World, where: int) -> None:
    watch = Watch(world)
    before = relay(world, "a").context.counters.get("batches_relayed", 0)
    way = relay(world, "a").routes.route("c", 2048)
    assert way is not None
    cut = watch.cut = (way.path[where], way.path[where + 1])
    spend(world, watch)
    run(world, 1.5)
    assert frozenset(cut) in world.cuts, "a batch was on the link when it was cut"
    assert relay(world, "a").context.counters["batches_relayed"] > before
    (other,) = {"b", "d"} - {way.path[1]}
    assert relay(world, "a").hops.paths["a", "c"] == ("a", other, "c")


def says(world: World, sender: str, receiver: str, message: PlainMessage) -> None:
    """The sender's node itself would not say it."""
    current = pair(world, receiver, sender).current
    assert current is not None
    frame = Frame(int(FrameType.PLAIN), 0, encode(Plain((message,))), b"")
    world.processes[NodeId(receiver)].feed(FrameArrived(sender, current.id, frame))


def test_a_confirmation_passes_once_and_only_the_way_its_batch_went(world: World) -> None:
    hops, watch = relay(world, "b").hops, Watch(world)
    hops.handed_on["a", "a", 77] = HandedOn(("a", "b", "c"), "c", world.now + BATCH_NS)
    for odd in (
        Confirm(76, ("a", "b", "c"), bytes(16), b""),
        Confirm(77, ("a", "b", "c", "d"), bytes(16), b""),
        Confirm(77, ("d", "a", "b", "c"), bytes(16), b""),
    ):
        says(world, "c", "b", odd)
    run(world, 0.1)
    assert watch.confirms == [] and ("a", "a", 77) in hops.handed_on
    for _ in range(2):
        says(world, "c", "b", Confirm(77, ("a", "b", "c"), bytes(16), b""))
    run(world, 0.1)
    assert watch.confirms == [("b", "a", Confirm(77, ("a", "b", "c"), bytes(16), b""))]
    assert hops.context.counters["confirmations_dropped"] == 4
    assert pair(world, "b", "c").is_open


def test_a_batch_without_a_reservation_is_answered_for_where_it_is_refused(world: World) -> None:
    watch = Watch(world)
    watch.overdue = True
    spend(world, watch)
    run(world, 1)
    assert not watch.overdue
    (source, refusing, batch), *_ = watch.batches
    assert source == "a"
    assert watch.confirms[0] == (refusing, "a", Confirm(batch.number, ("a", refusing, "c"), b"", b""))
    assert batch.number not in relay(world, "a").batches
    assert pair(world, "a", refusing).is_open


def test_what_no_confirmation_came_for_is_forgotten_in_time(world: World) -> None:
    hops = relay(world, "b").hops
    hops.handed_on["a", "a", 77] = HandedOn(("a", "b", "c"), "c", world.now + BATCH_NS)
    relay(world, "b").nudge()
    run(world, BATCH_NS / 1e9 - 0.5)
    assert ("a", "a", 77) in hops.handed_on
    run(world, 1)
    assert ("a", "a", 77) not in hops.handed_on
    assert HANDED_ON_LIMIT * BLOCK_BYTES // 10 > 10**7, "not reached at 80 Mbit/s of batches of a mere 64 KiB"


def test_a_path_that_kills_each_batch_burns_pads_more_and_more_slowly(world: World) -> None:
    """Every batch dies at c: pads of all hops go with it."""
    watch = Watch(world)
    c = world.processes[NodeId("c")].node
    c.relay.intake.placing.check = lambda *_: False  # type: ignore[method-assign]
    spend(world, watch)
    began = world.now
    run(world, 30)
    tries = len({batch.number for _, _, batch in watch.batches})
    assert BURNT_DOUBLINGS < tries < 12, f"{tries} batches in {(world.now - began) / 1e9} s"


def test_pads_of_a_batch_that_never_arrived_are_booked_as_such_at_both_ends_in_the_end() -> None:
    world = ring(fetch_lifetime_ns=5 * NANOSECONDS, block_lifetime_ns=30 * NANOSECONDS)
    watch = Watch(world)
    way = relay(world, "a").routes.route("c", 2048)
    assert way is not None
    first = way.path[1]
    watch.cut = ("a", first)
    spend(world, watch)
    run(world, 1)
    assert frozenset(("a", first)) in world.cuts
    ours, theirs = pair(world, "a", first).own_key, pair(world, first, "a").their_key
    world.mend("a", first)
    lost = ours.book[Account.R] - theirs.book[Account.R]
    assert lost >= watch.batches[0][2].length
    # Neither end tells which of the leased bytes they were before the floor has passed them.
    run(world, 5)
    assert ours.book[Account.R] - theirs.book[Account.R] == lost and theirs.segments
    run(world, 60)
    assert theirs.floor == theirs.append
    assert theirs.book.snapshot() == ours.book.snapshot()
