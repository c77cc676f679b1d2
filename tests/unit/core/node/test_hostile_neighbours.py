"""What a neighbour with a genuine certificate and genuine keys can say, and still cannot do."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from small_worlds import deliver, pair, run, settings, started

from keyhop.core.machine import Frame, Output, Send
from keyhop.core.messages import (
    CIPHERTEXT_LIMIT_BYTES,
    LABELS_LIMIT_BYTES,
    MANIFEST_LIMIT_BYTES,
    RANGES_PER_MESSAGE,
    AgreeBlock,
    AnswerReserve,
    Forward,
    FrameType,
    Manifest,
    Plain,
    PlainMessage,
    Proof,
    ProposedBlock,
    RelayBatch,
    State,
    decode,
    encode,
)
from keyhop.core.model import AppId, NodeId, Range
from keyhop.core.node.context import Application
from keyhop.core.node.events import FrameArrived
from keyhop.core.node.intake import RESERVED_SOURCES
from keyhop.core.node.pair import Keyed, Pair
from keyhop.core.node.relay import Batch
from keyhop.core.node.tunnel import CLOSED
from keyhop.core.node.vault import RELAY, BlockName
from keyhop.simulator.world import Process, World
from keyhop.wire import frames

BLOCK_BYTES = 1 << 16


@pytest.fixture
def world() -> World:
    """a - b - c, with key on both links."""
    world = started(
        [
            settings(
                name,
                around,
                applications=tuple(Application(id=AppId(f"{name}1"), peers=frozenset({AppId(p)})) for p in wanted),
            )
            for name, around, wanted in (("a", "b", ("c1",)), ("b", "ac", ()), ("c", "b", ("a1",)))
        ]
    )
    for one, other in ("ab", "bc"):
        deliver(world, one, other, 0, BLOCK_BYTES)
    run(world, 1)
    return world


def process(world: World, name: str) -> Process:
    return world.processes[NodeId(name)]


def says(world: World, sender: str, receiver: str, message: PlainMessage) -> None:
    """The sender's node itself would not say it."""
    current = pair(world, receiver, sender).current
    assert current is not None
    frame = Frame(int(FrameType.PLAIN), 0, encode(Plain((message,))), b"")
    process(world, receiver).feed(FrameArrived(sender, current.id, frame))


@pytest.mark.parametrize("kind", [CLOSED, FrameType.HELLO, FrameType.GRANT])
def test_nobody_ends_the_connection_of_two_others_in_the_name_of_one_of_them(world: World, kind: int) -> None:
    standing = pair(world, "b", "a").current
    assert standing is not None
    says(world, "c", "b", Forward("a", "b", 5, standing.id, kind, 0, b"", b""))
    run(world, 0.1)
    assert pair(world, "b", "a").current is standing
    run(world, 20)
    assert pair(world, "b", "a").current is standing and pair(world, "a", "b").is_open


@pytest.mark.parametrize("module", sorted(RESERVED_SOURCES))
def test_a_proposal_under_a_name_that_the_node_uses_itself_destroys_no_bits_there(world: World, module: str) -> None:
    b, name = process(world, "b"), BlockName(NodeId("a"), module, 7)
    b.vault.accept(name, bytearray(1088))

    def make(key: Range) -> AgreeBlock:
        return AgreeBlock(module, (ProposedBlock(7, 1088, 0.0, ""),), key.start, bytes(16), (), 1024, False)

    a = process(world, "a").node
    a.context.say(pair(world, "a", "b"), Keyed(make))
    run(world, 1)
    assert b.vault.length(name) == 1088
    assert any(module in notice.text and notice.code == "KH-1301" for notice in b.notices)


@pytest.mark.parametrize("module", sorted(RESERVED_SOURCES))
def test_a_proof_that_tells_of_blocks_under_such_a_name_is_refused(world: World, module: str) -> None:
    # The sender leaves out of its PROOF what it keeps of relay; here the name is another one until it is decoded.
    marks, made = process(world, "a").node.context.intake_marks, "".join(reversed(module))
    marks["b", made] = (5, 1)
    proofs = process(world, "b").node.intake

    def told(of: Pair, proof: Proof, merge: Callable[[Pair, Proof], None] = proofs.compared) -> None:
        renamed = tuple((module if name == made else name, *seen) for name, *seen in proof.intake)
        merge(of, msgspec.structs.replace(proof, intake=renamed))

    links = process(world, "b").node.links
    links.on_compared[links.on_compared.index(proofs.compared)] = told
    world.break_wire(next(wire for wire in world.wires.values() if set(wire.ends) == {"a", "b"}))
    run(world, 2)
    assert ("a", module) not in process(world, "b").node.context.intake_marks
    assert any("no module's name" in notice.text for notice in process(world, "b").notices)


def test_a_refusal_names_a_node_of_the_path_or_nobody(world: World) -> None:
    """Routes go round the node that refused; names that stand nowhere would be remembered for ever."""
    relay = process(world, "a").node.relay
    for number in range(1000, 1100):
        relay.batches[number] = Batch(number, ("a", "b", "c"), 2048, [], world.now)
        says(world, "b", "a", AnswerReserve(number, ("a", "b", "c"), False, f"ghost{number}", "no"))
    run(world, 0.1)
    assert set(relay._starved) <= {"b", "c"}
    assert not set(relay.batches) & set(range(1000, 1100)), "they are given up all the same"


def test_a_batch_of_an_invented_source_makes_no_pair(world: World) -> None:
    """What is kept of a pair is kept for ever: invented ones would leave no room for those that are."""
    run(world, 20)
    assert pair(world, "c", "a").their_key.append, "a source that is known is taken at its word"
    c = process(world, "c").node
    ghost, length = NodeId("ghost"), 1088
    manifest = Manifest((), 1024, bytes(16), ("ghost", "b", "c"), False)
    c.context.vault.gather(BlockName(ghost, RELAY, 1), ())
    message = RelayBatch("ghost", "c", 1, ((0, length),), length, b"", encode(manifest), b"")
    c.relay.hops._receive(("ghost", "b", "c"), BlockName(ghost, RELAY, 1), message)
    assert "ghost" not in c.context.pairs
    assert c.context.vault.length(BlockName(ghost, RELAY, 1)) is None, "its bits are destroyed"
    assert [notice.peer for notice in c.context.out.notice if notice.code == "KH-3202"] == ["b"]


def test_a_manifest_too_long_for_the_next_frame_is_refused_where_it_arrives(world: World) -> None:
    """The node after the source puts a ciphertext beside it: a frame that cannot be sent would end its process."""
    long = RelayBatch("a", "c", 1, ((0, 1088),), 1088, b"", bytes(MANIFEST_LIMIT_BYTES + 1), b"")
    process(world, "a").node.context.say(pair(world, "a", "b"), long)
    process(world, "a").perform(flushed(world, "a"))
    run(world, 0.1)
    assert any("does not decode" in notice.text for notice in process(world, "b").notices)


def test_whatever_waits_goes_out_in_frames_that_can_be_sent(world: World) -> None:
    pads = tuple((2**33 + 2 * at, 1) for at in range(RANGES_PER_MESSAGE))
    labels = bytes(LABELS_LIMIT_BYTES)
    scattered = RelayBatch("a", "c", 1, pads, RANGES_PER_MESSAGE, b"", bytes(MANIFEST_LIMIT_BYTES), labels)
    whole = RelayBatch("a", "c", 1, pads, RANGES_PER_MESSAGE, bytes(CIPHERTEXT_LIMIT_BYTES), b"", labels)
    for message in [*[scattered] * 5, whole, whole]:
        process(world, "a").node.context.say(pair(world, "a", "b"), message)
    sent = [send.frame for send in flushed(world, "a").send if isinstance(send, Send)]
    bodies = [decode(frame.type, frame.payload) for frame in sent]
    assert sum(len(body.messages) for body in bodies if isinstance(body, State)) == 7
    for frame in sent:
        frames.encode(frame.type, frame.position, frame.payload, frame.tag)


def flushed(world: World, name: str) -> Output:
    node = process(world, name).node
    node.context.out = Output()
    node.links.frames.flush()
    return node.context.out
