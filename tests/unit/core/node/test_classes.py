"""Classes of service at a node: what is guaranteed is kept, what is left is shared, whatever is asked for."""

from __future__ import annotations

import random

import pytest
from governed_worlds import Network, why

from keyhop.core.policy_rules import ServiceClass

RATE_BPS = 100_000
"""Of the link, both directions together: one of them is driven here and gets half."""
BLOCK_S = 0.2
KEY_BITS = 256
GUARANTEED_BPS = 30_000

RULES = f"""
rules:
  - {{name: gold, application: a1, peer: b1, class: guaranteed, rate: {GUARANTEED_BPS} bps, burst: 2048 bit}}
  - {{name: silver, application: a1, peer: b2, class: prioritised}}
"""


def loaded(rules: str = RULES) -> Network:
    network = Network("ab", rules)
    network.run(1)
    network.report("a", "b", RATE_BPS, int(BLOCK_S * 1e9))
    network.block("a", "b", 65_536)
    network.run(3)
    return network


def drive(network: Network, seconds: float, asking: dict[tuple[str, str], float], seed: int = 1) -> dict:
    """Each pair asks at its rate (bit/s); the link gives blocks at its own. (asked, given, late) per pair."""
    draw = random.Random(seed)
    asked: dict[tuple[str, str], list[int]] = {pair: [] for pair in asking}
    due = {pair: draw.random() * KEY_BITS / rate for pair, rate in asking.items()}
    block_due = 0.0
    for step in range(int(seconds * 200)):
        now = step / 200
        if now >= block_due:
            network.block("a", "b", int(RATE_BPS * BLOCK_S / 8))
            block_due += BLOCK_S
        for pair, rate in asking.items():
            while due[pair] <= now:
                asked[pair].append(network.ask(*pair))
                due[pair] += KEY_BITS / rate * (draw.uniform(0.5, 1.5) if rate != GUARANTEED_BPS else 1)
        network.run(1 / 200)
    network.run(1.5)
    found = {}
    for pair, requests in asked.items():
        given = sum(network.answers[request].deliver.refusal is None for request in requests)
        found[pair] = (len(requests), given)
    return found


GOLD, SILVER, IRON = ("a1", "b1"), ("a1", "b2"), ("a2", "b1")


def test_an_admitted_guarantee_is_never_violated_at_twice_the_load_and_best_effort_keeps_its_floor() -> None:
    network = loaded()
    seconds = 30.0
    result = drive(network, seconds, {GOLD: GUARANTEED_BPS, SILVER: 85_000, IRON: 85_000})
    asked, given = result[GOLD]
    assert asked == given and asked > seconds * GUARANTEED_BPS / KEY_BITS * 0.95
    floor = 0.1 * RATE_BPS / 2 * seconds / KEY_BITS
    assert result[IRON][1] >= floor
    assert result[SILVER][1] > 0.99 * result[IRON][1], "the better class gets no less"
    assert result[SILVER][1] < result[SILVER][0] and result[IRON][1] < result[IRON][0], "there was not enough for all"


def test_a_guarantee_that_is_idle_is_lent() -> None:
    network = loaded()
    result = drive(network, 20, {SILVER: 30_000, IRON: 30_000})
    bits = sum(given for _, given in result.values()) * KEY_BITS
    assert bits >= 0.9 * 20 * RATE_BPS / 2


def test_a_guarantee_that_the_link_cannot_promise_is_best_effort_and_says_what_could_be() -> None:
    network = loaded(RULES.replace(str(GUARANTEED_BPS), "90000"))
    said = [notice for notice in network.world.processes["a"].notices if notice.code == "KH-2104"]  # type: ignore[index]
    assert len(said) == 1 and "offered: 40500 bit/s" in said[0].text
    shares = network.node("a").supply.governed.guarantees
    assert shares._joined["b"]["a1 -> b1"] is ServiceClass.BEST_EFFORT
    while network.asked("a1", "b1", size_bits=8192, seconds=0.02).refusal is None:
        pass
    refused = network.asked("a1", "b1", size_bits=8192, seconds=0.02)
    assert "'guarantee_offer_bps': 40500" in why(refused)


def test_a_guarantee_is_taken_away_when_its_link_slows_down_and_given_back_when_it_recovers() -> None:
    network = loaded()
    joined = network.node("a").supply.governed.guarantees._joined["b"]
    assert joined["a1 -> b1"] is ServiceClass.GUARANTEED
    network.report("a", "b", RATE_BPS // 4, int(BLOCK_S * 1e9))
    network.run(2.5)
    assert joined["a1 -> b1"] is ServiceClass.BEST_EFFORT
    network.report("a", "b", RATE_BPS, int(BLOCK_S * 1e9))
    network.run(2.5)
    assert joined["a1 -> b1"] is ServiceClass.GUARANTEED
    codes = [notice.code for notice in network.world.processes["a"].notices if notice.code.startswith("KH-210")]  # type: ignore[index]
    assert codes == ["KH-2104", "KH-2105"]


def test_what_a_guarantee_may_claim_stays_in_the_stock() -> None:
    network = loaded()
    while network.asked("a2", "b1", size_bits=8192, seconds=0.02).refusal is None:
        pass
    refused = network.asked("a2", "b1", size_bits=8192, seconds=0.02)
    assert "are held for guaranteed streams" in why(refused)
    for _ in range(8):
        assert network.asked("a1", "b1", seconds=0.02).refusal is None


def test_other_peers_of_a_node_with_classes_are_dealt_key_by_the_edge() -> None:
    network = Network("abc", "rules: [{name: gold, application: b1, peer: a1, class: prioritised}]")
    network.run(2)
    supply = network.node("b").supply
    assert supply.grant("b2", "a2") is None and supply.grant("b2", "c2") is not None


def test_those_of_a_class_who_wait_are_served_by_weight_and_category() -> None:
    rules = """
rules:
  - {name: heavy, application: a1, peer: b1, class: prioritised, weight: 2, category: 4}
default: {class: prioritised, fallback: wait 20 s}
"""
    network = Network("ab", rules.replace("category: 4}", "category: 4, fallback: wait 20 s}"))
    network.run(2)
    waiting = {pair: [network.ask(*pair, size_bits=1024) for _ in range(400)] for pair in (GOLD, SILVER)}
    network.report("a", "b", RATE_BPS, int(BLOCK_S * 1e9))
    network.run(1)
    for _ in range(8):
        network.block("a", "b", 8192)
        network.run(1.2)
    gold, silver = (sum(request in network.answers for request in waiting[pair]) for pair in (GOLD, SILVER))
    assert silver and 3 <= gold / silver <= 5, "twice the weight, one category better"


def test_a_guarantee_over_a_relay_is_kept_out_of_the_pool_that_is_filled_ahead() -> None:
    rules = """
rules: [{name: gold, application: a1, peer: c1, class: guaranteed, rate: 4 kbps, burst: 1024 bit}]
"""
    network = Network("abc", rules)
    network.run(1)
    for link in (("a", "b"), ("b", "c")):
        network.report(*link, RATE_BPS, int(BLOCK_S * 1e9))
        network.block(*link, 65_536)
    network.run(12)
    guarantees = network.node("a").supply.governed.guarantees
    assert guarantees._joined["c"]["a1 -> c1"] is ServiceClass.GUARANTEED
    assert set(guarantees.promises.streams["a1 -> c1"][1]) == {"b-c", "pool of c"}
    assert guarantees.promises.streams["a1 -> c1 relayed"][1] == ("a-b",)
    given = late = 0
    others: list[int] = []
    for step in range(200):
        if step % 4 == 0:
            for link in (("a", "b"), ("b", "c")):
                network.block(*link, int(RATE_BPS * BLOCK_S / 8))
        request = network.ask("a1", "c1") if step % 2 == 0 else 0
        others += [network.ask("a2", "c1", size_bits=8192), network.ask("a2", "c2", size_bits=8192)]
        network.run(0.05)
        if request:
            network.run(0.01)
            answered = network.answers.get(request)
            given += answered is not None and answered.deliver.refusal is None
            late += answered is None
    assert (given, late) == (100, 0)
    network.run(3)
    refused = sum(network.answers[request].deliver.refusal is not None for request in others)
    assert 0 < refused < len(others), "the others got what was left"


def test_a_guarantee_is_not_promised_beyond_the_slowest_link_of_its_path() -> None:
    network = Network("abc", "rules: [{name: gold, application: a1, peer: c1, class: guaranteed, rate: 30 kbps}]")
    network.run(1)
    network.report("a", "b", RATE_BPS, int(BLOCK_S * 1e9))
    network.report("b", "c", RATE_BPS // 4, int(BLOCK_S * 1e9))
    for link in (("a", "b"), ("b", "c")):
        network.block(*link, 65_536)
    network.run(12)
    guarantees = network.node("a").supply.governed.guarantees
    answer = guarantees.answers["a1 -> c1"]
    assert answer.narrowest == "b-c" and answer.offer is not None and answer.offer.rate_bps <= RATE_BPS // 8


@pytest.mark.parametrize("wish", ["guaranteed, rate: 8 kbps", "prioritised", "best_effort"])
def test_pools_of_global_key_are_filled_in_the_order_of_class(wish: str) -> None:
    """Two destinations behind one link with little key: which is filled first."""
    rules = f"rules: [{{name: r, application: a1, peer: c1, class: {wish}}}]"
    network = Network("abc", rules)
    towards = network.node("a").supply.governed.towards
    assert towards("c")[0] == wish.split(",")[0] and towards("b")[0] is ServiceClass.BEST_EFFORT


def test_relay_goes_round_whom_a_policy_avoids() -> None:
    network = Network("abc", "rules: [{name: r, application: a1, bounds: {avoid_node: b}}]")
    assert network.node("a").supply.governed.towards("c")[2] == {"b"}
