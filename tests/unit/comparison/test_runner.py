"""A case in the simulator gives the same row every time, asks every design the same, and keeps its books."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_sweep import lines, perform

from keyhop.comparison import report
from keyhop.comparison.attempt import RUNNER
from keyhop.comparison.case import Case, Grid
from keyhop.comparison.executors import Processes
from keyhop.comparison.metrics import METRICS
from keyhop.comparison.palette import LEDGER
from keyhop.comparison.runner import LINK_RATE_BPS, link_rates, run_case
from keyhop.simulator import topology

CASE = Case("keyhop", "W2", 0.5, "p2p", 3, 20.0)


@pytest.mark.parametrize("place", ["p2p", "line3", "tokyo_2010"])
def test_a_case_gives_the_same_row_again(place: str) -> None:
    case = Case("secoqc", "W2", 0.8, place, 3, 10.0)
    assert run_case(case).line() == run_case(case).line()


def test_a_row_has_every_metric_and_the_sums_of_the_ledger() -> None:
    figures = run_case(CASE).metrics
    assert set(METRICS) <= set(figures)
    assert figures["success"] is not None and 0.0 < figures["success"] <= 1.0
    assert figures["cpu_s_per_1000_keys"] is None, "what differs from machine to machine is no part of a row"
    assert figures["local_G_bits"] and figures["local_G_bits"] == sum(figures[f"local_{x}_bits"] or 0 for x in LEDGER)


def test_every_design_is_asked_the_same_and_another_seed_asks_otherwise() -> None:
    def trace(design: str, seed: int) -> str:
        return run_case(Case(design, "W3", 0.5, "p2p", seed, 20.0)).trace

    assert trace("keyhop", 1) == trace("cisco", 1) != trace("cisco", 2)


def test_load_moves_the_demand_or_where_that_is_given_the_links() -> None:
    place = topology.load_builtin("p2p")

    def rate(workload: str, load: float) -> float:
        (found,) = link_rates(Case("keyhop", workload, load, "p2p", 1, 10.0), place).values()
        return found

    assert rate("W2", 0.5) == rate("W2", 2.0) == LINK_RATE_BPS
    assert rate("W6", 0.5) == pytest.approx(4 * rate("W6", 2.0))
    tokyo = topology.load_builtin("tokyo_2010")
    assert link_rates(Case("keyhop", "W6", 0.5, "tokyo_2010", 1, 10.0), tokyo)["ntt"] == 1100.0


def test_worker_processes_give_the_rows_of_the_simulator(tmp_path: Path) -> None:
    grid = Grid(("keyhop", "cisco", "ait"), ("W2", "W6"), (0.5, 1.2), ("p2p", "line3"), (1,), 5.0)
    end = perform(tmp_path / "pool", Processes(2), grid, RUNNER)
    assert (end.done, end.failed) == (len(grid), 0)
    perform(tmp_path / "here", grid=grid, runner=RUNNER)
    assert lines(tmp_path / "pool") == lines(tmp_path / "here")
    text = report.write(tmp_path / "pool").index.read_text()
    assert "Where the bits went" in text
    assert "Where the distant key went" in (tmp_path / "pool" / "report" / "w2-line3.html").read_text()
