"""How two ends of a line talk: exchanges that are repeated until answered, notices in order, and what tags cost."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from keyhop.core.composed.nouns.messages import Kx, Said
from keyhop.core.composed.nouns.shapes import NUMBER_LIMIT, Malformed, check, check_answer
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line

ANSWER_NS = 5_000_000_000
"""Silence after which a message is repeated."""
FLOOR_TAGS = 64
"""Of each direction, which a line keeps ready (K)."""
RESERVED_TAGS = 16
"""Which agreements alone may use: without them no fresh key would come, and no fresh tags (K)."""
LARGEST_SHARE = 0.5
"""Of fresh material, for tags (K)."""
TRIES = 12
KEPT_ANSWERS = 256
KEPT_NOTICES = 4096
"""What was said while a peer was away is said again when it is back."""
REPEATED_AT_ONCE = 64
REPEAT_NS = 500_000_000
"""After this a gap that is still there is named again."""
HELD_BACK = 64
"""Notices that came before one that is missing."""
TAG_BITS = 96
"""Wegman-Carter with a reused hash key and a fresh pad per message, the default of the public Q3P code (C)."""
PRESHARED_BITS = 262_144
"""Tag key of each direction before there is any QKD key; counted as burnt, never as A (K)."""

REPEAT = "REPEAT"
"""Asks for notices again."""

Answering = Callable[[Kx], "Kx | None"]
Done = Callable[[Kx], None]


class Asking:
    __slots__ = ("done", "given_up", "message", "repeat_ns", "tries")

    def __init__(
        self, message: Kx, done: Done, given_up: Callable[[], None] | None, repeat_ns: int, tries: int
    ) -> None:
        self.message = message
        self.done = done
        self.given_up = given_up
        self.repeat_ns = repeat_ns
        self.tries = tries


class Conversation:
    """One end. Handlers are found by the word of a message; an `ask` is answered once and its answer kept."""

    def __init__(self, line: Line, tag_bits: int = TAG_BITS, preshared_bits: int = PRESHARED_BITS) -> None:
        self._line = line
        self.tag_bits = tag_bits
        self._preshared_bits = preshared_bits
        self.handlers: dict[str, Answering] = {}
        self._number = 0
        self._asking: dict[int, Asking] = {}
        self._answers: OrderedDict[int, Kx] = OrderedDict()
        self._notices: deque[Kx] = deque(maxlen=KEPT_NOTICES)
        self._told = 0
        self._next_heard = 1
        self._early: dict[int, Kx] = {}
        self._watching = False
        self._unpaid: deque[Kx] = deque()
        self._unsaid: set[tuple[str, int]] = set()
        """Questions and answers among them: to repeat what has not been sent yet would only make tags scarcer."""
        self.dealt_bits = 0
        """Set aside for tags of both directions at intake."""
        self._sent_bits = self._heard_bits = self._used_before = 0
        self._owed_tags = 0
        """Of offers that were answered before there was key for all their tags."""
        self.sent = 0
        """Messages."""
        self._closed = False

    @property
    def stock_bits(self) -> int:
        book = self._line.book
        return self.dealt_bits - book.A

    def ask(
        self,
        message: Kx,
        done: Done,
        *,
        given_up: Callable[[], None] | None = None,
        repeat_ns: int = ANSWER_NS,
        tries: int = TRIES,
    ) -> None:
        self._number += 1
        message = msgspec.structs.replace(message, number=self._number, kind="ask", distant=self._line.distant)
        self._asking[self._number] = Asking(message, done, given_up, repeat_ns, tries)
        self._send(message)
        self._line.site.later(repeat_ns, self._silent, self._number)

    def tell(self, message: Kx) -> None:
        """A notice. What is lost is asked for again when the next one arrives."""
        self._told += 1
        message = msgspec.structs.replace(message, number=self._told, kind="tell", distant=self._line.distant)
        self._notices.append(message)
        self._send(message)

    @property
    def can_ask(self) -> bool:
        """Whether a question would leave now. Without key for its tag, key cannot be agreed on."""
        return not self._unpaid and self._can_pay(Kx("", Verb.ASSIGN))

    @property
    def asking(self) -> int:
        return len(self._asking)

    def hear(self, message: Kx) -> None:
        """Raises ValueError, before anything has changed, where the peer may not say this."""
        self._vet(message)
        self._pay_heard(message)
        if message.kind == "answer":
            asked = self._asking.pop(message.number, None)
            if asked is not None:
                asked.done(message)
            return
        if message.kind == "tell":
            self._hear_notice(message)
            return
        known = self._answers.get(message.number)
        if known is None:
            answer = self.handlers[message.word](message)
            if answer is None:
                return
            known = msgspec.structs.replace(answer, number=message.number, kind="answer", distant=self._line.distant)
            self._answers[message.number] = known
            if len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        if ("answer", message.number) not in self._unsaid:
            self._send(known)

    def forget(self) -> None:
        """A restart: who waited for an answer waits no longer; numbers go on, so that no answer fits two questions."""
        asking, self._asking = self._asking, {}
        for asked in asking.values():
            if asked.given_up is not None:
                asked.given_up()

    def close(self) -> None:
        """The line has begun anew without this end of it: what its timers still want to say goes nowhere."""
        self._closed = True
        self.forget()

    def up_front(self, tags: int) -> int:
        """How many of an offer's tags are paid before there is an answer to it; the rest is for `pay_rest`.

        A batch has a tag each, and what is set aside of one that is agreed on pays for those behind it: many batches in
        one message wait for no more key than one would.
        """
        if not self.tag_bits:
            return tags
        return min(tags, max(1, self._unreserved_tags()))

    def pay_rest(self, tags: int) -> None:
        """Of an offer that has been answered: what there is nothing for yet stays owed, until fresh key is set aside.

        Never out of the reserve, or an offer of blocks that the peer lacks would leave no tag for any further one.
        """
        self._owed_tags += tags
        self._pay_owed()

    def aside_bits(self, of_bits: int, tags: int = 1) -> int:
        """What of fresh material this end wants set aside for tags of both directions: it follows their use.

        The end that says how a block enters asks here and tells the other; `tags`: what that takes.
        """
        used = self._sent_bits + self._heard_bits
        recent, self._used_before = used - self._used_before, used
        given = self._preshared_bits + self.dealt_bits // 2
        waiting = sum(message.tags for message in self._unpaid)
        left = given - max(self._sent_bits, self._heard_bits)
        lacking = max((FLOOR_TAGS + waiting + self._owed_tags + tags - 1) * self.tag_bits, 2 * recent) - left
        most = int(of_bits * LARGEST_SHARE)
        # Two halves, of whole bytes.
        return min(max(0, 2 * lacking), most) // 16 * 16

    def deal(self, bits: int) -> None:
        self.dealt_bits += bits
        while self._unpaid and self._can_pay(self._unpaid[0]):
            message = self._unpaid.popleft()
            self._unsaid.discard((message.kind, message.number))
            self._send(message)
        self._pay_owed()

    def _vet(self, message: Kx) -> None:
        if not 0 <= message.number <= NUMBER_LIMIT or (message.spent_bits and not self.tag_bits):
            raise Malformed(f"{message.word[:32]!r} number {message.number} with {message.spent_bits} bit of tags")
        if message.kind == "answer":
            asked = self._asking.get(message.number)
            if asked is not None:
                check_answer(message, asked.message.word)
        elif message.word in self.handlers or (message.word == REPEAT and message.kind == "tell"):
            check(message, master=self._line.master)
        else:
            raise Malformed(f"{message.word[:32]!r}: no word of design {self._line.design.name} on this line")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _silent(self, number: int) -> None:
        asked = self._asking.get(number)
        if asked is None:
            return
        asked.tries -= 1
        if asked.tries <= 0:
            del self._asking[number]
            if asked.given_up is not None:
                asked.given_up()
            return
        if ("ask", number) not in self._unsaid:
            # What it says of batches has its tags: only this message needs one.
            asked.message = msgspec.structs.replace(asked.message, tags=min(1, asked.message.tags))
            self._send(asked.message)
        self._line.site.later(asked.repeat_ns, self._silent, number)

    def _unreserved_tags(self) -> int:
        return (self._preshared_bits + self.dealt_bits // 2 - self._sent_bits) // self.tag_bits - RESERVED_TAGS

    def _pay_owed(self) -> None:
        """The peer hears of it with what is said next, as each message tells of all that was spent before."""
        if self._owed_tags:
            paid = min(self._owed_tags, max(0, self._unreserved_tags()))
            self._owed_tags -= paid
            self._sent_bits = self._burn(self._sent_bits, self._sent_bits + paid * self.tag_bits)

    def _can_pay(self, message: Kx) -> bool:
        kept = 0 if message.verb is Verb.AGREE else RESERVED_TAGS
        cost = (message.tags + kept) * self.tag_bits
        return self._sent_bits + cost <= self._preshared_bits + self.dealt_bits // 2

    def _send(self, message: Kx) -> None:
        if self._closed:
            return
        if not self._can_pay(message):
            self._unpaid.append(message)
            if message.kind != "tell":
                self._unsaid.add((message.kind, message.number))
            return
        cost = message.tags * self.tag_bits
        self._sent_bits = self._burn(self._sent_bits, self._sent_bits + cost)
        self.sent += 1
        self._line.site.moves.send.append(
            Said(self._line.peer, msgspec.structs.replace(message, spent_bits=self._sent_bits))
        )

    def _pay_heard(self, message: Kx) -> None:
        if message.spent_bits > self._heard_bits:
            self._heard_bits = self._burn(self._heard_bits, message.spent_bits)

    def _burn(self, before: int, after: int) -> int:
        free = self._preshared_bits
        book = self._line.book
        book.burnt += after - before
        book.A += max(0, after - free) - max(0, before - free)
        return after

    def _hear_notice(self, message: Kx) -> None:
        if message.word == REPEAT:
            self._repeated(message)
            return
        if message.number < self._next_heard:
            return
        if message.number > self._next_heard:
            if not self._early:
                self._ask_again()
            if len(self._early) < HELD_BACK:
                self._early[message.number] = message
            return
        self.handlers[message.word](message)
        self._next_heard += 1
        while (waiting := self._early.pop(self._next_heard, None)) is not None:
            self.handlers[waiting.word](waiting)
            self._next_heard += 1

    def _ask_again(self) -> None:
        """Until the gap is closed: what asks, and what is said again, may be lost as well."""
        if not self._unpaid:
            # Outside the order of notices, or two gaps would wait for each other.
            self._send(Kx(REPEAT, Verb.AGREE, counts=(self._next_heard,), distant=self._line.distant))
        if not self._watching:
            self._watching = True
            self._line.site.later(REPEAT_NS, self._still_missing)

    def _still_missing(self) -> None:
        self._watching = False
        if self._early:
            self._ask_again()

    def _repeated(self, message: Kx) -> None:
        """The peer lacks our notices from this number on."""
        lacking = [notice for notice in self._notices if notice.number >= message.counts[0]]
        for notice in lacking[:REPEATED_AT_ONCE]:
            self._send(notice)
