"""Workloads: what their definitions say is so, at every load; and one seed is one trace."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhop.core.model import NANOSECONDS
from keyhop.simulator.arrivals import Purpose
from keyhop.simulator.record import Demand, Scenario, Trouble
from keyhop.simulator.workloads import WORKLOADS, WorkloadError, find, scenario, trace_hash

P2P = [("alice", "bob")]
LINE3 = [("alice", "relay", "bob")]
LINE5 = [("alice", "relay1", "relay2", "relay3", "bob")]
TRIANGLE = [("a", "hub", "b"), ("a", "hub", "c"), ("b", "hub", "c")]
SLOW_BPS = 20_000.0


def asked_bits(made: Scenario) -> int:
    return sum(demand.size_bits for demand in made.demands)


def times_of(made: Scenario, stream: str) -> list[int]:
    return [demand.at_ns for demand in made.demands if demand.stream == stream]


def test_there_are_the_eight_of_the_comparison_by_id_and_by_name() -> None:
    names = ["aes_rekey", "mixed_size", "odd_size", "otp_burst", "three_classes", "both_ends", "churn", "fault"]
    assert list(WORKLOADS) == [f"W{number}" for number in range(1, 9)]
    assert [workload.name for workload in WORKLOADS.values()] == names
    assert all(find(name) is find(key) is find(key.lower()) for key, name in zip(WORKLOADS, names, strict=True))
    assert all(workload.sentence.endswith(".") for workload in WORKLOADS.values())


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("load", [0.2, 1.0, 2.0])
def test_mean_demand_is_the_load_times_the_rate(name: str, load: float) -> None:
    """Over several seeds where sizes are random too: one such run is short of keys to tell 3 % from chance."""
    seconds = 24 / load
    seeds = range(12 if name in ("W2", "W3") else 1)
    runs = [scenario(name, LINE3, 100_000, load, seconds, seed) for seed in seeds]
    mean_bps = sum(map(asked_bits, runs)) / len(runs) / seconds
    assert mean_bps == pytest.approx(load * 100_000, rel=0.03)


@pytest.mark.parametrize("name", WORKLOADS)
def test_demands_are_numbered_in_time_within_the_run_and_belong_to_a_stream_that_is_there(name: str) -> None:
    made = scenario(name, TRIANGLE, SLOW_BPS, 0.8, 120, 1)
    streams = {stream.name: stream for stream in made.streams}
    assert len(streams) == len(made.streams)
    assert [demand.number for demand in made.demands] == list(range(len(made.demands)))
    assert all(one.at_ns <= other.at_ns for one, other in pairwise(made.demands))
    for demand in made.demands:
        stream = streams[demand.stream]
        assert 0 <= demand.at_ns < 120 * NANOSECONDS
        assert stream.starts_ns <= demand.at_ns and (stream.ends_ns is None or demand.at_ns < stream.ends_ns)
        assert (demand.master, demand.slave, demand.category) == (stream.master, stream.slave, stream.category)
        assert 0 < demand.size_bits <= stream.size_bits and demand.deadline_ns > 0


@pytest.mark.parametrize("name", WORKLOADS)
def test_both_ends_of_every_path_ask_and_no_relay_does(name: str) -> None:
    made = scenario(name, TRIANGLE, SLOW_BPS, 1.0, 300, 1)
    asked = {(demand.master, demand.slave) for demand in made.demands}
    assert asked == {(one, other) for one in "abc" for other in "abc" if one != other}


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_path_has_the_same_demand(name: str) -> None:
    made = scenario(name, TRIANGLE, 150_000, 1.0, 120, 3)
    bits = Counter[frozenset[str]]()
    for demand in made.demands:
        bits[frozenset((demand.master, demand.slave))] += demand.size_bits
    assert sorted(bits.values()) == pytest.approx([6e6] * 3, rel=0.1)


@pytest.mark.parametrize("name", sorted(set(WORKLOADS) - {"W4"}))
def test_categories_and_security_levels_are_spread(name: str) -> None:
    made = scenario(name, P2P, SLOW_BPS, 1.0, 300, 1)
    expected = {1} if name == "W6" else {1, 2, 3, 4, 5}
    assert {demand.category for demand in made.demands} == expected
    assert {demand.security_level for demand in made.demands} == {0, 1, 2, 3, 4, 5}


def test_w1_is_32_pairs_with_256_bits_every_10_seconds_where_its_own_demand_is() -> None:
    own = find("W1").own_demand_bps
    assert own == 819.2
    made = scenario("W1", P2P, own / 0.5, 0.5, 100, 1)
    assert len(made.streams) == 32 and {demand.size_bits for demand in made.demands} == {256}
    firsts = []
    for stream in made.streams:
        times = times_of(made, stream.name)
        assert len(times) == 10
        assert {later - earlier for earlier, later in pairwise(times)} <= {10 * NANOSECONDS + off for off in (-1, 0, 1)}
        firsts.append(times[0])
    assert len(set(firsts)) == 32 and max(firsts) < 10 * NANOSECONDS


def test_load_moves_the_period_of_w1_and_not_its_pairs() -> None:
    made = scenario("W1", P2P, 8192, 2.0, 10, 1)
    assert len(made.streams) == 32
    times = times_of(made, made.streams[0].name)
    assert times[1] - times[0] == pytest.approx(NANOSECONDS / 2, abs=1)


def test_w2_draws_its_sizes_by_their_weights() -> None:
    made = scenario("W2", P2P, 500_000, 1.0, 100, 1)
    counts = Counter(demand.size_bits for demand in made.demands)
    shares = {size: count / len(made.demands) for size, count in counts.items()}
    assert shares == pytest.approx({128: 0.4, 256: 0.4, 1024: 0.15, 8192: 0.05}, abs=0.01)


def test_w3_draws_every_number_of_bytes_alike() -> None:
    made = scenario("W3", P2P, 500_000, 2.0, 60, 1)
    counts = Counter(demand.size_bits for demand in made.demands)
    assert set(counts) == set(range(8, 4097, 8))
    assert sum(counts[size] for size in range(8, 2049, 8)) / len(made.demands) == pytest.approx(0.5, abs=0.01)


def test_w4_asks_in_bursts_of_64_kib_a_tenth_of_the_time() -> None:
    made = scenario("W4", P2P, 100_000, 0.5, 600, 1)
    assert asked_bits(made) == pytest.approx(0.5 * 100_000 * 600, abs=8192)
    for stream in made.streams:
        times = times_of(made, stream.name)
        period_ns = 600 * NANOSECONDS / 14
        """57 bursts fit the run, 14 of each stream."""
        per_burst = len(times) / 14
        assert per_burst * 8192 == pytest.approx(64 * 1024 * 8, rel=0.05)
        step_ns = 0.1 * period_ns / per_burst
        inside = sum(later - earlier < 1.1 * step_ns for earlier, later in pairwise(times))
        assert inside >= len(times) - 16
        assert {demand.category for demand in made.demands} == {1}


def test_bursts_shrink_where_the_run_has_no_room_for_them() -> None:
    made = scenario("W4", P2P, 1500, 0.5, 600, 1)
    assert asked_bits(made) == pytest.approx(0.5 * 1500 * 600, abs=8192)


def test_w5_has_its_three_classes_with_their_deadlines() -> None:
    made = scenario("W5", P2P, 500_000, 1.0, 60, 1)
    shares = Counter(demand.service_class for demand in made.demands)
    total = len(made.demands)
    assert {name: count / total for name, count in shares.items()} == pytest.approx(
        {"guaranteed": 0.2, "prioritised": 0.3, "best_effort": 0.5}, abs=0.01
    )
    deadlines = {(demand.service_class, demand.deadline_ns / NANOSECONDS) for demand in made.demands}
    assert deadlines == {("guaranteed", 0.1), ("prioritised", 1.0), ("best_effort", 10.0)}
    promised = {stream.service_class: stream.min_bps for stream in made.streams}
    assert promised == {"guaranteed": 50_000, "prioritised": 0, "best_effort": 0}


def test_w6_is_ten_requests_a_second_at_each_end_with_10_ms_between_where_its_own_demand_is() -> None:
    own = find("W6").own_demand_bps
    assert own == 5120
    made = scenario("W6", P2P, own / 0.8, 0.8, 500, 1)
    assert made.one_way_delay_ns == 10_000_000
    assert [len(times_of(made, stream.name)) / 500 for stream in made.streams] == pytest.approx([10, 10], rel=0.05)


@given(rate_bps=st.floats(500, 50_000), load=st.sampled_from([0.2, 0.5, 1.0, 2.0]))
@settings(max_examples=20)
def test_load_leaves_how_many_requests_of_w6_come_during_one_message(rate_bps: float, load: float) -> None:
    made = scenario("W6", TRIANGLE, rate_bps, load, 60, 1)
    assert made.one_way_delay_ns is not None
    per_site = rate_bps * load / 3 / 2 / 256
    assert made.one_way_delay_ns / NANOSECONDS * per_site == pytest.approx(0.1, rel=1e-4)


def test_every_5_seconds_one_stream_of_w7_leaves_and_one_joins() -> None:
    made = scenario("W7", P2P, 11_000, 1.0, 61, 1)
    joined = sorted(stream.starts_ns for stream in made.streams if stream.starts_ns)
    left = sorted(stream.ends_ns for stream in made.streams if stream.ends_ns is not None)
    assert joined == left == [turn * 5 * NANOSECONDS for turn in range(1, 13)]


def test_registered_rates_of_w7_change_by_up_to_four_and_always_sum_to_the_demand() -> None:
    made = scenario("W7", P2P, 11_000, 1.0, 600, 1)
    rates: dict[str, int] = {stream.name: stream.rate_bps for stream in made.streams}
    streams = {stream.name: stream for stream in made.streams}
    changed_by = Counter[float]()
    turns = sorted({at for at, _, _ in made.rate_changes})
    assert turns == [turn * 5 * NANOSECONDS for turn in range(1, 120)]
    for turn in turns:
        for at, name, rate in made.rate_changes:
            if at == turn:
                assert streams[name].starts_ns < turn and (streams[name].ends_ns or turn + 1) > turn
                changed_by[rate / rates[name]] += 1
                rates[name] = rate
        present = [s for s in made.streams if s.starts_ns <= turn and (s.ends_ns is None or s.ends_ns > turn)]
        assert len(present) == 10 and sum(rates[stream.name] for stream in present) == 11_000
    assert set(changed_by) == {0.25, 0.5, 2.0, 4.0}


def test_what_a_stream_of_w7_asks_follows_its_rate() -> None:
    made = scenario("W7", P2P, 1_100_000, 1.0, 5, 1)
    for stream in made.streams[:10]:
        asked_bps = len(times_of(made, stream.name)) * 256 / 5
        assert asked_bps == pytest.approx(stream.rate_bps, rel=0.12)


@pytest.mark.parametrize(
    ("paths", "link", "node"),
    [(P2P, "alice|bob", "bob"), (LINE3, "alice|relay", "relay"), (LINE5, "relay1|relay2", "relay2")],
)
def test_w8_stops_the_middle_link_and_restarts_the_middle_node(paths: list[tuple[str]], link: str, node: str) -> None:
    assert find("W8").own_load == 0.8
    faults = {fault.trouble: fault for fault in scenario("W8", paths, 1000, 0.8, 600, 1).faults}
    assert set(faults) == set(Trouble)
    stop = faults[Trouble.LINK_STOPS]
    assert (stop.where, stop.at_ns, stop.for_ns) == (link, 200 * NANOSECONDS, 60 * NANOSECONDS)
    assert faults[Trouble.MESSAGES_LOST].share == 0.001 and faults[Trouble.MESSAGES_LOST].at_ns == 0
    assert faults[Trouble.CHUNK_LOST].where == link and faults[Trouble.NODE_RESTARTS].where == node


def test_faults_fit_into_a_shorter_run_and_do_not_move_in_a_longer_one() -> None:
    short, long = (scenario("W8", P2P, 10_000, 0.8, seconds, 1).faults for seconds in (6, 6000))
    assert (short[2].at_ns, short[2].for_ns) == (2 * NANOSECONDS, 6 * NANOSECONDS // 10)
    assert (long[2].at_ns, long[2].for_ns) == (200 * NANOSECONDS, 60 * NANOSECONDS)


@pytest.mark.parametrize("name", WORKLOADS)
def test_one_seed_is_one_trace(name: str) -> None:
    one, again, other = (scenario(name, LINE3, SLOW_BPS, 0.8, 60, seed) for seed in (7, 7, 8))
    assert one == again and trace_hash(one) == trace_hash(again)
    assert trace_hash(one) != trace_hash(other)


@pytest.mark.parametrize(
    ("name", "begins"),
    [("W1", "ad7773325665e723"), ("W2", "a6c5186f414a3b37"), ("W7", "d50b47e51bc98c53")],
)
def test_traces_are_those_of_every_machine(name: str, begins: str) -> None:
    assert trace_hash(scenario(name, LINE3, SLOW_BPS, 0.8, 60, 7)).startswith(begins)


def test_the_hash_sees_every_member_of_a_demand() -> None:
    made = scenario("W5", P2P, 5000, 0.5, 2, 1)
    first = made.demands[0]
    for member in first._fields:
        value = getattr(first, member)
        other = f"{value}x" if isinstance(value, str) else value + 1
        changed = Demand(**{**first._asdict(), member: other})
        assert trace_hash(made._replace(demands=(changed, *made.demands[1:]))) != trace_hash(made), member


def test_another_seed_for_sizes_leaves_times_streams_and_levels() -> None:
    one, other = (scenario("W2", LINE3, SLOW_BPS, 0.8, 60, 7, reseed) for reseed in (None, {Purpose.SIZES: 8}))
    bare = [[demand._replace(size_bits=0) for demand in made.demands] for made in (one, other)]
    assert bare[0] == bare[1]
    assert [demand.size_bits for demand in one.demands] != [demand.size_bits for demand in other.demands]


@pytest.mark.parametrize(
    ("purpose", "member"),
    [(Purpose.ARRIVALS, "at_ns"), (Purpose.STREAMS, "stream"), (Purpose.LEVELS, "security_level")],
)
def test_every_purpose_moves_its_own_member_alone(purpose: Purpose, member: str) -> None:
    one, other = (scenario("W2", P2P, SLOW_BPS, 0.8, 60, 7, reseed) for reseed in (None, {purpose: 8}))
    count = min(len(one.demands), len(other.demands))
    for name in ("at_ns", "size_bits", "stream", "security_level"):
        columns = [[getattr(demand, name) for demand in made.demands[:count]] for made in (one, other)]
        assert (columns[0] == columns[1]) == (name != member), name


def test_a_higher_load_is_the_same_pattern_in_less_time() -> None:
    slow, fast = (scenario("W2", P2P, SLOW_BPS, load, 60, 7) for load in (0.5, 1.0))
    assert [demand.size_bits for demand in slow.demands] == [d.size_bits for d in fast.demands[: len(slow.demands)]]
    assert slow.demands[9].at_ns == pytest.approx(2 * fast.demands[9].at_ns, abs=2)


def test_an_unknown_workload_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(WorkloadError, match="no workload chrun: did you mean churn"):
        scenario("chrun", P2P, 1000, 1.0, 60, 1)
    with pytest.raises(WorkloadError, match=r"no workload xyzzy: known here: W1, W2"):
        find("xyzzy")


@pytest.mark.parametrize("load", [0, -0.5, float("nan"), float("inf")])
def test_a_load_that_is_no_number_above_0_is_refused(load: float) -> None:
    with pytest.raises(WorkloadError, match=r"W2 mixed_size: load .*must be a number above 0"):
        scenario("W2", P2P, 1000, load, 60, 1)


@pytest.mark.parametrize(("rate", "seconds", "what"), [(0, 60, "path rate 0"), (1000, -1, "seconds -1")])
def test_no_rate_and_no_time_are_refused(rate: float, seconds: float, what: str) -> None:
    with pytest.raises(WorkloadError, match=what):
        scenario("W2", P2P, rate, 1.0, seconds, 1)


@pytest.mark.parametrize(
    ("paths", "what"),
    [
        ([], "no path"),
        ([()], r"path \(empty\): must name two or more nodes"),
        ([("alice",)], "path alice: must name two or more"),
        ([("alice", "relay", "alice")], "each once"),
        ([("alice", "bob"), ("bob", "alice")], "another path has the same ends"),
    ],
)
def test_what_is_no_path_is_refused(paths: list[tuple[str, ...]], what: str) -> None:
    with pytest.raises(WorkloadError, match=what):
        scenario("W2", paths, 1000, 1.0, 60, 1)


def test_more_demands_than_fit_are_refused_before_they_are_made() -> None:
    with pytest.raises(WorkloadError, match=r"more than 10,000,000 keys: load must be below 4\.27"):
        scenario("W6", P2P, 1e6, 100, 600, 1)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_run_too_short_for_any_key_is_refused(name: str) -> None:
    with pytest.raises(WorkloadError, match="asks for no key at all: take a longer run"):
        scenario(name, P2P, 1, 0.01, 0.01, 1)
