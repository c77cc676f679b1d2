"""Sites of a design on a bench: blocks, requests and fetches one by one, at moments that a test chooses."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from keyhop.core.composed.line import Line, LineSettings
from keyhop.core.composed.nouns.messages import (
    Answered,
    KeyAsked,
    KeyFetched,
    Moves,
    Name,
    Said,
    StreamClosed,
    StreamOpened,
    StreamRetuned,
    Woke,
)
from keyhop.core.designs import Design
from keyhop.simulator.arena import DELAY_NS, Arena
from keyhop.simulator.record import EndBook, Scenario

SECOND = 1_000_000_000
RATE_BPS = 10_000


class Bench(Arena):
    """An arena without modules, demands and faults of its own. Every test ends with `balanced`."""

    def __init__(
        self,
        design: Design,
        *links: str,
        rate_bps: int = RATE_BPS,
        delay_ns: int = DELAY_NS,
        aside: float = 0.0,
        **settings: Any,
    ) -> None:
        """Links are "A-B"; `settings` are those of every line. Nothing is set aside for tags unless a test says so."""
        pairs = {frozenset(link.split("-")): rate_bps for link in links or ("A-B",)}

        def of(node: str, peer: str, rate: int, distant: bool) -> LineSettings:
            return LineSettings(rate_bps=rate, aside=aside, **settings)

        super().__init__(design, pairs, Scenario((), ()), seed=1, delay_ns=delay_ns, line_settings=of)
        self.answers: dict[int, Answered] = {}
        self.said: list[tuple[str, Said]] = []
        """All that left a site, with who said it."""
        self.restarted: list[str] = []
        self.lose: Callable[[str, Said], bool] = lambda node, said: False
        """Which messages get lost."""

    # --- what a test does ---------------------------------------------------------------------------------------------

    def give(self, bits: int, link: str = "A-B", *, only: str = "") -> None:
        """A module's block at both ends, or at one."""
        pair = frozenset(link.split("-"))
        if only:
            (self.lose_block[pair],) = pair - {only}
        self.block(pair, bits)

    def open(self, stream: str, at: str, peer: str, *, rate_bps: int = 1000, size_bits: int = 256, **more: Any) -> None:
        """Keys are asked for `at`, and named at `peer`."""
        self.step(at, StreamOpened(stream, peer, rate_bps, size_bits, True, **more))
        self.step(peer, StreamOpened(stream, at, rate_bps, size_bits, False, **more))

    def connect(self, stream: str, at: str, peer: str, *, asks: bool, rate_bps: int = 1000, **more: Any) -> None:
        """One end alone."""
        self.step(at, StreamOpened(stream, peer, rate_bps, more.pop("size_bits", 256), asks, **more))

    def retune(self, stream: str, rate_bps: int, *ends: str) -> None:
        for node in ends:
            self.step(node, StreamRetuned(stream, rate_bps))

    def restart(self, node: str, *, down_s: float = 0) -> None:
        """Its memory is gone at once, and messages to it until it is back."""
        self.restarted.append(node)
        self.down.add(node)
        self.at(self.now + round(down_s * SECOND), self._back, node)
        self.go(down_s)

    def close(self, stream: str, *ends: str) -> None:
        for node in ends:
            self.step(node, StreamClosed(stream))

    def ask(
        self, at: str, peer: str, size_bits: int = 256, *, stream: str = "s", deadline_s: float = 5, **more: Any
    ) -> int:
        """Number of the request, for `name` and `refusal`."""
        self._requests += 1
        self.step(at, KeyAsked(self._requests, peer, stream, size_bits, int(deadline_s * SECOND), **more))
        return self._requests

    def fetch(self, at: str, peer: str, name: Name, *, stream: str = "s", deadline_s: float = 5) -> int:
        """The application at the other end comes with the name."""
        self._requests += 1
        self.step(at, KeyFetched(self._requests, peer, stream, name, int(deadline_s * SECOND)))
        return self._requests

    def act(self, node: str, call: Callable[..., None], *arguments: Any) -> None:
        """What a timer or an operator makes a room do."""
        self.sites[node].later(0, call, *arguments)
        self.step(node, Woke())

    def call(self, at: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Inside a step of this site, so that what it says is sent."""
        self.sites[at].later(0, function, *arguments)
        self.step(at, Woke())

    def go(self, seconds: float) -> None:
        """Time goes on."""
        end = self.now + round(seconds * SECOND)
        while self._heap and self._heap[0][0] <= end:
            self.now, _, call, arguments = heapq.heappop(self._heap)
            self.events += 1
            call(*arguments)
        self.now = end

    # --- what a test looks at -----------------------------------------------------------------------------------------

    def line(self, at: str, peer: str) -> Line:
        line = self.sites[at].line(peer)
        assert line is not None
        return line

    def name(self, request: int) -> Name:
        answer = self.answers[request]
        assert answer.name is not None, answer.refusal
        return answer.name

    def refusal(self, request: int) -> str:
        """Empty if it was not refused."""
        return self.answers[request].refusal if request in self.answers else ""

    def words(self, *kinds: str) -> list[str]:
        return [said.message.word for _, said in self.said if not kinds or said.message.kind in kinds]

    def book(self, at: str, peer: str) -> EndBook:
        line = self.line(at, peer)
        return next(book for book, other in zip(self.balanced(), self.lines(), strict=True) if other is line)

    def balanced(self) -> tuple[EndBook, ...]:
        """All books; raises Unbalanced if one does not close."""
        return self.record(0).books

    # --- inside -------------------------------------------------------------------------------------------------------

    def perform(self, node: str, moves: Moves) -> None:
        self.said += [(node, said) for said in moves.send]
        moves.send = [said for said in moves.send if not self.lose(node, said)]
        super().perform(node, moves)

    def _answered(self, node: str, answered: Answered) -> None:
        self.answers[answered.request] = answered
