"""The options every command takes, before or after its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

FILE = click.Path(path_type=Path, readable=False)
"""Whether it can be read shows when it is read: then the message names the reason, too."""

Output = Literal["table", "json", "yaml"]
CallableT = TypeVar("CallableT", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    address: str | None = None
    output: Output = "table"
    quiet: bool = False
    verbose: int = 0
    lab: Path | None = None


def settings() -> Settings:
    """Of the running command."""
    return click.get_current_context().ensure_object(Settings)


def common_options(command: CallableT) -> CallableT:
    """A later word wins: `keyhop -o json link list -o yaml` writes YAML."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value is not None and value is not False and value != 0:
        setattr(context.ensure_object(Settings), str(parameter.name), value)
    return value


def _keep_no_color(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    if value or os.environ.get("NO_COLOR"):
        context.find_root().color = False
        context.color = False
    return value


_OPTIONS = (
    click.option("--address", metavar="HOST:PORT", expose_value=False, callback=_keep, help="Where to ask."),
    click.option(
        "--lab",
        type=FILE,
        expose_value=False,
        callback=_keep,
        help="Directory of a lab, whose nodes and applications are meant. [env: KEYHOP_LAB]",
    ),
    click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        expose_value=False,
        callback=_keep,
        help="Form of the answer; table if not given.",
    ),
    click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_keep, help="Only answers and errors."),
    click.option("-v", "--verbose", count=True, expose_value=False, callback=_keep, help="Say more, on stderr."),
    click.option(
        "--no-color",
        is_flag=True,
        expose_value=False,
        callback=_keep_no_color,
        help="No colours, as with NO_COLOR set.",
    ),
)
