"""The topology language: what a network file may say, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

from keyhop.files import CheckError
from keyhop.files.records import NAME, Between, Key, Name, OneOrMany, Pattern
from keyhop.files.units import ATTENUATION, BITS, DURATION, LENGTH, LOSS, PERIOD, RATE, RATIO, SIZE
from keyhop.files.words import nearest

PARALLEL_LIMIT = 64
NODE_LIMIT = 10_000
LINK_LIMIT = 100_000

Endpoint = Annotated[
    str, Pattern(rf"{NAME.expression}(:[A-Za-z0-9._-]{{1,32}})?", "a node, or node:port as containerlab writes it")
]
Mark = Literal["A", "B", "C"]
"""A = read in a public text, B = recalled from the cited paper, C = estimated or assumed here."""
Marks = Mark | Mapping[Name, Mark]
"""One mark for all figures beside it, or one for each by its key."""


class Protocol(StrEnum):
    """What the two modules of a link do; decides the rate where none is given."""

    DECOY_BB84 = "decoy-bb84"
    BB84 = "bb84"
    SARG04 = "sarg04"
    COW = "cow"
    DPS = "dps"
    BBM92 = "bbm92"
    CV_GG02 = "cv-gg02"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEntry:
    """How much key a link keeps at each end."""

    min_bytes: Annotated[int | None, SIZE] = None
    """Never given to applications."""
    threshold_bytes: Annotated[int | None, SIZE] = None
    """Below it the pool counts as low."""
    max_bytes: Annotated[int | None, SIZE] = None
    ttl_s: Annotated[float | None, PERIOD] = None
    """Older key is destroyed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassesEntry:
    """A satellite: the link gives key only while it passes."""

    per_day: Annotated[float, Between(0.01, 100.0)] = 1.0
    length_s: Annotated[float, PERIOD] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFigures:
    """What links have, one by one, by their kind, or all of them by `defaults`; the nearest word wins."""

    length_km: Annotated[float | None, LENGTH] = None
    attenuation_db_per_km: Annotated[float | None, ATTENUATION] = None
    loss_db: Annotated[float | None, LOSS] = None
    """Of the whole link; wins over length and attenuation."""
    rate_bps: Annotated[float | None, RATE] = None
    """Secret key; computed from protocol and loss if absent. Where relays cut a link, each span has this rate."""
    qber: Annotated[float | None, RATIO] = None
    qber_limit: Annotated[float | None, RATIO] = None
    """Above it the modules give no key."""
    protocol: Protocol | None = None
    model: Name | None = None
    """The rate model, where the protocol's usual one does not fit."""
    pool: PoolEntry = PoolEntry()
    day_night: bool | None = None
    """Free space: less key by day."""
    passes: PassesEntry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults(LinkFigures):
    max_span_km: Annotated[float | None, LENGTH] = None
    """A longer link is cut into equal spans with trusted relay nodes between them; absent: none is."""
    relay: Literal["otp"] = "otp"
    """Every hop encrypts with a one-time pad."""
    confidence: Marks | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    label: str = ""
    at: tuple[Annotated[float, Between(-90, 90)], Annotated[float, Between(-180, 180)]] | None = None
    """Latitude and longitude, for the map only."""
    sae: Annotated[tuple[Name, ...], OneOrMany()] = ()
    """Applications it serves."""
    domain: str = ""
    """The operator it belongs to."""
    confidence: Marks | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEntry(LinkFigures):
    ends: tuple[Endpoint, Endpoint]
    id: Name | None = None
    kind: Name | None = None
    parallel: Annotated[int, Between(1, PARALLEL_LIMIT)] = 1
    """So many equal links side by side."""
    system: str = ""
    confidence: Marks | None = None
    note: str = ""

    @property
    def nodes(self) -> tuple[str, str]:
        one, other = (end.partition(":")[0] for end in self.ends)
        return one, other

    @property
    def name(self) -> str:
        """The same, whichever end is written first."""
        return self.id or "-".join(sorted(self.nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class AppEntry:
    """Two applications that take a fresh key from time to time."""

    name: Name
    between: tuple[Name, Name]
    key_size_bits: Annotated[int, BITS] = 256
    every_s: Annotated[float, PERIOD] = 10.0
    priority: Literal["low", "normal", "high"] = "normal"

    def __post_init__(self) -> None:
        if self.key_size_bits % 8 or not 64 <= self.key_size_bits <= 8192:
            what = f"{self.key_size_bits} bit is no key size"
            raise CheckError(what, "must be a multiple of 8 from 64 to 8192 bit", "key_size")


LinkName = Name | tuple[Name, Name]
"""A link by its id, or by its two ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventEntry:
    """Something that happens to a link, `at` seconds after the start."""

    at_s: Annotated[float, DURATION]
    eve: LinkName | None = None
    clear: LinkName | None = None
    cut: LinkName | None = None
    restore: LinkName | None = None
    fraction: Annotated[float | None, Between(0.0, 1.0)] = None
    """Share of the pulses the eavesdropper measures."""
    duration_s: Annotated[float | None, PERIOD, Key("for")] = None
    """It ends by itself."""

    def __post_init__(self) -> None:
        if len(self.given) != 1:
            what = f"{' and '.join(self.given)} stand together" if self.given else "nothing happens"
            raise CheckError(what, "write one of eve, clear, cut, restore")
        if self.fraction is not None and self.eve is None:
            raise CheckError("a fraction of nothing", "write it beside eve", "fraction")
        if self.duration_s is not None and self.eve is None and self.cut is None:
            raise CheckError(f"{self.given[0]} has no end", "write `for` beside eve or cut", "for")

    @property
    def given(self) -> tuple[str, ...]:
        return tuple(name for name in ("eve", "clear", "cut", "restore") if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyFile:
    """One QKD network."""

    api_version: Annotated[Literal["keyhop/v1"], Key("apiVersion")]
    name: Name
    nodes: Mapping[Name, NodeEntry | None]
    title: str = ""
    sources: Annotated[tuple[str, ...], OneOrMany()] = ()
    notes: Annotated[tuple[str, ...], OneOrMany()] = ()
    placeholder: bool = False
    """The figures have the right size and are not those of the network it is named after."""
    defaults: Defaults = Defaults()
    kinds: Mapping[Name, LinkFigures] = field(default_factory=dict)
    links: tuple[LinkEntry, ...] = ()
    apps: tuple[AppEntry, ...] = ()
    events: tuple[EventEntry, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.nodes) <= NODE_LIMIT:
            raise CheckError(f"{len(self.nodes)} nodes", f"must be 1 to {NODE_LIMIT}", "nodes")
        if sum(link.parallel for link in self.links) > LINK_LIMIT:
            raise CheckError("too many links", f"must be {LINK_LIMIT} or less", "links")
        self._check_links()
        self._check_applications()
        for at, event in enumerate(self.events):
            action = event.given[0]
            if not self.links_named(getattr(event, action)):
                named = getattr(event, action)
                shown = named if isinstance(named, str) else "-".join(named)
                known = [link.name for link in self.links]
                raise CheckError(f"no link {shown}", nearest(shown, known), "events", at, action)

    def links_named(self, name: str | tuple[str, str]) -> list[int]:
        """Positions of the links an event means: one by id, or all between two nodes."""
        if isinstance(name, str):
            return [at for at, link in enumerate(self.links) if name == link.name]
        return [at for at, link in enumerate(self.links) if set(link.nodes) == set(name)]

    def _check_links(self) -> None:
        seen: set[str] = set()
        for at, link in enumerate(self.links):
            one, other = link.nodes
            for place, node in enumerate((one, other)):
                if node not in self.nodes:
                    raise CheckError(f"no node {node}", nearest(node, self.nodes), "links", at, "ends", place)
            if one == other:
                raise CheckError(f"both ends are {one}", "name two different nodes", "links", at, "ends")
            if link.kind is not None and link.kind not in self.kinds:
                raise CheckError(f"no kind {link.kind}", nearest(link.kind, self.kinds), "links", at, "kind")
            if link.name in seen:
                raise CheckError(f"{link.name} stands here twice", "give each link an id of its own", "links", at)
            seen.add(link.name)

    def _check_applications(self) -> None:
        homes: dict[str, str] = {}
        for node, entry in self.nodes.items():
            for place, application in enumerate(entry.sae if entry else ()):
                if application in homes:
                    what = f"{application} is served by {homes[application]} already"
                    raise CheckError(what, "an application has one node", "nodes", node, "sae", place)
                homes[application] = node
        names: set[str] = set()
        for at, app in enumerate(self.apps):
            if app.name in names:
                raise CheckError(f"{app.name} stands here twice", "name each app once", "apps", at, "name")
            names.add(app.name)
            for place, application in enumerate(app.between):
                if application not in homes:
                    what = f"no node serves {application}"
                    raise CheckError(what, nearest(application, homes), "apps", at, "between", place)
            if app.between[0] == app.between[1]:
                raise CheckError("both ends are the same", "name two applications", "apps", at, "between")
