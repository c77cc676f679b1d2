"""The node key's file, and the marks that authenticate rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyhop.core.model import NodeId, Range, RunId
from keyhop.core.node.store import Damaged, StoreError
from keyhop.crypto.keywrap import NotAuthentic
from keyhop.daemon.store.sealing import Marker, NodeKey, block_place, make_node_key, read_node_key, secret_place

STORE = b"store of 16 byte"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "node.key"
    make_node_key(path)
    return path


def test_a_made_node_key_is_for_its_owner_alone_and_opens_the_same_every_time(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.stat().st_size == 32
    assert read_node_key(path).check(STORE) == read_node_key(path).check(STORE)


def test_two_node_keys_differ(path: Path, tmp_path: Path) -> None:
    make_node_key(tmp_path / "other.key")
    assert read_node_key(path).check(STORE) != read_node_key(tmp_path / "other.key").check(STORE)


def test_a_node_key_is_never_made_over_another(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError, match="cannot be made"):
        make_node_key(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_modes_that_keep_it_to_the_owner_are_legal(path: Path, mode: int) -> None:
    path.chmod(mode)
    read_node_key(path)


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o640, 0o644, 0o700, 0o500, 0o777])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(StoreError, match=rf"mode {mode:04o}: must be 0400 or 0600 \(chmod 0400 .*node\.key\)"):
        read_node_key(path)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_file_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "odd.key"
    path.write_bytes(bytes(length))
    path.chmod(0o600)
    with pytest.raises(StoreError, match="must be 32"):
        read_node_key(path)


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "missing", tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(StoreError, match=r"plain file|cannot be read"):
            read_node_key(place)


def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        read_node_key(path)
        os.chown(path, 12345, -1)
        owner = 12345
    with pytest.raises(StoreError, match=f"belongs to user {owner}"):
        read_node_key(path)


def test_a_node_key_does_not_show_itself(path: Path) -> None:
    bits = path.read_bytes()
    key = read_node_key(path)
    marker = Marker(key, STORE, "alice")
    for text in (repr(key), str(key), f"{key!r}", repr(marker)):
        assert bits.hex() not in text and repr(bits) not in text and "hidden" in text


def test_keys_for_two_purposes_or_two_stores_differ() -> None:
    key = NodeKey(bytes(32))
    derived = {key.derive(purpose, store) for purpose in ("rows", "state") for store in (STORE, b"x" * 16)}
    assert len(derived) == 4
    assert key.derive("rows", b"") != key.derive("row", b"s")


def toggled(*row: object, key: NodeKey | None = None, store: bytes = STORE) -> tuple[bytes, int]:
    """The tag of a row, and what it adds to the sum."""
    marker = Marker(key or NodeKey(bytes(32)), store, "alice")
    table, *fields = row
    return marker.toggle(str(table), *fields), marker.sum


@pytest.mark.parametrize(
    "other",
    [("rows", "a", "bc"), ("row", "ab", "c"), ("row", "a", b"bc"), ("row", "a"), ("row", "a", "bc", ""), ("row",)],
)
def test_no_two_rows_share_tag_or_share(other: tuple[object, ...]) -> None:
    tag, share = toggled("row", "a", "bc")
    assert (tag, share) == toggled("row", "a", "bc")
    assert tag != toggled(*other)[0] and share != toggled(*other)[1]


def test_tags_and_shares_need_the_key_of_the_store() -> None:
    assert toggled("row", "a") != toggled("row", "a", key=NodeKey(b"x" * 32))
    assert toggled("row", "a") != toggled("row", "a", store=b"x" * 16)


def test_the_sum_is_that_of_what_is_there_in_whatever_order_it_came_and_went() -> None:
    one, two = (Marker(NodeKey(bytes(32)), STORE, "alice") for _ in range(2))
    for row in ("a", "b", "c", "b"):
        one.toggle("row", row)
    for row in ("c", "a"):
        two.toggle("row", row)
    assert one.sum == two.sum != 0
    two.toggle("row", "a")
    assert one.sum != two.sum


def test_a_share_cannot_be_had_from_its_tag() -> None:
    tag, share = toggled("row", "a")
    assert tag not in share.to_bytes(32, "big") and share.to_bytes(32, "big")[:16] != tag


def test_a_row_with_the_wrong_tag_is_named() -> None:
    marker = Marker(NodeKey(bytes(32)), STORE, "alice")
    marker.check(toggled("row", "mark", "a", b"value")[0], "row", "mark", "a", b"value")
    with pytest.raises(Damaged, match="row mark a is damaged"):
        marker.check(bytes(16), "row", "mark", "a", b"value")


def test_the_state_opens_with_its_own_journal_number_alone() -> None:
    marker = Marker(NodeKey(bytes(32)), STORE, "alice")
    sealed = marker.seal_state(7, b"state")
    again = Marker(NodeKey(bytes(32)), STORE, "alice")
    assert again.open_state(7, sealed) == b"state"
    for wrong, journal, changed in (
        (again, 8, sealed),
        (Marker(NodeKey(bytes(32)), STORE, "bob"), 7, sealed),
        (Marker(NodeKey(b"x" * 32), STORE, "alice"), 7, sealed),
        (again, 7, sealed[:-1]),
        (again, 7, b"x" + sealed[1:]),
        (again, 7, b""),
    ):
        with pytest.raises(NotAuthentic):
            wrong.open_state(journal, changed)


def test_no_two_seals_of_the_state_share_key_and_nonce() -> None:
    seals = [Marker(NodeKey(bytes(32)), STORE, "alice").seal_state(7, b"state") for _ in range(3)]
    marker = Marker(NodeKey(bytes(32)), STORE, "alice")
    seals += [marker.seal_state(7, b"state") for _ in range(3)]
    assert len({sealed[:28] for sealed in seals}) == 6


def test_no_two_places_are_written_alike() -> None:
    block = Range(RunId(NodeId("bob"), 1), 2, 3)
    places = {
        block_place("alice", block),
        block_place("alicebob", block._replace(run=RunId(NodeId(""), 1))),
        block_place("alice", block._replace(run=RunId(NodeId("bob"), 12), start=0)),
        block_place("alice", block._replace(start=23)),
        block_place("alice", block._replace(length=2)),
        secret_place("alice", "bob"),
        secret_place("alic", "ebob"),
    }
    assert len(places) == 7
