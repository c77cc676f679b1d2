"""Between two ends, whatever happens: bits are conserved, no key is given twice, and both ends hold the same."""

from __future__ import annotations

from bounds import looked_at
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from two_ends import ENDS, TwoEnds

from keyhop.core.machine import Frame
from keyhop.core.model import NANOSECONDS, Purpose, Refusal
from keyhop.simulator.disk import Image
from keyhop.simulator.world import MILLISECOND

ends = some.sampled_from(sorted(ENDS))


class Between(RuleBasedStateMachine):
    @initialize(seed=some.integers(0, 1 << 32), blocks=some.integers(0, 4))
    def they_meet(self, seed: int, blocks: int) -> None:
        self.two = TwoEnds(seed)
        self.copies: dict[str, Image] = {}
        for _ in range(blocks):
            self.two.block(6000)

    @rule(length=some.integers(1, 9000))
    def a_block_comes(self, length: int) -> None:
        self.two.block(length)

    @rule(length=some.integers(64, 4096), end=ends)
    def a_block_comes_at_one_end(self, length: int, end: str) -> None:
        self.two.block(length, only=end)

    @rule(length=some.integers(64, 4096), end=ends)
    def a_block_comes_damaged(self, length: int, end: str) -> None:
        self.two.block(length, flipped=end)

    @rule(end=ends, number=some.integers(1, 12), length=some.integers(8, 130))
    def keys_are_asked_for(self, end: str, number: int, length: int) -> None:
        self.two.ask(end, number, length)

    @precondition(lambda self: self.two.given)
    @rule(pick=some.data(), number=some.integers(1, 3))
    def keys_are_fetched(self, pick: some.DataObject, number: int) -> None:
        first = pick.draw(some.sampled_from(self.two.given))
        same = [key for key in self.two.given if key.owner == first.owner]
        self.two.fetch([first, *pick.draw(some.lists(some.sampled_from(same), max_size=number - 1))])

    @rule(end=ends, run=some.integers(0, 3), start=some.integers(0, 20_000), length=some.integers(1, 200))
    def something_is_fetched_that_nobody_was_given(self, end: str, run: int, start: int, length: int) -> None:
        """A leased byte may be named by a true ID alone, which the edge judges; one that was fetched by none."""
        named = range(start, start + length)
        run_of_the_owner = int(ENDS[end] == "b")
        keys = [key for key in self.two.given if key.owner == ENDS[end]]
        fetched = [key for key in keys if key.fetched and not key.excused]
        leased = self.two.pair(end).their_key.leased if self.two.process(end).alive else None
        if leased is not None and run == run_of_the_owner and leased(start, start + length, Purpose.SUPPLY):
            for key in fetched:
                if key.range.start < named.stop and named.start < key.range.end:
                    bits, _ = self.two.fetch_places(end, [(run, start, length)])
                    assert bits is None, f"{key} is handed out again in part"
            return
        bits, refusal = self.two.fetch_places(end, [(run, start, length)])
        assert bits is None
        assert refusal in (None, Refusal.NOT_FOUND, Refusal.UNAVAILABLE)

    @rule(milliseconds=some.sampled_from((1, 10, 300, 1000, 12_000)))
    def time_passes(self, milliseconds: int) -> None:
        self.two.run(milliseconds * MILLISECOND)

    @rule()
    def the_connection_breaks(self) -> None:
        for wire in list(self.two.world.wires.values()):
            self.two.world.break_wire(wire)
        self.two.run(MILLISECOND)

    @rule(skip=some.integers(0, 3), what=some.sampled_from(("lost", "repeated", "changed")))
    def a_frame_is_harmed(self, skip: int, what: str) -> None:
        world, passed = self.two.world, [0]

        def tamper(sender: str, receiver: str, frame: Frame) -> list[Frame]:
            passed[0] += 1
            if passed[0] != skip + 1:
                return [frame]
            for wire in list(world.wires.values()):
                # TCP loses no frame and goes on: the connection ends a moment later.
                world.at(world.now + 8 * MILLISECOND, world.break_wire, wire)
            if what == "lost":
                return []
            if what == "repeated":
                return [frame, frame]
            return [Frame(frame.type, frame.position, frame.payload[:-1], frame.tag)]

        world.tamper = tamper
        self.two.ask("a", 2, 32)
        self.two.ask("b", 2, 32)
        world.tamper = lambda sender, receiver, frame: [frame]

    @rule(end=ends)
    def an_end_crashes(self, end: str) -> None:
        self.two.world.crash(end)
        self.two.run(MILLISECOND)

    @rule(end=ends)
    def a_copy_is_kept(self, end: str) -> None:
        if len(self.two.process(end).disk.image.blocks) >= 4:
            self.copies[end] = self.two.process(end).disk.keep_copy()

    @precondition(lambda self: self.copies)
    @rule(pick=some.data(), anchor_too=some.booleans())
    def an_end_goes_on_from_a_copy(self, pick: some.DataObject, anchor_too: bool) -> None:
        """One end at a time: if both are old copies, nobody remembers."""
        end = pick.draw(some.sampled_from(sorted(self.copies)))
        self.two.heal()
        self.two.restore(end, self.copies[end], anchor_too=anchor_too)

    @invariant()
    def every_byte_is_in_one_state_and_booked(self) -> None:
        if hasattr(self, "two"):
            self.two.check()

    def teardown(self) -> None:
        if not hasattr(self, "two"):
            return
        self.two.heal()
        self.two.run(NANOSECONDS)
        for key in self.two.given:
            if not key.fetched and not key.excused:
                assert self.two.fetch([key]) is None, f"{key} cannot be fetched in the end"
        self.two.check()


TestBetween = Between.TestCase
TestBetween.settings = looked_at(80, steps=25)
