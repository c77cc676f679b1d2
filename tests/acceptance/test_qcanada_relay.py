"""AT-QCANADA-3 to 6: relay flows in turns, a link's key divided by purpose, categories of need, no pad twice."""

from __future__ import annotations

import pytest
from tests.acceptance.benches import SECOND, Bench

from keyhop.core.composed.relay.forecast import ONE_TIME, Forecast, Rounds
from keyhop.core.composed.relay.parcels import Parcel
from keyhop.core.composed.stock.purposes import OWN, TRANSIT
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.sharing import DeficitRoundRobin
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Scenario, Stream

QCANADA = DESIGNS["qcanada"]
UNIT_BITS = 256
DWRR = DeficitRoundRobin(quantum=512)
FLOWS = {"F1": (1, 512), "F2": (2, 1024), "F3": (1, 256)}
"""Weight, and block size in bits."""


def parcel(flow: str, bits: int, rank: int = 0, number: int = 0) -> Parcel:
    return Parcel(number, bits, (flow, "B", "C"), 0, True, rank=rank)


def drawn(queue: Rounds, budget_bits: int) -> list[Parcel]:
    served: list[Parcel] = []
    while (head := queue.head()) is not None and head.bits <= budget_bits:
        budget_bits -= head.bits
        served.append(queue.pop())
    return served


def link_of_1000() -> Bench:
    """A-B: pieces of 16 units go to the two directions in turn, the last one is not full."""
    bench = Bench(QCANADA, "A-B", "B-C")
    bench.give((62 * 32 + 8) * UNIT_BITS, "A-B")
    bench.go(2)
    return bench


def test_at_qcanada_3_backlogged_flows_share_a_link_by_weight_whatever_the_size_of_their_blocks() -> None:
    queue = Rounds(DWRR, {(name, "C"): weight for name, (weight, _) in FLOWS.items()})
    for name, (_, bits) in FLOWS.items():
        for number in range(64):
            queue.put(parcel(name, bits, number=number))
    served = drawn(queue, 8192)
    shares = {name: sum(one.bits for one in served if one.path[0] == name) for name in FLOWS}
    assert shares == {"F1": 2048, "F2": 4096, "F3": 2048}
    assert [one.path[0] for one in served[:4]] == ["F1", "F2", "F3", "F3"]


def test_at_qcanada_3_the_node_where_flows_meet_lets_them_pass_in_turns() -> None:
    bench = Bench(QCANADA, "B-C", *(f"B-{name}" for name in FLOWS), delay_ns=0)
    room = bench.sites["B"].relaying
    assert isinstance(room, Forecast)
    room.weights |= {(name, "C"): weight for name, (weight, _) in FLOWS.items()}
    for name, (_, bits) in FLOWS.items():
        bench.give(400 * UNIT_BITS, f"B-{name}")
        source, line = bench.sites[name].relaying, bench.line(name, "C")
        assert isinstance(source, Forecast)
        bench.go(0)
        for _ in range(8192 // bits):
            source.start(line, bits, (name, "B", "C"))
        bench.perform(name, bench.sites[name].moves)
        bench.go(0)
    bench.said.clear()
    bench.give(256 * UNIT_BITS, "B-C")
    bench.go(1)
    passed = [said.message for node, said in bench.said if node == "B" and said.message.word == "RELAY"]
    sizes = {name: sum(m.counts[1] for m in passed if m.names[1] == name) for name in FLOWS}
    assert [message.names[1] for message in passed[:4]] == ["F1", "F2", "F3", "F3"]
    assert sizes["F2"] == pytest.approx(2 * sizes["F1"], abs=1024)
    assert sizes["F3"] == pytest.approx(sizes["F1"], abs=512)
    bench.balanced()


def test_one_time_demands_keep_to_their_share_while_others_wait_and_have_all_of_it_after() -> None:
    queue = Rounds(DWRR, {})
    for number in range(20):
        queue.put(parcel("F1", 512, number=number))
        queue.put(parcel("once", 512, ONE_TIME, number))
    served = drawn(queue, 20 * 512)
    once = [one for one in served if one.rank == ONE_TIME]
    assert len(once) == 3
    assert [one.number for one in once] == [0, 1, 2]
    assert len(drawn(queue, 1 << 20)) == 20


def test_at_qcanada_4_a_link_of_1000_keys_refuses_the_301st_for_transit() -> None:
    bench = link_of_1000()
    stock = bench.line("A", "B").serving
    taken = [stock.take(TRANSIT, UNIT_BITS, lambda taken: None) is not None for _ in range(301)]
    assert taken == [True] * 300 + [False]
    assert stock.stock_bits("") // UNIT_BITS == 400
    assert stock.stock_bits(OWN) // UNIT_BITS == 300


def test_at_qcanada_4_both_ends_say_the_same_units_are_for_transit() -> None:
    bench = link_of_1000()
    one, other = (bench.line(at, peer).run.pool("A>B/transit") for at, peer in (("A", "B"), ("B", "A")))
    assert list(one) == list(other)
    assert one.level == 300


def test_key_of_others_is_not_carried_over_a_link_whose_transit_share_is_used_up() -> None:
    bench = Bench(QCANADA, "A-B", "B-C")
    bench.give(400 * UNIT_BITS, "A-B")
    bench.give(10 * UNIT_BITS, "B-C")
    bench.go(2)
    requests = [bench.ask("A", "C", category=1, deadline_s=3) for _ in range(4)]
    bench.go(4)
    assert [bench.refusal(request) == "" for request in requests] == [True, True, True, False]
    assert bench.line("B", "C").usable_bits == 7 * UNIT_BITS
    bench.balanced()


def test_at_qcanada_5_with_an_empty_pool_the_first_category_is_denied_after_its_deadline() -> None:
    bench = Bench(QCANADA, "A-B")
    request = bench.ask("A", "B", category=1, deadline_s=3)
    bench.go(2.9)
    assert request not in bench.answers
    bench.go(0.2)
    assert bench.answers[request].timed_out
    assert bench.book("A", "B").F == 0


def test_at_qcanada_5_with_an_empty_pool_the_fourth_category_gets_a_derived_key() -> None:
    bench = Bench(QCANADA, "A-B")
    bench.open("s", "A", "B", category=4)
    bench.give(40 * UNIT_BITS)
    bench.go(2)
    direct = bench.line("A", "B").serving.stock_bits("s")
    for _ in range(direct // UNIT_BITS):
        assert bench.name(bench.ask("A", "B", stream="t", category=1)).its
    first = bench.name(bench.ask("A", "B", stream="s", category=4))
    second = bench.name(bench.ask("A", "B", stream="s", category=4))
    for name in (first, second):
        assert not name.its
        bench.name(bench.fetch("B", "A", name, stream="s"))
    # One parent, two children.
    assert (len(first.ranges), second.ranges) == (1, ())
    for at, peer in (("A", "B"), ("B", "A")):
        assert bench.line(at, peer).book.F == 2 * UNIT_BITS
    assert direct + UNIT_BITS == bench.book("A", "B").D


def test_without_a_seed_nothing_can_be_derived() -> None:
    bench = Bench(QCANADA, "A-B")
    assert "derive from" in bench.refusal(bench.ask("A", "B", category=4))


def test_the_third_category_stretches_the_key_in_use_up_to_four_lifetimes() -> None:
    bench = Bench(QCANADA, "A-B")
    bench.open("s", "A", "B", rate_bps=256, category=3)
    bench.give(4 * UNIT_BITS)
    bench.go(0.5)
    while bench.line("A", "B").serving.stock_bits("s"):
        assert bench.name(bench.ask("A", "B", stream="s", category=3)).its
    bench.go(3.9)
    assert not bench.name(bench.ask("A", "B", stream="s", category=3)).its
    bench.go(0.2)
    request = bench.ask("A", "B", stream="s", category=3, deadline_s=1)
    assert request not in bench.answers
    bench.go(1.1)
    assert bench.answers[request].timed_out


def test_at_qcanada_6_after_a_thousand_relayed_blocks_no_pad_has_been_used_twice() -> None:
    seconds = 120
    streams = tuple(Stream(name, at, peer, 20_000, UNIT_BITS) for name, at, peer in (("s", "A", "C"), ("t", "C", "A")))
    demands = tuple(
        Demand(number, number * SECOND // 100, stream.name, stream.master, stream.slave, UNIT_BITS, 5 * SECOND)
        for number in range(100 * (seconds - 5))
        for stream in (streams[number % 2],)
    )
    links = {frozenset("AB"): 400_000, frozenset("BC"): 400_000}
    arena = Arena(QCANADA, links, Scenario(streams, demands), seed=1)
    pads: list[tuple[str, str, int]] = []
    blocks: set[tuple[str, str, int]] = set()
    perform = arena.perform

    def listen(node: str, moves: object) -> None:
        for said in arena.sites[node].moves.send:
            if said.message.word == "RELAY":
                ends = min(node, said.peer), max(node, said.peer)
                blocks.add((said.message.names[1], said.message.names[-1], said.message.counts[0]))
                pads.extend((*ends, unit) for start, end in said.message.ranges for unit in range(start, end))
        perform(node, arena.sites[node].moves)

    arena.perform = listen  # type: ignore[method-assign]
    arena.run(seconds)
    assert len(blocks) >= 1000
    assert len(pads) >= 2 * len(blocks), "on each hop one, at least"
    assert len(set(pads)) == len(pads)
