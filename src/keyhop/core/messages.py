"""What key managers say to each other: msgpack arrays in fixed order (`docs/protocol.md` is the same in words)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from keyhop.core.model import POSITION_LIMIT, PeerError

PROTOCOL_VERSION = 1
MESSAGES_PER_FRAME = 256
NAME_LIMIT = 64
"""Characters in the name of a node or a module."""
APPLICATION_NAME_LIMIT = 256
RANGES_PER_MESSAGE = 4096
RANGES_PER_RUN_STATE = 65_536
MODULES_PER_PEER = 64
PLACEMENTS_LIMIT = 16
BLOCKS_PER_PROPOSAL = 32
PATH_LIMIT = 128
RUNS_PER_PAIR = 64
SECRETS_PER_ISSUER = 16
LINKS_PER_NODE = 256
STATEMENT_LIMIT_BYTES = 512 * 1024
CERTIFICATE_LIMIT_BYTES = 8192
SIGNATURE_LIMIT_BYTES = 1024
APPLICATIONS_PER_NODE = 4096
EVERYWHERE = 255
"""Hops left of link state that goes on to all nodes there are; nobody takes one off."""
HORIZON_LIMIT_HOPS = EVERYWHERE - 1
CIPHERTEXT_LIMIT_BYTES = 262_144
DESIGN_LIMIT_BYTES = 65_536
MANIFEST_LIMIT_BYTES = 4096
"""Each node of a path sends on what it got and a ciphertext beside it: that must fit into a frame."""
RATE_LIMIT_BPS = 1 << 40
"""Of a guaranteed flow, and bits of its burst: what is held for it can be computed with."""
FLOW_LIFETIME_LIMIT_MS = 60_000
LABEL_PIECES_LIMIT = 256
LABEL_TERMS_LIMIT = 64
LABEL_PATHS_LIMIT = 8
"""What is said of a batch: so many pieces of it, of each so many blocks, and paths beside its own."""
LABELS_LIMIT_BYTES = 131_072


class FrameType(IntEnum):
    HELLO = 1
    GRANT = 2
    PROOF = 3
    STATE = 4
    """Tagged: everything that changes state."""
    PLAIN = 5
    """Untagged, protected by TLS alone: what can cost time but never a second use of a bit."""


# What no message may exceed is refused while it is decoded: handlers see numbers they can compute with.
Number: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Position: TypeAlias = Annotated[int, Meta(ge=0, le=POSITION_LIMIT)]
Length: TypeAlias = Annotated[int, Meta(ge=1, le=POSITION_LIMIT)]
RunNumber: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 16) - 1)]
Epoch: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
Byte: TypeAlias = Annotated[int, Meta(ge=0, le=255)]
BitMap: TypeAlias = Annotated[int, Meta(ge=0)]
"""Below 2^64: MessagePack has no larger ones."""
Name: TypeAlias = Annotated[str, Meta(max_length=NAME_LIMIT)]
Vouch: TypeAlias = Annotated[bytes, Meta(max_length=16)]
Fingerprint: TypeAlias = Annotated[bytes, Meta(max_length=16)]
Epsilon: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Rate: TypeAlias = Annotated[int, Meta(ge=1, le=RATE_LIMIT_BPS)]
"""Bit/s."""
Burst: TypeAlias = Annotated[int, Meta(ge=1, le=RATE_LIMIT_BPS)]
"""Bits."""
Path: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=PATH_LIMIT)]

Span: TypeAlias = tuple[Position, Length]
"""(start, length), bytes."""
Spans: TypeAlias = Annotated[tuple[Span, ...], Meta(max_length=RANGES_PER_MESSAGE)]
Placement: TypeAlias = tuple[RunNumber, Position, Length]
"""(run number, start, length), bytes; placements of a block follow one another in its bytes."""
Placements: TypeAlias = Annotated[tuple[Placement, ...], Meta(max_length=PLACEMENTS_LIMIT)]


class Strict(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """Exactly the elements listed: what a later version adds, it adds under its own version number."""


class Message(Strict, frozen=True, gc=False, array_like=True, tag=True):
    pass


# --- what is told of bits ---------------------------------------------------------------------------------------------


class LabelTerm(Strict, frozen=True, gc=False, array_like=True, order=True):
    """One block that must be secret for the key to be so."""

    module: Name
    number: Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
    """-1: several blocks, or one that nobody knows."""
    epsilon: Epsilon
    """0.0: not declared."""
    vendor: Name
    """Of the module; empty: not declared."""


class LabelPiece(Strict, frozen=True, gc=False, array_like=True):
    """Bytes of a batch that are alike in where they come from."""

    length: Length
    age_ms: Number
    """Of the oldest bits, at the node that says so."""
    terms: Annotated[tuple[LabelTerm, ...], Meta(max_length=LABEL_TERMS_LIMIT)]
    paths: Annotated[tuple[Path, ...], Meta(max_length=LABEL_PATHS_LIMIT)]
    """Over which pads came that were themselves relayed."""


Labels: TypeAlias = Annotated[bytes, Meta(max_length=LABELS_LIMIT_BYTES)]
"""A list of LabelPiece, encoded: what the destination's confirmation covers, byte for byte."""


# --- opening ----------------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Alone in taking elements that it does not know: it is read before a version is agreed."""

    version_low: Number
    version_high: Number
    link: Annotated[bytes, Meta(min_length=16, max_length=16)]
    """16 random bytes that name the link; all zero for a distant pair whose first key came by relay."""
    start: Number
    incarnation: Annotated[bytes, Meta(min_length=8, max_length=8)]
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]
    opening: Spans
    """What the sender has of its own opening run above its durable mark. A claim: it moves no mark before the PROOF."""
    tags: Spans
    """The same of its own tag run."""


class Grant(Strict, frozen=True, gc=False, array_like=True):
    position: Position
    """Of the receiver's opening run, granted once in all time."""


class RunState(Strict, frozen=True, gc=False, array_like=True):
    run: RunNumber
    append: Position
    floor: Position
    touched: Annotated[tuple[Span, ...], Meta(max_length=RANGES_PER_RUN_STATE)]
    """Positions in [floor, append) that are not untouched and present here (of an authentication run: not present)."""


class Proof(Strict, frozen=True, gc=False, array_like=True):
    epoch: Number
    """Start number of the incarnation of the sender that burnt its leases last; of its first, if none did."""
    epoch_incarnation: Annotated[bytes, Meta(min_length=8, max_length=8)]
    """That incarnation's random bits: who lost its anchor may come to the same start number again."""
    journal: Number
    vouch: Vouch
    """The sender's authenticator over its start and journal numbers, which only it can check."""
    told_start: Number
    told_journal: Number
    told_vouch: Vouch
    """The receiver's own numbers as it last told them (zero and empty: never told)."""
    runs: Annotated[tuple[RunState, ...], Meta(max_length=RUNS_PER_PAIR)]
    intake: Annotated[tuple[tuple[Name, Number, BitMap], ...], Meta(max_length=MODULES_PER_PEER)]
    """(module, highest block number, bit map of the 64 numbers up to it)."""
    secrets: Annotated[tuple[Number, ...], Meta(max_length=SECRETS_PER_ISSUER)]
    """Epochs of the receiver's key-ID secrets that the sender holds."""
    credit: Spans
    """Positions of the receiver's tag run that it may use in this connection, rising."""


class State(Strict, frozen=True, gc=False, array_like=True):
    journal: Number
    vouch: Vouch
    credit: Spans
    messages: Annotated[tuple[TaggedMessage, ...], Meta(max_length=MESSAGES_PER_FRAME)]


# --- tagged messages --------------------------------------------------------------------------------------------------


class ProposedBlock(Strict, frozen=True, gc=False, array_like=True):
    number: Number
    length: Length
    epsilon: Epsilon
    """As this end's module declares it; 0.0: it does not."""
    vendor: Name
    """Of this end's module; empty: not declared."""


class AgreeBlock(Message, frozen=True, gc=False, array_like=True, tag=1):
    """The lower-named end proposes blocks of one module, with a fresh tag over their bits, and says where they go."""

    module: Name
    blocks: Annotated[tuple[ProposedBlock, ...], Meta(min_length=1, max_length=BLOCKS_PER_PROPOSAL)]
    """Their numbers rise; their bits are taken one after another, as if they were one block."""
    key_position: Position
    """In the sender's tag run: the positions after the frame's own, in the order of the messages."""
    fingerprint: Fingerprint
    placements: Placements
    segment_bytes: Length
    rest_expires: bool
    """What has no place was taken in and is destroyed, and both ends book it so; else it was never taken in."""

    @property
    def number(self) -> int:
        """Of the first block: what the proposal is known by."""
        return self.blocks[0].number

    @property
    def length(self) -> int:
        """Bytes of all blocks."""
        return sum(block.length for block in self.blocks)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(block.number for block in self.blocks)


class AnswerBlock(Message, frozen=True, gc=False, array_like=True, tag=2):
    module: Name
    number: Number
    accepted: bool
    said: Annotated[tuple[tuple[Epsilon, Name], ...], Meta(max_length=BLOCKS_PER_PROPOSAL)]
    """Epsilon and vendor of each block as the other end's module declares them, with a yes: labels are alike then."""
    lacking: Annotated[tuple[Number, ...], Meta(max_length=BLOCKS_PER_PROPOSAL)]
    """With a no, the blocks that this end does not have or has seen before; none if the bits differ."""


class StoredBlock(Message, frozen=True, gc=False, array_like=True, tag=8):
    """The proposer has stored it too: from now on the other end may grant positions of its authentication runs."""

    module: Name
    number: Number


class RequestLease(Message, frozen=True, gc=False, array_like=True, tag=3):
    """Whole segments of the sender's own key run, for one purpose."""

    request: Number
    purpose: Name
    segments: Spans


class AnswerLease(Message, frozen=True, gc=False, array_like=True, tag=4):
    request: Number
    granted: bool


class Statement(Message, frozen=True, gc=False, array_like=True, tag=5):
    """How the owner used its run so far, in bytes in all; the follower's book takes these totals."""

    delivered: Number
    rounding: Number
    relayed: Number
    authentication: Number
    expired: Number
    lost: Number
    floor: Position
    audit_head: Annotated[bytes, Meta(max_length=64)]


class ExpireSegments(Message, frozen=True, gc=False, array_like=True, tag=12):
    """The sender has destroyed untouched segments of its own run, to make room: the other end does the same."""

    segments: Spans
    """Rising; each is one segment or several neighbours."""


class NameSecret(Message, frozen=True, gc=False, array_like=True, tag=6):
    """The 32 bytes at `key_position` of the sender's tag run seal its key IDs from now on."""

    epoch: Epoch
    key_position: Position


class RelayBatch(Message, frozen=True, gc=False, array_like=True, tag=7):
    """A batch of global key on one hop: under a pad, or (first hop) the pad itself."""

    source: Name
    destination: Name
    number: Number
    pads: Spans
    """In the sender's key run with this neighbour, in the order of the payload's bytes."""
    length: Length
    ciphertext: Annotated[bytes, Meta(max_length=CIPHERTEXT_LIMIT_BYTES)]
    """Empty: the bytes at `pads` are the payload."""
    manifest: Annotated[bytes, Meta(max_length=MANIFEST_LIMIT_BYTES)]
    """What source and destination agree on; relays pass it on unread."""
    labels: Labels
    """Of all `length` bytes: what each sender so far knows of the bytes at its pads."""


class OfferExchange(Message, frozen=True, gc=False, array_like=True, tag=10):
    """A fresh public key of ML-KEM-768, for keys of the sender's run that are combined with it."""

    number: Annotated[int, Meta(ge=0, le=4095)]
    public_key: Annotated[bytes, Meta(min_length=1184, max_length=1184)]


class AnswerExchange(Message, frozen=True, gc=False, array_like=True, tag=11):
    number: Annotated[int, Meta(ge=0, le=4095)]
    ciphertext: Annotated[bytes, Meta(min_length=1088, max_length=1088)]


# --- untagged messages ------------------------------------------------------------------------------------------------


class DesignMessage(Message, frozen=True, gc=False, array_like=True, tag=9):
    """What the sites of another design than our own say to each other, as `core/node/hosted.py` encodes it."""

    payload: Annotated[bytes, Meta(max_length=DESIGN_LIMIT_BYTES)]


class KeepAlive(Message, frozen=True, gc=False, array_like=True, tag=20):
    next: Position | None
    """The tag position that the sender's next tagged frame will spend; None if it has no credit."""


class LinkState(Strict, frozen=True, gc=False, array_like=True):
    """What one node tells all others: its links and the applications it serves."""

    node: Annotated[str, Meta(min_length=1, max_length=NAME_LIMIT)]
    sequence: Number
    links: Annotated[tuple[tuple[Name, Number, Number, bool], ...], Meta(max_length=LINKS_PER_NODE)]
    """(peer, usable bytes of the node's own run in steps, rate in bit/s, up)."""
    applications: Annotated[
        tuple[Annotated[str, Meta(max_length=APPLICATION_NAME_LIMIT)], ...], Meta(max_length=APPLICATIONS_PER_NODE)
    ]


class SignedLinkState(Message, frozen=True, gc=False, array_like=True, tag=21):
    """Handed on from node to node as it is: only the node it speaks of can have signed it."""

    statement: Annotated[bytes, Meta(max_length=STATEMENT_LIMIT_BYTES)]
    """A LinkState. The signature is over these bytes, so nobody has to encode it again in the same way."""
    certificate: Annotated[bytes, Meta(max_length=CERTIFICATE_LIMIT_BYTES)]
    """DER, of the node."""
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_LIMIT_BYTES)]
    hops_left: Byte
    """Over so many links more it may go: outside the signature, since every node on the way takes one off."""


class Forward(Message, frozen=True, gc=False, array_like=True, tag=22):
    """A frame of a distant pair, handed on towards its destination."""

    source: Name
    destination: Name
    hops_left: Byte
    connection: Number
    kind: Byte
    position: Position
    payload: bytes
    tag: Fingerprint


class Reserve(Message, frozen=True, gc=False, array_like=True, tag=23):
    """Asks every hop of the path to set pad aside before the first key moves."""

    number: Number
    path: Path
    length: Length


class AnswerReserve(Message, frozen=True, gc=False, array_like=True, tag=24):
    number: Number
    path: Path
    reserved: bool
    at: Name
    """The node that refused."""
    reason: Annotated[str, Meta(max_length=256)]


class Confirm(Message, frozen=True, gc=False, array_like=True, tag=25):
    """The destination's answer to a batch, under the key inside it; an empty tag says that the batch is dead."""

    number: Number
    path: Path
    fingerprint: Fingerprint
    labels: Labels
    """As they reached the destination: the source labels its keys alike."""


class BookFlow(Message, frozen=True, gc=False, array_like=True, tag=26):
    """Asks every hop of the path to keep so much of its link for relayed key of a guaranteed flow; said again, to go
    on keeping it."""

    number: Number
    path: Path
    """From the source to the destination: a flow is known by its source and number."""
    rate_bps: Rate
    burst_bits: Burst
    lifetime_ms: Annotated[int, Meta(ge=1, le=FLOW_LIFETIME_LIMIT_MS)]
    """After so long without another word it ends by itself."""


class AnswerFlow(Message, frozen=True, gc=False, array_like=True, tag=27):
    """A refusal may also come long after a yes: then the link of `at` carries the flow no longer."""

    number: Number
    path: Path
    booked: bool
    at: Name
    """The node that refused."""
    reason: Annotated[str, Meta(max_length=256)]
    offer_bps: Number
    """What it would have booked at that moment, with `offer_bits` at once; 0: nothing."""
    offer_bits: Number


class EndFlow(Message, frozen=True, gc=False, array_like=True, tag=28):
    """Gives back at once what was booked."""

    number: Number
    path: Path


class Manifest(Strict, frozen=True, gc=False, array_like=True):
    """Inside a relay batch: where its bytes go and the source's tag over them, under the first key inside."""

    placements: Placements
    segment_bytes: Length
    fingerprint: Fingerprint
    path: Path
    lent: bool
    """Whether both ends keep the key in it as leased for supply from the start: no lease is asked for."""


PlainMessage: TypeAlias = (
    KeepAlive | SignedLinkState | Forward | Reserve | AnswerReserve | Confirm | BookFlow | AnswerFlow | EndFlow
)
TaggedMessage: TypeAlias = (
    AgreeBlock
    | AnswerBlock
    | StoredBlock
    | RequestLease
    | AnswerLease
    | Statement
    | ExpireSegments
    | NameSecret
    | RelayBatch
    | DesignMessage
    | OfferExchange
    | AnswerExchange
)


class Plain(Strict, frozen=True, gc=False, array_like=True):
    messages: Annotated[tuple[PlainMessage, ...], Meta(max_length=MESSAGES_PER_FRAME)]


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
_labels_decoder = msgspec.msgpack.Decoder(
    Annotated[tuple[LabelPiece, ...], Meta(min_length=1, max_length=LABEL_PIECES_LIMIT)]
)
_link_state_decoder = msgspec.msgpack.Decoder(LinkState)


def too_long(path: tuple[str, ...]) -> str:
    """Why nothing may be sent along it; empty if it may: whoever got a longer one would close its link."""
    return f"the path has {len(path)} nodes: {PATH_LIMIT} are legal" if len(path) > PATH_LIMIT else ""


def encode_labels(labels: Sequence[LabelPiece]) -> bytes:
    return _encoder.encode(labels)


def decode_labels(payload: bytes) -> tuple[LabelPiece, ...]:
    try:
        labels: tuple[LabelPiece, ...] = _labels_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"labels of a relay batch do not decode: {error}") from None
    return labels


def encode(body: Body | Manifest | LinkState | TaggedMessage) -> bytes:
    return _encoder.encode(body)


def decode(kind: int, payload: bytes) -> Body:
    """The body of a frame; raises PeerError on an unknown type or bytes that do not fit it."""
    decoder = _decoders.get(kind)  # type: ignore[call-overload]
    if decoder is None:
        raise PeerError(f"frame type {kind} is unknown: 1 to {max(FrameType)} are legal")
    try:
        body: Body = decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"payload of a frame of type {kind} does not decode: {error}") from None
    return body


def decode_manifest(payload: bytes) -> Manifest:
    try:
        return _manifest_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"manifest of a relay batch does not decode: {error}") from None


def decode_link_state(statement: bytes) -> LinkState:
    try:
        return _link_state_decoder.decode(statement)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"link state does not decode: {error}") from None


def signed(kind: int, position: int, payload: bytes) -> bytes:
    """What a tag covers: type, position and payload, injectively."""
    return kind.to_bytes(1, "big") + position.to_bytes(8, "big") + payload
