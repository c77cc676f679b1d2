"""The slot file: data keys that come back, data keys that are gone, and a crash at any write of a rotation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyhop.core.node.store import Damaged, StoreError, WrongNodeKey
from keyhop.crypto.keywrap import NotAuthentic
from keyhop.daemon.store import slots
from keyhop.daemon.store.sealing import NodeKey
from keyhop.daemon.store.slots import (
    CELL_BYTES,
    ENTRY_OFFSETS,
    FIRST_SLOTS,
    HEAD_BYTES,
    ROTATION_S,
    SLOT_BYTES,
    SlotFile,
)

STORE = b"store of 16 byte"
KEY = NodeKey(bytes(range(32)))
NOW_S = 1_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.slots"


def begun(path: Path) -> SlotFile:
    file = SlotFile(path)
    file.begin(KEY, STORE, NOW_S)
    file.keep_only([])
    return file


def resumed(path: Path, live: list[int], key: NodeKey = KEY, generation: int = 0) -> SlotFile:
    file = SlotFile(path)
    try:
        file.resume(key, STORE, generation)
        file.keep_only(live)
    except BaseException:
        file.close()
        raise
    return file


def data_key(number: int) -> bytes:
    return bytes([number % 251]) * 32


def slot_bytes(path: Path, slot: int) -> bytes:
    return path.read_bytes()[HEAD_BYTES + slot * SLOT_BYTES :][:SLOT_BYTES]


def test_data_keys_come_back_after_a_stop(path: Path) -> None:
    file = begun(path)
    taken = {file.assign(data_key(number)): number for number in range(10)}
    file.sync()
    file.close()
    file = resumed(path, list(taken))
    assert {slot: file.data_key(slot) for slot in taken} == {slot: data_key(number) for slot, number in taken.items()}
    file.close()


def test_an_erased_slot_is_overwritten_and_opens_no_more(path: Path) -> None:
    file = begun(path)
    first, second = file.assign(data_key(1)), file.assign(data_key(2))
    file.sync()
    assert slot_bytes(path, first) != bytes(SLOT_BYTES)
    file.erase([first])
    assert slot_bytes(path, first) == bytes(SLOT_BYTES)
    with pytest.raises(NotAuthentic):
        file.data_key(first)
    assert file.data_key(second) == data_key(2)
    file.close()


@pytest.mark.parametrize("slot", [5, FIRST_SLOTS, 1 << 40])
def test_a_slot_that_was_never_taken_opens_nothing(path: Path, slot: int) -> None:
    file = begun(path)
    with pytest.raises(NotAuthentic):
        file.data_key(slot)
    file.close()


def test_a_slot_that_no_row_names_is_overwritten_on_start(path: Path) -> None:
    file = begun(path)
    kept, orphan = file.assign(data_key(1)), file.assign(data_key(2))
    file.sync()
    file.close()
    file = resumed(path, [kept])
    assert slot_bytes(path, orphan) == bytes(SLOT_BYTES)
    assert file.data_key(kept) == data_key(1)
    file.close()


def test_slots_are_used_again_and_the_file_grows_when_all_are_taken(path: Path) -> None:
    file = begun(path)
    size = path.stat().st_size
    assert size == HEAD_BYTES + FIRST_SLOTS * SLOT_BYTES
    taken = [file.assign(data_key(number)) for number in range(FIRST_SLOTS)]
    assert len(set(taken)) == FIRST_SLOTS and path.stat().st_size == size
    file.erase(taken[100:200])
    again = [file.assign(data_key(number)) for number in range(100)]
    assert sorted(again) == sorted(taken[100:200]) and path.stat().st_size == size
    more = file.assign(data_key(7))
    file.sync()
    assert more == FIRST_SLOTS and path.stat().st_size == size + FIRST_SLOTS * SLOT_BYTES
    assert file.data_key(more) == data_key(7)
    file.close()


def test_no_data_key_stands_in_the_file_in_the_clear(path: Path) -> None:
    file = begun(path)
    keys = [os.urandom(32) for _ in range(20)]
    for key in keys:
        file.assign(key)
    content = path.read_bytes()
    assert not any(key[:8] in content or key[-8:] in content for key in keys)
    file.close()


def test_a_second_opening_is_refused_while_the_first_lasts(path: Path) -> None:
    file = begun(path)
    with pytest.raises(StoreError, match="in use by another process"):
        SlotFile(path)
    file.close()
    resumed(path, []).close()


def test_the_wrong_node_key_says_what_to_do(path: Path) -> None:
    begun(path).close()
    with pytest.raises(WrongNodeKey, match="start with the node key this store was made with"):
        resumed(path, [], NodeKey(bytes(32)))


@pytest.mark.parametrize("length", [0, 10, 600, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + SLOT_BYTES])
def test_a_truncated_file_is_damaged(path: Path, length: int) -> None:
    file = begun(path)
    live = [file.assign(data_key(1)), file.assign(data_key(2))]
    file.sync()
    file.close()
    os.truncate(path, length)
    with pytest.raises(Damaged):
        resumed(path, live)


@pytest.mark.parametrize("offset", [0, 20, ENTRY_OFFSETS[1], ENTRY_OFFSETS[1] + 70])
def test_a_flipped_bit_in_the_head_is_noticed(path: Path, offset: int) -> None:
    begun(path).close()
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged):
        resumed(path, [])


def test_a_flipped_bit_in_a_live_slot_is_noticed_and_named(path: Path) -> None:
    file = begun(path)
    live = [file.assign(data_key(number)) for number in range(3)]
    file.close()
    content = bytearray(path.read_bytes())
    content[HEAD_BYTES + live[1] * SLOT_BYTES + CELL_BYTES + 3] ^= 0x80
    path.write_bytes(content)
    with pytest.raises(Damaged, match=f"slot {live[1]} "):
        resumed(path, live)


def test_a_file_of_another_store_is_refused(path: Path) -> None:
    file = SlotFile(path)
    file.begin(KEY, b"another 16 bytes", NOW_S)
    file.close()
    with pytest.raises(Damaged, match="not the slot file of this store"):
        resumed(path, [])


def test_a_file_older_than_its_database_is_refused(path: Path) -> None:
    begun(path).close()
    with pytest.raises(Damaged, match="older than the database"):
        resumed(path, [], generation=2)


def rotate_all(file: SlotFile, now_s: float) -> None:
    file.rotate(now_s)
    for _ in range(50):
        file.rotate(now_s)


def test_the_intermediate_key_stays_for_a_day(path: Path) -> None:
    file = begun(path)
    file.rotate(NOW_S + ROTATION_S - 1)
    assert file.generation == 1
    file.rotate(NOW_S + ROTATION_S)
    assert file.generation == 2
    file.close()


def test_a_clock_set_back_does_not_keep_it_longer(path: Path) -> None:
    file = begun(path)
    file.rotate(NOW_S - 1)
    assert file.generation == 2
    file.close()


def test_after_a_rotation_every_data_key_opens_and_the_old_key_is_gone(path: Path) -> None:
    file = begun(path)
    taken = {file.assign(data_key(number)): number for number in range(700)}
    erased = [slot for slot, number in taken.items() if number % 7 == 0]
    file.erase(erased)
    before = path.read_bytes()
    for day in range(1, 4):
        rotate_all(file, NOW_S + day * ROTATION_S)
    live = {slot: number for slot, number in taken.items() if number % 7}
    assert all(file.data_key(slot) == data_key(number) for slot, number in live.items())
    file.close()
    # The head as it was, put back in front of the slots of today: nothing in it opens them.
    path.with_suffix(".now").write_bytes(path.read_bytes())
    path.write_bytes(before[:HEAD_BYTES] + path.read_bytes()[HEAD_BYTES:])
    with pytest.raises(Damaged):
        resumed(path, list(live))
    path.write_bytes(path.with_suffix(".now").read_bytes())
    file = resumed(path, list(live), generation=4)
    assert all(file.data_key(slot) == data_key(number) for slot, number in live.items())
    assert path.read_bytes()[ENTRY_OFFSETS[1] :][:72] == bytes(72)
    file.close()


def test_a_rotation_is_spread_over_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "REWRAPS_PER_STEP", 10)
    file = begun(path)
    taken = {file.assign(data_key(number)): number for number in range(35)}
    for step in range(4):
        file.rotate(NOW_S + ROTATION_S)
        assert len(file._keys) == (2 if step < 3 else 1)
        taken[file.assign(data_key(100 + step))] = 100 + step
        assert all(file.data_key(slot) == data_key(number) for slot, number in taken.items())
    file.close()
    file = resumed(path, list(taken))
    assert all(file.data_key(slot) == data_key(number) for slot, number in taken.items())
    file.close()


class Crash(BaseException):
    """The process is gone: nothing of it runs any more."""


@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_at_any_write_of_a_rotation_loses_no_data_key(
    path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    monkeypatch.setattr(slots, "REWRAPS_PER_STEP", 4)
    real_write = os.pwrite
    left = 0

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        nonlocal left
        if left == 0:
            if torn:
                real_write(descriptor, content[: len(content) // 2], offset)
            raise Crash
        left -= 1
        return real_write(descriptor, content, offset)

    file = begun(path)
    taken = {file.assign(data_key(number)): number for number in range(9)}
    file.sync()
    file.close()
    crashes = 0
    for day in range(1, 30):
        file = resumed(path, list(taken))
        left = day - 1
        with monkeypatch.context() as patch:
            patch.setattr(slots.os, "pwrite", pwrite)
            try:
                for _ in range(5):
                    file.rotate(NOW_S + day * 2 * ROTATION_S)
            except Crash:
                crashes += 1
        file.close()
        file = resumed(path, list(taken))
        assert {slot: file.data_key(slot) for slot in taken} == {slot: data_key(taken[slot]) for slot in taken}
        file.close()
    assert crashes >= 11
