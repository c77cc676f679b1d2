"""A picture of a network as Mermaid, DOT or SVG text, with rates and, when it runs, states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from html import escape
from typing import NamedTuple


class Format(StrEnum):
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


class GraphNode(NamedTuple):
    id: str
    label: str = ""
    applications: tuple[str, ...] = ()
    at: tuple[float, float] | None = None
    """Latitude and longitude in degrees."""
    state: str = ""
    """Empty where nothing runs."""


class GraphLink(NamedTuple):
    id: str
    ends: tuple[str, str]
    note: str = ""
    """Length and rate, as people write them."""
    state: str = ""


class Look(NamedTuple):
    colour: str
    dash: str
    """Colour never speaks alone."""


LOOKS = {"up": Look("#1b7f3b", ""), "suspended": Look("#b45309", "8 4"), "down": Look("#b91c1c", "2 5")}
PLAIN = Look("#475569", "")

WIDTH, HEIGHT, MARGIN = 960.0, 640.0, 90.0
NODE_RADIUS = 24.0
NEAREST = 130.0
"""Nodes in one street are drawn this far apart."""
LAYOUT_ROUNDS = 200
LAYOUT_NODES_LIMIT = 150
"""Above it nodes without places stand on a circle: the layout costs the square of their number."""

Points = dict[str, tuple[float, float]]


def draw(name: str, nodes: Sequence[GraphNode], links: Sequence[GraphLink], form: Format) -> str:
    match form:
        case Format.MERMAID:
            return mermaid(nodes, links)
        case Format.DOT:
            return dot(name, nodes, links)
        case Format.SVG:
            return svg(name, nodes, links)


def mermaid(nodes: Sequence[GraphNode], links: Sequence[GraphLink]) -> str:
    # A node called `end` would be a word of the language: ids here are numbers, names are labels.
    number = {node.id: f"n{index}" for index, node in enumerate(nodes)}
    lines = ["graph LR"]
    for node in nodes:
        text = "<br/>".join(_mermaid_text(part) for part in _node_lines(node))
        lines.append(f'  {number[node.id]}["{text}"]')
    for index, link in enumerate(links):
        one, other = (number[end] for end in link.ends)
        lines.append(f'  {one} ---|"{_mermaid_text(_link_text(link))}"| {other}')
        look = LOOKS.get(link.state)
        if look is not None:
            dash = f",stroke-dasharray:{look.dash}" if look.dash else ""
            lines.append(f"  linkStyle {index} stroke:{look.colour},stroke-width:2px{dash}")
    return "\n".join(lines) + "\n"


def dot(name: str, nodes: Sequence[GraphNode], links: Sequence[GraphLink]) -> str:
    lines = [f"graph {_dot_text(name)} {{", "  node [shape=box, style=rounded];"]
    for node in nodes:
        place = f', pos="{node.at[1]},{node.at[0]}"' if node.at else ""
        lines.append(f"  {_dot_text(node.id)} [label={_dot_text(chr(10).join(_node_lines(node)))}{place}];")
    for link in links:
        look = LOOKS.get(link.state, PLAIN)
        style = {"": "solid", "8 4": "dashed", "2 5": "dotted"}[look.dash]
        one, other = (_dot_text(end) for end in link.ends)
        lines.append(f'  {one} -- {other} [label={_dot_text(_link_text(link))}, color="{look.colour}", style={style}];')
    return "\n".join([*lines, "}"]) + "\n"


def svg(name: str, nodes: Sequence[GraphNode], links: Sequence[GraphLink]) -> str:
    places = layout(nodes, links)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(name)}</title>",
        f'<rect width="{WIDTH:.0f}" height="{HEIGHT:.0f}" fill="#ffffff"/>',
    ]
    drawn: dict[frozenset[str], int] = {}
    for link in links:
        look = LOOKS.get(link.state, PLAIN)
        between = frozenset(link.ends)
        bend = 34.0 * drawn.get(between, 0)
        drawn[between] = drawn.get(between, 0) + 1
        (x1, y1), (x2, y2) = (places[end] for end in link.ends)
        length = math.hypot(x2 - x1, y2 - y1) or 1.0
        across_x, across_y = (y1 - y2) / length, (x2 - x1) / length
        middle_x, middle_y = (x1 + x2) / 2 + across_x * bend, (y1 + y2) / 2 + across_y * bend
        control_x, control_y = (x1 + x2) / 2 + 2 * across_x * bend, (y1 + y2) / 2 + 2 * across_y * bend
        dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
        lines.append(
            f'<path d="M{x1:.1f} {y1:.1f} Q{control_x:.1f} {control_y:.1f} {x2:.1f} {y2:.1f}" fill="none" '
            f'stroke="{look.colour}" stroke-width="2.5"{dash}><title>{escape(link.id)}</title></path>'
        )
        lines.append(_svg_text(middle_x, middle_y - 6, [_link_text(link)], look.colour))
    for node in nodes:
        x, y = places[node.id]
        look = LOOKS.get(node.state, PLAIN)
        lines.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{NODE_RADIUS:.0f}" fill="#f8fafc" stroke="{look.colour}" '
            f'stroke-width="2.5"/>'
        )
        head, *rest = _node_lines(node)
        lines.append(_svg_text(x, y + 4, [head], "#0f172a", weight="600"))
        if rest:
            lines.append(_svg_text(x, y + NODE_RADIUS + 16, rest, "#334155"))
    return "\n".join([*lines, "</svg>"]) + "\n"


def layout(nodes: Sequence[GraphNode], links: Sequence[GraphLink]) -> Points:
    """Where each node is drawn: by its place on earth if all have one, else so that neighbours are near."""
    if not nodes:
        return {}
    if all(node.at is not None for node in nodes):
        places = _fit({node.id: (node.at[1], -node.at[0]) for node in nodes if node.at}, _earth_ratio(nodes))
    else:
        places = _fit(_springs(nodes, links), 1.0)
    return _apart(places)


def _earth_ratio(nodes: Sequence[GraphNode]) -> float:
    """A degree of longitude is shorter than one of latitude."""
    latitudes = [node.at[0] for node in nodes if node.at]
    return math.cos(math.radians(sum(latitudes) / len(latitudes)))


def _springs(nodes: Sequence[GraphNode], links: Sequence[GraphLink]) -> Points:
    """Fruchterman and Reingold 1991, begun on a circle, so that the same network gives the same picture."""
    step = 2 * math.pi / len(nodes)
    places = {node.id: (math.cos(index * step), math.sin(index * step)) for index, node in enumerate(nodes)}
    if len(nodes) > LAYOUT_NODES_LIMIT:
        return places
    names = list(places)
    wanted = 2 / math.sqrt(len(nodes))
    for turn in range(LAYOUT_ROUNDS):
        moves = {name: [0.0, 0.0] for name in names}
        for index, one in enumerate(names):
            for other in names[index + 1 :]:
                _pull(moves, places, one, other, lambda distance: -(wanted**2) / distance)
        for link in links:
            if link.ends[0] != link.ends[1]:
                _pull(moves, places, *link.ends, lambda distance: distance**2 / wanted)
        reach = 0.2 * (1 - turn / LAYOUT_ROUNDS)
        for name, (dx, dy) in moves.items():
            length = math.hypot(dx, dy) or 1.0
            x, y = places[name]
            places[name] = (x + dx / length * min(length, reach), y + dy / length * min(length, reach))
    return places


def _pull(moves: dict[str, list[float]], places: Points, one: str, other: str, force: Callable[[float], float]) -> None:
    (x1, y1), (x2, y2) = places[one], places[other]
    distance = max(1e-6, math.hypot(x2 - x1, y2 - y1))
    strength = force(distance) / distance
    moves[one][0] += (x2 - x1) * strength
    moves[one][1] += (y2 - y1) * strength
    moves[other][0] -= (x2 - x1) * strength
    moves[other][1] -= (y2 - y1) * strength


def _fit(places: Points, ratio: float) -> Points:
    scaled = {name: (x * ratio, y) for name, (x, y) in places.items()}
    left, top = (min(point[axis] for point in scaled.values()) for axis in (0, 1))
    right, bottom = (max(point[axis] for point in scaled.values()) for axis in (0, 1))
    scale = min((WIDTH - 2 * MARGIN) / max(right - left, 1e-9), (HEIGHT - 2 * MARGIN) / max(bottom - top, 1e-9))
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    return {
        name: (WIDTH / 2 + (x - middle_x) * scale, HEIGHT / 2 + (y - middle_y) * scale)
        for name, (x, y) in scaled.items()
    }


def _apart(places: Points) -> Points:
    names = sorted(places)
    nearest = min(NEAREST, 0.6 * math.sqrt(WIDTH * HEIGHT / max(1, len(names))))
    places = dict(places)
    for _ in range(60 if len(names) <= LAYOUT_NODES_LIMIT else 0):
        moved = False
        for index, one in enumerate(names):
            for other in names[index + 1 :]:
                (x1, y1), (x2, y2) = places[one], places[other]
                distance = math.hypot(x2 - x1, y2 - y1)
                if distance >= nearest - 0.5:
                    continue
                moved = True
                across, down = ((x2 - x1) / distance, (y2 - y1) / distance) if distance > 1e-6 else (0.8, 0.6)
                push = (nearest - distance) / 2
                places[one] = _inside(x1 - across * push, y1 - down * push)
                places[other] = _inside(x2 + across * push, y2 + down * push)
        if not moved:
            break
    return places


def _inside(x: float, y: float) -> tuple[float, float]:
    return min(WIDTH - MARGIN, max(MARGIN, x)), min(HEIGHT - MARGIN, max(MARGIN, y))


def _node_lines(node: GraphNode) -> list[str]:
    lines = [node.id]
    if node.label and node.label != node.id:
        lines.append(node.label)
    if node.applications:
        lines.append(", ".join(node.applications))
    if node.state and node.state != "up":
        lines.append(node.state)
    return lines


def _link_text(link: GraphLink) -> str:
    return " · ".join(part for part in (link.note, link.state) if part) or link.id


def _svg_text(x: float, y: float, lines: Sequence[str], colour: str, weight: str = "400") -> str:
    spans = "".join(
        f'<tspan x="{x:.1f}" dy="{0 if index == 0 else 15}">{escape(line)}</tspan>' for index, line in enumerate(lines)
    )
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="{colour}" font-weight="{weight}" '
        f'paint-order="stroke" stroke="#ffffff" stroke-width="3">{spans}</text>'
    )


def _dot_text(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'


def _mermaid_text(text: str) -> str:
    text = " ".join(text.split())
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
