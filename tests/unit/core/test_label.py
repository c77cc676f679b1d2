"""What a key carries beside its bits follows by stated rules, none of which flatters it."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest

from keyhop.core import epsilon as epsilons
from keyhop.core import label as labels
from keyhop.core.label import Entropy, Grade, Label, Origin, Trust
from keyhop.core.model import NodeId

A, B, C, D = (NodeId(name) for name in "abcd")
E10, E9 = epsilons.epsilon(1e-10), epsilons.epsilon(1e-9)


def qkd(link: str = "a-b", number: int = 0, *, epsilon: int | None = E10, vendor: str = "v", born: int = 100) -> Label:
    one, other = link.split("-")
    return labels.block(link, number, (NodeId(one), NodeId(other)), born, epsilon=epsilon, vendor=vendor)


def kem(number: int = 0) -> Label:
    return labels.exchanged("ml_kem", "a-b", number, (A, B), 200)


def test_a_decimal_that_a_module_declares_is_exact() -> None:
    assert epsilons.epsilon(1e-10) == epsilons.epsilon("1e-10") == epsilons.epsilon(Fraction(1, 10**10)) == 10**30
    assert epsilons.epsilon(1e-10) == epsilons.bound(1e-10)
    assert epsilons.epsilon("1") == epsilons.ONE


def test_what_is_no_multiple_of_the_unit_is_rounded_against_the_key() -> None:
    third = Fraction(1, 3)
    assert Fraction(epsilons.bound(third), epsilons.ONE) < third < Fraction(epsilons.epsilon(third), epsilons.ONE)
    assert epsilons.epsilon(Fraction(1, 10**60)) == 1


@pytest.mark.parametrize(
    "value", [0, 0.0, -1e-10, 1.0000001, 2, float("nan"), float("inf"), "", "1e", "1e-9999999999", "½", "٣e-10", "1/3"]
)
def test_no_figure_outside_of_0_to_1_is_an_epsilon(value: str | float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        epsilons.epsilon(value)


def test_a_bound_below_the_unit_is_refused_rather_than_rounded_to_nothing() -> None:
    with pytest.raises(ValueError, match="1e-40 or more"):
        epsilons.bound("9e-41")


def test_an_epsilon_is_never_shown_better_than_it_is_nor_a_bound_laxer() -> None:
    assert epsilons.shown(epsilons.epsilon("1.2341e-10")) == "1.24e-10"
    assert epsilons.shown(epsilons.epsilon("1.2349e-10"), down=True) == "1.23e-10"
    assert epsilons.shown(0) == "0e+0"


def test_a_merged_key_has_the_sum_of_its_parts() -> None:
    key = labels.concatenated([qkd(number=1), qkd(number=2, epsilon=E9), qkd("b-c", 1)])
    assert key.epsilon == 2 * E10 + E9
    assert key.grade is Grade.ITS and not key.combined


def test_a_block_that_two_pieces_were_cut_from_counts_once() -> None:
    assert labels.concatenated([qkd(number=1), qkd(number=1)]).epsilon == E10


def test_the_worst_that_was_said_of_a_block_counts() -> None:
    assert labels.concatenated([qkd(number=1), qkd(number=1, epsilon=E9)]).epsilon == E9
    assert labels.concatenated([qkd(number=1), qkd(number=1, epsilon=None)]).epsilon is None


def test_pieces_of_unnumbered_blocks_may_be_of_different_ones_and_add_up() -> None:
    assert labels.concatenated([qkd(number=labels.UNKNOWN), qkd(number=labels.UNKNOWN)]).epsilon == 2 * E10


def test_a_part_is_as_far_from_ideal_as_the_whole() -> None:
    whole = labels.concatenated([qkd(number=1), qkd(number=2)])
    assert labels.split(whole).epsilon == whole.epsilon


def test_epsilons_that_add_up_to_more_than_1_say_nothing_more_than_1() -> None:
    bad = epsilons.epsilon("0.6")
    key = labels.concatenated([qkd(number=1, epsilon=bad), qkd(number=2, epsilon=bad)])
    assert key.epsilon == epsilons.ONE


def test_a_module_that_declares_nothing_leaves_the_whole_key_without_a_bound() -> None:
    assert labels.concatenated([qkd(number=1), qkd(number=2, epsilon=None)]).epsilon is None


def test_a_relayed_key_has_the_sum_over_its_hops() -> None:
    key = labels.relayed(qkd("a-b"), [qkd("b-c"), qkd("c-d", epsilon=E9)], (A, B, C, D))
    assert key.epsilon == 2 * E10 + E9
    assert key.hops == 3
    assert key.trust is Trust.FULL
    assert key.paths == {(A, B, C, D)}


def test_a_path_may_be_long() -> None:
    path = tuple(NodeId(f"n{number}") for number in range(301))
    pads = [labels.block(f"{one}-{other}", 0, (one, other), 0, epsilon=E10) for one, other in pairwise(path[1:])]
    key = labels.relayed(labels.block("n0-n1", 0, path[:2], 0, epsilon=E10), pads, path)
    assert key.epsilon == 300 * E10 and key.hops == 300 and len(key.paths) == 1


def test_a_drawn_payload_names_its_source_and_costs_a_pad_on_every_hop() -> None:
    payload = labels.random_payload(A, 7, 100, Entropy.OS)
    key = labels.relayed(payload, [qkd("a-b"), qkd("b-c")], (A, B, C))
    assert key.epsilon == 2 * E10
    assert key.rng == {Entropy.OS, Entropy.QKD}


def test_a_pad_that_was_itself_relayed_brings_its_nodes_along() -> None:
    pad = labels.relayed(qkd("b-d"), [qkd("d-c")], (B, D, C))
    key = labels.relayed(qkd("a-b"), [pad], (A, B, C))
    assert D in key.nodes and key.epsilon == 3 * E10


def test_a_relay_with_a_derived_pad_gives_no_its_key() -> None:
    pad = labels.derived([qkd("b-c")])
    key = labels.relayed(qkd("a-b"), [pad], (A, B, C))
    assert key.grade is Grade.COMPUTATIONAL and key.epsilon is None


def test_an_xor_stays_its_if_one_share_is_and_has_the_least_epsilon() -> None:
    key = labels.xored([qkd("a-b", epsilon=E9), kem()])
    assert key.grade is Grade.ITS and key.combined and key.epsilon == E9
    two = labels.xored([qkd("a-b", epsilon=E9), qkd("a-c", epsilon=E10)])
    assert two.epsilon == E10


def test_an_xor_without_a_share_that_is_its_is_not_its() -> None:
    assert labels.xored([kem(1), kem(2)]).grade is Grade.COMPUTATIONAL
    assert labels.xored([labels.derived([qkd(), kem(1)]), kem(2)]).grade is Grade.HYBRID


def test_a_share_that_declares_nothing_is_not_chosen_if_another_declares_something() -> None:
    assert labels.xored([qkd("a-b", epsilon=None), qkd("a-c")]).epsilon == E10
    assert labels.xored([qkd("a-b", epsilon=None), kem()]).epsilon is None


@pytest.mark.parametrize("join", [labels.xored, labels.derived])
def test_shares_from_one_block_are_not_combined_as_if_independent(join: type) -> None:
    with pytest.raises(ValueError, match="independent"):
        join([qkd(number=1), qkd(number=1)])
    with pytest.raises(ValueError, match="independent"):
        join([qkd(number=1), qkd(number=labels.UNKNOWN)])
    with pytest.raises(ValueError, match="independent"):
        join([qkd(number=labels.UNKNOWN), qkd(number=1)])


def test_a_key_xored_with_what_was_derived_from_it_is_refused() -> None:
    with pytest.raises(ValueError, match="independent"):
        labels.xored([qkd(), labels.derived([qkd()])])


@pytest.mark.parametrize("shares", [[], [qkd()]])
def test_an_xor_needs_two_shares(shares: list[Label]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        labels.xored(shares)


def test_nothing_that_left_a_kdf_is_its() -> None:
    assert labels.derived([qkd()]).grade is Grade.COMPUTATIONAL
    assert labels.derived([qkd(), kem()]).grade is Grade.HYBRID
    assert labels.derived([qkd("a-b"), qkd("a-c")]).grade is Grade.HYBRID
    assert labels.derived([labels.derived([qkd(), kem()])]).grade is Grade.HYBRID
    assert labels.derived([kem(1), kem(2)]).grade is Grade.COMPUTATIONAL
    with pytest.raises(ValueError, match="no shares"):
        labels.derived([])


def test_a_hybrid_claims_no_epsilon_and_declares_that_of_its_share_apart() -> None:
    key = labels.derived([qkd(), kem()])
    assert key.epsilon is None and labels.declared_apart(key) == E10
    told = labels.described(key, 100)
    assert "keyhop_epsilon" not in told and told["keyhop_share_epsilon"] == 1e-10


def test_a_local_key_is_joined_with_nothing_that_left_the_site() -> None:
    with pytest.raises(ValueError, match="never left the site"):
        labels.concatenated([labels.local(A, 0, Entropy.OS), qkd()])
    assert labels.local(A, 0, Entropy.OS).epsilon is None


def test_a_key_is_as_old_as_its_oldest_bits() -> None:
    key = labels.concatenated([qkd(number=1, born=100), qkd(number=2, born=50)])
    assert key.age_ns(150) == 100
    assert key.age_ns(10) == 0


def test_vendors_on_one_path_each_suffice_and_those_of_two_shares_must_meet() -> None:
    path = labels.relayed(qkd("a-b", vendor="x"), [qkd("b-d", vendor="y")], (A, B, D))
    assert path.vendors == {"x", "y"} and path.min_vendors == 1
    other = labels.relayed(qkd("a-c", vendor="z"), [qkd("c-d", vendor="z")], (A, C, D))
    assert labels.xored([path, other]).min_vendors == 2
    same = labels.relayed(qkd("a-c", vendor="x"), [qkd("c-d", vendor="z")], (A, C, D))
    assert labels.xored([path, same]).min_vendors == 1


def test_an_exchange_counts_for_no_vendor() -> None:
    assert labels.xored([qkd(vendor="x"), kem()]).min_vendors == 1


def test_too_many_sets_of_vendors_make_the_key_look_worse_not_better() -> None:
    keys = [labels.concatenated([qkd(f"a-{side}", n, vendor=f"{side}{n}") for n in range(12)]) for side in ("b", "c")]
    assert labels.xored(keys).min_vendors == 1
    many = labels.concatenated([qkd("a-b", n, vendor=f"v{n}") for n in range(labels.BREAKS_LIMIT + 1)])
    assert many.min_vendors == 0


def test_a_relay_on_both_ways_holds_the_whole_key_again() -> None:
    def over(*nodes: NodeId, vendor: str = "v") -> Label:
        pads = [qkd(f"{one}-{two}", vendor=vendor) for one, two in pairwise(nodes[1:])]
        return labels.relayed(qkd(f"{nodes[0]}-{nodes[1]}"), pads, nodes)

    assert labels.xored([over(A, B, D), over(A, C, D)]).trust is Trust.PARTIAL
    second = labels.relayed(qkd("a-c", 9), [qkd("c-b", 9), qkd("b-d", 9)], (A, C, B, D))
    assert labels.xored([over(A, B, D), second]).trust is Trust.FULL
    assert labels.xored([qkd(), kem()]).trust is Trust.DIRECT


def test_a_key_has_limits() -> None:
    with pytest.raises(ValueError, match="1024 or fewer"):
        labels.concatenated([qkd(number=n) for n in range(labels.PARTS_LIMIT + 1)])
    with pytest.raises(ValueError, match="64 or fewer"):
        labels.concatenated([qkd(f"a-n{n}") for n in range(labels.PATHS_LIMIT + 1)])


def test_what_is_told_of_a_key_names_everything_and_no_epsilon_where_none_is_claimed() -> None:
    key = labels.relayed(qkd("a-b", vendor="x"), [qkd("b-c", vendor="y")], (A, B, C))
    assert labels.described(key, 3_000_000_100) == {
        "keyhop_grade": "its",
        "keyhop_combined": False,
        "keyhop_age": 3,
        "keyhop_hops": 2,
        "keyhop_path": [["a", "b", "c"]],
        "keyhop_vendors": ["x", "y"],
        "keyhop_trust": "full",
        "keyhop_rng": ["qkd"],
        "keyhop_origins": ["qkd:a-b", "qkd:b-c"],
        "keyhop_epsilon": 2e-10,
    }
    assert "keyhop_epsilon" not in labels.described(qkd(epsilon=None), 0)


def test_the_origins_of_a_combination_are_those_of_all_shares() -> None:
    assert labels.xored([qkd(), kem(3)]).origins == {Origin("qkd", "a-b", 0), Origin("ml_kem", "a-b", 3)}
