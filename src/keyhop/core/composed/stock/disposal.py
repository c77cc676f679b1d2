"""What becomes of key that was used, of key that grows old, and of fresh key for a full store."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from keyhop.core.composed.nouns.messages import BlockArrived, Kx
from keyhop.core.composed.nouns.units import Units, count
from keyhop.core.composed.stock.pulling import KEPT_BLOCKS, AsItComes
from keyhop.core.policy.disposal import AgePurge, EraseInBatches, EraseNow
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

PURGE_NS = 60_000_000_000
"""Between two purges (NICT: each minute, K)."""
AHEAD_NS = 1_000_000_000
"""An order is out so much before the minute is full, so that it has been carried out at both ends by then (K)."""
IDLE_NS = 60_000_000_000
"""A store that nobody has drawn from for so long is idle (K)."""


Rule: TypeAlias = EraseNow | EraseInBatches | AgePurge


class Disposal(Protocol):
    exposed_bits: int
    """Used and still present."""

    def entered(self, run: Run, start: int, end: int, made_ns: int) -> None: ...

    def used(self, run: Run, label: str, ranges: tuple[Units, ...]) -> None:
        """Key has left the stock for its use, out of this pool; empty: nobody says out of which."""
        ...

    def restarted(self) -> None: ...


class AtOnce:
    """A used key is erased before the next is given."""

    exposed_bits = 0

    def entered(self, run: Run, start: int, end: int, made_ns: int) -> None:
        pass

    def used(self, run: Run, label: str, ranges: tuple[Units, ...]) -> None:
        pass

    def restarted(self) -> None:
        pass


class Used(NamedTuple):
    """An entry of the used-log."""

    run: Run
    label: str
    units: Units


class InBatches(AtOnce):
    """Used keys are written into a durable log and erased many at a time; what is in the log is present, not stock."""

    def __init__(self, part: EraseInBatches) -> None:
        self._part = part
        self._log: deque[Used] = deque()
        self._logged = 0
        """Keys in the log: units of their run."""
        self.exposed_bits = 0
        self.erased = 0

    @property
    def present(self) -> int:
        """Used keys that are not erased."""
        return self._logged

    def used(self, run: Run, label: str, ranges: tuple[Units, ...]) -> None:
        for units in ranges:
            self._log.append(Used(run, label, units))
        self._logged += count(ranges)
        self.exposed_bits += count(ranges) * run.unit_bits
        erased = self._part.erases(self._logged)
        self._logged -= erased
        self.erased += erased
        while erased:
            run, label, (start, end) = self._log.popleft()
            going = min(end - start, erased)
            erased -= going
            self.exposed_bits -= going * run.unit_bits
            if start + going < end:
                self._log.appendleft(Used(run, label, (start + going, end)))

    def restarted(self) -> None:
        """The store comes back with all that was not erased; what the log names is no stock."""
        numbers: dict[int, set[int]] = {}
        for run, _, (start, end) in self._log:
            numbers.setdefault(id(run), set()).update(range(start, end))
        for run, label, (start, end) in self._log:
            for unit in range(start, end):
                if self._part.may_supply(unit, numbers[id(run)]):
                    run.pool(label).put_back([(unit, unit + 1)])


class Stretch(NamedTuple):
    """Units that entered together."""

    end: int
    made_ns: int
    entered_ns: int


class Times:
    """When the units of each run of a line were made and when they entered."""

    def __init__(self) -> None:
        self._stretches: dict[Run, list[Stretch]] = {}

    def entered(self, run: Run, end: int, made_ns: int, now: int) -> None:
        self._stretches.setdefault(run, []).append(Stretch(end, made_ns, now))

    def of(self, run: Run, unit: int) -> Stretch | None:
        """None if it is not known any more."""
        stretches = self._stretches.get(run, [])
        at = bisect_right(stretches, unit, key=lambda stretch: stretch.end)
        return stretches[at] if at < len(stretches) else None

    def aged(self, old: Callable[[int], bool]) -> dict[Run, int]:
        """Run -> the position below which all is too old; what is said once is forgotten."""
        floors: dict[Run, int] = {}
        for run, stretches in self._stretches.items():
            gone = 0
            while gone < len(stretches) and old(stretches[gone].made_ns):
                floors[run] = stretches[gone].end
                gone += 1
            del stretches[:gone]
        return floors


class ByAge(AtOnce):
    """What is older than the limit goes, at both ends, by order of whoever owns its pool."""

    def __init__(self, line: Line, part: AgePurge, *, tags: int) -> None:
        """`tags`: what an order costs; none where a central server gives it to both ends (NICT, P)."""
        self._line = line
        self._part = part
        self._tags = tags
        self.times = Times()
        line.site.later(PURGE_NS - AHEAD_NS, self._tick)

    def entered(self, run: Run, start: int, end: int, made_ns: int) -> None:
        self.times.entered(run, end, made_ns, self._line.site.now)

    def _tick(self) -> None:
        line = self._line
        line.site.later(PURGE_NS, self._tick)
        for run, floor in self.times.aged(lambda made_ns: self._part.expired(line.site.now - made_ns)).items():
            for label in owned(line, run):
                order_destroyed(line, run, label, run.pool(label).below(floor), tags=self._tags)


def owned(line: Line, run: Run) -> list[str]:
    """Pools of a run from which this end alone takes; the free stock is the lower name's."""
    own = [label for label in run.pools if label.startswith(f"{line.own}>")]
    if line.own == (run.owner or min(line.own, line.peer)):
        own.append("")
    return sorted(own)


def order_destroyed(line: Line, run: Run, label: str, gone: tuple[Units, ...], *, tags: int = 1) -> None:
    """What was taken out of a pool here goes there, too, booked X at both ends."""
    if gone:
        line.gone(gone, "X", run)
        line.site.network.server.purged(line.site.now, line.own, line.peer, label, gone)
        names = (run.owner,)
        line.talk.tell(
            Kx("PURGE", Verb.DESTROY, ranges=gone, to=label, counts=(run.unit_bits,), names=names, tags=tags)
        )


def ordered(line: Line, message: Kx) -> None:
    run = line.run_of(f"{message.names[0]}>", message.counts[0])
    for units in message.ranges:
        line.destroy(units, "X", run)


class Bounded(AsItComes):
    """A store of so much room: stop, drop_new or replace_oldest, block by block (K)."""

    def __init__(self, line: Line, part: Rule) -> None:
        super().__init__(line)
        self._part = part
        self._waiting: deque[BlockArrived] = deque()
        """With the module, which has been told to stop."""

    def arrived(self, block: BlockArrived) -> None:
        if self._part.full_store == "stop":
            if len(self._waiting) < KEPT_BLOCKS:
                self._waiting.append(block)
            self.check()
        elif self._takes(block):
            super().arrived(block)
        else:
            self._line.book.G += block.bits
            self._line.book.X += block.bits

    def check(self) -> None:
        while self._waiting and self._takes(self._waiting[0]):
            self._line.receive(self._waiting.popleft())

    def named(self, number: int) -> None:
        while self._waiting and self._waiting[0].number <= number:
            self._line.receive(self._waiting.popleft())

    def _takes(self, block: BlockArrived) -> bool:
        line = self._line
        idle = line.site.now - line.drawn_ns >= IDLE_NS
        room = self._part.takes(block.bits, line.stock_bits, line.settings.capacity_bits, idle)
        if room.accepted == block.bits and room.destroyed_oldest:
            drop_oldest(line, room.destroyed_oldest)
        return room.accepted == block.bits


def drop_oldest(line: Line, bits: int) -> None:
    """Each end of what it owns, in proportion to what lies there."""
    run = line.run
    level = sum(queue.level for queue in (run.free, *run.pools.values()))
    for label in owned(line, run):
        pool = run.pool(label)
        units = min(pool.level, -(-bits * pool.level // (level * run.unit_bits)) if level else 0)
        order_destroyed(line, run, label, pool.take(units) or ())
