"""A few random schedules in every test run, the kept seeds first; `make worlds` runs thousands."""

from __future__ import annotations

import os

import pytest

from . import sabotages
from .run import Case, kept_cases, run_case

FIRST = int(os.environ.get("KEYHOP_WORLD_SEED", "1000"))
COUNT = 24


@pytest.mark.parametrize("case", kept_cases(), ids=str)
def test_a_seed_that_failed_once_passes(case: Case) -> None:
    result = run_case(case)
    assert not result.wrong, f"{result.wrong}; again: {case.command}"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_every_invariant_holds_in_a_random_schedule(seed: int) -> None:
    case = Case(seed, None, None)
    result = run_case(case)
    assert not result.wrong, f"seed {seed}: {result.wrong}; again: {case.command}"


@pytest.mark.parametrize(
    "sabotage",
    [s for s in sabotages.SABOTAGES if s.make in (sabotages.dec_keys_outside_a_lease, sabotages.swapped_directions)],
    ids=lambda sabotage: sabotage.make.__name__,
)
def test_a_rule_left_out_is_found(sabotage: sabotages.Sabotage) -> None:
    assert sabotages.hunt(sabotage, jobs=1, seeds=40) is not None
