"""What a test of a hypothesis comes to, and the comparisons of intervals it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from keyhop.comparison.statistics import Estimate

Word = Literal["holds", "fell", "not decided"]


class Verdict(NamedTuple):
    id: str
    sentence: str
    word: Word
    figures: tuple[str, ...]
    """Sentences with the figures that decide, and how far they do."""
    plot: str
    """SVG."""


def above(found: Estimate | None, bound: float) -> bool | None:
    """Of the whole interval; None: it has the bound inside, or there is no figure. One value is no interval."""
    if found is None or found.low is None or found.high is None:
        return None
    if found.low > bound:
        return True
    return False if found.high <= bound else None


def below(found: Estimate | None, bound: float) -> bool | None:
    if found is None or found.low is None or found.high is None:
        return None
    if found.high < bound:
        return True
    return False if found.low >= bound else None


def every(claims: Iterable[bool | None]) -> Word:
    """One that is false is enough to fall; one that is open keeps the rest from holding, and so does none at all."""
    claims = list(claims)
    if any(claim is False for claim in claims):
        return "fell"
    return "holds" if claims and all(claims) else "not decided"


def percent(found: Estimate | None) -> str:
    if found is None:
        return "n/a"
    if found.low is None or found.high is None or found.low == found.high:
        return f"{100 * found.median:.2f} %"
    return f"{100 * found.median:.2f} % ({100 * found.low:.2f} to {100 * found.high:.2f})"


def seconds(found: Estimate | None) -> str:
    if found is None:
        return "n/a"
    if found.low is None or found.high is None or found.low == found.high:
        return f"{found.median:.3f} s"
    return f"{found.median:.3f} s ({found.low:.3f} to {found.high:.3f})"
