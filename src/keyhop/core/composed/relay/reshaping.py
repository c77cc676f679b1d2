"""Keys that both ends split, merge and assign by name: the bits stay where they are, only names change (AIT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Kx, Name, StreamOpened
from keyhop.core.composed.nouns.named_keys import Key, Stock
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.nouns.units import Units, count
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.stock.dealing import Common
from keyhop.core.composed.stock.serving import NO_RECORD, PENDING, Pending, Taken, Then
from keyhop.core.policy.division import Purpose
from keyhop.core.policy.formatting import Held, Reshaping, SplitMerge
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

SPLIT, MERGE, DELETE = "SPLIT_KEY", "MERGE_KEYS", "DELETE_KEYS"
INTERNAL, EXTERNAL = "MAKE_KEYS_INTERNAL", "MAKE_KEYS_EXTERNAL"
NEW_APP, CLOSED = "NEW_APP", "KEY_STREAM_CLOSED"
GET_STATUS, POST_STATUS = "GET_STATUS", "POST_STATUS"
CHANGED, CONFLICT, UNKNOWN = "CHANGED", "CONFLICT", "UNKNOWN"
"""How a change is answered: done, crossing, or of a key that is not here."""
REFILL_NS = 100_000_000
"""Between two requests for internal keys, when one has failed (K)."""
STREAMS_LIMIT = 4096
"""Of one peer."""
KEPT_DEAD = 4096
"""Names of keys that were lost with an answer, so that the peer can be told (K)."""


class Change:
    """What this end has asked the peer to do; its keys are in no stock meanwhile."""

    __slots__ = ("cancelled", "done", "keys")

    def __init__(self, keys: list[Key], done: Callable[[list[Key] | None], None]) -> None:
        self.keys = keys
        self.done = done
        self.cancelled = False


class Classes(Common):
    """Fresh key is free; the peer hears of streams."""

    def fresh(self, run: Run, start: int, end: int) -> None:
        run.free.put(start, end)
        if isinstance(serving := self._line.serving, Reshaped):
            serving.refill()

    def opened(self, stream: StreamOpened) -> None:
        if stream.asks:
            counts = (stream.rate_bps, stream.size_bits)
            self._line.talk.tell(Kx(NEW_APP, Verb.ASSIGN, names=(stream.stream,), counts=counts))

    def closed(self, stream: str) -> None:
        self._line.talk.tell(Kx(CLOSED, Verb.ASSIGN, names=(stream,)))


class Reshaped:
    """Every change is asked for and holds when the peer has made it; of two that cross the lower name's stands (K).

    A key is made to measure (merge, split) and then external, one exchange each. Each end keeps internal keys for its
    own use: no application sees them.
    """

    def __init__(self, line: Line, part: SplitMerge, classes: Purpose, key_units: int) -> None:
        self._line = line
        self._part = part
        self.stock = Stock(line.run, key_units)
        self._target = next((int(share) for name, share in classes.shares if name == "internal"), 0)
        self._changes: dict[str, Change] = {}
        """By name of a key that is in one."""
        self._assigned: dict[tuple[Units, ...], str] = {}
        """External here, for a stream; not fetched yet."""
        self._dead: dict[str, None] = {}
        self._names = 0
        self._filling = False
        self.streams: dict[str, tuple[int, ...]] = {}
        """As the peer has told of them."""
        self.peer_status: tuple[int, ...] = ()
        for word in (SPLIT, MERGE, DELETE, INTERNAL, EXTERNAL):
            line.talk.handlers[word] = self._asked
        line.talk.handlers[NEW_APP] = self._new_app
        line.talk.handlers[CLOSED] = self._stream_closed
        line.talk.handlers[GET_STATUS] = lambda message: Kx(POST_STATUS, Verb.ASSIGN, counts=self._status())
        line.talk.handlers[POST_STATUS] = self._status_told

    # --- serving ------------------------------------------------------------------------------------------------------

    def stock_bits(self, stream: str) -> int:
        run = self._line.run
        units = self.stock.level if stream else run.pool(self.internal(self._line.own)).level
        return units * run.unit_bits

    def take(self, stream: str, bits: int, then: Then) -> Taken | Pending | None:
        run = self._line.run
        length = -(-bits // run.unit_bits)
        if not stream:
            # Whole keys: a pad has a name, too.
            whole = -(-length // self.stock.key_units) * self.stock.key_units
            label = self.internal(self._line.own)
            ranges = run.pool(label).take(whole)
            self.refill()
            return None if ranges is None else Taken(run, ranges, label)
        keys = self.stock.candidates(length) if self._line.talk.can_ask else []
        plan = self._part.supply(length * run.unit_bits, [Held(key.id, key.length * run.unit_bits) for key in keys])
        if plan is None:
            return None
        self._make(plan, stream, then)
        return PENDING

    def fetch(self, name: Name) -> Taken | str | None:
        run = self._line.run
        if name.label:
            there = self.lends(name.label) and run.pool(name.label).remove(name.ranges)
            return Taken(run, name.ranges, name.label) if there else None
        if name.ranges not in self._assigned:
            return NO_RECORD
        del self._assigned[name.ranges]
        run.held -= count(name.ranges)
        return Taken(run, name.ranges, "")

    def lends(self, label: str) -> bool:
        return label in ("", self.internal(self._line.peer))

    def restarted(self) -> None:
        self._filling = False

    # --- the methods --------------------------------------------------------------------------------------------------

    def split(self, name: str, parts: Sequence[tuple[str, int]], done: Callable[[bool], None]) -> None:
        """(new id, bits) of each part, which must make up the whole."""
        unit_bits = self._line.run.unit_bits
        key = self.stock.find(name)
        lengths = [bits for _, bits in parts]
        if key is None or not self._part.may_split(key.length * unit_bits, lengths):
            done(False)
            return
        names, counts = (name, *(new for new, _ in parts)), tuple(bits // unit_bits for bits in lengths)
        self._free_change(Kx(SPLIT, Verb.ASSIGN, names=names, counts=counts), [key], done)

    def merge(self, names: Sequence[str], new: str, bits: int, done: Callable[[bool], None]) -> None:
        """In this order; `bits` is what they have together."""
        unit_bits = self._line.run.unit_bits
        keys = [key for name in names if (key := self.stock.find(name)) is not None]
        fits = self._part.may_merge([key.length * unit_bits for key in keys], bits)
        if len(keys) < len(names) or len(set(names)) < len(names) or not fits:
            done(False)
            return
        counts = (bits // unit_bits,)
        self._free_change(Kx(MERGE, Verb.ASSIGN, names=(new, *names), counts=counts), keys, done)

    def delete(self, names: Sequence[str], done: Callable[[bool], None]) -> None:
        self._by_name(DELETE, Verb.DESTROY, names, "", done)

    def make_internal(self, names: Sequence[str], done: Callable[[bool], None]) -> None:
        """For this end's own use."""
        self._by_name(INTERNAL, Verb.ASSIGN, names, self._line.own, done)

    def status(self, done: Callable[[tuple[int, ...]], None]) -> None:
        """Free and internal keys of the peer."""
        self._line.talk.ask(Kx(GET_STATUS, Verb.ASSIGN), lambda answer: done(answer.counts))

    def post_status(self) -> None:
        self._line.talk.tell(Kx(POST_STATUS, Verb.ASSIGN, counts=self._status()))

    def refill(self) -> None:
        """Up to the target, one request at a time."""
        label = self.internal(self._line.own)
        missing = self._target - self._line.run.pool(label).level // self.stock.key_units
        keys = self.stock.oldest(missing) if missing > 0 and not self._filling else []
        if not keys:
            return
        self._filling = True

        def done(made: bool) -> None:
            self._filling = False
            if made:
                self._line.site.grew(self._line)
                self.refill()
            else:
                self._line.site.later(REFILL_NS, self.refill)

        self.make_internal([key.id for key in keys], done)

    def internal(self, node: str) -> str:
        """The pool of keys that this end uses itself."""
        line = self._line
        return f"{node}>{line.peer if node == line.own else line.own}/internal"

    # --- how this end asks --------------------------------------------------------------------------------------------

    def _make(self, plan: Reshaping, stream: str, then: Then) -> None:
        """One change after the other; whatever fails, the keys are free again and the request is tried again."""
        unit_bits = self._line.run.unit_bits
        keys = [key for name in plan.merged if (key := self.stock.find(name)) is not None]
        for key in keys:
            self.stock.take(key)
        lengths = tuple(bits // unit_bits for bits in plan.parts_bits)

        def merged(made: list[Key] | None) -> None:
            if made is None:
                then(None)
            elif len(lengths) == 1:
                split(made)
            else:
                names = [self._name() for _ in lengths]
                self._change(Kx(SPLIT, Verb.ASSIGN, names=(made[0].id, *names), counts=lengths), made, split)

        def split(made: list[Key] | None) -> None:
            if made is None:
                then(None)
                return
            for rest in made[1:]:
                self.stock.put(rest)
                self._line.site.grew(self._line)
            self._change(Kx(EXTERNAL, Verb.ASSIGN, names=(made[0].id,), to=stream), made[:1], external)

        def external(made: list[Key] | None) -> None:
            if made is None:
                then(None)
                return
            self._line.run.held -= made[0].length
            then(Taken(self._line.run, made[0].ranges, ""))

        if len(keys) > 1:
            length = sum(key.length for key in keys)
            names = (self._name(), *(key.id for key in keys))
            self._change(Kx(MERGE, Verb.ASSIGN, names=names, counts=(length,)), keys, merged)
        else:
            merged(keys)

    def _by_name(self, word: str, verb: Verb, names: Sequence[str], to: str, done: Callable[[bool], None]) -> None:
        keys = [key for name in names if (key := self.stock.find(name)) is not None]
        if len(keys) < len(names) or not keys:
            done(False)
            return
        self._free_change(Kx(word, verb, names=tuple(names), to=to), keys, done)

    def _free_change(self, message: Kx, keys: list[Key], done: Callable[[bool], None]) -> None:
        """What comes of it is free, or in its class."""

        def settled(made: list[Key] | None) -> None:
            if made is not None:
                self._settle(message, made)
            done(made is not None)

        for key in keys:
            self.stock.take(key)
        self._change(message, keys, settled)

    def _change(self, message: Kx, keys: list[Key], done: Callable[[list[Key] | None], None]) -> None:
        change = Change(keys, done)
        for key in keys:
            self._changes[key.id] = change

        def answered(answer: Kx) -> None:
            if change.cancelled:
                change.done(None)
                return
            self._drop(change)
            if answer.ok:
                change.done(changed(message, keys))
                return
            for key in keys:
                # The peer never had those it names, or has lost them.
                (self._lose if key.id in answer.names else self.stock.put)(key)
            change.done(None)

        def given_up() -> None:
            if not change.cancelled:
                # The peer may have made the change: neither the old nor the new name is ever used again.
                self._drop(change)
                for key in [*keys, *changed(message, keys)]:
                    self._dead[key.id] = None
                for key in keys:
                    self._lose(key)
            change.done(None)

        self._line.talk.ask(message, answered, given_up=given_up)

    # --- how this end is asked ----------------------------------------------------------------------------------------

    def _asked(self, message: Kx) -> Kx:
        new = {SPLIT: message.names[1:], MERGE: message.names[:1]}.get(message.word, ())
        if any(not self.stock.may_name(name) or name in self._changes for name in new):
            raise Malformed(f"{message.word}: a new key must have a name that none has, and that is no number")
        if message.word == INTERNAL and message.to != self._line.peer:
            raise Malformed(f"{INTERNAL} for {message.to[:64]!r}: must be for {self._line.peer}, who asks")
        names = message.names[1:] if message.word == MERGE else message.names[:1]
        if message.word in (DELETE, INTERNAL, EXTERNAL):
            names = message.names
        crossing = [self._changes[name] for name in names if name in self._changes]
        if crossing and self._line.own < self._line.peer:
            return Kx(CONFLICT, Verb.GIVE_BACK, ok=False)
        for change in crossing:
            if not change.cancelled:
                self._drop(change)
                change.cancelled = True
                for own in change.keys:
                    self.stock.put(own)
        keys = [key for name in names if (key := self.stock.find(name)) is not None]
        if len(keys) < len(names):
            lacking = tuple(name for name in names if self._never(name))
            return Kx(UNKNOWN, Verb.GIVE_BACK, names=lacking, ok=False)
        if not self._fits(message, keys):
            return Kx(CONFLICT, Verb.GIVE_BACK, ok=False)
        for key in keys:
            self.stock.take(key)
        self._settle(message, changed(message, keys))
        return Kx(CHANGED, Verb.ASSIGN)

    def _fits(self, message: Kx, keys: list[Key]) -> bool:
        lengths = [key.length for key in keys]
        if message.word == SPLIT:
            return self._part.may_split(lengths[0], message.counts)
        return message.word != MERGE or self._part.may_merge(lengths, message.counts[0])

    def _settle(self, message: Kx, keys: list[Key]) -> None:
        """At both ends: where the keys are now."""
        line = self._line
        for key in keys:
            match message.word:
                case "DELETE_KEYS":
                    line.run.held -= key.length
                    line.gone(key.ranges, "X")
                case "MAKE_KEYS_INTERNAL":
                    line.run.held -= key.length
                    for low, high in key.ranges:
                        line.run.pool(self.internal(message.to)).put(low, high)
                case "MAKE_KEYS_EXTERNAL":
                    self._assigned[key.ranges] = message.to
                case _:
                    self.stock.put(key)
        line.site.grew(line)

    def _never(self, name: str) -> bool:
        """Whether such a key is not here and will not come."""
        if name in self._dead:
            return True
        units = self.stock.whole(name)
        return units is not None and units[1] <= self._line.run.end and name not in self._changes

    def _new_app(self, message: Kx) -> None:
        if message.names[0] not in self.streams and len(self.streams) >= STREAMS_LIMIT:
            raise Malformed(f"stream {message.names[0][:64]!r}: {STREAMS_LIMIT} may be open")
        self.streams[message.names[0]] = message.counts

    def _stream_closed(self, message: Kx) -> None:
        self.streams.pop(message.names[0], None)

    def _status_told(self, message: Kx) -> None:
        self.peer_status = message.counts

    # --- inside -------------------------------------------------------------------------------------------------------

    def _status(self) -> tuple[int, ...]:
        internal = self._line.run.pool(self.internal(self._line.own)).level
        return self.stock.level // self.stock.key_units, internal // self.stock.key_units

    def _name(self) -> str:
        self._names += 1
        return f"{self._line.own}.{self._names}"

    def _drop(self, change: Change) -> None:
        for key in change.keys:
            del self._changes[key.id]

    def _lose(self, key: Key) -> None:
        self._line.run.held -= key.length
        self._line.gone(key.ranges, "Y")
        while len(self._dead) > KEPT_DEAD:
            del self._dead[next(iter(self._dead))]


def changed(message: Kx, keys: list[Key]) -> list[Key]:
    """The keys that there are after a change, with their names."""
    match message.word:
        case "SPLIT_KEY":
            return keys[0].cut(tuple(zip(message.names[1:], message.counts, strict=True)))
        case "MERGE_KEYS":
            return [Key(message.names[0], tuple(units for key in keys for units in key.ranges))]
    return keys


class Forwarding(HopWise):
    """FORWARD_KEYS under internal keys of each link, no more at once than half of what one end keeps."""

    word = "FORWARD_KEYS"
    batch_bits = 4096

    def step_bits(self, line: Line) -> int:
        """Whole keys, as pads are."""
        storage = line.design.storage
        return storage.unit_bits if isinstance(storage, FixedBlock) else line.run.unit_bits
