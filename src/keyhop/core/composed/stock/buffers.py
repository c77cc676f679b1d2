"""Direction-bound buffers of small keys on a link, filled out of a common store by LOAD."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.composed.nouns.shapes import BUFFERS
from keyhop.core.composed.nouns.units import Queue, Units
from keyhop.core.composed.stock.dealing import PIECE_BITS, Common, direction
from keyhop.core.composed.stock.serving import Taken, Then
from keyhop.core.policy.refill import Buffers, Sated
from keyhop.core.policy.synchronisation import Move, StoreLoad, Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line

CAPACITY_SLOTS = 1 << 16
"""Of each of the three buffers (C)."""
OFFERED = "offered "
"""Units of a LOAD that no answer has come for, by buffer."""
BOUND = "bound "
"""Units of a LOAD whose answer was lost: common again, but the peer may use them in this direction."""
APPLICATION = "/application"


class Loads(Common):
    """Fresh units are common; pools are directions, as in two directed runs."""

    def label(self, stream: str, outgoing: bool) -> str:
        line = self._line
        return direction(line.own, line.peer) if outgoing else direction(line.peer, line.own)

    def lends(self, label: str) -> bool:
        incoming = self.label("", False)
        return label in (incoming, incoming + APPLICATION)


class Loaded:
    """Every second the master brings what its buffers lack, the slave asks for what its own do (SECOQC).

    The outgoing buffer of one end is the incoming one of the other. Of the application buffer, pieces of the run are in
    turn for the applications that ask at one end and at the other (K): it is one buffer, and two could want one key.
    """

    def __init__(self, line: Line, part: StoreLoad, refill: Sated) -> None:
        self._line = line
        self._part = part
        self._refill = refill
        self._run = line.run
        self.slots = line.run_of("", refill.slot_bits)
        """The run's positions in slots: unit n is slots 8n to 8n + 7."""
        line.cut_bits = refill.slot_bits
        self.capacity_slots = min(CAPACITY_SLOTS, line.settings.capacity_bits // refill.slot_bits)
        self.outgoing = direction(line.own, line.peer)
        self.incoming = direction(line.peer, line.own)
        self._loading = False
        self._requested_slots = 0
        line.talk.handlers["LOAD"] = self._loaded
        line.talk.handlers["LOAD-REQ"] = self._load_requested
        line.site.later(part.load_ns, self._tick)

    def stock_bits(self, stream: str) -> int:
        level = self.slots.pool(self.outgoing).level
        if stream:
            level = max(level, self.slots.pool(self.outgoing + APPLICATION).level)
        return level * self.slots.unit_bits

    def take(self, stream: str, bits: int, then: Then) -> Taken | None:
        """Applications come to their own buffer first; pads are of the outgoing one alone."""
        slots = -(-bits // self.slots.unit_bits)
        for label in (self.outgoing + APPLICATION, self.outgoing) if stream else (self.outgoing,):
            ranges = self.slots.pool(label).take(slots)
            if ranges is not None:
                return Taken(self.slots, ranges, label)
        return None

    def fetch(self, name: Name) -> Taken | str | None:
        if name.unit_bits != self.slots.unit_bits or not self.lends(name.label):
            return None
        pool = self.slots.pool(name.label)
        if not pool.remove(name.ranges):
            self._proved(name)
            if not pool.remove(name.ranges):
                return None
        return Taken(self.slots, name.ranges, name.label)

    def lends(self, label: str) -> bool:
        return self._line.dealing.lends(label)

    def restarted(self) -> None:
        pass

    # --- levels -------------------------------------------------------------------------------------------------------

    def buffers(self) -> Buffers:
        """As this end sees them, in slots."""
        pools = self.slots.pools
        level = {label: pools[label].level for label in pools}
        application = level.get(self.outgoing + APPLICATION, 0) + level.get(self.incoming + APPLICATION, 0)
        return Buffers(
            self.capacity_slots,
            level.get(self.incoming, 0),
            level.get(self.outgoing, 0),
            self.capacity_slots,
            application,
        )

    @property
    def common_units(self) -> int:
        return self._run.free.level + sum(self._bound(to).level for to in BUFFERS)

    def _bound(self, to: str) -> Queue:
        return self._run.pool(BOUND + to)

    # --- master -------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        line = self._line
        line.site.later(self._part.load_ns, self._tick)
        if not line.master:
            slots = self._refill.request(self.buffers(), self.common_units)
            if slots:
                line.talk.tell(Kx("LOAD-REQ", Verb.ASSIGN, counts=(slots,)))
        elif not self._loading:
            self._load("incoming", self.buffers())

    def _load_requested(self, message: Kx) -> None:
        """The slave's incoming buffer is the master's outgoing one. One LOAD at a time: what crosses waits for it."""
        self._requested_slots = message.counts[0]
        if not self._loading:
            self._answer_request()

    def _answer_request(self) -> None:
        slots, self._requested_slots = self._requested_slots, 0
        if slots:
            own = self.buffers()
            self._load("outgoing", own._replace(incoming=own.outgoing, outgoing=own.incoming))

    def _load(self, to: str, buffers: Buffers) -> None:
        """`buffers` as the end sees them whose incoming one is filled."""
        line, run = self._line, self._run
        load = self._refill.load(buffers, self.common_units, line.talk.tag_bits)
        if load is None:
            return
        bound = {unit: where for where in BUFFERS for low, high in self._bound(where) for unit in range(low, high)}
        wanted = min(sum(load), run.free.level)
        oldest = [unit for low, high in run.free.front(wanted) or () for unit in range(low, high)]
        chosen = self._part.load([*oldest, *bound], load.incoming, load.application, bound)
        if to == "outgoing":
            chosen = self._part.mirrored(chosen)
            # A unit that is bound to the one direction cannot go the other way.
            chosen = tuple(move for move in chosen if bound.get(move.start, move.to) == move.to)
        if not chosen:
            return
        for move in chosen:
            units = (move.start, move.start + move.length)
            for queue in (run.free, *map(self._bound, BUFFERS)):
                queue.remove(queue.within(*units))
            run.pool(OFFERED + move.to).put(*units)
        self._loading = True
        ranges = tuple((move.start, move.start + move.length) for move in chosen)
        line.talk.ask(
            Kx("LOAD", Verb.ASSIGN, ranges=ranges, names=tuple(move.to for move in chosen)),
            lambda answer: self._settled(chosen, tuple(sorted(answer.ranges))),
            given_up=lambda: self._settled(chosen, None),
            repeat_ns=self._part.answer_ns,
            tries=1,
        )

    def _settled(self, load: tuple[Move, ...], moved: tuple[Units, ...] | None) -> None:
        """LOAD-ACK; None: silence."""
        run = self._run
        self._loading = False
        # Of what was offered, whatever the peer names.
        offered_units = {unit for move in load for unit in range(move.start, move.start + move.length)}
        units = None if moved is None else {unit for unit in offered_units if inside(unit, moved)}
        for move in self._part.answered(load, units):
            for to in (move.to,) if move.to else BUFFERS:
                offered = run.pool(OFFERED + to)
                parts = offered.within(move.start, move.start + move.length)
                offered.remove(parts)
                if move.verb is Verb.TAKE:
                    self._install(to, parts)
                else:
                    (self._bound(to) if move.to else run.free).put_back(parts)
        self._line.site.grew(self._line)
        self._answer_request()

    def _proved(self, name: Name) -> None:
        """The peer has used a key of a LOAD: so it has it, whatever became of its answer."""
        to = "application" if name.label.endswith(APPLICATION) else "incoming"
        for low, high in name.ranges:
            units = low // self._refill.slots_per_unit, -(-high // self._refill.slots_per_unit)
            for queue in (self._run.pool(OFFERED + to), self._bound(to)):
                parts = queue.within(*units)
                queue.remove(parts)
                self._install(to, parts)

    # --- slave --------------------------------------------------------------------------------------------------------

    def _loaded(self, message: Kx) -> Kx:
        """What is no longer common here came with a LOAD whose answer was lost: the same way, or it would not come."""
        run, moved = self._run, []
        load = [
            Move(Verb.ASSIGN, low, high - low, to)
            for (low, high), to in zip(message.ranges, message.names, strict=True)
        ]
        for move in self._part.mirrored(load):
            units = (move.start, min(move.start + move.length, run.end))
            parts = run.free.within(*units)
            run.free.remove(parts)
            self._install(move.to, parts)
            if units[0] < units[1]:
                moved.append(units)
        self._line.site.grew(self._line)
        return Kx("LOAD-ACK", Verb.ASSIGN, ranges=tuple(moved))

    def _install(self, to: str, parts: tuple[Units, ...]) -> None:
        slots = self._refill.slots_per_unit
        for low, high in parts:
            for start, end, label in self._places(to, low, high):
                self.slots.pool(label).put(start * slots, end * slots)

    def _places(self, to: str, low: int, high: int) -> list[tuple[int, int, str]]:
        """Which pools units of a buffer go to."""
        if to != "application":
            return [(low, high, self.incoming if to == "incoming" else self.outgoing)]
        piece = max(1, PIECE_BITS // self._run.unit_bits)
        first, second = sorted((self._line.own, self._line.peer))
        labels = direction(first, second) + APPLICATION, direction(second, first) + APPLICATION
        found = []
        while low < high:
            stop = min(high, (low // piece + 1) * piece)
            found.append((low, stop, labels[low // piece % 2]))
            low = stop
        return found


def inside(unit: int, ranges: tuple[Units, ...]) -> bool:
    """Whether one of these ascending ranges has it."""
    at = bisect_right(ranges, (unit, 1 << 63)) - 1
    return at >= 0 and ranges[at][0] <= unit < ranges[at][1]
