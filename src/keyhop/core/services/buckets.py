"""Token buckets: how much may be taken on average and at once, in exact integers."""

from __future__ import annotations

from collections.abc import Sequence

from keyhop.core.model import NANOSECONDS


class Bucket:
    """Fills at `rate` a second up to `burst`; full when it is made. Units are the caller's: bits, requests."""

    __slots__ = ("_level", "_seen", "burst", "rate")

    def __init__(self, rate: int, burst: int, now: int) -> None:
        if rate < 0 or burst < 1:
            raise ValueError(f"bucket of rate {rate} and burst {burst}: must be 0 or more, and 1 or more")
        self.rate = rate
        self.burst = burst
        # In units of 1/NANOSECONDS, so that refilling loses nothing.
        self._level = burst * NANOSECONDS
        self._seen = now

    def level(self, now: int) -> int:
        """Whole units that may be taken at once."""
        self._fill(now)
        return self._level // NANOSECONDS

    def take(self, amount: int, now: int) -> bool:
        """All of it or nothing."""
        self._fill(now)
        if self._level < amount * NANOSECONDS:
            return False
        self._level -= amount * NANOSECONDS
        return True

    def take_up_to(self, amount: int, now: int) -> int:
        taken = min(amount, self.level(now))
        self._level -= taken * NANOSECONDS
        return taken

    def give_back(self, amount: int, now: int) -> None:
        """What was taken was not used after all."""
        self._fill(now)
        self._level = min(self.burst * NANOSECONDS, self._level + amount * NANOSECONDS)

    def wait_ns(self, amount: int, now: int) -> int | None:
        """Until so much is there; None: never, as it is more than the bucket holds or nothing comes."""
        self._fill(now)
        lacking = amount * NANOSECONDS - self._level
        if lacking <= 0:
            return 0
        if amount > self.burst or not self.rate:
            return None
        return -(-lacking // self.rate)

    def change(self, rate: int, burst: int, now: int) -> None:
        """Other figures from now on; what is there stays, as far as it fits."""
        self._fill(now)
        self.rate, self.burst = rate, burst
        self._level = min(self._level, burst * NANOSECONDS)

    def _fill(self, now: int) -> None:
        passed = now - self._seen
        if passed > 0:
            self._seen = now
            self._level = min(self.burst * NANOSECONDS, self._level + passed * self.rate)


class Quotas:
    """Several buckets that one request draws on: of its application, of the pair, of the link; all or none."""

    __slots__ = ("bits", "requests")

    def __init__(self, bits: Sequence[Bucket] = (), requests: Sequence[Bucket] = ()) -> None:
        self.bits = tuple(bits)
        self.requests = tuple(requests)

    def spend(self, bits: int, now: int) -> int | None:
        """0: spent. Else nothing is: nanoseconds until it would work, or None if it never will."""
        longest = 0
        for buckets, amount in ((self.bits, bits), (self.requests, 1)):
            for bucket in buckets:
                wait = bucket.wait_ns(amount, now)
                if wait is None:
                    return None
                longest = max(longest, wait)
        if longest:
            return longest
        for bucket in self.bits:
            bucket.take(bits, now)
        for bucket in self.requests:
            bucket.take(1, now)
        return 0

    def give_back(self, bits: int, now: int) -> None:
        """The request was refused for another reason: it cost nothing."""
        for bucket in self.bits:
            bucket.give_back(bits, now)
        for bucket in self.requests:
            bucket.give_back(1, now)
