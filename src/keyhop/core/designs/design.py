"""What a design is: one answer to each of twelve questions, and where each answer comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar

from keyhop.core.designs.parts import (
    PARTS,
    Admission,
    Disposal,
    Division,
    Fallback,
    Format,
    Priority,
    Refill,
    Relay,
    Routing,
    Sharing,
    Storage,
    Synchronisation,
    word,
)
from keyhop.core.designs.source import Source
from keyhop.core.policy.admission import AdmitAll
from keyhop.core.policy.disposal import EraseNow
from keyhop.core.policy.division import EncDec, Session, Shared
from keyhop.core.policy.fallback import Deny
from keyhop.core.policy.formatting import Identity
from keyhop.core.policy.priority import Fifo
from keyhop.core.policy.refill import NoThreshold
from keyhop.core.policy.relay import NoRelay, RelayXor, learns
from keyhop.core.policy.routing import NoRouting
from keyhop.core.policy.sharing import FirstCome
from keyhop.core.policy.synchronisation import DirectedPool, Lease, ProposeAccept, StoreLoad, WorkingSet

PartT = TypeVar("PartT", covariant=True)


@dataclass(frozen=True, slots=True)
class LocalGlobal(Generic[PartT]):
    """Two answers to one question: for the pools of a link, and for those of a distant pair."""

    local: PartT
    global_: PartT


@dataclass(frozen=True, slots=True)
class Formatting:
    """What is done to the size of key where it comes in, and where it goes out."""

    reception: Format = field(default_factory=Identity)
    supply: Format = field(default_factory=Identity)


class Access(StrEnum):
    """How an end comes to a range of a run."""

    OWNED = "owned"
    """One end allocates, the other follows."""
    DEALT = "dealt"
    """Both ends apply one rule to the same positions, and nobody asks."""
    ASKED = "asked"
    """Either end asks; the peer agrees before the range is used."""
    TAKEN = "taken"
    """Used first and told afterwards: the only access in which two uses can collide."""


class Leaf(NamedTuple):
    """One line of a composition: an answer, or a parameter of one."""

    path: str
    value: Any
    """The part's name for an answer."""
    source: Source
    is_answer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What is not given is the plain answer; storage and synchronisation have none."""

    name: str
    title: str
    row: str = ""
    """Its row in the survey's tables; empty if it has none."""

    storage: Storage
    division: Division | tuple[Division, ...] = field(default_factory=Shared)
    """Several: outermost first."""
    refill: Refill | LocalGlobal[Refill] = field(default_factory=NoThreshold)
    disposal: Disposal | tuple[Disposal, ...] = field(default_factory=EraseNow)
    admission: Admission = field(default_factory=AdmitAll)
    sharing: Sharing = field(default_factory=FirstCome)
    priority: Priority = field(default_factory=Fifo)
    formatting: Formatting = field(default_factory=Formatting)
    fallback: Fallback = field(default_factory=Deny)
    synchronisation: Synchronisation | LocalGlobal[Synchronisation]
    relay: Relay = field(default_factory=NoRelay)
    routing: Routing = field(default_factory=NoRouting)

    door: str | tuple[str, ...]
    profile: str = ""
    """How a `session` door is used."""

    request: tuple[str, ...] = ()
    """What a request carries beside its size and its two applications."""
    promises_its: bool = False
    """Every key it supplies is information-theoretically secure, if the modules' key is."""
    compares: bool = True
    """Both ends compare what came in before any of it is used."""

    sources: Mapping[Source, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Tag -> dotted fields. A tag on a question is one on the answers given to it, never on their parameters. What no
    source is named for counts as ours, so that a forgotten tag never passes a guess off as theirs."""

    @property
    def divisions(self) -> tuple[Division, ...]:
        return self.division if isinstance(self.division, tuple) else (self.division,)

    @property
    def doors(self) -> tuple[str, ...]:
        return self.door if isinstance(self.door, tuple) else (self.door,)

    @property
    def synchronisations(self) -> LocalGlobal[Synchronisation]:
        answer = self.synchronisation
        return answer if isinstance(answer, LocalGlobal) else LocalGlobal(answer, answer)

    @property
    def access(self) -> LocalGlobal[Access]:
        """Follows from synchronisation and division; nobody chooses it."""
        both = self.synchronisations
        return LocalGlobal(self._access(both.local), self._access(both.global_))

    def _access(self, synchronisation: Synchronisation) -> Access:
        match synchronisation:
            case Lease() | DirectedPool() | StoreLoad() | ProposeAccept(by="master"):
                return Access.OWNED
            case WorkingSet():
                return Access.TAKEN
        if any(isinstance(division, Session) for division in self.divisions):
            return Access.DEALT
        return Access.OWNED if any(isinstance(division, EncDec) for division in self.divisions) else Access.ASKED

    @property
    def keeps_global_key(self) -> bool:
        """A session at a declared rate takes relayed key as it arrives and leaves nothing to store."""
        return not isinstance(self.relay, NoRelay) and self.profile != "rate"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What this design cannot promise and others can: said wherever the design is shown."""
        said = []
        if Access.TAKEN in (self.access.local, self.access.global_):
            said.append("Both ends may take the same key at once; such a key is destroyed at both.")
        if not self.compares:
            said.append("Nothing compares what came in: an error of a module reaches applications as unequal keys.")
        return tuple(said)

    @property
    def on_the_way(self) -> str:
        """What a node between two ends learns of their key, computed from the legs of the plan; empty without relay."""
        if isinstance(self.relay, NoRelay):
            return ""
        path = ("a", "b", "c") if isinstance(self.relay, RelayXor) else ("a", "b", "c", "d")
        plan = self.relay.plan(path)
        between = path[1:-1]
        if all(learns(plan, path, node, [leg for leg in plan.legs if node in (leg.at, leg.to)]) for node in between):
            return "A node on the way learns a relayed key out of what passes through it."
        if all(learns(plan, path, node, plan.legs) for node in between):
            return (
                "A node on the way cannot compute a relayed key out of what passes through it; with the message that "
                "goes straight from end to end it can."
            )
        return "No node on the way learns a relayed key, whatever it hears."

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Every answer and every parameter with its source, in the order of the questions."""
        tags = {path: source for source, paths in self.sources.items() for path in paths}
        return tuple(_with_sources(self, tags))

    @property
    def own_share(self) -> float:
        """Fields that are our choice among all fields: how much of this design is ours."""
        leaves = self.leaves
        return sum(leaf.source is Source.OWN for leaf in leaves) / len(leaves)

    def is_guess(self, leaf: Leaf) -> bool:
        """Whether it says of others what nobody knows; in a design that names no source all is ours."""
        return bool(self.sources) and leaf.source in (Source.REMEMBERED, Source.OWN)

    def answers(self, question: str) -> dict[str, Any]:
        """Dotted field -> part; several where a question takes several answers."""
        return dict(_answers(question, getattr(self, question)))


def fields(design: Design) -> frozenset[str]:
    """Every name that `sources` may mention."""
    return frozenset({*(leaf.path for leaf in design.leaves), *PARTS, "door"})


def _answers(question: str, answer: Any) -> Iterator[tuple[str, Any]]:
    match answer:
        case LocalGlobal(local, distant):
            yield f"{question}.local", local
            yield f"{question}.global", distant
        case Formatting(reception, supply):
            yield f"{question}.reception", reception
            yield f"{question}.supply", supply
        case tuple():
            for part in answer:
                yield f"{question}.{word(part)}", part
        case _:
            yield question, answer


def _with_sources(design: Design, tags: Mapping[str, Source]) -> Iterator[Leaf]:
    for question in PARTS:
        for path, part in _answers(question, getattr(design, question)):
            yield Leaf(path, word(part), tags.get(path, tags.get(question, Source.OWN)), True)
            # What is no part has no parameters; the rules refuse it with a sentence.
            for parameter in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
                below = f"{path}.{parameter.name}"
                yield Leaf(below, getattr(part, parameter.name), tags.get(below, Source.OWN), False)
    for door in design.doors:
        path = "door" if isinstance(design.door, str) else f"door.{door}"
        yield Leaf(path, door, tags.get(path, tags.get("door", Source.OWN)), True)
    if design.profile:
        yield Leaf("door.profile", design.profile, tags.get("door.profile", Source.OWN), False)
