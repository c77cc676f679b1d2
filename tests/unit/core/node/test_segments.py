"""Stretches of alike segments say what a plain dict of segments says, and the indexes are what a recount finds."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from typing import NamedTuple

import pytest
from msgspec import structs

from keyhop.core.node.extents import Extents
from keyhop.core.node.segments import GONE, UNTOUCHED, Segment, Segments

PIECES = (64, 64, 64, 32, 16)
MARKS = (UNTOUCHED, "supply", "pad", GONE)


def segment(start: int, length: int, mark: str = UNTOUCHED, *, born: int = 0, spent_at: int | None = None) -> Segment:
    return Segment(start, length, mark, stored=mark == UNTOUCHED, born=born, spent_at=spent_at)


class Twin(NamedTuple):
    """The same segments, kept as they come."""

    clever: Segments
    plain: dict[int, Segment]

    def insert(self, made: Segment) -> None:
        self.clever.insert(made)
        self.plain[made.start] = made

    def replace(self, changed: Segment) -> None:
        self.clever.replace(changed)
        self.plain[changed.start] = changed

    def forget_below(self, floor: int) -> None:
        self.clever.forget_below(floor)
        for start in [start for start, each in self.plain.items() if each.end <= floor]:
            del self.plain[start]

    def spend_what_is_not(self, live: Extents, now: int) -> None:
        for stretch in self.clever.lent():
            for start, end in stretch.outside(live):
                self.clever.spend(start, end, now)
        for start, each in self.plain.items():
            lent = each.mark not in (UNTOUCHED, GONE) and each.spent_at is None
            if lent and not live.touches(each.start, each.end):
                self.plain[start] = structs.replace(each, spent_at=now)

    def check(self) -> None:
        here = [self.plain[start] for start in sorted(self.plain)]
        assert list(self.clever.values()) == here
        assert list(self.clever) == [each.start for each in here]
        assert len(self.clever) == len(here) and bool(self.clever) is bool(here)
        untouched = [each for each in here if each.mark == UNTOUCHED]
        lent = [each for each in here if each.mark not in (UNTOUCHED, GONE) and each.spent_at is None]
        assert [each for stretch in self.clever.untouched() for each in stretch.segments()] == untouched
        assert [each for stretch in self.clever.lent() for each in stretch.segments()] == lent
        assert self.clever.untouched_bytes == sum(each.length for each in untouched)
        for first, second in itertools.pairwise(self.clever.stretches()):
            assert first.end <= second.start
        for position in range(0, 2048, 8):
            covering = [each for each in here if each.start <= position < each.end]
            assert self.clever.at(position) == (covering[0] if covering else None)
            assert (position in self.clever) is (position in self.plain)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_indexes_are_what_a_recount_finds(seed: int) -> None:
    rng = random.Random(seed)
    twin = Twin(Segments(), {})
    end = 0
    holes: list[tuple[int, int]] = []
    for now in range(80):
        match rng.randrange(6):
            case 0 | 1:
                length = rng.choice(PIECES)
                for _ in range(rng.randint(1, 6)):
                    made = segment(end, length, rng.choice(MARKS[: rng.randint(1, 4)]), born=now // 20)
                    if rng.random() < 0.1:
                        # It comes late, or never.
                        holes.append((end, length))
                    else:
                        twin.insert(made)
                    end += length
                if rng.random() < 0.3:
                    # The last one of a placement.
                    twin.insert(segment(end, 8, born=now // 20))
                    end += 8
            case 2 if twin.plain:
                chosen = twin.plain[rng.choice(list(twin.plain))]
                spent_at = rng.choice((None, now // 20))
                twin.replace(structs.replace(chosen, mark=rng.choice(MARKS[1:]), stored=False, spent_at=spent_at))
            case 3 if twin.plain:
                live = Extents((low, low + rng.randint(1, 90)) for low in rng.sample(range(end), min(end, 3)))
                twin.spend_what_is_not(live, now // 20)
            case 4 if rng.random() < 0.3:
                floor = rng.randrange(end + 1) // 2
                twin.forget_below(floor)
                holes = [(start, length) for start, length in holes if start >= floor]
            case 5 if holes:
                start, length = holes.pop(rng.randrange(len(holes)))
                twin.insert(segment(start, length, born=now // 20))
        twin.check()


def test_a_segment_that_overlaps_another_is_our_own_bug() -> None:
    segments = Segments()
    segments.insert(segment(64, 64))
    for start, length in ((64, 64), (0, 65), (127, 1), (96, 64)):
        with pytest.raises(AssertionError, match="overlaps another"):
            segments.insert(segment(start, length))


@pytest.mark.parametrize(("start", "length"), [(0, 32), (32, 32), (64, 128), (256, 64)])
def test_what_is_no_whole_segment_here_cannot_be_changed(start: int, length: int) -> None:
    segments = Segments()
    for low in (0, 64, 128):
        segments.insert(segment(low, 64, "supply" if low == 128 else UNTOUCHED))
    before = list(segments.values())
    with pytest.raises(AssertionError, match="no segments of one kind"):
        segments.replace(segment(start, length, "supply"))
    assert list(segments.values()) == before


def test_alike_segments_cost_no_more_memory_however_many_they_are() -> None:
    def cost(count: int) -> int:
        tracemalloc.start()
        segments = Segments()
        for number in range(count):
            segments.insert(segment(number * 1024, 1024, born=number * 1024 // count))
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(segments) == count
        return used

    assert cost(20_000) <= 1.2 * cost(2_000)


def test_a_walk_sees_each_stretch_once_though_it_changes_them() -> None:
    segments = Segments()
    for low in range(0, 640, 64):
        segments.insert(segment(low, 64, "supply" if low % 128 else "pad"))
    seen = []
    for stretch in segments.stretches():
        seen.append(stretch.start)
        segments.replace(segment(stretch.start, 64, GONE, spent_at=0))
    assert seen == list(range(0, 640, 64))
    assert len(list(segments.stretches())) == 1
