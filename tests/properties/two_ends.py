"""Two real nodes in a pretend world, and an onlooker who keeps count: who was given what, where each byte is."""

from __future__ import annotations

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS, AppId, NodeId, Purpose, Range, Refusal, RunKind
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.extents import Extents
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import GONE, UNTOUCHED, Run
from keyhop.crypto.keyid import Coordinates
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import Image
from keyhop.simulator.world import MILLISECOND, Answered, Process, Timing, World

MODULE = "qkd"
MOMENT_NS = 50 * MILLISECOND
ENDS = {"a": "b", "b": "a"}
SETTLED_TRIES = 20
FOUND_RESTORED = "KH-5101"


class Given:
    """A key that a master was given, by its place and its bits."""

    def __init__(self, owner: str, range: Range, bits: bytes) -> None:
        self.owner = owner
        self.follower = ENDS[owner]
        self.range = range
        self.bits = bits
        self.fetched = False
        self.excused = False
        """An end was restored: it need not be there any more."""

    def __repr__(self) -> str:
        return f"key {self.owner}>{self.follower} {self.range.start}+{self.range.length}"


class TwoEnds:
    """Blocks, requests, fetches and faults between `a` and `b`; whatever breaks a promise raises AssertionError."""

    def __init__(self, seed: int) -> None:
        settings = [
            NodeSettings(
                node=NodeId(node),
                neighbours=(Neighbour(node=NodeId(peer), link=b"two ends of it__", segment_bytes=1024),),
                applications=(Application(id=AppId(f"{node}1"), peers=frozenset({AppId(f"{peer}1")})),),
                directory={AppId(f"{peer}1"): NodeId(peer)},
            )
            for node, peer in ENDS.items()
        ]
        timing = Timing(redial=(20 * MILLISECOND, 60 * MILLISECOND))
        self.world = World(seed, settings, DESIGNS["keyhop"], NodeVault, timing)
        self.world.restart_after = (10 * MILLISECOND, 100 * MILLISECOND)
        self.world.on_answer.append(self._answered)
        self.given: list[Given] = []
        self.spent = {"a": Extents(), "b": Extents()}
        """Positions of each owner's key run that left as a key."""
        self.seen: set[bytes] = set()
        """Bits of keys, in pieces that no two keys share by chance."""
        self._answers: dict[int, Answered] = {}
        self._wanted: dict[int, tuple[str, int, int]] = {}
        self.blocks = 0
        self.world.start()
        self.run(NANOSECONDS // 2)

    def process(self, node: str) -> Process:
        return self.world.processes[NodeId(node)]

    def pair(self, node: str) -> Pair:
        return self.process(node).node.context.pairs[ENDS[node]]

    def run(self, ns: int = MOMENT_NS) -> None:
        """Lets time pass, then the commits under way return."""
        self.world.run(self.world.now + ns)
        for _ in range(SETTLED_TRIES):
            if not any(process.under_way for process in self.world.processes.values()):
                return
            self.world.run(self.world.now + MILLISECOND)
        raise AssertionError("commits never end")

    # --- what happens -------------------------------------------------------------------------------------------------

    def block(self, length: int, only: str = "", flipped: str = "") -> None:
        bits = self.world.random.randbytes(length)
        for node, peer in ENDS.items():
            here = bytes([bits[0] ^ 1]) + bits[1:] if flipped == node else bits
            if only in ("", node):
                self.world.deliver_block(node, peer, MODULE, self.blocks, here)
        self.blocks += 1
        self.run()

    def ask(self, node: str, number: int, length: int) -> None:
        process, request = self.process(node), self.world.request()
        if process.alive:
            self._wanted[request] = (node, number, length)
            process.feed(events.KeysWanted(request, f"{node}1", f"{ENDS[node]}1", number, 8 * length))
        self.run()

    def _answered(self, answer: Answered) -> None:
        self._answers[answer.request] = answer
        wanted = self._wanted.pop(answer.request, None)
        if wanted is None or answer.deliver.refusal is not None:
            return
        node, number, length = wanted
        assert [range.length for range in answer.deliver.ranges] == [length] * number
        for range, bits in zip(answer.deliver.ranges, answer.bits, strict=True):
            assert not self.spent[node].touches(range.start, range.end), f"{range} of {node} is given twice"
            self.spent[node].add(range.start, range.end)
            pieces = {bits[at : at + 8] for at in (0, length - 8)}
            assert not pieces & self.seen, f"the bits of {range} of {node} were given before"
            self.seen |= pieces
            self.given.append(Given(node, range, bits))

    def fetch(self, keys: list[Given]) -> Refusal | None:
        """One request at the far end for keys of one owner: all of them, the same bits, each for the first time."""
        places = [(key.range.run.number, key.range.start, key.range.length) for key in keys]
        bits, refusal = self.fetch_places(keys[0].follower, places)
        if bits is None:
            due = not any(key.fetched or key.excused for key in keys) and len(set(places)) == len(places)
            assert not (due and refusal is Refusal.NOT_FOUND), f"{keys} cannot be fetched"
            return refusal
        assert bits == tuple(key.bits for key in keys), f"{keys}: the two ends hold different bits"
        for key in keys:
            assert not key.fetched, f"{key} is handed out twice"
            key.fetched = True
        return None

    def fetch_places(
        self, node: str, places: list[tuple[int, int, int]]
    ) -> tuple[tuple[bytes, ...] | None, Refusal | None]:
        """The bits, or why there are none; neither where the node is not there to answer."""
        process, request = self.process(node), self.world.request()
        if not process.alive:
            return None, None
        coordinates = tuple(Coordinates(*place) for place in places)
        process.feed(events.KeysFetched(ENDS[node], [events.Fetch(request, coordinates)]))
        self.run()
        answer = self._answers.get(request)
        if answer is None:
            return None, None
        refusal = answer.deliver.refusal
        return (None, refusal.reason) if refusal is not None else (answer.bits, None)

    def restore(self, node: str, image: Image, *, anchor_too: bool) -> None:
        """A node goes on from an old copy, and meets its peer."""
        notices = self.process(node).notices
        known = sum(notice.code == FOUND_RESTORED for notice in notices)
        for key in self.given:
            key.excused = True
        self.world.crash(node, image, anchor_too=anchor_too)
        self.run()
        self.heal()
        if sum(notice.code == FOUND_RESTORED for notice in notices) == known:
            # Nobody heard anything of what the copy lacks: if that was a fetch, it can be made once more.
            for key in self.given:
                key.fetched = key.fetched and key.follower != node

    def heal(self) -> None:
        """All faults over: the ends find each other."""
        for _ in range(100):
            if all(self.process(node).alive and self.pair(node).is_open for node in ENDS):
                return
            self.run(NANOSECONDS // 2)
        raise AssertionError("the link does not open again")

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        for node in ENDS:
            if self.process(node).alive:
                self._check_end(node)
        self._check_stored()

    def _check_end(self, node: str) -> None:
        pair = self.pair(node)
        for run in pair.runs.values():
            if run.kind is not RunKind.KEY:
                assert run.book.stock == run.present.total(), f"{node}: {run.id}"
                assert all(end <= run.append for _, end in run.present)
                continue
            places = self._places(node, pair, run)
            owed = pair.stock.taken + pair.stock.wasted if run.owned else 0
            stock = places["untouched"].total() + places["leased"].total() + owed
            assert run.book.stock == stock, f"{node}: {run.id} books {run.book.stock}, {stock} are there"
            if pair.compared:
                owner = node if run.owned else ENDS[node]
                for start, end in self.spent[owner]:
                    assert not places["untouched"].touches(start, end), f"{node}: a key given lies untouched"
                    if run.owned:
                        assert not places["leased"].touches(start, end), f"{node}: a key given can be given again"

    def _places(self, node: str, pair: Pair, run: Run) -> dict[str, Extents]:
        """Each position of a key run in exactly one state; what is in none is a hole or forgotten."""
        places = {"untouched": Extents(), "leased": Extents(), "gone": Extents()}
        every = Extents()

        def put(state: str, start: int, end: int) -> None:
            assert start < end <= run.append, f"{node}: {start}-{end} of {run.id} lies outside the run"
            assert not every.touches(start, end), f"{node}: {start}-{end} of {run.id} is in two states"
            every.add(start, end)
            places[state].add(start, end)

        marked: dict[str, Extents] = {UNTOUCHED: Extents(), GONE: Extents()}
        marked.update({str(purpose): Extents() for purpose in Purpose})
        for segment in run.segments.values():
            assert not any(some.touches(segment.start, segment.end) for some in marked.values())
            marked[segment.mark].add(segment.start, segment.end)
        for start, end in marked[UNTOUCHED]:
            put("untouched", start, end)
        for start, end in marked[GONE]:
            put("gone", start, end)
        if run.owned:
            for purpose, hand in ((Purpose.SUPPLY, pair.stock.intervals()), (Purpose.PAD, list(pair.pads))):
                for start, end in hand:
                    assert marked[purpose].covers(start, end), f"{node}: {start}-{end} is in hand and not leased"
                    put("leased", start, end)
        else:
            # What is burnt of a lease in use keeps its used bytes until the floor has passed it.
            touched = Extents(span for mark, spans in marked.items() if mark != UNTOUCHED for span in spans)
            for start, end in run.used:
                assert touched.covers(start, end), f"{node}: {start}-{end} is used and was never leased"
            for purpose in Purpose:
                for start, end in marked[purpose]:
                    unused = Extents([(start, end)])
                    for low, high in run.used.within(start, end):
                        unused.remove(low, high)
                    for low, high in unused:
                        put("leased", low, high)
        return places

    def _check_stored(self) -> None:
        """Both ends hold the same: a block sealed at the same place has the same bits."""
        here, there = (self.process(node).disk.image.blocks for node in ENDS)
        for block, bits in here.items():
            other = there.get(Range(block.run._replace(peer=NodeId("a")), block.start, block.length))
            assert other is None or other == bits, f"{block}: the two ends store different bits"
