"""One case in the simulator: demands from workload and seed, a run of the design, its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keyhop.comparison.case import Case, Row, Value, paths
from keyhop.comparison.metrics import measure
from keyhop.comparison.tally import LETTERS
from keyhop.core.designs import DESIGNS
from keyhop.simulator import topology
from keyhop.simulator.pairs import Asking, asking
from keyhop.simulator.record import EndBook, Record, Scenario
from keyhop.simulator.runs import run
from keyhop.simulator.workloads import WORKLOADS, scenario, trace_hash

LINK_RATE_BPS = 10_000.0
"""Of links whose file gives no rate: a metropolitan system of the years of these designs."""


def run_case(case: Case) -> Row:
    """Raises what the simulator raises for a book that does not close or a workload that cannot be made."""
    made, asked = asked_of(case)
    record = simulated(case, made)
    return Row(case, trace_hash(made), {**measure(record, asked.paths), **ledger(record.books)})


def asked_of(case: Case) -> tuple[Scenario, Asking]:
    """The same for every design."""
    place = topology.load_builtin(case.topology)
    asked = asking(place, link_rates(case, place))
    return scenario(case.workload, asked.paths, asked.rate_bps, case.load, case.seconds, case.seed), asked


def simulated(case: Case, made: Scenario) -> Record:
    place = topology.load_builtin(case.topology)
    rates = link_rates(case, place)
    links: dict[frozenset[str], int] = {}
    for link in place.links:
        links[frozenset(link.ends)] = links.get(frozenset(link.ends), 0) + round(rates[link.id])
    return run(DESIGNS[case.design], links, made, seconds=case.seconds, seed=case.seed)


def link_rates(case: Case, place: topology.Topology) -> dict[str, float]:
    """By link. Where neither file nor workload leaves the rate open, the demand is what gives way to the load."""
    own_bps = WORKLOADS[case.workload].own_demand_bps
    # A workload whose definition gives its demand keeps to the letter: then load says how fast the links are.
    usual = own_bps / case.load if own_bps is not None and len(paths(case.topology)) == 1 else LINK_RATE_BPS
    return {link.id: usual if link.rate_bps is None else link.rate_bps for link in place.links}


def ledger(books: Iterable[EndBook]) -> Mapping[str, Value]:
    """Sums over all ends, `local_G_bits` and so on; what no kind of book has is left out."""
    sums = {f"{kind}_{letter}_bits": 0 for kind in ("local", "global") for letter in LETTERS}
    for book in books:
        for letter in LETTERS:
            sums[f"{book.kind}_{letter}_bits"] += getattr(book, letter)
    return {name: bits for name, bits in sums.items() if name not in ("local_N_bits", "global_G_bits", "global_R_bits")}
