"""Promises, shares, buckets, rounds and the filling of pools, one by one."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.sharing import DeficitRoundRobin
from keyhop.core.policy_rules import ServiceClass
from keyhop.core.services.buckets import Bucket, Quotas
from keyhop.core.services.filling import Filling, Pool, Times
from keyhop.core.services.promises import Contract, LinkRoom, Promises, held_for_gap
from keyhop.core.services.rounds import Rounds
from keyhop.core.services.shares import QUEUE_LIMIT, Shares

GUARANTEED, PRIORITISED, BEST_EFFORT = ServiceClass
NO_FLOOR = Fraction(0)


# Buckets


def test_a_bucket_fills_exactly() -> None:
    bucket = Bucket(3, 10, 0)
    assert bucket.take(10, 0) and not bucket.take(1, 0)
    assert bucket.wait_ns(1, 0) == 333_333_334
    assert not bucket.take(1, 333_333_333) and bucket.take(1, 333_333_334)
    assert bucket.level(100 * NANOSECONDS) == 10


def test_a_bucket_never_gives_more_than_its_rate_and_burst() -> None:
    draw, bucket, taken, now = random.Random(1), Bucket(1000, 500, 0), 0, 0
    for _ in range(5000):
        now += draw.randrange(NANOSECONDS // 100)
        taken += bucket.take_up_to(draw.randrange(50), now)
        assert taken * NANOSECONDS <= 500 * NANOSECONDS + 1000 * now


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (1, 0)])
def test_a_bucket_that_could_hold_nothing_is_refused(rate: int, burst: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Bucket(rate, burst, 0)


def test_what_never_fits_into_a_bucket_is_not_waited_for() -> None:
    assert Bucket(10, 10, 0).wait_ns(11, 0) is None
    empty = Bucket(0, 10, 0)
    empty.take(10, 0)
    assert empty.wait_ns(1, 0) is None


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    bucket = Bucket(10, 10, 100)
    bucket.take(10, 100)
    assert bucket.level(50) == 0


def test_quotas_are_spent_all_or_none() -> None:
    application, pair, requests = Bucket(10, 100, 0), Bucket(10, 50, 0), Bucket(1, 3, 0)
    quotas = Quotas((application, pair), (requests,))
    assert quotas.spend(50, 0) == 0
    assert quotas.spend(10, 0) == NANOSECONDS
    assert (application.level(0), requests.level(0)) == (50, 2)
    assert quotas.spend(51, 0) is None
    quotas.give_back(50, 0)
    assert (application.level(0), pair.level(0), requests.level(0)) == (100, 50, 3)
    assert Quotas().spend(10**9, 0) == 0


# Promises


def network(**links: tuple[int, int]) -> Promises:
    """Rate and stock of each link; blocks every second; no floor."""
    return Promises({name: LinkRoom(rate, stock, NANOSECONDS, NO_FLOOR) for name, (rate, stock) in links.items()})


def test_a_contract_needs_rate_and_stock_on_every_link() -> None:
    book = network(x=(1000, 10_000), y=(1000, 2000))
    assert book.ask("s", Contract(500, 1000), ("x", "y"), 256).admitted
    assert (book.promised_bps("x"), book.held_bits("y")) == (500, 1500)
    assert not book.ask("t", Contract(600, 256), ("x",), 256).admitted
    refused = book.ask("u", Contract(100, 1000), ("x", "y"), 256)
    assert (refused.admitted, refused.narrowest, refused.why) == (False, "y", "500 bit of stock can still be held back")
    assert book.promised_bps("x") == 500


def test_the_floor_is_promised_to_nobody() -> None:
    book = Promises({"x": LinkRoom(1000, 10**6, NANOSECONDS, Fraction(1, 4))})
    refused = book.ask("s", Contract(751, 256), ("x",), 256)
    assert not refused.admitted and refused.offer == Contract(750, 256)
    assert book.ask("s", refused.offer, ("x",), 256).admitted


amounts = some.integers(1, 5000)
rooms = some.tuples(
    amounts, some.integers(0, 20_000), some.integers(0, 3 * NANOSECONDS), some.fractions(0, Fraction(1, 2))
)


@settings(max_examples=200, deadline=None)
@given(
    some.lists(rooms, min_size=1, max_size=4), some.lists(some.tuples(amounts, some.integers(256, 9000)), max_size=12)
)
def test_a_counter_offer_is_admitted_if_it_is_asked_for_and_is_no_more_than_was_asked(
    links: list[tuple[int, int, int, Fraction]], wishes: list[tuple[int, int]]
) -> None:
    book = Promises({str(n): LinkRoom(*room) for n, room in enumerate(links)})
    for number, (rate, burst) in enumerate(wishes):
        path = tuple(random.Random(number).sample(list(book.links), 1 + number % len(links)))
        asked = Contract(rate, burst)
        answer = book.ask(str(number), asked, path, 256)
        if not answer.admitted and answer.offer is not None:
            assert answer.offer.rate_bps <= rate and 256 <= answer.offer.burst_bits <= burst and answer.why
            assert book.ask(str(number), answer.offer, path, 256).admitted
        for link, room in book.links.items():
            assert book.promised_bps(link) <= room.promisable_bps
            assert book.held_bits(link) <= room.stock_bits


@settings(max_examples=200, deadline=None)
@given(rooms, amounts)
def test_where_nothing_is_offered_not_even_one_bit_a_second_is_admitted(
    room: tuple[int, int, int, Fraction], rate: int
) -> None:
    book = Promises({"x": LinkRoom(*room)})
    answer = book.offer(Contract(rate, 256), ("x",), 256)
    if answer.offer is None:
        assert not book.ask("s", Contract(1, 256), ("x",), 256).admitted
        assert answer.narrowest == "x" or not book.links


@pytest.mark.parametrize("path", [(), ("z",), ("x", "z"), ("x", "x")])
def test_there_is_no_contract_on_a_path_that_is_none(path: tuple[str, ...]) -> None:
    answer = network(x=(1000, 1000)).ask("s", Contract(1, 256), path, 256)
    assert not answer.admitted and answer.offer is None and answer.why == "there is no such path"


@pytest.mark.parametrize(
    ("contract", "key_bits"), [(Contract(0, 256), 256), (Contract(1, 255), 256), (Contract(1, 1), 0)]
)
def test_a_contract_that_carries_no_key_is_a_mistake(contract: Contract, key_bits: int) -> None:
    with pytest.raises(ValueError, match="must carry a key"):
        network(x=(1000, 1000)).offer(contract, ("x",), key_bits)


def test_a_stream_has_one_contract() -> None:
    book = network(x=(1000, 10_000))
    book.ask("s", Contract(1, 256), ("x",), 256)
    with pytest.raises(ValueError, match="has a contract"):
        book.ask("s", Contract(1, 256), ("x",), 256)


def test_a_failed_link_gives_up_who_came_last_and_they_find_another_path() -> None:
    book = network(x=(1000, 10_000), y=(300, 10_000))
    for name in ("first", "second", "third"):
        assert book.ask(name, Contract(300, 256), ("x",), 256).admitted
    lost = book.change("x", LinkRoom(500, 10_000, NANOSECONDS, NO_FLOOR))
    assert lost == ["second", "third"]
    for name in lost:
        book.end(name)
    assert book.ask("second", Contract(300, 256), ("y",), 256).admitted
    assert not book.ask("third", Contract(300, 256), ("y",), 256).admitted
    assert book.broken("x") == [] and book.promised_bps("x") == 300
    book.end("first")
    assert (book.promised_bps("x"), book.held_bits("x")) == (0, 0)


# Shares


def shares(**more: int | Fraction) -> Shares:
    figures = {"floor": NO_FLOOR} | more
    return Shares(1000, NANOSECONDS, 0, **figures)  # type: ignore[arg-type]


def test_nobody_touches_what_a_guarantee_may_claim_before_the_next_block() -> None:
    stock = shares()
    stock.join("g", GUARANTEED, 0, contract=Contract(100, 500))
    stock.join("p", PRIORITISED, 0)
    assert stock.held_bits(0) == 600
    assert not stock.take("p", 401, 1000, 0) and stock.take("p", 400, 1000, 0)
    assert stock.take("g", 500, 600, 0)
    assert stock.held_bits(0) == 100
    assert stock.held_bits(NANOSECONDS) == 200


def test_the_reserve_is_touched_by_nobody_at_all() -> None:
    stock = shares(reserve_bits=1000)
    stock.join("g", GUARANTEED, 0, contract=Contract(100, 500))
    stock.join("p", PRIORITISED, 0)
    assert not stock.take("g", 256, 1255, 0) and not stock.take("p", 8, 1000, 0)
    assert stock.take("g", 256, 1256, 0)


def test_prioritised_streams_leave_the_floor_alone() -> None:
    stock = shares(floor=Fraction(1, 10), quantum_bits=300)
    stock.join("p", PRIORITISED, 0)
    stock.join("b", BEST_EFFORT, 0)
    assert not stock.take("p", 8, 300, 0)
    assert stock.take("b", 300, 300, 0)
    assert stock.take("p", 8, 308, 0)


def test_best_effort_beyond_its_floor_does_not_overtake_who_waits_with_a_better_right() -> None:
    stock = shares(floor=Fraction(1, 10), quantum_bits=300)
    stock.join("p", PRIORITISED, 0)
    stock.join("b", BEST_EFFORT, 0)
    assert stock.queue("p", 1000) == 1
    assert stock.may_take("b", 300, 300, 0)
    assert not stock.may_take("b", 400, 1399, 0) and stock.may_take("b", 400, 1400, 0)


def test_a_large_request_is_not_starved_by_small_ones_of_a_lower_class() -> None:
    stock = shares()
    stock.join("p", PRIORITISED, 0)
    stock.join("b", BEST_EFFORT, 0)
    stock.queue("p", 10_000)
    stock.queue("b", 8)
    assert stock.serve(9_999, 0) == []
    assert [served.stream for served in stock.serve(10_008, 0)] == ["p", "b"]


def test_those_who_wait_are_served_contracts_first_then_by_class() -> None:
    stock = shares()
    stock.join("b", BEST_EFFORT, 0)
    stock.join("p", PRIORITISED, 0)
    stock.join("g", GUARANTEED, 0, contract=Contract(100, 256))
    for stream in ("b", "p", "g", "g"):
        stock.queue(stream, 256)
    served = stock.serve(10_000, 0)
    assert [one.stream for one in served] == ["g", "p", "b", "g"]
    assert [one.ticket for one in served] == [3, 2, 1, 4]
    assert stock.serve(10_000, 0) == []


def test_a_cancelled_request_is_not_served_and_is_cancelled_once() -> None:
    stock = shares()
    stock.join("p", PRIORITISED, 0)
    first, second = stock.queue("p", 256), stock.queue("p", 512)
    assert first is not None and stock.cancel("p", first) and not stock.cancel("p", first)
    assert not stock.cancel("nobody", 1)
    assert [one.ticket for one in stock.serve(10_000, 0)] == [second]


def test_who_leaves_is_told_what_waited_and_holds_nothing() -> None:
    stock = shares()
    stock.join("g", GUARANTEED, 0, contract=Contract(100, 500))
    ticket = stock.queue("g", 10_000)
    assert stock.leave("g") == [ticket]
    assert stock.held_bits(0) == 0 and stock.serve(10**6, 0) == []
    stock.join("g", BEST_EFFORT, 0)
    assert stock.take("g", 1000, 1000, 0)


@pytest.mark.parametrize(
    ("service_class", "contract", "weight"),
    [(GUARANTEED, None, 1), (PRIORITISED, Contract(1, 1), 1), (BEST_EFFORT, None, 0)],
)
def test_only_a_guaranteed_stream_has_a_contract(
    service_class: ServiceClass, contract: Contract | None, weight: int
) -> None:
    with pytest.raises(ValueError, match="have a contract"):
        shares().join("s", service_class, 0, contract=contract, weight=weight)


def test_a_stream_joins_once_and_its_queue_has_an_end() -> None:
    stock = shares()
    stock.join("p", PRIORITISED, 0)
    with pytest.raises(ValueError, match="joined already"):
        stock.join("p", PRIORITISED, 0)
    assert all(stock.queue("p", 8) for _ in range(QUEUE_LIMIT))
    assert stock.queue("p", 8) is None


def test_blocks_further_apart_hold_more_back() -> None:
    stock = shares()
    stock.join("g", GUARANTEED, 0, contract=Contract(100, 500))
    stock.measured(1000, 5 * NANOSECONDS, 0)
    assert stock.held_bits(0) == 500 + held_for_gap(100, 5 * NANOSECONDS)


# Rounds


@settings(max_examples=100, deadline=None)
@given(
    some.lists(some.lists(some.integers(1, 5000), min_size=1, max_size=20), min_size=1, max_size=5),
    some.lists(some.integers(1, 4), min_size=5, max_size=5),
)
def test_rounds_send_in_the_order_of_the_sharing_part(queues: list[list[int]], weights: list[int]) -> None:
    part = DeficitRoundRobin(quantum=500)
    slow, turn = [list(queue) for queue in queues], part.first(len(queues))
    expected = []
    while (step := part.next([queue[0] if queue else None for queue in slow], weights[: len(slow)], turn)) is not None:
        pick, turn = step
        expected.append((pick, slow[pick].pop(0)))
    rounds, fast = Rounds(500), {str(n): list(queue) for n, queue in enumerate(queues)}
    for name in fast:
        rounds.add(name, weights[int(name)])
    got = []
    while (name := rounds.turn({one: fast[one][0] for one in rounds.names()})) is not None:
        assert rounds.turn({one: fast[one][0] for one in rounds.names()}) == name
        bits = fast[name].pop(0)
        rounds.sent(name, bits)
        got.append((int(name), bits))
        if not fast[name]:
            rounds.remove(name)
    assert got == expected


def test_rounds_of_nobody_have_no_turn_and_a_quantum_is_needed() -> None:
    assert Rounds(1).turn({}) is None
    with pytest.raises(ValueError, match="1 bit or more"):
        Rounds(0)


def test_very_large_heads_cost_no_more_turns() -> None:
    rounds = Rounds(1)
    rounds.add("a", 1)
    rounds.add("b", 2)
    assert rounds.turn({"a": 10**12, "b": 10**12}) == "b"


# Filling


def test_only_the_latest_times_count() -> None:
    times = Times(limit=10)
    for duration in (10**12, *range(1, 11)):
        times.took(duration)
    assert times.quantile(Fraction(1), 0) == 10 and times.quantile(Fraction(1, 2), 0) == 5


def test_pools_of_guaranteed_streams_are_filled_first_and_the_others_by_class_in_turn() -> None:
    filling = Filling(1024)
    levels = {"g": 0, "p": 0, "b": 0}
    classes = {"g": GUARANTEED, "p": PRIORITISED, "b": BEST_EFFORT}
    order = ""
    for _ in range(40):
        name = filling.next([Pool(name, classes[name], levels[name], 4096, 10_240) for name in levels])
        if name is None:
            break
        order += name
        levels[name] += 1024
    assert order.startswith("gggggggggg") and order[10:20] == "ppppbppppb"
    assert levels == dict.fromkeys(levels, 10_240)


def test_best_effort_pools_are_filled_however_much_the_others_want() -> None:
    filling = Filling(1024)
    pools = [Pool("p", PRIORITISED, 0, 1 << 20, 1 << 21), Pool("b", BEST_EFFORT, 0, 1 << 20, 1 << 21)]
    assert sum(filling.next(pools) == "b" for _ in range(100)) == 20


def test_a_pool_between_its_marks_is_filled_only_if_it_has_begun() -> None:
    filling = Filling(1024)
    half = Pool("p", PRIORITISED, 5000, 4096, 8192)
    assert filling.next([half]) is None
    assert filling.next([half._replace(level_bytes=4000)]) == "p"
    assert filling.next([half]) == "p"
    assert filling.next([half._replace(level_bytes=8192)]) is None
    assert filling.next([half]) is None
