"""Peer frames on a TLS stream: length, type, position, tag, payload (`docs/protocol.md`, Frames)."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

FRAME_LIMIT_BYTES = 1 << 20
"""Longest frame on the wire, its length field included."""
TAG_BYTES = 16
"""Of a tagged frame; an untagged one has none."""
HEADER_BYTES = 14
"""Length (4), type (1), position (8), length of the tag (1)."""

_LENGTH_BYTES = 4
"""The length field counts what follows it."""
_header = Struct(">IBQB")


class FrameError(Exception):
    """What came, or was to be sent, is no frame; a connection on which it came can only be closed."""


class Frame(NamedTuple):
    """One frame, its fields in the order of the core's own."""

    type: int
    position: int
    """Byte offset of the tag key in the sender's authentication run; 0 where there is no tag."""
    payload: bytes
    tag: bytes
    """16 bytes, or none."""


def encode(type: int, position: int, payload: bytes, tag: bytes) -> bytes:
    """A frame as it goes over the wire. Raises FrameError if the receiver would have to refuse it."""
    total = HEADER_BYTES + len(tag) + len(payload)
    if total > FRAME_LIMIT_BYTES:
        raise FrameError(f"frame of {total} bytes: at most {FRAME_LIMIT_BYTES} are legal")
    if len(tag) not in (0, TAG_BYTES):
        raise FrameError(f"tag of {len(tag)} bytes: 0 or {TAG_BYTES} are legal")
    if type >> 8 or position >> 64:
        raise FrameError(f"frame of type {type} at position {position}: must be below 2^8 and below 2^64")
    return b"".join((_header.pack(total - _LENGTH_BYTES, type, position, len(tag)), tag, payload))


class FrameDecoder:
    """Makes frames out of a stream that comes in pieces. It holds at most one unfinished frame.

    A length or tag length that cannot be is refused as soon as it is there, so that nobody makes us wait for the rest.
    """

    __slots__ = ("_broken", "_needed", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        """The beginning of a frame."""
        self._needed = HEADER_BYTES
        """Bytes of `_rest` without which there is nothing new to see."""
        self._broken = ""

    @property
    def waiting_bytes(self) -> int:
        """How much of an unfinished frame is here; 0 at a boundary between frames."""
        return len(self._rest)

    def feed(self, piece: bytes | bytearray | memoryview) -> list[Frame]:
        """The frames that this piece completes. Raises FrameError, now and ever after, if the stream is broken.

        Frames before the broken one in the same piece are lost with it: the connection is to be closed.
        """
        if self._broken:
            raise FrameError(self._broken)
        rest = self._rest
        if not rest:
            frames: list[Frame] = []
            with memoryview(piece) as view:
                done = self._take(view, frames)
                rest += view[done:]
            return frames
        rest += piece
        if len(rest) < self._needed:
            return []
        frames = []
        with memoryview(rest) as view:
            done = self._take(view, frames)
        del rest[:done]
        return frames

    def _take(self, view: memoryview, frames: list[Frame]) -> int:
        """Appends the whole frames at the beginning of `view`; how many bytes they had."""
        at, size = 0, len(view)
        while size - at >= HEADER_BYTES:
            length, type, position, tag_bytes = _header.unpack_from(view, at)
            if length > FRAME_LIMIT_BYTES - _LENGTH_BYTES:
                self._break(f"frame of {length + _LENGTH_BYTES} bytes: at most {FRAME_LIMIT_BYTES} are legal")
            if tag_bytes not in (0, TAG_BYTES):
                self._break(f"tag of {tag_bytes} bytes: 0 or {TAG_BYTES} are legal")
            body = at + HEADER_BYTES + tag_bytes
            end = at + _LENGTH_BYTES + length
            if end < body:
                self._break(f"frame of {length + _LENGTH_BYTES} bytes: its header and tag need {body - at}")
            if end > size:
                self._needed = end - at
                return at
            frames.append(Frame(type, position, bytes(view[body:end]), bytes(view[at + HEADER_BYTES : body])))
            at = end
        self._needed = HEADER_BYTES
        return at

    def _break(self, reason: str) -> None:
        self._broken = reason
        raise FrameError(reason)
