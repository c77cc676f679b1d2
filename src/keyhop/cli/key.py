"""`keyhop key`: a plain ETSI GS QKD 014 client, for our key managers and others."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from keyhop.cli import caller, known, output
from keyhop.cli.settings import common_options

if TYPE_CHECKING:
    from keyhop.client.core import Key


@click.group()
def key() -> None:
    """Ask a key manager for keys, as an application does.

    \b
    Example:
      keyhop key get sae-frm --from sae-stp
    """


@key.command("get")
@click.argument("peer", shell_complete=known.applications)
@click.option("-n", "number", type=click.IntRange(1), default=1, show_default=True, help="How many.")
@click.option("--size", type=click.IntRange(8), help="Bits of each; what the key manager likes if not given.")
@click.option("--wait", type=click.FloatRange(0), help="Seconds to go on trying while there is not enough key.")
@click.option("--reveal", is_flag=True, help="Print the keys themselves, in base64.")
@caller.credential_options
@common_options
def get_keys(
    peer: str,
    number: int,
    size: int | None,
    wait: float | None,
    reveal: bool,
    origin: str | None,
    cert: Path | None,
    key_file: Path | None,
    ca: Path | None,
) -> None:
    """New keys to share with PEER. They count as delivered, whether shown or not.

    \b
    Example:
      keyhop key get sae-frm -n 2 --size 256 --from sae-stp
    """
    from keyhop.client.core import KeyhopError

    asking = caller.caller(origin, cert, key_file, ca)
    try:
        with asking.kme() as kme:
            keys = kme.get_keys(peer, n=number, size=size, wait=wait)
    except KeyhopError as error:
        caller.refused(error, asking, peer)
    _show(keys, reveal)


@key.command("fetch")
@click.argument("master", shell_complete=known.applications)
@click.argument("key_id", metavar="KEY_ID...", nargs=-1, required=True)
@click.option("--reveal", is_flag=True, help="Print the keys themselves, in base64.")
@caller.credential_options
@common_options
def fetch_keys(
    master: str,
    key_id: tuple[str, ...],
    reveal: bool,
    origin: str | None,
    cert: Path | None,
    key_file: Path | None,
    ca: Path | None,
) -> None:
    """The keys that MASTER got and named to us. Each is given once.

    \b
    Example:
      keyhop key fetch sae-stp 7f3c9a1e-6c3e-4f57-9b20-1e7a5c9d3f60 --from sae-frm
    """
    from keyhop.client.core import KeyhopError

    for entry in key_id:
        _check_key_id(entry)
    asking = caller.caller(origin, cert, key_file, ca)
    try:
        with asking.kme() as kme:
            keys = kme.fetch_keys(master, key_id)
    except KeyhopError as error:
        caller.refused(error, asking, master)
    _show(keys, reveal)


@key.command("status", short_help="Key there is to share with PEER, sizes allowed.")
@click.argument("peer", shell_complete=known.applications)
@caller.credential_options
@common_options
def key_status(peer: str, origin: str | None, cert: Path | None, key_file: Path | None, ca: Path | None) -> None:
    """How much key there is to share with PEER, and what sizes are allowed.

    \b
    Example:
      keyhop key status sae-frm --from sae-stp
    """
    from keyhop.client.core import KeyhopError

    asking = caller.caller(origin, cert, key_file, ca)
    try:
        with asking.kme() as kme:
            status = kme.status(peer)
    except KeyhopError as error:
        caller.refused(error, asking, peer)
    answer = {
        "apiVersion": output.API_VERSION,
        "source_kme": status.source_kme,
        "target_kme": status.target_kme,
        "master": status.master,
        "slave": status.slave,
        "stored_keys": status.stored_keys,
        "max_keys": status.max_keys,
        "key_size_bits": status.key_size_bits,
        "min_key_size_bits": status.min_key_size_bits,
        "max_key_size_bits": status.max_key_size_bits,
        "max_keys_per_request": status.max_keys_per_request,
        "max_additional_slaves": status.max_additional_slaves,
    }
    pairs = [
        ("pair", f"{status.master} → {status.slave}"),
        ("key managers", f"{status.source_kme} → {status.target_kme}"),
        ("deliverable", f"{status.stored_keys} keys of {status.key_size_bits} bit, at most {status.max_keys}"),
        ("sizes", f"{status.min_key_size_bits} to {status.max_key_size_bits} bit"),
        ("per request", f"{status.max_keys_per_request} keys"),
        ("multicast", f"{status.max_additional_slaves} more applications" if status.max_additional_slaves else "no"),
    ]
    output.emit(answer, lambda: output.facts(pairs))


def _check_key_id(entry: str) -> None:
    try:
        UUID(entry)
    except ValueError:
        # Not repeated: it may be a key.
        what = "the key ID is not a UUID such as 7f3c9a1e-6c3e-4f57-9b20-1e7a5c9d3f60"
        raise click.BadParameter(what, param_hint="'KEY_ID'") from None


def _show(keys: list[Key], reveal: bool) -> None:
    entries = [
        {"key_id": str(entry.id), "size_bits": entry.size_bits}
        | ({"key": b64encode(entry.reveal()).decode()} if reveal else {})
        for entry in keys
    ]
    heads = ("key id", "size", "key") if reveal else ("key id", "size")
    rows = [
        (str(entry["key_id"]), f"{entry['size_bits']} bit", *([str(entry["key"])] if reveal else []))
        for entry in entries
    ]
    for entry in keys:
        entry.wipe()
    output.emit({"apiVersion": output.API_VERSION, "keys": entries}, lambda: output.table(heads, rows))
    if not reveal:
        output.say("The keys were not shown and are spent at this end; --reveal prints them.")
