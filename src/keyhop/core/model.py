"""The nouns of a key manager: names, runs, ranges, key states and the three kinds of error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, NewType

NodeId = NewType("NodeId", str)
"""A key manager (KME on the wire). Ends of a link are ordered by this name."""
AppId = NewType("AppId", str)
"""An application (SAE on the wire)."""

NANOSECONDS = 1_000_000_000
"""Time in the core is integer nanoseconds on a monotonic clock."""

BYTE_BITS = 8

TAG_KEY_BYTES = 32
"""One Wegman-Carter key: 16 bytes r and 16 bytes s, both fresh (Poly1305; `docs/protocol.md` 5)."""

POSITION_LIMIT = 1 << 34
"""Positions in a run are bytes below 16 GiB: what a key ID has room for. They never wrap."""


class RunKind(IntEnum):
    KEY = 0
    OPENING = 1
    TAG = 2


class RunId(NamedTuple):
    """A directed sequence of secret bytes known to exactly two key managers.

    The number is the same at both ends: bit 0 says whose it is (0 = the lower-named end owns it), the rest its kind.
    """

    peer: NodeId
    number: int

    @property
    def kind(self) -> RunKind:
        return RunKind(self.number >> 1)


def run_number(kind: RunKind, owner: NodeId, other: NodeId) -> int:
    return (int(kind) << 1) | int(owner > other)


class Range(NamedTuple):
    """Bytes [start, start + length) of a run: what a key, a pad and a tag key are."""

    run: RunId
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes in as few ranges as hold them: neighbouring keys are often asked for together."""
    found: list[Range] = []
    run, start, end = None, 0, 0
    for other, at, length in sorted(ranges):
        if other == run and at <= end:
            end = max(end, at + length)
            continue
        if run is not None:
            found.append(Range(run, start, end - start))
        run, start, end = other, at, at + length
    if run is not None:
        found.append(Range(run, start, end - start))
    return found


class Purpose(StrEnum):
    """What a lease may be used for."""

    SUPPLY = "supply"
    PAD = "pad"
    DERIVE = "derive"
    """Keys are derived from it, several from one piece; nothing else is made of it."""
    DESIGN = "design"
    """The stock of another design than our own, whose parts deal it out."""


class State(StrEnum):
    """Life of a range (names after ITU-T Y.3803; drawn in `docs/key-states.md`)."""

    RECEIVED = "received"
    STORED = "stored"
    RESERVED_APP = "reserved_app"
    RESERVED_INTERNAL = "reserved_internal"
    SUPPLIED = "supplied"
    USED_RELAY = "used_relay"
    USED_AUTH = "used_auth"
    WASTED = "wasted"
    LOST = "lost"
    EXPIRED = "expired"
    REJECTED = "rejected"
    DESTROYED = "destroyed"


class Action(StrEnum):
    AGREE = "agree"
    REJECT = "reject"
    RESERVE = "reserve"
    WITHHOLD = "withhold"
    SUPPLY = "supply"
    RELAY = "relay"
    AUTHENTICATE = "authenticate"
    WASTE = "waste"
    BURN = "burn"
    EXPIRE = "expire"
    DESTROY = "destroy"


LIFE: Mapping[State, Mapping[Action, State]] = MappingProxyType(
    {
        State.RECEIVED: {Action.AGREE: State.STORED, Action.REJECT: State.REJECTED},
        State.STORED: {
            Action.RESERVE: State.RESERVED_APP,
            Action.WITHHOLD: State.RESERVED_INTERNAL,
            # Tag and opening runs know no leases: their bytes go from stock to use directly.
            Action.AUTHENTICATE: State.USED_AUTH,
            Action.BURN: State.LOST,
            Action.EXPIRE: State.EXPIRED,
        },
        State.RESERVED_APP: {
            Action.SUPPLY: State.SUPPLIED,
            # The stock of another design: what a range is for is known only when it is used.
            Action.RELAY: State.USED_RELAY,
            Action.WASTE: State.WASTED,
            Action.BURN: State.LOST,
            Action.EXPIRE: State.EXPIRED,
        },
        State.RESERVED_INTERNAL: {
            Action.RELAY: State.USED_RELAY,
            Action.BURN: State.LOST,
            Action.EXPIRE: State.EXPIRED,
        },
        State.SUPPLIED: {Action.DESTROY: State.DESTROYED},
        State.USED_RELAY: {Action.DESTROY: State.DESTROYED},
        State.USED_AUTH: {Action.DESTROY: State.DESTROYED},
        State.WASTED: {Action.DESTROY: State.DESTROYED},
        State.LOST: {Action.DESTROY: State.DESTROYED},
        State.EXPIRED: {Action.DESTROY: State.DESTROYED},
        State.REJECTED: {Action.DESTROY: State.DESTROYED},
        State.DESTROYED: {},
    }
)
"""What may happen to a range. An absent cell is an error."""


def after(state: State, action: Action) -> State:
    """The state that `action` leads to; raises IllegalMove where the table has no cell."""
    try:
        return LIFE[state][action]
    except KeyError:
        legal = ", ".join(LIFE[state]) or "nothing"
        raise IllegalMove(f"{action} of a range that is {state}: only {legal} is legal") from None


class Refusal(StrEnum):
    """Why a request of an application was refused."""

    BAD_REQUEST = "bad_request"
    NOT_AUTHORISED = "not_authorised"
    NOT_FOUND = "not_found"
    UNSUPPORTED = "unsupported"
    NOT_ENOUGH_KEY = "not_enough_key"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"


class RequestError(Exception):
    """The application asks for what cannot be: it gets an answer, and no state has changed."""

    def __init__(
        self,
        reason: Refusal,
        message: str,
        details: tuple[dict[str, Any], ...] = (),
        *,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s


class PeerError(Exception):
    """A peer breaks the protocol: the exchange is dropped and counted, the node goes on."""


class IllegalMove(AssertionError):
    """Our own bug: the process stops and starts again from its store."""
