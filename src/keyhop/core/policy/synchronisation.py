"""How both ends come to the same range."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import permutations
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Lease:
    """The owner reserves ahead with one acknowledged lease per some seconds; keys inside it need no message."""

    seconds: float = 10.0
    min_bytes: int = 1024
    max_bytes: int = 8 << 20

    def size(self, demand_bytes_per_s: float) -> int:
        """Bytes to lease for the next `seconds` at this demand."""
        return max(self.min_bytes, min(self.max_bytes, int(demand_bytes_per_s * self.seconds)))

    def low(self, lease_bytes: int) -> int:
        """Below this the next lease is asked for, so that it is there before this one ends."""
        return lease_bytes // 2


class Verb(StrEnum):
    """All that messages between key managers say of ranges, in any design."""

    AGREE = "agree"
    """A block enters the run."""
    ASSIGN = "assign"
    """To an end, a purpose, a pool or a name."""
    TAKE = "take"
    GIVE_BACK = "give back"
    DESTROY = "destroy"


class Move(NamedTuple):
    """A verb on a range; positions count units where the run has a unit, else bytes."""

    verb: Verb
    start: int
    length: int = 1
    to: str = ""


def moves(verb: Verb, units: Iterable[int], to: str = "") -> tuple[Move, ...]:
    """The same verb on many units, neighbours together."""
    found: list[Move] = []
    start = end = -1
    for unit in sorted(units):
        if unit == end:
            end += 1
            continue
        if start < end:
            found.append(Move(verb, start, end - start, to))
        start, end = unit, unit + 1
    if start < end:
        found.append(Move(verb, start, end - start, to))
    return tuple(found)


class Hold(NamedTuple):
    """A reservation at one end."""

    by: str
    until_ns: int


@dataclass(frozen=True, slots=True)
class AppNegotiated:
    """The applications agree on a unit, each reserves and gets it at its own end; key managers say nothing (DARPA, S).

    A store is a mapping from unit to its hold, None while it is available.
    """

    pick: Literal["lowest", "highest"] = "lowest"
    """(K)"""
    reserve_ns: int = 30_000_000_000
    """(K)"""
    retries: int = 5
    """After a refusal by the other end (K)."""
    backoff_ns: int = 1_000_000_000
    """The longest wait before a retry (K)."""

    def listed(self, store: Mapping[int, Hold | None], now_ns: int) -> list[int]:
        return sorted(unit for unit, hold in store.items() if hold is None or hold.until_ns <= now_ns)

    def next_unit(self, listed: Sequence[int], tried: Collection[int]) -> int | None:
        """Which unit to offer; None if none is left to try."""
        left = [unit for unit in listed if unit not in tried] if len(tried) <= self.retries else []
        return (min(left) if self.pick == "lowest" else max(left)) if left else None

    def reserve(self, unit: int, by: str, store: Mapping[int, Hold | None], now_ns: int) -> tuple[Hold, Move] | None:
        """None if it is busy or gone."""
        if unit not in self.listed(store, now_ns):
            return None
        return Hold(by, now_ns + self.reserve_ns), Move(Verb.ASSIGN, unit, to=by)

    def get(self, unit: int, by: str, store: Mapping[int, Hold | None], now_ns: int) -> tuple[Move, ...]:
        """Nothing unless this application holds the unit (NOT_RESERVED)."""
        hold = store.get(unit)
        if hold is None or hold.by != by or hold.until_ns <= now_ns:
            return ()
        return Move(Verb.TAKE, unit), Move(Verb.DESTROY, unit)

    def expired(self, store: Mapping[int, Hold | None], now_ns: int) -> tuple[Move, ...]:
        return moves(Verb.GIVE_BACK, (unit for unit, hold in store.items() if hold and hold.until_ns <= now_ns))

    def backoff(self, draw: float) -> int:
        """Nanoseconds to wait, for a number drawn from 0 to 1: or both ends would meet again."""
        return int(draw * self.backoff_ns)


MIRROR = {"incoming": "outgoing", "outgoing": "incoming"}


@dataclass(frozen=True, slots=True)
class StoreLoad:
    """STORE makes both ends agree that a key exists, LOAD moves agreed keys to buffers of one direction (SECOQC, S).

    How much a LOAD moves says the refill (`Sated`).
    """

    store_ns: int = 1_000_000_000
    """How often STORE is sent (K)."""
    load_ns: int = 1_000_000_000
    """How often LOAD is considered (C)."""
    answer_ns: int = 5_000_000_000
    """Silence after which a LOAD is given up (C)."""
    store_retries: int = 3
    """Times that a key the peer lacks is offered (K)."""

    def stored(self, offers: Mapping[int, int], confirmed: Collection[int]) -> tuple[Move, ...]:
        """Of units and how often each was offered: those the peer has, alike, are agreed; some are given up (Y)."""
        given_up = (unit for unit, tries in offers.items() if unit not in confirmed and tries >= self.store_retries)
        agreed = moves(Verb.AGREE, (unit for unit in offers if unit in confirmed), "common")
        return agreed + moves(Verb.DESTROY, given_up)

    def load(
        self, common: Iterable[int], incoming: int, application: int, bound: Mapping[int, str] | None = None
    ) -> tuple[Move, ...]:
        """The lowest units to the incoming, the next to the application buffer; `bound` ones where they were offered.

        A unit of a lost LOAD may be in use in its direction at the peer: offered in the other it would encrypt twice.
        """
        waiting = sorted(common)
        found: tuple[Move, ...] = ()
        for to, count in (("incoming", incoming), ("application", application)):
            chosen = [unit for unit in waiting if not bound or bound.get(unit, to) == to][:count]
            gone = set(chosen)
            waiting = [unit for unit in waiting if unit not in gone]
            found += moves(Verb.ASSIGN, chosen, to)
        return found

    def mirrored(self, load: Sequence[Move]) -> tuple[Move, ...]:
        """What the peer does of it: what comes in here goes out there."""
        return tuple(move._replace(to=MIRROR.get(move.to, move.to)) for move in load)

    def answered(self, load: Sequence[Move], moved: Collection[int] | None) -> tuple[Move, ...]:
        """Once LOAD-ACK names what moved, or is given up (None): then `to` says where alone it may be offered again."""
        found: tuple[Move, ...] = ()
        for _, start, length, to in load:
            units = range(start, start + length)
            if moved is None:
                found += (Move(Verb.GIVE_BACK, start, length, to),)
            else:
                found += moves(Verb.TAKE, (unit for unit in units if unit in moved), to)
                found += moves(Verb.GIVE_BACK, (unit for unit in units if unit not in moved))
        return found


class Stamps(NamedTuple):
    """What SYNC says of one end: the stamp it waits for, and the first of the chunk it has from there on."""

    expected: int
    received: int


@dataclass(frozen=True, slots=True)
class StampSequence:
    """Every byte has a running stamp from privacy amplification on; a gap is a loss at one end (NIST, S)."""

    on_gap: Literal["restart", "last_sync_point", "unseen"] = "last_sync_point"
    """Both are named (S); which is the default is ours (K). unseen: stamps are off, to show what they are for."""

    def arrived(self, expected: int, first: int, length: int) -> tuple[tuple[Move, ...], int] | None:
        """(moves, the stamp expected next); None if SYNC must settle a gap first. Stamps seen are passed over."""
        if self.on_gap == "unseen":
            # What was lost is not missed: all that follows moves up.
            return (Move(Verb.AGREE, expected, length),), expected + length
        end = first + length
        if first <= expected:
            new = end - expected
            return ((Move(Verb.AGREE, expected, new),) if new > 0 else ()), max(expected, end)
        if self.on_gap == "restart":
            return self.restarted(expected, end)[0] + (Move(Verb.DESTROY, first, length),), end
        return None

    def restarted(self, own_end: int, floor: int) -> tuple[tuple[Move, ...], int]:
        """Both ends drop all that is unread below the end of the chunk that showed the gap (Y) and go on from there."""
        dropped = min(own_end, floor)
        return ((Move(Verb.DESTROY, 0, dropped),) if dropped else ()), max(own_end, floor)

    def base(self, own: Stamps, peer: Stamps) -> int:
        """From where on both ends have everything (K)."""
        return max(own.received, peer.received)

    def resynchronised(self, own: Stamps, peer: Stamps, own_end: int) -> tuple[tuple[Move, ...], int]:
        """What this end drops (Y) and keeps, and the stamp it expects next; what was agreed before stays."""
        base = self.base(own, peer)
        dropped = max(0, min(base, own_end) - own.received)
        found = (Move(Verb.DESTROY, own.received, dropped),) if dropped else ()
        kept = max(0, own_end - base)
        return found + ((Move(Verb.AGREE, base, kept),) if kept else ()), base + kept


@dataclass(frozen=True, slots=True)
class ProposeAccept:
    """One end names ranges, the other says whether it holds them all, and both assign or neither (K)."""

    by: Literal["master", "asker"] = "master"
    """master: the lower name (QCC: the lower IP address, S); asker: whose application asked (Cisco, S)."""

    def proposer(self, own: str, peer: str, asker: str) -> str:
        return min(own, peer) if self.by == "master" else asker

    def propose(self, free: Iterable[int], count: int) -> tuple[int, ...]:
        """The oldest units; none if there are too few."""
        chosen = tuple(sorted(free)[:count])
        return chosen if len(chosen) == count else ()

    def accepts(self, proposed: Collection[int], held: Collection[int]) -> bool:
        return bool(proposed) and all(unit in held for unit in proposed)

    def settled(self, proposed: Iterable[int], accepted: bool, to: str) -> tuple[Move, ...]:
        return moves(Verb.ASSIGN, proposed, to) if accepted else moves(Verb.GIVE_BACK, proposed)

    def stands(self, own: str, peer: str, own_units: Collection[int], peer_units: Collection[int]) -> bool:
        """Whether our proposal goes on although the peer's has crossed it: the lower name wins what both want (K)."""
        return own < peer or not set(own_units) & set(peer_units)


Phase = Literal["prepared", "committed", "aborted"]


@dataclass(frozen=True, slots=True)
class TwoPhaseCommit:
    """Units are dealt by a rule both ends know; rule and floor change under a two-phase commit (MagiQ, S).

    The lower name coordinates (K); whoever votes yes has written it down before.
    """

    announce_ns: int = 1_000_000_000
    """How often ends tell how far they have dealt (K)."""
    announce: Literal["mark", "explicit"] = "mark"
    """The last unit, or every unit with whose it is (K)."""

    def announced(self, dealt: Sequence[int]) -> tuple[int, ...]:
        return tuple(dealt[-1:]) if self.announce == "mark" else tuple(dealt)

    def votes(self, from_unit: int, dealt_up_to: int) -> bool:
        """Whether a rule may begin there: an end that has dealt further would hold what the other deals anew."""
        return dealt_up_to < from_unit

    def later(self, from_unit: int, dealt_up_to: int, ahead: int = 1) -> int:
        """Where the coordinator tries again after a refusal."""
        return max(from_unit, dealt_up_to) + max(1, ahead)

    def decides(self, votes: Sequence[bool | None], timed_out: bool = False) -> Phase | None:
        """The coordinator's word; None while a vote is out."""
        if False in votes or (timed_out and None in votes):
            return "aborted"
        return None if None in votes else "committed"

    def resolved(self, logged: Phase | None, coordinator: Phase | None) -> Phase | None:
        """What a restarted participant takes as the outcome; None if it must go on asking.

        Who never voted yes cannot have been waited for: that is an abort.
        """
        if logged is None:
            return "aborted"
        if logged != "prepared":
            return logged
        return None if coordinator == "prepared" else coordinator

    def purged(self, stamps_ns: Sequence[int], before_ns: int, first: int = 0) -> tuple[Move, ...]:
        """The records, in time order from unit `first`, that go at both ends or at neither."""
        count = sum(stamp < before_ns for stamp in stamps_ns)
        return (Move(Verb.DESTROY, first, count),) if count else ()

    def audited(self, differing: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The (start, length) whose digests are compared in the next round: halves of those that differ.

        Ranges of one unit that differ are found: they are destroyed at both ends (Y).
        """
        found: list[tuple[int, int]] = []
        for start, length in differing:
            if length > 1:
                found += [(start, length // 2), (start + length // 2, length - length // 2)]
        return found


@dataclass(frozen=True, slots=True)
class VerifyBatch:
    """Keys are compared under one tag and enter at both ends or at neither (AIT, NECTEC: S)."""

    n: int = 64
    """Keys in a batch (K)."""
    check: Literal["tag", "mac"] = "mac"
    """A tag under a one-time key over each block, or one MAC over message and key."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"verify_batch.n = {self.n}: must be 1 or more")

    def batches(self, units: Sequence[int]) -> list[tuple[int, ...]]:
        """Of equal size but for the last."""
        return [tuple(units[at : at + self.n]) for at in range(0, len(units), self.n)]

    def verified(self, batch: Sequence[int], differing: Collection[int]) -> tuple[Move, ...]:
        """`differing`: units whose tag fails, or any unit if a batch has but one MAC: then all of it goes (S, K)."""
        bad = set(batch) if differing and self.check == "mac" else set(differing)
        return moves(Verb.AGREE, set(batch) - bad) + moves(Verb.DESTROY, bad & set(batch))

    def overhead(self, key_bits: int, check_bits: int = 128) -> Fraction:
        """Bits of check per bit of key: one MAC for a batch, one tag for each block."""
        return Fraction(check_bits, key_bits * (self.n if self.check == "mac" else 1))


class Serving(NamedTuple):
    """One end's view of the working set in use."""

    number: int = 0
    own: int = 0
    peer: int = 0
    """Units each end is known to have served of it."""
    last: int = -1
    """The highest unit known to be served, for ends that both go upwards."""


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """A few units are used first and told afterwards, one end going upwards, the other downwards (Quantum Canada, S).

    Units number from 0. What both served before they heard of it is destroyed at both ends (C).
    """

    size: int | Literal["all"] = 64
    """(K); all: the whole store, which fragments it (not recommended, S)."""
    ends: Literal["opposite", "same"] = "opposite"
    """same: both go upwards, to show what the sets are for."""

    def __post_init__(self) -> None:
        if self.size != "all" and self.size < 1:
            raise ValueError(f"working_set.size = {self.size}: must be 1 or more, or all")

    def serve(self, view: Serving, head: bool, stock: int) -> tuple[Move, Serving] | None:
        """The next unit of this end, of a store of so many; None if there is no further one."""
        if self.ends == "same":
            unit = view.last + 1
            return (Move(Verb.TAKE, unit), view._replace(last=unit)) if unit < stock else None
        size = stock if self.size == "all" else self.size
        if view.own + view.peer >= min(size, stock - view.number * size):
            view = Serving(view.number + 1)
        start, length = view.number * size, min(size, stock - view.number * size)
        if length <= 0:
            return None
        unit = start + (view.own if head else length - 1 - view.own)
        return Move(Verb.TAKE, unit), view._replace(own=view.own + 1)

    def told(self, view: Serving, unit: int, served: Collection[int]) -> tuple[tuple[Move, ...], Serving]:
        """USED(unit) from the peer, whose messages keep their order; `served` here and perhaps there too."""
        collided = (Move(Verb.DESTROY, unit),) if unit in served else ()
        number = 0 if self.size == "all" else unit // self.size
        view = view._replace(last=max(view.last, unit))
        if number > view.number:
            # The peer goes on to the next set only when both together have served this one.
            view = Serving(number, last=view.last)
        return collided, view._replace(peer=view.peer + 1) if number == view.number else view


@dataclass(frozen=True, slots=True)
class DirectedPool:
    """One pool per ordered pair; its source alone assigns, in order, the other end follows (NEC and others, S).

    Nothing is contested, so nothing collides.
    """

    def pools(self, nodes: Sequence[str]) -> list[tuple[str, str]]:
        """(source, destination)"""
        return list(permutations(nodes, 2))

    def assign(self, next_unit: int, confirmed_up_to: int, count: int, to: str) -> Move | None:
        """The next units of those the far end has confirmed; before that none may be supplied (NEC, K)."""
        return Move(Verb.ASSIGN, next_unit, count, to) if next_unit + count <= confirmed_up_to else None

    def follows(self, assigned_up_to: int, stock_end: int, assigned: Move) -> bool:
        """Whether the far end may take the source's word: nothing is assigned twice, nor beyond what it holds."""
        return assigned_up_to <= assigned.start and assigned.start + assigned.length <= stock_end
