"""The life of one directed run: leases asked, acknowledged, used and burnt while either end crashes or is restored.

The owner allocates keys and pads from its run; the follower acknowledges leases and hands out keys by their ID. A
segment is one byte: either a key or a pad. Frames stay in order while a connection lasts; it may break after any step.
A record is what a process believes, a disk is what survives a crash: they differ only where a rule about durability is
off. A copy is what a restore brings back; the anchor is not restored. Every frame of the follower tells its journal
number, the owner's PROOF returns it (restore.py looks at that alone). The owner's own journal is left out: what a
restored owner has forgotten, the follower's record knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .search import DEPTH, Broken, Found, search

RULES = {
    "acknowledged_first": "a lease is used only after the peer has acknowledged it",
    "durable_before_acknowledging": "the follower's record of a lease is durable before it acknowledges",
    "durable_before_use": "the owner's record of a lease is durable before its first use",
    "own_record_untouched": "the follower acknowledges only what its own record shows untouched, present and unused",
    "record_unchanged": "the asker takes the lease only if its record has not changed since it asked",
    "burnt_by_restart": "whatever was leased before a restart of the owner is burnt",
    "no_stored_free_list": "what is left of a lease is known in memory alone, never brought back from a store",
    "made_after_fork": "a lease belongs to one process, made after its last fork",
    "burnt_by_restore": "an end that finds itself restored burns its open leases",
    "burnt_by_new_epoch": "an end that sees a new epoch burns what it holds of leases with that peer",
    "epoch_from_start_number": "a new epoch is named by the anchored start number, not by the stored epoch plus one",
    "journal_returned": "an end behind the journal number that its peer returns was restored",
    "journal_per_start": "behind is judged by what the store held when the told start ended, not by today's number",
    "told_after_done": "what a peer told last is replaced only once the peer has seen it returned",
    "union_at_owner": "on opening the owner takes over which segments the follower has touched",
    "union_at_follower": "on opening the follower takes over which segments the owner has touched",
    "nothing_before_opening": "an end that has just started gives out nothing until its first opening is done",
    "serve_acknowledged_only": "dec_keys serves only inside leases that the follower's own record shows acknowledged",
    "used_checked": "the follower checks its used map before it serves",
    "used_durable": "the follower's used map is durable before the answer",
    "one_used_map": "keys and pads are booked in one map",
    "same_ciphertext": "a repeated frame is the same ciphertext under its pad",
    "owner_allocates": "only the owner draws pads and keys from a run",
}


class Scope(NamedTuple):
    """How much may happen in one search."""

    segments: int
    crashes: int
    restores: int
    expiries: int
    forks: int


SCOPES: tuple[Scope, ...] = (
    Scope(segments=1, crashes=1, restores=1, expiries=1, forks=1),
    Scope(segments=1, crashes=1, restores=2, expiries=0, forks=0),
    Scope(segments=2, crashes=0, restores=1, expiries=0, forks=1),
    Scope(segments=2, crashes=1, restores=0, expiries=1, forks=0),
)
if DEPTH:
    SCOPES = (
        *SCOPES,
        Scope(segments=2, crashes=1, restores=1, expiries=0, forks=0),
        Scope(segments=2, crashes=0, restores=2, expiries=0, forks=0),
        Scope(segments=1, crashes=1, restores=3, expiries=0, forks=0),
        Scope(segments=1, crashes=2, restores=2, expiries=1, forks=1),
    )

UNTOUCHED, SUPPLY, PAD, TOUCHED = "u", "s", "p", "t"
NOTHING, PAD_SENT, BITS_GONE = "-", "P", "x"


class Owner(NamedTuple):
    """What the owner writes down."""

    marks: str
    """Per segment: untouched, leased for supply or for pads, or touched (burnt, expired, or by the peer's word)."""
    free: str
    """Unused leases: written down only where the rule against it is off."""
    epoch: int
    """Of the follower, as last told."""
    told: tuple[int, int]
    """Start and journal number of the follower, as last told."""


class Follower(NamedTuple):
    """What the follower writes down."""

    marks: str
    used: str
    """Per segment: 1 once handed out or destroyed."""
    start: int
    epoch: int
    burnt: int
    """Start number of the last burning: equal to the epoch unless the rule about its number is off."""
    journal: int
    ends: tuple[int, ...]
    """Per start number the journal number with which it ended."""


class State(NamedTuple):
    owner: Owner
    owner_disk: Owner
    owner_copy: Owner
    hand: str
    """Per segment: the lease in the owner's memory and what became of it."""
    worker: str
    """The same in a process forked from the owner."""
    asked: tuple[int, str] | None
    follower: Follower
    follower_disk: Follower
    follower_copy: Follower
    anchor: int
    opened: bool
    """The follower has had an opening since it started."""
    connected: bool
    to_follower: tuple[Any, ...]
    to_owner: tuple[Any, ...]
    merged: bool
    """The owner has taken over the follower's state in this connection."""
    may_ask: bool
    """And heard that the follower has taken over its own."""
    pending: str
    """The end that was restored and has had no opening since: until then the other must not be restored too."""
    unseen: bool
    """A restore of the follower that nobody could see: it may hand the same key to the same application again."""
    follower_restored: bool
    keys: str
    """Per segment: key identities given out by the owner."""
    plaintexts: str
    """Per segment: different plaintexts masked by it."""
    fetched: str
    """Per segment: how often the follower handed it out."""
    crashes: int
    restores: int
    owner_copied: bool
    follower_copied: bool
    expiries: int
    forks: int


def put(row: str, at: int, mark: str) -> str:
    return row[:at] + mark + row[at + 1 :]


def count(row: str, at: int) -> str:
    return put(row, at, str(int(row[at]) + 1))


def touched(marks: str) -> str:
    return "".join("0" if mark == UNTOUCHED else "1" for mark in marks)


def union(marks: str, theirs: str) -> str:
    return "".join(
        TOUCHED if mark == UNTOUCHED and other == "1" else mark for mark, other in zip(marks, theirs, strict=True)
    )


def initial(segments: int) -> State:
    empty, untouched, zero = NOTHING * segments, UNTOUCHED * segments, "0" * segments
    owner = Owner(untouched, empty, 0, (0, 0))
    follower = Follower(untouched, zero, 0, 0, 0, 0, ())
    return State(
        owner=owner,
        owner_disk=owner,
        owner_copy=owner,
        hand=empty,
        worker=empty,
        asked=None,
        follower=follower,
        follower_disk=follower,
        follower_copy=follower,
        anchor=0,
        opened=True,
        connected=False,
        to_follower=(),
        to_owner=(),
        merged=False,
        may_ask=False,
        pending="",
        unseen=False,
        follower_restored=False,
        keys=zero,
        plaintexts=zero,
        fetched=zero,
        crashes=0,
        restores=0,
        owner_copied=False,
        follower_copied=False,
        expiries=0,
        forks=0,
    )


def wrong(s: State) -> str | None:
    for at in range(len(s.keys)):
        keys, plaintexts, fetched = int(s.keys[at]), int(s.plaintexts[at]), int(s.fetched[at])
        if keys > 1:
            return f"I1, I4: byte {at} lies in two keys"
        if plaintexts > 1:
            return f"I5: pad {at} masks two plaintexts"
        if keys and plaintexts:
            return f"I5: byte {at} is a key and a pad"
        if fetched > 1 and not s.unseen:
            return f"I1: key {at} was handed out twice at the far end"
        if keys and not fetched and not s.follower_restored and not fetchable(s.follower, at):
            return f"I3: key {at} was given out and cannot be fetched"
    return None


def fetchable(record: Follower, at: int) -> bool:
    return record.marks[at] == SUPPLY and record.used[at] == "0"


class Leases:
    """The steps of the model with some rules off."""

    def __init__(self, scope: Scope, off: frozenset[str], together: bool = False) -> None:
        unknown = off - RULES.keys()
        if unknown:
            raise ValueError(f"unknown rules {sorted(unknown)}")
        self.off = off
        self.scope = scope
        self.together = together
        """Both ends may be restored with no opening between: no rule can see that."""
        self.empty = NOTHING * scope.segments
        self.steps_of = (self.connection, self.frames, self.owner_steps, self.follower_steps, self.faults)

    def on(self, rule: str) -> bool:
        return rule not in self.off

    def steps(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        for group in self.steps_of:
            yield from group(s)

    # A write is durable at once unless the rule that says so is off; then `sync` does it later, or never.

    def save_owner(self, s: State, record: Owner, rule: str = "") -> State:
        if rule in self.off:
            return s._replace(owner=record)
        return s._replace(owner=record, owner_disk=record)

    def save_follower(self, s: State, record: Follower, rule: str = "") -> State:
        record = record._replace(journal=record.journal + 1)
        if rule in self.off:
            return s._replace(follower=record)
        return s._replace(follower=record, follower_disk=record)

    def connection(self, s: State) -> Iterator[tuple[str, State]]:
        if s.connected:
            yield "the connection breaks", broken_off(s)
            return
        a, b = s.owner, s.follower
        yield (
            "a connection opens, both send PROOF",
            s._replace(
                connected=True,
                to_follower=(("proof", touched(a.marks), a.told),),
                to_owner=(("proof", touched(b.marks), b.epoch, clock(b)),),
            ),
        )

    def frames(self, s: State) -> Iterator[tuple[str, State]]:
        if s.to_follower:
            frame = s.to_follower[0]
            yield f"follower receives {frame}", self.at_follower(s._replace(to_follower=s.to_follower[1:]), frame)
        if s.to_owner:
            frame = s.to_owner[0]
            yield f"owner receives {frame}", self.at_owner(s._replace(to_owner=s.to_owner[1:]), frame)

    def at_follower(self, s: State, frame: tuple[Any, ...]) -> State:
        b = s.follower
        if frame[0] == "proof":
            _, theirs, told = frame
            if self.is_behind(b, told):
                return broken_off(self.found_restored(s, told))
            marks = union(b.marks, theirs) if self.on("union_at_follower") else b.marks
            if s.pending == "follower":
                s = s._replace(unseen=True)
            if s.pending in ("follower", "follower found"):
                s = s._replace(pending="")
            if marks != b.marks:
                s = self.save_follower(s, b._replace(marks=marks))
            return tell(s._replace(opened=True), ("done", clock(s.follower)))
        _, at, purpose = frame
        if self.on("own_record_untouched") and (b.marks[at] != UNTOUCHED or b.used[at] != "0"):
            return tell(s, ("no", at, clock(b)))
        s = self.save_follower(s, b._replace(marks=put(b.marks, at, purpose)), "durable_before_acknowledging")
        return tell(s, ("yes", at, clock(s.follower)))

    def is_behind(self, b: Follower, told: tuple[int, int]) -> bool:
        start, journal = told
        if not self.on("journal_returned"):
            return False
        if not self.on("journal_per_start"):
            return journal > b.journal
        # What was told before the start that opened the present epoch has had its burning.
        return b.burnt <= start < b.start and journal > b.ends[start]

    def found_restored(self, s: State, told: tuple[int, int]) -> State:
        b = s.follower
        marks = b.marks
        if self.on("burnt_by_restore"):
            marks = "".join(mark if mark == UNTOUCHED else TOUCHED for mark in marks)
        epoch = s.anchor if self.on("epoch_from_start_number") else b.epoch + 1
        s = s._replace(pending="follower found")
        return self.save_follower(
            s, b._replace(marks=marks, epoch=epoch, burnt=s.anchor, journal=max(told[1], b.journal))
        )

    def at_owner(self, s: State, frame: tuple[Any, ...]) -> State:
        a = s.owner
        if frame[0] == "proof":
            _, theirs, epoch, told = frame
            hand = s.hand
            if epoch != a.epoch and self.on("burnt_by_new_epoch"):
                hand = self.empty
            marks = union(a.marks, theirs) if self.on("union_at_owner") else a.marks
            record = a._replace(marks=marks, epoch=epoch)
            if not self.on("told_after_done"):
                record = record._replace(told=told)
            if s.pending == "owner":
                s = s._replace(pending="")
            return self.save_owner(s, record)._replace(hand=hand, merged=True)
        # The number is written down with the next commit: losing it costs a detection, never a lease in hand.
        s = s._replace(owner=a._replace(told=max(a.told, frame[-1])))
        if frame[0] == "done":
            return s._replace(may_ask=True)
        if s.asked is None or frame[0] == "tell":
            return s
        at, purpose = s.asked
        s = s._replace(asked=None)
        if frame[0] == "no" or not self.on("acknowledged_first"):
            return s
        if self.on("record_unchanged") and s.owner.marks[at] != UNTOUCHED:
            return s
        if s.owner.marks[at] == TOUCHED:
            return self.take(s, at, BITS_GONE)
        return self.take(s, at, purpose)

    def take(self, s: State, at: int, purpose: str) -> State:
        hand = put(s.hand, at, purpose)
        record = s.owner._replace(marks=put(s.owner.marks, at, purpose))
        if not self.on("no_stored_free_list"):
            record = record._replace(free=put(record.free, at, purpose))
        return self.save_owner(s, record, "durable_before_use")._replace(hand=hand)

    def owner_steps(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        a = s.owner
        if s.may_ask and s.asked is None and not s.to_follower:
            at = a.marks.find(UNTOUCHED)
            for purpose in (SUPPLY, PAD) if at >= 0 else ():
                asked = s._replace(asked=(at, purpose), to_follower=(("ask", at, purpose),))
                if not self.on("acknowledged_first"):
                    asked = self.take(asked, at, purpose)
                yield f"owner asks for segment {at} ({purpose})", asked
        for at in range(len(s.keys)):
            yield from self.use(s, at)
            if s.worker[at] == SUPPLY:
                yield (
                    f"a worker gives out key {at}",
                    s._replace(worker=put(s.worker, at, NOTHING), keys=count(s.keys, at)),
                )
            if a.marks[at] == UNTOUCHED and s.expiries < self.scope.expiries:
                record = a._replace(marks=put(a.marks, at, TOUCHED))
                yield f"owner expires segment {at}", self.save_owner(s, record)._replace(expiries=s.expiries + 1)
        if s.forks < self.scope.forks and s.hand != self.empty:
            if self.on("made_after_fork"):
                yield "owner forks a worker", s._replace(forks=1, hand=self.empty)
            else:
                yield "owner forks a worker", s._replace(forks=1, worker=s.hand)
        if s.owner.marks != s.owner_disk.marks:
            yield "owner's disk catches up", s._replace(owner_disk=s.owner)

    def use(self, s: State, at: int) -> Iterator[tuple[str, State | Broken]]:
        held = s.hand[at]
        if held == NOTHING:
            return
        if s.owner.marks[at] != held.lower():
            return
        if held == BITS_GONE:
            yield f"owner gives out key {at}", Broken(f"I2: key {at} is given out of bits that the owner has destroyed")
            return
        spent = s
        if not self.on("no_stored_free_list"):
            record = s.owner._replace(free=put(s.owner.free, at, NOTHING))
            spent = s._replace(owner=record, owner_disk=record)
        if held == SUPPLY:
            given = spent._replace(hand=put(s.hand, at, NOTHING), keys=count(s.keys, at))
            if s.merged and s.opened and not s.pending and not fetchable(s.follower, at):
                yield (
                    f"owner gives out key {at}",
                    Broken(f"I3: key {at} is given out over an open link that cannot serve it"),
                )
            else:
                yield f"owner gives out key {at}", given
        if held == PAD or (held == SUPPLY and not self.on("one_used_map") and s.plaintexts[at] == "0"):
            kept = s.hand if held == SUPPLY else put(s.hand, at, PAD_SENT)
            yield f"owner sends under pad {at}", spent._replace(hand=kept, plaintexts=count(s.plaintexts, at))
        if held == PAD_SENT and not self.on("same_ciphertext"):
            yield f"owner sends again under pad {at}", s._replace(plaintexts=count(s.plaintexts, at))

    def follower_steps(self, s: State) -> Iterator[tuple[str, State]]:
        b = s.follower
        for at in range(len(s.keys)):
            if s.keys[at] != "0" and self.serves(s, at):
                served = self.save_follower(s, b._replace(used=put(b.used, at, "1")), "used_durable")
                yield f"follower hands out key {at}", served._replace(fetched=count(s.fetched, at))
            if not self.on("owner_allocates") and b.marks[at] == PAD and s.hand[at] == PAD_SENT:
                yield f"follower sends under pad {at}", s._replace(plaintexts=count(s.plaintexts, at))
            if b.marks[at] == UNTOUCHED and s.expiries < self.scope.expiries:
                record = b._replace(marks=put(b.marks, at, TOUCHED), used=put(b.used, at, "1"))
                yield f"follower destroys segment {at}", self.save_follower(s, record)._replace(expiries=s.expiries + 1)
        if s.connected and s.opened and not s.to_owner and clock(b) > s.owner.told:
            yield "follower sends a statement", tell(s, ("tell", clock(b)))
        if b != s.follower_disk:
            yield "follower's disk catches up", s._replace(follower_disk=b)

    def serves(self, s: State, at: int) -> bool:
        b = s.follower
        if self.on("nothing_before_opening") and not s.opened:
            return False
        if self.on("serve_acknowledged_only") and b.marks[at] != SUPPLY:
            return False
        return b.used[at] == "0" or (not self.on("used_checked") and s.fetched[at] < "2")

    def faults(self, s: State) -> Iterator[tuple[str, State]]:
        if s.crashes < self.scope.crashes:
            crashed = s._replace(crashes=s.crashes + 1)
            yield "owner crashes and starts", self.start_owner(crashed)
            yield "follower crashes and starts", self.start_follower(crashed)
        if s.restores == self.scope.restores:
            return
        restored = s._replace(restores=s.restores + 1)
        if restored.restores == self.scope.restores:
            # Copies that cannot come back any more need no telling apart.
            blank = initial(self.scope.segments)
            restored = restored._replace(
                owner_copy=blank.owner, follower_copy=blank.follower, owner_copied=True, follower_copied=True
            )
        if self.together or not s.pending.startswith("follower"):
            disk = restored._replace(owner_disk=s.owner_copy, pending="owner")
            yield "owner is restored and starts", self.start_owner(disk)
            if not s.owner_copied and s.owner_copy != s.owner_disk:
                yield "owner's store is copied", s._replace(owner_copy=s.owner_disk, owner_copied=True)
        if self.together or s.pending != "owner":
            disk = restored._replace(follower_disk=s.follower_copy, pending="follower", follower_restored=True)
            yield "follower is restored and starts", self.start_follower(disk)
            if not s.follower_copied and s.follower_copy != s.follower_disk:
                yield "follower's store is copied", s._replace(follower_copy=s.follower_disk, follower_copied=True)

    def start_owner(self, s: State) -> State:
        record = s.owner_disk
        hand = self.empty
        if not self.on("burnt_by_restart"):
            hand = "".join(mark if mark in (SUPPLY, PAD) else NOTHING for mark in record.marks)
        if not self.on("no_stored_free_list"):
            hand = record.free
        return broken_off(s._replace(owner=record, hand=hand, worker=self.empty))

    def start_follower(self, s: State) -> State:
        anchor = s.anchor + 1
        record = s.follower_disk
        was_restored = record.start < s.anchor
        ends = record.ends + (record.journal,) * (anchor - len(record.ends))
        s = broken_off(s._replace(anchor=anchor, follower=record._replace(start=anchor, ends=ends), opened=False))
        if was_restored:
            return self.found_restored(s, (0, 0))
        return self.save_follower(s, s.follower)


def clock(b: Follower) -> tuple[int, int]:
    return b.start, b.journal


def broken_off(s: State) -> State:
    return s._replace(connected=False, to_follower=(), to_owner=(), merged=False, may_ask=False, asked=None)


def tell(s: State, frame: tuple[Any, ...]) -> State:
    return s._replace(to_owner=(*s.to_owner, frame))


def explore(scope: Scope, *off: str) -> Found:
    """Search with these rules off."""
    return search(initial(scope.segments), Leases(scope, frozenset(off)).steps, wrong)
