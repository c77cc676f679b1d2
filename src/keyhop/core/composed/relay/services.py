"""What a controller gives tenants: services with slots of key rate on every link of a path; it never sees key."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from keyhop.core.policy.admission import Link, Reservation, Service
from keyhop.core.policy.routing import Edge, Sdn
from keyhop.core.policy.synchronisation import Verb

TAG_SHARE = 0.1
"""Of a link's rate, left for the tags of its own messages: slots are of the rest (K)."""
BATCH_NS = 1_000_000_000
"""Requests that come within this time are matched together, where the order is the controller's to choose (K)."""

SERVICES_OF_A_SOURCE = 4096
"""Admitted, or waiting to be matched, for one source: slots alone bound nothing, where a service may ask for none and
waiting costs nothing. What a source may have of the slots is not limited: who comes first has them (S)."""
ORDERS_KEPT = 65_536
"""Of those that agents were told, the last so many."""

Path = tuple[str, ...]


class Granted(NamedTuple):
    source: str
    destination: str
    slots: int
    path: Path


class Order(NamedTuple):
    """From the controller to the agent at a node."""

    node: str
    word: str
    """FLOW-ADD or FLOW-DEL."""
    service: str
    next_hop: str
    slots: int
    verb: Verb = Verb.ASSIGN


class Controller:
    """Create, modify, delete; stored key is ignored, only slots count (S)."""

    def __init__(self, admission: Reservation, routing: Sdn, rates: Mapping[frozenset[str], int]) -> None:
        self._admission = admission
        self._routing = routing
        self.totals = {_link(*sorted(link)): self._slots_of(rate) for link, rate in rates.items()}
        self._edges = [
            Edge(start, end, 1, rate, True)
            for link, rate in rates.items()
            for start, end in (sorted(link), sorted(link, reverse=True))
        ]
        self._candidates: dict[tuple[str, str], list[Path]] = {}
        self.services: dict[str, Granted] = {}
        """Admitted, in the order of admission."""
        self._used: Counter[Link] = Counter()
        """Slots of each link that services have."""
        self._of_source: Counter[str] = Counter()
        """Services, admitted and waiting."""
        self.orders: deque[Order] = deque(maxlen=ORDERS_KEPT)
        """What agents were told."""
        self.lost: dict[Link, list[str]] = {}
        """Services that a link with fewer slots can carry no longer."""
        self._waiting: dict[str, tuple[str, str, int]] = {}
        self._batch_ns = 0

    def free(self, link: Link) -> int:
        return self._admission.free(self.totals[link], self._used[link])

    def carried(self, link: Link) -> list[tuple[str, int]]:
        return [(name, one.slots) for name, one in self.services.items() if link in _links(one.path)]

    def create(self, name: str, source: str, destination: str, slots: int, now: int = 0) -> bool | None:
        """Whether it is admitted; None: it is matched with others that come in the same time."""
        if not self._may_ask(name, source):
            return False
        if self._admission.order == "mtka":
            self._batch_ns = self._batch_ns if self._waiting else now + BATCH_NS
            if name not in self._waiting:
                self._of_source[source] += 1
            self._waiting[name] = source, destination, slots
            return None
        path = self._admission.choose(self._service(name, source, destination, slots), self._all_free())
        if path is not None:
            self._grant(name, source, destination, slots, path)
        return path is not None

    def settle(self, now: int) -> None:
        """Matches all that wait: the order with the highest matching degree."""
        if not self._waiting or now < self._batch_ns:
            return
        waiting, self._waiting = self._waiting, {}
        self._of_source.subtract(source for source, _, _ in waiting.values())
        matching = self._admission.match(
            [self._service(name, *asked) for name, asked in waiting.items()], self._all_free()
        )
        for name, path in matching.paths.items():
            self._grant(name, *waiting[name], path)

    def modify(self, name: str, slots: int) -> bool:
        """On the same path, else on another one, else it keeps what it has (409)."""
        held = self.services.get(name)
        if held is None:
            return False
        service = self._service(name, held.source, held.destination, slots)
        same = service._replace(paths=(_links(held.path),))
        self._take_back(name)
        free = self._all_free()
        path = self._admission.choose(same, free) or self._admission.choose(service, free)
        if path is None:
            self._put(name, held)
            return False
        self._tell("FLOW-DEL", name, held)
        self._grant(name, held.source, held.destination, slots, path)
        return True

    def delete(self, name: str) -> None:
        waited = self._waiting.pop(name, None)
        if waited is not None:
            self._of_source[waited[0]] -= 1
        held = self._take_back(name)
        if held is not None:
            self._tell("FLOW-DEL", name, held)

    def rate_is(self, ends: frozenset[str], rate_bps: int) -> None:
        """What the resource module reports now; the services that the link can carry no longer are named."""
        link = _link(*sorted(ends))
        self.totals[link] = self._slots_of(rate_bps)
        self.lost.pop(link, None)
        if broken := self._admission.broken(self.carried(link), self.totals[link]):
            self.lost[link] = broken

    # --- inside -------------------------------------------------------------------------------------------------------

    def _may_ask(self, name: str, source: str) -> bool:
        """No service is another source's, and no source has services without end."""
        held, waited = self.services.get(name), self._waiting.get(name)
        whose = held.source if held is not None else waited[0] if waited is not None else ""
        return whose == source if whose else self._of_source[source] < SERVICES_OF_A_SOURCE

    def _put(self, name: str, granted: Granted) -> None:
        self.services[name] = granted
        self._used.update(dict.fromkeys(_links(granted.path), granted.slots))
        self._of_source[granted.source] += 1

    def _take_back(self, name: str) -> Granted | None:
        held = self.services.pop(name, None)
        if held is not None:
            self._used.subtract(dict.fromkeys(_links(held.path), held.slots))
            self._of_source[held.source] -= 1
        return held

    def _slots_of(self, rate_bps: int) -> int:
        return int(rate_bps * (1 - TAG_SHARE)) // self._admission.slot_bps

    def _all_free(self) -> dict[Link, int]:
        return {link: self.free(link) for link in self.totals}

    def _service(self, name: str, source: str, destination: str, slots: int) -> Service:
        ends = source, destination
        if ends not in self._candidates:
            self._candidates[ends] = self._routing.paths(self._edges, source, destination)
        return Service(name, slots, tuple(_links(path) for path in self._candidates[ends]))

    def _grant(self, name: str, source: str, destination: str, slots: int, links: tuple[Link, ...]) -> None:
        path = next(path for path in self._candidates[source, destination] if _links(path) == links)
        self._take_back(name)
        granted = Granted(source, destination, slots, path)
        self._put(name, granted)
        self._tell("FLOW-ADD", name, granted)

    def _tell(self, word: str, name: str, granted: Granted) -> None:
        verb = Verb.ASSIGN if word == "FLOW-ADD" else Verb.GIVE_BACK
        self.orders.extend(
            Order(node, word, name, following, granted.slots, verb) for node, following in pairwise(granted.path)
        )


def _link(one: str, other: str) -> Link:
    return one, other


def _links(path: Path) -> tuple[Link, ...]:
    return tuple(_link(*sorted(hop)) for hop in pairwise(path))
