"""Which designs a node runs itself, with the types that its code relies on, and which it hosts on its links."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from keyhop.core.designs.design import Design
from keyhop.core.designs.keyhop import KEYHOP
from keyhop.core.designs.parts import PARTS, word
from keyhop.core.designs.rules import check
from keyhop.core.policy.admission import AdmitAll, Reservation
from keyhop.core.policy.disposal import AgePurge
from keyhop.core.policy.division import EncDec
from keyhop.core.policy.fallback import Deny
from keyhop.core.policy.formatting import ChunkOnReception, SliceOnSupply
from keyhop.core.policy.priority import Fifo
from keyhop.core.policy.refill import ByDemand
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState, Sdn
from keyhop.core.policy.sharing import FirstCome
from keyhop.core.policy.storage import ByteStream
from keyhop.core.policy.synchronisation import Lease

WIRED: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "storage": (ByteStream, {}),
    "division": (EncDec, {}),
    "refill": (ByDemand, {"forecast": "marks"}),
    "disposal": (AgePurge, {}),
    "admission": (AdmitAll, {}),
    "sharing": (FirstCome, {}),
    "priority": (Fifo, {}),
    "formatting.reception": (ChunkOnReception, {}),
    "formatting.supply": (SliceOnSupply, {"step": 8}),
    "fallback": (Deny, {}),
    "synchronisation": (Lease, {}),
    "relay": (HopByHop, {"payload": "local", "paths": "one", "queued": False}),
    "routing": (LinkState, {"measure": "fill", "directory": ""}),
}
"""Answer -> the part that node code follows, and the parameters of which it knows one value alone."""

NAMED = 3
"""Of what is not wired, in a refusal."""

PartT = TypeVar("PartT")

DOORS_OF_A_NODE = frozenset({"etsi014"})


class NotRunning(ValueError):
    """A composition that nodes cannot run."""


@dataclass(frozen=True, slots=True)
class Running:
    """A design as node code sees it: one part where others may have several."""

    name: str
    storage: ByteStream
    division: EncDec
    refill: ByDemand
    disposal: AgePurge
    synchronisation: Lease
    relay: HopByHop
    routing: LinkState


def not_wired(design: Design) -> list[str]:
    """Answers of the design that node code does not follow: `division shared`, `relay.payload random`."""
    missing = []
    for question in PARTS:
        several = isinstance(getattr(design, question), tuple)
        for path, part in design.answers(question).items():
            kind, fixed = WIRED.get(question if several else path, (None, {}))
            if kind is None or not isinstance(part, kind):
                missing.append(f"{question if several else path} {word(part)}")
                continue
            for parameter in dataclasses.fields(part):
                value = getattr(part, parameter.name)
                if value != fixed.get(parameter.name, value):
                    missing.append(f"{path}.{parameter.name} {value}")
    missing += [f"door {door}" for door in design.doors if door not in DOORS_OF_A_NODE]
    return missing


def running(design: Design) -> Running:
    """The parts a node runs; raises NotRunning, naming what it lacks."""
    broken, missing = check(design), not_wired(design)
    if broken:
        raise NotRunning(f"{design.name} is no design: {'; '.join(broken)}")
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        lacking = ", ".join(missing[:NAMED])
        raise NotRunning(f"{design.name} is a composition that nodes cannot run yet: not wired are {lacking}{more}")
    return Running(
        design.name,
        _known(design.storage, ByteStream),
        _known(design.division, EncDec),
        _known(design.refill, ByDemand),
        _known(design.disposal, AgePurge),
        _known(design.synchronisation, Lease),
        _known(design.relay, HopByHop),
        _known(design.routing, LinkState),
    )


def _known(part: object, kind: type[PartT]) -> PartT:
    """`not_wired` has looked at it; this says so to the type checker, and to whoever forgets it."""
    assert isinstance(part, kind), part
    return part


def not_hosted(design: Design) -> str:
    """Why a node cannot host this design on links that follow our own; empty if it can."""
    broken = check(design)
    if broken:
        return f"{design.name} is no design: {'; '.join(broken)}"
    return ""


def controlled(design: Design) -> bool:
    """Whether it lets in at a controller that knows slots of rate: a node can carry that part."""
    admission, routing = design.admission, design.routing
    slots = isinstance(admission, Reservation) and admission.of == "slots"
    return isinstance(design.relay, HopByHop) and slots and isinstance(routing, Sdn)


def no_relay(design: Design, *, controller: bool = False) -> str:
    """Why a node that hosts this design cannot carry key for it over relay nodes; empty if it can, or it has none.

    `controller`: whether its configuration names the node that is the controller.
    """
    match design.relay:
        case HopByHop(paths="xor"):
            return f"{design.name} makes one key of two paths, and a node's vault joins no two keys"
        case HopByHop() if controlled(design):
            why = f"{design.name} lets in at one controller, and no node of this network is named as it"
            return "" if controller else why
        case HopByHop() if isinstance(design.admission, Reservation) and isinstance(design.routing, Sdn):
            return f"{design.name} lets in at one controller, which no node is"
    return ""


def hosted(design: Design) -> bool:
    """Whether its parts are carried out by a site on top of the node's links."""
    return bool(not_wired(design))


def on_a_node(design: Design) -> str:
    """yes; hosted: its parts deal out what the node's own links lease, and carry it on where the design has relay;
    hosted, with a controller: the same, once a node is named as that; hosted, no relay: neighbours alone; no."""
    if not hosted(design):
        return "yes"
    if not_hosted(design):
        return "no"
    if no_relay(design, controller=True):
        return "hosted, no relay"
    return "hosted, with a controller" if controlled(design) else "hosted"


def carrier(design: Design) -> Running:
    """What the links of a node follow: the design itself, or our own below another. Raises NotRunning."""
    if not hosted(design):
        return running(design)
    if reason := not_hosted(design):
        raise NotRunning(reason)
    return running(KEYHOP)
