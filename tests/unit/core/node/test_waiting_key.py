"""Requests that wait for key that is still to come: over relay, out of a block, or out of a lease under commit."""

from __future__ import annotations

import pytest
from governed_worlds import Network, why
from small_worlds import SEGMENT_BYTES, deliver, pair, run
from test_sizes import ENDS, linked
from test_waiting import BLOCK_BYTES, Asking

from keyhop.core.model import NodeId, Purpose, Refusal
from keyhop.core.node import governed
from keyhop.core.node.events import KeysWanted
from keyhop.core.node.ledger import Account
from keyhop.core.node.relay import LACKING_LOOK_LIMIT_NS
from keyhop.simulator.world import Answered

RULES = "rules: [{name: first, application: a1, peer: b1, class: prioritised}]"


def line() -> Network:
    """a - b - c, with far more key on both links than the idle pool of a and c holds."""
    net = Network("abc")
    net.run(1)
    for _ in range(8):
        net.block("a", "b", 65_536)
        net.block("b", "c", 65_536)
        net.run(0.5)
    net.run(10)
    return net


def ask_distant(net: Network, number: int, size_bits: int, *, plain: bool) -> int:
    if not plain:
        return net.ask("a1", "c1", number=number, size_bits=size_bits)
    request = net.world.request()
    net.world.processes[NodeId("a")].feed(KeysWanted(request, "a1", "c1", number, size_bits))
    return request


def answer(net: Network, request: int, seconds: float) -> Answered | None:
    """What is said within that time."""
    for _ in range(int(seconds / 0.05)):
        if request in net.answers:
            break
        net.run(0.05)
    return net.answers.get(request)


# --- over relay -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "governed"])
def test_a_request_larger_than_the_idle_pool_is_relayed_for(plain: bool) -> None:
    net = line()
    pair = net.pair("a", "c")
    number, size_bits = 128, 512
    assert pair.stock.left + pair.own_key.untouched < number * size_bits // 8
    found = None
    for _ in range(4):
        # As a client does that is told to try again.
        found = answer(net, ask_distant(net, number, size_bits, plain=plain), 3)
        if found is not None and found.deliver.refusal is None:
            break
    assert found is not None and found.deliver.refusal is None, found and why(found.deliver)


def test_while_a_pool_lacks_key_the_next_look_is_near_even_if_it_rests() -> None:
    net = Network("abc")
    net.run(1)
    net.block("a", "b", 65_536)
    net.run(5)
    relay = net.node("a").relay
    for _ in range(60):
        net.run(0.05)
        assert relay._due - net.world.now <= LACKING_LOOK_LIMIT_NS


# --- on a link --------------------------------------------------------------------------------------------------------


def test_fresh_key_wakes_a_plain_request_that_a_lease_was_too_small_for() -> None:
    asking = Asking()
    node = asking.world.processes[NodeId("a")].node
    pair = asking.pair
    untouched = pair.own_key.untouched
    # Pads are asked for at the same moment, so that less is left for the request than there seems to be.
    assert node.leases.want(pair, Purpose.PAD, untouched // 2)
    asking.ask(1, 8 * (pair.stock.left + untouched * 3 // 4))
    asking.run(0.3)
    assert not asking.answers and len(node.supply.waiting["b"]) == 1
    deliver(asking.world, "a", "b", 1, BLOCK_BYTES)
    asking.run(0.3)
    assert len(asking.answers) == 1 and asking.refusal() == ""


def under_commit(asking: Asking) -> int:
    """Bytes of a lease that both ends have booked, and whose commit at ours is under way."""
    process = asking.world.processes[NodeId("a")]
    node = process.node
    assert node.leases.want(asking.pair, Purpose.SUPPLY, 16_384)
    node.links.frames.flush()
    process.perform(node.context.out)
    for _ in range(2000):
        asking.run(0.00005)
        if node.leases.committing.get("b", 0):
            break
    coming = node.leases.committing["b"]
    assert coming >= 16_384 and not node.leases.pending(asking.pair, Purpose.SUPPLY)
    return coming


def test_a_request_waits_for_the_lease_under_commit_that_is_enough_and_leases_nothing() -> None:
    asking = Asking()
    coming, pair = under_commit(asking), asking.pair
    leases, untouched = asking.world.processes[NodeId("a")].node.leases, pair.own_key.untouched
    asking.ask(1, 8 * (pair.stock.left + coming // 2))
    asking.run(0.00005)
    assert leases.committing["b"] == coming, "it is still under way"
    assert not asking.answers and not leases.pending(pair, Purpose.SUPPLY)
    asking.run(0.2)
    assert len(asking.answers) == 1 and asking.refusal() == ""
    assert pair.own_key.untouched == untouched


def test_a_look_leases_nothing_while_enough_is_under_commit() -> None:
    asking = Asking()
    coming, pair = under_commit(asking), asking.pair
    node = asking.world.processes[NodeId("a")].node
    pair.stock.take(1, pair.stock.left)
    assert pair.stock.left < node.lifecycle.design.synchronisation.low(node.supply.lease_bytes(pair)) <= coming
    node.lifecycle.top_up(pair)
    assert not node.leases.pending(pair, Purpose.SUPPLY)


def test_a_request_whose_lease_the_other_end_refuses_leases_anew() -> None:
    asking = Asking()
    there = pair(asking.world, "b", "a").their_key
    # Its record of the oldest segment is another one.
    there.set_mark(next(there.oldest_untouched()), Purpose.PAD)
    asking.ask(1, 8 * (asking.pair.stock.left + 1024))
    asking.run(0.3)
    assert asking.world.processes[NodeId("b")].node.context.counters["leases_refused"] == 1
    assert len(asking.answers) == 1 and asking.refusal() == ""


def test_a_request_that_scattered_leases_do_not_answer_leases_more() -> None:
    asking = Asking()
    process = asking.world.processes[NodeId("a")]
    leases, pair = process.node.leases, asking.pair
    pair.stock.take(pair.stock.left // 32, 32)
    # Relay takes every second segment.
    for purpose in (Purpose.SUPPLY, Purpose.PAD) * 12:
        leases.want(pair, purpose, SEGMENT_BYTES)
        process.node.links.frames.flush()
        process.perform(process.node.context.out)
        asking.run(0.05)
    length = SEGMENT_BYTES * 3 // 4
    number = pair.stock.left // length
    assert pair.stock.count(length) < number and number * length < pair.own_key.untouched
    asking.ask(number, 8 * length)
    asking.run(0.3)
    assert len(asking.answers) == 1 and asking.refusal() == ""


@pytest.mark.parametrize("at", ["a", "b"])
def test_fresh_key_that_is_waited_for_is_leased_when_both_ends_have_it(at: str) -> None:
    world = linked(1_000_000)
    peer = ENDS[at]
    here = pair(world, at, peer)
    for number in range(0, 10, 2):
        deliver(world, "a", "b", number, 65_536)
        run(world, 1)
        assert here.own_key.untouched
        # Each for all that there is: both wait for one lease, and the second one for the next block.
        length = (here.own_key.untouched + here.stock.left) // 128
        for _ in range(2):
            world.processes[NodeId(at)].feed(KeysWanted(world.request(), f"{at}1", f"{peer}1", 128, 8 * length))
        run(world, 0.2)
        assert len(world.processes[NodeId(at)].node.supply.waiting[NodeId(peer)]) == 1
        deliver(world, "a", "b", number + 1, 65_536)
        run(world, 1)
    for one, other in ENDS.items():
        process = world.processes[NodeId(one)]
        assert not [notice for notice in process.notices if notice.code == "KH-2302"], "a lease was refused"
        assert all(run_.book.totals[Account.Y] == 0 for run_ in pair(world, one, other).runs.values())


# --- more than may wait -----------------------------------------------------------------------------------------------


def test_a_request_that_too_many_wait_before_leaves_the_stock_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Network("ab", RULES)
    net.run(1)
    net.block("a", "b", 65_536)
    net.run(3)
    half = net.pair("a", "b").own_key.untouched * 8 // 2
    with monkeypatch.context() as patch:
        patch.setattr(governed, "WAITING_LIMIT", 0)
        requests = [net.ask("a1", "b1", size_bits=8192, number=half // 8192) for _ in range(10)]
        net.run(0.3)
    for request in requests:
        refusal = net.answers[request].deliver.refusal
        assert refusal is not None and refusal.reason is Refusal.RATE_LIMITED
    given = net.asked("a1", "b1", size_bits=8192, number=half // 8192)
    assert given.refusal is None, why(given)
