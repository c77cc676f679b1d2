"""Designs with one answer changed, so that a difference has one cause."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from keyhop.comparison import runner
from keyhop.comparison.case import Case, Row
from keyhop.comparison.metrics import measure
from keyhop.comparison.tally import supplied
from keyhop.core.designs import DESIGNS, Design, Formatting, check
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.disposal import EraseInBatches
from keyhop.core.policy.division import EncDec
from keyhop.core.policy.formatting import ChunkOnReception, SliceOnSupply
from keyhop.core.policy.priority import Fifo, ResponseWeight
from keyhop.core.policy.refill import NoThreshold
from keyhop.core.policy.storage import MultiSizeBlock
from keyhop.core.policy.synchronisation import VerifyBatch, WorkingSet
from keyhop.simulator import runs
from keyhop.simulator.record import Demand, Record, Scenario, Stream
from keyhop.simulator.workloads import trace_hash

RUNNER = "studies.all_designs.variants:run_case"
SLOT_RUNNER = "studies.all_designs.variants:run_slots"

SET_SIZES = (8, 64, 512)
BATCHES = (1, 4, 16, 64)
OMEGAS = (0.0, 0.4, 0.7, 0.79, 0.83, 0.86, 0.9, 1.0)
ERASED = (1, 16, 256, 1024)
ENC_DEC_OF = {name: f"{name}~enc_dec" for name in ("nist", "qcc", "nectec")}
WITHOUT_THRESHOLDS = {"nec.fixed": "nec", "qkdnetsim_like": "qkdnetsim_like~no_thresholds"}
"""NEC has both itself: files made ahead between two marks, and on demand."""
SAME_END = "qcanada.working_set~same_end"
RAW_FIRST = "kisti~raw_first"
ONE_QUEUE = "qos~fifo"
BY_DEMAND = "ddka~demand"

SIZES_AND_LEVELS = ((128, 1), (256, 2), (512, 3), (1024, 4), (2048, 5))
"""As DDKA links them: longer keys for higher security."""
SLOT_S = 1.0
SETTLING = 0.1


def _variant(of: str, name: str, **answers: Any) -> Design:
    """The sources of what was changed would be wrong; all of a variant counts as ours."""
    made = replace(DESIGNS[of], name=name, sources={}, **answers)
    if broken := check(made):
        raise ValueError(f"{name}: {'; '.join(broken)}")
    return made


def _made() -> list[Design]:
    variants = [_variant(of, name, division=EncDec()) for of, name in ENC_DEC_OF.items()]
    variants.append(_variant("qkdnetsim_like", WITHOUT_THRESHOLDS["qkdnetsim_like"], refill=NoThreshold()))
    sets = "qcanada.working_set"
    variants += [_variant(sets, f"{sets}~{size}", synchronisation=WorkingSet(size=size)) for size in SET_SIZES]
    variants.append(_variant(sets, SAME_END, synchronisation=WorkingSet(ends="same")))
    variants += [_variant("ait", f"ait~{n}", synchronisation=VerifyBatch(n=n, check="mac")) for n in BATCHES]
    variants += [_variant("ddka", f"ddka~{omega:g}", priority=ResponseWeight(omega=omega)) for omega in OMEGAS]
    variants += [_variant("toshiba.2019", f"toshiba.2019~{n}", disposal=EraseInBatches(n=n)) for n in ERASED]
    formatting = Formatting(reception=ChunkOnReception(), supply=SliceOnSupply(step=8))
    variants.append(_variant("qos", ONE_QUEUE, priority=Fifo()))
    sizes = MultiSizeBlock(sizes=tuple(size for size, _ in SIZES_AND_LEVELS), split="demand")
    variants.append(_variant("ddka", BY_DEMAND, storage=sizes))
    variants.append(_variant("kisti", RAW_FIRST, formatting=formatting, division=EncDec()))
    return variants


VARIANTS = {design.name: design for design in _made()}


def register() -> None:
    """Makes them known to sweeps in this process; not on import, as whoever lists designs wants the published ones."""
    DESIGNS.update(VARIANTS)


def run_case(case: Case) -> Row:
    """As the comparison does it, without the requests of the first tenth of a run: stores are empty at the start, and
    what a hypothesis says is not about that."""
    register()
    made, asked = runner.asked_of(case)
    record = runner.simulated(case, made)
    return Row(case, trace_hash(made), {**measure(settled(record), asked.paths), **runner.ledger(record.books)})


def settled(record: Record) -> Record:
    """The books stay those of the whole run; messages are cut by as much as keys are."""
    from_ns = round(record.seconds * NANOSECONDS * SETTLING)
    scenario = record.scenario
    kept = [number for number, demand in enumerate(scenario.demands) if demand.at_ns >= from_ns]
    outcomes = tuple(record.outcomes[number] for number in kept)
    before, after = (sum(map(supplied, some)) for some in (record.outcomes, outcomes))
    streams = tuple(stream._replace(starts_ns=max(stream.starts_ns, from_ns)) for stream in scenario.streams)
    return record._replace(
        scenario=scenario._replace(demands=tuple(scenario.demands[number] for number in kept), streams=streams),
        outcomes=outcomes,
        messages=round(record.messages * after / before) if before else record.messages,
    )


def run_slots(case: Case) -> Row:
    """Requests of five sizes, each with its security level, all of a second at one instant: only then does an order
    of requests decide. Success by size beside the usual figures."""
    register()
    links = {frozenset(("alice", "bob")): round(runner.LINK_RATE_BPS)}
    made = slots(case)
    record = runs.run(DESIGNS[case.design], links, made, seconds=case.seconds, seed=case.seed)
    figures: dict[str, Any] = dict(measure(record, [("alice", "bob")]))
    for size, _ in SIZES_AND_LEVELS:
        of_size = [
            supplied(outcome)
            for demand, outcome in zip(made.demands, record.outcomes, strict=True)
            if demand.size_bits == size
        ]
        figures[f"success_{size}"] = sum(of_size) / len(of_size) if of_size else None
    return Row(case, trace_hash(made), {**figures, **runner.ledger(record.books)})


def slots(case: Case) -> Scenario:
    draw = random.Random(f"slots {case.seed}")  # noqa: S311 no key comes of it
    mean = sum(size for size, _ in SIZES_AND_LEVELS) / len(SIZES_AND_LEVELS)
    stream = Stream("alice|bob", "alice", "bob", round(case.load * runner.LINK_RATE_BPS), 2048)
    demands: list[Demand] = []
    owed = 0.0
    for slot in range(1, int(case.seconds / SLOT_S)):
        owed += case.load * runner.LINK_RATE_BPS * SLOT_S / mean
        for _ in range(int(owed)):
            size, level = draw.choice(SIZES_AND_LEVELS)
            at_ns = round(slot * SLOT_S * NANOSECONDS)
            demands.append(
                Demand(len(demands), at_ns, stream.name, "alice", "bob", size, NANOSECONDS, security_level=level)
            )
        owed -= int(owed)
    return Scenario((stream,), tuple(demands))
