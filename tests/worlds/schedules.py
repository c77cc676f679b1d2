"""A schedule: from one number a network, what its modules and applications do, and everything that goes wrong."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Frame
from keyhop.core.messages import FrameType, Grant, decode
from keyhop.core.model import NANOSECONDS, AppId, NodeId, PeerError, RequestError, RunKind, run_number
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.simulator.disk import Image
from keyhop.simulator.world import MILLISECOND, Answered, World

from .checker import Checker, Fetch, Issued, LocalFetch, Violation, Wanted, WatchingVault

MODULE = "module"
FAULTS_BEGIN_NS = 2 * NANOSECONDS
"""By then the first-contact secrets are loaded and, where nothing is in the way, the links are open."""
HEALED_NS = 24 * NANOSECONDS
"""Bound of I13: a silent connection is given up after 15 to 20 s, redialled within 0.5 s and opened in some ms."""
TAIL_NS = 3 * NANOSECONDS
FETCHED_NS = 150 * NANOSECONDS
"""Distant pairs try their openings again after up to 64 s; some must find their way first."""
ROUNDS = 5
TICK_NS = 100 * MILLISECOND
SHAPES: dict[str, Callable[[int], list[tuple[int, int]]]] = {
    "line": lambda count: [(i, i + 1) for i in range(count - 1)],
    "ring": lambda count: [(i, (i + 1) % count) for i in range(count)] if count > 2 else [(0, 1)],
    "star": lambda count: [(0, i) for i in range(1, count)],
}
NAMES = "abcdef"


@dataclass
class Plan:
    """What this schedule draws, so that it can be printed; chances are per tenth of a second unless said otherwise."""

    nodes: int
    shape: str
    length_ns: int
    block_gap_ns: int
    block_bytes: tuple[int, int]
    fetch_lifetime_ns: int
    block_lifetime_ns: int
    stock_limit_bytes: int
    segment_bytes: int
    full_store: str
    idle_store_ns: int
    requests: float
    """enc_keys per tenth of a second."""
    faults: dict[str, float] = field(default_factory=dict)


FAULTS = {
    "break": 0.08,
    "cut": 0.04,
    "crash": 0.03,
    "crash_point": 0.003,
    "restore": 0.03,
    "tamper": 0.015,
    "second_connection": 0.05,
    "clock": 0.04,
    "one_sided": 0.1,
    "flipped": 0.1,
    "late": 0.2,
    "repeated": 0.1,
}
"""Chances at their highest. Each schedule leaves some out altogether: a fault can hide what another one would show."""


FOLLOWING = 0.3
"""Chance that the sizes of segments follow what is asked."""
FULL_STORE_BYTES = 12_288
"""A store that is soon full."""
FULL_STORES = ("stop", "stop", "drop_new", "replace_oldest", "replace_oldest")


def draw_plan(rng: random.Random, full_store: str, nodes: int | None = None, shape: str | None = None) -> Plan:
    # Two ends show most; what relay adds needs three, and costs as much more.
    count = nodes or rng.choices((2, 3, 4, 5, 6), (80, 10, 5, 3, 2))[0]
    faults = {name: high * rng.uniform(0.2, 1.0) for name, high in FAULTS.items() if rng.random() < 0.5}
    return Plan(
        nodes=count,
        shape=shape or rng.choice(list(SHAPES)),
        length_ns=rng.randint(3, 8) * NANOSECONDS,
        block_gap_ns=rng.randint(100, 500) * MILLISECOND,
        block_bytes=(1024, rng.choice((3000, 8192))),
        fetch_lifetime_ns=rng.choice((24 * 3600, 24 * 3600, 5)) * NANOSECONDS,
        block_lifetime_ns=rng.choice((30 * 24 * 3600, 30 * 24 * 3600, 5)) * NANOSECONDS,
        stock_limit_bytes=rng.choice((1 << 20, 32768)),
        segment_bytes=rng.choice((1024, 1024, 2048)),
        full_store=full_store,
        idle_store_ns=200 * MILLISECOND,
        requests=rng.uniform(0.2, 3.0),
        faults=faults,
    )


class Schedule:
    """One world with its checker, run by `run`; raises Violation, or whatever the nodes raise."""

    def __init__(
        self, seed: int, *, nodes: int | None = None, shape: str | None = None, full_store: str | None = None
    ) -> None:
        self.rng = random.Random(f"schedule {seed}")
        self._anchors = random.Random(f"anchors {seed}")
        wanted = full_store or random.Random(f"full store {seed}").choice(FULL_STORES)
        self.plan = draw_plan(self.rng, wanted, nodes, shape)
        if wanted != "stop":
            self.plan = replace(self.plan, stock_limit_bytes=FULL_STORE_BYTES)
        if full_store is None and random.Random(f"segments {seed}").random() < FOLLOWING:
            self.plan = replace(self.plan, segment_bytes=0)
        self.log: list[str] | None = None
        self.links = [
            (min(NAMES[i], NAMES[j]), max(NAMES[i], NAMES[j])) for i, j in SHAPES[self.plan.shape](self.plan.nodes)
        ]
        design = DESIGNS["keyhop"]
        design = replace(design, disposal=replace(design.disposal, full_store=self.plan.full_store))
        self.world = World(seed, self._settings(), design, WatchingVault)
        self.checker = Checker(self.world)
        self.world.on_answer.append(self._answered)
        self._blocks: dict[tuple[str, str], int] = {}
        self._wanted: dict[int, Wanted] = {}
        self._copies: dict[str, list[tuple[int, Image]]] = {}
        self._held: dict[tuple[str, str], list[Frame]] = {}
        self._recorded: dict[tuple[str, str], list[Frame]] = {}
        self._tampered: set[frozenset[str]] = set()
        self._calm = True
        self._ends_at = 0

    # --- the network -------------------------------------------------------------------------------------------------

    def _settings(self) -> list[NodeSettings]:
        plan = self.plan
        names = NAMES[: plan.nodes]
        everyone = {f"{name}{i}": name for name in names for i in (1, 2)}
        settings = []
        for name in names:
            around = sorted({b if a == name else a for a, b in self.links if name in (a, b)})
            applications = tuple(
                Application(id=AppId(f"{name}{i}"), peers=frozenset(AppId(x) for x in everyone if x != f"{name}{i}"))
                for i in (1, 2)
            )
            settings.append(
                NodeSettings(
                    node=NodeId(name),
                    neighbours=tuple(
                        Neighbour(
                            node=NodeId(peer),
                            link="".join(sorted(name + peer)).encode() * 8,
                            segment_bytes=plan.segment_bytes,
                        )
                        for peer in around
                    ),
                    applications=applications,
                    directory={AppId(app): NodeId(node) for app, node in everyone.items()},
                    fetch_lifetime_ns=plan.fetch_lifetime_ns,
                    block_lifetime_ns=plan.block_lifetime_ns,
                    stock_limit_bytes=plan.stock_limit_bytes,
                    idle_store_ns=plan.idle_store_ns,
                )
            )
        return settings

    def say(self, text: str) -> None:
        if self.log is not None:
            self.log.append(f"{self.world.now / NANOSECONDS:10.4f} {text}")

    def has(self, fault: str, times: float = 1.0) -> bool:
        """Whether this fault happens now."""
        chance = self.plan.faults.get(fault, 0.0)
        return not self._calm and chance > 0 and self.rng.random() < chance * times

    # --- the course of it --------------------------------------------------------------------------------------------

    def run(self) -> None:
        world, plan = self.world, self.plan
        world.tamper = self._tamper
        world.start()
        self._ends_at = world.now + FAULTS_BEGIN_NS + plan.length_ns
        for a, b in self.links:
            world.at(world.now + self.rng.randint(0, plan.block_gap_ns), self._block, a, b)
        world.at(world.now + FAULTS_BEGIN_NS, self._storm)
        world.at(world.now + TICK_NS, self._tick)
        world.run(self._ends_at)
        self._heal()
        if not self._until(self._all_open, HEALED_NS):
            raise Violation(
                "I13", f"links {self._shut()} are not open {HEALED_NS / NANOSECONDS} s after the last fault"
            )
        self._supply_again()

    def _storm(self) -> None:
        self._calm = False
        self.world.crash_rate = self.plan.faults.get("crash_point", 0.0)

    def _heal(self) -> None:
        """Faults stop; what a fault left half done is the nodes' to mend, but for connections that lost a frame."""
        world = self.world
        self.say("healed")
        self._calm = True
        world.crash_rate = 0.0
        self._held.clear()
        for cut in list(world.cuts):
            world.mend(*sorted(cut))
        for wire in list(world.wires.values()):
            if frozenset(wire.ends) in self._tampered:
                # TCP loses no frame and goes on: such a connection exists in this world alone.
                world.break_wire(wire)

    def _tick(self) -> None:
        if self.world.now >= self._ends_at:
            return
        self.world.at(self.world.now + TICK_NS, self._tick)
        rng, plan = self.rng, self.plan
        for _ in range(int(plan.requests) + (rng.random() < plan.requests % 1)):
            self.world.at(self.world.now + rng.randint(0, TICK_NS), self._ask)
        if rng.random() < 0.3:
            self.world.at(self.world.now + rng.randint(0, TICK_NS), self._odd_fetch)
        if rng.random() < 0.2:
            self._copy(rng.choice(NAMES[: plan.nodes]))
        for fault, act in (
            ("break", self._break), ("cut", self._cut), ("crash", self._crash), ("restore", self._restore),
            ("second_connection", self._second_connection), ("clock", self._clock),
        ):  # fmt: skip
            if self.has(fault):
                self.world.at(self.world.now + rng.randint(0, TICK_NS), act)

    # --- modules -----------------------------------------------------------------------------------------------------

    def _block(self, a: str, b: str) -> None:
        """A module delivers a block at both ends: at most nearly at once, mostly in order, seldom damaged."""
        if self.world.now >= self._ends_at:
            return
        rng, plan = self.rng, self.plan
        self.world.at(self.world.now + rng.randint(plan.block_gap_ns // 2, 2 * plan.block_gap_ns), self._block, a, b)
        self.deliver_block(a, b, self._number(a, b), rng.randbytes(rng.randint(*plan.block_bytes)))

    def _number(self, a: str, b: str) -> int:
        self._blocks[a, b] = self._blocks.get((a, b), -1) + 1
        return self._blocks[a, b]

    def deliver_block(self, a: str, b: str, number: int, bits: bytes) -> None:
        rng = self.rng
        ends = [(a, b), (b, a)]
        if self.has("one_sided"):
            ends.pop(rng.randint(0, 1))
        for node, peer in ends:
            here = bits
            if self.has("flipped", 0.5):
                at = rng.randrange(len(bits))
                here = bits[:at] + bytes([bits[at] ^ 1 << rng.randint(0, 7)]) + bits[at + 1 :]
            due = self.world.now + rng.randint(0, 20 * MILLISECOND)
            if self.has("late", 0.5):
                due += rng.choice((1, 1, 4, 40)) * rng.randint(0, NANOSECONDS)
            self.world.at(due, self.world.deliver_block, node, peer, MODULE, number, here)
            if self.has("repeated", 0.5):
                again = due + rng.randint(0, 3 * NANOSECONDS)
                self.world.at(again, self.world.deliver_block, node, peer, MODULE, number, here)

    # --- applications ------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        rng = self.rng
        node = rng.choice(NAMES[: self.plan.nodes])
        master = f"{node}{rng.randint(1, 2)}"
        slave = f"{rng.choice(NAMES[: self.plan.nodes])}{rng.randint(1, 2)}"
        number = rng.choice((1, 1, 1, 2, 5))
        size_bits = 8 * rng.choice((8, 16, 32, 32, 32, 33, 128, 1000))
        if rng.random() < 0.02:
            slave = "nobody"
        if slave != master:
            self.ask(node, master, slave, number, size_bits)

    def ask(self, node: str, master: str, slave: str, number: int, size_bits: int) -> int | None:
        process = self.world.processes[NodeId(node)]
        if not process.alive:
            return None
        request = self.world.request()
        self.checker.asked[request] = self._wanted[request] = Wanted(node, master, slave, number, size_bits // 8)
        process.feed(events.KeysWanted(request, master, slave, number, size_bits))
        return request

    def _answered(self, answer: Answered) -> None:
        """The slave asks for what the master was given: soon, later, at the end, or twice."""
        wanted = self._wanted.pop(answer.request, None)
        if wanted is None or answer.deliver.refusal is not None:
            return
        rng, world = self.rng, self.world
        if answer.deliver.ids:
            fetch = LocalFetch(wanted.node, answer.deliver.ids)
            world.at(world.now + rng.randint(0, NANOSECONDS), self._fetch_local, fetch, wanted.slave, wanted.master)
            return
        issued = [
            self.checker.issued[wanted.node, range.run.peer, range.start]
            for range in answer.deliver.ranges
            if (wanted.node, range.run.peer, range.start) in self.checker.issued
        ]
        if not issued or rng.random() < 0.25:
            return
        delay = rng.choice((300 * MILLISECOND, 300 * MILLISECOND, 3 * NANOSECONDS))
        world.at(world.now + rng.randint(0, delay), self.fetch, issued)
        if rng.random() < 0.2:
            world.at(world.now + rng.randint(0, delay), self.fetch, issued[-1:])

    def fetch(self, issued: list[Issued]) -> None:
        first = issued[0]
        process = self.world.processes[NodeId(first.follower)]
        if not process.alive or not all(self.checker.opens(key) for key in issued):
            return
        keys = tuple((key.run, key.start, key.length) for key in issued)
        self._send_fetch(first.follower, first.owner, keys)

    def _send_fetch(self, node: str, peer: str, keys: tuple[tuple[int, int, int], ...]) -> int:
        request = self.world.request()
        self.checker.asked[request] = Fetch(node, peer, keys)
        coordinates = tuple(events.Coordinates(*key) for key in keys)
        event = events.KeysFetched(peer, [events.Fetch(request, coordinates)])
        self.world.processes[NodeId(node)].feed(event)
        return request

    def _fetch_local(self, fetch: LocalFetch, slave: str, master: str) -> None:
        process = self.world.processes[NodeId(fetch.node)]
        if process.alive:
            request = self.world.request()
            self.checker.asked[request] = fetch
            process.feed(events.RecordsFetched(request, slave, master, fetch.ids))

    def _odd_fetch(self) -> None:
        """What nobody was given: outside leases, of the other direction, of another run, twice in one request."""
        rng = self.rng
        node, peer = rng.sample(NAMES[: self.plan.nodes], 2)
        process = self.world.processes[NodeId(node)]
        if not process.alive or peer not in process.node.context.pairs:
            return
        pair = process.node.context.pairs[NodeId(peer)]
        theirs = run_number(RunKind.KEY, NodeId(peer), NodeId(node))
        keys = [key for key in self.checker.issued.values() if key.owner == peer and key.follower == node]
        odd: list[tuple[int, int, int]] = []
        match rng.randint(0, 5):
            case 0:
                odd = [(theirs, rng.randrange(1 << 20, 1 << 33), 32)]
            case 1:
                untouched = [s for s in pair.their_key.segments.values() if s.mark == "untouched"]
                odd = [(theirs, segment.start + 32, 32) for segment in untouched[:1]]
            case 2:
                own = run_number(RunKind.KEY, NodeId(node), NodeId(peer))
                odd = [(own, key.start, key.length) for key in keys[-1:]]
            case 3:
                odd = [(rng.randint(2, 9), key.start, key.length) for key in keys[-1:]]
            case 4:
                odd = [(key.run, key.start, key.length) for key in keys[-1:]] * 2
            case 5:
                # An end that was restored unseen knows nothing of the fetch.
                fetched = [
                    key for key in keys if key.fetched_at and key.length >= 16 and node not in self.checker.restores
                ]
                odd = [(key.run, key.start + 1, 8) for key in fetched[-1:]]
        if odd:
            self._send_fetch(node, peer, tuple(odd))

    # --- faults ------------------------------------------------------------------------------------------------------

    def _break(self) -> None:
        wires = list(self.world.wires.values())
        if wires:
            wire = self.rng.choice(wires)
            self.say(f"connection {wire.id} {wire.ends} breaks")
            self.world.break_wire(wire)

    def _cut(self) -> None:
        a, b = self.rng.choice(self.links)
        self.say(f"link {a}-{b} is cut")
        self.world.cut(a, b)
        self.world.at(self.world.now + self.rng.randint(0, 3 * NANOSECONDS), self.world.mend, a, b)

    def _crash(self) -> None:
        node = self.rng.choice(NAMES[: self.plan.nodes])
        self.say(f"{node} crashes")
        self.world.crash(node)

    def _copy(self, node: str) -> None:
        process = self.world.processes[NodeId(node)]
        if len(process.disk.image.blocks) >= 4:
            self._copies.setdefault(node, []).append((self.world.now, process.disk.keep_copy()))

    def _restore(self) -> None:
        """An old copy of one end; of the same end perhaps twice, with the anchor of today, its own, or none."""
        rng = self.rng
        node = rng.choice(NAMES[: self.plan.nodes])
        copies = self._copies.get(node)
        if not copies:
            return
        self.restore(node, *rng.choice(copies), anchor_too=rng.random() < 0.4)
        if rng.random() < 0.3:
            later = self.world.now + rng.randint(0, 4 * NANOSECONDS)
            self.world.at(later, self.restore, node, *rng.choice(copies), rng.random() < 0.4)

    def restore(self, node: str, copied_at: int, image: Image, anchor_too: bool) -> None:
        process = self.world.processes[NodeId(node)]
        # All ends at once cannot be noticed (reliability, I7): while one has not met its peers, the others are spared.
        if not process.alive or not self.checker.is_settled(node) or self._calm:
            return
        anchor_lost = self._anchors.random() < 0.2
        self.say(f"{node} is restored to its copy of {copied_at / NANOSECONDS:.4f}, {anchor_too=}, {anchor_lost=}")
        self.checker.restored(node, copied_at, image)
        self.world.crash(node, image, anchor_too=anchor_too, anchor_lost=anchor_lost)

    def _second_connection(self) -> None:
        a, b = self.rng.choice(self.links)
        here, there = self.world.processes[NodeId(a)], self.world.processes[NodeId(b)]
        if here.alive and there.alive and frozenset((a, b)) not in self.world.cuts:
            self.say(f"a second connection {a}-{b}")
            self.world.connect(a, b)

    def _clock(self) -> None:
        """A machine's clock leaps forward, or stands still for a while."""
        rng = self.rng
        process = self.world.processes[NodeId(rng.choice(NAMES[: self.plan.nodes]))]
        step = rng.choice((-NANOSECONDS, 3 * NANOSECONDS, 60 * NANOSECONDS, 3600 * NANOSECONDS))
        self.say(f"the clock of {process.name} leaps by {step / NANOSECONDS} s")
        process.skew += step
        if process.alive:
            process.feed(events.Woke())

    def _tamper(self, sender: str, receiver: str, frame: Frame) -> list[Frame]:
        """Somebody inside the connection drops, repeats, reorders, changes and replays."""
        way = (sender, receiver)
        frames = [frame, *self._held.pop(way, [])]
        recorded = self._recorded.setdefault(way, [])
        if "tamper" in self.plan.faults and len(recorded) < 64:
            recorded.append(frame)
        if not self.has("tamper"):
            return frames
        self._tampered.add(frozenset(way))
        kind = self.rng.randint(0, 4)
        self.say(f"tamper {kind} {sender}>{receiver} frame {frame.type} at {frame.position}")
        match kind:
            case 0:
                return frames[1:]
            case 1:
                return [*frames, frame]
            case 2:
                self._held[way] = [frame]
                return frames[1:]
            case 3:
                return [self._forged(way, self._flip(frame)), *frames[1:]]
            case _:
                return [*frames, self._forged(way, self.rng.choice(recorded))]

    def _forged(self, way: tuple[str, str], frame: Frame) -> Frame:
        """The checker is told which grants the follower never made, or not in this connection."""
        if frame.type == FrameType.GRANT:
            with contextlib.suppress(PeerError):
                grant = decode(frame.type, frame.payload)
                assert isinstance(grant, Grant)
                self.checker.forged.add((way[1], way[0], grant.position))
        return frame

    def _flip(self, frame: Frame) -> Frame:
        rng = self.rng
        what: dict[str, Any] = {}
        which = rng.choice(("payload", "tag", "position"))
        if which == "position" or not getattr(frame, which):
            what["position"] = frame.position ^ 1 << rng.randint(0, 12)
        else:
            value = bytearray(getattr(frame, which))
            value[rng.randrange(len(value))] ^= 1 << rng.randint(0, 7)
            what[which] = bytes(value)
        return msgspec.structs.replace(frame, **what)

    # --- afterwards: I13, and I3 for all that is outstanding ---------------------------------------------------------

    def _until(self, done: Callable[[], bool], bound_ns: int) -> bool:
        """Runs the world until this is so, at most so long."""
        limit = self.world.now + bound_ns
        while not done():
            if self.world.now >= limit:
                return False
            self.world.run(self.world.now + NANOSECONDS // 4)
        return True

    def _all_open(self) -> bool:
        return not self._shut()

    def _shut(self) -> list[tuple[str, str]]:
        """Directed links that are not open."""
        shut = []
        for node, peer in (way for a, b in self.links for way in ((a, b), (b, a))):
            process = self.world.processes[NodeId(node)]
            if not process.alive or not process.node.context.pairs[NodeId(peer)].is_open:
                shut.append((node, peer))
        return shut

    def _supply_again(self) -> None:
        """With fresh blocks every link supplies in both directions; what relay takes first comes to an end."""
        answers: dict[int, Answered] = {}
        self.world.on_answer.append(lambda answer: answers.update({answer.request: answer}))
        ways = [way for a, b in self.links for way in ((a, b), (b, a))]
        refused: dict[tuple[str, str], RequestError] = {}
        for _ in range(ROUNDS):
            refused = self._supply_round(ways, answers)
            ways = list(refused)
            if not ways:
                break
        if refused:
            raise Violation("I13", f"with fresh key enc_keys is still refused: {refused}")
        limit = self.world.now + FETCHED_NS
        while due := [key for key in self.checker.issued.values() if self.checker.is_due(key)]:
            if self.world.now >= limit:
                raise Violation("I3", f"{due} cannot be fetched {FETCHED_NS / NANOSECONDS} s after all faults")
            # A distant pair that lost its tag keys needs key on the way to be compared.
            for a, b in self.links:
                self.deliver_block(a, b, self._number(a, b), self.rng.randbytes(6000))
            for key in due:
                self.fetch([key])
            self._until(lambda: not self.checker.asked, TAIL_NS)
            self.world.run(self.world.now + NANOSECONDS)

    def _supply_round(
        self, ways: list[tuple[str, str]], answers: dict[int, Answered]
    ) -> dict[tuple[str, str], RequestError]:
        """Key for these directed links, and one request over each: those that are refused, and how."""
        world, rng = self.world, self.rng
        for a, b in sorted({(min(way), max(way)) for way in ways}):
            for _ in range(6):
                self.deliver_block(a, b, self._number(a, b), rng.randbytes(6000))
        world.run(world.now + NANOSECONDS)
        requests = {way: self.ask(way[0], f"{way[0]}1", f"{way[1]}1", 1, 256) for way in ways}
        self._until(lambda: not self.checker.asked, TAIL_NS)
        refusals = {}
        for (node, peer), request in requests.items():
            assert request is not None
            if request not in answers:
                raise Violation("I13", f"enc_keys at {node} for {peer} is not answered")
            refusal = answers[request].deliver.refusal
            if refusal is not None:
                refusals[node, peer] = refusal
            elif not world.processes[NodeId(node)].node.secrets.confirmed.get(peer):
                # It comes with the first lease: who is refused for lack of key has had none yet.
                raise Violation("I13", f"{node} has no secret that seals key IDs for {peer}")
        return refusals
