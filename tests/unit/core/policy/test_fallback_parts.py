"""What an application gets when key runs short, and under which label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.fallback import SUPPLY, ByCategory, Decision, Deny, Derive, Hybrid, Need, Wait

SECOND = 1_000_000_000
EMPTY = Need(size_bits=256, stock_bits=0)


def test_with_enough_key_nobody_falls_back() -> None:
    enough = Need(size_bits=256, stock_bits=256)
    for part in (Deny(), Wait(), Derive(), ByCategory()):
        assert part.decide(enough) == SUPPLY
    assert Hybrid().decide(enough) == Decision("combine", its=True)


def test_a_request_is_denied_at_once() -> None:
    assert Deny().decide(EMPTY) == Decision("deny")


def test_a_request_waits_to_its_deadline_and_is_denied_then() -> None:
    assert Wait().decide(EMPTY._replace(waited_ns=5 * SECOND - 1)) == Decision("wait")
    assert Wait().decide(EMPTY._replace(waited_ns=5 * SECOND)) == Decision("deny")
    assert Wait().decide(EMPTY._replace(waited_ns=1, deadline_ns=1)) == Decision("deny")


def test_at_swiss_1_xor_with_an_exchange_keeps_its() -> None:
    assert Hybrid(combine="xor").decide(Need(256, 256)) == Decision("combine", its=True)
    assert Hybrid(combine="kdf").decide(Need(256, 256)) == Decision("combine", its=False)


def test_at_swiss_2_without_qkd_supply_goes_on_without_its() -> None:
    assert Hybrid().decide(EMPTY) == Decision("exchange", its=False)


def test_at_swiss_4_fifteen_units_are_not_enough_to_resume() -> None:
    hybrid = Hybrid(resume=16)
    assert hybrid.degraded(False, 0)
    assert hybrid.degraded(True, 15)
    assert not hybrid.degraded(True, 16)
    assert not hybrid.degraded(False, 1)
    assert hybrid.decide(Need(256, 15 * 256, degraded=True)) == Decision("exchange")


def test_at_kisti_4_a_pad_is_derived_from_256_bits() -> None:
    assert Derive().pad(1024, 256) == Decision("derive", its=False)
    assert Derive(strict_its=True).pad(1024, 256) == Decision("deny")
    assert Derive().pad(1024, 1024) == SUPPLY
    assert Derive().pad(1024, 255) == Decision("deny")
    assert Derive(relay=False).pad(1024, 256) == Decision("deny")


def test_at_kisti_2_keys_are_derived_when_the_pool_is_short() -> None:
    assert Derive().decide(Need(4 * 512, 256)) == Decision("derive")
    assert Derive(strict_its=True).decide(Need(4 * 512, 256)) == Decision("deny")


def test_at_qcanada_5_the_first_category_waits_and_the_fourth_is_derived() -> None:
    categories = ByCategory()
    assert categories.decide(EMPTY._replace(category=1, waited_ns=SECOND)) == Decision("wait")
    assert categories.decide(EMPTY._replace(category=1, waited_ns=5 * SECOND)) == Decision("deny")
    assert categories.decide(EMPTY._replace(category=4)) == Decision("derive", its=False)


def test_the_third_category_stretches_the_key_in_use_up_to_four_lifetimes() -> None:
    in_use = EMPTY._replace(category=3, lifetime_ns=10)
    assert ByCategory().decide(in_use._replace(key_age_ns=39)) == Decision("stretch")
    assert ByCategory().decide(in_use._replace(key_age_ns=40)) == Decision("wait")
    assert ByCategory().decide(in_use) == Decision("wait")


def test_the_fifth_category_takes_an_exchange_when_there_is_no_parent() -> None:
    assert ByCategory().decide(Need(512, 256, category=5)) == Decision("derive")
    assert ByCategory().decide(Need(512, 255, category=5)) == Decision("exchange")


def test_a_table_may_deny() -> None:
    assert ByCategory(table=("deny",)).decide(EMPTY) == Decision("deny")


@pytest.mark.parametrize("category", [0, 6])
def test_a_category_that_is_not_in_the_table_is_refused(category: int) -> None:
    with pytest.raises(ValueError, match=f"category {category}: must be 1 to 5"):
        ByCategory().decide(EMPTY._replace(category=category))


def test_parameters_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hybrid\.resume = 0: must be 1 unit or more"):
        Hybrid(resume=0)
    with pytest.raises(ValueError, match=r"by_category\.table = \(\)"):
        ByCategory(table=())


@given(
    st.integers(1, 5000),
    st.integers(0, 5000),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from([Deny(), Wait(), Hybrid(), Hybrid(combine="kdf"), Derive(), ByCategory()]),
)
def test_nothing_derived_or_exchanged_is_called_its(
    size_bits: int, stock_bits: int, category: int, degraded: bool, part: Deny | Wait | Hybrid | Derive | ByCategory
) -> None:
    decision = part.decide(Need(size_bits, stock_bits, category=category, degraded=degraded))
    assert not decision.its or (decision.verb in ("supply", "combine") and stock_bits >= size_bits)


def test_one_unit_may_be_enough_to_resume() -> None:
    assert not Hybrid(resume=1).degraded(True, 1)
    assert ByCategory(stretch=1).decide(EMPTY._replace(category=3, lifetime_ns=10, key_age_ns=10)) == Decision("wait")
