"""A world without bits goes as the same world with bits, message by message."""

from __future__ import annotations

from typing import Any

import pytest

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Frame
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Application, NodeSettings
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.vault import WeightlessVault
from keyhop.simulator.world import Answered, World, chain

NAMES = ["a", "b", "c"]
BLOCK_BYTES = 16_384


def world(seed: int, vault: Any) -> World:
    around = chain(NAMES, lambda a, b: "-".join(sorted((a, b))).encode().ljust(16))
    settings = [
        NodeSettings(
            node=NodeId(name),
            neighbours=around[name],
            applications=(Application(id=AppId(f"sae-{name}"), peers=frozenset(AppId(f"sae-{n}") for n in NAMES)),),
        )
        for name in NAMES
    ]
    return World(seed, settings, DESIGNS["keyhop"], vault)


def trace(seed: int, vault: Any) -> list[tuple[object, ...]]:
    """Blocks, keys between neighbours and over a relay node, a crash; all that is said and answered, with times."""
    told: list[tuple[object, ...]] = []
    made = world(seed, vault)

    def framed(sender: str, receiver: str, frame: Frame) -> None:
        told.append((made.now, sender, receiver, frame.type, frame.position, len(frame.payload)))

    def answered(answer: Answered) -> None:
        refusal = answer.deliver.refusal
        told.append((made.now, answer.node, answer.deliver.ranges, refusal.message if refusal else ""))

    made.on_frame.append(framed)
    made.on_answer.append(answered)
    made.start()
    made.run(made.now + 2 * NANOSECONDS)
    for number in range(6):
        for node, peer in (("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")):
            made.deliver_block(node, peer, "-".join(sorted((node, peer))), number, bytes(BLOCK_BYTES))
        made.run(made.now + NANOSECONDS)
    for number in range(12):
        for master, slave in (("a", "b"), ("a", "c"), ("c", "a")):
            wanted = events.KeysWanted(made.request(), f"sae-{master}", f"sae-{slave}", 1, 256)
            made.processes[NodeId(master)].feed(wanted)
        made.run(made.now + NANOSECONDS // 2)
        if number == 6:
            made.crash("b")
    made.run(made.now + 5 * NANOSECONDS)
    return told


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_traces_with_and_without_bits_are_the_same(seed: int) -> None:
    with_bits, without = trace(seed, NodeVault), trace(seed, WeightlessVault)
    assert len(with_bits) > 100
    assert any(len(entry) == 4 and entry[2] for entry in with_bits), "some keys were given"
    assert with_bits == without
