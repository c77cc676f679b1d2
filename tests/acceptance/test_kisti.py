"""KISTI: a pool with every node, keys of any size derived from keys of one size, relay pads stretched for want."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import msgspec
import pytest

from keyhop.core.composed.nouns.messages import Name
from keyhop.core.composed.relay.stretching import Stretching
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.designs.design import Formatting
from keyhop.core.policy.fallback import Derive
from keyhop.core.policy.formatting import ChunkOnReception, Identity
from keyhop.crypto.derivation import key_of

from .benches import Bench

KISTI = DESIGNS["kisti"]
KEY = 256
HASHES = 255 * 256
SETTLED_S = 3
"""What is delivered has been agreed on."""


def p2p(units: int) -> Bench:
    made = Bench(KISTI)
    made.open("s", "A", "B")
    made.give(units * KEY)
    made.go(SETTLED_S)
    return made


def line3(units_ab: int, units_bc: int, design: Design = KISTI) -> Bench:
    made = Bench(design, "A-B", "B-C")
    made.open("s", "A", "C")
    made.give(units_ab * KEY, "A-B")
    made.give(units_bc * KEY, "B-C")
    made.go(SETTLED_S)
    return made


def raw(derive: Derive | None = None) -> Design:
    """Keys of the pool as they are: what the supply of KISTI is without its derivation."""
    formatting = Formatting(reception=ChunkOnReception(), supply=Identity())
    return replace(KISTI, formatting=formatting, fallback=derive or Derive())


def test_at_kisti_1_keys_are_derived_as_rfc_5869_says() -> None:
    """Case 1 of its appendix."""
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    assert key_of([b"\x0b" * 22], 42 * 8, info, salt).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_at_kisti_2_four_keys_of_512_bits_are_derived_from_one_of_256() -> None:
    made = p2p(1)
    name = made.name(_served(made, 512, keys=4))
    assert (name.taken_bits, name.derived_bits, name.its) == (256, 2048, False)
    assert name.derived_bits / name.taken_bits == 8
    fetched = [made.fetch("B", "A", msgspec.structs.replace(name, child=child)) for child in (2, 0, 3, 1)]
    assert all(made.name(request).its is False for request in fetched)
    assert sorted(made.name(request).child for request in fetched) == [0, 1, 2, 3]
    assert made.equal("A", "B", name), "the parent is the same, so the children are"
    for book in made.balanced():
        assert (book.G, book.D, book.F, book.S) == (256, 256, 2048, 0)


def test_a_parent_is_kept_until_its_last_child_is_fetched_and_no_child_is_given_twice() -> None:
    made = p2p(1)
    name = made.name(_served(made, 512, keys=2))
    children = made.sites["B"].fetches.children
    made.fetch("B", "A", msgspec.structs.replace(name, child=1))
    assert len(children) == 1
    assert (
        made.refusal(made.fetch("B", "A", msgspec.structs.replace(name, child=1))) == "key 1 of 2 is gone or never was"
    )
    assert (
        made.refusal(made.fetch("B", "A", msgspec.structs.replace(name, child=2))) == "key 2 of 2 is gone or never was"
    )
    made.fetch("B", "A", name)
    assert len(children) == 0
    assert made.refusal(made.fetch("B", "A", name)) == "no key of this name"
    assert made.book("B", "A").F == 1024


@pytest.mark.parametrize(("size", "parents"), [(HASHES, 1), (HASHES + 1, 2)])
def test_at_kisti_3_one_parent_gives_at_most_255_hashes(size: int, parents: int) -> None:
    made = p2p(4)
    name = made.name(_served(made, size))
    assert name.taken_bits == parents * KEY
    made.fetch("B", "A", name)
    for book in made.balanced():
        assert (book.D - parents * KEY, book.F - size) == (0, 0)


def test_at_kisti_4_a_pad_of_1024_bits_is_derived_where_a_link_has_256() -> None:
    made = line3(8, 1, raw())
    request = made.ask("A", "C", 1024)
    made.go(4)
    name = made.name(request)
    assert name.its is False
    assert made.name(made.fetch("C", "A", name)).its is False
    far = made.book("B", "C")
    assert (far.R, far.F, far.S) == (256, 1024, 0)
    assert (made.book("C", "B").R, made.book("C", "B").F) == (256, 1024)
    assert (made.book("A", "B").R, made.book("A", "B").F) == (1024, 0)
    assert made.book("C", "A").N == 1024


def test_at_kisti_4_strict_its_blocks_where_a_pad_would_be_derived() -> None:
    made = line3(8, 1, raw(Derive(strict_its=True)))
    request = made.ask("A", "C", 1024)
    made.go(10)
    assert made.refusal(request)
    far = made.book("B", "C")
    assert (far.R, far.F, far.S) == (0, 0, 256)


def test_at_kisti_4_with_enough_key_on_every_hop_a_relayed_key_is_its() -> None:
    made = line3(8, 4, raw())
    request = made.ask("A", "C", 1024)
    made.go(4)
    assert made.name(request).its is True
    assert made.name(made.fetch("C", "A", made.name(request))).its is True
    assert (made.book("B", "C").R, made.book("B", "C").F) == (1024, 0)


def test_only_the_stretch_that_came_under_a_derived_pad_is_weak() -> None:
    made = line3(20, 1, raw())
    names: list[Name] = []
    for _ in range(2):
        request = made.ask("A", "C", 1024)
        made.go(4)
        names.append(made.name(request))
        made.give(8 * KEY, "B-C")
        made.go(SETTLED_S)
    assert [name.its for name in names] == [False, True]


def test_a_link_without_a_whole_key_stretches_nothing() -> None:
    made = line3(8, 0)
    made.give(248, "B-C")
    request = made.ask("A", "C", 1024)
    made.go(10)
    assert made.refusal(request)
    assert made.book("B", "C").F == 0


def test_what_the_supply_derives_is_never_its() -> None:
    made = line3(8, 8)
    request = made.ask("A", "C", 256)
    made.go(4)
    assert made.name(request).its is False


def test_at_kisti_5_six_nodes_have_fifteen_pools() -> None:
    links = ("1-2", "2-3", "3-4", "4-5", "5-6", "6-1", "1-4")
    made = Bench(KISTI, *links)
    kinds = [kind for site in made.sites.values() for kind in cast(Stretching, site.relaying).pools().values()]
    # Each pair has a pool at both of its ends.
    assert len(kinds) == 2 * 15
    assert kinds.count("quantum") == 2 * 7
    assert kinds.count("relay") == 2 * 8


def _served(made: Bench, size_bits: int, keys: int = 1) -> int:
    request = made.ask("A", "B", size_bits, keys=keys)
    made.go(0.05)
    return request
