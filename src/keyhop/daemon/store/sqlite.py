"""The store of a node on disk: one SQLite file, and beside it the frame log and the keys to what it seals."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import msgspec

from keyhop.core.machine import Audit, Drop, DropSecret, ForgetUsed, KeepSecret, Put, Remove, Row, Save, Seal, Used
from keyhop.core.model import NodeId, Range, RunId
from keyhop.core.node.store import Damaged, Outboxed, Prepared, Snapshot, StoreError, WrongNodeKey
from keyhop.crypto.keywrap import NotAuthentic
from keyhop.crypto.onetime import Bits
from keyhop.daemon.store.failure import Guard
from keyhop.daemon.store.frames import Frame, FrameLog
from keyhop.daemon.store.outbox import Outbox
from keyhop.daemon.store.rows import RowTable
from keyhop.daemon.store.sealed import Sealed
from keyhop.daemon.store.sealing import SCHEMA_VERSION, SUM_BYTES, Marker, NodeKey
from keyhop.daemon.store.slots import SlotFile
from keyhop.daemon.store.used import UsedLog, packed

STORE_ID_BYTES = 16

UNKNOWN_RUN = -1
"""Names no run: what is asked of it is not there."""

PAGE_BYTES = 8192
"""Measured: blocks of 64 KiB take half the time they take with pages of 4 KiB, small commits no longer."""

CHECKPOINT_PAGES = 2048
"""The write-ahead log is copied into the database when it has 16 MiB."""

SCHEMA = """
CREATE TABLE identity (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), journal INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE rows (
  type TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, tag BLOB NOT NULL, PRIMARY KEY (type, key)
) WITHOUT ROWID;
CREATE TABLE runs (id INTEGER PRIMARY KEY, peer TEXT NOT NULL, number INTEGER NOT NULL, tag BLOB NOT NULL);
CREATE TABLE blocks (
  slot INTEGER PRIMARY KEY, run INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL, sealed BLOB NOT NULL
);
CREATE UNIQUE INDEX blocks_by_place ON blocks (run, start, length);
CREATE TABLE secrets (slot INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, sealed BLOB NOT NULL);
CREATE TABLE used_log (number INTEGER PRIMARY KEY, entries BLOB NOT NULL, tag BLOB NOT NULL);
CREATE TABLE outbox (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, entries BLOB NOT NULL, tag BLOB NOT NULL);
"""


class State(msgspec.Struct, array_like=True):
    """What authenticates the store as a whole; sealed anew by each commit together with its journal number."""

    sum: bytes
    """XOR of the shares of all that is stored."""
    generation: int
    """Of the intermediate key, as last seen: an older slot file is not ours."""
    numbered: int
    """Audit entries numbered so far."""
    chain: bytes
    """Of the frames that come after this commit."""
    log_bytes: int
    """Size of the frame log: a shorter one was cut."""


class SqliteStore:
    """Durable by SQLite's write-ahead log with `synchronous=FULL`: a commit that returned is on the disk.

    What fetches leave (used bytes, audit entries, rows) goes into the frame log instead, for a fifth of the work. The
    next commit of another kind, or the one that finds the log full, folds it into the database with its own saves.

    Committing belongs to one thread; reading may go on beside it, over a connection of its own. After any error the
    object refuses everything: what the disk holds is then unknown until the next start.
    """

    def __init__(
        self,
        path: Path,
        node_key: NodeKey,
        node: str,
        rows: Sequence[type[Row]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens or creates the store of this node. `clock` gives wall-clock seconds; only key rotation looks at it.

        Raises WrongNodeKey, Damaged, or StoreError when another process owns it or the disk refuses.
        """
        self._path = path
        self._node = node
        self._clock = clock
        self._types = rows
        self._guarded = Guard(path)
        self._loaded = False
        self._journal = 0
        self._runs: dict[RunId, int] = {}
        self._run_ids: dict[int, RunId] = {}
        self._files: list[sqlite3.Connection | FrameLog | SlotFile] = []
        with self._guarded("be opened"):
            self._check_complete()
            self._slots = SlotFile(path.with_name(path.name + ".slots"))
            self._files.append(self._slots)
            try:
                self._open(node_key)
            except BaseException:
                self._release()
                raise

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._path)!r})"

    @property
    def journal_number(self) -> int:
        """Commits so far."""
        return self._journal

    def load(self) -> Snapshot:
        with self._guarded("be read"):
            snapshot = self._load()
            if self._replay():
                snapshot = self._load()
            self._loaded = True
            return snapshot

    def commit(self, saves: Sequence[Save], bits: Callable[[Range], Bits]) -> None:
        self.prepare(saves, bits).commit()

    def prepare(self, saves: Sequence[Save], bits: Callable[[Range], Bits]) -> Prepared:
        with self._guarded("be written"):
            if not self._loaded:
                raise StoreError(f"{self._path} was not loaded: `load` comes before the first commit")
            self._journal += 1
            frame = self._framed(saves)
            if frame is not None:
                content = self._log.encode(self._journal, frame)
                if self._log.has_room(content):
                    return Prepared(partial(self._append, content, self._remember(frame)), brief=True)
            return Prepared(partial(self._commit, saves, bits), brief=False)

    def _append(self, content: bytes, fresh: list[Outboxed]) -> None:
        with self._guarded("be written"):
            self._log.append(content)
            self._outbox.committed(fresh)

    def _commit(self, saves: Sequence[Save], bits: Callable[[Range], Bits]) -> None:
        with self._guarded("be written"):
            entries: list[bytes] = []
            dropped: list[int] = []
            self._database.execute("BEGIN IMMEDIATE")
            self._rows.fold()
            for save in saves:
                match save:
                    case Used(range=range):
                        self._used.add(self._run_number(range.run), range)
                    case Audit(entry=entry):
                        entries.append(entry)
                    case Put(row=row):
                        self._rows.put(*self._rows.encoded(row))
                    case Remove(row=row):
                        self._rows.remove(row)
                    case ForgetUsed(range=range):
                        self._used.forget(self._run_number(range.run), range)
                    case Seal(block=block):
                        self._sealed.seal(self._run_number(block.run), block, bits(block))
                    case Drop(block=block):
                        dropped += self._sealed.drop(self._runs.get(block.run, UNKNOWN_RUN), block)
                    case KeepSecret(name=name, source=source):
                        dropped += self._sealed.drop_secret(name)
                        self._sealed.keep_secret(name, bits(source))
                    case DropSecret(name=name):
                        dropped += self._sealed.drop_secret(name)
                    case _:
                        assert_never(save)
            fresh = self._outbox.number(entries)
            self._finish()
            # The other way round on the way out: first nothing names the slot, then it is overwritten.
            if dropped:
                self._slots.erase(dropped)
            self._slots.rotate(self._clock())
            self._outbox.committed(fresh)

    def read(self, block: Range) -> bytearray:
        with self._guarded("be read"):
            return self._sealed.read(self._runs.get(block.run, UNKNOWN_RUN), block)

    def read_secret(self, name: str) -> bytearray:
        with self._guarded("be read"):
            return self._sealed.read_secret(name)

    def covering(self, run: RunId, position: int) -> Range | None:
        with self._guarded("be read"):
            found = self._sealed.covering(self._runs.get(run, UNKNOWN_RUN), position)
            return None if found is None else Range(run, *found)

    def outbox(self) -> list[Outboxed]:
        with self._guarded("be read"):
            return self._outbox.hand_out()

    def written(self, number: int) -> None:
        with self._guarded("be written"):
            self._outbox.written = max(self._outbox.written, number)

    def close(self) -> None:
        if not self._guarded.failure:
            self._guarded.failure = f"{self._path} is closed"
        self._release()

    def _release(self) -> None:
        # The slot file last: it holds the lock.
        while self._files:
            self._files.pop().close()

    # Opening.

    def _check_complete(self) -> None:
        """Before anything is made: a file that was lost must not be found in its place, new and empty.

        A start that was broken off has made the other files before there is anything in the database.
        """
        if not self._path.exists() or not self._path.stat().st_size:
            return
        for ending in (".slots", ".log"):
            beside = self._path.with_name(self._path.name + ending)
            if not beside.exists():
                raise Damaged(f"{beside} is missing: put it back; the three files of a store belong together")

    def _open(self, node_key: NodeKey) -> None:
        if not self._path.exists():
            self._slots.refuse_without_database()
        # SQLite would make the file with the umask's mode; its log takes the mode of the file.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        self._log = FrameLog(self._path.with_name(self._path.name + ".log"))
        self._files.append(self._log)
        self._database = self._connect()
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            "journal_mode = WAL",
            "synchronous = FULL",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        ):
            self._database.execute(f"PRAGMA {pragma}")
        self._reader = self._connect()
        identity = self._identity()
        if not identity:
            store_id = os.urandom(STORE_ID_BYTES)
            self._slots.begin(node_key, store_id, self._clock())
            self._begin(node_key, store_id)
            self._slots.bind_to_database()
            return
        if identity["schema"] != SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} has schema {identity['schema']}: this version reads schema {SCHEMA_VERSION} alone"
            )
        if identity["node"] != self._node:
            raise StoreError(f"{self._path} is the store of node {identity['node']}: must be that of {self._node}")
        store_id = identity["store"]
        if identity["check"] != node_key.check(store_id):
            raise WrongNodeKey(
                f"the node key does not open {self._path}: start with the node key this store was made with"
            )
        self._bind(node_key, store_id)
        state = self._state()
        self._slots.resume(node_key, store_id, state.generation)
        self._log.resume(self._marker, store_id, state.chain, state.log_bytes)
        self._slots.bind_to_database()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=64)
        self._files.append(connection)
        for pragma in ("trusted_schema = OFF", "temp_store = MEMORY", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _identity(self) -> dict[str, Any]:
        if not self._database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'identity'").fetchall():
            return {}
        found = dict(self._database.execute("SELECT name, value FROM identity").fetchall())
        if sorted(found) != ["check", "node", "schema", "store"]:
            raise Damaged(f"{self._path} does not say whose store it is")
        return found

    def _begin(self, node_key: NodeKey, store_id: bytes) -> None:
        self._bind(node_key, store_id)
        self._log.begin(self._marker, store_id)
        self._journal = 1
        self._database.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";"):
            self._database.execute(statement)
        identity = {
            "schema": SCHEMA_VERSION,
            "node": self._node,
            "store": store_id,
            "check": node_key.check(store_id),
        }
        self._database.executemany("INSERT INTO identity VALUES (?, ?)", identity.items())
        self._write_state()
        self._database.execute("COMMIT")

    def _bind(self, node_key: NodeKey, store_id: bytes) -> None:
        self._marker = Marker(node_key, store_id, self._node)
        self._rows = RowTable(self._database, self._marker, self._types)
        self._used = UsedLog(self._database, self._marker)
        self._outbox = Outbox(self._database, self._marker)
        self._sealed = Sealed(self._database, self._reader, self._marker, self._slots, self._node)

    # Loading.

    def _load(self) -> Snapshot:
        state = self._state()
        self._marker.sum = 0
        rows = list(self._rows.load())
        self._load_runs()
        blocks, secrets = self._sealed.load()
        used = self._used.load()
        self._outbox.load(state.numbered)
        if self._marker.sum != int.from_bytes(state.sum, "big"):
            raise Damaged(
                f"{self._path} is not as it was left: a row is missing, was added or is of another time, although "
                f"each one there is genuine"
            )
        self._slots.keep_only([block[0] for block in blocks] + [secret[0] for secret in secrets])
        return Snapshot(
            rows=rows,
            used=[Range(self._run(run), low, high - low) for run, extents in used.items() for low, high in extents],
            blocks=[Range(self._run(run), start, length) for _, run, start, length in blocks],
            secrets=[name for _, name in secrets],
        )

    def _replay(self) -> bool:
        """Folds what the log has beyond the database; True if there was anything."""
        frames = self._log.read(self._journal)
        if not frames:
            return False
        for frame in frames:
            if frame.first != self._outbox.numbered + 1:
                raise Damaged(f"{self._path}: audit entry {frame.first} follows {self._outbox.numbered} in its log")
            self._remember(frame)
        self._journal += len(frames)
        self._database.execute("BEGIN IMMEDIATE")
        self._rows.fold()
        self._finish()
        return True

    def _state(self) -> State:
        found = self._database.execute("SELECT journal, sealed FROM state").fetchall()
        try:
            ((self._journal, sealed),) = found
            return msgspec.msgpack.decode(self._marker.open_state(self._journal, sealed), type=State)
        except (NotAuthentic, ValueError, TypeError):
            raise Damaged(f"{self._path}: the state row is damaged") from None

    def _load_runs(self) -> None:
        for number, peer, run_number, tag in self._database.execute("SELECT id, peer, number, tag FROM runs"):
            self._marker.check(tag, "run", number, peer, run_number)
            self._know(RunId(NodeId(peer), run_number), number)

    # Saving.

    def _framed(self, saves: Sequence[Save]) -> Frame | None:
        """The frame that holds all of a commit; None where it needs the database."""
        used, rows, entries, runs = bytearray(), [], [], self._runs
        for save in saves:
            if isinstance(save, Used):
                number = runs.get(save.range.run)
                if number is None:
                    return None
                used += packed(number, save.range)
            elif isinstance(save, Audit):
                entries.append(save.entry)
            elif isinstance(save, Put):
                rows.append(self._rows.encoded(save.row))
            else:
                return None
        if not used or self._slots.rotation_due(self._clock()):
            return None
        return Frame(bytes(used), rows, self._outbox.numbered + 1, entries)

    def _remember(self, frame: Frame) -> list[Outboxed]:
        """What the next fold has to bring into the database."""
        self._used.extend(frame.used)
        self._rows.remember(frame.rows)
        return self._outbox.number(frame.entries)

    def _finish(self) -> None:
        """The end of each transaction, of which the frames since the last one are a part."""
        self._used.write()
        self._outbox.write()
        self._log.prepare_restart()
        self._write_state()
        # A row may name a slot only if the slot is there whatever happens; a slot without a row is wiped on start.
        self._slots.sync()
        self._database.execute("COMMIT")
        self._log.restart()

    def _write_state(self) -> None:
        state = State(
            self._marker.sum.to_bytes(SUM_BYTES, "big"),
            self._slots.generation,
            self._outbox.numbered,
            self._log.chain,
            self._log.size_bytes,
        )
        sealed = self._marker.seal_state(self._journal, msgspec.msgpack.encode(state))
        self._database.execute("REPLACE INTO state VALUES (1, ?, ?)", (self._journal, sealed))

    def _run_number(self, run: RunId) -> int:
        """Runs have short numbers of the store's own in its tables."""
        number = self._runs.get(run)
        if number is None:
            number = len(self._runs) + 1
            tag = self._marker.toggle("run", number, run.peer, run.number)
            self._database.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", (number, run.peer, run.number, tag))
            self._know(run, number)
        return number

    def _know(self, run: RunId, number: int) -> None:
        self._runs[run] = number
        self._run_ids[number] = run

    def _run(self, number: int) -> RunId:
        try:
            return self._run_ids[number]
        except KeyError:
            raise Damaged(f"run {number} is missing") from None
