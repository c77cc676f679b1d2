"""Blocks that applications list, reserve and get at their own key managers, and agree on among themselves (DARPA)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.nouns.units import Units, count
from keyhop.core.composed.stock.serving import PENDING, Pending, Taken, Then, never
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import AppNegotiated, Hold, Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line

OFFER, ACCEPT, BUSY = "OFFER", "ACCEPT", "BUSY"
NOT_RESERVED = "NOT_RESERVED"


class Negotiation:
    """One of an application here with its peer, until one offer is accepted."""

    __slots__ = ("by", "then", "tried", "units")

    def __init__(self, by: str, units: int, then: Then) -> None:
        self.by = by
        self.units = units
        self.then = then
        self.tried: list[int] = []
        """The first unit of each offer that was refused."""


class Reservation(NamedTuple):
    ranges: tuple[Units, ...]
    hold: Hold


class Negotiated:
    """`listed`, `reserve` and `get` are the key manager's (S); offers ride in messages of the applications and cost no
    tag (R). What is refused is released, and the next block is offered after a back-off (K).

    A block that the peer does not have any more is thrown away when it is refused for that (K): the peer's memory was
    lost, and whoever offers the lowest block first would offer it for ever.
    """

    def __init__(self, line: Line, part: AppNegotiated) -> None:
        self._line = line
        self._part = part
        self._number = 0
        self._reserved: dict[tuple[Units, ...], Hold] = {}
        self._fetchable: dict[tuple[Units, ...], Hold] = {}
        """Those of them that were reserved for the peer's application."""
        line.talk.handlers[OFFER] = self._offered

    def stock_bits(self, stream: str) -> int:
        run = self._line.run
        return run.free.level * run.unit_bits

    def take(self, stream: str, bits: int, then: Then) -> Pending | None:
        run = self._line.run
        units = -(-bits // run.unit_bits)
        if units > run.free.level:
            return None
        self._number += 1
        self._offer(Negotiation(f"{self._line.own}/{self._number}", units, then))
        return PENDING

    def fetch(self, name: Name) -> Taken | str | None:
        hold = self._fetchable.pop(name.ranges, None)
        return NOT_RESERVED if hold is None else self.get(name.ranges, hold.by)

    def lends(self, label: str) -> bool:
        return not label

    def restarted(self) -> None:
        """Blocks in memory are gone (S: volatile)."""
        storage = self._line.design.storage
        if isinstance(storage, FixedBlock) and storage.survives_restart:
            return
        run = self._line.run
        for ranges in self._reserved:
            run.held -= count(ranges)
            self._line.gone(ranges, "Y")
        self._reserved.clear()
        self._fetchable.clear()
        self._line.forget_stock()

    # --- what the key manager offers to its applications --------------------------------------------------------------

    def listed(self, number: int | None = None) -> list[int]:
        """LIST: units that nobody has reserved, the first so many of them."""
        free = self._line.run.free
        number = free.level if number is None else min(number, free.level)
        found = (free.front(number) if self._part.pick == "lowest" else free.back(number)) or ()
        return [unit for low, high in found for unit in range(low, high)]

    def reserve(self, ranges: tuple[Units, ...], by: str) -> bool:
        """RESERVE: False if any of it is busy or gone."""
        line, run = self._line, self._line.run
        first = ranges[0][0]
        store = {first: None} if run.free.has(ranges) else {}
        held = self._part.reserve(first, by, store, line.site.now)
        if held is None:
            return False
        run.free.remove(ranges)
        run.held += count(ranges)
        self._reserved[ranges] = held[0]
        line.site.later(self._part.reserve_ns, self._expired, Reservation(ranges, held[0]))
        return True

    def get(self, ranges: tuple[Units, ...], by: str) -> Taken | str:
        """GET: the key manager destroys its copy."""
        first, hold = ranges[0][0], self._reserved.get(ranges)
        if not self._part.get(first, by, {first: hold}, self._line.site.now):
            return NOT_RESERVED
        self._drop(ranges)
        return Taken(self._line.run, ranges, "")

    def release(self, ranges: tuple[Units, ...], by: str) -> None:
        hold = self._reserved.get(ranges)
        if hold is not None and hold.by == by:
            self._drop(ranges)
            self._line.run.free.put_back(ranges)

    # --- the applications ---------------------------------------------------------------------------------------------

    def _offer(self, negotiation: Negotiation) -> None:
        ranges = self._choice(negotiation)
        if ranges is None:
            negotiation.then(never(self._line.run, f"the peer refused {len(negotiation.tried)} offers"))
            return
        reserved = self.reserve(ranges, negotiation.by)
        assert reserved, "listed and not free"

        def done(answer: Kx) -> None:
            if answer.ok:
                taken = self.get(ranges, negotiation.by)
                negotiation.then(taken if isinstance(taken, Taken) else never(self._line.run, taken))
                return
            self.release(ranges, negotiation.by)
            for lacking in answer.ranges:
                self._line.destroy(lacking, "Y")
            negotiation.tried.append(ranges[0][0])
            site = self._line.site
            site.later(self._part.backoff(site.draw()), self._offer, negotiation)

        def given_up() -> None:
            self.release(ranges, negotiation.by)
            negotiation.then(never(self._line.run, "the peer's application does not answer"))

        self._line.talk.ask(Kx(OFFER, Verb.ASSIGN, ranges=ranges, to=negotiation.by, tags=0), done, given_up=given_up)

    def _choice(self, negotiation: Negotiation) -> tuple[Units, ...] | None:
        """The next unit that was not refused, and those after it."""
        listed = self.listed(len(negotiation.tried) + negotiation.units)
        first = self._part.next_unit(listed, negotiation.tried)
        if first is None:
            return None
        left = [unit for unit in listed if unit not in negotiation.tried]
        chosen = sorted([first, *(unit for unit in left if unit != first)][: negotiation.units])
        return neighbours(chosen) if len(chosen) == negotiation.units else None

    def _offered(self, message: Kx) -> Kx:
        """The peer's application has reserved these at its end."""
        if not message.to.startswith(f"{self._line.peer}/"):
            raise Malformed(f"{OFFER} by {message.to[:64]!r}, no application of {self._line.peer}")
        if not self.reserve(message.ranges, message.to):
            return Kx(BUSY, Verb.GIVE_BACK, ranges=self._lacking(message.ranges[0][0]), ok=False, tags=0)
        self._fetchable[message.ranges] = self._reserved[message.ranges]
        return Kx(ACCEPT, Verb.ASSIGN, ranges=message.ranges, tags=0)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _lacking(self, unit: int) -> tuple[Units, ...]:
        """From this unit on, as far as nothing is here and nothing will come."""
        run = self._line.run
        here = [*run.free, *(units for ranges in self._reserved for units in ranges)]
        first = min((low for low, high in here if high > unit), default=run.end)
        return ((unit, first),) if unit < first else ()

    def _drop(self, ranges: tuple[Units, ...]) -> None:
        del self._reserved[ranges]
        self._fetchable.pop(ranges, None)
        self._line.run.held -= count(ranges)

    def _expired(self, reservation: Reservation) -> None:
        if self._reserved.get(reservation.ranges) is reservation.hold:
            self.release(reservation.ranges, reservation.hold.by)


def neighbours(units: list[int]) -> tuple[Units, ...]:
    """Ascending units as ranges."""
    found: list[Units] = []
    for unit in units:
        if found and found[-1][1] == unit:
            found[-1] = (found[-1][0], unit + 1)
        else:
            found.append((unit, unit + 1))
    return tuple(found)
