"""What lies between the HTTP server and a door: routes, answers, and the count of both."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from keyhop.daemon.http_framing import Head, HttpError

DURATION_BOUNDS_NS = tuple(
    round(s * 1e9) for s in (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
)
"""Upper bounds of the duration histogram; one more bucket holds what lies above."""
_SHORTEST_NS = DURATION_BOUNDS_NS[0]

_encode_json = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Any answer but a plain 200."""

    status: int
    body: bytes
    """JSON."""
    headers: tuple[tuple[str, str], ...] = ()


Reply = bytes | Answer
"""bytes: the JSON body of a 200."""


class Series:
    """Requests of one kind as plain numbers, for the metrics to read: by code, and by duration until the answer."""

    __slots__ = ("buckets", "codes", "total_ns")

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.buckets = [0] * (len(DURATION_BOUNDS_NS) + 1)
        """Not cumulative; one for each of DURATION_BOUNDS_NS and one for what is longer."""
        self.total_ns = 0

    def add(self, code: int, duration_ns: int) -> None:
        self.codes[code] += 1
        self.total_ns += duration_ns
        if duration_ns <= _SHORTEST_NS:
            self.buckets[0] += 1
        else:
            self.buckets[bisect_left(DURATION_BOUNDS_NS, duration_ns)] += 1


class Route:
    """What one kind of request of one caller leads to."""

    __slots__ = ("render", "respond", "series")

    def __init__(
        self,
        respond: Callable[[bytes], Reply | asyncio.Future[Any]],
        series: Series,
        render: Callable[[asyncio.Future[Any]], Reply] = asyncio.Future.result,
    ) -> None:
        self.respond = respond
        """Takes the body, gives the reply or a future. Refusals are replies, not exceptions."""
        self.series = series
        self.render = render
        """Turns a future that is done into the reply; without one, its result is the reply."""


Prepare = Callable[[Head, str], Route]
"""From a head and the identity of the caller to a route; raises HttpError. Must depend on nothing else: it is kept."""


def error_answer(error: HttpError) -> Answer:
    body: dict[str, Any] = {"message": error.message}
    if error.details:
        body["details"] = list(error.details)
    return Answer(error.status, _encode_json(body), error.headers)
