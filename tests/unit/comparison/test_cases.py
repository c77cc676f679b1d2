"""A case has one name and one row, and a design is not run where it cannot run."""

from __future__ import annotations

import arithmetic
import msgspec
import orjson
import pytest

from keyhop.comparison.case import FIXED, Case, Grid, Row, not_applicable, run_id
from keyhop.comparison.version import code_version
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.relay import NoRelay

CASE = Case("nec", "W2", 0.5, "line3", 7, 600.0)


def test_any_change_of_a_case_or_of_the_code_changes_its_name() -> None:
    others = [
        Case("ait", "W2", 0.5, "line3", 7, 600.0),
        Case("nec", "W3", 0.5, "line3", 7, 600.0),
        Case("nec", "W2", 0.8, "line3", 7, 600.0),
        Case("nec", "W2", 0.5, "p2p", 7, 600.0),
        Case("nec", "W2", 0.5, "line3", 8, 600.0),
        Case("nec", "W2", 0.5, "line3", 7, 60.0),
    ]
    names = {run_id(case, "1") for case in (CASE, *others)} | {run_id(CASE, "2")}
    assert len(names) == len(others) + 2
    assert run_id(msgspec.structs.replace(CASE), "1") == run_id(CASE, "1")


def test_a_row_is_one_flat_line_with_sorted_names_and_comes_back_the_same() -> None:
    row = arithmetic.run_case(CASE)
    line = row.line()
    assert b"\n" not in line
    flat = orjson.loads(line)
    assert list(flat) == sorted(flat)
    assert not any(isinstance(value, dict | list) for value in flat.values())
    assert flat["own_share"] == DESIGNS["nec"].own_share
    assert flat["version"] == code_version() and flat["run_id"] == run_id(CASE, code_version())
    assert flat["collision_rate"] is None
    assert Row.from_line(line) == row and Row.from_line(line).line() == line


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_refused_and_not_written_as_n_a(value: float) -> None:
    with pytest.raises(ValueError, match=r"supply_success = (nan|inf): must be finite, or None"):
        Row(CASE, "t", {"supply_success": value})


@pytest.mark.parametrize("name", FIXED)
def test_a_metric_cannot_take_the_place_of_the_case(name: str) -> None:
    with pytest.raises(ValueError, match="every row has"):
        Row(CASE, "t", {name: 1.0})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "unexpected end"),
        (b"[]", "no row of a comparison"),
        (b"{}", "lacks design"),
        (arithmetic.run_case(CASE).line().replace(b'"seed":7', b'"seed":"x"'), "Expected `int`"),
    ],
)
def test_a_line_that_is_no_row_is_refused(line: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Row.from_line(line)


def test_a_grid_has_every_combination_once() -> None:
    grid = Grid(("nec", "ait"), ("W1", "W2"), (0.2, 1.0), ("p2p", "line3"), (1, 2, 3), 60.0)
    cases = list(grid.cases())
    assert len(cases) == len(set(cases)) == len(grid) == 48
    assert {case.seed for case in cases[:16]} == {1}


@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_without_relay_runs_on_one_link_alone(name: str) -> None:
    assert not_applicable(name, "p2p") == ""
    lacks = isinstance(DESIGNS[name].relay, NoRelay)
    assert ("no relay" in not_applicable(name, "line3")) is lacks
    assert ("no relay" in not_applicable(name, "tokyo_2010")) is lacks


def test_a_relay_that_reaches_two_links_is_not_run_over_four() -> None:
    assert not_applicable("nec", "line3") == ""
    assert "4 links" in not_applicable("nec", "line5")


def test_a_row_that_says_n_a_has_no_figures_and_says_why() -> None:
    row = Row(CASE, "", {}, not_applicable("darpa", "line3"))
    again = Row.from_line(row.line())
    assert again.not_applicable.startswith("it has no relay") and again.metrics == {}
