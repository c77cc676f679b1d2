"""The frame log: what it takes, how it is folded, and what a crash or somebody who edits it can do to it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_steps import NODE_KEY, RUN, STEPS, Held, Mark, after, bits_of, opened

from keyhop.core.machine import Audit, Put, Remove, Save, Seal, Used
from keyhop.core.model import NodeId, Range, RunId
from keyhop.core.node.store import Damaged, Outboxed, StoreError
from keyhop.daemon.store import frames
from keyhop.daemon.store.frames import HEAD_BYTES
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.store.sealing import NodeKey
from keyhop.daemon.store.sqlite import SqliteStore

FIRST: list[Save] = [Seal(Range(RUN, 0, 64)), Put(Mark("a", 0))]
FOLD: list[Save] = [Remove(Mark("nobody", 0))]


def fetch(number: int) -> list[Save]:
    return [
        Used(Range(RUN, 32 * number, 32)),
        Audit(b'{"n":%d}' % number),
        Put(Mark("a", number)),
    ]


def expected(*commits: list[Save]) -> Held:
    store = MemoryStore()
    store.load()
    for saves in commits:
        store.commit(saves, bits_of)
    return Held(store, store.load())


def held(directory: Path) -> Held:
    store = opened(directory)
    try:
        return Held(store, store.load())
    finally:
        store.close()


def crashed(directory: Path, name: str) -> Path:
    """The files as a killed process leaves them."""
    return Path(shutil.copytree(directory, directory.with_name(name)))


def refused(directory: Path) -> str:
    store = None
    try:
        store = opened(directory)
        store.load()
    except Damaged as error:
        return str(error)
    finally:
        if store is not None:
            store.close()
    pytest.fail(f"{directory} opened and loaded")


def ends(log: Path) -> list[int]:
    """Where the frames since the last fold end, read off their lengths."""
    content, at, found = log.read_bytes(), HEAD_BYTES, []
    while content[at : at + 8] == frames.FRAME_MAGIC:
        at += frames._FRAME.size + int.from_bytes(content[at + 8 : at + 12], "big") + 16
        found.append(at)
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    return directory


@pytest.fixture
def log(directory: Path) -> Path:
    """A store that was killed after a block and four fetches."""
    store = opened(directory)
    store.load()
    for saves in (FIRST, fetch(1), fetch(2), fetch(3), fetch(4)):
        store.commit(saves, bits_of)
    store.close()
    return directory / "node.db.log"


ALL = (FIRST, fetch(1), fetch(2), fetch(3), fetch(4))


# What it takes.


def test_what_fetches_leave_does_not_go_through_the_database(directory: Path) -> None:
    store = opened(directory)
    store.load()
    store.commit(FIRST, bits_of)
    before = (directory / "node.db-wal").read_bytes()
    for number in range(1, 20):
        store.commit(fetch(number), bits_of)
    assert (directory / "node.db-wal").read_bytes() == before
    assert held_after_kill(directory, store) == expected(FIRST, *map(fetch, range(1, 20)))


def held_after_kill(directory: Path, store: SqliteStore) -> Held:
    try:
        return held(crashed(directory, "killed"))
    finally:
        store.close()


@pytest.mark.parametrize(
    "saves",
    [
        [],
        [Put(Mark("a", 9))],
        [Audit(b'{"n":9}')],
        [*fetch(9), Remove(Mark("a", 0))],
        [*fetch(9), Seal(Range(RUN, 1 << 20, 64))],
        [Used(Range(RunId(NodeId("carol"), 0), 0, 32))],
    ],
)
def test_every_other_commit_does_and_takes_the_frames_with_it(directory: Path, log: Path, saves: list[Save]) -> None:
    store = opened(directory)
    store.load()
    store.commit(fetch(5), bits_of)
    kept = log.read_bytes()
    store.commit(saves, bits_of)
    assert log.read_bytes() == kept
    with sqlite3.connect(f"file:{directory / 'node.db'}?mode=ro", uri=True) as database:
        assert len(database.execute("SELECT 1 FROM used_log").fetchall()) == 2
    database.close()
    assert held_after_kill(directory, store) == expected(*ALL, fetch(5), saves)


def test_a_commit_in_the_log_raises_the_journal_number_like_any_other(directory: Path) -> None:
    store = opened(directory)
    store.load()
    store.commit(FIRST, bits_of)
    before = store.journal_number
    for number in (1, 2, 3):
        store.commit(fetch(number), bits_of)
        assert store.journal_number == before + number
    store.close()
    store = opened(directory)
    store.load()
    assert store.journal_number == before + 3
    store.commit(fetch(4), bits_of)
    assert store.journal_number == before + 4
    store.close()


def test_when_it_is_full_it_is_folded_and_grows_to_its_limit(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FIRST_BYTES", HEAD_BYTES + 512)
    monkeypatch.setattr(frames, "LIMIT_BYTES", HEAD_BYTES + 4096)
    store = opened(directory)
    store.load()
    store.commit(FIRST, bits_of)
    sizes = []
    for number in range(1, 200):
        store.commit(fetch(number), bits_of)
        sizes.append((directory / "node.db.log").stat().st_size)
    assert sizes == sorted(sizes) and sizes[0] == HEAD_BYTES + 512 and sizes[-1] == HEAD_BYTES + 4096
    assert held_after_kill(directory, store) == expected(FIRST, *map(fetch, range(1, 200)))


def test_a_commit_larger_than_the_log_goes_to_the_database(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FIRST_BYTES", HEAD_BYTES + 512)
    monkeypatch.setattr(frames, "LIMIT_BYTES", HEAD_BYTES + 512)
    large: list[Save] = [Used(Range(RUN, at, 1)) for at in range(0, 2000, 2)]
    store = opened(directory)
    store.load()
    for saves in (FIRST, fetch(1), large, fetch(2)):
        store.commit(saves, bits_of)
    assert held_after_kill(directory, store) == expected(FIRST, fetch(1), large, fetch(2))


def test_the_intermediate_key_is_replaced_though_all_commits_are_fetches(directory: Path, log: Path) -> None:
    store = opened(directory, day=1.5)
    store.load()
    assert store._slots.generation == 1
    store.commit(fetch(5), bits_of)
    assert store._slots.generation == 2 and len(store._slots._keys) == 1
    store.close()


def test_a_position_that_cannot_be_stops_the_store(directory: Path, log: Path) -> None:
    store = opened(directory)
    store.load()
    with pytest.raises(StoreError, match="cannot be marked"):
        store.commit([Used(Range(RUN, (1 << 34) - 31, 32))], bits_of)
    with pytest.raises(StoreError):
        store.commit(fetch(5), bits_of)
    store.close()
    assert held(directory) == expected(*ALL)


def test_entries_that_the_audit_log_has_never_become_rows(directory: Path) -> None:
    store = opened(directory)
    store.load()
    store.commit(FIRST, bits_of)
    for number in range(1, 10):
        store.commit(fetch(number), bits_of)
        assert [outboxed.entry for outboxed in store.outbox()] == [b'{"n":%d}' % number]
    store.written(8)
    store.commit(FOLD, bits_of)
    store.close()
    store = opened(directory)
    store.load()
    assert store.outbox() == [Outboxed(9, b'{"n":9}')]
    store.commit(fetch(10), bits_of)
    assert store.outbox() == [Outboxed(10, b'{"n":10}')]
    store.close()


# Crashes.


def test_between_the_fold_and_the_next_frame_the_old_frames_are_void(directory: Path, log: Path) -> None:
    store = opened(directory)
    store.load()
    for number in (5, 6, 7):
        store.commit(fetch(number), bits_of)
    store.commit(FOLD, bits_of)
    assert len(ends(log)) >= 3
    journal = store.journal_number
    copy = crashed(directory, "copy")
    assert held_after_kill(directory, store) == expected(*ALL, fetch(5), fetch(6), fetch(7))
    store = opened(copy)
    store.load()
    assert store.journal_number == journal
    store.close()


@pytest.mark.parametrize("fresh", [1, 2, 3, 4])
def test_what_is_left_of_old_frames_behind_new_ones_is_void(directory: Path, log: Path, fresh: int) -> None:
    store = opened(directory)
    store.load()
    old: list[Save] = [*fetch(5), Audit(b'{"note":"%b"}' % (b"x" * 33))]
    commits = [*ALL, old, old, FOLD]
    for saves in (old, old, FOLD):
        store.commit(saves, bits_of)
    for number in range(6, 6 + fresh):
        commits.append(fetch(number))
        store.commit(commits[-1], bits_of)
    assert held_after_kill(directory, store) == expected(*commits)


def test_a_crash_before_the_fold_of_a_start_is_durable_leaves_the_frames(directory: Path, log: Path) -> None:
    before = log.read_bytes()
    database = (directory / "node.db").read_bytes()
    assert held(directory) == expected(*ALL)
    # The start changed the database alone: with the old one the frames count again, with the new one they are void.
    assert log.read_bytes() == before and (directory / "node.db").read_bytes() != database
    assert held(directory) == expected(*ALL)
    (directory / "node.db").write_bytes(database)
    assert held(directory) == expected(*ALL)


def test_a_torn_last_frame_was_never_acknowledged_and_is_dropped(directory: Path, log: Path) -> None:
    content, (*_, third, last) = log.read_bytes(), ends(log)
    for kept in range(third, last):
        copy = crashed(directory, f"torn {kept}")
        (copy / log.name).write_bytes(content[:kept].ljust(len(content), b"\0"))
        store = opened(copy)
        assert Held(store, store.load()) == expected(*ALL[:-1]), kept
        # The number that was torn is given to another commit.
        store.commit(fetch(7), bits_of)
        store.close()
        assert held(copy) == expected(*ALL[:-1], fetch(7))
        shutil.rmtree(copy)


def test_a_frame_of_which_only_the_end_was_written_is_dropped(directory: Path, log: Path) -> None:
    content, (*_, third, _) = bytearray(log.read_bytes()), ends(log)
    content[third : third + 50] = bytes(50)
    log.write_bytes(content)
    assert held(directory) == expected(*ALL[:-1])


# Damage, and files that do not belong together.


def test_a_broken_frame_before_a_whole_one_is_damage(directory: Path, log: Path) -> None:
    content, (_, second, third, _) = log.read_bytes(), ends(log)
    for at in range(second, third):
        changed = bytearray(content)
        changed[at] ^= 1
        log.write_bytes(changed)
        assert "is damaged: commit" in refused(directory), at
    log.write_bytes(content)
    assert held(directory) == expected(*ALL)


@given(st.integers(0, 10**9), st.integers(1, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_damaged_byte_is_an_error_or_at_most_the_last_commit(directory: Path, place: int, change: int) -> None:
    copy = directory.with_name("damaged")
    if not (directory / "node.db").exists():
        store = opened(directory)
        store.load()
        for saves in ALL:
            store.commit(saves, bits_of)
        store.close()
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    log = copy / "node.db.log"
    content, (*_, third, last) = bytearray(log.read_bytes()), ends(log)
    # Half of the bytes that are tried lie in the frames.
    at = place % len(content) if place % 2 else place % last
    content[at] ^= change
    log.write_bytes(content)
    try:
        found = held(copy)
    except Damaged:
        assert at < third
        return
    assert found == expected(*(ALL[:-1] if third <= at < last else ALL)), at


def test_a_frame_that_is_missing_is_noticed(directory: Path, log: Path) -> None:
    content, (first, second, *_) = log.read_bytes(), ends(log)
    log.write_bytes((content[:first] + content[second:]).ljust(len(content), b"\0"))
    assert "of different times" in refused(directory)


def test_frames_in_another_order_are_noticed(directory: Path, log: Path) -> None:
    content, (first, second, third, _) = log.read_bytes(), ends(log)
    log.write_bytes(content[:first] + content[second:third] + content[first:second] + content[third:])
    assert "of different times" in refused(directory)


def test_an_old_database_beside_a_log_that_went_on_is_refused(directory: Path, log: Path) -> None:
    old = (directory / "node.db").read_bytes()
    store = opened(directory)
    store.load()
    for saves in (fetch(5), FOLD, fetch(6)):
        store.commit(saves, bits_of)
    store.close()
    (directory / "node.db").write_bytes(old)
    assert "of different times" in refused(directory)


def test_the_log_of_a_store_that_went_another_way_is_refused(directory: Path, log: Path) -> None:
    """Both were copied from one store and count alike: only the chain tells them apart."""
    other = crashed(directory, "other")
    for path, number in ((directory, 5), (other, 6)):
        store = opened(path)
        store.load()
        store.commit(fetch(number), bits_of)
        store.close()
    shutil.copy(other / log.name, log)
    assert "of different times" in refused(directory)


def test_the_log_of_another_store_is_refused(directory: Path, log: Path, tmp_path: Path) -> None:
    other = tmp_path / "another"
    other.mkdir()
    store = opened(other)
    store.load()
    for saves in ALL:
        store.commit(saves, bits_of)
    store.close()
    shutil.copy(other / log.name, log)
    assert "not the frame log of this store" in refused(directory)


def test_frames_made_with_another_node_key_are_not_taken(directory: Path, log: Path, tmp_path: Path) -> None:
    other = tmp_path / "another"
    other.mkdir()
    store = SqliteStore(other / "node.db", NodeKey(NODE_KEY[::-1]), "alice", [Mark])
    store.load()
    for saves in ALL:
        store.commit(saves, bits_of)
    store.close()
    content, strange = log.read_bytes(), (other / log.name).read_bytes()
    log.write_bytes(content[:HEAD_BYTES] + strange[HEAD_BYTES:])
    assert held(directory) == expected(FIRST)


def test_a_lost_log_is_noticed(directory: Path, log: Path) -> None:
    log.unlink()
    assert "node.db.log is missing: put it back" in refused(directory)


@pytest.mark.parametrize("kept", [0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 100, -1])
def test_a_log_that_was_cut_is_noticed(directory: Path, log: Path, kept: int) -> None:
    content = log.read_bytes()
    log.write_bytes(content[:kept])
    assert "node.db.log" in refused(directory)
    log.write_bytes(content)
    assert held(directory) == expected(*ALL)


def test_the_log_of_a_first_start_that_was_broken_off_is_begun_anew(directory: Path) -> None:
    (directory / "node.db.log").write_bytes(b"half a head")
    store = opened(directory)
    store.load()
    for saves in STEPS:
        store.commit(saves, bits_of)
    store.close()
    assert held(directory) == after(len(STEPS))
