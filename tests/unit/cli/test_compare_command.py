"""`keyhop compare` runs, refuses with the nearest legal word, goes on after a stop, and draws what is there."""

from __future__ import annotations

import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from click.shell_completion import ShellComplete
from pretend import Run

from keyhop.cli.compare import _rate
from keyhop.cli.main import cli
from keyhop.cli.output import ExitCode

RUNNER = ("--runner", "arithmetic:run_case")
SMALL = ("--designs", "keyhop,nec,darpa", "--loads", "0.5,1.2", "--seeds", "1..2", "--topologies", "p2p,line3")
RUNS = 3 * 2 * 2 * 2
DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def arithmetic_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importable here and in workers, which take over this path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "comparison"))


def test_a_comparison_leaves_rows_and_a_report(run: Run, tmp_path: Path) -> None:
    result = run("compare", *SMALL, "--out", "study", *RUNNER, "-o", "json")
    assert result.exit_code == 0, result.output
    answer = msgspec.json.decode(result.stdout)
    assert (answer["done"], answer["runs"]) == (RUNS, RUNS)
    assert (tmp_path / answer["report"]).read_text().startswith("<!DOCTYPE html>")
    assert len((tmp_path / "study" / "rows.jsonl").read_bytes().splitlines()) == RUNS
    assert [Path(name).name for name in answer["files"]] == ["rows.csv", "rows.parquet"]


def test_the_report_names_the_command_and_not_the_place(run: Run, tmp_path: Path) -> None:
    run("compare", *SMALL, "--out", tmp_path / "deep" / "study", *RUNNER)
    text = (tmp_path / "deep" / "study" / "report" / "index.html").read_text()
    assert "keyhop compare --designs keyhop,nec,darpa --loads 0.5,1.2" in text and "--out study" in text
    assert str(tmp_path) not in text


def test_a_file_and_options_say_the_same_and_options_go_before(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study.yml").write_text("designs: [nec]\nloads: 0.5\nseeds: 1..3\nout: of-the-file\n")
    answer = msgspec.json.decode(run("compare", "study.yml", "--seeds", "4", *RUNNER, "-o", "json").stdout)
    assert answer["runs"] == 1
    assert '"seed":4' in (tmp_path / "of-the-file" / "rows.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--designs", "cisko"), "--designs: no design is called cisko"),
        (("--designs", "nec,,cisko"), "did you mean cisco?"),
        (("--workloads", "W12"), "--workloads: no workload is called W12"),
        (("--topologies", "line33"), "did you mean line3?"),
        (("--loads", "0.5,high"), "'high' is no number; write numbers such as 0.5,1,2"),
        (("--loads", "-1"), "--loads: load -1 is out of range"),
        (("--seeds", "5..1"), "--seeds: 5..1 is no seed"),
        (("--seconds", "0"), "--seconds"),
        (("--seconds", "nan"), "--seconds"),
        (("--executor", "ray"), "processes"),
        (("--workers", "0"), "--workers"),
        (("--scheduler", "tcp://127.0.0.1:1"), "add --executor dask"),
        (("--desings", "nec"), "--designs"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = run("compare", *arguments, *RUNNER)
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr and result.stderr.startswith("error: ") and result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_refused_with_its_lines(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study.yml").write_text("designs: [nec]\nseed: 1..3\n")
    result = run("compare", "study.yml")
    assert result.exit_code == ExitCode.USAGE
    assert "study.yml:2: seed: unknown key: did you mean seeds?" in result.stderr
    assert run("compare", "none.yml").exit_code == ExitCode.NO_SUCH_THING


def test_a_scheduler_on_another_machine_needs_tls(run: Run, tmp_path: Path) -> None:
    result = run("compare", "--executor", "dask", "--scheduler", "tcp://192.0.2.1:8786", *RUNNER)
    assert result.exit_code == ExitCode.FAILED and "use tls://HOST:PORT" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_comparison_in_the_same_directory_is_refused(run: Run) -> None:
    assert run("compare", *SMALL, "--out", "study", *RUNNER).exit_code == 0
    result = run("compare", *SMALL, "--out", "study", "--seconds", "30", *RUNNER)
    assert result.exit_code == ExitCode.REFUSED
    assert "study holds another comparison: its seconds are 600.0, here 30.0" in result.stderr
    assert "name another directory" in result.stderr
    assert run("compare", *SMALL, "--out", "study", *RUNNER).exit_code == 0


def test_runs_that_fail_are_told_and_the_others_are_drawn(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYHOP_TEST_STUMBLES", "yes")
    result = run("compare", *SMALL, "--out", "study", *RUNNER)
    assert result.exit_code == ExitCode.PROBLEMS
    assert "5 of 24 runs failed" in result.stderr and "a case with seed 2 is too hard" in result.stderr
    assert "the same command tries them again" in result.stderr
    assert (tmp_path / "study" / "report" / "index.html").exists()
    monkeypatch.delenv("KEYHOP_TEST_STUMBLES")
    assert run("compare", *SMALL, "--out", "study", *RUNNER).exit_code == 0


def test_a_full_disk_is_named_and_the_sweep_goes_on_when_there_is_room(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands in for the disk: the kernel refuses the same write, in the same place."""
    words = ("compare", *SMALL, "--out", "study", *RUNNER)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        result = run(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert result.exit_code == ExitCode.FAILED
    assert "study cannot be written (File too large)" in result.stderr and "Traceback" not in result.stderr
    assert (tmp_path / "study" / "rows.jsonl").stat().st_size <= 4096
    assert run(*words).exit_code == ExitCode.DONE
    rows = (tmp_path / "study" / "rows.jsonl").read_bytes().splitlines()
    assert len(rows) == len(set(rows)) == RUNS


def test_a_report_is_drawn_anew_and_only_where_there_is_one(run: Run, tmp_path: Path) -> None:
    run("compare", *SMALL, "--out", "study", *RUNNER)
    before = (tmp_path / "study" / "report" / "index.html").read_text()
    (tmp_path / "study" / "report" / "index.html").unlink()
    assert run("compare", "report", "study").exit_code == 0
    assert (tmp_path / "study" / "report" / "index.html").read_text() == before
    assert run("compare", "-q", "report", "study").exit_code == 0
    result = run("compare", "report", "elsewhere")
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert "elsewhere holds no comparison (there is no such directory)" in result.stderr
    (tmp_path / "empty").mkdir()
    assert "it has no sweep.json" in run("compare", "report", "empty").stderr
    assert list((tmp_path / "empty").iterdir()) == []
    assert run("compare", "report").exit_code == ExitCode.USAGE


def test_help_has_examples_and_every_word(run: Run) -> None:
    text = run("compare", "--help").stdout
    for word in ("--designs", "--seeds", "--executor", "keyhop compare report study", "keyhop compare study.yml"):
        assert word in text
    assert "--runner" not in text
    assert "keyhop compare report keyhop-compare" in run("compare", "report", "--help").stdout
    assert "compare" in run("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "begun", "expected"),
    [
        (["compare", "--designs"], "tos", {"toshiba.2016", "toshiba.2019"}),
        (["compare", "--designs"], "nec,tos", {"nec,toshiba.2016", "nec,toshiba.2019"}),
        (["compare", "--workloads"], "W1,m", {"W1,mixed_size"}),
        (["compare", "--topologies"], "p2", {"p2p"}),
        (["compare", "--executor"], "d", {"dask"}),
        (["compare"], "--sche", {"--scheduler"}),
    ],
)
def test_names_are_completed(arguments: list[str], begun: str, expected: set[str]) -> None:
    found = ShellComplete(cli, {}, "keyhop", "_KEYHOP_COMPLETE").get_completions(arguments, begun)
    assert {item.value for item in found} == expected


HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""Whoever runs the tests in the background of a script has it ignored, and children inherit that."""


def test_ctrl_c_is_answered_with_the_command_that_goes_on(tmp_path: Path) -> None:
    arguments = ["compare", *SMALL, "--out", "study", "--workers", "2", *RUNNER]
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"{HEARS_CTRL_C}; from keyhop.cli.main import main; main()", *arguments],
        cwd=tmp_path,
        stderr=terminal,
        stdout=subprocess.PIPE,
        env=os.environ
        | {"KEYHOP_TEST_PAUSE_S": "0.2", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "200"},
    )
    os.close(terminal)
    rows = tmp_path / "study" / "rows.jsonl"
    deadline = time.monotonic() + DEADLINE_S
    while not rows.exists() or rows.read_bytes().count(b"\n") < 7:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = _read_all(main)
    assert process.wait(DEADLINE_S) == ExitCode.INTERRUPTED
    assert f"of {RUNS} runs in study (what is there is whole)" in said
    assert f"go on with: keyhop {' '.join(arguments)}" in said
    assert f"/{RUNS}" in said, "a terminal has a progress bar"
    assert rows.read_bytes().endswith(b"\n")


def _read_all(terminal: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end was closed: Linux says so by EIO
            break
        if not part:
            break
        parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode(errors="replace")


def test_what_no_design_can_serve_is_said_so(run: Run, tmp_path: Path) -> None:
    words = ("--designs", "cisco", "--topologies", "line3", "--loads", "0.8", "--seeds", "1", "--out", "study", *RUNNER)
    result = run("compare", *words)
    assert result.exit_code == ExitCode.FAILED
    assert "1 of 1 run cannot be done; cisco: it has no relay" in result.stdout
    assert "no design of this comparison can serve what is asked for" in result.stderr
    assert "keyhop design list" in result.stderr
    page = (tmp_path / "study" / "report" / "index.html").read_text()
    assert "there is nothing to draw" in page and "Success versus load" not in page and "1 run of" in page


def test_designs_that_cannot_be_run_somewhere_are_counted_beside_those_that_can(run: Run) -> None:
    result = run("compare", *SMALL, "--out", "study", *RUNNER)
    assert result.exit_code == 0
    assert f"4 of {RUNS} runs cannot be done; darpa: it has no relay" in result.stdout


@pytest.mark.parametrize(("done", "seconds", "rate"), [(8, 0.0004, 0.0), (8, None, 0.0), (40, 10.0, 4.0)])
def test_rows_that_come_at_once_are_no_speed(done: int, seconds: float | None, rate: float) -> None:
    assert _rate(done, seconds) == rate
