"""Our own design in a comparison: the very nodes that daemons run, in virtual time, without bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from keyhop.core.designs import Design
from keyhop.core.designs.running import running
from keyhop.core.machine import Deliver
from keyhop.core.messages import HORIZON_LIMIT_HOPS
from keyhop.core.model import BYTE_BITS, NANOSECONDS, AppId, NodeId, Range, RequestError
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.ledger import Account
from keyhop.core.node.node import Node
from keyhop.core.node.vault import BlockName
from keyhop.simulator.blocks import Delivery, deliveries
from keyhop.simulator.collecting import seldom
from keyhop.simulator.record import Demand, EndBook, Fault, Record, Scenario, Trouble, Verdict
from keyhop.simulator.trials import Trial, Trials
from keyhop.simulator.vault import WeightlessVault, origin_of
from keyhop.simulator.world import Answered, Timing, World

SETTLE_NS = 2 * NANOSECONDS
"""Links open before the run begins: they ran before."""
STOCK_LIMIT_BYTES = 1 << 26
"""Of a small network: no run of an hour fills a store. A large one has what nodes have if nobody says otherwise."""
APPLICATION_RATE = 1 << 40
MODULE = "module"
SAMPLE_NS = NANOSECONDS
ENDS_PER_SAMPLE = 8
"""Of a larger network stock is summed up once in as many seconds as it has so many ends, at least once a minute."""
SAMPLE_LIMIT_NS = 60 * NANOSECONDS
SPENT_EVERY_NS = NANOSECONDS
LARGE_NODES = 64
SELDOM_NS = 600 * NANOSECONDS
"""Keep-alives of a large network without faults: nothing falls silent there, and they would be most of what is said."""


HORIZON_HOPS = 8
"""Of a large network, at least: twice its longest path and two more, so that there is room for ways round."""


class Ask(Trial):
    __slots__ = ("fetched",)

    def __init__(self, demand: Demand) -> None:
        super().__init__(demand)
        self.fetched = False


class RealNodes:
    """Nodes on a network of links (node pair -> rate in bit/s), fed with one scenario."""

    def __init__(
        self, design: Design, links: dict[frozenset[str], int], scenario: Scenario, *, seed: int, delay_ns: int
    ) -> None:
        self.links = links
        self.scenario = scenario
        self.delay_ns = delay_ns
        self._running = running(design)
        self._adjacent: dict[str, list[str]] = {}
        for one, other in map(sorted, links):
            self._adjacent.setdefault(one, []).append(other)
            self._adjacent.setdefault(other, []).append(one)
        self._apart: dict[tuple[str, str], int] = {}
        """Links from one end to the other, of those who have asked."""
        timing = Timing(delay=(delay_ns, delay_ns), commit=(NANOSECONDS // 1000, NANOSECONDS // 500))
        self.world = World(seed, self._settings(), design, WeightlessVault, timing)
        self.world.on_answer.append(self._answered)
        self.trials = Trials(scenario.demands, Ask)
        self._asking: dict[int, Ask] = {}
        self._names = {demand.stream: applications(demand.stream) for demand in scenario.demands}
        self._blocks: dict[frozenset[str], Iterator[Delivery]] = {
            link: deliveries(link, rate, seed, scenario.block_ns) for link, rate in links.items()
        }
        self._numbers = dict.fromkeys(links, 0)
        self._stopped: dict[frozenset[str], int] = {}
        self._losers: dict[frozenset[str], str] = {}
        self._begin = self._sampled_at = 0
        self.serves = 0
        self.stock_bit_ns = 0
        self.peak_bytes = 0
        self._before: dict[tuple[str, str], list[int]] = {}
        self._entries = self._frames = 0

    def run(self, seconds: float, tell: Callable[[float], None] | None = None) -> Record:
        """`tell` hears once a simulated second which part is done."""
        with seldom():
            return self._run(seconds, tell)

    def _run(self, seconds: float, tell: Callable[[float], None] | None) -> Record:
        world = self.world
        world.start()
        world.run(world.now + SETTLE_NS)
        self._begin = self._sampled_at = world.now
        self._entries, self._frames = world.entries, world.frames
        self._before = {key: totals(self._node(key[0]), key[1]) for key in self._ends()}
        for link in sorted(self.links, key=sorted):
            self._next_block(link)
        demands = self.scenario.demands
        world.in_order(
            [self._begin + demand.at_ns for demand in demands],
            lambda index: self._ask(self.trials.by_number[demands[index].number]),
        )
        for fault in self.scenario.faults:
            world.at(self._begin + fault.at_ns, self._fault, fault)
        world.at(self._begin + SAMPLE_NS, self._sample)
        length = int(seconds * NANOSECONDS)
        if tell is not None:
            world.at(self._begin + SAMPLE_NS, self._tell, tell, length)
        world.run(self._begin + length)
        return self._record(seconds)

    # --- applications -------------------------------------------------------------------------------------------------

    def _ask(self, ask: Ask) -> None:
        """As the door does: out of the Desk where that holds enough, by an event where it does not."""
        demand, process = ask.demand, self.world.processes[NodeId(ask.demand.master)]
        ask.attempts += 1
        if not process.alive:
            self._retry(ask, Verdict.REFUSED)
            return
        master, slave = self._names[demand.stream]
        try:
            grant = process.node.supply.grant(master, slave)
        except RequestError:
            grant = None
        starts = grant.stock.take(1, -(-demand.size_bits // BYTE_BITS)) if grant is not None else None
        if grant is not None and starts is not None:
            if grant.stock.left < grant.stock.low:
                process.feed(events.StockLow(grant.peer))
            run = process.node.context.pairs[grant.peer].own_key.id
            self._given(ask, Range(run, starts[0], -(-demand.size_bits // BYTE_BITS)))
            return
        request = self.world.request()
        self._asking[request] = ask
        process.feed(events.KeysWanted(request, master, slave, 1, -(-demand.size_bits // BYTE_BITS) * BYTE_BITS))

    def _answered(self, answered: Answered) -> None:
        ask = self._asking.pop(answered.request, None)
        if ask is None or ask.outcome is not None:
            return
        if ask.fetched:
            self._fetched(ask, answered.deliver)
        elif answered.deliver.refusal is not None:
            self._retry(ask, Verdict.REFUSED)
        else:
            self._given(ask, answered.deliver.ranges[0])

    def _retry(self, ask: Ask, verdict: Verdict) -> None:
        """A client comes again after the second that Retry-After names, as long as it has time."""
        due = self.world.now + NANOSECONDS
        if due < self._begin + ask.demand.at_ns + ask.demand.deadline_ns:
            self.world.at(due, self._ask, ask)
        else:
            self._end(ask, Verdict.TIMED_OUT if ask.attempts > 1 else verdict)

    def _given(self, ask: Ask, taken: Range) -> None:
        self.serves += 1
        demand = ask.demand
        hops = self._hops(demand.master, demand.slave)
        self.world.at(self.world.now + hops * self.delay_ns, self._fetch, ask, taken)

    def _fetch(self, ask: Ask, taken: Range) -> None:
        process = self.world.processes[NodeId(ask.demand.slave)]
        if not process.alive:
            self._end(ask, Verdict.TIMED_OUT)
            return
        ask.fetched = True
        request = self.world.request()
        self._asking[request] = ask
        coordinates = events.Coordinates(taken.run.number, taken.start, taken.length)
        process.feed(events.KeysFetched(ask.demand.master, [events.Fetch(request, (coordinates,))]))

    def _fetched(self, ask: Ask, deliver: Deliver) -> None:
        if deliver.refusal is not None:
            self._end(ask, Verdict.TIMED_OUT)
            return
        self.serves += 1
        late = self.world.now > self._begin + ask.demand.at_ns + ask.demand.deadline_ns
        self._end(ask, Verdict.TIMED_OUT if late else Verdict.SUPPLIED)

    def _end(self, ask: Ask, verdict: Verdict) -> None:
        self.trials.end(ask, verdict, self.world.now - self._begin, its=verdict is Verdict.SUPPLIED)

    # --- modules and faults -------------------------------------------------------------------------------------------

    def _next_block(self, link: frozenset[str]) -> None:
        delivery = next(self._blocks[link])
        self.world.at(self._begin + delivery.at_ns, self._deliver, link, delivery.bits // BYTE_BITS)

    def _deliver(self, link: frozenset[str], length: int) -> None:
        self._next_block(link)
        if self._stopped.get(link, 0) > self.world.now or not length:
            return
        number = self._numbers[link]
        self._numbers[link] += 1
        loser = self._losers.pop(link, "")
        one, other = sorted(link)
        for node, peer in ((one, other), (other, one)):
            process = self.world.processes[NodeId(node)]
            if node == loser or not process.alive:
                continue
            name = BlockName(NodeId(peer), MODULE, number)
            vault = process.vault
            assert isinstance(vault, WeightlessVault)
            vault.accept_weightless(name, length, origin_of(name))
            process.feed(events.BlockArrived(peer, MODULE, number, length))

    def _fault(self, fault: Fault) -> None:
        world, link = self.world, frozenset(fault.where.split("|"))
        self.trials.troubled(world.now - self._begin)
        match fault.trouble:
            case Trouble.LINK_STOPS:
                self._stopped[link] = world.now + fault.for_ns
            case Trouble.CHUNK_LOST:
                self._losers[link] = fault.where.split("|")[1]
            case Trouble.NODE_RESTARTS:
                world.restart_after = (fault.for_ns, fault.for_ns)
                world.crash(fault.where)
            case Trouble.MESSAGES_LOST:
                # These nodes talk over TCP, where what is lost is sent again: a lost segment costs time.
                pass

    # --- figures ------------------------------------------------------------------------------------------------------

    def _node(self, name: str) -> Node:
        return self.world.processes[NodeId(name)].node

    def _ends(self) -> list[tuple[str, str]]:
        return [(name, peer) for name, process in self.world.processes.items() for peer in process.node.context.pairs]

    def _tell(self, tell: Callable[[float], None], length: int) -> None:
        self.world.at(self.world.now + SAMPLE_NS, self._tell, tell, length)
        tell((self.world.now - self._begin) / length)

    def _sample(self) -> None:
        ends, passed_ns = self._ends(), self.world.now - self._sampled_at
        self._sampled_at = self.world.now
        wait_ns = min(SAMPLE_NS * (1 + len(ends) // ENDS_PER_SAMPLE), SAMPLE_LIMIT_NS)
        self.world.at(self.world.now + wait_ns, self._sample)
        stock = 0
        for name, peer in ends:
            stock += sum(run.book.stock for run in self._node(name).context.pairs[peer].runs.values())
        for process in self.world.processes.values():
            if process.alive and (entries := process.disk.outbox()):
                # As an audit file takes them; else they would be all that a long run remembers.
                process.disk.written(entries[-1].number)
        self.stock_bit_ns += stock * BYTE_BITS * passed_ns
        self.peak_bytes = max(self.peak_bytes, stock)

    def _record(self, seconds: float) -> Record:
        end = int(seconds * NANOSECONDS)
        for name, peer in self._ends():
            self._node(name).supply.measure(self._node(name).context.pairs[peer], SPENT_EVERY_NS)
        books = tuple(
            end_book(self._node(name), peer, self._before.get((name, peer), [0] * len(Account)))
            for name, peer in self._ends()
        )
        return Record(
            seconds=seconds,
            scenario=self.scenario,
            outcomes=self.trials.outcomes(end),
            books=books,
            messages=self.world.frames - self._frames,
            serves=self.serves,
            events=self.world.entries - self._entries,
            stock_bit_ns=self.stock_bit_ns,
            peak_stored_bytes=self.peak_bytes,
            resync_ns=tuple(self.trials.resync_ns),
        )

    # --- before the run -----------------------------------------------------------------------------------------------

    def _settings(self) -> list[NodeSettings]:
        names = sorted({node for link in self.links for node in link})
        large = len(names) > LARGE_NODES
        seldom = large and not self.scenario.faults
        horizon_hops = self._horizon_hops() if large else 0
        served: dict[str, dict[str, set[str]]] = {name: {} for name in names}
        for stream in self.scenario.streams:
            master, slave = applications(stream.name)
            served[stream.master].setdefault(master, set()).add(slave)
            served[stream.slave].setdefault(slave, set())
        return [
            NodeSettings(
                node=NodeId(name),
                neighbours=tuple(
                    Neighbour(
                        node=NodeId(peer),
                        link=link_number(name, peer),
                        segment_bytes=self._running.storage.segment_bytes(rate),
                        rate_bps=rate,
                    )
                    for peer, rate in sorted(self._around(name))
                ),
                applications=tuple(
                    Application(
                        id=AppId(application),
                        peers=frozenset(map(AppId, peers)),
                        rate_bps=APPLICATION_RATE,
                        burst_bits=APPLICATION_RATE,
                    )
                    for application, peers in sorted(served[name].items())
                ),
                stock_limit_bytes=NodeSettings.stock_limit_bytes if large else STOCK_LIMIT_BYTES,
                horizon_hops=horizon_hops,
                keep_alive_ns=SELDOM_NS if seldom else NodeSettings.keep_alive_ns,
                min_key_bits=BYTE_BITS,
                max_key_bits=1 << 20,
            )
            for name in names
        ]

    def _horizon_hops(self) -> int:
        longest = max((self._hops(stream.master, stream.slave) for stream in self.scenario.streams), default=0)
        return min(max(HORIZON_HOPS, 2 * longest + 2), HORIZON_LIMIT_HOPS)

    def _hops(self, source: str, destination: str) -> int:
        """Of the shortest path; 0 if there is none."""
        ends = source, destination
        if ends not in self._apart:
            self._apart[ends] = hops_between(self._adjacent, *ends)
        return self._apart[ends]

    def _around(self, name: str) -> list[tuple[str, int]]:
        return [(peer, self.links[frozenset((name, peer))]) for peer in self._adjacent[name]]


def hops_between(adjacent: Mapping[str, Sequence[str]], source: str, destination: str) -> int:
    """0 if no path leads there."""
    seen, level, hops = {source}, [source], 0
    while level:
        if destination in level:
            return hops
        level = list(dict.fromkeys(peer for node in level for peer in adjacent[node] if peer not in seen))
        seen.update(level)
        hops += 1
    return 0


def applications(stream: str) -> tuple[str, str]:
    return f"{stream}.master", f"{stream}.slave"


def link_number(one: str, other: str) -> bytes:
    return "|".join(sorted((one, other))).encode().ljust(16, b"\0")[:16]


def totals(node: Node, peer: str) -> list[int]:
    """Of all runs with this peer, by account, in bytes."""
    found = [0] * len(Account)
    for run in node.context.pairs[peer].runs.values():
        for account, length in enumerate(run.book.totals):
            found[account] += length
    return found


def end_book(node: Node, peer: str, before: list[int]) -> EndBook:
    """Key of the pre-shared secret is no QKD key: tags are paid from it first, and the rest of it is no stock."""
    t = [BYTE_BITS * length for length in totals(node, peer)]
    burnt = t[Account.A] - BYTE_BITS * before[Account.A]
    presets, spent = t[Account.F], t[Account.A]
    free = min(presets, spent)
    distant = not node.context.pairs[peer].direct
    stock = BYTE_BITS * sum(run.book.stock for run in node.context.pairs[peer].runs.values())
    return EndBook(
        node=node.context.node,
        peer=peer,
        kind="global" if distant else "local",
        G=t[Account.G],
        N=t[Account.N],
        D=t[Account.D],
        O=t[Account.O],
        C=t[Account.C],
        R=t[Account.R],
        A=spent - free,
        X=t[Account.X],
        Y=t[Account.Y],
        S=stock - (presets - free),
        burnt=burnt,
    )
