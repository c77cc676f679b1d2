"""What nodes that host another design say to each other, inside DesignMessage."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.messages import (
    APPLICATION_NAME_LIMIT,
    DESIGN_LIMIT_BYTES,
    LINKS_PER_NODE,
    NAME_LIMIT,
    PATH_LIMIT,
    Byte,
    Number,
    Span,
)
from keyhop.core.model import POSITION_LIMIT, PeerError

LIFE_BYTES = 8
KEY_ID_CHARACTERS = 36
RATE_LIMIT_BPS = 10**12
SIZE_LIMIT_BITS = 1 << 20
CATEGORIES = 5
RANGES_PER_KEY = 4096
PIECES_PER_PARENT = 255
"""Keys of one parent: as many as one expansion has (RFC 5869)."""

StreamName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2 * APPLICATION_NAME_LIMIT + 1)]
"""master>slave"""
Rate: TypeAlias = Annotated[int, Meta(ge=0, le=RATE_LIMIT_BPS)]
Size: TypeAlias = Annotated[int, Meta(ge=1, le=SIZE_LIMIT_BITS)]
Category: TypeAlias = Annotated[int, Meta(ge=1, le=CATEGORIES)]

NodeName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=NAME_LIMIT)]
Life: TypeAlias = Annotated[bytes, Meta(max_length=LIFE_BYTES)]
"""Random, of what one end shares with another: a new one means that nothing is left of what was. Empty: not known."""


class Load(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Beside the message of a site: key under the pad that it names, or nothing but whom it is for."""

    stamp: Annotated[bytes, Meta(max_length=2 * LIFE_BYTES)]
    """The lives of source and destination; empty where it goes over one link alone."""
    ciphertext: Annotated[bytes, Meta(max_length=DESIGN_LIMIT_BYTES)]


class Greeting(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    design: str
    life: Life
    """Of this end's stock."""
    links: Annotated[tuple[tuple[NodeName, Number], ...], Meta(max_length=LINKS_PER_NODE)]
    """(neighbour, bit/s) as configured: both ends come to the same from them."""


class Material(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """These segments of the sender's run, leased for the design, are its next block."""

    number: int
    spans: tuple[Span, ...]


class Spoken(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    kx: Kx
    load: Load | None = None


class Opened(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """A pair of applications, registered at the sender, whose master asks there."""

    stream: StreamName
    rate_bps: Rate
    size_bits: Size
    service_class: Literal["guaranteed", "prioritised", "best_effort"]
    category: Category


class Named(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """A key that the sender has given to a master, under the ID that its slave will come with."""

    key_id: Annotated[str, Meta(max_length=KEY_ID_CHARACTERS)]
    stream: StreamName
    name: Name


class Retuned(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    stream: StreamName
    rate_bps: Rate


class Closed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    stream: StreamName


class Hail(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=8):
    """Between two nodes without a link: carried from hop to hop, authenticated by each link for itself."""

    source: NodeName
    destination: NodeName
    hops_left: Byte
    design: str
    life: Life
    known: Life
    """The other end's, as the sender has it."""


class Carried(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=9):
    """What one site says to a distant one, in order; what gets lost on its way is sent again."""

    source: NodeName
    destination: NodeName
    hops_left: Byte
    life: Life
    known: Life
    number: Number
    """From 1; 0: nothing but what was heard."""
    heard: Number
    """All up to this one came."""
    said: Annotated[bytes, Meta(max_length=DESIGN_LIMIT_BYTES)]


class Wanted(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=10):
    """To the controller, of a service from the sender."""

    service: StreamName
    destination: NodeName
    slots: Rate
    """0: it is over."""
    number: Number
    """Of what the sender wants; rises."""


class Allowed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=11):
    """From the controller: what a service has now."""

    service: StreamName
    number: Number
    """Of the wish that this answers."""
    slots: Rate
    path: Annotated[tuple[NodeName, ...], Meta(max_length=PATH_LIMIT)]
    """Empty: no path has so many slots free."""


Said: TypeAlias = Spoken | Opened | Named | Retuned | Closed | Wanted | Allowed
"""What any two sites say to each other, neighbours or not."""
Message: TypeAlias = Greeting | Material | Said | Hail | Carried

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_said_decoder: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)


def encode(message: Message | Name) -> bytes:
    return _encoder.encode(message)


def decode(payload: bytes) -> Message:
    """Raises PeerError."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"a message of a design does not decode: {error}") from None


def decode_said(payload: bytes) -> Said:
    """Raises PeerError."""
    try:
        return _said_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"what a distant site says does not decode: {error}") from None


def check_name(name: Name) -> None:
    """Whether it can be a key at all: bits that are there, each once. Raises PeerError."""
    at = total = 0
    for start, end in sorted(name.ranges):
        if not at <= start < end:
            raise PeerError(f"a key of the ranges {name.ranges[:4]}: must rise, hold something and not overlap")
        at, total = end, total + end - start
    sizes = (name.size_bits, name.taken_bits, name.unit_bits)
    if not name.ranges or len(name.ranges) > RANGES_PER_KEY or at > POSITION_LIMIT * 8 or min(sizes) < 1:
        raise PeerError("a key without bits, or of more than can be")
    derived = name.derived_bits > 0
    if name.size_bits > SIZE_LIMIT_BITS or name.taken_bits > total * name.unit_bits:
        raise PeerError(f"a key of {name.size_bits} bits of {name.taken_bits}, in {total} units of {name.unit_bits}")
    if not derived and name.size_bits > name.taken_bits:
        raise PeerError(f"a key of {name.size_bits} bits of {name.taken_bits}: it would be short")
    if name.derived_bits < 0 or not 1 <= name.keys <= PIECES_PER_PARENT:
        raise PeerError(f"{name.keys} keys of one parent: 1 to {PIECES_PER_PARENT} are legal")
