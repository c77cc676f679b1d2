"""`keyhop simulate`: one run of one design in virtual time, from a small file."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from keyhop.cli import output
from keyhop.cli.figures import UNKNOWN, counted, percent, rate
from keyhop.cli.output import ExitCode, fail, refuse_file
from keyhop.cli.settings import FILE, common_options, settings

if TYPE_CHECKING:
    from keyhop.simulator.record import Record
    from keyhop.simulator.simulation import Setup

LETTERS = {
    "D": "delivered",
    "O": "handed out beyond the size asked",
    "C": "destroyed by collisions",
    "R": "spent on relay",
    "T": "made distant key",
    "A": "tags of messages",
    "X": "deleted by age",
    "Y": "lost",
    "S": "in stock at the end",
}
"""Where a bit of a book can have gone."""
SHOWN = (
    "success",
    "blocking",
    "unservable",
    "latency_p50_s",
    "latency_p99_s",
    "latency_max_s",
    "rounding_waste",
    "tag_overhead",
    "relay_cost",
    "messages_per_key",
    "collision_rate",
    "fairness",
    "its_ratio",
    "resync_s",
)
FILES = (".yml", ".yaml")


def _simulations(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    folder = Path(begun or ".")
    folder = folder if begun.endswith("/") or not begun else folder.parent
    found: list[CompletionItem] = []
    with suppress(OSError):
        names = (str(path) for path in sorted(folder.iterdir()) if path.suffix in FILES)
        found = [CompletionItem(name) for name in names if name.startswith(begun)]
    return found or [CompletionItem(begun, type="file")]


@click.command()
@click.argument("file", type=FILE, shell_complete=_simulations)
@click.option("--trace", type=FILE, help="Write what became of each request, as JSON lines.")
@common_options
def simulate(file: Path, trace: Path | None) -> None:
    """Run a design on a network in virtual time and show what became of requests and of key.

    A FILE names the network (`topology: line3`, or `path: [a, b, c]` with `rate: 10 kbps`), the design, what is asked
    for (`workload: W3` with `load: 0.8`, or `streams:`), how long (`for: 10 min`), the seed, and events as topology
    files have them. The same file gives the same figures, on any machine. keyhop config schema simulation has all
    words.

    \b
    Examples:
      keyhop simulate run.yml
      keyhop simulate run.yml -o json --trace outcomes.jsonl
      printf 'apiVersion: keyhop/v1\\ntopology: p2p\\ndesign: nec\\n' > run.yml && keyhop simulate run.yml
    """
    from keyhop.files import FileError
    from keyhop.simulator import simulation

    try:
        setup = simulation.load(file)
    except FileError as error:
        refuse_file(error, "see: keyhop config schema simulation")
    output.say(
        f"{setup.design} on {setup.network}: {setup.asked_by}, {counted(len(setup.scenario.demands), 'request')} "
        f"in {setup.seconds:g} simulated seconds, seed {setup.seed}"
    )
    with _writable(trace) as write, _bar() as tell:
        record = _run(setup, tell)
        for line in _trace(record):
            write(line)
    answer = _answer(setup, record)
    output.emit(answer, lambda: _table(answer))


def _run(setup: Setup, tell: Callable[[float], None] | None) -> Record:
    from keyhop.simulator.arena import Unbalanced

    try:
        return setup.run(tell)
    except Unbalanced as error:
        fail(
            "the books of this run do not close", str(error), "this is a fault of ours: please report it with the file"
        )
    except KeyboardInterrupt:
        fail("stopped before the end of the run", "", "a shorter run: a smaller `for`", ExitCode.INTERRUPTED)


@contextmanager
def _writable(trace: Path | None) -> Iterator[Callable[[bytes], object]]:
    """All or nothing: a run that ends early leaves no file; a place that cannot be written is refused before it."""
    if trace is None:
        yield lambda line: None
        return
    if trace.is_dir() or not trace.name:
        raise IsADirectoryError(errno.EISDIR, "is a directory: name a file in it", str(trace))
    beside = trace.with_name(f".{trace.name}.new")
    try:
        opened = beside.open("wb")
    except OSError as error:
        # Nobody but us knows the file beside it.
        raise OSError(error.errno, error.strerror, str(trace)) from None
    with opened as file:
        try:
            yield file.write
        except BaseException:
            beside.unlink()
            raise
    beside.replace(trace)


def _trace(record: Record) -> Iterator[bytes]:
    import msgspec

    for demand, outcome in zip(record.scenario.demands, record.outcomes, strict=True):
        supplied = outcome.verdict == "supplied"
        line = {
            "request": demand.number,
            "at_s": demand.at_ns / 1e9,
            "stream": demand.stream,
            "master": demand.master,
            "slave": demand.slave,
            "size_bits": demand.size_bits,
            "class": demand.service_class,
            "verdict": str(outcome.verdict),
            "done_s": outcome.done_ns / 1e9,
            "latency_s": (outcome.done_ns - demand.at_ns) / 1e9 if supplied else None,
            "its": outcome.its if supplied else None,
            "equal": outcome.equal if supplied else None,
            "attempts": outcome.attempts,
        }
        yield msgspec.json.encode(line) + b"\n"


def _answer(setup: Setup, record: Record) -> dict[str, Any]:
    from keyhop.comparison.metrics import measure
    from keyhop.core.designs import DESIGNS, hosted

    figures = measure(record, setup.paths)
    books = {}
    for kind in ("local", "global"):
        ends = [book for book in record.books if book.kind == kind]
        if ends:
            came = ("G",) if kind == "local" else ("N", "T")
            books[kind] = {"in_bits": sum(getattr(end, letter) for end in ends for letter in came)} | {
                f"{letter}_bits": sum(getattr(end, letter) for end in ends)
                for letter in LETTERS
                if kind == "local" or letter not in "RT"
            }
    return {
        "apiVersion": output.API_VERSION,
        "design": setup.design,
        "run_by": "sites" if hosted(DESIGNS[setup.design]) else "nodes",
        "network": setup.network,
        "links": [{"ends": sorted(link), "rate_bps": rate} for link, rate in setup.links.items()],
        "asked": setup.asked_by,
        "seconds": setup.seconds,
        "seed": setup.seed,
        "requests": len(record.outcomes),
        "verdicts": {
            word: count
            for word in ("supplied", "refused", "timed_out", "unservable")
            if (count := sum(outcome.verdict == word for outcome in record.outcomes))
        },
        "metrics": figures,
        "ledger": books,
        "derived_bits": sum(book.F for book in record.books),
        "events": record.events,
        "messages": record.messages,
    }


def _table(answer: dict[str, Any]) -> str:
    from keyhop.comparison.measures import known, title, words

    def figure(name: str) -> str:
        value = answer["metrics"][name]
        return "n/a" if value is None else words(name, value)

    verdicts = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in answer["verdicts"].items())
    parts = [output.facts([("requests", f"{answer['requests']}: {verdicts or UNKNOWN}")])]
    parts.append(output.table(("metric", "", ""), [(title(n), figure(n), known(n).sentence) for n in SHOWN]))
    for kind, book in answer["ledger"].items():
        came = book["in_bits"]
        rows = [
            (meaning, f"{book[f'{letter}_bits']}", percent(book[f"{letter}_bits"] / came if came else None))
            for letter, meaning in LETTERS.items()
            if book.get(f"{letter}_bits")
        ]
        whose = "of links" if kind == "local" else "of distant pairs"
        rows = [("came in", f"{came}", rate(came / answer["seconds"])), *rows] if rows else []
        parts.append(output.table((f"where key {whose} went", "bits", "share"), rows, f"no key {whose} came in"))
    if answer["derived_bits"]:
        parts.append(f"derived or exchanged, no QKD key: {answer['derived_bits']} bits")
    return "\n\n".join(parts)


@contextmanager
def _bar() -> Iterator[Callable[[float], None] | None]:
    """On a terminal, and there only if the run takes long enough to be watched."""
    if settings().quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda done: bar.update(task, completed=done)
