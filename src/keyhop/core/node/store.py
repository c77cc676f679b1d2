"""The seam to durable storage: rows, sealed blocks, used bytes and secrets, committed all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from keyhop.core.machine import Row, Save
from keyhop.core.model import Range


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


class Store(Protocol):
    """One process owns it. Methods raise StoreError and nothing else; after one, every further call raises."""

    def load(self) -> Snapshot:
        """Reads all rows; damaged ones raise Damaged with the row's name."""

    def commit(self, saves: Sequence[Save], bits: Callable[[Range], bytes | bytearray | memoryview]) -> None:
        """All of it durable when this returns, or none of it. `bits` gives the bytes of each `Seal`."""

    def read(self, block: Range) -> bytearray:
        """The bits of a sealed block, named exactly as it was sealed; safe beside a running commit."""

    def read_secret(self, name: str) -> bytearray:
        """32 bytes kept by `KeepSecret`."""

    def close(self) -> None: ...
