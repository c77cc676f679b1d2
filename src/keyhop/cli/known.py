"""Names that are known: what a shell completes, of the lab around here, the built-in networks and the designs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from keyhop.cli.output import ExitCode, fail

if TYPE_CHECKING:
    from keyhop.core.designs import Design
    from keyhop.emulator.lab import LabState


def links(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    state = _lab(context)
    return _items(begun, [link.id for link in state.links] if state else [])


def nodes(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    state = _lab(context)
    return _items(begun, [node.id for node in state.nodes] if state else [])


def applications(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    state = _lab(context)
    return _items(begun, [name for node in state.nodes for name in node.applications] if state else [])


def networks(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """And files, which the shell finds."""
    from keyhop.simulator import topology

    return [*_items(begun, (*topology.names(), *topology.ALIASES)), CompletionItem(begun, type="file")]


def designs(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    from keyhop.core.designs import DESIGNS

    return _items(begun, DESIGNS)


def design(name: str) -> Design:
    """The design of this name, or the end of the command with the nearest one."""
    from keyhop.core.designs import DESIGNS
    from keyhop.files.words import nearest

    if name.endswith((".yml", ".yaml", ".json", ".py")) or "/" in name:
        fail(
            f"no design is called {name}",
            "a design is named, not read from a file: each is a Python file of parts in keyhop/core/designs",
            "see: keyhop design list",
            ExitCode.NO_SUCH_THING,
        )
    if name not in DESIGNS:
        fail(
            f"no design is called {name}",
            nearest(name, DESIGNS, "no name is near it"),
            "see: keyhop design list",
            ExitCode.NO_SUCH_THING,
        )
    return DESIGNS[name]


def _items(begun: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(begun)]


def _lab(context: click.Context) -> LabState | None:
    from keyhop.cli.node_api import lab_directory, open_lab
    from keyhop.cli.output import Failure

    with context.scope(cleanup=False):
        try:
            directory = lab_directory()
            return open_lab(directory).state if directory is not None else None
        except Failure:
            # Whoever presses the tabulator is told nothing; the command itself will.
            return None
