"""When blocks are proposed, and how many together."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from keyhop.core.messages import BLOCKS_PER_PROPOSAL
from keyhop.core.model import NANOSECONDS
from keyhop.core.node.block_numbers import WINDOW
from keyhop.core.node.gathering import (
    HASTE_AT_ONCE,
    HASTE_BYTES,
    HASTE_NS,
    LOW_BYTES,
    PLENTY_BYTES,
    PROPOSAL_BYTES,
    QUIET_BYTES,
    QUIET_NS,
    Gathering,
    Waiting,
)
from keyhop.core.node.placing import FLOOR_BYTES

SMALL = 1024
Here = dict[tuple[str, int], Waiting]


RUNS = ("own_tags", "own_opening", "their_tags", "their_opening")


def stocked(own: int, theirs: int, poor: str = "", tags: int = FLOOR_BYTES) -> Any:
    runs = {name: SimpleNamespace(available=lambda left=tags - (name == poor): left) for name in RUNS}
    keys = {"own_key": SimpleNamespace(untouched=own), "their_key": SimpleNamespace(untouched=theirs)}
    return SimpleNamespace(peer="b", **keys, **runs)


PLENTY = stocked(LOW_BYTES, LOW_BYTES)
LOW = {"own": stocked(LOW_BYTES - 1, 10 * LOW_BYTES), "theirs": stocked(10 * LOW_BYTES, LOW_BYTES - 1)} | {
    name: stocked(LOW_BYTES, LOW_BYTES, name) for name in RUNS
}


def blocks(*numbers: int, length: int = SMALL, module: str = "qkd", **more: Any) -> Here:
    return {(module, number): Waiting(length, 0.0, "", at=0, **more) for number in numbers}


def taken(here: Here, *under_way: tuple[str, int]) -> list[tuple[str, int]]:
    return [key for key, _ in Gathering().take("b", here, under_way, 0)]


def test_nothing_is_due_where_nothing_waits() -> None:
    assert not Gathering().due(LOW["own"], {}, QUIET_NS)


def test_with_stock_in_both_directions_blocks_wait_for_each_other_but_not_for_ever() -> None:
    gathering = Gathering()
    assert not gathering.due(PLENTY, blocks(1, 2, 3, length=QUIET_BYTES // 4), QUIET_NS - 1)
    assert gathering.due(PLENTY, blocks(1, 2, 3, 4, length=QUIET_BYTES // 4), 0)
    assert gathering.due(PLENTY, blocks(0), QUIET_NS)
    assert gathering.due(PLENTY, blocks(*range(BLOCKS_PER_PROPOSAL), length=1), 0), "it takes no more of them"


def test_nothing_is_proposed_that_would_push_what_is_under_way_out_of_the_window_of_numbers() -> None:
    assert taken(blocks(100, 110, 100 + WINDOW - 1, 100 + WINDOW)) == [("qkd", 100), ("qkd", 110), ("qkd", 163)]
    assert taken(blocks(70, 90), ("qkd", 20)) == [("qkd", 70)]
    assert taken(blocks(84), ("qkd", 20)) == []
    assert taken(blocks(84), ("west", 20)) == [("qkd", 84)]


@pytest.mark.parametrize("pair", LOW.values(), ids=LOW)
def test_with_a_low_stock_a_block_goes_at_once_as_long_as_tags_stay_a_small_part(pair: Any) -> None:
    gathering, proposed = Gathering(), 0
    for number in range(60):
        gathering.arrived("b", SMALL)
        here = blocks(number)
        if gathering.due(pair, here, 0):
            gathering.take("b", here, (), 0)
            proposed += 1
    later = [(60 - at_once) * SMALL // HASTE_BYTES for at_once in (HASTE_AT_ONCE, 0)]
    assert HASTE_AT_ONCE + later[0] <= proposed <= HASTE_AT_ONCE + later[1]


@pytest.mark.parametrize(("tags", "beyond_pace"), [(PLENTY_BYTES, True), (PLENTY_BYTES - 1, False)])
def test_on_a_slow_link_with_plenty_of_tag_keys_no_block_waits_long(tags: int, beyond_pace: bool) -> None:
    gathering, proposed_at = Gathering(), []
    for second in range(200):
        gathering.arrived("b", HASTE_BYTES // 40)
        now = second * NANOSECONDS
        here = {("qkd", second): Waiting(SMALL, 0.0, "", at=now)}
        if gathering.due(stocked(0, 0, tags=tags), here, now):
            gathering.take("b", here, (), now)
            proposed_at.append(now)
    later = {b - a for a, b in itertools.pairwise(proposed_at[HASTE_AT_ONCE:])}
    assert later == {HASTE_NS if beyond_pace else 40 * NANOSECONDS}


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
