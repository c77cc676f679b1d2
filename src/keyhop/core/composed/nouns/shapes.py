"""What each word between two key managers may carry: checked before any handler of it runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.composed.nouns.units import count, disjoint

NUMBER_LIMIT = 1 << 62
"""Of positions, times and numbers of exchanges."""
BITS_LIMIT = 1 << 40
"""Of one amount of key, and of a rate in bit/s."""
UNITS_LIMIT = 1 << 20
"""That one message says are used, wanted or put into a set."""
COUNTS_LIMIT = 65_536
RANGES_LIMIT = 65_536
"""Of pads and orders to destroy, which may lie in many pieces."""
KEY_RANGES_LIMIT = 4096
"""Of what is compared with a whole stock, piece by piece."""
NAMES_LIMIT = 4096
PATH_LIMIT = 512
"""Nodes of a path that a design chose: by width it goes far out of its way (152 nodes on NSFNET), unlike our own."""
TEXT_LIMIT = 2048
"""Characters of a name or label."""
RANKS_LIMIT = 16
PATIENCE_LIMIT_NS = 60_000_000_000
"""Of one that waits for key at the owner of a link."""
SESSION_CHANGE, PURGE_CHANGE = "SESSIONS", "PURGE"
BUFFERS = ("incoming", "outgoing", "application")


class Malformed(ValueError):
    """A peer says what it may not say; the message has changed nothing."""


class Bounds(NamedTuple):
    least: int
    most: int


ANY = Bounds(-(1 << 64), 1 << 64)
"""Digests."""
NUMBER, POSITIVE = Bounds(0, NUMBER_LIMIT), Bounds(1, NUMBER_LIMIT)
SIGNED = Bounds(-NUMBER_LIMIT, NUMBER_LIMIT)
AMOUNT, RATE = Bounds(1, BITS_LIMIT), Bounds(0, BITS_LIMIT)
UNITS = Bounds(1, UNITS_LIMIT)
FLAG = Bounds(0, 1)
MARK = Bounds(-1, NUMBER_LIMIT)
NONE = Bounds(0, 0)
ONE = Bounds(1, 1)
PATH = Bounds(2, PATH_LIMIT)

Check = Callable[[Kx], str]
"""What is wrong between parts of a message; empty if nothing is."""


class Shape(NamedTuple):
    kind: Literal["ask", "tell"] = "tell"
    counts: tuple[Bounds, ...] = ()
    more: tuple[Bounds, ...] = ()
    """Of counts after these, again and again."""
    names: Bounds = NONE
    """How many."""
    ranges: Bounds = NONE
    """How many, all disjoint."""
    ascending: bool = False
    by: Literal["", "lower", "higher"] = ""
    """Which end alone may say it, by name; empty: both."""
    answers: tuple[str, ...] = ()
    check: Check | None = None


def distinct(names: tuple[str, ...]) -> str:
    return "" if len(set(names)) == len(names) else "a name comes twice"


def _blocks(message: Kx) -> str:
    numbers = message.counts[::3]
    return "" if len(set(numbers)) == len(numbers) else "a block comes twice"


def _moves(message: Kx) -> str:
    """The number of the refill, then how many ranges go to each buffer."""
    lengths = message.counts[1:]
    if not all(message.names) or distinct(message.names):
        return "buffers must have names, each its own"
    return "" if len(lengths) == len(message.names) and sum(lengths) == len(message.ranges) else "moves do not add up"


def _rates(message: Kx) -> str:
    return distinct(message.names) or ("" if len(message.counts) == len(message.names) else "a rate for each name")


def _change(message: Kx) -> str:
    if message.to == PURGE_CHANGE:
        return "" if len(message.counts) == 2 and not message.names else "a purge has one position"
    if message.to != SESSION_CHANGE:
        return f"a change of {message.to[:32]!r}: must be {SESSION_CHANGE} or {PURGE_CHANGE}"
    return distinct(message.names) or (
        "" if len(message.counts) == len(message.names) + 2 else "a rate for each session"
    )


def _buffers(message: Kx) -> str:
    if len(message.names) != len(message.ranges):
        return "a buffer for each range"
    return "" if all(name in BUFFERS for name in message.names) else f"buffers must be of {', '.join(BUFFERS)}"


def _few_units(message: Kx) -> str:
    units = count(message.ranges)
    return "" if units <= UNITS_LIMIT else f"{units} units: must be {UNITS_LIMIT} or fewer"


def _digests(message: Kx) -> str:
    return "" if len(message.counts) == len(message.ranges) else "a digest for each stretch"


def _split(message: Kx) -> str:
    fits = len(message.counts) == len(message.names) - 1
    return distinct(message.names) or ("" if fits else "a length for each part")


def _distinct(message: Kx) -> str:
    return distinct(message.names)


def _gap(message: Kx) -> str:
    return "" if not message.counts or message.counts[0] <= message.counts[1] else "a gap that ends before it begins"


def _settled(message: Kx) -> str:
    return _gap(message) if len(message.counts) == 2 * message.ok else "a gap where there is an answer, else none"


def _files(message: Kx) -> str:
    files, named = message.counts[1], count(message.ranges)
    return "" if files == named else f"{files} files in {named} units: must be as many"


def _alike(message: Kx) -> str:
    return "" if message.counts[0] < len(message.counts) else "more blocks alike than are named"


def _phase(message: Kx) -> str:
    phases = ("prepared", "committed", "aborted")
    return "" if message.names[0] in phases else f"an outcome must be of {', '.join(phases)}"


def _pinned(message: Kx) -> str:
    """Stream, length of the path that was chosen before or 0, path."""
    return "" if message.names[1] in ("0", str(len(message.names) - 2)) else "a path of another length than it says"


def _granted(message: Kx) -> str:
    return "" if message.ok is bool(message.ranges) else "a grant has ranges, a refusal none"


def _compared(word: str) -> dict[str, Shape]:
    blocks = Shape("ask", (), (NUMBER, ANY, RATE), by="lower", answers=(f"{word}-ACK",), check=_blocks)
    return {word: blocks}


_RELAYED = Shape(
    counts=(POSITIVE, AMOUNT, AMOUNT, AMOUNT, FLAG, RATE, SIGNED, NUMBER, FLAG),
    names=Bounds(PATH.least + 1, PATH.most + 1),
    ranges=Bounds(1, RANGES_LIMIT),
)
"""Number, bits, bits taken, bits of a unit, ITS, bits aside, rank, beginning, congested; flow and path."""
_KEYS = Shape("ask", names=Bounds(1, NAMES_LIMIT), answers=("CHANGED", "CONFLICT", "UNKNOWN"), check=_distinct)
_ORDERS = Bounds(1, RANGES_LIMIT)
_KEY = Bounds(1, KEY_RANGES_LIMIT)
_RESERVATION = Shape(counts=(AMOUNT,), names=PATH)

SHAPES: dict[str, Shape] = {
    "REPEAT": Shape(counts=(POSITIVE,)),
    "PURGE": Shape(counts=(RATE,), names=ONE, ranges=_ORDERS),
    # Blocks.
    "SYNC": Shape("ask", (NUMBER, NUMBER), answers=("SYNC-ACK",), check=_gap),
    **_compared("AGREE"),
    **_compared("STORE"),
    **_compared("VERIFY"),
    **_compared("NEW_KEY_BATCH"),
    "STORE-DONE": Shape(more=(NUMBER,), by="lower"),
    # Sessions and their buffers.
    "REFILL": Shape("ask", (NUMBER,), (NUMBER,), Bounds(1, NAMES_LIMIT), _KEY, answers=("REFILL-ACK",), check=_moves),
    "FILL": Shape("ask", (NUMBER,), (NUMBER,), Bounds(1, NAMES_LIMIT), _KEY, answers=("FILL-ACK",), check=_moves),
    "CLOSE": Shape("ask", (NUMBER,), names=Bounds(1, NAMES_LIMIT), answers=("CLOSED",)),
    "CONNECT": Shape(
        "ask", more=(MARK,), names=Bounds(0, NAMES_LIMIT), by="higher", answers=("CONNECTED",), check=_rates
    ),
    "DEAL": Shape(
        *("ask", (NUMBER, NUMBER), (RATE,), Bounds(0, NAMES_LIMIT)),
        by="lower",
        answers=("DEAL-ACK",),
        check=_change,
    ),
    "PREPARE": Shape(
        *("ask", (NUMBER, NUMBER), (RATE,), Bounds(0, NAMES_LIMIT)),
        by="lower",
        answers=("VOTE",),
        check=_change,
    ),
    "COMMIT": Shape("ask", (NUMBER,), by="lower", answers=("ACK",)),
    "ABORT": Shape("ask", (NUMBER,), by="lower", answers=("ACK",)),
    "OUTCOME": Shape("ask", (NUMBER,), by="higher", answers=("OUTCOME-IS",)),
    "DIST": Shape(counts=(NUMBER,), more=(NUMBER,)),
    "AUDIT": Shape("ask", more=(ANY,), ranges=_KEY, answers=("AUDIT-DIFFERS",), check=_digests),
    "AUDIT-BAD": Shape("ask", ranges=_KEY, answers=("AUDIT-ACK",)),
    # Key of a link that is asked for, lent or used.
    "PROPOSE": Shape("ask", ranges=_KEY, answers=("ACCEPT", "REFUSE")),
    "SPLIT": Shape("ask", ranges=_KEY, answers=("SPLIT-ACK",)),
    "OFFER": Shape("ask", ranges=_KEY, ascending=True, answers=("ACCEPT", "BUSY"), check=_few_units),
    "LOAD": Shape(
        *("ask", (), (), Bounds(1, COUNTS_LIMIT), _ORDERS), by="lower", answers=("LOAD-ACK",), check=_buffers
    ),
    "LOAD-REQ": Shape(counts=(UNITS,), by="higher"),
    "WS": Shape(ranges=_ORDERS, ascending=True, by="lower"),
    "USED": Shape(ranges=_ORDERS, ascending=True, check=_few_units),
    "WS-WANTED": Shape(counts=(UNITS,), by="higher"),
    "WANT": Shape(counts=(POSITIVE, UNITS, Bounds(0, RANKS_LIMIT), Bounds(0, PATIENCE_LIMIT_NS))),
    "GRANT": Shape(counts=(POSITIVE,), ranges=Bounds(0, RANGES_LIMIT), check=_granted),
    # Keys by name.
    "SPLIT_KEY": _KEYS._replace(more=(UNITS,), names=Bounds(2, NAMES_LIMIT), check=_split),
    "MERGE_KEYS": _KEYS._replace(counts=(UNITS,), names=Bounds(2, NAMES_LIMIT)),
    "DELETE_KEYS": _KEYS,
    "MAKE_KEYS_INTERNAL": _KEYS,
    "MAKE_KEYS_EXTERNAL": _KEYS,
    "NEW_APP": Shape(counts=(RATE, RATE), names=ONE),
    "KEY_STREAM_CLOSED": Shape(names=ONE),
    "GET_STATUS": Shape("ask", answers=("POST_STATUS",)),
    "POST_STATUS": Shape(counts=(NUMBER, NUMBER)),
    # Relay.
    "RELAY": _RELAYED,
    "FORWARD_KEYS": _RELAYED,
    "ROUTE": _RELAYED,
    "PPETP": _RELAYED,
    "STORED": Shape(counts=(POSITIVE,), more=(FLAG,)),
    "CONFIRM": Shape(counts=(POSITIVE,)),
    "DIRECT": Shape(counts=(POSITIVE, AMOUNT, RATE)),
    "JOINED": Shape("ask", (POSITIVE,), answers=("JOINED-ACK",)),
    "ACK": Shape(counts=(POSITIVE, NUMBER, AMOUNT), names=Bounds(PATH.least + 1, PATH.most + 1)),
    "RESV": _RESERVATION,
    "RESV-OK": _RESERVATION,
    "RESV-FAIL": _RESERVATION,
    "RELEASE": Shape(names=PATH),
    "SYN": Shape(counts=(RATE,), names=Bounds(PATH.least + 2, PATH.most + 2), check=_pinned),
    "SYN-ACK": Shape(counts=(RATE, RATE), names=Bounds(PATH.least + 1, PATH.most + 1)),
    "FIN": Shape(names=Bounds(PATH.least + 1, PATH.most + 1)),
    "REGISTER": Shape(names=Bounds(2, 2)),
    "WITHDRAW": Shape(names=Bounds(2, 2)),
    "LOOKUP": Shape("ask", names=ONE, answers=("LOCATION",)),
    "REQ": Shape("ask", (UNITS, NUMBER), names=ONE, answers=("REQ-OK", "BLOCKED")),
    "XOR": Shape(counts=(POSITIVE, UNITS, NUMBER), names=ONE, ranges=_ORDERS, check=_files),
    "SET": Shape(counts=(POSITIVE, UNITS, NUMBER), names=ONE, ranges=_ORDERS, check=_files),
    "SET-OK": Shape(counts=(POSITIVE, MARK)),
    "READY": Shape(counts=(POSITIVE, NUMBER, NUMBER), names=ONE),
    "FILES-USED": Shape(counts=(UNITS,), names=ONE),
}

ANSWERS: dict[str, Shape] = {
    **dict.fromkeys(
        ("AGREE-ACK", "STORE-ACK", "VERIFY-ACK", "NEW_KEY_BATCH-ACK"),
        Shape(counts=(NUMBER,), more=(NUMBER,), check=_alike),
    ),
    "SYNC-ACK": Shape(more=(NUMBER, NUMBER), check=_settled),
    "REFILL-ACK": Shape(ranges=Bounds(0, RANGES_LIMIT)),
    "FILL-ACK": Shape(ranges=Bounds(0, RANGES_LIMIT)),
    "DEAL-ACK": Shape(counts=(MARK,)),
    "VOTE": Shape(counts=(MARK,)),
    "OUTCOME-IS": Shape(names=ONE, check=_phase),
    "AUDIT-DIFFERS": Shape(ranges=Bounds(0, RANGES_LIMIT)),
    "ACCEPT": Shape(ranges=_KEY),
    "REFUSE": Shape(ranges=Bounds(0, RANGES_LIMIT)),
    "BUSY": Shape(ranges=Bounds(0, RANGES_LIMIT)),
    "LOAD-ACK": Shape(ranges=Bounds(0, RANGES_LIMIT)),
    "UNKNOWN": Shape(names=Bounds(0, NAMES_LIMIT)),
    "POST_STATUS": Shape(counts=(NUMBER, NUMBER)),
    "LOCATION": Shape(names=ONE),
    **dict.fromkeys(
        (
            *("CLOSED", "CONNECTED", "ACK", "AUDIT-ACK", "SPLIT-ACK", "CHANGED", "CONFLICT"),
            *("JOINED-ACK", "REQ-OK", "BLOCKED"),
        ),
        Shape(),
    ),
}


def check(message: Kx, *, master: bool) -> None:
    """Of what is asked or told; `master`: whether who hears it has the lower name. Raises Malformed."""
    shape = SHAPES[message.word]
    if message.kind != shape.kind:
        raise Malformed(f"{message.word} that is to be {'answered' if shape.kind == 'tell' else 'told'}")
    if shape.by and (shape.by == "higher") is not master:
        raise Malformed(f"{message.word} by the {'lower' if shape.by == 'higher' else 'higher'} name")
    _fits(message, shape)


def check_answer(message: Kx, asked: str) -> None:
    """Raises Malformed."""
    answers = SHAPES[asked].answers
    if message.word not in answers:
        raise Malformed(f"{asked} answered by {message.word[:32]!r}: must be {' or '.join(answers)}")
    _fits(message, ANSWERS[message.word])


def _fits(message: Kx, shape: Shape) -> None:
    word, counts, fixed, more = message.word, message.counts, shape.counts, shape.more
    beyond = len(counts) - len(fixed)
    if beyond < 0 or (beyond % len(more) if more else beyond) or len(counts) > COUNTS_LIMIT:
        raise Malformed(f"{word} with {len(counts)} numbers: must be {len(fixed)}{' or more' if more else ''}")
    for at, number in enumerate(counts):
        least, most = fixed[at] if at < len(fixed) else more[(at - len(fixed)) % len(more)]
        if not least <= number <= most:
            raise Malformed(f"{word} with number {at} = {number}: must be {least} to {most}")
    for what, found, bounds in (
        ("names", len(message.names), shape.names),
        ("ranges", len(message.ranges), shape.ranges),
    ):
        if not bounds.least <= found <= bounds.most:
            raise Malformed(f"{word} with {found} {what}: must be {bounds.least} to {bounds.most}")
    if any(len(text) > TEXT_LIMIT for text in (message.to, *message.names)):
        raise Malformed(f"{word} with a name of more than {TEXT_LIMIT} characters")
    if message.ranges:
        try:
            disjoint(message.ranges)
        except ValueError as error:
            raise Malformed(f"{word}: {error}") from None
        if max(end for _, end in message.ranges) > NUMBER_LIMIT:
            raise Malformed(f"{word} of units beyond {NUMBER_LIMIT}")
        if shape.ascending and any(one > other for one, other in pairwise(message.ranges)):
            raise Malformed(f"{word}: ranges must ascend")
    if shape.check is not None and (why := shape.check(message)):
        raise Malformed(f"{word}: {why}")
