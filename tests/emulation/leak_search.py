"""Looks for pieces of secrets in anything: as they are, reversed, and in the forms that programs write bytes in."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy

PIECE_BYTES = 8
_TABLE_BITS = 24
_LOW = (1 << _TABLE_BITS) - 1
_DIGIT_BITS = 30
"""CPython keeps large integers in digits of so many bits, four bytes each."""

_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}[ :-]?){8,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{11,}")
_DECIMALS = re.compile(rb"\d{1,3}(?:[,;\s]+\d{1,3}){7,}")
_NUMBER = re.compile(rb"\d{18,}")
_ESCAPED = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|u00([0-9a-fA-F]{2})|([\\'\"/nrtbf]))")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}


class Found(NamedTuple):
    form: str
    at: int
    """In what the form was decoded to; for `raw`, in the text itself."""


class Leaks:
    """All pieces of eight bytes of some secrets, forwards and backwards."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        pieces = [numpy.empty(0, "<u8")]
        for secret in secrets:
            pieces += [_words(way, phase) for way in (secret, secret[::-1]) for phase in range(PIECE_BYTES)]
        self._pieces = numpy.concatenate(pieces)
        self._pieces.sort()
        # Most of what is looked at is told apart by some of its bits.
        self._low, self._high = (numpy.zeros(1 << _TABLE_BITS, bool) for _ in range(2))
        self._low[self._pieces & _LOW] = True
        self._high[self._pieces >> (64 - _TABLE_BITS)] = True

    def __len__(self) -> int:
        return len(self._pieces)

    def search(self, text: bytes) -> list[Found]:
        """In every form; a piece of eight bytes is enough."""
        found = [Found("raw", at) for at in self._search_raw(text)]
        for form, decoded in decodings(text):
            found += [Found(form, at) for at in self._search_raw(decoded)]
        return found

    def _search_raw(self, text: bytes) -> list[int]:
        return [at for phase in range(PIECE_BYTES) for at in self._search_phase(text, phase)]

    def _search_phase(self, text: bytes, phase: int) -> list[int]:
        words = _words(text, phase)
        likely = numpy.nonzero(self._low[words & _LOW])[0]
        likely = likely[self._high[words[likely] >> (64 - _TABLE_BITS)]]
        if not len(likely) or not len(self._pieces):
            return []
        at = numpy.searchsorted(self._pieces, words[likely])
        same = self._pieces[numpy.minimum(at, len(self._pieces) - 1)] == words[likely]
        return [int(index) * PIECE_BYTES + phase for index in likely[same]]

    def search_memory(self, memory: bytes) -> list[int]:
        """Where a stretch of 15 bytes or more of a secret lies: it holds one whole aligned word of eight."""
        return self._search_phase(memory, 0)


def as_integer_digits(secret: bytes) -> list[bytes]:
    """How the secret lies in memory as part of a large Python integer, for each place of a digit's border in it."""
    images = []
    for order in ("little", "big"):
        value = int.from_bytes(secret, order)  # type: ignore[arg-type]
        for shift in range(_DIGIT_BITS):
            rest, digits = value >> shift, []
            while rest >> _DIGIT_BITS:
                digits.append(rest & ((1 << _DIGIT_BITS) - 1))
                rest >>= _DIGIT_BITS
            images.append(b"".join(digit.to_bytes(4, "little") for digit in digits))
    return images


def decodings(text: bytes) -> Iterator[tuple[str, bytes]]:
    """What the text says if parts of it are meant as hex, base64, a list of numbers, one number, or escapes.

    All parts of one form together: many are short, and each search has its price.
    """
    for form, parts in (
        ("hex", _as_hex(text)),
        ("base64", _as_base64(text)),
        ("decimal list", _as_decimals(text)),
        ("number", _as_numbers(text)),
    ):
        yield form, b"\0".join(parts)
    unescaped = _ESCAPED.sub(_unescaped, text)
    if len(unescaped) != len(text):
        yield "escapes", unescaped


def _as_hex(text: bytes) -> Iterator[bytes]:
    for match in _HEX.finditer(text):
        digits = re.sub(rb"[ :-]", b"", match[0])
        for skip in (0, 1):
            yield bytes.fromhex(digits[skip : len(digits) - (len(digits) - skip) % 2].decode())


def _as_base64(text: bytes) -> Iterator[bytes]:
    for match in _BASE64.finditer(text):
        # Each run of letters begins anew, and where in a quartet it begins is not known.
        letters = match[0].replace(b"-", b"+").replace(b"_", b"/")
        for skip in range(4):
            part = letters[skip:]
            yield base64.b64decode(part + b"A" * (-len(part) % 4))


def _as_decimals(text: bytes) -> Iterator[bytes]:
    for match in _DECIMALS.finditer(text):
        numbers = [int(number) for number in re.findall(rb"\d+", match[0])]
        if all(number < 256 for number in numbers):
            yield bytes(numbers)


def _as_numbers(text: bytes) -> Iterator[bytes]:
    for match in _NUMBER.finditer(text):
        value = int(match[0][:4096])
        length = (value.bit_length() + 7) // 8
        yield value.to_bytes(length, "big")
        yield value.to_bytes(length, "little")


def _unescaped(match: re.Match[bytes]) -> bytes:
    digits = match[1] or match[2]
    return bytes.fromhex(digits.decode()) if digits else _LETTERS.get(match[3], match[3])


def _words(text: bytes, phase: int) -> numpy.ndarray:
    count = (len(text) - phase) // PIECE_BYTES
    return numpy.frombuffer(text, "<u8", max(count, 0), phase if count > 0 else 0)
