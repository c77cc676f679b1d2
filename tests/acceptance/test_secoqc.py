"""SECOQC's acceptance list: STORE, LOAD, streams of relayed key."""

from __future__ import annotations

import pytest
from tests.acceptance.benches import SECOND, Bench
from tests.acceptance.buffered import SLOT, chain

from keyhop.core.composed.nouns.messages import BlockArrived, Restarted, StreamRetuned, Woke
from keyhop.core.composed.relay.parcels import read_relay
from keyhop.core.composed.relay.streams import Streams
from keyhop.core.composed.stock.buffers import APPLICATION, Loaded
from keyhop.core.designs import DESIGNS

SECOQC = DESIGNS["secoqc"]
UNIT = 256
TAG = 96
TAGS_BITS = 64 * 1024


def stocked(common: int, incoming: int, outgoing: int, application: int, *, capacity: int = 1000) -> Bench:
    """A link with so many units in the common store and, seen from the master A, so many slots in each buffer."""
    bench = Bench(SECOQC, capacity_bits=capacity * SLOT, preshared_bits=0)
    for own, peer in (("A", "B"), ("B", "A")):
        line = bench.line(own, peer)
        slots = line.run_of("", SLOT)
        line.run.free.put(0, common)
        line.run.end = 4000
        for label, first, number in (
            ("B>A", 8_000, incoming),
            ("A>B", 16_000, outgoing),
            ("A>B" + APPLICATION, 24_000, application),
        ):
            slots.pool(label).put(first, first + number)
        line.talk.deal(TAGS_BITS)
        line.book.G += common * UNIT + (incoming + outgoing + application) * SLOT + TAGS_BITS
    for node in "AB":
        bench.step(node, Woke())
    return bench


def loaded(bench: Bench, at: str) -> Loaded:
    serving = bench.line(at, "B" if at == "A" else "A").serving
    assert isinstance(serving, Loaded)
    return serving


def units(bench: Bench, at: str) -> int:
    return loaded(bench, at).common_units


def test_at_secoqc_1_a_load_fills_both_buffers_at_a_thousandth_of_what_it_moves() -> None:
    bench = stocked(90, 100, 200, 100)
    bench.go(1.5)
    assert bench.words() == ["LOAD", "LOAD-ACK"]
    master, slave = loaded(bench, "A").buffers(), loaded(bench, "B").buffers()
    assert (master.incoming, master.application) == (100 + 240, 100 + 240)
    assert master.incoming == slave.outgoing
    assert master.outgoing == slave.incoming == 200
    assert (units(bench, "A"), units(bench, "B")) == (30, 30)
    moved = (240 + 240) * SLOT
    for at, peer in (("A", "B"), ("B", "A")):
        assert bench.book(at, peer).A == 2 * TAG == 0.0125 * moved
    assert moved == 15_360


def test_at_secoqc_1_a_load_that_the_slave_asked_for_costs_three_tags() -> None:
    bench = stocked(90, 400, 100, 400)
    bench.go(1.5)
    assert bench.words() == ["LOAD-REQ", "LOAD", "LOAD-ACK"]
    assert loaded(bench, "B").buffers().incoming == 100 + 240 == loaded(bench, "A").buffers().outgoing
    assert bench.book("A", "B").A == bench.book("B", "A").A == 288


@pytest.mark.parametrize(
    ("common", "buffers", "moved_units"),
    [
        pytest.param(90, (901, 950, 1000), 0, id="sated"),
        pytest.param(90, (100, 100, 100), 30, id="the application's has as much as the others"),
        pytest.param(2, (100, 100, 100), 0, id="less than a third of the common store is one unit"),
        pytest.param(3, (100, 100, 100), 1, id="a third of the common store is one unit"),
    ],
)
def test_at_secoqc_2_a_load_moves(common: int, buffers: tuple[int, int, int], moved_units: int) -> None:
    bench = stocked(common, *buffers)
    bench.go(1.5)
    assert units(bench, "A") == units(bench, "B") == common - moved_units
    assert loaded(bench, "A").buffers().incoming == buffers[0] + 8 * moved_units
    assert loaded(bench, "A").buffers().application == buffers[2]
    assert bool(bench.words("ask")) is (moved_units > 0)
    bench.balanced()


def test_at_secoqc_3_what_one_end_lacks_is_never_served() -> None:
    bench = Bench(SECOQC)
    for number in range(1, 6):
        bench.give(UNIT, only="A" if number == 3 else "")
    bench.go(0.99)
    assert bench.line("A", "B").run.end == 0
    bench.go(0.06)
    assert bench.words()[:3] == ["STORE", "STORE-ACK", "STORE-DONE"]
    assert bench.line("A", "B").run.end == bench.line("B", "A").run.end == 4
    assert bench.line("A", "B").pickup_bits == UNIT
    bench.go(20)
    assert bench.words().count("STORE") == SECOQC.synchronisation.store_retries == 3  # type: ignore[union-attr]
    assert bench.book("A", "B").Y == UNIT
    assert bench.book("B", "A").Y == 0
    assert bench.book("A", "B").S == bench.book("B", "A").S == 4 * UNIT
    # What is common comes of the blocks 1, 2, 4 and 5 of the module.
    stamps = [bench.line(at, peer).came_from((0, 4)) for at, peer in (("A", "B"), ("B", "A"))]
    assert stamps == [[(0, 2 * UNIT), (3 * UNIT, 5 * UNIT)]] * 2


def test_at_secoqc_3_the_slave_takes_nothing_before_the_master_has() -> None:
    bench = Bench(SECOQC)
    bench.lose = lambda node, said: said.message.word == "STORE-ACK" and bench.now < 20 * SECOND
    bench.give(4 * UNIT)
    bench.go(20)
    assert bench.line("A", "B").run.end == bench.line("B", "A").run.end == 0
    bench.go(10)
    assert bench.line("A", "B").run.end == bench.line("B", "A").run.end == 4
    bench.balanced()


def test_at_secoqc_4_a_key_that_differs_is_left_out() -> None:
    bench = Bench(SECOQC)
    for number in range(1, 5):
        for node, peer in (("A", "B"), ("B", "A")):
            digest = -2 if (number, node) == (2, "B") else number
            bench.step(node, BlockArrived(peer, number, UNIT, number * UNIT, digest))
    bench.go(3)
    for own, peer in (("A", "B"), ("B", "A")):
        book = bench.book(own, peer)
        assert (book.G, book.S, book.Y) == (4 * UNIT, 3 * UNIT, UNIT)
        assert bench.line(own, peer).run.end == 3


def test_at_secoqc_6_a_lost_answer_frees_what_was_reserved_and_parts_nobody() -> None:
    bench = stocked(90, 100, 200, 100)
    bench.lose = lambda node, said: said.message.word == "LOAD-ACK" and bench.now < 5 * SECOND
    bench.go(1.5)
    bench.open("s", "B", "A")
    bench.go(0.1)
    # The slave encrypts with a key of the LOAD: the master has it, whatever became of the answer.
    first = bench.ask("B", "A")
    fetched = bench.fetch("A", "B", bench.name(first))
    bench.go(0.1)
    assert bench.name(fetched).ranges == bench.name(first).ranges == ((240, 248),)
    assert units(bench, "A") == 30
    bench.go(4.29)
    # Silence of five seconds: all but the unit that was proved to be in use is common again.
    assert bench.now < 6 * SECOND
    bench.go(0.03)
    assert units(bench, "B") == 30
    second = bench.ask("B", "A")
    fetched = bench.fetch("A", "B", bench.name(second))
    bench.go(5)
    assert bench.name(fetched) == bench.name(second)
    bench.go(10)
    assert not any(queue.level for label, queue in bench.line("A", "B").run.pools.items() if "offered" in label)
    ends = [loaded(bench, at).buffers() for at in "AB"]
    assert ends[0].incoming == ends[1].outgoing
    assert ends[0].outgoing == ends[1].incoming
    assert [book.D for book in bench.balanced()] == [512, 512]


def test_at_secoqc_6_a_unit_of_a_lost_load_goes_the_same_way_or_not_at_all() -> None:
    bench = stocked(90, 100, 200, 100)
    bench.lose = lambda node, said: said.message.word == "LOAD-ACK"
    seen: dict[int, str] = {}
    bench.go(40)
    for _, said in bench.said:
        if said.message.word == "LOAD":
            for (low, high), to in zip(said.message.ranges, said.message.names, strict=True):
                for unit in range(low, high):
                    assert seen.setdefault(unit, to) == to
    assert seen
    bench.balanced()


def line3(stock_bits: int, *, near_bps: int = 10_000, far_bps: int = 10_000) -> Bench:
    return chain(SECOQC, stock_bits, near_bps, far_bps)


def streams(bench: Bench, at: str) -> Streams:
    relaying = bench.sites[at].relaying
    assert isinstance(relaying, Streams)
    return relaying


def free(bench: Bench, *ends: str) -> list[int]:
    """What links can still promise to another stream, as one end has it."""
    return [streams(bench, at).rates.free_bps(to, ("", "another")) for at, to in ends]


def test_at_secoqc_5_a_stream_is_let_in_where_every_link_can_promise_its_rate() -> None:
    bench = line3(1_000_000, near_bps=10_000, far_bps=4_000)
    bench.open("fast", "A", "C", rate_bps=6_000)
    waiting = bench.ask("A", "C", stream="fast", deadline_s=60)
    bench.go(6)
    assert bench.words() == ["SYN"]
    assert streams(bench, "A").admitted() == frozenset()
    assert "not let in" in bench.refusal(waiting)
    bench.open("slow", "A", "C", rate_bps=4_000)
    bench.go(1)
    assert bench.words() == ["SYN", "SYN", "SYN", "SYN-ACK", "SYN-ACK"]
    assert streams(bench, "A").admitted() == {"slow"}
    served = bench.ask("A", "C", stream="slow")
    bench.go(1)
    fetched = bench.fetch("C", "A", bench.name(served), stream="slow")
    assert bench.name(fetched) == bench.name(served)
    assert bench.refusal(bench.ask("A", "C", stream="fast"))
    books = [bench.book("A", "C"), bench.book("C", "A")]
    assert [(book.N, book.D, book.S) for book in books] == [(256, 256, 0)] * 2


def test_at_secoqc_5_what_a_dropped_syn_reserved_on_the_way_is_free_again() -> None:
    bench = line3(1_000_000, near_bps=10_000, far_bps=4_000)
    bench.open("fast", "A", "C", rate_bps=6_000)
    bench.go(1)
    assert (
        streams(bench, "A").rates.free_bps("B", ("A", "other"))
        == streams(bench, "B").rates.free_bps("A", ("A", "x"))
        == 4_000
    )
    bench.go(10)
    assert (
        streams(bench, "A").rates.free_bps("B", ("A", "other"))
        == streams(bench, "B").rates.free_bps("A", ("A", "x"))
        == 10_000
    )


def test_at_secoqc_5_a_closed_stream_leaves_its_rate_to_others_and_a_retuned_one_keeps_what_it_had() -> None:
    bench = line3(1_000_000)
    bench.open("first", "A", "C", rate_bps=7_000)
    bench.go(1)
    bench.open("second", "A", "C", rate_bps=7_000)
    bench.go(6)
    assert streams(bench, "A").admitted() == {"first"}
    bench.step("A", StreamRetuned("first", 20_000))
    bench.go(20)
    assert free(bench, "AB", "BA", "BC", "CB") == [3_000] * 4
    bench.close("first", "A", "C")
    bench.go(1)
    assert free(bench, "AB", "BA", "BC", "CB") == [10_000] * 4
    bench.open("second", "A", "C", rate_bps=7_000)
    bench.go(1)
    assert streams(bench, "A").admitted() == {"first", "second"}
    assert streams(bench, "A").connections["second"].path == ("A", "B", "C")


def test_at_secoqc_5_a_way_that_is_short_of_key_halves_the_window() -> None:
    bench = line3(20_000)
    bench.open("s", "A", "C", rate_bps=4_000)
    bench.go(1)
    connection = streams(bench, "A").connections["s"]
    connection.window = 16
    asked = [bench.ask("A", "C") for _ in range(16)]
    assert len(connection.flight) == 16
    bench.go(0.99)
    relayed = [read_relay(said.message, 0)[0] for _, said in bench.said if said.message.word == "RELAY"]
    assert len(relayed) == 2 * 16 and all(parcel.congested for parcel in relayed), "CON is set"
    assert "ACK" not in bench.words()
    assert connection.window == 16
    bench.go(0.02)
    assert connection.window == 8
    assert not any(bench.refusal(request) for request in asked)
    bench.go(2)
    for request in asked:
        fetched = bench.fetch("C", "A", bench.name(request))
        assert bench.name(fetched) == bench.name(request)
    # Nothing was sent again.
    assert bench.words().count("RELAY") == 2 * 16
    bench.balanced()


def test_at_secoqc_5_a_way_with_enough_key_sets_no_flag_and_is_answered_at_once() -> None:
    bench = line3(1_000_000)
    bench.open("s", "A", "C", rate_bps=4_000)
    bench.go(1)
    streams(bench, "A").connections["s"].window = 16
    for _ in range(16):
        bench.ask("A", "C")
    bench.go(0.1)
    relayed = [read_relay(said.message, 0)[0] for _, said in bench.said if said.message.word == "RELAY"]
    assert not any(parcel.congested for parcel in relayed)
    assert bench.words().count("ACK") == 2 * 16
    bench.go(2)
    assert streams(bench, "A").connections["s"].window >= 16


def test_at_secoqc_5_the_window_grows_by_a_segment_each_round_trip() -> None:
    bench = line3(1_000_000)
    bench.open("s", "A", "C", rate_bps=4_000)
    bench.go(1)
    connection = streams(bench, "A").connections["s"]
    for _ in range(40):
        bench.ask("A", "C", 8192)
    windows = []
    for _ in range(5):
        windows.append(connection.window)
        bench.go(0.04)
    assert windows == [1, 2, 3, 4, 5]
    bench.go(30)
    bench.balanced()


def test_a_stream_s_key_that_nobody_fetches_is_destroyed() -> None:
    bench = line3(1_000_000)
    bench.open("s", "A", "C", rate_bps=4_000)
    bench.go(1)
    for number in range(3):
        bench.lose = lambda node, said: said.message.word == "ACK"
        request = bench.ask("A", "C", deadline_s=0.5)
        bench.go(7)
        assert bench.refusal(request), number
    bench.go(60)
    source, destination = bench.book("A", "C"), bench.book("C", "A")
    assert source.S == destination.S == source.D == destination.D == 0
    assert destination.X == destination.N == 3 * 256


def test_a_session_without_a_rate_gets_nothing() -> None:
    bench = line3(1_000_000)
    assert "declared" in bench.refusal(bench.ask("A", "C"))
    assert "declared" in bench.refusal(bench.ask("A", "B"))
    bench.balanced()


def test_a_restart_of_the_master_forgets_a_load_under_way_and_loses_no_key() -> None:
    bench = stocked(90, 100, 200, 100)
    bench.go(1.005)
    bench.step("A", Restarted())
    assert units(bench, "A") == 90
    bench.go(5)
    assert loaded(bench, "A").buffers().incoming == loaded(bench, "B").buffers().outgoing
    bench.balanced()
