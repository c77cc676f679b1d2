"""Keys derived from less key than they have: 32 bytes give up to 32 of them, and their IDs say of which and which.

The ID of a derived key names its parent and itself in one number: positions are those of a run of which each parent
has 32, one for each child. Both ends keep in their map of used bytes which children were given; a parent's bytes
serve for nothing else.
"""

from __future__ import annotations

from keyhop.core.machine import Derived
from keyhop.core.model import Range, RunId

DERIVED_VIEW = 3
"""Beside the kinds of runs: positions in a key run, meant as children."""
PARENT_BYTES = 32
CHILDREN = PARENT_BYTES
SIZE_LIMIT_BITS = 255 * 256
"""One expansion of HKDF with SHA-256 (RFC 5869, 2.3)."""
INFO = b"keyhop derived key v1"


def view_of(run: RunId) -> int:
    """The number that IDs of keys derived from this run carry."""
    return DERIVED_VIEW << 1 | run.number & 1


def parents_for(number: int) -> int:
    return -(-number // CHILDREN)


def parent_of(run: RunId, start: int) -> Range:
    return Range(run, start - start % PARENT_BYTES, PARENT_BYTES)


def child_of(run: RunId, start: int, length: int) -> Derived:
    """`start`: of the parent, and so many more as the child is behind the first."""
    number = view_of(run)
    info = INFO + number.to_bytes(2, "big") + start.to_bytes(8, "big") + length.to_bytes(4, "big")
    return Derived(Range(RunId(run.peer, number), start, length), length * 8, info)
