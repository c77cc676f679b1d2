"""Toshiba, 2019: as 2016, and used keys are erased many at a time."""

from __future__ import annotations

from dataclasses import replace

from keyhop.core.designs.toshiba_2016 import TOSHIBA_2016
from keyhop.core.policy.disposal import EraseInBatches

TOSHIBA_2019 = replace(
    TOSHIBA_2016,
    name="toshiba.2019",
    title="Toshiba, 2019: as 2016, and used keys are erased many at a time",
    disposal=EraseInBatches(n=1024),
)
