"""Paths as long as a continent: trusted nodes some tens of kilometres apart."""

from __future__ import annotations

from itertools import pairwise

import pytest

from keyhop.core import messages
from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS
from keyhop.simulator import runs
from keyhop.simulator.record import Demand, Record, Scenario, Stream, Verdict

RATE_BPS = 100_000
SECONDS = 40.0
DEADLINE_NS = 10 * NANOSECONDS


def carried(design: str, nodes: int, begin_s: int = 20, count: int = 10) -> Record:
    """Keys from one end of a line to the other."""
    names = [f"n{number:03}" for number in range(nodes)]
    links = {frozenset(ends): RATE_BPS for ends in pairwise(names)}
    stream = Stream("s", names[0], names[-1], 256, 256)
    asked = [
        Demand(number, (begin_s + number) * NANOSECONDS, "s", names[0], names[-1], 256, DEADLINE_NS)
        for number in range(count)
    ]
    return runs.run(DESIGNS[design], links, Scenario((stream,), tuple(asked)), seconds=SECONDS, seed=1)


@pytest.mark.parametrize("design", ["keyhop", "nict", "kisti", "qos"])
def test_key_crosses_seventy_nodes(design: str) -> None:
    outcomes = carried(design, 70).outcomes
    supplied = sum(outcome.verdict is Verdict.SUPPLIED for outcome in outcomes)
    assert supplied >= len(outcomes) - 1, [outcome.verdict for outcome in outcomes]


def test_a_path_longer_than_is_legal_is_refused_by_its_source_and_breaks_no_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "PATH_LIMIT", 4)
    record = carried("keyhop", 5)
    assert {outcome.verdict for outcome in record.outcomes} <= {Verdict.REFUSED, Verdict.TIMED_OUT}
    assert carried("keyhop", 4).outcomes[-1].verdict is Verdict.SUPPLIED
