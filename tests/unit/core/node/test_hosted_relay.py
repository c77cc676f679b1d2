"""Relay of other designs on nodes: keys of distant pairs are equal at both ends, and nobody between keeps any."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keyhop.core.designs import DESIGNS, no_relay, not_hosted
from keyhop.core.machine import Deliver
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.policy.relay import NoRelay
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import Answered, World

BLOCK_BYTES = 16_384
RATE_BPS = 20_000
RELAYING = sorted(
    name
    for name, design in DESIGNS.items()
    if name != "keyhop" and not not_hosted(design) and not no_relay(design) and not isinstance(design.relay, NoRelay)
)


def settings(name: str, around: str, others: str) -> NodeSettings:
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
    )


class Line3:
    """Nodes a, b and c in a line, of one design; links that give blocks; pads that were used, and keys given."""

    def __init__(self, design: str) -> None:
        # No traffic of b: what its vault holds is what relay has left there.
        nodes = [settings("a", "b", "c"), settings("b", "ac", ""), settings("c", "b", "a")]
        self.world = World(1, nodes, DESIGNS[design], NodeVault)
        self.answers: dict[int, Answered] = {}
        self.world.on_answer.append(lambda answered: self.answers.__setitem__(answered.request, answered))
        self.world.start()
        self.blocks = 0
        self.pass_time(3)
        self.feed_links(6)

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

    def exchange(self, node: str) -> bytes:
        given, bits = self.ask(node)
        assert given.refusal is None, given.refusal
        assert given.made is not None and given.made.size_bits == 256
        assert len(bits) >= 32
        fetched, same = self.fetch("c" if node == "a" else "a", given.ids[0])
        assert fetched.refusal is None, fetched.refusal
        assert (same, fetched.made) == (bits, given.made)
        return bits

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
