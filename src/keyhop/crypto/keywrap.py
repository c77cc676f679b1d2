"""Keys that protect keys at rest: wrapping (RFC 3394), sealing with AES-256-GCM, and keys derived from a key."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyhop.crypto.onetime import Bits

KEY_BYTES = 32
WRAP_OVERHEAD_BYTES = 8
SEAL_OVERHEAD_BYTES = 16
NONCE_BYTES = 12

_ONLY_NONCE = bytes(NONCE_BYTES)


class NotAuthentic(Exception):
    """What was to be opened was not made under this key, or not for this place. Says nothing more."""


def wrap(wrapping_key: Bits, secret: Bits) -> bytes:
    """AES key wrap of a secret whose length is a multiple of 8 bytes: 8 bytes longer, needs no nonce (RFC 3394)."""
    return keywrap.aes_key_wrap(wrapping_key, secret)


def unwrap(wrapping_key: Bits, wrapped: Bits) -> bytes:
    """The inverse of `wrap`; raises NotAuthentic."""
    try:
        return keywrap.aes_key_unwrap(wrapping_key, wrapped)
    except keywrap.InvalidUnwrap:
        raise NotAuthentic from None


def seal(data_key: Bits, plaintext: Bits, place: bytes) -> bytes:
    """AES-256-GCM under a data key that seals nothing else; `place` is authenticated, not stored.

    The nonce is constant because the key is fresh: a repeated nonce would need a repeated key. So no counter has to
    survive a crash or a restored store.
    """
    return AESGCM(data_key).encrypt(_ONLY_NONCE, plaintext, place)


def open_sealed(data_key: Bits, sealed: Bits, place: bytes) -> bytearray:
    """The inverse of `seal`, in a buffer that its owner overwrites; raises NotAuthentic."""
    if len(sealed) < SEAL_OVERHEAD_BYTES:
        raise NotAuthentic
    plaintext = bytearray(len(sealed) - SEAL_OVERHEAD_BYTES)
    try:
        AESGCM(data_key).decrypt_into(_ONLY_NONCE, sealed, place, plaintext)
    except InvalidTag:
        raise NotAuthentic from None
    return plaintext


def seal_again(key: Bits, nonce: bytes, plaintext: Bits, place: bytes) -> bytes:
    """AES-256-GCM under a key that seals often: 12 random bytes of nonce, which stand before the ciphertext.

    Safe for 2^32 seals under one key (NIST SP 800-38D section 8.3).
    """
    return nonce + AESGCM(key).encrypt(nonce, plaintext, place)


def open_again(key: Bits, sealed: bytes, place: bytes) -> bytes:
    """The inverse of `seal_again`; raises NotAuthentic."""
    if len(sealed) < NONCE_BYTES + SEAL_OVERHEAD_BYTES:
        raise NotAuthentic
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
    except InvalidTag:
        raise NotAuthentic from None


def derive(key: Bits, purpose: bytes) -> bytes:
    """32 bytes for one purpose out of a uniformly random key (HKDF-Expand with SHA-256, RFC 5869 section 2.3)."""
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, purpose).derive(key)
