"""When requests come: one random stream per purpose, made from one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import accumulate
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from keyhop.core.model import NANOSECONDS


class Purpose(StrEnum):
    ARRIVALS = "arrivals"
    """The time between one request and the next."""
    SIZES = "sizes"
    STREAMS = "streams"
    """Which stream asks, and with it the class."""
    PHASES = "phases"
    """Where in its period a stream begins."""
    LEVELS = "levels"
    """The security level asked for."""
    CHURN = "churn"
    """Who leaves, and whose rate changes."""


class Seeds(NamedTuple):
    """A seed for every purpose. One purpose can have another seed than the rest, to vary that alone."""

    seed: int
    others: Mapping[Purpose, int] = MappingProxyType({})

    def draw(self, purpose: Purpose, part: str = "") -> Random:
        """The random stream of a purpose; `part` tells streams of one purpose apart.

        Through a hash, because neighbouring seeds of the generator itself give streams that begin alike.
        """
        text = f"{self.others.get(purpose, self.seed)}/{purpose}/{part}"
        return Random(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))  # noqa: S311 no key comes of it


class Weighted(NamedTuple):
    """A draw by weight; as `Random.choices`, with the sums made once."""

    names: tuple[int, ...]
    sums: tuple[float, ...]

    @classmethod
    def of(cls, weights: Mapping[int, float]) -> Weighted:
        return cls(tuple(weights), tuple(accumulate(weights.values())))

    def take(self, draw: Random) -> int:
        return draw.choices(self.names, cum_weights=self.sums)[0]

    def take_many(self, draw: Random, count: int) -> list[int]:
        return draw.choices(self.names, cum_weights=self.sums, k=count)


def poisson(per_s: float, ends_ns: int, draw: Random) -> Iterator[int]:
    """Times in ns, from 0 to before `ends_ns`. The same draw at twice the rate gives the same times, halved."""
    mean_ns = NANOSECONDS / per_s
    at = draw.expovariate(1.0) * mean_ns
    while at < ends_ns:
        yield int(at)
        at += draw.expovariate(1.0) * mean_ns


def periodic(period_ns: float, ends_ns: int, draw: Random) -> Iterator[int]:
    """Times in ns, one in each period, the first at a random place in the first period."""
    first = draw.random()
    number = 0
    while (at := (first + number) * period_ns) < ends_ns:
        yield int(at)
        number += 1


def on_off(requests: int, bursts: int, duty: float, ends_ns: int, draw: Random) -> Iterator[int]:
    """Times in ns of `requests` in `bursts`, not sorted: one burst in each period, anywhere in it.

    In a burst they are evenly spaced. Periods begin at a random phase; what passes the end comes at the beginning, so
    that no request is lost.
    """
    period_ns = ends_ns / bursts
    phase = draw.random()
    for burst in range(bursts):
        begins = (phase + burst + draw.random() * (1 - duty)) * period_ns
        count = (burst + 1) * requests // bursts - burst * requests // bursts
        for number in range(count):
            yield int(begins + duty * period_ns * number / count) % ends_ns
