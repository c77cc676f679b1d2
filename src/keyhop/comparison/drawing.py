"""Small pictures as SVG text: scales, marks and words at places."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

CHARACTER_WIDTH = 6.3
"""Of the small type, on average: enough to keep words apart."""
LINE_HEIGHT = 14.0


@dataclass(frozen=True, slots=True)
class Scale:
    """From figures to places, linear or by factors of ten."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        if self.logarithmic:
            low, high = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((high - low + 1) / count))
            return [10.0**power for power in range(low, high + 1, step)]
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        step = 10 ** math.floor(math.log10(span / count))
        step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
        first = math.ceil(self.low / step - 1e-9)
        return [step * at for at in range(first, math.floor(self.high / step + 1e-9) + 1)]


def powers_of_ten(values: Iterable[float], floor: float) -> tuple[float, float]:
    """The whole powers between which the values lie."""
    known = [max(value, floor) for value in values]
    if not known:
        return floor, floor * 10
    low = 10 ** math.floor(math.log10(min(known)))
    high = 10 ** math.ceil(math.log10(max(known)))
    return low, high if high > low else low * 10


def text(x: float, y: float, words: str, kind: str = "", *, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    style = f' style="{style}"' if style else ""
    anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}{anchor}{style}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str, style: str = "") -> str:
    style = f' style="{style}"' if style else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"{style}/>'


def box(x: float, y: float, width: float, height: float, kind: str, style: str = "", tip: str = "") -> str:
    style = f' style="{style}"' if style else ""
    head = f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" class="{kind}"{style}'
    return f"{head}><title>{escape(tip)}</title></rect>" if tip else f"{head}/>"


def dot(x: float, y: float, radius: float, kind: str, style: str = "", tip: str = "") -> str:
    style = f' style="{style}"' if style else ""
    head = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{kind}"{style}'
    return f"{head}><title>{escape(tip)}</title></circle>" if tip else f"{head}/>"


def path(points: Sequence[tuple[float, float]], kind: str, style: str = "", *, closed: bool = False) -> str:
    if not points:
        return ""
    style = f' style="{style}"' if style else ""
    places = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{places}{"Z" if closed else ""}" class="{kind}"{style}/>'


def group(parts: Iterable[str], kind: str = "", tip: str = "") -> str:
    head = f'<g class="{kind}">' if kind else "<g>"
    return head + (f"<title>{escape(tip)}</title>" if tip else "") + "".join(parts) + "</g>"


def picture(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Part of a page: its colours are those of the page's style."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def apart(wanted: Sequence[float], low: float, high: float, distance: float = LINE_HEIGHT) -> list[float]:
    """Places near those that are wanted, in the same order, none closer than `distance`, as far as there is room."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    if len(wanted) > 1:
        distance = min(distance, (high - low) / (len(wanted) - 1))
    places = [0.0] * len(wanted)
    last = low - distance
    for at in order:
        last = places[at] = max(wanted[at], last + distance)
    # What was pushed over the edge pushes back.
    limit = high
    for at in reversed(order):
        places[at] = min(places[at], limit)
        limit = places[at] - distance
    return places


def spaced(ticks: Sequence[float], place: Callable[[float], float], words: Callable[[float], str]) -> list[float]:
    """Those ticks whose words do not run into each other; 1 goes first."""
    kept: list[tuple[float, float]] = []
    order = sorted(ticks, key=lambda tick: (tick != 1.0, tick not in (ticks[0], ticks[-1]), tick))
    for tick in order:
        half = len(words(tick)) * CHARACTER_WIDTH / 2 + 3
        if all(abs(place(tick) - middle) > half + other for middle, other in kept):
            kept.append((place(tick), half))
    chosen = {middle for middle, _ in kept}
    return [tick for tick in ticks if place(tick) in chosen]
