"""What was given and what was refused, as plain numbers, and who is told of it."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Collection, Sequence

from keyhop.core.model import AppId, Refusal, RequestError
from keyhop.daemon.audit import Delivery

RETRY_S = 2.0
"""When to ask again where nobody can say: a lease or a link may be there by then."""
TRY_LATER = frozenset({Refusal.NOT_ENOUGH_KEY, Refusal.RATE_LIMITED, Refusal.UNAVAILABLE})

Delivered = Callable[[str, str, str, Sequence[str], int], None]
"""Takes role (`enc`, `dec`), the caller, the other application, key IDs and the size in bits."""
Refused = Callable[[str, str, str, RequestError], None]
"""Takes role, the caller, the other application and why."""


ETSI014 = "etsi014"
LOCAL = "local"
"""The socket for programs of this machine."""


def delivery_of(interface: str, role: str, caller: str, peer: str, size_bits: int, *nodes: str) -> Delivery:
    """The part of the audit record that is the same for every key of this size; `nodes` from master to slave."""
    return Delivery(
        actor={"sae": caller},
        interface=interface,
        role=role,
        peer=peer,
        size_bits=size_bits,
        path=tuple(dict.fromkeys(nodes)),
    )


class Tally:
    """One application: for the metrics and the node API."""

    __slots__ = ("bytes", "keys", "last_id", "last_ns", "last_peer", "last_refusal", "last_role", "refused")

    def __init__(self) -> None:
        self.keys = {"enc": 0, "dec": 0}
        self.bytes = {"enc": 0, "dec": 0}
        self.refused: dict[str, int] = {}
        self.last_refusal = ""
        self.last_id = ""
        self.last_ns = 0
        self.last_peer = ""
        self.last_role = "enc"


class Tallies:
    def __init__(self, applications: Collection[AppId]) -> None:
        """`applications`: those of this node; the collection may change."""
        self._applications = applications
        self.by_application: dict[str, Tally] = {}
        self.keys: Counts[tuple[str, str]] = Counts()
        self.bytes: Counts[tuple[str, str]] = Counts()
        """By interface and role; of all applications."""
        self.refused: Counts[Refusal] = Counts()
        """Also of callers that nobody knows."""
        self.on_delivered: list[Delivered] = []
        """Costs one truth test while nobody listens."""
        self.on_refused: list[Refused] = []

    def of(self, application: str) -> Tally:
        tally = self.by_application.get(application)
        if tally is None:
            tally = self.by_application[application] = Tally()
        return tally

    def delivered(
        self,
        interface: str,
        role: str,
        caller: str,
        peer: str,
        key_ids: Sequence[str],
        size_bits: int,
        length_bytes: int,
    ) -> None:
        """Keys that are on their way to the caller; `length_bytes` is that of all of them."""
        tally = self.by_application.get(caller) or self.of(caller)
        tally.keys[role] += len(key_ids)
        tally.bytes[role] += length_bytes
        self.keys[interface, role] += len(key_ids)
        self.bytes[interface, role] += length_bytes
        tally.last_id, tally.last_peer, tally.last_role = key_ids[-1], peer, role
        tally.last_ns = time.monotonic_ns()
        if self.on_delivered:
            for call in self.on_delivered:
                call(role, caller, peer, key_ids, size_bits)

    def refuse(self, role: str, caller: str, peer: str, error: RequestError) -> None:
        """Counts a refusal, and says when to come again where nobody can know."""
        if error.retry_after_s is None and error.reason in TRY_LATER:
            error.retry_after_s = RETRY_S
        self.refused[error.reason] += 1
        if AppId(caller) in self._applications:
            tally = self.of(caller)
            tally.refused[error.reason] = tally.refused.get(error.reason, 0) + 1
            tally.last_refusal = error.message
            for call in self.on_refused:
                call(role, caller, peer, error)
