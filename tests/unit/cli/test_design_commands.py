"""`keyhop design` shows compositions, marks what is guessed, and says honestly what a node runs."""

from __future__ import annotations

import io

import msgspec
import pytest
from pretend import Run
from ruamel.yaml import YAML

from keyhop.cli.output import ExitCode
from keyhop.core.designs import DESIGNS


def test_the_list_says_of_each_design_whether_a_node_runs_it(run: Run) -> None:
    heads, *rows = run("design", "list").stdout.splitlines()
    assert heads.startswith("NAME") and heads.endswith("RUNS ON A NODE")
    controlled = "hosted, with a controller"
    told = {"keyhop": "yes", "sdqaas": controlled, "sdqaas.mtka": controlled}
    assert [row.split()[0] for row in rows] == list(DESIGNS)
    assert all(row.endswith(f" {told.get(row.split()[0], 'hosted')}") for row in rows)


def test_the_list_as_json_has_every_design_with_what_is_not_wired(run: Run) -> None:
    answer = msgspec.json.decode(run("design", "list", "-o", "json").stdout)
    assert answer["apiVersion"] == "keyhop/v1"
    assert [entry["name"] for entry in answer["designs"]] == list(DESIGNS)
    assert all((entry["runs_on_a_node"] == "yes") is not bool(entry["not_wired"]) for entry in answer["designs"])


@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_is_shown_as_yaml_with_a_tag_on_every_field(run: Run, name: str) -> None:
    text = run("design", "show", name).stdout
    shown = YAML(typ="safe", pure=True).load(io.StringIO(text))
    assert shown["name"] == name
    tagged = [
        line for line in text.splitlines() if line.rstrip().endswith(("# S", "# P", "# C", "# R", "# K", "guess)"))
    ]
    assert len(tagged) == len(DESIGNS[name].leaves)
    assert shown["own_share"] == pytest.approx(DESIGNS[name].own_share, abs=0.006)


def test_yaml_has_the_parts_under_their_questions(run: Run) -> None:
    shown = YAML(typ="safe", pure=True).load(io.StringIO(run("design", "show", "toshiba.2016").stdout))
    assert shown["storage"] == {"fixed_block": {"unit_bits": 256, "medium": "disk", "encoding": "raw"}}
    assert list(shown["division"]) == ["enc_dec", "session"]
    assert shown["refill"]["local"]["sated"]["sated_ratio"] == 0.9
    assert shown["refill"]["global"] == {"no_threshold": {}}
    assert shown["formatting"] == {"reception": {"chunk_on_reception": {}}, "supply": {"identity": {}}}
    assert shown["door"] == {"etsi014": {}}
    secoqc = YAML(typ="safe", pure=True).load(io.StringIO(run("design", "show", "secoqc").stdout))
    assert secoqc["door"] == {"session": {"profile": "rate"}}
    assert secoqc["promises_its"] is True
    assert secoqc["runs_on_a_node"] == "hosted"


def test_guesses_are_marked_and_statements_are_not(run: Run) -> None:
    lines = run("design", "show", "darpa").stdout.splitlines()
    assert any("unit_bits: 1024" in line and line.endswith("# R (a guess)") for line in lines)
    assert any("medium: memory" in line and line.endswith("# S") for line in lines)
    assert any("retries: 5" in line and line.endswith("# K (a guess)") for line in lines)


def test_our_own_design_is_ours_and_guesses_nothing(run: Run) -> None:
    text = run("design", "show", "keyhop").stdout
    assert "own_share: 1.00" in text and "guess" not in text
    assert 'runs_on_a_node: "yes"' in text
    assert "The survey has no row for it." in text


def test_what_the_survey_says_stands_beside_what_is_done_here(run: Run) -> None:
    text = run("design", "show", "nec.fixed").stdout
    line = next(line for line in text.splitlines() if line.startswith("# thresholds"))
    assert line.split()[2:5] == ["N", "Y", "departs"] and "made ahead of need" in line
    answer = msgspec.json.decode(run("design", "show", "nec.fixed", "-o", "json").stdout)
    assert [row["column"] for row in answer["survey"] if not row["agrees"]] == ["thresholds"]
    assert any("allocated ahead" in entry["open"] for entry in answer["silences"])


def test_json_has_every_field_with_its_source(run: Run) -> None:
    answer = msgspec.json.decode(run("design", "show", "cisco", "-o", "json").stdout)
    fields = {entry["field"]: entry for entry in answer["composition"]}
    assert fields["storage.unit_bits"] == {"field": "storage.unit_bits", "value": 64, "source": "S", "guess": False}
    assert fields["refill.threshold"]["guess"] is True
    assert answer["access"] == {"local": "asked", "global": "asked"}
    assert answer["warnings"] and answer["runs_on_a_node"] == "hosted"


def test_what_relay_nodes_learn_of_a_key_is_said_where_a_design_is_shown(run: Run) -> None:
    for name, says in (("nict", "A node on the way learns"), ("nectec", "cannot compute"), ("cisco", "")):
        text = run("design", "show", name).stdout
        answer = msgspec.json.decode(run("design", "show", name, "-o", "json").stdout)
        sentence = DESIGNS[name].on_the_way
        assert says in sentence and bool(says) is bool(sentence)
        assert answer["on_the_way"] == (sentence or None)
        assert (f"# {sentence}" in text.splitlines()) is bool(sentence)
        assert ("on the way" in text) is bool(sentence)


def test_a_design_that_lets_two_uses_collide_says_so(run: Run) -> None:
    assert "same key at once" in run("design", "show", "qcanada.working_set").stdout
    assert "same key at once" not in run("design", "show", "qcanada").stdout


@pytest.mark.parametrize("command", ["show", "check"])
def test_an_unknown_name_is_refused_with_the_nearest(run: Run, command: str) -> None:
    result = run("design", command, "cisko")
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert result.stdout == ""
    assert result.stderr.startswith("error: no design is called cisko (did you mean cisco?)")
    far = run("design", command, "zzzzzz")
    assert far.exit_code == ExitCode.NO_SUCH_THING and "see: keyhop design list" in far.stderr


@pytest.mark.parametrize("name", DESIGNS)
def test_every_shipped_design_passes_its_check(run: Run, name: str) -> None:
    result = run("design", "check", name)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{name}: the parts go together")


def test_a_network_on_which_the_relay_cannot_work_is_a_problem(run: Run) -> None:
    result = run("design", "check", "nec", "--links", "3")
    assert result.exit_code == ExitCode.PROBLEMS
    assert "relay_xor on a path of 3 links" in result.stdout
    assert run("design", "check", "nec", "--links", "2").exit_code == 0
    assert run("design", "check", "nec", "--links", "0").exit_code == ExitCode.USAGE


def test_a_check_tells_departures_from_disagreements(run: Run) -> None:
    answer = msgspec.json.decode(run("design", "check", "nectec", "-o", "json").stdout)
    assert answer["legal"] is True and answer["disagreements"] == []
    assert len(answer["departures"]) == 1 and "division" in answer["departures"][0]
    assert "division session" in answer["not_wired"]


def test_names_of_designs_are_completed(run: Run) -> None:
    env = {"_KEYHOP_COMPLETE": "bash_complete", "COMP_WORDS": "keyhop design show tosh", "COMP_CWORD": "3"}
    assert [line.split(",")[1] for line in run(env=env).stdout.split()] == ["toshiba.2016", "toshiba.2019"]


@pytest.mark.parametrize("file", ["mine.yml", "./nict", "designs/nict.py"])
def test_a_file_is_no_design_and_it_is_said_why(run: Run, file: str) -> None:
    result = run("design", "check", file)
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert f"no design is called {file}" in result.stderr and "not read from a file" in result.stderr
    assert "not read from a file" not in run("design", "check", "nic").stderr
