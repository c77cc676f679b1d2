"""`keyhop ping`: does a key arrive, the same at both ends, and over which nodes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from keyhop.cli import caller, known, output, route
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import common_options


@click.command()
@click.argument("peer", metavar="SAE", shell_complete=known.applications)
@click.option("-c", "count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many keys.")
@caller.credential_options
@common_options
def ping(
    peer: str,
    count: int,
    origin: str | None,
    cert: Path | None,
    key_file: Path | None,
    ca: Path | None,
) -> None:
    """Get a key for SAE, fetch it at the far end, compare, and show the path. Spends one key each time.

    In a lab both ends are asked; elsewhere this end only.

    \b
    Example:
      keyhop ping sae-frm --from sae-stp -c 3
    """
    asking = caller.caller(origin, cert, key_file, ca)
    far = caller.of_lab(peer) if origin is not None and cert is None else None
    nodes = _path(asking.name, peer)
    results = [_once(asking, far, peer, nodes) for _ in range(count)]
    answer = {"apiVersion": output.API_VERSION, "from": asking.name, "to": peer, "path": nodes, "keys": results}
    output.emit(answer, lambda: "\n".join(_line(result, nodes) for result in results))


def _once(asking: caller.Caller, far: caller.Caller | None, peer: str, nodes: list[str]) -> dict[str, Any]:
    from keyhop.client.core import KeyhopError

    began = time.perf_counter()
    try:
        with asking.kme() as kme, kme.get_key(peer) as key:
            got = time.perf_counter()
            equal = None
            if far is not None:
                with far.kme() as other, other.fetch_key(asking.name, key.id) as copy:
                    equal = copy == key
            done = time.perf_counter()
            result = {
                "key_id": str(key.id),
                "size_bits": key.size_bits,
                "hops": max(len(nodes) - 1, 0) if nodes else None,
                "get_ms": round((got - began) * 1e3, 1),
                "total_ms": round((done - began) * 1e3, 1),
                "equal": equal,
            }
    except KeyhopError as error:
        caller.refused(error, asking, peer)
    if result["equal"] is False:
        what = f"the ends hold different keys under {result['key_id']}"
        fail(what, "key material is out of step", "stop using this pair, and see: keyhop status", ExitCode.REFUSED)
    return result


def _path(origin: str, peer: str) -> list[str]:
    """Empty where no node can say; a ping does not fail for that."""
    if not origin:
        return []
    try:
        chosen = route.route_between(origin, peer).chosen
    except output.Failure as failure:
        if failure.exit_code in (ExitCode.UNREACHABLE, ExitCode.NO_SUCH_THING, ExitCode.REFUSED):
            return []
        raise
    return list(chosen.path) if chosen is not None else []


def _line(result: dict[str, Any], nodes: list[str]) -> str:
    hops = len(nodes) - 1
    parts = [
        f"key {result['key_id'][:8]}…",
        f"{result['size_bits']} bit",
        f"{' → '.join(nodes)}  {hops} hop{'s' * (hops != 1)}" if nodes else "path not known",
        f"{result['total_ms']:.0f} ms",
        "same at both ends" if result["equal"] else "far end not asked",
    ]
    trusted = nodes[1:-1]
    if trusted:
        parts.append(f"trusted nodes: {' '.join(trusted)}")
    return "  ".join(parts)
