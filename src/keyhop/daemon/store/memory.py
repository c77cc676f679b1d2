"""A store that lives as long as its object: for pools that must never touch a disk, and for pretend disks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import assert_never

from keyhop.core.machine import Audit, Drop, DropSecret, ForgetUsed, KeepSecret, Put, Remove, Row, Save, Seal, Used
from keyhop.core.model import TAG_KEY_BYTES, Range, RunId
from keyhop.core.node.extents import Extents
from keyhop.core.node.store import Outboxed, Prepared, Snapshot, StoreError
from keyhop.crypto.onetime import Bits


class MemoryStore:
    """As durable as this process. `load` may be called again: that is how a pretend node starts anew."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}
        self._blocks: dict[Range, bytearray] = {}
        self._starts: dict[RunId, list[tuple[int, int]]] = {}
        self._used: dict[RunId, Extents] = {}
        self._secrets: dict[str, bytearray] = {}
        self._outbox: list[Outboxed] = []
        self._handed_out = 0
        self._numbered = 0
        self._written = 0
        self._failure = ""

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._rows)} rows, {len(self._blocks)} blocks)"

    def load(self) -> Snapshot:
        self._check()
        self._handed_out = self._written
        return Snapshot(
            rows=list(self._rows.values()),
            used=[Range(run, low, high - low) for run, extents in self._used.items() for low, high in extents],
            blocks=list(self._blocks),
            secrets=list(self._secrets),
        )

    def commit(self, saves: Sequence[Save], bits: Callable[[Range], Bits]) -> None:
        self._check()
        # Until the last save went well nobody may look: half a commit is as bad as none.
        self._failure = "a commit was broken off"
        for save in saves:
            match save:
                case Put(row=row):
                    self._rows[type(row).__name__, row.key] = row
                case Remove(row=row):
                    self._rows.pop((type(row).__name__, row.key), None)
                case Seal(block=block):
                    self._seal(block, _exactly(bits, block, block.length))
                case Drop(block=block):
                    self._drop(block)
                case Used(range=range):
                    self._used.setdefault(range.run, Extents()).add(range.start, range.end)
                case ForgetUsed(range=range):
                    self._used.setdefault(range.run, Extents()).remove(range.start, range.end)
                case KeepSecret(name=name, source=source):
                    self._drop_secret(name)
                    self._secrets[name] = _exactly(bits, source, TAG_KEY_BYTES)
                case DropSecret(name=name):
                    self._drop_secret(name)
                case Audit(entry=entry):
                    self._numbered += 1
                    self._outbox.append(Outboxed(self._numbered, entry))
                case _:
                    assert_never(save)
        self._outbox = [outboxed for outboxed in self._outbox if outboxed.number > self._written]
        self._failure = ""

    def prepare(self, saves: Sequence[Save], bits: Callable[[Range], Bits]) -> Prepared:
        return Prepared(partial(self.commit, saves, bits), brief=False)

    def read(self, block: Range) -> bytearray:
        self._check()
        try:
            return bytearray(self._blocks[block])
        except KeyError:
            raise self._fail(f"no sealed block {block}") from None

    def read_secret(self, name: str) -> bytearray:
        self._check()
        try:
            return bytearray(self._secrets[name])
        except KeyError:
            raise self._fail(f"no secret {name}") from None

    def covering(self, run: RunId, position: int) -> Range | None:
        self._check()
        starts = self._starts.get(run, [])
        index = bisect_right(starts, (position + 1, 0)) - 1
        if index >= 0:
            start, length = starts[index]
            if position < start + length:
                return Range(run, start, length)
        return None

    def outbox(self) -> list[Outboxed]:
        self._check()
        fresh = [outboxed for outboxed in self._outbox if outboxed.number > self._handed_out]
        if fresh:
            self._handed_out = fresh[-1].number
        return fresh

    def written(self, number: int) -> None:
        self._check()
        self._written = max(self._written, number)

    def close(self) -> None:
        for buffer in (*self._blocks.values(), *self._secrets.values()):
            buffer[:] = bytes(len(buffer))
        self._failure = self._failure or "the store is closed"

    def _seal(self, block: Range, copy: bytearray) -> None:
        starts = self._starts.setdefault(block.run, [])
        index = bisect_left(starts, (block.end, 0))
        if index and sum(starts[index - 1]) > block.start:
            raise self._fail(f"{block} overlaps the sealed block {Range(block.run, *starts[index - 1])}")
        self._blocks[block] = copy
        starts.insert(index, (block.start, block.length))

    def _drop(self, block: Range) -> None:
        buffer = self._blocks.pop(block, None)
        if buffer is not None:
            buffer[:] = bytes(len(buffer))
            self._starts[block.run].remove((block.start, block.length))

    def _drop_secret(self, name: str) -> None:
        buffer = self._secrets.pop(name, None)
        if buffer is not None:
            buffer[:] = bytes(len(buffer))

    def _check(self) -> None:
        if self._failure:
            raise StoreError(self._failure)

    def _fail(self, reason: str) -> StoreError:
        self._failure = reason
        return StoreError(reason)


def _exactly(bits: Callable[[Range], Bits], range: Range, length_bytes: int) -> bytearray:
    copy = bytearray(bits(range))
    if len(copy) != length_bytes or range.length != length_bytes:
        raise StoreError(f"{len(copy)} bytes for {range}: must be {length_bytes}")
    return copy
