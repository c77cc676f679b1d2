"""When stored material is deleted, and what a full store does."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal, NamedTuple

FullStore = Literal["stop", "drop_new", "replace_oldest"]

DAY_NS = 24 * 3600 * 1_000_000_000


class Overflow(NamedTuple):
    """What a store does with fresh key, in the unit it was asked in."""

    accepted: int
    destroyed_oldest: int = 0
    """Of the stock, before."""
    stopped: bool = False
    """The module is told to send no more; what is not accepted waits there. Otherwise it is dropped."""


def overflow(full_store: str, incoming: int, stock: int, capacity: int, idle: bool) -> Overflow:
    """Fresh key for a store of so much room: stop, drop_new, or replace_oldest.

    The survey recommends to replace the oldest of a full store that nobody draws from (2.1, S); in one that is drawn
    from the oldest is the next to be used, so fresh key is dropped there (K).
    """
    room = max(0, capacity - stock)
    if incoming <= room:
        return Overflow(incoming)
    match full_store:
        case "stop":
            return Overflow(room, stopped=True)
        case "drop_new":
            return Overflow(room)
        case "replace_oldest" if idle:
            accepted = min(incoming, capacity)
            return Overflow(accepted, destroyed_oldest=max(0, stock + accepted - capacity))
        case "replace_oldest":
            return Overflow(room)
        case _:
            raise ValueError(f"full_store = {full_store}: must be stop, drop_new or replace_oldest")


@dataclass(frozen=True, slots=True)
class AgePurge:
    """Untouched segments older than `max_age_ns` expire; only the owner expires."""

    max_age_ns: int = 30 * DAY_NS
    full_store: FullStore = "stop"
    """A full run takes no fresh block."""

    def expired(self, age_ns: int) -> bool:
        return age_ns > self.max_age_ns

    def takes(self, incoming: int, stock: int, capacity: int, idle: bool = False) -> Overflow:
        return overflow(self.full_store, incoming, stock, capacity, idle)


@dataclass(frozen=True, slots=True)
class EraseNow:
    """A used key is erased before the next is given (what is assumed of every design that says nothing, K)."""

    full_store: FullStore = "stop"

    def erases(self, used: int) -> int:
        """How many of the used keys go now."""
        return used

    def takes(self, incoming: int, stock: int, capacity: int, idle: bool = False) -> Overflow:
        return overflow(self.full_store, incoming, stock, capacity, idle)


@dataclass(frozen=True, slots=True)
class EraseInBatches:
    """Used keys are erased many at a time, which is faster (Toshiba 2019, S).

    Their ids must stand in a durable log before ciphertext leaves, or a restart gives them again (K): `may_supply`.
    """

    n: int = 1024
    """Keys per batch (K)."""
    full_store: FullStore = "stop"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"erase_in_batches.n = {self.n}: must be 1 or more")

    def erases(self, used: int) -> int:
        """Whole batches; what is left is exposed and counts as used."""
        return used - used % self.n

    def may_supply(self, number: int, used_log: Set[int]) -> bool:
        return number not in used_log

    def takes(self, incoming: int, stock: int, capacity: int, idle: bool = False) -> Overflow:
        return overflow(self.full_store, incoming, stock, capacity, idle)
