"""Requests that wait for key at one site, in the order of the design's priority."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Any

from keyhop.core.composed.nouns.messages import KeyAsked
from keyhop.core.designs.parts import Priority
from keyhop.core.policy.priority import Fifo, Waiting


class Request:
    """One demand of an application on its way through a site."""

    __slots__ = ("arrived_ns", "asked", "decided", "due_ns", "number", "pending", "takes_bits", "tries", "waited")

    def __init__(self, asked: KeyAsked, number: int, now: int) -> None:
        self.asked = asked
        self.number = number
        """By arrival."""
        self.arrived_ns = now
        self.due_ns = now + asked.deadline_ns
        self.pending = False
        """An exchange with the peer is under way for it."""
        self.takes_bits = asked.size_bits
        """Of the stock: more than the size where whole units are given."""
        self.waited = False
        self.decided = False
        self.tries = 0

    @property
    def waiting(self) -> Waiting:
        """As the priority sees it."""
        asked = self.asked
        return Waiting(
            self.number,
            self.arrived_ns,
            asked.size_bits,
            asked.security_level,
            asked.service_class,
            asked.category,
        )

    @property
    def stream(self) -> str:
        return self.asked.stream


class Requests:
    """Those that wait, per peer. Nothing is swept: it is looked at when stock grows or somebody new comes."""

    def __init__(self, priority: Priority) -> None:
        self._priority = priority
        self._by_arrival = isinstance(priority, Fifo)
        self._order: dict[str, list[tuple[Any, int]]] = {}
        """(rank, number) per peer, best first; those that wait no longer are passed over."""
        self._waiting: dict[str, dict[int, Request]] = {}
        self.bits: dict[str, int] = {}
        """Asked for by those who wait, by peer."""
        self.by_stream: dict[str, int] = {}
        """What those who wait take of the stock."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, request: Request) -> None:
        """Once is enough."""
        waiting = self._waiting.setdefault(request.asked.peer, {})
        if request.number not in waiting:
            waiting[request.number] = request
            if not self._by_arrival:
                key = self._priority.sort_key(request.waiting), request.number
                insort(self._order.setdefault(request.asked.peer, []), key)
            self.bits[request.asked.peer] = self.bits.get(request.asked.peer, 0) + request.asked.size_bits
            self.by_stream[request.stream] = self.by_stream.get(request.stream, 0) + request.takes_bits

    def remove(self, request: Request) -> None:
        if self._waiting.get(request.asked.peer, {}).pop(request.number, None) is not None:
            self.bits[request.asked.peer] -= request.asked.size_bits
            self.by_stream[request.stream] -= request.takes_bits

    def number(self, peer: str) -> int:
        return len(self._waiting.get(peer, ()))

    def any_for(self, peer: str) -> bool:
        return bool(self._waiting.get(peer))

    def of(self, peer: str) -> list[Request]:
        """Best first."""
        waiting = self._waiting.get(peer)
        if not waiting:
            return []
        if self._by_arrival:
            return list(waiting.values())
        order = self._order[peer]
        if len(order) > 2 * len(waiting):
            order = self._order[peer] = [entry for entry in order if entry[1] in waiting]
        return [waiting[number] for _, number in order if number in waiting]

    def first(self, peer: str) -> Request | None:
        """The best."""
        waiting = self._waiting.get(peer)
        if not waiting:
            return None
        if self._by_arrival:
            return next(iter(waiting.values()))
        return next(waiting[number] for _, number in self._order[peer] if number in waiting)

    def each(self, call: Callable[[Request], None]) -> None:
        for waiting in list(self._waiting.values()):
            for request in list(waiting.values()):
                call(request)
