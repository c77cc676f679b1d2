"""One colour per design, the same in every plot: told apart on white and on black."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from keyhop.core.designs import DESIGNS

FIRST_HUE_DEGREES = 255.0
STRIDE = 9
"""Around the wheel from one design of the list to the next: neighbours in the list lie far apart on it."""
LIGHT = ((0.42, 0.150), (0.55, 0.150), (0.49, 0.090))
"""Lightness and chroma on white, by turns around the wheel: of two like hues one is the darker."""
DARK = ((0.70, 0.150), (0.86, 0.110), (0.78, 0.080))

LEDGER = {
    "D": ("delivered", "#1d6fb8", "#5aa9e6"),
    "T": ("turned into distant key", "#2a9d8f", "#53c4b4"),
    "R": ("spent on relay", "#7cc6b8", "#2f7d72"),
    "O": ("lost to rounding", "#e9a23b", "#f0b45c"),
    "C": ("lost to collisions", "#d1495b", "#ef6f80"),
    "A": ("spent on messages", "#8b5fbf", "#b08ae0"),
    "X": ("expired", "#9a8c7c", "#b3a797"),
    "Y": ("lost to disagreement", "#5c2a2a", "#a35b5b"),
    "S": ("still in stock", "#d5dbe3", "#3a4452"),
}
"""Letter -> words, colour on white, colour on black; in the order of the bars."""
STOCK = "S"
"""Not used yet: a network has links that nobody asks for key, and a bar of them would show nothing else."""


def variable(design: str) -> str:
    """The CSS variable that holds its colour."""
    return "--d-" + re.sub(r"[^a-z0-9]+", "-", design.lower())


def colour(design: str) -> str:
    return f"var({variable(design)})"


def rules() -> str:
    """CSS that gives every variable its value, by what the reader's system asks for."""
    light, dark = _values(LIGHT, 1), _values(DARK, 2)
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _values(levels: Sequence[tuple[float, float]], at: int) -> str:
    designs = []
    for number, name in enumerate(DESIGNS):
        place = number * STRIDE % len(DESIGNS)
        hue = FIRST_HUE_DEGREES + 360.0 * place / len(DESIGNS)
        designs.append(f"{variable(name)}:{_hex(*levels[place % len(levels)], hue)}")
    return ";".join([*designs, *(f"--l-{letter}:{entry[at]}" for letter, entry in LEDGER.items())])


def _hex(lightness: float, chroma: float, hue_degrees: float) -> str:
    """OKLCH as sRGB, with less chroma where a screen cannot show it."""
    while True:
        a = chroma * math.cos(math.radians(hue_degrees))
        b = chroma * math.sin(math.radians(hue_degrees))
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = (
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        )
        if all(-1e-4 <= part <= 1.0001 for part in linear) or chroma < 0.01:
            return "#" + "".join(f"{round(255 * _gamma(part)):02x}" for part in linear)
        chroma *= 0.95


def _gamma(part: float) -> float:
    part = min(1.0, max(0.0, part))
    return 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055
