"""Keys kept ready in several sizes, and given one alone or several joined (DDKA)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.messages import Name
from keyhop.core.composed.nouns.units import Queue, Units
from keyhop.core.composed.stock.dealing import Common, by_direction, direction
from keyhop.core.composed.stock.serving import Taken, Then
from keyhop.core.policy.refill import LowHigh
from keyhop.core.policy.storage import MultiSizeBlock

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

PAD_KEYS = 4096
"""A pad of relay is joined from at most so many keys (K)."""
KEPT_BITS = 1 << 17
"""When so much has been asked for or dealt, what was before counts half: shares follow what is asked for now (K)."""


def smallest_unit(sizes: tuple[int, ...]) -> int:
    """Bits of the unit in which positions of all stores count."""
    return gcd(*sizes)


@lru_cache(maxsize=1024)
def store(way: str, size_bits: int) -> str:
    """The label of one store: `A>B/512`. A key's number in it follows from its position."""
    return f"{way}/{size_bits}"


class Store(NamedTuple):
    """For the thresholds: keys there, and keys that there is room for."""

    name: str
    size_bits: int
    level: int
    capacity: int


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
        self._capacities: dict[int, dict[int, int]] = {}
        """By bits: there are two, of the link and of relayed key."""
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

    def stores(self) -> Iterator[Store]:
        """Of the link, as far as this end can tell them apart."""
        line = self._line
        capacities = self.capacities(line.settings.capacity_bits // 2)
        for way in (direction(line.own, line.peer), direction(line.peer, line.own)):
            for size, level in self.levels(way).items():
                yield Store(way, size, level, capacities[size])

    def capacities(self, bits: int) -> dict[int, int]:
        """Keys of each size, in stores of one direction of so many bits."""
        found = self._capacities.get(bits)
        if found is None:
            found = self._capacities[bits] = self._storage.capacities(bits)
        return found

    def follow(self, run: Run, name: Name) -> bool:
        """At the end that does not own them: takes these keys out."""
        queues = [
            (run.pool(store(name.label, (end - start) * run.unit_bits)), (start, end)) for start, end in name.ranges
        ]
        return all(queue.has([units]) for queue, units in queues) and all(
            queue.remove([units]) for queue, units in queues
        )

    def _way(self, run: Run, number: int) -> str:
        line = self._line
        if run.owner:
            return direction(run.owner, line.peer if run.owner == line.own else line.own)
        low, high = sorted((line.own, line.peer))
        return direction(high, low) if number % 2 else direction(low, high)


class SizedByDemand(Sized):
    """Each end deals the key of its own direction in shares of what its applications ask for (K); the other end keeps
    that direction whole and follows by name, so that nothing has to be agreed on."""

    def __init__(self, line: Line, storage: MultiSizeBlock) -> None:
        super().__init__(line, storage)
        self._own = direction(line.own, line.peer)
        self._asked: dict[int, int] = {}
        self._given: dict[int, int] = {}
        """Bits by size, of late."""

    def fresh(self, run: Run, start: int, end: int) -> None:
        by_direction(self._line, run, start, end)
        own = run.pool(self._own)
        while own.level:
            size = self.wanted_bits or self._storage.next_size(self._given, self._asked)
            key = own.take(size // run.unit_bits)
            if key is None:
                return
            _tally(self._given, size)
            store_queue(run, store(self._own, size), key)

    def asked(self, size_bits: int) -> None:
        _tally(self._asked, self._storage.home(size_bits))

    def stores(self) -> Iterator[Store]:
        """The other end's direction is one store here, of keys of the smallest size."""
        line, smallest = self._line, self._storage.sizes[0]
        capacities = self.capacities(line.settings.capacity_bits // 2)
        for size, level in self.levels(self._own).items():
            yield Store(self._own, size, level, capacities[size])
        theirs = direction(line.peer, line.own)
        run = line.run_of(theirs)
        level_bits = run.pool(theirs).level * run.unit_bits
        yield Store(theirs, smallest, level_bits // smallest, line.settings.capacity_bits // 2 // smallest)

    def capacities(self, bits: int) -> dict[int, int]:
        return self._storage.capacities(bits, self._asked)

    def follow(self, run: Run, name: Name) -> bool:
        return run.pool(name.label).remove(name.ranges)


def _tally(bits: dict[int, int], size: int) -> None:
    bits[size] = bits.get(size, 0) + size
    if sum(bits.values()) > KEPT_BITS:
        for one in bits:
            bits[one] //= 2


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
        if not self._dealing.follow(run, name):
            return None
        self._line.intake.check()
        return Taken(run, name.ranges, name.label)

    def lends(self, label: str) -> bool:
        return self._dealing.lends(label)

    def restarted(self) -> None:
        pass


def below_low(line: Line, part: LowHigh) -> Callable[[], bool]:
    """Whether a store of the link is short, or being filled up to the high mark. The master decides for both ends;
    what it has pulled and not agreed on yet counts as shared among the stores."""
    filling: set[tuple[str, int]] = set()
    seen: dict[tuple[str, int], tuple[int, int]] = {}
    """By store, what was looked at last: with the same in it the answer is the same."""

    def due() -> bool:
        if not line.master or not isinstance(line.dealing, Sized):
            return False
        stores, pickup_bits = list(line.dealing.stores()), line.pickup_bits
        room_bits = sum(store.capacity * store.size_bits for store in stores) if pickup_bits else 0
        for name, size, level, capacity in stores:
            if room_bits:
                level += pickup_bits * capacity // room_bits
            if seen.get((name, size)) == (level, capacity):
                continue
            seen[name, size] = level, capacity
            if part.wanted(level, capacity, (name, size) in filling):
                filling.add((name, size))
            else:
                filling.discard((name, size))
        return bool(filling)

    return due
