"""The audit log: JSON lines in a file, each carrying the hash of the one before it.

A line tells names, numbers and results, never a key bit. Nothing is supplied while the log cannot be written.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from keyhop.core.node.store import Outboxed
from keyhop.daemon.audit_chain import GENESIS, TORN, AuditError, follows, last_commit, last_line
from keyhop.daemon.store.sealing import sync_directory

__all__ = ["AuditError", "AuditLog", "Delivery"]

ROTATE_BYTES = 64 * 1024 * 1024
SYNC_PERIOD_S = 0.5
"""Half of what is promised (on the disk within 1 s), so that a slow disk keeps the promise too."""

KEYS_PER_LINE = 256
"""Deliveries of one moment to one application share a line, up to about so many keys (one request is not divided)."""

SEQ_DIGITS = 12
"""In the names of rotated files, so that they sort by age."""

RESERVED = frozenset({"v", "seq", "ts", "prev", "commit"})

ROTATED = "audit.rotated"
RESUMED = "audit.resumed"


class Delivery:
    """The part of a delivery's line that stays the same for two applications and a size, made once."""

    __slots__ = ("after", "around", "before")

    def __init__(
        self, *, actor: Mapping[str, Any], interface: str, role: str, peer: str, size_bits: int, path: Sequence[str]
    ) -> None:
        same = {"actor": dict(actor), "action": "key.deliver", "interface": interface, "role": role, "peer": peer}
        self.before = b"," + orjson.dumps(same)[1:-1] + b',"key_ids":["'
        self.after = b'"],' + orjson.dumps({"size": size_bits, "path": list(path), "result": "ok"})[1:-1]
        self.around = (b"{" + self.before[1:], self.after + b"}")
        """What stands before and after the key IDs in `entry`."""

    def entry(self, key_ids: Iterable[str]) -> bytes:
        """As a JSON object, for a commit; the ids hold nothing that JSON would escape."""
        before, after = self.around
        return before + '","'.join(key_ids).encode() + after


class AuditLog:
    """Appends to one file. All methods but `sync` belong to the thread of the event loop.

    Order for an answer: `delivered` or `record`, `flush`, then the answer. What `take` was given is written by the next
    `flush` too; it is durable already, in the store's outbox, and stays there until `sync` names its number.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync: bool = False,
        rotate_bytes: int = ROTATE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Goes on where the file ends; `sync` makes every flush durable. Raises AuditError."""
        self._path = path
        self._sync_each = sync
        self._rotate_bytes = rotate_bytes
        self._clock = clock
        self._second = -1
        self._second_text = b""
        self._seq = self._flushed_seq = 0
        self._previous = self._flushed_head = GENESIS
        self._taken_commit = self._flushed_commit = 0
        self._flushed_bytes = 0
        self._lines: list[bytes] = []
        self._owed: list[Outboxed] = []
        self._lock = threading.Lock()
        self._retired: list[int] = []
        self._renamed = False
        self._dirty = False
        self.failure = ""
        """Why nothing can be recorded; empty when all is well."""
        self._final = False
        try:
            self._descriptor = _open(path, 0)
            self._continue()
            self._renamed = True
            self.sync()
        except OSError as error:
            raise AuditError(f"audit file {path} cannot be opened: {error.strerror}") from error

    def __repr__(self) -> str:
        return f"AuditLog({str(self._path)!r}, seq {self._seq})"

    @property
    def healthy(self) -> bool:
        return not self.failure

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last line in the file: what is told to neighbours."""
        return self._flushed_seq, self._flushed_head

    def delivered(self, delivery: Delivery, key_ids: Iterable[str]) -> None:
        """One line for keys that go out together; the ids hold nothing that JSON would escape. Raises AuditError."""
        self._append(delivery.before + '","'.join(key_ids).encode() + delivery.after)

    def record(self, entry: Mapping[str, Any]) -> None:
        """One line that says what the entry says. Raises AuditError when the log is not healthy."""
        self._append(_body(entry))

    def take(self, entries: Iterable[Outboxed]) -> None:
        """Entries that a commit made durable. Never fails: what cannot be written now is written later."""
        self._owed += [outboxed for outboxed in entries if outboxed.number > self._taken_commit]
        if self._owed:
            self._taken_commit = self._owed[-1].number

    def flush(self) -> None:
        """Hands all lines to the operating system, in one write. Raises AuditError, and then none of them is there."""
        if self.failure:
            self._lines.clear()
            raise AuditError(self.failure)
        if self._owed:
            self._append_owed()
        if not self._lines:
            return
        try:
            self._make_room(sum(map(len, self._lines)))
            lines = b"".join(self._lines)
            if os.write(self._descriptor, lines) != len(lines):
                raise OSError(None, "the disk is full")
        except OSError as error:
            self._take_back()
            raise self._fail(f"audit file {self._path} cannot be written: {error.strerror}") from error
        self._lines.clear()
        self._flushed_bytes += len(lines)
        self._flushed_seq, self._flushed_head = self._seq, self._previous
        if self._owed:
            self._flushed_commit = self._owed[-1].number
            self._owed.clear()
        self._dirty = True
        if self._sync_each:
            self.sync()

    def sync(self) -> int:
        """Makes durable what was flushed; gives the highest commit number that is. May run in another thread.

        Raises AuditError, after which the log stays unhealthy: what the file holds is then unknown (a failed fsync
        leaves the page cache unknowable).
        """
        with self._lock:
            number, dirty, self._dirty = self._flushed_commit, self._dirty, False
            retired, self._retired = self._retired, []
            renamed, self._renamed = self._renamed, False
            try:
                for descriptor in retired:
                    os.fdatasync(descriptor)
                    os.close(descriptor)
                if dirty:
                    os.fdatasync(self._descriptor)
                if renamed:
                    sync_directory(self._path.parent)
            except OSError as error:
                self._final = True
                raise self._fail(f"audit file {self._path} cannot be synced: {error.strerror}") from error
        return number

    async def keep_synced(self, written: Callable[[int], None]) -> None:
        """Runs until cancelled: syncs in time, tells the store what it may let go, tries again after a full disk."""
        while True:
            await asyncio.sleep(SYNC_PERIOD_S)
            try:
                if self.failure:
                    self.resume()
                written(await asyncio.to_thread(self.sync))
            except AuditError:
                # `failure` says why; supply and readiness look at it.
                continue

    def resume(self) -> None:
        """Tries to write again after a failure; raises AuditError if that fails, or can never be trusted."""
        if self._final:
            raise AuditError(self.failure)
        reason, self.failure = self.failure, ""
        self.record({"action": RESUMED, "reason": reason})
        self.flush()

    def close(self) -> None:
        if not self.failure:
            self.flush()
            self.sync()
            self.failure = f"audit file {self._path} is closed"
            self._final = True
        os.close(self._descriptor)

    # The chain.

    def _append(self, body: bytes) -> None:
        if self.failure:
            raise AuditError(self.failure)
        self._seq += 1
        line = b'{"v":1,"seq":%d,"ts":"%b"%b,"prev":"%b"}' % (self._seq, self._stamp(), body, self._previous.encode())
        self._previous = sha256(line).hexdigest()
        self._lines.append(line + b"\n")

    def _append_owed(self) -> None:
        """As `_append` for each entry of a commit, which have one time."""
        stamp, seq, previous, lines = self._stamp(), self._seq, self._previous, self._lines
        for owed in self._owed:
            seq += 1
            line = b'{"v":1,"seq":%d,"ts":"%b","commit":%d,%b,"prev":"%b"}' % (
                seq,
                stamp,
                owed.number,
                owed.entry[1:-1],
                previous.encode(),
            )
            previous = sha256(line).hexdigest()
            lines.append(line + b"\n")
        self._seq, self._previous = seq, previous

    def _stamp(self) -> bytes:
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b"%b.%03dZ" % (self._second_text, (now - second) * 1000)

    def _take_back(self) -> None:
        """Half a batch may be in the file: it goes, and the chain with it."""
        self._lines.clear()
        self._seq, self._previous = self._flushed_seq, self._flushed_head
        try:
            os.ftruncate(self._descriptor, self._flushed_bytes)
        except OSError:
            # The next start closes the torn line.
            self._final = True

    def _fail(self, reason: str) -> AuditError:
        self.failure = reason
        return AuditError(reason)

    def _make_room(self, more_bytes: int) -> None:
        """Rotates when it is time: the full file is named after its last number, the chain goes on in a new one."""
        if self._flushed_bytes and self._flushed_bytes + more_bytes > self._rotate_bytes:
            beside = self._path.with_name(self._path.name + ".new")
            fresh = _open(beside, os.O_TRUNC)
            try:
                os.rename(self._path, _rotated(self._path, self._flushed_seq))
                os.rename(beside, self._path)
            except OSError:
                os.close(fresh)
                raise
            with self._lock:
                self._retired.append(self._descriptor)
                self._renamed = True
                self._descriptor = fresh
            self._flushed_bytes = 0
        if self._flushed_bytes or not self._flushed_seq:
            return
        # The first line of a later file says up to which commit the log has come, so that a start reads one file alone.
        unwritten, self._lines = self._lines, []
        self._seq, self._previous = self._flushed_seq, self._flushed_head
        self._append(b',"commit":%d' % self._flushed_commit + _body({"action": ROTATED}))
        for line in unwritten:
            self._append(_without_frame(line))

    # The start.

    def _continue(self) -> None:
        """Finds the end of the chain, closes a torn line, and sees which commits are in the log already."""
        content = _content(self._descriptor)
        earlier = sorted(self._path.parent.glob(f"{self._path.name}.{'[0-9]' * SEQ_DIGITS}"))
        last, end = last_line(content)
        if last is None and earlier:
            # The crash came between the renaming and the first line of the new file.
            last, _ = last_line(earlier[-1].read_bytes())
            if last is None:
                raise AuditError(f"audit file {earlier[-1]} has no whole line: the chain cannot go on")
            commits = last_commit(earlier[-1].read_bytes())
        else:
            commits = last_commit(content[:end])
        self._seq = self._flushed_seq = 0 if last is None else int(orjson.loads(last)["seq"])
        self._previous = self._flushed_head = GENESIS if last is None else sha256(last).hexdigest()
        self._taken_commit = self._flushed_commit = commits
        self._flushed_bytes = len(content)
        fragment = content[end:]
        if fragment:
            if not fragment.endswith(b"\n"):
                self._flushed_bytes += os.write(self._descriptor, b"\n")
                self._dirty = True
            fragment = fragment.removesuffix(b"\n")
            if not follows(fragment, self._seq, self._previous):
                self.record({"action": TORN, "bytes": len(fragment), "sha256": sha256(fragment).hexdigest()})
            else:
                # Only the line's end was lost.
                self._seq = self._flushed_seq = self._seq + 1
                self._previous = self._flushed_head = sha256(fragment).hexdigest()
                self._taken_commit = self._flushed_commit = max(commits, last_commit(fragment + b"\n"))
            self.flush()


def _open(path: Path, flags: int) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o640)


def _rotated(path: Path, seq: int) -> Path:
    return path.with_name(f"{path.name}.{seq:0{SEQ_DIGITS}d}")


def _body(entry: Mapping[str, Any]) -> bytes:
    taken = RESERVED & entry.keys()
    if taken:
        raise ValueError(f"audit entry with {', '.join(sorted(taken))}: these names are the log's own")
    return b"," + orjson.dumps(entry)[1:-1] if entry else b""


def _without_frame(line: bytes) -> bytes:
    """What `_append` was given for this line."""
    return line[line.index(b'Z"') + 2 : line.rindex(b',"prev":"')]


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    parts = []
    at = 0
    while at < size and (part := os.pread(descriptor, size - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
