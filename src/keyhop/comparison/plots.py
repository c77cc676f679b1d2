"""Curves over load: many small panels on the same axes, or one large one where the designs are few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from keyhop.comparison.drawing import (
    LINE_HEIGHT,
    Scale,
    apart,
    box,
    dot,
    group,
    line,
    path,
    picture,
    spaced,
    text,
)
from keyhop.comparison.measures import brief, words
from keyhop.comparison.palette import colour
from keyhop.comparison.scenes import Scene, own_share, spread
from keyhop.comparison.statistics import Estimate

WIDTH = 1180.0
COLUMNS = 5
PANEL_HEIGHT = 104.0
HEAD, FOOT, GAP, LEFT = 30.0, 22.0, 18.0, 44.0
FEW = 7
"""So many designs fit into one panel with a name at the end of each curve."""
LARGE_HEIGHT = 340.0
NAMES_WIDTH = 272.0


class Axis(NamedTuple):
    """What is drawn upwards, from `low` to 1."""

    metric: str
    low: float = 0.0
    fitted: bool = False
    """Begins where the figures do: for those that are never near 0."""


def curves(scene: Scene, axis: Axis, highlight: str = "") -> str:
    """`highlight` gives one panel alone, for the page of that design."""
    if axis.fitted:
        lowest = min((cell.median for cell in scene.values(axis.metric)), default=0.0)
        axis = axis._replace(low=max(0.0, math.floor(lowest * 10 - 1) / 10))
    if highlight:
        return _large(scene, axis, (highlight,))
    return _large(scene, axis, scene.designs) if len(scene.designs) <= FEW else _panels(scene, axis)


def _panels(scene: Scene, axis: Axis) -> str:
    width = (WIDTH - LEFT - GAP * (COLUMNS - 1)) / COLUMNS
    rows = -(-len(scene.designs) // COLUMNS)
    height = rows * (HEAD + PANEL_HEIGHT + FOOT)
    parts = []
    for at, design in enumerate(scene.designs):
        left = LEFT + (at % COLUMNS) * (width + GAP)
        top = (at // COLUMNS) * (HEAD + PANEL_HEIGHT + FOOT) + HEAD
        x = _loads(scene, left + 8, left + width - 48)
        y = Scale(axis.low, 1.0, top + PANEL_HEIGHT, top + 4)
        panel = [
            text(left, top - 7, design, "name", style=f"fill:{colour(design)}"),
            text(left + width, top - 7, own_share(design), "small", anchor="end"),
            *_frame(scene, axis, x, y, left, left + width, named=at % COLUMNS == 0),
        ]
        if _points(scene, design, axis):
            # All others in grey behind: where among them this one lies.
            panel += [_curve(scene, other, axis, x, y, "other") for other in scene.designs if other != design]
        else:
            panel.append(box(left, top + 4, width, PANEL_HEIGHT - 4, "nothing"))
        panel += _own(scene, design, axis, x, y, (left + width / 2, top + PANEL_HEIGHT / 2))
        parts.append(group(panel))
    return picture(WIDTH, height, f"{axis.metric} over load, {scene.title}", parts)


def _large(scene: Scene, axis: Axis, shown: Sequence[str]) -> str:
    top, bottom, left, right = 12.0, LARGE_HEIGHT - FOOT, LEFT, WIDTH - NAMES_WIDTH
    x = _loads(scene, left + 10, right - 10)
    y = Scale(axis.low, 1.0, bottom, top)
    parts = list(_frame(scene, axis, x, y, left, right, named=True))
    parts += [_curve(scene, other, axis, x, y, "other") for other in scene.designs if other not in shown]
    ends = []
    for design in shown:
        points = _points(scene, design, axis)
        if points:
            parts.append(group(_own(scene, design, axis, x, y, (0, 0), with_value=False), "series", design))
            ends.append((design, y(points[-1][1].median), words(axis.metric, points[-1][1].median)))
        else:
            ends.append((design, (top + bottom) / 2, scene.why_empty(design)))
    places = apart([place for _, place, _ in ends], top + 6, bottom - 4)
    for (design, wanted, last), place in zip(ends, places, strict=True):
        parts.append(line(right - 8, wanted, right + 8, place, "leader"))
        parts.append(text(right + 12, place + 4, design, "name", style=f"fill:{colour(design)}"))
        parts.append(text(WIDTH, place + 4, f"{last} · {own_share(design)}", "small", anchor="end"))
    return picture(WIDTH, LARGE_HEIGHT, f"{axis.metric} over load, {scene.title}", parts)


def _loads(scene: Scene, start: float, end: float) -> Scale:
    return Scale(min(scene.loads), max(scene.loads), start, end, logarithmic=min(scene.loads) < max(scene.loads))


def _frame(scene: Scene, axis: Axis, x: Scale, y: Scale, left: float, right: float, *, named: bool) -> list[str]:
    parts = []
    for tick in y.ticks(2 if y.start - y.end < LARGE_HEIGHT / 2 else 5):
        parts.append(line(left, y(tick), right, y(tick), "grid"))
        if named:
            parts.append(text(left - 6, y(tick) + 4, brief(axis.metric, tick), "tick", anchor="end"))
    if min(scene.loads) < 1.0 < max(scene.loads):
        # To the right of it more is asked for than the modules make.
        parts.append(line(x(1.0), y.end, x(1.0), y.start, "limit"))
    for tick in spaced(sorted(scene.loads), x, lambda load: f"{load:g}"):
        parts.append(text(x(tick), y.start + LINE_HEIGHT, f"{tick:g}", "tick", anchor="middle"))
    return parts


def _points(scene: Scene, design: str, axis: Axis) -> list[tuple[float, Estimate]]:
    """A load without a figure is left out, and never drawn at 0."""
    found = ((load, scene.cell(design, load, axis.metric)) for load in sorted(scene.loads))
    return [(load, cell) for load, cell in found if cell is not None]


def _curve(scene: Scene, design: str, axis: Axis, x: Scale, y: Scale, kind: str) -> str:
    return path([(x(load), y(cell.median)) for load, cell in _points(scene, design, axis)], kind)


def _own(
    scene: Scene,
    design: str,
    axis: Axis,
    x: Scale,
    y: Scale,
    middle: tuple[float, float],
    *,
    with_value: bool = True,
) -> list[str]:
    points = _points(scene, design, axis)
    if not points:
        return [text(middle[0], middle[1] + 6, scene.why_empty(design), "empty", anchor="middle")]
    paint = colour(design)
    sure = [(load, cell.low, cell.high) for load, cell in points if cell.low is not None and cell.high is not None]
    upper = [(x(load), y(high)) for load, _, high in sure]
    lower = [(x(load), y(low)) for load, low, _ in reversed(sure)]
    parts = [
        path([*upper, *lower], "band", f"fill:{paint}", closed=True),
        path([(x(load), y(cell.median)) for load, cell in points], "own", f"stroke:{paint}"),
    ]
    for load, cell in points:
        tip = f"{design} at load {load:g}: {words(axis.metric, cell.median)} ({spread(axis.metric, cell)})"
        parts.append(dot(x(load), y(cell.median), 2.6, "mark", f"fill:{paint}", tip))
    if with_value:
        load, cell = points[-1]
        parts.append(text(x(load) + 5, y(cell.median) + 4, words(axis.metric, cell.median), "value"))
    return parts
