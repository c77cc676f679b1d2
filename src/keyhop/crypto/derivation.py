"""A key out of the bits of its ranges: laid end to end and cut, or through a key derivation function."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LIMIT_BITS = 255 * 256
"""RFC 5869, 2.3: one expansion gives at most 255 hashes."""


def key_of(parts: Iterable[bytes], size_bits: int, derivation: bytes = b"", salt: bytes = b"") -> bytes:
    """`size_bits` of the parts one after another; with a `derivation`, HKDF-SHA256 of them with it as `info`.

    Raises ValueError for a size that is no multiple of 8, or more than there is or can be derived.
    """
    if size_bits <= 0 or size_bits % 8:
        raise ValueError(f"key of {size_bits} bits: must be a positive multiple of 8")
    joined = b"".join(parts)
    length = size_bits // 8
    if derivation:
        if size_bits > LIMIT_BITS:
            raise ValueError(f"key of {size_bits} bits: HKDF with SHA-256 derives at most {LIMIT_BITS}")
        return HKDF(SHA256(), length, salt or None, derivation).derive(joined)
    if length > len(joined):
        raise ValueError(f"key of {size_bits} bits: its ranges have {len(joined) * 8}")
    return joined[:length]
