"""Who may take of a stock at this moment: guaranteed, prioritised and best-effort streams of one link or one pool.

What a guarantee may claim before the next block lies in the stock, and nobody else touches it; everything above is lent
to whoever asks. So a reservation costs a fixed amount of stock while it is idle, none of the rate, and its owner has it
back at once. Best effort has a bucket of its own, the floor, that prioritised streams leave alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from keyhop.core.policy_rules import ServiceClass
from keyhop.core.services.buckets import Bucket
from keyhop.core.services.promises import Contract, held_for_gap
from keyhop.core.services.rounds import Rounds

QUEUE_LIMIT = 1024
"""Requests of one stream that wait."""
QUANTUM_BITS = 8192

GUARANTEED, PRIORITISED, BEST_EFFORT = ServiceClass.GUARANTEED, ServiceClass.PRIORITISED, ServiceClass.BEST_EFFORT


class Served(NamedTuple):
    stream: str
    ticket: int
    bits: int


class Queued(NamedTuple):
    ticket: int
    bits: int


@dataclass(slots=True)
class _Stream:
    service_class: ServiceClass
    weight: int
    bucket: Bucket | None = None
    """What its contract gives; nothing else of it is guaranteed."""
    held_for_gap: int = 0
    queue: deque[Queued] = field(default_factory=deque)


class Shares:
    """Memory of one stock. The stock itself is the caller's: it says how much there is, and takes what is served."""

    def __init__(
        self,
        rate_bps: int,
        gap_ns: int,
        now: int,
        *,
        floor: Fraction = Fraction(1, 10),
        reserve_bits: int = 0,
        quantum_bits: int = QUANTUM_BITS,
        floor_burst_bits: int = 0,
    ) -> None:
        """`gap_ns`: the longest time between two blocks. `floor_burst_bits`: the largest key best effort may ask."""
        self.reserve_bits = reserve_bits
        self.beside: Callable[[], int] = lambda: 0
        """Bits of the stock that others hold who take their part elsewhere: no contract here goes without for them."""
        self._floor_share = floor
        self._least_burst = max(floor_burst_bits, quantum_bits)
        self._streams: dict[str, _Stream] = {}
        self._guaranteed: dict[str, _Stream] = {}
        self._floor = Bucket(0, 1, now)
        self.measured(rate_bps, gap_ns, now)
        self._floor = Bucket(self._floor.rate, self._floor.burst, now)
        self._rounds = {PRIORITISED: Rounds(quantum_bits), BEST_EFFORT: Rounds(quantum_bits)}
        self._queued = {PRIORITISED: 0, BEST_EFFORT: 0}
        self._tickets = 0

    def measured(self, rate_bps: int, gap_ns: int, now: int) -> None:
        """The link gives key at another rate, or in blocks further apart."""
        self._gap_ns = gap_ns
        floor_bps = int(rate_bps * self._floor_share)
        self._has_floor = floor_bps > 0
        self._floor.change(floor_bps, max(self._least_burst, 2 * held_for_gap(floor_bps, gap_ns)), now)
        for one in self._guaranteed.values():
            if one.bucket is not None:
                one.held_for_gap = held_for_gap(one.bucket.rate, gap_ns)

    def join(
        self, stream: str, service_class: ServiceClass, now: int, *, contract: Contract | None = None, weight: int = 1
    ) -> None:
        """A guaranteed stream comes with the contract that was admitted; its burst is there at once."""
        if stream in self._streams:
            raise ValueError(f"stream {stream} has joined already")
        if (contract is not None) != (service_class is GUARANTEED) or weight < 1:
            raise ValueError(f"stream {stream}: only {GUARANTEED} streams have a contract, and weights are 1 or more")
        joined = _Stream(service_class, weight)
        if contract is not None:
            joined.bucket = Bucket(contract.rate_bps, contract.burst_bits, now)
            joined.held_for_gap = held_for_gap(contract.rate_bps, self._gap_ns)
            self._guaranteed[stream] = joined
        self._streams[stream] = joined

    def leave(self, stream: str) -> list[int]:
        """Tickets that waited and will not be served."""
        left = self._streams.pop(stream)
        self._guaranteed.pop(stream, None)
        for service_class in self._rounds:
            self._rounds[service_class].remove(stream)
        self._queued[_waits_as(left)] -= sum(request.bits for request in left.queue)
        return [request.ticket for request in left.queue]

    def rejoin(
        self, stream: str, service_class: ServiceClass, now: int, *, contract: Contract | None = None, weight: int = 1
    ) -> None:
        """Its class or contract changes; what waits goes on waiting, behind those of the new class."""
        waiting = list(self._streams[stream].queue)
        self.leave(stream)
        self.join(stream, service_class, now, contract=contract, weight=weight)
        for request in waiting:
            self._enqueue(stream, request)

    def held_bits(self, now: int) -> int:
        """What guaranteed streams may claim before the next block, and those beside them."""
        return self.beside() + self.own_held_bits(now)

    def own_held_bits(self, now: int) -> int:
        """The same without those beside them."""
        return sum(
            one.bucket.level(now) + one.held_for_gap for one in self._guaranteed.values() if one.bucket is not None
        )

    def free_bits(self, service_class: ServiceClass, stock_bits: int, now: int) -> int:
        """What a stream without a contract may take now, if nobody of a better class waits."""
        free = stock_bits - self.reserve_bits - self.held_bits(now)
        if service_class is PRIORITISED:
            free -= self._floor_left(now)
        return max(0, free)

    def may_take(self, stream: str, bits: int, stock_bits: int, now: int) -> bool:
        """Whether a request may be answered at once, ahead of nobody who waits and has a better right."""
        one = self._streams[stream]
        usable = stock_bits - self.reserve_bits
        if one.bucket is not None and one.bucket.level(now) >= bits:
            return usable >= bits
        waits_as = _waits_as(one)
        if waits_as is PRIORITISED:
            return self.free_bits(PRIORITISED, stock_bits, now) >= bits + self._queued[PRIORITISED]
        free = self.free_bits(BEST_EFFORT, stock_bits, now)
        within_floor = self._floor_left(now) >= bits + self._queued[BEST_EFFORT]
        ahead = 0 if within_floor else self._queued[PRIORITISED]
        return free >= bits + ahead + self._queued[BEST_EFFORT]

    def take(self, stream: str, bits: int, stock_bits: int, now: int) -> bool:
        """As `may_take`, and books it."""
        if not self.may_take(stream, bits, stock_bits, now):
            return False
        self._spend(self._streams[stream], bits, now)
        return True

    def queue(self, stream: str, bits: int) -> int | None:
        """The ticket of a request that waits; None if too many do."""
        one = self._streams[stream]
        if len(one.queue) >= QUEUE_LIMIT:
            return None
        self._tickets += 1
        self._enqueue(stream, Queued(self._tickets, bits))
        return self._tickets

    def _enqueue(self, stream: str, request: Queued) -> None:
        one = self._streams[stream]
        one.queue.append(request)
        waits_as = _waits_as(one)
        self._queued[waits_as] += request.bits
        self._rounds[waits_as].add(stream, one.weight)

    def cancel(self, stream: str, ticket: int) -> bool:
        """The request waits no longer; False if it did not."""
        one = self._streams.get(stream)
        found = next((request for request in one.queue if request.ticket == ticket), None) if one else None
        if one is None or found is None:
            return False
        self._drop(stream, one, found)
        return True

    def serve(self, stock_bits: int, now: int) -> list[Served]:
        """Those who wait, as far as the stock goes: contracts, then the floor, then by class and in rounds."""
        served: list[Served] = []
        stock = stock_bits
        while True:
            chosen = self._next(stock, now)
            if chosen is None:
                return served
            stream, in_turn = chosen
            one = self._streams[stream]
            request = one.queue[0]
            self._spend(one, request.bits, now)
            if in_turn:
                self._rounds[_waits_as(one)].sent(stream, request.bits)
            self._drop(stream, one, request)
            stock -= request.bits
            served.append(Served(stream, request.ticket, request.bits))

    def _next(self, stock: int, now: int) -> tuple[str, bool] | None:
        """(whose head is served, whether that is its turn in a round)"""
        usable = stock - self.reserve_bits
        due = [
            (one.queue[0].ticket, name)
            for name, one in self._guaranteed.items()
            if one.queue and one.bucket is not None and usable >= one.queue[0].bits <= one.bucket.level(now)
        ]
        if due:
            return min(due)[1], False
        best_effort = self._turn(BEST_EFFORT)
        free = self.free_bits(BEST_EFFORT, stock, now)
        if best_effort is not None and self._head(best_effort) <= min(free, self._floor_left(now)):
            return best_effort, True
        prioritised = self._turn(PRIORITISED)
        if prioritised is not None:
            # What is too large for now is waited for: smaller ones of a lower class would eat it up for ever.
            enough = self._head(prioritised) <= self.free_bits(PRIORITISED, stock, now)
            return (prioritised, True) if enough else None
        return (best_effort, True) if best_effort is not None and self._head(best_effort) <= free else None

    def _turn(self, service_class: ServiceClass) -> str | None:
        rounds = self._rounds[service_class]
        return rounds.turn({name: self._head(name) for name in rounds.names()})

    def _head(self, stream: str) -> int:
        return self._streams[stream].queue[0].bits

    def _floor_left(self, now: int) -> int:
        return self._floor.level(now) if self._has_floor else 0

    def _spend(self, one: _Stream, bits: int, now: int) -> None:
        if one.bucket is not None and one.bucket.take(bits, now):
            return
        if _waits_as(one) is BEST_EFFORT and self._has_floor:
            self._floor.take_up_to(bits, now)

    def _drop(self, stream: str, one: _Stream, request: Queued) -> None:
        one.queue.remove(request)
        waits_as = _waits_as(one)
        self._queued[waits_as] -= request.bits
        if not one.queue:
            self._rounds[waits_as].remove(stream)


def _waits_as(one: _Stream) -> ServiceClass:
    """What a guaranteed stream asks beyond its contract is best effort."""
    return PRIORITISED if one.service_class is PRIORITISED else BEST_EFFORT
