"""`keyhop node`: what an operator tells a node about itself."""

from __future__ import annotations

import click

from keyhop.cli import node_api, output
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import common_options
from keyhop.wire import manage
from keyhop.wire.manage import DeclareRestored, RestoredAnswer, StatusAnswer


@click.group()
def node() -> None:
    """A node as a whole.

    \b
    Example:
      keyhop node restored --address 127.0.0.1:8500
    """


@node.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
def restored(yes: bool) -> None:
    """Say that the node's store was put back from an old copy.

    The node burns all keys that were leased, tells its neighbours, and opens all links anew. Do this after every
    restore of a disk, a snapshot or a directory, at each node that was restored, before its applications ask for
    keys: when both ends of a link were put back at once, nobody else can see it.

    \b
    Example:
      keyhop node restored --address 127.0.0.1:8500
    """
    found = node_api.targets()
    if len(found) != 1:
        names = ", ".join(target.node for target in found)
        next_step = "name one: keyhop node restored --address HOST:PORT (see: keyhop lab inspect)"
        fail(f"this would burn keys at {len(found)} nodes ({names})", "", next_step, ExitCode.USAGE)
    target = found[0]
    name = node_api.ask(target, manage.STATUS_PATH, StatusAnswer).node
    question = f"Burn all keys that node {name} at {target.address} has leased, and open its links anew?"
    if not yes and not click.confirm(question, err=True):
        fail("nothing was done", "", "to go on without the question: keyhop node restored --yes", ExitCode.REFUSED)
    answer = node_api.ask(target, manage.RESTORED_PATH, RestoredAnswer, DeclareRestored(node=name))
    output.emit(
        answer,
        lambda: f"node {answer.node}: leased keys are burnt, epoch {answer.epoch} begins; its links open anew",
    )
