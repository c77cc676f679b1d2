"""One-time primitives: the Wegman-Carter tag (Poly1305 under a fresh key) and the one-time pad (XOR)."""

from __future__ import annotations

import hmac
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.poly1305 import Poly1305

try:
    import numpy
except ImportError:  # numpy is an extra; the integer path below is exact, and slow only for long buffers
    numpy = None  # type: ignore[assignment]

Bits: TypeAlias = bytes | bytearray | memoryview

KEY_BYTES = 32
"""r (16 bytes, clamped by the algorithm) and s (16 bytes), both used for one message only (RFC 8439 section 2.5)."""

TAG_BYTES = 16

CHUNK_BYTES = 64 * 1024
"""XOR works in pieces of this size, which stay in the processor's cache."""

NUMPY_FROM_BYTES = 512
"""Measured: below this one big integer is quicker than the setting up of arrays."""


def tag(key: Bits, *parts: Bits) -> bytes:
    """The 16-byte tag over the parts, one after another, under a 32-byte key that is never used again.

    The parts are not delimited: whoever calls says in its first part how long the others are.
    Forgery: at most 8 * ceil(length / 16) / 2^106 per try, whatever the forger can compute (Bernstein 2005).
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"one-time key of {len(key)} bytes: must be {KEY_BYTES}")
    if len(parts) == 1:
        return Poly1305.generate_tag(key, parts[0])
    poly1305 = Poly1305(key)
    for part in parts:
        poly1305.update(part)
    return poly1305.finalize()


def verify(key: Bits, claimed: Bits, *parts: Bits) -> bool:
    """Whether `claimed` is the tag; takes the same time either way."""
    return hmac.compare_digest(tag(key, *parts), claimed)


def xor(left: Bits, right: Bits) -> bytearray:
    """The XOR of two buffers of one length, in a new buffer that its owner overwrites."""
    out = bytearray(len(left))
    xor_into(left, right, out)
    return out


def xor_into(left: Bits, right: Bits, out: bytearray | memoryview) -> None:
    """Writes left XOR right into `out`, which may be one of them. Raises ValueError unless all are of one length."""
    length = len(left)
    if len(right) != length or len(out) != length:
        raise ValueError(f"XOR of {length} and {len(right)} bytes into {len(out)}: must be of one length")
    if numpy is None or length < NUMPY_FROM_BYTES:
        _xor_integers(left, right, out)
    else:
        _xor_arrays(left, right, out)


def _xor_integers(left: Bits, right: Bits, out: bytearray | memoryview) -> None:
    for start in range(0, len(left), CHUNK_BYTES):
        stop = min(start + CHUNK_BYTES, len(left))
        mixed = int.from_bytes(left[start:stop], "little") ^ int.from_bytes(right[start:stop], "little")
        out[start:stop] = mixed.to_bytes(stop - start, "little")


def _xor_arrays(left: Bits, right: Bits, out: bytearray | memoryview) -> None:
    whole = len(left) & ~7
    arrays: list[Any] = [numpy.frombuffer(buffer, numpy.uint64, whole // 8) for buffer in (left, right, out)]
    numpy.bitwise_xor(arrays[0], arrays[1], out=arrays[2])
    if whole < len(left):
        _xor_integers(left[whole:], right[whole:], memoryview(out)[whole:])
