"""Blocks and secrets in the database: sealed under a data key each, found by run and position or by name."""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import Any

from keyhop.core.model import TAG_KEY_BYTES, Range
from keyhop.core.node.store import Damaged, StoreError
from keyhop.crypto import keywrap
from keyhop.crypto.keywrap import NotAuthentic
from keyhop.crypto.onetime import Bits
from keyhop.daemon.store.sealing import Marker, block_place, secret_place
from keyhop.daemon.store.slots import SlotFile


class Sealed:
    """Runs are named by the numbers that the store gives them. Reading has a connection of its own, beside commits."""

    def __init__(
        self,
        database: sqlite3.Connection,
        reader: sqlite3.Connection,
        marker: Marker,
        slots: SlotFile,
        node: str,
    ) -> None:
        self._database = database
        self._reader = reader
        self._reading = threading.Lock()
        self._marker = marker
        self._slots = slots
        self._node = node

    def load(self) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, str]]]:
        """Blocks as (slot, run, start, length) and secrets as (slot, name)."""
        blocks = self._database.execute("SELECT slot, run, start, length FROM blocks").fetchall()
        for block in blocks:
            self._marker.toggle("block", *block)
        secrets = self._database.execute("SELECT slot, name FROM secrets").fetchall()
        for secret in secrets:
            self._marker.toggle("secret", *secret)
        return blocks, secrets

    def seal(self, run: int, block: Range, bits: Bits) -> None:
        if len(bits) != block.length:
            raise StoreError(f"{len(bits)} bytes for {block}: must be {block.length}")
        for start, length in self._database.execute(
            "SELECT start, length FROM blocks WHERE run = ? AND start < ? ORDER BY start DESC LIMIT 1", (run, block.end)
        ).fetchall():
            if start + length > block.start:
                raise StoreError(f"{block} overlaps the sealed block {Range(block.run, start, length)}")
        slot, sealed = self._sealed(bits, block_place(self._node, block))
        self._marker.toggle("block", slot, run, block.start, block.length)
        self._database.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", (slot, run, block.start, block.length, sealed)
        )

    def drop(self, run: int, block: Range) -> list[int]:
        """The slots that nothing names any more: they are erased after the commit."""
        found = self._database.execute(
            "DELETE FROM blocks WHERE run = ? AND start = ? AND length = ? RETURNING slot",
            (run, block.start, block.length),
        ).fetchall()
        for (slot,) in found:
            self._marker.toggle("block", slot, run, block.start, block.length)
        return [slot for (slot,) in found]

    def keep_secret(self, name: str, bits: Bits) -> None:
        if len(bits) != TAG_KEY_BYTES:
            raise StoreError(f"{len(bits)} bytes for the secret {name}: must be {TAG_KEY_BYTES}")
        slot, sealed = self._sealed(bits, secret_place(self._node, name))
        self._marker.toggle("secret", slot, name)
        self._database.execute("INSERT INTO secrets VALUES (?, ?, ?)", (slot, name, sealed))

    def drop_secret(self, name: str) -> list[int]:
        found = self._database.execute("DELETE FROM secrets WHERE name = ? RETURNING slot", (name,)).fetchall()
        for (slot,) in found:
            self._marker.toggle("secret", slot, name)
        return [slot for (slot,) in found]

    def read(self, run: int, block: Range) -> bytearray:
        found = self._ask(
            "SELECT slot, sealed FROM blocks WHERE run = ? AND start = ? AND length = ?",
            (run, block.start, block.length),
        )
        if not found:
            raise StoreError(f"no sealed block {block}")
        return self._open(found[0], block_place(self._node, block), f"block {block}")

    def read_secret(self, name: str) -> bytearray:
        found = self._ask("SELECT slot, sealed FROM secrets WHERE name = ?", (name,))
        if not found:
            raise StoreError(f"no secret {name}")
        return self._open(found[0], secret_place(self._node, name), f"secret {name}")

    def covering(self, run: int, position: int) -> tuple[int, int] | None:
        """Start and length of the block that holds this byte."""
        found = self._ask(
            "SELECT start, length FROM blocks WHERE run = ? AND start <= ? ORDER BY start DESC LIMIT 1",
            (run, position),
        )
        return (found[0][0], found[0][1]) if found and position < sum(found[0]) else None

    def _sealed(self, bits: Bits, place: bytes) -> tuple[int, bytes]:
        data_key = os.urandom(keywrap.KEY_BYTES)
        return self._slots.assign(data_key), keywrap.seal(data_key, bits, place)

    def _open(self, found: tuple[Any, ...], place: bytes, what: str) -> bytearray:
        slot, sealed = found
        try:
            return keywrap.open_sealed(self._slots.data_key(slot), sealed, place)
        except NotAuthentic:
            raise Damaged(f"{what} does not open: it was changed, moved, or its data key is gone") from None

    def _ask(self, query: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._reading:
            return self._reader.execute(query, parameters).fetchall()
