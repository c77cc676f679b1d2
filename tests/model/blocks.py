"""Agreement on blocks: which block lies at which position, whatever one end lacks, gets wrong, gets twice or forgets.

A block is one position of one run. The lower-named end places it and sends a tag over number, position and bits; the
higher answers. The modules deliver each block to each end on their own, may repeat one, and may damage one at the
higher end. Number and bits are remembered together, in the commit that appends the block or refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .search import DEPTH, Broken, Found, search

RULES = {
    "bits_compared": "a block whose bits differ is refused",
    "refused_is_destroyed": "a block that the other end refuses is destroyed here too",
    "number_seen_refused": "a block number seen before is refused",
    "bits_seen_refused": "bits seen before are refused under any number",
    "seen_durable": "what was seen is durable in the same commit as the block",
    "numbers_told": "on opening each end takes over the block numbers the other has seen",
    "lower_end_places": "only the lower-named end says where a block goes",
    "larger_mark_taken": "on opening each end takes the larger append mark: what lies below is never refilled",
    "lacking_burnt": "an end burns what it holds above the other's smaller append mark",
    "burnt_told": "on opening each end burns what the other has burnt",
}


class Scope(NamedTuple):
    blocks: int
    crashes: int
    restores: int
    damaged: int
    repeats: int
    """Repeated deliveries under the same number, per end."""
    renamed: bool
    """The first block may come again under a new number."""


SCOPES: tuple[Scope, ...] = (
    Scope(blocks=2, crashes=1, restores=0, damaged=1, repeats=0, renamed=False),
    Scope(blocks=1, crashes=0, restores=1, damaged=0, repeats=1, renamed=True),
    Scope(blocks=1, crashes=0, restores=2, damaged=0, repeats=1, renamed=False),
    Scope(blocks=2, crashes=0, restores=2, damaged=0, repeats=0, renamed=False),
    Scope(blocks=1, crashes=2, restores=0, damaged=0, repeats=1, renamed=False),
)
if DEPTH:
    SCOPES = (
        *SCOPES,
        Scope(blocks=1, crashes=2, restores=1, damaged=0, repeats=1, renamed=True),
        Scope(blocks=2, crashes=1, restores=2, damaged=1, repeats=0, renamed=False),
    )

KNOWN_LIMIT = Scope(blocks=1, crashes=0, restores=2, damaged=0, repeats=0, renamed=True)
"""Two ends restored in turn forget the bits of a block: a module that repeats them under a new number deceives both."""

POSITIONS = 3
LACKING, BURNT = "-", "x"
DAMAGED = {"1": "A", "2": "B"}


class Record(NamedTuple):
    """What an end writes down."""

    run: str = LACKING * POSITIONS
    """Per position: the bits, by name, or nothing, or burnt."""
    mark: int = 0
    """Append mark."""
    numbers: frozenset[int] = frozenset()
    bits: frozenset[str] = frozenset()


class End(NamedTuple):
    record: Record = Record()
    disk: Record = Record()
    copy: Record = Record()
    waiting: tuple[tuple[int, str], ...] = ()
    """Blocks delivered and not agreed: number and bits, in memory."""
    merged: bool = False
    """Has the other's PROOF of this connection."""


class State(NamedTuple):
    ends: tuple[End, End]
    """The lower-named first."""
    connected: bool
    messages: tuple[tuple[tuple[Any, ...], ...], tuple[tuple[Any, ...], ...]]
    """Under way to the lower and to the higher end."""
    asked: tuple[tuple[tuple[int, str, int], ...], tuple[tuple[int, str, int], ...]]
    """Agreements without an answer, by the end that asked."""
    delivered: tuple[tuple[int, ...], tuple[int, ...]]
    """Deliveries so far, per end and block."""
    once: str
    """Per position the bits that a lease could ever have covered."""
    pending: int
    """The end that was restored and has had no opening since, or -1."""
    damaged: int
    crashes: int
    restores: int


def initial(scope: Scope) -> State:
    none = (0,) * (scope.blocks + scope.renamed)
    return State((End(), End()), False, ((), ()), ((), ()), (none, none), LACKING * POSITIONS, -1, 0, 0, 0)


def holds(record: Record, position: int) -> bool:
    return record.run[position] not in (LACKING, BURNT)


def wrong(s: State) -> str | None:
    low, high = s.ends[0].record, s.ends[1].record
    for position in range(POSITIONS):
        if holds(low, position) and holds(high, position):
            if low.run[position] != high.run[position]:
                return f"I2: position {position} holds {low.run[position]} here and {high.run[position]} there"
            if s.once[position] not in (LACKING, low.run[position]):
                return f"I1: position {position} held {s.once[position]} before it holds {low.run[position]}"
            if any(s.once[other] == low.run[position] for other in range(POSITIONS) if other != position):
                return f"I1: block {low.run[position]} was accepted twice"
    if s.connected and s.ends[0].merged and s.ends[1].merged and not any(s.messages):
        for position in range(POSITIONS):
            if holds(low, position) != holds(high, position):
                return f"I14: one end counts position {position} as stock and the other does not"
    return None


def put(row: str, at: int, mark: str) -> str:
    return row[:at] + mark + row[at + 1 :]


def change(s: State, at: int, **fields: Any) -> State:
    end = s.ends[at]._replace(**fields)
    return s._replace(ends=(end, s.ends[1]) if at == 0 else (s.ends[0], end))


def say(s: State, to: int, message: tuple[Any, ...]) -> State:
    low, high = s.messages
    return s._replace(messages=((*low, message), high) if to == 0 else (low, (*high, message)))


def ask(s: State, at: int, asked: tuple[tuple[int, str, int], ...]) -> State:
    return s._replace(asked=(asked, s.asked[1]) if at == 0 else (s.asked[0], asked))


def booked(s: State) -> State:
    """Remember what both ends hold: from now on a lease may have covered it."""
    low, high = s.ends[0].record, s.ends[1].record
    once = "".join(
        low.run[at] if s.once[at] == LACKING and holds(low, at) and low.run[at] == high.run[at] else s.once[at]
        for at in range(POSITIONS)
    )
    return s if once == s.once else s._replace(once=once)


NAMES = ("lower", "higher")


class Blocks:
    def __init__(self, scope: Scope, off: frozenset[str]) -> None:
        unknown = off - RULES.keys()
        if unknown:
            raise ValueError(f"unknown rules {sorted(unknown)}")
        self.scope = scope
        self.off = off
        self.placing = (0,) if "lower_end_places" not in off else (0, 1)

    def on(self, rule: str) -> bool:
        return rule not in self.off

    def steps(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        for label, state in self.moves(s):
            broken = wrong(state)
            yield label, Broken(broken) if broken else booked(state)

    def moves(self, s: State) -> Iterator[tuple[str, State]]:
        if s.connected:
            yield "the connection breaks", broken_off(s)
        else:
            low, high = s.ends[0].record, s.ends[1].record
            yield (
                "a connection opens, both send PROOF",
                s._replace(connected=True, messages=((proof(high),), (proof(low),))),
            )
        for at in (0, 1):
            if s.messages[at]:
                message = s.messages[at][0]
                rest = (s.messages[0][1:], s.messages[1]) if at == 0 else (s.messages[0], s.messages[1][1:])
                yield f"{NAMES[at]} receives {message[:3]}", self.receive(s._replace(messages=rest), at, message)
            yield from self.deliver(s, at)
            if s.ends[at].record != s.ends[at].disk:
                yield f"{NAMES[at]}'s disk catches up", change(s, at, disk=s.ends[at].record)
        for at in self.placing:
            yield from self.place(s, at)
        yield from self.faults(s)

    def deliver(self, s: State, at: int) -> Iterator[tuple[str, State]]:
        for index, times in enumerate(s.delivered[at]):
            number = index + 1
            renamed = number > self.scope.blocks
            if times > (0 if renamed else self.scope.repeats) or any(n == number for n, _ in s.ends[at].waiting):
                continue
            counts = (*s.delivered[at][:index], times + 1, *s.delivered[at][index + 1 :])
            after = s._replace(delivered=(counts, s.delivered[1]) if at == 0 else (s.delivered[0], counts))
            bits = "1" if renamed else str(number)
            waiting = s.ends[at].waiting
            yield (
                f"block {number} ({bits}) arrives at the {NAMES[at]} end",
                change(after, at, waiting=tuple(sorted((*waiting, (number, bits))))),
            )
            if at == 1 and s.damaged < self.scope.damaged:
                bits = DAMAGED[bits]
                yield (
                    f"block {number} arrives damaged ({bits}) at the higher end",
                    change(after._replace(damaged=s.damaged + 1), 1, waiting=tuple(sorted((*waiting, (number, bits))))),
                )

    def seen(self, record: Record, number: int, bits: str) -> bool:
        if number in record.numbers and self.on("number_seen_refused"):
            return True
        return bits in record.bits and self.on("bits_seen_refused")

    def place(self, s: State, at: int) -> Iterator[tuple[str, State]]:
        end = s.ends[at]
        if not end.merged:
            return
        asked = s.asked[at]
        position = max([end.record.mark, *(place + 1 for _, _, place in asked)])
        for number, bits in end.waiting:
            if any(number == other for other, _, _ in asked):
                continue
            if self.seen(end.record, number, bits):
                yield f"{NAMES[at]} drops block {number}: seen", drop(s, at, number)
            elif position < POSITIONS:
                message = ("agree", number, position, bits)
                label = f"{NAMES[at]} places block {number} at {position}"
                yield label, say(ask(s, at, (*asked, (number, bits, position))), 1 - at, message)

    def receive(self, s: State, at: int, message: tuple[Any, ...]) -> State:
        if message[0] == "proof":
            return change(self.merge(s, at, message[1]), at, merged=True)
        if message[0] == "agree":
            return self.answer(s, at, message)
        asked = s.asked[at]
        if not asked:
            return s
        number, bits, position = asked[0]
        s = drop(ask(s, at, asked[1:]), at, number)
        if message[0] == "yes" or not self.on("refused_is_destroyed"):
            return self.append(s, at, number, bits, position)
        return self.remember(s, at, number, bits)

    def answer(self, s: State, at: int, message: tuple[Any, ...]) -> State:
        _, number, position, bits = message
        record = s.ends[at].record
        own = [held for n, held in s.ends[at].waiting if n == number]
        agreed = bool(own) and (own[0] == bits or not self.on("bits_compared"))
        fits = position >= record.mark
        if not self.on("larger_mark_taken") and record.run[position] == LACKING:
            fits = True
        if not agreed or not fits or self.seen(record, number, own[0]):
            s = drop(s, at, number)
            if own:
                s = self.remember(s, at, number, own[0])
            return say(s, 1 - at, ("no", number, position))
        s = self.append(drop(s, at, number), at, number, own[0], position)
        return say(s, 1 - at, ("yes", number, position))

    def append(self, s: State, at: int, number: int, bits: str, position: int) -> State:
        record = s.ends[at].record
        run = put(record.run, position, bits)
        for skipped in range(record.mark, position):
            if run[skipped] == LACKING and self.on("larger_mark_taken"):
                run = put(run, skipped, BURNT)
        record = record._replace(run=run, mark=max(record.mark, position + 1))
        return self.remember(change(s, at, record=record, disk=record), at, number, bits)

    def remember(self, s: State, at: int, number: int, bits: str) -> State:
        record = s.ends[at].record
        record = record._replace(numbers=record.numbers | {number}, bits=record.bits | {bits})
        return change(s, at, record=record, disk=record) if self.on("seen_durable") else change(s, at, record=record)

    def merge(self, s: State, at: int, theirs: Record) -> State:
        mine = s.ends[at].record
        run, mark, numbers = mine.run, mine.mark, mine.numbers
        for position in range(POSITIONS):
            lacking_here = mine.mark <= position < theirs.mark and self.on("larger_mark_taken")
            lacking_there = theirs.mark <= position < mine.mark and self.on("lacking_burnt")
            burnt_there = theirs.run[position] == BURNT and self.on("burnt_told")
            if lacking_here or lacking_there or burnt_there:
                run = put(run, position, BURNT)
        if self.on("larger_mark_taken"):
            mark = max(mark, theirs.mark)
        if self.on("numbers_told"):
            numbers = numbers | theirs.numbers
        record = mine._replace(run=run, mark=mark, numbers=numbers)
        if s.pending == at:
            s = s._replace(pending=-1)
        return change(s, at, record=record, disk=record) if record != mine else s

    def faults(self, s: State) -> Iterator[tuple[str, State]]:
        for at in (0, 1):
            if s.crashes < self.scope.crashes:
                yield f"{NAMES[at]} crashes and starts", start(s._replace(crashes=s.crashes + 1), at)
            if s.restores == self.scope.restores or s.pending == 1 - at:
                continue
            end = s.ends[at]
            restored = s._replace(restores=s.restores + 1, pending=at)
            if restored.restores == self.scope.restores:
                # Copies that cannot come back any more need no telling apart.
                restored = change(change(restored, 0, copy=Record()), 1, copy=Record())
            yield f"{NAMES[at]} is restored and starts", start(change(restored, at, disk=end.copy), at)
            if end.copy != end.disk:
                yield f"{NAMES[at]}'s store is copied", change(s, at, copy=end.disk)


def proof(record: Record) -> tuple[Any, ...]:
    return ("proof", record._replace(bits=frozenset()))


def drop(s: State, at: int, number: int) -> State:
    return change(s, at, waiting=tuple(each for each in s.ends[at].waiting if each[0] != number))


def start(s: State, at: int) -> State:
    return broken_off(change(s, at, record=s.ends[at].disk, waiting=()))


def broken_off(s: State) -> State:
    """Blocks without an answer stay waiting: the next connection asks again."""
    s = change(change(s, 0, merged=False), 1, merged=False)
    return s._replace(connected=False, messages=((), ()), asked=((), ()))


def explore(scope: Scope, *off: str) -> Found:
    """Search with these rules off."""
    return search(initial(scope), Blocks(scope, frozenset(off)).steps, lambda _: None)
