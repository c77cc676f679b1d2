"""An offer of many batches under one message: paid for whatever is left of tags, and never more than a tag each."""

from __future__ import annotations

import random

import pytest
from tests.acceptance.benches import Bench

from keyhop.core.composed.nouns.messages import Said
from keyhop.core.composed.talk.conversation import RESERVED_TAGS, TAG_BITS
from keyhop.core.designs import DESIGNS

BATCHES = {"nectec": 16 * 256, "ait": 64 * 256, "kisti": 64 * 256}
"""Bits under one tag."""
TAGS = 100
"""Of an offer, about."""
PRESHARED_BITS = 3 * TAGS * TAG_BITS


def bench(design: str, preshared_bits: int = PRESHARED_BITS) -> Bench:
    return Bench(DESIGNS[design], preshared_bits=preshared_bits, rate_bps=BATCHES[design] * TAGS)


def feed(made: Bench, design: str, seconds: int, seed: int = 0) -> int:
    """Blocks as a module gives them, of unequal size, until both ends have dealt with them; gives their bits."""
    draw, given = random.Random(seed), 0
    for _ in range(seconds):
        bits = BATCHES[design] * draw.randrange(TAGS * 8 // 10, TAGS * 12 // 10)
        made.give(bits)
        given += bits
        made.go(1)
    return given


def agreed(made: Bench, *, only_at_a_bits: int = 0) -> None:
    """Nothing waits any more, and nothing was destroyed but what one end alone had."""
    for at, peer in ("AB", "BA"):
        line = made.line(at, peer)
        assert not line.talk._unpaid
        assert not line.pickup_bits
        assert (only_at_a_bits if at == "A" else 0) == line.book.Y


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("design", BATCHES)
def test_offers_go_on_when_the_tags_that_were_shared_before_are_spent(design: str, seed: int) -> None:
    made = bench(design)
    given = feed(made, design, 40, seed)
    made.go(5)
    agreed(made)
    assert given == made.line("A", "B").book.G
    made.balanced()


@pytest.mark.parametrize("design", BATCHES)
def test_offers_go_on_after_a_minute_without_an_answer(design: str) -> None:
    made = bench(design)
    feed(made, design, 10)
    made.lose = lambda node, said: True
    made.go(61)
    made.lose = lambda node, said: False
    feed(made, design, 10)
    made.go(40)
    agreed(made)
    made.balanced()


def test_what_could_not_be_paid_before_is_paid_after_and_is_a_tag_for_each_batch() -> None:
    made = bench("nectec", preshared_bits=(RESERVED_TAGS + 4) * TAG_BITS)
    talk = made.line("A", "B").talk
    sent = []

    def offers(node: str, said: Said) -> bool:
        if said.message.word == "VERIFY":
            sent.append((said.message.tags, talk._sent_bits // TAG_BITS))
        return False

    made.lose = offers
    made.give(BATCHES["nectec"] * TAGS)
    made.go(2)
    assert sent == [(4, 4)]
    assert talk._sent_bits == TAGS * TAG_BITS
    assert talk.dealt_bits // 2 > (TAGS - RESERVED_TAGS) * TAG_BITS
    agreed(made)
    made.balanced()


@pytest.mark.parametrize("design", BATCHES)
def test_batches_that_one_end_lacks_leave_the_reserve_for_the_next_offers(design: str) -> None:
    made = bench(design, preshared_bits=(RESERVED_TAGS + 4) * TAG_BITS)
    made.give(BATCHES[design] * TAGS, only="A")
    made.go(5)
    talk = made.line("A", "B").talk
    assert not talk.dealt_bits
    assert talk._sent_bits < (RESERVED_TAGS + 4) * TAG_BITS
    feed(made, design, 10)
    made.go(30)
    agreed(made, only_at_a_bits=BATCHES[design] * TAGS)
    assert made.line("A", "B").usable_bits
    made.balanced()


def test_what_an_offer_owed_when_it_was_answered_is_paid_out_of_the_next_key() -> None:
    made = bench("nectec", preshared_bits=(RESERVED_TAGS + 4) * TAG_BITS)
    made.give(BATCHES["nectec"] * TAGS, only="A")
    made.go(5)
    talk = made.line("A", "B").talk
    owed = talk._owed_tags
    assert owed >= TAGS - 4
    spent = talk._sent_bits
    made.give(BATCHES["nectec"] * TAGS)
    made.go(30)
    agreed(made, only_at_a_bits=BATCHES["nectec"] * TAGS)
    assert not talk._owed_tags
    assert talk._sent_bits - spent >= (owed + TAGS) * TAG_BITS
    made.balanced()


def test_an_offer_that_is_repeated_costs_one_tag_each_time() -> None:
    made = bench("nectec")
    made.lose = lambda node, said: node == "B" and made.now < 6 * 10**9
    made.give(BATCHES["nectec"] * TAGS)
    made.go(20)
    agreed(made)
    assert made.line("A", "B").talk._sent_bits == (TAGS + 2) * TAG_BITS
