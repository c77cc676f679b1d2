"""Fixed units and stores per size: numbers, waste, which keys make up a request."""

from __future__ import annotations

from itertools import combinations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.storage import LEASE_TAGS_BYTES, RESTART_SECONDS, ByteStream, FixedBlock, MultiSizeBlock

DDKA = MultiSizeBlock(sizes=(128, 256, 512, 1024, 2048))


def test_a_unit_is_found_by_its_number_and_its_position() -> None:
    block = FixedBlock(unit_bits=1024)
    assert block.range_bytes(3) == (384, 128)
    assert block.number(384) == 3


def test_no_unit_starts_within_another() -> None:
    with pytest.raises(ValueError, match="no unit of 1024 bits starts there"):
        FixedBlock(unit_bits=1024).number(385)


@pytest.mark.parametrize("unit_bits", [0, -8, 100, 7])
def test_a_unit_that_is_not_whole_bytes_is_refused(unit_bits: int) -> None:
    with pytest.raises(ValueError, match=f"unit_bits = {unit_bits}: must be a multiple of 8"):
        FixedBlock(unit_bits=unit_bits)


def test_at_cisco_1_a_size_takes_as_many_rows_as_hold_it() -> None:
    rows = FixedBlock(unit_bits=64, encoding="hex")
    assert rows.units(256) == 4
    assert rows.units(100) == 2
    assert rows.units(4096 * 8) == 512


def test_at_cisco_4_hex_text_costs_two_bytes_per_byte_of_key() -> None:
    assert FixedBlock(unit_bits=64, encoding="hex").rest_bytes(4096) == 8192
    assert FixedBlock(unit_bits=64, encoding="raw").rest_bytes(4096) == 4096


def test_blocks_in_memory_do_not_outlive_a_restart() -> None:
    assert not FixedBlock(unit_bits=1024, medium="memory").survives_restart
    assert FixedBlock(unit_bits=1024).survives_restart


@pytest.mark.parametrize("sizes", [(), (256, 128), (128, 128), (100,), (0, 8)])
def test_sizes_that_are_not_ascending_bytes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be ascending multiples of 8 bits"):
        MultiSizeBlock(sizes=sizes)


def test_the_smallest_key_that_is_large_enough_is_taken() -> None:
    assert DDKA.choose(200, {128: 9, 512: 1, 2048: 1}) == (512,)
    assert DDKA.choose(256, {256: 1, 512: 1}) == (256,)


def test_at_ddka_5_five_keys_of_512_make_one_of_2048_and_one_is_left() -> None:
    assert DDKA.choose(2048, {512: 5}) == (512,) * 4
    assert DDKA.choose(512, {512: 1}) == (512,)


def test_several_keys_waste_as_little_as_they_can() -> None:
    assert DDKA.choose(400, {128: 1, 256: 2}) == (256, 256)


def test_too_little_key_in_all_sizes_gives_none() -> None:
    assert DDKA.choose(1024, {128: 3, 512: 1}) == ()
    assert DDKA.choose(128, {}) == ()


def test_a_key_of_too_many_ranges_is_not_made() -> None:
    assert DDKA.choose(2048, {128: 16}) == (128,) * 16
    assert MultiSizeBlock(sizes=(128, 2048), max_keys=15).choose(2048, {128: 16}) == ()


@given(st.integers(1, 1400), st.lists(st.sampled_from([128, 256, 512]), max_size=7))
def test_no_other_choice_of_several_keys_wastes_less(size_bits: int, keys: list[int]) -> None:
    stock = {size: keys.count(size) for size in keys}
    chosen = DDKA.choose(size_bits, stock)
    if any(size >= size_bits for size in keys):
        assert chosen == (min(size for size in keys if size >= size_bits),)
        return
    sums = [sum(some) for count in range(1, len(keys) + 1) for some in combinations(keys, count)]
    best = min((found for found in sums if found >= size_bits), default=inf)
    assert (sum(chosen) or inf) == best
    assert all(chosen.count(size) <= stock.get(size, 0) for size in chosen)


def test_fresh_bits_are_split_equally_among_the_sizes() -> None:
    dealt = dict.fromkeys(DDKA.sizes, 0)
    for _ in range(16 + 8 + 4 + 2 + 1):
        size = DDKA.next_size(dealt)
        dealt[size] += size
    assert set(dealt.values()) == {2048}


def test_fresh_bits_follow_the_demand_if_so_told() -> None:
    store = MultiSizeBlock(sizes=(128, 256), split="demand")
    dealt = {128: 0, 256: 0}
    for _ in range(50):
        size = store.next_size(dealt, {128: 3, 256: 1})
        dealt[size] += size
    assert dealt[128] == pytest.approx(3 * dealt[256], rel=0.05)
    assert store.next_size({}, {256: 1}) == 256
    assert store.next_size({128: 256}, {}) == 256


def test_room_is_shared_as_fresh_bits_are() -> None:
    assert DDKA.capacities(5 * 20_480) == {128: 160, 256: 80, 512: 40, 1024: 20, 2048: 10}
    store = MultiSizeBlock(sizes=(128, 256), split="demand")
    assert store.capacities(4096, {128: 3, 256: 1}) == {128: 24, 256: 4}
    assert store.capacities(4096, {256: 1}) == {128: 0, 256: 16}
    assert store.capacities(4096) == store.capacities(4096, {}) == {128: 16, 256: 8}
    assert DDKA.capacities(5 * 20_480, {128: 1}) == DDKA.capacities(5 * 20_480), "equal shares ask nobody"


@pytest.mark.parametrize(("size_bits", "home"), [(1, 128), (128, 128), (129, 256), (2048, 2048), (9000, 2048)])
def test_a_request_draws_on_the_smallest_size_that_fits_or_on_the_largest(size_bits: int, home: int) -> None:
    assert DDKA.home(size_bits) == home


@given(st.integers(1, 1 << 24))
def test_a_segment_is_the_power_of_two_nearest_to_ten_seconds_of_rate(rate_bps: int) -> None:
    wanted = rate_bps * 10 / 8
    nearest = min((1 << power for power in range(10, 17)), key=lambda size: (abs(size - wanted), size))
    found = ByteStream().segment_bytes(rate_bps)
    assert found in (1 << power for power in range(10, 17))
    assert abs(found - wanted) - abs(nearest - wanted) < 2


def test_segments_have_bounds() -> None:
    assert [ByteStream().segment_bytes(rate) for rate in (0, 1 << 40)] == [1024, 65_536]


SIZES = [1 << power for power in range(10, 17)]


def lost_per_second(asked_bytes_per_s: int, size_bytes: int) -> float:
    """Tags of leases, and what a restart burns of the last one."""
    return asked_bytes_per_s * LEASE_TAGS_BYTES / size_bytes + size_bytes / RESTART_SECONDS


@given(st.integers(0, 1 << 20))
def test_no_size_loses_much_less_key_than_the_one_that_follows_what_is_asked(asked_bytes_per_s: int) -> None:
    found = ByteStream().segment_for(asked_bytes_per_s, 0, 0, 1 << 20)
    assert found in SIZES
    least = min(lost_per_second(asked_bytes_per_s, size) for size in SIZES)
    # A power of two is at most by the root of two from the best size of all.
    assert lost_per_second(asked_bytes_per_s, found) <= 1.1 * least


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 17), st.integers(0, 1 << 24), st.integers(1, 1 << 20))
def test_a_segment_follows_what_is_asked_within_its_bounds(asked: int, largest: int, rate: int, limit: int) -> None:
    storage = ByteStream()
    found = storage.segment_for(asked, largest, rate, limit)
    assert found in SIZES and found <= max(1024, limit)
    assert found >= min(largest, 1024, limit) and found >= min(1 << limit.bit_length() - 1, 1 << 16, largest)
    assert found <= storage.segment_for(asked + 1, largest + 1, rate + 8, limit + 1), "more asked makes none smaller"


def test_nothing_asked_makes_small_segments_on_a_slow_link_and_whole_seconds_on_a_fast_one() -> None:
    sizes = [ByteStream().segment_for(0, 0, rate_bps, 1 << 16) for rate_bps in (0, 1000, 100_000, 10_000_000)]
    assert sizes == [1024, 1024, 16_384, 65_536]


def test_one_byte_is_the_smallest_unit() -> None:
    assert FixedBlock(unit_bits=8).range_bytes(5) == (5, 1)
    assert MultiSizeBlock(sizes=(8,)).choose(8, {8: 1}) == (8,)


def test_a_key_that_is_needed_to_the_last_bit_is_not_pruned() -> None:
    assert MultiSizeBlock(sizes=(128, 256)).choose(384, {128: 1, 256: 1}) == (256, 128)
