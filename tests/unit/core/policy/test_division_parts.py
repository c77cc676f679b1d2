"""Whose pool key falls into, and what each may take of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.division import EncDec, Purpose, Session, Shared, Use, Want

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


def test_even_pieces_are_the_sources() -> None:
    assert [EncDec().outgoing(piece, source=True) for piece in range(4)] == [True, False, True, False]


def test_authentication_is_fed_to_its_floor_before_anything_else() -> None:
    floors = [Want(4, 0, 64), Want(5, 40, 100)]
    # 60 bytes are short of the second floor, one whole tag key fits; the keys get what is left.
    assert EncDec().deal(1096, floors, [], [Want(0, 0, 9999)]) == [(4, 64), (5, 32), (0, 1000)]


def test_tags_go_on_with_a_tenth_in_whole_keys() -> None:
    tags = [Want(4, 0, 9999), Want(5, 9990, 9999)]
    assert EncDec().deal(1000, [], tags, [Want(0, 0, 9999)]) == [(4, 32), (0, 968)]
    assert EncDec().deal(1000, [], [Want(4, 9935, 9999)], [Want(0, 0, 9999)]) == [(4, 64), (0, 936)]


def test_nothing_is_dealt_above_a_limit() -> None:
    assert EncDec().deal(1000, [], [], [Want(0, 900, 1000)]) == [(0, 100)]
    assert EncDec().deal(1000, [Want(4, 90, 90)], [], [Want(0, 1000, 1000)]) == []
    assert EncDec().deal(1000, [], [], [Want(0, 950, 1000), Want(1, 900, 1000)]) == [(1, 100), (0, 50)]


def test_the_shorter_direction_is_filled_to_the_longer_then_both_alike() -> None:
    assert EncDec().deal(640, [], [], [Want(0, 128, 9999), Want(1, 0, 9999)]) == [(1, 384), (0, 256)]
    assert EncDec().deal(100, [], [], [Want(0, 128, 9999), Want(1, 0, 9999)]) == [(1, 100)]
    assert EncDec().deal(100, [], [], [Want(0, 0, 9999), Want(1, 0, 9999)]) == [(0, 68), (1, 32)]


@given(
    st.integers(0, 5000),
    *(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 2000)), min_size=n, max_size=n) for n in (2, 2, 2)),
)
def test_dealing_keeps_to_the_block_and_to_every_limit(
    length: int, floors: list[tuple[int, int]], tags: list[tuple[int, int]], keys: list[tuple[int, int]]
) -> None:
    wants = [Want(number, *want) for number, want in enumerate([*floors, *tags, *keys])]
    dealt = EncDec().deal(length, wants[:2], wants[2:4], wants[4:])
    assert sum(take for _, take in dealt) <= length
    for run, take in dealt:
        assert 0 < take <= wants[run].limit_bytes - wants[run].stock_bytes


def test_shares_of_nothing_and_of_all_are_shares() -> None:
    assert Purpose(shares=(("own", 0), ("transit", 1.0))).limits(10) == {"own": 0, "transit": 10}
