"""When blocks are proposed, and how many together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from keyhop.core.messages import BLOCKS_PER_PROPOSAL
from keyhop.core.node.gathering import (
    HASTE_AT_ONCE,
    HASTE_BYTES,
    LOW_BYTES,
    PROPOSAL_BYTES,
    QUIET_BYTES,
    QUIET_NS,
    Gathering,
    Waiting,
)

SMALL = 1024
Here = dict[tuple[str, int], Waiting]


def stocked(own: int, theirs: int) -> Any:
    return SimpleNamespace(
        peer="b", own_key=SimpleNamespace(untouched=own), their_key=SimpleNamespace(untouched=theirs)
    )


PLENTY = stocked(LOW_BYTES, LOW_BYTES)
LOW = [stocked(LOW_BYTES - 1, 10 * LOW_BYTES), stocked(10 * LOW_BYTES, LOW_BYTES - 1)]


def blocks(*numbers: int, length: int = SMALL, module: str = "qkd", **more: Any) -> Here:
    return {(module, number): Waiting(length, 0.0, "", at=0, **more) for number in numbers}


def taken(here: Here) -> list[tuple[str, int]]:
    return [key for key, _ in Gathering().take("b", here)]


def test_nothing_is_due_where_nothing_waits() -> None:
    assert not Gathering().due(LOW[0], {}, QUIET_NS)


def test_with_stock_in_both_directions_blocks_wait_for_each_other_but_not_for_ever() -> None:
    gathering, few = Gathering(), QUIET_BYTES // SMALL - 1
    assert not gathering.due(PLENTY, blocks(*range(few)), QUIET_NS - 1)
    assert gathering.due(PLENTY, blocks(*range(few + 1)), 0)
    assert gathering.due(PLENTY, blocks(0), QUIET_NS)


@pytest.mark.parametrize("pair", LOW, ids=["own", "theirs"])
def test_with_a_low_stock_a_block_goes_at_once_as_long_as_tags_stay_a_small_part(pair: Any) -> None:
    gathering, proposed = Gathering(), 0
    for number in range(40):
        gathering.arrived("b", SMALL)
        here = blocks(number)
        if gathering.due(pair, here, 0):
            gathering.take("b", here)
            proposed += 1
    assert proposed == HASTE_AT_ONCE + (40 - HASTE_AT_ONCE) * SMALL // HASTE_BYTES


def test_a_proposal_holds_blocks_of_one_module_in_rising_order_and_the_rest_waits() -> None:
    here = blocks(3, 4) | blocks(1, module="west") | blocks(9, 5)
    assert taken(here) == [("qkd", 3), ("qkd", 4), ("qkd", 9)]
    assert list(here) == [("west", 1), ("qkd", 5)]


def test_a_proposal_is_bounded_in_blocks_and_bytes_but_takes_one_block_of_any_size() -> None:
    assert len(taken(blocks(*range(2 * BLOCKS_PER_PROPOSAL), length=1))) == BLOCKS_PER_PROPOSAL
    assert len(taken(blocks(*range(9), length=PROPOSAL_BYTES // 4))) == 4
    assert taken(blocks(1, 2, length=2 * PROPOSAL_BYTES)) == [("qkd", 1)]


def test_what_was_refused_in_company_goes_alone_and_at_once() -> None:
    here = blocks(1, 2, alone=True) | blocks(3)
    gathering = Gathering()
    assert gathering.due(PLENTY, here, 0)
    assert taken(here) == [("qkd", 1)]
    assert taken(here) == [("qkd", 2)]
    assert not gathering.due(PLENTY, here, 0)
