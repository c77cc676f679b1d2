"""Key IDs that carry their coordinates: (run, start, length) sealed into the 122 free bits of a version-4 UUID.

The layout is that of `docs/protocol.md`, Key IDs. An ID is computed from its coordinates and a secret that both key
managers share, never from the key's bits, so it says nothing about them, and looks random without the secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
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
LANES_LIMIT = 64
"""IDs that are sealed or opened in one go; more are done in several."""

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
_LANE_BITS = 128
_LANE_BYTES = 16
# An ID as one number of 128 bits: where the free bits of the body and the fixed bits of a UUID stand.
_BODY_48 = ((1 << 48) - 1) << 80
_BODY_12 = 0xFFF << 64
_BODY_4 = 0xF << 58
_FIXED_MASK = _HIGH_FIXED_MASK << 64 | _LOW_FIXED_MASK
_FIXED = _VERSION_4 << 64 | _VARIANT
_TAG_1 = ((1 << T1_BITS) - 1) << (_LANE_BITS - T1_BITS)
_TAG_2 = ((1 << T2_BITS) - 1) << (_LANE_BITS - T2_BITS)
_UPPER_64 = ((1 << 64) - 1) << 64

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


class _Lanes:
    """Masks for `count` IDs side by side in one wide number, 128 bits each: one operation works on all of them.

    Nothing runs from one lane into the next: what is shifted is masked to bits that stay inside, and nothing is added.
    """

    __slots__ = (
        "body_4",
        "body_12",
        "body_48",
        "fixed",
        "fixed_mask",
        "length_bytes",
        "ones",
        "split",
        "tag_1",
        "tag_2",
        "tags",
        "upper_64",
    )

    def __init__(self, count: int) -> None:
        self.length_bytes = count * _LANE_BYTES
        self.ones = ones = sum(1 << (_LANE_BITS * lane) for lane in range(count))
        self.split = Struct(f">{2 * count}Q").unpack
        self.body_48, self.body_12, self.body_4 = _BODY_48 * ones, _BODY_12 * ones, _BODY_4 * ones
        self.fixed, self.fixed_mask = _FIXED * ones, _FIXED_MASK * ones
        self.tag_1, self.tag_2, self.tags = _TAG_1 * ones, _TAG_2 * ones, _TAGS_MASK * ones
        self.upper_64 = _UPPER_64 * ones


_lanes = lru_cache(maxsize=LANES_LIMIT)(_Lanes)


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

    def seal_all(self, run: int, starts: Sequence[int], length: int, pair: bytes) -> list[str]:
        """As `seal`, for keys of one length: many at once cost a quarter of what they cost one by one."""
        if len(starts) > LANES_LIMIT:
            return [
                text
                for at in range(0, len(starts), LANES_LIMIT)
                for text in self.seal_all(run, starts[at : at + LANES_LIMIT], length, pair)
            ]
        if len(starts) < 2 or run >> RUN_BITS or min(starts) < 0 or max(starts) >> START_BITS:
            return [self.seal(run, start, length, pair) for start in starts]
        if (length - 1) >> LENGTH_BITS or len(pair) != PAIR_BYTES:
            return [self.seal(run, start, length, pair) for start in starts]
        lanes = _lanes(len(starts))
        same = run << _RUN_SHIFT | (length - 1)
        content = b"".join([(same | start << LENGTH_BITS).to_bytes(8, "big") + _ZEROS for start in starts])
        coordinates = int.from_bytes(content, "big")
        tags = self._tags(lanes, coordinates, content, pair)
        body = (coordinates ^ _wide(self._body(tags.to_bytes(lanes.length_bytes, "big")))) & lanes.upper_64
        text = (
            (body & lanes.body_48 | body >> 4 & lanes.body_12 | body >> 6 & lanes.body_4 | lanes.fixed | tags)
            .to_bytes(lanes.length_bytes, "big")
            .hex()
        )
        return [
            f"{text[i : i + 8]}-{text[i + 8 : i + 12]}-{text[i + 12 : i + 16]}-{text[i + 16 : i + 20]}-"
            f"{text[i + 20 : i + 32]}"
            for i in range(0, len(text), 32)
        ]

    def _tags(self, lanes: _Lanes, coordinates: int, content: bytes, pair: bytes) -> int:
        """Both tags of each ID, in the lower bits of its lane."""
        paired = coordinates | int.from_bytes(pair, "big") * lanes.ones
        t1 = _wide(self._issued(content))
        t2 = _wide(self._paired(paired.to_bytes(lanes.length_bytes, "big")))
        return (t1 & lanes.tag_1) >> (_LANE_BITS - _TAGS_BITS) | (t2 & lanes.tag_2) >> (_LANE_BITS - T2_BITS)

    def open_all(self, texts: Sequence[str], pair: bytes) -> list[Coordinates] | None:
        """As `open`, of at most LANES_LIMIT IDs; None unless every one is right: then each is judged by itself."""
        if not 1 < len(texts) <= LANES_LIMIT:
            opened = [self.open(text, pair) for text in texts[:LANES_LIMIT]]
            right = [one for one in opened if isinstance(one, Coordinates)]
            return right if len(right) == len(texts) else None
        for text in texts:
            if len(text) != _TEXT_LENGTH or not text[8] == text[13] == text[18] == text[23] == "-":
                return None
        lanes = _lanes(len(texts))
        try:
            content = bytes.fromhex("".join(texts).replace("-", ""))
        except ValueError:
            return None
        ids = _wide(content)
        # Four dashes leave 32 characters an ID: bytes are missing wherever one of them was no digit.
        if len(content) != lanes.length_bytes or ids & lanes.fixed_mask != lanes.fixed:
            return None
        tags = ids & lanes.tags
        mask = _wide(self._body(tags.to_bytes(lanes.length_bytes, "big")))
        body = ids & lanes.body_48 | (ids & lanes.body_12) << 4 | (ids & lanes.body_4) << 6
        coordinates = (body ^ mask) & lanes.upper_64
        content = coordinates.to_bytes(lanes.length_bytes, "big")
        # Differences of numbers here too: which of the IDs is wrong, and by how many digits, does not show in the time.
        if self._tags(lanes, coordinates, content, pair) ^ tags:
            return None
        return [
            Coordinates(c >> _RUN_SHIFT, (c >> LENGTH_BITS) & _START_MASK, (c & _LENGTH_MASK) + 1)
            for c in lanes.split(content)[::2]
        ]

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


def _wide(content: bytes) -> int:
    return int.from_bytes(content, "big")


def _derive(secret: bytes | bytearray, issuer: str, other: str, epoch: int, index: int) -> bytes:
    fields = (_LABEL, issuer.encode(), other.encode(), epoch.to_bytes(8, "big"), bytes([index]))
    return HKDF(SHA256(), 32, None, b"".join(map(_field, fields))).derive(secret)


def _field(content: bytes) -> bytes:
    """With its length before it, so that no two lists of fields have the same bytes."""
    return len(content).to_bytes(2, "big") + content
