"""Cutting, splitting, merging and deriving to size, and what it wastes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.model import Refusal, RequestError
from keyhop.core.policy.formatting import (
    ChunkOnReception,
    Cut,
    Held,
    Identity,
    Kdf,
    Piece,
    Reshaping,
    SliceOnSupply,
    SplitMerge,
)


def test_at_darpa_2_four_keys_of_128_bits_waste_3584() -> None:
    cuts = [Identity().supply(128, unit_bits=1024) for _ in range(4)]
    assert sum(cut.wasted_bits for cut in cuts) == 3584
    assert 4 * 128 / sum(cut.taken_bits for cut in cuts) == 0.125
    assert Identity().supply(256, 1024).wasted_bits / 1024 == 0.75


def test_at_nec_4_a_file_is_given_whole() -> None:
    assert Identity().supply(128, unit_bits=4096) == Cut(4096, 3968)


def test_at_cisco_1_4096_bytes_are_512_rows_and_a_tail_waits() -> None:
    assert ChunkOnReception().cut(0, 4096 * 8, 64) == (512, 0)
    assert ChunkOnReception().cut(0, 4099 * 8, 64) == (512, 24)
    assert ChunkOnReception().cut(24, 40, 64) == (1, 0)


def test_at_cisco_1_a_size_between_rows_is_cut_off() -> None:
    rows = SliceOnSupply(step=64)
    assert rows.supply(256) == Cut(256, 0)
    assert rows.supply(100) == Cut(128, 28)


def test_at_nist_4_13_bits_are_refused_and_16_are_two_bytes() -> None:
    fifo = SliceOnSupply(step=8, odd="refuse")
    assert fifo.supply(16) == Cut(16, 0)
    with pytest.raises(RequestError, match="size 13 bits: must be a multiple of 8") as refused:
        fifo.supply(13)
    assert refused.value.reason is Refusal.UNSUPPORTED


@pytest.mark.parametrize("step", [0, 4, 12])
def test_a_step_that_is_not_whole_bytes_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=rf"slice_on_supply\.step = {step}: must be a multiple of 8"):
        SliceOnSupply(step=step)


def test_a_key_of_no_bits_is_refused() -> None:
    for supply in (
        lambda: Identity().supply(0, 64),
        lambda: SliceOnSupply().supply(-8),
        lambda: SplitMerge().supply(0, [Held("a", 256)]),
        lambda: Kdf().pieces(1, 0),
    ):
        with pytest.raises(RequestError, match="must be 1 or more"):
            supply()


def test_an_exact_key_is_taken_as_it_is() -> None:
    assert SplitMerge().supply(256, [Held("a", 512), Held("b", 256)]) == Reshaping(("b",), (256,))


def test_the_smallest_larger_key_is_split() -> None:
    held = [Held("a", 1024), Held("b", 512), Held("c", 512)]
    assert SplitMerge().supply(384, held) == Reshaping(("b",), (384, 128))


def test_the_oldest_keys_are_merged_and_the_excess_split_off() -> None:
    held = [Held(name, 256) for name in "abcd"]
    assert SplitMerge().supply(512, held) == Reshaping(("a", "b"), (512,))
    assert SplitMerge().supply(600, held) == Reshaping(("a", "b", "c"), (600, 168))


def test_too_few_bits_in_all_make_no_key() -> None:
    assert SplitMerge().supply(1025, [Held(name, 256) for name in "abcd"]) is None


@given(st.integers(1, 3000), st.lists(st.sampled_from([64, 256, 512]), max_size=8))
def test_what_reshaping_proposes_may_be_done_and_wastes_nothing(size_bits: int, sizes: list[int]) -> None:
    held = [Held(str(n), size) for n, size in enumerate(sizes)]
    plan = SplitMerge().supply(size_bits, held)
    if plan is None:
        assert sum(sizes) < size_bits
        return
    parents = [sizes[int(name)] for name in plan.merged]
    assert plan.parts_bits[0] == size_bits and sum(plan.parts_bits) == sum(parents)
    assert len(parents) == 1 or SplitMerge().may_merge(parents, sum(parents))
    assert len(plan.parts_bits) == 1 or SplitMerge().may_split(sum(parents), plan.parts_bits)


def test_at_ait_2_a_split_must_account_for_every_bit() -> None:
    assert SplitMerge().may_split(256, [128, 64, 64])
    assert not SplitMerge().may_split(256, [128, 64])
    assert not SplitMerge().may_split(256, [256])
    assert not SplitMerge().may_split(256, [300, -44])
    assert SplitMerge().may_merge([256, 256], 512)
    assert not SplitMerge().may_merge([256, 256], 500)


def test_at_kisti_2_one_parent_gives_four_keys_of_512() -> None:
    assert Kdf().parents(4, 512) == 1
    assert Kdf().pieces(4, 512) == [Piece(n, 0, n, 512) for n in range(4)]
    assert 4 * 512 / (Kdf().parents(4, 512) * 256) == 8


def test_at_kisti_3_one_bit_more_than_255_hashes_takes_a_second_parent() -> None:
    assert Kdf().parents(1, 65_280) == 1
    assert Kdf().parents(1, 65_281) == 2
    assert Kdf().pieces(1, 65_281) == [Piece(0, 0, 0, 65_280), Piece(0, 1, 0, 1)]


@given(st.integers(0, 12), st.integers(1, 200_000))
def test_no_parent_is_stretched_beyond_its_limit_and_no_derivation_made_twice(keys: int, size_bits: int) -> None:
    pieces = Kdf().pieces(keys, size_bits)
    spent: dict[int, int] = {}
    for piece in pieces:
        spent[piece.parent] = spent.get(piece.parent, 0) + piece.length_bits
    assert max(spent.values(), default=0) <= Kdf().parent_limit_bits
    assert len(spent) == Kdf().parents(keys, size_bits)
    assert len({(piece.parent, piece.counter) for piece in pieces}) == len(pieces)
    assert sum(spent.values()) == keys * size_bits


def test_a_single_key_is_no_merge_and_a_part_of_nothing_no_split() -> None:
    assert not SplitMerge().may_merge([256], 256)
    assert not SplitMerge().may_split(256, [256, 0])
