"""The table of rows: named facts, each with its tag."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from keyhop.core.machine import Row
from keyhop.core.node.store import StoreError
from keyhop.daemon.store.sealing import Marker

Encoded = tuple[str, str, bytes]
"""Type, key and value of a row."""


class RowTable:
    def __init__(self, database: sqlite3.Connection, marker: Marker, types: Sequence[type[Row]]) -> None:
        self._database = database
        self._marker = marker
        self._types = {type_name(row): row for row in types}
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_union(types))
        self._ahead: dict[tuple[str, str], bytes] = {}
        """What only the frame log has."""

    def load(self) -> Iterator[Row]:
        """Raises Damaged."""
        for name, key, value, tag in self._database.execute("SELECT type, key, value, tag FROM rows"):
            self._marker.check(tag, "row", name, key, value)
            if name not in self._types:
                raise StoreError(f"row {name} {key} is of a type that this version does not know")
            row: Row = self._decoder.decode(value)
            yield row

    def encoded(self, row: Row) -> Encoded:
        name = type_name(type(row))
        if name not in self._types:
            raise StoreError(f"row of type {name}: must be one of {', '.join(self._types)}")
        return name, row.key, msgspec.msgpack.encode(row)

    def remember(self, rows: Sequence[Encoded]) -> None:
        """Keeps what a frame puts until the next fold."""
        for name, key, value in rows:
            self._ahead[name, key] = value

    def fold(self) -> None:
        for (name, key), value in self._ahead.items():
            self.put(name, key, value)
        self._ahead.clear()

    def put(self, name: str, key: str, value: bytes) -> None:
        self._take_away(name, key)
        tag = self._marker.toggle("row", name, key, value)
        self._database.execute("REPLACE INTO rows VALUES (?, ?, ?, ?)", (name, key, value, tag))

    def remove(self, row: Row) -> None:
        name, key = type_name(type(row)), row.key
        if self._take_away(name, key):
            self._database.execute("DELETE FROM rows WHERE type = ? AND key = ?", (name, key))

    def _take_away(self, name: str, key: str) -> bool:
        """Takes the share of a row that is replaced or removed out of the sum; False if there is none."""
        found = self._database.execute("SELECT value, tag FROM rows WHERE type = ? AND key = ?", (name, key)).fetchall()
        for value, tag in found:
            self._marker.check(tag, "row", name, key, value)
        return bool(found)


def type_name(row: type[Row]) -> str:
    return str(row.__struct_config__.tag)


def _union(rows: Sequence[type[Row]]) -> Any:
    union: Any = rows[0]
    for row in rows[1:]:
        union = union | row
    return union
