"""Buffers filled out of a link's common store: the master names ranges, and both ends move them or neither."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, NamedTuple

from keyhop.core.composed.nouns.messages import Kx, StreamOpened
from keyhop.core.composed.nouns.shapes import RANGES_LIMIT, Malformed
from keyhop.core.composed.nouns.units import Units, count
from keyhop.core.composed.stock.dealing import Common, direction
from keyhop.core.composed.stock.serving import FromPool, Taken, Then, never, subtract
from keyhop.core.composed.stock.sessions import NOBODY
from keyhop.core.composed.talk.connections import Connections
from keyhop.core.policy.refill import Buffer, LowHigh, PerSession
from keyhop.core.policy.sharing import Proportional, Vessel
from keyhop.core.policy.synchronisation import ProposeAccept, Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

AGAIN_NS = 1_000_000_000
"""After a refusal (K)."""
BUFFER_KEYS = 16
"""Longest keys that a buffer holds, where its application has not said how large it is (K)."""
BUFFER_S = 4
"""And at least what it draws in so many seconds (K)."""
KEY_BITS = 512
"""What QKDNetSim cuts its store into (C)."""
POOLS_LIMIT = 4096
"""Buffers of one link."""
RESERVED_CLASS = "guaranteed"
"""Streams of this class come through ETSI 004 and have a buffer of their own (K)."""


class Refilled(Common, ABC):
    """One refill at a time. What one end lacks nobody moves."""

    word = "REFILL"

    def __init__(self, line: Line, part: ProposeAccept) -> None:
        super().__init__(line)
        self._part = part
        self.connections = Connections(line, self.review)
        self._refilling = False
        self._number = 0
        self._filled: dict[str, None] = {}
        """At the master: sessions with a buffer at both ends."""
        self._answered: tuple[int, Kx] | None = None
        """The last refill that was answered here: asked again after a restart, it is answered alike."""
        line.talk.handlers[self.word] = self._proposed
        line.talk.handlers["CLOSE"] = self._closing

    # --- what designs differ in ---------------------------------------------------------------------------------------

    @abstractmethod
    def plan(self) -> list[tuple[str, int]]:
        """At the master: how many units each buffer gets now."""

    @abstractmethod
    def due(self, label: str) -> bool:
        """Whether this buffer is low."""

    @abstractmethod
    def knows(self, label: str) -> bool:
        """Whether this end draws on a buffer of this name."""

    def lasts(self, label: str) -> bool:
        """At the master: whether the buffer is still wanted at both ends."""
        return label in self.connections.active()

    def holds(self, label: str) -> bool:
        """Whether there can be a buffer of this name."""
        return label != NOBODY

    # --- refills ------------------------------------------------------------------------------------------------------

    def fresh(self, run: Run, start: int, end: int) -> None:
        run.free.put(start, end)
        self.review()

    def used(self, label: str) -> None:
        if self.knows(label) and self.due(label):
            self.review()

    def level_bits(self, label: str) -> int:
        run = self._line.run
        return run.pool(label).level * run.unit_bits

    def review(self) -> None:
        """At the master: proposes what is to be moved."""
        line, run = self._line, self._line.run
        if self._refilling or not self._is_proposer():
            return
        if ended := tuple(label for label in self._filled if not self.lasts(label)):
            self._number += 1
            self._refilling = True
            self._close(Kx("CLOSE", Verb.DESTROY, counts=(self._number,), names=ended))
            return
        if not run.free.level:
            return
        moves: list[tuple[str, tuple[Units, ...]]] = []
        for label, units in self.plan():
            ranges = run.free.take(units) if units else None
            if ranges:
                moves.append((label, ranges))
        if not moves:
            return
        self._refilling = True
        self._number += 1
        run.held += sum(count(ranges) for _, ranges in moves)
        message = Kx(
            self.word,
            Verb.ASSIGN,
            ranges=tuple(units for _, ranges in moves for units in ranges),
            counts=(self._number, *(len(ranges) for _, ranges in moves)),
            names=tuple(label for label, _ in moves),
        )
        self._propose(message, moves)
        line.site.grew(line)

    def _propose(self, message: Kx, moves: list[tuple[str, tuple[Units, ...]]]) -> None:
        self._line.talk.ask(
            message,
            lambda answer: self._settled(moves, answer),
            # The peer may have moved them: it is asked until it says so.
            given_up=lambda: self._propose(message, moves),
        )

    def _settled(self, moves: list[tuple[str, tuple[Units, ...]]], answer: Kx) -> None:
        line, run = self._line, self._line.run
        self._refilling = False
        run.held -= sum(count(ranges) for _, ranges in moves)
        for label, ranges in moves:
            if answer.ok:
                self._fill(label, ranges)
                self._filled[label] = None
            else:
                # What the peer will never have is of no use here.
                kept = subtract(ranges, answer.ranges)
                run.free.put_back(kept)
                line.book.Y += (count(ranges) - count(kept)) * run.unit_bits
        if answer.ok:
            line.site.grew(line)
            self.review()
        else:
            line.site.later(AGAIN_NS, self.review)

    def _proposed(self, message: Kx) -> Kx:
        """At the slave: all of it, or nothing."""
        number, *lengths = message.counts
        if self._is_proposer() or any(not self.holds(label) for label in message.names):
            raise Malformed(
                f"{self.word} by {self._line.peer}: the lower name moves key, to buffers that both ends have"
            )
        run = self._line.run
        if len(run.pools) + len([label for label in {*message.names} if label not in run.pools]) > POOLS_LIMIT:
            raise Malformed(f"{self.word} to {len(message.names)} more buffers: {POOLS_LIMIT} are enough")
        if self._answered is not None and self._answered[0] == number:
            return self._answered[1]
        if run.free.remove(message.ranges):
            at = 0
            for label, length in zip(message.names, lengths, strict=True):
                self._fill(label, message.ranges[at : at + length])
                at += length
            answer = Kx(f"{self.word}-ACK", Verb.ASSIGN)
            self._line.site.grew(self._line)
        else:
            answer = Kx(f"{self.word}-ACK", Verb.GIVE_BACK, ranges=lacking(run, message.ranges), ok=False)
        self._answered = number, answer
        return answer

    def _fill(self, label: str, ranges: tuple[Units, ...]) -> None:
        for units in ranges:
            self._line.run.pool(label).put(*units)

    def _close(self, message: Kx) -> None:
        """Between refills, so that both ends destroy the same."""

        def done(answer: Kx) -> None:
            self._refilling = False
            for label in message.names:
                del self._filled[label]
                self._destroy(label)
            self.review()

        self._line.talk.ask(message, done, given_up=lambda: self._close(message))

    def _closing(self, message: Kx) -> Kx:
        if self._answered is None or self._answered[0] != message.counts[0]:
            for label in message.names:
                self._destroy(label)
            self._answered = message.counts[0], Kx("CLOSED", Verb.DESTROY)
        return self._answered[1]

    def _destroy(self, label: str) -> None:
        pool = self._line.run.pools.pop(label, None)
        if pool is not None:
            self._line.gone(pool.clear(), "X", self._line.run)

    def _is_proposer(self) -> bool:
        line = self._line
        return self._part.proposer(line.own, line.peer, "") == line.own

    # --- sessions -----------------------------------------------------------------------------------------------------

    def opened(self, stream: StreamOpened) -> None:
        self.connections.opened(stream)

    def retuned(self, stream: str, rate_bps: int) -> None:
        self.connections.retuned(stream, rate_bps)

    def closed(self, stream: str) -> None:
        self.connections.closed(stream)


def lacking(run: Run, ranges: tuple[Units, ...]) -> tuple[Units, ...]:
    """What of these can never be moved at this end: it lies below what has entered, and is not free.

    What a buffer here has already cannot go to another one either. If more is lacking than an answer can name, the next
    one names the rest.
    """
    found: list[Units] = []
    for low, high in ranges:
        found += run.free.missing(low, min(high, run.end), RANGES_LIMIT - len(found))
    return tuple(found)


class Buffers(Refilled):
    """QCC: if any buffer is low all unassigned key is poured, into the low ones first, by rate."""

    def __init__(self, line: Line, part: ProposeAccept, refill: PerSession, sharing: Proportional) -> None:
        super().__init__(line, part)
        self._refill = refill
        self._sharing = sharing

    def buffer(self, stream: str) -> Buffer:
        """In bits."""
        opened = self.connections.own[stream]
        size = opened.buffer_bits or max(BUFFER_KEYS * opened.size_bits, BUFFER_S * opened.rate_bps)
        return Buffer(opened.size_bits, size, self.level_bits(stream))

    def due(self, label: str) -> bool:
        return bool(self._refill.low([self.buffer(label)]))

    def knows(self, label: str) -> bool:
        return label in self.connections.own

    def plan(self) -> list[tuple[str, int]]:
        active = self.connections.active()
        names = list(active)
        buffers = [self.buffer(name) for name in names]
        low = self._refill.low(buffers)
        unit_bits, left = self._line.run.unit_bits, self._line.run.free.level
        found: list[tuple[str, int]] = []
        if not low:
            return found
        for chosen in (low, tuple(n for n in range(len(names)) if n not in low)):
            vessels = [
                Vessel(active[names[n]], max(0, buffers[n].size - buffers[n].level) // unit_bits) for n in chosen
            ]
            given = self._sharing.pour(left, vessels)
            left -= sum(given)
            found += [(names[n], units) for n, units in zip(chosen, given, strict=True)]
        return found

    def label(self, stream: str, outgoing: bool) -> str:
        opened = self.connections.own.get(stream)
        return stream if opened is not None and opened.asks is outgoing else NOBODY

    def lends(self, label: str) -> bool:
        opened = self.connections.own.get(label)
        return bool(label) and label != NOBODY and (opened is None or not opened.asks)


class FromBuffer(FromPool):
    """No read is longer than its two ends have agreed, or the threshold would not cover it (QCC)."""

    def __init__(self, line: Line, dealing: Buffers) -> None:
        super().__init__(line)
        self._dealing = dealing

    def take(self, stream: str, bits: int, then: Then) -> Taken | None:
        opened = self._dealing.connections.own.get(stream)
        if opened is not None and bits > opened.size_bits:
            return never(self._line.run, f"{bits} bit are more than the {opened.size_bits} bit agreed for a read")
        return super().take(stream, bits, then)


State = Literal["READY", "WARNING", "CHARGING", "EMPTY"]


class Levels(NamedTuple):
    """Bits."""

    least: int
    threshold: int


def state(level: int, levels: Levels, rising: bool, before: State) -> State:
    """Of a buffer (C). It is told, and changes nothing by itself."""
    if level >= levels.threshold:
        return "READY"
    if level <= levels.least:
        return "EMPTY"
    if before == "EMPTY" or (rising and before != "READY"):
        return "CHARGING"
    return "WARNING" if before != "CHARGING" else before


class DirectedBuffers(Refilled):
    """QKDNetSim: one buffer for each direction and one for each reserved stream, filled evenly below the threshold."""

    word = "FILL"

    def __init__(self, line: Line, part: ProposeAccept, refill: LowHigh) -> None:
        super().__init__(line, part)
        self._refill = refill
        self._out, self._in = direction(line.own, line.peer), direction(line.peer, line.own)
        self._key = max(1, KEY_BITS // line.run.unit_bits)
        self._states: dict[str, tuple[State, int]] = {}

    def state(self, label: str) -> State:
        """Of a buffer, as of now; whether it rises is seen from one look to the next."""
        threshold = int(self._refill.low) * KEY_BITS
        before, previous = self._states.get(label, ("EMPTY", 0))
        level = self.level_bits(label)
        found = state(level, Levels(threshold // 2, threshold), level > previous, before)
        self._states[label] = found, level
        return found

    def due(self, label: str) -> bool:
        return self._refill.due(self._line.run.pool(label).level // self._key, 0)

    def knows(self, label: str) -> bool:
        return label in (self._out, self._in) or label in self._reserved()

    def lasts(self, label: str) -> bool:
        return label in (self._out, self._in) or super().lasts(label)

    def plan(self) -> list[tuple[str, int]]:
        """Whole keys, as many to each that is below the threshold."""
        run = self._line.run
        labels = [*sorted((self._out, self._in)), *(name for name in self.connections.active() if self.knows(name))]
        rooms = [self._refill.wanted(run.pool(label).level // self._key, 0) for label in labels]
        given = Proportional().pour(run.free.level // self._key, [Vessel(1, room) for room in rooms])
        return [(label, keys * self._key) for label, keys in zip(labels, given, strict=True)]

    def label(self, stream: str, outgoing: bool) -> str:
        if stream in self._reserved():
            return stream if self.connections.own[stream].asks is outgoing else NOBODY
        return self._out if outgoing else self._in

    def lends(self, label: str) -> bool:
        opened = self.connections.own.get(label)
        return bool(label) and label not in (self._out, NOBODY) and (opened is None or not opened.asks)

    def opened(self, stream: StreamOpened) -> None:
        if stream.service_class == RESERVED_CLASS:
            super().opened(stream)

    def _reserved(self) -> dict[str, StreamOpened]:
        return self.connections.own


class Split(FromPool):
    """A key is cut out of whole ones: the rest is out of the buffer until the peer has confirmed that it is a key."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        line.talk.handlers["SPLIT"] = lambda message: Kx("SPLIT-ACK", Verb.ASSIGN)

    def take(self, stream: str, bits: int, then: Then) -> Taken | None:
        taken = super().take(stream, bits, then)
        if taken is None:
            return None
        line, run, pool = self._line, taken.run, taken.run.pool(taken.label)
        end, key = taken.ranges[-1][1], max(1, KEY_BITS // taken.run.unit_bits)
        following = pool.first
        rest = min(following[1], -(-end // key) * key) if following is not None and following[0] == end else end
        if rest > end:
            ranges = pool.take(rest - end)
            assert ranges is not None
            run.held += rest - end

            def confirmed(answer: Kx | None) -> None:
                run.held -= rest - end
                if run.pool(taken.label) is pool:
                    pool.put_first(end, rest)
                    line.site.grew(line)
                else:
                    # Its buffer was closed meanwhile.
                    line.gone(((end, rest),), "X", run)

            line.talk.ask(
                Kx("SPLIT", Verb.ASSIGN, ranges=ranges, to=taken.label),
                confirmed,
                # Nobody else may take from this end's pool, so it is safe where the peer is silent.
                given_up=lambda: confirmed(None),
            )
        return taken
