"""One pass over a run's demands and outcomes, and one over its books, for all metrics to count from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from keyhop.simulator.record import Demand, EndBook, Outcome, Record, Verdict

LETTERS = "GNDOCRTAXYSF"
Path = Sequence[str]


@dataclass(slots=True)
class Requests:
    """How many ended how. Requests that a design cannot serve at all are in `unservable` alone."""

    asked: int = 0
    supplied: int = 0
    """Both ends hold the same key, within the deadline."""
    unequal: int = 0
    """Both ends hold a key, and not the same."""
    refused: int = 0
    timed_out: int = 0
    unservable: int = 0


@dataclass(slots=True)
class Served:
    """One stream, in bits."""

    asked_bits: int = 0
    supplied_bits: int = 0


@dataclass(slots=True)
class Tally:
    total: Requests = field(default_factory=Requests)
    by_class: dict[str, Requests] = field(default_factory=dict)
    by_stream: dict[str, Served] = field(default_factory=dict)
    latencies_ns: list[int] = field(default_factory=list)
    """Of supplied requests, sorted."""
    its_bits: int = 0

    @property
    def supplied_bits(self) -> int:
        return sum(served.supplied_bits for served in self.by_stream.values())


def tally(record: Record) -> Tally:
    """Raises ValueError where outcomes and demands do not belong together."""
    found = Tally()
    for demand, outcome in matched(record):
        of_class = found.by_class.setdefault(demand.service_class, Requests())
        for requests in (found.total, of_class):
            _count(requests, outcome)
        if outcome.verdict is Verdict.UNSERVABLE:
            continue
        served = found.by_stream.setdefault(demand.stream, Served())
        served.asked_bits += demand.size_bits
        if supplied(outcome):
            served.supplied_bits += demand.size_bits
            found.latencies_ns.append(outcome.done_ns - demand.at_ns)
            found.its_bits += demand.size_bits if outcome.its else 0
    found.latencies_ns.sort()
    return found


def matched(record: Record) -> Iterable[tuple[Demand, Outcome]]:
    """Raises ValueError where outcomes and demands do not belong together."""
    demands, outcomes = record.scenario.demands, record.outcomes
    if len(demands) != len(outcomes):
        raise ValueError(f"{len(outcomes)} outcomes for {len(demands)} demands: must be one for each")
    for demand, outcome in zip(demands, outcomes, strict=True):
        if demand.number != outcome.number:
            raise ValueError(f"outcome {outcome.number} stands at demand {demand.number}: must be in their order")
        yield demand, outcome


def supplied(outcome: Outcome) -> bool:
    """Two keys that differ are no supply."""
    return outcome.verdict is Verdict.SUPPLIED and outcome.equal


def _count(requests: Requests, outcome: Outcome) -> None:
    if outcome.verdict is Verdict.UNSERVABLE:
        requests.unservable += 1
        return
    requests.asked += 1
    if outcome.verdict is Verdict.REFUSED:
        requests.refused += 1
    elif outcome.verdict is Verdict.TIMED_OUT:
        requests.timed_out += 1
    elif outcome.equal:
        requests.supplied += 1
    else:
        requests.unequal += 1


@dataclass(frozen=True, slots=True)
class Ledger:
    """Sums over ends in bits; of local and global books together unless the name says which."""

    G: int = 0
    D: int = 0
    O: int = 0  # noqa: E741 the ledger's letter
    C: int = 0
    R: int = 0
    A: int = 0
    X: int = 0
    Y: int = 0
    F: int = 0
    local_S: int = 0
    burnt: int = 0
    path_consumed: int = 0
    """G - S of the local books of links on the paths, and of those that relayed beside them."""
    path_ideal: int = 0
    """What the delivered bits cost at least on the links of their path, both ends of each link counted."""


def ledger(books: Iterable[EndBook], paths: Iterable[Path] = ()) -> Ledger:
    """`paths`: as the scenario was made for; without them, or for a pair they do not name, a delivery counts one hop.

    Without paths every link counts as on the path. Routes may leave the shortest path: a link that any key was relayed
    over counts, too, or a detour would be free. Raises ValueError where a book does not balance.
    """
    books = tuple(books)
    hops: dict[frozenset[str], int] = {}
    spans: set[frozenset[str]] = set()
    for path in paths:
        hops[frozenset((path[0], path[-1]))] = len(path) - 1
        spans |= {frozenset(span) for span in pairwise(path)}
    spans |= {frozenset((book.node, book.peer)) for book in books if spans and book.kind == "local" and book.R}
    sums = dict.fromkeys(Ledger.__dataclass_fields__, 0)
    for book in books:
        if not book.balanced:
            letters = " ".join(f"{letter}={getattr(book, letter)}" for letter in LETTERS)
            raise ValueError(f"{book.kind} book of {book.node} for {book.peer} does not balance: {letters}")
        for letter in ("D", "O", "C", "R", "A", "X", "Y", "F", "burnt"):
            sums[letter] += getattr(book, letter)
        pair = frozenset((book.node, book.peer))
        if book.kind == "local":
            sums["G"] += book.G
            sums["local_S"] += book.S
            sums["path_ideal"] += book.D
            sums["path_consumed"] += book.G - book.S if pair in spans or not spans else 0
        else:
            sums["path_ideal"] += book.D * hops.get(pair, 1)
    return Ledger(**sums)
