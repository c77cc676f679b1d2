"""The report of a sweep: pages that open from a disk without a network, and its rows as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

from keyhop.comparison import design_page, export, html, pages
from keyhop.comparison.case import Case, Row
from keyhop.comparison.scenes import Scene, scenes
from keyhop.comparison.sweep import Manifest, read_failures, read_manifest, read_rows

INDEX = "index.html"
DIRECTORY = "report"

PRIOR_WORK = (
    (
        "arXiv 2408.04598",
        "a simulation study of storage designs in QKDNetSim, by the group that wrote the survey of key managers.",
    ),
    (
        "Journal of Optical Communications and Networking, 2025",
        "static and dynamic thresholds of pools of relayed key, by success rate and delay.",
    ),
    ("arXiv 2604.09144", "the sizing of key buffers for latencies near zero."),
)


@dataclass(frozen=True, slots=True)
class Written:
    index: Path
    runs: int
    done: int
    not_applicable: int
    """Of those done: designs that cannot be run there at all."""
    files: list[Path]
    """The rows in other forms."""
    notes: list[str]
    """What a reader should know: something is missing."""


def write(directory: Path) -> Written:
    """Draws DIRECTORY/report from the rows so far. Raises keyhop.comparison.sweep.SweepError or OSError."""
    manifest, rows = read_manifest(directory), read_rows(directory)
    place = directory / DIRECTORY
    place.mkdir(exist_ok=True)
    failures = read_failures(directory)
    found = scenes(manifest.grid, rows, failures)
    for name, text in _pages(manifest, rows, failures, found):
        _write(place / name, text)
    table, columns = directory / "rows.csv", directory / "rows.parquet"
    _write(table, export.csv_text(rows))
    files, notes = [table], []
    if export.write_parquet(rows, columns):
        files.append(columns)
    else:
        notes.append(export.NO_PARQUET.format(directory))
    excluded = [row for row in rows if row.not_applicable]
    if excluded:
        why = f"{excluded[0].case.design}: {excluded[0].not_applicable}"
        notes.append(f"{len(excluded)} of {_counted(rows, 'run')} cannot be done; {why}")
    if len(rows) < len(manifest.grid):
        notes.append(f"{len(manifest.grid) - len(rows)} runs are missing")
    return Written(place / INDEX, len(manifest.grid), len(rows), len(excluded), files, notes)


def _write(path: Path, text: str) -> None:
    """A reader who reloads never sees half a page."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _pages(
    manifest: Manifest, rows: Sequence[Row], failures: Mapping[Case, str], found: list[Scene]
) -> Iterator[tuple[str, str]]:
    """The first scene is on the index page, so that there is something to see at once."""
    files = {scene.name: INDEX if at == 0 else f"{scene.name}.html" for at, scene in enumerate(found)}
    for at, scene in enumerate(found):
        body = [
            *_head(manifest, rows, failures),
            _tabs(found, files, scene),
            "<main>",
            *(pages.overview(found, files) if at == 0 and len(found) > 1 else ()),
            *pages.scene(scene),
            *_origin(manifest, scene),
            "</main>",
            *_foot(manifest),
        ]
        yield files[scene.name], html.page(f"Key managers side by side: {scene.title}", body)
    for name in manifest.grid.designs:
        body = [_tabs(found, files), pages.designs_nav(manifest.grid.designs, name), *design_page.page(name, found)]
        yield f"design-{name}.html", html.page(f"{name}: composition and figures", body)


def _head(manifest: Manifest, rows: Sequence[Row], failures: Mapping[Case, str]) -> Iterator[str]:
    grid = manifest.grid
    between = f" ({min(grid.loads):g} to {max(grid.loads):g})" if len(grid.loads) > 1 else f" ({grid.loads[0]:g})"
    yield "<header><h1>Key managers side by side</h1>"
    axes = ", ".join(
        (
            _counted(grid.designs, "design"),
            _counted(grid.workloads, "workload"),
            _counted(grid.loads, "load") + between,
            _counted(grid.topologies, "network"),
            _counted(grid.seeds, "seed"),
        )
    )
    yield html.paragraph(
        f"{axes}: {len(grid):,} run{'' if len(grid) == 1 else 's'} of "
        f"{grid.seconds:g} simulated seconds each, under one ledger. The same seed asks every design the same.",
        "lead",
    )
    yield "</header>" + pages.designs_nav(grid.designs)
    if len(rows) < len(grid):
        share = len(rows) / len(grid)
        said = f"This sweep is not finished: {len(rows):,} of {len(grid):,} runs are there ({share:.0%})."
        if failures:
            case, error = next(iter(failures.items()))
            said += f" {_counted(failures, 'run')} failed, the first was {case}: {error}"
        yield f"<main>{html.note(said)}</main>"


def _counted(things: Sized, word: str) -> str:
    return f"{len(things)} {word}" + ("" if len(things) == 1 else "s")


def _tabs(found: list[Scene], files: dict[str, str], current: Scene | None = None) -> str:
    links = (
        html.link(files[scene.name], f"{scene.workload} · {scene.topology}", current=scene is current)
        for scene in found
    )
    return f'<nav aria-label="workloads and networks">{"".join(links)}</nav>'


def _origin(manifest: Manifest, scene: Scene) -> Iterator[str]:
    machine = manifest.machine
    yield "<h2>How this was made</h2>"
    yield f"<pre>{html.escape(manifest.command)}</pre>"
    yield html.facts(
        [
            ("code", manifest.version),
            ("runs done by", manifest.runner),
            ("seeds", ", ".join(map(str, manifest.grid.seeds))),
            ("machine", f"{machine.system} {machine.architecture}, {machine.cores} cores, Python {machine.python}"),
        ]
    )
    traces = sorted({(row.case.load, row.case.seed, row.trace) for row in scene.rows if not row.not_applicable})
    yield "<details><summary>Hashes of the demands, the same for every design</summary>"
    cells = ([html.cell(f"{load:g}"), html.cell(str(seed)), html.cell(trace)] for load, seed, trace in traces)
    yield html.table(("load", "seed", "SHA-256"), cells) + "</details>"


def _foot(manifest: Manifest) -> Iterator[str]:
    yield "<footer><h3>Prior work</h3><ul>"
    for source, subject in PRIOR_WORK:
        yield f"<li>{html.escape(source)}: {html.escape(subject)}</li>"
    yield (
        "</ul>" + html.paragraph("All rows: rows.jsonl, rows.csv and rows.parquet beside this directory.") + "</footer>"
    )
