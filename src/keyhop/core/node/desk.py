"""What the edge spends without asking: leased bytes of one peer, and the allowance of one pair of applications.

Integers only. A Desk is filled after the commit that carries its lease; taking from it needs no Output, because
everything in it is already durable as leased at both ends (`docs/concepts.md`, Leases).
"""

from __future__ import annotations

from collections import deque

from keyhop.core.model import NANOSECONDS


class Stock:
    """Leased bytes of our own run to one peer, dealt from the front. Adjacent leases join."""

    __slots__ = ("_later", "cursor", "end", "largest", "low", "rest", "taken", "wasted")

    def __init__(self) -> None:
        self.cursor = 0
        self.end = 0
        self._later: deque[list[int]] = deque()
        self.rest = 0
        """Bytes in the intervals after the first."""
        self.taken = 0
        """Bytes given out since the last look (`settle`)."""
        self.largest = 0
        """Most bytes given out at once since then."""
        self.wasted = 0
        """Bytes skipped because a key did not fit before a gap."""
        self.low = 0
        """Below this the edge raises `StockLow`, once."""

    @property
    def left(self) -> int:
        return self.end - self.cursor + self.rest

    def add(self, start: int, end: int) -> None:
        if self.cursor == self.end:
            self.cursor, self.end = start, end
        elif not self._later and start == self.end:
            self.end = end
        elif self._later and self._later[-1][1] == start:
            self._later[-1][1] = end
            self.rest += end - start
        else:
            self._later.append([start, end])
            self.rest += end - start

    def clear(self) -> list[tuple[int, int]]:
        """Takes everything out: what a restore or a new epoch burns."""
        left = [(self.cursor, self.end)] if self.cursor < self.end else []
        left += [(start, end) for start, end in self._later]
        self.cursor = self.end = 0
        self._later.clear()
        self.rest = 0
        return left

    def intervals(self) -> list[tuple[int, int]]:
        left = [(self.cursor, self.end)] if self.cursor < self.end else []
        return left + [(start, end) for start, end in self._later]

    def take(self, number: int, length: int) -> list[int] | None:
        """Starts of `number` keys of `length` bytes each, or None with nothing taken."""
        start = self.cursor
        end = start + number * length
        if end <= self.end:
            self.cursor = end
            self.taken += end - start
            if end - start > self.largest:
                self.largest = end - start
            return list(range(start, end, length))
        return self._take_many(number, length)

    def _take_many(self, number: int, length: int) -> list[int] | None:
        fits = (self.end - self.cursor) // length + sum((end - start) // length for start, end in self._later)
        if fits < number:
            return None
        starts: list[int] = []
        while len(starts) < number:
            while self.end - self.cursor < length:
                self.wasted += self.end - self.cursor
                start, self.end = self._later.popleft()
                self.cursor = start
                self.rest -= self.end - start
            starts.append(self.cursor)
            self.cursor += length
        self.taken += number * length
        self.largest = max(self.largest, number * length)
        return starts

    def carve(self, start: int, end: int) -> None:
        """Gives out bytes from the midst of what is here: a request chose them."""
        left = []
        for low, high in self.clear():
            left += [(low, min(high, start)), (max(low, end), high)] if low < end and start < high else [(low, high)]
        for low, high in left:
            if low < high:
                self.add(low, high)
        self.taken += end - start
        self.largest = max(self.largest, end - start)

    def count(self, length: int) -> int:
        """How many keys of this length could be taken now."""
        return (self.end - self.cursor) // length + sum((end - start) // length for start, end in self._later)


class Allowance:
    """Token buckets of one application, in bits and in requests; refilled lazily from the time it is asked."""

    __slots__ = ("bits", "bits_rate", "burst_bits", "burst_requests", "requests", "requests_rate", "seen")

    def __init__(self, bits_per_s: int, burst_bits: int, requests_per_s: int, burst_requests: int, now: int) -> None:
        self.bits_rate = bits_per_s
        self.burst_bits = burst_bits
        self.requests_rate = requests_per_s
        self.burst_requests = burst_requests
        # Tokens are kept in units of 1/NANOSECONDS, so that refilling is exact integer arithmetic.
        self.bits = burst_bits * NANOSECONDS
        self.requests = burst_requests * NANOSECONDS
        self.seen = now

    def spend(self, size_bits: int, now: int) -> int:
        """0 and the tokens are spent; or, nothing spent, the nanoseconds until it would work."""
        passed = now - self.seen
        if passed > 0:
            self.seen = now
            self.bits = min(self.burst_bits * NANOSECONDS, self.bits + passed * self.bits_rate)
            self.requests = min(self.burst_requests * NANOSECONDS, self.requests + passed * self.requests_rate)
        need = size_bits * NANOSECONDS
        if self.bits >= need and self.requests >= NANOSECONDS:
            self.bits -= need
            self.requests -= NANOSECONDS
            return 0
        wait_bits = -(-(need - self.bits) // max(1, self.bits_rate)) if self.bits < need else 0
        wait_requests = (
            -(-(NANOSECONDS - self.requests) // max(1, self.requests_rate)) if self.requests < NANOSECONDS else 0
        )
        return max(wait_bits, wait_requests, 1)

    def give_back(self, size_bits: int) -> None:
        """The request was refused for another reason: it cost nothing."""
        self.bits = min(self.burst_bits * NANOSECONDS, self.bits + size_bits * NANOSECONDS)
        self.requests = min(self.burst_requests * NANOSECONDS, self.requests + NANOSECONDS)


class Grant:
    """What one pair of applications may draw on, looked up once per request by (caller, slave)."""

    __slots__ = ("allowance", "master", "max_bits", "min_bits", "number_limit", "peer", "slave", "stock")

    def __init__(
        self,
        *,
        master: str,
        slave: str,
        peer: str,
        stock: Stock,
        allowance: Allowance,
        min_bits: int,
        max_bits: int,
        number_limit: int,
    ) -> None:
        self.master = master
        self.slave = slave
        self.peer = peer
        self.stock = stock
        self.allowance = allowance
        self.min_bits = min_bits
        self.max_bits = max_bits
        self.number_limit = number_limit
