"""`keyhop completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from keyhop.cli.settings import common_options

VARIABLE = "_KEYHOP_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common_options
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Example:
      keyhop completion bash > ~/.local/share/bash-completion/completions/keyhop
    """
    from keyhop.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    # The base class's method: bash's own starts a bash to ask for its version.
    click.echo(ShellComplete.source(kind(cli, {}, "keyhop", VARIABLE)))
