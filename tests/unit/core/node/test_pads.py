"""Who may hold how much of a link's pads: no source, and no neighbour, takes all of them."""

from __future__ import annotations

import itertools

import pytest
from small_worlds import deliver, run, settings, started

from keyhop.core.machine import Output
from keyhop.core.messages import AnswerReserve, Reserve
from keyhop.core.model import NANOSECONDS, AppId, NodeId, Purpose
from keyhop.core.node.context import Application
from keyhop.core.node.events import KeysWanted
from keyhop.core.node.node import Node
from keyhop.core.node.pads import GRANTED_BYTES

LINKS = ("fm", "gm", "hm", "md")
BLOCK_BYTES = 64 * 1024


def middle(blocks: int) -> Node:
    """m stands between f, g and h on one side and d on the other, with pads for its link to d in hand."""
    around = {
        name: "".join(sorted({end for ends in LINKS if name in ends for end in ends} - {name})) for name in "fghmd"
    }
    world = started([settings(name, neighbours) for name, neighbours in around.items()])
    for number in range(blocks):
        deliver(world, "m", "d", number, BLOCK_BYTES)
        run(world, 0.1)
    node = world.processes[NodeId("m")].node
    # Applications of m ask for key of d, too.
    node.supply.wanted_peers.add("d")
    pair = node.context.pairs["d"]
    node.context.out = Output()
    node.leases.want(pair, Purpose.PAD, pair.own_key.untouched // 2)
    node.links.frames.flush()
    world.processes[NodeId("m")].perform(node.context.out)
    run(world, 0.1)
    assert pair.pads.total() > 0
    node.context.plain_outbox.clear()
    return node


numbers = itertools.count(1)


def ask(node: Node, neighbour: str, source: str, length: int) -> str:
    """Why m refuses a reservation; empty if it passes it on."""
    path = (source, neighbour, "m", "d") if source != neighbour else (neighbour, "m", "d")
    node.relay.hops.reserve(neighbour, Reserve(next(numbers), path, length))
    said = node.context.plain_outbox.pop(neighbour, [])
    handed_on = node.context.plain_outbox.pop("d", [])
    assert bool(said) != bool(handed_on)
    return said[0].reason if said and isinstance(said[0], AnswerReserve) else ""


def total(node: Node) -> int:
    pair = node.context.pairs["d"]
    return pair.own_key.untouched + pair.pads.total() + held(node)


def held(node: Node) -> int:
    return sum(end - start for start, end in node.relay.pads.reserved(node.context.pairs["d"]))


def test_a_greedy_source_leaves_the_rest_of_a_hop_to_others() -> None:
    node = middle(16)
    stock = total(node)
    while not (reason := ask(node, "g", "g", 4096)):
        pass
    assert reason.startswith("this source may hold ") and str(held(node)) in reason
    assert stock // 10 - 4096 < held(node) <= stock // 10
    assert ask(node, "h", "h", 4096) == ""


def test_a_neighbour_that_invents_sources_leaves_the_rest_to_others() -> None:
    node = middle(16)
    stock = total(node)
    invented = (f"ghost{number}" for number in itertools.count())
    while not (reason := ask(node, "g", next(invented), 8192)):
        pass
    assert reason.startswith("this neighbour may hold ")
    assert held(node) <= stock // 4
    assert ask(node, "h", "h", 4096) == ""


def test_all_reservations_together_leave_half_of_the_link() -> None:
    node = middle(16)
    stock = total(node)
    reasons = {ask(node, way, f"{way}{number}", 4096) for number, way in itertools.product(range(40), "fgh")}
    assert any(reason.startswith("relay may hold ") for reason in reasons)
    assert stock // 2 - 4096 < held(node) <= stock // 2


def test_many_small_reservations_of_one_neighbour_leave_room_for_others() -> None:
    node = middle(16)
    reasons = [ask(node, "g", f"ghost{number}", 65) for number in range(300)]
    assert "64 reservations by way of g are open: no more are legal" in reasons
    assert ask(node, "h", "h", 4096) == ""


def test_a_neighbour_cannot_take_the_place_of_anothers_batch() -> None:
    node = middle(16)
    for neighbour, path in (("g", ("h", "g", "m", "d")), ("h", ("h", "m", "d"))):
        node.relay.hops.reserve(neighbour, Reserve(7, path, 1088))
        assert node.context.plain_outbox.pop(neighbour, []) == []


def test_a_batch_is_reserved_once() -> None:
    node = middle(16)
    message = Reserve(7, ("g", "m", "d"), 1088)
    node.relay.hops.reserve("g", message)
    node.relay.hops.reserve("g", message)
    (answer,) = node.context.plain_outbox["g"]
    assert isinstance(answer, AnswerReserve) and answer.reason == "batch 7 of g is reserved already"
    assert held(node) == 1088


def test_what_is_given_back_may_be_held_again() -> None:
    node = middle(16)
    length = total(node) // 10 - 10
    node.relay.hops.reserve("g", Reserve(8, ("g", "m", "d"), length))
    node.context.plain_outbox.clear()
    assert ask(node, "g", "g", length) != ""
    node.relay.answered("d", AnswerReserve(8, ("g", "m", "d"), False, "d", "full"))
    node.context.plain_outbox.clear()
    assert held(node) == 0 and ask(node, "g", "g", length) == ""


@pytest.mark.parametrize("length", [GRANTED_BYTES, 65])
def test_a_poor_link_lets_a_source_hold_what_every_source_is_granted(length: int) -> None:
    node = middle(1)
    assert total(node) // 10 < GRANTED_BYTES
    assert ask(node, "g", "g", length) == ""
    assert ask(node, "g", "g", GRANTED_BYTES) != ""


@pytest.mark.parametrize("length", [7000, 8192, 10_000])
def test_a_source_whose_own_link_is_poor_asks_for_less_than_everybody_is_granted(length: int) -> None:
    """Else it would wait for ever where no more key comes."""
    # Relay has half of a link that applications draw on.
    asking = {"a1": frozenset({AppId("b1"), AppId("c1")}), "b1": frozenset[AppId](), "c1": frozenset[AppId]()}
    apps = {at: Application(id=AppId(at), peers=peers) for at, peers in asking.items()}
    around = (("a", "b"), ("b", "ac"), ("c", "b"))
    world = started([settings(name, neighbours, applications=(apps[f"{name}1"],)) for name, neighbours in around])
    deliver(world, "a", "b", 0, length)
    deliver(world, "b", "c", 0, BLOCK_BYTES)
    run(world, 20)
    for _ in range(20):
        world.processes[NodeId("a")].feed(KeysWanted(world.request(), "a1", "c1", 1, 256))
        run(world, 1)
    assert world.processes[NodeId("a")].node.context.counters.get("batches_relayed", 0) > 0


def test_a_poor_path_is_not_used_for_a_pool_that_nobody_draws_on() -> None:
    """It brings what opens the pair; the rest is for those who ask."""
    ends = {name: Application(id=AppId(f"{name}1"), peers=frozenset({AppId("a1"), AppId("c1")})) for name in "ac"}
    own = {name: (application,) for name, application in ends.items()}
    around = (("a", "b"), ("b", "ac"), ("c", "b"))
    world = started([settings(name, neighbours, applications=own.get(name, ())) for name, neighbours in around])
    for number in range(3):
        deliver(world, "a", "b", number, 4000)
        deliver(world, "b", "c", number, 4000)
        run(world, 10)
    there, back = (world.processes[NodeId(at)].node.context.pairs[peer] for at, peer in ("ac", "ca"))
    assert there.is_open and back.is_open
    # What comes beside tag keys, that is: no batch is smaller than a segment.
    assert max(there.own_key.append, back.own_key.append) < 3072
    for _ in range(20):
        world.processes[NodeId("a")].feed(KeysWanted(world.request(), "a1", "c1", 4, 256))
        run(world, 1)
    assert there.own_key.append > 3072 > back.own_key.append


def test_what_was_given_back_is_no_demand() -> None:
    node = middle(16)
    pads, pair = node.relay.pads, node.context.pairs["d"]
    for _ in range(20):
        for _ in range(8):
            taken = pads.take(pair, 4096)
            assert taken is not None
            pads.give_back(pair, taken)
        pads.look(NANOSECONDS)
    assert pads._demand["d"].rate == 0
    assert pads.take(pair, 4096) is not None
    pads.look(NANOSECONDS)
    assert pads._demand["d"].rate > 0, "what is kept counts"
