"""AT-SWISS: key over two paths, each key joined with an exchanged one, the exchange alone when QKD stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.acceptance.benches import SECOND, Bench

from keyhop.core.designs import DESIGNS, Design
from keyhop.core.machine import Derived
from keyhop.core.model import NodeId, Range, RunId
from keyhop.core.node.exchanges import ALONE_VIEW, XOR_VIEW
from keyhop.core.policy.fallback import Hybrid
from keyhop.core.policy.relay import HopByHop
from keyhop.crypto.onetime import xor
from keyhop.daemon.exchange import MlKem
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Fault, Record, Scenario, Stream, Trouble

SWISS = DESIGNS["swissquantum"]
JOINED = replace(SWISS, relay=HopByHop(payload="random", paths="xor"))
RATE_BPS = 1000
UNIT_BITS = 256
DIRECT, *ROUND = "unige|cern", "unige|hepia", "cern|hepia"


def run(design: Design, *cut: str, seconds: int = 200) -> Record:
    """More demand than both paths bring, all the time; links are cut from the beginning."""
    stream = Stream("s", "unige", "cern", 3000, UNIT_BITS)
    wanted = seconds * stream.rate_bps // UNIT_BITS
    demands = tuple(
        Demand(number, number * seconds * SECOND // wanted, "s", "unige", "cern", UNIT_BITS, 5 * SECOND)
        for number in range(wanted)
    )
    faults = tuple(Fault(0, Trouble.LINK_STOPS, link, for_ns=seconds * SECOND) for link in cut)
    links = {frozenset(link.split("|")): RATE_BPS for link in (DIRECT, *ROUND)}
    return Arena(design, links, Scenario((stream,), demands, faults), seed=1).run(seconds)


def qkd_bps(record: Record) -> float:
    return sum(outcome.its for outcome in record.outcomes) * UNIT_BITS / record.seconds


def supplied(record: Record) -> float:
    return sum(outcome.verdict == "supplied" for outcome in record.outcomes) / len(record.outcomes)


def test_at_swiss_1_both_ends_join_the_same_qkd_key_with_the_same_exchange() -> None:
    bench = Bench(SWISS, "A-B")
    bench.open("s", "A", "B")
    bench.give(32 * UNIT_BITS)
    bench.go(2)
    name = bench.name(bench.ask("A", "B"))
    other = bench.name(bench.fetch("B", "A", name))
    assert name.its
    assert (other.ranges, other.joined_bits) == (name.ranges, UNIT_BITS)
    assert isinstance(SWISS.fallback, Hybrid) and SWISS.fallback.combine == "xor"
    for at, peer in (("A", "B"), ("B", "A")):
        book = bench.book(at, peer)
        assert (book.D, book.F) == (UNIT_BITS, UNIT_BITS)


def test_at_swiss_1_the_xor_of_0f_and_f0_is_ff_at_both_ends() -> None:
    """As nodes join: the key of the link with what both ends hold of one exchange by ML-KEM."""
    ends, qkd = {"b": MlKem(), "a": MlKem()}, bytes([0x0F] * 32)
    offered = ends["b"].offer("b", 1)
    ends["b"].accept("b", 1, ends["a"].answer("a", 1, offered))
    joined = [end.make(qkd, of_exchange(peer, XOR_VIEW), ours=peer == "b") for peer, end in ends.items()]
    alone = [end.make(b"", of_exchange(peer, ALONE_VIEW), ours=peer == "b") for peer, end in ends.items()]
    assert joined[0] == joined[1] == bytes(xor(qkd, alone[0])) != qkd
    # So that an exchange whose bits are f0 makes ff of 0f.
    assert xor(qkd, bytes([0xF0] * 32)) == bytes([0xFF] * 32)


def of_exchange(peer: str, view: int) -> Derived:
    return Derived(Range(RunId(NodeId(peer), 0), 0, 32), 256, b"one key", 1, view)


def test_at_swiss_2_two_paths_bring_the_sum_and_one_what_is_left() -> None:
    whole, cut, dark = run(SWISS), run(SWISS, DIRECT), run(SWISS, DIRECT, *ROUND)
    assert qkd_bps(whole) == pytest.approx(2 * RATE_BPS, rel=0.05)
    assert qkd_bps(cut) == pytest.approx(RATE_BPS, rel=0.05)
    assert qkd_bps(dark) == 0
    assert supplied(whole) == supplied(cut) == supplied(dark) == 1.0
    assert not any(outcome.its for outcome in dark.outcomes)


def test_at_swiss_3_joined_by_xor_two_paths_bring_as_much_as_one_and_either_cut_stops_both() -> None:
    assert qkd_bps(run(JOINED)) == pytest.approx(RATE_BPS, rel=0.05)
    assert qkd_bps(run(JOINED, DIRECT)) == 0
    assert qkd_bps(run(JOINED, ROUND[0])) == 0
    assert supplied(run(JOINED, ROUND[1])) == 1.0


def test_at_swiss_4_back_from_the_exchange_alone_at_sixteen_units_and_not_at_fifteen() -> None:
    bench = Bench(SWISS, "A-B", rate_bps=RATE_BPS)
    bench.open("s", "A", "B")
    assert not bench.name(bench.ask("A", "B")).its
    bench.give(16 * UNIT_BITS)
    bench.go(2)
    for at, peer in (("A", "B"), ("B", "A")):
        assert bench.line(at, peer).destroy((0, 1), "X", bench.line(at, peer).run_of("A>")) == 1
    assert bench.line("A", "B").run.units == 15
    assert not bench.name(bench.ask("A", "B")).its
    bench.give(4 * UNIT_BITS)
    bench.go(2)
    assert bench.line("A", "B").run.units == 19
    assert bench.name(bench.ask("A", "B")).its
    # Normal until nothing is left: no flapping.
    assert [bench.name(bench.ask("A", "B")).its for _ in range(19)] == [True] * 18 + [False]
    assert bench.book("A", "B").F == 22 * UNIT_BITS


def test_pairs_are_degraded_one_by_one() -> None:
    bench = Bench(SWISS, "A-B", "B-C")
    bench.open("s", "A", "B")
    bench.open("t", "B", "C")
    bench.give(64 * UNIT_BITS, "B-C")
    bench.go(2)
    assert not bench.name(bench.ask("A", "B", stream="s")).its
    assert bench.name(bench.ask("B", "C", stream="t")).its
    bench.balanced()


def test_half_a_joined_key_is_none() -> None:
    bench = Bench(JOINED, "A-B", "A-C", "B-C")
    bench.lose = lambda node, said: node == "C" and said.message.word == "RELAY"
    bench.open("s", "A", "B")
    for link in ("A-B", "A-C", "B-C"):
        bench.give(16 * UNIT_BITS, link)
    bench.go(15)
    assert bench.line("A", "B").run.units == bench.line("B", "A").run.units == 0
    assert bench.book("A", "B").N == bench.book("B", "A").N == 0
    bench.balanced()


def test_at_swiss_4_exactly_sixteen_units_are_enough() -> None:
    bench = Bench(SWISS, "A-B", rate_bps=RATE_BPS)
    bench.open("s", "A", "B")
    assert not bench.name(bench.ask("A", "B")).its
    bench.give(16 * UNIT_BITS)
    bench.go(2)
    assert bench.line("A", "B").run.units == 16
    assert bench.name(bench.ask("A", "B")).its
