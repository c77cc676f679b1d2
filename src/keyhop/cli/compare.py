"""`keyhop compare`: designs side by side under the same load, and the report about it."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from keyhop.cli import figures, output
from keyhop.cli.figures import counted
from keyhop.cli.output import ExitCode, fail, refuse_file
from keyhop.cli.settings import FILE, common_options, settings

if TYPE_CHECKING:
    from keyhop.comparison.executors import Executor
    from keyhop.comparison.plan import Plan
    from keyhop.comparison.progress import Progress

REPORT = "report"
RATE_AFTER_S = 2.0


class Compare(click.Command):
    """`keyhop compare report DIR` beside `keyhop compare [FILE]`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        at = next((place for place, word in enumerate(args) if not word.startswith("-")), None)
        if at is not None and args[at] == REPORT:
            return report.make_context(f"{info_name} {REPORT}", [*args[:at], *args[at + 1 :]], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def _completes(names: Callable[[], Iterable[str]]) -> Any:
    """The last word of a list with commas."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        before, comma, last = begun.rpartition(",")
        given = before.split(",")
        return [
            CompletionItem(f"{before}{comma}{name}") for name in names() if name.startswith(last) and name not in given
        ]

    return complete


def _designs() -> Iterator[str]:
    from keyhop.core.designs import DESIGNS

    return iter(("all", *DESIGNS))


def _workloads() -> Iterator[str]:
    from keyhop.simulator.workloads import WORKLOADS

    yield from ("all", *WORKLOADS)
    yield from (workload.name for workload in WORKLOADS.values())


def _topologies() -> Iterator[str]:
    from keyhop.comparison.plan import TOPOLOGY_ALIASES
    from keyhop.simulator import topology

    return iter(sorted((*topology.names(), *TOPOLOGY_ALIASES)))


def _files(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    words = [CompletionItem(REPORT, help="Draw the report of a sweep anew.")] if REPORT.startswith(begun) else []
    return [*words, CompletionItem(begun, type="file")]


def _words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(word for word in value.replace(" ", "").split(",") if word)


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    numbers = []
    for word in _words(context, parameter, value) or ():
        try:
            numbers.append(float(word))
        except ValueError:
            raise click.BadParameter(
                f"{word!r} is no number; write numbers such as 0.5,1,2", context, parameter
            ) from None
    return None if value is None else tuple(numbers)


@click.command(cls=Compare)
@click.argument("file", type=FILE, required=False, shell_complete=_files)
@click.option("--designs", metavar="NAMES", callback=_words, shell_complete=_completes(_designs), help="Or all. [all]")
@click.option(
    "--workloads", metavar="W1,…", callback=_words, shell_complete=_completes(_workloads), help="Or all. [W2]"
)
@click.option("--loads", metavar="0.2,…", callback=_numbers, help="Demand over key rate. [0.2,0.5,0.8,1,1.2,2]")
@click.option(
    "--topologies",
    metavar="NAMES",
    callback=_words,
    shell_complete=_completes(_topologies),
    help="Built-in networks. [p2p]",
)
@click.option("--seeds", metavar="1..20", callback=_words, help="Numbers and ranges. [1..5]")
@click.option("--seconds", type=float, help="Simulated time of each run. [600]")
@click.option("--out", type=FILE, help="Directory of rows and report. [keyhop-compare]")
@click.option("--executor", type=click.Choice(["processes", "dask"]), help="Who does the runs. [processes]")
@click.option("--workers", type=click.IntRange(1, 4096), help="How many at once; as many as cores if not given.")
@click.option("--scheduler", metavar="ADDRESS", default="", help="A Dask scheduler, such as tls://HOST:8786.")
@click.option("--tls-ca", metavar="FILE", default="", help="Who signed the scheduler's certificate.")
@click.option("--tls-cert", metavar="FILE", default="", help="Our certificate for it.")
@click.option("--tls-key", metavar="FILE", default="", help="The key of that certificate.")
@click.option("--runner", hidden=True, help="module:function that does a run.")
@common_options
def compare(
    file: Path | None,
    scheduler: str,
    tls_ca: str,
    tls_cert: str,
    tls_key: str,
    runner: str | None,
    **given: Any,
) -> None:
    """Run designs side by side in the simulator, each under the same arrivals, and draw a report about it.

    A FILE has the same words: `designs: [nec, ait]`, `seeds: 1..20`; where an option says otherwise, the option holds.
    A sweep that was stopped goes on when the same command is given again. `keyhop compare report DIR` draws the report
    anew.

    \b
    Examples:
      keyhop compare --designs keyhop,nec,cisco --workloads W3
      keyhop compare --designs all --topologies p2p,line3 --seeds 1..20 --out study
      keyhop compare study.yml --workers 16
      keyhop compare study.yml --executor dask --scheduler tcp://127.0.0.1:8786
      keyhop compare report study
    """
    from keyhop.comparison import attempt, sweep
    from keyhop.comparison.executors import ExecutorError
    from keyhop.comparison.plan import arguments

    plan = _plan(file, {name: value for name, value in given.items() if value is not None})
    try:
        executor = _executor(plan, scheduler, tls_ca, tls_cert, tls_key)
        grid = plan.grid()
        output.say(f"{counted(len(grid), 'run')} of {plan.seconds:g} simulated seconds, rows in {plan.out}")
        # Whoever is handed the report need not know where the directory was.
        command = shlex.join(["keyhop", "compare", *arguments(replace(plan, out=Path(plan.out.absolute().name)))])
        with _bar(len(grid)) as tell:
            end = sweep.run(plan.out, grid, executor, command=command, runner_name=runner or attempt.RUNNER, tell=tell)
    except KeyboardInterrupt:
        again = shlex.join(["keyhop", *sys.argv[1:]]) if sys.argv[1:2] == ["compare"] else "the same command"
        fail(
            f"stopped with {_state(plan)}",
            "what is there is whole",
            f"go on with: {again}",
            ExitCode.INTERRUPTED,
        )
    except (sweep.SweepError, ExecutorError, attempt.RunnerError) as error:
        what, _, legal = str(error).rpartition(": ")
        fail(what or str(error), "", legal if what else "see: keyhop compare --help")
    except OSError as error:
        _cannot_be_written(plan.out, error)
    _tell_end(plan.out, end)


@click.command(REPORT)
@click.argument("directory", metavar="DIR", type=FILE)
@common_options
def report(directory: Path) -> None:
    """Draw the report of a sweep anew from its rows; also of one that is not finished.

    \b
    Example:
      keyhop compare report keyhop-compare
    """
    _draw(directory)


def _plan(file: Path | None, given: dict[str, Any]) -> Plan:
    from keyhop.comparison.plan import Plan
    from keyhop.files import CheckError, FileError, read

    try:
        plan = read(Plan, file) if file is not None else Plan()
    except FileError as error:
        refuse_file(error, "see: keyhop compare --help")
    try:
        return replace(plan, **given)
    except CheckError as error:
        option = f"--{error.at[0]}: " if error.at else ""
        fail(f"{option}{error.what}", "", error.legal, ExitCode.USAGE)


def _executor(plan: Plan, scheduler: str, tls_ca: str, tls_cert: str, tls_key: str) -> Executor:
    from keyhop.comparison.executors import Dask, Processes

    workers = plan.workers or len(os.sched_getaffinity(0))
    if plan.executor == "dask":
        return Dask(workers, scheduler, tls_ca, tls_cert, tls_key)
    if scheduler or tls_ca or tls_cert or tls_key:
        fail("--scheduler and --tls-… are for Dask", "", "add --executor dask, or leave them out", ExitCode.USAGE)
    return Processes(workers)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Progress], None]]:
    """On a terminal; else a line a minute."""
    if settings().quiet or not sys.stderr.isatty():
        from keyhop.comparison.progress import Log

        yield Log(output.say)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            rate = _rate(task.completed - task.fields["before"], task.elapsed)
            left = f", {figures.age((task.total - task.completed) / rate)} left" if rate else ""
            return Text(f"{rate:.1f} runs/s{left}" if rate else "")

    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, before=0)
        started = False

        def tell(state: Progress) -> None:
            nonlocal started
            if not started and state.done:
                # What earlier starts did says nothing of today's speed.
                bar.reset(task, total=total, completed=state.done, before=state.done)
            started = True
            failed = f"{state.failed} failed" if state.failed else ""
            words = escape("  ".join(filter(None, (failed, state.longest))))
            bar.update(task, completed=state.done, description=words)

        yield tell


def _rate(done: float, seconds: float | None) -> float:
    """Runs in a second, over the whole start: many rows come at once, such as those of runs that do not apply, and a
    rate of the last moments would then be in the thousands. Nought while it is too early to say."""
    return done / seconds if seconds is not None and seconds >= RATE_AFTER_S else 0.0


def _cannot_be_written(directory: Path, error: OSError) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, next_step = f"no room for {directory}", "what is there is whole: make room, and the same command goes on"
    else:
        what, next_step = f"{directory} cannot be written", "look at its owner and mode, or name another with --out"
    fail(what, error.strerror or str(error), next_step)


def _state(plan: Plan) -> str:
    from keyhop.comparison import sweep

    try:
        return f"{len(sweep.read_rows(plan.out))} of {counted(len(plan.grid()), 'run')} in {plan.out}"
    except sweep.SweepError:
        return f"no run in {plan.out}"


def _tell_end(directory: Path, end: Progress) -> None:
    if end.failed:
        output.say(f"{counted(end.failed, 'run')} failed, the first: {end.first_failure}")
    _draw(directory)
    if end.failed:
        fail(
            f"{end.failed} of {counted(end.total, 'run')} failed",
            end.first_failure,
            "the same command tries them again",
            ExitCode.PROBLEMS,
        )


def _draw(directory: Path) -> None:
    from keyhop.comparison import report as drawing
    from keyhop.comparison import sweep

    if not (directory / sweep.MANIFEST).exists():
        why = f"it has no {sweep.MANIFEST}" if directory.is_dir() else "there is no such directory"
        next_step = f"name the --out of a sweep, or start one: keyhop compare --out {directory}"
        fail(f"{directory} holds no comparison", why, next_step, ExitCode.NO_SUCH_THING)
    try:
        written = drawing.write(directory)
    except sweep.SweepError as error:
        what, _, legal = str(error).rpartition(": ")
        fail(what, "", legal)
    except OSError as error:
        _cannot_be_written(directory, error)
    answer = {
        "apiVersion": output.API_VERSION,
        "directory": str(directory),
        "runs": written.runs,
        "done": written.done,
        "not_applicable": written.not_applicable,
        "report": str(written.index),
        "files": [str(path) for path in written.files],
        "notes": written.notes,
    }
    pairs = [("runs", f"{written.done} of {written.runs}"), ("report", str(written.index))]
    pairs += [("rows", str(path)) for path in written.files]
    pairs += [("note", note) for note in written.notes]
    output.emit(answer, lambda: output.facts(pairs))
    if written.done and written.not_applicable == written.done == written.runs:
        fail(
            "no design of this comparison can serve what is asked for, so it has no figures",
            "",
            "take designs that relay (keyhop design list), or a network whose applications are neighbours, such as p2p",
        )
