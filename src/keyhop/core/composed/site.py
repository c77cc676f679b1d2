"""One key manager of any design: requests in, names of keys out; blocks in, messages to its peers out."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

from keyhop.core.composed.fallbacks import Fallbacks
from keyhop.core.composed.fetches import Fetches
from keyhop.core.composed.line import Line, LineSettings
from keyhop.core.composed.network import Network
from keyhop.core.composed.nouns.cargo import Cargo, Weightless
from keyhop.core.composed.nouns.messages import (
    Answered,
    BlockArrived,
    KeyAsked,
    KeyFetched,
    KxArrived,
    LinkRenewed,
    Moves,
    Name,
    NetworkLearned,
    PairParted,
    Restarted,
    StreamClosed,
    StreamOpened,
    StreamRetuned,
    Woke,
)
from keyhop.core.composed.nouns.queue import Request, Requests
from keyhop.core.composed.nouns.units import Units
from keyhop.core.composed.relay.relaying import Relaying
from keyhop.core.composed.rooms import relaying_of
from keyhop.core.composed.stock.serving import Pending, Taken
from keyhop.core.composed.stock.working_sets import TakenFirst
from keyhop.core.designs import Design
from keyhop.core.model import Refusal, RequestError
from keyhop.core.policy.formatting import Identity, Kdf, SliceOnSupply, SplitMerge
from keyhop.core.policy.priority import ResponseWeight

RETRIES = 8
"""Of one request whose proposals the peer refused (K)."""
RETRY_NS = 50_000_000


class Site:
    """`step(event, now) -> Moves`. No clock, no bits, no randomness but the function that is handed in."""

    def __init__(
        self,
        node: str,
        design: Design,
        network: Network,
        draw: Callable[[], float],
        line_settings: Callable[[str, str, int, bool], LineSettings],
        cargo: Cargo | None = None,
    ) -> None:
        """`draw` gives numbers from 0 to 1; `line_settings` is asked for (node, peer, rate in bit/s, distant).

        `cargo` hears what becomes of relayed key; None where no bits are anywhere.
        """
        self.cargo: Cargo = cargo or Weightless()
        self.node = node
        self.design = design
        self.network = network
        self.draw = draw
        self.now = 0
        self.moves = Moves()
        self._line_settings = line_settings
        self.digest: Callable[[Line, Units], int] = lambda line, units: 0
        """Over stored units, by whoever holds the bits: equal numbers at both ends mean equal bits."""
        self._timers: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._requests = 0
        self.streams: dict[str, StreamOpened] = {}
        self.waiting = Requests(design.priority)
        self._derives = isinstance(design.formatting.supply, Kdf)
        self.fetches = Fetches(self)
        self.fallbacks = Fallbacks(self)
        self.links: dict[str, Line] = {}
        self.pairs: dict[str, Line] = {}
        """Lines to sites that are no neighbours, made on first use."""
        for peer in network.neighbours(node):
            rate = network.rates[frozenset((node, peer))]
            self.links[peer] = self._line(peer, rate, distant=False)
        self.relaying: Relaying = relaying_of(self)
        self._grown: dict[int, Line] = {}
        self._slots: set[str] = set()
        self._registered: set[str] | None = set() if "skip" in design.doors else None
        """Who may ask, where devices register once (Cisco, S); None: whoever can reach the door."""
        self._steps: dict[type, Callable[[Any], None]] = {
            BlockArrived: self._block,
            KxArrived: self._kx,
            KeyAsked: self._asked,
            KeyFetched: self.fetches.fetch,
            StreamOpened: self._opened,
            StreamRetuned: self._retuned,
            StreamClosed: self._closed,
            Restarted: self._restarted,
            LinkRenewed: self._renewed,
            PairParted: self._parted,
            NetworkLearned: lambda event: self.relaying.learned(),
            Woke: lambda event: None,
        }

    def __repr__(self) -> str:
        return f"Site({self.node}, {self.design.name})"

    def step(self, event: object, now: int) -> Moves:
        self.now = now
        moves = self.moves = Moves()
        if self._timers and self._timers[0][0] <= now:
            self._run_timers()
        self._steps[type(event)](event)
        while self._grown:
            _, line = self._grown.popitem()
            self._serve_waiting(line)
            if not line.distant:
                self.relaying.grew(line)
        moves.wake_at = self._timers[0][0] if self._timers else None
        return moves

    # --- what rooms call ----------------------------------------------------------------------------------------------

    def later(self, delay_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._timers, (self.now + delay_ns, self._sequence, call, arguments))

    def line(self, peer: str, distant: bool | None = None) -> Line | None:
        """The link to a neighbour, or the line over relay nodes, if this design has any; None if not."""
        if distant is None:
            distant = peer not in self.links or self.relaying.over(peer)
        if not distant:
            return self.links.get(peer)
        line = self.pairs.get(peer)
        if line is None and self.relaying.reaches(peer):
            line = self.pairs[peer] = self._line(peer, self.relaying.rate_bps(peer), distant=True)
            self.relaying.paired(line)
        return line

    def lines(self) -> list[Line]:
        return [*self.links.values(), *self.pairs.values()]

    def _renewed(self, event: LinkRenewed) -> None:
        """Whoever waits for its key is refused."""
        peer = event.peer
        old = self.links.get(peer)
        rate = self.network.rates[frozenset((self.node, peer))]
        line = self.links[peer] = self._line(peer, rate, distant=False)
        if old is not None:
            for word, handler in old.talk.handlers.items():
                # What is no room of the line's own, such as relay, goes on.
                line.talk.handlers.setdefault(word, handler)
            old.talk.close()
            self.fetches.forget(old)
        if event.silent:
            line.talk.close()
        if not self.relaying.over(peer):
            self._give_up(peer, "the link began anew")
        self.relaying.renewed(line)

    def _parted(self, event: PairParted) -> None:
        """Nothing of it is used any more."""
        peer = event.peer
        old = self.pairs.pop(peer, None)
        if old is not None:
            old.talk.close()
            self.fetches.forget(old)
        if peer not in self.links or self.relaying.over(peer):
            self._give_up(peer, "the pair of key managers began anew")
        self.relaying.parted(peer)

    def _give_up(self, peer: str, why: str) -> None:
        for request in self.waiting.of(peer):
            self.refuse(request, why)
        for name in [name for name, stream in self.streams.items() if stream.peer == peer]:
            self.fallbacks.closed(name)
            del self.streams[name]

    def grew(self, line: Line) -> None:
        """There may be key for somebody who waits."""
        self._grown[id(line)] = line

    def _settled(self, request: Request, taken: Taken | None) -> None:
        """What the peer said of an exchange for this request; None: nothing came of it, try again."""
        request.pending = False
        if taken is not None and not taken.ranges:
            self.refuse(request, taken.label)
            return
        if taken is not None:
            line = self.line(request.asked.peer)
            assert line is not None
            if request.decided:
                # Both ends hold it as assigned; nobody wants it any more.
                line.gone(taken.ranges, "X", taken.run)
            else:
                self._give(line, request, taken)
            return
        if request.decided:
            return
        request.tries += 1
        if request.tries > RETRIES:
            self.refuse(request, "the peer refused every proposal")
        else:
            self.later(int(RETRY_NS * (0.5 + self.draw())), self._try_again, request)

    def unregistered(self, stream: str) -> str:
        """Why this pair of applications gets nothing; empty if it may ask."""
        if self._registered is None or stream in self._registered:
            return ""
        return f"{stream} is not registered here"

    def refuse(self, request: Request, why: str, *, timed_out: bool = False, unservable: bool = False) -> None:
        if request.decided:
            return
        request.decided = True
        self.waiting.remove(request)
        self.moves.answer.append(
            Answered(request.asked.request, refusal=why, timed_out=timed_out, unservable=unservable)
        )

    # --- events -------------------------------------------------------------------------------------------------------

    def _block(self, event: BlockArrived) -> None:
        self.links[event.peer].block(event)

    def _kx(self, event: KxArrived) -> None:
        line = self.line(event.peer, event.message.distant)
        if line is not None:
            line.talk.hear(event.message)

    def _opened(self, event: StreamOpened) -> None:
        self.streams[event.stream] = event
        if self._registered is not None:
            self._registered.add(event.stream)
        line = self.line(event.peer)
        if line is not None:
            line.dealing.opened(event)
            self.relaying.opened(event)
            self.fallbacks.opened(event)

    def _retuned(self, event: StreamRetuned) -> None:
        stream = self.streams.get(event.stream)
        line = self.line(stream.peer) if stream is not None else None
        if line is not None:
            line.dealing.retuned(event.stream, event.rate_bps)
            self.relaying.retuned(event.stream, event.rate_bps)

    def _closed(self, event: StreamClosed) -> None:
        self.fallbacks.closed(event.stream)
        stream = self.streams.pop(event.stream, None)
        line = self.line(stream.peer) if stream is not None else None
        if line is not None:
            line.dealing.closed(event.stream)
            self.relaying.closed(event.stream)

    def _restarted(self, event: Restarted) -> None:
        for line in self.lines():
            line.talk.forget()
            line.agreement.restarted()
            line.dealing.restarted()
            line.serving.restarted()
            line.disposal.restarted()
        self.relaying.restarted()
        self.waiting.each(lambda request: self.refuse(request, "the key manager restarted"))

    def _asked(self, event: KeyAsked) -> None:
        self._requests += 1
        request = Request(event, self._requests, self.now)
        line = self.line(event.peer)
        if line is None:
            self.refuse(request, f"{self.design.name} has no relay to {event.peer}", unservable=True)
            return
        if why := self.unregistered(event.stream) or self.relaying.refusal(event):
            self.refuse(request, why)
            return
        priority = self.design.priority
        if isinstance(priority, ResponseWeight):
            if not priority.needs_key(request.waiting):
                self._plaintext(line, request)
                return
            line.dealing.asked(event.size_bits)
            # Requests of one slot arrive together: they are ranked when it ends.
            if event.peer not in self._slots:
                self._slots.add(event.peer)
                self.later(priority.slot_ns - self.now % priority.slot_ns, self._slot_ends, line)
            self._wait(request)
            return
        line.dealing.asked(event.size_bits)
        self._try(line, request)
        self._want(line)

    # --- serving ------------------------------------------------------------------------------------------------------

    def _try(self, line: Line, request: Request) -> bool:
        """Whether the request is out of the way: served, being agreed on, or refused."""
        bits = self._bits(line, request)
        if bits is None:
            return True
        if not request.waited:
            request.takes_bits = bits
        if self.fallbacks.alone(line):
            self.relaying.wanted(line, request.stream, bits)
            self._exchanged(line, request)
            return True
        taken = line.serving.take(request.stream, bits, partial(self._settled, request))
        if isinstance(taken, Pending):
            request.pending = True
            if not request.waited:
                request.waited = True
                self.later(request.asked.deadline_ns, self._timed_out, request)
            return True
        if taken is not None and not taken.ranges:
            self.refuse(request, taken.label)
            return True
        if taken is not None:
            self._give(line, request, taken)
            return True
        return self._short(line, request)

    def _bits(self, line: Line, request: Request) -> int | None:
        """What a key of this size takes of the store; None, and it is refused, if this design has no such size."""
        size = request.asked.size_bits
        form = self.design.formatting.supply
        try:
            match form:
                case Identity():
                    return form.supply(size, line.cut_bits).taken_bits
                case SliceOnSupply():
                    return form.supply(size).taken_bits
                case Kdf():
                    return form.parents(request.asked.keys, size) * line.run.unit_bits
                case _ if request.asked.keys > 1:
                    raise RequestError(Refusal.UNSUPPORTED, f"{request.asked.keys} keys at once: must be 1")
                case SplitMerge():
                    return -(-form.bounded(size) // 8) * 8
                case _:
                    return -(-size // 8) * 8
        except RequestError as error:
            self.refuse(request, error.message, unservable=True)
            return None

    def _short(self, line: Line, request: Request) -> bool:
        """Too little key: what the design's fallback says."""
        asked = request.asked
        decision = self.design.fallback.decide(self.fallbacks.need(line, request))
        if line.distant and not self.relaying.brings(line):
            self.relaying.wanted(line, asked.stream, asked.size_bits)
        if decision.verb == "wait" or self.relaying.brings(line):
            self._wait(request)
            return False
        match decision.verb:
            case "exchange" | "stretch":
                self._exchanged(line, request)
            case "derive":
                taken = self.fallbacks.seed(request.stream) or line.serving.take(
                    request.stream, line.run.unit_bits, partial(self._settled, request)
                )
                if isinstance(taken, Taken):
                    self._give(line, request, taken, derived=True)
                else:
                    self.refuse(request, "not enough key to derive from")
            case _:
                self.refuse(request, f"not enough key: {asked.size_bits} bit asked for")
        return True

    def _give(self, line: Line, request: Request, taken: Taken, *, derived: bool = False) -> None:
        asked = request.asked
        derived = derived or self._derives
        name = Name(
            distant=line.distant,
            label=taken.label,
            ranges=taken.ranges,
            size_bits=asked.size_bits,
            taken_bits=taken.bits,
            derived_bits=asked.size_bits * asked.keys if derived else 0,
            its=not derived and not taken.run.is_weak(taken.ranges) and self.fallbacks.joined_its,
            unit_bits=taken.run.unit_bits,
            joined_bits=asked.size_bits if self.fallbacks.joins and not derived else 0,
            keys=asked.keys,
        )
        self.book(line, name)
        if isinstance(line.serving, TakenFirst):
            line.serving.given(name)
        request.decided = True
        self.waiting.remove(request)
        self.moves.answer.append(Answered(asked.request, name))
        line.dealing.used(taken.label)
        self.relaying.used(line, taken)
        self.relaying.supplied(line, name, asked.stream)
        if not derived:
            self.fallbacks.given(line, request)

    def _plaintext(self, line: Line, request: Request) -> None:
        """Answered at once, without key: both applications go on without (DDKA's level 0, K)."""
        request.decided = True
        self.moves.answer.append(Answered(request.asked.request, Name(line.distant, "", (), 0, 0, its=False)))

    def _exchanged(self, line: Line, request: Request) -> None:
        """Both ends make a key that is not QKD's."""
        size = request.asked.size_bits
        name = Name(line.distant, "", (), size, 0, derived_bits=size, its=False)
        self.book(line, name)
        request.decided = True
        self.waiting.remove(request)
        self.moves.answer.append(Answered(request.asked.request, name))

    @staticmethod
    def book(line: Line, name: Name) -> None:
        """D what was asked for, O what was handed out beyond it; of derived keys D is the parents, F the children."""
        book = line.book
        book.F += name.joined_bits
        if name.derived_bits:
            book.F += name.derived_bits
            book.D += name.taken_bits
        else:
            book.D += name.size_bits
            book.O += name.taken_bits - name.size_bits
        if name.ranges:
            line.spent(line.run_of(name.label, name.unit_bits), name.label, name.ranges)

    def _serve_waiting(self, line: Line) -> None:
        """In the order of priority; a request that cannot be met does not keep back smaller ones behind it."""
        self.fallbacks.sow(line)
        failed: dict[str, int] = {}
        for request in self.waiting.of(line.peer):
            asked = request.asked
            if asked.size_bits >= failed.get(asked.stream, 1 << 62) or request.pending or request.decided:
                continue
            if self.line(asked.peer) is line and not self._try(line, request):
                failed[asked.stream] = asked.size_bits
        self._want(line)
        self.fetches.retry(line)

    def _want(self, line: Line) -> None:
        """Once for all that wait."""
        first = self.waiting.first(line.peer) if line.distant else None
        if first is not None:
            self.relaying.wanted(line, first.stream, self.waiting.bits[line.peer])

    def _wait(self, request: Request) -> None:
        if not request.waited:
            request.waited = True
            self.later(request.asked.deadline_ns, self._timed_out, request)
        self.waiting.add(request)

    def _slot_ends(self, line: Line) -> None:
        self._slots.discard(line.peer)
        self._serve_waiting(line)

    def _try_again(self, request: Request) -> None:
        line = self.line(request.asked.peer)
        if line is not None and not request.decided and not request.pending:
            self._try(line, request)

    def _timed_out(self, request: Request) -> None:
        self.refuse(request, "not enough key in time", timed_out=True)

    def _run_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            _, _, call, arguments = heapq.heappop(timers)
            call(*arguments)

    def _line(self, peer: str, rate_bps: int, *, distant: bool) -> Line:
        settings = self._line_settings(self.node, peer, rate_bps, distant)
        return Line(self, peer, distant=distant, design=self.design, settings=settings)
