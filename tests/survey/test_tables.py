"""Every published design does what Tables 2 and 3 of the survey say of it, or says why not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from keyhop.core.designs import DESIGNS, Design, Formatting, LocalGlobal
from keyhop.core.designs.silences import SILENCES
from keyhop.core.designs.source import S
from keyhop.core.designs.survey import (
    ANSWERS,
    DEPARTURES,
    SILENT,
    TABLES,
    TEXT_SAYS,
    Row,
    agrees,
    columns_of,
    compared,
    disagreements,
    said,
)
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.disposal import AgePurge
from keyhop.core.policy.division import EncDec, Shared
from keyhop.core.policy.fallback import Deny, Derive, Hybrid, Wait
from keyhop.core.policy.formatting import Kdf, SplitMerge
from keyhop.core.policy.priority import Fifo, StrictPriority
from keyhop.core.policy.refill import ByDemand, NoThreshold, Sated
from keyhop.core.policy.relay import HopByHop, NoRelay
from keyhop.core.policy.sharing import DeficitRoundRobin, FirstCome, Proportional, Weighted
from keyhop.core.policy.storage import ByteStream, FixedBlock

PUBLISHED = [pytest.param(design, id=name) for name, design in DESIGNS.items() if design.row]
OF_NO_TABLE = {"keyhop", "qkdnetsim_like"}


def test_both_tables_have_seventeen_rows_and_each_has_a_design() -> None:
    assert len(TABLES) == 17
    assert {design.row for design in DESIGNS.values() if design.row} == set(TABLES)
    assert {name for name, design in DESIGNS.items() if not design.row} == OF_NO_TABLE


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("sharing", {"N": 10, "by registered rates": 4, "reservation": 2, "by class, and reservation": 1}),
        ("priority", {"N": 14, "Y": 3}),
        ("fallback", {"N": 14, "Y": 3}),
        ("local_store", {"Y": 17}),
        ("global_store", {"N": 6, "Y": 9, "-": 2}),
        ("on_reception", {"Y": 4, "N": 3, "-": 10}),
        ("thresholds", {"Y": 4, "N": 11, "-": 2}),
    ],
)
def test_the_tables_are_transcribed_with_as_many_entries_of_each_kind(column: str, cells: dict[str, int]) -> None:
    assert Counter(getattr(row, column) for row in TABLES.values()) == cells


@pytest.mark.parametrize("design", PUBLISHED)
def test_a_design_agrees_with_its_row_except_where_it_says_why_not(design: Design) -> None:
    found = {entry.split(":")[0] for entry in disagreements(design)}
    assert found == {column for name, column in DEPARTURES if name == design.name}


@pytest.mark.parametrize("design", PUBLISHED)
def test_what_the_survey_is_silent_about_is_not_passed_off_as_the_surveys(design: Design) -> None:
    for leaf in design.leaves:
        for column in columns_of(leaf.path) if leaf.is_answer and leaf.source is S else ():
            silent = getattr(TABLES[design.row], column) == SILENT
            assert not silent or (design.row, column) in TEXT_SAYS, f"{leaf.path}: {column} is silent"


@pytest.mark.parametrize("design", PUBLISHED)
def test_what_departs_from_the_tables_is_not_passed_off_as_theirs(design: Design) -> None:
    if (design.name, "thresholds") in DEPARTURES:
        assert all(leaf.source is not S for leaf in design.leaves if leaf.path.startswith("refill"))


def test_what_only_the_text_says_is_used_by_a_design() -> None:
    for row, column in TEXT_SAYS:
        assert getattr(TABLES[row], column) == SILENT
        designs = [design for design in DESIGNS.values() if design.row == row]
        assert any(leaf.source is S and column in columns_of(leaf.path) for d in designs for leaf in d.leaves)


def test_every_column_that_is_an_answer_leads_to_fields() -> None:
    assert set(ANSWERS) == set(Row._fields) - {"years", "local_store", "global_store"}
    assert columns_of("refill.global") == ["thresholds"]
    assert columns_of("formatting.supply.step") == ["on_supply"]
    assert columns_of("relay") == []


def test_silences_are_of_rows_that_exist_and_say_both_things() -> None:
    assert {row for silence in SILENCES for row in silence.rows} <= set(TABLES)
    assert all(silence.open.endswith(".") and silence.chosen.endswith(".") for silence in SILENCES)
    assert len(SILENCES) >= 19


BASE = DESIGNS["nict"]


@pytest.mark.parametrize(
    ("change", "column", "cell"),
    [
        ({"fallback": Deny()}, "fallback", "N"),
        ({"fallback": Wait()}, "fallback", "N"),
        ({"fallback": Hybrid()}, "fallback", "Y"),
        ({"fallback": Derive()}, "fallback", "Y"),
        ({"priority": Fifo()}, "priority", "N"),
        ({"priority": StrictPriority()}, "priority", "Y"),
        ({"sharing": FirstCome()}, "sharing", "N"),
        ({"sharing": DeficitRoundRobin()}, "sharing", "N"),
        ({"sharing": Proportional()}, "sharing", "by registered rates"),
        ({"sharing": Weighted(unit_bits=8)}, "sharing", "by registered rates"),
        ({"admission": Reservation()}, "sharing", "reservation"),
        ({"refill": NoThreshold(), "disposal": AgePurge()}, "thresholds", "N"),
        ({"refill": ByDemand()}, "thresholds", "N"),
        ({"refill": Sated()}, "thresholds", "Y"),
        ({"refill": LocalGlobal(Sated(), NoThreshold())}, "thresholds", "N"),
        ({"refill": LocalGlobal(NoThreshold(), Sated())}, "thresholds", "Y"),
        ({"relay": NoRelay()}, "global_store", "N"),
        ({"relay": HopByHop()}, "global_store", "Y"),
        ({"relay": HopByHop(), "door": "session", "profile": "rate"}, "global_store", "N"),
        ({"storage": ByteStream()}, "storage", "homogeneous bytes"),
        ({"storage": FixedBlock(unit_bits=64)}, "storage", "fixed blocks of 64 bits"),
        ({"formatting": Formatting(supply=Kdf())}, "on_supply", "HKDF"),
        ({"formatting": Formatting(supply=SplitMerge())}, "on_supply", "split and merge"),
        ({"division": Shared()}, "division", "N"),
        ({"division": EncDec()}, "division", "enc and dec"),
    ],
)
def test_a_composition_is_read_in_the_words_of_the_tables(change: dict[str, Any], column: str, cell: str) -> None:
    assert getattr(said(replace(BASE, **change)), column) == cell


@pytest.mark.parametrize(
    ("name", "change", "column"),
    [
        ("darpa", {"priority": StrictPriority()}, "priority"),
        ("secoqc", {"refill": NoThreshold()}, "thresholds"),
        ("nist", {"sharing": FirstCome()}, "sharing"),
        ("nec", {"relay": NoRelay()}, "global_store"),
        ("kisti", {"fallback": Deny()}, "fallback"),
        ("ait", {"formatting": Formatting()}, "on_supply"),
        ("cisco", {"storage": FixedBlock(unit_bits=128)}, "storage"),
        ("toshiba.2016", {"door": "skip"}, "interface"),
        ("magiq", {"division": Shared()}, "division"),
    ],
)
def test_a_design_with_another_answer_no_longer_agrees(name: str, change: dict[str, Any], column: str) -> None:
    before = DESIGNS[name]
    assert disagreements(before) == []
    assert [entry.split(":")[0] for entry in disagreements(replace(before, **change))] == [column]


def test_a_design_of_no_row_has_nothing_to_agree_with() -> None:
    assert compared(DESIGNS["keyhop"]) == [] == disagreements(DESIGNS["keyhop"])


def test_equal_units_have_two_names_and_bytes_are_none_of_them() -> None:
    assert agrees("storage", "fixed blocks", "homogeneous blocks")
    assert not agrees("storage", "fixed blocks", "homogeneous bytes")
    assert not agrees("division", "N", "session")
