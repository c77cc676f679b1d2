"""`keyhop serve`: one node in the foreground."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import click
import structlog

from keyhop.cli.figures import counted
from keyhop.cli.output import ExitCode, fail, refuse_file
from keyhop.cli.settings import FILE


@click.command(epilog="Example:  keyhop serve --config /etc/keyhop/keyhop.yml")
@click.option(
    "--config",
    "paths",
    type=FILE,
    multiple=True,
    default=[Path("/etc/keyhop/keyhop.yml")],
    show_default=True,
    help="The node's file. Given more than once: several nodes in one process, for an emulation.",
)
@click.option("--check", is_flag=True, help="Read the file, say what is wrong with it, and end.")
def serve(paths: tuple[Path, ...], check: bool) -> None:
    """Run one node (one KME) until SIGTERM or Ctrl-C."""
    from keyhop.core.node.store import StoreError
    from keyhop.daemon import app, openfiles
    from keyhop.daemon.audit import AuditError
    from keyhop.daemon.configuration import load_node_file
    from keyhop.daemon.manage import manage
    from keyhop.emulator.module import DRIVERS, EmulatedModule
    from keyhop.files import FileError

    nodes = []
    for path in paths:
        try:
            file = load_node_file(path, DRIVERS)
        except FileError as error:
            refuse_file(error, f"correct it, then: keyhop config validate {path}")
        nodes.append((file, path.absolute().parent))
        if check:
            links, applications = counted(len(file.links), "link"), counted(len(file.applications), "application")
            click.echo(f"{path}: valid; node {file.node.id}, {links}, {applications}")
    if check:
        return
    names = ", ".join(file.node.id for file, _ in nodes)
    set_up_logging(file.log.level)
    app.harden()
    drivers = {
        "emulated": lambda settings, node, after: EmulatedModule(settings.directory, node, after_number=after),
    }
    try:
        openfiles.allow([file for file, _ in nodes])
        code = run(app.serve(nodes, drivers, manage))
    except (app.StartError, StoreError, AuditError, OSError, ValueError) as error:
        fail(f"node {names} cannot start: {error}", "", next_step(error, paths), ExitCode.FAILED)
    sys.exit(code)


def next_step(error: Exception, paths: tuple[Path, ...]) -> str:
    """What to do and the command that comes after it."""
    from keyhop.core.node.store import Damaged, WrongNodeKey

    again = "keyhop serve " + " ".join(f"--config {path}" for path in paths)
    if isinstance(error, WrongNodeKey):
        return f"name the right file as store.node_key, then: {again}"
    if isinstance(error, Damaged):
        return (
            "if its own files cannot be put back: give both ends of each link an empty store and a new first-contact "
            f"file (keyhop link key), then: {again}"
        )
    return f"when that is put right: {again}"


def run(main: Any) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return int(runner.run(main))


def set_up_logging(level: str) -> None:
    """To stderr: lines for people on a terminal, JSON otherwise (for journald and collectors)."""
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
