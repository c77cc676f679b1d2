"""The study of all designs is rebuilt by its one command, says of each hypothesis what became of it, and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from studies.all_designs import networks, published, queues, stores, sweeps, variants
from studies.all_designs.verdicts import above, below, every

from keyhop.comparison.case import Case, Row
from keyhop.comparison.statistics import Estimate
from keyhop.core.designs import DESIGNS

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 110.0


def study(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: there variants are made known, and are to be nowhere else."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "studies.all_designs", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.timeout(TIMEOUT_S + 10)
def test_the_quick_study_has_a_verdict_for_each_hypothesis_and_every_published_result(tmp_path: Path) -> None:
    out = tmp_path / "study"
    done = study("--quick", "--seeds", "2", "--seconds", "20", "--out", str(out))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    told = json.loads((out / "results.json").read_bytes())
    assert [one["id"] for one in told["hypotheses"]] == [f"H{number}" for number in range(1, 10)]
    assert {one["verdict"] for one in told["hypotheses"]} <= {"holds", "fell", "not decided"}
    assert all(one["figures"] for one in told["hypotheses"])
    assert len(told["published"]) == 10 and told["failures"] == []
    page = (out / "index.html").read_text()
    assert page.count("<svg") >= 9 and "arXiv 2408.04598" in page and "arXiv 2604.09144" in page
    assert str(tmp_path) not in page
    assert (out / "sweeps" / "all" / "report" / "index.html").is_file()


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweeps" / "all").mkdir(parents=True)
    (tmp_path / "sweeps" / "all" / "mine.txt").touch()
    done = study("--quick", "--out", str(tmp_path))
    assert done.returncode == 2 and "holds something else" in done.stderr
    assert not (tmp_path / "index.html").exists()


def test_a_variant_differs_from_its_design_and_has_no_sources() -> None:
    assert set(variants.ENC_DEC_OF.values()) <= set(variants.VARIANTS)
    for name, design in variants.VARIANTS.items():
        assert design != DESIGNS[name.partition("~")[0]]
        assert design.own_share == 1.0, "what was changed is nobody's but ours"


def test_who_lists_designs_gets_no_variants() -> None:
    assert not set(variants.VARIANTS) & set(DESIGNS)
    assert set(sweeps.BASE) == set(DESIGNS)


def test_a_claim_that_is_surely_false_makes_a_hypothesis_fall_and_an_open_one_keeps_it_open() -> None:
    sure, across = Estimate(2.0, 1.0, 3.0, 5), Estimate(2.0, -1.0, 3.0, 5)
    assert (above(sure, 0.5), above(sure, 4.0), above(across, 0.0), above(None, 0.0)) == (True, False, None, None)
    assert (below(sure, 4.0), below(sure, 0.5), below(across, 0.0)) == (True, False, None)
    assert above(Estimate(2.0, None, None, 1), 0.5) is None, "one value has no interval"
    assert every([True, True]) == "holds"
    assert every([True, None]) == every([]) == "not decided"
    assert every([None, False, True]) == "fell"


def test_larger_networks_have_a_table_each_with_who_is_not_there_and_why() -> None:
    runs = [
        Row(Case(name, "W2", 0.8, place, seed, 60.0), "", {"success": 0.5 + seed / 100, "its_ratio": None})
        for name in ("keyhop", "ait")
        for place in (*sweeps.CITIES, sweeps.COUNTRY)
        for seed in (1, 2, 3)
    ]
    text = "".join(networks.section({name: sweeps.Figures(runs) for name in ("networks", "country")}))
    assert text.count("<h3>") == 4 and text.count("<table") == 3 * 2 * 2 + 2
    assert "52.0 %<small>51.0–53.0 %</small>" in text
    assert "Not applicable: nec, nec.fixed: relay = relay_xor on a path of 46 links" in text
    assert "268 nodes" in text and "pairs that ask are 4, 8, 18, 46 links apart" in text
    assert "failed" in text, "who should have run and has no row"
    assert "".join(networks.section({})) == "", "the quick study has none"


def test_the_country_is_never_run_longer_than_it_is_worth() -> None:
    for seconds in (20.0, 600.0):
        made = sweeps.grids(sweeps.FULL._replace(seconds=seconds))
        country, cities = made["country"][0], made["networks"][0]
        assert country.seconds == min(seconds, sweeps.COUNTRY_SECONDS) and cities.seconds == seconds
        assert country.designs == cities.designs == sweeps.BASE and len(country.seeds) == 3
    assert "country" not in sweeps.grids(sweeps.QUICK)


def test_published_figures_that_follow_from_rules_are_met() -> None:
    assert published.ddka().agrees == "yes" and "0.8251" in published.ddka().ours
    assert published.nec().agrees == "yes"
    sdqaas, mtka = published.admission()
    assert (sdqaas.agrees, mtka.agrees) == ("shape", "shape")


def test_where_a_queue_forms_prioritised_requests_wait_less_than_in_one_queue_and_best_effort_ones_more() -> None:
    found = queues.hhqa(loads=(1.0,), seeds=(1,), seconds=130.0)
    assert found.agrees == "shape"
    assert "load 1: prioritised 0." in found.ours and "reserved and idle" in found.ours
    assert "<svg" in found.plot and "one queue (FIFO)" in found.plot


def test_where_nobody_waits_nothing_is_said_of_the_order_of_classes() -> None:
    assert queues.hhqa(loads=(0.3,), seeds=(1,), seconds=90.0).agrees == "not decided"


def test_without_a_queue_for_each_class_the_result_is_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DESIGNS, "qos", variants.VARIANTS[variants.ONE_QUEUE])
    assert queues.hhqa(loads=(1.0,), seeds=(1,), seconds=130.0).agrees == "no"


def test_stores_filled_by_demand_serve_more_where_one_size_is_asked_for_and_waste_more_where_any_is() -> None:
    found = {
        (workload, split): stores._found(design, workload, 0.8, (1,), 60.0)
        for workload in ("W1", "W3")
        for split, design in (("equal", DESIGNS["ddka"]), ("demand", variants.VARIANTS[variants.BY_DEMAND]))
    }
    assert found["W1", "demand"].success > found["W1", "equal"].success + 0.1
    assert found["W1", "demand"].waste < 0.01 < 0.3 < found["W1", "equal"].waste
    assert found["W3", "demand"].waste > found["W3", "equal"].waste + 0.1
    assert found["W3", "demand"].success <= found["W3", "equal"].success


def test_what_was_left_open_is_not_called_agreed() -> None:
    told = stores.preparing(loads=(0.5,), seeds=(1,), seconds=20.0)
    assert told.agrees == "open" and "W2 (four sizes, three of them stored) at load 0.5: success" in told.ours
    assert told.plot.count("series") >= 6
