"""Global key made ahead at the sum of demands, no faster than the path carries, and dealt to clients by demand."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import KeyAsked, StreamOpened
from keyhop.core.composed.relay.parcels import Parcel
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.relay.streams import ByStream
from keyhop.core.composed.stock.dealing import direction
from keyhop.core.composed.talk.directory import Directory
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.sharing import Weighted

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run
    from keyhop.core.composed.site import Site

LOOK_NS = NANOSECONDS
"""Between two looks at links that carry nothing, and at the directory by a client whose peer it did not know (K)."""
AHEAD_NS = 2 * NANOSECONDS
"""Of key that no answer has come for, at most so much is made, but always a few stretches (K)."""
AHEAD_STRETCHES = 4


class ByClient(ByStream):
    """A stretch goes to the client it was made for, at both ends."""

    client = ""
    """Of what enters now."""

    def fresh(self, run: Run, start: int, end: int) -> None:
        line = self._line
        way = direction(run.owner, line.peer if run.owner == line.own else line.own)
        run.pool(f"{way}/{self.client}").put(start, end)


class Shares:
    """The clients of one source that want key with one destination."""

    __slots__ = ("achieved_bps", "credits", "line", "links_bps", "path", "rates", "round")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.rates: dict[str, int] = {}
        """Client -> the rate it asked for."""
        self.credits: tuple[int, ...] = ()
        self.path: tuple[str, ...] = ()
        self.links_bps: list[int] = []
        self.achieved_bps = 0
        self.round = 0
        """Counts plans: a timer of an older one does nothing."""


class DemandSharing(HopWise):
    """Toshiba's global part: directory, key-sharing manager, key-allocation manager."""

    over_links = True

    def __init__(self, site: Site, part: HopByHop, sharing: Weighted, routing: LinkState) -> None:
        super().__init__(site, part)
        self._sharing = sharing
        self.directory = Directory(site, routing.directory)
        self.shares: dict[str, Shares] = {}
        """By destination."""
        self._asked_bps: dict[str, int] = {}
        """Client -> the rate it wants, once it has said so."""
        self._looking: dict[str, str] = {}
        """Client -> the destination for which the directory has been asked."""
        self._missing: set[str] = set()
        """Clients whose destination the directory did not know."""

    # --- what the site asks -------------------------------------------------------------------------------------------

    def paired(self, line: Line) -> None:
        super().paired(line)
        self.directory.paired(line)

    def parted(self, peer: str) -> None:
        super().parted(peer)
        shares = self.shares.pop(peer, None)
        if shares is not None:
            # Its timers do nothing any more.
            shares.round += 1

    def learned(self) -> None:
        self.directory.learned()

    def opened(self, stream: StreamOpened) -> None:
        if stream.asks:
            self._asked_bps[stream.stream] = stream.rate_bps
            self._look_up(stream.stream, stream.peer)
        else:
            self.directory.register(stream.stream)

    def retuned(self, stream: str, rate_bps: int) -> None:
        if stream in self._asked_bps:
            self._asked_bps[stream] = rate_bps
            for shares in self.shares.values():
                if stream in shares.rates:
                    shares.rates[stream] = rate_bps
                    self._plan(shares)

    def closed(self, stream: str) -> None:
        """What is in the client's pool stays there: it is of no use to another."""
        if self._asked_bps.pop(stream, None) is None:
            self.directory.withdraw(stream)
            return
        self.directory.forget(stream)
        self._missing.discard(stream)
        for shares in self.shares.values():
            if shares.rates.pop(stream, None) is not None:
                self._plan(shares)

    def refusal(self, asked: KeyAsked) -> str:
        """A miss may have been too early: the directory is asked again for each request, before any key is made."""
        stream = asked.stream
        if stream not in self._asked_bps:
            return f"application {stream} has not connected: a client names the rate it wants first"
        shares = self.shares.get(asked.peer)
        if (shares is None or stream not in shares.rates) and stream not in self._looking:
            self._look_up(stream, asked.peer)
            if stream in self._missing:
                return self._unknown(stream)
        return ""

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        """Key is made by rate, not by request."""

    def brings(self, line: Line) -> bool:
        """Who has just come waits for the directory."""
        return line.peer in self._looking.values()

    def restarted(self) -> None:
        super().restarted()
        for shares in self.shares.values():
            self._plan(shares)

    # --- directory ----------------------------------------------------------------------------------------------------

    def _look_up(self, stream: str, destination: str) -> None:
        self._looking[stream] = destination

        def found(node: str) -> None:
            self._looking.pop(stream, None)
            line = self._site.line(destination)
            if line is None:
                return
            if node == destination and stream in self._asked_bps:
                self._missing.discard(stream)
                self._join(line, stream)
            else:
                self._missing.add(stream)
                self.directory.forget(stream)
                if stream in self._asked_bps:
                    self._site.later(LOOK_NS, self._connect_again, stream, destination)
                for request in self._site.waiting.of(destination):
                    if request.stream == stream:
                        self._site.refuse(request, self._unknown(stream))
            self._site.grew(line)

        self.directory.look_up(stream, found)

    def _connect_again(self, stream: str, destination: str) -> None:
        if stream in self._asked_bps and stream in self._missing and stream not in self._looking:
            self._look_up(stream, destination)

    def _unknown(self, stream: str) -> str:
        return f"the directory at {self.directory.server} knows no application {stream}"

    # --- sharing ------------------------------------------------------------------------------------------------------

    def _join(self, line: Line, stream: str) -> None:
        shares = self.shares.get(line.peer)
        if shares is None:
            shares = self.shares[line.peer] = Shares(line)
        shares.rates[stream] = self._asked_bps[stream]
        self._plan(shares)

    def _plan(self, shares: Shares) -> None:
        """Who joins, leaves or changes, or a link that does, begins anew with nothing owed."""
        shares.round += 1
        shares.path = self.path(shares.line.peer)
        shares.links_bps = self._measured(shares.path)
        rates = tuple(shares.rates.values())
        shares.achieved_bps = self._sharing.achieved(rates, shares.links_bps)
        shares.credits = (0,) * len(rates)
        if any(rates):
            self._site.later(self._pause_ns(shares), self._make, shares, shares.round)

    def _measured(self, path: tuple[str, ...]) -> list[int]:
        return [self._site.network.told_bps(one, other) for one, other in pairwise(path)]

    def _pause_ns(self, shares: Shares) -> int:
        """Until the next stretch."""
        if not shares.achieved_bps:
            return LOOK_NS
        return self._sharing.unit_bits * NANOSECONDS // shares.achieved_bps

    def _make(self, shares: Shares, round_: int) -> None:
        if round_ != shares.round:
            return
        links_bps = self._measured(shares.path)
        if not links_bps or any(map(self._sharing.drifted, shares.links_bps, links_bps)):
            self._plan(shares)
            return
        self._site.later(self._pause_ns(shares), self._make, shares, round_)
        if not shares.achieved_bps:
            return
        unit_bits = self._sharing.unit_bits
        ahead = max(AHEAD_STRETCHES * unit_bits, shares.achieved_bps * AHEAD_NS // NANOSECONDS)
        if self._under_way_bits(shares.line.peer) < ahead:
            pick, shares.credits = self._sharing.next(shares.credits, tuple(shares.rates.values()))
            self.start(shares.line, unit_bits, shares.path, flow=tuple(shares.rates)[pick])

    def enter(self, line: Line, owner: str, parcel: Parcel) -> None:
        assert isinstance(line.dealing, ByClient)
        line.dealing.client = parcel.flow
        super().enter(line, owner, parcel)
