"""One run of one design on one network: whichever engine carries it out."""

from __future__ import annotations

from collections.abc import Callable

from keyhop.core.designs import Design, hosted
from keyhop.simulator.arena import DELAY_NS, Arena
from keyhop.simulator.real_nodes import RealNodes
from keyhop.simulator.record import Record, Scenario


def run(
    design: Design,
    links: dict[frozenset[str], int],
    scenario: Scenario,
    *,
    seconds: float,
    seed: int,
    tell: Callable[[float], None] | None = None,
) -> Record:
    """`links`: pairs of nodes with rates in bit/s. A design that nodes run is run by nodes, the others by sites.

    `tell` hears, once a simulated second, which part of the run is done.
    """
    delay_ns = scenario.one_way_delay_ns or DELAY_NS
    engine = Arena if hosted(design) else RealNodes
    return engine(design, links, scenario, seed=seed, delay_ns=delay_ns).run(seconds, tell)
