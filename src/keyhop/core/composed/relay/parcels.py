"""Key on its way: what a node has of it, how it waits at a hop, and the message that hands it on."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from keyhop.core.composed.nouns.cargo import Payload
from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

Path: TypeAlias = tuple[str, ...]


class Parcel(NamedTuple):
    """Key on its way, at one node."""

    number: int
    bits: int
    path: tuple[str, ...]
    arrived_ns: int
    its: bool
    aside: int = 0
    """Of its bits, for tags of the pair."""
    flow: str = ""
    """For whom it is carried, where that makes a difference."""
    rank: int = 0
    """Before those of a higher one, where it waits."""
    made_ns: int = 0
    """When its source began."""
    congested: bool = False
    """A node on the way was short of key."""
    load: int = 0
    """What came beside the message that brought it."""
    half: str = ""
    """Which of two parts of a key it is."""

    @property
    def payload(self) -> Payload:
        return Payload(self.path[0], self.path[-1], self.number, self.half)


class HopQueue(Protocol):
    """What waits at a hop for a pad of the next link."""

    def put(self, parcel: Parcel) -> None: ...
    def head(self) -> Parcel | None:
        """The next one; it stays the next until it is taken away."""
        ...

    def pop(self) -> Parcel: ...


class InOrder:
    """First in, first out."""

    def __init__(self) -> None:
        self._parcels: deque[Parcel] = deque()

    def put(self, parcel: Parcel) -> None:
        self._parcels.append(parcel)

    def head(self) -> Parcel | None:
        return self._parcels[0] if self._parcels else None

    def pop(self) -> Parcel:
        return self._parcels.popleft()


def place_of(site: Site, path: Path, peer: str, *, back: bool = False) -> int:
    """Where this site is on a path that a neighbour names: right after that neighbour, or on the way back before it.

    Who speaks decides which link is meant: or a neighbour could have key of another link opened and sent to itself.
    Raises Malformed.
    """
    if site.node not in path or len(set(path)) < len(path):
        raise Malformed(f"path {' '.join(path)[:256]}: must have {site.node} and every other node once")
    at = path.index(site.node)
    beside = at + 1 if back else at - 1
    if not 0 <= beside < len(path) or path[beside] != peer:
        raise Malformed(f"path {' '.join(path)[:256]}: {peer}, who says so, is not next to {site.node} on it")
    following = path[max(0, at - 1) : at + 2]
    if any(node != site.node and node not in site.links for node in following):
        raise Malformed(f"path {' '.join(path)[:256]}: {site.node} has no such neighbours")
    if any(frozenset(hop) not in site.network.rates for hop in pairwise(path)):
        raise Malformed(f"path {' '.join(path)[:256]}: there are no such links")
    return at


def spend(link: Line, pad: Taken, parcel: Parcel, letter: str) -> None:
    """What of the last units of a pad is more than the parcel has is given up with them (O)."""
    over = max(0, pad.bits - parcel.bits)
    link.gone(pad.ranges, letter, pad.run, over_bits=over)


def relay_message(parcel: Parcel, pad: Name, load: int = 0, word: str = "RELAY") -> Kx:
    """A tag and the padded key."""
    counts = (
        *(parcel.number, parcel.bits, pad.taken_bits, pad.unit_bits),
        *(int(parcel.its), parcel.aside, parcel.rank, parcel.made_ns, int(parcel.congested)),
    )
    names = parcel.flow, *parcel.path
    return Kx(word, Verb.TAKE, ranges=pad.ranges, to=pad.label, counts=counts, names=names, cargo=load)


def read_relay(message: Kx, now: int) -> tuple[Parcel, Name]:
    number, bits, taken_bits, unit_bits, its, aside, rank, made_ns, congested = message.counts
    flow, *path = message.names
    pad = Name(False, message.to, message.ranges, bits, taken_bits, unit_bits=unit_bits)
    way = tuple(path)
    parcel = Parcel(number, bits, way, now, bool(its), aside, flow, rank, made_ns, bool(congested), message.cargo)
    return parcel, pad
