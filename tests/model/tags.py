"""One direction of a tag run: positions granted by the receiver, used once by the sender, whatever is lost or restored.

A position is one tag key. HELLO carries the sender's mark (PROOF covers it: opening.py); the receiver answers with a
first credit and may send more. Whoever records the link may play any recorded frame to the receiver at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .search import DEPTH, Broken, Found, search

RULES = {
    "never_granted_twice": "the receiver grants above all it ever granted, also what was never used",
    "grant_durable": "a grant is durable before the receiver says it",
    "above_claim": "the receiver grants above the sender's claimed mark too",
    "mark_durable": "the sender's mark passes a credit durably before its first use",
    "own_mark_checked": "the sender refuses a credit below its own mark or below one it holds",
    "mark_taken_at_opening": "on opening the sender's mark rises, durably, to the first credit, used or not",
    "old_grants_void": "the receiver accepts nothing at a position granted in an earlier connection",
    "in_order_once": "the receiver accepts granted positions in order, each once",
}


class Scope(NamedTuple):
    positions: int
    crashes: int
    restores: int
    odd_credits: int
    """Credits for any position whatever, from a receiver that breaks its rules."""


SCOPES: tuple[Scope, ...] = (
    Scope(positions=4, crashes=1, restores=3, odd_credits=0),
    Scope(positions=4, crashes=1, restores=0, odd_credits=2),
)
if DEPTH:
    SCOPES = (*SCOPES, Scope(positions=5, crashes=1, restores=4, odd_credits=0))

UNSENT, SENT, ACCEPTED, OLD = "-", "s", "a", "o"


class State(NamedTuple):
    mark: int
    """Of the sender: no position below it is used again."""
    mark_disk: int
    mark_copy: int
    granted: int
    """Of the receiver: no position below it is granted again."""
    granted_disk: int
    granted_copy: int
    connected: bool
    greeted: bool
    """The receiver has the HELLO of this connection."""
    opened: bool
    """The sender has the first credit of this connection."""
    credit: tuple[int, ...]
    expected: tuple[int, ...]
    to_receiver: tuple[tuple[str, int], ...]
    to_sender: tuple[int, ...]
    frames: str
    """Per position the frame that went out under it: of this connection, accepted, or of an earlier one."""
    pending: str
    crashes: int
    restores: int
    odd_credits: int


def initial(scope: Scope) -> State:
    return State(
        0, 0, 0, 0, 0, 0, False, False, False, (), (), (), (), UNSENT * scope.positions, "", 0, 0, 0
    )  # fmt: skip


def wrong(s: State) -> str | None:
    return None


class Tags:
    def __init__(self, scope: Scope, off: frozenset[str]) -> None:
        unknown = off - RULES.keys()
        if unknown:
            raise ValueError(f"unknown rules {sorted(unknown)}")
        self.scope = scope
        self.off = off

    def on(self, rule: str) -> bool:
        return rule not in self.off

    def steps(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        if s.connected:
            yield "the connection breaks", self.broken_off(s)
        else:
            yield (
                f"a connection opens, HELLO claims {s.mark}",
                s._replace(connected=True, to_receiver=(("hello", s.mark),)),
            )
        yield from self.receiver(s)
        yield from self.sender(s)
        yield from self.recorder(s)
        yield from self.faults(s)

    def receiver(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        if s.to_receiver:
            kind, number = s.to_receiver[0]
            rest = s._replace(to_receiver=s.to_receiver[1:])
            if kind == "frame":
                yield f"receiver receives frame {number}", self.receive(rest, number)
            else:
                claimed = max(s.granted, number) if self.on("above_claim") else s.granted
                if s.pending == "receiver":
                    rest = rest._replace(pending="")
                if claimed < self.scope.positions:
                    yield f"receiver greets and grants {claimed}", self.grant(rest._replace(greeted=True), claimed)
        if s.greeted and len(s.expected) < 2 and s.granted < self.scope.positions:
            yield f"receiver grants {s.granted}", self.grant(s, s.granted)
        if s.granted != s.granted_disk:
            yield "receiver's disk catches up", s._replace(granted_disk=s.granted)

    def grant(self, s: State, position: int) -> State:
        if self.on("grant_durable"):
            s = s._replace(granted_disk=position + 1)
        return s._replace(
            granted=position + 1, expected=(*s.expected, position), to_sender=(*s.to_sender, position)
        )  # fmt: skip

    def receive(self, s: State, position: int) -> State | Broken:
        """What the receiver does with a frame: accept it, or close the connection."""
        if not s.greeted:
            return self.broken_off(s)
        if self.on("in_order_once"):
            if s.expected[:1] != (position,):
                return self.broken_off(s)
            s = s._replace(expected=s.expected[1:])
        elif position not in s.expected:
            return self.broken_off(s)
        if s.frames[position] == OLD:
            return Broken(f"I6: the receiver accepts frame {position} of an earlier connection")
        if s.frames[position] == ACCEPTED:
            return Broken(f"I6: the receiver accepts frame {position} twice")
        return s._replace(frames=put(s.frames, position, ACCEPTED))

    def sender(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        if s.to_sender:
            position = s.to_sender[0]
            rest = s._replace(to_sender=s.to_sender[1:])
            yield f"sender receives credit {position}", self.take(rest, position)
        if s.opened and s.credit:
            position = s.credit[0]
            if s.frames[position] != UNSENT:
                yield f"sender sends at {position}", Broken(f"I6: tag key {position} masks two messages")
                return
            used = s._replace(mark=max(s.mark, position + 1), credit=s.credit[1:])
            if self.on("mark_durable"):
                used = used._replace(mark_disk=used.mark)
            used = used._replace(
                frames=put(s.frames, position, SENT), to_receiver=(*s.to_receiver, ("frame", position))
            )  # fmt: skip
            yield f"sender sends at {position}", used
        if s.mark != s.mark_disk:
            yield "sender's disk catches up", s._replace(mark_disk=s.mark)

    def take(self, s: State, position: int) -> State:
        held_above = s.credit[-1] + 1 if s.credit else 0
        if position < max(s.mark, held_above) and self.on("own_mark_checked"):
            return self.broken_off(s)
        if not s.opened:
            s = s._replace(opened=True, pending="" if s.pending == "sender" else s.pending)
            if self.on("mark_taken_at_opening"):
                s = s._replace(mark=max(s.mark, position), mark_disk=max(s.mark, position))
        return s._replace(credit=(*s.credit, position))

    def recorder(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        if not s.greeted:
            return
        for position, frame in enumerate(s.frames):
            if frame == UNSENT:
                continue
            after = self.receive(s, position)
            if isinstance(after, Broken) or after.connected:
                yield f"a recorded frame {position} is played to the receiver", after

    def faults(self, s: State) -> Iterator[tuple[str, State]]:
        if s.odd_credits < self.scope.odd_credits and s.connected and s.greeted:
            for position in range(self.scope.positions):
                odd = s._replace(odd_credits=s.odd_credits + 1, to_sender=(*s.to_sender, position))
                yield f"an odd receiver grants {position}", odd
        if s.crashes < self.scope.crashes:
            crashed = s._replace(crashes=s.crashes + 1)
            yield "sender crashes and starts", self.start_sender(crashed)
            yield "receiver crashes and starts", self.start_receiver(crashed)
        if s.restores == self.scope.restores:
            return
        restored = s._replace(restores=s.restores + 1)
        if s.pending != "receiver":
            for old in {0, s.mark_copy}:
                disk = restored._replace(mark_disk=old, pending="sender")
                yield f"sender is restored to {old} and starts", self.start_sender(disk)
            if s.mark_copy != s.mark_disk:
                yield "sender's store is copied", s._replace(mark_copy=s.mark_disk)
        if s.pending != "sender":
            for old in {0, s.granted_copy}:
                disk = restored._replace(granted_disk=old, pending="receiver")
                yield f"receiver is restored to {old} and starts", self.start_receiver(disk)
            if s.granted_copy != s.granted_disk:
                yield "receiver's store is copied", s._replace(granted_copy=s.granted_disk)

    def start_sender(self, s: State) -> State:
        return self.broken_off(s)._replace(mark=s.mark_disk, credit=())

    def start_receiver(self, s: State) -> State:
        return self.broken_off(s)._replace(granted=s.granted_disk, expected=())

    def broken_off(self, s: State) -> State:
        granted = s.granted
        if s.expected and not self.on("never_granted_twice"):
            granted = s.expected[0]
        return s._replace(
            connected=False,
            greeted=False,
            opened=False,
            granted=granted,
            granted_disk=granted if granted != s.granted else s.granted_disk,
            credit=(),
            expected=() if self.on("old_grants_void") else s.expected,
            to_receiver=(),
            to_sender=(),
            frames=s.frames.replace(SENT, OLD).replace(ACCEPTED, OLD),
        )


def put(row: str, at: int, mark: str) -> str:
    return row[:at] + mark + row[at + 1 :]


def explore(scope: Scope, *off: str) -> Found:
    """Search with these rules off."""
    return search(initial(scope), Tags(scope, frozenset(off)).steps, wrong)
