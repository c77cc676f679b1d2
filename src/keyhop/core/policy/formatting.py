"""How the size of key changes on reception and on supply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from keyhop.core.model import Refusal, RequestError


class Cut(NamedTuple):
    """What a key of some size takes of the store, and what of that is handed out beyond it or lost (booked O)."""

    taken_bits: int
    wasted_bits: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What comes in is kept as it is, what goes out is whole units; the rest of the last one is wasted (DARPA, NEC)."""

    def supply(self, size_bits: int, unit_bits: int) -> Cut:
        taken = -(-_positive(size_bits) // unit_bits) * unit_bits
        return Cut(taken, taken - size_bits)


@dataclass(frozen=True, slots=True)
class ChunkOnReception:
    """Chunks of any length are cut into units, so that modules of all makes feed one store (SECOQC, NICT, Cisco: S)."""

    def cut(self, waiting_bits: int, chunk_bits: int, unit_bits: int) -> tuple[int, int]:
        """(whole units, bits that wait for the next chunk); `waiting_bits` waited before."""
        return divmod(waiting_bits + chunk_bits, unit_bits)


@dataclass(frozen=True, slots=True)
class SliceOnSupply:
    """A key is cut to the size asked for, in steps (NIST: bytes, S; Cisco: its 64-bit rows, K)."""

    step: int = 8
    """Bits."""
    odd: Literal["round_up", "refuse"] = "round_up"
    """A size between steps: the next step is taken and the key cut off (Cisco, K), or the request refused (NIST, S)."""

    def __post_init__(self) -> None:
        if self.step < 8 or self.step % 8:
            raise ValueError(f"slice_on_supply.step = {self.step}: must be a multiple of 8 bits")

    def supply(self, size_bits: int) -> Cut:
        taken = -(-_positive(size_bits) // self.step) * self.step
        if taken != size_bits and self.odd == "refuse":
            raise RequestError(Refusal.UNSUPPORTED, f"size {size_bits} bits: must be a multiple of {self.step}")
        return Cut(taken, taken - size_bits)


class Held(NamedTuple):
    """A key in the store."""

    id: str
    size_bits: int


class Reshaping(NamedTuple):
    """What both ends do, in this order and under the same names, before a key of the size asked for is there."""

    merged: tuple[str, ...]
    """Ids to merge; a single id if none are."""
    parts_bits: tuple[int, ...]
    """Lengths to split the result into, the key first; a single length if it fits."""


@dataclass(frozen=True, slots=True)
class SplitMerge:
    """Keys are split and merged until one has the size (AIT, S); the bits stay where they are, parents are gone.

    Each change is two-phase: the peer's word comes before the key is ready (K).
    """

    smallest_bits: int = 1
    largest_bits: int | None = None
    """Sizes that may be asked for; QKDNetSim has 32 to 10,240 (C). None: as large as there is key."""

    def bounded(self, size_bits: int) -> int:
        """The size, if there are such keys."""
        if size_bits < self.smallest_bits or (self.largest_bits is not None and size_bits > self.largest_bits):
            most = "any more" if self.largest_bits is None else self.largest_bits
            raise RequestError(Refusal.UNSUPPORTED, f"size {size_bits} bits: must be {self.smallest_bits} to {most}")
        return size_bits

    def supply(self, size_bits: int, oldest_first: Sequence[Held]) -> Reshaping | None:
        """An exact key, else the smallest larger one split, else the oldest merged (K); None if all are too little."""
        self.bounded(_positive(size_bits))
        larger = [key for key in oldest_first if key.size_bits >= size_bits]
        if larger:
            key = min(larger, key=lambda one: one.size_bits)
            return Reshaping((key.id,), self._parts(size_bits, key.size_bits))
        merged, total = [], 0
        for key in oldest_first:
            merged.append(key.id)
            total += key.size_bits
            if total >= size_bits:
                return Reshaping(tuple(merged), self._parts(size_bits, total))
        return None

    def may_split(self, parent_bits: int, parts_bits: Sequence[int]) -> bool:
        """Nothing may be left over and nothing be counted twice (K)."""
        return len(parts_bits) > 1 and min(parts_bits) > 0 and sum(parts_bits) == parent_bits

    def may_merge(self, parents_bits: Sequence[int], length_bits: int) -> bool:
        return len(parents_bits) > 1 and sum(parents_bits) == length_bits

    def _parts(self, size_bits: int, total_bits: int) -> tuple[int, ...]:
        return (size_bits,) if total_bits == size_bits else (size_bits, total_bits - size_bits)


class Piece(NamedTuple):
    """A derivation: so many bits of a parent, under its counter. A key is the concatenation of its pieces."""

    key: int
    parent: int
    counter: int
    length_bits: int


@dataclass(frozen=True, slots=True)
class Kdf:
    """Every key is derived from keys of the pool, of any number and size (KISTI, S); it is no longer ITS.

    RFC 5869 bounds one expansion at 255 hashes. Derived bits are booked F, their parents D.
    """

    hash_bits: int = 256
    """HKDF with SHA-256 (K)."""

    @property
    def parent_limit_bits(self) -> int:
        return 255 * self.hash_bits

    def parents(self, keys: int, size_bits: int) -> int:
        """How many parents so many keys take."""
        return -(-keys * _positive(size_bits) // self.parent_limit_bits)

    def pieces(self, keys: int, size_bits: int) -> list[Piece]:
        """The keys one after another over the parents; one that meets a parent's end goes on with the next (K)."""
        _positive(size_bits)
        found: list[Piece] = []
        parent = counter = used = 0
        for key in range(keys):
            missing = size_bits
            while missing:
                if used == self.parent_limit_bits:
                    parent, counter, used = parent + 1, 0, 0
                length = min(missing, self.parent_limit_bits - used)
                found.append(Piece(key, parent, counter, length))
                counter, used, missing = counter + 1, used + length, missing - length
        return found


def _positive(size_bits: int) -> int:
    if size_bits < 1:
        raise RequestError(Refusal.BAD_REQUEST, f"size {size_bits} bits: must be 1 or more")
    return size_bits
