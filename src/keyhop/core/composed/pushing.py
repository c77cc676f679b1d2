"""Key that a module pushes over an ETSI 004 stream, after it was asked once (AIT's push mode)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from keyhop.core.composed.nouns.messages import BlockArrived

INDICES = 1 << 32
"""Of pushed keys; after the last comes 0 (P)."""


class Status(IntEnum):
    """Of ETSI GS QKD 004, 6.2."""

    OK = 0
    OK_PEER_MISSING = 1
    NOT_ENOUGH_KEY = 2
    PEER_NOT_YET_CONNECTED = 3
    NO_QKD_CONNECTION = 4
    KSID_IN_USE = 5
    TIMEOUT = 6
    QOS_NOT_MET = 7
    METADATA_TOO_SMALL = 8


class Qos(NamedTuple):
    key_chunk_bits: int
    max_bps: int
    min_bps: int = 0


class Pushed(NamedTuple):
    status: Status
    block: BlockArrived | None = None
    """What enters the run, if anything does."""


class Stream:
    __slots__ = ("asked", "first", "number", "peer", "qos", "stamp_bits")

    def __init__(self, peer: str, qos: Qos) -> None:
        self.peer = peer
        self.qos = qos
        self.asked = False
        """`get-key` was sent: the module may push."""
        self.first: int | None = None
        """Index of the first key."""
        self.number = 0
        """Keys since then, those that were lost too; indices come round, numbers do not."""
        self.stamp_bits = 0


class Push:
    """The key manager's end of all streams with modules of one site: OPEN_CONNECT, GET_KEY, key-material, CLOSE."""

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}

    def open(self, ksid: str, peer: str, wanted: Qos, offered: Qos | None = None) -> tuple[Status, Qos]:
        """`offered`: what the module can give instead, if less; it is taken where it holds the least rate wanted."""
        if ksid in self._streams:
            return Status.KSID_IN_USE, wanted
        if offered is not None and (offered.max_bps < wanted.min_bps or offered.key_chunk_bits < 1):
            return Status.QOS_NOT_MET, offered
        qos = offered or wanted
        self._streams[ksid] = Stream(peer, qos)
        return Status.OK, qos

    def get_key(self, ksid: str) -> Status:
        """Once; it brings no data, only leave to push."""
        stream = self._streams.get(ksid)
        if stream is None:
            return Status.PEER_NOT_YET_CONNECTED
        stream.asked = True
        return Status.OK

    def material(self, ksid: str, index: int, bits: int, digest: int, status: Status = Status.OK) -> Pushed:
        """A key of the stream. One that was pushed before is not taken again; those between are lost at this end."""
        stream = self._streams.get(ksid)
        if stream is None or not stream.asked:
            return Pushed(Status.PEER_NOT_YET_CONNECTED)
        if not 0 <= index < INDICES:
            raise ValueError(f"index {index}: must be 0 to {INDICES - 1}")
        if status not in (Status.OK, Status.OK_PEER_MISSING):
            return Pushed(status)
        if bits != stream.qos.key_chunk_bits:
            return Pushed(Status.QOS_NOT_MET)
        if stream.first is None:
            stream.first = index
        ahead = (index - stream.first - stream.number) % INDICES
        if ahead >= INDICES // 2:
            return Pushed(Status.OK)
        stream.number += ahead
        stream.stamp_bits += ahead * bits
        block = BlockArrived(stream.peer, stream.number, bits, stream.stamp_bits, digest)
        stream.number += 1
        stream.stamp_bits += bits
        return Pushed(status, block)

    def close(self, ksid: str) -> Status:
        return Status.OK if self._streams.pop(ksid, None) is not None else Status.PEER_NOT_YET_CONNECTED

    def after(self, index: int) -> int:
        """The index that follows."""
        return (index + 1) % INDICES
