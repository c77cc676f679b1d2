"""AT-QOS: reserved key for guaranteed flows, two queues per hop for the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.acceptance.benches import SECOND, Bench

from keyhop.comparison.metrics import measure
from keyhop.core.composed.stock.owner import Owned
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.policy.priority import Fifo
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Scenario, Stream

QOS = DESIGNS["qos"]
FIFO = replace(QOS, priority=Fifo())
KEY_BITS = 256
RATE_BPS = 1000
BYTE_NS = 8 * SECOND // RATE_BPS


def line3(design: Design = QOS, *, first_bits: int = 1 << 20) -> Bench:
    """Neither way nor work takes time; the first link is full, the second empty."""
    bench = Bench(design, "A-B", "B-C", delay_ns=0, tag_bits=0)
    bench.give(first_bits, "A-B")
    bench.go(0)
    return bench


def generate(bench: Bench, seconds: float) -> None:
    """The second link makes a byte every 8 ms."""
    for number in range(round(seconds * SECOND) // BYTE_NS):
        bench.at((number + 1) * BYTE_NS, bench.block, frozenset(("B", "C")), 8)


def served_at(bench: Bench, **when: float) -> dict[str, float]:
    """Seconds at which requests of these classes, asked at these times, had their key."""
    requests: dict[str, int] = {}

    def ask(name: str) -> None:
        requests[name] = bench.ask("A", "C", KEY_BITS, stream=name, service_class=name, deadline_s=10)

    for name, seconds in when.items():
        bench.at(round(seconds * SECOND), ask, name)
    done: dict[str, float] = {}
    generate(bench, 1.0)
    while bench.now < SECOND:
        bench.go(0.004)
        for name, request in requests.items():
            if request in bench.answers and name not in done:
                bench.name(request)
                done[name] = bench.now / SECOND
    return done


def reserved(bench: Bench, at: str, peer: str) -> int:
    stock = bench.line(at, peer).serving
    assert isinstance(stock, Owned)
    return stock.reserved_bits


def test_at_qos_1_the_prioritised_key_leaves_first_although_it_came_later() -> None:
    done = served_at(line3(), best_effort=0.0, prioritised=0.1)
    assert done == {"prioritised": pytest.approx(0.256), "best_effort": pytest.approx(0.512)}
    assert done["prioritised"] - 0.1 == pytest.approx(0.156)


def test_at_qos_1_first_in_first_out_makes_the_prioritised_key_wait() -> None:
    done = served_at(line3(FIFO), best_effort=0.0, prioritised=0.1)
    assert done == {"best_effort": pytest.approx(0.256), "prioritised": pytest.approx(0.512)}
    assert done["prioritised"] - 0.1 == pytest.approx(0.412)


def test_what_has_been_carried_for_one_class_is_not_interrupted() -> None:
    done = served_at(line3(), best_effort=0.0, prioritised=0.3)
    assert done == {"best_effort": pytest.approx(0.256), "prioritised": pytest.approx(0.512)}


def test_at_qos_2_reserved_key_is_relayed_at_once_whatever_the_queues_hold() -> None:
    bench = line3()
    bench.give(320, "B-C")
    bench.go(0)
    bench.open("g", "A", "C", rate_bps=128, size_bits=128, service_class="guaranteed")
    bench.go(0)
    assert bench.sites["A"].relaying.admitted() == {"g"}
    assert reserved(bench, "A", "B") == reserved(bench, "B", "C") == KEY_BITS
    waiting = bench.ask("A", "C", 512, stream="p", service_class="prioritised")
    bench.go(0)
    assert waiting not in bench.answers
    granted = bench.ask("A", "C", KEY_BITS, stream="g", service_class="guaranteed")
    bench.go(0)
    assert bench.name(granted).size_bits == KEY_BITS
    assert reserved(bench, "B", "C") == 0
    assert waiting not in bench.answers


def test_at_qos_2_a_flow_that_asks_for_300_of_256_is_refused_and_leaves_nothing_reserved() -> None:
    bench = line3()
    bench.give(320, "B-C")
    bench.go(0)
    bench.open("g", "A", "C", rate_bps=150, size_bits=150, service_class="guaranteed")
    bench.go(0)
    assert "RESV-FAIL" in bench.words()
    assert reserved(bench, "A", "B") == reserved(bench, "B", "C") == 0
    request = bench.ask("A", "C", 150, stream="g", service_class="guaranteed")
    assert bench.refusal(request) == "nothing is reserved for this flow"
    assert bench.record(0).admitted == frozenset()


def test_at_qos_2_a_second_flow_for_which_too_little_is_free_leaves_the_first_one_as_it_was() -> None:
    bench = line3()
    bench.give(640, "B-C")
    bench.go(0)
    bench.open("g", "A", "C", rate_bps=128, size_bits=128, service_class="guaranteed")
    bench.go(0)
    assert (reserved(bench, "A", "B"), reserved(bench, "B", "C")) == (KEY_BITS, KEY_BITS)
    # A fifth of the link is for nobody to reserve: of 640 bits 512 less the first flow's, which are 256.
    bench.open("h", "A", "C", rate_bps=150, size_bits=150, service_class="guaranteed")
    bench.go(0)
    assert "RESV-FAIL" in bench.words()
    assert (reserved(bench, "A", "B"), reserved(bench, "B", "C")) == (KEY_BITS, KEY_BITS)
    assert bench.sites["A"].relaying.admitted() == {"g"}
    assert bench.refusal(bench.ask("A", "C", 150, stream="h", service_class="guaranteed"))
    granted = bench.ask("A", "C", KEY_BITS, stream="g", service_class="guaranteed")
    bench.go(0)
    assert bench.name(granted).size_bits == KEY_BITS


def test_a_closed_flow_gives_its_reservation_back_on_every_hop() -> None:
    bench = line3()
    bench.give(4096, "B-C")
    bench.go(0)
    bench.open("g", "A", "C", rate_bps=256, service_class="guaranteed")
    bench.go(1)
    assert reserved(bench, "B", "C") == 512
    bench.close("g", "A", "C")
    bench.go(1)
    assert reserved(bench, "A", "B") == reserved(bench, "B", "C") == 0


def test_a_reservation_whose_source_is_gone_ends_after_sixty_seconds() -> None:
    bench = line3()
    bench.give(4096, "B-C")
    bench.go(0)
    bench.open("g", "A", "C", rate_bps=256, service_class="guaranteed")
    bench.go(1)
    bench.down.add("A")
    bench.go(58)
    assert reserved(bench, "B", "C") == 512
    bench.go(3)
    assert reserved(bench, "B", "C") == 0


def test_a_flow_that_is_renewed_keeps_its_reservation() -> None:
    bench = line3()
    bench.give(4096, "B-C")
    bench.go(0)
    bench.open("g", "A", "C", rate_bps=256, service_class="guaranteed")
    bench.go(200)
    assert reserved(bench, "B", "C") == 512


def test_no_more_than_the_largest_share_of_a_link_is_reserved() -> None:
    bench = line3()
    bench.give(1000, "B-C")
    bench.go(0)
    bench.open("g", "A", "C", rate_bps=404, service_class="guaranteed")
    bench.go(1)
    assert reserved(bench, "B", "C") == 0
    bench.close("g", "A", "C")
    bench.open("h", "A", "C", rate_bps=400, service_class="guaranteed")
    bench.go(1)
    assert reserved(bench, "B", "C") == 800


def test_at_qos_3_under_permanent_prioritised_overload_best_effort_starves_and_it_shows() -> None:
    seconds, rate_bps = 60, 1000
    streams = tuple(
        Stream(name, "A", "C", rate, KEY_BITS, service_class=name)
        for name, rate in (("prioritised", 2 * rate_bps), ("best_effort", rate_bps))
    )
    moments = sorted(
        (number * SECOND * KEY_BITS // stream.rate_bps + index, stream)
        for index, stream in enumerate(streams)
        for number in range(seconds * stream.rate_bps // KEY_BITS)
    )
    demands = tuple(
        Demand(number, at, stream.name, "A", "C", KEY_BITS, 10 * SECOND, stream.service_class)
        for number, (at, stream) in enumerate(moments)
    )
    links = {frozenset("AB"): rate_bps, frozenset("BC"): rate_bps}
    record = Arena(QOS, links, Scenario(streams, demands), seed=1).run(seconds)
    supplied = dict.fromkeys(("prioritised", "best_effort"), 0)
    for demand, outcome in zip(record.scenario.demands, record.outcomes, strict=True):
        supplied[demand.stream] += outcome.verdict == "supplied"
    assert supplied["best_effort"] == 0
    figures = measure(record, [("A", "B", "C")])
    assert figures["least_share"] == 0.0
    # Of two streams one has all: Jain's index is at its least, a half.
    assert figures["fairness"] == pytest.approx(0.5)
    assert figures["blocking_best_effort"] == 1.0 > (figures["blocking_prioritised"] or 0)
    assert supplied["prioritised"] > 0.6 * seconds * rate_bps / KEY_BITS


def test_under_load_the_classes_are_served_in_their_order() -> None:
    seconds, rate_bps = 120, 10_000
    classes = {"guaranteed": (1600, SECOND // 10), "prioritised": (2400, SECOND), "best_effort": (4000, 10 * SECOND)}
    streams = tuple(Stream(name, "A", "C", rate, KEY_BITS, name) for name, (rate, _) in classes.items())
    moments = sorted(
        (2 * SECOND + number * SECOND * KEY_BITS // stream.rate_bps + index, index)
        for index, stream in enumerate(streams)
        for number in range((seconds - 2) * stream.rate_bps // KEY_BITS)
    )
    demands = tuple(
        Demand(number, at, streams[n].name, "A", "C", KEY_BITS, classes[streams[n].name][1], streams[n].name)
        for number, (at, n) in enumerate(moments)
    )
    links = {frozenset("AB"): rate_bps, frozenset("BC"): rate_bps}
    record = Arena(QOS, links, Scenario(streams, demands), seed=1).run(seconds)
    waited: dict[str, list[int]] = {name: [] for name in classes}
    for demand, outcome in zip(record.scenario.demands, record.outcomes, strict=True):
        if outcome.verdict == "supplied":
            waited[demand.stream].append(outcome.done_ns - demand.at_ns)
    mean = {name: sum(times) / len(times) for name, times in waited.items()}
    assert mean["guaranteed"] < mean["prioritised"] < mean["best_effort"]
    assert record.admitted == {"guaranteed"}
    assert record.reserved_bit_ns > 0
