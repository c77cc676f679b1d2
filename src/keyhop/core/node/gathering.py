"""When blocks are proposed, and how many in one proposal: agreement costs tag keys, and small blocks share them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from keyhop.core.messages import BLOCKS_PER_PROPOSAL
from keyhop.core.model import NANOSECONDS, TAG_KEY_BYTES
from keyhop.core.node.block_numbers import WINDOW
from keyhop.core.node.pair import Pair
from keyhop.core.node.placing import FLOOR_BYTES

AGREEMENT_BYTES = 4 * TAG_KEY_BYTES
"""Tag keys of a proposal: for its frame, its fingerprint, the answer and the word that it is stored."""
QUIET_BYTES = 256 * AGREEMENT_BYTES
"""So much is waited for while neither direction's stock is low: tags are four in a thousand of it."""
QUIET_NS = 60 * NANOSECONDS
"""But no block waits longer: what is not agreed is lost with the process."""
LOW_BYTES = QUIET_BYTES // 2
HASTE_BYTES = 40 * AGREEMENT_BYTES
"""Where the stock is low a block is proposed at once, as long as there was one proposal for so many bytes."""
HASTE_AT_ONCE = 8
"""Proposals beyond that pace, after a start or a quiet time."""
HASTE_NS = 5 * NANOSECONDS
PLENTY_BYTES = 16_384
"""While both tag runs hold so much no block waits longer for that pace: they were shared beforehand to be used."""
PROPOSAL_BYTES = 65_536
"""Of several blocks: what differs is looked for block by block, and that must not cost much."""


class Waiting(NamedTuple):
    """A block that is here and not yet proposed, or not yet agreed."""

    length: int
    epsilon: float
    vendor: str
    at: int
    """When it was delivered."""
    alone: bool = False
    """The bits of a proposal that held it differed: it is judged by itself."""


Key: TypeAlias = tuple[str, int]
"""Module, number."""


def _is_low(pair: Pair) -> bool:
    """Whether somebody may soon wait for key, or the link for tag keys."""
    tags = (pair.own_tags, pair.own_opening, pair.their_tags, pair.their_opening)
    return min(pair.own_key.untouched, pair.their_key.untouched) < LOW_BYTES or any(
        run.available() < FLOOR_BYTES for run in tags
    )


class Gathering:
    def __init__(self) -> None:
        self._credit: dict[str, int] = {}
        """Per peer, bytes that came in and were not yet followed by a proposal."""
        self._proposed_at: dict[str, int] = {}

    def arrived(self, peer: str, length: int) -> None:
        most = HASTE_AT_ONCE * HASTE_BYTES
        self._credit[peer] = min(most, self._credit.get(peer, most) + length)

    def due(self, pair: Pair, here: dict[Key, Waiting], now: int) -> bool:
        """Whether what waits is to be proposed now."""
        if not here:
            return False
        if any(block.alone or now >= block.at + QUIET_NS for block in here.values()):
            return True
        if _is_low(pair):
            if self._credit.get(pair.peer, HASTE_BYTES) >= HASTE_BYTES:
                return True
            plenty = min(pair.own_tags.available(), pair.their_tags.available()) >= PLENTY_BYTES
            if plenty and now - self._proposed_at.get(pair.peer, 0) >= HASTE_NS:
                return True
        # A proposal takes no more of them, or no more bytes: waiting buys nothing.
        return len(here) >= BLOCKS_PER_PROPOSAL or sum(block.length for block in here.values()) >= QUIET_BYTES

    def take(
        self, peer: str, here: dict[Key, Waiting], under_way: Iterable[Key], now: int
    ) -> list[tuple[Key, Waiting]]:
        """The blocks of the next proposal, out of what waits: of one module, with rising numbers.

        `under_way`: the first block of each proposal without an answer. None is chosen that would push one of those, or
        of its own company, out of the window of numbers that can still be told apart, should it be refused.
        """
        module, first = next(iter(here))
        lowest = min((number for source, number in under_way if source == module), default=first)
        end = min(lowest, first) + WINDOW
        if first >= end:
            return []
        self._credit[peer] = max(0, self._credit.get(peer, 0) - HASTE_BYTES)
        self._proposed_at[peer] = now
        chosen: list[tuple[Key, Waiting]] = []
        length = 0
        for key, block in here.items():
            if chosen:
                full = len(chosen) == BLOCKS_PER_PROPOSAL or length + block.length > PROPOSAL_BYTES
                if full or chosen[0][1].alone:
                    break
                if block.alone or key[0] != module or not chosen[-1][0][1] < key[1] < end:
                    continue
            chosen.append((key, block))
            length += block.length
        for key, _ in chosen:
            del here[key]
        return chosen
