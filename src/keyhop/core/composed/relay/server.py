"""What a central server keeps of a network's keys: orders to destroy, and records of what was supplied; never key."""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec

from keyhop.core.composed.nouns.units import Units

KEPT = 100_000
"""Entries of each kind; the oldest go."""


class Purged(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Keys, by their numbers in a pool, that were ordered to be destroyed at both ends."""

    at_ns: int
    node: str
    peer: str
    pool: str
    kids: tuple[Units, ...]


class Metadata(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """The sixteen fields of a supplied key that reports, logs and the server get: all but the key data."""

    timestamp: int
    machine_name: str
    partner_name: str
    key_type: Literal["enc", "dec"]
    key_size: int
    kma_id: str
    kid: int
    """Of its first unit; the rest follows from the size."""
    relay_timestamp: int
    source: str
    destination: str
    ksa_id: str
    receive_timestamp: int
    supply_timestamp: int
    app_source: str
    app_destination: str
    application_id: str


class SuppliedKey(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """All seventeen, as the key itself has them on its way to the application."""

    metadata: Metadata
    key_data: tuple[Units, ...]
    """Where the bits lie; here, too, nobody holds them."""


NODE_SIDE = frozenset(
    {
        *("machine_name", "partner_name", "key_type", "kma_id", "ksa_id"),
        *("relay_timestamp", "receive_timestamp", "supply_timestamp"),
    }
)
"""Fields in which the records of the two ends of a key differ."""


class CentralServer:
    """Told by all nodes of a network; asked by none for key."""

    def __init__(self) -> None:
        self.orders: deque[Purged] = deque(maxlen=KEPT)
        self.records: deque[Metadata] = deque(maxlen=KEPT)

    def purged(self, at_ns: int, node: str, peer: str, pool: str, kids: tuple[Units, ...]) -> None:
        self.orders.append(Purged(at_ns, node, peer, pool, kids))

    def recorded(self, record: Metadata) -> None:
        self.records.append(record)
