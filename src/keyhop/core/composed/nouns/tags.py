"""How much of a line's key is set aside for the tags of its messages."""

from __future__ import annotations

from keyhop.core.designs import Design
from keyhop.core.designs.design import Access
from keyhop.core.policy.storage import FixedBlock
from keyhop.core.policy.synchronisation import AppNegotiated, ProposeAccept, StoreLoad, WorkingSet

KEY_BITS = 256
"""What a key is assumed to have, where each costs messages (K)."""
LARGEST_SHARE = 0.5
BLOCK_S = 1.0


def aside_share(design: Design, rate_bps: int, tag_bits: int, *, distant: bool) -> float:
    """Part of the material, from the messages that the design's synchronisation sends by second and by key (K).

    Both ends know these figures, so that they set the same bits aside without a word. What is not used stays in stock.
    """
    both = design.synchronisations
    synchronisation = both.global_ if distant else both.local
    access = design.access.global_ if distant else design.access.local
    per_second, per_key = 2 / BLOCK_S, 0.0
    match synchronisation:
        case AppNegotiated():
            return 0.0
        case StoreLoad(store_ns=store_ns, load_ns=load_ns):
            per_second = 3e9 / store_ns + 3e9 / load_ns
        case WorkingSet():
            per_key = 1.0
        case ProposeAccept():
            per_key = 2.0
        case _:
            per_key = 2.0 if access is Access.ASKED else 0.0
    unit_bits = design.storage.unit_bits if isinstance(design.storage, FixedBlock) else KEY_BITS
    key_bits = max(KEY_BITS, unit_bits)
    by_key = per_key * tag_bits / (key_bits + per_key * tag_bits)
    return min(LARGEST_SHARE, by_key + per_second * tag_bits / max(1, rate_bps))
