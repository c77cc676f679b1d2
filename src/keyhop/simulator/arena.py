"""A network of one design in virtual time: modules, demands and faults in, outcomes and books out. No bits."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from typing import Any

from keyhop.core.composed.line import Line, LineSettings
from keyhop.core.composed.network import Network
from keyhop.core.composed.nouns.messages import (
    Answered,
    BlockArrived,
    KeyAsked,
    KeyFetched,
    KxArrived,
    Moves,
    Name,
    Restarted,
    StreamClosed,
    StreamOpened,
    StreamRetuned,
    Woke,
)
from keyhop.core.composed.nouns.tags import aside_share
from keyhop.core.composed.nouns.units import Units
from keyhop.core.composed.site import Site
from keyhop.core.composed.stock.working_sets import COLLIDED
from keyhop.core.composed.talk.conversation import TAG_BITS
from keyhop.core.designs import Design
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.routing import Edge
from keyhop.core.policy.storage import FixedBlock
from keyhop.simulator.blocks import deliveries
from keyhop.simulator.collecting import seldom
from keyhop.simulator.damage import Damage
from keyhop.simulator.record import Demand, EndBook, Fault, Record, Scenario, Stream, Trouble, Verdict
from keyhop.simulator.trials import Trial, Trials

DELAY_NS = 10_000_000
"""One way between neighbours, for key managers and for applications (W6)."""
SAMPLE_NS = NANOSECONDS
RETRY_NS = 100_000_000
"""The longest wait of an application whose key had been given away at the other end, too (K). Without a draw both
ends would come again as far apart as before, and collide again."""


class Unbalanced(AssertionError):
    """A design that cannot balance is wrong, whatever else it does."""


class Ask(Trial):
    """One demand on its way."""

    __slots__ = ("name",)

    def __init__(self, demand: Demand) -> None:
        super().__init__(demand)
        self.name: Name | None = None


class Arena:
    """Sites of one design on a network of links (node pair -> rate in bit/s), fed with one scenario."""

    def __init__(
        self,
        design: Design,
        links: dict[frozenset[str], int],
        scenario: Scenario,
        *,
        seed: int,
        delay_ns: int = DELAY_NS,
        line_settings: Callable[[str, str, int, bool], LineSettings] | None = None,
    ) -> None:
        self.design = design
        self.links = links
        self.scenario = scenario
        self.delay_ns = delay_ns
        self.now = 0
        self.events = 0
        self._blocks = {link: deliveries(link, rate, seed, scenario.block_ns) for link, rate in links.items()}
        self._losses = random.Random(f"losses {seed}")  # noqa: S311
        self._choices = random.Random(f"choices {seed}")  # noqa: S311
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._demands: Iterator[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = iter(())
        self._wakes: dict[str, int] = {}
        self._line_settings = line_settings or self._settings
        names = sorted({node for link in links for node in link})
        self.network = Network(links)
        self.sites = {
            name: Site(name, design, self.network, self._choices.random, self._line_settings) for name in names
        }
        self.trials = Trials(scenario.demands, Ask)
        self.attempts: dict[int, int] = {}
        """Request of an attempt -> number of the demand."""
        self._requests = 0
        self.stamps = dict.fromkeys(links, 0)
        self.numbers = dict.fromkeys(links, 0)
        self.stopped: dict[frozenset[str], int] = {}
        self.lost_share = 0.0
        self.lose_block: dict[frozenset[str], str] = {}
        """Link -> the end that does not get the next block."""
        self.damage = Damage()
        for site in self.sites.values():
            site.digest = self.damage.digest
        self.down: set[str] = set()
        self.serves = 0
        self._collided: set[tuple[str, str, str, tuple[Units, ...]]] = set()
        """Both who took such a key come to hear of it."""
        self.stock_bit_ns = self.reserved_bit_ns = self.exposed_bit_ns = 0
        self.peak_bytes = 0

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, seconds: float, tell: Callable[[float], None] | None = None) -> Record:
        """Raises Unbalanced if a book does not close. `tell` hears once a simulated second which part is done."""
        end = int(seconds * NANOSECONDS)
        for link in sorted(self.links, key=sorted):
            self._next_block(link)
        for stream in self.scenario.streams:
            self.at(stream.starts_ns, self._open, stream)
            if stream.ends_ns is not None:
                self.at(stream.ends_ns, self._close, stream)
        for at_ns, name, rate_bps in self.scenario.rate_changes:
            self.at(at_ns, self._retune, name, rate_bps)
        for fault in self.scenario.faults:
            self.at(fault.at_ns, self._fault, fault)
        self._demands = self._one_by_one()
        self._next_demand()
        self.at(SAMPLE_NS, self._sample)
        if tell is not None:
            self.at(SAMPLE_NS, self._tell, tell, end)
        with seldom():
            self._run(end)
        return self.record(seconds)

    def _run(self, end: int) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, call, arguments = heapq.heappop(heap)
            self.events += 1
            call(*arguments)
        self.now = end

    def _one_by_one(self) -> Iterator[tuple[int, int, Callable[..., None], tuple[Any, ...]]]:
        """The demands by time, and of one time as they stand; the heap holds only the next, and so stays small."""
        first = self._sequence + 1
        self._sequence += len(self.scenario.demands)
        order = sorted((demand.at_ns, number) for number, demand in enumerate(self.scenario.demands))
        for at_ns, number in order:
            yield at_ns, first + number, self._first_try, (self.scenario.demands[number],)

    def _next_demand(self) -> None:
        entry = next(self._demands, None)
        if entry is not None:
            heapq.heappush(self._heap, entry)

    def _first_try(self, demand: Demand) -> None:
        self._next_demand()
        self._demand(demand)

    def at(self, due: int, call: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, call, arguments))

    def step(self, node: str, event: object) -> None:
        if node in self.down:
            return
        moves = self.sites[node].step(event, self.now)
        self.perform(node, moves)

    def perform(self, node: str, moves: Moves) -> None:
        for said in moves.send:
            if self.lost_share and self._losses.random() < self.lost_share:
                continue
            hops = 1
            if said.message.distant:
                path = self.network.shortest(node, said.peer)
                if path is None:
                    continue
                hops = len(path) - 1
            self.at(self.now + hops * self.delay_ns, self.step, said.peer, KxArrived(node, said.message))
        for answered in moves.answer:
            self._answered(node, answered)
        due = moves.wake_at
        if due is not None and due < self._wakes.get(node, 1 << 62):
            self._wakes[node] = due
            self.at(max(due, self.now), self._wake, node, due)

    def _wake(self, node: str, due: int) -> None:
        if self._wakes.get(node) == due:
            del self._wakes[node]
            self.step(node, Woke())

    # --- modules and faults -------------------------------------------------------------------------------------------

    def _next_block(self, link: frozenset[str]) -> None:
        delivery = next(self._blocks[link])
        self.at(delivery.at_ns, self._module, link, delivery.bits)

    def _module(self, link: frozenset[str], bits: int) -> None:
        self._next_block(link)
        if self.stopped.get(link, 0) <= self.now and bits:
            self.block(link, bits)

    def block(self, link: frozenset[str], bits: int) -> None:
        """A block at both ends, but for the one that a fault takes."""
        number, stamp = self.numbers[link], self.stamps[link]
        self.numbers[link] += 1
        self.stamps[link] += bits
        loser = self.lose_block.pop(link, "")
        missing = self.damage.strike(link, stamp, bits)
        one, other = sorted(link)
        for node, peer in ((one, other), (other, one)):
            if node != loser:
                digest = -1 - number if node in missing else number
                self.step(node, BlockArrived(peer, number, bits - missing.get(node, 0), stamp, digest))

    def _fault(self, fault: Fault) -> None:
        link = frozenset(fault.where.split("|"))
        self.trials.troubled(self.now)
        match fault.trouble:
            case Trouble.LINK_STOPS:
                self.stopped[link] = self.now + fault.for_ns
            case Trouble.MESSAGES_LOST:
                self.lost_share = fault.share
            case Trouble.CHUNK_LOST:
                self.lose_block[link] = fault.where.split("|")[1]
            case Trouble.NODE_RESTARTS:
                self.down.add(fault.where)
                self.at(self.now + fault.for_ns, self._back, fault.where)

    def _back(self, node: str) -> None:
        self.down.discard(node)
        self._wakes.pop(node, None)
        self.step(node, Restarted())

    # --- applications -------------------------------------------------------------------------------------------------

    def _open(self, stream: Stream) -> None:
        for node, peer, asks in ((stream.master, stream.slave, True), (stream.slave, stream.master, False)):
            event = StreamOpened(
                stream.name, peer, stream.rate_bps, stream.size_bits, asks, stream.service_class, stream.category
            )
            self.step(node, event)

    def _close(self, stream: Stream) -> None:
        self.step(stream.master, StreamClosed(stream.name))
        self.step(stream.slave, StreamClosed(stream.name))

    def _retune(self, name: str, rate_bps: int) -> None:
        for stream in self.scenario.streams:
            if stream.name == name:
                self.step(stream.master, StreamRetuned(name, rate_bps))
                self.step(stream.slave, StreamRetuned(name, rate_bps))

    def _demand(self, demand: Demand) -> None:
        """Also for another attempt."""
        ask = self.trials.by_number[demand.number]
        ask.attempts += 1
        if demand.master in self.down:
            self._end(ask, Verdict.REFUSED)
            return
        self._requests += 1
        self.attempts[self._requests] = demand.number
        left = demand.at_ns + demand.deadline_ns - self.now
        event = KeyAsked(
            self._requests,
            demand.slave,
            demand.stream,
            demand.size_bits,
            left,
            demand.service_class,
            demand.category,
            demand.security_level,
        )
        self.step(demand.master, event)

    def _answered(self, node: str, answered: Answered) -> None:
        ask = self.trials.by_number[self.attempts[answered.request]]
        demand = ask.demand
        if ask.outcome is not None:
            return
        if node == demand.master:
            if answered.name is None:
                timed_out = Verdict.TIMED_OUT if answered.timed_out else Verdict.REFUSED
                self._end(ask, Verdict.UNSERVABLE if answered.unservable else timed_out)
                return
            if not answered.name.size_bits:
                # No key was given because none is needed: neither a success nor a failure, in no ratio.
                self._end(ask, Verdict.UNSERVABLE)
                return
            self.serves += 1
            ask.name = answered.name
            path = self.network.shortest(demand.master, demand.slave)
            delay = self.delay_ns * (len(path) - 1 if path else 1)
            self.at(self.now + delay, self._fetch, answered.request, ask)
            return
        if answered.name is not None:
            late = self.now > demand.at_ns + demand.deadline_ns
            verdict = Verdict.TIMED_OUT if late else Verdict.SUPPLIED
            self._end(ask, verdict, its=answered.name.its, equal=self.equal(demand.master, demand.slave, answered.name))
            return
        if answered.refusal == COLLIDED:
            assert ask.name is not None
            self._collided.add(
                (min(demand.master, demand.slave), max(demand.master, demand.slave), ask.name.label, ask.name.ranges)
            )
            if self.now < demand.at_ns + demand.deadline_ns:
                self.at(self.now + int(RETRY_NS * self._choices.random()), self._demand, demand)
                return
        self._end(ask, Verdict.TIMED_OUT)

    def _fetch(self, request: int, ask: Ask) -> None:
        demand = ask.demand
        assert ask.name is not None
        left = max(0, demand.at_ns + demand.deadline_ns - self.now)
        if demand.slave in self.down:
            self._end(ask, Verdict.TIMED_OUT)
            return
        self.step(demand.slave, KeyFetched(request, demand.master, demand.stream, ask.name, left))

    def equal(self, one: str, other: str, name: Name) -> bool:
        """Whether both ends got the same bits under this name: what the harness alone can see."""
        here, there = self.sites[one].links.get(other), self.sites[other].links.get(one)
        return here is None or there is None or self.damage.equal(here, there, name)

    def _end(self, ask: Ask, verdict: Verdict, *, its: bool = False, equal: bool = True) -> None:
        self.trials.end(ask, verdict, self.now, its=its, equal=equal)

    # --- figures ------------------------------------------------------------------------------------------------------

    def _tell(self, tell: Callable[[float], None], end: int) -> None:
        self.at(self.now + SAMPLE_NS, self._tell, tell, end)
        tell(self.now / end)

    def _sample(self) -> None:
        self.at(self.now + SAMPLE_NS, self._sample)
        bits = 0
        for site in self.sites.values():
            for line in site.lines():
                bits += line.stock_bits
                self.exposed_bit_ns += line.disposal.exposed_bits * SAMPLE_NS
            self.reserved_bit_ns += site.relaying.reserved_bits() * SAMPLE_NS
        self.stock_bit_ns += bits * SAMPLE_NS
        self.peak_bytes = max(self.peak_bytes, rest_bytes(self.design, bits // 8))
        for link, rate in self.links.items():
            one, other = sorted(link)
            up = self.stopped.get(link, 0) <= self.now
            for start, end in ((one, other), (other, one)):
                line = self.sites[start].links[end]
                self.network.tell(Edge(start, end, line.usable_bits // 8, rate if up else 0, True))

    def lines(self) -> list[Line]:
        return [line for site in self.sites.values() for line in site.lines()]

    def record(self, seconds: float) -> Record:
        books = tuple(map(end_book, self.lines()))
        for book, line in zip(books, self.lines(), strict=True):
            if not book.balanced:
                raise Unbalanced(f"{self.design.name}: {line!r}: {line.book.gap(line.stock_bits)} bit too many: {book}")
        admitted = [names for site in self.sites.values() if (names := site.relaying.admitted()) is not None]
        return Record(
            seconds=seconds,
            scenario=self.scenario,
            outcomes=self.trials.outcomes(self.now),
            books=books,
            messages=sum(line.talk.sent for line in self.lines()),
            serves=self.serves,
            collided=len(self._collided),
            events=self.events,
            reserved_bit_ns=self.reserved_bit_ns,
            stock_bit_ns=self.stock_bit_ns,
            exposed_bit_ns=self.exposed_bit_ns,
            peak_stored_bytes=self.peak_bytes,
            resync_ns=tuple(self.trials.resync_ns),
            admitted=frozenset().union(*admitted) if admitted else None,
        )

    def _settings(self, node: str, peer: str, rate_bps: int, distant: bool) -> LineSettings:
        return LineSettings(
            rate_bps=rate_bps, tag_bits=TAG_BITS, aside=aside_share(self.design, rate_bps, TAG_BITS, distant=distant)
        )


def rest_bytes(design: Design, key_bytes: int) -> int:
    """What stored key takes where it lies."""
    return design.storage.rest_bytes(key_bytes) if isinstance(design.storage, FixedBlock) else key_bytes


def end_book(line: Line) -> EndBook:
    b = line.book
    kind = "global" if line.distant else "local"
    return EndBook(
        line.own, line.peer, kind, b.G, b.N, b.D, b.O, b.C, b.R, b.T, b.A, b.X, b.Y, line.stock_bits, b.F, b.burnt
    )
