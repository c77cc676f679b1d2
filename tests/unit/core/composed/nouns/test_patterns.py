"""Whose a unit is follows from its position, whatever the pieces in which the run is dealt."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.composed.nouns.patterns import LONGEST_CYCLE, ByCredit, ByQuota, ByTurn, Pattern, Share, weights
from keyhop.core.policy.division import EncDec, Session
from keyhop.core.policy.sharing import Proportional, Weighted

Made = Callable[[int, tuple[Share, ...]], Pattern]
SESSIONS = "abcdefgh"

KINDS: dict[str, Made] = {
    "turn": lambda start, shares: ByTurn(Session(), start, shares, 3, None),
    "turn with directions": lambda start, shares: ByTurn(Session(), start, shares, 3, (EncDec(), ">", "<")),
    "credit": lambda start, shares: ByCredit(Weighted(unit_bits=256), start, shares),
    "quota": lambda start, shares: ByQuota(Proportional(), start, shares, 64),
}
RATES = st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any)


def owners(pattern: Pattern, cuts: list[int]) -> list[str]:
    """Of every unit from the first cut to the last."""
    found: list[str] = []
    for start, end in pairwise(cuts):
        for label, low, high in pattern.pieces(start, end):
            assert low == cuts[0] + len(found) and low < high <= end
            found += [label] * (high - low)
    return found


@pytest.mark.parametrize("kind", KINDS)
@given(
    rates=RATES,
    start=st.integers(0, 1000),
    offset=st.integers(0, 300),
    lengths=st.lists(st.integers(1, 90), max_size=6),
)
def test_the_pieces_in_which_a_run_is_dealt_change_nothing(
    kind: str, rates: list[int], start: int, offset: int, lengths: list[int]
) -> None:
    pattern = KINDS[kind](start, tuple(map(Share, SESSIONS, rates)))
    cuts = [start + offset]
    for length in lengths:
        cuts.append(cuts[-1] + length)
    whole = owners(pattern, [cuts[0], cuts[-1]])
    assert owners(pattern, cuts) == whole and len(whole) == cuts[-1] - cuts[0]
    idle = {session for session, rate in zip(SESSIONS, rates, strict=False) if not rate}
    assert not idle & {label[0] for label in whole}, "who has no rate gets nothing"


@given(rates=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), units=st.integers(1, 300))
def test_dealing_by_credit_equals_the_sum_kept_unit_by_unit(rates: list[int], units: int) -> None:
    """The twin: nothing is repeated, nothing is made smaller."""
    picks, _ = Weighted(unit_bits=8).deal(rates, units)
    pattern = ByCredit(Weighted(unit_bits=8), 7, tuple(map(Share, SESSIONS, rates)))
    assert owners(pattern, [7, 7 + units]) == [SESSIONS[pick] for pick in picks]


@given(rates=RATES, passes=st.integers(1, 4))
def test_dealing_by_quota_equals_pass_after_pass(rates: list[int], passes: int) -> None:
    quotas = Proportional().quotas(64, rates)
    slow = [session for session, quota in zip(SESSIONS, quotas, strict=False) for _ in range(quota)] * passes
    pattern = ByQuota(Proportional(), 5, tuple(map(Share, SESSIONS, rates)), 64)
    assert owners(pattern, [5, 5 + 64 * passes]) == slow


@given(rates=st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any))
def test_weights_are_small_keep_everybody_and_come_close(rates: list[int]) -> None:
    small = weights(tuple(rates))
    assert sum(small) <= LONGEST_CYCLE + len(rates)
    for rate, weight in zip(rates, small, strict=True):
        assert (weight > 0) is (rate > 0)
        assert abs(weight / sum(small) - rate / sum(rates)) < 0.02
