"""A report opens without a network, shows what is there and what is not, and never draws n/a as nought."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import arithmetic
import msgspec
import pyarrow.parquet
import pytest
from test_sweep import Here, perform

from keyhop.comparison import palette, report, strips, sweep
from keyhop.comparison.attempt import Result, Task
from keyhop.comparison.case import Case, Grid, Row, not_applicable
from keyhop.comparison.measures import duration, ratio, span, words
from keyhop.comparison.metrics import METRICS
from keyhop.comparison.scenes import Scene, scenes
from keyhop.comparison.sweep import ROWS, SweepError
from keyhop.core.designs import DESIGNS

GRID = Grid(("keyhop", "darpa", "qcanada.working_set"), ("W2", "W3"), (0.5, 1.2), ("p2p", "line3"), (1, 2, 3), 60.0)
EVERYTHING = Grid(tuple(DESIGNS), ("W2",), (0.2, 0.8, 2.0), ("line3",), (1, 2), 60.0)


class Figures(Here):
    """Rows with everything that a report draws."""

    def __init__(self, **changed: float | None) -> None:
        super().__init__()
        self.changed = changed

    def results(self, tasks: Iterable[Task]) -> Any:
        for task in tasks:
            yield Result(
                task, line=Row(task.case, arithmetic.trace(task.case), figures(task.case) | self.changed).line()
            )


def figures(case: Case) -> dict[str, float | None]:
    part = 0.3 + case.seed / 100
    known: dict[str, float | None] = dict.fromkeys(METRICS, part)
    known |= {"success": min(1.0, 0.9 / case.load), "collision_rate": 0.0, "latency_p99_s": 0.3, "latency_p50_s": 0.02}
    letters = {"D": 500, "O": 250, "A": 50, "S": 200, "C": 0, "R": 0, "T": 0, "X": 0, "Y": 0, "G": 1000}
    return known | {f"local_{letter}_bits": float(bits) for letter, bits in letters.items()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("drawn")
    perform(directory, Figures(), GRID)
    report.write(directory)
    return directory


def page(directory: Path, name: str = "index.html") -> str:
    return (directory / "report" / name).read_text()


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "srcset", "action")
        ]
        if tag not in ("meta", "br", "img", "rect", "line", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] in ("rect", "circle", "line", "path") and self.open[-1] != tag:
            self.open.pop()
        if tag in ("rect", "circle"):
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def test_every_page_stands_alone_and_leads_only_to_its_neighbours(drawn: Path) -> None:
    pages = sorted((drawn / "report").iterdir())
    assert {path.name for path in pages} == {
        "index.html",
        "w3-p2p.html",
        "w2-line3.html",
        "w3-line3.html",
        *(f"design-{name}.html" for name in GRID.designs),
    }
    names = {path.name for path in pages}
    for path in pages:
        text = path.read_text()
        assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|javascript:", text), path.name
        assert "default-src 'none'" in text
        parsed = Links(text)
        assert parsed.open == [] and set(parsed.links) <= names, path.name


def test_the_report_says_how_it_was_made(drawn: Path) -> None:
    text = page(drawn)
    manifest = sweep.read_manifest(drawn)
    assert "keyhop compare" in text and manifest.version in text and "1, 2, 3" in text
    assert manifest.machine.architecture in text
    assert arithmetic.trace(Case("keyhop", "W2", 0.5, "p2p", 1, 60.0)) in text
    for source in ("2408.04598", "2604.09144", "Optical Communications and Networking, 2025"):
        assert text.count(source) == 1


def test_a_design_page_has_every_field_of_the_composition_with_its_source(drawn: Path) -> None:
    text = page(drawn, "design-qcanada.working_set.html")
    design = DESIGNS["qcanada.working_set"]
    for leaf in design.leaves:
        assert f"<title>{leaf.path} = " in text
    assert text.count('class="chip-word"') == len(design.leaves)
    assert all(warning in text for warning in design.warnings) and design.warnings
    assert design.on_the_way and design.on_the_way in text


def test_n_a_is_words_and_never_a_mark_at_nought(drawn: Path) -> None:
    grid = sweep.read_manifest(drawn).grid
    by_name = {scene.name: scene for scene in scenes(grid, sweep.read_rows(drawn))}
    line3 = by_name["w2-line3"]
    assert line3.why_empty("darpa") == "n/a" and line3.cell("darpa", 0.5, "success") is None
    text = page(drawn, "w2-line3.html")
    why = "it has no relay, and line3 has pairs without a common link"
    assert f"Not applicable, and so not drawn: darpa: {why}." in text
    assert "darpa at load" not in text and ">n/a<" not in text.split("<h2>")[1]
    assert "keyhop at load 0.5: 100 %" in text
    assert "it has no relay, and line3 has pairs without a common link" in page(drawn, "design-darpa.html")
    assert "darpa at load 0.5" in page(drawn)


def test_a_metric_that_says_nothing_of_a_design_is_n_a_and_a_measured_nought_is_not(tmp_path: Path) -> None:
    grid = msgspec.structs.replace(GRID, designs=("keyhop",), topologies=("p2p",), workloads=("W2",))
    perform(tmp_path / "none", Figures(collision_rate=None, latency_p99_s=None), grid)
    perform(tmp_path / "some", Figures(collision_rate=0.25), grid)
    none, some = (_only(tmp_path / name) for name in ("none", "some"))
    assert "n/a" in strips.bars(none, "collision_rate") and "0 %" not in strips.bars(none, "collision_rate")
    assert strips.bars(some, "collision_rate").count("25.0 %") >= 2
    assert 'class="bar"' not in strips.bars(none, "collision_rate")
    assert "<circle" not in strips.latency(none, "latency_p50_s", "latency_p99_s")
    report.write(tmp_path / "none")


def _only(directory: Path) -> Scene:
    (found,) = scenes(sweep.read_manifest(directory).grid, sweep.read_rows(directory))
    return found


def test_a_stock_of_collisions_that_is_nought_everywhere_is_one_sentence(drawn: Path) -> None:
    assert "None of the 3 designs that ran here lost a key to a collision" in page(drawn)


def test_the_bar_of_a_ledger_is_full_whatever_it_is_made_of(drawn: Path) -> None:
    widths = [float(found) for found in re.findall(r'width="([\d.]+)" height="14.0" class="part', page(drawn))]
    shares = 3
    bars = [sum(widths[at : at + shares]) for at in range(0, len(widths), shares)]
    assert len(bars) == 6 and max(bars) - min(bars) < 0.5


def test_every_design_has_its_colour_in_light_and_dark_and_no_two_share_one() -> None:
    light, dark = palette.rules().split("@media")
    for text in (light, dark):
        colours = dict(re.findall(r"(--d-[a-z0-9-]+):(#[0-9a-f]{6})", text))
        assert len(colours) == len(set(colours.values())) == len(DESIGNS)


def test_names_in_their_colours_can_be_read_on_the_ground() -> None:
    """WCAG 2 AA: 4.5 to 1 for words."""
    light, dark = palette.rules().split("@media")
    for text, ground in ((light, "#ffffff"), (dark, "#10151b")):
        for name, colour in re.findall(r"(--d-[a-z0-9-]+):(#[0-9a-f]{6})", text):
            bright, dim = sorted((_luminance(colour), _luminance(ground)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, name


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_all_designs_fit_into_one_report_with_their_share_beside_them(tmp_path: Path) -> None:
    perform(tmp_path, Figures(), EVERYTHING)
    report.write(tmp_path)
    text = page(tmp_path)
    for name, design in DESIGNS.items():
        runs = not not_applicable(name, *EVERYTHING.topologies)
        assert name in text and (f"K {design.own_share:.0%}" in text or not runs)
        assert (tmp_path / "report" / f"design-{name}.html").exists()


@pytest.mark.parametrize("rows", [0, 1, 7, 20])
def test_a_sweep_that_is_not_finished_can_be_looked_at(tmp_path: Path, rows: int) -> None:
    perform(tmp_path, Figures(), GRID)
    kept = (tmp_path / ROWS).read_bytes().splitlines(keepends=True)[:rows]
    (tmp_path / ROWS).write_bytes(b"".join(kept) + b'{"torn')
    written = report.write(tmp_path)
    assert (written.done, written.runs) == (rows, len(GRID))
    assert f"{len(GRID) - rows} runs are missing" in written.notes
    text = page(tmp_path)
    assert f"not finished: {rows} of {len(GRID)} runs" in text
    assert "no run yet" in text
    Links(text)


def test_a_run_that_failed_is_called_so_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(arithmetic.STUMBLES, "yes")
    grid = msgspec.structs.replace(GRID, seeds=(2,))
    perform(tmp_path, grid=grid)
    with (tmp_path / sweep.TIMES).open("ab") as file:
        file.write(b'{"torn')
    report.write(tmp_path)
    text = page(tmp_path)
    assert "failed, the first was keyhop W2 load 0.5 p2p seed 2: ArithmeticError" in text and ">failed<" in text
    monkeypatch.delenv(arithmetic.STUMBLES)
    perform(tmp_path, grid=grid)
    report.write(tmp_path)
    assert "failed" not in page(tmp_path)


def test_designs_that_were_not_asked_the_same_are_called_so(tmp_path: Path) -> None:
    perform(tmp_path, Figures(), GRID)
    rows = (tmp_path / ROWS).read_bytes().splitlines()
    first = Row.from_line(next(line for line in rows if b'"not_applicable":""' in line))
    wrong = msgspec.structs.replace(first, trace="0" * 64).line()
    (tmp_path / ROWS).write_bytes(b"\n".join(wrong if line == first.line() else line for line in rows) + b"\n")
    report.write(tmp_path)
    assert "Not comparable: 1 times" in page(tmp_path)


def test_rows_as_csv_and_parquet_are_the_rows(drawn: Path) -> None:
    rows = sweep.read_rows(drawn)
    with (drawn / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    columns = pyarrow.parquet.read_table(drawn / "rows.parquet").to_pydict()
    assert len(read) == len(rows) == len(columns["design"])
    for at, row in enumerate(rows):
        assert read[at]["run_id"] == row.run_id == columns["run_id"][at]
        assert columns["success"][at] == row.metrics.get("success")
        assert read[at]["success"] == ("" if row.not_applicable else str(row.metrics["success"]))


def test_without_parquet_the_report_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perform(tmp_path, Figures(), GRID)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    written = report.write(tmp_path)
    assert [path.name for path in written.files] == ["rows.csv"]
    assert "pip install 'keyhop[sim]'" in written.notes[0] and not (tmp_path / "rows.parquet").exists()


def test_a_directory_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"holds no comparison: it has no sweep\.json"):
        report.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (ratio(0.0), "0 %"),
        (ratio(1.0), "100 %"),
        (ratio(0.9999), "100 %"),
        (ratio(0.982), "98.2 %"),
        (ratio(0.0123), "1.23 %"),
        (ratio(0.00001), "< 0.01 %"),
        (duration(0.0), "0"),
        (duration(0.0213), "21.3 ms"),
        (duration(450.0), "450 s"),
        (words("fairness", 0.98765), "0.988"),
        (words("peak_stored_bytes", 2.5e6), "2.5 MB"),
        (span("98.0 %", "99.1 %"), "98.0–99.1 %"),
        (span("9 ms", "1 s"), "9 ms – 1 s"),
        (span("1", "1"), "±0"),
    ],
)
def test_figures_are_written_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected
