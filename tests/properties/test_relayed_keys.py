"""Key that crosses a trusted node: the same at both ends, once, and nothing in between, whatever happens on its way."""

from __future__ import annotations

from bounds import looked_at
from hypothesis import given
from hypothesis import strategies as some

from keyhop.core.designs import DESIGNS
from keyhop.core.model import AppId, NodeId, Range, Refusal, RunKind
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.extents import Extents
from keyhop.crypto.keyid import Coordinates
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import MILLISECOND, Answered, World

LINKS = (("a", "b"), ("b", "c"))
KEY_BYTES = 32
TRIES = 40

moments = some.integers(0, 3000)
harms = some.sampled_from(("break", "cut", "crash"))
faults = some.lists(some.tuples(moments, harms, some.sampled_from(LINKS)), max_size=5)


class Line:
    """a - b - c; `a1` shares keys with `c1`."""

    def __init__(self, seed: int) -> None:
        settings = []
        for node in "abc":
            around = [peer for link in LINKS if node in link for peer in link if peer != node]
            settings.append(
                NodeSettings(
                    node=NodeId(node),
                    neighbours=tuple(
                        Neighbour(node=NodeId(peer), link="".join(sorted(node + peer)).encode() * 8, segment_bytes=1024)
                        for peer in around
                    ),
                    applications=(
                        Application(id=AppId(f"{node}1"), peers=frozenset({AppId("c1")} if node == "a" else ())),
                    ),
                )
            )
        self.world = World(seed, settings, DESIGNS["keyhop"], NodeVault)
        self.world.restart_after = (10 * MILLISECOND, 300 * MILLISECOND)
        self.answers: dict[int, Answered] = {}
        self.world.on_answer.append(lambda answer: self.answers.update({answer.request: answer}))
        self.blocks = 0
        self.world.start()

    def run(self, milliseconds: int) -> None:
        self.world.run(self.world.now + milliseconds * MILLISECOND)

    def feed_links(self, length: int) -> None:
        for link in LINKS:
            bits = self.world.random.randbytes(length)
            for node, peer in (link, link[::-1]):
                self.world.deliver_block(node, peer, "qkd", self.blocks, bits)
        self.blocks += 1

    def harm(self, kind: str, link: tuple[str, str]) -> None:
        if kind == "crash":
            self.world.crash(link[1])
        elif kind == "cut":
            self.world.cut(*link)
            self.world.at(self.world.now + 400 * MILLISECOND, self.world.mend, *link)
        else:
            for wire in [wire for wire in self.world.wires.values() if set(wire.ends) == set(link)]:
                self.world.break_wire(wire)

    def keys(self, number: int) -> list[tuple[Range, bytes]]:
        """enc_keys, again until there is key and a way."""
        process = self.world.processes[NodeId("a")]
        for _ in range(TRIES):
            request = self.world.request()
            if process.alive:
                process.feed(events.KeysWanted(request, "a1", "c1", number, 8 * KEY_BYTES))
            self.run(1100)
            answer = self.answers.get(request)
            if answer is not None and answer.deliver.refusal is None:
                return list(zip(answer.deliver.ranges, answer.bits, strict=True))
            self.feed_links(4096)
        raise AssertionError("no key comes over the line although all is well")

    def fetched(self, place: Range) -> bytes | None:
        """dec_keys, again until the far end has compared with the near one; None: it is not there."""
        for _ in range(TRIES):
            request = self.world.request()
            coordinates = (Coordinates(place.run.number, place.start, place.length),)
            self.world.processes[NodeId("c")].feed(events.KeysFetched("a", [events.Fetch(request, coordinates)]))
            self.run(100)
            answer = self.answers[request]
            if answer.deliver.refusal is None:
                return answer.bits[0]
            if answer.deliver.refusal.reason is not Refusal.UNAVAILABLE:
                return None
            self.run(1000)
        raise AssertionError(f"the far end never opens: {place} is not given out")

    def image(self, node: str) -> dict[Range, bytes]:
        return self.world.processes[NodeId(node)].disk.image.blocks

    def check_books(self) -> None:
        """Stock is what is there, on each hop and between the ends; what a relay took is used at both ends or lost."""
        for name, process in self.world.processes.items():
            for pair in process.node.context.pairs.values():
                for run in pair.runs.values():
                    if run.kind is not RunKind.KEY:
                        assert run.book.stock == run.present.total(), f"{name}: {run.id}"
                    elif not run.owned:
                        there = Extents((s.start, s.end) for s in run.segments.values() if s.mark != "gone")
                        for low, high in run.used:
                            there.remove(low, high)
                        assert run.book.stock == there.total(), f"{name}: {run.id}"

    def holds(self, node: str, bits: bytes) -> bool:
        """Whether a node stores these bits at a place that it may still use."""
        image = self.world.processes[NodeId(node)].disk.image
        for block, stored in image.blocks.items():
            at = stored.find(bits)
            if at >= 0 and not Extents(image.used.get(block.run, ())).covers(block.start + at, block.start + at + 1):
                return True
        return False


@looked_at(25)
@given(some.integers(0, 1 << 32), some.integers(1, 4), some.integers(1, 4), faults)
def test_a_key_over_a_trusted_node_is_the_same_at_both_ends_once(
    seed: int, blocks: int, number: int, wrong: list[tuple[int, str, tuple[str, str]]]
) -> None:
    line = Line(seed)
    line.run(800)
    for _ in range(blocks):
        line.feed_links(8192)
        line.run(20)
    for moment, kind, link in wrong:
        line.world.at(line.world.now + moment * MILLISECOND, line.harm, kind, link)
    line.run(3500)
    keys = line.keys(number) + line.keys(1)
    places = Extents()
    for place, bits in keys:
        assert not places.touches(place.start, place.end)
        places.add(place.start, place.end)
        assert not line.holds("b", bits), "the node in between could give the key"
        assert line.fetched(place) == bits
        assert line.fetched(place) is None
    assert len({bits for _, bits in keys}) == len(keys)
    line.run(100)
    line.check_books()
    mine, theirs = line.image("a"), line.image("c")
    for block, bits in mine.items():
        if block.run.peer == "c":
            other = theirs.get(Range(block.run._replace(peer=NodeId("a")), block.start, block.length))
            assert other is None or other == bits
