"""Key that another design carries over nodes: its bits, in memory alone, under the names that its sites have for it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from keyhop.core.composed.line import Line, Run
from keyhop.core.composed.nouns.cargo import ONE_LINK, PAD, Payload
from keyhop.core.composed.nouns.messages import Name
from keyhop.core.composed.nouns.units import Units
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.model import BYTE_BITS, NANOSECONDS, NodeId, Range, RunId
from keyhop.core.node.context import Context
from keyhop.core.node.hosted_messages import Load
from keyhop.core.node.hosted_stock import first_bytes
from keyhop.core.node.vault import BlockName

PAYLOAD_LIMIT_BYTES = 61_440
"""What a message has room for, beside its names."""
KEPT_NS = 300 * NANOSECONDS
"""Payloads that have not arrived by then are given up: longer than any queue of a hop keeps them."""
LOADS_NS = 60 * NANOSECONDS
"""So long the other parts of a message may wait for key of its link that is not agreed yet."""
LOADS_LIMIT = 4096
FIRST_RUN = 1 << 16
"""Runs of distant pairs are no runs of a store: they are numbered from here on, each once in the life of a process."""


class Held(NamedTuple):
    """A payload at this node."""

    stamp: bytes
    length: int
    since: int


class Beside(NamedTuple):
    load: Load
    since: int


class Place(Protocol):
    """Whoever knows the links."""

    def link_ranges(self, line: Line, run: Run, ranges: tuple[Units, ...]) -> tuple[Range, ...] | None:
        """Where these units of a link lie; None if the link has begun anew since."""

    def is_pair(self, line: Line) -> bool:
        """Whether this is the line to a distant site, not an earlier one."""

    def lives(self, source: str, destination: str) -> bytes:
        """Of a pair of which this node is one; empty while the other's is not known."""

    def lost(self, peer: str) -> None:
        """This end lacks key that the other has: the pair must begin anew."""

    def spent(self, line: Line, ranges: tuple[Range, ...], letter: str) -> None:
        """These bytes of a link are out of the stock."""


class HostedCargo:
    """What the site calls; see `composed/nouns/cargo.py`."""

    derives = False
    """The vault joins and covers; it does not derive."""

    def __init__(self, context: Context, place: Place) -> None:
        self.context = context
        self._place = place
        self._held: dict[Payload, Held] = {}
        self._kept: dict[Payload, Beside] = {}
        self._beside: dict[int, Beside] = {}
        self._loads = 0
        self._runs: dict[tuple[str, str], RunId] = {}
        """(distant site, owner) -> where the key of the pair lies."""
        self._next_run = FIRST_RUN
        self._scratch = self._new_run(context.node)
        self._scratched = 0

    # --- beside messages ----------------------------------------------------------------------------------------------

    def arrive(self, load: Load | None) -> int:
        return self._put(load) if load is not None else 0

    def leave(self, number: int) -> Load | None:
        beside = self._beside.pop(number, None)
        return beside.load if beside is not None else None

    def _put(self, load: Load) -> int:
        self._loads += 1
        if len(self._beside) >= LOADS_LIMIT:
            del self._beside[next(iter(self._beside))]
        self._beside[self._loads] = Beside(load, self.context.now)
        return self._loads

    def stamp(self, line: Line) -> int:
        return self._put(Load(self._place.lives(line.own, line.peer), b""))

    def fits(self, line: Line, load: int) -> bool:
        found = self.leave(load)
        return found is not None and bool(found.stamp) and found.stamp == self._place.lives(line.peer, line.own)

    # --- payloads -----------------------------------------------------------------------------------------------------

    def draw(self, payload: Payload, bits: int) -> None:
        """From the generator of the operating system: a label of such key would say `rng: os`."""
        stamp = self._stamp_of(payload)
        length = bits // BYTE_BITS
        if stamp is None or length > PAYLOAD_LIMIT_BYTES:
            return
        self.discard(payload)
        target = self._scratch_range(length)
        self.context.vault.draw(target)
        self.context.vault.gather(block_of(payload), (target,))
        self.context.vault.wipe(target)
        self._held[payload] = Held(stamp, length, self.context.now)

    def gather(self, payload: Payload, link: Line, units: Taken, bits: int, load: int = 0) -> int | None:
        told = self.leave(load)
        own = payload.source == self.context.node
        stamp = self._stamp_of(payload) if own or payload.part == ONE_LINK else told.stamp if told else None
        ranges = self._ranges(link, units, bits)
        if stamp is None or ranges is None or not self._is_meant(payload, stamp):
            return None
        self.discard(payload)
        self.context.vault.gather(block_of(payload), ranges)
        self._held[payload] = Held(stamp, bits // BYTE_BITS, self.context.now)
        return self._put(Load(stamp, b"")) if own else 0

    def cover(self, payload: Payload, link: Line, pad: Taken, bits: int) -> int | None:
        held, ranges = self._held.get(payload), self._ranges(link, pad, bits)
        if held is None or ranges is None or held.length * BYTE_BITS != bits:
            return None
        return self._put(Load(held.stamp, self.context.vault.cipher(block_of(payload), ranges)))

    def uncover(self, payload: Payload, link: Line, pad: Taken, bits: int, load: int) -> bool:
        told, ranges = self.leave(load), self._ranges(link, pad, bits)
        if told is None or ranges is None or len(told.ciphertext) * BYTE_BITS != bits:
            return False
        if not self._is_meant(payload, told.stamp):
            return False
        self.discard(payload)
        self.context.vault.decipher(block_of(payload), told.ciphertext, ranges)
        self._held[payload] = Held(told.stamp, bits // BYTE_BITS, self.context.now)
        return True

    def keep(self, payload: Payload, load: int) -> None:
        told = self.leave(load)
        if told is not None and self._is_meant(payload, told.stamp):
            self._kept[payload] = Beside(told, self.context.now)

    def join(self, payload: Payload) -> None:
        pad = payload._replace(part=PAD)
        straight, held = self._kept.pop(payload, None), self._held.get(pad)
        if straight is not None and held is not None and len(straight.load.ciphertext) == held.length:
            target = self._scratch_range(held.length)
            vault = self.context.vault
            vault.place(block_of(pad), 0, target)
            vault.decipher(block_of(payload), straight.load.ciphertext, (target,))
            vault.wipe(target)
            self._held[payload] = held
        self.discard(pad)

    def enter(self, payload: Payload, line: Line, run: Run, start: int) -> None:
        held = self._held.get(payload)
        if held is None or not self._is_meant(payload, held.stamp) or not self._place.is_pair(line):
            self.discard(payload)
            self._place.lost(line.peer)
            return
        at = start * run.unit_bits // BYTE_BITS
        self.context.vault.place(block_of(payload), 0, Range(self._run(line.peer, run.owner), at, held.length))
        self.discard(payload)

    def discard(self, payload: Payload) -> None:
        self._kept.pop(payload, None)
        if self._held.pop(payload, None) is not None:
            self.context.vault.discard(block_of(payload))

    def gone(self, line: Line, run: Run, ranges: tuple[Units, ...], letter: str) -> None:
        if line.distant:
            if self._place.is_pair(line):
                self.context.out.wipe += self._pair_ranges(line.peer, run.owner, ranges, run.unit_bits)
            return
        found = self._place.link_ranges(line, run, ranges)
        if found:
            self._place.spent(line, found, letter)

    # --- pairs --------------------------------------------------------------------------------------------------------

    def named(self, line: Line, name: Name) -> tuple[Range, ...]:
        """Where a key of a distant pair lies."""
        run = line.run_of(name.label, name.unit_bits)
        return self._pair_ranges(line.peer, run.owner, name.ranges, run.unit_bits)

    def forget(self, peer: str) -> None:
        """The pair begins anew: nothing of its key is left."""
        for owner in (peer, str(self.context.node)):
            run = self._runs.pop((peer, owner), None)
            if run is not None:
                self.context.out.wipe.append(Range(run, 0, 1 << 62))
        own = self.context.node
        for payload in [*self._held, *self._kept]:
            if payload.part != ONE_LINK and {payload.source, payload.destination} == {peer, own}:
                self.discard(payload)

    def tick(self) -> None:
        now = self.context.now
        for number in [number for number, beside in self._beside.items() if now - beside.since > LOADS_NS]:
            del self._beside[number]
        for payload in [payload for payload, held in self._held.items() if now - held.since > KEPT_NS]:
            self.discard(payload)
        for payload in [payload for payload, beside in self._kept.items() if now - beside.since > KEPT_NS]:
            del self._kept[payload]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _stamp_of(self, payload: Payload) -> bytes | None:
        """For a payload that begins here; None if its pair does not stand."""
        if payload.part == ONE_LINK:
            return b""
        return self._place.lives(payload.source, payload.destination) or None

    def _is_meant(self, payload: Payload, stamp: bytes) -> bool:
        """Whether a payload that ends or begins here is of the pair's present life; others pass it on as it is."""
        if payload.part == ONE_LINK or self.context.node not in (payload.source, payload.destination):
            return True
        return bool(stamp) and stamp == self._place.lives(payload.source, payload.destination)

    def _ranges(self, link: Line, taken: Taken, bits: int) -> tuple[Range, ...] | None:
        """Of so many bits; what the last unit has more is of no use to anybody."""
        length, rest = divmod(bits, BYTE_BITS)
        found = self._place.link_ranges(link, taken.run, taken.ranges)
        if found is None or rest or not 0 < length <= PAYLOAD_LIMIT_BYTES:
            return None
        found = first_bytes(found, length)
        return found if sum(one.length for one in found) == length else None

    def _run(self, peer: str, owner: str) -> RunId:
        run = self._runs.get((peer, owner))
        if run is None:
            run = self._runs[peer, owner] = self._new_run(peer)
        return run

    def _pair_ranges(self, peer: str, owner: str, ranges: tuple[Units, ...], unit_bits: int) -> tuple[Range, ...]:
        run = self._run(peer, owner)
        unit = unit_bits / BYTE_BITS
        return tuple(Range(run, int(start * unit), int((end - start) * unit)) for start, end in ranges if start < end)

    def _new_run(self, peer: str) -> RunId:
        self._next_run += 1
        return RunId(NodeId(peer), self._next_run)

    def _scratch_range(self, length: int) -> Range:
        """Never the same twice: it is wiped before the step ends."""
        self._scratched += length
        return Range(self._scratch, self._scratched - length, length)


def block_of(payload: Payload) -> BlockName:
    return BlockName(NodeId(payload.source), f"design/{payload.destination}/{payload.part}", payload.number)
