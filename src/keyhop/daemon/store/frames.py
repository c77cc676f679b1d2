"""The frame log: small commits as frames in a preallocated file beside the database, until they are folded into it.

Head (4 KiB): magic and store id. Then frames, one a commit: magic, length of the payload, journal number, chain;
payload, filled up with zeros to whole sectors and how many they are; tag over all of it. A fold makes the database
name the newest journal number in it and begins a new chain; only then does the log start again at its beginning, so
what is left from before is void by its number.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

import msgspec

from keyhop.core.node.store import Damaged, StoreError
from keyhop.daemon.store.sealing import Marker, sync_directory

MAGIC = b"keyhop frames 2\n"
HEAD_BYTES = 4096
FRAME_MAGIC = b"\xf7frame\r\n"
CHAIN_BYTES = 16

FIRST_BYTES = 256 * 1024
LIMIT_BYTES = 16 * 1024 * 1024
"""The file doubles up to this size each time it is full: a fold then takes in what about 60,000 fetches left."""

SECTOR_BYTES = 512
"""Frames are so many of these: a write of whole sectors can go to the disk past the page cache."""
DIRECT_LIMIT_BYTES = 64 * 1024

_FRAME = struct.Struct(f">8sIQ{CHAIN_BYTES}s")
_ZEROS = struct.Struct(">H")
_TAG_BYTES = 16


class Frame(msgspec.Struct, array_like=True, gc=False):
    """What one commit leaves, as the database will take it."""

    used: bytes
    """Entries of the used log."""
    rows: list[tuple[str, str, bytes]]
    """Type, key and value of rows that are put."""
    first: int
    """Number of the first audit entry."""
    entries: list[bytes]


class Written(NamedTuple):
    """An authentic frame as it stands in the file."""

    journal: int
    chain: bytes
    payload: bytes
    end: int


_decoder = msgspec.msgpack.Decoder(Frame)


class FrameLog:
    """Written by the thread that commits. Zeros are written ahead, so that a commit does not change the file's size."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file; then comes `begin` or `resume`. Whoever opens it holds the lock of the store."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._direct: int | None = None
        """The same file, written past the page cache, which costs half of the processor time; not every disk has it."""
        self._buffer = mmap.mmap(-1, DIRECT_LIMIT_BYTES)
        """At the beginning of a page, as such writes want it."""
        self._marker: Marker | None = None
        self._at = HEAD_BYTES
        self._full = False
        self.size_bytes = 0
        self.chain = bytes(CHAIN_BYTES)
        """Of the frames since the last fold. The database names it, and takes no log of another time for its own."""

    def __repr__(self) -> str:
        return f"FrameLog({str(self._path)!r}, {self._at - HEAD_BYTES} bytes since the last fold)"

    @property
    def is_empty(self) -> bool:
        return self._at == HEAD_BYTES

    def begin(self, marker: Marker, store_id: bytes) -> None:
        """Makes the file that of a new store."""
        self._marker = marker
        self.chain = os.urandom(CHAIN_BYTES)
        os.ftruncate(self._descriptor, 0)
        self._write((MAGIC + store_id).ljust(HEAD_BYTES, b"\0"), 0)
        self.size_bytes = HEAD_BYTES
        self._grow(FIRST_BYTES)
        sync_directory(self._path.parent)
        self._open_direct()

    def resume(self, marker: Marker, store_id: bytes, chain: bytes, size_bytes: int) -> None:
        """Goes on with a log whose chain and size the database names; raises Damaged if this is not it."""
        self._marker, self.chain, self.size_bytes = marker, chain, size_bytes
        head = os.pread(self._descriptor, HEAD_BYTES, 0)
        if head != (MAGIC + store_id).ljust(HEAD_BYTES, b"\0"):
            raise Damaged(f"{self._path} is not the frame log of this store: both files belong together")
        size = os.fstat(self._descriptor).st_size
        if size < size_bytes:
            raise Damaged(f"{self._path} has {size} bytes: its database knows {size_bytes}, so its end was cut off")
        self._open_direct()

    def read(self, folded: int) -> list[Frame]:
        """The frames after journal number `folded`; raises Damaged.

        The last one may be torn: then it was never acknowledged, and is dropped. A broken one that is followed by a
        whole one is another matter, because a frame is begun only when the one before it is durable.
        """
        content = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        found: list[Frame] = []
        at, journal = HEAD_BYTES, folded
        while (written := self._frame(content, at)) is not None and written.journal > folded:
            if written.journal != journal + 1 or written.chain != self.chain:
                raise Damaged(
                    f"{self._path} and its database are of different times: commit {written.journal} comes after "
                    f"{journal}"
                )
            (zeros,) = _ZEROS.unpack_from(written.payload, len(written.payload) - _ZEROS.size)
            found.append(_decoder.decode(written.payload[: -zeros - _ZEROS.size]))
            at, journal = written.end, written.journal
        self._check_rest(content, at, journal)
        self._at = at
        return found

    def encode(self, journal: int, frame: Frame) -> bytes:
        payload = msgspec.msgpack.encode(frame)
        zeros = -(_FRAME.size + len(payload) + _ZEROS.size + _TAG_BYTES) % SECTOR_BYTES
        payload += bytes(zeros) + _ZEROS.pack(zeros)
        content = _FRAME.pack(FRAME_MAGIC, len(payload), journal, self.chain) + payload
        return content + self._tag(content)

    def has_room(self, frame: bytes) -> bool:
        """Whether this frame can be appended before the next fold."""
        if self._at + len(frame) <= self.size_bytes:
            return True
        self._full = True
        return False

    def append(self, frame: bytes) -> None:
        """Durable when it returns."""
        # Written and synced in one call: between two the thread would have to wait for the interpreter once more.
        if self._direct is None or len(frame) > DIRECT_LIMIT_BYTES:
            written = os.pwritev(self._descriptor, [frame], self._at, os.RWF_DSYNC)
        else:
            self._buffer[: len(frame)] = frame
            with memoryview(self._buffer)[: len(frame)] as sectors:
                written = os.pwritev(self._direct, [sectors], self._at, os.RWF_DSYNC)
        self._check(written, len(frame))
        self._at += len(frame)

    def prepare_restart(self) -> None:
        """Before the commit that folds: it will name a new chain, and the size that the log has from then on."""
        if self._full and self.size_bytes < LIMIT_BYTES:
            self._grow(min(2 * self.size_bytes, LIMIT_BYTES))
        if not self.is_empty:
            self.chain = os.urandom(CHAIN_BYTES)

    def restart(self) -> None:
        """After the commit that folded: what is in the file is void."""
        self._at, self._full = HEAD_BYTES, False

    def close(self) -> None:
        os.close(self._descriptor)
        if self._direct is not None:
            os.close(self._direct)

    def _open_direct(self) -> None:
        """Tried by reading: some file systems refuse, some disks have larger sectors."""
        direct = None
        try:
            direct = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECT)
            with memoryview(self._buffer)[:SECTOR_BYTES] as sector:
                os.preadv(direct, [sector], SECTOR_BYTES)
        except OSError:
            if direct is not None:
                os.close(direct)
            return
        self._direct = direct

    def _frame(self, content: bytes, at: int) -> Written | None:
        """The frame that stands here, if it is one of ours and whole."""
        if at + _FRAME.size > len(content):
            return None
        magic, length, journal, chain = _FRAME.unpack_from(content, at)
        payload_at = at + _FRAME.size
        end = payload_at + length
        tag = content[end : end + _TAG_BYTES]
        if magic != FRAME_MAGIC or len(tag) < _TAG_BYTES or self._tag(content[at:end]) != tag:
            return None
        return Written(journal, chain, content[payload_at:end], end + _TAG_BYTES)

    def _check_rest(self, content: bytes, at: int, journal: int) -> None:
        """Nothing newer may come after the end, wherever it stands."""
        while (at := content.find(FRAME_MAGIC, at)) >= 0:
            written = self._frame(content, at)
            if written is not None and written.journal > journal:
                raise Damaged(f"{self._path} is damaged: commit {written.journal} is there and {journal + 1} is not")
            at += 1

    def _tag(self, content: bytes) -> bytes:
        assert self._marker is not None, "`begin` or `resume` comes first"
        return self._marker.frame(content)

    def _grow(self, size_bytes: int) -> None:
        self._write(bytes(size_bytes - self.size_bytes), self.size_bytes)
        os.fsync(self._descriptor)
        self.size_bytes = size_bytes

    def _write(self, content: bytes, offset: int) -> None:
        self._check(os.pwrite(self._descriptor, content, offset), len(content))

    def _check(self, written: int, wanted: int) -> None:
        if written != wanted:
            raise StoreError(f"{self._path} took {written} of {wanted} bytes: the disk is full")
