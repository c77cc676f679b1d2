"""Audit entries between the commit that made them durable and the audit log that takes them over."""

from __future__ import annotations

import sqlite3
from collections import deque
from typing import Any, NamedTuple

import msgspec

from keyhop.core.node.store import Outboxed
from keyhop.daemon.store.sealing import Marker


class Kept(NamedTuple):
    """A row of the table: the entries of one commit."""

    first: int
    last: int
    entries: bytes


class Outbox:
    """One row a commit, whatever it tells. Rows go when the log has synced all entries in them."""

    def __init__(self, database: sqlite3.Connection, marker: Marker) -> None:
        self._database = database
        self._marker = marker
        self._kept: deque[Kept] = deque()
        self._fresh: deque[Outboxed] = deque()
        self.numbered = 0
        """Entries so far, over all starts."""
        self.written = 0

    def load(self, numbered: int) -> None:
        """Raises Damaged."""
        self.numbered = numbered
        self._fresh.clear()
        self._kept.clear()
        rows = self._database.execute("SELECT first, last, entries, tag FROM outbox ORDER BY last").fetchall()
        for first, last, entries, tag in rows:
            self._marker.check(tag, "outbox", first, last, entries)
            self._kept.append(Kept(first, last, entries))
            self._fresh.extend(map(Outboxed, range(first, last + 1), msgspec.json.decode(entries)))

    def write(self, entries: list[dict[str, Any]]) -> list[Outboxed]:
        """Lets go what was written, keeps what is new and gives it with its numbers."""
        if self._kept and self._kept[0].last <= self.written:
            self._database.execute("DELETE FROM outbox WHERE last <= ?", (self.written,))
            while self._kept and self._kept[0].last <= self.written:
                self._marker.toggle("outbox", *self._kept.popleft())
        if not entries:
            return []
        first, self.numbered = self.numbered + 1, self.numbered + len(entries)
        kept = Kept(first, self.numbered, msgspec.json.encode(entries))
        tag = self._marker.toggle("outbox", *kept)
        self._database.execute("INSERT INTO outbox (first, last, entries, tag) VALUES (?, ?, ?, ?)", (*kept, tag))
        self._kept.append(kept)
        return [Outboxed(first + index, entry) for index, entry in enumerate(entries)]

    def committed(self, fresh: list[Outboxed]) -> None:
        self._fresh.extend(fresh)

    def hand_out(self) -> list[Outboxed]:
        return [self._fresh.popleft() for _ in range(len(self._fresh))]
