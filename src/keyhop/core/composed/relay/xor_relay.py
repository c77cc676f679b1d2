"""Relay by one XOR: the node between two links sends one end its key under the other's, and keeps neither (NEC)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from keyhop.core.composed.nouns.cargo import ONE_LINK, Payload
from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.relay.relaying import OUTSTANDING_NS, Unconnected
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.policy.refill import LowHigh
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

HOLE_NS = 10_000_000_000
"""Files that both ends should have and this one does not get are passed over after this time (K)."""
LOOKS = 50
LOOK_NS = 100_000_000
"""Between two looks for a link's file that has not been agreed at this end yet."""


class Joining(NamedTuple):
    """Files under way, at the relay node."""

    source: str
    destination: str
    request: int
    """Of the source; 0 if it has not asked."""
    start: int = -1
    """Where the destination has put them; -1 until it says so."""
    at_source: bool = False
    load: int = 0
    """What the destination has put beside its word."""


class XorRelay(Unconnected):
    """All three parts: terminals that ask, terminals that are given to, and the relay node between them."""

    def __init__(self, site: Site, fill: LowHigh | None) -> None:
        self._site = site
        self._fill = fill
        """Files that the relay node keeps ready for every ordered pair of its terminals; None: on demand."""
        self._numbers = 0
        self._joining: dict[int, Joining] = {}
        self._levels: dict[tuple[str, str], int] = {}
        """Files of an ordered pair, as its relay node counts them."""
        self._round: deque[tuple[str, str]] = deque()
        """Pairs that are being filled, whose turn it is first."""
        self._expected: dict[str, dict[int, int]] = {}
        """Destination -> files by request, at the source."""
        self._requests = 0
        self._padded: dict[tuple[str, int], int] = {}
        """(relay node, number) -> files whose XOR has come and whose confirmation has not."""
        self._early: dict[str, dict[int, tuple[str, int, int]]] = {}
        """Destination -> position -> confirmed files that come before others that are missing."""
        for peer, link in site.links.items():
            link.talk.handlers |= {
                "REQ": partial(self._asked, peer),
                "XOR": partial(self._xor, peer),
                "SET": partial(self._set, peer),
                "SET-OK": partial(self._confirmed, peer),
                "READY": partial(self._ready, peer),
                "FILES-USED": partial(self._used, peer),
            }
        self.learned()

    def learned(self) -> None:
        """Pairs without a link of their own: one that was thought to be none is filled no more."""
        pairs = self._pairs() if self._fill is not None else []
        for pair in [pair for pair in self._levels if pair not in pairs]:
            del self._levels[pair]
            if pair in self._round:
                self._round.remove(pair)
        for pair in pairs:
            if pair not in self._levels:
                self._levels[pair] = 0
                self._round.append(pair)

    def renewed(self, link: Line) -> None:
        """Files under way over it never come; what its terminal has left of others is not known here."""
        for number, joining in list(self._joining.items()):
            if link.peer in (joining.source, joining.destination):
                del self._joining[number]
        for pair in self._levels:
            if link.peer in pair:
                self._levels[pair] = 0
                if pair not in self._round:
                    self._round.append(pair)

    def parted(self, peer: str) -> None:
        self._expected.pop(peer, None)
        self._early.pop(peer, None)

    def reaches(self, peer: str) -> bool:
        return self._path(peer) is not None

    def rate_bps(self, peer: str) -> int:
        path = self._path(peer)
        return self._site.network.rate_bps(path) if path else 0

    # --- the terminal that asks ---------------------------------------------------------------------------------------

    def wanted(self, line: Line, stream: str, bits: int) -> None:
        """Whole files for each request; REQ for those that are not there and not under way."""
        path = self._path(line.peer)
        if self._fill is not None or not line.distant or path is None:
            return
        waiting, file_bits = self._site.waiting, line.run.unit_bits
        files = max(-(-bits // file_bits), waiting.number(line.peer), -(-waiting.bits.get(line.peer, 0) // file_bits))
        files -= line.serving.stock_bits(stream) // file_bits + self._under_way(line.peer)
        if files > 0:
            self._requests += 1
            request = self._requests
            self._expected.setdefault(line.peer, {})[request] = files
            self._site.links[path[1]].talk.ask(
                Kx("REQ", Verb.ASSIGN, counts=(files, request), names=(line.peer,)),
                lambda answer: None if answer.ok else self._blocked(line, request),
                given_up=lambda: self._blocked(line, request),
            )
            self._site.later(OUTSTANDING_NS, self._overdue, line, request)

    def brings(self, line: Line) -> bool:
        return line.distant and self._under_way(line.peer) > 0

    def used(self, line: Line, taken: Taken) -> None:
        path = self._path(line.peer)
        if self._fill is not None and line.distant and path is not None:
            files = taken.bits // line.run.unit_bits
            self._site.links[path[1]].talk.tell(Kx("FILES-USED", Verb.TAKE, counts=(files,), names=(line.peer,)))

    def _under_way(self, peer: str) -> int:
        return sum(self._expected.get(peer, {}).values())

    def _forget(self, peer: str, request: int) -> None:
        self._expected.get(peer, {}).pop(request, None)

    def _overdue(self, line: Line, request: int) -> None:
        if request in self._expected.get(line.peer, {}):
            self._forget(line.peer, request)
            self._site.grew(line)

    def _blocked(self, line: Line, request: int) -> None:
        """A link lacks files: who cannot be served by what is there and under way is refused, the last one first."""
        self._forget(line.peer, request)
        site, file_bits = self._site, line.run.unit_bits
        files = line.serving.stock_bits("") // file_bits + self._under_way(line.peer)
        for waiting in site.waiting.of(line.peer):
            files -= -(-waiting.asked.size_bits // file_bits)
            if files < 0 and not waiting.pending:
                site.refuse(waiting, "blocked: a link has too few files")

    def _xor(self, relay: str, message: Kx, looks: int = 0) -> None:
        """The far link's file under the file of this link."""
        number, files, _ = message.counts
        taken = self._spend(relay, message, "R", lambda: self._xor(relay, message, looks + 1), looks)
        site = self._site
        payload = Payload(relay, site.node, number, ONE_LINK)
        if taken is None or not site.cargo.uncover(payload, site.links[relay], taken, taken.bits, message.cargo):
            return
        self._padded[relay, number] = files
        self._site.links[relay].talk.tell(Kx("SET-OK", Verb.AGREE, counts=(number, -1)))

    def _ready(self, relay: str, message: Kx) -> None:
        """Both ends have it: only now may it be supplied (K)."""
        number, start, request = message.counts
        (peer,) = message.names
        self._check_pair(relay, peer)
        waiting = self._early.get(peer, {})
        end = start + self._padded.get((relay, number), 0)
        if any(start < first + one and first < end for first, (_, one, _) in waiting.items()):
            raise Malformed(f"files from {start} on: others are there already")
        self._forget(peer, request)
        files = self._padded.pop((relay, number), None)
        line = self._site.line(peer, True)
        if files is None or line is None:
            return
        run = line.run_of(f"{line.own}>")
        if start < run.end or not self._site.cargo.fits(line, message.cargo):
            # It has been passed over, or the far end has put it into what is no more.
            self._site.cargo.discard(Payload(relay, line.own, number, ONE_LINK))
            line.book.N += files * run.unit_bits
            line.book.Y += files * run.unit_bits
            return
        early = self._early.setdefault(peer, {})
        early[start] = relay, files, number
        if start > run.end:
            self._site.later(HOLE_NS, self._pass_over, line, start)
        self._enter_confirmed(line, early)

    def _enter_confirmed(self, line: Line, early: dict[int, tuple[str, int, int]]) -> None:
        run = line.run_of(f"{line.own}>")
        while (found := early.pop(run.end, None)) is not None:
            relay, files, number = found
            start, bits = run.end, files * run.unit_bits
            line.book.N += bits
            self._site.cargo.enter(Payload(relay, line.own, number, ONE_LINK), line, run, start)
            line.enter(bits, 0, line.own)

    def _pass_over(self, line: Line, start: int) -> None:
        run, early = line.run_of(f"{line.own}>"), self._early.get(line.peer, {})
        if start in early:
            run.end = max(run.end, min(early))
            self._enter_confirmed(line, early)

    # --- the terminal that is given to --------------------------------------------------------------------------------

    def _set(self, relay: str, message: Kx, looks: int = 0) -> None:
        """The link's file is the pair's from now on: promoted, in the order in which the relay node says so."""
        number, files, _ = message.counts
        if not looks:
            self._check_pair(relay, message.names[0])
        taken = self._spend(relay, message, "T", lambda: self._set(relay, message, looks + 1), looks)
        (source,) = message.names
        site = self._site
        line, payload = site.line(source, True), Payload(relay, site.node, number, ONE_LINK)
        if taken is None or line is None or site.cargo.gather(payload, site.links[relay], taken, taken.bits) is None:
            return
        run = line.run_of(f"{source}>")
        start, bits = run.end, files * run.unit_bits
        line.book.T += bits
        site.cargo.enter(payload, line, run, start)
        line.enter(bits, 0, source)
        beginning = site.cargo.stamp(line)
        site.links[relay].talk.tell(Kx("SET-OK", Verb.AGREE, counts=(number, start), cargo=beginning))

    def _check_pair(self, relay: str, peer: str) -> None:
        """Raises Malformed where the pair's key does not come over this node."""
        path = self._path(peer)
        if path is None or frozenset((relay, peer)) not in self._site.network.rates:
            raise Malformed(f"files of a pair with {peer[:64]!r} over {relay}: there is no such way")

    def _spend(self, relay: str, message: Kx, letter: str, again: Callable[[], None], looks: int) -> Taken | None:
        """Takes the files of the link that are named; None if they are not here yet."""
        link = self._site.links[relay]
        if not link.serving.lends(message.to):
            raise Malformed(f"files of pool {message.to[:64]!r}: {relay} does not take from it")
        name = Name(False, message.to, message.ranges, 0, 0, unit_bits=link.run.unit_bits)
        taken = link.serving.fetch(name)
        if not isinstance(taken, Taken):
            if looks < LOOKS:
                self._site.later(LOOK_NS, again)
            return None
        link.gone(taken.ranges, letter, taken.run)
        link.dealing.used(message.to)
        return taken

    # --- the relay node -----------------------------------------------------------------------------------------------

    def grew(self, link: Line) -> None:
        if self._round:
            self._build()

    def restarted(self) -> None:
        for gone in (self._joining, self._expected, self._padded, self._early):
            gone.clear()

    def _asked(self, source: str, message: Kx) -> Kx:
        files, request = message.counts
        (destination,) = message.names
        done = destination in self._site.links and self._join(source, destination, files, request)
        return Kx("REQ-OK" if done else "BLOCKED", Verb.ASSIGN, ok=done)

    def _join(self, source: str, destination: str, files: int, request: int = 0) -> bool:
        """Takes as many files of both links, or nothing."""
        near, far = self._site.links[source], self._site.links[destination]
        bits = files * near.run.unit_bits
        if min(near.serving.stock_bits(""), far.serving.stock_bits("")) < bits:
            return False
        one = near.serving.take("", bits, lambda taken: None)
        other = far.serving.take("", bits, lambda taken: None)
        # A relay node owns the files of its links, or its half of them: nobody is asked.
        assert isinstance(one, Taken)
        assert isinstance(other, Taken)
        self._numbers += 1
        self._joining[self._numbers] = Joining(source, destination, request)
        counts = self._numbers, files, request
        load = self._load(near, one, far, other)
        for link, taken, word, peer in ((near, one, "XOR", destination), (far, other, "SET", source)):
            link.gone(taken.ranges, "R", taken.run)
            link.dealing.used(taken.label)
            message = Kx(word, Verb.ASSIGN, ranges=taken.ranges, to=taken.label, counts=counts, names=(peer,))
            link.talk.tell(msgspec.structs.replace(message, cargo=load if word == "XOR" else 0))
        return True

    def _load(self, near: Line, one: Taken, far: Line, other: Taken) -> int:
        """The far link's files under those of the near one."""
        cargo, payload = self._site.cargo, Payload(self._site.node, near.peer, self._numbers, ONE_LINK)
        cargo.gather(payload, far, other, other.bits)
        load = cargo.cover(payload, near, one, one.bits)
        cargo.discard(payload)
        return load or 0

    def _confirmed(self, terminal: str, message: Kx) -> None:
        number, start = message.counts
        joining = self._joining.get(number)
        if joining is None:
            return
        if terminal != (joining.destination if start >= 0 else joining.source):
            raise Malformed(f"files {number} confirmed by {terminal}, who is not the end that does")
        if start >= 0:
            joining = joining._replace(start=start, load=message.cargo)
        else:
            joining = joining._replace(at_source=True)
        self._joining[number] = joining
        if joining.at_source and joining.start >= 0:
            del self._joining[number]
            counts, names = (number, joining.start, joining.request), (joining.destination,)
            ready = Kx("READY", Verb.AGREE, counts=counts, names=names, cargo=joining.load)
            self._site.links[joining.source].talk.tell(ready)

    # --- allocation ahead ---------------------------------------------------------------------------------------------

    def _used(self, source: str, message: Kx) -> None:
        pair = source, message.names[0]
        if self._fill is None or pair not in self._levels:
            return
        self._levels[pair] = max(0, self._levels[pair] - message.counts[0])
        if self._fill.due(self._levels[pair], 0) and pair not in self._round:
            self._round.append(pair)
            self._build()

    def _build(self) -> None:
        """One file for each pair that is being filled, in turn, until no link has any."""
        assert self._fill is not None
        idle = 0
        while self._round and idle < len(self._round):
            pair = self._round.popleft()
            if not self._fill.wanted(self._levels[pair], 0, filling=True):
                continue
            built = self._join(*pair, files=1)
            self._levels[pair] += built
            idle = 0 if built else idle + 1
            self._round.append(pair)

    def _pairs(self) -> list[tuple[str, str]]:
        """Ordered pairs of terminals that have no link of their own and come to each other by this node."""
        site = self._site
        network = site.network
        return [
            (one, other)
            for one, other in permutations(sorted(site.links), 2)
            if frozenset((one, other)) not in network.rates and network.shortest(one, other) == (one, site.node, other)
        ]

    def _path(self, peer: str) -> tuple[str, ...] | None:
        """Over one node, the route if it is that short."""
        network, node = self._site.network, self._site.node
        if peer in self._site.links:
            return None
        shortest = network.shortest(node, peer)
        if shortest is None or len(shortest) != 3:
            return None
        if self._fill is None:
            for path in network.paths(self._site.design, node, peer):
                if len(path) == 3:
                    return path
        return shortest
