"""When blocks are proposed, and how many in one proposal: agreement costs tag keys, and small blocks share them."""

from __future__ import annotations

from typing import NamedTuple

from keyhop.core.messages import BLOCKS_PER_PROPOSAL
from keyhop.core.model import NANOSECONDS, TAG_KEY_BYTES
from keyhop.core.node.pair import Pair

AGREEMENT_BYTES = 4 * TAG_KEY_BYTES
"""Tag keys of a proposal: for its frame, its fingerprint, the answer and the word that it is stored."""
QUIET_BYTES = 256 * AGREEMENT_BYTES
"""So much is waited for while neither direction's stock is low: tags are four in a thousand of it."""
QUIET_NS = 60 * NANOSECONDS
"""But no block waits longer: what is not agreed is lost with the process."""
LOW_BYTES = QUIET_BYTES // 2
HASTE_BYTES = 40 * AGREEMENT_BYTES
"""Where the stock is low a block is proposed at once, as long as there was one proposal for so many bytes."""
HASTE_AT_ONCE = 4
"""Proposals beyond that pace, after a start or a quiet time."""
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
    """A proposal that held it was refused: it is judged by itself."""


class Gathering:
    def __init__(self) -> None:
        self._credit: dict[str, int] = {}
        """Per peer, bytes that came in and were not yet followed by a proposal."""

    def arrived(self, peer: str, length: int) -> None:
        most = HASTE_AT_ONCE * HASTE_BYTES
        self._credit[peer] = min(most, self._credit.get(peer, most) + length)

    def due(self, pair: Pair, here: dict[tuple[str, int], Waiting], now: int) -> bool:
        """Whether what waits is to be proposed now."""
        if not here:
            return False
        oldest = next(iter(here.values()))
        if oldest.alone or now >= oldest.at + QUIET_NS:
            return True
        low = min(pair.own_key.untouched, pair.their_key.untouched) < LOW_BYTES
        if low and self._credit.get(pair.peer, HASTE_BYTES) >= HASTE_BYTES:
            return True
        waiting = 0
        for block in here.values():
            waiting += block.length
            if waiting >= QUIET_BYTES:
                return True
        return False

    def take(self, peer: str, here: dict[tuple[str, int], Waiting]) -> list[tuple[tuple[str, int], Waiting]]:
        """The blocks of the next proposal, out of what waits: of one module, with rising numbers."""
        self._credit[peer] = max(0, self._credit.get(peer, 0) - HASTE_BYTES)
        chosen: list[tuple[tuple[str, int], Waiting]] = []
        length = 0
        for key, block in here.items():
            if chosen:
                (module, highest), first = chosen[-1][0], chosen[0][1]
                if first.alone or len(chosen) == BLOCKS_PER_PROPOSAL or length + block.length > PROPOSAL_BYTES:
                    break
                if block.alone or key[0] != module or key[1] < highest:
                    continue
            chosen.append((key, block))
            length += block.length
        for key, _ in chosen:
            del here[key]
        return chosen
