"""Quantities as people write them: a number, a space, a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction

NUMBER = re.compile(r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(?P<unit>.*)", re.DOTALL)
NUMBER_LIMIT_CHARACTERS = 40
"""Longer texts are no figures anyone measured; exact arithmetic on them would only cost time."""


class UnitError(ValueError):
    """What is wrong with a quantity, and what would be right."""

    def __init__(self, what: str, legal: str) -> None:
        super().__init__(f"{what}: {legal}")
        self.what = what
        self.legal = legal


@dataclass(frozen=True, eq=False)
class Quantity:
    """A kind of figure. A record's field is named after its base unit (`length_km`), the file's key without it."""

    noun: str
    suffix: str
    """What the record's field name ends with; empty for ratios."""
    base: str
    """The unit a record holds its figure in, as the file writes it."""
    units: Mapping[str, Fraction]
    """Each unit in terms of what the record holds."""
    whole: bool = False
    """The record holds an int: a figure that is no whole number of the base unit is refused."""
    bare: bool = False
    """A number without a unit means the base unit, where standards themselves write it so."""
    minimum: Fraction = Fraction(0)
    maximum: Fraction | None = None
    above_minimum: bool = False

    def parse(self, text: str) -> float | int:
        """The figure in the unit the record holds; raises UnitError."""
        match = NUMBER.fullmatch(text.strip()) if len(text) <= NUMBER_LIMIT_CHARACTERS else None
        if match is None:
            raise UnitError(f"{text[:NUMBER_LIMIT_CHARACTERS]!r} is no {self.noun}", f"write it as {self.example}")
        unit = match["unit"]
        if not unit and not self.bare:
            raise UnitError(f"{text} has no unit", f"write it as {match['number']} {self.base} ({self._choice()})")
        if unit and unit not in self.units:
            near = get_close_matches(unit.lower(), [name.lower() for name in self.units], 1, 0.5)
            likely = [name for name in self.units if near and name.lower() == near[0]]
            ask = f"did you mean {likely[0]}? ({self._choice()})" if likely else self._choice()
            raise UnitError(f"{unit!r} is no unit of {self.noun}", ask)
        exact = Fraction(match["number"]) * self.units[unit or self.base]
        self._check_range(exact, text)
        if not self.whole:
            return float(exact)
        if exact.denominator != 1:
            raise UnitError(f"{text} is no whole number of {self.base}", f"write it as {self.example}")
        return int(exact)

    def write(self, figure: float | int) -> str:
        """The text that `parse` turns into exactly this figure."""
        number = Fraction(repr(figure)) / self.units[self.base]
        decimal = Decimal(number.numerator) / Decimal(number.denominator)
        text = f"{decimal:f}"
        if len(text) > NUMBER_LIMIT_CHARACTERS // 2:
            text = f"{decimal}"
        elif "." in text:
            text = text.rstrip("0").rstrip(".")
        return f"{text} {self.base}"

    @property
    def example(self) -> str:
        lowest = self.minimum / self.units[self.base]
        number = 1 if lowest < 1 or lowest.denominator != 1 else int(lowest)
        return f"{number} {self.base}"

    @property
    def pattern(self) -> str:
        """For JSON Schema: the texts that have the right form."""
        units = "|".join(re.escape(unit) for unit in self.units)
        return rf"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*({units}){'?' if self.bare else ''}$"

    def _choice(self) -> str:
        return f"units of {self.noun}: {', '.join(self.units)}"

    def _check_range(self, exact: Fraction, text: str) -> None:
        low = self._in_base(self.minimum)
        if exact < self.minimum or (self.above_minimum and exact == self.minimum):
            raise UnitError(
                f"{text} is too small", f"must be {'more than ' + low if self.above_minimum else low + ' or more'}"
            )
        if self.maximum is not None and exact > self.maximum:
            raise UnitError(f"{text} is too large", f"must be {self._in_base(self.maximum)} or less")

    def _in_base(self, exact: Fraction) -> str:
        return f"{float(exact / self.units[self.base]):g} {self.base}"


_F = Fraction
_BITS = {
    "bit": _F(1),
    "kbit": _F(1000),
    "Mbit": _F(10**6),
    "B": _F(8),
    "kB": _F(8000),
    "KiB": _F(8192),
    "MB": _F(8 * 10**6),
}
_BYTES = {
    "B": _F(1),
    "kB": _F(1000),
    "KiB": _F(1024),
    "MB": _F(10**6),
    "MiB": _F(1024**2),
    "GB": _F(10**9),
    "GiB": _F(1024**3),
}
_RATES = {
    "bps": _F(1),
    "kbps": _F(1000),
    "Mbps": _F(10**6),
    "Gbps": _F(10**9),
    "bit/s": _F(1),
    "kbit/s": _F(1000),
    "Mbit/s": _F(10**6),
    "Gbit/s": _F(10**9),
}
_TIMES = {"ms": _F(1, 1000), "s": _F(1), "min": _F(60), "h": _F(3600), "d": _F(86400)}

LENGTH = Quantity("length", "km", "km", {"m": _F(1, 1000), "km": _F(1)}, maximum=_F(100_000))
LOSS = Quantity("loss", "db", "dB", {"dB": _F(1)}, maximum=_F(200))
ATTENUATION = Quantity("attenuation", "db_per_km", "dB/km", {"dB/km": _F(1)}, maximum=_F(1000))
RATE = Quantity("rate", "bps", "bps", _RATES, maximum=_F(10**12))
DURATION = Quantity("time", "s", "s", _TIMES, maximum=_F(86400 * 3650))
PERIOD = Quantity("time", "s", "s", _TIMES, maximum=_F(86400 * 3650), above_minimum=True)
SIZE = Quantity("size", "bytes", "B", _BYTES, whole=True, maximum=_F(1 << 40))
BITS = Quantity("size", "bits", "bit", _BITS, whole=True, bare=True, maximum=_F(1 << 40))
RATIO = Quantity("ratio", "", "%", {"%": _F(1, 100)}, maximum=_F(1))
