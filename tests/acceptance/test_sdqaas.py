"""AT-SDQAAS: services with slots of key rate on every link of a path, given by a controller."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, permutations

import pytest
from tests.acceptance.benches import SECOND, Bench

from keyhop.comparison.windows import violations
from keyhop.core.composed.relay.services import TAG_SHARE, Controller
from keyhop.core.composed.relay.slots import Slots
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.policy.routing import Edge
from keyhop.simulator.arena import Arena
from keyhop.simulator.blocks import deliveries
from keyhop.simulator.record import Demand, Record, Scenario, Stream, Verdict

SDQAAS, MTKA = DESIGNS["sdqaas"], DESIGNS["sdqaas.mtka"]
SLOT_BPS = 1000
SLOTS = 4
RATE_BPS = int(SLOTS * SLOT_BPS / (1 - TAG_SHARE)) + 1
"""Of a link with four slots beside what its tags take."""
KEY_BITS = 256
DRAWN_FROM_S, RUN_S = 5, 40
REQUESTS = {"r1": ("A", "C", 3), "r2": ("A", "B", 2), "r3": ("B", "C", 1), "r4": ("A", "B", 1)}


def line3(design: Design) -> Bench:
    return Bench(design, "A-B", "B-C", rate_bps=RATE_BPS)


def request(bench: Bench, *names: str) -> Controller:
    """Opens services in this order."""
    for name in names:
        at, peer, slots = REQUESTS[name]
        bench.open(name, at, peer, rate_bps=slots * SLOT_BPS)
    return controller(bench)


def controller(bench: Bench) -> Controller:
    room = bench.sites["A"].relaying
    assert isinstance(room, Slots)
    return room.controller


def degree(control: Controller) -> tuple[Fraction, Fraction, Fraction]:
    """(success probability, use of resources, matching degree)"""
    success = Fraction(len(control.services), len(REQUESTS))
    used = sum(granted.slots * (len(granted.path) - 1) for granted in control.services.values())
    use = Fraction(used, sum(control.totals.values()))
    return success, use, (success + use) / 2


def test_at_sdqaas_1_in_the_order_of_arrival_three_of_four_are_admitted_and_all_slots_used() -> None:
    control = request(line3(SDQAAS), "r1", "r2", "r3", "r4")
    assert list(control.totals.values()) == [SLOTS, SLOTS]
    assert list(control.services) == ["r1", "r3", "r4"]
    assert degree(control) == (Fraction(3, 4), 1, Fraction(7, 8))


def test_at_sdqaas_1_in_ascending_order_half_of_the_slots_are_left() -> None:
    control = request(line3(SDQAAS), "r3", "r4", "r2", "r1")
    assert list(control.services) == ["r3", "r4", "r2"]
    assert degree(control) == (Fraction(3, 4), Fraction(1, 2), Fraction(5, 8))


def test_at_sdqaas_1_when_all_are_known_in_advance_the_best_order_is_chosen() -> None:
    bench = line3(MTKA)
    control = request(bench, "r3", "r4", "r2", "r1")
    assert control.services == {}
    bench.go(1.5)
    assert degree(control)[2] == Fraction(7, 8)


def test_at_sdqaas_1_no_order_at_all_does_better() -> None:
    assert max(degree(request(line3(SDQAAS), *order))[2] for order in permutations(REQUESTS)) == Fraction(7, 8)


def test_at_sdqaas_2_a_deleted_service_gives_its_slots_back_on_every_link() -> None:
    bench = line3(SDQAAS)
    control = request(bench, "r1", "r2", "r3", "r4")
    assert list(control.services) == ["r1", "r3", "r4"]
    assert [control.free(link) for link in control.totals] == [0, 0]
    bench.close("r1", "A", "C")
    assert [control.free(link) for link in control.totals] == [3, 3]
    assert [(order.node, order.word) for order in control.orders if order.service == "r1"] == [
        ("A", "FLOW-ADD"),
        ("B", "FLOW-ADD"),
        ("A", "FLOW-DEL"),
        ("B", "FLOW-DEL"),
    ]
    bench.close("r2", "A", "B")
    assert list(request(bench, "r2").services) == ["r3", "r4", "r2"]


def test_at_sdqaas_2_a_change_for_which_slots_are_missing_leaves_the_service_as_it_was() -> None:
    bench = line3(SDQAAS)
    control = request(bench, "r2", "r4")
    # Three are free for it: its own two and one more.
    assert control.free(("A", "B")) == 1
    assert not control.modify("r2", 4)
    assert (control.services["r2"].slots, control.services["r2"].path) == (2, ("A", "B"))
    assert [order.word for order in control.orders] == ["FLOW-ADD", "FLOW-ADD"]
    assert control.modify("r2", 3)
    assert control.free(("A", "B")) == 0


def test_a_larger_service_is_led_over_another_path_if_its_own_is_full() -> None:
    bench = Bench(SDQAAS, "A-B", "A-C", "B-C", rate_bps=RATE_BPS)
    bench.open("s", "A", "B", rate_bps=2000)
    bench.open("t", "A", "B", rate_bps=2000)
    control = controller(bench)
    assert control.services["t"].path == ("A", "B")
    assert control.modify("t", 3)
    assert control.services["t"].path == ("A", "C", "B")


def test_a_rejected_service_gets_no_key_and_is_told_so() -> None:
    bench = line3(SDQAAS)
    request(bench, "r1", "r2")
    assert bench.refusal(bench.ask("A", "B", stream="r2")).startswith("REJECT")
    assert bench.record(0).admitted == {"r1"}


def drawn(slots: int, share: float = 1.0) -> tuple[Record, list[int]]:
    """A service from A to C beside others that fill both links, each drawn at the rate of its slots as soon as the
    first seconds have brought something; and what the one from A to C got in each second after the first two.

    `share`: what the first link makes of what it nominally does.
    """
    streams = tuple(
        Stream(name, at, peer, rate * SLOT_BPS, KEY_BITS, min_bps=rate * SLOT_BPS)
        for name, at, peer, rate in (("s", "A", "C", slots), ("t", "A", "B", SLOTS - slots), ("u", "B", "C", 1))
    )
    moments = sorted(
        (DRAWN_FROM_S * SECOND + number * KEY_BITS * SECOND // stream.rate_bps, stream.name, stream)
        for stream in streams
        for number in range((RUN_S - DRAWN_FROM_S) * stream.rate_bps // KEY_BITS)
    )
    demands = tuple(
        Demand(number, at, name, stream.master, stream.slave, KEY_BITS, SECOND)
        for number, (at, name, stream) in enumerate(moments)
    )
    rates = {frozenset("AB"): int(share * RATE_BPS), frozenset("BC"): RATE_BPS}
    arena = Arena(SDQAAS, dict.fromkeys(rates, RATE_BPS), Scenario(streams, demands), seed=1)
    arena._blocks = {link: deliveries(link, rate, 1, arena.scenario.block_ns) for link, rate in rates.items()}
    brought: list[int] = []

    def look(done: float) -> None:
        book = arena.sites["A"].pairs["C"].book
        brought.append(book.N + book.T - book.A)

    record = arena.run(RUN_S, look)
    return record, [after - before for before, after in pairwise(brought[1:])]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_at_sdqaas_3_an_admitted_service_gets_its_slot_rate_in_every_second(slots: int) -> None:
    record, seconds = drawn(slots)
    assert record.admitted == {"s", "t", "u"}
    assert len(seconds) == RUN_S - 2
    # What does not fill a unit in one second comes with the next.
    assert all(slots * SLOT_BPS - got < KEY_BITS for got in seconds)
    assert all(total * slots * SLOT_BPS - sum(seconds[:total]) < KEY_BITS for total in range(1, len(seconds) + 1))
    assert all(outcome.verdict is Verdict.SUPPLIED for outcome in record.outcomes)
    assert violations(record, admitted_only=True) == {"best_effort": 0.0}


def test_at_sdqaas_3_a_link_below_its_nominal_rate_breaks_the_slot_rate_of_those_it_carries() -> None:
    record, seconds = drawn(3, share=0.5)
    assert any(3 * SLOT_BPS - got >= KEY_BITS for got in seconds)
    assert (violations(record)["best_effort"] or 0) > 0.3


def test_at_sdqaas_3_a_link_that_loses_half_its_slots_names_the_services_it_cannot_carry() -> None:
    bench = line3(SDQAAS)
    control = request(bench, "r2", "r3", "r4")
    bench.network.tell(Edge("A", "B", 1, RATE_BPS // 2 + 1, True))
    assert control.lost == {("A", "B"): ["r4"]}
    bench.network.tell(Edge("A", "B", 1, RATE_BPS, True))
    assert control.lost == {}


def test_key_of_one_service_is_of_no_use_to_another() -> None:
    bench = line3(SDQAAS)
    request(bench, "r2", "r4")
    bench.give(64 * 256, "A-B")
    bench.go(3)
    pools = [bench.line("A", "B").serving.stock_bits(name) for name in ("r2", "r4")]
    assert pools[0] >= 2 * pools[1] - 256 > 0
    while bench.line("A", "B").serving.stock_bits("r4") >= 256:
        bench.name(bench.ask("A", "B", stream="r4"))
    assert "not enough key" in bench.refusal(bench.ask("A", "B", stream="r4"))
    assert bench.line("A", "B").serving.stock_bits("r2") == pools[0]
    bench.balanced()
