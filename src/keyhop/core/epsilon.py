"""How far a key is from an ideal one: exact arithmetic on epsilons, so that no bound is broken by rounding."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction

DIGITS = 40
ONE: int = 10**DIGITS
"""Epsilons are whole numbers of 10^-40: decimals that people write are exact, sums too, and nothing drifts."""

NUMBER_LIMIT_CHARACTERS = 64

_NUMBER = re.compile(r"\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def epsilon(value: str | float | Fraction) -> int:
    """A declared figure in units of 10^-40, rounded up; raises ValueError unless it is above 0 and at most 1."""
    exact = _exact(value)
    return -(-exact.numerator * ONE // exact.denominator)


def bound(value: str | float | Fraction) -> int:
    """A demanded bound in units of 10^-40, rounded down; raises ValueError unless it is 1e-40 to 1."""
    exact = _exact(value)
    units = exact.numerator * ONE // exact.denominator
    if not units:
        raise ValueError(f"epsilon {value}: must be 1e-{DIGITS} or more")
    return units


def _exact(value: str | float | Fraction) -> Fraction:
    """A float means the decimal it is written as."""
    if isinstance(value, Fraction):
        exact = value
    else:
        text = value if isinstance(value, str) else repr(value)
        if len(text) > NUMBER_LIMIT_CHARACTERS or not _NUMBER.fullmatch(text):
            raise ValueError(f"epsilon {text[:NUMBER_LIMIT_CHARACTERS]!r}: must be a number such as 1e-10")
        exact = Fraction(text)
    if not 0 < exact <= 1:
        raise ValueError(f"epsilon {value}: must be above 0 and at most 1")
    return exact


def shown(units: int, *, down: bool = False) -> str:
    """An epsilon for people, in three digits: a claim rounded up, a bound down."""
    with localcontext() as context:
        context.prec, context.rounding = 3, ROUND_FLOOR if down else ROUND_CEILING
        return f"{(+Decimal(units)).scaleb(-DIGITS).normalize():e}"


def written(units: int) -> str:
    """All digits: what `bound` and `epsilon` turn into exactly these units."""
    return f"{Decimal(units).scaleb(-DIGITS).normalize():e}"
