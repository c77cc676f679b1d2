"""The eight workloads that designs are compared under, made into scenarios from a load and a seed.

Load is the demand divided by the key rate that the paths can give.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from keyhop.core.model import NANOSECONDS
from keyhop.files.words import nearest
from keyhop.simulator import demands
from keyhop.simulator.arrivals import Purpose, Seeds
from keyhop.simulator.demands import Asked
from keyhop.simulator.record import Scenario

Path = Sequence[str]
"""Nodes from the one that asks to the one that wants the same key, with the relays between."""

DEMANDS_AT_MOST = 10_000_000
"""In one scenario."""


class WorkloadError(Exception):
    """No such workload, or none that can be made; the text says what would be legal."""


@dataclass(frozen=True, slots=True)
class Workload:
    id: str
    name: str
    sentence: str
    make: Callable[[Asked], Scenario]
    own_demand_bps: float | None = None
    """Of a path, where the definition gives it: there it holds to the letter; else load moves what `make` says."""
    own_load: float | None = None
    """The load that the definition names."""


def find(word: str) -> Workload:
    """By id or name; raises WorkloadError."""
    for workload in WORKLOADS.values():
        if word.lower() in (workload.id.lower(), workload.name):
            return workload
    known = (*WORKLOADS, *(workload.name for workload in WORKLOADS.values()))
    raise WorkloadError(f"no workload {word}: {nearest(word, known)}")


def scenario(
    workload: str | Workload,
    paths: Iterable[Path],
    path_rate_bps: float,
    load: float,
    seconds: float,
    seed: int,
    reseed: Mapping[Purpose, int] | None = None,
) -> Scenario:
    """The same for the same arguments, on any machine. `path_rate_bps`: of all paths together; `seconds`: of the run.

    `reseed` gives single purposes another seed. Raises WorkloadError.
    """
    found = find(workload) if isinstance(workload, str) else workload
    routes = tuple(tuple(path) for path in paths)
    if not routes:
        raise WorkloadError(
            f"{found.id} {found.name}: no path; give at least one, from the node that asks to the other"
        )
    for path in routes:
        if len(path) < 2 or len(set(path)) < len(path):
            raise WorkloadError(f"path {'|'.join(path) or '(empty)'}: must name two or more nodes, each once")
    ends = [frozenset((path[0], path[-1])) for path in routes]
    for path, pair in zip(routes, ends, strict=True):
        if ends.count(pair) > 1:
            raise WorkloadError(f"path {'|'.join(path)}: another path has the same ends; give one for each pair")
    for what, figure in (("load", load), ("path rate", path_rate_bps), ("seconds", seconds)):
        if not (figure > 0 and math.isfinite(figure)):
            raise WorkloadError(f"{found.id} {found.name}: {what} {figure}: must be a number above 0")
    demand_bps = load * path_rate_bps
    if demand_bps * seconds > DEMANDS_AT_MOST * demands.KEY_BITS:
        most = DEMANDS_AT_MOST * demands.KEY_BITS / seconds / path_rate_bps
        raise WorkloadError(f"{found.id} {found.name}: load {load} of {path_rate_bps:g} bit/s over {seconds:g} s "
                            f"is more than {DEMANDS_AT_MOST:,} keys: load must be below {most:.3g}")  # fmt: skip
    asked = Asked(routes, demand_bps / len(routes), round(seconds * NANOSECONDS), Seeds(seed, reseed or {}))
    made = found.make(asked)
    if not made.demands:
        raise WorkloadError(f"{found.id} {found.name}: load {load} of {path_rate_bps:g} bit/s over {seconds:g} s "
                            "asks for no key at all: take a longer run or a higher load")  # fmt: skip
    return made


def trace_hash(scenario: Scenario) -> str:
    """SHA-256 over the demands: two runs with the same were asked the same."""
    digest = hashlib.sha256()
    for demand in scenario.demands:
        digest.update(("\t".join(map(str, demand)) + "\n").encode())
    return digest.hexdigest()


WORKLOADS: dict[str, Workload] = {
    workload.id: workload
    for workload in (
        Workload(
            "W1",
            "aes_rekey",
            "32 pairs of encryptors take a fresh 256-bit key at a fixed period, each at a phase of its own.",
            demands.aes_rekey,
            own_demand_bps=demands.REKEYING_PAIRS * demands.KEY_BITS / demands.REKEYING_S,
        ),
        Workload(
            "W2",
            "mixed_size",
            "Random requests for keys of 128 to 8192 bits, short ones most of all.",
            demands.mixed_size,
        ),
        Workload(
            "W3",
            "odd_size",
            "Random requests for keys of any whole number of bytes: shows block rounding.",
            demands.odd_size,
        ),
        Workload("W4", "otp_burst", "One-time pads in bursts of 64 KiB, a tenth of the time.", demands.otp_burst),
        Workload(
            "W5",
            "three_classes",
            "Guaranteed, prioritised and best-effort requests with deadlines of 0.1, 1 and 10 s.",
            demands.three_classes,
        ),
        Workload(
            "W6",
            "both_ends",
            "Both ends ask while messages between them are under way: shows collisions.",
            demands.both_ends,
            own_demand_bps=2 * demands.SITE_REQUESTS_PER_S * demands.KEY_BITS,
        ),
        Workload(
            "W7",
            "churn",
            "Applications join, leave and change their rates every 5 s: shows re-allocation.",
            demands.churn,
        ),
        Workload(
            "W8",
            "fault",
            "A link stops for 60 s, messages and a chunk of key are lost, a key manager restarts.",
            demands.fault,
            own_load=0.8,
        ),
    )
}
