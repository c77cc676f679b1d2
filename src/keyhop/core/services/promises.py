"""What links have promised to guaranteed streams, and what they can still promise, along whole paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.admission import Reservation

BY_RATE = Reservation(of="rate", lend=True)
STREAMS_LIMIT = 100_000


class Contract(NamedTuple):
    """What a guaranteed stream gets whatever others ask for."""

    rate_bps: int
    burst_bits: int
    """At once, after a pause."""


@dataclass(slots=True)
class LinkRoom:
    """What one link has to promise."""

    rate_bps: int
    """Of fresh key, as measured or as its module says; what tags and statements need is not in it."""
    stock_bits: int
    """Usable now: without the reserve that supply cannot touch."""
    gap_ns: int
    """The longest time between two blocks: until the next one, guarantees live on stock."""
    floor: Fraction = Fraction(1, 10)
    """Of the rate, never promised to anybody: best effort lives on it."""

    @property
    def promisable_bps(self) -> int:
        return int(self.rate_bps * (1 - self.floor))

    def held_bits(self, contract: Contract) -> int:
        """Stock that must lie there so that the contract is kept until the next block."""
        return contract.burst_bits + held_for_gap(contract.rate_bps, self.gap_ns)


class Answer(NamedTuple):
    admitted: bool
    offer: Contract | None
    """What would be admitted at this moment, at most what was asked (004 status 7); None: nothing."""
    narrowest: str = ""
    """The link that refuses."""
    why: str = ""


class Promises:
    """One book over all links of a domain; each node can keep one of its own links and ask along the path."""

    def __init__(self, links: dict[str, LinkRoom] | None = None) -> None:
        self.links = links or {}
        self.streams: dict[str, tuple[Contract, tuple[str, ...]]] = {}
        """In the order of admission: who came last is given up first."""
        self._rates: dict[str, int] = dict.fromkeys(self.links, 0)
        self._bits: dict[str, int] = dict.fromkeys(self.links, 0)

    def promised_bps(self, link: str) -> int:
        return self._rates.get(link, 0)

    def held_bits(self, link: str) -> int:
        """Stock that streams may claim before the next block."""
        return self._bits.get(link, 0)

    def offer(self, asked: Contract, path: Sequence[str], key_bits: int) -> Answer:
        """Changes nothing. `key_bits`: a contract whose burst holds no key is worth nothing."""
        if asked.rate_bps < 1 or asked.burst_bits < key_bits or key_bits < 1:
            raise ValueError(f"contract of {asked.rate_bps} bit/s, burst {asked.burst_bits}: must carry a key")
        unknown = [link for link in path if link not in self.links]
        if unknown or not path or len(set(path)) < len(path):
            return Answer(False, None, unknown[0] if unknown else "", "there is no such path")
        free_bps = [self.links[link].promisable_bps - self._rates[link] for link in path]
        decided = BY_RATE.offer(asked.rate_bps, free_bps)
        rate = min(asked.rate_bps, decided.counter_offer)
        # The rate first, then as much burst as the stocks leave; but room for one key in any case.
        for link in path:
            room, gap_ns = self._free_bits(link) - key_bits, self.links[link].gap_ns
            rate = min(rate, room * NANOSECONDS // gap_ns if gap_ns and room >= 0 else rate if room >= 0 else 0)
        if rate < 1:
            return Answer(False, None, *self._refusing(asked, path))
        bursts = [self._free_bits(link) - held_for_gap(rate, self.links[link].gap_ns) for link in path]
        burst = min(asked.burst_bits, *bursts)
        if burst < key_bits:
            return Answer(False, None, *self._refusing(asked, path))
        offer = Contract(rate, burst)
        return Answer(True, offer) if offer == asked else Answer(False, offer, *self._refusing(asked, path))

    def ask(self, stream: str, asked: Contract, path: Sequence[str], key_bits: int) -> Answer:
        """Admits on every link of the path or on none."""
        if stream in self.streams:
            raise ValueError(f"stream {stream} has a contract: modify or end it")
        if len(self.streams) >= STREAMS_LIMIT:
            return Answer(False, None, "", f"there are {STREAMS_LIMIT} streams already")
        answer = self.offer(asked, path, key_bits)
        if answer.admitted:
            self._book(stream, asked, tuple(path))
        return answer

    def end(self, stream: str) -> None:
        contract, path = self.streams.pop(stream)
        for link in path:
            self._rates[link] -= contract.rate_bps
            self._bits[link] -= self.links[link].held_bits(contract)

    def broken(self, link: str) -> list[str]:
        """Streams that this link, as it is now, carries no longer: the earlier admitted stay."""
        admitted = [(stream, held.rate_bps) for stream, (held, path) in self.streams.items() if link in path]
        return BY_RATE.broken(admitted, self.links[link].promisable_bps)

    def change(self, link: str, room: LinkRoom) -> list[str]:
        """The link's figures have changed; the streams it carries no longer, for the caller to move or to tell."""
        self._rates.setdefault(link, 0)
        self.links[link] = room
        self._bits[link] = sum(room.held_bits(held) for held, path in self.streams.values() if link in path)
        return self.broken(link)

    def _book(self, stream: str, contract: Contract, path: tuple[str, ...]) -> None:
        self.streams[stream] = contract, path
        for link in path:
            self._rates[link] += contract.rate_bps
            self._bits[link] += self.links[link].held_bits(contract)

    def _free_bits(self, link: str) -> int:
        return self.links[link].stock_bits - self._bits[link]

    def _refusing(self, asked: Contract, path: Sequence[str]) -> tuple[str, str]:
        """The first link in the way, and why."""
        for link in path:
            free_bps = self.links[link].promisable_bps - self._rates[link]
            if asked.rate_bps > free_bps:
                return link, f"{max(0, free_bps)} bit/s can still be promised"
        for link in path:
            if self.links[link].held_bits(asked) > self._free_bits(link):
                return link, f"{max(0, self._free_bits(link))} bit of stock can still be held back"
        return "", ""


def held_for_gap(rate_bps: int, gap_ns: int) -> int:
    return -(-rate_bps * gap_ns // NANOSECONDS)
