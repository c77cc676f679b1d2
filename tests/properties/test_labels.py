"""No key leaves with an epsilon above the bound that was asked, however it was cut, joined, relayed and combined."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from compositions import FINE, Compositions, blocks_of, holds

from keyhop.core import epsilon as epsilons

COUNT = 100_000
BLOCKS_COUNTED = 9


def test_no_key_leaves_above_the_bound_that_was_asked_and_none_from_a_kdf_as_its() -> None:
    made = Compositions(seed=20)
    for _ in range(COUNT):
        made.check(made.step())
    # The test says nothing unless much is given and much refused.
    assert min(made.seen["given"], made.seen["refused"], made.seen["not its"]) > COUNT // 20
    assert min(made.seen[verb] for verb in ("merge", "relay", "split", "xor", "combine", "derive")) > COUNT // 20


@pytest.mark.parametrize("seed", range(3))
def test_a_key_fails_no_more_often_than_its_epsilon_says_when_blocks_fail_as_often_as_theirs(seed: int) -> None:
    made, counted = Compositions(seed, coarse=True), 0
    for _ in range(600):
        one = made.step()
        blocks = sorted(blocks_of(one.formula))
        if not one.its or len(blocks) > BLOCKS_COUNTED:
            continue
        bad = Fraction(0)
        for fates in product((True, False), repeat=len(blocks)):
            if holds(one.formula, frozenset(name for name, good in zip(blocks, fates, strict=True) if good)):
                continue
            chance = Fraction(1)
            for name, good in zip(blocks, fates, strict=True):
                failing = Fraction(made.true[name], FINE)
                chance *= 1 - failing if good else failing
            bad += chance
        claimed = one.label.epsilon
        assert claimed is not None and bad <= Fraction(claimed, epsilons.ONE)
        counted += 1
    assert counted > 50


def test_the_account_would_find_a_label_that_forgets_a_part() -> None:
    made = Compositions(seed=1)
    first, second = made.fresh(), made.fresh()
    lying = first._replace(rests_on=first.rests_on | second.rests_on)
    with pytest.raises(AssertionError):
        made.check(lying)
