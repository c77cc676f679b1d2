"""Key IDs that carry their coordinates: (run, start, length) sealed into the 122 free bits of a version-4 UUID.

The layout is that of `docs/protocol.md`, Key IDs. An ID is computed from its coordinates and a secret that both key
managers share, never from the key's bits, so it says nothing about them, and looks random without the secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from enum import Enum
from struct import Struct
from struct import error as StructError
from typing import NamedTuple, TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES = 32
RUN_BITS = 16
START_BITS = 34
LENGTH_BITS = 14
T1_BITS = 24
"""Says that an ID is the issuer's: wrong for 1 - 2^-24 of what strangers invent."""
T2_BITS = 34
"""Says that it was made for this pair of applications."""
PAIR_BYTES = 8
PAIRS_LIMIT = 4096
"""Cached values of `pair`; beyond it the cache starts again."""

_LABEL = b"keyhop id v1"
_TEXT_LENGTH = 36
_ZEROS = bytes(8)
_TAGS_BITS = T1_BITS + T2_BITS
_TAGS_MASK = (1 << _TAGS_BITS) - 1
_T2_MASK = (1 << T2_BITS) - 1
_T1_SHIFT = 64 - T1_BITS
_T2_SHIFT = 64 - T2_BITS
_RUN_SHIFT = START_BITS + LENGTH_BITS
_START_MASK = (1 << START_BITS) - 1
_LENGTH_MASK = (1 << LENGTH_BITS) - 1
# The six fixed bits, in the upper and the lower 64 of a UUID.
_HIGH_FIXED_MASK = 0xF000
_VERSION_4 = 0x4000
_LOW_FIXED_MASK = 3 << 62
_VARIANT = 2 << 62

# 16 bytes as two numbers; 16 bytes, of which the first 8 matter.
_join = Struct(">QQ").pack
_halves = Struct(">QQ").unpack
_first = Struct(">Q8x").unpack


class Coordinates(NamedTuple):
    """What an ID with both tags right says; length in bytes, like start."""

    run: int
    start: int
    length: int


class Unopened(Enum):
    """Why an ID gives no coordinates."""

    FOREIGN = "foreign"
    """The issuer made it, for another pair of applications: 401."""
    UNKNOWN = "unknown"
    """Not made by this issuer in this epoch, or no UUID of version 4 at all: 400."""


Opened: TypeAlias = Coordinates | Unopened


def parse(text: str) -> tuple[int, int] | None:
    """The upper and lower 64 bits of a UUID; None unless it is the 36-character text of a version-4 UUID (RFC 9562)."""
    if len(text) != _TEXT_LENGTH or not text[8] == text[13] == text[18] == text[23] == "-":
        return None
    try:
        high, low = _halves(bytes.fromhex(text.replace("-", "")))
    except (ValueError, StructError):
        # StructError: fromhex passes over white space, and then bytes are missing.
        return None
    return (high, low) if high & _HIGH_FIXED_MASK == _VERSION_4 and low & _LOW_FIXED_MASK == _VARIANT else None


class KeyIdSeal:
    """Seals and opens the IDs of one issuer towards one other key manager in one epoch; for one thread.

    `secret` is the 32 bytes that a NameSecret message names; only keys derived from it are kept.
    """

    __slots__ = ("_body", "_issued", "_pair_key", "_paired", "_pairs", "epoch", "issuer", "other")

    def __init__(self, secret: bytes | bytearray, issuer: str, other: str, epoch: int) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"key-ID secret of {len(secret)} bytes: must have {SECRET_BYTES}")
        self.issuer = issuer
        self.other = other
        self.epoch = epoch
        first, second, third, self._pair_key = (_derive(secret, issuer, other, epoch, i) for i in (1, 2, 3, 4))
        # Kept open: a new cipher object costs more than the rest of an ID.
        self._issued = Cipher(algorithms.AES(first), modes.ECB()).encryptor().update  # noqa: S305 single blocks as a PRF
        self._paired = Cipher(algorithms.AES(second), modes.ECB()).encryptor().update  # noqa: S305
        self._body = Cipher(algorithms.AES(third), modes.ECB()).encryptor().update  # noqa: S305
        self._pairs: dict[tuple[str, str], bytes] = {}

    def __repr__(self) -> str:
        return f"KeyIdSeal({self.issuer} to {self.other}, epoch {self.epoch})"

    def pair(self, master: str, slave: str) -> bytes:
        """What `seal` and `open` take for this pair of applications: 8 bytes, computed once."""
        found = self._pairs.get((master, slave))
        if found is None:
            if len(self._pairs) >= PAIRS_LIMIT:
                self._pairs.clear()
            found = hmac.digest(self._pair_key, _field(master.encode()) + _field(slave.encode()), hashlib.sha256)
            found = self._pairs[master, slave] = found[:PAIR_BYTES]
        return found

    def seal(self, run: int, start: int, length: int, pair: bytes) -> str:
        """The ID of a key, as UUID text. Raises ValueError for coordinates that no ID has room for."""
        if run >> RUN_BITS or start >> START_BITS or (length - 1) >> LENGTH_BITS or len(pair) != PAIR_BYTES:
            raise ValueError(
                f"key of {length} bytes at {start} of run {run}: an ID has room for a run below 2^{RUN_BITS}, a start "
                f"below 2^{START_BITS} and 1 to {1 << LENGTH_BITS} bytes, and takes {PAIR_BYTES} bytes for the pair"
            )
        coordinates = run << _RUN_SHIFT | start << LENGTH_BITS | (length - 1)
        content = coordinates.to_bytes(8, "big")
        (t1,) = _first(self._issued(content + _ZEROS))
        (t2,) = _first(self._paired(content + pair))
        tags = (t1 >> _T1_SHIFT) << T2_BITS | t2 >> _T2_SHIFT
        (mask,) = _first(self._body(_join(0, tags)))
        body = coordinates ^ mask
        # The free bits in order: 48 of the body, (version), 12 of the body, (variant), the last 4, the tags.
        high = (body >> 16) << 16 | _VERSION_4 | (body >> 4) & 0xFFF
        text = _join(high, _VARIANT | (body & 0xF) << _TAGS_BITS | tags).hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def open(self, text: str, pair: bytes) -> Opened:
        """What an ID says to this pair of applications."""
        halves = parse(text)
        return Unopened.UNKNOWN if halves is None else self.open_parsed(halves, pair)

    def open_parsed(self, halves: tuple[int, int], pair: bytes) -> Opened:
        """As `open`, of what `parse` gave: for a caller that tries several epochs."""
        high, low = halves
        tags = low & _TAGS_MASK
        (mask,) = _first(self._body(_join(0, tags)))
        coordinates = ((high >> 16) << 16 | (high & 0xFFF) << 4 | (low >> _TAGS_BITS) & 0xF) ^ mask
        content = coordinates.to_bytes(8, "big")
        # Tags are compared as differences of numbers: how many of their digits agree does not show in the time.
        (t1,) = _first(self._issued(content + _ZEROS))
        if (t1 >> _T1_SHIFT) ^ (tags >> T2_BITS):
            return Unopened.UNKNOWN
        (t2,) = _first(self._paired(content + pair))
        if (t2 >> _T2_SHIFT) ^ (tags & _T2_MASK):
            return Unopened.FOREIGN
        return Coordinates(
            coordinates >> _RUN_SHIFT, (coordinates >> LENGTH_BITS) & _START_MASK, (coordinates & _LENGTH_MASK) + 1
        )


def open_in_any(seals: Iterable[KeyIdSeal], text: str, master: str, slave: str) -> Opened:
    """What an ID says in the live epochs of its issuer: coordinates before foreign, foreign before unknown."""
    halves = parse(text)
    outcome: Opened = Unopened.UNKNOWN
    if halves is None:
        return outcome
    for seal in seals:
        opened = seal.open_parsed(halves, seal.pair(master, slave))
        if isinstance(opened, Coordinates):
            return opened
        if opened is Unopened.FOREIGN:
            outcome = opened
    return outcome


def _derive(secret: bytes | bytearray, issuer: str, other: str, epoch: int, index: int) -> bytes:
    fields = (_LABEL, issuer.encode(), other.encode(), epoch.to_bytes(8, "big"), bytes([index]))
    return HKDF(SHA256(), 32, None, b"".join(map(_field, fields))).derive(secret)


def _field(content: bytes) -> bytes:
    """With its length before it, so that no two lists of fields have the same bytes."""
    return len(content).to_bytes(2, "big") + content
