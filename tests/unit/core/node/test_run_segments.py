"""Where a position lies is found whatever came late and whatever has gone: fetched keys depend on it."""

from __future__ import annotations

import random

from keyhop.core.model import NodeId, Purpose, RunId
from keyhop.core.node.run import UNTOUCHED, Run, Segment

SEGMENT_BYTES = 64


def insert(run: Run, number: int) -> None:
    start = number * SEGMENT_BYTES
    segment = Segment(start, SEGMENT_BYTES, UNTOUCHED, stored=True, born=0)
    run.insert_segment(segment)
    run.set_mark(segment, Purpose.SUPPLY)


def is_leased(run: Run, number: int) -> bool:
    """Asked from within the segment: its start is not what is looked up."""
    at = number * SEGMENT_BYTES
    return run.leased(at + 8, at + 40, Purpose.SUPPLY) is not None


def test_a_segment_that_came_late_is_found_after_another_has_gone() -> None:
    run = Run(RunId(NodeId("b"), 0), owned=False)
    for number in (0, 1, 2, 4):
        insert(run, number)
    assert is_leased(run, 2)
    run.forget_below(SEGMENT_BYTES)
    insert(run, 3)
    assert [number for number in range(6) if is_leased(run, number)] == [1, 2, 3, 4]


def test_pads_of_the_other_end_count_until_it_has_named_them() -> None:
    run = Run(RunId(NodeId("b"), 0), owned=False)
    for number, purpose in enumerate((Purpose.PAD, Purpose.SUPPLY, Purpose.PAD, Purpose.PAD)):
        segment = Segment(number * SEGMENT_BYTES, SEGMENT_BYTES, UNTOUCHED, stored=True, born=0)
        run.insert_segment(segment)
        run.set_mark(segment, purpose)
    assert run.pads_bytes() == 3 * SEGMENT_BYTES
    run.used.add(0, 16)
    run.used.add(SEGMENT_BYTES, 2 * SEGMENT_BYTES)
    run.used.add(3 * SEGMENT_BYTES - 8, 3 * SEGMENT_BYTES + 8)
    assert run.pads_bytes() == 3 * SEGMENT_BYTES - 32
    run.spend(2 * SEGMENT_BYTES, 3 * SEGMENT_BYTES, 1)
    assert run.pads_bytes() == 2 * SEGMENT_BYTES - 16 - 8


def test_what_is_found_is_what_a_slow_look_at_all_segments_finds() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        run = Run(RunId(NodeId("b"), 0), owned=False)
        here: set[int] = set()
        for _ in range(60):
            number = rng.randrange(16)
            if rng.random() < 0.05:
                run.forget_below(number * SEGMENT_BYTES)
                here = {each for each in here if each >= number}
            elif number not in here:
                insert(run, number)
                here.add(number)
            asked = rng.randrange(16)
            assert is_leased(run, asked) is (asked in here), f"seed {seed}"
