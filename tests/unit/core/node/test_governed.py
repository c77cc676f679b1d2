"""Requests with demands, and requests under a policy: what they get, and what they are refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from governed_worlds import Network, demands, why

from keyhop.core.constraints import NO_CONSTRAINTS, UNMET, admits
from keyhop.core.epsilon import bound, epsilon
from keyhop.core.label import Grade
from keyhop.core.model import NodeId, Refusal
from keyhop.core.node.events import Coordinates, Fetch, KeysFetched
from keyhop.core.node.provenance import label_within
from keyhop.core.node.stretching import view_of

# --- demands of requests ----------------------------------------------------------------------------------------------


def filled(*blocks: dict[str, Any]) -> Network:
    network = Network()
    network.run(1)
    for block in blocks or ({},):
        network.block("a", "b", **block)
        network.run(1)
    return network


def test_a_key_is_labelled_with_what_its_block_was_declared_as() -> None:
    network = filled({"length": 65_536, "epsilon": 1e-9, "vendor": "acme"})
    given = network.asked("a1", "b1", number=2)
    assert given.refusal is None and len(given.labels) == 2
    key = given.labels[0]
    assert key.epsilon == epsilon(1e-9) and key.vendors == {"acme"} and key.grade is Grade.ITS
    assert key.paths == {("a", "b")} and key.hops == 1
    assert network.same(given, "a1", "b1")


def test_a_demand_picks_the_key_that_meets_it_out_of_the_midst_of_the_stock() -> None:
    network = filled({"epsilon": 1e-6}, {"epsilon": 1e-10}, {"epsilon": 1e-6})
    network.asked("a1", "b1", number=8)
    given = network.asked("a1", "b1", demands(max_epsilon=1e-10))
    assert given.refusal is None and given.labels[0].epsilon == epsilon(1e-10)
    assert network.same(given, "a1", "b1")
    still = network.asked("a1", "b1", number=2)
    assert still.refusal is None and network.same(still, "a1", "b1")


def test_what_no_key_meets_is_refused_with_the_reason_and_takes_nothing() -> None:
    network = filled({"epsilon": 1e-9})
    before = network.pair("a", "b").own_key.book.snapshot()
    refused = network.asked("a1", "b1", demands(max_epsilon=1e-12, vendor="other"))
    assert refused.refusal is not None and refused.refusal.reason is Refusal.UNSUPPORTED
    assert refused.refusal.message == UNMET
    assert {detail["extension_mandatory_unmet"] for detail in refused.refusal.details} == {
        "keyhop_max_epsilon",
        "keyhop_vendor",
    }
    assert network.pair("a", "b").own_key.book.snapshot() == before


@pytest.mark.parametrize(
    ("demanded", "block", "met"),
    [
        ({"max_epsilon": 1e-10}, {"epsilon": 0.0}, False),
        ({"its_only": True}, {}, True),
        ({"vendor": "acme"}, {}, True),
        ({"vendor": {"refused": ["acme"]}}, {}, False),
        ({"vendor": "acme"}, {"vendor": ""}, False),
        ({"min_vendors": 2}, {}, False),
        ({"avoid_node": "c"}, {}, True),
        ({"avoid_node": "b"}, {}, False),
        ({"max_hops": 1}, {}, True),
        ({"max_hops": 0}, {}, False),
        ({"rng": "qkd"}, {}, True),
        ({"rng": ["qrng", "os"]}, {}, False),
        ({"min_trust": "direct"}, {}, True),
    ],
)
def test_a_demand_on_a_link(demanded: dict[str, Any], block: dict[str, Any], met: bool) -> None:
    network = filled({"length": 65_536, **block})
    given = network.asked("a1", "b1", demands(**demanded))
    assert (given.refusal is None) is met, given
    if not met:
        assert f"keyhop_{next(iter(demanded))}" in why(given)


def test_key_ages_also_over_a_restart() -> None:
    network = filled({"length": 65_536})
    assert network.asked("a1", "b1", demands(max_age=60)).refusal is None
    network.run(30)
    process = network.world.processes[NodeId("a")]
    process.crash()
    network.run(0.1)
    process.start()
    network.run(35)
    refused = network.asked("a1", "b1", demands(max_age=60))
    assert "keyhop_max_age" in why(refused)
    assert network.asked("a1", "b1", demands(max_age=3600)).refusal is None


def test_a_preference_is_kept_where_it_costs_nothing_and_dropped_where_it_does() -> None:
    network = filled({"epsilon": 1e-6}, {"epsilon": 1e-10})
    network.asked("a1", "b1", demands(max_epsilon=1e-10))
    given = network.asked("a1", "b1", preferred=demands(max_epsilon=1e-10))
    assert given.labels[0].epsilon == epsilon(1e-10)
    given = network.asked("a1", "b1", preferred=demands(max_epsilon=1e-20))
    assert given.refusal is None


def test_a_demand_that_a_request_without_a_policy_makes_of_a_local_key() -> None:
    network = filled()
    assert network.asked("a1", "a2").refusal is None
    assert network.asked("a1", "a2", demands(max_hops=0)).labels[0].grade is Grade.LOCAL
    assert "keyhop_its_only" in why(network.asked("a1", "a2", demands(its_only=True)))


# --- over relay -------------------------------------------------------------------------------------------------------


def line(
    rules: str | None = None, first: dict[str, Any] | None = None, second: dict[str, Any] | None = None
) -> Network:
    network = Network("abc", rules)
    network.run(1)
    for _ in range(6):
        network.block("a", "b", 32_768, **({"epsilon": 1e-10, "vendor": "acme"} | (first or {})))
        network.block("b", "c", 32_768, **({"epsilon": 1e-11, "vendor": "other"} | (second or {})))
        network.run(0.5)
    network.run(10)
    return network


def test_a_relayed_key_has_the_sum_of_both_links_the_path_and_both_vendors_at_both_ends() -> None:
    network = line()
    given = network.asked("a1", "c1", seconds=3)
    (key,) = given.labels
    assert key.epsilon == epsilon("1.1e-10") and key.vendors == {"acme", "other"} and key.min_vendors == 1
    assert key.paths == {("a", "b", "c")} and key.trust.name == "FULL"
    (range_,) = given.ranges
    there = network.pair("c", "a").runs[range_.run.number].origins
    other = label_within(there, range_.start, range_.end, ("a", "c"), 0)
    assert (other.terms, other.paths, other.vendors, other.trust) == (key.terms, key.paths, key.vendors, key.trust)
    assert network.same(given, "a1", "c1")


@pytest.mark.parametrize(
    ("demanded", "met"),
    [
        ({"max_epsilon": "1.1e-10"}, True),
        ({"max_epsilon": "1.09e-10"}, False),
        ({"vendor": ["acme", "other"]}, True),
        ({"vendor": ["acme"]}, False),
        ({"vendor": {"refused": ["other"]}}, False),
        ({"max_hops": 2}, True),
        ({"max_hops": 1}, False),
        ({"avoid_node": "b"}, False),
        ({"avoid_node": "x"}, True),
        ({"min_trust": "direct"}, False),
        ({"its_only": True, "max_age": 600}, True),
    ],
)
def test_a_demand_on_a_relayed_key(demanded: dict[str, Any], met: bool) -> None:
    network = line()
    given = network.asked("a1", "c1", demands(**demanded), seconds=3)
    assert (given.refusal is None) is met, given


def test_a_link_on_the_path_that_declares_nothing_leaves_the_key_without_a_claim() -> None:
    network = line(second={"epsilon": 0.0})
    assert network.asked("a1", "c1", seconds=3).labels[0].epsilon is None
    assert "keyhop_max_epsilon" in why(network.asked("a1", "c1", demands(max_epsilon=1), seconds=3))


@pytest.mark.parametrize("seed", range(6))
def test_no_key_leaves_above_the_asked_bound(seed: int) -> None:
    """Blocks of any epsilon on two links, requests of any bound, direct and relayed, on both ends."""
    draw = random.Random(seed)
    network = Network("abc")
    network.run(1)
    figures = [1e-12, 1e-11, 1e-10, 1e-9, 0.0]
    given, refused = 0, 0
    for _ in range(25):
        for link in (("a", "b"), ("b", "c")):
            network.block(*link, draw.choice((4096, 16_384)), draw.choice(figures), draw.choice(["acme", "other"]))
        network.run(0.4)
        for master, slave in (("a1", "b1"), ("b1", "a2"), ("a1", "c1"), ("c2", "a1")):
            asked = demands(max_epsilon=draw.choice([1e-12, 1e-11, 3e-11, 1e-10, 1e-9, 1e-6]))
            answer = network.asked(
                master, slave, asked, 0.2, number=draw.randint(1, 3), size_bits=draw.choice((256, 4096))
            )
            if answer.refusal is not None:
                refused += 1
                continue
            given += len(answer.labels)
            run_ = network.pair(master[0], slave[0]).own_key
            for key, place in zip(answer.labels, answer.ranges, strict=True):
                true = label_within(run_.origins, place.start, place.end, (master[0], slave[0]), 0)
                assert key.epsilon == true.epsilon is not None
                assert key.epsilon <= (asked.max_epsilon or 0)
                assert admits(key, asked, network.node(master[0]).context.wall_now) == ()
    assert given > 20 and refused > 5


# --- a policy ---------------------------------------------------------------------------------------------------------


def governed(rules: str, *blocks: dict[str, Any], **more: Any) -> Network:
    network = Network("ab", rules, **more)
    network.run(1)
    for block in blocks or ({"length": 65_536},):
        network.block("a", "b", **block)
    network.run(3)
    return network


def test_sizes_are_those_of_the_rule() -> None:
    network = governed("rules: [{name: small, application: a1, key_size: {default: 128, min: 64, max: 128}}]")
    refused = network.asked("a1", "b1", size_bits=256)
    assert refused.refusal is not None and refused.refusal.reason is Refusal.BAD_REQUEST
    assert "64 to 128" in refused.refusal.message
    assert network.asked("a1", "b1", size_bits=128).refusal is None
    assert network.asked("a2", "b1", size_bits=256).refusal is None


def test_a_pair_that_no_rule_makes_special_is_dealt_key_by_the_edge_alone() -> None:
    network = governed("rules: [{name: small, application: a1, quota: {pair: {rate: 1 kbps, burst: 1 kbit}}}]")
    supply = network.node("a").supply
    assert supply.grant("a2", "b1") is not None and supply.grant("a1", "b1") is None


def test_bounds_of_the_policy_and_of_the_request_count_together() -> None:
    rules = "rules: [{name: strict, application: a1, bounds: {max_epsilon: 1e-9}}]"
    network = governed(rules, {"epsilon": 1e-6}, {"epsilon": 1e-9}, {"epsilon": 1e-10})
    assert network.asked("a1", "b1").labels[0].epsilon == epsilon(1e-9)
    assert network.asked("a1", "b1", demands(max_epsilon=1e-10)).labels[0].epsilon == epsilon(1e-10)
    assert network.asked("a1", "b1", demands(max_epsilon=1e-3)).labels[0].epsilon == epsilon(1e-9)
    assert network.asked("a2", "b1").refusal is None


@pytest.mark.parametrize("whose", ["application", "pair"])
def test_a_quota_of_bits_is_for_an_application_with_all_its_peers_or_for_a_pair(whose: str) -> None:
    rules = f"rules: [{{name: q, application: a1, quota: {{{whose}: {{rate: 100 bps, burst: 1 kbit}}}}}}]"
    network = governed(rules)
    assert all(network.asked("a1", "b1", seconds=0.01).refusal is None for _ in range(3))
    refused = network.asked("a1", "b1", seconds=0.01)
    assert refused.refusal is not None and refused.refusal.reason is Refusal.RATE_LIMITED
    assert 0 < (refused.refusal.retry_after_s or 0) < 1
    assert (network.asked("a1", "b2", seconds=0.01).refusal is None) is (whose == "pair")
    assert network.asked("a2", "b1", seconds=0.01).refusal is None
    network.run(3)
    assert network.asked("a1", "b1", seconds=0.01).refusal is None


def test_a_quota_of_requests_and_what_it_never_allows() -> None:
    network = governed(
        "rules: [{name: q, quota: {application: {requests_per_s: 1, requests_burst: 2},"
        " pair: {rate: 1 kbps, burst: 1 kbit}}}]"
    )
    refused = network.asked("a1", "b1", number=8, seconds=0.01)
    assert refused.refusal is not None and refused.refusal.reason is Refusal.BAD_REQUEST
    assert [network.asked("a1", "b1", seconds=0.01).refusal is None for _ in range(3)] == [True, True, False]


def test_a_refused_request_costs_no_quota() -> None:
    network = governed("rules: [{name: q, application: a1, quota: {pair: {rate: 1 kbps, burst: 1 kbit}}}]")
    for _ in range(10):
        assert network.asked("a1", "b1", demands(max_epsilon=1e-20), 0.001, size_bits=1000 // 8 * 8).refusal is not None
    assert network.asked("a1", "b1", size_bits=512).refusal is None


def test_a_link_quota_is_for_all_its_applications_together() -> None:
    network = governed("rules: []\nlinks: [{link: a-*, quota: {rate: 100 bps, burst: 1 kbit}}]")
    answers = [network.asked(master, "b1", seconds=0.01) for master in ("a1", "a2", "a1", "a2")]
    assert [answer.refusal is None for answer in answers] == [True, True, True, False]


def test_the_reserve_of_a_link_is_left_for_the_node_itself() -> None:
    network = governed("rules: []\nlinks: [{link: a-b, reserve: 16 kB}]")
    while network.asked("a1", "b1", size_bits=8192, seconds=0.05).refusal is None:
        pass
    assert 16_000 <= network.pair("a", "b").own_key.untouched <= 16_000 + 2 * 1024
    assert network.pair("a", "b").stock.left < 1024
    node, ahead, _ = network.node("a").supply.count_available("a1", "b1")
    assert node == "b" and ahead <= network.pair("a", "b").stock.left // 32 + 2 * 32


def test_waiting_is_as_long_as_the_policy_says_and_ends_with_key_or_a_refusal() -> None:
    rules = "rules: [{name: patient, application: a1, fallback: wait 5 s}]"
    network = Network("ab", rules)
    network.run(1)
    first, second = network.ask("a1", "b1"), network.ask("a2", "b1")
    network.run(4.5)
    assert second in network.answers and first not in network.answers
    network.block("a", "b", 65_536)
    network.run(0.3)
    assert network.answers[first].deliver.refusal is None
    third = network.ask("a1", "b1", demands(max_epsilon=1e-20))
    network.run(4.9)
    assert third not in network.answers
    network.run(0.2)
    assert "keyhop_max_epsilon" in why(network.answers[third].deliver)


def test_a_request_that_waits_for_better_key_gets_it_as_soon_as_it_is_there() -> None:
    network = governed("rules: [{name: patient, application: a1, fallback: wait 5 s}]", {"epsilon": 1e-6})
    request = network.ask("a1", "b1", demands(max_epsilon=1e-10))
    network.run(2)
    assert request not in network.answers
    network.block("a", "b", 16_384, epsilon=1e-11)
    network.run(0.3)
    assert network.answers[request].deliver.labels[0].epsilon == epsilon(1e-11)


def test_whose_client_is_gone_waits_no_longer() -> None:
    network = Network("ab", "default: {fallback: wait 5 s}")
    network.run(1)
    request = network.ask("a1", "b1")
    network.run(0.1)
    network.give_up("a", request)
    network.run(0.1)
    assert network.answers[request].deliver.refusal is not None
    assert not any(network.node("a").supply.governed.waiting.values())


def test_bounds_hold_for_local_keys_too() -> None:
    network = governed("rules: [{name: strict, application: a1, bounds: {its_only: true}}]")
    assert "keyhop_its_only" in why(network.asked("a1", "a2"))
    assert network.asked("a2", "a1").refusal is None


def test_the_bound_is_compared_in_exact_units() -> None:
    assert demands(max_epsilon=1e-10).max_epsilon == bound("1e-10") == epsilon(1e-10)
    assert demands() is NO_CONSTRAINTS


# --- derived keys -----------------------------------------------------------------------------------------------------


def coordinates(network: Network, number: int, start: int, length: int) -> bool:
    """Whether the far node hands out a key of this place."""
    request = network.world.request()
    fetch = Fetch(request, (Coordinates(number, start, length),))
    network.world.processes[NodeId("b")].feed(KeysFetched("a", [fetch]))
    network.run(0.3)
    return network.answers[request].deliver.refusal is None


def test_a_place_leased_for_keys_is_no_parent_and_one_leased_for_parents_is_no_key() -> None:
    network = governed("default: {fallback: derive}")
    given = network.asked("a1", "b1", number=100, size_bits=8192)
    assert given.refusal is None and len(given.derived) == 100
    plain = network.asked("a1", "b1")
    place = plain.ranges[0]
    assert not coordinates(network, view_of(place.run), place.start - place.start % 32, 32)
    parent = given.ranges[0]
    assert not coordinates(network, parent.run.number, parent.start, 32), "a parent is given to nobody"
    child = given.derived[0].named
    assert coordinates(network, child.run.number, child.start, child.length)
    assert not coordinates(network, child.run.number, child.start, child.length), "once"
    assert coordinates(network, place.run.number, place.start, place.length), "the key is still there"


def test_parents_are_burnt_by_a_restart_as_all_leases_are_and_given_children_can_be_fetched() -> None:
    network = governed("default: {fallback: derive}")
    given = network.asked("a1", "b1", number=128, size_bits=8192)
    assert given.derived
    process = network.world.processes[NodeId("a")]
    process.crash()
    network.run(0.1)
    process.start()
    network.run(8)
    again = network.asked("a1", "b1", number=128, size_bits=8192)
    assert again.derived and not {one.start for one in given.ranges} & {one.start for one in again.ranges}
    child = given.derived[7].named
    assert coordinates(network, child.run.number, child.start, child.length)
