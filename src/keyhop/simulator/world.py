"""A deterministic world of nodes: virtual time, connections that break, disks that lag, all from one seed.

The nodes are the real ones. What is pretended is time, the network, the disk and the modules; the vault is the one that
the caller gives. One event heap drives everything, so the same seed gives the same trace.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any, Protocol

from keyhop.core.designs import Design
from keyhop.core.machine import Close, Deliver, Frame, KeepSecret, Notice, Output, Put, Save, Seal, Send
from keyhop.core.model import NANOSECONDS, NodeId, Range
from keyhop.core.node import events
from keyhop.core.node.context import Neighbour, NodeSettings
from keyhop.core.node.node import Node
from keyhop.core.node.recovery import FIRST_CONTACT, FIRST_CONTACT_BYTES
from keyhop.core.node.rows import NodeRow
from keyhop.core.node.store import Store
from keyhop.core.node.vault import BlockName, Identity, Vault
from keyhop.simulator.disk import Image, PretendDisk
from keyhop.simulator.identity import PretendIdentity

MILLISECOND = NANOSECONDS // 1000
LOST = -1
"""An anchor that is gone: the start number jumps by up to `LOST_JUMP`."""
LOST_JUMP = 1000


class WorldVault(Vault, Protocol):
    """What the world needs of a vault beside the core's seam."""

    identity: Identity | None

    def accept(self, block: BlockName, bits: bytearray) -> bool: ...
    def read(self, range: Range) -> bytes: ...
    def recall_secrets(self, names: list[str]) -> None: ...
    def collect(self, saves: list[Save]) -> Callable[[Range], bytes | memoryview]: ...
    def committed(self, saves: list[Save]) -> None: ...


VaultFactory = Callable[[Store, bytes], WorldVault]


@dataclass(frozen=True)
class Timing:
    """Bounds of what the world draws, nanoseconds."""

    delay: tuple[int, int] = (MILLISECOND // 2, 5 * MILLISECOND)
    commit: tuple[int, int] = (MILLISECOND // 5, 4 * MILLISECOND)
    redial: tuple[int, int] = (20 * MILLISECOND, 500 * MILLISECOND)


@dataclass
class Wire:
    """One connection between two processes: both ends number it alike; frames keep their order."""

    id: int
    ends: tuple[str, str]
    lives: dict[str, int]
    """Which incarnation of each process it belongs to."""
    open: bool = True
    last_arrival: dict[str, int] = field(default_factory=dict)
    link: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.link = frozenset(self.ends)


@dataclass
class Answered:
    """What an application got."""

    request: int
    node: str
    deliver: Deliver
    bits: tuple[bytes, ...]
    at: int


class Process:
    """One node with its disk. `life` counts starts; what belongs to an earlier life is dropped when it arrives."""

    def __init__(self, world: World, settings: NodeSettings) -> None:
        self.world = world
        self.name = settings.node
        self.settings = settings
        self.disk = PretendDisk()
        self.anchor = 0
        """The start number outside the store; survives a restore of the store unless a fault takes it along."""
        self.vouch_key = world.random.randbytes(32)
        self.life = 0
        self.alive = False
        self.node: Node
        self.vault: WorldVault
        self.inbox: deque[object] = deque()
        self.committing = 0
        self.skew = 0
        """How far this machine's clock is ahead of the world's, nanoseconds: it may leap forward or stall."""
        self.under_way: list[Output] = []
        """What was stepped and is not yet released: commits that have not returned, and those behind them."""
        self.turn_due = False
        self.wake_due: int | None = None
        self.notices: list[Notice] = []

    def start(self, reason: str = "") -> None:
        world = self.world
        self.life += 1
        self.alive = True
        self.inbox.clear()
        self.under_way.clear()
        self.wake_due = None
        snapshot = self.disk.load()
        stored = max((row.start for row in snapshot.rows if isinstance(row, NodeRow)), default=0)
        restored = reason or ("the store is behind its anchor" if stored < self.anchor else "")
        start = max(self.anchor, stored) + 1
        if self.anchor == LOST and snapshot.rows:
            restored = "the anchor is missing"
            start = stored + world.random.randint(2, LOST_JUMP)
        self.vault = world.vault_factory(self.disk, self.vouch_key)
        self.vault.identity = PretendIdentity(self.name)
        self.vault.recall_secrets(snapshot.secrets)
        self.node = Node(
            self.settings,
            world.design,
            self.vault,
            world.random.randbytes,
            snapshot,
            start=start,
            now=self.clock,
            restored=restored if snapshot.rows else "",
        )
        self.perform(self.node.begin())
        for neighbour in self.settings.neighbours:
            if not snapshot.rows:
                secret = bytearray(world.link_secret(self.name, neighbour.node))
                self.vault.accept(BlockName(neighbour.node, FIRST_CONTACT, 0), secret)
                self.feed(events.SecretLoaded(neighbour.node, neighbour.link, FIRST_CONTACT_BYTES))
            if self.name < neighbour.node:
                world.dial_soon(self.name, neighbour.node)
            else:
                world.dial_soon(neighbour.node, self.name)

    @property
    def clock(self) -> int:
        return self.world.now + self.skew

    def crash(self) -> None:
        """Memory is gone; commits that have not returned are lost or kept as chance has it."""
        self.alive = False
        self.life += 1
        self.disk.crash()
        self.inbox.clear()
        self.world.cut_wires(self.name)

    def feed(self, event: object) -> None:
        self.inbox.append(event)
        if not self.turn_due:
            self.turn_due = True
            self.world.take_turn(self)

    def turn(self, life: int) -> None:
        """Steps all that has come in, as one batch."""
        self.turn_due = False
        inbox, world = self.inbox, self.world
        if life != self.life or not self.alive:
            return
        if not inbox:
            self.perform(Output())
            return
        clock, step = world.now + self.skew, self.node.step
        output = step(inbox.popleft(), clock)
        world.steps += 1
        while inbox:
            output.merge(step(inbox.popleft(), clock))
            world.steps += 1
        self.perform(output)

    def perform(self, output: Output) -> None:
        """One batch: commit, then send, answer, step what the commit brought about, wipe."""
        world, read, wake_at = self.world, self.vault.read, output.wake_at
        answers = [(deliver, tuple([read(range) for range in deliver.ranges])) for deliver in output.answer]
        if output.notice:
            self.notices += output.notice
        self.under_way.append(output)
        for watch in world.on_step:
            watch(self)
        if wake_at is not None and (self.wake_due is None or wake_at < self.wake_due):
            self.wake_due = wake_at
            world.at(wake_at - self.skew, self._wake, self.life, wake_at)
        if not output.save:
            # What an earlier commit carries may stand behind these frames, too: they wait for it.
            if len(self.under_way) == 1:
                self._release(self.life, output, answers)
            else:
                world.at(self.committing, self._release, self.life, output, answers)
            return
        self.node.complete(output)
        bits = self.vault.collect(output.save)
        kept: dict[Range, bytes] = {}

        def freeze(range: Range) -> bytes:
            if range not in kept:
                # Of bytes this makes no copy: that of a weightless vault is always the same.
                kept[range] = bytes(bits(range))
            return kept[range]

        for save in output.save:
            if type(save) is Seal:
                freeze(save.block)
            elif type(save) is KeepSecret:
                freeze(save.source)
        # Commits return in their order.
        begin = max(world.now, self.committing)
        self.committing = begin + world.draw(world.timing.commit)
        world.at(self.committing, self._committed, self.life, output, answers, freeze)

    def _committed(self, life: int, output: Output, answers: list[Any], bits: Callable[[Range], bytes]) -> None:
        if life != self.life:
            return
        world = self.world
        if world.crash_point(self.name, "before commit"):
            return
        self.disk.commit(output.save, bits)
        if world.crash_point(self.name, "after commit"):
            return
        # The store goes first: a crash between the two must not look like a restored store. `complete` has put it last.
        last = output.save[-1]
        assert type(last) is Put
        assert type(last.row) is NodeRow
        if last.row.start > self.anchor:
            self.anchor = last.row.start
        self.vault.committed(output.save)
        self._release(life, output, answers)

    def _release(self, life: int, output: Output, answers: list[Any]) -> None:
        if life != self.life:
            return
        world = self.world
        self.under_way.pop(0)
        if output.send:
            for sending in output.send:
                if type(sending) is Send:
                    world.transmit(self.name, sending)
                elif type(sending) is Close:
                    world.close(self.name, sending.connection)
            if world.crash_point(self.name, "after send"):
                return
        for deliver, bits in answers:
            world.answered(Answered(deliver.request, self.name, deliver, bits, world.now))
        for event in output.after:
            self.feed(event)
        for range in output.wipe:
            self.vault.wipe(range)

    def _wake(self, life: int, due: int) -> None:
        if life != self.life or not self.alive or self.wake_due != due:
            return
        self.wake_due = None
        self.feed(events.Woke())


class World:
    """Nodes, connections and time. Faults are calls on it; a checker is a set of callbacks."""

    def __init__(
        self,
        seed: int,
        settings: list[NodeSettings],
        design: Design,
        vault_factory: VaultFactory,
        timing: Timing | None = None,
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311 a schedule, not a secret
        self.design = design
        self.vault_factory = vault_factory
        self.timing = timing or Timing()
        self.now = NANOSECONDS
        self.steps = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ready: deque[tuple[int, Process, int]] = deque()
        """Entries of the queue that are due at once, as most are: (sequence, process, life) of turns, in order."""
        self._sequence = 0
        self.entries = 0
        """Of the queue that were due and done: messages, turns of nodes, commits, awakenings, what a run plans."""
        self._next_wire = 0
        self._next_request = 0
        self.wires: dict[int, Wire] = {}
        """Those that are open."""
        self._wired: Counter[frozenset[str]] = Counter()
        """How many of them a link has."""
        self.cuts: set[frozenset[str]] = set()
        """Links that carry nothing now."""
        self._secrets: dict[frozenset[str], bytes] = {}
        self.crash_rate = 0.0
        """Chance of a crash at each point between commit, send and answer."""
        self.restart_after: tuple[int, int] = (10 * MILLISECOND, 2 * NANOSECONDS)
        self.on_answer: list[Callable[[Answered], None]] = []
        self.on_frame: list[Callable[[str, str, Frame], None]] = []
        self.on_step: list[Callable[[Process], None]] = []
        self.on_crash: list[Callable[[str], None]] = []
        self.tamper: Callable[[str, str, Frame], list[Frame]] | None = None
        """What arrives in place of a frame; None: the frame."""
        self.frames = 0
        """That were sent and not cut off."""
        self.processes: dict[str, Process] = {s.node: Process(self, s) for s in settings}
        self._dialling: set[frozenset[str]] = set()

    # --- time ---------------------------------------------------------------------------------------------------------

    def at(self, due: int, call: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heappush(self._heap, (due if due > self.now else self.now, self._sequence, call, arguments))

    def take_turn(self, process: Process) -> None:
        """At once, after all that was to be done at once before."""
        self._sequence += 1
        self._ready.append((self._sequence, process, process.life))

    def in_order(self, moments: Sequence[int], call: Callable[[int], None]) -> None:
        """`call(index)` at each of these; the heap holds only the next one of them, and so stays small."""
        order: Sequence[int] = range(len(moments))
        if any(earlier > later for earlier, later in pairwise(moments)):
            order = sorted(order, key=moments.__getitem__)
        first = self._sequence + 1
        self._sequence += len(moments)
        self._next_of(((moments[index], first + index, index) for index in order), call)

    def _next_of(self, entries: Iterator[tuple[int, int, int]], call: Callable[[int], None]) -> None:
        entry = next(entries, None)
        if entry is not None:
            due, sequence, index = entry
            heappush(self._heap, (due, sequence, self._one_of, (entries, call, index)))

    def _one_of(self, entries: Iterator[tuple[int, int, int]], call: Callable[[int], None], index: int) -> None:
        self._next_of(entries, call)
        call(index)

    def draw(self, bounds: tuple[int, int]) -> int:
        low, high = bounds
        return low if low == high else self.random.randint(low, high)

    def run(self, until: int) -> None:
        """Runs all that is due up to `until` (nanoseconds)."""
        heap, ready, entries = self._heap, self._ready, 0
        while True:
            entries += 1
            if ready:
                # What is due now and was planned before the turn goes before it.
                if heap and heap[0][0] == self.now and heap[0][1] < ready[0][0]:
                    _, _, call, arguments = heappop(heap)
                    call(*arguments)
                else:
                    _, process, life = ready.popleft()
                    process.turn(life)
            elif heap and heap[0][0] <= until:
                self.now, _, call, arguments = heappop(heap)
                call(*arguments)
            else:
                break
        self.entries += entries - 1
        self.now = max(self.now, until)

    def start(self) -> None:
        for process in self.processes.values():
            process.start()

    # --- network ------------------------------------------------------------------------------------------------------

    def link_secret(self, a: str, b: str) -> bytes:
        key = frozenset((a, b))
        if key not in self._secrets:
            self._secrets[key] = self.random.randbytes(FIRST_CONTACT_BYTES)
        return self._secrets[key]

    def dial_soon(self, a: str, b: str) -> None:
        key = frozenset((a, b))
        if key not in self._dialling:
            self._dialling.add(key)
            self.at(self.now + self.draw(self.timing.redial), self._dial, a, b)

    def _dial(self, a: str, b: str) -> None:
        key = frozenset((a, b))
        self._dialling.discard(key)
        here, there = self.processes[NodeId(a)], self.processes[NodeId(b)]
        if self._wired[key]:
            return
        if not here.alive or not there.alive or key in self.cuts:
            if here.alive or there.alive:
                self.dial_soon(a, b)
            return
        self.connect(a, b)

    def connect(self, a: str, b: str) -> None:
        """A connection between two nodes that are alive, beside any that they have."""
        here, there = self.processes[NodeId(a)], self.processes[NodeId(b)]
        self._next_wire += 1
        wire = Wire(self._next_wire, (a, b), {a: here.life, b: there.life})
        self.wires[wire.id] = wire
        self._wired[wire.link] += 1
        here.feed(events.PeerConnected(b, wire.id))
        there.feed(events.PeerConnected(a, wire.id))

    def transmit(self, sender: str, send: Send) -> None:
        wire, peer = self.wires.get(send.connection), send.peer
        if wire is None or not wire.open or (self.cuts and wire.link in self.cuts):
            return
        self.frames += 1
        for watch in self.on_frame:
            watch(sender, peer, send.frame)
        for frame in (send.frame,) if self.tamper is None else self.tamper(sender, peer, send.frame):
            due = max(self.now + self.draw(self.timing.delay), wire.last_arrival.get(peer, 0))
            wire.last_arrival[peer] = due
            self.at(due, self._arrive, wire, sender, peer, frame)

    def _arrive(self, wire: Wire, sender: str, receiver: str, frame: Frame) -> None:
        process = self.processes[receiver]
        if wire.open and process.alive and process.life == wire.lives[receiver]:
            process.feed(events.FrameArrived(sender, wire.id, frame))

    def close(self, by: str, connection: int) -> None:
        wire = self.wires.pop(connection, None)
        if wire is None:
            return
        wire.open = False
        self._wired[wire.link] -= 1
        for end, life in wire.lives.items():
            other = wire.ends[1 - wire.ends.index(end)]
            if end != by:
                self.at(self.now + self.draw(self.timing.delay), self._lost, end, life, other, wire.id)
        self.dial_soon(*wire.ends)

    def _lost(self, end: str, life: int, other: str, connection: int) -> None:
        process = self.processes[NodeId(end)]
        if process.alive and process.life == life:
            process.feed(events.PeerLost(other, connection))

    def break_wire(self, wire: Wire) -> None:
        """The connection ends at both ends, with what was under way lost."""
        self.close("", wire.id)

    def cut_wires(self, name: str) -> None:
        for wire in list(self.wires.values()):
            if name in wire.ends:
                self.close(name, wire.id)

    def cut(self, a: str, b: str) -> None:
        self.cuts.add(frozenset((a, b)))
        for wire in list(self.wires.values()):
            if wire.link == frozenset((a, b)):
                self.break_wire(wire)

    def mend(self, a: str, b: str) -> None:
        self.cuts.discard(frozenset((a, b)))
        self.dial_soon(*sorted((a, b)))

    # --- faults -------------------------------------------------------------------------------------------------------

    def crash_point(self, name: str, where: str) -> bool:
        if self.crash_rate and self.random.random() < self.crash_rate:
            self.crash(name)
            return True
        return False

    def crash(
        self, name: str, image: Image | None = None, *, anchor_too: bool = False, anchor_lost: bool = False
    ) -> None:
        """The process dies; it starts again after a while, from its disk or from the old copy given."""
        process = self.processes[NodeId(name)]
        if not process.alive:
            return
        process.crash()
        for watch in self.on_crash:
            watch(name)
        self.at(
            self.now + self.draw(self.restart_after), self._restart, name, process.life, image, anchor_too, anchor_lost
        )

    def _restart(self, name: str, life: int, image: Image | None, anchor_too: bool, anchor_lost: bool) -> None:
        process = self.processes[NodeId(name)]
        if process.life != life or process.alive:
            return
        if image is not None:
            process.disk.put_back(image)
            if anchor_too:
                process.anchor = max((row.start for row in image.rows.values() if isinstance(row, NodeRow)), default=0)
        if anchor_lost:
            process.anchor = LOST
        process.start()

    # --- applications and modules -------------------------------------------------------------------------------------

    def request(self) -> int:
        self._next_request += 1
        return self._next_request

    def deliver_block(self, node: str, peer: str, module: str, number: int, bits: bytes) -> None:
        process = self.processes[NodeId(node)]
        if process.alive:
            name = BlockName(NodeId(peer), module, number)
            if process.vault.length(name) is None and process.vault.accept(name, bytearray(bits)):
                process.feed(events.BlockArrived(peer, module, number, len(bits)))

    def answered(self, answered: Answered) -> None:
        for watch in self.on_answer:
            watch(answered)


def chain(names: list[str], link_of: Callable[[str, str], bytes]) -> dict[str, tuple[Neighbour, ...]]:
    """Neighbours of nodes in a line."""
    found: dict[str, tuple[Neighbour, ...]] = {}
    for index, name in enumerate(names):
        around = [names[i] for i in (index - 1, index + 1) if 0 <= i < len(names)]
        found[name] = tuple(
            Neighbour(node=NodeId(peer), link=link_of(name, peer), segment_bytes=1024) for peer in around
        )
    return found
