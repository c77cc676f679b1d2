"""How a restored node names its epoch, and how its peer tells one epoch from another."""

from __future__ import annotations

import random

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Frame, Output, Put
from keyhop.core.messages import FrameType, Proof, decode
from keyhop.core.model import NANOSECONDS, NodeId
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.node import Node
from keyhop.core.node.rows import NodeRow, StartRow
from keyhop.core.node.run import GONE
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import PretendDisk
from keyhop.simulator.world import World


def node_of(disk: PretendDisk, start: int, restored: str = "", seed: int = 0) -> Node:
    settings = NodeSettings(node=NodeId("a"), neighbours=(Neighbour(node=NodeId("b"), link=bytes(16)),))
    entropy = random.Random(f"{start} {seed}").randbytes
    vault = NodeVault(disk, bytes(32))  # type: ignore[arg-type]
    return Node(settings, DESIGNS["keyhop"], vault, entropy, disk.load(), start=start, now=0, restored=restored)


def commit(node: Node, disk: PretendDisk, output: Output) -> None:
    node.complete(output)
    disk.commit(output.save, lambda range: b"")


def started(disk: PretendDisk, start: int, restored: str = "", seed: int = 0) -> Node:
    node = node_of(disk, start, restored, seed)
    commit(node, disk, node.begin())
    return node


def named(node: Node) -> tuple[int, bytes]:
    return node.context.epoch, node.context.epoch_incarnation


def stored(disk: PretendDisk) -> tuple[int, bytes]:
    (row,) = (row for row in disk.load().rows if isinstance(row, NodeRow))
    return row.epoch, row.epoch_incarnation


def test_a_new_node_names_its_epoch_by_its_first_start_and_keeps_it_over_starts() -> None:
    disk = PretendDisk()
    first = started(disk, 1)
    assert named(first) == (1, first.context.incarnation) == stored(disk)
    assert named(started(disk, 2)) == named(first)


def test_a_restored_node_names_its_epoch_by_its_start_number_in_the_same_commit() -> None:
    disk = PretendDisk()
    started(disk, 3)
    node = node_of(disk, 9, restored="the store is behind its anchor")
    output = node.begin()
    (row,) = (save.row for save in output.save if type(save) is Put and type(save.row) is NodeRow)
    assert row.epoch == row.start == node.context.start >= 9
    assert row.epoch_incarnation == node.context.incarnation


def test_two_restores_of_one_copy_are_two_epochs_even_if_each_crashes_before_it_meets_anybody() -> None:
    disk = PretendDisk()
    started(disk, 3)
    copy = disk.keep_copy()
    epochs = set()
    for anchor in (3, 20):
        disk.put_back(copy)
        start = max(started(disk, anchor + 1, restored="behind").context.start, anchor + 1)
        epochs.add(named(started(disk, start + 1)))
    assert len(epochs) == 2


def test_two_restores_to_the_same_start_number_are_two_epochs() -> None:
    disk = PretendDisk()
    started(disk, 3)
    copy = disk.keep_copy()
    epochs = []
    for seed in (1, 2):
        disk.put_back(copy)
        epochs.append(named(started(disk, 4, restored="the anchor is missing", seed=seed)))
    assert epochs[0][0] == epochs[1][0] and epochs[0] != epochs[1]


def test_what_was_told_before_a_burning_is_forgotten_with_it_even_if_a_crash_follows() -> None:
    disk = PretendDisk()
    started(disk, 3)
    burnt = started(disk, 4, restored="behind").context.start
    rows = [row for row in disk.load().rows if isinstance(row, StartRow)]
    assert [row.start for row in rows] == [burnt]


def pair_of_nodes() -> World:
    settings = [
        NodeSettings(
            node=NodeId(name),
            neighbours=(Neighbour(node=NodeId(peer), link=b"l" * 16, segment_bytes=1024),),
            applications=(Application(id=f"{name}1", peers=frozenset([f"{peer}1"])),),  # type: ignore[arg-type,list-item]
        )
        for name, peer in (("a", "b"), ("b", "a"))
    ]
    return World(7, settings, DESIGNS["keyhop"], NodeVault)


def leases(world: World, node: str, peer: str) -> int:
    pair = world.processes[NodeId(node)].node.context.pairs[peer]
    return sum(segment.mark not in ("untouched", GONE) for run in (pair.own_key, pair.their_key)
               for segment in run.segments.values())  # fmt: skip


def open_with_leases(world: World) -> None:
    world.start()
    world.run(world.now + 3 * NANOSECONDS)
    bits = random.Random(1)
    for number in range(6):
        block = bits.randbytes(6000)
        for node, peer in (("a", "b"), ("b", "a")):
            world.deliver_block(node, peer, "q", number, block)
    world.run(world.now + 3 * NANOSECONDS)
    assert leases(world, "a", "b") and leases(world, "b", "a")


def test_a_peer_burns_for_an_epoch_of_a_lower_number_than_it_knew() -> None:
    """A node whose anchor is lost with its store knows no number that is surely higher than all its earlier ones."""
    world = pair_of_nodes()
    open_with_leases(world)
    a, b = world.processes[NodeId("a")], world.processes[NodeId("b")]
    b.node.context.pairs["a"].peer_epoch += 1000
    proofs: list[Proof] = []

    def heard(sender: str, receiver: str, frame: Frame) -> None:
        if sender == "a" and frame.type == FrameType.PROOF:
            body = decode(frame.type, frame.payload)
            assert isinstance(body, Proof)
            proofs.append(body)

    world.on_frame.append(heard)
    theirs = b.node.context.pairs["a"].their_key.segments
    held = [segment.start for segment in theirs.values() if segment.mark == "supply"]
    assert held
    for wire in list(world.wires.values()):
        world.break_wire(wire)
    world.run(world.now + 3 * NANOSECONDS)
    assert proofs and proofs[-1].epoch < 1000
    assert all(theirs[start].mark == GONE for start in held)
    pair = b.node.context.pairs["a"]
    assert (pair.peer_epoch, pair.peer_epoch_incarnation) == named(a.node)
    burnt = [notice for notice in b.notices if notice.code == "KH-5201"]
    for wire in list(world.wires.values()):
        world.break_wire(wire)
    world.run(world.now + 3 * NANOSECONDS)
    assert [notice for notice in b.notices if notice.code == "KH-5201"] == burnt, "the same epoch burns once"


def test_a_peer_keeps_its_leases_over_a_restart_of_the_other_end() -> None:
    world = pair_of_nodes()
    open_with_leases(world)
    world.crash("a")
    world.run(world.now + 5 * NANOSECONDS)
    assert not [notice for notice in world.processes[NodeId("b")].notices if notice.code == "KH-5201"]
