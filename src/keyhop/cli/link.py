"""`keyhop link`: QKD links of a node or a lab, and the secret two nodes share before their first key."""

from __future__ import annotations

from pathlib import Path

import click

from keyhop.cli import figures, known, node_api, output
from keyhop.cli.output import ExitCode, Failure, fail
from keyhop.cli.settings import FILE, common_options
from keyhop.wire import manage
from keyhop.wire.manage import Link, LinkAnswer, LinksAnswer, LinkState


@click.group()
def link() -> None:
    """QKD links.

    \b
    Example:
      keyhop link list
    """


@link.command("list")
@common_options
def list_links() -> None:
    """Links with their state, error rate, key rate and stock.

    \b
    Example:
      keyhop link list -o json
    """
    found: dict[str, Link] = {}
    for _, answer in node_api.ask_all(manage.LINKS_PATH, LinksAnswer):
        for entry in answer.links:
            found.setdefault(entry.id, entry)
    links = tuple(found[name] for name in sorted(found))
    output.emit(LinksAnswer(links=links), lambda: output.table(_HEADS, [_row(entry) for entry in links], "no links"))


@link.command("show")
@click.argument("link_id", metavar="LINK", shell_complete=known.links)
@common_options
def show_link(link_id: str) -> None:
    """One link, by its id or as A-B.

    \b
    Example:
      keyhop link show BRT-STP
    """
    _, entry = find_link(link_id)
    output.emit(LinkAnswer(link=entry), lambda: _facts(entry))


def find_link(name: str) -> tuple[node_api.Target, Link]:
    """By its id, or by its two ends in any order where only one link joins them, and who told. Raises Failure."""
    try:
        target, answer = node_api.find(
            lambda _: [manage.link_path(name)], LinkAnswer, f"link: {name}", "keyhop link list"
        )
        return target, answer.link
    except Failure as failure:
        if failure.exit_code != ExitCode.NO_SUCH_THING:
            raise
        missing = failure
    answers, _ = node_api.try_all(lambda target: node_api.ask(target, manage.LINKS_PATH, LinksAnswer))
    joining = {
        entry.id: (target, entry)
        for target, links in reversed(answers)
        for entry in links.links
        if name in ("-".join(entry.ends), "-".join(reversed(entry.ends)))
    }
    if len(joining) > 1:
        what = f"{len(joining)} links join {name}"
        fail(what, "", f"name one: {', '.join(sorted(joining))}", ExitCode.USAGE)
    if not joining:
        raise missing
    return next(iter(joining.values()))


@link.command("key")
@click.argument("one", metavar="NODE")
@click.argument("other", metavar="NEIGHBOUR")
@click.option("--out", type=FILE, help="File to make; NODE-NEIGHBOUR.key if not given.")
@common_options
def make_key(one: str, other: str, out: Path | None) -> None:
    """Make the secret that two nodes share before their link gives key.

    Carry one copy to each node by hand; each node loads it once and overwrites it.

    \b
    Example:
      keyhop link key STP BRT --out stp-brt.key
    """
    from keyhop.daemon import linkkey

    path = out or Path(f"{one}-{other}.key")
    try:
        key = linkkey.make(one, other)
        try:
            linkkey.write(key, path)
        finally:
            key.wipe()
    except linkkey.LinkKeyError as error:
        fail("no link key was made", str(error), "see: keyhop link key --help", ExitCode.REFUSED)
    answer = {
        "apiVersion": output.API_VERSION,
        "file": str(path),
        "link_number": key.number.hex(),
        "ends": [key.lower, key.higher],
    }
    output.emit(answer, lambda: f"{path}  link number {key.number.hex()}  {key.lower}-{key.higher}")
    output.say(f"Put a copy on {one} and one on {other} (first_contact in the node file), and destroy every other.")


_HEADS = ("link", "state", "qber", "skr", "net", "pool", "age", "")


def _row(entry: Link) -> tuple[str, ...]:
    low = " !" if entry.stored_bytes < entry.threshold_bytes else ""
    return (
        entry.id,
        entry.state.value,
        figures.percent(entry.qber),
        figures.rate(entry.skr_bps),
        figures.rate(entry.net_bps, signed=True),
        figures.fill(entry.stored_bytes, entry.capacity_bytes) + low,
        figures.age(entry.age_s),
        _reason(entry),
    )


def _reason(entry: Link) -> str:
    if entry.state is LinkState.UP:
        return ""
    return f"{entry.reason} ({entry.alarm})" if entry.alarm else entry.reason


def _facts(entry: Link) -> str:
    limit = f"  (limit {figures.percent(entry.qber_limit)})" if entry.qber_limit is not None else ""
    block = f"  (a block every {entry.block_period_s:g} s)" if entry.block_period_s else ""
    pairs = [
        ("link", entry.id),
        ("ends", f"{entry.ends[0]} and {entry.ends[1]}"),
        ("state", entry.state.value),
        ("reason", _reason(entry)),
        ("for", figures.age(entry.age_s)),
        ("device", " ".join(part for part in (entry.driver, entry.protocol) if part)),
        ("length", f"{entry.length_km:g} km" if entry.length_km is not None else ""),
        ("qber", figures.percent(entry.qber) + limit),
        ("skr", figures.rate(entry.skr_bps) + block),
        ("net", figures.rate(entry.net_bps, signed=True)),
        ("pool", figures.fill(entry.stored_bytes, entry.capacity_bytes)),
        ("threshold", figures.size(entry.threshold_bytes)),
    ]
    pairs += [
        (
            f"from {stock.owner}",
            f"{figures.fill(stock.stored_bytes, stock.capacity_bytes)}  oldest {figures.age(stock.oldest_age_s)}",
        )
        for stock in entry.stock
    ]
    return output.facts(pairs)
