"""Keys kept ready in several sizes, and given one alone or several joined (DDKA)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Name
from keyhop.core.composed.nouns.units import Queue, Units
from keyhop.core.composed.stock.dealing import Common, direction
from keyhop.core.composed.stock.serving import Taken, Then
from keyhop.core.policy.refill import LowHigh
from keyhop.core.policy.storage import MultiSizeBlock

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

PAD_KEYS = 4096
"""A pad of relay is joined from at most so many keys (K)."""


def smallest_unit(sizes: tuple[int, ...]) -> int:
    """Bits of the unit in which positions of all stores count."""
    return gcd(*sizes)


@lru_cache(maxsize=1024)
def store(way: str, size_bits: int) -> str:
    """The label of one store: `A>B/512`. A key's number in it follows from its position."""
    return f"{way}/{size_bits}"


class Sized(Common):
    """Fresh units are dealt to a store per size, in shares of equal bits; a link's keys of a size go to each direction
    in turn, a relayed run's all belong to its source. Less than the next key waits (K)."""

    def __init__(self, line: Line, storage: MultiSizeBlock) -> None:
        super().__init__(line)
        self._storage = storage
        self._stores: dict[str, list[tuple[int, int, Queue]]] = {}
        """By way: size, units of a key, and the store."""
        self._dealt: dict[str, dict[int, int]] = {}
        """Bits by owner and size."""
        self.wanted_bits = 0
        """A size for which key was ordered: what enters now goes there; 0: to all in turn."""

    def sizes(self, bits: int, owner: str) -> list[tuple[Run, int]]:
        return [(self._line.run_of(f"{owner}>"), bits)]

    def fresh(self, run: Run, start: int, end: int) -> None:
        run.free.put(start, end)
        dealt = self._dealt.setdefault(run.owner, {})
        while True:
            size = self.wanted_bits or self._storage.next_size(dealt)
            key = run.free.take(size // run.unit_bits)
            if key is None:
                return
            number = dealt.get(size, 0) // size
            dealt[size] = dealt.get(size, 0) + size
            store_queue(run, store(self._way(run, number), size), key)

    def label(self, stream: str, outgoing: bool) -> str:
        line = self._line
        return direction(line.own, line.peer) if outgoing else direction(line.peer, line.own)

    def lends(self, label: str) -> bool:
        return label == direction(self._line.peer, self._line.own)

    def levels(self, way: str) -> dict[int, int]:
        """Keys of each size."""
        stores = self._stores.get(way)
        if stores is None:
            run = self._line.run_of(way)
            stores = self._stores[way] = [
                (size, size // run.unit_bits, run.pool(store(way, size))) for size in self._storage.sizes
            ]
        return {size: queue.level // units for size, units, queue in stores}

    def _way(self, run: Run, number: int) -> str:
        line = self._line
        if run.owner:
            return direction(run.owner, line.peer if run.owner == line.own else line.own)
        low, high = sorted((line.own, line.peer))
        return direction(high, low) if number % 2 else direction(low, high)


def store_queue(run: Run, label: str, key: tuple[Units, ...]) -> Queue:
    """The store, with one more key in it."""
    queue = run.pool(label)
    for start, end in key:
        queue.put(start, end)
    return queue


class FromSizes:
    """The owner takes the smallest stored key that is large enough, else several (K); the other end follows by name.

    The controller, which says so to the owner (S), is taken to sit with it (K): ALLOC costs no message.
    """

    def __init__(self, line: Line, storage: MultiSizeBlock, dealing: Sized) -> None:
        self._line = line
        self._dealing = dealing
        self._keys = storage
        self._pads = replace(storage, max_keys=PAD_KEYS)

    def stock_bits(self, stream: str) -> int:
        way = self._dealing.label(stream, True)
        return sum(size * keys for size, keys in self._dealing.levels(way).items())

    def take(self, stream: str, bits: int, then: Then) -> Taken | None:
        way = self._dealing.label(stream, True)
        run = self._line.run_of(way)
        part = self._keys if stream else self._pads
        ranges: list[Units] = []
        for size in part.choose(bits, self._dealing.levels(way)):
            ranges += run.pool(store(way, size)).take(size // run.unit_bits) or ()
        if not ranges:
            return None
        self._line.intake.check()
        return Taken(run, tuple(ranges), way)

    def fetch(self, name: Name) -> Taken | str | None:
        if not self.lends(name.label):
            return None
        run = self._line.run_of(name.label)
        queues = [(self._store(run, name.label, units), units) for units in name.ranges]
        if not all(queue.has([units]) for queue, units in queues):
            return None
        for queue, units in queues:
            queue.remove([units])
        self._line.intake.check()
        return Taken(run, name.ranges, name.label)

    def lends(self, label: str) -> bool:
        return self._dealing.lends(label)

    def restarted(self) -> None:
        pass

    @staticmethod
    def _store(run: Run, way: str, units: Units) -> Queue:
        return run.pool(store(way, (units[1] - units[0]) * run.unit_bits))


def below_low(line: Line, part: LowHigh, storage: MultiSizeBlock) -> Callable[[], bool]:
    """Whether a store of the link is short, or being filled up to the high mark. The master decides for both ends;
    what it has pulled and not agreed on yet counts as shared among the stores."""
    filling: set[tuple[str, int]] = set()
    seen: dict[tuple[str, int], int] = {}
    """By store, the level that was looked at last: at the same level the answer is the same."""
    stores = 2 * len(storage.sizes)
    ways = direction(line.own, line.peer), direction(line.peer, line.own)

    def due() -> bool:
        if not line.master or not isinstance(line.dealing, Sized):
            return False
        shared_bits = line.pickup_bits // stores
        for way in ways:
            for size, level in line.dealing.levels(way).items():
                level += shared_bits // size
                if seen.get((way, size)) == level:
                    continue
                seen[way, size] = level
                capacity = line.settings.capacity_bits // stores // size
                if part.wanted(level, capacity, (way, size) in filling):
                    filling.add((way, size))
                else:
                    filling.discard((way, size))
        return bool(filling)

    return due
