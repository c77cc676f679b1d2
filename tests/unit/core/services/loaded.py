"""Links in virtual time: blocks come, streams of three classes ask, and every key is booked to who got it."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from keyhop.core.model import NANOSECONDS
from keyhop.core.policy_rules import ServiceClass
from keyhop.core.services.promises import Contract, LinkRoom, Promises
from keyhop.core.services.shares import Shares

WINDOW_NS = NANOSECONDS


@dataclass
class Link:
    rate_bps: int
    gap_ns: int
    floor: Fraction
    stock_bits: int
    shares: Shares
    generated: int = 0
    delivered: int = 0


@dataclass
class Talk:
    """A stream that asks for keys of one size, at a mean rate, on a path of links."""

    name: str
    service_class: ServiceClass
    path: tuple[str, ...]
    key_bits: int
    rate_bps: int
    contract: Contract | None = None
    regular: bool = False
    """Evenly, or at random times."""
    on_ns: tuple[int, int] = (0, 1 << 62)
    waiting: list[int] = field(default_factory=list)


class Loaded:
    """Streams on one link wait in its queues; those on several take of all links at once, and wait here."""

    def __init__(self, links: dict[str, tuple[int, int]], *, floor: Fraction = Fraction(1, 10), seed: int = 1) -> None:
        """`links`: rate in bit/s and time between blocks. The stock begins at what ten seconds give."""
        self.random = random.Random(seed)
        self.links = {
            name: Link(rate, gap, floor, 10 * rate, Shares(rate, gap, 0, floor=floor))
            for name, (rate, gap) in links.items()
        }
        self.promises = Promises(
            {name: LinkRoom(link.rate_bps, link.stock_bits, link.gap_ns, floor) for name, link in self.links.items()}
        )
        self.talks: dict[str, Talk] = {}
        self.asked: Counter[str] = Counter()
        self.given: Counter[str] = Counter()
        self.windows: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.late: list[tuple[str, int]] = []
        """Requests inside a contract that were not answered at once."""
        self.now = 0

    def join(self, talk: Talk) -> None:
        self.talks[talk.name] = talk
        for link in talk.path:
            self.links[link].shares.join(talk.name, talk.service_class, self.now, contract=talk.contract)

    def run(self, seconds: int) -> None:
        end = seconds * NANOSECONDS
        events: list[tuple[int, int, str]] = []
        for number, (name, link) in enumerate(self.links.items()):
            # Blocks of different links do not come together.
            heapq.heappush(events, (link.gap_ns * (number + 1) // (len(self.links) + 1), 0, name))
        for talk in self.talks.values():
            heapq.heappush(events, (talk.on_ns[0] + self._pause(talk), 1, talk.name))
        while events and events[0][0] < end:
            self.now, kind, name = heapq.heappop(events)
            if kind == 0:
                self._block(self.links[name])
                heapq.heappush(events, (self.now + self.links[name].gap_ns, 0, name))
            else:
                talk = self.talks[name]
                if self.now < talk.on_ns[1]:
                    self._ask(talk)
                    heapq.heappush(events, (self.now + self._pause(talk), 1, name))
        self.now = end

    def utilisation(self, link: str) -> Fraction:
        """Of what came in; what lay there at first is not counted as a success."""
        one = self.links[link]
        return Fraction(one.delivered - 10 * one.rate_bps, one.generated)

    def rate(self, names: Sequence[str], seconds: int) -> float:
        return sum(self.given[name] for name in names) / seconds

    def _pause(self, talk: Talk) -> int:
        mean = talk.key_bits * NANOSECONDS // talk.rate_bps
        return mean if talk.regular else 1 + int(self.random.expovariate(1 / mean))

    def _block(self, link: Link) -> None:
        bits = link.rate_bps * link.gap_ns // NANOSECONDS
        link.stock_bits += bits
        link.generated += bits
        self._serve()

    def _ask(self, talk: Talk) -> None:
        self.asked[talk.name] += talk.key_bits
        if talk.contract is not None:
            if not self._take(talk):
                self.late.append((talk.name, self.now))
        elif len(talk.path) > 1:
            if not (self._take(talk) or len(talk.waiting) > 100):
                talk.waiting.append(self.now)
        else:
            self.links[talk.path[0]].shares.queue(talk.name, talk.key_bits)
            self._serve()

    def _serve(self) -> None:
        for talk in self.talks.values():
            while talk.waiting and self._take(talk):
                talk.waiting.pop(0)
        for link in self.links.values():
            for served in link.shares.serve(link.stock_bits, self.now):
                link.stock_bits -= served.bits
                link.delivered += served.bits
                self._book(served.stream, served.bits)
            assert link.stock_bits >= 0

    def _take(self, talk: Talk) -> bool:
        links = [self.links[name] for name in talk.path]
        if not all(link.shares.may_take(talk.name, talk.key_bits, link.stock_bits, self.now) for link in links):
            return False
        for link in links:
            assert link.shares.take(talk.name, talk.key_bits, link.stock_bits, self.now)
            link.stock_bits -= talk.key_bits
            link.delivered += talk.key_bits
        self._book(talk.name, talk.key_bits)
        return True

    def _book(self, name: str, bits: int) -> None:
        self.given[name] += bits
        self.windows[name][self.now // WINDOW_NS] += bits
