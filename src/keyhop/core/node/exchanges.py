"""Secrets exchanged between two key managers by ML-KEM-768, that keys are combined with or, at need, made of.

An exchange belongs to the end that offered it: it combines keys of its own run. Its 32 bytes are in memory only, at
both ends; a key that was made with one cannot be fetched any more after a restart of the fetching end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from keyhop.core.machine import Derived
from keyhop.core.messages import AnswerExchange, OfferExchange
from keyhop.core.model import NANOSECONDS, POSITION_LIMIT, PeerError, Range, RunId
from keyhop.core.node.context import Context
from keyhop.core.node.extents import Extents
from keyhop.core.node.ledger import Account, Book
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Pair
from keyhop.core.node.rows import ExchangeRow

XOR_VIEW, KDF_VIEW, ALONE_VIEW = 4, 5, 6
"""Beside the kinds of runs and the derived keys: positions meant as keys that are combined, or of an exchange alone."""
COMBINED = {"xor": XOR_VIEW, "kdf": KDF_VIEW}
INFO = {XOR_VIEW: b"keyhop xor key v1", KDF_VIEW: b"keyhop kdf key v1", ALONE_VIEW: b"keyhop exchanged key v1"}
NUMBERS = 4096
"""What a key ID has room for; an offerer's numbers rise, over restarts too, and come round after so many."""
LIFETIME_NS = 24 * 3600 * NANOSECONDS
KEPT = 8
"""Of a peer's exchanges, the newest."""
ANSWER_NS = 10 * NANOSECONDS
"""An offer without an answer is made anew after this."""


class KeyExchange(Protocol):
    """The seam to ML-KEM: the core names exchanges, the edge has their bits. ValueError for what is malformed."""

    def offer(self, peer: str, number: int) -> bytes: ...
    def answer(self, peer: str, number: int, public_key: bytes) -> bytes: ...
    def accept(self, peer: str, number: int, ciphertext: bytes) -> None: ...
    def forget(self, peer: str, number: int, *, ours: bool) -> None: ...


class Own(NamedTuple):
    number: int
    born: int
    peer_start: int
    """Of the incarnation that answered: a later one does not have it."""


class Offered(NamedTuple):
    number: int
    at: int


class Exchanges:
    def __init__(self, context: Context, links: Links, kem: KeyExchange | None) -> None:
        self.context = context
        self.kem = kem
        self.own: dict[str, Own] = {}
        self.theirs: dict[str, list[int]] = {}
        self.numbers: dict[str, int] = {}
        """The last number offered to each peer, durably."""
        self.books: dict[tuple[str, bool], Book] = {}
        """(peer, ours) -> what exchanges gave: booked apart (F), never as QKD key."""
        self.on_ready: Callable[[Pair], None] = lambda pair: None
        self._offered: dict[str, Offered] = {}
        self._next: dict[str, int] = {}
        self._used: dict[tuple[str, int], Extents] = {}
        """Positions of a peer's exchange that keys of it alone were fetched of."""
        links.handlers[OfferExchange] = self.offered
        links.handlers[AnswerExchange] = self.answered
        links.on_lost.append(self.lost)

    def lost(self, pair: Pair) -> None:
        self._offered.pop(pair.peer, None)

    # --- the end that combines ----------------------------------------------------------------------------------------

    def live(self, pair: Pair) -> int | None:
        """The number of the exchange to use now."""
        own = self.own.get(pair.peer)
        return own.number if own is not None and own.peer_start == pair.peer_start else None

    def look(self, pair: Pair) -> None:
        """An exchange is wanted with this peer: offers one where there is none, or it is a day old."""
        context, own = self.context, self.own.get(pair.peer)
        if self.kem is None or not pair.is_open:
            return
        if own is not None and own.peer_start == pair.peer_start and context.now - own.born < LIFETIME_NS:
            return
        offered = self._offered.get(pair.peer)
        if offered is not None and context.now - offered.at < ANSWER_NS:
            return
        number = self.numbers[pair.peer] = (self.numbers.get(pair.peer, 0) + 1) % NUMBERS
        context.put(ExchangeRow(pair.peer, number))
        self._offered[pair.peer] = Offered(number, context.now)
        context.say(pair, OfferExchange(number, self.kem.offer(pair.peer, number)))

    def answered(self, pair: Pair, message: AnswerExchange) -> None:
        offered = self._offered.get(pair.peer)
        if self.kem is None or offered is None or offered.number != message.number:
            raise PeerError(f"an answer for exchange {message.number}, which was not offered")
        del self._offered[pair.peer]
        try:
            self.kem.accept(pair.peer, message.number, message.ciphertext)
        except ValueError as error:
            raise PeerError(f"exchange {message.number}: {error}") from None
        old = self.own.get(pair.peer)
        if old is not None:
            self.kem.forget(pair.peer, old.number, ours=True)
        self.own[pair.peer] = Own(message.number, self.context.now, pair.peer_start)
        self._next[pair.peer] = 0
        self.context.count("exchanges")
        self.on_ready(pair)

    def alone(self, pair: Pair, number_of_keys: int, length: int) -> list[int]:
        """Places for keys of the exchange alone."""
        start = self._next[pair.peer]
        self._next[pair.peer] = start + number_of_keys * length
        if self._next[pair.peer] > POSITION_LIMIT:
            raise AssertionError(f"the exchange with {pair.peer} is at its end")
        return list(range(start, self._next[pair.peer], length))

    # --- the end that fetches -----------------------------------------------------------------------------------------

    def offered(self, pair: Pair, message: OfferExchange) -> None:
        if self.kem is None:
            self.context.count("exchanges_not_answered")
            return
        kept = self.theirs.setdefault(pair.peer, [])
        if message.number in kept:
            raise PeerError(f"exchange {message.number} was offered before")
        try:
            ciphertext = self.kem.answer(pair.peer, message.number, message.public_key)
        except ValueError as error:
            raise PeerError(f"exchange {message.number}: {error}") from None
        kept.append(message.number)
        while len(kept) > KEPT:
            self.kem.forget(pair.peer, kept[0], ours=False)
            self._used.pop((pair.peer, kept.pop(0)), None)
        self.context.say(pair, AnswerExchange(message.number, ciphertext))

    def has(self, peer: str, number: int) -> bool:
        return number in self.theirs.get(peer, ())

    def used(self, peer: str, number: int) -> Extents:
        return self._used.setdefault((peer, number), Extents())

    # --- both ---------------------------------------------------------------------------------------------------------

    def book(self, peer: str, length: int, *, ours: bool) -> None:
        """So many bytes of an exchange went into keys."""
        book = self.books.setdefault((peer, ours), Book())
        book.take_in(Account.F, length)
        book.totals[Account.D] += length


def number_of(run: RunId, view: int, exchange: int) -> int:
    """The run number that IDs of such keys carry."""
    return exchange << 4 | view << 1 | run.number & 1


def view_in(number: int) -> int:
    """Of a run number in an ID; 0 where no exchange is in it."""
    view = number >> 1 & 7
    return view if view >= XOR_VIEW else 0


def exchange_in(number: int) -> int:
    return number >> 4


def made_with(run: RunId, view: int, exchange: int, start: int, length: int) -> Derived:
    number = number_of(run, view, exchange)
    info = INFO[view] + number.to_bytes(2, "big") + start.to_bytes(8, "big") + length.to_bytes(4, "big")
    return Derived(Range(RunId(run.peer, number), start, length), length * 8, info, exchange, view)
