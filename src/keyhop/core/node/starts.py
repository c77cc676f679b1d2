"""The starts of this node: how neighbours know them, and how their word shows that this store is an old copy."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from keyhop.core.messages import Proof
from keyhop.core.node.context import Context
from keyhop.core.node.pair import Pair
from keyhop.core.node.rows import StartRow

STARTS_LIMIT = 256
"""Starts whose numbers a neighbour may return; who was silent for longer returns nothing that counts."""


class Starts:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.rows: dict[int, StartRow] = {}
        """By number, those since leases were burnt last."""
        self.found_restored: Callable[[str, int], None] = lambda reason, start: None

    def record(self) -> None:
        """Names the present start, durably before a number of it is told."""
        context = self.context
        while len(self.rows) >= STARTS_LIMIT:
            context.remove(self.rows.pop(min(self.rows)))
        self.rows[context.start] = StartRow(context.start, context.incarnation, -1)
        context.put(self.rows[context.start])

    def forget(self) -> None:
        """After a burning, which has taken a start number of its own: what was told before it needs no second one."""
        for row in self.rows.values():
            self.context.remove(row)
        self.rows.clear()
        self.record()

    def vouch(self, start: int, journal: int) -> bytes:
        """Names the incarnation, too: an old copy of store and anchor may count up to the same numbers again."""
        incarnation = self.context.incarnation
        return incarnation + self.context.vault.vouch(encode_numbers(start, journal) + incarnation)[:8]

    def check(self, pair: Pair, proof: Proof) -> bool:
        """Whether this node is what it was when the neighbour last heard of it; if not, everything opens anew."""
        context = self.context
        start, journal, incarnation = proof.told_start, proof.told_journal, proof.told_vouch[:8]
        if not proof.told_vouch:
            return True
        genuine = context.vault.vouch(encode_numbers(start, journal) + incarnation)[:8]
        if not compare_digest(genuine, proof.told_vouch[8:]):
            # An invented number; closing for it would let a neighbour with a damaged store keep the link down.
            context.count("unvouched_numbers")
            return True
        if start < min(self.rows):
            return True
        # Behind is judged by what the store held when that start ended: since then this one has counted on.
        known = self.rows.get(start)
        ended = -1 if known is None or known.incarnation != incarnation else known.ended
        if known is not None and start == context.start and incarnation == context.incarnation:
            ended = context.journal
        if journal <= ended:
            return True
        reason = f"{pair.peer} heard of start {start}, journal {journal}; of that start this store knows {ended}"
        self.found_restored(reason, max(start, context.start))
        return False


def encode_numbers(start: int, journal: int) -> bytes:
    return start.to_bytes(8, "big") + journal.to_bytes(8, "big")
