"""Where the bits of a key run come from: kept as they were placed, told along a path, and made into labels of keys."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import msgspec

from keyhop.core import epsilon as epsilons
from keyhop.core import label as labels
from keyhop.core.label import Label
from keyhop.core.messages import (
    LABEL_PATHS_LIMIT,
    LABEL_PIECES_LIMIT,
    LABEL_TERMS_LIMIT,
    LABELS_LIMIT_BYTES,
    LabelPiece,
    LabelTerm,
    decode_labels,
    encode_labels,
)
from keyhop.core.model import NANOSECONDS, NodeId, PeerError

MILLISECONDS = NANOSECONDS // 1000
UNDECLARED = 0.0
"""The epsilon of a module that declares none."""
LABELS_LIMIT = 4096
"""Labels kept because they were asked for."""


class Provenance(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Of a stretch of a run, alike at both ends but for `born`."""

    born: int
    """When the oldest bits came, in nanoseconds of the clock that this node's restarts share."""
    terms: tuple[LabelTerm, ...]
    """One for a block of a link; of relayed key also those of all pads."""
    paths: tuple[tuple[str, ...], ...]


NOTHING_KNOWN = Provenance(0, (), ())


def of_block(module: str, number: int, said: Iterable[tuple[float, str]], ends: Sequence[str], born: int) -> Provenance:
    """`said`: epsilon and vendor as each end's module declares them. The worse epsilon counts, and both vendors."""
    declared = list(said)
    figures = [epsilon for epsilon, _ in declared]
    epsilon = UNDECLARED if UNDECLARED in figures else max(figures)
    vendors = sorted({vendor for _, vendor in declared})
    return Provenance(born, tuple(LabelTerm(module, number, epsilon, vendor) for vendor in vendors), (tuple(ends),))


def unknown(ends: Sequence[str], born: int) -> Provenance:
    """Of bits that nothing is recorded of: no bound is claimed for them."""
    return Provenance(born, (LabelTerm("", labels.UNKNOWN, UNDECLARED, ""),), (tuple(ends),))


class Provenances:
    """Of one run, by place: one entry for each block or batch, however many segments it was cut into."""

    __slots__ = ("_entries", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._entries: list[tuple[int, Provenance]] = []
        """(end, what is known)"""

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int, provenance: Provenance) -> None:
        at = bisect_left(self._starts, start)
        self._starts.insert(at, start)
        self._entries.insert(at, (end, provenance))

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, Provenance | None]]:
        """[start, end) in parts of one provenance each; None where nothing is recorded."""
        at = max(0, bisect_right(self._starts, start) - 1)
        while start < end:
            while at < len(self._starts) and self._entries[at][0] <= start:
                at += 1
            if at == len(self._starts) or self._starts[at] >= end:
                yield start, end, None
                return
            if start < self._starts[at]:
                yield start, self._starts[at], None
                start = self._starts[at]
            stop, provenance = self._entries[at]
            yield start, min(stop, end), provenance
            start = stop

    def forget_below(self, floor: int) -> list[tuple[int, int]]:
        """(start, length) of the entries that end at or below the floor: they are gone."""
        gone = 0
        while gone < len(self._starts) and self._entries[gone][0] <= floor:
            gone += 1
        forgotten = [(self._starts[at], self._entries[at][0] - self._starts[at]) for at in range(gone)]
        del self._starts[:gone], self._entries[:gone]
        return forgotten

    def newest(self) -> int:
        return max((provenance.born for _, provenance in self._entries), default=0)


# Labels.


@lru_cache(maxsize=LABELS_LIMIT)
def label_of(provenance: Provenance) -> Label:
    parts = [
        labels.block(
            term.module,
            term.number,
            (NodeId(provenance.paths[0][0]), NodeId(provenance.paths[0][-1])),
            provenance.born,
            epsilon=None if term.epsilon == UNDECLARED else epsilons.epsilon(term.epsilon),
            vendor=term.vendor,
        )
        for term in provenance.terms
    ]
    paths = frozenset(tuple(map(NodeId, path)) for path in provenance.paths)
    relayed = any(len(path) > 2 for path in paths)
    key = msgspec.structs.replace(
        labels.concatenated(parts), paths=paths, trust=labels.Trust.FULL if relayed else labels.Trust.DIRECT
    )
    return key


def label_within(provenances: Provenances, start: int, end: int, ends: Sequence[str], now: int) -> Label:
    """Of a key that is these bytes as they stand."""
    parts = [label_of(known or unknown(ends, now)) for _, _, known in provenances.within(start, end)]
    return labels.concatenated(parts)


# What is told along a path.


def told(provenances: Provenances, spans: Iterable[tuple[int, int]], ends: Sequence[str], now: int) -> list[LabelPiece]:
    """What a node knows of the bytes it sends by, or under: the spans of its run, one after another."""
    own = frozenset(ends)
    pieces = []
    for start, length in spans:
        for low, high, known in provenances.within(start, start + length):
            known = known or unknown(ends, now)
            others = tuple(path for path in known.paths if frozenset(path) != own)
            age = max(0, now - known.born) // MILLISECONDS
            pieces.append(LabelPiece(high - low, age, known.terms, others))
    return pieces


def over(before: Sequence[LabelPiece], pads: Sequence[LabelPiece]) -> list[LabelPiece]:
    """Of a batch whose bits have this history once they crossed one hop more; both are of one length."""
    found: list[LabelPiece] = []
    left, right = list(reversed(before)), list(reversed(pads))
    while left and right:
        one, other = left.pop(), right.pop()
        length = min(one.length, other.length)
        if one.length > length:
            left.append(msgspec.structs.replace(one, length=one.length - length))
        if other.length > length:
            right.append(msgspec.structs.replace(other, length=other.length - length))
        found.append(_both(one, other, length))
    return found


def written(pieces: list[LabelPiece]) -> bytes:
    """As one message carries them: neighbours that are alike are one, and others where there are too many."""
    found: list[LabelPiece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last is not None and (last.terms, last.paths, last.age_ms) == (piece.terms, piece.paths, piece.age_ms):
            found[-1] = msgspec.structs.replace(last, length=last.length + piece.length)
        else:
            found.append(piece)
    while len(found) > 1 and (len(found) > LABEL_PIECES_LIMIT or len(encode_labels(found)) > LABELS_LIMIT_BYTES):
        found = [
            _both(found[at], found[at + 1], found[at].length + found[at + 1].length)
            if at + 1 < len(found)
            else found[at]
            for at in range(0, len(found), 2)
        ]
    return encode_labels(found)


def read(labels: bytes, length: int) -> tuple[LabelPiece, ...]:
    """Raises PeerError unless something is said of every byte of a batch."""
    pieces = decode_labels(labels)
    if sum(piece.length for piece in pieces) != length or not all(piece.terms for piece in pieces):
        raise PeerError(f"a batch of {length} bytes whose labels are not of all its bytes")
    return pieces


def at_the_end(labels: bytes, length: int, path: tuple[str, ...], now: int) -> list[tuple[int, Provenance]]:
    """(length, what is known) of the bytes of a batch that came over `path`. Raises PeerError."""
    on_it = frozenset(path)
    found = []
    for piece in read(labels, length):
        others = tuple(sorted({other for other in piece.paths if not on_it.issuperset(other)}))
        found.append((piece.length, Provenance(now - piece.age_ms * MILLISECONDS, piece.terms, (path, *others))))
    return found


def _both(one: LabelPiece, other: LabelPiece, length: int) -> LabelPiece:
    """Bits that go wrong if either does."""
    paths = tuple(sorted({*one.paths, *other.paths}))
    if len(paths) > LABEL_PATHS_LIMIT:
        # Whoever stood on one of them held the bits: as one path they are all still named, and count as many hops.
        paths = (tuple(sorted({node for path in paths for node in path}))[: labels.PATHS_LIMIT],)
    return LabelPiece(length, max(one.age_ms, other.age_ms), _added(one.terms, other.terms), paths)


def _added(one: Sequence[LabelTerm], other: Sequence[LabelTerm]) -> tuple[LabelTerm, ...]:
    """Each block once, and where there are too many, all of one module as one, or all of one vendor."""
    terms = sorted({*one, *other})
    for merged in (_of_module, _of_vendor):
        if len(terms) <= LABEL_TERMS_LIMIT:
            break
        groups: dict[tuple[str, str], list[LabelTerm]] = {}
        for term in terms:
            groups.setdefault(merged(term), []).append(term)
        terms = [
            LabelTerm(module, labels.UNKNOWN, _sum(group), vendor) if len(group) > 1 else group[0]
            for (module, vendor), group in sorted(groups.items())
        ]
    return tuple(terms)


def _of_module(term: LabelTerm) -> tuple[str, str]:
    return term.module, term.vendor


def _of_vendor(term: LabelTerm) -> tuple[str, str]:
    return "", term.vendor


def _sum(terms: Sequence[LabelTerm]) -> float:
    """Rounded up, as a float must hold it."""
    if any(term.epsilon == UNDECLARED for term in terms):
        return UNDECLARED
    total = sum(epsilons.epsilon(term.epsilon) for term in terms)
    return min(1.0, float(epsilons.shown(min(total, epsilons.ONE))))
