"""The vault of a real node: what it answers, what it forgets, and that it never gives zeros for key."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable

import pytest

from keyhop.core.machine import Drop, DropSecret, KeepSecret, Save, Seal
from keyhop.core.model import IllegalMove, NodeId, Range, RunId
from keyhop.core.node.vault import BlockName, Vault
from keyhop.crypto import onetime
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.vault import WAITING_LIMIT_BYTES, NodeVault

PEER = NodeId("bob")
RUN = RunId(PEER, 0)
OTHER_RUN = RunId(PEER, 1)
BLOCK = BlockName(PEER, "alice-bob-1", 7)
VOUCH_KEY = bytes(range(32))


def pattern(length: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(length)


class Bench:
    """A vault over a store, and the commits a driver would do."""

    def __init__(self, cache_limit_bytes: int = 1 << 20) -> None:
        self.store = MemoryStore()
        self.store.load()
        self.vault = NodeVault(self.store, VOUCH_KEY, cache_limit_bytes=cache_limit_bytes)

    def commit(self, *saves: Save) -> None:
        self.store.commit(saves, self.vault.collect(saves))
        self.vault.committed(saves)

    def stock(self, start: int, bits: bytes, run: RunId = RUN) -> Range:
        """Bits that were delivered, placed and sealed."""
        target = self.place(start, bits, run)
        self.commit(Seal(target))
        return target

    def place(self, start: int, bits: bytes, run: RunId = RUN) -> Range:
        name = BlockName(PEER, "stock", start)
        assert self.vault.accept(name, bytearray(bits))
        target = Range(run, start, len(bits))
        self.vault.place(name, 0, target)
        self.vault.discard(name)
        return target


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_is_a_vault(bench: Bench) -> None:
    vault: Vault = bench.vault
    assert vault.length(BLOCK) is None


def test_bits_are_read_where_they_were_placed(bench: Bench) -> None:
    bits = pattern(4096)
    bench.stock(1000, bits)
    assert bench.vault.read(Range(RUN, 1000, 32)) == bits[:32]
    assert bench.vault.read(Range(RUN, 1033, 100)) == bits[33:133]
    assert bench.vault.read(Range(RUN, 5064, 32)) == bits[-32:]


@pytest.mark.parametrize("wanted", [Range(RUN, 999, 1), Range(RUN, 5096, 1), Range(RUN, 5090, 7), Range(RUN, 0, 8192)])
def test_bits_that_are_not_here_are_an_error(bench: Bench, wanted: Range) -> None:
    bench.stock(1000, pattern(4096))
    with pytest.raises(KeyError):
        bench.vault.read(wanted)
    with pytest.raises(KeyError):
        bench.vault.read(wanted._replace(run=OTHER_RUN, start=1000, length=1))


@pytest.mark.parametrize("stored", [False, True])
def test_a_range_may_span_adjacent_blocks(bench: Bench, stored: bool) -> None:
    bits = pattern(300)
    for start in (0, 100, 200):
        (bench.stock if stored else bench.place)(start, bits[start : start + 100])
    assert bench.vault.read(Range(RUN, 90, 120)) == bits[90:210]
    assert bench.vault.read(Range(RUN, 100, 200)) == bits[100:]
    assert bench.vault.tag(Range(RUN, 90, 32), b"m") == onetime.tag(bits[90:122], b"m")
    assert not bench.vault._joined


def test_a_gap_between_blocks_is_an_error(bench: Bench) -> None:
    bench.stock(0, pattern(100))
    bench.stock(101, pattern(100))
    with pytest.raises(KeyError):
        bench.vault.read(Range(RUN, 90, 20))


def test_a_vault_over_an_old_store_reads_what_it_never_saw(bench: Bench) -> None:
    bits = pattern(4096)
    bench.stock(0, bits)
    again = NodeVault(bench.store, VOUCH_KEY)
    assert again.read(Range(RUN, 77, 32)) == bits[77:109]


def test_memory_does_not_follow_what_is_stored() -> None:
    bench = Bench(cache_limit_bytes=3 * 1000)
    bits = pattern(50_000)
    for start in range(0, 50_000, 1000):
        bench.stock(start, bits[start : start + 1000])
    for start in range(0, 50_000 - 32, 970):
        assert bench.vault.read(Range(RUN, start, 32)) == bits[start : start + 32]
        assert bench.vault._cached_bytes <= 3000
    residents = [resident for residents in bench.vault._residents.values() for resident in residents]
    assert sum(len(resident.bits) for resident in residents) <= 3000


def test_a_block_pushed_out_of_the_cache_is_overwritten() -> None:
    bench = Bench(cache_limit_bytes=1000)
    bench.stock(0, pattern(1000))
    view = bench.vault.bits(Range(RUN, 0, 1000))
    bench.stock(1000, pattern(1000, 1))
    assert bytes(view) == bytes(1000)
    assert bench.vault.read(Range(RUN, 0, 1000)) == pattern(1000)


def test_what_is_not_yet_stored_is_never_pushed_out() -> None:
    bench = Bench(cache_limit_bytes=1000)
    placed = bench.place(0, pattern(1000))
    for start in range(1000, 5000, 1000):
        bench.stock(start, pattern(1000, 1))
    assert bench.vault.read(placed) == pattern(1000)


def test_wiped_bits_are_gone_and_never_read_as_zeros(bench: Bench) -> None:
    bits = pattern(1000)
    block = bench.stock(0, bits)
    bench.vault.hold(block)
    bench.commit(Drop(block))
    view = bench.vault.bits(Range(RUN, 32, 32))
    bench.vault.wipe(Range(RUN, 32, 32))
    assert bytes(view) == bytes(32)
    for touching in (Range(RUN, 32, 32), Range(RUN, 63, 1), Range(RUN, 0, 33), Range(RUN, 0, 1000)):
        with pytest.raises(KeyError):
            bench.vault.read(touching)
    assert bench.vault.read(Range(RUN, 0, 32)) == bits[:32]
    assert bench.vault.read(Range(RUN, 64, 936)) == bits[64:]


def test_a_spanning_range_with_a_wiped_byte_is_refused(bench: Bench) -> None:
    bench.stock(0, pattern(100))
    bench.stock(100, pattern(100))
    bench.vault.wipe(Range(RUN, 100, 1))
    with pytest.raises(KeyError):
        bench.vault.read(Range(RUN, 90, 20))
    bench.vault.wipe(Range(RUN, 99, 1))
    with pytest.raises(KeyError):
        bench.vault.read(Range(RUN, 90, 20))


def test_wiping_what_is_not_here_is_no_error(bench: Bench) -> None:
    bench.vault.wipe(Range(RUN, 0, 1 << 20))
    bench.stock(100, pattern(100))
    bench.vault.wipe(Range(RUN, 0, 100))
    bench.vault.wipe(Range(RUN, 200, 100))
    assert bench.vault.read(Range(RUN, 100, 100)) == pattern(100)


def test_a_range_wiped_over_two_blocks_is_gone_from_both(bench: Bench) -> None:
    bench.place(0, pattern(100))
    bench.place(100, pattern(100))
    bench.vault.wipe(Range(RUN, 50, 100))
    assert bench.vault.read(Range(RUN, 0, 50)) == pattern(100)[:50]
    for position in (50, 99, 100, 149):
        with pytest.raises(KeyError):
            bench.vault.read(Range(RUN, position, 1))
    assert bench.vault.read(Range(RUN, 150, 50)) == pattern(100)[50:]


def test_a_stretch_wiped_bit_by_bit_takes_no_memory_any_more(bench: Bench) -> None:
    bench.vault.draw(Range(RUN, 0, 1024))
    for start in range(0, 1024, 32):
        bench.vault.wipe(Range(RUN, start, 32))
    assert not bench.vault._residents and not bench.vault._starts and bench.vault._last.end < 0


def test_a_held_block_outlives_its_stored_copy(bench: Bench) -> None:
    block = bench.stock(0, pattern(1000))
    bench.vault.hold(block)
    bench.commit(Drop(block))
    assert bench.store.covering(RUN, 0) is None
    assert bench.vault.read(Range(RUN, 500, 32)) == pattern(1000)[500:532]


def test_a_dropped_block_that_is_not_held_is_gone_from_memory_too(bench: Bench) -> None:
    block = bench.stock(0, pattern(1000))
    view = bench.vault.bits(block)
    bench.commit(Drop(block))
    assert bytes(view) == bytes(1000)
    with pytest.raises(KeyError):
        bench.vault.read(Range(RUN, 0, 1))


def test_hold_brings_in_a_block_that_was_only_stored(bench: Bench) -> None:
    block = bench.stock(0, pattern(1000))
    vault = NodeVault(bench.store, VOUCH_KEY, cache_limit_bytes=0)
    vault.hold(block)
    bench.store.commit([Drop(block)], vault.collect([]))
    vault.committed([Drop(block)])
    assert vault.read(block) == pattern(1000)


def test_holding_what_is_nowhere_is_an_error(bench: Bench) -> None:
    with pytest.raises(KeyError):
        bench.vault.hold(Range(RUN, 0, 1000))


def test_bits_that_a_commit_is_sealing_do_not_change_under_it(bench: Bench) -> None:
    bits = pattern(1000)
    block = bench.place(0, bits)
    collected = bench.vault.collect([Seal(block)])
    bench.vault.wipe(Range(RUN, 0, 500))
    with pytest.raises(KeyError):
        bench.vault.read(Range(RUN, 0, 1))
    assert bytes(collected(block)) == bits
    bench.store.commit([Seal(block)], collected)
    assert bench.store.read(block) == bits
    view = collected(block)
    bench.vault.committed([Seal(block)])
    assert bytes(view) == bytes(500) + bits[500:]


def test_wiped_bits_cannot_be_sealed(bench: Bench) -> None:
    block = bench.place(0, pattern(1000))
    bench.vault.wipe(Range(RUN, 999, 1))
    with pytest.raises(KeyError):
        bench.vault.collect([Seal(block)])


def test_a_secret_for_a_commit_survives_its_block_leaving_the_cache() -> None:
    bench = Bench(cache_limit_bytes=1000)
    block = bench.stock(0, pattern(1000))
    other = bench.stock(1000, pattern(1000, 1))
    keep = KeepSecret("bob/1", Range(RUN, 64, 32))
    collected = bench.vault.collect([keep])
    view = bench.vault.bits(block)
    bench.vault.read(other)
    assert bytes(view) == bytes(1000)
    assert bytes(collected(keep.source)) == pattern(1000)[64:96]
    bench.vault.committed([keep])
    assert bytes(collected(keep.source)) == bytes(32)


def test_a_block_that_fills_several_stretches_is_sealed_as_one(bench: Bench) -> None:
    bench.place(0, pattern(100))
    bench.place(100, pattern(100, 1))
    bench.commit(Seal(Range(RUN, 0, 200)))
    assert bench.store.read(Range(RUN, 0, 200)) == pattern(100) + pattern(100, 1)


def test_placing_over_bits_that_are_there_is_our_own_bug(bench: Bench) -> None:
    bench.place(0, pattern(100))
    for start, length in ((0, 100), (99, 1), (50, 100), (0, 1)):
        assert bench.vault.accept(BLOCK, bytearray(length))
        with pytest.raises(IllegalMove):
            bench.vault.place(BLOCK, 0, Range(RUN, start, length))
        bench.vault.discard(BLOCK)
    assert bench.vault.read(Range(RUN, 0, 100)) == pattern(100)


@pytest.mark.parametrize(("offset", "length"), [(-1, 10), (95, 10), (0, 101), (100, 1)])
def test_placing_more_than_the_block_has_is_an_error(bench: Bench, offset: int, length: int) -> None:
    bench.vault.accept(BLOCK, bytearray(100))
    with pytest.raises(KeyError):
        bench.vault.place(BLOCK, offset, Range(RUN, 0, length))


def test_placing_copies_so_that_discarding_does_not_hurt(bench: Bench) -> None:
    bits = bytearray(pattern(100))
    bench.vault.accept(BLOCK, bits)
    bench.vault.place(BLOCK, 10, Range(RUN, 0, 50))
    bench.vault.discard(BLOCK)
    assert bits == bytes(100)
    assert bench.vault.read(Range(RUN, 0, 50)) == pattern(100)[10:60]


def test_a_waiting_block_has_a_length_until_it_is_discarded(bench: Bench) -> None:
    bench.vault.accept(BLOCK, bytearray(100))
    assert bench.vault.length(BLOCK) == 100
    bench.vault.discard(BLOCK)
    bench.vault.discard(BLOCK)
    assert bench.vault.length(BLOCK) is None


def test_a_block_name_is_taken_once(bench: Bench) -> None:
    bench.vault.accept(BLOCK, bytearray(pattern(100)))
    with pytest.raises(IllegalMove):
        bench.vault.accept(BLOCK, bytearray(100))
    bench.vault.place(BLOCK, 0, Range(RUN, 0, 100))
    assert bench.vault.read(Range(RUN, 0, 100)) == pattern(100)


def test_more_waiting_blocks_than_the_limit_are_turned_away_and_overwritten(bench: Bench) -> None:
    assert bench.vault.accept(BLOCK, bytearray(WAITING_LIMIT_BYTES - 10))
    late = bytearray(pattern(11))
    assert not bench.vault.accept(BLOCK._replace(number=8), late)
    assert late == bytes(11)
    bench.vault.discard(BLOCK)
    assert bench.vault.accept(BLOCK._replace(number=8), bytearray(11))


def test_two_ends_with_the_same_block_agree_and_one_flipped_bit_is_noticed(bench: Bench) -> None:
    far = Bench()
    for end in (bench, far):
        end.stock(0, pattern(64))
        end.vault.accept(BLOCK, bytearray(pattern(2000, 3)))
    key, context = Range(RUN, 16, 32), b"link, module, number"
    fingerprint = bench.vault.fingerprint((BLOCK,), key, context)
    assert far.vault.matches((BLOCK,), key, context, fingerprint)
    assert not far.vault.matches((BLOCK,), key, context + b"x", fingerprint)
    assert not far.vault.matches((BLOCK,), Range(RUN, 17, 32), context, fingerprint)
    far.vault._blocks[BLOCK][1999] ^= 1
    assert not far.vault.matches((BLOCK,), key, context, fingerprint)


def test_context_and_bits_do_not_run_into_each_other(bench: Bench) -> None:
    bench.stock(0, pattern(32))
    one, two = BLOCK, BLOCK._replace(number=8)
    bench.vault.accept(one, bytearray(b"xy" + bytes(64)))
    bench.vault.accept(two, bytearray(b"y" + bytes(64)))
    key = Range(RUN, 0, 32)
    assert bench.vault.fingerprint((one,), key, b"c") != bench.vault.fingerprint((two,), key, b"cx")


def test_a_fingerprint_is_over_length_context_and_bits(bench: Bench) -> None:
    bench.stock(0, pattern(32))
    bits = pattern(100, 5)
    bench.vault.accept(BLOCK, bytearray(bits))
    by_hand = onetime.tag(pattern(32), b"\x00\x00\x00\x03abc" + bits)
    assert bench.vault.fingerprint((BLOCK,), Range(RUN, 0, 32), b"abc") == by_hand
    inside = onetime.tag(bits[32:64], b"\x00\x00\x00\x03abc" + bits[64:])
    assert bench.vault.fingerprint_inside(BLOCK, 32, b"abc") == inside
    assert bench.vault.matches_inside(BLOCK, 32, b"abc", inside)
    assert not bench.vault.matches_inside(BLOCK, 0, b"abc", inside)


@pytest.mark.parametrize(("offset", "length"), [(-1, 100), (33, 100), (64, 200), (0, 63)])
def test_a_confirmation_key_among_the_bits_it_confirms_is_our_own_bug(bench: Bench, offset: int, length: int) -> None:
    bench.vault.accept(BLOCK, bytearray(length))
    with pytest.raises(IllegalMove):
        bench.vault.fingerprint_inside(BLOCK, offset, b"")


def test_a_tag_made_at_one_end_verifies_at_the_other(bench: Bench) -> None:
    far = Bench()
    bench.stock(0, pattern(64))
    far.stock(0, pattern(64))
    tag = bench.vault.tag(Range(RUN, 32, 32), b"frame")
    assert far.vault.verify(Range(RUN, 32, 32), b"frame", tag)
    assert not far.vault.verify(Range(RUN, 31, 32), b"frame", tag)
    assert not far.vault.verify(Range(RUN, 32, 32), b"frame.", tag)


@pytest.mark.parametrize("length", [1, 32, 600, 65_537])
def test_what_is_ciphered_with_a_pad_deciphers_with_the_same_pad(bench: Bench, length: int) -> None:
    far = Bench()
    pad = Range(RUN, 0, length)
    for end in (bench, far):
        end.stock(0, pattern(length))
    bench.vault.accept(BLOCK, bytearray(pattern(length, 9)))
    ciphertext = bench.vault.cipher(BLOCK, (pad,))
    assert ciphertext == bytes(a ^ b for a, b in zip(pattern(length), pattern(length, 9), strict=True))
    far.vault.decipher(BLOCK, ciphertext, (pad,))
    far.vault.place(BLOCK, 0, Range(OTHER_RUN, 0, length))
    assert far.vault.read(Range(OTHER_RUN, 0, length)) == pattern(length, 9)


def test_a_pad_of_another_length_is_our_own_bug(bench: Bench) -> None:
    bench.stock(0, pattern(100))
    bench.vault.accept(BLOCK, bytearray(99))
    with pytest.raises(IllegalMove):
        bench.vault.cipher(BLOCK, (Range(RUN, 0, 100),))
    with pytest.raises(IllegalMove):
        bench.vault.decipher(BLOCK._replace(number=8), bytes(99), (Range(RUN, 0, 100),))


def test_gathered_bits_stand_one_after_another(bench: Bench) -> None:
    bits = pattern(300)
    for start in (0, 100, 200):
        bench.stock(start, bits[start : start + 100])
    bench.vault.gather(BLOCK, (Range(RUN, 250, 50), Range(RUN, 90, 20), Range(RUN, 0, 1)))
    bench.vault.place(BLOCK, 0, Range(OTHER_RUN, 0, 71))
    assert bench.vault.read(Range(OTHER_RUN, 0, 71)) == bits[250:] + bits[90:110] + bits[:1]


def test_drawn_bits_are_there_and_differ(bench: Bench) -> None:
    bench.vault.draw(Range(RUN, 0, 32))
    bench.vault.draw(Range(RUN, 32, 32))
    one, two = bench.vault.read(Range(RUN, 0, 32)), bench.vault.read(Range(RUN, 32, 32))
    assert one != two and bytes(32) not in (one, two)


def test_a_secret_outlives_the_bits_it_was_copied_from(bench: Bench) -> None:
    block = bench.stock(0, pattern(64))
    bench.vault.keep_secret("bob/1", Range(RUN, 32, 32))
    bench.commit(KeepSecret("bob/1", Range(RUN, 32, 32)), Drop(block))
    assert bench.vault.secret("bob/1") == pattern(64)[32:]
    again = NodeVault(bench.store, VOUCH_KEY)
    again.recall_secrets(bench.store.load().secrets)
    assert again.secret("bob/1") == pattern(64)[32:]


def test_a_dropped_secret_is_overwritten_and_gone(bench: Bench) -> None:
    bench.stock(0, pattern(64))
    bench.vault.keep_secret("bob/1", Range(RUN, 32, 32))
    kept = bench.vault.secret("bob/1")
    bench.commit(DropSecret("bob/1"))
    assert kept == bytes(32)
    with pytest.raises(KeyError):
        bench.vault.secret("bob/1")
    bench.vault.drop_secret("bob/1")


def test_what_this_node_vouched_for_it_alone_can_make_again(bench: Bench) -> None:
    proof = bench.vault.vouch(b"journal 7")
    assert len(proof) == 16
    assert NodeVault(bench.store, VOUCH_KEY).vouch(b"journal 7") == proof
    assert bench.vault.vouch(b"journal 8") != proof
    assert NodeVault(bench.store, bytes(32)).vouch(b"journal 7") != proof


def all_forms(secret: bytes) -> Iterable[str]:
    yield secret.hex()
    yield base64.b64encode(secret).decode()
    yield repr(secret)
    yield repr(bytearray(secret))
    yield ", ".join(map(str, secret))


def test_nothing_that_holds_bits_shows_them(bench: Bench) -> None:
    bits = pattern(64)
    bench.stock(0, bits)
    bench.vault.accept(BLOCK, bytearray(bits))
    bench.vault.keep_secret("bob/1", Range(RUN, 0, 32))
    shown = [
        repr(bench.vault),
        str(bench.vault),
        repr(bench.store),
        repr(bench.vault._residents),
        repr(bench.vault._last),
    ]
    with pytest.raises(IllegalMove) as illegal:
        bench.vault.accept(BLOCK, bytearray(bits))
    with pytest.raises(KeyError) as absent:
        bench.vault.read(Range(RUN, 0, 65))
    shown += [str(illegal.value), str(absent.value)]
    for text in shown:
        for length in (8, 32, 64):
            assert not any(form in text for form in all_forms(bits[:length]))


def test_closing_overwrites_everything(bench: Bench) -> None:
    bench.stock(0, pattern(64))
    bench.place(64, pattern(64))
    waiting = bytearray(os.urandom(64))
    bench.vault.accept(BLOCK, waiting)
    bench.vault.keep_secret("bob/1", Range(RUN, 0, 32))
    views = [
        bench.vault.bits(Range(RUN, 0, 64)),
        bench.vault.bits(Range(RUN, 64, 64)),
        bench.vault.secret("bob/1"),
        waiting,
    ]
    bench.vault.close()
    assert not any(any(view) for view in views)


def test_blocks_are_compared_one_after_another_and_joined_without_leaving_a_copy(bench: Bench) -> None:
    bench.stock(0, pattern(32))
    one, two = BLOCK, BLOCK._replace(number=8)
    first, second = bytearray(pattern(100, 5)), bytearray(pattern(60, 9))
    whole = bytes(first + second)
    bench.vault.accept(one, first)
    bench.vault.accept(two, second)
    key = Range(RUN, 0, 32)
    by_hand = onetime.tag(pattern(32), b"\x00\x00\x00\x03abc" + whole)
    assert bench.vault.fingerprint((one, two), key, b"abc") == by_hand
    assert bench.vault.fingerprint((two, one), key, b"abc") != by_hand
    bench.vault.join((one, two))
    assert (bench.vault.length(one), bench.vault.length(two)) == (160, None)
    assert first == bytes(100) and second == bytes(60)
    assert bench.vault.fingerprint((one,), key, b"abc") == by_hand
