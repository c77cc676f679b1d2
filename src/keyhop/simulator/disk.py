"""A pretend disk: commits that are lost or kept by a crash, and old copies that can be put back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from keyhop.core.machine import Audit, Drop, DropSecret, ForgetUsed, KeepSecret, Put, Remove, Row, Save, Seal, Used
from keyhop.core.model import Range, RunId
from keyhop.core.node.extents import Extents
from keyhop.core.node.store import Outboxed, Snapshot, StoreError


class Image:
    """What one moment of a disk holds. Values are immutable, so that a copy is cheap."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.blocks: dict[Range, bytes] = {}
        self.used: dict[RunId, tuple[tuple[int, int], ...]] = {}
        self.secrets: dict[str, bytes] = {}
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
        other.used = dict(self.used)
        other.secrets = dict(self.secrets)
        return other

    def apply(self, saves: Sequence[Save], bits: Callable[[Range], bytes]) -> None:
        for save in saves:
            match save:
                case Put(row=row):
                    self.rows[type(row).__name__, row.key] = row
                case Remove(row=row):
                    self.rows.pop((type(row).__name__, row.key), None)
                case Seal(block=block):
                    self.blocks[block] = bits(block)
                    self._index.pop(block.run, None)
                case Drop(block=block):
                    self.blocks.pop(block, None)
                    self._index.pop(block.run, None)
                case Used(range=range):
                    extents = Extents(self.used.get(range.run, ()))
                    extents.add(range.start, range.end)
                    self.used[range.run] = tuple(extents)
                case ForgetUsed(range=range):
                    extents = Extents(self.used.get(range.run, ()))
                    extents.remove(range.start, range.end)
                    self.used[range.run] = tuple(extents)
                case KeepSecret(name=name, source=source):
                    self.secrets[name] = bits(source)
                case DropSecret(name=name):
                    self.secrets.pop(name, None)
                case Audit():
                    pass


class PretendDisk:
    """A store whose `commit` is durable when it returns, unless `forgets` says that its fsync does nothing."""

    def __init__(self) -> None:
        self.image = Image()
        self.forgets = 0
        """Sabotage: how many of the last commits a crash takes back (a removed fsync)."""
        self._history: list[Image] = []
        self.broken = False

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
        image = self.image
        return Snapshot(
            rows=list(image.rows.values()),
            used=[Range(run, low, high - low) for run, pairs in image.used.items() for low, high in pairs],
            blocks=list(image.blocks),
            secrets=list(image.secrets),
        )

    def prepare(
        self, saves: Sequence[Save], bits: Callable[[Range], bytes | bytearray | memoryview]
    ) -> Callable[[], None]:
        return lambda: self.commit(saves, bits)

    def commit(self, saves: Sequence[Save], bits: Callable[[Range], bytes | bytearray | memoryview]) -> None:
        if self.broken:
            raise StoreError("the pretend disk is broken")
        if self.forgets:
            self._history.append(self.image.copy())
        self.image.apply(saves, lambda range: bytes(bits(range)))

    def read(self, block: Range) -> bytearray:
        try:
            return bytearray(self.image.blocks[block])
        except KeyError:
            raise StoreError(f"no sealed block {block}") from None

    def read_secret(self, name: str) -> bytearray:
        return bytearray(self.image.secrets[name])

    def covering(self, run: RunId, position: int) -> Range | None:
        index = self.image.index(run)
        found = bisect_right(index, (position + 1, 0)) - 1
        if found >= 0 and sum(index[found]) > position:
            return Range(run, *index[found])
        return None

    def outbox(self) -> list[Outboxed]:
        return []

    def written(self, number: int) -> None:
        pass

    def close(self) -> None:
        pass
