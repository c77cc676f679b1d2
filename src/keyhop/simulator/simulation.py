"""A simulation file made ready: links with rates, demands, faults; and its run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from keyhop.core.designs import DESIGNS, check
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.relay import NoRelay
from keyhop.files import CheckError, FileError, Problem, read, schema
from keyhop.files.words import below, nearest
from keyhop.simulator import demands, runs, topology
from keyhop.simulator.arrivals import Purpose, Seeds, periodic, poisson
from keyhop.simulator.pairs import asking, shortest
from keyhop.simulator.record import Demand, Fault, Record, Scenario, Stream, Trouble
from keyhop.simulator.simulation_file import (
    USUAL_WORKLOAD,
    SimulationFile,
    StreamEntry,
    TroubleEntry,
    names_a_file,
)
from keyhop.simulator.topology import Topology
from keyhop.simulator.topology_file import AppEntry, LinkEntry, NodeEntry, TopologyFile
from keyhop.simulator.workloads import WorkloadError, find, scenario

USUAL_LOAD = 0.8
USUAL_QBER = 0.02
"""Of links that give none, where somebody listens (K)."""
INTERCEPT_QBER = 0.25
"""What measuring and sending again every pulse adds to the error rate of BB84."""


class Setup(NamedTuple):
    design: str
    network: str
    links: dict[frozenset[str], int]
    """Key rate in bit/s."""
    scenario: Scenario
    paths: tuple[tuple[str, ...], ...]
    """Of the pairs that ask, over the fewest links."""
    asked_by: str
    """The workload with its load, or what streams there are."""
    seconds: float
    seed: int

    def run(self, tell: Callable[[float], None] | None = None) -> Record:
        """`tell` hears, once a simulated second, which part is done. Raises Unbalanced."""
        return runs.run(
            DESIGNS[self.design], self.links, self.scenario, seconds=self.seconds, seed=self.seed, tell=tell
        )


def simulation_schema() -> dict[str, Any]:
    return schema(SimulationFile, "Keyhop simulation")


def load(path: Path) -> Setup:
    """Raises keyhop.files.FileError, of the file or of the topology that it names."""
    file = read(SimulationFile, path)
    try:
        return prepare(file, path.absolute().parent)
    except CheckError as error:
        place, line = _where(path.read_bytes(), error.at)
        raise FileError((Problem(str(path), line, place, error.what, error.legal),)) from None


def prepare(file: SimulationFile, directory: Path) -> Setup:
    """Raises CheckError, or FileError of the topology."""
    place = _network(file, directory)
    rates = {link.id: file.rate_bps if link.rate_bps is None else link.rate_bps for link in place.links}
    links: dict[frozenset[str], int] = {}
    for link in place.links:
        links[frozenset(link.ends)] = links.get(frozenset(link.ends), 0) + round(rates[link.id])
    if not links:
        raise CheckError(f"network {place.name} has no links", "take another", "topology")
    faults = (*_faults(file, place), *_topology_faults(place, file.duration_s))
    if file.streams:
        made, paths = _own_scenario(file, place), _stream_paths(file, place)
        asked_by = f"{len(file.streams)} stream{'s' * (len(file.streams) != 1)}"
    else:
        workload = find(file.workload or USUAL_WORKLOAD)
        load = file.load or workload.own_load or USUAL_LOAD
        try:
            pairs = asking(place, rates)
            paths = pairs.paths
            made = scenario(workload, paths, pairs.rate_bps, load, file.duration_s, file.seed)
        except topology.TopologyError as error:
            raise CheckError(str(error), "or write streams:", "topology") from None
        except WorkloadError as error:
            what, _, legal = str(error).rpartition(": ")
            raise CheckError(what, legal, "for") from None
        asked_by = f"{workload.id} {workload.name}, load {load:g}"
    if not made.demands:
        raise CheckError("nobody asks for a key", "let the run be longer, or streams ask more often", "for")
    _check_design(file.design, paths)
    delay_ns = None if file.delay_s is None else max(1, round(file.delay_s * NANOSECONDS))
    made = made._replace(
        faults=tuple(sorted((*made.faults, *faults), key=lambda fault: fault.at_ns)),
        one_way_delay_ns=delay_ns or made.one_way_delay_ns,
        block_ns=round(file.block_every_s * NANOSECONDS),
    )
    return Setup(file.design, place.name, links, made, paths, asked_by, file.duration_s, file.seed)


def _network(file: SimulationFile, directory: Path) -> Topology:
    if file.topology is not None:
        if names_a_file(file.topology):
            return topology.load(directory / file.topology)
        return topology.load_builtin(file.topology)
    ends = (file.path[0], file.path[-1])
    nodes = {name: NodeEntry(sae=(f"{name}-app",) if name in ends else ()) for name in file.path}
    entries = TopologyFile(
        api_version="keyhop/v1",
        name="-".join(file.path)[:63].rstrip("-._"),
        nodes=nodes,
        links=tuple(LinkEntry(ends=span) for span in pairwise(file.path)),
        apps=(AppEntry(name="pair", between=(f"{ends[0]}-app", f"{ends[1]}-app")),),
    )
    return topology.resolve(entries)


def _check_design(name: str, paths: Iterable[tuple[str, ...]]) -> None:
    links = max(len(path) - 1 for path in paths)
    design = DESIGNS[name]
    if links > 1 and isinstance(design.relay, NoRelay):
        what = f"{name} has no relay, and applications here are {links} links apart"
        raise CheckError(what, "let neighbours ask, or take a design that relays: keyhop design list", "design")
    if broken := check(design, links):
        raise CheckError(f"{name} cannot be run here", "; ".join(broken), "design")


# --- streams ----------------------------------------------------------------------------------------------------------


def _own_scenario(file: SimulationFile, place: Topology) -> Scenario:
    seeds, ends_ns = Seeds(file.seed), round(file.duration_s * NANOSECONDS)
    streams: list[Stream] = []
    asked: list[tuple[int, Stream, StreamEntry]] = []
    for at, entry in enumerate(file.streams):
        for number, node in enumerate(entry.between):
            if node not in place.nodes:
                raise CheckError(f"no node {node}", nearest(node, place.nodes), "streams", at, "between", number)
        stream = _stream(entry, at)
        streams.append(stream)
        until_ns = min(ends_ns, stream.ends_ns or ends_ns)
        draw = seeds.draw(Purpose.ARRIVALS if entry.arrivals == "poisson" else Purpose.PHASES, stream.name)
        length_ns = until_ns - stream.starts_ns
        if entry.arrivals == "poisson":
            times = poisson(1 / entry.every_s, length_ns, draw)
        else:
            times = periodic(entry.every_s * NANOSECONDS, length_ns, draw)
        asked += [(stream.starts_ns + time, stream, entry) for time in times]
    asked.sort(key=lambda one: (one[0], one[1].name))
    levels = demands.LEVELS.take_many(seeds.draw(Purpose.LEVELS), len(asked))
    return Scenario(
        tuple(streams),
        tuple(
            Demand(
                number=number,
                at_ns=at_ns,
                stream=stream.name,
                master=stream.master,
                slave=stream.slave,
                size_bits=stream.size_bits,
                deadline_ns=round(entry.deadline_s * NANOSECONDS),
                service_class=stream.service_class,
                category=stream.category,
                security_level=level,
            )
            for number, ((at_ns, stream, entry), level) in enumerate(zip(asked, levels, strict=True))
        ),
    )


def _stream(entry: StreamEntry, at: int) -> Stream:
    return Stream(
        name=entry.name or f"{'|'.join(entry.between)}.{at:02}",
        master=entry.between[0],
        slave=entry.between[1],
        rate_bps=max(1, round(entry.key_size_bits / entry.every_s)),
        size_bits=entry.key_size_bits,
        service_class=entry.service_class,
        category=entry.category,
        starts_ns=round(entry.from_s * NANOSECONDS),
        ends_ns=None if entry.until_s is None else round(entry.until_s * NANOSECONDS),
        min_bps=round(entry.min_bps),
    )


def _stream_paths(file: SimulationFile, place: Topology) -> tuple[tuple[str, ...], ...]:
    found: dict[frozenset[str], tuple[str, ...]] = {}
    for at, entry in enumerate(file.streams):
        try:
            found.setdefault(frozenset(entry.between), shortest(place, *entry.between))
        except topology.TopologyError as error:
            raise CheckError(str(error), "link them, or ask elsewhere", "streams", at, "between") from None
    return tuple(found.values())


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _faults(file: SimulationFile, place: Topology) -> list[Fault]:
    found: list[Fault] = []
    for at, entry in enumerate(file.events):
        trouble = entry.given[0]
        at_ns = round(entry.at_s * NANOSECONDS)
        if entry.restart is not None:
            if entry.restart not in place.nodes:
                raise CheckError(
                    f"no node {entry.restart}", nearest(entry.restart, place.nodes), "events", at, "restart"
                )
            found.append(
                Fault(at_ns, Trouble.NODE_RESTARTS, entry.restart, round((entry.duration_s or 0) * NANOSECONDS))
            )
        elif entry.lose_messages is not None:
            found.append(Fault(at_ns, Trouble.MESSAGES_LOST, share=entry.lose_messages))
        else:
            hit = _links(place, getattr(entry, trouble), ("events", at, trouble))
            if trouble == "lose_block":
                found += [Fault(at_ns, Trouble.CHUNK_LOST, _ends(link)) for link in hit]
            elif trouble in ("cut", "eve"):
                until_s = (
                    entry.at_s + entry.duration_s if entry.duration_s else _ended(file.events, entry, file.duration_s)
                )
                stops = [link for link in hit if trouble == "cut" or _heard(link, entry.fraction)]
                found += [_stop(link, entry.at_s, until_s) for link in stops]
    return found


def _ended(events: Iterable[TroubleEntry], entry: TroubleEntry, end_s: float) -> float:
    word = "restore" if entry.cut is not None else "clear"
    named = entry.cut or entry.eve
    later = (other.at_s for other in events if getattr(other, word) == named and other.at_s > entry.at_s)
    return min(later, default=end_s)


def _topology_faults(place: Topology, end_s: float) -> list[Fault]:
    found: list[Fault] = []
    for at, event in enumerate(place.events):
        if event.action not in ("cut", "eve"):
            continue
        ending = "restore" if event.action == "cut" else "clear"
        for link in (link for link in place.links if link.id in event.links):
            later = (other.at_s for other in place.events[at:] if other.action == ending and link.id in other.links)
            until_s = event.at_s + event.duration_s if event.duration_s else min(later, default=end_s)
            if event.action == "cut" or _heard(link, event.fraction):
                found.append(_stop(link, event.at_s, until_s))
    return found


def _heard(link: topology.Link, fraction: float | None) -> bool:
    """Whether an eavesdropper lifts the error rate so far that the modules give no key."""
    qber = USUAL_QBER if link.qber is None else link.qber
    return qber + INTERCEPT_QBER * (1.0 if fraction is None else fraction) > link.qber_limit


def _links(place: Topology, named: str | tuple[str, str], at: tuple[str | int, ...]) -> list[topology.Link]:
    if isinstance(named, str):
        hit = [link for link in place.links if named in (link.id, link.part_of)]
    else:
        hit = [link for link in place.links if set(link.ends) == set(named)]
    if not hit:
        shown = named if isinstance(named, str) else "-".join(named)
        raise CheckError(f"no link {shown}", nearest(shown, [link.id for link in place.links]), *at)
    return hit


def _ends(link: topology.Link) -> str:
    return "|".join(link.ends)


def _stop(link: topology.Link, at_s: float, until_s: float) -> Fault:
    at_ns = round(at_s * NANOSECONDS)
    return Fault(at_ns, Trouble.LINK_STOPS, _ends(link), max(0, round(until_s * NANOSECONDS) - at_ns))


# --- where in the file ------------------------------------------------------------------------------------------------


def _where(text: bytes, at: tuple[str | int, ...]) -> tuple[str, int]:
    """The place in the file's own words, and its line."""
    node: Node = YAML(typ="safe", pure=True).compose(text)
    place = ""
    for step in at:
        if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            node, place = node.value[step], f"{place}[{step}]"
        elif isinstance(node, MappingNode) and isinstance(step, str):
            key, value = next(((key, value) for key, value in node.value if key.value == step), (None, node))
            if key is None:
                break
            node, place = value, below(place, step)
    return place, node.start_mark.line + 1
