"""Who asks for keys: an application's certificate and its key manager, from options, a lab or the environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import click

from keyhop.cli import known, node_api
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import FILE, settings

if TYPE_CHECKING:
    from keyhop.client.core import KeyhopError
    from keyhop.client.sync import Kme

CallableT = TypeVar("CallableT", bound=Callable[..., Any])

HOW = "give --from SAE in a lab, or --address, --cert, --key and --ca, or set KEYHOP_ADDR, _CERT, _KEY and _CA"


class Caller(NamedTuple):
    name: str
    """The application; empty if only its certificate is known."""
    address: str
    cert: Path
    key: Path
    ca: Path

    def kme(self) -> Kme:
        from keyhop.client.core import BadRequest
        from keyhop.client.sync import Kme

        try:
            return Kme(self.address, cert=self.cert, key=self.key, ca=self.ca)
        except BadRequest as error:
            fail("the key manager cannot be asked", error.message, HOW, ExitCode.USAGE)


def credential_options(command: CallableT) -> CallableT:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--from",
        "origin",
        metavar="SAE",
        shell_complete=known.applications,
        help="The application that asks, of a lab.",
    ),
    click.option("--cert", type=FILE, help="Its certificate. [env: KEYHOP_CERT]"),
    click.option("--key", "key_file", type=FILE, help="Its private key. [env: KEYHOP_KEY]"),
    click.option("--ca", type=FILE, help="Authority of the key manager's certificate. [env: KEYHOP_CA]"),
)


def caller(origin: str | None, cert: Path | None, key_file: Path | None, ca: Path | None) -> Caller:
    """Options first, then the lab's application, then the environment. Raises Failure."""
    if origin is not None and cert is None:
        return of_lab(origin)
    given = {
        "--address": settings().address or os.environ.get("KEYHOP_ADDR"),
        "--cert": cert or os.environ.get("KEYHOP_CERT"),
        "--key": key_file or os.environ.get("KEYHOP_KEY"),
        "--ca": ca or os.environ.get("KEYHOP_CA"),
    }
    missing = [name for name, value in given.items() if not value]
    if missing and (here := _applications_here()):
        fail("no application to ask for", "--from not given", f"give --from SAE: {', '.join(here)}", ExitCode.USAGE)
    if missing:
        fail("no application to ask for", f"{', '.join(missing)} not given", HOW, ExitCode.USAGE)
    return Caller(
        origin or "",
        str(given["--address"]),
        Path(str(given["--cert"])),
        Path(str(given["--key"])),
        Path(str(given["--ca"])),
    )


def _applications_here() -> list[str]:
    directory = node_api.lab_directory()
    if directory is None:
        return []
    return [name for node in node_api.open_lab(directory).state.nodes for name in node.applications]


def of_lab(application: str) -> Caller:
    from keyhop.emulator.lab import LabError

    directory = node_api.lab_directory()
    if directory is None:
        next_step = "go to the directory of a lab, give --lab DIRECTORY, or: keyhop lab up secoqc"
        fail(f"application {application} is not known here", "no lab found", next_step, ExitCode.USAGE)
    lab = node_api.open_lab(directory)
    try:
        issued, authority = lab.credentials(application)
        address = settings().address or lab.serving(application).etsi014
    except LabError as error:
        fail(error.what, "", error.next_step, ExitCode.NO_SUCH_THING)
    return Caller(application, address, issued.certificate, issued.key, authority)


def refused(error: KeyhopError, asking: Caller, peer: str) -> NoReturn:
    """What a refusal of a key manager means to a command."""
    from keyhop.client import core

    pair = f"{asking.name or 'this application'} → {peer}"
    if isinstance(error, core.NotEnoughKey):
        when = f"try again in about {error.retry_after:.0f} s" if error.retry_after else "try again later"
        next_step = f"{when}, or see: keyhop pool list"
        # Ours begin with the same words.
        reason = error.message.partition(": ")[2] if error.message.startswith("not enough key for") else error.message
        fail(f"not enough key for {pair}", reason, next_step, ExitCode.NOT_ENOUGH_KEY, error.code)
    if isinstance(error, core.Unreachable):
        fail("no answer", error.message, "see: keyhop status", ExitCode.UNREACHABLE, error.code)
    if isinstance(error, core.NotAuthorised):
        next_step = "look at the certificate: keyhop pki show FILE, and at the peers: keyhop sae list"
        fail(f"not authorised: {pair}", error.message, next_step, ExitCode.NOT_AUTHORISED, error.code)
    if isinstance(error, core.UnknownPeer):
        fail(f"no application {peer}", error.message, "see: keyhop sae list", ExitCode.NO_SUCH_THING, error.code)
    if isinstance(error, core.KeyGone):
        next_step = f"ask {peer} for a fresh key; each key is given once"
        fail(f"no such key of {peer}", error.message, next_step, ExitCode.NO_SUCH_THING, error.code)
    if isinstance(error, core.BadRequest):
        next_step = f"see what is allowed: keyhop key status {peer}" + (f" --from {asking.name}" if asking.name else "")
        fail(f"refused: {pair}", error.message, next_step, ExitCode.REFUSED, error.code)
    next_step = "the server does not follow ETSI GS QKD 014: see its log"
    fail(f"an answer that cannot be used: {pair}", error.message, next_step, ExitCode.REFUSED, error.code)
