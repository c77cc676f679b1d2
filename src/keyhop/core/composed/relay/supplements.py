"""Relayed key that is ordered for what waits and for stores that run low, in the order of the requests (DDKA)."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.relay.parcels import HopQueue, Parcel
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.stock.sizes import Sized
from keyhop.core.policy.priority import ResponseWeight, Waiting
from keyhop.core.policy.refill import LowHigh
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.storage import MultiSizeBlock

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.nouns.messages import Name, StreamOpened
    from keyhop.core.composed.site import Site
    from keyhop.core.composed.stock.serving import Taken

POOL_S = 50
"""Of the path's rate, that the stores of a pair hold together, if the configuration allows for so much (K)."""
FILL_BITS = 8192
"""Ordered at once for a store that is low; the next when it has come, so that requests are not kept waiting (K)."""
LOOKED_AT = 32
"""Of those who wait, the best so many are ordered for (K)."""
WEIGHTS = 100_000
"""Steps of a response weight of 1, in ranks."""
SLOT_RANKS = 100 * WEIGHTS
"""More than any weight has."""


class ByRank:
    """The least rank first, then first in, first out."""

    def __init__(self) -> None:
        self._parcels: list[tuple[int, int, Parcel]] = []
        self._count = 0

    def put(self, parcel: Parcel) -> None:
        self._count += 1
        heapq.heappush(self._parcels, (parcel.rank, self._count, parcel))

    def head(self) -> Parcel | None:
        return self._parcels[0][2] if self._parcels else None

    def pop(self) -> Parcel:
        return heapq.heappop(self._parcels)[2]


class Supplements(HopWise):
    """SUPPLEMENT(pool, size, n): what is short for a request (S), or a store between its marks without any (S)."""

    def __init__(
        self, site: Site, part: HopByHop, storage: MultiSizeBlock, refill: LowHigh, priority: ResponseWeight
    ) -> None:
        super().__init__(site, part)
        self._storage = storage
        self._refill = refill
        self._priority = priority
        self._filling: set[tuple[str, int]] = set()

    def check(self, link: Line, parcel: Parcel, pad: Name, at: int) -> None:
        super().check(link, parcel, pad, at)
        if parcel.flow not in map(str, self._storage.sizes):
            raise Malformed(f"key for a store of {parcel.flow[:32]!r} bit: must be one of {self._storage.sizes}")

    def queue(self) -> HopQueue:
        return ByRank()

    def opened(self, stream: StreamOpened) -> None:
        if stream.asks and (line := self._site.line(stream.peer)) is not None and line.distant:
            self._fill(line)

    def used(self, line: Line, taken: Taken) -> None:
        if line.distant:
            self._fill(line)

    def grew(self, link: Line) -> None:
        super().grew(link)
        for peer in sorted({peer for peer, _ in self._filling}):
            # What was ordered before may have found no pad in time.
            if (line := self._site.line(peer, True)) is not None:
                self._fill(line)

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        if not line.distant:
            return
        under_way = self._ordered(line)
        for request in self._site.waiting.of(line.peer)[:LOOKED_AT]:
            size = self._storage.home(request.asked.size_bits)
            missing = -(-request.asked.size_bits // size) * size
            covered = min(missing, under_way[size])
            under_way[size] -= covered
            if missing > covered:
                self._supplement(line, size, missing - covered, request.waiting)

    def enter(self, line: Line, owner: str, parcel: Parcel) -> None:
        assert isinstance(line.dealing, Sized)
        line.dealing.wanted_bits = int(parcel.flow)
        super().enter(line, owner, parcel)
        line.dealing.wanted_bits = 0
        if owner == line.own:
            self._fill(line)

    def capacities(self, line: Line) -> dict[int, int]:
        """Keys of each size in one direction."""
        assert isinstance(line.dealing, Sized)
        return line.dealing.capacities(min(line.settings.capacity_bits, line.settings.rate_bps * POOL_S) // 2)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _fill(self, line: Line) -> None:
        assert isinstance(line.dealing, Sized)
        levels = line.dealing.levels(line.dealing.label("", True))
        under_way, capacities = self._ordered(line), self.capacities(line)
        for size in self._storage.sizes:
            ordered = under_way[size]
            store = line.peer, size
            wanted = self._refill.wanted(levels[size] + ordered // size, capacities[size], store in self._filling)
            if not wanted:
                self._filling.discard(store)
                continue
            self._filling.add(store)
            if not ordered:
                level = self._storage.sizes.index(size) + 1
                keys = min(wanted, max(1, FILL_BITS // size))
                self._supplement(line, size, keys * size, Waiting(0, self._site.now, size, level))

    def _supplement(self, line: Line, size: int, bits: int, waiting: Waiting) -> None:
        paths = self._site.network.paths(self._site.design, self._site.node, line.peer)
        if paths:
            self.start(line, bits, paths[0], flow=str(size), rank=self._rank(waiting))

    def _rank(self, waiting: Waiting) -> int:
        """The order of requests, in one number."""
        slot, weight, _ = self._priority.sort_key(waiting)
        return slot * SLOT_RANKS + round(weight * WEIGHTS)

    def _ordered(self, line: Line) -> dict[int, int]:
        """Bits under way for each store."""
        found = dict.fromkeys(self._storage.sizes, 0)
        if self._under_way_bits(line.peer):
            for parcel in self._young[line.peer].values():
                found[int(parcel.flow)] += parcel.bits - parcel.aside
        return found
