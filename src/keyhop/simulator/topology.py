"""Networks ready to run: a topology file with defaults and kinds filled in and relays put where spans are too long."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from keyhop.files import FileError, Problem, parse, read, schema
from keyhop.files.records import NAME
from keyhop.files.words import nearest
from keyhop.simulator.topology_file import (
    AppEntry,
    LinkEntry,
    LinkFigures,
    Marks,
    PassesEntry,
    PoolEntry,
    Protocol,
    TopologyFile,
)

ATTENUATION_DB_PER_KM = 0.2
"""Standard fibre at 1550 nm; fibre in the ground has 0.3 to 0.5."""
QBER_LIMIT = 0.11
"""Above it BB84 gives no key, whoever listens."""
POOL = PoolEntry(min_bytes=1000, threshold_bytes=8000, max_bytes=64_000, ttl_s=86_400.0)

RATE_MODELS: Mapping[Protocol, str] = {
    Protocol.DECOY_BB84: "dv-metro",
    Protocol.BB84: "dv-legacy",
    Protocol.SARG04: "dv-legacy",
    Protocol.COW: "cow",
    Protocol.DPS: "cow",
    Protocol.BBM92: "entangled",
    Protocol.CV_GG02: "cv-metro",
}
"""The usual rate model of each protocol, where a link gives neither rate nor model."""

ALIASES: Mapping[str, str] = {
    "secoqc": "secoqc_vienna_2008",
    "swissquantum": "swissquantum_2009",
    "tokyo": "tokyo_2010",
    "darpa": "darpa_boston_2004",
    "madrid": "madqci",
    "cambridge": "cambridge_2019",
    "ukqn": "ukqn_backbone",
    "beijing_shanghai": "beijing_shanghai_2017",
    "nsfnet": "nsfnet_14",
    "usnet": "usnet_24",
    "trieste": "trieste_2021",
}

Action = Literal["eve", "clear", "cut", "restore"]


class TopologyError(Exception):
    """No such network; the text names those there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: str
    label: str
    at: tuple[float, float] | None
    """Latitude and longitude in degrees, for drawing only."""
    applications: tuple[str, ...] = ()
    domain: str = ""
    inserted: bool = False
    """A trusted relay that the file does not name."""
    confidence: Marks | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    id: str
    ends: tuple[str, str]
    """As the file has them."""
    length_km: float | None
    loss_db: float | None
    rate_bps: float | None
    """None: what `model` gives at this loss."""
    qber: float | None
    qber_limit: float
    protocol: Protocol
    model: str
    pool: PoolEntry
    """Complete: no member is None."""
    day_night: bool = False
    passes: PassesEntry | None = None
    system: str = ""
    part_of: str = ""
    """The file's link, where relays cut it or several lie side by side."""
    confidence: Marks | None = None
    note: str = ""

    def confidence_of(self, figure: str) -> str | None:
        """The mark of a figure by its key in the file, such as `rate`."""
        return self.confidence.get(figure) if isinstance(self.confidence, Mapping) else self.confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    at_s: float
    action: Action
    links: tuple[str, ...]
    fraction: float = 1.0
    """For `eve`."""
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    name: str
    title: str
    nodes: Mapping[str, Node]
    links: tuple[Link, ...]
    apps: tuple[AppEntry, ...] = ()
    events: tuple[Event, ...] = ()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    placeholder: bool = False

    def links_of(self, node: str) -> tuple[Link, ...]:
        return tuple(link for link in self.links if node in link.ends)

    def home(self, application: str) -> str:
        """The node that serves an application; KeyError if none does."""
        for node in self.nodes.values():
            if application in node.applications:
                return node.id
        raise KeyError(application)


def names() -> tuple[str, ...]:
    """The built-in networks."""
    files = resources.files("keyhop.simulator") / "topologies"
    return tuple(sorted(file.name.removesuffix(".yml") for file in files.iterdir() if file.name.endswith(".yml")))


def load_builtin(name: str) -> Topology:
    """By name or alias; raises TopologyError."""
    known = (*names(), *ALIASES)
    if name not in known:
        raise TopologyError(f"no built-in network {name}: {nearest(name, known)}")
    file = resources.files("keyhop.simulator") / "topologies" / f"{ALIASES.get(name, name)}.yml"
    return resolve(parse(TopologyFile, file.read_bytes(), f"{ALIASES.get(name, name)}.yml", Path.cwd()))


def load(path: Path) -> Topology:
    """Raises keyhop.files.FileError."""
    return resolve(read(TopologyFile, path))


def load_named(name: str) -> Topology:
    """A built-in network or a file, as commands take it. Raises TopologyError or keyhop.files.FileError."""
    if name in ALIASES or name in names():
        return load_builtin(name)
    path = Path(name)
    if path.suffix or path.exists() or path.name != name:
        return load(path)
    raise TopologyError(f"no built-in network and no file {name}: {nearest(name, (*names(), *ALIASES))}")


def topology_schema() -> dict[str, Any]:
    return schema(TopologyFile, "Keyhop topology")


def resolve(file: TopologyFile) -> Topology:
    nodes = {
        name: Node(
            id=name,
            label=entry.label if entry and entry.label else name,
            at=entry.at if entry else None,
            applications=entry.sae if entry else (),
            domain=entry.domain if entry else "",
            confidence=entry.confidence if entry else None,
            note=entry.note if entry else "",
        )
        for name, entry in file.nodes.items()
    }
    links: list[Link] = []
    made: list[list[str]] = []
    """For each link of the file: the first span of each of its parallel links."""
    for entry in file.links:
        firsts = []
        for lane in range(1, entry.parallel + 1):
            whole = _link(file, entry, lane)
            spans = _cut(whole, file.defaults.max_span_km, nodes)
            firsts.append(spans[0].id)
            links += spans
        made.append(firsts)
    _check_names(file, links)
    events = []
    for event in file.events:
        action: Action = event.given[0]  # type: ignore[assignment]
        hit = [name for at in file.links_named(getattr(event, action)) for name in made[at]]
        fraction = 1.0 if event.fraction is None else event.fraction
        events.append(
            Event(at_s=event.at_s, action=action, links=tuple(hit), fraction=fraction, duration_s=event.duration_s)
        )
    return Topology(
        name=file.name,
        title=file.title or file.name,
        nodes=nodes,
        links=tuple(links),
        apps=file.apps,
        events=tuple(sorted(events, key=lambda event: event.at_s)),
        sources=file.sources,
        notes=file.notes,
        placeholder=file.placeholder,
    )


def _link(file: TopologyFile, entry: LinkEntry, lane: int) -> Link:
    layers: list[LinkFigures] = [entry]
    if entry.kind is not None:
        layers.append(file.kinds[entry.kind])
    layers.append(file.defaults)

    def first(name: str) -> Any:
        return next((getattr(layer, name) for layer in layers if getattr(layer, name) is not None), None)

    attenuation = first("attenuation_db_per_km")
    length, loss = first("length_km"), first("loss_db")
    if loss is None and length is not None:
        loss = length * (ATTENUATION_DB_PER_KM if attenuation is None else attenuation)
    protocol = first("protocol") or Protocol.DECOY_BB84
    limit = first("qber_limit")
    name = entry.name
    return Link(
        id=f"{name}.{lane}" if entry.parallel > 1 else name,
        ends=entry.nodes,
        length_km=length,
        loss_db=loss,
        rate_bps=first("rate_bps"),
        qber=first("qber"),
        qber_limit=QBER_LIMIT if limit is None else limit,
        protocol=protocol,
        model=first("model") or RATE_MODELS[protocol],
        pool=_pool([layer.pool for layer in layers]),
        day_night=bool(first("day_night")),
        passes=first("passes"),
        system=entry.system,
        part_of=name if entry.parallel > 1 else "",
        confidence=entry.confidence,
        note=entry.note,
    )


def _pool(layers: list[PoolEntry]) -> PoolEntry:
    members = {}
    for member in dataclasses.fields(PoolEntry):
        given = (getattr(layer, member.name) for layer in (*layers, POOL))
        members[member.name] = next(value for value in given if value is not None)
    return PoolEntry(**members)


def _cut(link: Link, max_span_km: float | None, nodes: dict[str, Node]) -> list[Link]:
    """The link itself, or its spans; adds the relays between them to `nodes`. A satellite needs none."""
    if max_span_km is None or link.length_km is None or link.passes is not None or link.length_km <= max_span_km:
        return [link]
    count = math.ceil(link.length_km / max_span_km)
    one, other = link.ends
    base = link.part_of or link.id
    chain = [one, *(f"{base}-r{number}" for number in range(1, count)), other]
    for number, relay in enumerate(chain[1:-1], 1):
        if not NAME.fits(relay) or (relay in nodes and not nodes[relay].inserted):
            what = f"a relay on {base} cannot be named {relay}: that is taken or too long"
            raise FileError((Problem(base, 0, "links", what, "give the link a short id of its own"),))
        if relay not in nodes:
            label = f"relay {number} of {nodes[one].label}–{nodes[other].label}"
            between = _between(nodes[one].at, nodes[other].at, number / count)
            nodes[relay] = Node(id=relay, label=label, at=between, inserted=True)
    loss = None if link.loss_db is None else link.loss_db / count
    return [
        dataclasses.replace(
            link,
            id=f"{link.id}-s{number}",
            ends=(chain[number - 1], chain[number]),
            length_km=link.length_km / count,
            loss_db=loss,
            part_of=base,
        )
        for number in range(1, count + 1)
    ]


def _between(
    one: tuple[float, float] | None, other: tuple[float, float] | None, share: float
) -> tuple[float, float] | None:
    if one is None or other is None:
        return None
    return one[0] + (other[0] - one[0]) * share, one[1] + (other[1] - one[1]) * share


def _check_names(file: TopologyFile, links: list[Link]) -> None:
    """A name made for a span or a parallel link may be one that the file gives to another link."""
    seen: set[str] = set()
    for link in links:
        if link.id in seen:
            what = f"{link.id} is also the name of a span or parallel link made from another"
            raise FileError((Problem(file.name, 0, "links", what, "give one of them an id of its own"),))
        seen.add(link.id)
