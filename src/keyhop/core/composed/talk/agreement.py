"""How a module's block enters the run at both ends: compared, counted or taken on trust."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from keyhop.core.composed.nouns.messages import BlockArrived, Kx
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.policy.synchronisation import Stamps, StampSequence, Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line

BATCH_NS = 1_000_000_000
"""A batch that does not fill up is compared after this time (K)."""
LATE_NS = 15_000_000_000
"""What the peer has not named after this time it does not have."""

UNNAMED_OFFERS = 4
"""Times that a block is offered, where the design does not say (K)."""
KEPT_NUMBERS = 1024
AGAIN_NS = 50_000_000


class Agreement(Protocol):
    def arrived(self, block: BlockArrived) -> None: ...

    def restarted(self) -> None: ...


class Trusted:
    """Each end takes what its module gives; what one end lacks is a hole there (DARPA, Cisco: no comparison)."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def arrived(self, block: BlockArrived) -> None:
        if block.stamp_bits < self._line.run.entered_bits:
            # A block again, or out of order: positions cannot move up.
            self._line.destroy_pickup(block.bits)
            return
        self._line.skip(block.stamp_bits)
        self._line.accept_pickup(block.bits, stamp_bits=block.stamp_bits)

    def restarted(self) -> None:
        pass


class Stamped:
    """Every byte has a stamp; what one end lacks is settled by SYNC before anything behind it is used (NIST)."""

    def __init__(self, line: Line, part: StampSequence) -> None:
        self._line = line
        self._part = part
        self._waiting: list[BlockArrived] = []
        """Behind a gap."""
        line.talk.handlers["SYNC"] = self._asked

    def arrived(self, block: BlockArrived) -> None:
        if self._waiting:
            self._waiting.append(block)
        else:
            self._enter(block)

    def restarted(self) -> None:
        """What was asked is asked again."""

    def _enter(self, block: BlockArrived) -> None:
        line, expected = self._line, self._line.run.entered_bits
        found = self._part.arrived(expected, block.stamp_bits, block.bits)
        if found is None:
            self._waiting.append(block)
            self._sync()
            return
        moves, following = found
        agreed = sum(move.length for move in moves if move.verb is Verb.AGREE)
        line.destroy_pickup(block.bits - agreed)
        if agreed:
            stamp_bits = block.stamp_bits + block.bits - agreed
            line.accept_pickup(agreed, stamp_bits=stamp_bits)
        elif following > expected:
            self._drop(0, following)
            line.skip(following)
            self._ask((following, following))

    def _sync(self) -> None:
        self._ask((self._line.run.entered_bits, self._waiting[0].stamp_bits))

    def _ask(self, stamps: tuple[int, int]) -> None:
        def again() -> None:
            # Nothing may be used before the peer has dropped what is missing here.
            self._ask(stamps)

        self._line.talk.ask(Kx("SYNC", Verb.DESTROY, counts=stamps), self._settled, given_up=again)

    def _asked(self, message: Kx) -> Kx:
        line = self._line
        expected, received = message.counts
        own_end = line.run.entered_bits
        if self._part.on_gap == "restart":
            self._drop(0, self._part.restarted(own_end, received)[1])
            line.skip(received)
            return Kx("SYNC-ACK", Verb.DESTROY, counts=(expected, received))
        if self._waiting and own_end < expected:
            # An older gap at this end comes first.
            return Kx("SYNC-ACK", Verb.DESTROY, ok=False)
        # What this end has of the peer's gap: from its own gap on, if it is the same.
        own = Stamps(expected, self._waiting[0].stamp_bits if self._waiting and own_end == expected else expected)
        self._fall_back(own, Stamps(expected, received))
        return Kx("SYNC-ACK", Verb.DESTROY, counts=own)

    def _settled(self, message: Kx) -> None:
        if not self._waiting:
            return
        if not message.ok:
            self._line.site.later(AGAIN_NS, self._resync)
            return
        peer = Stamps(*message.counts)
        if peer.expected == self._line.run.entered_bits:
            self._fall_back(Stamps(peer.expected, self._waiting[0].stamp_bits), peer)

    def _resync(self) -> None:
        if self._waiting:
            self._sync()

    def _fall_back(self, own: Stamps, peer: Stamps) -> None:
        line, own_end = self._line, self._line.run.entered_bits
        moves, _ = self._part.resynchronised(own, peer, max(own_end, own.received))
        for move in moves:
            if move.verb is Verb.DESTROY:
                self._drop(move.start, move.start + move.length)
        base = self._part.base(own, peer)
        if own_end < base:
            # What is still to come below the base is passed over when it comes.
            line.skip(base)
        if self._waiting and self._waiting[0].stamp_bits <= line.run.entered_bits:
            waiting, self._waiting = self._waiting, []
            for block in waiting:
                self.arrived(block)

    def _drop(self, first_bit: int, end_bit: int) -> None:
        """What is in stock of [first, end), by stamps."""
        line = self._line
        line.destroy((line.position(first_bit), line.position(end_bit)), "Y")


class Compared:
    """The master names blocks and their tags, the peer says which it has alike; both take these, in this order.

    With a third word the peer takes them only when it hears that the master has: an answer that is lost parts nobody.
    A block that differs is destroyed at both ends; one that the peer lacks is offered `retries` times before (Y).
    """

    def __init__(
        self,
        line: Line,
        *,
        words: tuple[str, str],
        period_ns: int = 0,
        units: int = 0,
        whole_batch: bool = False,
        retries: int = 0,
    ) -> None:
        self._line = line
        self._word, self._third = words
        self._period_ns = period_ns
        self._units = units
        self._whole_batch = whole_batch
        self._retries = retries
        self._pickup: OrderedDict[int, BlockArrived] = OrderedDict()
        self._offered: dict[int, int] = {}
        self._asides: dict[int, int] = {}
        self._asking = False
        self._unpaid_tags = 0
        """Of the offer under way: for batches behind those that could be paid for at once."""
        self._due = False
        self._gone_below = -1
        """At the slave: numbers up to this one have been decided, where nothing is offered again."""
        self._decided: OrderedDict[int, None] = OrderedDict()
        """The same by number, the last ones, where what came too late for one offer may be in time for the next."""
        self._taken: OrderedDict[int, None] = OrderedDict()
        self._confirmed: dict[int, int] = {}
        """Alike, with what is set aside of each: waits for the third word."""
        line.talk.handlers[self._word] = self._asked
        if self._third:
            line.talk.handlers[self._third] = self._done

    def arrived(self, block: BlockArrived) -> None:
        line = self._line
        if block.number in self._pickup or self._is_decided(block.number):
            line.destroy_pickup(block.bits)
            return
        self._pickup[block.number] = block
        if not line.master:
            line.site.later(LATE_NS, self._late, block.number)
            return
        wait_ns = self._period_ns
        if self._units:
            pending = sum(waiting.bits for waiting in self._pickup.values()) // line.run.unit_bits
            wait_ns = 0 if pending >= self._units else BATCH_NS
        if not wait_ns:
            self._offer()
        elif not self._due:
            self._due = True
            line.site.later(wait_ns, self._offer)

    def restarted(self) -> None:
        self._asking = self._due = False
        if self._pickup and self._line.master:
            self._offer()

    def _offer(self) -> None:
        """One exchange at a time, so that both ends append in one order."""
        self._due = False
        if self._asking or not self._pickup:
            return
        line = self._line
        blocks = list(self._pickup.values())
        tags = self._tags(sum(block.bits for block in blocks))
        for block in blocks:
            # Once for each: the peer may have taken it with what was said first.
            if block.number not in self._asides:
                self._asides[block.number] = line.talk.aside_bits(block.bits, self._tags(block.bits))
        asides = self._asides
        counts = tuple(number for b in blocks for number in (b.number, b.digest, asides[b.number]))
        self._asking = True
        paid = line.talk.up_front(tags)
        self._unpaid_tags = tags - paid
        line.talk.ask(Kx(self._word, Verb.AGREE, counts=counts, tags=paid), self._answered, given_up=self._lost)

    def _tags(self, bits: int) -> int:
        """One for each batch."""
        return max(1, -(-(bits // self._line.run.unit_bits) // self._units)) if self._units else 1

    def _lost(self) -> None:
        self._asking = False
        self._again()

    def _asked(self, message: Kx) -> Kx:
        offered = list(zip(message.counts[::3], message.counts[1::3], strict=True))
        for number, _ in offered:
            # Where an end takes blocks as the other does, this is how it learns of them.
            self._line.intake.named(number)
        asides = dict(zip(message.counts[::3], message.counts[2::3], strict=True))
        alike = [n for n, digest in offered if n in self._pickup and self._pickup[n].digest == digest]
        differing = [n for n, digest in offered if n in self._pickup and self._pickup[n].digest != digest]
        if self._whole_batch and differing:
            alike = []
        # Taken before: the answer did not reach a master that has restarted since.
        before = [n for n, _ in offered if n in self._taken]
        over = [number for number in alike if asides[number] > self._pickup[number].bits]
        if over:
            raise Malformed(f"block {over[0]}: more of it is to be set aside than it has")
        for number in alike:
            if self._third:
                self._confirmed[number] = asides[number]
            else:
                self._take(number, asides[number])
        for number in [n for n, _ in offered if n in self._pickup] if self._whole_batch else differing:
            self._line.destroy_pickup(self._pickup.pop(number).bits)
        alike = [n for n, _ in offered if n in alike or n in before]
        destroyed = tuple(n for n, _ in offered if n not in alike and (self._whole_batch or n in differing))
        return Kx(f"{self._word}-ACK", Verb.AGREE, counts=(len(alike), *alike, *destroyed), ok=not destroyed)

    def _done(self, message: Kx) -> None:
        """The master has taken these."""
        for number in message.counts:
            if number in self._confirmed and number in self._pickup:
                self._take(number, self._confirmed.pop(number))

    def _take(self, number: int, aside: int) -> None:
        block = self._pickup.pop(number)
        self._line.accept_pickup(block.bits, aside, block.stamp_bits)
        self._gone_below = max(self._gone_below, number)
        self._taken[number] = None
        if len(self._taken) > KEPT_NUMBERS:
            self._taken.popitem(last=False)
        if self._retries:
            self._decided[number] = None
            if len(self._decided) > KEPT_NUMBERS:
                self._decided.popitem(last=False)

    def _is_decided(self, number: int) -> bool:
        return number in self._decided if self._retries else number <= self._gone_below

    def _answered(self, message: Kx) -> None:
        line = self._line
        if any(named in self._pickup and named not in self._asides for named in message.counts[1:]):
            raise Malformed("an answer names blocks that were not offered")
        self._asking = False
        number, *rest = message.counts
        for alike in rest[:number]:
            self._offered.pop(alike, None)
            if alike not in self._pickup:
                continue
            block = self._pickup.pop(alike)
            line.accept_pickup(block.bits, self._asides.pop(alike), block.stamp_bits)
        unpaid, self._unpaid_tags = self._unpaid_tags, 0
        line.talk.pay_rest(unpaid)
        for bad in rest[number:]:
            if bad in self._pickup:
                line.destroy_pickup(self._pickup.pop(bad).bits)
        for left in list(self._pickup):
            self._offered[left] = self._offered.get(left, 0) + 1
            if self._offered[left] >= (self._retries or UNNAMED_OFFERS):
                line.destroy_pickup(self._pickup.pop(left).bits)
                del self._offered[left]
        if self._third and number:
            line.talk.tell(Kx(self._third, Verb.AGREE, counts=tuple(rest[:number])))
        self._again()

    def _again(self) -> None:
        if self._pickup and not self._due:
            self._due = True
            self._line.site.later(self._period_ns or BATCH_NS, self._offer)

    def _late(self, number: int) -> None:
        """The master never had it, or has destroyed it."""
        if number in self._confirmed:
            return
        block = self._pickup.pop(number, None)
        if block is not None:
            self._line.destroy_pickup(block.bits)
