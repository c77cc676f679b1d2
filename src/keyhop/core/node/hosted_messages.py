"""What nodes that host another design say to each other, inside DesignMessage."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from keyhop.core.composed.messages import Kx, Name
from keyhop.core.messages import DESIGN_LIMIT_BYTES, LINKS_PER_NODE, NAME_LIMIT, Byte, Number, Span
from keyhop.core.model import PeerError

LIFE_BYTES = 8

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

    stream: str
    rate_bps: int
    size_bits: int
    service_class: str
    category: int


class Named(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """A key that the sender has given to a master, under the ID that its slave will come with."""

    key_id: str
    stream: str
    name: Name


class Retuned(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    stream: str
    rate_bps: int


class Closed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    stream: str


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


Said: TypeAlias = Spoken | Opened | Named | Retuned | Closed
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
