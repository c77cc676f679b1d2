"""A life of a store in a few commits, for tests that break it off: the steps, and a process that does them."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from keyhop.core.machine import Audit, Drop, DropSecret, ForgetUsed, KeepSecret, Put, Remove, Row, Save, Seal, Used
from keyhop.core.model import NodeId, Range, RunId
from keyhop.core.node.store import Outboxed, Snapshot, Store, StoreError
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.store.sealing import NodeKey
from keyhop.daemon.store.slots import ROTATION_S
from keyhop.daemon.store.sqlite import SqliteStore

RUN = RunId(NodeId("bob"), 0)
OTHER_RUN = RunId(NodeId("bob"), 1)
NODE_KEY = bytes(range(32))
LARGE = Range(RUN, 0, 65536)
SMALL = Range(RUN, 65536, 1024)
OTHER = Range(OTHER_RUN, 0, 1024)
LATE = Range(RUN, 66560, 4096)


class Mark(Row, frozen=True, gc=False, array_like=True, tag="mark"):
    name: str
    height: int

    @property
    def key(self) -> str:
        return self.name


STEPS: list[list[Save]] = [
    [Put(Mark("a", 1)), Put(Mark("b", 1)), Seal(LARGE), Seal(SMALL), Seal(OTHER)],
    [*(Used(Range(RUN, start, 32)) for start in range(0, 1280, 32)), Audit(b'{"n":1}'), Audit(b'{"n":2}')],
    [KeepSecret("bob/1", Range(RUN, 100, 32)), Put(Mark("a", 2))],
    [Put(Mark("leased", 65536)), Drop(SMALL)],
    [Used(Range(OTHER_RUN, 64, 32)), ForgetUsed(Range(RUN, 0, 640)), Audit(b'{"n":3}')],
    [Put(Mark("a", 3)), Seal(LATE)],
    [Remove(Mark("b", 0)), Drop(LARGE), DropSecret("bob/1")],
    [Put(Mark("a", 4)), Seal(SMALL)],
    # Three that the frame log takes, one that folds them, and one more that stays in it.
    [Used(Range(RUN, 2048, 32)), Put(Mark("a", 5)), Put(Mark("c", 1)), Audit(b'{"n":4}')],
    [Used(Range(RUN, 2080, 32)), Used(Range(OTHER_RUN, 96, 32)), Audit(b'{"n":5}'), Audit(b'{"n":6}')],
    [Put(Mark("a", 6)), Used(Range(RUN, 4096, 64))],
    [Remove(Mark("c", 0)), ForgetUsed(Range(RUN, 2048, 32)), Audit(b'{"n":7}')],
    [Used(Range(RUN, 2048, 16)), Put(Mark("a", 7)), Audit(b'{"n":8}')],
    [],
    [Used(Range(OTHER_RUN, 128, 32)), Audit(b'{"n":9}')],
]
ROTATION_AT_STEP = 5


def bits_of(range: Range) -> bytes:
    return hashlib.shake_128(repr(tuple(range.run)).encode()).digest(range.end)[range.start :]


def opened(directory: Path, day: float = 0) -> SqliteStore:
    return SqliteStore(directory / "node.db", NodeKey(NODE_KEY), "alice", [Mark], clock=lambda: day * ROTATION_S)


class Held:
    """All that a store holds, in a form that can be compared."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self.rows = sorted(map(repr, snapshot.rows))
        self.used = sorted(snapshot.used)
        self.blocks = {block: bytes(store.read(block)) for block in snapshot.blocks}
        self.secrets = {name: bytes(store.read_secret(name)) for name in snapshot.secrets}
        self.outbox: list[Outboxed] = store.outbox()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def after(steps: int) -> Held:
    """What is held after so many steps, says the store that has no disk."""
    store = MemoryStore()
    store.load()
    for saves in STEPS[:steps]:
        store.commit(saves, bits_of)
    return Held(store, store.load())


def say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


def goes_on(store: SqliteStore, number: int) -> bool:
    """Whether the store does anything after it refused something."""
    try:
        match number:
            case 0:
                store.commit(STEPS[-1], bits_of)
            case 1:
                store.read(LARGE)
            case _:
                store.load()
    except StoreError:
        return False
    return True


def main(directory: Path) -> None:
    """Tells each thing that is done as soon as it is done, and after an error tries once more."""
    day = 0.0
    store: SqliteStore | None = None
    try:
        store = SqliteStore(directory / "node.db", NodeKey(NODE_KEY), "alice", [Mark], clock=lambda: day * ROTATION_S)
        say("opened")
        store.load()
        say("loaded")
        for done, saves in enumerate(STEPS):
            day = 1.5 if done >= ROTATION_AT_STEP else 0.0
            store.commit(saves, bits_of)
            say(f"step {done + 1}")
        store.close()
        say("closed")
    except StoreError as error:
        say(f"refused {error}")
        if store is not None:
            for number in range(3):
                if goes_on(store, number):
                    say("went on")
        # As the node does: nothing is tidied up on a disk that cannot be trusted.
        os._exit(3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
