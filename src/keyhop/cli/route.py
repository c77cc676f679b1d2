"""`keyhop route`: the paths keys take between nodes."""

from __future__ import annotations

import click

from keyhop.cli import figures, known, node_api, output
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import common_options
from keyhop.wire import manage
from keyhop.wire.manage import Route, RouteAnswer, RoutesAnswer


@click.group()
def route() -> None:
    """Paths between nodes.

    \b
    Example:
      keyhop route show STP FRM --why
    """


@route.command("list")
@common_options
def list_routes() -> None:
    """The chosen path from each node to each other one.

    \b
    Example:
      keyhop route list
    """
    routes = tuple(entry for _, answer in node_api.ask_all(manage.ROUTES_PATH, RoutesAnswer) for entry in answer.routes)
    heads = ("from", "to", "path", "hops", "cost", "feasible", "")
    rows = [
        (
            entry.origin,
            entry.to,
            figures.path(entry.path),
            str(entry.hops),
            _cost(entry),
            "yes" if entry.feasible else "no",
            entry.reason,
        )
        for entry in routes
    ]
    output.emit(RoutesAnswer(routes=routes), lambda: output.table(heads, rows, "no routes"))


@route.command("show")
@click.argument("origin", metavar="A", shell_complete=known.nodes)
@click.argument("to", metavar="B", shell_complete=known.nodes)
@click.option("--why", is_flag=True, help="Also the paths that were not chosen.")
@common_options
def show_route(origin: str, to: str, why: bool) -> None:
    """The path between two nodes or applications, and why it is this one.

    \b
    Example:
      keyhop route show STP FRM --why
    """
    answer = route_between(origin, to)
    if answer.chosen is None:
        reason = answer.reason or "no path is known"
        fail(f"no path from {origin} to {to}", reason, "see: keyhop link list", ExitCode.REFUSED)
    chosen = answer.chosen
    lines = [("chosen", chosen)] + [("next", entry) for entry in answer.alternatives if why]
    output.emit(answer, lambda: "\n".join(_line(word, entry) for word, entry in lines))


def route_between(origin: str, to: str) -> RouteAnswer:
    """As the node where the path begins sees it, or else the first that can say. Raises Failure."""
    path = manage.route_path(origin, to)
    _, answer = node_api.find(
        lambda _: [path], RouteAnswer, f"node or application: {origin} or {to}", "keyhop route list"
    )
    return answer


def _cost(entry: Route) -> str:
    return figures.UNKNOWN if entry.cost is None else f"{entry.cost:.1f}"


def _line(word: str, entry: Route) -> str:
    parts = [f"{word:<7} {figures.path(entry.path)}"]
    if entry.feasible:
        parts.append(f"cost {_cost(entry)}")
        if entry.narrowest_link:
            stored = f", {figures.size(entry.narrowest_stored_bytes)} stored" if entry.narrowest_stored_bytes else ""
            parts.append(f"narrowest link {entry.narrowest_link} {figures.rate(entry.narrowest_bps)}{stored}")
    else:
        parts.append("excluded")
    if entry.reason:
        parts.append(entry.reason)
    return "  ".join(parts)
