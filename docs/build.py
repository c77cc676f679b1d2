"""Draws the pages of `docs/` that follow from the code: `python docs/build.py`; `--picture` runs a demo, too."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import io
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from keyhop.core.designs import DESIGNS, Design, on_a_node
from keyhop.core.designs.parts import PARTS
from keyhop.core.designs.silences import SILENCES, silences
from keyhop.core.designs.source import MEANINGS
from keyhop.core.designs.survey import DEPARTURES, TEXT_SAYS, compared
from keyhop.core.model import LIFE, State
from keyhop.core.node.ledger import BOOKED
from keyhop.daemon.alarm_codes import CODES

DOCS = Path(__file__).resolve().parent
DRAWN = "<!-- Drawn by docs/build.py; change the code, not this page. -->"

LINE_CHARACTERS = 118

PICTURE_COLUMNS = 144
PICTURE_TALK_S = 25.0
"""By then relayed key is there and both conversations have changed keys."""
PICTURE_EVE_S = 16.0
"""An eavesdropper shows with the first block of a link that she disturbed."""
PICTURE_EVE_LINK = "ERD-SIE"
PICTURE_TITLE = "keyhop demo"

SVG_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<!-- A real run, exported by rich; fonts of the reader's own machine, nothing is fetched. -->
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""
"""rich's own format without its web fonts."""


def design_page(design: Design) -> str:
    """What a design answers to each question, where each answer comes from, and what the survey says."""
    rows, details = [], []
    leaves = {leaf.path: leaf for leaf in design.leaves}
    for question in PARTS:
        for path, part in design.answers(question).items():
            given = [
                f"`{e.name} = {getattr(part, e.name)!r}` {leaves[f'{path}.{e.name}'].source}" for e in fields(part)
            ]
            rows.append(f"| {path} | `{type(part).__name__}` | {leaves[path].source} | {', '.join(given) or 'none'} |")
            about = " ".join(inspect.cleandoc(type(part).__doc__ or "").split("\n\n")[0].split())
            details += textwrap.wrap(f"**{path}: `{type(part).__name__}`.** {about}", LINE_CHARACTERS)
            details.append("")
    doors = [f"`{leaf.value}` {leaf.source}" for path, leaf in leaves.items() if path.startswith("door")]
    access = design.access
    facts = [
        f"- Its door: {', '.join(doors)}.",
        f"- Access to key, which follows from the parts: {access.local}"
        + ("." if access.local == access.global_ else f" on a link, {access.global_} between distant nodes."),
        f"- Ours: {design.own_share:.0%} of {len(leaves)} answers and parameters.",
        f"- Runs on a node: {on_a_node(design)}.",
    ]
    facts += [f"- {sentence}" for sentence in (design.on_the_way, *design.warnings) if sentence]
    return "\n".join(
        [
            DRAWN,
            "",
            f"# Design `{design.name}`",
            "",
            f"{design.title}.",
            "",
            *(line for fact in facts for line in textwrap.wrap(fact, LINE_CHARACTERS, subsequent_indent="  ")),
            "",
            f"It is made in `core/designs/{design.name.replace('.', '_')}.py`. What a letter means is said",
            "[where all designs are listed](README.md).",
            "",
            "| question | answer | | parameters |",
            "|---|---|---|---|",
            *rows,
            "",
            *details,
            *_survey_part(design),
        ]
    )


def _survey_part(design: Design) -> list[str]:
    if not design.row:
        return []
    lines = ["## What the survey says", "", "| | its tables | this composition |", "|---|---|---|"]
    for column, theirs, ours in compared(design):
        why = DEPARTURES.get((design.name, column)) or TEXT_SAYS.get((design.row, column))
        lines.append(f"| {column.replace('_', ' ')} | {theirs} | {ours}{f' ({why})' if why else ''} |")
    lines += ["", "`-`: not discussed there; then the answer is ours or from the source that its letter names.", ""]
    for silence in silences(design.row):
        lines += textwrap.wrap(f"- {silence.open} Here: {silence.chosen}", LINE_CHARACTERS, subsequent_indent="  ")
    return [*lines, ""] if silences(design.row) else lines


def designs_page() -> str:
    """All designs, what their letters mean, and where the survey leaves a choice."""
    rows = []
    for design in DESIGNS.values():
        runs = on_a_node(design)
        page = f"[{design.name}]({design.name}.md)"
        rows.append(f"| {page} | {design.title} | {' '.join(design.doors)} | {design.own_share:.0%} | {runs} |")
    notes = []
    for silence in SILENCES:
        who = f"{', '.join(silence.rows) or 'All'}: {silence.open} Here: {silence.chosen}"
        notes += textwrap.wrap(f"- {who}", LINE_CHARACTERS, subsequent_indent="  ")
    return "\n".join(
        [
            DRAWN,
            "",
            "# Designs",
            "",
            "Key managers of the last twenty years as compositions of the same parts, the reference that resembles",
            "QKDNetSim, and ours. They follow the survey of Dervisevic, Tankovic, Fazel and others, *Quantum Key",
            "Distribution Networks - Key Management: A Survey*. `keyhop design show NAME` prints one with the source",
            "of every value:",
            "",
            *(f"- {source}: {meaning}" for source, meaning in MEANINGS.items()),
            "",
            "What no source is named for counts as ours. A node's own links follow ours alone; on top of them it hosts",
            "others, as [other-designs.md](../other-designs.md) says. A node file that names one of the rest is",
            "refused.",
            "",
            "| design | | door | ours | runs on a node |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "## Where the survey is silent or says two things",
            "",
            *notes,
            "",
        ]
    )


def key_states_page() -> str:
    """The table of key states, as a diagram."""
    first = next(iter(LIFE))
    arrows = [f"    [*] --> {first}"]
    for state, moves in LIFE.items():
        arrows += [f"    {state} --> {after}: {action}" for action, after in moves.items()]
        if not moves:
            arrows.append(f"    {state} --> [*]")
    booked = [f"| {state} | {account.name} | {_account_doc(account.name)} |" for state, account in BOOKED.items()]
    return "\n".join(
        [
            DRAWN,
            "",
            "# Life of a range",
            "",
            "Every byte range of a run is in one of these states. What is not an arrow here is an error that stops the",
            "process. The table is `LIFE` in `core/model.py`; the names follow ITU-T Y.3803 as we recall it.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            *arrows,
            "```",
            "",
            "Some states are final for the books: the account in which `core/node/ledger.py` counts their bytes.",
            "",
            "| state | account | meaning |",
            "|---|---|---|",
            *booked,
            "",
            f"{len(State)} states. A range never goes back to an earlier one.",
            "",
        ]
    )


SERIES = {
    "1": "quantum and link",
    "2": "pool and delivery",
    "3": "relay and routing",
    "4": "certificates and access",
    "5": "node, store and audit",
}


def alarms_page() -> str:
    """Every alarm code: what it means, why it comes, what to do, and what ends it."""
    ended_by = {code: [other for other, entry in CODES.items() if code in entry.ends] for code in CODES}
    lines = [
        DRAWN,
        "",
        "# Alarms",
        "",
        "What a node says of itself, in `keyhop status`, in its log and at `/api/v1/alarms`. Codes are stable.",
        "Severities are those of ITU-T X.733. An incident is over when it has not come again for its time; any other",
        "alarm lasts until the code that ends it. Codes of severity `cleared` are good news: they only end others.",
    ]
    for series, title in SERIES.items():
        lines += ["", f"## KH-{series}xxx: {title}"]
        for code, entry in sorted(CODES.items()):
            if not code.startswith(f"KH-{series}"):
                continue
            ends = ", ".join(entry.ends) if entry.is_news else ", ".join(ended_by[code]) or "a restart of the node"
            over = f"ends {ends}" if entry.is_news else f"until {ends}"
            if entry.quiet_s is not None:
                over = f"over after {_period(entry.quiet_s)} of quiet" + (f", or by {ends}" if ended_by[code] else "")
            lines += ["", f"### {code}", "", f"**{entry.title}.** {entry.severity}, about a {entry.about}; {over}.", ""]
            lines += textwrap.wrap(f"Why: {entry.cause}", LINE_CHARACTERS)
            lines += ["", *textwrap.wrap(f"What to do: {entry.remedy}", LINE_CHARACTERS)]
    return "\n".join([*lines, ""])


def _period(seconds: float) -> str:
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds:g} s"


def _account_doc(name: str) -> str:
    """The sentence that stands under the account in the source."""
    from keyhop.core.node import ledger

    lines = inspect.getsource(ledger.Account).splitlines()
    at = next(index for index, line in enumerate(lines) if line.strip().startswith(f"{name} = "))
    return lines[at + 1].strip().strip('"').rstrip(".")


def pages() -> dict[Path, str]:
    drawn = {DOCS / "designs" / f"{design.name}.md": design_page(design) for design in DESIGNS.values()}
    drawn[DOCS / "designs" / "README.md"] = designs_page()
    drawn[DOCS / "key-states.md"] = key_states_page()
    drawn[DOCS / "alarms.md"] = alarms_page()
    return drawn


def draw_picture(path: Path) -> None:
    """Runs the demo, puts an eavesdropper on one link, and keeps what the terminal shows."""
    from rich.console import Console

    from keyhop.cli.live import View
    from keyhop.emulator import demo as demos
    from keyhop.simulator import topology

    with tempfile.TemporaryDirectory(prefix="keyhop-picture-") as place:
        running = demos.prepare(topology.load_named("secoqc"), Path(place) / "demo")
        demos.start(running, lambda node: None)
        try:
            view = View(running)

            async def watch() -> None:
                ended = asyncio.Event()
                task = asyncio.create_task(demos.run(running, lambda: None, ended))
                await asyncio.sleep(PICTURE_TALK_S)
                view.chosen = view.order.index(PICTURE_EVE_LINK)
                view.press("e")
                await asyncio.sleep(PICTURE_EVE_S)
                ended.set()
                await task

            asyncio.run(watch())
            console = Console(record=True, width=PICTURE_COLUMNS, file=io.StringIO(), force_terminal=True)
            console.print(view.render())
        finally:
            demos.stop(running)
    path.parent.mkdir(exist_ok=True)
    svg = console.export_svg(title=PICTURE_TITLE, code_format=SVG_FORMAT, unique_id="demo")
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", action="store_true", help="run a demo and draw pictures/demo.svg (a minute)")
    options = parser.parse_args(arguments)
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        say(str(path.relative_to(DOCS.parent)))
    if options.picture:
        draw_picture(DOCS / "pictures" / "demo.svg")
        say("docs/pictures/demo.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
