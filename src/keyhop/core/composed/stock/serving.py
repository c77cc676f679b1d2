"""How a key leaves: out of a pool that one end owns, after the peer was asked, or taken first and told afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.composed.nouns.units import Units, count
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run


RECORD_NS = 60_000_000_000
"""Cisco: both copies of a key are erased after so long, fetched or not (K)."""
NO_RECORD = "no key of this name"


class Taken(NamedTuple):
    """Units that are out of the stock queues and booked by whoever gives them away."""

    run: Run
    ranges: tuple[Units, ...]
    label: str

    @property
    def bits(self) -> int:
        return count(self.ranges) * self.run.unit_bits


class Pending(NamedTuple):
    """The peer has been asked; the site hears of it later."""


PENDING = Pending()

Then = Callable[["Taken | None"], None]


def never(run: Run, why: str) -> Taken:
    """What `then` is called with where no other try would help: nothing, and the reason in place of the label."""
    return Taken(run, (), why)


class Serving(Protocol):
    def stock_bits(self, stream: str) -> int:
        """What this stream could draw on now; the empty stream is the key manager's own: pads of relay."""
        ...

    def take(self, stream: str, bits: int, then: Then) -> Taken | Pending | None:
        """At least so many bits in whole units; None if there are too few now. After Pending `then` is called, with
        None where nothing came of it and another try may help."""
        ...

    def fetch(self, name: Name) -> Taken | str | None:
        """At the other end, by name; None: not here yet; a text: why never."""
        ...

    def lends(self, label: str) -> bool:
        """Whether the peer may name key of this pool."""
        ...

    def restarted(self) -> None: ...


class FromPool:
    """The asking end owns the pool: it takes the oldest, the other end takes the same by name."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def stock_bits(self, stream: str) -> int:
        label = self._line.dealing.label(stream, True)
        run = self._line.run_of(label)
        return run.pool(label).level * run.unit_bits

    def take(self, stream: str, bits: int, then: Then) -> Taken | None:
        line = self._line
        label = line.dealing.label(stream, True)
        run = line.run_of(label)
        ranges = run.pool(label).take(-(-bits // run.unit_bits))
        return None if ranges is None else Taken(run, ranges, label)

    def fetch(self, name: Name) -> Taken | str | None:
        run = self._line.run_of(name.label)
        pool = run.known(name.label) if self.lends(name.label) else None
        return Taken(run, name.ranges, name.label) if pool is not None and pool.remove(name.ranges) else None

    def lends(self, label: str) -> bool:
        return self._line.dealing.lends(label)

    def restarted(self) -> None:
        pass


class Asked:
    """One end names the oldest free units, the other agrees if it has them free; then they are assigned at both.

    Proposals that cross: the lower name wins what both want (K).
    """

    def __init__(self, line: Line, kept_ns: int = 0) -> None:
        """`kept_ns`: after so long what was agreed and never fetched is erased; 0: never."""
        self._line = line
        self._kept_ns = kept_ns
        self._offered: list[tuple[Units, ...]] = []
        self._assigned: dict[tuple[Units, ...], None] = {}
        line.talk.handlers["PROPOSE"] = self._proposed

    def stock_bits(self, stream: str) -> int:
        run = self._line.run
        return run.free.level * run.unit_bits

    def take(self, stream: str, bits: int, then: Then) -> Taken | Pending | None:
        line, run = self._line, self._line.run
        ranges = run.free.take(-(-bits // run.unit_bits)) if line.talk.can_ask else None
        if ranges is None:
            return None
        run.held += count(ranges)
        self._offered.append(ranges)

        def done(answer: Kx) -> None:
            if ranges not in self._offered:
                # Lost to a proposal of the peer that crossed it; the request is tried again.
                then(None)
                return
            self._offered.remove(ranges)
            run.held -= count(ranges)
            line.intake.check()
            if answer.ok:
                then(Taken(run, ranges, ""))
                return
            # What the peer lacks is a hole there: it is of no use here.
            usable = subtract(ranges, answer.ranges)
            run.free.put_back(usable)
            line.gone(subtract(ranges, usable), "Y")
            then(None)

        def given_up() -> None:
            if ranges in self._offered:
                # The peer may have agreed: it is never offered again, and lost at this end.
                self._offered.remove(ranges)
                run.held -= count(ranges)
                line.gone(ranges, "Y")
            then(None)

        line.talk.ask(Kx("PROPOSE", Verb.ASSIGN, ranges=ranges), done, given_up=given_up)
        return PENDING

    def fetch(self, name: Name) -> Taken | str | None:
        if name.ranges not in self._assigned:
            # The peer answers only what was agreed here before.
            return NO_RECORD
        del self._assigned[name.ranges]
        self._line.run.held -= count(name.ranges)
        return Taken(self._line.run, name.ranges, "")

    def lends(self, label: str) -> bool:
        return not label

    def restarted(self) -> None:
        pass

    def _proposed(self, message: Kx) -> Kx:
        line, run = self._line, self._line.run
        crossing = [offer for offer in self._offered if overlap(offer, message.ranges)]
        if crossing and line.own < line.peer:
            return Kx("REFUSE", Verb.GIVE_BACK, ok=False)
        for offer in crossing:
            self._offered.remove(offer)
            run.held -= count(offer)
            run.free.put_back(offer)
        if not run.free.remove(message.ranges):
            return Kx("REFUSE", Verb.GIVE_BACK, ranges=self._lacking(message.ranges), ok=False)
        run.held += count(message.ranges)
        self._assigned[message.ranges] = None
        if self._kept_ns:
            line.site.later(self._kept_ns, self._expired, message.ranges)
        line.intake.check()
        return Kx("ACCEPT", Verb.ASSIGN, ranges=message.ranges)

    def _expired(self, ranges: tuple[Units, ...]) -> None:
        if ranges in self._assigned:
            del self._assigned[ranges]
            self._line.run.held -= count(ranges)
            self._line.gone(ranges, "X")

    def _lacking(self, ranges: Sequence[Units]) -> tuple[Units, ...]:
        """What will never be here: it lies below what has entered, and is in no queue and no exchange."""
        run = self._line.run
        free = (units for wanted in ranges for units in run.free.within(*wanted))
        held = [*free, *(units for offer in (*self._offered, *self._assigned) for units in offer)]
        return tuple((low, min(high, run.end)) for low, high in subtract(tuple(ranges), held) if low < run.end)


def overlap(one: Sequence[Units], other: Sequence[Units]) -> bool:
    return any(low < end and start < high for low, high in one for start, end in other)


def subtract(ranges: Sequence[Units], gone: Sequence[Units]) -> tuple[Units, ...]:
    """What of `ranges` lies in none of `gone`."""
    left = list(ranges)
    for start, end in gone:
        cut: list[Units] = []
        for low, high in left:
            cut += [part for part in ((low, min(high, start)), (max(low, end), high)) if part[0] < part[1]]
        left = cut
    return tuple(left)
