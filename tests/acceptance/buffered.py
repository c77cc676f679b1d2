"""Links whose buffers hold key already, as LOAD would have filled them."""

from __future__ import annotations

from itertools import pairwise

from tests.acceptance.benches import Bench

from keyhop.core.designs import Design
from keyhop.core.policy.routing import Edge

SLOT = 32
SECOND_LABEL = 1 << 30
"""Slots of the two directions lie that far apart."""


def chain(design: Design, stock_bits: int, *rates_bps: int, tag_bits: int = 0) -> Bench:
    """A-B-C-... at these rates, with so much in each direction's buffer of every link."""
    names = "ABCDEFGH"[: len(rates_bps) + 1]
    hops = list(pairwise(names))
    bench = Bench(design, *(f"{one}-{other}" for one, other in hops), tag_bits=tag_bits)
    for (one, other), rate_bps in zip(hops, rates_bps, strict=True):
        retune(bench, one, other, rate_bps)
        fill(bench, one, other, stock_bits)
    return bench


def retune(bench: Bench, one: str, other: str, rate_bps: int) -> None:
    """The module's rate changes, and everybody is told."""
    bench.network.rates[frozenset((one, other))] = rate_bps
    for start, end in ((one, other), (other, one)):
        bench.network.tell(Edge(start, end, 1, rate_bps, True))


def fill(bench: Bench, one: str, other: str, stock_bits: int) -> None:
    first, second = sorted((one, other))
    for own, peer in ((one, other), (other, one)):
        line = bench.sites[own].links[peer]
        slots = line.run_of("", SLOT)
        for number, label in enumerate((f"{first}>{second}", f"{second}>{first}")):
            start = number * SECOND_LABEL
            slots.pool(label).put(start, start + stock_bits // SLOT)
        line.book.G += 2 * (stock_bits // SLOT) * SLOT
