"""`keyhop design`: key managers as compositions of parts, with the source of every answer."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from keyhop.cli import known, output
from keyhop.cli.output import ExitCode
from keyhop.cli.settings import common_options

if TYPE_CHECKING:
    from keyhop.core.designs import Design
    from keyhop.core.designs.source import Source

COMMENT_COLUMN = 44
REMARK_CHARACTERS = 100


@click.group()
def design() -> None:
    """Key managers as compositions of parts: the published ones, and ours.

    \b
    Example:
      keyhop design show secoqc
    """


@design.command("list")
@common_options
def list_() -> None:
    """Every design: what it is made of, how much of it is a guess of ours, whether a node runs it.

    \b
    Example:
      keyhop design list
    """
    from keyhop.core.designs import DESIGNS

    answer = {"apiVersion": output.API_VERSION, "designs": [_summary(design) for design in DESIGNS.values()]}
    heads = ("name", "storage", "division", "key access", "synchronisation", "relay", "door", "ours", "runs on a node")
    rows = [_row(design) for design in DESIGNS.values()]
    output.emit(answer, lambda: output.table(heads, rows))


@design.command("show")
@click.argument("name", shell_complete=known.designs)
@common_options
def show(name: str) -> None:
    """One design as YAML, with the source of each answer and parameter, and what the survey says of it.

    S: the survey. P: other public text. C: public source code. R: remembered, not checked. K: our choice.

    \b
    Example:
      keyhop design show toshiba.2019
    """
    chosen = known.design(name)
    output.emit(_answer(chosen), lambda: _shown(chosen))


@design.command("check")
@click.argument("name", shell_complete=known.designs)
@click.option("--links", type=click.IntRange(1, 1000), help="Longest path of the network it shall run on, in links.")
@common_options
@click.pass_context
def check(context: click.Context, name: str, links: int | None) -> None:
    """Whether the parts of a design go together, and whether it does what the survey's tables say. Exit code 7 if not.

    \b
    Example:
      keyhop design check nec --links 3
    """
    from keyhop.core import designs
    from keyhop.core.designs.survey import DEPARTURES, agrees, compared

    chosen = known.design(name)
    refused = designs.check(chosen, links or 0)
    meant: list[str] = []
    wrong: list[str] = []
    for column, theirs, ours in compared(chosen):
        if not agrees(column, theirs, ours):
            why = DEPARTURES.get((chosen.name, column))
            (meant if why else wrong).append(
                f"{column.replace('_', ' ')}: the survey has {theirs!r}, this composition {ours!r}"
                + (f" ({why})" if why else "")
            )
    answer = {
        "apiVersion": output.API_VERSION,
        "name": chosen.name,
        "legal": not refused,
        "refused": refused,
        "departures": meant,
        "disagreements": wrong,
        "runs_on_a_node": designs.on_a_node(chosen),
        "not_wired": designs.not_wired(chosen),
    }
    lines = [f"{chosen.name}: {'refused' if refused else 'the parts go together'}", *_items(refused)]
    if chosen.row:
        lines += [f"survey: {'disagrees' if wrong else 'agrees'} with the row {chosen.row}", *_items(wrong)]
        lines += [f"  meant: {entry}" for entry in meant]
    lines.append(f"runs on a node: {_on_a_node(chosen)}")
    output.emit(answer, lambda: "\n".join(lines))
    if refused or wrong:
        context.exit(ExitCode.PROBLEMS)


def _on_a_node(design: Design) -> str:
    from keyhop.core.designs import no_relay, not_hosted, on_a_node

    match on_a_node(design):
        case "yes":
            return "yes"
        case "no":
            return f"no: {not_hosted(design)}"
        case "hosted, no relay":
            return f"hosted, for neighbours alone: {no_relay(design, controller=True)}"
        case "hosted, with a controller":
            return "hosted: as others, if controller: in the node files names the node that lets in; in memory alone"
        case _:
            return (
                "hosted: its parts deal out the key of a node's links, and carry it on if they relay; in memory alone"
            )


def _items(entries: Iterable[str]) -> list[str]:
    return [f"  {entry}" for entry in entries]


def _summary(design: Design) -> dict[str, Any]:
    from keyhop.core.designs import not_wired, on_a_node
    from keyhop.core.designs.parts import PARTS, word

    return {
        "name": design.name,
        "title": design.title,
        "survey_row": design.row or None,
        "answers": {q: {path: word(part) for path, part in design.answers(q).items()} for q in PARTS},
        "doors": list(design.doors),
        "access": {"local": design.access.local, "global": design.access.global_},
        "own_share": round(design.own_share, 4),
        "fields": len(design.leaves),
        "promises_its": design.promises_its,
        "on_the_way": design.on_the_way or None,
        "warnings": list(design.warnings),
        "runs_on_a_node": on_a_node(design),
        "not_wired": not_wired(design),
    }


def _row(design: Design) -> tuple[str, ...]:
    summary = _summary(design)

    def words(question: str) -> str:
        return "+".join(dict.fromkeys(summary["answers"][question].values()))

    access = dict.fromkeys((design.access.local, design.access.global_))
    return (
        design.name,
        words("storage"),
        words("division"),
        "+".join(access),
        words("synchronisation"),
        words("relay"),
        "+".join(design.doors),
        f"{design.own_share:.0%}",
        summary["runs_on_a_node"],
    )


def _answer(design: Design) -> dict[str, Any]:
    from keyhop.core.designs.silences import silences
    from keyhop.core.designs.survey import DEPARTURES, TEXT_SAYS, agrees, compared

    return {
        "apiVersion": output.API_VERSION,
        **_summary(design),
        "composition": [
            {"field": leaf.path, "value": leaf.value, "source": leaf.source, "guess": design.is_guess(leaf)}
            for leaf in design.leaves
        ],
        "survey": [
            {
                "column": column,
                "survey": theirs,
                "here": ours,
                "agrees": agrees(column, theirs, ours),
                "why": DEPARTURES.get((design.name, column)) or TEXT_SAYS.get((design.row, column)),
            }
            for column, theirs, ours in compared(design)
        ],
        "silences": [{"open": silence.open, "chosen": silence.chosen} for silence in silences(design.row)],
    }


def _shown(design: Design) -> str:
    """YAML that can be read back, and remarks that stand in it as comments."""
    from keyhop.core.designs import on_a_node
    from keyhop.core.designs.source import MEANINGS

    leaves = design.leaves
    lines = [
        f"# {design.title}",
        f"# {', '.join(f'{source}: {meaning}' for source, meaning in MEANINGS.items())}",
        f"name: {design.name}",
        *_composition(design),
        f"request: {_value(design.request)}",
        f"promises_its: {_value(design.promises_its)}",
        f"access: {{local: {design.access.local}, global: {design.access.global_}}}  # follows from the parts",
        f"own_share: {design.own_share:.2f}  # {sum(leaf.source == 'K' for leaf in leaves)} of {len(leaves)} fields",
        f'runs_on_a_node: "{on_a_node(design)}"',
        *(f"# {sentence}" for sentence in (design.on_the_way, *design.warnings) if sentence),
    ]
    return "\n".join([*lines, *_survey(design)])


def _composition(design: Design) -> list[str]:
    """`storage:` and so on; each line ends with its tag, a guess with a word more."""
    lines: list[str] = []
    opened: tuple[str, ...] = ()
    leaves = design.leaves
    for at, leaf in enumerate(leaves):
        *above, last = leaf.path.split(".")
        if leaf.path.startswith("door"):
            continue
        if not leaf.is_answer:
            lines.append(
                _tagged(f"{'  ' * (len(opened) + 1)}{last}: {_value(leaf.value)}", leaf.source, design.is_guess(leaf))
            )
            continue
        # Of several answers each stands under its own name: division.session is a member of division.
        places = tuple(above) if above and last == leaf.value else (*above, last)
        if places[:1] != opened[:1]:
            lines.append(f"{places[0]}:")
        if len(places) > 1:
            lines.append(f"  {places[1]}:")
        opened = places
        has_parameters = at + 1 < len(leaves) and not leaves[at + 1].is_answer
        lines.append(
            _tagged(
                f"{'  ' * len(places)}{leaf.value}:{'' if has_parameters else ' {}'}",
                leaf.source,
                design.is_guess(leaf),
            )
        )
    doors = [leaf for leaf in leaves if leaf.path.startswith("door")]
    lines.append("door:")
    for leaf in doors:
        if leaf.path == "door.profile":
            lines.append(_tagged(f"    profile: {leaf.value}", leaf.source, design.is_guess(leaf)))
        else:
            lines.append(
                _tagged(
                    f"  {leaf.value}:{'' if leaf.value == 'session' else ' {}'}", leaf.source, design.is_guess(leaf)
                )
            )
    return lines


def _tagged(line: str, source: Source, guess: bool) -> str:
    return f"{line.ljust(COMMENT_COLUMN)}  # {source}{' (a guess)' if guess else ''}"


def _value(value: Any) -> str:
    """As YAML in one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return f"[{', '.join(map(_value, value))}]"
        case "":
            return "''"
    return str(value)


def _survey(design: Design) -> list[str]:
    from keyhop.core.designs.silences import silences
    from keyhop.core.designs.survey import DEPARTURES, TEXT_SAYS, agrees, compared

    if not design.row:
        return ["# The survey has no row for it."]
    rows = []
    for column, theirs, ours in compared(design):
        verdict = "silent" if theirs == "-" else "agrees" if agrees(column, theirs, ours) else "departs"
        why = DEPARTURES.get((design.name, column)) or TEXT_SAYS.get((design.row, column)) or ""
        rows.append((column.replace("_", " "), theirs, ours, verdict, why))
    table = output.table(("survey", "its tables", "here", "", ""), rows)
    notes = [
        line
        for silence in silences(design.row)
        for line in textwrap.wrap(
            f"{silence.open} Here: {silence.chosen}", REMARK_CHARACTERS, initial_indent="# - ", subsequent_indent="#   "
        )
    ]
    return ["#", *(f"# {line}" for line in table.splitlines()), *(["#", *notes] if notes else [])]
