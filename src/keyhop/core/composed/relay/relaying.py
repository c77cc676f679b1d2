"""How key comes to pairs without a link: batches that a source has carried over trusted nodes, hop by hop."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Protocol

from keyhop.core.composed.nouns.messages import KeyAsked, Kx, Name, StreamOpened
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.nouns.units import count
from keyhop.core.composed.relay.parcels import HopQueue, InOrder, Parcel, place_of, read_relay, relay_message, spend
from keyhop.core.composed.stock.owner import Owned
from keyhop.core.composed.stock.serving import Pending, Taken, Then
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

HOP_WAIT_NS = 5_000_000_000
"""What waits longer for a pad at a hop is dropped (K)."""
BATCH_BITS = 65_536
"""At most so much at once (K)."""
TAG_BATCH_BITS = 4096
"""For tags a small batch may bring as much as one of this size would: the next ones need none then (K)."""
POOLS_LIMIT = 65_536
"""Of one pair, that relayed key makes."""
OUTSTANDING_NS = 20_000_000_000
"""Of a batch so old nothing is expected any more, but when its answer comes, both runs have it."""


class Relaying(Protocol):
    over_links: bool
    """Whether neighbours draw from a run of the pair, too, into which their link's key is promoted."""

    def over(self, peer: str) -> bool:
        """Whether a neighbour is served as if it were none."""
        ...

    def supplied(self, line: Line, name: Name, stream: str) -> None:
        """A key has left for an application, at either end."""
        ...

    def refusal(self, asked: KeyAsked) -> str:
        """Why a request is not even tried; empty if it is."""
        ...

    def reserved_bits(self) -> int:
        """Of this site's links, for somebody who does not use them now."""
        ...

    def admitted(self) -> frozenset[str] | None:
        """Streams of this site that were let in; None if all are."""
        ...

    def reaches(self, peer: str) -> bool: ...
    def rate_bps(self, peer: str) -> int: ...
    def opened(self, stream: StreamOpened) -> None: ...
    def retuned(self, stream: str, rate_bps: int) -> None: ...
    def closed(self, stream: str) -> None: ...
    def paired(self, line: Line) -> None:
        """A line to a site that is no neighbour has just been made."""
        ...

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        """So many bits are asked for on this line and not there, all that wait together."""
        ...

    def brings(self, line: Line) -> bool:
        """Whether key is made for it now, so that a request waits whatever the fallback says."""
        ...

    def used(self, line: Line, taken: Taken) -> None: ...
    def grew(self, link: Line) -> None:
        """There may be pads."""
        ...

    def restarted(self) -> None: ...

    def renewed(self, link: Line) -> None:
        """The link to a neighbour has begun anew; what waited for its key, or was on its way over it, is lost."""
        ...

    def parted(self, peer: str) -> None:
        """The line to this site has begun anew at one end: of what is on its way to it nothing is expected."""
        ...

    def learned(self) -> None:
        """More links of the network have become known."""
        ...


class Unconnected:
    """Key ends where its link ends."""

    over_links = False

    def over(self, peer: str) -> bool:
        return self.over_links

    def supplied(self, line: Line, name: Name, stream: str) -> None:
        pass

    def refusal(self, asked: KeyAsked) -> str:
        return ""

    def reserved_bits(self) -> int:
        return 0

    def admitted(self) -> frozenset[str] | None:
        return None

    def reaches(self, peer: str) -> bool:
        return False

    def rate_bps(self, peer: str) -> int:
        return 0

    def opened(self, stream: StreamOpened) -> None:
        pass

    def retuned(self, stream: str, rate_bps: int) -> None:
        pass

    def closed(self, stream: str) -> None:
        pass

    def paired(self, line: Line) -> None:
        pass

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        pass

    def brings(self, line: Line) -> bool:
        return False

    def used(self, line: Line, taken: Taken) -> None:
        pass

    def grew(self, link: Line) -> None:
        pass

    def restarted(self) -> None:
        pass

    def renewed(self, link: Line) -> None:
        pass

    def parted(self, peer: str) -> None:
        pass

    def learned(self) -> None:
        pass


class HopWise(Unconnected):
    """Each hop under a pad of its link; what finds no pad waits at the hop, first in first out (K).

    Over a path of one link the range itself is promoted at both ends.
    """

    patience_ns = HOP_WAIT_NS
    batch_bits = BATCH_BITS
    stretches = False
    """Whether a pad may be derived from less than it covers."""
    word = "RELAY"
    """What this design calls such a message."""

    def __init__(self, site: Site, part: HopByHop) -> None:
        self._site = site
        self._part = part
        self._numbers = 0
        self._sent: dict[tuple[str, int], Parcel] = {}
        """(destination, number): batches of this source that no answer has come for."""
        self._young: dict[str, OrderedDict[int, Parcel]] = {}
        self._young_bits: dict[str, int] = {}
        self._void: dict[str, int] = {}
        """Destination -> own batches up to this number are for a line that is no more."""
        self._queues: dict[str, HopQueue] = {}
        """By lane."""
        self._asking: set[str] = set()
        """Next hops whose site has been asked for a pad."""
        for line in site.links.values():
            line.talk.handlers[self.word] = partial(self._arrived, line.peer)

    def reaches(self, peer: str) -> bool:
        return self._site.network.shortest(self._site.node, peer) is not None

    def rate_bps(self, peer: str) -> int:
        path = self._site.network.shortest(self._site.node, peer)
        return self._site.network.rate_bps(path) if path else 0

    def paired(self, line: Line) -> None:
        line.talk.handlers["STORED"] = partial(self._stored, line)

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        """On demand: what those who wait need, less what is under way."""
        if not line.distant:
            return
        missing = bits - self._under_way_bits(line.peer) - line.serving.stock_bits(stream)
        if missing > 0:
            self.order(line, missing)

    def brings(self, line: Line) -> bool:
        return line.distant and self._under_way_bits(line.peer) > 0

    def order(self, line: Line, bits: int) -> None:
        """Starts batches for at least so many bits."""
        path = self.path(line.peer)
        step = self.step_bits(line)
        while bits > 0 and path:
            size = -(-min(bits, self.batch_bits) // step) * step
            bits -= size
            self.start(line, size, path)

    def step_bits(self, line: Line) -> int:
        """Batches are multiples of this."""
        return line.run.unit_bits

    def path(self, peer: str) -> tuple[str, ...]:
        """The way to take now; empty if there is none."""
        site = self._site
        paths = site.network.paths(site.design, site.node, peer)
        return paths[0] if paths else ()

    def start(self, line: Line, bits: int, path: tuple[str, ...], *, flow: str = "", rank: int = 0) -> None:
        """One batch, of whole units, with so many more as the tags of the pair need."""
        self._numbers += 1
        aside = line.talk.aside_bits(max(bits, TAG_BATCH_BITS))
        step = self.step_bits(line)
        bits = -(-(bits + aside) // step) * step
        parcel = Parcel(self._numbers, bits, path, self._site.now, True, aside, flow, rank, self._site.now)
        self._sent[line.peer, parcel.number] = parcel
        self._young.setdefault(line.peer, OrderedDict())[parcel.number] = parcel
        self._young_bits[line.peer] = self._young_bits.get(line.peer, 0) + bits
        self._site.later(OUTSTANDING_NS + 1, self._look_again, line, parcel.number)
        self._pass_on(parcel, 0)

    def _look_again(self, line: Line, number: int) -> None:
        """Who waits for a batch that is not expected any more needs another."""
        if number in self._young.get(line.peer, ()):
            self._site.grew(line)

    def grew(self, link: Line) -> None:
        if isinstance(link.serving, Owned):
            link.serving.grew()
        self._drain(link.peer)

    def restarted(self) -> None:
        self._queues.clear()
        self._asking.clear()

    def renewed(self, link: Line) -> None:
        for lane in [lane for lane in self._queues if lane.partition(" ")[0] == link.peer]:
            queue = self._queues.pop(lane)
            self._asking.discard(lane)
            while queue.head() is not None:
                self.dropped(queue.pop())

    def parted(self, peer: str) -> None:
        self._void[peer] = self._numbers
        self._young.pop(peer, None)
        self._young_bits.pop(peer, None)
        for key in [key for key in self._sent if key[0] == peer]:
            self._site.cargo.discard(self._sent.pop(key).payload)

    # --- hops ---------------------------------------------------------------------------------------------------------

    def _under_way_bits(self, peer: str) -> int:
        """Of batches that are not too old to be expected."""
        batches = self._young.get(peer)
        if not batches:
            return 0
        oldest = self._site.now - OUTSTANDING_NS
        while batches and next(iter(batches.values())).arrived_ns < oldest:
            self._young_bits[peer] -= batches.popitem(last=False)[1].bits
        return self._young_bits[peer]

    def _pass_on(self, parcel: Parcel, at: int) -> None:
        hop = parcel.path[at + 1]
        link = self._site.links[hop]
        if isinstance(link.serving, Owned):
            self._line_up(link, link.serving, parcel)
            return
        lane = self.lane(parcel, hop)
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = self.queue()
        queue.put(parcel)
        self._drain(lane)

    def queue(self) -> HopQueue:
        return InOrder()

    def lane(self, parcel: Parcel, hop: str) -> str:
        """Which queue of a hop it waits in: the hop's name, or that and more after a blank."""
        return hop

    def pad(self, link: Line, parcel: Parcel, then: Then) -> Taken | Pending | None:
        return link.serving.take("", parcel.bits, then)

    def _line_up(self, link: Line, stock: Owned, parcel: Parcel) -> None:
        """The owner of the link keeps the queue, of both ends."""

        def then(taken: Taken | None) -> None:
            if taken is None:
                self.dropped(parcel)
            else:
                self._send(link, parcel, taken)

        flow = f"{parcel.path[0]}/{parcel.flow}" if parcel.flow else ""
        taken = stock.line_up(parcel.bits, then, rank=parcel.rank, patience_ns=self.patience_ns, flow=flow)
        if isinstance(taken, Taken):
            self._send(link, parcel, taken)

    def dropped(self, parcel: Parcel) -> None:
        """It found no pad in time: where it began, nothing is expected of it any more."""
        self._site.cargo.discard(parcel.payload)
        batches = self._young.get(parcel.path[-1])
        if parcel.path[0] == self._site.node and batches and batches.pop(parcel.number, None) is not None:
            self._young_bits[parcel.path[-1]] -= parcel.bits
            line = self._site.line(parcel.path[-1], True)
            if line is not None:
                self._site.grew(line)

    def _drain(self, lane: str) -> None:
        """Sends what has a pad."""
        site, queue = self._site, self._queues.get(lane)
        link = site.links[lane.partition(" ")[0]]
        while queue is not None and lane not in self._asking and (parcel := queue.head()) is not None:
            if site.now - parcel.arrived_ns > self.patience_ns:
                self.dropped(queue.pop())
                continue
            taken = self.pad(link, parcel, lambda taken: self._pad_came(lane, taken))
            if isinstance(taken, Pending):
                self._asking.add(lane)
            if not isinstance(taken, Taken):
                return
            queue.pop()
            self._send(link, parcel, taken)

    def _pad_came(self, lane: str, taken: Taken | None) -> None:
        self._asking.discard(lane)
        queue, link = self._queues.get(lane), self._site.links[lane.partition(" ")[0]]
        if taken is None:
            self._site.later(HOP_WAIT_NS // 50, self._drain, lane)
        elif queue is None or queue.head() is None:
            link.gone(taken.ranges, "X", taken.run)
        else:
            self._send(link, queue.pop(), taken)
            self._drain(lane)

    def promotes(self, parcel: Parcel) -> bool:
        """Whether the range of its one link is the key at both ends."""
        return len(parcel.path) == 2

    def _send(self, link: Line, parcel: Parcel, pad: Taken) -> None:
        """Random payload: this range is a pad. Local payload: on the first link it is the key itself."""
        site = self._site
        first = parcel.path[0] == site.node
        promoted = (first and self._part.payload == "local") or self.promotes(parcel)
        spend(link, pad, parcel, "T" if promoted else "R")
        name = Name(False, pad.label, pad.ranges, parcel.bits, pad.bits, its=parcel.its, unit_bits=pad.run.unit_bits)
        load = self._load(link, parcel, pad, promoted)
        if load is not None:
            link.talk.tell(relay_message(parcel, name, load, self.word))
        link.dealing.used(pad.label)

    def _load(self, link: Line, parcel: Parcel, pad: Taken, promoted: bool) -> int | None:
        """What goes beside the message; None: nobody expects this batch any more."""
        cargo, payload = self._site.cargo, parcel.payload
        first = parcel.path[0] == self._site.node
        if first and parcel.number <= self._void.get(parcel.path[-1], 0):
            return None
        if promoted:
            return cargo.gather(payload, link, pad, parcel.bits)
        if first:
            cargo.draw(payload, parcel.bits)
        load = cargo.cover(payload, link, pad, parcel.bits)
        if not first:
            cargo.discard(payload)
        return load

    def _unload(self, link: Line, parcel: Parcel, pad: Taken, at: int) -> bool:
        """Whether what came beside the message is of use."""
        cargo, payload = self._site.cargo, parcel.payload
        if self.promotes(parcel) or (self._part.payload == "local" and at == 1):
            return cargo.gather(payload, link, pad, parcel.bits, parcel.load) is not None
        return cargo.uncover(payload, link, pad, parcel.bits, parcel.load)

    def _arrived(self, peer: str, message: Kx) -> None:
        parcel, pad = read_relay(message, self._site.now)
        at = place_of(self._site, parcel.path, peer)
        link = self._site.links[peer]
        self.check(link, parcel, pad, at)
        self._unpad(link, parcel, pad, at)

    def check(self, link: Line, parcel: Parcel, pad: Name, at: int) -> None:
        """Raises Malformed where the neighbour may not send this: nothing of it fails any more once it waits."""
        run = link.run_of(pad.label, pad.unit_bits)
        if not link.serving.lends(pad.label):
            raise Malformed(f"a pad of pool {pad.label[:64]!r}: {link.peer} does not take from it")
        if count(pad.ranges) * run.unit_bits != pad.taken_bits or parcel.aside > parcel.bits:
            raise Malformed(f"{count(pad.ranges)} units and {parcel.aside} bit aside do not make up the parcel")
        if parcel.bits > pad.taken_bits and not (self.stretches and self._site.cargo.derives):
            raise Malformed(f"{parcel.bits} bit under a pad of {pad.taken_bits}: pads are as long as what they cover")
        line = self._site.pairs.get(parcel.path[0]) if at + 1 == len(parcel.path) else None
        if line is not None and len(line.run_of(f"{line.peer}>").pools) >= POOLS_LIMIT:
            raise Malformed(f"a key for flow {parcel.flow[:64]!r}: {POOLS_LIMIT} pools are enough")

    def _unpad(self, link: Line, parcel: Parcel, pad: Name, at: int, tries: int = 0) -> None:
        site = self._site
        taken = link.serving.fetch(pad)
        if not isinstance(taken, Taken):
            # The block has not been agreed at this end yet.
            if tries < 50:
                site.later(HOP_WAIT_NS // 50, self._unpad, link, parcel, pad, at, tries + 1)
            return
        spend(link, taken, parcel, "T" if self.promotes(parcel) else "R")
        link.dealing.used(pad.label)
        if not self._unload(link, parcel, taken, at):
            return
        self.unpadded(link, parcel, pad)
        if at + 1 < len(parcel.path):
            self._pass_on(parcel, at)
        else:
            self.received(parcel)

    def unpadded(self, link: Line, parcel: Parcel, pad: Name) -> None:
        """A pad has done its work."""

    def line_to_source(self, parcel: Parcel) -> Line | None:
        """None, and the batch is lost, while this site does not know how its source is reached."""
        line = self._site.line(parcel.path[0], True)
        if line is None:
            self._site.cargo.discard(parcel.payload)
        return line

    def received(self, parcel: Parcel) -> None:
        """At its destination."""
        line = self.line_to_source(parcel)
        if line is None:
            return
        if self.promotes(parcel):
            line.book.T += parcel.bits
        else:
            line.book.N += parcel.bits
        self.enter(line, parcel.path[0], parcel)
        line.talk.tell(Kx("STORED", Verb.AGREE, counts=(parcel.number, int(parcel.its))))

    def _stored(self, line: Line, message: Kx) -> None:
        number, *its = message.counts
        parcel = self._sent.pop((line.peer, number), None)
        if parcel is None:
            return
        # Whether every pad on the way was a one-time pad; where none is ever derived nobody says so.
        parcel = parcel._replace(its=all(its))
        young = self._young.get(line.peer)
        if young is not None and young.pop(parcel.number, None) is not None:
            self._young_bits[line.peer] -= parcel.bits
        if self._part.payload == "local" or self.promotes(parcel):
            line.book.T += parcel.bits
        else:
            line.book.N += parcel.bits
        self.enter(line, line.own, parcel)

    def enter(self, line: Line, owner: str, parcel: Parcel) -> None:
        run = line.run_of(f"{owner}>")
        start = run.end
        line.made_ns = parcel.made_ns
        self._site.cargo.enter(parcel.payload, line, run, start)
        line.enter(parcel.bits, parcel.aside, owner)
        if not parcel.its:
            run.weaken(start)
