"""Ranges: the same bytes, joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.model import NodeId, Range, RunId, joined

RUNS = st.sampled_from([RunId(NodeId("bob"), 0), RunId(NodeId("bob"), 1), RunId(NodeId("carol"), 0)])


@given(st.lists(st.builds(Range, RUNS, st.integers(0, 60), st.integers(1, 9)), max_size=12))
def testjoined_ranges_hold_the_same_bytes_and_no_byte_twice(ranges: list[Range]) -> None:
    def held(some: Sequence[Range]) -> Iterator[tuple[RunId, int]]:
        return ((one.run, position) for one in some for position in range(one.start, one.end))

    wanted = set(held(ranges))
    found = list(held(joined(ranges)))
    assert set(found) == wanted and len(found) == len(wanted)


def test_neighbouring_keys_arejoined_whatever_their_order() -> None:
    run = RunId(NodeId("bob"), 0)
    keys = [Range(run, start, 32) for start in (64, 0, 32, 128)]
    assert joined(keys) == [Range(run, 0, 96), Range(run, 128, 32)]
