"""What the modules of a link deliver: blocks with numbers and lengths, the same for every design that is run on it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from keyhop.core.model import NANOSECONDS

BLOCK_NS = NANOSECONDS
"""Between two blocks, if nothing else is said. Real modules are slower, by far on long links: a block of 2 Mbit of key
comes every 16 s at 20 dB."""
BLOCK_SPREAD = 0.2
"""Blocks vary by up to this part around the mean."""


class Delivery(NamedTuple):
    at_ns: int
    bits: int
    """Whole bytes."""


def deliveries(link: frozenset[str], rate_bps: int, seed: int, block_ns: int = BLOCK_NS) -> Iterator[Delivery]:
    """Without end."""
    draws = random.Random(f"blocks {seed} {'|'.join(sorted(link))}")  # noqa: S311 a schedule, not a secret
    at_ns = draws.randrange(block_ns)
    while True:
        bits = rate_bps * block_ns // NANOSECONDS
        yield Delivery(at_ns, int(bits * (1 + BLOCK_SPREAD * (2 * draws.random() - 1))) // 8 * 8)
        at_ns += block_ns
