"""Which waiting request is tried next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, NamedTuple

CLASSES = ("guaranteed", "prioritised", "best_effort")
"""By how much Distribution Time an application stands, the tightest first (QoS-supported KM, S)."""

CATEGORIES = 5
"""Quantum Canada's categories by security need, 1 the highest; only their number is known (S), see fallback (K)."""


class Waiting(NamedTuple):
    """A request in the queue."""

    number: int
    """By arrival."""
    arrived_ns: int = 0
    size_bits: int = 0
    security_level: int = 0
    """DDKA's K_sec, 0 to 9; 0 is plaintext and needs no key (K)."""
    service_class: str = "best_effort"
    category: int = CATEGORIES


@dataclass(frozen=True, slots=True)
class Fifo:
    """In order of arrival."""

    def sort_key(self, request: Waiting) -> tuple[int, int]:
        return request.arrived_ns, request.number

    def rank(self, requests: Sequence[Waiting]) -> list[Waiting]:
        return sorted(requests, key=self.sort_key)


@dataclass(frozen=True, slots=True)
class StrictPriority:
    """The better class or category first, within one the earlier; what is being served is not interrupted.

    HHQA has two queues per hop, prioritised before best effort (S), so that under overload best effort starves.
    """

    by: Literal["class", "category"] = "class"
    """class: QoS-supported KM (S); category: Quantum Canada, whose text and Table 2 disagree (K)."""

    def sort_key(self, request: Waiting) -> tuple[int, int, int]:
        if self.by == "class":
            if request.service_class not in CLASSES:
                raise ValueError(f"class {request.service_class}: must be one of {', '.join(CLASSES)}")
            return CLASSES.index(request.service_class), request.arrived_ns, request.number
        if not 1 <= request.category <= CATEGORIES:
            raise ValueError(f"category {request.category}: must be 1 to {CATEGORIES}")
        return request.category, request.arrived_ns, request.number

    def rank(self, requests: Sequence[Waiting]) -> list[Waiting]:
        return sorted(requests, key=self.sort_key)


@dataclass(frozen=True, slots=True)
class ResponseWeight:
    """By arrival; requests that arrive together by size, small first, mixed with security, high first (DDKA, S)."""

    omega: float = 0.5
    """0 counts size alone, 1 security alone; the default is ours (K)."""
    slot_ns: int = 10_000_000
    """Requests within one such slot arrive together (K)."""

    def __post_init__(self) -> None:
        if not 0 <= self.omega <= 1 or self.slot_ns < 1:
            raise ValueError(
                f"response_weight.omega = {self.omega}, slot_ns = {self.slot_ns}: "
                "must be between 0 and 1, and at least 1"
            )

    def needs_key(self, request: Waiting) -> bool:
        return request.security_level > 0

    def weight(self, size_bits: int, security_level: int) -> float:
        """(1 - omega) ln K_qua + omega ln(10 - K_sec), eq. (2); the least is tried first."""
        if size_bits < 1 or not 0 <= security_level <= 9:
            raise ValueError(f"size {size_bits}, security level {security_level}: must be 1 bit or more, and 0 to 9")
        return (1 - self.omega) * log(size_bits) + self.omega * log(10 - security_level)

    def sort_key(self, request: Waiting) -> tuple[int, float, int]:
        weight = self.weight(request.size_bits, request.security_level)
        return request.arrived_ns // self.slot_ns, weight, request.number

    def rank(self, requests: Sequence[Waiting]) -> list[Waiting]:
        """Also the order of supplement requests (S)."""
        return sorted(requests, key=self.sort_key)
