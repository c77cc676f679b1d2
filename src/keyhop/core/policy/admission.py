"""Who may draw from a path at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from typing import Literal, NamedTuple

EXHAUSTIVE_SERVICES = 8
"""Up to so many requests MTKA can try every order: the oracle of the tests (K)."""

Link = tuple[str, str]


class Offer(NamedTuple):
    """The answer to a request, in the unit of what is reserved."""

    admitted: bool
    counter_offer: int
    """What every link could still promise: what a refusal offers instead (004 status 7)."""


class Service(NamedTuple):
    """A request for an amount on every link of one of its paths."""

    name: str
    amount: int
    paths: tuple[tuple[Link, ...], ...]
    """Shortest first."""


class Matching(NamedTuple):
    """Which services were admitted, on which path, and how well they match what the network has."""

    paths: dict[str, tuple[Link, ...]]
    success: Fraction
    use: Fraction
    degree: Fraction
    """alpha x success probability + beta x use of resources."""


@dataclass(frozen=True, slots=True)
class AdmitAll:
    """Every request is let in; who comes to an empty store is the fallback's matter."""

    def offer(self, asked: int, free: Sequence[int]) -> Offer:
        return Offer(True, min(free, default=0))


@dataclass(frozen=True, slots=True)
class Reservation:
    """A flow is let in if every link of its path can still promise what it asks for, or nowhere at all.

    SECOQC reserves rate hop by hop (S), QKRA amounts for its guaranteed class (S), SDQaaS slots of rate (S).
    """

    of: Literal["stock", "rate", "slots"] = "stock"
    order: Literal["online", "mtka"] = "online"
    """Services as they come, or all known in advance and the best order chosen (MTKA, S)."""
    lend: bool = False
    """What is reserved and idle may be used by others and is given back at once (keyhop)."""
    slot_bps: int = 1000
    """(K)"""
    max_share: float = 1.0
    """All reservations together never hold more of a link; what is left is the floor of best effort (K)."""
    alpha: float = 0.5
    """Weight of success in the matching degree (K)."""
    beta: float = 0.5
    """Weight of the use of resources (K)."""

    def __post_init__(self) -> None:
        if not 0 < self.max_share <= 1 or self.slot_bps < 1:
            raise ValueError(
                f"reservation.max_share = {self.max_share}, slot_bps = {self.slot_bps}: "
                "must be above 0 and at most 1, and at least 1"
            )

    def slots(self, rate_bps: int) -> int:
        return -(-rate_bps // self.slot_bps)

    def free(self, total: int, reserved: int) -> int:
        """What a link can still promise."""
        return max(0, int(total * Fraction(str(self.max_share))) - reserved)

    def offer(self, asked: int, free: Sequence[int]) -> Offer:
        """`free` of each link of the path; the estimate is the least of them, as for Toshiba's ceiling."""
        least = min(free, default=0)
        return Offer(asked <= least, least)

    def modify(self, asked: int, held: int, free: Sequence[int]) -> int:
        """What a service holds after it asked for another amount on its path: that, or what it had (K)."""
        return asked if self.offer(asked, [one + held for one in free]).admitted else held

    def others_may_use(self, stock: int, reserved: int, wanted_by_holders: int = 0) -> int:
        """What of a link's stock those without a reservation may use at this moment."""
        held = min(reserved, wanted_by_holders) if self.lend else reserved
        return max(0, stock - held)

    def choose(self, service: Service, free: Mapping[Link, int]) -> tuple[Link, ...] | None:
        """The first path whose every link can promise the amount."""
        for path in service.paths:
            if self.offer(service.amount, [free[link] for link in path]).admitted:
                return path
        return None

    def admit(self, services: Sequence[Service], totals: Mapping[Link, int]) -> Matching:
        """Admits in the order given."""
        free = {link: self.free(total, 0) for link, total in totals.items()}
        paths: dict[str, tuple[Link, ...]] = {}
        used = 0
        for service in services:
            if path := self.choose(service, free):
                paths[service.name] = path
                used += service.amount * len(path)
                for link in path:
                    free[link] -= service.amount
        success = Fraction(len(paths), max(1, len(services)))
        use = Fraction(used, max(1, sum(totals.values())))
        degree = Fraction(str(self.alpha)) * success + Fraction(str(self.beta)) * use
        return Matching(paths, success, use, degree)

    def match(
        self,
        services: Sequence[Service],
        totals: Mapping[Link, int],
        shuffles: Sequence[Sequence[int]] = (),
        exhaustive: bool = False,
    ) -> Matching:
        """MTKA: of several orders the first with the highest matching degree (S); `shuffles` are drawn outside (K)."""

        def load(service: Service) -> int:
            return service.amount * len(service.paths[0]) if service.paths else 0

        orders: list[Sequence[Service]] = [
            services,
            sorted(services, key=load),
            sorted(services, key=load, reverse=True),
            *([services[number] for number in shuffle] for shuffle in shuffles),
        ]
        if exhaustive:
            if len(services) > EXHAUSTIVE_SERVICES:
                raise ValueError(f"{len(services)} services: every order is tried for up to {EXHAUSTIVE_SERVICES}")
            orders += permutations(services)
        return max((self.admit(order, totals) for order in orders), key=lambda matching: matching.degree)

    def broken(self, admitted: Sequence[tuple[str, int]], total: int) -> list[str]:
        """The services, as admitted, that a link with so little left can carry no longer."""
        free, lost = self.free(total, 0), []
        for name, amount in admitted:
            if amount <= free:
                free -= amount
            else:
                lost.append(name)
        return lost
