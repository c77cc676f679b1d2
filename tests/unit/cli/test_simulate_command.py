"""`keyhop simulate` runs a file, shows where requests and bits went, and leaves nothing half written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from pretend import Run

from keyhop.cli.main import cli
from keyhop.cli.output import ExitCode

FILE = "apiVersion: keyhop/v1\ntopology: line3\ndesign: secoqc\nworkload: W3\nfor: 20 s\nseed: 3\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yml"
    path.write_text(FILE)
    return path


def test_a_run_says_what_became_of_requests_and_bits(run: Run, file: Path) -> None:
    result = run("simulate", file)
    assert result.exit_code == 0, result.output
    assert "success" in result.stdout and "WHERE KEY OF LINKS WENT" in result.stdout
    assert "came in" in result.stdout and "kb/s" in result.stdout
    assert "secoqc on line3: W3 odd_size, load 0.8" in result.stderr


def test_json_has_the_same_figures_each_time(run: Run, file: Path) -> None:
    answer = json.loads(run("simulate", file, "-o", "json").stdout)
    assert answer == json.loads(run("simulate", file, "-o", "json").stdout)
    assert (answer["apiVersion"], answer["design"], answer["run_by"]) == ("keyhop/v1", "secoqc", "sites")
    assert sum(answer["verdicts"].values()) == answer["requests"] > 0
    for book in answer["ledger"].values():
        assert book["in_bits"] == sum(bits for name, bits in book.items() if name != "in_bits")


def test_our_own_design_is_run_by_nodes_and_what_says_nothing_is_n_a(run: Run, file: Path) -> None:
    file.write_text("apiVersion: keyhop/v1\ntopology: p2p\nfor: 10 s\n")
    assert json.loads(run("simulate", file, "-o", "json").stdout)["run_by"] == "nodes"
    assert "n/a" in run("simulate", file).stdout, "without a fault there is nothing to recover from"


def test_the_trace_has_a_line_for_each_request(run: Run, file: Path, tmp_path: Path) -> None:
    answer = json.loads(run("simulate", file, "--trace", tmp_path / "trace.jsonl", "-o", "json").stdout)
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert [line["request"] for line in lines] == list(range(answer["requests"]))
    supplied = [line for line in lines if line["verdict"] == "supplied"]
    assert len(supplied) == answer["verdicts"]["supplied"]
    assert all(line["done_s"] >= line["at_s"] and line["latency_s"] > 0 for line in supplied)


def test_a_place_that_cannot_be_written_is_refused_before_the_run(run: Run, file: Path, tmp_path: Path) -> None:
    result = run("simulate", file, "--trace", tmp_path / "absent" / "trace.jsonl")
    assert result.exit_code == ExitCode.FAILED
    assert "cannot be used" in result.stderr and result.stdout == ""


def test_a_wrong_file_is_refused_with_its_line(run: Run, file: Path, tmp_path: Path) -> None:
    file.write_text(FILE + "sede: 4\n")
    result = run("simulate", file, "--trace", tmp_path / "trace.jsonl")
    assert result.exit_code == ExitCode.USAGE
    assert "run.yml:7: sede: unknown key: did you mean seed?" in result.stderr
    assert "see: keyhop config schema simulation" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.yml"]


def test_a_file_that_is_not_there_is_said_to_be_so(run: Run, tmp_path: Path) -> None:
    assert run("simulate", tmp_path / "absent.yml").exit_code == ExitCode.NO_SUCH_THING


def test_the_file_can_be_validated_and_has_a_schema(run: Run, file: Path) -> None:
    assert "valid simulation file, secoqc on line3" in run("config", "validate", file).stdout
    assert json.loads(run("config", "schema", "simulation").stdout)["title"] == "Keyhop simulation"


def test_yaml_files_are_completed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    (file.parent / "notes.txt").touch()
    found = ShellComplete(cli, {}, "keyhop", "_KEYHOP_COMPLETE").get_completions(["simulate"], "")
    assert [item.value for item in found] == ["run.yml"]


def test_what_cannot_be_written_is_named_as_it_was_given(run: Run, file: Path, tmp_path: Path) -> None:
    result = run("simulate", file, "--trace", tmp_path / "absent" / "trace.jsonl")
    assert f"{tmp_path / 'absent' / 'trace.jsonl'} cannot be used" in result.stderr
    assert ".new" not in result.stderr


def test_an_event_that_the_run_never_reaches_is_refused(run: Run, file: Path) -> None:
    file.write_text(
        FILE + "events:\n  - {at: 5 s, cut: [alice, relay], for: 60 s}\n  - {at: 20 s, restart: relay, for: 1 s}\n"
    )
    result = run("simulate", file)
    assert result.exit_code == ExitCode.USAGE
    assert "run.yml:9: events[1].at: 20 s is never reached: must be before the end of the run, 20 s" in result.stderr
    file.write_text(file.read_text().replace("at: 20 s", "at: 19 s"))
    assert run("simulate", file).exit_code == 0


def test_the_only_legal_word_is_written_out(run: Run, file: Path) -> None:
    file.write_text(FILE.replace("apiVersion: keyhop/v1\n", ""))
    assert "apiVersion is missing: write apiVersion: keyhop/v1" in run("simulate", file).stderr
