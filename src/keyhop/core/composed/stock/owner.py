"""A link's stock that one end owns: it alone hands out, to itself and to the other end, in the order of ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.nouns.units import Units, count
from keyhop.core.composed.stock.serving import PENDING, Pending, Taken, Then
from keyhop.core.policy.division import EncDec
from keyhop.core.policy.relay import NoRelay, RelayXor
from keyhop.core.policy.storage import MultiSizeBlock
from keyhop.core.policy.synchronisation import DirectedPool, ProposeAccept, Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line

LENT = "lent"
"""Where ranges lie at the owner that the other end was given and has not used yet."""
PATIENCE_NS = 20_000_000_000
"""Of one that waits and says nothing of how long (K)."""
APPLICATION_NS = 500_000_000
"""So long the owner keeps a request of the other end's application; then it is asked again, or nobody waits (K)."""
QUEUE_LIMIT = 65_536
"""Who wait for key of one link."""
LATE_TRIES = 50
LATE_NS = 100_000_000
"""Between two looks for what has not been agreed at this end yet."""


def owner_of(line: Line) -> str:
    """Who hands out a link's one run; empty where each direction has its own part, or the peer is asked.

    NEC's files are enc at relay nodes and dec at terminals (S): there the relay node owns; elsewhere the master (K).
    """
    design = line.design
    if line.distant or isinstance(design.relay, NoRelay) or isinstance(design.storage, MultiSizeBlock):
        return ""
    if isinstance(design.relay, RelayXor):
        network = line.site.network
        relays = [node for node in sorted((line.own, line.peer)) if len(network.neighbours(node)) > 1]
        return relays[0] if len(relays) == 1 else ""
    directed = any(isinstance(part, EncDec) for part in design.divisions)
    match design.synchronisations.local:
        case DirectedPool() | ProposeAccept(by="master") if not directed:
            return min(line.own, line.peer)
    return ""


class Waiting(NamedTuple):
    """One who waits for key of the link, at the owner."""

    units: int
    rank: int
    due_ns: int
    then: Then | None
    """None: it is the other end's."""
    number: int = 0


class Owned:
    """The owner takes; the other end says WANT and gets GRANT. Nothing is contested, so nothing collides."""

    def __init__(self, line: Line, owner: str, *, waits: bool) -> None:
        self._line = line
        self.owns = line.own == owner
        self._waits = waits
        """Whether who comes to an empty store waits for fresh key, or is refused at once."""
        self._queues: dict[int, deque[Waiting]] = {}
        """By rank, the least first."""
        self._number = 0
        self._wanted: dict[int, tuple[int, Then]] = {}
        """By number: units, and who waits for them."""
        self.claim: Callable[[str, int], bool] | None = None
        """Takes bits off the reservation of a flow, if it has so many."""
        self.rank_of: Callable[[str], int] = lambda stream: 0
        """Of an application."""
        self.reserved_bits = 0
        """Of what is there this much is nobody's but those who reserved it."""
        line.talk.handlers["WANT"] = self._asked
        line.talk.handlers["GRANT"] = self._granted

    @property
    def unreserved_bits(self) -> int:
        run = self._line.run
        return run.free.level * run.unit_bits - self.reserved_bits

    def stock_bits(self, stream: str) -> int:
        return max(0, self.unreserved_bits)

    def waiting(self, rank: int) -> int:
        return len(self._queues.get(rank, ()))

    def take(self, stream: str, bits: int, then: Then) -> Taken | Pending | None:
        """For an application: what is not there now, or for others before it, is not there."""
        flow = f"{self._line.own}/{stream}" if stream else ""
        rank = self.rank_of(stream)
        if self.owns:
            if not self._claimed(flow, bits) and (self._before(rank) or bits > self.unreserved_bits):
                return None
            ranges = self._line.run.free.take(-(-bits // self._line.run.unit_bits))
            return None if ranges is None else Taken(self._line.run, ranges, "")
        if self.unreserved_bits < bits:
            return None
        return self._want(bits, then, rank, APPLICATION_NS, flow)

    def line_up(
        self, bits: int, then: Then, *, rank: int = 0, patience_ns: int = PATIENCE_NS, flow: str = ""
    ) -> Taken | Pending | None:
        """Behind all of the same rank and before all of later ones; what is being served is not interrupted."""
        line, run = self._line, self._line.run
        units = -(-bits // run.unit_bits)
        if not self.owns:
            return self._want(bits, then, rank, patience_ns, flow)
        if self._claimed(flow, bits):
            return Taken(run, run.free.take(units) or (), "")
        if not self._before(rank) and units * run.unit_bits <= self.unreserved_bits:
            ranges = run.free.take(units)
            assert ranges is not None
            return Taken(run, ranges, "")
        if not self._waits:
            return None
        self._queue(Waiting(units, rank, line.site.now + patience_ns, then))
        return PENDING

    def grew(self) -> None:
        """Serves the head of the first rank as long as there is enough for it."""
        line, run = self._line, self._line.run
        while (head := self._head()) is not None:
            enough = head.units * run.unit_bits <= self.unreserved_bits
            late = line.site.now > head.due_ns
            if not enough and not late:
                return
            self._queues[head.rank].popleft()
            ranges = None if late else run.free.take(head.units)
            if head.then is None:
                self._grant(head.number, ranges)
            else:
                head.then(None if ranges is None else Taken(run, ranges, ""))

    def fetch(self, name: Name) -> Taken | str | None:
        """The owner named it and it is free here, or it is of what the owner has lent to the other end."""
        run = self._line.run
        there = self.lends(name.label) and run.pool(LENT if self.owns else "").remove(name.ranges)
        return Taken(run, name.ranges, "") if there else None

    def lends(self, label: str) -> bool:
        return not label

    def restarted(self) -> None:
        self._queues.clear()
        self._wanted.clear()

    def _want(self, bits: int, then: Then, rank: int, patience_ns: int, flow: str) -> Pending:
        line = self._line
        self._number += 1
        units = -(-bits // line.run.unit_bits)
        self._wanted[self._number] = units, then
        counts = (self._number, units, rank, patience_ns)
        line.talk.tell(Kx("WANT", Verb.ASSIGN, to=flow, counts=counts))
        return PENDING

    # --- inside -------------------------------------------------------------------------------------------------------

    def _claimed(self, flow: str, bits: int) -> bool:
        """Nobody is before one who has reserved."""
        return bool(flow) and self.claim is not None and self.claim(flow, bits)

    def _before(self, rank: int) -> bool:
        return any(queue and before <= rank for before, queue in self._queues.items())

    def _head(self) -> Waiting | None:
        ranks = [rank for rank, queue in self._queues.items() if queue]
        return self._queues[min(ranks)][0] if ranks else None

    def _queue(self, waiting: Waiting) -> None:
        self._queues.setdefault(waiting.rank, deque()).append(waiting)

    def _asked(self, message: Kx) -> None:
        number, units, rank, patience_ns = message.counts
        run = self._line.run
        if not self.owns:
            raise Malformed(f"WANT of the key of a link that {self._line.peer} owns")
        if units * run.unit_bits > self._line.settings.capacity_bits:
            raise Malformed(f"{units} units wanted of a store of {self._line.settings.capacity_bits} bit")
        if sum(map(len, self._queues.values())) >= QUEUE_LIMIT:
            raise Malformed(f"{QUEUE_LIMIT} wait for key of this link: no more may")
        if self._claimed(message.to, units * run.unit_bits) or (
            not self._before(rank) and units * run.unit_bits <= self.unreserved_bits
        ):
            self._grant(number, run.free.take(units))
        elif self._waits:
            self._queue(Waiting(units, rank, self._line.site.now + patience_ns, None, number))
        else:
            self._grant(number, None)

    def _grant(self, number: int, ranges: tuple[Units, ...] | None) -> None:
        given = self._lent(ranges or ())
        self._line.talk.tell(Kx("GRANT", Verb.ASSIGN, ranges=given, counts=(number,), ok=bool(given)))

    def _lent(self, ranges: tuple[Units, ...]) -> tuple[Units, ...]:
        pool = self._line.run.pool(LENT)
        for start, end in ranges:
            pool.put(start, end)
        return ranges

    def _granted(self, message: Kx, tries: int = 0) -> None:
        line, run, number = self._line, self._line.run, message.counts[0]
        units, then = self._wanted.get(number, (0, None))
        given = count(message.ranges)
        if self.owns or (message.ok and then is not None and given != units):
            raise Malformed(f"{given} units granted of number {number}: {units} were wanted, of the link's owner")
        if not message.ok:
            self._wanted.pop(number, None)
            if then is not None:
                then(None)
            return
        if not run.free.remove(message.ranges):
            if tries < LATE_TRIES:
                line.site.later(LATE_NS, self._granted, message, tries + 1)
            elif self._wanted.pop(number, None) is not None and then is not None:
                then(None)
            return
        self._wanted.pop(number, None)
        if then is None:
            # Whoever wanted it is gone with a restart.
            line.gone(message.ranges, "Y")
            return
        then(Taken(run, message.ranges, ""))
