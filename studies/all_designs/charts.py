"""One kind of plot: named points or lines over a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keyhop.comparison.drawing import Scale, dot, group, line, path, picture, text

WIDTH, HEIGHT = 760.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 220.0, 16.0, 40.0
COLOURS = ("#1d6fb8", "#d1495b", "#2a9d8f", "#e9a23b", "#8b5fbf", "#5c2a2a", "#7a7a7a", "#3f7d20")
LEAST = 1e-5
"""Of a logarithmic axis."""
Points = Sequence[tuple[float, float | None]]


def lines(
    heading: str,
    across: str,
    upwards: str,
    series: Mapping[str, Points],
    *,
    logarithmic: tuple[bool, bool] = (False, False),
) -> str:
    """A point without a figure is left out, never drawn at 0."""
    known = {name: [(x, y) for x, y in points if y is not None] for name, points in series.items()}
    known = {name: points for name, points in known.items() if points}
    if not known:
        return picture(WIDTH, 40, heading, [text(0, 24, "no figure", "empty")])
    xs = [x for points in known.values() for x, _ in points]
    ys = [y for points in known.values() for _, y in points]
    x_scale = Scale(max(min(xs), LEAST) if logarithmic[0] else min(xs), max(xs), LEFT, WIDTH - RIGHT, logarithmic[0])
    bottom = max(min(ys), LEAST) if logarithmic[1] else min(0.0, *ys)
    y_scale = Scale(bottom, max(max(ys), bottom + LEAST), HEIGHT - BOTTOM, TOP, logarithmic[1])
    parts = [
        line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "rule"),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, across, "small", anchor="middle"),
        text(LEFT, TOP - 4, upwards, "small"),
    ]
    for tick in y_scale.ticks(5):
        parts.append(line(LEFT, y_scale(tick), WIDTH - RIGHT, y_scale(tick), "grid"))
        parts.append(text(LEFT - 6, y_scale(tick) + 4, f"{tick:g}", "tick", anchor="end"))
    for x in sorted(set(xs)):
        parts.append(text(x_scale(x), HEIGHT - BOTTOM + 14, f"{x:g}", "tick", anchor="middle"))
    for at, (name, points) in enumerate(known.items()):
        paint = COLOURS[at % len(COLOURS)]
        drawn = [path([(x_scale(x), y_scale(y)) for x, y in points], "own", f"stroke:{paint}")]
        drawn += [
            dot(x_scale(x), y_scale(y), 3, "mark", f"fill:{paint}", f"{name}: {y:.4g} at {x:g}") for x, y in points
        ]
        drawn.append(text(WIDTH - RIGHT + 14, TOP + 16 * at + 8, name, "name", style=f"fill:{paint}"))
        parts.append(group(drawn, "series"))
    return picture(WIDTH, max(HEIGHT, TOP + 16 * len(known) + BOTTOM), heading, parts)


def bars(heading: str, upwards: str, values: Mapping[str, float | None]) -> str:
    """One line per name."""
    row, names = 17.0, 190.0
    known = [value for value in values.values() if value is not None]
    x_scale = Scale(min(0.0, *known, 0.0), max([*known, LEAST]), names, WIDTH - 90)
    parts = [text(names, 12, upwards, "small")]
    for at, (name, value) in enumerate(values.items()):
        middle = 22 + row * at + row / 2
        parts.append(text(names - 8, middle + 4, name, "name", anchor="end"))
        if value is None:
            parts.append(text(names, middle + 4, "n/a", "empty"))
            continue
        paint = f"stroke:{COLOURS[0]};stroke-width:9"
        parts.append(path([(x_scale(0.0), middle), (x_scale(value), middle)], "own", paint))
        parts.append(text(max(x_scale(value), names) + 6, middle + 4, f"{value:.3g}", "value"))
    return picture(WIDTH, 30 + row * len(values), heading, parts)
