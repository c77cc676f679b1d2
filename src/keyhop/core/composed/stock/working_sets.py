"""Keys taken first and told afterwards: small sets that two sites serve from opposite ends."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.nouns.units import Units, count
from keyhop.core.composed.stock.dealing import Common, Dealing
from keyhop.core.composed.stock.negotiated import neighbours
from keyhop.core.composed.stock.purposes import OWN, TRANSIT, Purposed
from keyhop.core.composed.stock.serving import Taken, Then
from keyhop.core.policy.division import Purpose
from keyhop.core.policy.synchronisation import Serving as View
from keyhop.core.policy.synchronisation import Verb, WorkingSet

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

WS, USED, WANTED = "WS", "USED", "WS-WANTED"
COLLIDED = "collided"
"""What a fetch is refused with when its key was given away at this end, too: the application asks anew."""
KEPT_USES = 8192
"""Uses of which a crossing one may still be heard (K)."""
PADS = frozenset(("", OWN, TRANSIT))
"""The key manager's own streams."""
BEHIND_LIMIT = 4096
"""Notices of units that have not entered yet."""
ASK_NS = 1_000_000_000
"""Between two requests of one end for another set (K)."""


class Stretch:
    """One set, and what this end knows of it."""

    __slots__ = ("heard", "heard_last", "length", "ranges", "run", "view")

    def __init__(self, run: Run, ranges: tuple[Units, ...]) -> None:
        self.run = run
        self.ranges = ranges
        self.length = count(ranges)
        self.view = View()
        self.heard = 0
        """Units that the peer has said it took."""
        self.heard_last = -1
        """The last of them, by number in the set."""

    def follows(self, indexes: list[int], head: bool, part: WorkingSet) -> bool:
        """Whether the peer of this end may take these next; ascending."""
        if part.ends == "same":
            return indexes[0] > self.heard_last
        first = self.length - self.heard - len(indexes) if head else self.heard
        return indexes == list(range(first, first + len(indexes)))

    def left(self, part: WorkingSet) -> int:
        """Units that this end may still take of it."""
        if part.ends == "same":
            return self.length - 1 - self.view.last
        return max(0, self.length - self.view.own - self.view.peer)

    def unit(self, index: int) -> int:
        for low, high in self.ranges:
            if index < high - low:
                return low + index
            index -= high - low
        raise IndexError(index)

    def ready(self, head: bool, part: WorkingSet) -> list[int]:
        view = self.view
        if part.ends == "same":
            return [self.unit(index) for index in range(view.last + 1, self.length)]
        low, high = (view.own, view.peer) if head else (view.peer, view.own)
        return [self.unit(index) for index in range(low, self.length - high)]

    def index(self, unit: int) -> int | None:
        """None: it is of another set."""
        before = 0
        for low, high in self.ranges:
            if low <= unit < high:
                return before + unit - low
            before += high - low
        return None


class Use:
    """A key that was taken at this end."""

    __slots__ = ("name", "spoilt")

    def __init__(self) -> None:
        self.name: Name | None = None
        self.spoilt = False


class Sets(Common):
    """All that comes goes into sets."""

    def fresh(self, run: Run, start: int, end: int) -> None:
        run.free.put(start, end)
        to_sets(self._line)


class SetsAside(Purposed):
    """What relay needs is divided off at intake and owned by direction, since nothing that may collide may be a pad;
    the direct share goes into sets."""

    def fresh(self, run: Run, start: int, end: int) -> None:
        super().fresh(run, start, end)
        line = self._line
        direct = [run.pool(self.label("", outgoing)).clear() for outgoing in (True, False)]
        for low, high in sorted(units for ranges in direct for units in ranges):
            run.free.put(low, high)
        to_sets(line)


def sets_of(line: Line) -> Dealing:
    for part in line.design.divisions:
        if isinstance(part, Purpose) and not line.distant:
            return SetsAside(line, part)
    return Sets(line)


def to_sets(line: Line) -> None:
    if isinstance(line.serving, TakenFirst):
        line.serving.fresh()


class TakenFirst:
    """The lower name serves upwards and says which units make a set (WS); each use is told (USED).

    A key that both ends took before they heard of it is destroyed at both (C). Sets are made of whole units in the
    order in which they came; a smaller one only when there are too few and the last is half used up (K).
    """

    def __init__(self, line: Line, part: WorkingSet) -> None:
        self._line = line
        self._part = part
        self._head = line.master
        self._sets: deque[Stretch] = deque()
        self._uses: OrderedDict[tuple[str, int], Use] = OrderedDict()
        """By run and unit."""
        self._theirs: dict[tuple[str, tuple[Units, ...]], None] = {}
        """Keys of the peer that have not been fetched here."""
        self._spoilt: dict[tuple[str, tuple[Units, ...]], None] = {}
        self._behind: deque[Kx] = deque()
        """Notices of units that have not entered at this end yet."""
        self.refused = 0
        """Notices that meant no units of a set, once it was known."""
        self._asked_ns = -ASK_NS
        line.talk.handlers[WS] = self._hear
        line.talk.handlers[USED] = self._hear
        line.talk.handlers[WANTED] = self._wanted

    def stock_bits(self, stream: str) -> int:
        line = self._line
        if stream in PADS:
            return line.run.pool(self._pads(stream)).level * line.run.unit_bits
        return sum(one.left(self._part) for one in self._sets) * line.run.unit_bits

    def take(self, stream: str, bits: int, then: Then) -> Taken | None:
        line = self._line
        units = -(-bits // line.run.unit_bits)
        if stream in PADS:
            label = self._pads(stream)
            pads = line.run.pool(label).take(units)
            return None if pads is None else Taken(line.run, pads, label)
        if not self._enough(units):
            return None
        run = self._sets[0].run
        found: list[int] = []
        while len(found) < units:
            current = self._sets[0]
            if not current.left(self._part):
                self._sets.popleft()
                continue
            served = self._part.serve(current.view, self._head, current.length)
            assert served is not None
            move, current.view = served
            found.append(current.unit(move.start))
        ranges = neighbours(sorted(found))
        run.held -= units
        use = Use()
        for unit in found:
            self._uses[run.owner, unit] = use
        while len(self._uses) > KEPT_USES:
            self._uses.popitem(last=False)
        line.talk.tell(Kx(USED, Verb.TAKE, ranges=ranges, to=f"{run.owner}>"))
        self._prepare()
        return Taken(run, ranges, f"{run.owner}>")

    def _pads(self, stream: str) -> str:
        """Whoever does not say which is a source."""
        return self._line.dealing.label(stream or OWN, True)

    def given(self, name: Name) -> None:
        """What was taken went out under this name."""
        if name.ranges and (use := self._uses.get((_owner(name.label), name.ranges[0][0]))) is not None:
            use.name = name

    def fetch(self, name: Name) -> Taken | str | None:
        if not self.lends(name.label):
            return None
        owner = _owner(name.label)
        run = self._line.run_of(name.label)
        if not name.label.startswith(">") and not self._line.distant:
            pads = run.known(name.label)
            return Taken(run, name.ranges, name.label) if pads is not None and pads.remove(name.ranges) else None
        key = owner, name.ranges
        if key not in self._theirs and key not in self._spoilt:
            return None
        if key in self._spoilt:
            del self._spoilt[key]
            return COLLIDED
        del self._theirs[key]
        run.held -= count(name.ranges)
        return Taken(run, name.ranges, name.label)

    def lends(self, label: str) -> bool:
        """Of sets, or of pads in the peer's direction."""
        line = self._line
        if label in (f"{run.owner}>" for run in self._runs()):
            return True
        return not line.distant and bool(label) and line.dealing.lends(label)

    def ready(self) -> list[Units]:
        """What this end may still take, in sets or not, of the first run."""
        found = [unit for one in self._sets for unit in one.ready(self._head, self._part)]
        free = [unit for low, high in self._line.run.free for unit in range(low, high)]
        return list(neighbours(sorted(found + free)))

    def restarted(self) -> None:
        self._asked_ns = -ASK_NS

    def fresh(self) -> None:
        """Units have entered: notices of them may have come before."""
        while self._behind:
            try:
                if not self._act(self._behind[0]):
                    break
            except Malformed:
                # Which units make a set is known only now; whoever said it is not here to be told.
                self.refused += 1
            self._behind.popleft()
        self._prepare()

    # --- sets ---------------------------------------------------------------------------------------------------------

    def _enough(self, units: int) -> bool:
        """In sets of one run; the master makes another set if that helps, the other end asks it to."""
        while not self._together(units):
            if not self._line.master:
                self._ask(units)
                return False
            if not self._cut():
                return False
        return True

    def _together(self, units: int) -> bool:
        """Whether the next sets, as far as they are of one run, have so many."""
        while self._sets and not self._sets[0].left(self._part):
            self._sets.popleft()
        found = 0
        for one in self._sets:
            if one.run is not self._sets[0].run:
                return False
            found += one.left(self._part)
            if found >= units:
                return True
        return False

    def _ask(self, units: int) -> None:
        line = self._line
        if line.site.now - self._asked_ns >= ASK_NS:
            self._asked_ns = line.site.now
            line.talk.tell(Kx(WANTED, Verb.ASSIGN, counts=(units,)))

    def _prepare(self) -> None:
        """At the master: whole sets as soon as there are units for them, a smaller one in good time."""
        if not self._line.master:
            return
        if self._part.size != "all" and self._part.ends == "opposite":
            for run in self._runs():
                while run.free.level >= self._part.size:
                    self._make(run, self._part.size)
        if len(self._sets) < 2 and (not self._sets or self._sets[0].left(self._part) * 2 <= self._sets[0].length):
            self._cut()

    def _cut(self) -> bool:
        """A set of what there is, whole or not."""
        for run in self._runs():
            if run.free.level:
                whole = self._part.size == "all" or self._part.ends == "same"
                self._make(run, run.free.level if whole else min(run.free.level, int(self._part.size)))
                return True
        return False

    def _make(self, run: Run, units: int) -> None:
        ranges = run.free.take(units)
        assert ranges is not None
        run.held += units
        self._sets.append(Stretch(run, ranges))
        self._line.talk.tell(Kx(WS, Verb.ASSIGN, ranges=ranges, to=f"{run.owner}>"))

    def _runs(self) -> list[Run]:
        line = self._line
        return [line.run_of(f"{owner}>") for owner in (sorted((line.own, line.peer)) if line.distant else [""])]

    # --- what the peer says -------------------------------------------------------------------------------------------

    def _hear(self, message: Kx) -> None:
        if message.to not in (f"{run.owner}>" for run in self._runs()):
            raise Malformed(f"{message.word} of {message.to[:64]!r}: no run of this line")
        if len(self._behind) >= BEHIND_LIMIT:
            raise Malformed(f"{message.word}: {BEHIND_LIMIT} wait for units that have not entered")
        if self._behind or not self._act(message):
            self._behind.append(message)
        else:
            self._line.site.grew(self._line)

    def _wanted(self, message: Kx) -> None:
        if not self._together(message.counts[0]):
            self._cut()

    def _act(self, message: Kx) -> bool:
        """False if it is of units that are not here yet."""
        run = self._line.run_of(message.to)
        if message.word == WS:
            if not run.free.remove(message.ranges):
                return message.ranges[-1][1] <= run.end
            run.held += count(message.ranges)
            self._sets.append(Stretch(run, message.ranges))
        elif message.ranges[-1][1] > run.end:
            return False
        else:
            self._used(run, message.ranges)
        return True

    def _used(self, run: Run, ranges: tuple[Units, ...]) -> None:
        line = self._line
        units = [unit for low, high in ranges for unit in range(low, high)]
        self._check_used(run, units)
        crossing = []
        for unit in units:
            use = self._uses.get((run.owner, unit))
            if self._told(run, unit, use is not None):
                assert use is not None
                crossing.append(unit)
                self._spoil(use)
                del self._uses[run.owner, unit]
        if not crossing:
            self._theirs[run.owner, ranges] = None
            return
        # The key is of no use: what of it was still here goes with what both have given away.
        self._spoilt[run.owner, ranges] = None
        lost = neighbours([unit for unit in units if unit not in crossing])
        run.held -= count(lost)
        line.gone(lost, "C", run)

    def _check_used(self, run: Run, units: list[int]) -> None:
        """A peer takes each unit once, from its end of a set on. Raises Malformed, and nothing has changed."""
        by_set: dict[int, list[int]] = {}
        for unit in units:
            for number, one in enumerate(self._sets):
                index = one.index(unit) if one.run is run else None
                if index is not None:
                    by_set.setdefault(number, []).append(index)
                    break
            else:
                if (run.owner, unit) not in self._uses:
                    raise Malformed(f"{USED} of unit {unit}, which is in no set")
        sets = [(self._sets[number], sorted(indexes)) for number, indexes in by_set.items()]
        for one, indexes in sets:
            if not one.follows(indexes, self._head, self._part):
                raise Malformed(f"{USED} of units {one.unit(indexes[0])} and on, out of their turn")
        for one, indexes in sets:
            one.heard += len(indexes)
            one.heard_last = max(one.heard_last, indexes[-1])

    def _told(self, run: Run, unit: int, served: bool) -> bool:
        """Whether it collides. A use in a later set says that the peer is through with those before."""
        for number, one in enumerate(self._sets):
            index = one.index(unit) if one.run is run else None
            if index is None:
                continue
            for _ in range(number):
                self._sets.popleft()
            destroyed, one.view = self._part.told(one.view, index, (index,) if served else ())
            return bool(destroyed)
        return served

    def _spoil(self, use: Use) -> None:
        """A key that went out here is destroyed, not delivered."""
        if use.spoilt or use.name is None:
            return
        use.spoilt = True
        book, name = self._line.book, use.name
        if name.derived_bits:
            book.F -= name.derived_bits
            book.D -= name.taken_bits
        else:
            book.D -= name.size_bits
            book.O -= name.taken_bits - name.size_bits
        book.C += name.taken_bits


def _owner(label: str) -> str:
    return label.partition(">")[0]
