"""The page of one workload on one network: six pictures and the table behind them."""

from __future__ import annotations

from collections.abc import Iterator

from keyhop.comparison import html, plots, scatter, strips
from keyhop.comparison.measures import COLLISIONS, FAIRNESS, P50, P99, SUCCESS, TABLE, WASTE, title, words
from keyhop.comparison.metrics import METRICS
from keyhop.comparison.palette import LEDGER, STOCK, colour
from keyhop.comparison.scenes import Scene, own_share, spread
from keyhop.comparison.statistics import CONFIDENCE, PARETO, pareto_front
from keyhop.core.designs import DESIGNS
from keyhop.simulator.workloads import WORKLOADS

LINKS, PAIRS = "local", "global"
"""Whose books: of links, and of distant pairs."""


def scene(found: Scene) -> Iterator[str]:
    yield f"<h2>{html.escape(found.title)}</h2>"
    yield html.paragraph(WORKLOADS[found.workload].sentence, "lead")
    for why, names in found.left_out().items():
        yield html.paragraph(f"Not applicable, and so not drawn: {', '.join(names)}: {why}.")
    if unpaired := found.unpaired():
        load, seed = unpaired[0]
        yield html.note(
            f"Not comparable: {len(unpaired)} times designs were not asked the same, first at load {load:g}, "
            f"seed {seed}.",
            bad=True,
        )
    found = found.of_those_that_run()
    if not found.designs:
        yield html.note("No design of this sweep can serve this workload on this network, so there is nothing to draw.")
        return
    yield from _section(
        "Success versus load",
        "Requests whose key both ends held in time. "
        + ("Grey: all other designs. " if len(found.designs) > plots.FEW else "")
        + "Right of the dashed line more is asked for than the modules make.",
        plots.curves(found, plots.Axis(SUCCESS)),
    )
    yield from _section(
        "Where the bits went",
        "Of every hundred bits that left the stores, at both ends of all links. "
        "Beside each bar, how much of all that the modules delivered is still in stock.",
        html.legend((f"var(--l-{letter})", f"{letter}  {LEDGER[letter][0]}") for letter in LEDGER if letter != STOCK)
        + strips.ledger(found, lambda design, load: shares(found, design, load, LINKS)),
    )
    if any(cell.median for letter in "NT" for cell in found.values(_column(PAIRS, letter))):
        yield from _section(
            "Where the distant key went",
            "Of every hundred bits of relayed key that left the stores of distant pairs, at both ends. "
            "Beside each bar, how much of all that was relayed is still in stock.",
            strips.ledger(found, lambda design, load: shares(found, design, load, PAIRS)),
        )
    yield from _section(
        "Latency",
        "From the request until both ends held the key, waiting included. Filled: half of the keys were faster. "
        "Hollow: 99 of 100 were. Requests that were refused are not in it.",
        strips.latency(found, P50, P99),
    )
    yield from _collisions(found)
    yield from _section(
        "Fairness",
        "Jain's index over what each application got of what it asked for: 1 is even, 1/n is all to one of n.",
        plots.curves(found, plots.Axis(FAIRNESS, fitted=True)),
    )
    yield from _front(found)
    yield from _tables(found)


def _section(heading: str, sentence: str, drawn: str) -> Iterator[str]:
    yield f"<section><h3>{heading}</h3>{html.paragraph(sentence, 'lead')}"
    yield f'<div class="scroll-narrow">{drawn}</div></section>'


def shares(found: Scene, design: str, load: float, books: str) -> dict[str, float] | None:
    """What became of the key, by the median of each letter."""
    letters = [letter for letter in LEDGER if books == LINKS or letter not in "TR"]
    parts = {letter: found.cell(design, load, _column(books, letter)) for letter in letters}
    known = {letter: part.median for letter, part in parts.items() if part is not None and part.median}
    # Medians of parts need not add up to the median of the whole; the bar is to be full.
    total = sum(known.values())
    return {letter: part / total for letter, part in known.items()} if total else None


def _column(books: str, letter: str) -> str:
    return f"{books}_{letter}_bits"


def _collisions(found: Scene) -> Iterator[str]:
    sentence = "Keys that both ends had taken at once and that were destroyed at both, of all keys taken."
    ever = any(cell.median > 0 or (cell.high or 0) > 0 for cell in found.values(COLLISIONS))
    if ever or not found.has(COLLISIONS):
        yield from _section("Collisions", sentence, strips.bars(found, COLLISIONS))
        return
    measured = {design for design, _, name in found.cells if name == COLLISIONS}
    said = f"None of the {len(measured)} designs that ran here lost a key to a collision, at any load."
    yield f"<section><h3>Collisions</h3>{html.paragraph(sentence, 'lead')}{html.paragraph(said)}</section>"


def _front(found: Scene) -> Iterator[str]:
    load = found.reference_load
    points = {
        design: {name: cell.median if (cell := found.cell(design, load, name)) is not None else None for name in PARETO}
        for design in found.designs
    }
    best = pareto_front(points)
    named = ", ".join(f"{'more' if better == 'high' else 'less'} {title(name)}" for name, better in PARETO.items())
    yield from _section(
        f"Pareto front at load {load:g}",
        f"Filled and bold: no other design is at least as good in all of {named}, and better in one. Hollow: one is. "
        "The dashed line joins those that are on the front of the two figures shown alone.",
        scatter.front(found, load, WASTE, SUCCESS, best) + scatter.front(found, load, P99, SUCCESS, best),
    )


def _tables(found: Scene) -> Iterator[str]:
    yield "<section><h3>Medians over seeds</h3>"
    yield html.paragraph(
        f"Below each median its {CONFIDENCE:.0%} bootstrap interval; the best of each column is marked. n/a: the "
        "design cannot be run there, or the figure says nothing about it; it counts as no nought. K: the share of the "
        "design's parameters that no source gives and that are ours.",
        "lead",
    )
    rest = tuple(name for name in METRICS if name not in TABLE and found.has(name))
    for load in sorted(found.loads):
        opened = " open" if load == found.reference_load else ""
        yield f"<details{opened}><summary>Load {load:g}</summary>"
        yield medians(found, load, tuple(name for name in TABLE if found.has(name)))
        if rest:
            below = medians(found, load, rest)
            yield f"<details><summary>All other figures at load {load:g}</summary>{below}</details>"
        yield "</details>"
    yield "</section>"


def medians(found: Scene, load: float, metrics: tuple[str, ...]) -> str:
    best = {name: _best(found, load, name) for name in metrics}
    rows = []
    for design in found.designs:
        row = [f"<td>{html.link(f'design-{design}.html', design, swatch=colour(design))}</td>"]
        row.append(html.cell(own_share(design)[2:]))
        row += [_figure(found, design, load, name, best[name]) for name in metrics]
        rows.append(row)
    heads = ["design", "K", *(_head(name) for name in metrics)]
    return html.table(heads, rows)


def _head(metric: str) -> str:
    found = METRICS[metric]
    return f'<span title="{html.escape(found.sentence)}">{title(metric)}</span>'


def _figure(found: Scene, design: str, load: float, metric: str, best: float | None) -> str:
    cell = found.cell(design, load, metric)
    if cell is None:
        return html.cell(found.why_empty(design, load), "none")
    kind = "best" if best is not None and cell.median == best else ""
    return html.cell(words(metric, cell.median), kind, spread(metric, cell))


def _best(found: Scene, load: float, metric: str) -> float | None:
    """Nothing stands out where half are alike."""
    cells = [cell.median for design in found.designs if (cell := found.cell(design, load, metric)) is not None]
    better = METRICS[metric].better
    if not better or not cells:
        return None
    best = max(cells) if better == "high" else min(cells)
    return best if 2 * cells.count(best) < len(cells) else None


def overview(scenes: list[Scene], files: dict[str, str]) -> Iterator[str]:
    """Every design in every scene, by its success at one load."""
    yield "<h2>All workloads and networks</h2>"
    loads = ", ".join(dict.fromkeys(f"{found.reference_load:g}" for found in scenes))
    yield html.paragraph(f"Success at load {loads}: the darker, the more.", "lead")
    known = [
        cell.median
        for found in scenes
        for design in found.designs
        if (cell := found.cell(design, found.reference_load, SUCCESS)) is not None
    ]
    least = min(known, default=0.0)
    rows = []
    for design in scenes[0].designs:
        row = [f"<td>{html.link(f'design-{design}.html', design, swatch=colour(design))}</td>"]
        row.append(html.cell(own_share(design)[2:]))
        for found in scenes:
            cell = found.cell(design, found.reference_load, SUCCESS)
            if cell is None:
                row.append(html.cell(found.why_empty(design, found.reference_load), "none"))
            else:
                row.append(
                    html.cell(
                        words(SUCCESS, cell.median),
                        "heat",
                        style=f"--share:{(cell.median - least) / (1 - least or 1):.3f}",
                    )
                )
        rows.append(row)
    heads = ["design", "K", *(html.link(files[found.name], f"{found.workload} {found.topology}") for found in scenes)]
    yield html.table(heads, rows, "heats")


def designs_nav(names: tuple[str, ...], current: str = "") -> str:
    links = (
        html.link(f"design-{name}.html", name, current=name == current, swatch=colour(name))
        for name in names
        if name in DESIGNS
    )
    return f'<nav aria-label="designs">{"".join(links)}</nav>'
