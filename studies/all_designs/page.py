"""The page that a reader opens: verdicts, plots, published results beside ours, prior work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from keyhop.comparison import html
from studies.all_designs import networks
from studies.all_designs.beside import Beside
from studies.all_designs.sweeps import Extent, Swept
from studies.all_designs.verdicts import Verdict, percent

PRIOR = (
    (
        "arXiv 2408.04598",
        "simulates ways to store key in QKDNetSim; storage alone, not whole key managers",
    ),
    (
        "Pool thresholds for pre-relayed key, Journal of Optical Communications and Networking, 2025",
        "static and dynamic thresholds of pools of relayed key: success against delay",
    ),
    ("arXiv 2604.09144", "sizes of buffers for a latency near zero"),
)
SERVES_ALL = 0.999


def write(out: Path, extent: Extent, swept: Swept, verdicts: Sequence[Verdict], beside: Sequence[Beside]) -> Path:
    """Beside the page, `results.json` with the same words."""
    answer = {
        "apiVersion": "keyhop/v1",
        "extent": extent.name,
        "seconds": extent.seconds,
        "seeds": len(extent.seeds),
        "runs": swept.runs,
        "failures": swept.failures,
        "hypotheses": [
            {"id": one.id, "sentence": one.sentence, "verdict": one.word, "figures": one.figures} for one in verdicts
        ],
        "published": [
            {"of": one.of, "theirs": one.theirs, "ours": one.ours, "agrees": one.agrees, "difference": one.difference}
            for one in beside
        ],
    }
    (out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(answer), indent=2) + b"\n")
    index = out / "index.html"
    index.write_text(html.page("All designs", _body(extent, swept, verdicts, beside)), encoding="utf-8")
    return index


def _validity(swept: Swept) -> Iterator[str]:
    """At the lowest load everybody should serve everything; who does not is asked why before plots are believed."""
    found = swept.figures["all"]
    load = found.loads()[0]
    short = {
        name: success
        for name in found.designs()
        if (success := found.median(name, "success", "W2", load)) is not None and success.median < SERVES_ALL
    }
    words = ", ".join(f"{name} {percent(success)}" for name, success in short.items()) or "none"
    yield "<section><h2>Validity</h2>"
    yield html.paragraph(
        f"The books of all runs close at every end. On W2 at load {load:g}, without the first tenth of a run, these "
        f"designs do not serve every request: {words}."
    )
    yield html.paragraph(
        "NEC gives a whole file of 4096 bits for every key, which is more than the link makes. Toshiba makes key for a "
        "client at the rate it registered, so that a large key takes longer than its deadline. DDKA keeps as much of "
        "each size, and large keys are scarce there."
    )
    yield "</section>"


def _body(extent: Extent, swept: Swept, verdicts: Sequence[Verdict], beside: Sequence[Beside]) -> Iterator[str]:
    yield "<header><h1>All published key managers under one accounting</h1>"
    yield html.paragraph(
        f"{swept.runs} runs of {extent.seconds:g} simulated seconds, {len(extent.seeds)} seeds, "
        f"{swept.not_run} of them where a design cannot run; extent: {extent.name}."
    )
    yield "</header>"
    if extent.name == "quick":
        yield html.note(
            "A quick run shows that everything works. Three seeds of half a minute decide nothing: run it with --full."
        )
    for failure in swept.failures:
        yield html.note(failure, bad=True)
    yield "<section><h2>Hypotheses</h2>"
    yield html.table(
        ("", "hypothesis", "verdict"),
        [(html.cell(one.id), html.cell(one.sentence), html.cell(one.word)) for one in verdicts],
    )
    yield "</section>"
    yield from _validity(swept)
    for one in verdicts:
        yield f'<section id="{one.id}"><h2>{one.id}: {one.word}</h2>'
        yield html.paragraph(one.sentence)
        yield one.plot
        for figure in one.figures:
            yield html.paragraph(figure)
        yield "</section>"
    yield from networks.section(swept.figures)
    yield "<section><h2>Published results beside ours</h2>"
    rows = [tuple(map(html.cell, (one.of, one.theirs, one.ours, one.agrees, one.difference))) for one in beside]
    yield html.table(("result", "published", "ours", "agrees", "what differs"), rows)
    for result in beside:
        if result.plot:
            yield html.paragraph(result.of)
            yield result.plot
    yield "</section><section><h2>Prior work</h2>"
    yield html.facts(PRIOR)
    yield html.paragraph("None of these puts whole key managers side by side, which is what is done here.")
    yield "</section><section><h2>Sweeps</h2><ul>"
    for name in swept.figures:
        yield f"<li>{html.link(f'sweeps/{name}', name)}</li>"
    yield "</ul></section>"
