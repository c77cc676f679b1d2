"""Services filled at the rate of their slots: what a site does of what the controller has granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import KeyAsked, StreamOpened
from keyhop.core.composed.relay.parcels import Parcel
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.relay.services import Controller
from keyhop.core.composed.stock.sessions import OwnedSessions
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.relay import HopByHop

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run
    from keyhop.core.composed.site import Site

PACE_NS = NANOSECONDS
"""A batch per service and time (K)."""
AHEAD = 3
"""Batches of a service that may be under way: what links cannot carry now is not made up for later (K)."""


class ServicePools(OwnedSessions):
    """A pool per service; what is carried for one is of no use to another."""

    filling = ""

    def fresh(self, run: Run, start: int, end: int) -> None:
        if self.filling and run.owner == self._line.own:
            run.pool(self.pool(self.filling)).put(start, end)
        else:
            super().fresh(run, start, end)


class Slots(HopWise):
    """Neighbours are a path of one link: their services have slots there like all others."""

    over_links = True

    def __init__(self, site: Site, part: HopByHop, admission: Reservation, controller: Controller) -> None:
        super().__init__(site, part)
        self._admission = admission
        self.controller = controller
        self._services: dict[str, str] = {}
        """Own ones, with their peers."""
        self._owed_bits: dict[str, int] = {}
        """Less than a unit of what slots have earned."""
        self._carried: dict[str, set[int]] = {}
        """Numbers of batches under way: to count them alone would take one off twice, where an answer comes late."""
        self._ticks = False

    def admitted(self) -> frozenset[str]:
        return frozenset(name for name in self._services if name in self.controller.services)

    def reaches(self, peer: str) -> bool:
        return peer in self._site.links or super().reaches(peer)

    def refusal(self, asked: KeyAsked) -> str:
        if asked.stream in self.controller.services:
            return ""
        return "REJECT: no path has so many slots free"

    def opened(self, stream: StreamOpened) -> None:
        if not stream.asks:
            return
        site, name = self._site, stream.stream
        self._services[name] = stream.peer
        self.controller.create(name, site.node, stream.peer, self._admission.slots(stream.rate_bps), site.now)
        if not self._ticks:
            self._ticks = True
            site.later(PACE_NS, self._tick)

    def retuned(self, stream: str, rate_bps: int) -> None:
        if stream in self._services:
            self.controller.modify(stream, self._admission.slots(rate_bps))

    def closed(self, stream: str) -> None:
        if self._services.pop(stream, None) is not None:
            self.controller.delete(stream)

    def restarted(self) -> None:
        super().restarted()
        self._carried.clear()

    def parted(self, peer: str) -> None:
        """What was on its way would else count for ever, and leave its service without another batch."""
        super().parted(peer)
        for name, other in self._services.items():
            if other == peer:
                self._carried.pop(name, None)

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        """A service gets what its slots bring, whoever waits."""

    def brings(self, line: Line) -> bool:
        return False

    def _tick(self) -> None:
        site = self._site
        self.controller.settle(site.now)
        for name, peer in self._services.items():
            granted, line = self.controller.services.get(name), site.line(peer, True)
            if granted is None or line is None:
                continue
            bits = self._owed_bits.get(name, 0) + granted.slots * self._admission.slot_bps * PACE_NS // NANOSECONDS
            unit_bits = line.run.unit_bits
            self._owed_bits[name] = bits % unit_bits
            carried = self._carried.setdefault(name, set())
            if bits >= unit_bits and len(carried) < AHEAD:
                carried.add(self._numbers + 1)
                self.start(line, bits - bits % unit_bits, granted.path, flow=name)
        self._ticks = bool(self._services)
        if self._ticks:
            site.later(PACE_NS, self._tick)

    def dropped(self, parcel: Parcel) -> None:
        if parcel.path[0] == self._site.node:
            self._arrived_of(parcel)
        super().dropped(parcel)

    def _look_again(self, line: Line, number: int) -> None:
        parcel = self._sent.get((line.peer, number))
        if parcel is not None:
            self._arrived_of(parcel)
        super()._look_again(line, number)

    def _arrived_of(self, parcel: Parcel) -> None:
        self._carried.get(parcel.flow, set()).discard(parcel.number)

    def enter(self, line: Line, owner: str, parcel: Parcel) -> None:
        pools = line.dealing
        if owner != line.own or not isinstance(pools, ServicePools):
            super().enter(line, owner, parcel)
            return
        self._arrived_of(parcel)
        pools.filling = parcel.flow if parcel.flow in self._services else ""
        super().enter(line, owner, parcel)
        pools.filling = ""
