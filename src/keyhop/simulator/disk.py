"""A pretend disk: commits that are lost or kept by a crash, and old copies that can be put back."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from keyhop.core.machine import Audit, Drop, DropSecret, ForgetUsed, KeepSecret, Put, Remove, Row, Save, Seal, Used
from keyhop.core.model import TAG_KEY_BYTES, Range, RunId
from keyhop.core.node.extents import Extents
from keyhop.core.node.store import Outboxed, Prepared, Snapshot, StoreError


class Image:
    """What one moment of a disk holds."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.blocks: dict[Range, bytes] = {}
        self.used: dict[RunId, Extents] = {}
        self.secrets: dict[str, bytes] = {}
        self.outbox: list[Outboxed] = []
        self.numbered = 0
        self._index: dict[RunId, list[tuple[int, int]]] = {}

    def index(self, run: RunId) -> list[tuple[int, int]]:
        """(start, length) of this run's blocks in order."""
        if run not in self._index:
            self._index[run] = sorted((block.start, block.length) for block in self.blocks if block.run == run)
        return self._index[run]

    def copy(self) -> Image:
        other = Image()
        other.rows = dict(self.rows)
        other.blocks = dict(self.blocks)
        other.used = {run: Extents(used) for run, used in self.used.items()}
        other.secrets = dict(self.secrets)
        other.outbox = list(self.outbox)
        other.numbered = self.numbered
        return other

    def apply(self, saves: Sequence[Save], bits: Callable[[Range], bytes]) -> None:
        for save in saves:
            match save:
                case Put(row=row):
                    self.rows[type(row).__name__, row.key] = row
                case Remove(row=row):
                    self.rows.pop((type(row).__name__, row.key), None)
                case Seal(block=block):
                    # Looked at before the bits are taken: an index that was built once stays right by insertion.
                    index = self.index(block.run)
                    at = bisect_left(index, (block.end, 0))
                    if at and sum(index[at - 1]) > block.start:
                        raise StoreError(f"{block} overlaps the block {Range(block.run, *index[at - 1])}")
                    self.blocks[block] = _exactly(bits, block, block.length)
                    index.insert(at, (block.start, block.length))
                case Drop(block=block):
                    index = self.index(block.run)
                    if self.blocks.pop(block, None) is not None:
                        del index[bisect_left(index, (block.start, block.length))]
                case Used(range=range):
                    if range.run not in self.used:
                        self.used[range.run] = Extents()
                    self.used[range.run].add(range.start, range.end)
                case ForgetUsed(range=range):
                    if range.run in self.used:
                        self.used[range.run].remove(range.start, range.end)
                case KeepSecret(name=name, source=source):
                    self.secrets[name] = _exactly(bits, source, TAG_KEY_BYTES)
                case DropSecret(name=name):
                    self.secrets.pop(name, None)
                case Audit(entry=entry):
                    self.numbered += 1
                    self.outbox.append(Outboxed(self.numbered, entry))


def _exactly(bits: Callable[[Range], bytes], range: Range, length_bytes: int) -> bytes:
    taken = bits(range)
    if len(taken) != length_bytes or range.length != length_bytes:
        raise StoreError(f"{len(taken)} bytes for {range}: must be {length_bytes}")
    return taken


class PretendDisk:
    """A store whose `commit` is durable when it returns, unless `forgets` says that its fsync does nothing."""

    def __init__(self) -> None:
        self.image = Image()
        self.forgets = 0
        """Sabotage: how many of the last commits a crash takes back (a removed fsync)."""
        self._history: list[Image] = []
        self._handed_out = 0
        self._failure = ""

    def keep_copy(self) -> Image:
        return self.image.copy()

    def put_back(self, image: Image) -> None:
        self.image = image.copy()
        self._history.clear()

    def crash(self) -> None:
        if self.forgets and self._history:
            self.image = self._history[max(0, len(self._history) - self.forgets)]
        self._history.clear()

    def load(self) -> Snapshot:
        self._check()
        image = self.image
        self._handed_out = image.outbox[0].number - 1 if image.outbox else image.numbered
        return Snapshot(
            rows=list(image.rows.values()),
            used=[Range(run, low, high - low) for run, pairs in image.used.items() for low, high in pairs],
            blocks=list(image.blocks),
            secrets=list(image.secrets),
        )

    def prepare(self, saves: Sequence[Save], bits: Callable[[Range], bytes | bytearray | memoryview]) -> Prepared:
        return Prepared(lambda: self.commit(saves, bits), brief=False)

    def commit(self, saves: Sequence[Save], bits: Callable[[Range], bytes | bytearray | memoryview]) -> None:
        self._check()
        if self.forgets:
            self._history.append(self.image.copy())
        # Until the last save went well nobody may look: half a commit is as bad as none.
        self._failure = "a commit was broken off"
        self.image.apply(saves, lambda range: bytes(bits(range)))
        self._failure = ""

    def read(self, block: Range) -> bytearray:
        self._check()
        try:
            return bytearray(self.image.blocks[block])
        except KeyError:
            raise self._fail(f"no sealed block {block}") from None

    def read_secret(self, name: str) -> bytearray:
        self._check()
        try:
            return bytearray(self.image.secrets[name])
        except KeyError:
            raise self._fail(f"no secret {name}") from None

    def covering(self, run: RunId, position: int) -> Range | None:
        self._check()
        index = self.image.index(run)
        found = bisect_right(index, (position + 1, 0)) - 1
        if found >= 0 and sum(index[found]) > position:
            return Range(run, *index[found])
        return None

    def outbox(self) -> list[Outboxed]:
        self._check()
        fresh = [outboxed for outboxed in self.image.outbox if outboxed.number > self._handed_out]
        if fresh:
            self._handed_out = fresh[-1].number
        return fresh

    def written(self, number: int) -> None:
        self._check()
        self.image.outbox = [outboxed for outboxed in self.image.outbox if outboxed.number > number]

    def close(self) -> None:
        self._failure = self._failure or "the store is closed"

    def _check(self) -> None:
        if self._failure:
            raise StoreError(self._failure)

    def _fail(self, reason: str) -> StoreError:
        self._failure = reason
        return StoreError(reason)
