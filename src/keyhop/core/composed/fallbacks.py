"""What a site remembers for its fallback: which pairs go on with the exchange alone, and seeds set aside in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import StreamOpened
from keyhop.core.composed.nouns.units import count
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.fallback import ByCategory, Hybrid, Need

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.nouns.queue import Request
    from keyhop.core.composed.site import Site

LIFETIME_NS = 10 * NANOSECONDS
"""Of a key whose application has named no rate (K)."""


class Fallbacks:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._part = part = site.design.fallback
        self.joins = isinstance(part, Hybrid)
        """Every key is joined with an exchanged one."""
        self.joined_its = not isinstance(part, Hybrid) or part.combine == "xor"
        self._degraded: dict[str, bool] = {}
        """Per pair, by peer."""
        self._given_ns: dict[str, int] = {}
        """Stream -> when its last fresh key was given, where that may be stretched."""
        self._seeds: dict[str, Taken] = {}
        """Stream -> key that was taken for it and nothing derived from yet."""
        self._to_sow: dict[str, list[str]] = {}
        """By peer, streams that will need a seed."""
        self._sown: set[str] = set()
        """Streams that have derived from their seed: the next key is another child of it."""

    def opened(self, stream: StreamOpened) -> None:
        part = self._part
        if isinstance(part, ByCategory) and stream.asks and part.table[stream.category - 1] == "derive":
            self._to_sow.setdefault(stream.peer, []).append(stream.stream)

    def sow(self, line: Line) -> None:
        """The first key is set aside, before anybody who waits takes it."""
        streams = self._to_sow.get(line.peer)
        while streams and self._set_aside(line, streams[0]):
            streams.pop(0)

    def _set_aside(self, line: Line, stream: str) -> bool:
        taken = line.serving.take(stream, line.run.unit_bits, lambda taken: None)
        if not isinstance(taken, Taken):
            return False
        taken.run.held += count(taken.ranges)
        self._seeds[stream] = taken
        return True

    def alone(self, line: Line) -> bool:
        """Whether the pair goes on without QKD, and comes back to it only when there is enough again."""
        if not isinstance(self._part, Hybrid):
            return False
        degraded = self._degraded[line.peer] = self._part.degraded(self._degraded.get(line.peer, False), line.run.units)
        return degraded

    def need(self, line: Line, request: Request) -> Need:
        """The request that meets too small a stock."""
        site, asked = self._site, request.asked
        given_ns = self._given_ns.get(asked.stream)
        stream = site.streams.get(asked.stream)
        rate_bps = stream.rate_bps if stream is not None else 0
        return Need(
            size_bits=asked.size_bits,
            stock_bits=min(line.serving.stock_bits(request.stream), asked.size_bits - 1),
            waited_ns=site.now - request.arrived_ns,
            deadline_ns=asked.deadline_ns,
            category=asked.category,
            key_age_ns=None if given_ns is None else site.now - given_ns,
            lifetime_ns=asked.size_bits * NANOSECONDS // rate_bps if rate_bps else LIFETIME_NS,
        )

    def given(self, line: Line, request: Request) -> None:
        """A fresh key has left: while there is key, a seed is set aside for who may need one."""
        part, asked = self._part, request.asked
        if not isinstance(part, ByCategory):
            return
        match part.table[asked.category - 1]:
            case "stretch":
                self._given_ns[asked.stream] = self._site.now
            case "derive" if asked.stream not in self._seeds and asked.stream not in self._sown:
                self._set_aside(line, asked.stream)

    def seed(self, stream: str) -> Taken | None:
        """What the next child is derived from: the seed, with its ranges only the first time; None if there is none."""
        taken = self._seeds.pop(stream, None)
        if taken is not None:
            taken.run.held -= count(taken.ranges)
            self._sown.add(stream)
            return taken
        line = next(iter(self._site.lines()), None) if stream in self._sown else None
        return Taken(line.run, (), "") if line is not None else None

    def closed(self, stream: str) -> None:
        """A seed of nobody goes back."""
        taken = self._seeds.pop(stream, None)
        if taken is not None:
            taken.run.held -= count(taken.ranges)
            taken.run.pool(taken.label).put_back(taken.ranges)
        self._sown.discard(stream)
        for waiting in self._to_sow.values():
            if stream in waiting:
                waiting.remove(stream)
        self._given_ns.pop(stream, None)
