"""The seam to durable storage: rows, sealed blocks, used bytes and secrets, committed all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from keyhop.core.machine import Row, Save
from keyhop.core.model import Range, RunId


class StoreError(Exception):
    """The store cannot be trusted from here on: the process ends (a failed fsync leaves the page cache unknowable)."""


class WrongNodeKey(StoreError):
    """The node key does not open this store."""


class Damaged(StoreError):
    """A row or a sealed block is not what was written."""


class Snapshot(msgspec.Struct):
    """Everything durable, as read on start."""

    rows: list[Row]
    used: list[Range]
    blocks: list[Range]
    """Sealed blocks that are there, by (run, start, length). Their bits are read on demand."""
    secrets: list[str]


class Outboxed(msgspec.Struct, frozen=True, gc=False):
    """An audit entry that a commit made durable and that the audit log has yet to take over."""

    number: int
    """Rises by one with each entry, over restarts too: the log skips what it has."""
    entry: bytes
    """A JSON object, encoded once: what the log writes is made of these bytes."""


class Prepared(NamedTuple):
    """A commit that has only to be carried out, in any thread, before anything else."""

    commit: Callable[[], None]
    brief: bool
    """A single write of a few kilobytes: a good disk takes it in less time than another thread takes to wake up."""


class Store(Protocol):
    """One process owns it. Methods raise StoreError and nothing else; after one, every further call raises.

    `load` comes first. One thread commits at a time; `read`, `read_secret`, `covering` and `outbox` may run beside it.
    """

    def load(self) -> Snapshot:
        """Reads all rows; damaged ones raise Damaged with the row's name."""

    def commit(self, saves: Sequence[Save], bits: Callable[[Range], bytes | bytearray | memoryview]) -> None:
        """All of it durable when this returns, or none of it; later saves act on what earlier ones left.

        `bits` gives the bytes of each `Seal` and the 32 of each `KeepSecret`. What is dropped or removed need not be
        there; a block must not overlap another. A Used or ForgetUsed range may overlap what is used.
        """

    def prepare(self, saves: Sequence[Save], bits: Callable[[Range], bytes | bytearray | memoryview]) -> Prepared:
        """Does what of `commit` needs no disk; what it gives does the rest."""

    def read(self, block: Range) -> bytearray:
        """The bits of a sealed block, named exactly as it was sealed; safe beside a running commit."""

    def read_secret(self, name: str) -> bytearray:
        """32 bytes kept by `KeepSecret`."""

    def covering(self, run: RunId, position: int) -> Range | None:
        """The sealed block that holds this byte, or None."""

    def outbox(self) -> list[Outboxed]:
        """Audit entries made durable and not yet handed out; after a start, all that were never `written`."""

    def written(self, number: int) -> None:
        """The audit log has synced all entries up to this number: the next commit lets them go.

        Entries of one commit go together: some that were written may come back after a start.
        """

    def close(self) -> None: ...
