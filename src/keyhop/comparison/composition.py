"""A design as a picture: the way of the key from module to application, what decides on it, and who said so."""

from __future__ import annotations

from collections.abc import Iterator

from keyhop.comparison.drawing import CHARACTER_WIDTH, box, group, line, path, picture, text
from keyhop.comparison.measures import duration
from keyhop.comparison.plots import WIDTH
from keyhop.core.designs.design import Design, Leaf
from keyhop.core.designs.source import MEANINGS
from keyhop.core.model import NANOSECONDS

ROWS = (
    ("what decides", ("refill", "disposal", "admission", "sharing", "priority")),
    (
        "the way of the key, from module to application",
        ("formatting.reception", "storage", "division", "formatting.supply", "door"),
    ),
    ("between key managers", ("synchronisation", "relay", "routing", "fallback")),
)
KEY_ROW = 1
COLUMNS = 5
GAP = 22.0
PAD = 10.0
LINE = 16.0
TITLE = 18.0


def drawn(design: Design) -> str:
    width = (WIDTH - GAP * (COLUMNS - 1)) / COLUMNS
    parts: list[str] = []
    top = 0.0
    for number, (title, questions) in enumerate(ROWS):
        parts.append(text(0, top + 13, title, "axis"))
        top += TITLE + 2
        leaves = {question: list(_leaves(design, question)) for question in questions}
        height = 24 + LINE * max(map(len, leaves.values())) + PAD
        for column, question in enumerate(questions):
            left = column * (width + GAP)
            if number == KEY_ROW and column:
                parts.append(_arrow(left - GAP, left, top + height / 2))
            parts.append(_part(question, leaves[question], left, top, width, height))
        top += height + 14
    return picture(WIDTH, top, f"composition of {design.name}", parts)


def _leaves(design: Design, question: str) -> Iterator[Leaf]:
    for leaf in design.leaves:
        if leaf.path == question or leaf.path.startswith(f"{question}."):
            yield leaf


def _part(question: str, leaves: list[Leaf], left: float, top: float, width: float, height: float) -> str:
    parts = [
        box(left, top, width, height, "part-box"),
        text(left + PAD, top + 17, question.replace(".", " on "), "small"),
    ]
    place = top + 22
    for leaf in leaves:
        place += LINE
        # The tag stands at the end of every line: whether they said it or we chose it.
        chip = left + width - PAD - 12
        parts.append(box(chip - 3, place - 11, 18, 14, "chip", f"fill:var(--s-{leaf.source})", MEANINGS[leaf.source]))
        parts.append(text(chip + 6, place, leaf.source, "chip-word", anchor="middle"))
        room = int((width - 2 * PAD - 26) / CHARACTER_WIDTH)
        words = _words(question, leaf)
        kind = "answer" if leaf.is_answer else "parameter"
        shown = words if len(words) <= room else words[: room - 1] + "…"
        parts.append(group([text(left + PAD, place, shown, kind)], tip=f"{leaf.path} = {leaf.value}"))
    return group(parts)


def _words(question: str, leaf: Leaf) -> str:
    below = leaf.path.removeprefix(question).lstrip(".").split(".")
    if leaf.is_answer:
        where = f"{below[0]}: " if below[0] in ("local", "global") else ""
        return f"{where}{leaf.value}"
    name = below[-1]
    if name.endswith("_ns"):
        return f"{name.removesuffix('_ns')} {duration(leaf.value / NANOSECONDS)}"
    return f"{name} {_value(leaf.value)}"


def _value(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(map(_value, value)) or "none"
        case "":
            return "none"
        case int() if abs(value) >= 10_000:
            return f"{value:,}".replace(",", " ")
    return str(value)


def _arrow(start: float, end: float, middle: float) -> str:
    shaft = line(start + 3, middle, end - 7, middle, "arrow")
    return shaft + path([(end - 8, middle - 5), (end - 2, middle), (end - 8, middle + 5)], "arrow-head", closed=True)
