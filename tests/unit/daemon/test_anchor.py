"""The anchor: every order of crashes between store and anchor, and every way a store can be older than it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keyhop.core.node.store import StoreError
from keyhop.daemon.store import anchor as anchor_module
from keyhop.daemon.store.anchor import LOST_JUMP, Anchor, open_anchor
from keyhop.daemon.store.sealing import NodeKey

KEY = NodeKey(bytes(range(32)))


class Node:
    """A store reduced to its start number, with the anchor beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stored = 0

    def opened(self) -> Anchor:
        return open_anchor(self.path, KEY, "alice", self.stored)

    def start(self) -> Anchor:
        anchor = self.opened()
        self.stored = anchor.start_number
        anchor.confirm()
        return anchor


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "alice.anchor")


def test_the_first_start_is_number_one_and_no_restore(node: Node) -> None:
    anchor = node.start()
    assert (anchor.start_number, anchor.restored, anchor.reason) == (1, False, "")


def test_each_start_is_one_higher_and_vouches_with_the_same_key(node: Node) -> None:
    starts = [node.start() for _ in range(4)]
    assert [anchor.start_number for anchor in starts] == [1, 2, 3, 4]
    assert not any(anchor.restored for anchor in starts)
    assert len({anchor.vouch_key for anchor in starts}) == 1 and len(starts[0].vouch_key) == 32


def test_an_older_store_is_a_restored_one(node: Node) -> None:
    for _ in range(4):
        node.start()
    for copy in (1, 3):
        node.stored = copy
        anchor = node.opened()
        assert anchor.restored and anchor.start_number == 5
        assert anchor.reason == f"the store remembers start {copy}, the anchor 4"


def test_an_emptied_store_is_a_restored_one(node: Node) -> None:
    node.start()
    node.stored = 0
    assert node.opened().restored


def test_after_a_restore_the_next_start_is_an_ordinary_one(node: Node) -> None:
    for _ in range(4):
        node.start()
    node.stored = 2
    assert node.start().start_number == 5
    anchor = node.start()
    assert (anchor.start_number, anchor.restored) == (6, False)


def test_a_lost_anchor_beside_a_used_store_is_a_restore(node: Node) -> None:
    first = node.start()
    node.path.unlink()
    anchor = node.opened()
    assert anchor.restored and "is missing" in anchor.reason
    assert anchor.vouch_key == first.vouch_key, "else what neighbours return would no longer count"


def test_a_lost_anchor_lets_the_start_number_jump_above_all_that_its_store_may_have_forgotten(node: Node) -> None:
    node.start()
    node.path.unlink()
    starts = [node.opened().start_number for _ in range(4)]
    assert all(LOST_JUMP < start <= 2 * LOST_JUMP for start in starts)
    assert len(set(starts)) > 1, "one copy brought back twice takes two numbers"
    room = 1 << 31  # link state numbers its messages from start x 2^32, in 63 bits
    assert room // (2 * LOST_JUMP) >= 1000


def test_the_anchor_follows_a_store_that_took_a_higher_number(node: Node) -> None:
    anchor = node.start()
    anchor.follow(17)
    node.stored = 17
    after = node.opened()
    assert (after.start_number, after.restored) == (18, False)
    node.stored = 16
    assert node.opened().restored


def test_two_nodes_vouch_with_two_keys(node: Node) -> None:
    keys = {open_anchor(node.path, key, name, 0).vouch_key for key in (KEY, NodeKey(bytes(32))) for name in ("a", "b")}
    assert len(keys) == 4


def test_the_anchor_never_falls(node: Node) -> None:
    for _ in range(3):
        anchor = node.start()
    anchor.follow(1)
    assert node.opened().start_number == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other key", "other node"])
def test_an_anchor_that_cannot_be_trusted_is_a_lost_one(node: Node, damage: str) -> None:
    node.start()
    content = bytearray(node.path.read_bytes())
    key, name = KEY, "alice"
    match damage:
        case "flip":
            content[20] ^= 1
        case "cut":
            content = content[:-1]
        case "empty":
            content = bytearray()
        case "other key":
            key = NodeKey(bytes(32))
        case _:
            name = "bob"
    node.path.write_bytes(content)
    anchor = open_anchor(node.path, key, name, 1)
    assert anchor.restored and anchor.reason


def test_an_older_anchor_is_not_trusted_either(node: Node) -> None:
    node.start()
    old = node.path.read_bytes()
    for _ in range(3):
        node.start()
    node.path.write_bytes(old)
    anchor = node.opened()
    assert anchor.restored and anchor.start_number > LOST_JUMP
    assert anchor.reason == "the anchor remembers start 1, the store 4"


def test_a_crash_before_the_store_has_the_number_is_no_restore(node: Node) -> None:
    node.start()
    for _ in range(3):
        assert not node.opened().restored
    assert node.start().start_number == 2


def test_crashes_between_store_and_anchor_are_no_restore_however_many_follow(node: Node) -> None:
    node.start()
    for expected in (2, 3, 4, 5):
        anchor = node.opened()
        assert (anchor.start_number, anchor.restored) == (expected, False)
        node.stored = anchor.start_number
    anchor = node.start()
    assert (anchor.start_number, anchor.restored) == (6, False)


def test_a_first_start_broken_off_after_the_store_is_no_restore(node: Node) -> None:
    first = node.opened()
    node.stored = first.start_number
    anchor = node.start()
    assert (anchor.start_number, anchor.restored, anchor.vouch_key) == (2, False, first.vouch_key)


def test_start_numbers_never_repeat_whatever_is_broken_off_or_put_back(node: Node) -> None:
    seen: set[int] = set()
    for step in range(40):
        anchor = node.opened()
        if step % 3 != 1:
            node.stored = anchor.start_number
        if step % 4 != 2 and step % 3 != 1:
            anchor.confirm()
            assert anchor.start_number not in seen
            seen.add(anchor.start_number)
        if step % 7 == 6:
            node.stored = max(node.stored - 3, 0)
    assert len(seen) > 15


def test_the_anchor_tells_its_vouch_key_to_nobody(node: Node) -> None:
    anchor = node.start()
    assert anchor.vouch_key not in node.path.read_bytes()
    assert anchor.vouch_key.hex() not in repr(anchor) and repr(anchor.vouch_key) not in repr(anchor)
    assert node.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["open", "fsync", "rename"])
def test_a_disk_that_refuses_is_an_error_and_leaves_the_old_anchor(
    node: Node, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    node.start()
    anchor = node.opened()
    node.stored = anchor.start_number

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(anchor_module.os, call, refuse)
        with pytest.raises(StoreError, match="cannot be written"):
            anchor.confirm()
    after = node.opened()
    assert (after.start_number, after.restored) == (3, False)


def test_an_anchor_that_cannot_be_read_is_an_error_not_a_restore(node: Node) -> None:
    node.start()
    node.path.unlink()
    node.path.mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        node.opened()


def test_the_new_anchor_is_durable_before_it_takes_the_name(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = node.opened()
    calls: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        calls.append("sync " + ("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))
        real_fsync(descriptor)

    def rename(source: str, target: str) -> None:
        calls.append("rename")
        real_rename(source, target)

    monkeypatch.setattr(anchor_module.os, "fsync", fsync)
    monkeypatch.setattr(anchor_module.os, "rename", rename)
    anchor.confirm()
    assert calls == ["sync file", "rename", "sync directory"]
