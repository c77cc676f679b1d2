"""One line per design, one column per load: where the bits went, how long keys took, what collided."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keyhop.comparison.drawing import Scale, box, dot, group, line, picture, powers_of_ten, text
from keyhop.comparison.measures import duration, ratio, title, words
from keyhop.comparison.palette import LEDGER, STOCK, colour
from keyhop.comparison.plots import WIDTH
from keyhop.comparison.scenes import Scene, own_share, spread
from keyhop.comparison.statistics import Estimate

ROW = 19.0
HEAD = 26.0
NAMES = 208.0
GAP = 14.0
WORDS_FROM = 30.0
"""Segments narrower than this have no figure in them."""
STOCK_WORDS = 38.0
"""Room beside a bar."""
SHORTEST_S = 1e-4

Draw = Callable[[str, float, float, float, float], Iterable[str]]
"""Design, load, left, right and middle of the line -> what stands there; nothing: a word says why."""


def ledger(scene: Scene, shares: Callable[[str, float], dict[str, float] | None]) -> str:
    def draw(design: str, load: float, left: float, right: float, middle: float) -> Iterable[str]:
        found = shares(design, load)
        if found is None:
            return
        stock = found.get(STOCK, 0.0)
        yield text(right, middle + 4, f"{stock:.0%}", "value", anchor="end")
        place, full = left, right - STOCK_WORDS - left
        for letter, part in found.items():
            if letter == STOCK:
                continue
            share = part / (1 - stock)
            width = share * full
            tip = f"{design} at load {load:g}: {LEDGER[letter][0]} {ratio(share)} of what left the stores"
            yield box(place, middle - 7, width, 14, f"part part-{letter}", f"fill:var(--l-{letter})", tip)
            if width >= WORDS_FROM:
                yield text(place + width / 2, middle + 4, f"{100 * share:.0f}", f"inside in-{letter}", anchor="middle")
            place += width

    return _table(scene, f"where the bits went, {scene.title}", draw, beside="in stock")


def latency(scene: Scene, median: str, tail: str) -> str:
    known = [cell.median for metric in (median, tail) for cell in scene.values(metric)]
    low, high = powers_of_ten(known, SHORTEST_S)

    def draw(design: str, load: float, left: float, right: float, middle: float) -> Iterable[str]:
        x = Scale(low, high, left + 6, right - 6, logarithmic=True)
        half, last = scene.cell(design, load, median), scene.cell(design, load, tail)
        if half is None or last is None:
            return
        tip = f"{design} at load {load:g}: half within {duration(half.median)}, 99 % within {duration(last.median)}"
        paint = colour(design)
        yield line(x(half.median), middle, x(last.median), middle, "reach", f"stroke:{paint}")
        # Where both are alike the filled mark stands in the hollow one.
        yield dot(x(last.median), middle, 4.6, "hollow", f"stroke:{paint}", tip)
        yield dot(x(half.median), middle, 2.9, "centre", f"fill:{paint}", tip)

    def below(left: float, right: float, top: float, bottom: float) -> Iterable[str]:
        x = Scale(low, high, left + 6, right - 6, logarithmic=True)
        for tick in x.ticks(3):
            yield line(x(tick), top, x(tick), bottom, "grid")
            at_edge = "start" if x(tick) < left + 20 else "end" if x(tick) > right - 20 else "middle"
            yield text(x(tick), bottom + 14, duration(tick), "tick", anchor=at_edge)

    return _table(scene, f"latency, {scene.title}", draw, below)


def bars(scene: Scene, metric: str) -> str:
    longest = max((_top(cell) for cell in scene.values(metric)), default=0.0)

    def draw(design: str, load: float, left: float, right: float, middle: float) -> Iterable[str]:
        cell = scene.cell(design, load, metric)
        if cell is None:
            return
        x = Scale(0.0, longest or 1.0, left, right - 52)
        tip = f"{design} at load {load:g}: {words(metric, cell.median)} ({spread(metric, cell)})"
        yield box(left, middle - 5, x(cell.median) - left, 10, "bar", f"fill:{colour(design)}", tip)
        if cell.low is not None and cell.high is not None and cell.high > cell.low:
            yield line(x(cell.low), middle, x(cell.high), middle, "whisker")
        # A measured nothing is a figure: it stands there as 0, unlike what was not measured.
        yield text(x(_top(cell)) + 4, middle + 4, words(metric, cell.median), "value")

    return _table(scene, f"{title(metric)}, {scene.title}", draw)


def _top(cell: Estimate) -> float:
    return cell.median if cell.high is None else cell.high


def _table(
    scene: Scene,
    heading: str,
    draw: Draw,
    below: Callable[[float, float, float, float], Iterable[str]] | None = None,
    beside: str = "",
) -> str:
    loads = sorted(scene.loads)
    width = (WIDTH - NAMES - GAP * len(loads)) / len(loads)
    height = HEAD + ROW * len(scene.designs) + (20 if below else 4)
    parts: list[str] = []
    for column, load in enumerate(loads):
        left = NAMES + GAP + column * (width + GAP)
        parts.append(text(left, 14, f"load {load:g}", "head"))
        if beside:
            parts.append(text(left + width, 14, beside, "small", anchor="end"))
        if below:
            parts += below(left, left + width, HEAD - 4, HEAD + ROW * len(scene.designs))
    for number, design in enumerate(scene.designs):
        middle = HEAD + ROW * number + ROW / 2
        named = [
            line(0, middle + ROW / 2, WIDTH, middle + ROW / 2, "rule"),
            text(NAMES - 48, middle + 4, design, "name", anchor="end", style=f"fill:{colour(design)}"),
            text(NAMES, middle + 4, own_share(design), "small", anchor="end"),
        ]
        for column, load in enumerate(loads):
            left = NAMES + GAP + column * (width + GAP)
            drawn = list(draw(design, load, left, left + width, middle))
            named += drawn or [text(left, middle + 4, scene.why_empty(design, load), "empty")]
        parts.append(group(named, "row"))
    return picture(WIDTH, height, heading, parts)
