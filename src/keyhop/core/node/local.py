"""Keys for two applications at one key manager: drawn, not agreed, with random IDs and a durable record each."""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from keyhop.core.label import Label
from keyhop.core.machine import Audit, Deliver, Drop, Remove, Seal
from keyhop.core.model import POSITION_LIMIT, Range, Refusal, RequestError, RunId
from keyhop.core.node.context import Context
from keyhop.core.node.events import KeysWanted, RecordsFetched
from keyhop.core.node.rows import KeyRow
from keyhop.core.node.run import Run

NOT_FOUND = "one or more keys specified are not found on KME"
RECORDS_LIMIT = 100_000
RECORDS_PER_MASTER = 20_000
"""So that one application that never fetches does not keep all others from their keys."""


class RecordsAged(msgspec.Struct, frozen=True, gc=False):
    """The oldest keys that nobody fetched have waited for a fetch lifetime."""


class LocalKeys:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.run = Run(RunId(context.node, 0), owned=True)
        self.records: dict[str, KeyRow] = {}
        self._waiting: Counter[str] = Counter()
        """Records of each master."""
        self._due: deque[tuple[int, str]] = deque()
        """When which record is over, in rising order."""

    def recall(self, row: KeyRow) -> None:
        """A record from the store: it may wait for a whole fetch lifetime of this process."""
        self._keep(row)

    def _keep(self, row: KeyRow) -> None:
        context = self.context
        self.records[row.id] = row
        self._waiting[row.master] += 1
        due = context.now + context.settings.fetch_lifetime_ns
        if not self._due:
            context.at(due, RecordsAged())
        self._due.append((due, row.id))

    def _forget(self, row: KeyRow) -> Range:
        """The record and the bits of a key go; gives where the bits were."""
        del self.records[row.id]
        self._waiting[row.master] -= 1
        target = Range(self.run.id, row.start, row.length)
        self.context.out.save.append(Remove(row))
        self.context.save(Drop(target))
        self.context.out.wipe.append(target)
        return target

    def aged(self, event: RecordsAged) -> None:
        context = self.context
        while self._due and self._due[0][0] <= context.now:
            row = self.records.get(self._due.popleft()[1])
            if row is not None:
                self._forget(row)
                context.count("local_keys_expired")
        if self._due:
            context.at(self._due[0][0], event)

    def draw(self, event: KeysWanted, labels: tuple[Label, ...] = ()) -> None:
        """Keys of grade `local`, from the vault's generator. Raises RequestError."""
        context, length = self.context, event.size_bits // 8
        for held, limit, whose in (
            (len(self.records), RECORDS_LIMIT, "this KME"),
            (self._waiting[event.master], RECORDS_PER_MASTER, f"SAE {event.master!r}"),
        ):
            if held + event.number > limit:
                text = f"{held} local keys of {whose} wait to be fetched: {limit} may wait at a time"
                raise RequestError(Refusal.NOT_ENOUGH_KEY, text, retry_after_s=10.0)
        if self.run.append + event.number * length > POSITION_LIMIT:
            raise RequestError(Refusal.UNAVAILABLE, "the local run is at its end")
        ranges, ids = [], []
        for _ in range(event.number):
            target = Range(self.run.id, self.run.append, length)
            self.run.append += length
            context.vault.draw(target)
            row = KeyRow(random_uuid(context.entropy(16)), target.start, length, event.master, (event.slave,))
            self._keep(row)
            context.put(row)
            context.save(Seal(target))
            ranges.append(target)
            ids.append(row.id)
        context.put(self.run.row())
        context.out.answer.append(Deliver(event.request, tuple(ranges), ids=tuple(ids), labels=labels))

    def fetched(self, event: RecordsFetched) -> None:
        """All of a request or none; 401 goes before 400, and one foreign ID poisons all (014 6.3)."""
        context = self.context
        rows = [self.records.get(id) for id in event.ids]
        if any(row is not None and event.slave not in row.waiting for row in rows):
            text = f"SAE {event.slave!r} was not named for every one of these keys"
            context.refuse(event.request, RequestError(Refusal.NOT_AUTHORISED, text))
            return
        found = [row for row in rows if row is not None and row.master == event.master]
        if len(found) != len(event.ids) or len(set(event.ids)) != len(event.ids):
            context.refuse(event.request, RequestError(Refusal.NOT_FOUND, NOT_FOUND))
            return
        ranges = tuple(self._forget(row) for row in found)
        if event.audit is not None:
            context.save(Audit(event.audit))
        context.out.answer.append(Deliver(event.request, ranges))


def random_uuid(entropy: bytes) -> str:
    """A version-4 UUID (RFC 9562) of 16 random bytes."""
    value = bytearray(entropy)
    value[6] = value[6] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
