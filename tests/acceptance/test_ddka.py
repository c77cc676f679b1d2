"""DDKA-QKDN: stores of five sizes, requests and supplements in the order of their response weight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyhop.core.composed.stock.sizes import KEPT_BITS, Sized, SizedByDemand
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.policy.priority import ResponseWeight, Waiting
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Scenario, Stream, Verdict

from .benches import SECOND, Bench

DDKA = DESIGNS["ddka"]
BY_DEMAND = replace(DDKA, storage=replace(DDKA.storage, split="demand"))  # type: ignore[type-var]
SIZES = (128, 256, 512, 1024, 2048)
SLOT_S = 0.01
LINKED = tuple(zip(SIZES, (1, 2, 3, 4, 5), strict=True))


def weighing(omega: float) -> Design:
    return replace(DDKA, priority=ResponseWeight(omega=omega))


def p2p(omega: float = 0.5, bits: int = 1563 * 128) -> Bench:
    made = Bench(weighing(omega))
    made.open("s", "A", "B")
    made.give(bits)
    made.go(0.05)
    return made


def stocked(omega: float, **keys: int) -> Bench:
    """Only so many keys of a size (`s512=5`) are left for A to give."""
    made = p2p(omega)
    for at, peer in (("A", "B"), ("B", "A")):
        line = made.line(at, peer)
        line.gone(line.run.free.clear(), "X", line.run)
        for label, queue in line.run.pools.items():
            way, _, size = label.partition("/")
            kept = keys.get(f"s{size}", 0) * int(size) // line.run.unit_bits if way == "A>B" else 0
            line.gone(queue.take(queue.level - kept) or (), "X", line.run)
    return made


def order(made: Bench, asked: tuple[tuple[int, int], ...], deadline_s: float = 1) -> list[int]:
    """Which of these (size, level), asked for at once, are served, one after the other."""
    requests = [made.ask("A", "B", size, security_level=level, deadline_s=deadline_s) for size, level in asked]
    assert not any(request in made.answers for request in requests), "a slot ends before its requests are ranked"
    made.go(SLOT_S)
    served = [request for request in made.answers if request in requests and not made.refusal(request)]
    for request in served:
        made.fetch("B", "A", made.name(request))
    made.balanced()
    return [requests.index(request) for request in served]


@pytest.mark.parametrize(
    ("omega", "weights", "backwards"),
    [
        (0.5, [3.5246, 3.8123, 4.0921, 4.3616, 4.6170], False),
        (0.0, [4.8520, 5.5452, 6.2383, 6.9315, 7.6246], False),
        (1.0, [2.1972, 2.0794, 1.9459, 1.7918, 1.6094], True),
    ],
)
def test_at_ddka_1_small_keys_come_first_or_secure_ones(omega: float, weights: list[float], backwards: bool) -> None:
    part = ResponseWeight(omega=omega)
    assert [round(part.weight(size, level), 4) for size, level in LINKED] == weights
    expected = [0, 1, 2, 3, 4]
    assert order(p2p(omega), LINKED) == (expected[::-1] if backwards else expected)


@pytest.mark.parametrize(
    ("omega", "sizes"),
    [(0.8, (128, 256, 512, 2048, 1024)), (0.85, (2048, 1024, 512, 128, 256))],
)
def test_at_ddka_2_the_order_turns_between_0_8_and_0_85(omega: float, sizes: tuple[int, ...]) -> None:
    assert tuple(SIZES[index] for index in order(p2p(omega), LINKED)) == sizes


@pytest.mark.parametrize(("omega", "first"), [(0.8250, 0), (0.8252, 1)])
def test_at_ddka_2_the_smallest_and_the_largest_change_places_at_0_8251(omega: float, first: int) -> None:
    assert order(p2p(omega), (LINKED[0], LINKED[4]))[0] == first


UNLINKED = ((256, 5), (128, 1), (1024, 9), (512, 2))


@pytest.mark.parametrize(("omega", "expected"), [(0.5, [2, 1, 0, 3]), (0.0, [1, 0, 3, 2])])
def test_at_ddka_3_size_and_level_need_not_go_together(omega: float, expected: list[int]) -> None:
    assert order(p2p(omega), UNLINKED) == expected


def test_at_ddka_3_the_weights_are_those_of_the_formula() -> None:
    part = ResponseWeight(omega=0.5)
    assert [round(part.weight(size, level), 4) for size, level in UNLINKED] == [3.5773, 3.5246, 3.4657, 4.1589]


@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0])
def test_at_ddka_4_an_earlier_slot_comes_first_whatever_the_weight(omega: float) -> None:
    made = stocked(omega)
    requests = []
    for size, level in ((2048, 1), (1024, 2), (128, 9)):
        requests.append(made.ask("A", "B", size, security_level=level))
        made.go(2 * SLOT_S)
    made.give(100_000)
    made.go(0.5)
    assert [request for request in made.answers if request in requests] == requests


@pytest.mark.parametrize(("omega", "served"), [(0.0, [1, 2, 3, 4, 5]), (1.0, [0, 1])])
def test_at_ddka_5_five_keys_of_512_serve_five_requests_or_two(omega: float, served: list[int]) -> None:
    made = stocked(omega, s512=5)
    assert order(made, ((2048, 5), *[(512, 3)] * 5)) == served
    book = made.book("A", "B")
    assert (book.D, book.S) == (2560, 0)
    if omega:
        # Four keys joined, and one.
        assert [len(made.name(request).ranges) for request in (1, 2)] == [4, 1]


def test_a_request_takes_the_smallest_key_that_is_large_enough() -> None:
    made = stocked(0.5, s1024=1, s2048=1)
    request = made.ask("A", "B", 300)
    made.go(SLOT_S)
    assert made.name(request).taken_bits == 1024
    made.fetch("B", "A", made.name(request))
    for book in made.balanced():
        assert (book.D, book.O, book.S) == (300, 724, 2048)


def test_fresh_key_is_dealt_in_equal_shares_of_bits_to_five_stores_of_each_direction() -> None:
    made = p2p(bits=10 * 2048 * 20)
    dealing = made.line("A", "B").dealing
    assert isinstance(dealing, Sized)
    for way in ("A>B", "B>A"):
        bits = {size: size * keys for size, keys in dealing.levels(way).items()}
        assert max(bits.values()) - min(bits.values()) <= 2048
    assert made.line("B", "A").dealing.levels("A>B") == dealing.levels("A>B")  # type: ignore[attr-defined]


def test_level_0_is_answered_at_once_without_key() -> None:
    made = p2p(bits=0)
    request = made.ask("A", "B", 256, security_level=0)
    name = made.name(request)
    assert (name.ranges, name.size_bits) == ((), 0)
    assert made.name(made.fetch("B", "A", name)) == name
    assert made.book("A", "B").D == 0


def test_who_asks_for_no_key_counts_in_no_ratio() -> None:
    streams = (Stream("s", "A", "B", 1000, 256),)
    demands = tuple(
        Demand(n, (3 + n) * SECOND, "s", "A", "B", 256, SECOND, security_level=level) for n, level in enumerate((0, 3))
    )
    record = Arena(DDKA, {frozenset("AB"): 100_000}, Scenario(streams, demands), seed=1).run(8)
    assert [outcome.verdict for outcome in record.outcomes] == [Verdict.UNSERVABLE, Verdict.SUPPLIED]


def test_who_waits_past_the_deadline_is_refused() -> None:
    made = stocked(0.5)
    request = made.ask("A", "B", 256, deadline_s=1)
    made.go(0.99)
    assert request not in made.answers
    made.go(0.02)
    assert made.answers[request].timed_out


def line3(capacity_keys: int = 100) -> Bench:
    """So many keys of 2048 bits in each direction between A and C, and as many bits of the other sizes."""
    made = Bench(DDKA, "A-B", "B-C", rate_bps=10_000_000, capacity_bits=2 * capacity_keys * 2048 * 5)
    return made


def keys(made: Bench) -> int:
    dealing = made.line("A", "C").dealing
    assert isinstance(dealing, Sized)
    return dealing.levels("A>C")[2048]


def feed(made: Bench, seconds: int, bits: int = 150_000) -> None:
    for _ in range(seconds):
        for link in ("A-B", "B-C"):
            made.give(bits, link)
        made.go(1)


def test_at_ddka_6_a_store_of_100_keys_that_falls_to_19_is_filled_to_80() -> None:
    made = line3()
    made.open("s", "A", "C", size_bits=2048)
    feed(made, 40)
    assert keys(made) == 80
    for left in range(79, 19, -1):
        request = made.ask("A", "C", 2048)
        made.go(SLOT_S)
        made.fetch("C", "A", made.name(request))
        assert keys(made) == left
    made.said.clear()
    feed(made, 3)
    assert keys(made) == 20
    assert "RELAY" not in made.words()
    made.ask("A", "C", 2048)
    made.go(SLOT_S)
    assert keys(made) == 19
    feed(made, 30)
    assert keys(made) == 80
    made.balanced()


def test_at_ddka_6_a_link_is_pulled_below_20_percent_up_to_80() -> None:
    made = Bench(DDKA, capacity_bits=2 * 100 * 2048 * 5)
    made.open("s", "A", "B")
    dealing = made.line("A", "B").dealing
    assert isinstance(dealing, Sized)
    for _ in range(200):
        made.give(20_480)
        made.go(0.1)
    # The last block that is pulled has one key more for each direction.
    assert dealing.levels("A>B")[2048] in (80, 81)
    pulled = made.book("A", "B").G

    def take(left: int) -> None:
        while dealing.levels("A>B")[2048] > left:
            request = made.ask("A", "B", 2048)
            made.go(SLOT_S)
            made.fetch("B", "A", made.name(request))
        made.go(0.1)

    take(20)
    assert made.book("A", "B").G == made.book("B", "A").G == pulled
    take(19)
    made.go(1)
    assert made.book("A", "B").G == made.book("B", "A").G
    assert dealing.levels("A>B")[2048] in (80, 81)


def test_supplements_are_ordered_as_the_requests_are() -> None:
    made = Bench(replace(DDKA, priority=ResponseWeight(omega=0.0)), "A-B", "B-C")
    for size in (2048, 128, 512):
        made.ask("A", "C", size)
    made.go(0.1)
    assert "RELAY" not in made.words()
    feed(made, 3, 40_960)
    sent = [said.message for node, said in made.said if node == "A" and said.message.word == "RELAY"]
    assert [message.names[0] for message in sent][:3] == ["128", "512", "2048"]


def test_a_rank_orders_as_the_sort_key_does() -> None:
    part = ResponseWeight(omega=0.3)
    waiting = [
        Waiting(number, slot * 10_000_000, size, level)
        for number, (slot, size, level) in enumerate(
            (slot, size, level) for slot in (1, 2, 60_000) for size in SIZES for level in (1, 5, 9)
        )
    ]
    made = Bench(replace(DDKA, priority=part), "A-B", "B-C")
    rank = made.sites["A"].relaying._rank  # type: ignore[attr-defined]
    assert sorted(waiting, key=lambda one: (rank(one), one.number)) == part.rank(waiting)


def by_demand(*asked: int, blocks: int = 1) -> Bench:
    """A link whose application at A has asked for these sizes and got nothing, then key comes."""
    made = Bench(BY_DEMAND)
    made.open("s", "A", "B")
    for size in asked:
        made.ask("A", "B", size, deadline_s=0.1)
    made.go(1)
    for _ in range(blocks):
        made.give(81_920)
        made.go(0.1)
    return made


def dealt(made: Bench, at: str = "A") -> dict[int, int]:
    """Bits of each size that an end can give."""
    dealing = made.line(at, "B" if at == "A" else "A").dealing
    assert isinstance(dealing, SizedByDemand)
    return {size: size * keys for size, keys in dealing.levels("A>B" if at == "A" else "B>A").items()}


def test_key_is_prepared_in_shares_of_what_is_asked_for() -> None:
    assert dealt(by_demand(256, 256, 256)) == {128: 0, 256: 40_960, 512: 0, 1024: 0, 2048: 0}
    halves = dealt(by_demand(2048, 512, 512, 512, 512))
    assert (halves[128], halves[256], halves[1024]) == (0, 0, 0)
    assert abs(halves[2048] - halves[512]) <= 2048
    odd = dealt(by_demand(300, 5000))
    assert {size for size, bits in odd.items() if bits} == {512, 2048}, "the smallest that fits, or the largest"


def test_before_anybody_has_asked_all_sizes_have_the_same() -> None:
    bits = dealt(by_demand())
    assert max(bits.values()) - min(bits.values()) <= 2048


def test_each_end_prepares_its_own_direction_and_the_other_follows() -> None:
    made = by_demand(256)
    made.open("t", "B", "A")
    made.ask("B", "A", 1024, stream="t", deadline_s=5)
    made.go(SLOT_S)
    assert {size for size, bits in dealt(made, "B").items() if bits} >= {128, 2048}, "it came before the request"
    for _ in range(20):
        there, here = made.ask("A", "B", 256), made.ask("B", "A", 1024, stream="t")
        made.go(2 * SLOT_S)
        for at, peer, request in (("A", "B", there), ("B", "A", here)):
            name = made.name(request)
            assert made.name(made.fetch(peer, at, name)) == name and made.equal(at, peer, name)
    asked = 20 * (256 + 1024)
    # What B's application was given first nobody fetches.
    assert [(book.D, book.Y) for book in made.balanced()] == [(asked, 0), (asked + 1024, 0)]


def test_shares_follow_what_is_asked_for_now() -> None:
    made = by_demand(*[256] * 32, blocks=1)
    for _ in range(4 * KEPT_BITS // 2048):
        made.ask("A", "B", 2048, deadline_s=0.05)
    made.go(1)
    before = dealt(made)
    made.give(163_840)
    made.go(0.1)
    more = {size: bits - before[size] for size, bits in dealt(made).items()}
    assert more[2048] > 30 * more[256]


def test_a_link_whose_stores_are_filled_by_demand_is_pulled_between_the_same_marks() -> None:
    made = Bench(BY_DEMAND, capacity_bits=2 * 100 * 2048)
    made.open("s", "A", "B")
    made.ask("A", "B", 2048, deadline_s=0.1)
    made.go(1)
    for _ in range(200):
        made.give(8192)
        made.go(0.1)
    assert dealt(made)[2048] // 2048 in range(80, 84)
    pulled = made.book("A", "B").G

    def take(left: int) -> None:
        while dealt(made)[2048] // 2048 > left:
            request = made.ask("A", "B", 2048)
            made.go(SLOT_S)
            made.fetch("B", "A", made.name(request))
        made.go(1)

    take(20)
    assert made.book("A", "B").G == made.book("B", "A").G == pulled
    take(19)
    made.go(2)
    assert made.book("A", "B").G == made.book("B", "A").G > pulled
    assert dealt(made)[2048] // 2048 in range(80, 84)
    made.balanced()


def test_relayed_key_is_ordered_for_the_sizes_that_are_asked_for() -> None:
    made = Bench(BY_DEMAND, "A-B", "B-C", rate_bps=1_000_000)
    made.open("s", "A", "C", size_bits=512)
    for second in range(20):
        for link in ("A-B", "B-C"):
            made.give(150_000, link)
        if second > 2:
            request = made.ask("A", "C", 512)
            made.go(0.2)
            made.fetch("C", "A", made.name(request))
        made.go(0.8)
    sent = [said.message.names[0] for node, said in made.said if node == "A" and said.message.word == "RELAY"]
    assert set(sent[len(sent) // 2 :]) == {"512"}
    made.balanced()
