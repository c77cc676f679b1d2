"""Key for a pair over two paths, kept between marks: each path brings its own, or both make up one key."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Kx, StreamOpened
from keyhop.core.composed.relay.parcels import Parcel
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.policy.fallback import Hybrid
from keyhop.core.policy.relay import HopByHop

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

WINDOW_UNITS = 16
"""Under way on one path at once, or what it brings in a second if that is more (K)."""
WINDOW_PARCELS = 4
"""In so many batches (K)."""
HIGH_FACTOR = 4
"""A pair's stock is filled to so many times what it must have to come back from the exchange alone (K)."""
JOIN_NS = 10_000_000_000
"""After so long one half is not kept any more (K)."""
REMEMBERED = 4096
JOINED = "xor"
"""The flow of batches of which both paths carry one half."""

Path = tuple[str, ...]


class TwoPaths(HopWise):
    """The direct link is a path of one hop: its key becomes the pair's, so that all paths feed one stock."""

    over_links = True

    def __init__(self, site: Site, part: HopByHop) -> None:
        super().__init__(site, part)
        self._paths: dict[str, list[Path]] = {}
        """Once found, as long as no more links become known."""
        self._on_path: dict[tuple[str, Path], int] = {}
        """Bits under way, by destination and path."""
        self._in_use: set[str] = set()
        """Destinations that keys have been asked for."""
        self._halves: dict[tuple[str, int], Parcel] = {}
        self._given_up: OrderedDict[tuple[str, int], None] = OrderedDict()

    def reaches(self, peer: str) -> bool:
        return bool(self._paths_to(peer))

    def rate_bps(self, peer: str) -> int:
        network = self._site.network
        return self._part.rate_bps([network.rate_bps(path) for path in self._paths_to(peer)])

    def promotes(self, parcel: Parcel) -> bool:
        return len(parcel.path) == 2 and parcel.flow != JOINED

    # --- keeping the stock --------------------------------------------------------------------------------------------

    def opened(self, stream: StreamOpened) -> None:
        line = self._site.line(stream.peer, True)
        if stream.asks and line is not None:
            self._in_use.add(stream.peer)
            self._keep(line)

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        if line.distant:
            self._in_use.add(line.peer)
            self._keep(line, bits)

    def brings(self, line: Line) -> bool:
        """Nobody waits for a path: there is the exchange."""
        return False

    def used(self, line: Line, taken: Taken) -> None:
        self._keep(line)

    def dropped(self, parcel: Parcel) -> None:
        self._done(parcel)
        super().dropped(parcel)

    def _stored(self, line: Line, message: Kx) -> None:
        parcel = self._sent.get((line.peer, message.counts[0]))
        super()._stored(line, message)
        if parcel is not None:
            self._done(parcel)
            self._keep(line)

    def learned(self) -> None:
        self._paths.clear()

    def parted(self, peer: str) -> None:
        super().parted(peer)
        for key in [key for key in self._on_path if key[0] == peer]:
            del self._on_path[key]

    def grew(self, link: Line) -> None:
        super().grew(link)
        for peer in sorted(self._in_use):
            line = self._site.line(peer, True)
            if line is not None:
                self._keep(line)

    def _keep(self, line: Line, bits: int = 0) -> None:
        """Batches on every path that has room for one, as long as the stock is not full."""
        fallback = self._site.design.fallback
        resume = fallback.resume if isinstance(fallback, Hybrid) else WINDOW_UNITS
        paths = self._paths_to(line.peer)
        windows = [self._window(line, path) for path in paths]
        high = max(bits, HIGH_FACTOR * resume * line.run.unit_bits, 2 * sum(windows))
        missing = high - line.run.units * line.run.unit_bits - self._under_way_bits(line.peer)
        if self._part.paths == "xor":
            window = min(windows, default=0)
            busy = max((self._on_path.get((line.peer, path), 0) for path in paths), default=0)
            while paths and missing > 0 and busy < window:
                before = self._under_way_bits(line.peer)
                self._start_joined(line, window // WINDOW_PARCELS, paths)
                missing -= self._under_way_bits(line.peer) - before
                busy = max(self._on_path.get((line.peer, path), 0) for path in paths)
            return
        for path, window in zip(paths, windows, strict=True):
            while missing > 0 and self._on_path.get((line.peer, path), 0) < window:
                before = self._under_way_bits(line.peer)
                self.start(line, window // WINDOW_PARCELS, path)
                brought = self._under_way_bits(line.peer) - before
                missing -= max(brought, 1)

    def _window(self, line: Line, path: Path) -> int:
        unit_bits = line.run.unit_bits
        in_a_second = self._site.network.rate_bps(path) // unit_bits * unit_bits
        return max(WINDOW_UNITS * unit_bits, in_a_second) // (WINDOW_PARCELS * unit_bits) * WINDOW_PARCELS * unit_bits

    def _pass_on(self, parcel: Parcel, at: int) -> None:
        if at == 0:
            key = parcel.path[-1], parcel.path
            self._on_path[key] = self._on_path.get(key, 0) + parcel.bits
            self._site.later(2 * JOIN_NS, self._look_again_on, parcel)
        super()._pass_on(parcel, at)

    def _look_again_on(self, parcel: Parcel) -> None:
        """What has not been confirmed by now holds no room on its path any more."""
        if self._sent.get((parcel.path[-1], parcel.number)) is not None:
            self._done(parcel)

    def _done(self, parcel: Parcel) -> None:
        paths = self._paths_to(parcel.path[-1]) if parcel.flow == JOINED else [parcel.path]
        for path in paths:
            key = parcel.path[-1], path
            self._on_path[key] = max(0, self._on_path.get(key, 0) - parcel.bits)

    def _paths_to(self, peer: str) -> list[Path]:
        found = self._paths.get(peer)
        if found is None:
            site = self._site
            found = self._paths[peer] = site.network.paths(site.design, site.node, peer)
        return found

    # --- both paths make up one key -----------------------------------------------------------------------------------

    def _start_joined(self, line: Line, bits: int, paths: list[Path]) -> None:
        """The same number on every path: the far end joins what carries it."""
        if len(paths) == 1:
            self.start(line, bits, paths[0])
            return
        self.start(line, bits, paths[0], flow=JOINED)
        parcel = self._sent[line.peer, self._numbers]
        for path in paths[1:]:
            self._pass_on(parcel._replace(path=path), 0)

    def received(self, parcel: Parcel) -> None:
        if parcel.flow != JOINED:
            super().received(parcel)
            return
        key = parcel.path[0], parcel.number
        other = self._halves.get(key)
        if other is not None:
            # One path alone never brings both halves.
            if other.path != parcel.path:
                del self._halves[key]
                super().received(parcel)
        elif key not in self._given_up:
            self._halves[key] = parcel
            self._site.later(JOIN_NS, self._give_up, key)

    def _give_up(self, key: tuple[str, int]) -> None:
        """Half a key is none: what was spent on it is booked on the links."""
        if self._halves.pop(key, None) is not None:
            self._given_up[key] = None
            if len(self._given_up) > REMEMBERED:
                self._given_up.popitem(last=False)
