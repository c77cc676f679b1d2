"""What a refill costs at the end that is asked, and what it answers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.acceptance.benches import Bench

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.composed.nouns.shapes import RANGES_LIMIT, Malformed
from keyhop.core.composed.nouns.units import Queue
from keyhop.core.composed.stock.refills import POOLS_LIMIT, Refilled, lacking
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.synchronisation import Verb

QCC = DESIGNS["qcc"]


class Looked(list[int]):
    """A row of a queue that counts what is looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        Looked.looks += 1
        return super().__getitem__(at)

    def __iter__(self) -> Any:
        raise AssertionError("all of it is")


def with_holes(pieces: int) -> Bench:
    """The slave's store and one buffer lie in many pieces."""
    bench = Bench(QCC)
    run = bench.line("B", "A").run
    run.end = 8 * pieces + 4
    # Pieces of three of every eight in each, so that either has what the other lacks.
    for queue, first in ((run.free, 0), (run.pool("waiting"), 4)):
        row = [at for piece in range(pieces) for at in (8 * piece + first, 8 * piece + first + 3)]
        queue._rows, queue.level = [Looked(row)], 3 * pieces
    return bench


def refill(bench: Bench, number: int, *ranges: tuple[int, int]) -> Kx:
    message = Kx("REFILL", Verb.ASSIGN, ranges=ranges, counts=(number, len(ranges)), names=("s",))
    room = bench.line("B", "A").dealing
    assert isinstance(room, Refilled)
    return room._proposed(message)


@pytest.mark.parametrize("pieces", [1_000, 32_000])
def test_a_refill_costs_no_more_where_more_waits(pieces: int) -> None:
    bench, middle = with_holes(pieces), 8 * (pieces // 2)
    Looked.looks = 0
    assert refill(bench, 1, (middle, middle + 2)).ok
    refused = refill(bench, 2, (middle, middle + 2), (middle + 8, middle + 13))
    assert (refused.ok, refused.ranges) == (False, ((middle, middle + 2), (middle + 11, middle + 13)))
    assert Looked.looks < 20 * pieces.bit_length()


def test_an_answer_names_no_more_than_it_may_and_looks_no_further() -> None:
    bench = with_holes(RANGES_LIMIT + 1_000)
    run = bench.line("B", "A").run
    Looked.looks = 0
    named = lacking(run, ((0, run.end),))
    assert len(named) == RANGES_LIMIT
    assert named[:2] == ((3, 8), (11, 16))
    assert Looked.looks < 3 * RANGES_LIMIT * RANGES_LIMIT.bit_length()


def test_what_has_not_entered_yet_is_not_called_lacking() -> None:
    bench = with_holes(10)
    run = bench.line("B", "A").run
    assert lacking(run, ((run.end, run.end + 5),)) == ()
    assert lacking(run, ((run.end - 1, run.end + 5),)) == ((run.end - 1, run.end),)


def test_buffers_beyond_the_limit_are_refused_and_known_ones_are_not() -> None:
    bench = with_holes(10)
    run = bench.line("B", "A").run
    for number in range(POOLS_LIMIT - len(run.pools)):
        run.pools[f"b{number}"] = Queue()
    with pytest.raises(Malformed, match=f"{POOLS_LIMIT} are enough"):
        refill(bench, 1, (0, 2))
    run.pools["s"] = run.pools.pop("b0")
    assert refill(bench, 1, (0, 2)).ok
