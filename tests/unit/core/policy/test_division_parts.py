"""Whose pool key falls into, and what each may take of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.division import EncDec, Purpose, Session, Shared, Use

QCANADA = Purpose(shares=(("direct", 0.4), ("own", 0.3), ("transit", 0.3)))


def test_pools_are_named_by_what_their_division_goes_by() -> None:
    use = Use(session="vpn", outgoing=False, purpose="own")
    assert [part.label(use) for part in (Shared(), EncDec(), Session(), QCANADA)] == ["all", "dec", "vpn", "own"]


def test_two_applications_share_a_pool_unless_there_are_sessions() -> None:
    one, other = Use(session="vpn"), Use(session="backup")
    assert Shared().label(one) == Shared().label(other)
    assert EncDec().label(one) == EncDec().label(other)
    assert Session().label(one) != Session().label(other)


def test_only_pools_of_sessions_and_directions_are_uncontested() -> None:
    assert [part.contested for part in (Shared(), EncDec(), Session(), QCANADA)] == [True, False, False, True]


@given(st.integers(0, 1000))
def test_a_piece_is_for_encryption_at_one_end_only(piece: int) -> None:
    assert EncDec().outgoing(piece, source=True) != EncDec().outgoing(piece, source=False)


def test_pieces_go_to_sessions_in_turn() -> None:
    assert [Session().whose(piece, ("a", "b", "c")) for piece in range(5)] == ["a", "b", "c", "a", "b"]


def test_the_stretches_of_a_pass_follow_one_another() -> None:
    assert Session("quota").stretches(100, [("a", 10), ("b", 0), ("c", 5)]) == [("a", 100, 10), ("c", 110, 5)]


def test_at_qcanada_4_the_301st_transit_key_is_refused_although_699_remain() -> None:
    assert QCANADA.may_take("transit", 1, 299, 1000)
    assert not QCANADA.may_take("transit", 1, 300, 1000)
    assert QCANADA.may_take("direct", 400, 0, 1000)
    assert not QCANADA.may_take("unheard", 1, 0, 1000)


def test_the_internal_reserve_is_filled_before_the_rest() -> None:
    classes = Purpose(shares=(("internal", 32), ("external", 1.0)))
    assert classes.limits(100) == {"internal": 32, "external": 68}
    assert classes.limits(20) == {"internal": 20, "external": 0}


@given(st.integers(0, 10_000), st.integers(1, 99))
def test_shares_are_exact_percentages(total: int, percent: int) -> None:
    assert Purpose(shares=(("own", percent / 100),)).limits(total) == {"own": total * percent // 100}


@pytest.mark.parametrize("shares", [(), (("a", 0.7), ("b", 0.4)), (("a", -1),)])
def test_shares_that_cannot_be_are_refused(shares: tuple[tuple[str, int | float], ...]) -> None:
    with pytest.raises(ValueError, match=r"purpose\.shares = .*: must be 0 or more"):
        Purpose(shares=shares)
