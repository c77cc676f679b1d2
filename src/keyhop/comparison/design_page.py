"""The page of one design: what it is made of, who says so, and how it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keyhop.comparison import composition, html, plots
from keyhop.comparison.case import not_applicable
from keyhop.comparison.measures import SUCCESS, TABLE, title, words
from keyhop.comparison.scenes import Scene, spread
from keyhop.core.designs import DESIGNS
from keyhop.core.designs.design import Design
from keyhop.core.designs.silences import silences
from keyhop.core.designs.source import MEANINGS, Source
from keyhop.core.designs.survey import DEPARTURES, TEXT_SAYS, agrees, compared


def page(name: str, scenes: Sequence[Scene]) -> Iterator[str]:
    design = DESIGNS[name]
    yield f"<header><h1>{html.escape(name)}</h1>{html.paragraph(design.title, 'lead')}</header><main>"
    for warning in design.warnings:
        yield html.note(warning)
    yield _facts(design)
    yield "<h2>Composition</h2>"
    yield html.paragraph(
        "Drawn from the code. The tag at the end of each line is the source of that answer or parameter.", "lead"
    )
    yield html.legend((f"var(--s-{source})", f"{source}  {meaning}") for source, meaning in MEANINGS.items())
    yield f'<div class="scroll-narrow">{composition.drawn(design)}</div>'
    yield from _survey(design)
    yield "<h2>How it did</h2>"
    for scene in scenes:
        yield f"<h3>{html.escape(scene.title)}</h3>"
        if why := not_applicable(name, scene.topology):
            yield html.paragraph(f"n/a: {why}.")
            continue
        yield f'<div class="scroll-narrow">{plots.curves(scene, plots.Axis(SUCCESS), name)}</div>'
        yield _figures(scene, name)
    yield "</main>"


def _facts(design: Design) -> str:
    leaves = design.leaves
    own = sum(leaf.source is Source.OWN for leaf in leaves)
    access = design.access
    return html.facts(
        [
            ("row of the survey", design.row or "none"),
            ("doors", ", ".join(design.doors) + (f" ({design.profile})" if design.profile else "")),
            ("access to a link's key", access.local),
            ("access to a distant pair's key", access.global_),
            ("promises information-theoretic key", "yes" if design.promises_its else "no"),
            ("nodes between two ends", design.on_the_way or "it has no relay"),
            ("choices of ours (K)", f"{own} of {len(leaves)} fields, {design.own_share:.0%}"),
        ]
    )


def _survey(design: Design) -> Iterator[str]:
    if not design.row:
        return
    rows = []
    for column, theirs, ours in compared(design):
        verdict = "silent" if theirs == "-" else "agrees" if agrees(column, theirs, ours) else "departs"
        why = DEPARTURES.get((design.name, column)) or TEXT_SAYS.get((design.row, column)) or ""
        rows.append([html.cell(words) for words in (column.replace("_", " "), theirs, ours, verdict, why)])
    yield "<h2>What the survey says</h2>"
    yield html.table(("", "its tables", "here", "", ""), rows, "text")
    open_questions = silences(design.row)
    if open_questions:
        yield "<h3>Where it is silent</h3><ul>"
        for silence in open_questions:
            yield f"<li>{html.escape(silence.open)} Here: {html.escape(silence.chosen)}</li>"
        yield "</ul>"


def _figures(scene: Scene, name: str) -> str:
    metrics = [metric for metric in TABLE if scene.has(metric)]
    rows = []
    for load in sorted(scene.loads):
        row = [html.cell(f"{load:g}")]
        for metric in metrics:
            cell = scene.cell(name, load, metric)
            if cell is None:
                row.append(html.cell(scene.why_empty(name, load), "none"))
            else:
                row.append(html.cell(words(metric, cell.median), "", spread(metric, cell)))
        rows.append(row)
    return html.table(("load", *(title(metric) for metric in metrics)), rows)
