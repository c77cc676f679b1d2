"""Relay of other designs on nodes: keys of distant pairs are equal at both ends, and nobody between keeps any."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.composed.site import Site
from keyhop.core.designs import DESIGNS, not_hosted
from keyhop.core.machine import Deliver
from keyhop.core.messages import DesignMessage
from keyhop.core.model import NANOSECONDS, AppId, NodeId, PeerError, Range, RunId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.hosted_cargo import FIRST_RUN
from keyhop.core.node.hosted_messages import Hail, Spoken, encode
from keyhop.core.node.store import Store
from keyhop.core.node.vault import BlockName
from keyhop.core.policy.relay import NoRelay
from keyhop.core.policy.synchronisation import Verb
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import Answered, World

BLOCK_BYTES = 16_384
RATE_BPS = 20_000
RELAYING = sorted(
    name
    for name, design in DESIGNS.items()
    if name != "keyhop" and not not_hosted(design) and not isinstance(design.relay, NoRelay)
)


def settings(name: str, around: str, others: str, controller: str = "b") -> NodeSettings:
    return NodeSettings(
        node=NodeId(name),
        neighbours=tuple(
            Neighbour(
                node=NodeId(peer),
                link="".join(sorted(name + peer)).encode().ljust(16, b"-"),
                segment_bytes=1024,
                rate_bps=RATE_BPS,
            )
            for peer in around
        ),
        applications=(Application(id=AppId(f"sae-{name}"), peers=frozenset(AppId(f"sae-{peer}") for peer in others)),),
        request_wait_ns=20 * NANOSECONDS,
        controller=NodeId(controller) if controller else None,
    )


class Watched(NodeVault):
    """Remembers which bytes of links were used for relay, and what was made of them."""

    def __init__(self, store: Store, vouch_key: bytes) -> None:
        super().__init__(store, vouch_key)
        self.used: list[tuple[RunId, int]] = []
        self.made: set[BlockName] = set()
        self.placed: list[Range] = []

    def _use(self, block: BlockName, ranges: tuple[Range, ...]) -> None:
        """Of runs of links; others are of pairs, and scratch."""
        if block.source.startswith("design/"):
            self.made.add(block)
            for run, start, length in ranges:
                if run.number < FIRST_RUN:
                    self.used += [(run, at) for at in range(start, start + length)]

    def cipher(self, block: BlockName, pads: tuple[Range, ...]) -> bytes:
        self._use(block, pads)
        return super().cipher(block, pads)

    def decipher(self, block: BlockName, ciphertext: bytes, pads: tuple[Range, ...]) -> None:
        self._use(block, pads)
        super().decipher(block, ciphertext, pads)

    def gather(self, block: BlockName, sources: tuple[Range, ...]) -> None:
        self._use(block, sources)
        super().gather(block, sources)

    def place(self, block: BlockName, offset: int, target: Range) -> None:
        if block.source.startswith("design/"):
            self.placed.append(target)
        super().place(block, offset, target)

    def holds(self, target: Range) -> bool:
        try:
            self.read(target)
        except KeyError:
            return False
        return True


class Line3:
    """Nodes a, b and c in a line, of one design; links that give blocks; pads that were used, and keys given."""

    def __init__(self, design: str, controller: str = "b") -> None:
        # No traffic of b: what its vault holds is what relay has left there.
        ends = [settings("a", "b", "c", controller), settings("c", "b", "a", controller)]
        nodes = [ends[0], settings("b", "ac", "", controller), ends[1]]
        self.vaults: dict[int, Watched] = {}
        self.world = World(1, nodes, DESIGNS[design], self.vault)
        self.answers: dict[int, Answered] = {}
        self.world.on_answer.append(lambda answered: self.answers.__setitem__(answered.request, answered))
        self.world.start()
        self.blocks = 0
        self.pass_time(3)
        self.feed_links(6)

    def vault(self, store: Store, vouch_key: bytes) -> Watched:
        made = self.vaults[len(self.vaults)] = Watched(store, vouch_key)
        return made

    def vault_of(self, node: str) -> Watched:
        vault = self.world.processes[NodeId(node)].vault
        assert isinstance(vault, Watched)
        return vault

    def pass_time(self, seconds: float) -> None:
        self.world.run(self.world.now + int(seconds * NANOSECONDS))

    def feed_links(self, seconds: int) -> None:
        """A block per link and second."""
        for _ in range(seconds):
            for one, other in ("ab", "bc"):
                bits = self.world.random.randbytes(BLOCK_BYTES)
                self.world.deliver_block(one, other, "qkd", self.blocks, bits)
                self.world.deliver_block(other, one, "qkd", self.blocks, bits)
            self.blocks += 1
            self.pass_time(1)

    def feed(self, node: str, make: Callable[[int], object], seconds: float) -> tuple[Deliver, bytes]:
        request = self.world.request()
        self.world.processes[NodeId(node)].feed(make(request))
        end = self.world.now + int(seconds * NANOSECONDS)
        while request not in self.answers and self.world.now < end:
            self.pass_time(0.1)
        answered = self.answers[request]
        return answered.deliver, b"".join(answered.bits)

    def ask(self, node: str, bits: int = 256) -> tuple[Deliver, bytes]:
        peer = "c" if node == "a" else "a"
        return self.feed(
            node, lambda request: events.KeysWanted(request, f"sae-{node}", f"sae-{peer}", 1, bits), seconds=21
        )

    def fetch(self, node: str, key_id: str) -> tuple[Deliver, bytes]:
        peer = "c" if node == "a" else "a"
        return self.feed(
            node,
            lambda request: events.RecordsFetched(request, f"sae-{node}", f"sae-{peer}", (key_id,)),
            seconds=21,
        )

    def exchange(self, node: str, tries: int = 1) -> bytes:
        given, bits = self.ask(node)
        while given.refusal is not None and (tries := tries - 1):
            self.feed_links(5)
            given, bits = self.ask(node)
        assert given.refusal is None, given.refusal
        assert given.made is not None and given.made.size_bits == 256
        assert len(bits) >= 32
        fetched, same = self.fetch("c" if node == "a" else "a", given.ids[0])
        assert fetched.refusal is None, fetched.refusal
        assert (same, fetched.made) == (bits, given.made)
        return bits

    def sites(self) -> list[Site]:
        found = [process.node.hosted for process in self.world.processes.values()]
        return [hosted.site for hosted in found if hosted is not None]

    def codes(self) -> set[str]:
        return {notice.code for process in self.world.processes.values() for notice in process.notices}


@pytest.mark.parametrize("design", RELAYING)
def test_distant_ends_get_the_same_key_and_no_key_twice(design: str) -> None:
    line, seen = Line3(design), set()
    for node in "aca":
        bits = line.exchange(node)
        assert bits not in seen
        seen.add(bits)
    assert "KH-1301" not in line.codes()


@pytest.mark.parametrize("design", RELAYING)
def test_no_byte_of_a_link_covers_or_becomes_two_keys(design: str) -> None:
    line = Line3(design)
    for node in "acac":
        line.exchange(node)
    for node in "abc":
        used = line.vault_of(node).used
        assert used
        assert len(set(used)) == len(used)


@pytest.mark.parametrize("design", RELAYING)
def test_a_relay_node_keeps_nothing_and_ends_keep_no_key_that_was_given(design: str) -> None:
    line = Line3(design)
    given, _ = line.ask("a")
    fetched, _ = line.fetch("c", given.ids[0])
    line.pass_time(30)
    relay = line.vault_of("b")
    assert relay.made
    assert not relay.placed
    between = {block for block in relay.made if relay.length(block) is not None}
    assert not between
    for node, deliver in (("a", given), ("c", fetched)):
        vault = line.vault_of(node)
        assert deliver.ranges
        assert all(taken.run.number >= FIRST_RUN for taken in deliver.ranges)
        assert not any(vault.holds(taken) for taken in deliver.ranges)


@pytest.mark.parametrize("node", ["a", "b", "c"])
@pytest.mark.parametrize("design", RELAYING)
def test_after_a_restart_of_any_node_distant_keys_are_equal_again(design: str, node: str) -> None:
    line = Line3(design)
    before, old = line.ask("a")
    assert before.refusal is None, before.refusal
    line.world.crash(node)
    line.pass_time(8)
    line.feed_links(10)
    refused = line.fetch("c", before.ids[0])[0].refusal
    if node != "b":
        assert refused is not None, "what an end had is burnt at both"
    seen = {old}
    for end in "aca":
        # What was on its way is not expected any more after some time.
        bits = line.exchange(end, tries=6)
        assert bits not in seen
        seen.add(bits)
    used = line.vault_of(node).used
    assert len(set(used)) == len(used)
    assert "KH-1301" not in line.codes()


def test_stock_of_a_distant_pair_outlives_a_restart_of_the_node_between() -> None:
    line = Line3("nict")
    before, bits = line.ask("a")
    line.world.crash("b")
    line.pass_time(8)
    assert line.fetch("c", before.ids[0]) == (line.answers[max(line.answers)].deliver, bits)


def test_a_design_with_a_controller_has_no_relay_where_none_is_named() -> None:
    given, _ = Line3("sdqaas", controller="").ask("a")
    assert given.refusal is not None
    assert "no node of this network is named" in given.refusal.message


def test_a_design_without_relay_says_so_for_a_site_that_is_no_neighbour() -> None:
    given, _ = Line3("cisco").ask("a")
    assert given.refusal is not None
    assert "no relay" in given.refusal.message


def test_a_pair_waits_for_whole_pads_where_its_design_would_derive_them() -> None:
    line = Line3("kisti")
    line.exchange("a")
    assert all(site.links[peer].book.F == 0 for site in line.sites() for peer in site.links)


@pytest.mark.parametrize(
    "kx",
    [
        Kx("RELAY", Verb.TAKE, number=1),
        Kx("RELAY", Verb.TAKE, number=1, counts=(0,) * 9, names=("", "x", "y")),
        Kx("NO SUCH WORD", Verb.TAKE, number=1),
        Kx("STORED", Verb.AGREE, number=1, counts=(1, 1), distant=True),
    ],
)
def test_nonsense_of_a_neighbour_is_an_error_of_the_peer(kx: Kx) -> None:
    line = Line3("nict")
    process = line.world.processes[NodeId("b")]
    hosted = process.node.hosted
    assert hosted is not None
    number = hosted.site.links["a"].talk._next_heard
    said = Spoken(msgspec.structs.replace(kx, number=number))
    with pytest.raises(PeerError):
        hosted.heard(process.node.context.pairs["a"], DesignMessage(encode(said)))


def test_a_word_before_the_greeting_is_an_error_of_the_peer() -> None:
    line = Line3("nict")
    process = line.world.processes[NodeId("b")]
    hosted = process.node.hosted
    assert hosted is not None
    pair = process.node.context.pairs["a"]
    hosted.opened(pair)
    for said in (Spoken(Kx("PURGE", Verb.DESTROY)), Hail("x", "b", 3, "nict", b"life", b"")):
        with pytest.raises(PeerError):
            hosted.heard(pair, DesignMessage(encode(said)))
