"""A sweep loses no row and writes none twice, whichever process is killed, and gives the same rows anywhere."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import arithmetic
import distributed
import pytest

from keyhop.comparison import sweep
from keyhop.comparison.attempt import Result, RunnerError, Task, attempt
from keyhop.comparison.case import Grid, Row
from keyhop.comparison.executors import ATTEMPTS_LIMIT, Dask, Executor, ExecutorError, Processes
from keyhop.comparison.progress import Progress
from keyhop.comparison.sweep import MANIFEST, ROWS, TIMES, SweepError, read_rows
from keyhop.comparison.version import code_version

GRID = Grid(("keyhop", "darpa", "nec"), ("W2",), (0.5, 1.2), ("p2p", "line3"), (1, 2, 3), 60.0)
RUNNER = "arithmetic:run_case"
DEADLINE_S = 30.0


class Here:
    """In this process; `limit` ends it as Ctrl-C would."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.seen = 0

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        for task in tasks:
            if self.seen == self.limit:
                raise KeyboardInterrupt
            self.seen += 1
            yield attempt(task)


def perform(directory: Path, executor: Executor | None = None, grid: Grid = GRID, runner: str = RUNNER) -> Progress:
    told: list[Progress] = []
    end = sweep.run(directory, grid, executor or Here(), command="keyhop compare", runner_name=runner, tell=told.append)
    assert told[-1] == end and [state.done for state in told] == sorted(state.done for state in told)
    return end


def lines(directory: Path) -> list[bytes]:
    return sorted((directory / ROWS).read_bytes().splitlines())


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    directory = tmp_path_factory.mktemp("expected")
    assert perform(directory).done == len(GRID)
    return lines(directory)


def test_every_case_leaves_one_row_and_what_cannot_run_says_so(tmp_path: Path) -> None:
    perform(tmp_path)
    rows = read_rows(tmp_path)
    assert [row.case for row in rows] == list(GRID.cases())
    assert {(row.case.design, row.case.topology) for row in rows if row.not_applicable} == {("darpa", "line3")}
    assert all(bool(row.metrics) is not bool(row.not_applicable) for row in rows)


def test_rows_hold_nothing_of_time_or_place_and_times_stand_beside_them(tmp_path: Path) -> None:
    perform(tmp_path)
    assert b"taken" not in (tmp_path / ROWS).read_bytes()
    assert len((tmp_path / TIMES).read_bytes().splitlines()) == len(GRID) - 6
    assert b"machine" in (tmp_path / MANIFEST).read_bytes()


def test_processes_give_the_same_bytes(tmp_path: Path, expected: list[bytes]) -> None:
    assert perform(tmp_path, Processes(2)).done == len(GRID)
    assert lines(tmp_path) == expected


def test_a_killed_worker_costs_no_row(tmp_path: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv(arithmetic.DEATHS, str(marks))
    end = perform(tmp_path / "out", Processes(2))
    assert len(list(marks.iterdir())) == 5
    assert (end.done, end.failed) == (len(GRID), 0)
    assert lines(tmp_path / "out") == expected


def test_who_waits_hears_which_run_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYHOP_TEST_PAUSE_S", "0.3")
    monkeypatch.setattr("keyhop.comparison.executors.BEAT_S", 0.05)
    told: list[Progress] = []
    grid = Grid(("keyhop", "darpa"), ("W2",), (0.5,), ("p2p",), (1, 3), 60.0)
    sweep.run(tmp_path / "sweep", grid, Processes(1), command="", runner_name=RUNNER, tell=told.append)
    seen = [state for state in told if state.underway]
    assert {case for state in seen for case, _ in state.underway} == set(grid.cases()), "each has its turn"
    assert all(len(state.underway) == 1 for state in seen), "one worker runs one"
    times = [state.underway[0][1] for state in seen if state.done == 1]
    assert times == sorted(times) and times[-1] > 0.1
    assert not told[-1].underway


def test_a_case_that_kills_every_worker_is_given_up_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(("keyhop",), ("W2",), (0.5,), ("p2p",), (1, 2, 3, 4), 60.0)
    monkeypatch.setenv(arithmetic.ALWAYS, "yes")
    end = perform(tmp_path, Processes(2), grid)
    assert (end.done, end.failed) == (3, 1)
    assert end.first_failure.endswith(f"seed 2: its worker died {ATTEMPTS_LIMIT} times")
    monkeypatch.delenv(arithmetic.ALWAYS)
    assert perform(tmp_path, grid=grid) == Progress(4, 4)


def test_dask_gives_the_same_bytes_with_a_killed_worker_and_without(
    tmp_path: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert perform(tmp_path / "calm", Dask(2)).done == len(GRID)
    assert lines(tmp_path / "calm") == expected
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv(arithmetic.DEATHS, str(marks))
    grid = Grid(*(getattr(GRID, axis) for axis in GRID.__struct_fields__))
    end = perform(tmp_path / "killed", Dask(2), grid)
    assert (end.done, end.failed) == (len(GRID), 0)
    assert len(list(marks.iterdir())) == 5
    assert lines(tmp_path / "killed") == expected


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_ended_goes_on_where_it_was(tmp_path: Path, expected: list[bytes], signal_number: int) -> None:
    out = tmp_path / "out"
    process = _start(out)
    _wait_for_rows(out, 10)
    workers = _children(process.pid)
    process.send_signal(signal_number)
    process.wait(DEADLINE_S)
    assert workers
    for worker in workers:
        _wait_until_gone(worker)
    before = (out / ROWS).read_bytes()
    assert 10 <= before.count(b"\n") < len(GRID)
    perform(out)
    after = (out / ROWS).read_bytes()
    assert after.startswith(before[: before.rindex(b"\n") + 1])
    assert lines(out) == expected


def test_an_interrupted_sweep_does_only_what_is_missing(tmp_path: Path, expected: list[bytes]) -> None:
    with pytest.raises(KeyboardInterrupt):
        perform(tmp_path, Here(limit=11))
    rest = Here()
    perform(tmp_path, rest)
    assert rest.seen == len(GRID) - 6 - 11
    assert lines(tmp_path) == expected
    idle = Here()
    assert perform(tmp_path, idle) == Progress(len(GRID), len(GRID)) and idle.seen == 0


def test_a_torn_last_line_is_dropped_and_its_run_done_again(tmp_path: Path, expected: list[bytes]) -> None:
    perform(tmp_path)
    whole = (tmp_path / ROWS).read_bytes()
    for cut in (1, 2, 100):
        (tmp_path / ROWS).write_bytes(whole[:-cut])
        assert len(read_rows(tmp_path)) == len(GRID) - 1
        again = Here()
        perform(tmp_path, again)
        assert again.seen == 1 and lines(tmp_path) == expected


def test_a_spoilt_line_is_refused_with_its_number(tmp_path: Path) -> None:
    perform(tmp_path)
    text = (tmp_path / ROWS).read_bytes().splitlines(keepends=True)
    (tmp_path / ROWS).write_bytes(b"".join([*text[:4], b"{}\n", *text[4:]]))
    with pytest.raises(SweepError, match=rf"{ROWS}:5: no row of a comparison: lacks design: take the line out"):
        perform(tmp_path)
    with pytest.raises(SweepError, match=rf"{ROWS}:5"):
        read_rows(tmp_path)


def test_two_rows_of_one_case_that_differ_are_refused(tmp_path: Path) -> None:
    perform(tmp_path)
    first = Row.from_line((tmp_path / ROWS).read_bytes().splitlines()[-1])
    with (tmp_path / ROWS).open("ab") as file:
        file.write(first.line() + b"\n")
    assert len(read_rows(tmp_path)) == len(GRID)
    with (tmp_path / ROWS).open("ab") as file:
        file.write(Row(first.case, first.trace, {"supply_success": 0.123}).line() + b"\n")
    with pytest.raises(SweepError, match="stands there twice and differs"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seeds": (1, 2)}, "its seeds are 1,2,3, here 1,2"),
        ({"loads": (0.5,)}, "its loads are 0.5,1.2, here 0.5"),
        ({"designs": ("keyhop",)}, "its designs are keyhop,darpa,nec, here keyhop"),
        ({"seconds": 61.0}, "its seconds are 60.0, here 61.0"),
    ],
)
def test_a_directory_with_another_sweep_is_refused_and_left_alone(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    perform(tmp_path)
    before = (tmp_path / ROWS).read_bytes(), (tmp_path / MANIFEST).read_bytes()
    axes = {axis: getattr(GRID, axis) for axis in GRID.__struct_fields__}
    with pytest.raises(SweepError, match=f"holds another comparison: {why}: name another directory"):
        perform(tmp_path, grid=Grid(**(axes | change)))
    assert before == ((tmp_path / ROWS).read_bytes(), (tmp_path / MANIFEST).read_bytes())


def test_rows_of_other_code_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    perform(tmp_path)
    text = (tmp_path / MANIFEST).read_text()
    (tmp_path / MANIFEST).write_text(text.replace(code_version(), "0.0.9+old"))
    with pytest.raises(SweepError, match=r"it was made by the code 0\.0\.9\+old, this is "):
        perform(tmp_path)


def test_a_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(SweepError, match=r"holds something else \(thesis\.tex\)"):
        perform(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_sweeps_in_one_directory_are_refused(tmp_path: Path) -> None:
    class Nested(Here):
        def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
            with pytest.raises(SweepError, match="in use by another sweep"):
                perform(tmp_path)
            yield from super().results(tasks)

    assert perform(tmp_path, Nested()).done == len(GRID)


def test_a_case_that_fails_does_not_end_the_sweep_and_is_tried_again(
    tmp_path: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(arithmetic.STUMBLES, "yes")
    end = perform(tmp_path)
    assert (end.done, end.failed) == (len(GRID) - 5, 5)
    assert "seed 2: ArithmeticError: a case with seed 2 is too hard" in end.first_failure
    monkeypatch.delenv(arithmetic.STUMBLES)
    assert perform(tmp_path).failed == 0
    assert lines(tmp_path) == expected


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic:no_such", "no.such.module:run_case", "arithmetic:PAUSE"])
def test_a_runner_that_cannot_be_had_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunnerError, match=name):
        perform(tmp_path / "out", runner=name)
    assert not (tmp_path / "out").exists()


def test_a_worker_with_other_code_does_nothing() -> None:
    task = Task(next(GRID.cases()), RUNNER, "0.0.9+old")
    result = attempt(task)
    assert result.line == b"" and "this worker has the code" in result.error


def test_a_scheduler_is_reached_by_tls_with_our_certificate_alone(tmp_path: Path, expected: list[bytes]) -> None:
    security = distributed.Security.temporary()
    files = {}
    for option, name in (("tls_ca", "tls_ca_file"), ("tls_cert", "tls_client_cert"), ("tls_key", "tls_client_key")):
        (tmp_path / option).write_text(getattr(security, name))
        files[option] = str(tmp_path / option)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, host="tls://127.0.0.1", security=security, dashboard_address=None
    ) as cluster:
        assert cluster.scheduler_address.startswith("tls://127.0.0.1:")
        assert perform(tmp_path / "out", Dask(1, cluster.scheduler_address, **files)).done == len(GRID)
        assert lines(tmp_path / "out") == expected
        plain = Dask(1, cluster.scheduler_address.replace("tls://", "tcp://"), patience_s=1.0)
        with pytest.raises(ExecutorError, match="does not answer"):
            perform(tmp_path / "plain", plain)


def test_a_scheduler_that_is_not_there_is_told_and_nothing_is_lost(tmp_path: Path, expected: list[bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ExecutorError, match=f"the scheduler tcp://127.0.0.1:{port} does not answer"):
        perform(tmp_path, Dask(1, f"tcp://127.0.0.1:{port}", patience_s=0.5))
    assert perform(tmp_path).done == len(GRID) and lines(tmp_path) == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"scheduler": "10.0.0.7:8786"}, "is no scheduler: write tls://HOST:PORT"),
        ({"scheduler": "tcp://192.0.2.7:8786"}, "is another machine"),
        ({"scheduler": "tls://192.0.2.7:8786"}, "takes --tls-ca, --tls-cert and --tls-key"),
        ({"scheduler": "tls://192.0.2.7:8786", "tls_ca": "ca.pem"}, "together"),
        ({"tls_ca": "ca.pem", "tls_cert": "c.pem", "tls_key": "k.pem"}, "--scheduler tls://HOST:PORT"),
    ],
)
def test_a_scheduler_that_anyone_could_speak_for_is_refused(given: dict[str, str], why: str) -> None:
    with pytest.raises(ExecutorError, match=why):
        Dask(2, **given)


SCRIPT = """
import signal, sys
from pathlib import Path
from keyhop.comparison import sweep
from keyhop.comparison.executors import Processes
from test_sweep import GRID, RUNNER

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Whoever runs the tests in the background of a script has it ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sweep.run(Path(sys.argv[1]), GRID, Processes(2), command="", runner_name=RUNNER, tell=lambda _: None)
"""


def _start(out: Path) -> subprocess.Popen[bytes]:
    script = out.parent / "sweeping.py"
    script.write_text(SCRIPT)
    environment = os.environ | {arithmetic.PAUSE: "0.1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, script, out], env=environment, stderr=subprocess.DEVNULL)


def _wait_for_rows(out: Path, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not (out / ROWS).exists() or (out / ROWS).read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "the sweep writes no rows"
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while _alive(pid):
        assert time.monotonic() < deadline, f"worker {pid} lives on"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
