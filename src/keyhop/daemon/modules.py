"""The seam to QKD modules: a driver delivers blocks and reports how its link does (reference point Kq-1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec


class Block(msgspec.Struct):
    """Bits as one module delivered them. The receiver owns `bits` and overwrites them when it is done."""

    module: str
    number: int
    """The module's own numbering, the same at both ends, rising; gaps are legal, repeats are refused by intake."""
    bits: bytearray
    epsilon: float = 0.0
    """Composable security parameter of the block; 0.0 when the module does not say."""

    def __repr__(self) -> str:
        return f"Block(module={self.module!r}, number={self.number}, {len(self.bits)} bytes)"


class Report(msgspec.Struct, frozen=True):
    """How the quantum link does now."""

    state: str
    """`up`, `suspended` (QBER over its limit) or `down` (no light)."""
    qber_ratio: float | None
    skr_bps: float
    """Average secret key rate over the last block periods."""
    block_period_s: float
    """No key younger than this can exist."""
    reason: str = ""


class ModuleDriver(Protocol):
    """Runs until cancelled. It never blocks the loop, and ends with an exception only if it cannot go on."""

    async def run(self, deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None: ...
