"""The reference beside the published designs: buffers filled evenly, keys split on supply, states that are told."""

from __future__ import annotations

import pytest
from tests.acceptance.benches import Bench

from keyhop.core.composed.stock.refills import DirectedBuffers, Levels, state
from keyhop.core.designs import DESIGNS

DESIGN = DESIGNS["qkdnetsim_like"]
KEY = 512


def room(bench: Bench, at: str = "A") -> DirectedBuffers:
    found = bench.line(at, "B" if at == "A" else "A").dealing
    assert isinstance(found, DirectedBuffers)
    return found


def levels(bench: Bench, at: str, *labels: str) -> list[int]:
    return [room(bench, at).level_bits(label) // KEY for label in labels]


def stocked(keys: int) -> Bench:
    bench = Bench(DESIGN)
    bench.open("s", "A", "B")
    bench.give(keys * KEY)
    bench.go(1)
    return bench


def test_fresh_key_is_split_evenly_between_the_directions_in_whole_keys() -> None:
    bench = Bench(DESIGN)
    bench.give(10 * KEY + 256)
    bench.go(1)
    assert levels(bench, "A", "A>B", "B>A") == levels(bench, "B", "A>B", "B>A") == [5, 5]
    assert [line.run.free.level * 8 for line in bench.lines()] == [256, 256]
    bench.balanced()


def test_a_reserved_stream_has_a_buffer_of_its_own_and_an_even_share() -> None:
    bench = Bench(DESIGN)
    bench.open("video", "B", "A", service_class="guaranteed")
    bench.go(1)
    bench.give(9 * KEY)
    bench.go(1)
    assert levels(bench, "A", "A>B", "B>A", "video") == levels(bench, "B", "A>B", "B>A", "video") == [3, 3, 3]
    name = bench.name(bench.ask("B", "A", KEY, stream="video"))
    assert name.label == "video" and bench.name(bench.fetch("A", "B", name, stream="video")) == name
    bench.close("video", "A", "B")
    bench.go(1)
    assert [book.X for book in bench.balanced()] == [2 * KEY, 2 * KEY]


def test_the_rest_of_a_split_key_is_no_key_before_the_peer_has_confirmed_it() -> None:
    bench = stocked(2)
    first = bench.name(bench.ask("A", "B", 256))
    assert first.taken_bits == 256 and first.ranges == ((0, 32),)
    assert levels(bench, "A", "A>B") == [0] and bench.refusal(bench.ask("A", "B", 256))
    bench.go(0.03)
    second = bench.name(bench.ask("A", "B", 256))
    assert second.ranges == ((32, 64),)
    for name in (first, second):
        assert bench.name(bench.fetch("B", "A", name)) == name
    assert bench.book("A", "B").O == 0
    bench.balanced()


def test_a_lost_confirmation_delays_the_rest_and_gives_nothing_twice() -> None:
    bench = stocked(2)
    bench.lose = lambda node, said: said.message.word == "SPLIT-ACK" and bench.now < 3_000_000_000
    first = bench.name(bench.ask("A", "B", 256))
    bench.go(1)
    assert bench.refusal(bench.ask("A", "B", 256))
    bench.go(6)
    second = bench.name(bench.ask("A", "B", 256))
    assert {first.ranges, second.ranges} == {((0, 32),), ((32, 64),)}
    bench.balanced()


def test_a_restart_while_a_rest_is_unconfirmed_gives_it_back_once() -> None:
    bench = stocked(2)
    bench.lose = lambda node, said: said.message.word == "SPLIT-ACK"
    bench.ask("A", "B", 256)
    bench.go(0.1)
    bench.restart("A")
    bench.lose = lambda node, said: False
    bench.go(10)
    assert room(bench).level_bits("A>B") == 256
    bench.balanced()


def test_a_key_larger_than_a_stored_one_is_put_together_of_several() -> None:
    bench = stocked(20)
    name = bench.name(bench.ask("A", "B", 1280))
    assert name.taken_bits == 1280 and bench.name(bench.fetch("B", "A", name)) == name
    bench.balanced()


@pytest.mark.parametrize("size_bits", [24, 10_248])
def test_keys_beyond_the_bounds_cannot_be_served(size_bits: int) -> None:
    bench = stocked(100)
    answer = bench.answers[bench.ask("A", "B", size_bits)]
    assert answer.unservable and "must be 32 to 10240" in answer.refusal
    bench.balanced()


@pytest.mark.parametrize("size_bits", [32, 10_240])
def test_keys_at_the_bounds_are_served(size_bits: int) -> None:
    bench = stocked(100)
    assert bench.name(bench.ask("A", "B", size_bits)).taken_bits == size_bits
    bench.balanced()


def test_a_buffer_above_its_threshold_is_left_alone() -> None:
    bench = Bench(DESIGN)
    bench.give(2 * 3906 * KEY)
    bench.go(1)
    assert levels(bench, "A", "A>B", "B>A") == [3906, 3906]
    bench.give(100 * KEY)
    bench.go(1)
    assert levels(bench, "A", "A>B", "B>A") == [3906, 3906]
    bench.ask("A", "B", KEY)
    bench.go(1)
    assert levels(bench, "A", "A>B", "B>A") == [3905 + 100, 3906]
    bench.balanced()


def test_states_follow_level_and_trend() -> None:
    levels = Levels(least=100, threshold=200)
    assert state(200, levels, rising=False, before="WARNING") == "READY"
    assert state(100, levels, rising=True, before="CHARGING") == "EMPTY"
    assert state(150, levels, rising=True, before="EMPTY") == "CHARGING"
    assert state(150, levels, rising=False, before="READY") == "WARNING"
    assert state(150, levels, rising=True, before="READY") == "WARNING"
    assert state(150, levels, rising=True, before="WARNING") == "CHARGING"
    assert state(140, levels, rising=False, before="CHARGING") == "CHARGING"


def test_a_buffer_tells_its_state_from_empty_to_ready_and_back() -> None:
    bench = Bench(DESIGN)
    seen = [room(bench).state("A>B")]
    for keys in (1000, 3000, 4000):
        bench.give(keys * KEY)
        bench.go(1)
        seen.append(room(bench).state("A>B"))
    for _ in range(30):
        bench.ask("A", "B", 10_240)
        bench.go(0.1)
    seen.append(room(bench).state("A>B"))
    assert seen == ["EMPTY", "EMPTY", "CHARGING", "READY", "WARNING"]
    bench.balanced()
