"""`keyhop pki`: certificates for a lab, or for a first installation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhop.cli import output
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import FILE, common_options

CallableT = TypeVar("CallableT", bound=Callable[..., Any])


def _directory_option(command: CallableT) -> CallableT:
    return click.option("--dir", "directory", type=FILE, default=Path("pki"), show_default=True, help="Where it is.")(
        command
    )


@click.group()
def pki() -> None:
    """Certificates: one authority for key managers, one for applications, one for operators.

    \b
    Example:
      keyhop pki init
    """


@pki.command("init")
@_directory_option
@click.option("--force", is_flag=True, help="Replace authorities that are there; what they signed becomes useless.")
@common_options
def init(directory: Path, force: bool) -> None:
    """Make the three authorities.

    \b
    Example:
      keyhop pki init --dir pki
    """
    from keyhop.daemon import pki as lab

    try:
        made = lab.init(directory, datetime.now(UTC), force=force)
    except lab.PkiError as error:
        fail(error.what, "", error.next_step)
    files = [{"certificate": str(issued.certificate), "key": str(issued.key)} for issued in made]
    answer = {"apiVersion": output.API_VERSION, "directory": str(directory), "authorities": files}
    output.emit(answer, lambda: "\n".join(entry["certificate"] for entry in files))
    output.say(f"Next: keyhop pki issue kme NODE --dir {directory}. Keep the .key files of the authorities apart.")


@pki.command("issue")
@click.argument("role", type=click.Choice(["kme", "sae", "operator"]))
@click.argument("name")
@_directory_option
@click.option("--days", type=click.IntRange(1, 365), default=30, show_default=True, help="How long it lives.")
@click.option("--host", "hosts", multiple=True, help="Where a kme listens: name or IP address; may be repeated.")
@click.option("--force", is_flag=True, help="Replace a certificate of this name.")
@common_options
def issue(role: str, name: str, directory: Path, days: int, hosts: tuple[str, ...], force: bool) -> None:
    """Make a key and its certificate, with urn:keyhop:ROLE:NAME in it.

    \b
    Example:
      keyhop pki issue kme STP --host kme-stp.example
    """
    from keyhop.daemon import pki as lab

    try:
        issued = lab.issue(
            directory,
            lab.Role(role),
            name,
            datetime.now(UTC),
            life=timedelta(days=days),
            hosts=hosts or ("localhost", "127.0.0.1"),
            force=force,
        )
        report = lab.show(issued.certificate)
    except lab.PkiError as error:
        fail(error.what, "", error.next_step)
    answer = {
        "apiVersion": output.API_VERSION,
        "identity": report.identity,
        "certificate": str(issued.certificate),
        "key": str(issued.key),
        "fingerprint": report.fingerprint,
        "not_after": report.not_after,
    }
    lines = [
        ("identity", report.identity),
        ("certificate", str(issued.certificate)),
        ("key", str(issued.key)),
        ("fingerprint", report.fingerprint),
        ("until", f"{report.not_after:%Y-%m-%d %H:%M} UTC"),
    ]
    output.emit(answer, lambda: output.facts(lines))


@pki.command("show")
@click.argument("file", type=FILE)
@common_options
@click.pass_context
def show(context: click.Context, file: Path) -> None:
    """What a certificate says. Exit code 7 if it is expired or should be renewed.

    \b
    Example:
      keyhop pki show pki/kme/STP.crt
    """
    from keyhop.daemon import pki as lab

    try:
        report = lab.show(file)
    except lab.PkiError as error:
        fail(error.what, "", error.next_step, _unreadable(file))
    state = report.state(datetime.now(UTC))
    answer = {
        "apiVersion": output.API_VERSION,
        "file": str(file),
        "state": state,
        "identity": report.identity,
        "subject": report.subject,
        "issuer": report.issuer,
        "names": report.names,
        "purposes": report.purposes,
        "authority": report.authority,
        "serial": report.serial,
        "fingerprint": report.fingerprint,
        "not_before": report.not_before,
        "not_after": report.not_after,
    }
    lines = [
        ("identity", report.identity),
        ("state", state),
        ("subject", report.subject),
        ("issuer", report.issuer),
        ("names", "  ".join(report.names)),
        ("may be", " and ".join(report.purposes) if report.purposes else "authority" if report.authority else ""),
        ("from", f"{report.not_before:%Y-%m-%d %H:%M} UTC"),
        ("until", f"{report.not_after:%Y-%m-%d %H:%M} UTC"),
        ("serial", report.serial),
        ("fingerprint", report.fingerprint),
    ]
    output.emit(answer, lambda: output.facts(lines))
    if state != "valid":
        context.exit(ExitCode.PROBLEMS)


def _unreadable(file: Path) -> ExitCode:
    """Whether there is no such file, it is not for us, or it is something else."""
    try:
        with file.open("rb"):
            return ExitCode.USAGE
    except FileNotFoundError:
        return ExitCode.NO_SUCH_THING
    except OSError:
        return ExitCode.FAILED
