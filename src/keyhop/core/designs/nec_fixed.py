"""NEC, 2009, key allocated ahead for every pair of terminal nodes."""

from __future__ import annotations

from dataclasses import replace

from keyhop.core.designs.nec import NEC
from keyhop.core.designs.source import S
from keyhop.core.policy.refill import LowHigh

NEC_FIXED = replace(
    NEC,
    name="nec.fixed",
    title="NEC, 2009, fixed allocation: the relay node keeps files ready for every pair of terminals",
    refill=LowHigh(low=4, high=16),
    sources={S: tuple(path for path in NEC.sources[S] if path != "refill")},
)
