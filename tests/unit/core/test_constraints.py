"""Demands of applications are read strictly, and a key that does not meet one is not given."""

from __future__ import annotations

from typing import Any

import pytest

from keyhop.core import constraints, epsilon
from keyhop.core import label as labels
from keyhop.core.constraints import NO_CONSTRAINTS, Constraints, ExtensionError, admits, both, contradiction, parse
from keyhop.core.label import Entropy, Label, Trust
from keyhop.core.model import NANOSECONDS, NodeId, Refusal, RequestError
from keyhop.wire import etsi014

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
NOW = 100 * NANOSECONDS


def qkd(link: str = "a-b", number: int = 0, **more: Any) -> Label:
    one, other = link.split("-")
    figures = {"epsilon": epsilon.epsilon(1e-10), "vendor": "v"} | more
    return labels.block(link, number, (NodeId(one), NodeId(other)), NOW - 10 * NANOSECONDS, **figures)


RELAYED = labels.relayed(qkd("a-b", vendor="x"), [qkd("b-c", vendor="y")], (A, B, C))
HYBRID = labels.derived([qkd(), labels.exchanged("ml_kem", "a-b", 0, (A, B), NOW)])
LOCAL = labels.local(A, NOW, Entropy.OS)


def required(**members: Any) -> Constraints:
    return parse([members]).required


def unmet(key: Label, **members: Any) -> list[str]:
    return [one.name for one in admits(key, required(**members), NOW)]


def test_the_texts_are_those_of_the_standard() -> None:
    assert constraints.UNSUPPORTED == etsi014.MANDATORY_UNSUPPORTED
    assert constraints.UNMET == etsi014.MANDATORY_UNMET
    assert constraints.UNSUPPORTED_DETAIL == etsi014.UNSUPPORTED_DETAIL


@pytest.mark.parametrize("absent", [None, [], [{}]])
def test_a_request_without_extensions_demands_nothing(absent: Any) -> None:
    assert parse(absent, absent) == (NO_CONSTRAINTS, NO_CONSTRAINTS, (), False)
    assert parse(absent, absent).asks_nothing
    assert admits(LOCAL, parse(absent).required, NOW) == ()


@pytest.mark.parametrize(
    ("mandatory", "optional", "labelled"),
    [
        ([{"keyhop_max_hops": 2}], None, True),
        (None, [{"keyhop_max_hops": 2}], True),
        ([{"keyhop_max_hops": 2, "keyhop_label": False}], None, False),
        ([{"keyhop_label": True}], None, True),
        (None, [{"acme_colour": 1}], False),
    ],
)
def test_who_uses_a_name_of_ours_is_told_the_label(mandatory: Any, optional: Any, labelled: bool) -> None:
    asked = parse(mandatory, optional)
    assert asked.labelled is labelled
    assert asked.asks_nothing is (not labelled and "keyhop_max_hops" not in str(mandatory))


def test_an_unknown_mandatory_name_is_refused_and_named() -> None:
    with pytest.raises(ExtensionError) as refused:
        parse([{"acme_colour": "blue", "keyhop_max_hops": 2}, {"keyhop_colour": 1}])
    assert refused.value.reason is Refusal.UNSUPPORTED
    assert refused.value.message == "not all extension_mandatory parameters are supported"
    assert [list(detail.values()) for detail in refused.value.details] == [["acme_colour"], ["keyhop_colour"]]


def test_an_unknown_optional_name_is_ignored() -> None:
    asked = parse(None, [{"acme_colour": "blue"}, {"keyhop_max_hops": 2}])
    assert asked.ignored == ("acme_colour",)
    assert asked.required is NO_CONSTRAINTS and asked.preferred.max_hops == 2


def test_all_forms_are_read() -> None:
    assert required(
        keyhop_max_epsilon=1e-9,
        keyhop_its_only=True,
        keyhop_max_age=1.5,
        keyhop_vendor={"wanted": ["x", "y"], "refused": "z"},
        keyhop_min_vendors=2,
        keyhop_avoid_node="c",
        keyhop_max_hops=0,
        keyhop_rng=["qkd", "qrng"],
        keyhop_min_trust="partial",
    ) == Constraints(
        max_epsilon=10**31,
        its_only=True,
        max_age_ns=1_500_000_000,
        vendors_wanted=frozenset({"x", "y"}),
        vendors_refused=frozenset({"z"}),
        min_vendors=2,
        avoid_nodes=frozenset({"c"}),
        max_hops=0,
        rng=frozenset({Entropy.QKD, Entropy.QRNG}),
        min_trust=Trust.PARTIAL,
    )
    assert required(keyhop_max_epsilon="1e-9", keyhop_vendor=["x"]).vendors_wanted == {"x"}


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("keyhop_max_epsilon", 0, "1e-10"),
        ("keyhop_max_epsilon", -1e-10, "1e-10"),
        ("keyhop_max_epsilon", 1.5, "1e-10"),
        ("keyhop_max_epsilon", "tiny", "1e-10"),
        ("keyhop_max_epsilon", "1e-999999999", "1e-10"),
        ("keyhop_max_epsilon", True, "1e-10"),
        ("keyhop_max_epsilon", None, "1e-10"),
        ("keyhop_max_epsilon", [1e-10], "1e-10"),
        ("keyhop_its_only", "true", "true or false"),
        ("keyhop_its_only", 1, "true or false"),
        ("keyhop_max_age", 0, "seconds"),
        ("keyhop_max_age", "1 h", "seconds"),
        ("keyhop_max_age", float("inf"), "seconds"),
        ("keyhop_max_age", 1e300, "seconds"),
        ("keyhop_max_age", True, "seconds"),
        ("keyhop_vendor", [], "a name"),
        ("keyhop_vendor", [1], "a name"),
        ("keyhop_vendor", "", "a name"),
        ("keyhop_vendor", ["x"] * 65, "1 to 64 names"),
        ("keyhop_vendor", {"wnated": "x"}, "wanted"),
        ("keyhop_vendor", {}, "wanted"),
        ("keyhop_vendor", {"wanted": None}, "a name"),
        ("keyhop_min_vendors", 0, "from 1 to"),
        ("keyhop_min_vendors", 1.0, "whole number"),
        ("keyhop_min_vendors", True, "whole number"),
        ("keyhop_avoid_node", {"node": "x"}, "a name"),
        ("keyhop_avoid_node", "x" * 129, "128 characters"),
        ("keyhop_max_hops", -1, "from 0 to"),
        ("keyhop_max_hops", 10**30, "from 0 to"),
        ("keyhop_rng", "dice", "hardware, os, qkd, qrng"),
        ("keyhop_rng", [], "a name"),
        ("keyhop_min_trust", "blind", "full, partial, erased, shared, direct"),
        ("keyhop_min_trust", 2, "full"),
    ],
)
@pytest.mark.parametrize("place", ["mandatory", "optional"])
def test_a_wrong_form_is_refused_with_what_would_be_legal(name: str, value: Any, legal: str, place: str) -> None:
    objects = [{name: value}]
    with pytest.raises(ExtensionError) as refused:
        parse(objects, None) if place == "mandatory" else parse(None, objects)
    assert refused.value.reason is Refusal.BAD_REQUEST
    assert refused.value.message.startswith(name) and legal in refused.value.message


TEXT = "qL9cmQMLchEK1NVnXQ"


@pytest.mark.parametrize("value", [TEXT, [TEXT] * 99, {TEXT: 1}, 10**40])
@pytest.mark.parametrize("name", [n for n in constraints.NAMES if n not in ("keyhop_vendor", "keyhop_avoid_node")])
def test_a_value_that_may_be_a_key_is_not_repeated(name: str, value: Any) -> None:
    with pytest.raises(ExtensionError) as refused:
        parse([{name: value}])
    assert TEXT not in refused.value.message and str(10**40) not in refused.value.message


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ExtensionError, match="keyhop_max_hops stands twice in extension_mandatory"):
        parse([{"keyhop_max_hops": 2}, {"keyhop_max_hops": 3}])
    parse([{"keyhop_max_hops": 2}], [{"keyhop_max_hops": 1}])


def test_more_parameters_than_anybody_needs_are_refused() -> None:
    with pytest.raises(ExtensionError, match="more than 64 parameters"):
        parse(None, [{f"x{n}": n for n in range(65)}])


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"keyhop_vendor": {"wanted": "x", "refused": "x"}}, "no vendor"),
        ({"keyhop_vendor": "x", "keyhop_min_vendors": 2}, "only 1 are wanted"),
    ],
)
def test_demands_that_nothing_could_meet_are_a_bad_request(members: dict[str, Any], why: str) -> None:
    with pytest.raises(ExtensionError, match=why):
        parse([members])


def test_a_key_at_the_bound_is_given_and_one_above_it_is_not() -> None:
    assert unmet(RELAYED, keyhop_max_epsilon=2e-10) == []
    assert unmet(RELAYED, keyhop_max_epsilon="1.9999999999999999999999e-10") == ["keyhop_max_epsilon"]
    assert unmet(RELAYED, keyhop_max_age=10) == []
    assert unmet(RELAYED, keyhop_max_age=9.999999) == ["keyhop_max_age"]
    assert unmet(RELAYED, keyhop_max_hops=2) == []
    assert unmet(RELAYED, keyhop_max_hops=1) == ["keyhop_max_hops"]


@pytest.mark.parametrize("key", [HYBRID, labels.derived([qkd()]), LOCAL])
def test_its_only_is_met_by_nothing_from_a_kdf_nor_by_a_local_key(key: Label) -> None:
    assert unmet(key, keyhop_its_only=True) == ["keyhop_its_only"]
    assert unmet(key, keyhop_its_only=False) == []


def test_a_bound_on_epsilon_is_not_met_by_a_key_that_claims_none() -> None:
    assert unmet(HYBRID, keyhop_max_epsilon=1) == ["keyhop_max_epsilon"]
    assert unmet(LOCAL, keyhop_max_epsilon=1) == ["keyhop_max_epsilon"]
    silent = qkd(epsilon=None)
    (one,) = admits(silent, required(keyhop_max_epsilon=1), NOW)
    assert one.why == "a module behind the key declares no epsilon"


def test_every_vendor_behind_a_key_must_be_wanted_and_none_refused() -> None:
    assert unmet(RELAYED, keyhop_vendor=["x", "y"]) == []
    assert unmet(RELAYED, keyhop_vendor="x") == ["keyhop_vendor"]
    assert unmet(RELAYED, keyhop_vendor={"refused": "y"}) == ["keyhop_vendor"]
    assert unmet(RELAYED, keyhop_vendor={"refused": "z"}) == []
    assert unmet(LOCAL, keyhop_vendor="x") == ["keyhop_vendor"]


def test_two_vendors_in_a_row_are_not_two_vendors_side_by_side() -> None:
    assert unmet(RELAYED, keyhop_min_vendors=2) == ["keyhop_min_vendors"]
    two = labels.xored([qkd("a-b", vendor="x"), qkd("a-c", vendor="y")])
    assert unmet(two, keyhop_min_vendors=2) == []


def test_a_node_that_held_the_key_is_not_avoided_by_being_an_end() -> None:
    assert unmet(RELAYED, keyhop_avoid_node=["b"]) == ["keyhop_avoid_node"]
    assert unmet(RELAYED, keyhop_avoid_node=["a"]) == ["keyhop_avoid_node"]
    assert unmet(RELAYED, keyhop_avoid_node=["d"]) == []


def test_all_of_a_keys_randomness_must_be_of_the_named_sources() -> None:
    payload = labels.random_payload(A, 1, NOW, Entropy.OS)
    key = labels.relayed(payload, [qkd("a-b"), qkd("b-c")], (A, B, C))
    assert unmet(key, keyhop_rng=["qkd", "os"]) == []
    assert unmet(key, keyhop_rng=["qkd", "qrng", "hardware"]) == ["keyhop_rng"]
    assert unmet(RELAYED, keyhop_rng="qkd") == []


def test_trust_below_the_minimum_is_refused() -> None:
    assert unmet(RELAYED, keyhop_min_trust="partial") == ["keyhop_min_trust"]
    assert unmet(qkd(), keyhop_min_trust="direct") == []


def test_all_that_is_not_met_is_said_at_once() -> None:
    demanded = required(keyhop_max_hops=1, keyhop_avoid_node="b", keyhop_max_epsilon=1e-11)
    with pytest.raises(RequestError) as refused:
        constraints.check(RELAYED, demanded, NOW)
    assert refused.value.message == "not all extension_mandatory request options could be met"
    assert refused.value.reason is Refusal.UNSUPPORTED
    assert refused.value.details == (
        {"extension_mandatory_unmet": "keyhop_max_epsilon", "reason": "epsilon 2e-10 is above 1e-11"},
        {"extension_mandatory_unmet": "keyhop_avoid_node", "reason": "the key was at b"},
        {"extension_mandatory_unmet": "keyhop_max_hops", "reason": "2 hops, above 1"},
    )
    constraints.check(qkd(), required(keyhop_max_hops=1), NOW)


def test_two_sets_of_demands_together_are_the_stricter_of_each() -> None:
    one = required(keyhop_max_epsilon=1e-9, keyhop_max_hops=1, keyhop_vendor=["x", "y"], keyhop_min_trust="partial")
    other = required(
        keyhop_max_epsilon=1e-8,
        keyhop_max_hops=3,
        keyhop_its_only=True,
        keyhop_vendor={"wanted": ["y", "z"], "refused": "q"},
        keyhop_min_trust="full",
    )
    assert both(one, other) == both(other, one)
    together = both(one, other)
    assert (together.max_epsilon, together.max_hops, together.its_only) == (10**31, 1, True)
    assert together.vendors_wanted == {"y"} and together.vendors_refused == {"q"}
    assert together.min_trust is Trust.PARTIAL
    assert both(one, NO_CONSTRAINTS) is one and both(NO_CONSTRAINTS, one) is one


def test_demands_that_contradict_each_other_only_together_are_found() -> None:
    assert contradiction(both(required(keyhop_vendor="x"), required(keyhop_vendor="y"))) != ""
    assert contradiction(both(required(keyhop_rng="os"), required(keyhop_rng="qkd"))) != ""
    assert contradiction(both(required(keyhop_vendor="x"), required(keyhop_rng="qkd"))) == ""
