"""Free keys of a link by name: whole ones by arithmetic, the rest of what was split or merged one by one (AIT)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.units import Units, count

if TYPE_CHECKING:
    from keyhop.core.composed.line import Run

NUMBER_DIGITS = 32
CANDIDATES = 1024
"""Keys that are merged into one, at most (K)."""


class Key(NamedTuple):
    id: str
    ranges: tuple[Units, ...]

    @property
    def length(self) -> int:
        """In units of the run."""
        return count(self.ranges)

    def cut(self, parts: Sequence[tuple[str, int]]) -> list[Key]:
        """(id, length) of each, in order."""
        found, left = [], list(self.ranges)
        for name, length in parts:
            ranges: list[Units] = []
            while length:
                low, high = left[0]
                stop = min(high, low + length)
                ranges.append((low, stop))
                length -= stop - low
                left[0] = (stop, high)
                if stop == high:
                    del left[0]
            found.append(Key(name, tuple(ranges)))
        return found


class Stock:
    """Free keys by name: whole ones by arithmetic, the rest of what was split or merged by size and age."""

    def __init__(self, run: Run, key_units: int) -> None:
        self._run = run
        self.key_units = key_units
        self._odd: dict[str, Key] = {}
        self._by_length: dict[int, list[tuple[int, str]]] = {}
        self._by_age: list[tuple[int, str]] = []

    @property
    def level(self) -> int:
        """Units, without what waits for the rest of its key."""
        return self._run.free.level // self.key_units * self.key_units + sum(key.length for key in self._odd.values())

    def whole(self, name: str) -> Units | None:
        """Where the key of this number lies, if it is one."""
        if not (name.isascii() and name.isdecimal()) or name != str(int(name[:NUMBER_DIGITS])):
            return None
        return int(name) * self.key_units, (int(name) + 1) * self.key_units

    def find(self, name: str) -> Key | None:
        units = self.whole(name)
        if units is None:
            return self._odd.get(name)
        return Key(name, (units,)) if self._run.free.has((units,)) else None

    def may_name(self, name: str) -> bool:
        """Whether what comes of a change may have this name: neither that of a whole key nor of one that is here."""
        return bool(name) and not name.isdecimal() and name not in self._odd

    def oldest(self, number: int) -> list[Key]:
        """So many whole keys, or those there are."""
        number = min(number, self._run.free.level // self.key_units)
        first = self._run.free.front(number * self.key_units) or ()
        return [
            Key(str(unit // self.key_units), ((unit, unit + self.key_units),))
            for low, high in first
            for unit in range(low, high, self.key_units)
        ]

    def take(self, key: Key) -> None:
        """Out of the free stock, held by whoever takes it."""
        if key.id in self._odd:
            del self._odd[key.id]
            entry = key.ranges[0][0], key.id
            same = self._by_length[key.length]
            del same[bisect_left(same, entry)]
            if not same:
                del self._by_length[key.length]
            del self._by_age[bisect_left(self._by_age, entry)]
            return
        taken = self._run.free.remove(key.ranges)
        assert taken, key
        self._run.held += key.length

    def put(self, key: Key) -> None:
        if self.whole(key.id) is not None:
            self._run.held -= key.length
            self._run.free.put_back(key.ranges)
            return
        self._odd[key.id] = key
        entry = key.ranges[0][0], key.id
        insort(self._by_length.setdefault(key.length, []), entry)
        insort(self._by_age, entry)

    def candidates(self, length: int) -> list[Key]:
        """Those that matter for a key of this length, oldest first: one of each length that is enough, else all that
        it takes to be enough."""
        enough = [self._odd[same[0][1]] for one, same in self._by_length.items() if one >= length]
        if self.key_units >= length:
            enough += self.oldest(1)
        if enough:
            return sorted(enough, key=lambda key: key.ranges[0][0])
        found: list[Key] = []
        whole = iter(self.oldest(min(CANDIDATES, -(-length // self.key_units))))
        following = next(whole, None)
        for start, name in [*self._by_age[:CANDIDATES], (1 << 62, "")]:
            while following is not None and following.ranges[0][0] < start:
                found.append(following)
                following = next(whole, None)
            if name:
                found.append(self._odd[name])
        return found[:CANDIDATES]
