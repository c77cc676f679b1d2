"""Guaranteed flows are booked along their whole path: who is admitted, who is refused, and what ends a booking."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from governed_worlds import Network, why

from keyhop.core.messages import AnswerFlow, BookFlow, EndFlow, FrameType, Plain, decode, encode
from keyhop.core.model import NANOSECONDS, NodeId, PeerError
from keyhop.core.node.bookings import flow_of, stream_of
from keyhop.core.node.flows import FLOWS_PER_NEIGHBOUR, NEIGHBOUR_SHARE_PERCENT, SOURCE_SHARE_PERCENT
from keyhop.core.node.node import Node
from keyhop.core.node.pads import Way
from keyhop.core.policy_rules import ServiceClass
from keyhop.core.services.promises import Contract, held_for_gap

RATE_BPS = 100_000
BLOCK_S = 0.2
PROMISED_BPS = RATE_BPS * 9 // 20 * 9 // 10
"""One direction's part of a link, without the floor of best effort."""
RULES = """
rules:
  - {name: near, application: m1, peer: d1, class: guaranteed, rate: 10 kbps, burst: 2048 bit}
  - {name: far, application: ["a1", "b1"], peer: d1, class: guaranteed, rate: 16 kbps, burst: 2048 bit}
"""
STAR = ("am", "bm", "dm")


def network(line: str = "abmd", ends: tuple[str, ...] = STAR, rules: str = RULES, seconds: float = 12) -> Network:
    """Links that give their rate, with some stock."""
    found = Network(line, rules, ends=ends)
    found.run(1)
    for end in ends:
        found.report(*end, RATE_BPS, int(BLOCK_S * 1e9))
        stock(found, *end)
    found.run(seconds)
    return found


def stock(net: Network, one: str, other: str, blocks: int = 12) -> None:
    """Both directions of a link get key: each block goes to the shorter run."""
    for _ in range(blocks):
        net.block(one, other, 16_384)
        net.run(0.05)


def guarantees(net: Network, node: str):  # type: ignore[no-untyped-def]
    return net.node(node).supply.governed.guarantees


def is_guaranteed(net: Network, stream: str) -> bool:
    node, slave = stream[0], stream.split(" -> ")[1][0]
    return guarantees(net, node)._joined.get(slave, {}).get(stream) is ServiceClass.GUARANTEED


def flows(net: Network, node: str) -> set[str]:
    """Sources of the flows of others that a node carries."""
    return {source for (way, source, _) in net.node(node).flows.flows if way != node}


def one_of_two(net: Network) -> tuple[str, str]:
    """(the source that is admitted, the one that is not)"""
    admitted = [source for source in "ab" if is_guaranteed(net, f"{source}1 -> d1")]
    assert len(admitted) == 1, "both would be more than the link in the middle gives"
    return admitted[0], "ab".replace(admitted[0], "")


def test_two_sources_over_one_middle_link_are_not_promised_more_than_it_gives() -> None:
    net = network()
    assert is_guaranteed(net, "m1 -> d1")
    first, second = one_of_two(net)
    assert flows(net, "m") == {first} and net.node("m").flows.booked_bps("d") == 18_000
    answer = guarantees(net, second).answers[f"{second}1 -> d1"]
    assert answer.narrowest == "m" and "link m-d" in answer.why and "can still be promised" in answer.why
    assert answer.offer is not None and 0 < answer.offer.rate_bps < 16_000
    promises = guarantees(net, "m").promises
    assert promises.promised_bps("d-m") <= PROMISED_BPS
    said = [one.text for one in net.world.processes[NodeId(second)].notices if one.code == "KH-2104"]
    assert len(said) == 1 and "m refuses: link m-d" in said[0], said


def test_the_offer_that_a_refusal_carries_is_admitted() -> None:
    offer = guarantees(net := network(), one_of_two(net)[1]).answers[f"{one_of_two(net)[1]}1 -> d1"].offer
    rules = RULES + f"  - {{name: less, application: b2, peer: d1, class: guaranteed, rate: {offer.rate_bps} bps, "
    rules += f"burst: {offer.burst_bits} bit}}\n"
    rules = rules.replace('["a1", "b1"]', "a1")
    again = network(rules=rules, seconds=20)
    assert is_guaranteed(again, "a1 -> d1") and is_guaranteed(again, "b2 -> d1")


def test_the_second_is_admitted_when_the_first_has_ended() -> None:
    net = network()
    first, second = one_of_two(net)
    bookings = net.node(first).bookings
    guarantees(net, first)._break(f"{first}1 -> d1", "a test says so")
    bookings._retry_at[f"{first}1 -> d1"] = net.world.now + 600 * NANOSECONDS
    net.run(0.6)
    assert flows(net, "m") == set(), "given back at once"
    net.run(45)
    assert flows(net, "m") == {second} and is_guaranteed(net, f"{second}1 -> d1")
    codes = [one.code for one in net.world.processes[NodeId(second)].notices if one.code.startswith("KH-210")]
    assert codes == ["KH-2104", "KH-2105"]


def test_the_second_is_admitted_when_the_first_says_nothing_any_more() -> None:
    net = network()
    first, second = one_of_two(net)
    node = net.node(first)
    node.bookings.bookings.clear()
    node.bookings._retry_at[f"{first}1 -> d1"] = net.world.now + 600 * NANOSECONDS
    net.run(15)
    assert flows(net, "m") == {first}, "a booking lives for 30 s"
    net.run(60)
    assert flows(net, "m") == {second} and is_guaranteed(net, f"{second}1 -> d1")


def test_a_source_whose_link_is_cut_gives_back_what_it_booked() -> None:
    net = network()
    first, second = one_of_two(net)
    net.world.cut(first, "m")
    net.run(1)
    assert first not in flows(net, "m")
    net.run(45)
    assert is_guaranteed(net, f"{second}1 -> d1")


def test_a_middle_node_that_restarts_books_anew_and_no_more_than_it_gives() -> None:
    net = network()
    net.world.crash("m")
    process = net.world.processes[NodeId("m")]
    while not process.alive:
        net.run(0.01)
    assert flows(net, "m") == set(), "bookings are in memory alone"
    for end in STAR:
        net.report(*end, RATE_BPS, int(BLOCK_S * 1e9))
        stock(net, *end, blocks=6)
    net.run(60)
    first, _ = one_of_two(net)
    assert flows(net, "m") == {first}
    assert guarantees(net, "m").promises.promised_bps("d-m") <= PROMISED_BPS


def test_a_refusal_further_on_releases_the_earlier_hops() -> None:
    rules = "rules: [{name: far, application: a1, peer: d1, class: guaranteed, rate: 16 kbps, burst: 2048 bit}]"
    net = Network("abcd", rules)
    net.run(1)
    for end in net.ends:
        net.report(*end, RATE_BPS, int(BLOCK_S * 1e9))
        stock(net, *end)
    # What c says of its link stays as it was told; its own book knows better.
    net.node("c").flows.promisable = lambda pair: Contract(1000, 1 << 20)
    net.run(12)
    assert not is_guaranteed(net, "a1 -> d1")
    answer = guarantees(net, "a").answers["a1 -> d1"]
    assert answer.narrowest == "c" and "source a may book" in answer.why
    for node in "abc":
        assert not net.node(node).flows.flows, f"{node} keeps nothing for a flow that was refused"
    assert net.node("c").flows.booked_bps("d") == 0
    assert net.node("c").flows.refused == {"d": net.node("c").context.counters["flows_refused"]}
    assert guarantees(net, "b").promises.promised_bps("b-c") == 0
    assert guarantees(net, "a").promises.promised_bps("a-b") == 0


def test_a_link_that_slows_down_revokes_the_flow_that_came_last() -> None:
    rules = RULES.replace("16 kbps", "10 kbps")
    net = network(rules=rules)
    assert flows(net, "m") == {"a", "b"}
    net.report("d", "m", RATE_BPS * 2 // 3, int(BLOCK_S * 1e9))
    net.run(3)
    first, second = one_of_two(net)
    assert flows(net, "m") == {first} and is_guaranteed(net, "m1 -> d1")
    said = [one.text for one in net.world.processes[NodeId(second)].notices if one.code == "KH-2104"]
    assert len(said) == 1 and "it gives too little now" in said[0]


def test_a_path_that_breaks_is_booked_anew_elsewhere_and_the_stream_keeps_its_class() -> None:
    ring = ("ab", "bd", "ac", "cd")
    rules = "rules: [{name: far, application: a1, peer: d1, class: guaranteed, rate: 8 kbps, burst: 2048 bit}]"
    net = network("abcd", ring, rules)
    assert is_guaranteed(net, "a1 -> d1")
    (booking,) = net.node("a").bookings.bookings.values()
    used = booking.path[1]
    other = "bc".replace(used, "")
    assert flows(net, used) == {"a"} and flows(net, other) == set()
    net.world.cut("a", used)
    net.run(6)
    assert is_guaranteed(net, "a1 -> d1")
    assert flows(net, used) == set() and flows(net, other) == {"a"}
    (booking,) = net.node("a").bookings.bookings.values()
    assert booking.path == ("a", other, "d") and booking.heard_at is not None
    assert "KH-2104" not in {one.code for one in net.world.processes[NodeId("a")].notices}


RING = ("ab", "bd", "ad")
AROUND = "rules: [{name: far, application: a1, peer: d1, class: guaranteed, rate: 4 kbps, burst: 2048 bit}]"


def around_a_silent_module() -> Network:
    """a and d have a link that nobody has told the rate of: a guarantee is booked by way of b."""
    net = Network("abd", AROUND, ends=RING)
    net.run(1)
    for end in RING:
        stock(net, *end)
    return net


def tell_rates(net: Network, *ends: str) -> None:
    for end in ends:
        net.report(end[0], end[1], RATE_BPS, int(BLOCK_S * 1e9))


def losses(net: Network) -> int:
    """How often people at a were told that a stream has no guarantee."""
    return sum(one.code == "KH-2104" for one in net.world.processes[NodeId("a")].notices)


def test_a_stream_keeps_its_guarantee_when_its_own_link_has_told_its_rate_and_the_booked_path_breaks() -> None:
    net = around_a_silent_module()
    tell_rates(net, "ab", "bd")
    net.run(12)
    (booking,) = net.node("a").bookings.bookings.values()
    assert booking.path == ("a", "b", "d") and is_guaranteed(net, "a1 -> d1")
    tell_rates(net, "ad")
    net.run(2)
    told = losses(net)
    net.world.cut("a", "b")
    for _ in range(50):
        net.run(0.1)
        assert is_guaranteed(net, "a1 -> d1")
    assert net.node("a").bookings.bookings == {}
    promises = guarantees(net, "a").promises
    assert promises.promised_bps("a-d") == 4000 and promises.promised_bps("a-b") == 0
    net.run(20)
    assert losses(net) == told
    assert is_guaranteed(net, "a1 -> d1") and net.asked("a1", "d1").refusal is None


def test_a_stream_that_waits_for_its_booking_is_guaranteed_on_its_own_link_when_the_path_breaks_first() -> None:
    net = around_a_silent_module()
    # The word that asks for the flow is lost.
    net.node("a").bookings._say = lambda booking: None
    tell_rates(net, "ab", "bd")
    for _ in range(400):
        net.run(0.05)
        if net.node("a").bookings.bookings:
            break
    assert net.node("a").bookings.bookings and not is_guaranteed(net, "a1 -> d1")
    tell_rates(net, "ad")
    net.world.cut("a", "b")
    net.run(6)
    assert net.node("a").bookings.bookings == {} and is_guaranteed(net, "a1 -> d1")
    assert guarantees(net, "a").promises.promised_bps("a-d") == 4000


def test_key_is_relayed_on_the_path_that_was_booked() -> None:
    ring = ("ab", "bd", "ac", "cd")
    rules = "rules: [{name: far, application: a1, peer: d1, class: guaranteed, rate: 8 kbps, burst: 2048 bit}]"
    net = network("abcd", ring, rules)
    (booking,) = net.node("a").bookings.bookings.values()
    other = "bc".replace(booking.path[1], "")
    relayed = net.node("a").context.counters["batches_relayed"]
    # The other way has far more stock by now: best effort would go there.
    stock(net, "a", other, 30)
    stock(net, other, "d", 30)
    for _ in range(60):
        net.ask("a1", "d1", size_bits=2048)
        net.run(0.25)
        assert net.node("a").relay.hops.paths["a", "d"] == booking.path
    assert net.node("a").context.counters["batches_relayed"] > relayed


# --- lent while idle, given back at once ------------------------------------------------------------------------------


def drained(net: Network) -> None:
    """Applications at m take all that they may of the link to d."""
    for _ in range(400):
        if net.asked("m2", "d2", size_bits=8192, seconds=0.02).refusal is not None:
            return
    raise AssertionError("the stock has no end")


def test_what_a_flow_may_claim_is_there_when_everything_else_is_drained() -> None:
    rules = "rules: [{name: far, application: a1, peer: d1, class: guaranteed, rate: 16 kbps, burst: 2048 bit}]"
    net = network(rules=rules)
    assert is_guaranteed(net, "a1 -> d1")
    drained(net)
    node = net.node("m")
    pair = net.pair("m", "d")
    (flow,) = (flow for (way, *_), flow in node.flows.flows.items() if way == "a")
    left = (pair.own_key.untouched + pair.pads.total()) * 8
    assert left >= flow.bucket.level(net.world.now), "its burst was not lent"
    assert left <= flow.contract.burst_bits + 16_000 + 2 * 65_536 * 8, "nothing else was kept"
    assert not node.relay.pads.refusal(pair, flow.contract.burst_bits // 8, Way("a", "a", "d"))
    assert "kept for guarantees" in node.relay.pads.refusal(pair, left // 8, Way("b", "b", "d"))


def test_a_flow_that_is_idle_costs_others_none_of_the_rate() -> None:
    rules = "rules: [{name: far, application: a1, peer: d1, class: guaranteed, rate: 16 kbps, burst: 2048 bit}]"
    net = network(rules=rules)
    drained(net)
    given = 0
    for step in range(200):
        if step % 2 == 0:
            net.block("d", "m", int(RATE_BPS * BLOCK_S / 8))
        requests = [net.ask("m2", "d2", size_bits=2048) for _ in range(4)]
        net.run(0.1)
        answers = [net.answers.get(request) for request in requests]
        given += sum(2048 for one in answers if one is not None and one.deliver.refusal is None)
    assert given >= 0.9 * 20 * RATE_BPS / 2


# --- numbers that are not as they should be ---------------------------------------------------------------------------

numbers = itertools.count(1)


def middle() -> Node:
    net = Network("fgmd", ends=("fm", "gm", "dm"))
    net.run(1)
    net.report("d", "m", RATE_BPS, int(BLOCK_S * 1e9))
    for _ in range(8):
        net.block("d", "m", 65_536)
        net.run(0.2)
    node: Node = net.node("m")
    node.context.plain_outbox.clear()
    return node


def book(
    node: Node,
    by: str,
    source: str = "",
    rate: int = 1000,
    burst: int = 20_000,
    number: int = 0,
    lifetime: int = 30_000,
) -> AnswerFlow | None:
    """What m says at once; None: it passed the word on."""
    path = (by, "m", "d") if source in ("", by) else (source, by, "m", "d")
    node.flows.book(by, BookFlow(number or next(numbers), path, rate, burst, lifetime))
    said, on = node.context.plain_outbox.pop(by, []), node.context.plain_outbox.pop("d", [])
    if said:
        assert isinstance(said[0], AnswerFlow) and not said[0].booked
        return said[0]
    assert len(on) == 1
    return None


def booked_bps(node: Node) -> int:
    return sum(flow.contract.rate_bps for flow in node.flows.flows.values())


def test_a_source_that_asks_without_end_gets_its_share_of_a_link_and_no_more() -> None:
    node = middle()
    refusals = [one for _ in range(100) if (one := book(node, "f")) is not None]
    assert booked_bps(node) == PROMISED_BPS * SOURCE_SHARE_PERCENT // 100 // 1000 * 1000
    assert all("source f may book" in one.reason for one in refusals)
    assert book(node, "g") is None, "another source is not touched by it"


def test_a_neighbour_that_invents_sources_does_not_book_a_link_full() -> None:
    node = middle()
    for number in range(200):
        book(node, "f", f"x{number}")
    assert booked_bps(node) <= PROMISED_BPS * NEIGHBOUR_SHARE_PERCENT // 100
    assert book(node, "g", rate=8000) is None
    promises = node.supply.governed.guarantees.promises
    assert promises.promised_bps("d-m") <= PROMISED_BPS


def test_a_neighbour_that_books_tiny_flows_fills_its_own_places_only() -> None:
    node = middle()
    for number in range(FLOWS_PER_NEIGHBOUR + 10):
        book(node, "f", f"x{number}", rate=1, burst=64)
    assert len(node.flows.flows) == FLOWS_PER_NEIGHBOUR
    assert book(node, "g") is None


def test_flows_that_spend_nothing_leave_best_effort_its_floor_of_a_links_stock() -> None:
    node = middle()
    pair = node.context.pairs[NodeId("d")]
    stock_bits = (pair.own_key.untouched + pair.pads.total()) * 8
    burst = stock_bits // 40
    for number in range(40):
        for neighbour in ("f", "g"):
            book(node, neighbour, f"{neighbour}{number}", rate=1, burst=burst)
    booked = sum(flow.contract.burst_bits for flow in node.flows.flows.values())
    assert 0.8 * stock_bits < booked <= 0.9 * stock_bits
    assert {key[0] for key in node.flows.flows} == {"f", "g"}


@pytest.mark.parametrize(
    ("rate", "burst", "said"),
    [
        (1 << 40, 20_000, "may book"),
        (1000, 1 << 40, "may book"),
        (1 << 40, 1 << 40, "may book"),
        (1000, 63, "holds no key"),
    ],
)
def test_a_flow_of_absurd_size_is_refused_and_nothing_is_kept(rate: int, burst: int, said: str) -> None:
    node = middle()
    refused = book(node, "f", rate=rate, burst=burst)
    assert refused is not None and said in refused.reason
    assert not node.flows.flows and refused.offer_bps <= PROMISED_BPS * SOURCE_SHARE_PERCENT // 100


@pytest.mark.parametrize("field", ["rate_bps", "burst_bits", "lifetime_ms", "number"])
@pytest.mark.parametrize("value", [-1, 1 << 63, 1.5, "1", None])
def test_numbers_that_are_none_are_refused_where_they_are_read(field: str, value: object) -> None:
    message = BookFlow(1, ("f", "m", "d"), 1000, 20_000, 30_000)
    wrong = encode(Plain((msgspec.structs.replace(message, **{field: value}),)))
    with pytest.raises(PeerError):
        decode(FrameType.PLAIN, wrong)


@pytest.mark.parametrize("field", ["rate_bps", "burst_bits", "lifetime_ms"])
def test_a_flow_of_nothing_is_none(field: str) -> None:
    message = BookFlow(1, ("f", "m", "d"), 1000, 20_000, 30_000)
    with pytest.raises(PeerError):
        decode(FrameType.PLAIN, encode(Plain((msgspec.structs.replace(message, **{field: 0}),))))


@pytest.mark.parametrize(
    "path", [("m", "d"), ("f", "d"), ("f", "m"), ("g", "m", "d"), ("f", "m", "f"), ("f", "m", "d", "f"), ()]
)
def test_a_flow_whose_path_is_none_breaks_the_protocol(path: tuple[str, ...]) -> None:
    node = middle()
    with pytest.raises(PeerError):
        node.flows.book("f", BookFlow(1, path, 1000, 20_000, 30_000))
    assert not node.flows.flows


def test_nobody_ends_or_refuses_the_flow_of_another() -> None:
    node = middle()
    assert book(node, "f", number=7) is None
    node.flows.ended("g", EndFlow(7, ("g", "m", "d")))
    node.flows.ended("g", EndFlow(7, ("f", "g", "m", "d")))
    with pytest.raises(PeerError):
        node.flows.ended("g", EndFlow(7, ("f", "m", "d")))
    with pytest.raises(PeerError):
        node.flows.answered("g", AnswerFlow(7, ("f", "m", "d"), False, "d", "", 0, 0))
    node.flows.answered("d", AnswerFlow(7, ("g", "m", "d"), False, "d", "", 0, 0))
    assert not node.context.plain_outbox, "an answer to what nobody asked goes nowhere"
    assert len(node.flows.flows) == 1


def test_a_flow_that_is_said_again_is_not_booked_twice_and_not_otherwise() -> None:
    node = middle()
    assert book(node, "f", number=7) is None and book(node, "f", number=7) is None
    assert booked_bps(node) == 1000
    refused = book(node, "f", number=7, rate=2000)
    assert refused is not None and "booked otherwise" in refused.reason


def test_a_flow_that_is_not_said_again_ends_when_it_said_it_would() -> None:
    net = Network("fmd", ends=("fm", "dm"))
    net.run(1)
    net.report("d", "m", RATE_BPS, int(BLOCK_S * 1e9))
    net.block("d", "m", 65_536)
    net.run(0.5)
    node = net.node("m")
    node.flows.book("f", BookFlow(1, ("f", "m", "d"), 1000, 20_000, 1000))
    net.run(0.4)
    assert node.flows.flows
    net.run(2)
    assert not node.flows.flows and node.supply.governed.guarantees.promises.promised_bps("d-m") == 0


def test_a_node_whose_link_has_no_rate_yet_promises_nothing() -> None:
    net = Network("fmd", ends=("fm", "dm"))
    net.run(1)
    node = net.node("m")
    node.flows.book("f", BookFlow(1, ("f", "m", "d"), 1000, 20_000, 1000))
    assert not node.flows.flows


def test_the_destination_answers_and_keeps_nothing() -> None:
    net = Network("fmd", ends=("fm", "dm"))
    net.run(1)
    node = net.node("d")
    node.flows.book("m", BookFlow(1, ("f", "m", "d"), 1000, 20_000, 1000))
    assert node.context.plain_outbox["m"] == [AnswerFlow(1, ("f", "m", "d"), True, "", "", 0, 0)]
    assert not node.flows.flows


@pytest.mark.parametrize("rate", [1, 999, 4000, 123_456, 10**9])
def test_what_a_flow_is_offered_carries_no_more_than_its_stream(rate: int) -> None:
    contract = Contract(rate, 65_536)
    back = stream_of(flow_of(contract))
    assert back.rate_bps in (rate - 1, rate) and abs(back.burst_bits - contract.burst_bits) <= 2 * rate + 2
    assert flow_of(back).rate_bps <= flow_of(contract).rate_bps


def test_a_refused_request_says_who_refused_the_guarantee() -> None:
    net = network()
    _, second = one_of_two(net)
    # Asked one by one they would drain the link in the middle, too, and nothing could be offered there.
    answer = net.asked(f"{second}1", "d1", number=128, size_bits=8192, seconds=0.1)
    assert "guarantee_offer_bps" in why(answer) and "guarantee_refused_by" in why(answer)


# --- under load -------------------------------------------------------------------------------------------------------


def test_no_admitted_stream_is_violated_when_the_middle_link_is_asked_for_twice_what_it_gives() -> None:
    rules = RULES.replace("16 kbps", "8 kbps")
    net = network(rules=rules)
    # (requests a second, bits of each): guaranteed streams ask what they were promised, others for more than there is.
    guaranteed = {("a1", "d1"): (31, 256), ("b1", "d1"): (31, 256), ("m1", "d1"): (39, 256)}
    others = {("a2", "d2"): (20, 2048), ("b2", "d2"): (20, 2048), ("m2", "d2"): (40, 2048)}
    asking = guaranteed | others
    assert all(is_guaranteed(net, f"{master} -> {slave}") for master, slave in guaranteed)
    asked: dict[tuple[str, str], list[int]] = {pair: [] for pair in asking}
    for step in range(1000):
        if step % 10 == 0:
            for end in STAR:
                net.block(*end, int(RATE_BPS * BLOCK_S / 8))
        for pair, (per_second, size_bits) in asking.items():
            while len(asked[pair]) < step * per_second / 50:
                asked[pair].append(net.ask(*pair, size_bits=size_bits))
        net.run(1 / 50)
    net.run(2)
    given = {
        pair: sum(net.answers[request].deliver.refusal is None for request in requests)
        for pair, requests in asked.items()
    }
    for pair in guaranteed:
        assert given[pair] == len(asked[pair]), f"{pair}: {given[pair]} of {len(asked[pair])}"
    assert all(given[pair] < len(asked[pair]) for pair in others), "there was not enough for all"
    assert sum(given[pair] for pair in others) * 2048 >= 0.1 * 20 * RATE_BPS * 9 // 20, "best effort: its floor"


def test_what_flows_may_claim_is_not_kept_from_relay_for_them() -> None:
    net = network()
    pair = net.node("m").context.pairs[NodeId("d")]
    here = guarantees(net, "m")
    assert is_guaranteed(net, "m1 -> d1")
    promised, claimed = here.held_bytes(pair), here.claimed_bytes(pair)
    now = net.node("m").context.now
    here.kept_bits = lambda pair: 8_000_000 + here.pad_bits(pair)
    assert here.of(pair).held_bits(now) >= 8_000_000, "supply leaves it alone"
    assert here.held_bytes(pair) == promised <= 2048 // 8 + held_for_gap(10_000, int(BLOCK_S * 1e9)) // 8 + 1
    assert here.claimed_bytes(pair) == claimed
