"""Audit entries between the commit that made them durable and the audit log that takes them over."""

from __future__ import annotations

import sqlite3
from collections import deque
from typing import NamedTuple

import msgspec

from keyhop.core.node.store import Outboxed
from keyhop.daemon.store.sealing import Marker


class Kept(NamedTuple):
    """A row of the table: the entries of one commit, or of those that were folded together."""

    first: int
    last: int
    entries: bytes


class Outbox:
    """Rows go when the log has synced all entries in them; what it synced before a fold never becomes a row."""

    def __init__(self, database: sqlite3.Connection, marker: Marker) -> None:
        self._database = database
        self._marker = marker
        self._kept: deque[Kept] = deque()
        self._ahead: deque[Outboxed] = deque()
        """Durable in the frame log or about to be, not yet in the table."""
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
            decoded = msgspec.json.decode(entries, type=list[msgspec.Raw])
            self._fresh.extend(map(Outboxed, range(first, last + 1), map(bytes, decoded)))

    def number(self, entries: list[bytes]) -> list[Outboxed]:
        """Gives the entries of a commit their numbers, and keeps them for `write`."""
        numbered = list(map(Outboxed, range(self.numbered + 1, self.numbered + 1 + len(entries)), entries))
        self.numbered += len(entries)
        self._ahead.extend(numbered)
        self._forget_written()
        return numbered

    def write(self) -> None:
        """Lets go what was written, and puts what is ahead of the table into it."""
        if self._kept and self._kept[0].last <= self.written:
            self._database.execute("DELETE FROM outbox WHERE last <= ?", (self.written,))
            while self._kept and self._kept[0].last <= self.written:
                self._marker.toggle("outbox", *self._kept.popleft())
        self._forget_written()
        if not self._ahead:
            return
        content = b"[" + b",".join([outboxed.entry for outboxed in self._ahead]) + b"]"
        kept = Kept(self._ahead[0].number, self._ahead[-1].number, content)
        tag = self._marker.toggle("outbox", *kept)
        self._database.execute("INSERT INTO outbox (first, last, entries, tag) VALUES (?, ?, ?, ?)", (*kept, tag))
        self._kept.append(kept)
        self._ahead.clear()

    def _forget_written(self) -> None:
        while self._ahead and self._ahead[0].number <= self.written:
            self._ahead.popleft()

    def committed(self, fresh: list[Outboxed]) -> None:
        self._fresh.extend(fresh)

    def hand_out(self) -> list[Outboxed]:
        return [self._fresh.popleft() for _ in range(len(self._fresh))]
