"""What the sweeps over larger networks show: one table a network, and why they are no larger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keyhop.comparison import html
from keyhop.comparison.case import not_applicable, paths
from keyhop.comparison.measures import title, words
from keyhop.comparison.palette import colour
from keyhop.comparison.scenes import own_share, spread
from keyhop.simulator import topology
from studies.all_designs.sweeps import (
    BASE,
    CITIES,
    CITY_WORKLOADS,
    COUNTRY,
    COUNTRY_SECONDS,
    COUNTRY_WORKLOADS,
    WIDE_LOADS,
    WIDE_SEEDS,
    Figures,
)

SHOWN = ("success", "path_utilisation", "tag_overhead", "latency_p50_s", "latency_p99_s", "its_ratio")


def section(figures: Mapping[str, Figures]) -> Iterator[str]:
    if "networks" not in figures:
        return
    yield '<section id="networks"><h2>Larger networks</h2>'
    yield html.paragraph(
        f"Three networks that were built ({', '.join(CITIES)}) are run as long as everything else, with {WIDE_SEEDS} "
        f"seeds, on {' and '.join(CITY_WORKLOADS)}. {COUNTRY} costs from 5 to 100 times as much a second, so "
        f"it is run for {COUNTRY_SECONDS:g} s at most and on {', '.join(COUNTRY_WORKLOADS)} alone: on W5 a guaranteed "
        "key is due within 0.1 s, which is less than messages take across the country. Medians over seeds, without "
        "the first tenth of a run."
    )
    for name, places, workloads in (("networks", CITIES, CITY_WORKLOADS), ("country", (COUNTRY,), COUNTRY_WORKLOADS)):
        for place in places:
            yield from _place(figures[name], place, workloads)
    yield "</section>"


def _place(found: Figures, place: str, workloads: tuple[str, ...]) -> Iterator[str]:
    nodes, hops = len(topology.load_builtin(place).nodes), sorted(len(path) - 1 for path in paths(place))
    yield f"<h3>{place}</h3>"
    pairs = ", ".join(map(str, hops))
    yield html.paragraph(f"{nodes} nodes with the relays on long spans; pairs that ask are {pairs} links apart.")
    missing: dict[str, list[str]] = {}
    for name in BASE:
        if why := not_applicable(name, place):
            missing.setdefault(why, []).append(name)
    for why, names in missing.items():
        yield html.paragraph(f"Not applicable: {', '.join(names)}: {why}.")
    for workload in workloads:
        for load in WIDE_LOADS:
            yield html.paragraph(f"{workload} at load {load:g}")
            ran = [name for name in BASE if not not_applicable(name, place)]
            rows = [_row(found, name, workload, load, place) for name in ran]
            yield html.table(("design", "K", *map(title, SHOWN)), rows)


def _row(found: Figures, name: str, workload: str, load: float, place: str) -> list[str]:
    row = [f'<td><span class="swatch" style="background:{colour(name)}"></span>{name}</td>']
    row.append(html.cell(own_share(name)[2:]))
    ran = bool(found.of(name, "success", workload, load, place))
    for metric in SHOWN:
        value = found.median(name, metric, workload, load, place)
        if value is None:
            row.append(html.cell("n/a" if ran else "failed", "none"))
        else:
            row.append(html.cell(words(metric, value.median), "", spread(metric, value)))
    return row
