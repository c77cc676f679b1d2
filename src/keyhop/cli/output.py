"""What a command leaves behind: its answer on stdout, talk and errors on stderr, an exit code for scripts."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from keyhop.cli.settings import settings

if TYPE_CHECKING:
    from keyhop.files import FileError

API_VERSION = "keyhop/v1"

GOOD = frozenset({"up", "healthy", "active", "valid", "yes", "chosen"})
BAD = frozenset({"down", "sealed", "expired", "critical", "no"})
WARN = frozenset({"suspended", "degraded", "opening", "renew", "excluded"})
"""Words that get a colour where there is one; the word itself says it all."""


class ExitCode(IntEnum):
    """What scripts may rely on."""

    DONE = 0
    REFUSED = 1
    FAILED = 1
    """For any reason not below."""
    USAGE = 2
    """Wrong arguments, or an invalid file."""
    UNREACHABLE = 3
    NOT_AUTHORISED = 4
    NO_SUCH_THING = 5
    NOT_ENOUGH_KEY = 6
    PROBLEMS = 7
    """A check found some."""
    INTERRUPTED = 130
    """By Ctrl-C, as shells count it."""


class Failure(click.ClickException):
    """What went wrong, why, and what to do or type next."""

    def __init__(self, what: str, why: str, next_step: str, exit_code: ExitCode, alarm: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next_step = next_step
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class and reads it here
        self.alarm = alarm

    def format_message(self) -> str:
        reason = f" ({self.why})" if self.why else ""
        codes = ", ".join(part for part in (self.alarm, f"exit {int(self.exit_code)}") if part)
        return f"error: {self.what}{reason}\n  {self.next_step}  [{codes}]"

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.format_message(), err=True)


def fail(what: str, why: str, next_step: str, exit_code: ExitCode = ExitCode.REFUSED, alarm: str = "") -> NoReturn:
    """Ends the command. `alarm` is a code such as KH-2101, where there is a page about it."""
    raise Failure(what, why, next_step, exit_code, alarm)


def refuse_file(error: FileError, next_step: str) -> NoReturn:
    """Ends the command over a node file or a topology: every problem with its line, or why there is nothing to read."""
    from keyhop.files import UnreadableFileError

    if isinstance(error, UnreadableFileError):
        problem = error.problems[0]
        code = ExitCode.NO_SUCH_THING if error.missing else ExitCode.FAILED
        fail(f"{problem.file} cannot be read", problem.what, problem.legal, code)
    fail(str(error), "", next_step, ExitCode.USAGE)


def emit(answer: Any, table: Callable[[], str]) -> None:
    """`answer` is a record or plain data; `table` is only made if it is wanted."""
    import msgspec

    chosen = settings().output
    if chosen == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    elif chosen == "yaml":
        click.echo(_yaml(msgspec.to_builtins(answer)), nl=False)
    else:
        click.echo(table())


def say(text: str) -> None:
    """Something for a person, not for a script."""
    if not settings().quiet:
        click.echo(text, err=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "none") -> str:
    """No frames; as wide as its widest words."""
    if not rows:
        return empty
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    lines = ["  ".join(head.upper().ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip()]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        lines.append("  ".join(coloured(cell) for cell in cells).rstrip())
    return "\n".join(lines)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """One thing: its properties, one a line; those without a value are left out."""
    given = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in given), default=0)
    return "\n".join(f"{name.ljust(width)}  {coloured(value)}" for name, value in given)


def coloured(cell: str) -> str:
    word = cell.strip()
    colour = "green" if word in GOOD else "red" if word in BAD else "yellow" if word in WARN else None
    # Not the blanks beside it: at the end of a line they are to go.
    return cell.replace(word, click.style(word, fg=colour), 1) if colour else cell


def _yaml(plain: Any) -> str:
    from ruamel.yaml import YAML

    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(plain, text)
    return text.getvalue()
