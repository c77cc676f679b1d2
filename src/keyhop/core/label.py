"""What is known of a key beside its bits, and how that follows when keys are cut, joined, relayed or combined.

Every bit is used once, so two keys never hold the same bits; what they may have in common is the block they were cut
from. A block counts once in a sum, and shares that have one in common are not independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import msgspec

from keyhop.core.epsilon import ONE, shown
from keyhop.core.model import NANOSECONDS, NodeId

PARTS_LIMIT = 1024
"""Blocks behind one key."""
PATHS_LIMIT = 64
"""Paths behind one key."""
BREAKS_LIMIT = 64
"""Sets of vendors told apart; beyond it each vendor alone counts as enough, then nobody at all."""

UNKNOWN = -1
"""The number of a block that nobody has told us."""
UNNAMED = "unnamed"
"""The vendor of a module that names none."""


class Grade(StrEnum):
    ITS = "its"
    """Nothing but one-time pads and QKD, or the XOR of such with something independent."""
    HYBRID = "hybrid"
    """A KDF of QKD and another share."""
    COMPUTATIONAL = "computational"
    """Stretched, or without QKD."""
    LOCAL = "local"
    """Both applications are at one key manager: the key never left the site."""


class Trust(IntEnum):
    """How much of the key a relay holds, the most first; an application may ask for a minimum."""

    FULL = 0
    """Every relay holds the whole key for a moment."""
    PARTIAL = 1
    """A relay holds a share."""
    ERASED = 2
    """A relay holds nothing once it has formed its XOR and erased the two keys."""
    SHARED = 3
    """Relays learn nothing unless enough aggregators join them."""
    DIRECT = 4
    """There is no relay."""


class Entropy(StrEnum):
    """Where the randomness of a key's bits comes from."""

    QKD = "qkd"
    QRNG = "qrng"
    HARDWARE = "hardware"
    OS = "os"


class Origin(NamedTuple):
    """The finest that is known about where bits come from."""

    kind: str
    """qkd, random, ml_kem, …"""
    name: str
    """Link, node or pair."""
    number: int = UNKNOWN


class Term(NamedTuple):
    """One thing that must not go wrong for the key to be secret."""

    origin: Origin
    epsilon: int | None
    """In units of 10^-40; None if it was not declared."""


class Label(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The same at both ends; holds nothing from which bits could be told."""

    grade: Grade
    terms: tuple[Term, ...] = ()
    """The key is as good as ideal unless one of these goes wrong: the union bound adds them up."""
    origins: frozenset[Origin] = frozenset()
    """Of all shares, also of those that `terms` can do without."""
    born_ns: int
    """When the oldest bits came into being."""
    vendors: frozenset[str] = frozenset()
    breaks: frozenset[frozenset[str]] = frozenset()
    """The least sets of vendors who could together know the key."""
    paths: frozenset[tuple[NodeId, ...]] = frozenset()
    """All nodes that held the bits of some share, ends included."""
    trust: Trust = Trust.DIRECT
    rng: frozenset[Entropy] = frozenset()
    combined: bool = False
    """XOR or KDF of several shares."""

    @property
    def epsilon(self) -> int | None:
        """Sum over the parts, in units of 10^-40, rounded up; None where no bound is claimed."""
        if self.grade is not Grade.ITS:
            return None
        total = 0
        for term in self.terms:
            if term.epsilon is None:
                return None
            total += term.epsilon
        # A distance from the ideal is never more than 1.
        return min(total, ONE)

    @property
    def hops(self) -> int:
        return max((len(path) - 1 for path in self.paths), default=0)

    @property
    def min_vendors(self) -> int:
        """So many vendors must fail together before the key is known."""
        return min(map(len, self.breaks), default=0)

    @property
    def nodes(self) -> frozenset[NodeId]:
        return frozenset(node for path in self.paths for node in path)

    def age_ns(self, now: int) -> int:
        return max(0, now - self.born_ns)


# Bits as they come into being.


def block(
    link: str, number: int, ends: tuple[NodeId, NodeId], born_ns: int, *, epsilon: int | None, vendor: str = ""
) -> Label:
    """QKD bits of one block of a link. `epsilon` None: the module declares none, so no bound can be met with it."""
    origin = Origin("qkd", link, number)
    name = vendor or UNNAMED
    return Label(
        grade=Grade.ITS,
        terms=(Term(origin, epsilon),),
        origins=frozenset((origin,)),
        born_ns=born_ns,
        vendors=frozenset((name,)),
        breaks=frozenset((frozenset((name,)),)),
        paths=frozenset((ends,)),
        rng=frozenset((Entropy.QKD,)),
    )


def random_payload(node: NodeId, batch: int, born_ns: int, rng: Entropy) -> Label:
    """Bits a relay's source draws; what carries them gives them their epsilon."""
    origins = frozenset((Origin("random", node, batch),))
    return Label(grade=Grade.ITS, origins=origins, born_ns=born_ns, paths=frozenset(((node,),)), rng=frozenset((rng,)))


def exchanged(kind: str, name: str, number: int, ends: tuple[NodeId, NodeId], born_ns: int) -> Label:
    """The share of an exchange such as ML-KEM. No vendor of modules stands between it and an enemy."""
    return Label(
        grade=Grade.COMPUTATIONAL,
        origins=frozenset((Origin(kind, name, number),)),
        born_ns=born_ns,
        breaks=frozenset((frozenset(),)),
        paths=frozenset((ends,)),
        rng=frozenset((Entropy.OS,)),
    )


def local(node: NodeId, born_ns: int, rng: Entropy) -> Label:
    """A key for two applications at one key manager."""
    return Label(
        grade=Grade.LOCAL,
        origins=frozenset((Origin("random", node),)),
        born_ns=born_ns,
        paths=frozenset(((node,),)),
        rng=frozenset((rng,)),
    )


# What becomes of them.


def split(whole: Label) -> Label:
    """A part is no better than the whole: who tells the part from random bits tells the whole from them."""
    return whole


def concatenated(parts: Sequence[Label]) -> Label:
    """One key of several pieces: as weak as the weakest, wrong if any is; the epsilons add up."""
    if len(parts) == 1:
        return parts[0]
    return _joined(parts, _weakest(parts), _added(parts), any(part.combined for part in parts))


def relayed(payload: Label, pads: Sequence[Label], path: tuple[NodeId, ...], trust: Trust = Trust.FULL) -> Label:
    """`payload`, encrypted with one pad per hop that it crossed: wrong if it or any pad is.

    Whoever held a pad can read what it hid, so its nodes and vendors count as those of the key. `pads` has none for the
    first hop where the payload is that link's own key.
    """
    parts = (payload, *pads)
    combined = any(part.combined for part in parts)
    on_it = set(path)
    others = frozenset(taken for part in parts for taken in part.paths if not on_it.issuperset(taken))
    relays = trust if len(path) > 2 else Trust.DIRECT
    key = _joined(parts, _weakest(parts), _added(parts), combined, others | {path})
    return msgspec.structs.replace(key, trust=min(key.trust, relays))


def xored(shares: Sequence[Label]) -> Label:
    """The XOR of independent shares is as good as its best: its epsilon is the least among those that are `its`.

    That is the distance from a uniform key nobody knows; that both ends hold the same is confirmed apart, of every
    share. Raises ValueError where shares are not independent: they might cancel out.
    """
    _check_independent(shares)
    certain = [share for share in shares if share.grade is Grade.ITS]
    if certain:
        best = min(certain, key=_rank)
        return _either(shares, Grade.ITS, best.terms)
    hybrids = any(share.grade is Grade.HYBRID for share in shares)
    return _either(shares, Grade.HYBRID if hybrids else Grade.COMPUTATIONAL, _added(shares))


def derived(shares: Sequence[Label]) -> Label:
    """What a KDF makes of shares: never `its`, whatever goes in. The epsilon of its QKD shares is declared apart."""
    if not shares:
        raise ValueError("no shares: a KDF needs one or more")
    with_qkd = any(share.grade in (Grade.ITS, Grade.HYBRID) for share in shares)
    if len(shares) == 1:
        grade = Grade.HYBRID if shares[0].grade is Grade.HYBRID else Grade.COMPUTATIONAL
        return msgspec.structs.replace(shares[0], grade=grade, combined=True)
    _check_independent(shares)
    return _either(shares, Grade.HYBRID if with_qkd else Grade.COMPUTATIONAL, _added(shares))


def declared_apart(key: Label) -> int | None:
    """The epsilon of the QKD shares inside a key that is itself not `its`; None if there are none or one is silent."""
    known = [term.epsilon for term in key.terms if term.epsilon is not None]
    return min(sum(known), ONE) if key.terms and len(known) == len(key.terms) else None


def described(key: Label, now: int) -> dict[str, Any]:
    """The label as the members of an extension object of ETSI GS QKD 014."""
    claimed, apart = key.epsilon, declared_apart(key)
    told: dict[str, Any] = {
        "keyhop_grade": key.grade.value,
        "keyhop_combined": key.combined,
        "keyhop_age": key.age_ns(now) // NANOSECONDS,
        "keyhop_hops": key.hops,
        "keyhop_path": sorted([*path] for path in key.paths),
        "keyhop_vendors": sorted(key.vendors),
        "keyhop_trust": key.trust.name.lower(),
        "keyhop_rng": sorted(source.value for source in key.rng),
        "keyhop_origins": sorted({f"{origin.kind}:{origin.name}" for origin in key.origins}),
    }
    if claimed is not None:
        told["keyhop_epsilon"] = float(shown(claimed))
    elif apart is not None:
        told["keyhop_share_epsilon"] = float(shown(apart))
    return told


def _weakest(parts: Iterable[Label]) -> Grade:
    grades = {part.grade for part in parts}
    if Grade.LOCAL in grades and len(grades) > 1:
        raise ValueError("bits that never left the site are not joined with others: the far end does not have them")
    for grade in (Grade.LOCAL, Grade.COMPUTATIONAL, Grade.HYBRID):
        if grade in grades:
            return grade
    return Grade.ITS


def _added(parts: Iterable[Label]) -> tuple[Term, ...]:
    """Each known block once, with the worst that was said of it; unnumbered ones may be different: they add up."""
    found: dict[Origin, int | None] = {}
    for part in parts:
        for origin, one in part.terms:
            if origin not in found:
                found[origin] = one
                continue
            other = found[origin]
            if one is None or other is None:
                found[origin] = None
            else:
                found[origin] = one + other if origin.number == UNKNOWN else max(one, other)
    if len(found) > PARTS_LIMIT:
        raise ValueError(f"{len(found)} blocks behind one key: must be {PARTS_LIMIT} or fewer")
    return tuple(sorted((Term(*item) for item in found.items()), key=lambda term: term.origin))


def _joined(
    parts: Sequence[Label],
    grade: Grade,
    terms: tuple[Term, ...],
    combined: bool,
    paths: frozenset[tuple[NodeId, ...]] | None = None,
) -> Label:
    """Whoever knows one part knows something of the key."""
    return Label(
        grade=grade,
        terms=terms,
        origins=frozenset().union(*(part.origins for part in parts)),
        born_ns=min(part.born_ns for part in parts),
        vendors=frozenset().union(*(part.vendors for part in parts)),
        breaks=_least(frozenset().union(*(part.breaks for part in parts))),
        paths=_few(frozenset().union(*(part.paths for part in parts)) if paths is None else paths),
        trust=min(part.trust for part in parts),
        rng=frozenset().union(*(part.rng for part in parts)),
        combined=combined,
    )


def _either(shares: Sequence[Label], grade: Grade, terms: tuple[Term, ...]) -> Label:
    """Only who knows every share knows the key."""
    breaks: frozenset[frozenset[str]] = shares[0].breaks
    for share in shares[1:]:
        breaks = _least(frozenset(one | other for one in breaks for other in share.breaks))
    key = _joined(shares, grade, terms, combined=True)
    return msgspec.structs.replace(key, breaks=breaks, trust=_trust_of(shares))


def _trust_of(shares: Sequence[Label]) -> Trust:
    """A relay that is on the way of every share puts the key together; else each holds a part at most."""
    on_all: frozenset[NodeId] = frozenset.intersection(
        *(frozenset(node for path in share.paths for node in path[1:-1]) for share in shares)
    )
    if on_all:
        return min(share.trust for share in shares)
    return min(max(Trust.PARTIAL, share.trust) for share in shares)


def _rank(share: Label) -> int:
    claimed = share.epsilon
    return ONE + 1 if claimed is None else claimed


def _check_independent(shares: Sequence[Label]) -> None:
    if len(shares) < 2:
        raise ValueError(f"{len(shares)} shares: must be two or more")
    _weakest(shares)
    seen: set[Origin] = set()
    for share in shares:
        for origin in share.origins:
            if origin in seen or Origin(origin.kind, origin.name) in seen:
                raise ValueError(f"two shares come from {origin.kind} {origin.name}: they must be independent")
            if origin.number == UNKNOWN and any(one[:2] == origin[:2] for one in seen):
                raise ValueError(f"two shares come from {origin.kind} {origin.name}: they must be independent")
        seen |= share.origins


def _least(family: frozenset[frozenset[str]]) -> frozenset[frozenset[str]]:
    """Without the sets that hold another one."""
    if len(family) > 1:
        family = frozenset(one for one in family if not any(other < one for other in family))
    if len(family) <= BREAKS_LIMIT:
        return family
    alone = frozenset(frozenset((vendor,)) for one in family for vendor in one)
    return alone if len(alone) <= BREAKS_LIMIT else frozenset((frozenset(),))


def _few(paths: frozenset[tuple[NodeId, ...]]) -> frozenset[tuple[NodeId, ...]]:
    if len(paths) > PATHS_LIMIT:
        raise ValueError(f"{len(paths)} paths behind one key: must be {PATHS_LIMIT} or fewer")
    return paths
