"""The log of used bytes: one row a commit whatever it used, merged from time to time."""

from __future__ import annotations

import sqlite3
import struct

from keyhop.core.model import POSITION_LIMIT, Range
from keyhop.core.node.extents import Extents
from keyhop.core.node.store import StoreError
from keyhop.daemon.store.sealing import Marker

ROWS_BEFORE_MERGING = 1000
ENTRIES_BEFORE_MERGING = 65_536
ENTRIES_PER_ROW = 4096
"""Merged rows of 48 KiB."""

_ENTRY = struct.Struct(">QI")
"""Run number (30 bits) and start (34), then the length; its highest bit says that the bytes are forgotten."""
_START_BITS = POSITION_LIMIT.bit_length() - 1
_FORGET = 1 << 31


class UsedLog:
    """Append-only until it is merged: the newest entry about a byte holds."""

    def __init__(self, database: sqlite3.Connection, marker: Marker) -> None:
        self._database = database
        self._marker = marker
        self._pending = bytearray()
        self._next = 0
        self._rows = 0
        self._entries = 0
        self._merged_entries = 0

    def load(self) -> dict[int, Extents]:
        """What is used, by number of run; raises Damaged."""
        used: dict[int, Extents] = {}
        self._rows = self._entries = 0
        adds: list[tuple[int, int]] = []
        for number, entries, tag in self._database.execute("SELECT number, entries, tag FROM used_log ORDER BY number"):
            self._marker.check(tag, "used_log", number, entries)
            for place, length in _ENTRY.iter_unpack(entries):
                if length & _FORGET:
                    _add(used, adds)
                    start = place & (POSITION_LIMIT - 1)
                    used.setdefault(place >> _START_BITS, Extents()).remove(start, start + (length & ~_FORGET))
                else:
                    adds.append((place, length))
            self._next = number + 1
            self._rows += 1
            self._entries += len(entries) // _ENTRY.size
        _add(used, adds)
        return used

    def add(self, run: int, range: Range) -> None:
        self._pending += packed(run, range)

    def forget(self, run: int, range: Range) -> None:
        self._pending += packed(run, range, _FORGET)

    def extend(self, entries: bytes) -> None:
        """Takes what `packed` gave, in the order of the commits."""
        self._pending += entries

    def write(self) -> None:
        """Inserts what was added since the last time, as one row."""
        if not self._pending:
            return
        self._insert(bytes(self._pending))
        self._pending.clear()
        # As many new entries as old ones before all are read again: so each entry is merged a few times in its life,
        # however scattered the used bytes are.
        many = self._rows > ROWS_BEFORE_MERGING or self._entries > ENTRIES_BEFORE_MERGING
        if many and self._entries > 2 * self._merged_entries:
            self._merge()

    def _insert(self, entries: bytes) -> None:
        tag = self._marker.toggle("used_log", self._next, entries)
        self._database.execute("INSERT INTO used_log VALUES (?, ?, ?)", (self._next, entries, tag))
        self._next += 1
        self._rows += 1
        self._entries += len(entries) // _ENTRY.size

    def _merge(self) -> None:
        # Reading a row toggles its share: those of the rows that go leave the sum.
        used = self.load()
        self._database.execute("DELETE FROM used_log")
        self._rows = self._entries = 0
        entries = b"".join(
            _ENTRY.pack(run << _START_BITS | low, high - low) for run, extents in used.items() for low, high in extents
        )
        row_bytes = ENTRIES_PER_ROW * _ENTRY.size
        for start in range(0, len(entries), row_bytes):
            self._insert(entries[start : start + row_bytes])
        self._merged_entries = self._entries


def packed(run: int, range: Range, flag: int = 0) -> bytes:
    """One entry, or as many as the length needs; raises StoreError for positions that cannot be."""
    _, start, length = range
    if start < 0 or length < 0 or start + length > POSITION_LIMIT:
        raise StoreError(f"{range} cannot be marked: positions must lie in 0 to {POSITION_LIMIT}")
    if length < _FORGET:
        return _ENTRY.pack(run << _START_BITS | start, length | flag)
    first = Range(range.run, start, _FORGET - 1)
    return packed(run, first, flag) + packed(run, Range(range.run, first.end, length - first.length), flag)


def _add(used: dict[int, Extents], adds: list[tuple[int, int]]) -> None:
    """Moves (run and start, length) into the extents; joined before, because most of them touch one another."""
    adds.sort()
    at = end = -1
    for place, length in [*adds, (-1, 0)]:
        # Start 0 joins nothing: the end of one run stands beside the beginning of the next.
        if at <= place <= end and place & (POSITION_LIMIT - 1):
            end = max(end, place + length)
            continue
        if end > at:
            start = at & (POSITION_LIMIT - 1)
            used.setdefault(at >> _START_BITS, Extents()).add(start, start + end - at)
        at, end = place, place + length
    adds.clear()
