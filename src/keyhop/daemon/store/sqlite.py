"""The store of a node on disk: one SQLite file, and beside it the slot file with the keys to what it seals."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import msgspec

from keyhop.core.machine import Audit, Drop, DropSecret, ForgetUsed, KeepSecret, Put, Remove, Row, Save, Seal, Used
from keyhop.core.model import TAG_KEY_BYTES, NodeId, Range, RunId
from keyhop.core.node.store import Damaged, Outboxed, Snapshot, StoreError, WrongNodeKey
from keyhop.crypto import keywrap
from keyhop.crypto.keywrap import NotAuthentic
from keyhop.crypto.onetime import Bits
from keyhop.daemon.store.sealing import SCHEMA_VERSION, SUM_BYTES, Marker, NodeKey, block_place, secret_place
from keyhop.daemon.store.slots import SlotFile
from keyhop.daemon.store.used import UsedLog

STORE_ID_BYTES = 16

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


class Unwritten(NamedTuple):
    """A row of the outbox that stays until the audit log has its entries."""

    last: int
    share: int


class SqliteStore:
    """Durable by SQLite's write-ahead log with `synchronous=FULL`: a commit that returned is on the disk.

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
        self._types = {_type_name(row): row for row in rows}
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_union(rows))
        self._failure = ""
        self._loaded = False
        self._journal = 0
        self._sum = 0
        self._numbered = 0
        self._runs: dict[RunId, int] = {}
        self._run_ids: dict[int, RunId] = {}
        self._fresh: deque[Outboxed] = deque()
        self._unwritten: deque[Unwritten] = deque()
        self._written = 0
        self._reading = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        with self._guarded("be opened"):
            self._slots = SlotFile(path.with_name(path.name + ".slots"))
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
            state = self._state()
            self._sum = 0
            rows = list(self._load_rows())
            self._load_runs()
            blocks, live = [], []
            for slot, run, start, length in self._database.execute("SELECT slot, run, start, length FROM blocks"):
                block = Range(self._run(run), start, length)
                self._add("block", slot, run, start, length)
                blocks.append(block)
                live.append(slot)
            secrets = []
            for slot, name in self._database.execute("SELECT slot, name FROM secrets"):
                self._add("secret", slot, name)
                secrets.append(name)
                live.append(slot)
            used, shares = self._used.load()
            self._sum ^= shares
            self._load_outbox()
            if self._sum != int.from_bytes(state.sum, "big"):
                raise Damaged(
                    f"{self._path} is not as it was left: a row is missing, was added or is of another time, although "
                    f"each one there is genuine"
                )
            self._numbered = state.numbered
            self._slots.keep_only(live)
            self._loaded = True
            return Snapshot(
                rows=rows,
                used=[Range(self._run(run), low, high - low) for run, extents in used.items() for low, high in extents],
                blocks=blocks,
                secrets=secrets,
            )

    def commit(self, saves: Sequence[Save], bits: Callable[[Range], Bits]) -> None:
        with self._guarded("be written"):
            if not self._loaded:
                raise StoreError(f"{self._path} was not loaded: `load` comes before the first commit")
            self._database.execute("BEGIN IMMEDIATE")
            entries: list[dict[str, Any]] = []
            dropped: list[int] = []
            for save in saves:
                match save:
                    case Used(range=range):
                        self._used.add(self._run_number(range.run), range)
                    case Audit(entry=entry):
                        entries.append(entry)
                    case Put(row=row):
                        self._put(row)
                    case Remove(row=row):
                        self._remove(_type_name(type(row)), row.key)
                    case ForgetUsed(range=range):
                        self._used.forget(self._run_number(range.run), range)
                    case Seal(block=block):
                        self._seal(block, bits(block))
                    case Drop(block=block):
                        dropped += self._drop(block)
                    case KeepSecret(name=name, source=source):
                        dropped += self._drop_secret(name)
                        self._keep_secret(name, bits(source))
                    case DropSecret(name=name):
                        dropped += self._drop_secret(name)
                    case _:
                        assert_never(save)
            self._sum ^= self._used.write()
            fresh = self._write_outbox(entries)
            self._write_state()
            # A row may name a slot only if the slot is there whatever happens; a slot without a row is wiped on start.
            self._slots.sync()
            self._database.execute("COMMIT")
            # The other way round on the way out: first nothing names the slot, then it is overwritten.
            if dropped:
                self._slots.erase(dropped)
            self._slots.rotate(self._clock())
            self._fresh.extend(fresh)

    def read(self, block: Range) -> bytearray:
        with self._guarded("be read"):
            found = self._ask(
                "SELECT slot, sealed FROM blocks WHERE run = ? AND start = ? AND length = ?",
                (self._runs.get(block.run, -1), block.start, block.length),
            )
            if not found:
                raise StoreError(f"no sealed block {block} in {self._path}")
            return self._open_sealed(found[0], block_place(self._node, block), f"block {block}")

    def read_secret(self, name: str) -> bytearray:
        with self._guarded("be read"):
            found = self._ask("SELECT slot, sealed FROM secrets WHERE name = ?", (name,))
            if not found:
                raise StoreError(f"no secret {name} in {self._path}")
            return self._open_sealed(found[0], secret_place(self._node, name), f"secret {name}")

    def covering(self, run: RunId, position: int) -> Range | None:
        with self._guarded("be read"):
            found = self._ask(
                "SELECT start, length FROM blocks WHERE run = ? AND start <= ? ORDER BY start DESC LIMIT 1",
                (self._runs.get(run, -1), position),
            )
            if found and position < sum(found[0]):
                return Range(run, *found[0])
            return None

    def outbox(self) -> list[Outboxed]:
        with self._guarded("be read"):
            return [self._fresh.popleft() for _ in range(len(self._fresh))]

    def written(self, number: int) -> None:
        with self._guarded("be written"):
            self._written = max(self._written, number)

    def close(self) -> None:
        if not self._failure:
            self._failure = f"{self._path} is closed"
        self._release()

    def _release(self) -> None:
        for connection in self._connections:
            connection.close()
        self._slots.close()

    # Opening.

    def _open(self, node_key: NodeKey) -> None:
        # SQLite would make the file with the umask's mode; its log takes the mode of the file.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
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
        self._slots.resume(node_key, store_id, self._state().generation)
        self._slots.bind_to_database()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=64)
        self._connections.append(connection)
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
        self._used = UsedLog(self._database, self._marker)

    # Loading.

    def _state(self) -> State:
        found = self._database.execute("SELECT journal, sealed FROM state").fetchall()
        try:
            ((self._journal, sealed),) = found
            return msgspec.msgpack.decode(self._marker.open_state(self._journal, sealed), type=State)
        except (NotAuthentic, ValueError, TypeError):
            raise Damaged(f"{self._path}: the state row is damaged") from None

    def _load_rows(self) -> Iterator[Row]:
        for type_name, key, value, tag in self._database.execute("SELECT type, key, value, tag FROM rows"):
            mark = self._marker.mark("row", type_name, key, value)
            if mark.tag != tag:
                raise Damaged(f"{self._path}: row {type_name} {key!r} is damaged")
            if type_name not in self._types:
                raise StoreError(f"{self._path}: row {type_name} {key!r} is of a type that this version does not know")
            self._sum ^= mark.share
            row: Row = self._decoder.decode(value)
            yield row

    def _load_runs(self) -> None:
        for number, peer, run_number, tag in self._database.execute("SELECT id, peer, number, tag FROM runs"):
            self._check("run", tag, number, peer, run_number)
            self._know(RunId(NodeId(peer), run_number), number)

    def _load_outbox(self) -> None:
        self._fresh.clear()
        self._unwritten.clear()
        rows = self._database.execute("SELECT first, last, entries, tag FROM outbox ORDER BY last").fetchall()
        for first, last, entries, tag in rows:
            self._unwritten.append(Unwritten(last, self._check("outbox", tag, first, last, entries)))
            self._fresh.extend(map(Outboxed, range(first, last + 1), msgspec.json.decode(entries)))

    def _check(self, table: str, tag: bytes, *fields: Any) -> int:
        mark = self._marker.mark(table, *fields)
        if mark.tag != tag:
            raise Damaged(f"{self._path}: {table} {fields[0]} is damaged")
        self._sum ^= mark.share
        return mark.share

    # Saving.

    def _add(self, table: str, *fields: Any) -> bytes:
        mark = self._marker.mark(table, *fields)
        self._sum ^= mark.share
        return mark.tag

    def _put(self, row: Row) -> None:
        type_name, key = _type_name(type(row)), row.key
        if type_name not in self._types:
            raise StoreError(f"row of type {type_name}: must be one of {', '.join(self._types)}")
        self._take_away(type_name, key)
        value = msgspec.msgpack.encode(row)
        tag = self._add("row", type_name, key, value)
        self._database.execute("REPLACE INTO rows VALUES (?, ?, ?, ?)", (type_name, key, value, tag))

    def _remove(self, type_name: str, key: str) -> None:
        if self._take_away(type_name, key):
            self._database.execute("DELETE FROM rows WHERE type = ? AND key = ?", (type_name, key))

    def _take_away(self, type_name: str, key: str) -> bool:
        """Takes the share of a row that is replaced or removed out of the sum; False if there is none."""
        found = self._database.execute(
            "SELECT value, tag FROM rows WHERE type = ? AND key = ?", (type_name, key)
        ).fetchall()
        for value, tag in found:
            self._check("row", tag, type_name, key, value)
        return bool(found)

    def _seal(self, block: Range, bits: Bits) -> None:
        if len(bits) != block.length:
            raise StoreError(f"{len(bits)} bytes for {block}: must be {block.length}")
        run = self._run_number(block.run)
        for start, length in self._database.execute(
            "SELECT start, length FROM blocks WHERE run = ? AND start < ? ORDER BY start DESC LIMIT 1", (run, block.end)
        ).fetchall():
            if start + length > block.start:
                raise StoreError(f"{block} overlaps the sealed block {Range(block.run, start, length)}")
        slot, sealed = self._sealed(bits, block_place(self._node, block))
        self._add("block", slot, run, block.start, block.length)
        self._database.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", (slot, run, block.start, block.length, sealed)
        )

    def _drop(self, block: Range) -> list[int]:
        run = self._runs.get(block.run)
        if run is None:
            return []
        found = self._database.execute(
            "DELETE FROM blocks WHERE run = ? AND start = ? AND length = ? RETURNING slot",
            (run, block.start, block.length),
        ).fetchall()
        for (slot,) in found:
            self._add("block", slot, run, block.start, block.length)
        return [slot for (slot,) in found]

    def _keep_secret(self, name: str, bits: Bits) -> None:
        if len(bits) != TAG_KEY_BYTES:
            raise StoreError(f"{len(bits)} bytes for the secret {name}: must be {TAG_KEY_BYTES}")
        slot, sealed = self._sealed(bits, secret_place(self._node, name))
        self._add("secret", slot, name)
        self._database.execute("INSERT INTO secrets VALUES (?, ?, ?)", (slot, name, sealed))

    def _drop_secret(self, name: str) -> list[int]:
        found = self._database.execute("DELETE FROM secrets WHERE name = ? RETURNING slot", (name,)).fetchall()
        for (slot,) in found:
            self._add("secret", slot, name)
        return [slot for (slot,) in found]

    def _sealed(self, bits: Bits, place: bytes) -> tuple[int, bytes]:
        data_key = os.urandom(keywrap.KEY_BYTES)
        return self._slots.assign(data_key), keywrap.seal(data_key, bits, place)

    def _write_outbox(self, entries: list[dict[str, Any]]) -> list[Outboxed]:
        if self._unwritten and self._unwritten[0].last <= self._written:
            self._database.execute("DELETE FROM outbox WHERE last <= ?", (self._written,))
            while self._unwritten and self._unwritten[0].last <= self._written:
                self._sum ^= self._unwritten.popleft().share
        if not entries:
            return []
        first, self._numbered = self._numbered + 1, self._numbered + len(entries)
        encoded = msgspec.json.encode(entries)
        mark = self._marker.mark("outbox", first, self._numbered, encoded)
        self._sum ^= mark.share
        self._database.execute("INSERT INTO outbox VALUES (?, ?, ?, ?)", (self._numbered, first, encoded, mark.tag))
        self._unwritten.append(Unwritten(self._numbered, mark.share))
        return [Outboxed(first + index, entry) for index, entry in enumerate(entries)]

    def _write_state(self) -> None:
        self._journal += 1
        state = State(self._sum.to_bytes(SUM_BYTES, "big"), self._slots.generation, self._numbered)
        sealed = self._marker.seal_state(self._journal, msgspec.msgpack.encode(state))
        self._database.execute("REPLACE INTO state VALUES (1, ?, ?)", (self._journal, sealed))

    def _run_number(self, run: RunId) -> int:
        """Runs have short numbers of the store's own in its tables."""
        number = self._runs.get(run)
        if number is None:
            number = len(self._runs) + 1
            tag = self._add("run", number, run.peer, run.number)
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
            raise Damaged(f"{self._path}: run {number} is missing") from None

    # Reading.

    def _ask(self, query: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._reading:
            return self._reader.execute(query, parameters).fetchall()

    def _open_sealed(self, found: tuple[Any, ...], place: bytes, what: str) -> bytearray:
        slot, sealed = found
        try:
            return keywrap.open_sealed(self._slots.data_key(slot), sealed, place)
        except NotAuthentic:
            raise Damaged(
                f"{self._path}: {what} does not open: it was changed, moved, or its data key is gone"
            ) from None

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Turns every way a disk can fail into StoreError, and lets nothing happen after one."""
        if self._failure:
            raise StoreError(self._failure)
        try:
            yield
        except StoreError as error:
            self._failure = str(error)
            raise
        except Exception as error:
            failure = self._explain(error, doing)
            self._failure = str(failure)
            raise failure from error
        except BaseException:
            self._failure = f"{self._path} was interrupted"
            raise

    def _explain(self, error: Exception, doing: str) -> StoreError:
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", None)
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                return Damaged(f"{self._path} is damaged: {error} ({name})")
            return StoreError(f"{self._path} cannot {doing}: {error} ({name})")
        if isinstance(error, OSError):
            return StoreError(f"{self._path} cannot {doing}: {error.strerror or error}")
        return StoreError(f"{self._path} cannot {doing}: {type(error).__name__}")


def _type_name(row: type[Row]) -> str:
    return str(row.__struct_config__.tag)


def _union(rows: Sequence[type[Row]]) -> Any:
    union: Any = rows[0]
    for row in rows[1:]:
        union = union | row
    return union
