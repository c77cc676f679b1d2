"""Relayed key of other designs at a node: what fits, for whom it is meant, and what is left of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from keyhop.core.composed.line import Line, LineSettings, Run
from keyhop.core.composed.network import Network
from keyhop.core.composed.nouns.cargo import ONE_LINK, PAD, Payload
from keyhop.core.composed.nouns.units import Units
from keyhop.core.composed.site import Site
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.designs import DESIGNS
from keyhop.core.model import NodeId, Range, RunId
from keyhop.core.node.context import Context, NodeSettings
from keyhop.core.node.hosted_cargo import KEPT_NS, LOADS_LIMIT, LOADS_NS, PAYLOAD_LIMIT_BYTES, HostedCargo, block_of
from keyhop.core.node.hosted_messages import Load
from keyhop.core.node.vault import BlockName
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import PretendDisk

UNIT_BITS = 256
LIVES = {("a", "c"): b"a life..c life..", ("c", "a"): b"c life..a life.."}


class Node:
    """A node with two links whose stock lies in runs of their own; `lives` says how its pairs stand."""

    def __init__(self, name: str) -> None:
        self.context = Context(NodeSettings(node=NodeId(name)), NodeVault(PretendDisk(), bytes(32)), bytes, 1, 0)
        self.vault = self.context.vault
        self.cargo = HostedCargo(self.context, self)
        network = Network({frozenset("ab"): 10_000, frozenset("bc"): 10_000})
        self.site = Site(name, DESIGNS["nict"], network, lambda: 0.5, lambda *_: LineSettings(tag_bits=0), self.cargo)
        self.pairs_lives = dict(LIVES) if name != "b" else {}
        self.lost_peers: list[str] = []
        for peer, link in self.site.links.items():
            # The same bits at both ends of a link.
            block = BlockName(NodeId(peer), "test", 0)
            bits = bytearray(b"".join(sum(map(ord, name + peer)).to_bytes(2, "big") for _ in range(512)))
            cast(NodeVault, self.vault).accept(block, bits)
            self.vault.place(block, 0, Range(RunId(NodeId(peer), 0), 0, 1024))
            link.run.end = 32

    def link_ranges(self, line: Line, run: Run, ranges: tuple[Units, ...]) -> tuple[Range, ...] | None:
        if self.site.links.get(line.peer) is not line:
            return None
        unit = UNIT_BITS // 8
        return tuple(Range(RunId(NodeId(line.peer), 0), start * unit, (end - start) * unit) for start, end in ranges)

    def is_pair(self, line: Line) -> bool:
        return self.site.pairs.get(line.peer) is line

    def lives(self, source: str, destination: str) -> bytes:
        return self.pairs_lives.get((source, destination), b"")

    def lost(self, peer: str) -> None:
        self.lost_peers.append(peer)

    def spent(self, line: Line, ranges: tuple[Range, ...], letter: str) -> None:
        pass

    def units(self, peer: str, start: int, end: int) -> tuple[Line, Taken]:
        link = self.site.links[peer]
        return link, Taken(link.run, ((start, end),), "")

    def pass_load(self, load: int | None, to: Node) -> int:
        assert load is not None
        return to.cargo.arrive(self.cargo.leave(load))

    def has(self, payload: Payload) -> bool:
        return self.vault.length(block_of(payload)) is not None


PAYLOAD = Payload("a", "c", 1)
BITS = 2 * UNIT_BITS


def pair(node: Node, peer: str) -> tuple[Line, Run]:
    line = node.site.line(peer, True)
    assert line is not None
    return line, line.run_of("a>")


def carried() -> tuple[Node, Node, Node]:
    """From a over b to c, entered at both ends."""
    a, b, c = Node("a"), Node("b"), Node("c")
    a.cargo.draw(PAYLOAD, BITS)
    load = a.pass_load(a.cargo.cover(PAYLOAD, *a.units("b", 0, 2), BITS), b)
    assert b.cargo.uncover(PAYLOAD, *b.units("a", 0, 2), BITS, load)
    load = b.pass_load(b.cargo.cover(PAYLOAD, *b.units("c", 4, 6), BITS), c)
    b.cargo.discard(PAYLOAD)
    assert c.cargo.uncover(PAYLOAD, *c.units("b", 4, 6), BITS, load)
    a.cargo.enter(PAYLOAD, *pair(a, "c"), 3)
    c.cargo.enter(PAYLOAD, *pair(c, "a"), 3)
    return a, b, c


def entered(node: Node, peer: str) -> bytes:
    _, run = pair(node, peer)
    (lies,) = node.cargo._pair_ranges(peer, run.owner, ((3, 5),), UNIT_BITS)
    return cast(NodeVault, node.vault).read(lies)


def test_both_ends_have_the_same_and_nobody_has_the_payload_any_more() -> None:
    a, b, c = carried()
    assert entered(a, "c") == entered(c, "a") != bytes(BITS // 8)
    assert not any(node.has(PAYLOAD) for node in (a, b, c))
    assert not a.lost_peers and not c.lost_peers


def test_what_goes_over_a_link_is_not_the_payload() -> None:
    a = Node("a")
    a.cargo.draw(PAYLOAD, BITS)
    link, pad = a.units("b", 0, 2)
    number = a.cargo.cover(PAYLOAD, link, pad, BITS)
    load = a.cargo.leave(number or 0)
    assert load is not None
    a.cargo.enter(PAYLOAD, *pair(a, "c"), 3)
    assert load.ciphertext != entered(a, "c")


def test_a_pair_that_began_anew_forgets_all_and_takes_nothing_older() -> None:
    a, _, c = carried()
    before = entered(c, "a")
    c.cargo.forget("a")
    for taken in c.context.out.wipe:
        c.vault.wipe(taken)
    with pytest.raises(KeyError):
        entered(c, "a")
    c.pairs_lives = {("a", "c"): b"a life..newlife."}
    again = Payload("a", "c", 2)
    a.cargo.draw(again, BITS)
    load = a.pass_load(a.cargo.cover(again, *a.units("b", 6, 8), BITS), c)
    assert not c.cargo.uncover(again, *c.units("b", 6, 8), BITS, load)
    assert entered(a, "c") == before


def test_nothing_is_drawn_for_a_pair_that_does_not_stand() -> None:
    a = Node("a")
    a.pairs_lives.clear()
    a.cargo.draw(PAYLOAD, BITS)
    assert not a.has(PAYLOAD)
    assert a.cargo.cover(PAYLOAD, *a.units("b", 0, 2), BITS) is None


def test_an_end_that_lacks_what_the_other_has_says_so() -> None:
    a = Node("a")
    a.cargo.enter(PAYLOAD, *pair(a, "c"), 0)
    assert a.lost_peers == ["c"]


def test_units_of_a_former_link_are_no_pads() -> None:
    a = Node("a")
    a.cargo.draw(PAYLOAD, BITS)
    link, pad = a.units("b", 0, 2)
    del a.site.links["b"]
    assert a.cargo.cover(PAYLOAD, link, pad, BITS) is None


@pytest.mark.parametrize("ciphertext", [b"", bytes(BITS // 8 - 1), bytes(BITS // 8 + 1)])
def test_a_ciphertext_of_another_length_is_nothing(ciphertext: bytes) -> None:
    c = Node("c")
    load = c.cargo.arrive(Load(LIVES["a", "c"], ciphertext))
    assert not c.cargo.uncover(PAYLOAD, *c.units("b", 0, 2), BITS, load)
    assert not c.has(PAYLOAD)


def test_pads_that_are_too_short_cover_nothing() -> None:
    a = Node("a")
    a.cargo.draw(PAYLOAD, BITS)
    assert a.cargo.cover(PAYLOAD, *a.units("b", 0, 1), BITS) is None


def test_more_than_a_message_holds_is_not_made() -> None:
    a = Node("a")
    a.cargo.draw(PAYLOAD, 8 * (PAYLOAD_LIMIT_BYTES + 32))
    assert not a.has(PAYLOAD)


def test_a_message_without_its_load_moves_nothing() -> None:
    c = Node("c")
    assert not c.cargo.uncover(PAYLOAD, *c.units("b", 0, 2), BITS, 0)
    assert c.cargo.gather(PAYLOAD, *c.units("b", 0, 2), BITS, 0) is None


def test_a_pad_that_goes_its_own_way_and_the_padded_key_are_joined() -> None:
    a, c = Node("a"), Node("c")
    a.cargo.draw(PAYLOAD, BITS)
    straight = a.pass_load(a.cargo.cover(PAYLOAD, *a.units("b", 0, 2), BITS), c)
    pad = PAYLOAD._replace(part=PAD)
    b = Node("b")
    load = a.pass_load(a.cargo.stamp(pair(a, "c")[0]), b)
    assert b.cargo.gather(pad, *b.units("a", 0, 2), BITS, load) is not None
    load = b.pass_load(b.cargo.cover(pad, *b.units("c", 0, 2), BITS), c)
    assert c.cargo.uncover(pad, *c.units("b", 0, 2), BITS, load)
    c.cargo.keep(PAYLOAD, straight)
    c.cargo.join(PAYLOAD)
    assert not c.has(pad)
    a.cargo.enter(PAYLOAD, *pair(a, "c"), 3)
    c.cargo.enter(PAYLOAD, *pair(c, "a"), 3)
    assert entered(a, "c") == entered(c, "a")


def test_one_part_alone_is_no_key() -> None:
    c = Node("c")
    c.cargo.keep(PAYLOAD, c.cargo.arrive(Load(LIVES["a", "c"], bytes(BITS // 8))))
    c.cargo.join(PAYLOAD)
    assert not c.has(PAYLOAD)


def test_what_goes_over_one_link_needs_no_pair() -> None:
    b, a = Node("b"), Node("a")
    payload = Payload("b", "a", 1, ONE_LINK)
    b.cargo.gather(payload, *b.units("c", 0, 2), BITS)
    load = b.pass_load(b.cargo.cover(payload, *b.units("a", 0, 2), BITS), a)
    assert a.cargo.uncover(payload, *a.units("b", 0, 2), BITS, load)


def test_a_stamp_is_of_one_beginning() -> None:
    a, c = Node("a"), Node("c")
    stamp = c.cargo.stamp(pair(c, "a")[0])
    assert a.cargo.fits(pair(a, "c")[0], c.pass_load(stamp, a))
    stamp = c.cargo.stamp(pair(c, "a")[0])
    a.pairs_lives = {("c", "a"): b"c life..newlife."}
    assert not a.cargo.fits(pair(a, "c")[0], c.pass_load(stamp, a))
    assert not a.cargo.fits(pair(a, "c")[0], 0)


def test_what_nobody_comes_for_is_forgotten() -> None:
    a = Node("a")
    a.cargo.draw(PAYLOAD, BITS)
    load = a.cargo.arrive(Load(b"", b"x"))
    a.context.now = LOADS_NS + 1
    a.cargo.tick()
    assert a.cargo.leave(load) is None and a.has(PAYLOAD)
    a.context.now = KEPT_NS + 1
    a.cargo.tick()
    assert not a.has(PAYLOAD)


def test_loads_are_limited() -> None:
    a = Node("a")
    loads = [a.cargo.arrive(Load(b"", b"x")) for _ in range(LOADS_LIMIT + 1)]
    assert a.cargo.leave(loads[0]) is None
    assert a.cargo.leave(loads[-1]) is not None


def test_the_vault_shows_no_bit_of_them() -> None:
    a, _, _ = carried()
    assert entered(a, "c").hex() not in repr((a.cargo, a.vault, cast(Any, a.cargo).__dict__))
