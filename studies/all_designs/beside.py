"""One published result and ours."""

from __future__ import annotations

from typing import NamedTuple


class Beside(NamedTuple):
    of: str
    theirs: str
    ours: str
    agrees: str
    """yes, no, shape, not decided; open: nothing was published."""
    difference: str
    plot: str = ""
