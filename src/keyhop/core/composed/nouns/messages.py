"""What sites hear and say: events, answers, and the one message between key managers."""

from __future__ import annotations

from typing import Literal

import msgspec

from keyhop.core.composed.nouns.units import Units
from keyhop.core.policy.synchronisation import Verb


class Kx(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A verb on ranges, under the word that the design itself has for it; tags are counted, bits never carried."""

    word: str
    verb: Verb
    number: int = 0
    """Of the exchange: an answer repeats it, so that a message that comes twice moves nothing twice."""
    ranges: tuple[Units, ...] = ()
    to: str = ""
    counts: tuple[int, ...] = ()
    """Whatever numbers the word needs: block numbers, digests, marks, rates."""
    names: tuple[str, ...] = ()
    ok: bool = True
    kind: Literal["ask", "answer", "tell"] = "tell"
    tags: int = 1
    """One-time tags that it costs."""
    spent_bits: int = 0
    """Tag key of this direction used so far, this message's too: what is lost on the way is booked at both ends."""
    distant: bool = False
    """Of the pair's line over relay nodes, not of their link."""
    cargo: int = 0
    """What goes beside it, by a number of whoever holds the bits (`cargo.py`)."""


class Name(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What an application tells its peer so that it gets the same key."""

    distant: bool
    label: str
    """Of the pool it was taken from, as the taker calls it; empty for the free stock."""
    ranges: tuple[Units, ...]
    size_bits: int
    taken_bits: int
    """More than the size where whole units are given."""
    derived_bits: int = 0
    """Not 0: the key is derived from its ranges, or exchanged (no ranges): booked F."""
    its: bool = True
    unit_bits: int = 0
    """Which run, where a line has several."""
    joined_bits: int = 0
    """Of an exchanged key that it was joined with: booked F."""
    keys: int = 1
    """Derived from the same ranges, all of this size; each is fetched alone."""
    child: int = 0
    """Which of them is meant."""


# --- events -----------------------------------------------------------------------------------------------------------


class BlockArrived(msgspec.Struct, frozen=True, gc=False):
    """A module's block. Blocks of a link are numbered from 0 and laid end to end: `stamp_bits` is where it begins."""

    peer: str
    number: int
    bits: int
    stamp_bits: int
    digest: int
    """The outcome of a comparison, seen from this end: equal numbers at both ends mean equal bits."""


class KxArrived(msgspec.Struct, frozen=True, gc=False):
    peer: str
    message: Kx


class KeyAsked(msgspec.Struct, frozen=True, gc=False):
    request: int
    peer: str
    """The key manager of the other application."""
    stream: str
    size_bits: int
    deadline_ns: int
    """From now."""
    service_class: str = "best_effort"
    category: int = 3
    security_level: int = 5
    keys: int = 1
    """Of this size, where a design gives several at once."""


class KeyFetched(msgspec.Struct, frozen=True, gc=False):
    """The other application comes with the name."""

    request: int
    peer: str
    stream: str
    name: Name
    deadline_ns: int


class StreamOpened(msgspec.Struct, frozen=True, gc=False):
    """A pair of applications, registered at both of its key managers."""

    stream: str
    peer: str
    rate_bps: int
    size_bits: int
    """The largest key it asks for."""
    asks: bool
    """Keys are asked for at this end, and named at the other."""
    service_class: str = "best_effort"
    category: int = 3
    buffer_bits: int = 0
    """Of the buffer that its two ends have agreed on (QCC); 0: as the design has it."""


class StreamRetuned(msgspec.Struct, frozen=True, gc=False):
    stream: str
    rate_bps: int


class StreamClosed(msgspec.Struct, frozen=True, gc=False):
    stream: str


class Restarted(msgspec.Struct, frozen=True, gc=False):
    """The process died and is back: conversations under way are gone, and whatever was in memory alone."""


class LinkRenewed(msgspec.Struct, frozen=True, gc=False):
    """The link to this neighbour begins anew, with nothing in it."""

    peer: str
    silent: bool = False
    """The neighbour is not ready yet: it begins once more when it is, and what is said till then goes nowhere."""


class PairParted(msgspec.Struct, frozen=True, gc=False):
    """All that was shared with this site over relay nodes is gone at one end."""

    peer: str


class NetworkLearned(msgspec.Struct, frozen=True, gc=False):
    """More links of the network are known."""


class Woke(msgspec.Struct, frozen=True, gc=False):
    pass


# --- what leaves ------------------------------------------------------------------------------------------------------


class Said(msgspec.Struct, frozen=True, gc=False):
    peer: str
    message: Kx


class Answered(msgspec.Struct, frozen=True, gc=False):
    """To an application: the name of its key, or why there is none."""

    request: int
    name: Name | None = None
    refusal: str = ""
    timed_out: bool = False
    """Refused after waiting for key."""
    unservable: bool = False
    """This design has no key of such a kind, whatever its stock."""


class Moves(msgspec.Struct, gc=False):
    """What a step asks for: `send`, then `answer`, then wake at `wake_at`."""

    send: list[Said] = msgspec.field(default_factory=list)
    answer: list[Answered] = msgspec.field(default_factory=list)
    pull: list[str] = msgspec.field(default_factory=list)
    """Peers from whose modules the next block is wanted, in designs that pull."""
    wake_at: int | None = None
