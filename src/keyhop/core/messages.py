"""What key managers say to each other: msgpack arrays in fixed order (`docs/protocol.md` is the same in words)."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec

from keyhop.core.model import PeerError

PROTOCOL_VERSION = 1
FRAME_LIMIT_BYTES = 1 << 20
"""Longest frame, header included."""
MESSAGES_PER_FRAME = 256
NAME_LIMIT = 64
RANGES_PER_MESSAGE = 4096


class FrameType(IntEnum):
    HELLO = 1
    GRANT = 2
    PROOF = 3
    STATE = 4
    """Tagged: everything that changes state."""
    PLAIN = 5
    """Untagged, protected by TLS alone: what can cost time but never a second use of a bit."""


Span: TypeAlias = tuple[int, int]
"""(start, length), bytes."""
Placement: TypeAlias = tuple[int, int, int]
"""(run number, start, length), bytes; placements of a block follow one another in its bytes."""


class Message(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    pass


# --- opening ----------------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, gc=False, array_like=True):
    version_low: int
    version_high: int
    link: bytes
    """16 random bytes that name the link; all zero for a distant pair whose first key came by relay."""
    start: int
    incarnation: bytes
    nonce: bytes
    opening: tuple[Span, ...]
    """What the sender has of its own opening run above its durable mark. A claim: it moves no mark before the PROOF."""
    tags: tuple[Span, ...]
    """The same of its own tag run."""


class Grant(msgspec.Struct, frozen=True, gc=False, array_like=True):
    position: int
    """Of the receiver's opening run, granted once in all time."""


class RunState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    run: int
    append: int
    floor: int
    touched: tuple[Span, ...]
    """Positions in [floor, append) that are not untouched and present here (of an authentication run: not present)."""


class Proof(msgspec.Struct, frozen=True, gc=False, array_like=True):
    epoch: int
    journal: int
    vouch: bytes
    """The sender's authenticator over its start and journal numbers, which only it can check."""
    told_start: int
    told_journal: int
    told_vouch: bytes
    """The receiver's own numbers as it last told them (zero and empty: never told)."""
    runs: tuple[RunState, ...]
    intake: tuple[tuple[str, int, int], ...]
    """(module, highest block number, bit map of the 64 numbers up to it)."""
    secrets: tuple[int, ...]
    """Epochs of the receiver's key-ID secrets that the sender holds."""
    credit: tuple[Span, ...]
    """Positions of the receiver's tag run that it may use in this connection, rising."""


class State(msgspec.Struct, frozen=True, gc=False, array_like=True):
    journal: int
    vouch: bytes
    credit: tuple[Span, ...]
    messages: tuple[
        AgreeBlock | AnswerBlock | StoredBlock | RequestLease | AnswerLease | Statement | NameSecret | RelayBatch, ...
    ]


# --- tagged messages --------------------------------------------------------------------------------------------------


class AgreeBlock(Message, frozen=True, gc=False, array_like=True, tag=1):
    """The lower-named end proposes a block, with a fresh tag over its bits, and says where it goes."""

    module: str
    number: int
    length: int
    key_position: int
    """In the sender's tag run: the positions after the frame's own, in the order of the messages."""
    fingerprint: bytes
    placements: tuple[Placement, ...]
    segment_bytes: int
    epsilon: float


class AnswerBlock(Message, frozen=True, gc=False, array_like=True, tag=2):
    module: str
    number: int
    accepted: bool


class StoredBlock(Message, frozen=True, gc=False, array_like=True, tag=8):
    """The proposer has stored it too: from now on the other end may grant positions of its authentication runs."""

    module: str
    number: int


class RequestLease(Message, frozen=True, gc=False, array_like=True, tag=3):
    """Whole segments of the sender's own key run, for one purpose."""

    request: int
    purpose: str
    segments: tuple[Span, ...]


class AnswerLease(Message, frozen=True, gc=False, array_like=True, tag=4):
    request: int
    granted: bool


class Statement(Message, frozen=True, gc=False, array_like=True, tag=5):
    """How the owner used its run so far, in bytes in all; the follower's book takes these totals."""

    delivered: int
    rounding: int
    relayed: int
    authentication: int
    expired: int
    lost: int
    floor: int
    audit_head: bytes


class NameSecret(Message, frozen=True, gc=False, array_like=True, tag=6):
    """The 32 bytes at `key_position` of the sender's tag run seal its key IDs from now on."""

    epoch: int
    key_position: int


class RelayBatch(Message, frozen=True, gc=False, array_like=True, tag=7):
    """A batch of global key on one hop: under a pad, or (first hop) the pad itself."""

    source: str
    destination: str
    number: int
    pads: tuple[Span, ...]
    """In the sender's key run with this neighbour, in the order of the payload's bytes."""
    length: int
    ciphertext: bytes
    """Empty: the bytes at `pads` are the payload."""
    manifest: bytes
    """What source and destination agree on; relays pass it on unread."""


# --- untagged messages ------------------------------------------------------------------------------------------------


class KeepAlive(Message, frozen=True, gc=False, array_like=True, tag=20):
    pass


class LinkState(Message, frozen=True, gc=False, array_like=True, tag=21):
    """What one node tells all others: its links and the applications it serves."""

    node: str
    sequence: int
    links: tuple[tuple[str, int, int, bool], ...]
    """(peer, usable bytes of the node's own run in steps, rate in bit/s, up)."""
    applications: tuple[str, ...]


class Forward(Message, frozen=True, gc=False, array_like=True, tag=22):
    """A frame of a distant pair, handed on towards its destination."""

    source: str
    destination: str
    hops_left: int
    connection: int
    kind: int
    position: int
    payload: bytes
    tag: bytes


class Reserve(Message, frozen=True, gc=False, array_like=True, tag=23):
    """Asks every hop of the path to set pad aside before the first key moves."""

    number: int
    path: tuple[str, ...]
    length: int


class AnswerReserve(Message, frozen=True, gc=False, array_like=True, tag=24):
    number: int
    path: tuple[str, ...]
    reserved: bool
    at: str
    """The node that refused."""
    reason: str


class Confirm(Message, frozen=True, gc=False, array_like=True, tag=25):
    """The destination's answer to a batch, under the key inside it; an empty tag says that the batch is dead."""

    number: int
    path: tuple[str, ...]
    fingerprint: bytes


class Manifest(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Inside a relay batch: where its bytes go and the source's tag over them, under the first key inside."""

    placements: tuple[Placement, ...]
    segment_bytes: int
    fingerprint: bytes
    epsilon: float
    path: tuple[str, ...]


PlainMessage: TypeAlias = KeepAlive | LinkState | Forward | Reserve | AnswerReserve | Confirm
TaggedMessage: TypeAlias = (
    AgreeBlock | AnswerBlock | StoredBlock | RequestLease | AnswerLease | Statement | NameSecret | RelayBatch
)


class Plain(msgspec.Struct, frozen=True, gc=False, array_like=True):
    messages: tuple[KeepAlive | LinkState | Forward | Reserve | AnswerReserve | Confirm, ...]


Body: TypeAlias = Hello | Grant | Proof | State | Plain

BODIES: dict[FrameType, type[Body]] = {
    FrameType.HELLO: Hello,
    FrameType.GRANT: Grant,
    FrameType.PROOF: Proof,
    FrameType.STATE: State,
    FrameType.PLAIN: Plain,
}

_encoder = msgspec.msgpack.Encoder()
_decoders = {kind: msgspec.msgpack.Decoder(body) for kind, body in BODIES.items()}
_manifest_decoder = msgspec.msgpack.Decoder(Manifest)


def encode(body: Body | Manifest) -> bytes:
    return _encoder.encode(body)


def decode(kind: int, payload: bytes) -> Body:
    """The body of a frame; raises PeerError on an unknown type or bytes that do not fit it."""
    decoder = _decoders.get(kind)  # type: ignore[call-overload]
    if decoder is None:
        raise PeerError(f"frame type {kind} is unknown: 1 to {max(FrameType)} are legal")
    try:
        body: Body = decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PeerError(f"payload of a frame of type {kind} does not decode: {error}") from None
    return body


def decode_manifest(payload: bytes) -> Manifest:
    try:
        return _manifest_decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PeerError(f"manifest of a relay batch does not decode: {error}") from None


def signed(kind: int, position: int, payload: bytes) -> bytes:
    """What a tag covers: type, position and payload, injectively."""
    return kind.to_bytes(1, "big") + position.to_bytes(8, "big") + payload
