"""The `keyhop` command: its sub-commands by name, loaded when they are used."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from keyhop.cli.output import ExitCode, Failure
from keyhop.cli.settings import common_options


class Row(NamedTuple):
    module: str
    attribute: str
    summary: str
    """What `keyhop --help` says, without loading the module."""


COMMANDS = {
    "demo": Row("keyhop.cli.demo", "demo", "A whole network on this machine, live in the terminal."),
    "lab": Row("keyhop.cli.lab", "lab", "Networks on this machine: up, inspect, graph, eve, cut, restore, down."),
    "serve": Row("keyhop.cli.serve", "serve", "Run one node in the foreground."),
    "status": Row("keyhop.cli.status", "status", "Health of a node, or of all nodes of a lab."),
    "ping": Row("keyhop.cli.ping", "ping", "Fetch a key at both ends and show the path it took."),
    "link": Row("keyhop.cli.link", "link", "QKD links: list, show; key for first contact."),
    "pool": Row("keyhop.cli.pool", "pool", "Stored key: list, show."),
    "route": Row("keyhop.cli.route", "route", "Paths between nodes: list, show."),
    "sae": Row("keyhop.cli.sae", "sae", "Applications: list, show."),
    "key": Row("keyhop.cli.key", "key", "Ask any ETSI GS QKD 014 key manager: get, fetch, status."),
    "design": Row("keyhop.cli.design", "design", "Key managers as compositions of parts: list, show, check."),
    "compare": Row("keyhop.cli.compare", "compare", "Designs side by side under one load, with a report."),
    "simulate": Row("keyhop.cli.simulate", "simulate", "One run of one design in virtual time."),
    "policy": Row("keyhop.cli.policy", "policy", "Who gets what, and which rule decided: explain, check."),
    "node": Row("keyhop.cli.node", "node", "A node as a whole: restored."),
    "pki": Row("keyhop.cli.pki", "pki", "Certificates for a lab: init, issue, show."),
    "config": Row("keyhop.cli.config", "config", "Files: validate, schema."),
    "completion": Row("keyhop.cli.completion", "completion", "Completion for bash, zsh or fish."),
    "version": Row("keyhop.cli.version", "version", "Version of Keyhop."),
}


class LazyGroup(click.Group):
    """Lists its commands without loading them: the list must appear at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        command = getattr(import_module(row.module), row.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does for commands it holds, guesses what a wrong word meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            if not (near := get_close_matches(args[0], COMMANDS, 1)):
                raise
            ctx.fail(f"no such command '{args[0]}'. Did you mean '{near[0]}'?")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.summary) for name, row in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=row.summary) for name, row in COMMANDS.items() if name.startswith(incomplete)
        ]
        return names or click.Command.shell_complete(self, ctx, incomplete)

    def main(  # type: ignore[override]  # click tells the two modes apart by overloads
        self, args: Sequence[str] | None = None, prog_name: str | None = None, standalone_mode: bool = True, **more: Any
    ) -> Any:
        """Errors look alike, whoever found them: what, why, next."""
        try:
            result = super().main(args, prog_name, standalone_mode=False, **more)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            result = int(ExitCode.USAGE)
        except click.UsageError as error:
            failure = _usage_failure(error)
            failure.show()
            result = int(failure.exit_code)
        except click.ClickException as error:
            error.show()
            result = int(error.exit_code)
        except OSError as error:
            failure = _system_failure(error)
            # The terminal may be what failed.
            with contextlib.suppress(OSError):
                failure.show()
            result = int(failure.exit_code)
        except click.Abort:
            click.echo("stopped", err=True)
            result = int(ExitCode.INTERRUPTED)
        if not standalone_mode:
            return result
        sys.exit(result if isinstance(result, int) else 0)


def _usage_failure(error: click.UsageError) -> Failure:
    path = error.ctx.command_path if error.ctx is not None else "keyhop"
    # Click sets a list of choices below each other.
    what = " ".join(error.format_message().split()).rstrip(".")
    return Failure(what[:1].lower() + what[1:], "", f"see: {path} --help", ExitCode.USAGE)


def _system_failure(error: OSError) -> Failure:
    """What no command foresaw: a directory that is not for us, a full disk, also behind a redirected answer."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return Failure(
            "the operating system refused", reason, "check the disk, and where the answer goes", ExitCode.FAILED
        )
    what = f"{os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename} cannot be used"
    return Failure(what, reason, "check its owner and mode, and the disk", ExitCode.FAILED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@common_options
def cli() -> None:
    """Keyhop turns QKD links into a network that delivers keys.

    \b
    Example:
      keyhop link list
    """


def main(arguments: Sequence[str] | None = None) -> None:
    # Else a command that is told to end would leave behind the nodes that it started.
    signal.signal(signal.SIGTERM, _ended)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        # The terminal was closed, and nobody asked by nohup to go on without it.
        signal.signal(signal.SIGHUP, _ended)
    try:
        cli.main(arguments, prog_name="keyhop")
    finally:
        _let_go_of_stdout()


def _let_go_of_stdout() -> None:
    """What could not be written was told; Python would tell it again, in its own words, when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ended(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
