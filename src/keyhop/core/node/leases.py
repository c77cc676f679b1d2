"""Leases: whole segments reserved at both ends, durably, before a byte of them is spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from keyhop.core.designs import Running
from keyhop.core.machine import Drop
from keyhop.core.messages import RANGES_PER_MESSAGE, AnswerLease, RequestLease, Span
from keyhop.core.model import Action, PeerError, Purpose
from keyhop.core.node.burning import RESERVED
from keyhop.core.node.context import Context
from keyhop.core.node.events import LeaseCommitted
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Pair
from keyhop.core.node.placing import DISTANT_FLOOR_BYTES, FLOOR_BYTES
from keyhop.core.node.run import UNTOUCHED, Segment

TAG_RESERVE_BYTES = 1024
"""With less of either tag run, supply and relay ask for nothing more; openings and agreements go on."""
TOO_LARGE_LIMIT = 64
"""Segments larger than what may be leased are passed over, in search of a smaller one; not without end."""


class Asked(NamedTuple):
    purpose: Purpose
    spans: tuple[Span, ...]
    namings: int
    """How many key-ID secrets were named before: who answers this has handled those."""


class Leases:
    def __init__(self, context: Context, links: Links, design: Running) -> None:
        self.context = context
        self.burning = links.burning
        self.policy = design.synchronisation
        self.asked: dict[str, dict[int, Asked]] = {}
        self.committing: dict[str, int] = {}
        """Bytes leased for supply that may not be spent yet: their commit is under way."""
        self.committing_pads: dict[str, int] = {}
        """The same for pads."""
        self.on_asked: Callable[[Pair], None] = lambda pair: None
        """Set by the node: the peer asked for a lease, so the stock may be lower."""
        self.on_lent: list[Callable[[Pair, Purpose], None]] = []
        self.purposes = {Purpose.SUPPLY, Purpose.PAD, Purpose.DERIVE}
        """What a peer may ask for."""
        self.reserved_bytes: Callable[[Pair], int] = lambda pair: 0
        """What of the stock applications cannot touch: as a policy says, and what the node keeps for flows."""
        self.promised_bytes: Callable[[Pair], int] = lambda pair: 0
        """Set by the node: what of the stock relay cannot touch, for guaranteed streams of applications here."""
        self.on_stock: Callable[[Pair, tuple[Span, ...]], None] = lambda pair, spans: None
        """Set by the host of another design: these segments are its stock now."""
        self._request = 0
        links.handlers[RequestLease] = self.requested
        links.handlers[AnswerLease] = self.answered
        links.on_lost.append(self.lost)

    def lost(self, pair: Pair) -> None:
        """What was asked for may have been granted: comparing at the next opening finds it and burns it."""
        self.asked.pop(pair.peer, None)

    def tags_low(self, pair: Pair) -> bool:
        floor = min(TAG_RESERVE_BYTES, FLOOR_BYTES if pair.direct else DISTANT_FLOOR_BYTES // 4)
        return min(pair.own_tags.available(), pair.their_tags.available()) < floor

    def pending(self, pair: Pair, purpose: Purpose) -> bool:
        return any(asked.purpose == purpose for asked in self.asked.get(pair.peer, {}).values())

    def want(
        self,
        pair: Pair,
        purpose: Purpose,
        size_bytes: int,
        suits: Callable[[Segment], bool] | None = None,
        kept_bytes: int | None = None,
    ) -> bool:
        """Asks for a lease of about this size; True if one is under way, False if there is nothing to ask for.

        `suits`: which segments will do, where not all will. `kept_bytes`: what is left alone, if not as much as ever.
        """
        if self.pending(pair, purpose):
            return True
        if not pair.is_open or self.tags_low(pair):
            return False
        spans: list[Span] = []
        total = too_large = 0
        under_way = self.asked.get(pair.peer, {}).values()
        # For the other purpose: the peer grants them once.
        taken = {start: length for asked in under_way for start, length in asked.spans}
        kept = self.promised_bytes if purpose is Purpose.PAD else self.reserved_bytes
        left = pair.own_key.untouched - sum(taken.values()) - (kept(pair) if kept_bytes is None else kept_bytes)
        for segment in pair.own_key.oldest_untouched():
            if segment.start in taken or (suits is not None and not suits(segment)):
                continue
            if total + segment.length > left:
                # A smaller one may follow.
                too_large += 1
                if too_large > TOO_LARGE_LIMIT:
                    break
                continue
            spans.append((segment.start, segment.length))
            total += segment.length
            if total >= size_bytes or len(spans) == RANGES_PER_MESSAGE:
                break
        if not spans:
            return False
        self._request += 1
        asked = Asked(purpose, tuple(spans), pair.namings)
        self.asked.setdefault(pair.peer, {})[self._request] = asked
        self.context.say(pair, RequestLease(self._request, purpose, asked.spans))
        return True

    def requested(self, pair: Pair, message: RequestLease) -> None:
        """The peer asks for segments of its own run: our own record decides, nothing the peer says."""
        context, run = self.context, pair.their_key
        if message.purpose not in self.purposes:
            raise PeerError(f"lease for {message.purpose!r}: {', '.join(sorted(self.purposes))} are legal")
        segments = run.exactly(message.segments, UNTOUCHED)
        granted = bool(segments)
        for segment in segments or ():
            context.put(run.segment_row(run.set_mark(segment, Purpose(message.purpose))))
        if not granted:
            context.count("leases_refused")
            context.notice("KH-2302", f"a lease asked for by {pair.peer} does not fit our record: refused", pair.peer)
        context.say(pair, AnswerLease(message.request, granted))
        self.on_asked(pair)

    def answered(self, pair: Pair, message: AnswerLease) -> None:
        context, run = self.context, pair.own_key
        asked = self.asked.get(pair.peer, {}).pop(message.request, None)
        if asked is None:
            raise PeerError(f"an answer for lease {message.request}, which was not asked for")
        purpose, spans = asked.purpose, asked.spans
        pair.namings_handled = max(pair.namings_handled, asked.namings)
        segments = run.exactly(spans, UNTOUCHED) if message.granted else None
        if segments is None:
            # Refused: the two records differ, and these segments can serve nobody. Or ours has changed since we asked:
            # the peer holds them leased, so nobody may use them otherwise.
            for start, _ in spans:
                segment = run.segments.get(start)
                if segment is not None and segment.mark == UNTOUCHED:
                    self.burning.burn_segment(run, start)
            self._settled(pair, purpose)
            return
        for segment in segments:
            context.vault.hold(run.range(segment))
            context.save(Drop(run.range(segment)))
            context.put(run.segment_row(run.set_mark(segment, purpose, stored=False)))
        context.book(run)
        self.granted(pair, purpose, spans)

    def granted(self, pair: Pair, purpose: Purpose, spans: tuple[Span, ...]) -> None:
        """Both ends have it as leased: it may be spent as soon as our record is durable."""
        context = self.context
        if purpose is Purpose.SUPPLY:
            self.committing[pair.peer] = self.committing.get(pair.peer, 0) + sum(length for _, length in spans)
        elif purpose is Purpose.PAD:
            before = self.committing_pads.get(pair.peer, 0)
            self.committing_pads[pair.peer] = before + sum(length for _, length in spans)
        context.out.after.append(LeaseCommitted(pair.peer, purpose, spans, context.epochs(pair)))

    def committed(self, event: LeaseCommitted) -> None:
        """The lease is durable at both ends: now it may be spent, unless a restore came between."""
        context, pair = self.context, self.context.pairs[event.peer]
        valid = event.epochs == context.epochs(pair)
        purpose, run = Purpose(event.purpose), pair.own_key
        if purpose is Purpose.SUPPLY:
            self.committing[pair.peer] -= sum(length for _, length in event.spans)
        elif purpose is Purpose.PAD:
            self.committing_pads[pair.peer] -= sum(length for _, length in event.spans)
        lent: list[Span] = []
        for start, length in event.spans:
            segment = run.segments.get(start)
            if not valid or segment is None or segment.mark != purpose:
                # Burnt while the commit was under way, when nobody held it who could have booked it.
                run.book.move(RESERVED[purpose], Action.BURN, length)
                context.book(run)
                continue
            if segment.spent_at is not None:
                # Looked at while its commit was under way, it seemed spent.
                run.set_mark(segment, purpose, spent_at=None)
            lent.append((start, length))
            match purpose:
                case Purpose.SUPPLY:
                    pair.stock.add(start, start + length)
                case Purpose.PAD:
                    pair.pads.add(start, start + length)
                case Purpose.DERIVE:
                    pair.parents.add(start, start + length)
                case Purpose.DESIGN:
                    pair.hosted.add(start, start + length)
        if purpose is Purpose.DESIGN:
            self.on_stock(pair, tuple(lent))
        self._settled(pair, purpose)

    def _settled(self, pair: Pair, purpose: Purpose) -> None:
        """Whoever waits for the lease has it now, or may ask for another."""
        for call in self.on_lent:
            call(pair, purpose)
