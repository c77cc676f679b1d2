"""What lies between the HTTP server and a door: routes, answers, and the count of both."""

from __future__ import annotations

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


class Later:
    """The outcome of a request that has to wait: given once, and passed on at the moment it is given.

    A future of the loop would take a turn of its own to pass it on.
    """

    __slots__ = ("_listener", "on_abandoned", "outcome")

    def __init__(self) -> None:
        self.outcome: Any = None
        """What a route renders; None until it is there."""
        self.on_abandoned: Callable[[], None] | None = None
        self._listener: Callable[[Any], None] | None = None

    def give(self, outcome: Any) -> None:
        """Only the first outcome counts."""
        if self.outcome is None:
            self.outcome = outcome
            if self._listener is not None:
                self._listener(outcome)

    def listen(self, listener: Callable[[Any], None]) -> None:
        """To an outcome that is not there yet; one may listen."""
        self._listener = listener

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        if self.outcome is None:
            self.outcome, self._listener = ABANDONED, None
            if self.on_abandoned is not None:
                self.on_abandoned()


ABANDONED = object()
"""The outcome of a request whose client is gone."""


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
        respond: Callable[[bytes], Reply | Later],
        series: Series,
        render: Callable[[Any], Reply] = lambda outcome: outcome,
    ) -> None:
        self.respond = respond
        """Takes the body, gives the reply, or says that it comes later. Refusals are replies, not exceptions."""
        self.series = series
        self.render = render
        """Turns what came later into the reply; without one, it is the reply."""


Prepare = Callable[[Head, str], Route]
"""From a head and the identity of the caller to a route; raises HttpError. Must depend on nothing else: it is kept."""


def error_answer(error: HttpError) -> Answer:
    body: dict[str, Any] = {"message": error.message}
    if error.details:
        body["details"] = list(error.details)
    return Answer(error.status, _encode_json(body), error.headers)
