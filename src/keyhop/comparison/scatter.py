"""Designs as points between two figures, and the front that no other beats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from keyhop.comparison.drawing import Scale, dot, line, path, picture, powers_of_ten, text
from keyhop.comparison.measures import brief, title, words
from keyhop.comparison.metrics import METRICS
from keyhop.comparison.palette import colour
from keyhop.comparison.plots import WIDTH
from keyhop.comparison.scenes import Scene, own_share

HEIGHT = 430.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 30.0, 30.0, 42.0
SIDE, ABOVE = 150.0, 34.0
"""Room for names on the other side of points that lie at the edge."""
SHORTEST_S = 1e-4
NAME_WIDTH = 7.9
"""Of a character of a name in bold."""
SHARE_WIDTH = 46.0
NAME_HEIGHT = 14.0
SAME = 6.0
"""Points nearer to each other than this have one list of names."""
NEAR = 14.0
"""A name further from its point than this has a line to it."""
RADII = (9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0, 100.0, 124.0, 150.0, 180.0, 220.0, 260.0, 320.0)
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
    y = Scale(max(0.0, math.floor(lowest * 10 - 0.5) / 10), 1.0, HEIGHT - BOTTOM, TOP + ABOVE)
    parts = list(_frame(x, y, across, upwards))
    places = {design: (x(one), y(other)) for design, (one, other) in found.items()}
    parts.append(path(_stairs(list(places.values())), "frontier"))
    for members, box in _named(places):
        # A point that stands for several leads to their list as one.
        parts.append(_leader(*places[members[0]], box))
        for at, design in enumerate(members):
            parts.append(_point(design, design in best, places[design], found[design], (across, upwards)))
            parts.append(_name(design, box.left, box.top + at * NAME_HEIGHT, design in best))
    return picture(WIDTH, HEIGHT, heading, parts)


def _point(
    design: str, chosen: bool, place: tuple[float, float], figures: tuple[float, float], metrics: tuple[str, str]
) -> str:
    said = ", ".join(f"{title(name)} {words(name, value)}" for name, value in zip(metrics, figures, strict=True))
    paint = f"{'fill' if chosen else 'stroke'}:{colour(design)}"
    return dot(*place, 5.5 if chosen else 4.5, "mark" if chosen else "hollow", paint, f"{design}: {said}")


def _name(design: str, left: float, top: float, chosen: bool) -> str:
    share = f'<tspan class="faint" dx="5">{own_share(design)}</tspan>'
    return (
        f'<text x="{left:.1f}" y="{top + 11:.1f}" class="{"name" if chosen else "plain"} halo" '
        f'style="fill:{colour(design)}">{escape(design)}{share}</text>'
    )


def _why(scene: Scene, load: float) -> str:
    return "n/a" if any(scene.done.get((design, load)) for design in scene.designs) else "no run yet"


def _across(metric: str, values: Sequence[float]) -> Scale:
    if METRICS[metric].unit == "s":
        return Scale(*powers_of_ten(values, SHORTEST_S), LEFT + SIDE, WIDTH - RIGHT, logarithmic=True)
    return Scale(0.0, max(*values, 0.01), LEFT + SIDE, WIDTH - RIGHT - 120)


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


def _named(places: dict[str, tuple[float, float]]) -> list[tuple[list[str], Box]]:
    """Where the names of each point stand: as near as they can without covering other names or points."""
    points = [Box(left - 5, top - 5, left + 5, top + 5) for left, top in places.values()]
    taken: list[Box] = []
    named: list[tuple[list[str], Box]] = []
    for members in _together(places):
        candidates = list(_around(members, *places[members[0]]))
        free = (box for box in candidates if not any(box.meets(other) for other in (*taken, *points)))
        box = next(free, candidates[0])
        taken.append(box)
        named.append((members, box))
    return named


def _together(places: dict[str, tuple[float, float]]) -> list[list[str]]:
    lists: list[list[str]] = []
    for name, (left, top) in sorted(places.items(), key=lambda entry: entry[1]):
        for members in lists:
            first_left, first_top = places[members[0]]
            if abs(first_left - left) < SAME and abs(first_top - top) < SAME:
                members.append(name)
                break
        else:
            lists.append([name])
    # Long lists find a place while there is one.
    return sorted(lists, key=len, reverse=True)


def _around(members: Sequence[str], left: float, top: float) -> Iterator[Box]:
    width = max(map(len, members)) * NAME_WIDTH + SHARE_WIDTH
    height = len(members) * NAME_HEIGHT
    for radius in RADII:
        for degrees in DIRECTIONS:
            across = left + radius * math.cos(math.radians(degrees))
            middle = top - radius * math.sin(math.radians(degrees))
            start = across if abs(degrees) < 90 else across - width if abs(degrees) > 90 else across - width / 2
            # The list hangs from its first line where it is beside the point, and stands on its last above it.
            upper = middle - NAME_HEIGHT / 2 - (height - NAME_HEIGHT if degrees > 0 and degrees < 180 else 0)
            box = Box(start, upper, start + width, upper + height)
            if box.left >= LEFT and box.right <= WIDTH and box.top >= TOP - 14 and box.bottom <= HEIGHT - BOTTOM:
                yield box
    yield Box(left + 9, top - NAME_HEIGHT / 2, left + 9 + width, top - NAME_HEIGHT / 2 + height)


def _leader(left: float, top: float, box: Box) -> str:
    across = min(max(left, box.left), box.right)
    middle = min(max(top, box.top + NAME_HEIGHT / 2), box.bottom - NAME_HEIGHT / 2)
    if math.hypot(across - left, middle - top) <= NEAR:
        return ""
    return line(left, top, across, middle, "leader")
