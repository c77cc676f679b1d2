"""Whatever a neighbour says, a site of any design refuses it with ValueError or goes on with books that close."""

from __future__ import annotations

import pytest
from tests.fuzz.sites import look

from keyhop.core.designs import DESIGNS


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_forged_words_unbalance_no_book_and_put_no_unit_into_two_queues(design: str) -> None:
    assert look(design, seed=1, rounds=60) > 0
