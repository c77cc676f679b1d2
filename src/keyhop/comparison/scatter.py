"""Designs as points between two figures, and the front that no other beats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from keyhop.comparison.drawing import Scale, dot, group, line, path, picture, powers_of_ten, text
from keyhop.comparison.measures import brief, title, words
from keyhop.comparison.metrics import METRICS
from keyhop.comparison.palette import colour
from keyhop.comparison.plots import WIDTH
from keyhop.comparison.scenes import Scene, own_share

HEIGHT = 400.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 30.0, 30.0, 42.0
SHORTEST_S = 1e-4
NAME_WIDTH = 7.9
"""Of a character of a name in bold."""
SHARE_WIDTH = 46.0
NAME_HEIGHT = 14.0
NEAR = 14.0
"""A name further from its point than this has a line to it."""
RADII = (9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0, 100.0, 124.0, 150.0)
DIRECTIONS = (0, 180, 45, -45, 135, -135, 90, -90, 20, -20, 160, -160)
"""In degrees: beside the point is read best."""


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def front(scene: Scene, load: float, across: str, upwards: str, best: Sequence[str]) -> str:
    """Each design at one load; `best` are filled and named in bold."""
    found = {
        design: (one.median, other.median)
        for design in scene.designs
        if (one := scene.cell(design, load, across)) and (other := scene.cell(design, load, upwards))
    }
    heading = f"{title(upwards)} against {title(across)}, {scene.title}"
    if not found:
        return picture(WIDTH, 40, heading, [text(0, 24, f"{title(across)}: {_why(scene, load)}", "empty")])
    x = _across(across, [place for place, _ in found.values()])
    lowest = min(place for _, place in found.values())
    y = Scale(max(0.0, math.floor(lowest * 10 - 0.5) / 10), 1.0, HEIGHT - BOTTOM, TOP)
    parts = list(_frame(x, y, across, upwards))
    places = {design: (x(one), y(other)) for design, (one, other) in found.items()}
    parts.append(path(_stairs(list(places.values())), "frontier"))
    boxes = _named(places)
    for design, (left, top) in places.items():
        chosen = design in best
        far, high = found[design]
        tip = f"{design}: {title(across)} {words(across, far)}, {title(upwards)} {words(upwards, high)}"
        paint = f"{'fill' if chosen else 'stroke'}:{colour(design)}"
        parts.append(
            group(
                [
                    _leader(left, top, boxes[design]),
                    dot(left, top, 5.5 if chosen else 4.5, "mark" if chosen else "hollow", paint, tip),
                    _name(design, boxes[design], "name" if chosen else "plain"),
                ],
                "series",
            )
        )
    return picture(WIDTH, HEIGHT, heading, parts)


def _name(design: str, box: Box, kind: str) -> str:
    share = f'<tspan class="faint" dx="5">{own_share(design)}</tspan>'
    return (
        f'<text x="{box.left:.1f}" y="{box.bottom - 3:.1f}" class="{kind} halo" style="fill:{colour(design)}">'
        f"{escape(design)}{share}</text>"
    )


def _why(scene: Scene, load: float) -> str:
    return "n/a" if any(scene.done.get((design, load)) for design in scene.designs) else "no run yet"


def _across(metric: str, values: Sequence[float]) -> Scale:
    if METRICS[metric].unit == "s":
        return Scale(*powers_of_ten(values, SHORTEST_S), LEFT + 10, WIDTH - RIGHT, logarithmic=True)
    return Scale(0.0, max(*values, 0.01), LEFT + 10, WIDTH - RIGHT - 120)


def _frame(x: Scale, y: Scale, across: str, upwards: str) -> Iterator[str]:
    for tick in x.ticks(6):
        yield line(x(tick), TOP, x(tick), y.start, "grid")
        yield text(x(tick), y.start + 16, brief(across, tick), "tick", anchor="middle")
    for tick in y.ticks(5):
        yield line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")
        yield text(LEFT - 6, y(tick) + 4, brief(upwards, tick), "tick", anchor="end")
    yield text(WIDTH / 2, HEIGHT - 6, f"{title(across)} (left is better)", "axis", anchor="middle")
    yield text(0, 12, f"{title(upwards)} (up is better)", "axis")


def _stairs(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """From the leftmost point upwards: what can be had of the one without giving up the other."""
    steps: list[tuple[float, float]] = []
    for left, top in sorted(places):
        if not steps or top < steps[-1][1]:
            steps += [(left, steps[-1][1])] if steps else []
            steps.append((left, top))
    return steps


def _named(places: dict[str, tuple[float, float]]) -> dict[str, Box]:
    """Where each name stands: as near to its point as it can without covering another name or point."""
    points = [Box(left - 5, top - 5, left + 5, top + 5) for left, top in places.values()]
    taken: list[Box] = []
    boxes: dict[str, Box] = {}
    for name, (left, top) in sorted(places.items(), key=lambda entry: entry[1]):
        candidates = list(_around(name, left, top))
        free = (box for box in candidates if not any(box.meets(other) for other in (*taken, *points)))
        boxes[name] = next(free, candidates[0])
        taken.append(boxes[name])
    return boxes


def _around(name: str, left: float, top: float) -> Iterator[Box]:
    width = len(name) * NAME_WIDTH + SHARE_WIDTH
    for radius in RADII:
        for degrees in DIRECTIONS:
            across = left + radius * math.cos(math.radians(degrees))
            middle = top - radius * math.sin(math.radians(degrees))
            start = across if abs(degrees) < 90 else across - width if abs(degrees) > 90 else across - width / 2
            box = Box(start, middle - NAME_HEIGHT / 2, start + width, middle + NAME_HEIGHT / 2)
            if box.left >= LEFT and box.right <= WIDTH and box.top >= TOP - 12 and box.bottom <= HEIGHT - BOTTOM:
                yield box
    yield Box(left + 9, top - NAME_HEIGHT / 2, left + 9 + width, top + NAME_HEIGHT / 2)


def _leader(left: float, top: float, box: Box) -> str:
    across = min(max(left, box.left), box.right)
    middle = (box.top + box.bottom) / 2
    if math.hypot(across - left, middle - top) <= NEAR:
        return ""
    return line(left, top, across, middle, "leader")
