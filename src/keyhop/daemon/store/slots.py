"""The slot file: wrapped data keys in fixed places that are overwritten when what they open is dropped.

Head (4 KiB): magic, store id and the check of the node key; at byte 256 whether a database goes with it; at byte 512
and 1024 the wrapped intermediate keys of even and odd generations. Then slots of 80 bytes: one cell of 40 for each of
the two.

An intermediate key is replaced daily. Its successor is written beside it, then every live data key is wrapped anew in
the other cell of its slot, then the old intermediate key is overwritten. A crash at any point leaves each data key in
at least one cell whose intermediate key is there.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

from keyhop.core.node.store import Damaged, StoreError, WrongNodeKey
from keyhop.crypto import keywrap
from keyhop.crypto.keywrap import NotAuthentic
from keyhop.daemon.store.sealing import CHECK_BYTES, NodeKey, sync_directory

MAGIC = b"keyhop slots 1\r\n"
HEAD_BYTES = 4096
BOUND_OFFSET = 256
BOUND = b"database exists\n"
ENTRY_OFFSETS = (512, 1024)
"""Even and odd generations lie in sectors of their own: writing one cannot tear the other."""

CELL_BYTES = keywrap.KEY_BYTES + keywrap.WRAP_OVERHEAD_BYTES
SLOT_BYTES = 2 * CELL_BYTES

FIRST_SLOTS = 1024
GROWTH_LIMIT_SLOTS = 65_536
"""The file doubles until it grows by this many slots (5 MiB) at once."""

ROTATION_S = 86_400.0
REWRAPS_PER_STEP = 256
"""Wrapping anew is spread over commits: this many take about 2 ms."""

_ENTRY = struct.Struct(">32sQd16s")
_ENTRY_BYTES = _ENTRY.size + keywrap.WRAP_OVERHEAD_BYTES
_FREE = 0


class SlotFile:
    """Opened by one process, which holds a lock on it; one thread writes, others may ask for data keys."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file and locks it; then comes `begin` or `resume`."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise StoreError(
                f"the store of {path} is in use by another process: one process owns a store, so stop that one first"
            ) from None
        self._lock = threading.Lock()
        self._store_id = b""
        self._wrapping_key = b""
        self._keys: dict[int, bytes] = {}
        self._generation = 0
        self._made_at_s = 0.0
        self._live = bytearray()
        """Per slot: free, or 1 + the parity of the generation that wraps its data key."""
        self._free_from = 0
        self._rewrap_from = 0
        self._dirty = False

    def __repr__(self) -> str:
        return f"SlotFile({str(self._path)!r}, {len(self._live)} slots)"

    @property
    def generation(self) -> int:
        """Of the newest intermediate key."""
        return self._generation

    def begin(self, node_key: NodeKey, store_id: bytes, now_s: float) -> None:
        """Makes the file that of a new store; raises Damaged if it belongs to one whose database is gone."""
        self.refuse_without_database()
        self._bind(node_key, store_id)
        os.ftruncate(self._descriptor, 0)
        self._write(MAGIC + store_id + node_key.check(store_id), 0)
        self._live = bytearray()
        self._grow()
        self._new_generation(now_s)
        os.fsync(self._descriptor)
        sync_directory(self._path.parent)
        self._dirty = False

    def refuse_without_database(self) -> None:
        """Raises Damaged if there was a database beside this file."""
        if self._read(len(BOUND), BOUND_OFFSET) == BOUND:
            raise Damaged(
                f"{self._path} belongs to a database that is gone or empty: put the database back, or remove both "
                f"files to start a new store"
            )

    def bind_to_database(self) -> None:
        """The database is durable: from now on neither file goes without the other."""
        if self._read(len(BOUND), BOUND_OFFSET) != BOUND:
            self._write(BOUND, BOUND_OFFSET)
            self.sync()

    def resume(self, node_key: NodeKey, store_id: bytes, oldest_generation: int) -> None:
        """Reads the intermediate keys; raises WrongNodeKey, or Damaged when this is not the database's slot file."""
        self._bind(node_key, store_id)
        head = os.pread(self._descriptor, HEAD_BYTES, 0)
        named = head[len(MAGIC) : len(MAGIC) + len(store_id)]
        check = head[len(MAGIC) + len(store_id) :][:CHECK_BYTES]
        if len(head) < HEAD_BYTES or not head.startswith(MAGIC) or named != store_id:
            raise Damaged(f"{self._path} is not the slot file of this store: both files belong together")
        if check != node_key.check(store_id):
            raise WrongNodeKey(
                f"the node key does not open {self._path}: start with the node key this store was made with"
            )
        found = [entry for entry in map(self._entry, (0, 1), (head, head)) if entry is not None]
        if not found:
            raise Damaged(f"{self._path} holds no intermediate key that opens: the head of the file is damaged")
        for generation, made_at_s, key in found:
            self._keys[generation % 2] = key
            if generation > self._generation:
                self._generation, self._made_at_s = generation, made_at_s
        if self._generation < oldest_generation:
            raise Damaged(
                f"{self._path} is older than the database beside it (generation {self._generation} of its key, the "
                f"database knows {oldest_generation}): both files belong together"
            )

    def keep_only(self, live: Iterable[int]) -> None:
        """After a start: overwrites slots that nothing refers to; raises Damaged if one that is live does not open."""
        slots = (os.fstat(self._descriptor).st_size - HEAD_BYTES) // SLOT_BYTES
        self._live = bytearray(slots)
        content = self._read(slots * SLOT_BYTES, HEAD_BYTES)
        newest = self._generation % 2
        for slot in live:
            for parity in (newest, 1 - newest):
                start = slot * SLOT_BYTES + parity * CELL_BYTES
                if parity in self._keys and self._opens(parity, content[start : start + CELL_BYTES]):
                    self._live[slot] = 1 + parity
                    break
            else:
                raise Damaged(f"slot {slot} of {self._path} does not open: it is not the one its database goes with")
        nothing = bytes(SLOT_BYTES)
        at = -1
        while (at := self._live.find(_FREE, at + 1)) >= 0:
            if content[at * SLOT_BYTES : (at + 1) * SLOT_BYTES] != nothing:
                self._write(nothing, HEAD_BYTES + at * SLOT_BYTES)
        self.sync()
        self._free_from = self._rewrap_from = 0

    def assign(self, data_key: bytes) -> int:
        """Writes the wrapped data key into a free slot, which counts once `sync` has returned."""
        slot = self._live.find(_FREE, self._free_from)
        if slot < 0:
            slot = self._live.find(_FREE)
        if slot < 0:
            slot = len(self._live)
            self._grow()
        self._free_from = slot + 1
        parity = self._generation % 2
        self._write(keywrap.wrap(self._keys[parity], data_key), _cell(slot, parity))
        self._live[slot] = 1 + parity
        return slot

    def data_key(self, slot: int) -> bytes:
        """Raises NotAuthentic when the slot holds none."""
        with self._lock:
            parity = self._live[slot] - 1 if slot < len(self._live) else -1
            if parity < 0:
                raise NotAuthentic
            return keywrap.unwrap(self._keys[parity], self._read(CELL_BYTES, _cell(slot, parity)))

    def erase(self, slots: Iterable[int]) -> None:
        """Overwrites these slots and syncs: what they opened cannot be opened any more."""
        for slot in slots:
            self._live[slot] = _FREE
            self._write(bytes(SLOT_BYTES), HEAD_BYTES + slot * SLOT_BYTES)
        self.sync()

    def sync(self) -> None:
        if self._dirty:
            os.fdatasync(self._descriptor)
            self._dirty = False

    def rotation_due(self, now_s: float) -> bool:
        """Whether `rotate` would do anything: the intermediate key is old, or its replacement is under way."""
        # A clock that was set back would stop the rotation for as long.
        return len(self._keys) > 1 or not 0 <= now_s - self._made_at_s < ROTATION_S

    def rotate(self, now_s: float) -> None:
        """Takes one step of replacing the intermediate key, if it is due or under way."""
        if not self.rotation_due(now_s):
            return
        old = 1 - self._generation % 2
        if old not in self._keys:
            self._new_generation(now_s)
            self.sync()
            self._rewrap_from = 0
            old = 1 - old
        if self._rewrap(old):
            self.sync()
            self._write(bytes(_ENTRY_BYTES), ENTRY_OFFSETS[old])
            self.sync()
            with self._lock:
                del self._keys[old]

    def close(self) -> None:
        self._keys.clear()
        os.close(self._descriptor)

    def _bind(self, node_key: NodeKey, store_id: bytes) -> None:
        self._store_id = store_id
        self._wrapping_key = node_key.derive("intermediate", store_id)

    def _new_generation(self, now_s: float) -> None:
        generation = self._generation + 1
        key = os.urandom(keywrap.KEY_BYTES)
        entry = keywrap.wrap(self._wrapping_key, _ENTRY.pack(key, generation, now_s, self._store_id))
        self._write(entry, ENTRY_OFFSETS[generation % 2])
        self._keys[generation % 2] = key
        self._generation, self._made_at_s = generation, now_s

    def _entry(self, parity: int, head: bytes) -> tuple[int, float, bytes] | None:
        """The intermediate key of this parity; None if there is none or if it was being written during a crash."""
        offset = ENTRY_OFFSETS[parity]
        try:
            entry = keywrap.unwrap(self._wrapping_key, head[offset : offset + _ENTRY_BYTES])
        except NotAuthentic:
            return None
        key, generation, made_at_s, store_id = _ENTRY.unpack(entry)
        return (generation, made_at_s, key) if generation % 2 == parity and store_id == self._store_id else None

    def _rewrap(self, old: int) -> bool:
        """Wraps the next data keys anew; True once none is left under the old key."""
        for _ in range(REWRAPS_PER_STEP):
            slot = self._live.find(1 + old, self._rewrap_from)
            if slot < 0:
                return True
            data_key = keywrap.unwrap(self._keys[old], self._read(CELL_BYTES, _cell(slot, old)))
            self._write(keywrap.wrap(self._keys[1 - old], data_key), _cell(slot, 1 - old))
            with self._lock:
                self._live[slot] = 2 - old
            self._rewrap_from = slot + 1
        return False

    def _opens(self, parity: int, cell: bytes) -> bool:
        try:
            keywrap.unwrap(self._keys[parity], cell)
        except NotAuthentic:
            return False
        return True

    def _grow(self) -> None:
        """Writes zeros, so that a slot's place on the disk is settled before its first use."""
        more = min(max(len(self._live), FIRST_SLOTS), GROWTH_LIMIT_SLOTS)
        self._write(bytes(more * SLOT_BYTES), HEAD_BYTES + len(self._live) * SLOT_BYTES)
        self._live += bytes(more)

    def _write(self, content: bytes, offset: int) -> None:
        self._dirty = True
        written = os.pwrite(self._descriptor, content, offset)
        if written != len(content):
            raise StoreError(f"{self._path} took {written} of {len(content)} bytes: the disk is full")

    def _read(self, length: int, offset: int) -> bytes:
        return os.pread(self._descriptor, length, offset)


def _cell(slot: int, parity: int) -> int:
    return HEAD_BYTES + slot * SLOT_BYTES + parity * CELL_BYTES
