"""The file of one simulated run, as records: network, design, what is asked for, what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from keyhop.core.designs import DESIGNS
from keyhop.core.policy.priority import CLASSES
from keyhop.files import CheckError
from keyhop.files.records import Between, Key, Name
from keyhop.files.units import BITS, DURATION, PERIOD, RATE, RATIO
from keyhop.files.words import nearest
from keyhop.simulator import topology
from keyhop.simulator.topology_file import LinkName
from keyhop.simulator.workloads import WORKLOADS, WorkloadError, find

SECONDS_LIMIT = 86_400.0 * 365
LOAD_LIMIT = 100.0
SEED_LIMIT = 2**63 - 1
USUAL_WORKLOAD = "W2"
USUAL_RATE_BPS = 10_000.0
BLOCK_EVERY_S = (0.01, 3600.0)
"""The least, the most."""

ServiceClass = Literal["guaranteed", "prioritised", "best_effort"]
Arrivals = Literal["poisson", "periodic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntry:
    """A pair of applications at two nodes; the first one asks."""

    between: tuple[Name, Name]
    """Nodes."""
    name: Name | None = None
    key_size_bits: Annotated[int, BITS] = 256
    every_s: Annotated[float, PERIOD] = 10.0
    """On average."""
    arrivals: Arrivals = "poisson"
    deadline_s: Annotated[float, PERIOD] = 5.0
    service_class: Annotated[ServiceClass, Key("class")] = "best_effort"
    category: Annotated[int, Between(1, 5)] = 3
    min_bps: Annotated[float, RATE, Key("min_rate")] = 0.0
    """Promised."""
    from_s: Annotated[float, DURATION] = 0.0
    until_s: Annotated[float | None, DURATION] = None

    def __post_init__(self) -> None:
        if self.between[0] == self.between[1]:
            raise CheckError(f"both ends are {self.between[0]}", "name two different nodes", "between")
        if self.key_size_bits % 8 or not 8 <= self.key_size_bits <= 1 << 20:
            raise CheckError(
                f"{self.key_size_bits} bit is no key size", "must be a multiple of 8 from 8 to 1048576", "key_size"
            )
        if self.until_s is not None and self.until_s <= self.from_s:
            raise CheckError(
                f"until {self.until_s:g} s is not after {self.from_s:g} s", "leave one of them out", "until"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubleEntry:
    """Something that happens `at` a time; the words for links are those of topology files."""

    at_s: Annotated[float, DURATION]
    cut: LinkName | None = None
    """Makes no key `for` a time, or until restored."""
    restore: LinkName | None = None
    eve: LinkName | None = None
    """Somebody listens: no key if that lifts the error rate above the link's limit, else nothing."""
    clear: LinkName | None = None
    lose_block: LinkName | None = None
    """The next block of key comes at one end alone."""
    restart: Name | None = None
    """This node loses its memory and is back after `for`."""
    lose_messages: Annotated[float | None, RATIO] = None
    """This share of messages between key managers, from now on."""
    fraction: Annotated[float | None, Between(0.0, 1.0)] = None
    """Share of the pulses an eavesdropper measures."""
    duration_s: Annotated[float | None, PERIOD, Key("for")] = None

    def __post_init__(self) -> None:
        if len(self.given) != 1:
            what = f"{' and '.join(self.given)} stand together" if self.given else "nothing happens"
            raise CheckError(what, f"write one of {', '.join(TROUBLES)}")
        if self.fraction is not None and self.eve is None:
            raise CheckError("a fraction of nothing", "write it beside eve", "fraction")
        if self.duration_s is not None and self.given[0] not in LASTING:
            raise CheckError(f"{self.given[0]} has no end", f"write `for` beside {' or '.join(LASTING)}", "for")
        if self.restart is not None and self.duration_s is None:
            raise CheckError("a restart without an end", "write how long it takes: `for: 10 s`", "restart")

    @property
    def given(self) -> tuple[str, ...]:
        return tuple(name for name in TROUBLES if getattr(self, name) is not None)


TROUBLES = ("cut", "restore", "eve", "clear", "lose_block", "restart", "lose_messages")
LASTING = ("cut", "eve", "restart")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationFile:
    """One run of one design."""

    api_version: Annotated[Literal["keyhop/v1"], Key("apiVersion")]
    design: str = "keyhop"
    topology: str | None = None
    """A built-in network, or a topology file, named from this one."""
    path: tuple[Name, ...] = ()
    """In its place: nodes in a line, the applications at the first and the last."""
    rate_bps: Annotated[float, RATE] = USUAL_RATE_BPS
    """Of links whose topology gives none."""
    delay_s: Annotated[float | None, PERIOD] = None
    """One way between neighbouring nodes; 10 ms, or what the workload sets."""
    block_every_s: Annotated[float, PERIOD] = 1.0
    """How often the modules of a link deliver: what they make in that time comes at once."""
    workload: str | None = None
    """By id or name; W2 if no streams are given either."""
    load: Annotated[float | None, Between(0.001, LOAD_LIMIT)] = None
    """Of the workload: demand over the key rate of the paths; 0.8, or what the workload sets."""
    streams: tuple[StreamEntry, ...] = ()
    """In place of a workload."""
    duration_s: Annotated[float, PERIOD, Key("for")] = 600.0
    """Simulated."""
    seed: Annotated[int, Between(0, SEED_LIMIT)] = 1
    events: tuple[TroubleEntry, ...] = ()
    """Beside those of the topology."""

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise CheckError(f"no design is called {self.design}", nearest(self.design, DESIGNS), "design")
        if (self.topology is None) == (not self.path):
            what = "topology and path stand together" if self.path else "no network"
            raise CheckError(what, "write topology: NAME or path: [ONE, OTHER]", *(("path",) if self.path else ()))
        if self.topology is not None and not names_a_file(self.topology) and self.topology not in known_networks():
            what = f"no built-in network is called {self.topology}"
            raise CheckError(what, f"{nearest(self.topology, known_networks())} A file has a suffix or a /", "topology")
        if self.path and (len(self.path) < 2 or len(set(self.path)) < len(self.path)):
            raise CheckError(f"path of {', '.join(self.path)}", "must name two or more nodes, each once", "path")
        if self.workload is not None:
            self._check_workload(self.workload)
        if self.load is not None and self.streams:
            raise CheckError("a load of streams that say themselves how much", "leave it out", "load")
        if not 0 < self.duration_s <= SECONDS_LIMIT:
            raise CheckError(f"{self.duration_s:g} s is too long", f"must be at most {SECONDS_LIMIT:g} s", "for")
        if not BLOCK_EVERY_S[0] <= self.block_every_s <= BLOCK_EVERY_S[1]:
            legal = f"must be {BLOCK_EVERY_S[0]:g} s to {BLOCK_EVERY_S[1]:g} s"
            raise CheckError(f"a block every {self.block_every_s:g} s", legal, "block_every")
        for at, event in enumerate(self.events):
            if event.at_s >= self.duration_s:
                legal = f"must be before the end of the run, {self.duration_s:g} s"
                raise CheckError(f"{event.at_s:g} s is never reached", legal, "events", at, "at")
        names = [stream.name for stream in self.streams if stream.name is not None]
        for at, stream in enumerate(self.streams):
            if stream.name is not None and names.count(stream.name) > 1:
                raise CheckError(f"{stream.name} stands here twice", "name each once", "streams", at, "name")

    def _check_workload(self, word: str) -> None:
        if self.streams:
            raise CheckError("workload and streams stand together", "write one of them", "streams")
        try:
            find(word)
        except WorkloadError:
            known = (*WORKLOADS, *(workload.name for workload in WORKLOADS.values()))
            raise CheckError(f"no workload is called {word}", nearest(word, known), "workload") from None


def names_a_file(network: str) -> bool:
    return "/" in network or bool(Path(network).suffix)


def known_networks() -> tuple[str, ...]:
    return (*topology.names(), *topology.ALIASES)


assert get_args(ServiceClass) == CLASSES
