"""`keyhop sae`: the applications that nodes serve."""

from __future__ import annotations

import click

from keyhop.cli import figures, known, node_api, output
from keyhop.cli.settings import common_options
from keyhop.wire import manage
from keyhop.wire.manage import Application, ApplicationAnswer, ApplicationsAnswer


@click.group()
def sae() -> None:
    """Applications (secure application entities, in ETSI's words).

    \b
    Example:
      keyhop sae list
    """


@sae.command("list")
@common_options
def list_applications() -> None:
    """Applications with what they were given.

    \b
    Example:
      keyhop sae list
    """
    answers = node_api.ask_all(manage.APPLICATIONS_PATH, ApplicationsAnswer)
    found = tuple(entry for _, answer in answers for entry in answer.applications)
    heads = ("sae", "node", "state", "peers", "got", "fetched", "refused", "last key", "age", "path")
    output.emit(
        ApplicationsAnswer(applications=found),
        lambda: output.table(heads, [_row(entry) for entry in found], "no applications"),
    )


@sae.command("show")
@click.argument("application", metavar="ID", shell_complete=known.applications)
@common_options
def show_application(application: str) -> None:
    """One application.

    \b
    Example:
      keyhop sae show sae-stp
    """
    path = manage.application_path(application)
    _, answer = node_api.find(lambda _: [path], ApplicationAnswer, f"application: {application}", "keyhop sae list")
    output.emit(answer, lambda: _facts(answer.application))


def _row(entry: Application) -> tuple[str, ...]:
    return (
        entry.id,
        entry.node,
        entry.state,
        ",".join(entry.peers) or figures.UNKNOWN,
        str(entry.delivered_enc),
        str(entry.delivered_dec),
        str(entry.refused),
        f"{entry.last_key_id}…" if entry.last_key_id else figures.UNKNOWN,
        figures.age(entry.last_key_age_s),
        figures.path(entry.last_path),
    )


def _facts(entry: Application) -> str:
    expires = entry.certificate_expires_at
    return output.facts(
        [
            ("sae", entry.id),
            ("node", entry.node),
            ("state", entry.state),
            ("peers", ", ".join(entry.peers)),
            ("got", f"{entry.delivered_enc} keys"),
            ("fetched", f"{entry.delivered_dec} keys"),
            ("bytes", figures.size(entry.delivered_bytes)),
            ("refused", f"{entry.refused}  {entry.last_refusal}".rstrip()),
            ("last key", f"{entry.last_key_id}…  {figures.age(entry.last_key_age_s)} ago" if entry.last_key_id else ""),
            ("last peer", entry.last_peer),
            ("last path", figures.path(entry.last_path) if entry.last_path else ""),
            ("certificate", f"until {expires:%Y-%m-%d}" if expires else ""),
        ]
    )
