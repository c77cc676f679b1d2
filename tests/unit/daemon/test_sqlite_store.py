"""The store on disk against somebody who edits its files, and against files that do not belong together."""

from __future__ import annotations

import base64
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_steps import LARGE, NODE_KEY, OTHER, OTHER_RUN, RUN, SMALL, STEPS, Held, Mark, after, bits_of, opened

from keyhop.core.machine import Audit, Drop, DropSecret, ForgetUsed, KeepSecret, Put, Remove, Row, Save, Seal, Used
from keyhop.core.model import Range
from keyhop.core.node.extents import Extents
from keyhop.core.node.store import Damaged, Outboxed, StoreError, WrongNodeKey
from keyhop.daemon.store import slots, used
from keyhop.daemon.store.sealing import NodeKey
from keyhop.daemon.store.slots import HEAD_BYTES, SLOT_BYTES
from keyhop.daemon.store.sqlite import SqliteStore

TWIN = Range(RUN, 65536 + 1024, 1024)
FOLD = Remove(Mark("nobody", 0))
"""A save that the frame log does not take."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A store that was closed after a part of its life, with two small blocks in one run."""
    store = opened(tmp_path)
    store.load()
    for saves in [*STEPS[:3], [Seal(TWIN)]]:
        store.commit(saves, bits_of)
    store.close()
    return tmp_path


def edit(directory: Path, *statements: str) -> int:
    """What somebody does who may write the file; tells how many rows he changed."""
    with sqlite3.connect(directory / "node.db") as database:
        changed = sum(database.execute(statement).rowcount for statement in statements)
    database.close()
    return changed


def ask(directory: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(directory / "node.db") as database:
        found = database.execute(query).fetchall()
    database.close()
    return found


def refused(directory: Path, error: type[StoreError] = Damaged) -> str:
    """What opening and loading says; the files are let go either way."""
    store = None
    try:
        store = opened(directory)
        store.load()
    except error as raised:
        return str(raised)
    finally:
        if store is not None:
            store.close()
    pytest.fail(f"{directory} opened and loaded")


def copied(directory: Path, to: str) -> Path:
    copy = directory.with_name(to)
    shutil.copytree(directory, copy)
    return copy


def slots_filled(directory: Path) -> int:
    cells = (directory / "node.db.slots").read_bytes()[HEAD_BYTES:]
    return sum(any(cells[at : at + SLOT_BYTES]) for at in range(0, len(cells), SLOT_BYTES))


# Edited rows.


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE rows SET value = x'93a46d61726ba16209' WHERE key = 'b'", "row mark b is damaged"),
        ("UPDATE rows SET tag = zeroblob(16) WHERE key = 'b'", "row mark b is damaged"),
        ("UPDATE rows SET key = 'c' WHERE key = 'b'", "row mark c is damaged"),
        ("UPDATE rows SET type = 'note' WHERE key = 'b'", "row note b is damaged"),
        ("INSERT INTO rows SELECT type, 'c', value, tag FROM rows WHERE key = 'b'", "row mark c is damaged"),
        (
            "UPDATE rows SET (value, tag) = (SELECT value, tag FROM rows AS other WHERE other.key != rows.key)",
            "row mark a is damaged",
        ),
        ("UPDATE runs SET peer = 'carol' WHERE id = 1", "run 1"),
        ("UPDATE runs SET id = id + 2", "run 3"),
        ("UPDATE used_log SET entries = substr(entries, 13)", "used_log 0"),
        ("UPDATE used_log SET number = 7", "used_log 7"),
        ("UPDATE outbox SET entries = replace(entries, '1', '2')", "outbox 1"),
        ("UPDATE outbox SET last = 9", "outbox 1"),
        ("UPDATE state SET journal = journal - 1", "state row"),
        ("UPDATE state SET sealed = zeroblob(length(sealed))", "state row"),
        ("DELETE FROM state", "state row"),
    ],
)
def test_an_edited_row_is_named(directory: Path, statement: str, named: str) -> None:
    assert edit(directory, statement) >= 1
    assert named in refused(directory)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM rows WHERE key = 'b'",
        "DELETE FROM rows",
        "DELETE FROM used_log",
        "DELETE FROM outbox",
        "DELETE FROM blocks WHERE length = 65536",
        "DELETE FROM secrets",
        "UPDATE blocks SET start = start + 5000 WHERE length = 65536",
        "UPDATE blocks SET run = 3 - run",
        "UPDATE secrets SET name = 'bob/2'",
        "INSERT INTO runs SELECT 9, peer, number, tag FROM runs WHERE id = 1",
    ],
)
def test_what_is_missing_moved_or_added_is_noticed(directory: Path, statement: str) -> None:
    assert edit(directory, statement) >= 1
    refused(directory)


def test_a_genuine_row_of_yesterday_is_noticed(directory: Path) -> None:
    """The edit that would make a node use a key twice: a mark put back, all else as it is."""
    yesterday = ask(directory, "SELECT quote(value), quote(tag) FROM rows WHERE key = 'a'")[0]
    store = opened(directory)
    store.load()
    store.commit([Put(Mark("a", 99))], bits_of)
    store.close()
    assert edit(directory, f"UPDATE rows SET value = {yesterday[0]}, tag = {yesterday[1]} WHERE key = 'a'") == 1
    assert "of another time" in refused(directory)


def test_a_genuine_state_of_yesterday_is_noticed(directory: Path) -> None:
    journal, sealed = ask(directory, "SELECT journal, quote(sealed) FROM state")[0]
    store = opened(directory)
    store.load()
    store.commit([Put(Mark("a", 99))], bits_of)
    store.close()
    assert edit(directory, f"UPDATE state SET journal = {journal}, sealed = {sealed}") == 1
    assert "of another time" in refused(directory)


def test_yesterdays_used_log_is_noticed(directory: Path) -> None:
    store = opened(directory)
    store.load()
    store.commit([Used(Range(OTHER_RUN, 0, 32)), FOLD], bits_of)
    store.close()
    assert edit(directory, "DELETE FROM used_log WHERE number = (SELECT max(number) FROM used_log)") == 1
    refused(directory)


@pytest.mark.parametrize("column", ["node", "schema", "store", "check"])
def test_an_edited_identity_is_refused(directory: Path, column: str) -> None:
    assert edit(directory, f"UPDATE identity SET value = 7 WHERE name = '{column}'") == 1
    store = None
    with pytest.raises(StoreError):
        store = opened(directory)
    assert store is None
    assert edit(directory, f"DELETE FROM identity WHERE name = '{column}'") == 1
    refused(directory)


# Edited blocks.


def opens_but(directory: Path, block: Range) -> str:
    """The store opens, other blocks read, this one does not."""
    store = opened(directory)
    snapshot = store.load()
    assert block in snapshot.blocks and LARGE in snapshot.blocks
    assert store.read(LARGE) == bits_of(LARGE)
    with pytest.raises(Damaged) as raised:
        store.read(block)
    store.close()
    return str(raised.value)


def test_a_flipped_bit_in_a_sealed_block_is_noticed_and_named(directory: Path) -> None:
    edit(
        directory,
        f"UPDATE blocks SET sealed = CAST(substr(sealed, 1, 99) || x'00' || substr(sealed, 101) AS BLOB) "
        f"WHERE start = {SMALL.start}",
    )
    assert f"start={SMALL.start}" in opens_but(directory, SMALL)


def test_swapped_ciphertexts_are_noticed(directory: Path) -> None:
    one, two = ask(directory, f"SELECT quote(sealed) FROM blocks WHERE start IN ({SMALL.start}, {TWIN.start})")
    edit(
        directory,
        f"UPDATE blocks SET sealed = CASE start WHEN {SMALL.start} THEN {two[0]} ELSE {one[0]} END "
        f"WHERE start IN ({SMALL.start}, {TWIN.start})",
    )
    opens_but(directory, SMALL)
    opens_but(directory, TWIN)


def test_blocks_swapped_with_their_slots_are_noticed(directory: Path) -> None:
    edit(
        directory,
        f"UPDATE blocks SET start = -start WHERE start IN ({SMALL.start}, {TWIN.start})",
        f"UPDATE blocks SET start = {SMALL.start + TWIN.start} + start WHERE start < 0",
    )
    refused(directory)


def test_a_truncated_block_is_noticed(directory: Path) -> None:
    for length in (1039, 16, 15, 0):
        edit(directory, f"UPDATE blocks SET sealed = substr(sealed, 1, {length}) WHERE start = {SMALL.start}")
        opens_but(directory, SMALL)


def test_a_damaged_secret_is_noticed(directory: Path) -> None:
    edit(directory, "UPDATE secrets SET sealed = zeroblob(length(sealed))")
    store = opened(directory)
    store.load()
    with pytest.raises(Damaged, match="secret bob/1"):
        store.read_secret("bob/1")
    store.close()


def test_after_damage_the_store_says_nothing_more(directory: Path) -> None:
    edit(directory, f"UPDATE blocks SET sealed = zeroblob(1040) WHERE start = {SMALL.start}")
    store = opened(directory)
    store.load()
    with pytest.raises(Damaged):
        store.read(SMALL)
    with pytest.raises(StoreError):
        store.read(LARGE)
    with pytest.raises(StoreError):
        store.commit([], bits_of)
    store.close()


# Files that do not belong together.


def test_the_wrong_node_key_says_what_to_do(directory: Path) -> None:
    with pytest.raises(WrongNodeKey, match=r"does not open .*node\.db: start with the node key this store was made"):
        SqliteStore(directory / "node.db", NodeKey(bytes(32)), "alice", [Mark])
    opened(directory).close()


def test_the_store_of_another_node_is_refused(directory: Path) -> None:
    with pytest.raises(StoreError, match="store of node alice: must be that of bob"):
        SqliteStore(directory / "node.db", NodeKey(NODE_KEY), "bob", [Mark])


def test_a_newer_schema_is_refused(directory: Path) -> None:
    edit(directory, "UPDATE identity SET value = 2 WHERE name = 'schema'")
    assert "has schema 2: this version reads schema 1" in refused(directory, StoreError)


def test_a_row_type_that_this_version_does_not_know_is_refused(directory: Path) -> None:
    class Other(Row, frozen=True, gc=False, array_like=True, tag="other"):
        @property
        def key(self) -> str:
            return ""

    store = SqliteStore(directory / "node.db", NodeKey(NODE_KEY), "alice", [Other])
    with pytest.raises(StoreError, match="does not know"):
        store.load()
    store.close()
    store = opened(directory)
    store.load()
    with pytest.raises(StoreError, match="must be one of mark"):
        store.commit([Put(Other())], bits_of)
    store.close()


def test_an_old_slot_file_beside_a_new_database_is_refused(directory: Path) -> None:
    old = (directory / "node.db.slots").read_bytes()
    store = opened(directory)
    store.load()
    store.commit([Seal(Range(RUN, 1 << 20, 64))], bits_of)
    store.close()
    (directory / "node.db.slots").write_bytes(old)
    assert "does not open" in refused(directory)


def test_a_slot_file_of_the_day_before_yesterday_is_refused(directory: Path) -> None:
    old = (directory / "node.db.slots").read_bytes()
    store = opened(directory, day=2)
    store.load()
    store.commit([], bits_of)
    store.commit([], bits_of)
    store.close()
    (directory / "node.db.slots").write_bytes(old)
    assert "older than the database" in refused(directory)


def test_an_old_slot_file_does_not_bring_back_what_was_dropped_and_sealed_anew(directory: Path) -> None:
    old = (directory / "node.db.slots").read_bytes()
    store = opened(directory)
    store.load()
    store.commit([Drop(SMALL)], bits_of)
    store.commit([Seal(SMALL)], lambda range: bytes(range.length))
    store.close()
    (directory / "node.db.slots").write_bytes(old)
    opens_but(directory, SMALL)


def test_an_old_database_beside_a_new_slot_file_is_refused(directory: Path) -> None:
    old = (directory / "node.db").read_bytes()
    store = opened(directory)
    store.load()
    store.commit([Drop(SMALL), Put(Mark("leased", 1))], bits_of)
    store.close()
    (directory / "node.db").write_bytes(old)
    assert "does not open" in refused(directory)


def test_both_files_of_yesterday_open_and_show_the_start_number_of_yesterday(directory: Path) -> None:
    """Nothing in the two files can tell: that is what the anchor and the neighbours are for."""
    yesterday = copied(directory, "yesterday")
    store = opened(directory)
    store.load()
    store.commit([Put(Mark("a", 99))], bits_of)
    newer = store.journal_number
    store.close()
    store = opened(yesterday)
    assert Mark("a", 2) in store.load().rows
    assert store.journal_number == newer - 1
    store.close()


@pytest.mark.parametrize("name", ["node.db.slots", "node.db.log"])
def test_a_lost_file_is_noticed_and_no_new_one_takes_its_place(directory: Path, name: str) -> None:
    (directory / name).unlink()
    assert f"{name} is missing: put it back" in refused(directory)
    assert not (directory / name).exists()


def test_a_lost_database_is_noticed_and_its_slots_are_left_alone(directory: Path) -> None:
    before = (directory / "node.db.slots").read_bytes()
    (directory / "node.db").unlink()
    assert "put the database back, or remove both files" in refused(directory)
    assert (directory / "node.db.slots").read_bytes() == before


def test_without_either_file_the_store_is_new(directory: Path) -> None:
    (directory / "node.db").unlink()
    (directory / "node.db.slots").unlink()
    store = opened(directory)
    snapshot = store.load()
    assert not snapshot.rows and not snapshot.blocks and slots_filled(directory) == 0
    store.close()


@pytest.mark.parametrize("kept", [0, 1, 100, 4096, 8192, 20_000, 60_000])
def test_a_truncated_database_is_an_error(directory: Path, kept: int) -> None:
    os.truncate(directory / "node.db", kept)
    assert "node.db" in refused(directory, StoreError)


@given(st.integers(0, 10**9), st.integers(1, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_damaged_byte_anywhere_is_an_error_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    directory = tmp_path_factory.mktemp("damage")
    store = opened(directory)
    store.load()
    for saves in STEPS[:3]:
        store.commit(saves, bits_of)
    store.close()
    path = directory / ("node.db", "node.db.slots", "node.db.log")[place % 3]
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(content)
    try:
        store = opened(directory)
    except StoreError:
        return
    try:
        assert Held(store, store.load()) == after(3)
    except StoreError:
        pass
    finally:
        store.close()


def test_a_file_that_is_no_database_is_an_error(directory: Path) -> None:
    (directory / "node.db").write_bytes(b"x" * 10_000)
    assert "is damaged" in refused(directory)


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened: No such file"):
        opened(tmp_path / "missing")


def test_a_store_that_was_not_loaded_takes_no_commit(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(StoreError, match="was not loaded"):
        store.commit([], bits_of)
    store.close()


def test_a_second_opening_is_refused_while_the_first_lasts(directory: Path) -> None:
    store = opened(directory)
    with pytest.raises(StoreError, match="in use by another process"):
        opened(directory)
    store.load()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.load()


# Secrecy.


def test_the_files_are_for_their_owner_alone(directory: Path) -> None:
    store = opened(directory)
    store.load()
    store.commit([], bits_of)
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["node.db", "node.db-shm", "node.db-wal", "node.db.log", "node.db.slots"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in directory.iterdir())
    store.close()


def all_forms(secret: bytes) -> Iterator[bytes]:
    """Raw, reversed, hex, and base64 at its three alignments."""
    yield from (secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode())
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + secret)
        yield from (text[4:-4], text[4:-4].translate(bytes.maketrans(b"+/", b"-_")))


def test_no_planted_bit_is_in_any_file_in_any_form(tmp_path: Path) -> None:
    planted = [LARGE, SMALL, OTHER]
    store = opened(tmp_path)
    store.load()
    for saves in STEPS:
        store.commit(saves, bits_of)
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        for block in planted:
            bits = bits_of(block)
            for at in range(0, len(bits) - 12, max(len(bits) // 8, 1)):
                assert not any(form in content for form in all_forms(bits[at : at + 12]))
        assert not any(form in content for form in all_forms(bits_of(Range(RUN, 100, 32))))
        assert not any(form in content for form in all_forms(NODE_KEY))
    store.close()


def test_the_search_for_planted_bits_finds_what_is_there() -> None:
    secret = bytes(range(100, 112))
    for text in (
        b"x" + secret,
        secret.hex().encode(),
        base64.b64encode(b"a" + secret + b"b"),
        base64.b64encode(b"abc" + secret),
        base64.urlsafe_b64encode(b"ab" + secret + b"cd"),
    ):
        assert any(form in text for form in all_forms(secret))


def test_when_a_drop_is_committed_its_data_key_is_overwritten_already(directory: Path) -> None:
    store = opened(directory)
    store.load()
    assert slots_filled(directory) == 5
    store.commit([Drop(SMALL)], bits_of)
    assert slots_filled(directory) == 4
    store.commit([DropSecret("bob/1"), Drop(LARGE), Drop(SMALL)], bits_of)
    assert slots_filled(directory) == 2
    store.close()


def test_a_dropped_block_does_not_open_with_node_key_and_old_database(directory: Path) -> None:
    old = copied(directory, "old")
    store = opened(directory)
    store.load()
    store.commit([Drop(SMALL)], bits_of)
    store.close()
    shutil.copy(directory / "node.db.slots", old / "node.db.slots")
    refused(old)


def test_a_secret_kept_anew_overwrites_the_old_ones_data_key(directory: Path) -> None:
    store = opened(directory)
    store.load()
    before = slots_filled(directory)
    store.commit([KeepSecret("bob/1", Range(RUN, 0, 32))], bits_of)
    assert slots_filled(directory) == before
    store.close()


def test_the_same_bits_are_never_sealed_alike(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.load()
    for start in (0, 64):
        store.commit([Seal(Range(RUN, start, 64))], lambda range: bytes(64))
    store.commit([Drop(Range(RUN, 0, 64))], bits_of)
    store.commit([Seal(Range(RUN, 0, 64))], lambda range: bytes(64))
    store.close()
    sealed = [row[0] for row in ask(tmp_path, "SELECT sealed FROM blocks")]
    assert len(set(sealed)) == 2 and sealed[0][:16] != sealed[1][:16]


def test_neither_errors_nor_reprs_show_bits(directory: Path) -> None:
    store = opened(directory)
    store.load()
    shown = [repr(store), repr(store._slots), repr(store._marker), repr(store._used)]
    with pytest.raises(StoreError) as raised:
        store.commit([Seal(LARGE)], bits_of)
    shown.append(str(raised.value))
    store.close()
    for text in shown:
        assert not any(form.decode("latin1") in text for form in all_forms(bits_of(LARGE)[:12]))
        assert NODE_KEY.hex() not in text


# The intermediate key, the used log, the outbox.


def test_the_intermediate_key_is_replaced_daily_by_commits_alone(directory: Path) -> None:
    for day in range(1, 5):
        store = opened(directory, day=day)
        store.load()
        store.commit([], bits_of)
        assert store._slots.generation == 1 + day and len(store._slots._keys) == 1
        assert store.read(LARGE) == bits_of(LARGE) and store.read_secret("bob/1") == bits_of(Range(RUN, 100, 32))
        store.close()


def test_blocks_can_be_read_all_through_a_replacement(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "REWRAPS_PER_STEP", 1)
    store = opened(directory, day=1)
    store.load()
    for step in range(8):
        store.commit([Seal(Range(RUN, (1 << 20) + 64 * step, 64))], bits_of)
        assert store.read(LARGE) == bits_of(LARGE)
        assert store.read(SMALL) == bits_of(SMALL)
        assert store.read(Range(RUN, (1 << 20) + 64 * step, 64)) == bits_of(Range(RUN, (1 << 20) + 64 * step, 64))
    assert len(store._slots._keys) == 1
    store.close()


def test_the_used_log_is_merged_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used, "ROWS_BEFORE_MERGING", 20)
    store = opened(tmp_path)
    store.load()
    expected = Extents()
    for step in range(300):
        at = (step * 7919) % 300 * 32
        expected.add(at, at + 32)
        store.commit([Used(Range(RUN, at, 32)), FOLD], bits_of)
    assert len(ask(tmp_path, "SELECT 1 FROM used_log")) < 150
    store.close()
    store = opened(tmp_path)
    assert [(found.start, found.end) for found in store.load().used] == list(expected) == [(0, 9600)]
    store.commit([ForgetUsed(Range(RUN, 0, 9600))], bits_of)
    for _ in range(25):
        store.commit([Used(Range(RUN, 9600, 32)), FOLD], bits_of)
    store.close()
    store = opened(tmp_path)
    assert store.load().used == [Range(RUN, 9600, 32)]
    assert len(ask(tmp_path, "SELECT 1 FROM used_log")) < 25
    store.close()


def test_a_large_used_map_is_merged_into_several_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used, "ROWS_BEFORE_MERGING", 2)
    monkeypatch.setattr(used, "ENTRIES_PER_ROW", 10)
    store = opened(tmp_path)
    store.load()
    for start in range(0, 400, 100):
        store.commit([*(Used(Range(RUN, at, 1)) for at in range(start, start + 100, 2)), FOLD], bits_of)
    assert len(ask(tmp_path, "SELECT 1 FROM used_log")) > 10
    store.close()
    store = opened(tmp_path)
    assert store.load().used == [Range(RUN, at, 1) for at in range(0, 400, 2)]
    store.close()


@pytest.mark.parametrize(
    "wrong", [Range(RUN, -1, 32), Range(RUN, (1 << 34) - 31, 32), Range(RUN, 0, -1), Range(RUN, 0, (1 << 34) + 1)]
)
def test_positions_that_cannot_be_are_refused(tmp_path: Path, wrong: Range) -> None:
    store = opened(tmp_path)
    store.load()
    with pytest.raises(StoreError):
        store.commit([Used(wrong)], bits_of)
    store.close()


def test_the_outbox_does_not_grow_when_the_log_keeps_up(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.load()
    for number in range(1, 50):
        store.commit([Audit(b'{"n":%d}' % number)], bits_of)
        store.written(store.outbox()[-1].number)
    assert len(ask(tmp_path, "SELECT 1 FROM outbox")) == 1
    store.close()
    store = opened(tmp_path)
    store.load()
    assert store.outbox() == [Outboxed(49, b'{"n":49}')]
    store.close()


def test_each_commit_raises_the_journal_number_by_one(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.load()
    before = store.journal_number
    for saves in ([], [Put(Mark("a", 1))], [Remove(Mark("a", 1))]):
        store.commit(saves, bits_of)
    assert store.journal_number == before + 3
    store.close()
    store = opened(tmp_path)
    assert store.journal_number == before + 3
    store.close()


# Reading beside a commit.


def test_reading_beside_running_commits_gives_whole_blocks(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.load()
    store.commit([Seal(LARGE)], bits_of)
    failures: list[BaseException] = []

    def commit() -> None:
        try:
            for step in range(100):
                block = Range(OTHER_RUN, step * 64, 64)
                store.commit([Seal(block), Put(Mark("a", step))], bits_of)
                if step % 2:
                    store.commit([Drop(block)], bits_of)
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=commit)
    writer.start()
    reads = 0
    while writer.is_alive():
        assert store.read(LARGE) == bits_of(LARGE)
        assert store.covering(RUN, 5) == LARGE
        reads += 1
    writer.join()
    assert not failures and reads > 10
    store.close()


def test_an_error_inside_a_commit_leaves_none_of_it(directory: Path) -> None:
    saves: list[Save] = [Put(Mark("a", 77)), Used(Range(RUN, 5000, 32)), Drop(SMALL), Seal(LARGE)]
    store = opened(directory)
    store.load()
    with pytest.raises(StoreError, match="overlaps"):
        store.commit(saves, bits_of)
    store.close()
    store = opened(directory)
    snapshot = store.load()
    assert Mark("a", 2) in snapshot.rows and SMALL in snapshot.blocks
    assert store.read(SMALL) == bits_of(SMALL)
    store.close()


def test_bits_that_are_missing_leave_none_of_the_commit(directory: Path) -> None:
    def missing(range: Range) -> bytes:
        raise KeyError(range)

    store = opened(directory)
    store.load()
    with pytest.raises(StoreError, match="cannot be written: KeyError"):
        store.commit([Put(Mark("a", 77)), Seal(Range(RUN, 1 << 20, 64))], missing)
    store.close()
    store = opened(directory)
    assert Mark("a", 2) in store.load().rows
    assert slots_filled(directory) == 5
    store.close()
