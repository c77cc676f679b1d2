"""How the size of key changes on reception and on supply."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """What comes in is kept as it is; what goes out is whole units."""


@dataclass(frozen=True, slots=True)
class ChunkOnReception:
    """Chunks of any length are cut into units."""


@dataclass(frozen=True, slots=True)
class SliceOnSupply:
    """A key is cut to the size asked for, in steps."""

    step: int = 8
    """Bits."""


@dataclass(frozen=True, slots=True)
class SplitMerge:
    """Keys are split and merged until one has the size."""


@dataclass(frozen=True, slots=True)
class Kdf:
    """Every key is derived from one parent."""
