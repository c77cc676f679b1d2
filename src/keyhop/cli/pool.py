"""`keyhop pool`: key in stock, and where it came from and went."""

from __future__ import annotations

import click

from keyhop.cli import figures, known, node_api, output
from keyhop.cli.link import find_link
from keyhop.cli.output import ExitCode, Failure
from keyhop.cli.settings import common_options
from keyhop.wire import manage
from keyhop.wire.manage import Pool, PoolAnswer, PoolsAnswer


@click.group()
def pool() -> None:
    """Key in stock, by the node it is shared with.

    \b
    Example:
      keyhop pool list
    """


@pool.command("list")
@common_options
def list_pools() -> None:
    """What each node holds with each other one.

    \b
    Example:
      keyhop pool list -o yaml
    """
    found = [
        _with_node(entry, target.node)
        for target, answer in node_api.ask_all(manage.POOLS_PATH, PoolsAnswer)
        for entry in answer.pools
    ]
    heads = ("node", "peer", "kind", "stored", "leasable", "leased", "threshold", "in", "out", "oldest")
    output.emit(
        PoolsAnswer(pools=tuple(found)), lambda: output.table(heads, [_row(entry) for entry in found], "no pools")
    )


@pool.command("show", short_help="Pools with one node, over one link, or between two.")
@click.argument("peer", metavar="PEER|LINK", shell_complete=known.nodes)
@click.argument("other", metavar="[PEER]", required=False, shell_complete=known.nodes)
@common_options
def show_pool(peer: str, other: str | None) -> None:
    """Pools shared with one node, over one link, or between two nodes, with the life of their bytes.

    \b
    Example:
      keyhop pool show BRT
      keyhop pool show STP FRM
    """
    if other is not None:
        peer = f"{peer}-{other}"
    try:
        target, answer = node_api.find(
            lambda target: [manage.pool_path(name) for name in _peers(peer, target.node)],
            PoolAnswer,
            f"pool: {peer}",
            "keyhop pool list",
        )
    except Failure as missing:
        if missing.exit_code != ExitCode.NO_SUCH_THING:
            raise
        try:
            target, link = find_link(peer)
        except Failure:
            raise missing from None
        answer = node_api.ask(target, manage.pool_path(link.peer), PoolAnswer)
    pools = [_with_node(entry, target.node) for entry in answer.pools]
    output.emit(PoolAnswer(pools=tuple(pools)), lambda: "\n\n".join(_facts(entry) for entry in pools))


def _peers(name: str, asked: str) -> list[str]:
    """Whose pools at the node that is asked (empty: not known which it is) the name can mean."""
    found = [name]
    for at, letter in enumerate(name):
        if letter == "-":
            one, other = name[:at], name[at + 1 :]
            found += [other] if asked in ("", one) else []
            found += [one] if asked in ("", other) else []
    return [peer for peer in found if peer]


def _with_node(entry: Pool, node: str) -> Pool:
    import msgspec

    return entry if entry.node else msgspec.structs.replace(entry, node=node)


def _row(entry: Pool) -> tuple[str, ...]:
    return (
        entry.node or figures.UNKNOWN,
        entry.peer,
        entry.kind.value,
        figures.fill(entry.stored_bytes, entry.capacity_bytes)
        + (" !" if entry.stored_bytes < entry.threshold_bytes else ""),
        figures.size(entry.leasable_bytes),
        figures.size(entry.leased_bytes),
        figures.size(entry.threshold_bytes),
        figures.rate(entry.in_bps),
        figures.rate(entry.out_bps),
        figures.age(entry.oldest_age_s),
    )


def _facts(entry: Pool) -> str:
    flows = entry.flows
    return output.facts(
        [
            ("node", entry.node),
            ("peer", entry.peer),
            ("kind", entry.kind.value),
            ("stored", figures.fill(entry.stored_bytes, entry.capacity_bytes)),
            ("leasable", figures.size(entry.leasable_bytes)),
            ("leased", figures.size(entry.leased_bytes)),
            ("following", figures.size(entry.following_bytes)),
            ("threshold", figures.size(entry.threshold_bytes)),
            ("oldest", figures.age(entry.oldest_age_s)),
            ("comes", figures.rate(entry.in_bps)),
            ("goes", figures.rate(entry.out_bps)),
            ("taken in", figures.size(flows.in_bytes)),
            ("delivered", figures.size(flows.delivered_bytes)),
            ("relayed", figures.size(flows.relayed_bytes)),
            ("authentication", figures.size(flows.authentication_bytes)),
            ("wasted", figures.size(flows.wasted_bytes)),
            ("expired", figures.size(flows.expired_bytes)),
            ("lost", figures.size(flows.lost_bytes)),
        ]
    )
