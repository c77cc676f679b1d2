"""A sweep in its directory: rows as they come, and after an interruption what is still to do."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import orjson

from keyhop.comparison.attempt import RUNNER, Result, Task, runner
from keyhop.comparison.case import Case, Grid, Row, not_applicable, run_id
from keyhop.comparison.executors import Executor, Underway
from keyhop.comparison.progress import Progress
from keyhop.comparison.version import code_version
from keyhop.core.designs import DESIGNS
from keyhop.simulator import topology
from keyhop.simulator.workloads import WORKLOADS

MANIFEST = "sweep.json"
ROWS = "rows.jsonl"
TIMES = "times.jsonl"
"""What each run took on the clock, and the runs that failed: not in the rows, which are the same on any machine."""


class SweepError(Exception):
    """The directory cannot be used so; the text says why and what to do."""


class Machine(msgspec.Struct, frozen=True):
    """What kind of machine asked for the sweep; nothing that names it."""

    system: str
    architecture: str
    cores: int
    python: str


class Manifest(msgspec.Struct, frozen=True):
    """What a sweep is: a directory with another one is not gone on with."""

    grid: Grid
    version: str
    runner: str
    command: str
    machine: Machine


Tell = Callable[[Progress], None]


def run(
    directory: Path, grid: Grid, executor: Executor, *, command: str, runner_name: str = RUNNER, tell: Tell
) -> Progress:
    """Does what is missing. `tell` hears of the state at the start, after each run and, where the executor can say,
    while one takes long. Raises SweepError, RunnerError, ExecutorError or OSError; whatever ends it, the rows so far
    are whole and stay."""
    runner(runner_name)
    wanted = Manifest(grid, code_version(), runner_name, command, _machine())
    _begin(directory, wanted)
    with _locked(directory / ROWS) as rows, (directory / TIMES).open("ab") as times:
        have = {row.run_id for row in _mended(rows, directory / ROWS)}
        progress = Progress(len(have), len(grid))
        tell(progress)
        missing = (case for case in grid.cases() if run_id(case, wanted.version) not in have)
        for result in _results(missing, executor, wanted):
            if isinstance(result, Underway):
                underway = tuple((task.case, seconds) for task, seconds in result.tasks)
                tell(msgspec.structs.replace(progress, underway=underway))
                continue
            progress = _keep(result, rows, times, progress)
            tell(progress)
    return progress


def _results(missing: Iterator[Case], executor: Executor, wanted: Manifest) -> Iterator[Result | Underway]:
    """Cases that cannot be run need no worker; neither does a sweep that is complete."""
    tasks: list[Task] = []
    for case in missing:
        task = Task(case, wanted.runner, wanted.version)
        if why := not_applicable(case.design, case.topology):
            yield Result(task, line=Row(case, "", {}, why).line())
        else:
            tasks.append(task)
    if tasks:
        yield from executor.results(tasks)


def _keep(result: Result, rows: BinaryIO, times: BinaryIO, before: Progress) -> Progress:
    if result.line:
        rows.write(result.line + b"\n")
        rows.flush()
    if result.seconds or result.error:
        case = msgspec.structs.asdict(result.task.case)
        times.write(orjson.dumps(case | {"seconds_taken": round(result.seconds, 4), "error": result.error}) + b"\n")
        times.flush()
    if not result.error:
        return msgspec.structs.replace(before, done=before.done + 1)
    first = before.first_failure or f"{result.task.case}: {result.error}"
    return msgspec.structs.replace(before, failed=before.failed + 1, first_failure=first)


def read_manifest(directory: Path) -> Manifest:
    """Raises SweepError."""
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise SweepError(f"{directory} holds no comparison: it has no {MANIFEST}") from None
    except (msgspec.DecodeError, OSError) as error:
        raise SweepError(f"{directory / MANIFEST} cannot be read: {error}") from None
    for kind, named, known in (
        ("design", manifest.grid.designs, DESIGNS),
        ("workload", manifest.grid.workloads, WORKLOADS),
        ("topology", manifest.grid.topologies, {*topology.names(), *topology.ALIASES}),
    ):
        unknown = [name for name in named if name not in known]
        if unknown:
            raise SweepError(f"{directory} cannot be drawn: this program knows no {kind} {unknown[0]}")
    return manifest


def read_rows(directory: Path) -> list[Row]:
    """All rows, in the order of the grid; a line that is still being written is left out. Raises SweepError."""
    manifest = read_manifest(directory)
    path = directory / ROWS
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b""
    whole, _, _ = text.rpartition(b"\n")
    by_id = {row.run_id: row for row in _parsed(whole.splitlines(), path)}
    order = (run_id(case, manifest.version) for case in manifest.grid.cases())
    return [by_id[name] for name in order if name in by_id]


def read_failures(directory: Path) -> dict[Case, str]:
    """The last error of each case that has no row; a line that is still being written is left out."""
    try:
        lines = (directory / TIMES).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    failed: dict[Case, str] = {}
    for line in lines:
        try:
            told = orjson.loads(line)
            case = msgspec.convert({name: told[name] for name in Case.__struct_fields__}, Case)
        except (orjson.JSONDecodeError, msgspec.ValidationError, KeyError, TypeError):
            # Cut off by a kill; the run is missing and will be done again.
            continue
        failed.pop(case, None)
        if error := told.get("error"):
            failed[case] = str(error)
    return failed


def _parsed(lines: list[bytes], path: Path) -> Iterator[Row]:
    seen: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = Row.from_line(line)
        except ValueError as error:
            raise SweepError(f"{path}:{number}: {error}: take the line out; its run will be done again") from None
        if seen.setdefault(row.run_id, line) != line:
            raise SweepError(f"{path}:{number}: {row.case} stands there twice and differs: one of them is wrong")
        yield row


def _begin(directory: Path, wanted: Manifest) -> None:
    """A directory that is new, empty or of this very sweep."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / MANIFEST
    if not path.exists():
        if foreign := sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith(f".{MANIFEST}")):
            raise SweepError(f"{directory} holds something else ({foreign[0]}): name a directory that is new or empty")
        _write_whole(path, msgspec.json.format(msgspec.json.encode(wanted), indent=2) + b"\n")
        return
    found = read_manifest(directory)
    if difference := _difference(found, wanted):
        raise SweepError(f"{directory} holds another comparison: {difference}: name another directory, or delete it")


def _difference(found: Manifest, wanted: Manifest) -> str:
    for axis in Grid.__struct_fields__:
        theirs, ours = getattr(found.grid, axis), getattr(wanted.grid, axis)
        if theirs != ours:
            return f"its {axis} are {_short(theirs)}, here {_short(ours)}"
    if found.version != wanted.version:
        return f"it was made by the code {found.version}, this is {wanted.version}"
    if found.runner != wanted.runner:
        return f"its runs were done by {found.runner}, these by {wanted.runner}"
    return ""


def _short(axis: object) -> str:
    if not isinstance(axis, tuple):
        return f"{axis}"
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in axis]
    return ",".join(shown if len(shown) <= 6 else [*shown[:3], "…", shown[-1]])


def _write_whole(path: Path, content: bytes) -> None:
    """All or nothing: a sweep killed here has no manifest yet."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Two sweeps in one directory would do everything twice."""
    with path.open("ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(
                f"{path.parent} is in use by another sweep: wait for it, or name another directory"
            ) from None
        yield file


def _mended(file: BinaryIO, path: Path) -> list[Row]:
    """The rows so far. What was cut off by a kill is taken away: its run is done again."""
    file.seek(0)
    text = file.read()
    whole, newline, torn = text.rpartition(b"\n")
    if torn:
        file.truncate(len(whole) + len(newline))
    file.seek(0, os.SEEK_END)
    return list(_parsed(whole.splitlines(), path))


def _machine() -> Machine:
    return Machine(
        platform.system(), platform.machine(), os.cpu_count() or 1, ".".join(platform.python_version_tuple()[:2])
    )
