"""One end of what two key managers share: its stock, its book and its talk. How it behaves, its rooms say."""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from keyhop.core.composed.nouns.book import Book
from keyhop.core.composed.nouns.messages import BlockArrived
from keyhop.core.composed.nouns.units import Queue, Units, count
from keyhop.core.composed.rooms import agreement_of, dealing_of, disposal_of, intake_of, serving_of
from keyhop.core.composed.stock.dealing import Dealing
from keyhop.core.composed.stock.disposal import Disposal, ordered
from keyhop.core.composed.stock.pulling import Intake
from keyhop.core.composed.stock.serving import Serving
from keyhop.core.composed.stock.sizes import smallest_unit
from keyhop.core.composed.talk.agreement import Agreement
from keyhop.core.composed.talk.conversation import PRESHARED_BITS, TAG_BITS, Conversation
from keyhop.core.designs import Design
from keyhop.core.designs.design import LocalGlobal
from keyhop.core.model import BYTE_BITS
from keyhop.core.policy.formatting import SplitMerge
from keyhop.core.policy.refill import Sated
from keyhop.core.policy.storage import ByteStream, FixedBlock, MultiSizeBlock

if TYPE_CHECKING:
    from keyhop.core.composed.site import Site

CAPACITY_BITS = 1 << 30
SPENT = frozenset("RT")
"""Letters of the book that stand for a use, beside what applications get."""


class LineSettings(NamedTuple):
    """What the configuration says of a line."""

    rate_bps: int = 0
    """Nominal, of the module or of the path."""
    capacity_bits: int = CAPACITY_BITS
    tag_bits: int = TAG_BITS
    preshared_bits: int = PRESHARED_BITS
    aside: float = 0.0
    """Part of all material that is set aside for tags where no end says how a block enters."""


class Run:
    """Units of one size, numbered from 0; positions never come round again."""

    __slots__ = ("carry_bits", "end", "entered_bits", "free", "held", "owner", "pools", "unit_bits", "weak")

    def __init__(self, unit_bits: int, owner: str = "") -> None:
        self.unit_bits = unit_bits
        self.owner = owner
        """Who makes it, where each end has a run of its own to the other; empty for a link's, which both are given."""
        self.entered_bits = 0
        """Relayed so far into this run, with what was set aside."""
        self.carry_bits = 0
        """Less than a unit; waits for the next block."""
        self.end = 0
        self.free = Queue()
        """In no pool."""
        self.pools: dict[str, Queue] = {}
        self.held = 0
        """Units out of all queues that an exchange under way holds."""
        self.weak: list[Units] = []
        """Stretches that came under pads which were not one-time: not ITS any more. Ascending."""

    def weaken(self, start: int) -> None:
        """All that has entered from this unit on, with the bits that wait for the rest of theirs."""
        end = self.end + (1 if self.carry_bits else 0)
        if self.weak and start <= self.weak[-1][1]:
            self.weak[-1] = (self.weak[-1][0], max(end, self.weak[-1][1]))
        elif start < end:
            self.weak.append((start, end))

    def is_weak(self, ranges: tuple[Units, ...]) -> bool:
        for start, end in ranges if self.weak else ():
            before = bisect_right(self.weak, (start, 1 << 62)) - 1
            if before >= 0 and self.weak[before][1] > start:
                return True
            if before + 1 < len(self.weak) and self.weak[before + 1][0] < end:
                return True
        return False

    def pool(self, label: str) -> Queue:
        """Made on first use."""
        if not label:
            return self.free
        found = self.pools.get(label)
        if found is None:
            found = self.pools[label] = Queue()
        return found

    def known(self, label: str) -> Queue | None:
        """None: no such pool has been made."""
        return self.pools.get(label) if label else self.free

    @property
    def units(self) -> int:
        return self.free.level + sum(pool.level for pool in self.pools.values()) + self.held


class Line:
    def __init__(self, site: Site, peer: str, *, distant: bool, design: Design, settings: LineSettings) -> None:
        self.site = site
        self.own = site.node
        self.peer = peer
        self.distant = distant
        self.design = design
        self.settings = settings
        self.master = self.own < peer
        self.book = Book(distant)
        owners = (self.own, peer) if distant else ("",)
        self._runs = {(size, owner): Run(size, owner) for owner in owners for size in sizes_of(design, distant)}
        self.run = next(iter(self._runs.values()))
        """The first run of this end: of a link's with one unit size, the only one."""
        self._only = self.run if len(self._runs) == 1 else None
        self.cut_bits = self.run.unit_bits
        """A key takes whole ones of these."""
        self.pickup_bits = 0
        """Delivered and not yet agreed."""
        self.late_bits = 0
        """The rest of a unit that a hole has cut: lost when it comes."""
        self.origins: list[tuple[int, int]] = []
        """(position in bits, stamp of the module): where each stretch of the link's run came from."""
        self.talk = Conversation(self, settings.tag_bits, settings.preshared_bits)
        self.dealing: Dealing = dealing_of(self)
        self.serving: Serving = serving_of(self)
        self.agreement: Agreement = agreement_of(self)
        self.intake: Intake = intake_of(self)
        self.disposal: Disposal = disposal_of(self)
        self.talk.handlers.setdefault("PURGE", partial(ordered, self))
        self.drawn_ns = 0
        """When key was last taken for use."""
        self.made_ns = 0
        """When what enters now was made."""
        self._arrived: dict[int, int] = {}
        """By stamp: when a block came that is not agreed yet."""

    def __repr__(self) -> str:
        return f"Line({self.own} to {self.peer}{', distant' if self.distant else ''}, {self.run.units} units)"

    @property
    def stock_bits(self) -> int:
        """S: all that is in and not booked out."""
        runs = sum(run.units * run.unit_bits + run.carry_bits for run in self._runs.values())
        return self.pickup_bits + runs + self.talk.stock_bits

    @property
    def usable_bits(self) -> int:
        """What applications or relay may still come to."""
        return sum(run.units * run.unit_bits for run in self._runs.values())

    def run_of(self, label: str, unit_bits: int = 0) -> Run:
        """The run in which a pool lies."""
        only = self._only
        if only is not None and unit_bits in (0, only.unit_bits):
            return only
        owner = label.partition(">")[0] if self.distant else ""
        run = self._runs.get((unit_bits or self.run.unit_bits, owner))
        if run is None:
            raise ValueError(f"{label!r} of {unit_bits} bit units: no run of {self}")
        return run

    # --- in -----------------------------------------------------------------------------------------------------------

    def block(self, block: BlockArrived) -> None:
        self.intake.arrived(block)

    def receive(self, block: BlockArrived) -> None:
        """Taken from the module."""
        self.book.G += block.bits
        self.pickup_bits += block.bits
        self._arrived[block.stamp_bits] = self.site.now
        self.agreement.arrived(block)

    def enter(self, bits: int, aside: int, owner: str = "") -> None:
        """Agreed bits, in the same order at both ends: `aside` of them are for tags, the rest is for units."""
        self.run_of(f"{owner}>").entered_bits += bits
        late = min(self.late_bits, bits - aside)
        self.late_bits -= late
        self.book.Y += late
        fresh: list[tuple[Run, int, int]] = []
        for run, more in self.dealing.sizes(bits - aside - late, owner):
            units, run.carry_bits = divmod(run.carry_bits + more, run.unit_bits)
            if units:
                fresh.append((run, run.end, run.end + units))
                run.end += units
        if aside:
            self.talk.deal(aside)
        for run, start, end in fresh:
            self.dealing.fresh(run, start, end)
            self.disposal.entered(run, start, end, self.made_ns)
        self.site.grew(self)

    def skip(self, stamp_bits: int) -> None:
        """What lies before `stamp_bits` and is not here is a hole: its positions are passed over, never moved up."""
        run = self.run
        aside = self._aside(stamp_bits) - self._aside(run.entered_bits)
        missing = stamp_bits - run.entered_bits - aside
        if missing <= 0:
            return
        position = run.end * run.unit_bits - self.late_bits + run.carry_bits + missing
        self.book.Y += run.carry_bits
        run.end, run.carry_bits = -(-position // run.unit_bits), 0
        self.late_bits = run.end * run.unit_bits - position
        run.entered_bits = stamp_bits

    def forget_stock(self) -> None:
        """Whatever waits in the queues and for the rest of its unit is lost; positions stay where they are."""
        for run in self._runs.values():
            for queue in (run.free, *run.pools.values()):
                self.gone(queue.clear(), "Y", run)
            if run.carry_bits:
                self.book.Y += run.carry_bits
                self.late_bits += run.unit_bits - run.carry_bits
                run.end, run.carry_bits = run.end + 1, 0

    def position(self, stamp_bits: int) -> int:
        """The unit where the bit of this stamp lies, of the one run."""
        return (stamp_bits - self._aside(stamp_bits)) // self.run.unit_bits

    def destroy_pickup(self, bits: int) -> None:
        """Not the same at both ends."""
        self.pickup_bits -= bits
        self.book.Y += bits

    def accept_pickup(self, bits: int, aside: int | None = None, stamp_bits: int | None = None) -> None:
        """None: what is set aside follows from the position. `stamp_bits`: where the module's stream had it."""
        self.pickup_bits -= bits
        if stamp_bits is not None:
            self._originate(stamp_bits)
            self.made_ns = self._arrived.pop(stamp_bits, self.site.now)
        if aside is None:
            entered = self.run.entered_bits
            aside = self._aside(entered + bits) - self._aside(entered)
        self.enter(bits, aside)

    # --- out ----------------------------------------------------------------------------------------------------------

    def gone(self, ranges: tuple[Units, ...], letter: str, run: Run | None = None, *, over_bits: int = 0) -> None:
        """Ranges that were taken out of a queue leave the stock for good; so much of them is given up (O)."""
        bits = count(ranges) * (run or self.run).unit_bits
        self.book.move(letter, bits - over_bits)
        self.book.move("O", over_bits)
        if letter in SPENT:
            self.spent(run or self.run, "", ranges)
        self.site.cargo.gone(self, run or self.run, ranges, letter)

    def spent(self, run: Run, label: str, ranges: tuple[Units, ...]) -> None:
        """Taken for use; whether it is erased at once is the design's matter."""
        self.drawn_ns = self.site.now
        self.disposal.used(run, label, ranges)

    def destroy(self, wanted: Units, letter: str, run: Run | None = None) -> int:
        """All of [start, end) that lies in any queue leaves for good; gives the number of units."""
        run, gone = run or self.run, 0
        for queue in (run.free, *run.pools.values()):
            parts = queue.within(*wanted)
            if parts and queue.remove(parts):
                self.gone(parts, letter, run)
                gone += count(parts)
        return gone

    def _originate(self, stamp_bits: int) -> None:
        position = self.run.end * self.run.unit_bits + self.run.carry_bits - self.late_bits
        if not self.origins or self.origins[-1][1] - self.origins[-1][0] != stamp_bits - position:
            self.origins.append((position, stamp_bits))

    def came_from(self, units: Units, unit_bits: int = 0) -> list[Units]:
        """The stretches of the module's stream, by stamps in bits, that lie in these units of the link's run."""
        start, end = (edge * (unit_bits or self.run.unit_bits) for edge in units)
        at = max(0, bisect_right(self.origins, (start, 1 << 62)) - 1)
        found: list[Units] = []
        for (position, stamp), following in zip_longest(self.origins[at:], self.origins[at + 1 :]):
            if position >= end:
                break
            low, high = max(start, position), min(end, following[0] if following else end)
            found.append((low - position + stamp, high - position + stamp))
        return found

    def _aside(self, bits: int) -> int:
        """Of the first `bits` of the stream: both ends come to the same."""
        return int(bits * self.settings.aside) // BYTE_BITS * BYTE_BITS


def sizes_of(design: Design, distant: bool) -> tuple[int, ...]:
    """Unit sizes in bits: of what comes in, then of what it is cut into for buffers."""
    refill = design.refill.local if isinstance(design.refill, LocalGlobal) else design.refill
    if isinstance(refill, Sated):
        if distant and not design.keeps_global_key:
            return (refill.slot_bits,)
        if not distant:
            return (refill.slot_bits * refill.slots_per_unit, refill.slot_bits)
    if isinstance(design.formatting.supply, SplitMerge):
        # Keys are cut anywhere: which ones were whole is arithmetic.
        return (BYTE_BITS,)
    match design.storage:
        case FixedBlock(unit_bits=unit_bits):
            return (unit_bits,)
        case MultiSizeBlock(sizes=sizes):
            return (smallest_unit(sizes),)
        case ByteStream():
            return (BYTE_BITS,)
