"""The first rule that matches decides, and says so; what is refused by policy is refused before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from keyhop.core import epsilon
from keyhop.core import label as labels
from keyhop.core.constraints import NO_CONSTRAINTS, Constraints
from keyhop.core.model import NodeId, Refusal, RequestError
from keyhop.core.policy.fallback import Need
from keyhop.core.policy.priority import CLASSES
from keyhop.core.policy_rules import (
    BUILT_IN,
    NO_RULE,
    VALUES,
    Fallback,
    LinkRule,
    Place,
    Policy,
    Rule,
    ServiceClass,
    Value,
)

ITS = Constraints(its_only=True)


def values(line: int, given: dict[str, Any]) -> dict[str, Value]:
    return {word: Value(value, Place("x", "policy.yml", line)) for word, value in given.items()}


def rule(name: str, *, application: str = "*", peer: str = "*", between: Any = None, **given: Any) -> Rule:
    words = {word.replace("__", "."): value for word, value in given.items()}
    words = {"class" if word == "service_class" else word: value for word, value in words.items()}
    return Rule(name, (application,), (peer,), between, values(7, words), Place(name, "policy.yml", 3))


def default(**given: Any) -> Rule:
    return NO_RULE._replace(values=rule("default", **given).values)


def test_the_classes_are_those_of_the_priority_parts() -> None:
    assert tuple(ServiceClass) == CLASSES


def test_without_a_rule_everything_is_built_in() -> None:
    terms = Policy().terms("a", "b")
    assert (terms.key_size_bits, terms.min_key_size_bits, terms.max_key_size_bits) == (256, 64, 8192)
    assert terms.service_class is ServiceClass.BEST_EFFORT and terms.bounds is NO_CONSTRAINTS
    assert set(terms.places.values()) == {BUILT_IN} and terms.places.keys() == VALUES.keys()


def test_the_first_rule_that_matches_decides_and_a_later_one_adds_nothing() -> None:
    policy = Policy(
        rules=(rule("one", application="vpn-*", weight=5), rule("two", application="vpn-1", weight=9, category=1)),
        default=default(category=3),
    )
    terms = policy.terms("vpn-1", "b")
    assert (terms.weight, terms.category) == (5, 3)
    assert terms.rule.rule == "one"
    assert str(terms.places["weight"]) == "x (policy.yml:7)" and terms.places["combine"] is BUILT_IN
    assert policy.terms("phone", "b").rule is NO_RULE.place


@pytest.mark.parametrize(
    ("given", "pair", "hit"),
    [
        ({"application": "vpn-*"}, ("vpn-1", "b"), True),
        ({"application": "vpn-*"}, ("b", "vpn-1"), False),
        ({"application": "vpn-?"}, ("vpn-12", "b"), False),
        ({"peer": "b"}, ("a", "b"), True),
        ({"peer": "b"}, ("a", "B"), False),
        ({"between": ("vpn-*", "hq")}, ("vpn-1", "hq"), True),
        ({"between": ("vpn-*", "hq")}, ("hq", "vpn-1"), True),
        ({"between": ("vpn-*", "hq")}, ("hq", "hq"), False),
    ],
)
def test_patterns_match_who_asks_with_whom_or_both(given: Any, pair: tuple[str, str], hit: bool) -> None:
    assert rule("one", **given).matches(*pair) is hit


@pytest.mark.parametrize("size", [56, 1032, 10**9])
def test_a_size_outside_of_the_rules_bounds_is_refused_with_what_is_legal(size: int) -> None:
    terms = Policy(default=default(key_size__max=1024)).terms("a", "b")
    with pytest.raises(RequestError, match="must be 64 to 1024") as refused:
        terms.key_size(size)
    assert refused.value.reason is Refusal.BAD_REQUEST
    assert (terms.key_size(None), terms.key_size(64), terms.key_size(1024)) == (256, 64, 1024)


def test_a_rule_cannot_widen_the_limits_of_the_node() -> None:
    limits = values(1, {"key_size.min": 128, "key_size.max": 512, "key_size.default": 256})
    terms = Policy(rules=(rule("one", key_size__min=64, key_size__max=8192),), limits=limits).terms("a", "b")
    assert (terms.min_key_size_bits, terms.max_key_size_bits) == (128, 512)
    assert terms.places["key_size.max"].line == 1
    narrower = Policy(rules=(rule("one", key_size__max=256),), limits=limits).terms("a", "b")
    assert narrower.max_key_size_bits == 256 and narrower.places["key_size.max"].line == 7


def test_a_request_is_held_to_its_own_demands_and_to_those_of_the_policy() -> None:
    terms = Policy(default=default(bounds__max_epsilon=100, bounds__max_hops=3)).terms("a", "b")
    together = terms.demands(Constraints(max_epsilon=200, max_hops=1, its_only=True))
    assert (together.max_epsilon, together.max_hops, together.its_only) == (100, 1, True)
    key = labels.block("l", 1, (NodeId("a"), NodeId("b")), 0, epsilon=101)
    with pytest.raises(RequestError, match="could be met"):
        terms.check(key, NO_CONSTRAINTS, 0)
    terms.check(labels.block("l", 1, (NodeId("a"), NodeId("b")), 0, epsilon=100), NO_CONSTRAINTS, 0)


def test_a_request_that_excludes_the_policy_is_refused_at_once() -> None:
    terms = Policy(default=default(bounds__vendor__wanted=frozenset("x"))).terms("a", "b")
    with pytest.raises(RequestError, match="could be met") as refused:
        terms.demands(Constraints(vendors_refused=frozenset("x")))
    assert refused.value.reason is Refusal.UNSUPPORTED


def test_a_pair_whose_keys_go_through_a_kdf_has_nothing_for_who_wants_its() -> None:
    terms = Policy(default=default(combine="kdf")).terms("a", "b")
    for demanded in (ITS, Constraints(max_epsilon=epsilon.ONE)):
        with pytest.raises(RequestError, match="could be met"):
            terms.demands(demanded)
    assert terms.demands(Constraints(max_hops=2)).max_hops == 2


@pytest.mark.parametrize(
    ("fallback", "verb"),
    [
        (Fallback("deny"), "deny"),
        (Fallback("wait", 5), "wait"),
        (Fallback("hybrid"), "exchange"),
        (Fallback("derive"), "derive"),
    ],
)
def test_what_is_done_when_key_is_short_is_what_the_rule_says(fallback: Fallback, verb: str) -> None:
    terms = Policy(default=default(fallback=fallback)).terms("a", "b")
    assert terms.answer(NO_CONSTRAINTS, Need(512, 300)).verb == verb
    assert terms.answer(NO_CONSTRAINTS, Need(512, 512)).verb == "supply"


@pytest.mark.parametrize("verb", ["hybrid", "derive"])
@pytest.mark.parametrize("demanded", [ITS, Constraints(max_epsilon=epsilon.ONE)])
def test_no_fallback_waters_a_demand_down(verb: Any, demanded: Constraints) -> None:
    terms = Policy(default=default(fallback=Fallback(verb))).terms("a", "b")
    assert terms.answer(demanded, Need(512, 300, degraded=True)).verb == "deny"


def test_a_wait_ends() -> None:
    terms = Policy(default=default(fallback=Fallback("wait", 5))).terms("a", "b")
    assert terms.answer(NO_CONSTRAINTS, Need(8, 0, waited_ns=5)).verb == "deny"


@pytest.mark.parametrize(("combine", "its"), [("xor", True), ("kdf", False)])
def test_combination_is_the_normal_mode_and_its_only_by_xor(combine: str, its: bool) -> None:
    decided = Policy(default=default(combine=combine)).terms("a", "b").answer(NO_CONSTRAINTS, Need(8, 8))
    assert (decided.verb, decided.its) == ("combine", its)


def test_a_degraded_hybrid_goes_on_alone_until_it_resumes() -> None:
    terms = Policy(default=default(fallback=Fallback("hybrid"))).terms("a", "b")
    assert terms.answer(NO_CONSTRAINTS, Need(8, 8, degraded=True)).verb == "exchange"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"key_size__min": 512}, "key_size"),
        ({"service_class": ServiceClass.GUARANTEED}, "class"),
        ({"rate": 1000}, "rate"),
        ({"burst": 1000}, "burst"),
        ({"service_class": ServiceClass.GUARANTEED, "rate": 1, "burst": 128}, "burst"),
        ({"bounds__vendor__wanted": frozenset("x"), "bounds__vendor__refused": frozenset("x")}, "bounds"),
        ({"bounds__its_only": True, "fallback": Fallback("derive")}, "fallback"),
        ({"bounds__max_epsilon": 1, "fallback": Fallback("hybrid")}, "fallback"),
        ({"bounds__its_only": True, "combine": "kdf"}, "combine"),
    ],
)
def test_values_that_do_not_go_together_are_found(given: Any, word: str) -> None:
    assert [(number, fault.word) for number, fault in Policy(rules=(rule("one", **given),)).faults()] == [(0, word)]
    assert [number for number, _ in Policy(default=default(**given)).faults()] == [None]


def test_what_is_inherited_is_checked_with_what_is_written() -> None:
    policy = Policy(rules=(rule("strict", bounds__its_only=True),), default=default(fallback=Fallback("derive")))
    assert [(number, fault.word) for number, fault in policy.faults()] == [(0, "fallback")]
    lifted = Policy(
        rules=(rule("lax", bounds__its_only=False, fallback=Fallback("derive")),),
        default=default(bounds__its_only=True),
    )
    assert list(lifted.faults()) == []


def test_a_rate_is_not_inherited_by_a_class_without_guarantees() -> None:
    policy = Policy(
        rules=(rule("one", application="x", service_class=ServiceClass.PRIORITISED),),
        default=default(service_class=ServiceClass.GUARANTEED, rate=1000),
    )
    assert list(policy.faults()) == []
    assert policy.terms("x", "y").rate_bps == 0 and policy.terms("z", "y").rate_bps == 1000


def test_a_rule_behind_one_that_matches_all_is_a_fault() -> None:
    policy = Policy(rules=(rule("all"), rule("late", application="x")))
    ((number, fault),) = policy.faults()
    assert number == 1 and "never reached" in fault.what
    assert list(Policy(rules=(rule("late", application="x"), rule("all"))).faults()) == []


def test_a_link_keeps_its_reserve_from_supply() -> None:
    policy = Policy(links=(LinkRule(("BRT-*",), values(9, {"reserve": 1000}), Place("links[0]")),))
    assert policy.link("BRT-SIE").usable_bits(1500) == 500 and policy.link("BRT-SIE").usable_bits(900) == 0
    other = policy.link("GUD-ERD")
    assert other.usable_bits(900) == 900 and other.floor == Fraction(1, 10) and other.full_store == "stop"
    assert other.places["reserve"] is BUILT_IN


def test_terms_are_values() -> None:
    terms = Policy().terms("a", "b")
    assert replace(terms, weight=2) != terms and Policy().terms("a", "b") == terms
