"""Plans of legs: both ends come to one key, and who else could is computed."""

from __future__ import annotations

import pytest

from keyhop.core.policy.relay import HopByHop, Leg, NoRelay, Plan, RelayXor, SplitPath, learns, link, spanned

LINE = ("A", "B", "C", "D")
SECOND = 1_000_000_000


ALL = [HopByHop(payload="random"), HopByHop(payload="local"), SplitPath()]


@pytest.mark.parametrize("part", ALL)
@pytest.mark.parametrize("length", [2, 3, 4])
def test_both_ends_come_to_the_key(part: HopByHop | SplitPath, length: int) -> None:
    path = LINE[:length]
    plan = part.plan(path)
    for end in (path[0], path[-1]):
        assert learns(plan, path, end, [leg for leg in plan.legs if leg.to == end])


@pytest.mark.parametrize("part", ALL)
def test_every_sender_can_send_its_leg(part: HopByHop | SplitPath) -> None:
    plan = part.plan(LINE)
    for leg in plan.legs:
        heard = [other for other in plan.legs if other.to == leg.at]
        assert learns(Plan(leg.xor, plan.legs, 0), LINE, leg.at, heard)


@pytest.mark.parametrize("part", [*ALL, RelayXor()])
def test_who_only_listens_learns_nothing(part: HopByHop | SplitPath | RelayXor) -> None:
    path = LINE[:3]
    plan = part.plan(path)
    assert not spanned([frozenset(leg.xor) for leg in plan.legs], plan.key)


def test_every_relay_node_of_a_line_learns_the_key() -> None:
    plan = HopByHop(payload="random").plan(LINE)
    for node in ("B", "C"):
        assert learns(plan, LINE, node, [leg for leg in plan.legs if leg.to == node])


def test_at_nec_1_the_node_in_the_middle_sends_one_link_under_the_other() -> None:
    plan = RelayXor().plan(("TN1", "RN", "TN2"))
    assert plan.legs == (Leg("RN", (link("TN1", "RN"), link("RN", "TN2")), "TN1"),)
    assert plan.key == (link("RN", "TN2"),) and plan.links_spent == 2
    assert learns(plan, ("TN1", "RN", "TN2"), "TN1", plan.legs)
    assert learns(plan, ("TN1", "RN", "TN2"), "TN2", [])


def test_relay_xor_does_not_reach_over_two_nodes() -> None:
    with pytest.raises(ValueError, match="path A-B-C-D: relay_xor joins two links"):
        RelayXor().plan(LINE)


def test_at_nectec_1_the_legs_carry_the_published_values() -> None:
    keys = {"random": 0b1100, link("A", "B"): 0b1010, link("B", "C"): 0b0110}
    sent = [keys[leg.xor[0]] ^ keys[leg.xor[1]] for leg in SplitPath().plan(("A", "B", "C")).legs]
    assert sent == [0b0110, 0b1100]


@pytest.mark.parametrize("length", [2, 3, 4])
def test_at_nectec_2_a_split_path_costs_as_many_keys_and_messages_as_hops(length: int) -> None:
    hops = length - 1
    split, plain = SplitPath().plan(LINE[:length]), HopByHop(payload="random").plan(LINE[:length])
    assert split.links_spent == plain.links_spent == hops
    assert [leg.to == LINE[length - 1] and leg.at == "A" for leg in split.legs].count(True) == 1
    assert len(split.legs) == len(plain.legs) == hops


def test_at_nectec_3_a_relay_node_needs_the_direct_message_to_learn_the_key() -> None:
    path = ("A", "B", "C")
    plan = SplitPath().plan(path)
    assert not learns(plan, path, "B", [])
    assert learns(plan, path, "B", [plan.legs[0]])


def test_at_nectec_5_half_a_join_is_given_up_after_ten_seconds() -> None:
    assert not SplitPath().given_up(5, 5 + 10 * SECOND - 1)
    assert SplitPath().given_up(5, 5 + 10 * SECOND)


def test_carrying_the_first_links_own_key_saves_a_message() -> None:
    assert len(HopByHop(payload="local").plan(LINE).legs) == 2
    assert len(HopByHop(payload="random").plan(LINE).legs) == 3


def test_without_relay_a_key_ends_where_its_link_ends() -> None:
    assert NoRelay().plan(("A", "B")) == Plan((link("B", "A"),), (), 1)
    with pytest.raises(ValueError, match="path A-B-C: this design has no relay"):
        NoRelay().plan(("A", "B", "C"))


@pytest.mark.parametrize("path", [(), ("A",), ("A", "B", "A")])
def test_a_path_that_is_none_is_refused(path: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must be two nodes or more, none of them twice"):
        HopByHop().plan(path)


def test_at_swiss_2_two_paths_bring_the_sum_and_one_what_is_left() -> None:
    both = HopByHop(paths="aggregate")
    assert [both.rate_bps(rates) for rates in ([1000, 1000], [0, 1000], [0, 0])] == [2000, 1000, 0]


def test_at_swiss_3_joined_by_xor_either_cut_stops_both() -> None:
    joined = HopByHop(paths="xor")
    assert [joined.rate_bps(rates) for rates in ([1000, 1000], [0, 1000], [1000, 0])] == [1000, 0, 0]
    assert HopByHop(paths="one").rate_bps([1000, 500]) == 1000


def test_a_refused_path_is_told_how_long_it_is() -> None:
    with pytest.raises(ValueError, match="relay_xor joins two links of one node, not 3"):
        RelayXor().plan(LINE)
