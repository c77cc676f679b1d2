"""`keyhop status`: is all well."""

from __future__ import annotations

from typing import Any

import click

from keyhop.cli import figures, node_api, output
from keyhop.cli.output import ExitCode
from keyhop.cli.settings import common_options
from keyhop.wire import manage
from keyhop.wire.manage import Alarm, AlarmsAnswer, Health, StatusAnswer


@click.command()
@common_options
@click.pass_context
def status(context: click.Context) -> None:
    """Health of a node, or of all nodes of a lab.

    Exit code 0: all healthy; 7: something is not.

    \b
    Example:
      keyhop status
    """
    answers, failures = node_api.try_all(_ask)
    if not answers:
        raise failures[0][1]
    nodes = [answer for _, (answer, _) in answers]
    alarms = [
        alarm for _, (_, found) in answers for alarm in found.alarms if alarm.state is not manage.AlarmState.CLEARED
    ]
    silent = [target.node or target.address for target, _ in failures]
    whole: Any = nodes[0]
    if len(answers) + len(failures) > 1:
        whole = {"apiVersion": output.API_VERSION, "nodes": nodes, "silent": silent}
    output.emit(whole, lambda: _screen(nodes, alarms, silent))
    if silent or any(node.health is not Health.HEALTHY for node in nodes):
        context.exit(ExitCode.PROBLEMS)


def _ask(target: node_api.Target) -> tuple[StatusAnswer, AlarmsAnswer]:
    answer = node_api.ask(target, manage.STATUS_PATH, StatusAnswer)
    return answer, node_api.ask(target, manage.ALARMS_PATH, AlarmsAnswer)


def _screen(nodes: list[StatusAnswer], alarms: list[Alarm], silent: list[str]) -> str:
    rows: list[tuple[str, ...]] = [
        (
            node.node,
            node.health.value,
            "yes" if node.ready else "no",
            f"{node.links_up} of {node.links_total}",
            figures.size(node.stored_bytes),
            str(node.keys_delivered),
            str(node.keys_refused),
            str(node.alarms_active),
            figures.age(node.uptime_s),
        )
        for node in nodes
    ]
    rows += [(name, "down", "no", *("-" for _ in range(6))) for name in silent]
    heads = ("node", "health", "ready", "links", "stored", "delivered", "refused", "alarms", "uptime")
    parts = [output.table(heads, rows)]
    parts += [f"{node.node}: {reason}" for node in nodes for reason in node.reasons]
    parts += [f"{node.node}: {note}" for node in nodes for note in node.design_notes]
    parts += [
        f"{alarm.code} {alarm.severity}: {alarm.object}: {alarm.summary}. {alarm.remedy}".rstrip() for alarm in alarms
    ]
    if any(node.emulated for node in nodes):
        parts.append("Some links are emulated: do not protect real data with these keys.")
    return "\n".join(parts)
