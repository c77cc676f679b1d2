"""Wrapping and sealing: the published vector, and that nothing opens where it does not belong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.crypto import keywrap
from keyhop.crypto.keywrap import NotAuthentic

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
bits = st.integers(0, 7)


def flip(sealed: bytes, index: int, bit: int) -> bytes:
    changed = bytearray(sealed)
    changed[index % len(sealed)] ^= 1 << bit
    return bytes(changed)


def test_wrapping_is_that_of_rfc_3394_section_4_6() -> None:
    secret = bytes.fromhex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")
    wrapped = bytes.fromhex("28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21")
    assert keywrap.wrap(KEY, secret) == wrapped
    assert keywrap.unwrap(KEY, wrapped) == secret
    assert len(wrapped) == len(secret) + keywrap.WRAP_OVERHEAD_BYTES


@given(st.integers(0, 39), bits)
def test_a_flipped_bit_of_a_wrapped_key_is_noticed(index: int, bit: int) -> None:
    wrapped = keywrap.wrap(KEY, OTHER_KEY)
    with pytest.raises(NotAuthentic):
        keywrap.unwrap(KEY, flip(wrapped, index, bit))


@pytest.mark.parametrize("wrapped", [b"", bytes(40), bytes(39)])
def test_what_was_never_wrapped_does_not_unwrap(wrapped: bytes) -> None:
    with pytest.raises(NotAuthentic):
        keywrap.unwrap(KEY, wrapped)


def test_a_wrapped_key_needs_its_wrapping_key() -> None:
    with pytest.raises(NotAuthentic):
        keywrap.unwrap(OTHER_KEY, keywrap.wrap(KEY, KEY))


@given(st.binary(max_size=300), st.binary(max_size=30))
def test_what_is_sealed_opens_at_its_place_alone(plaintext: bytes, place: bytes) -> None:
    sealed = keywrap.seal(KEY, plaintext, place)
    assert keywrap.open_sealed(KEY, sealed, place) == plaintext
    assert len(sealed) == len(plaintext) + keywrap.SEAL_OVERHEAD_BYTES
    with pytest.raises(NotAuthentic):
        keywrap.open_sealed(KEY, sealed, place + b"x")
    with pytest.raises(NotAuthentic):
        keywrap.open_sealed(OTHER_KEY, sealed, place)


@given(st.binary(max_size=100), st.integers(0, 200), bits)
def test_a_flipped_bit_of_a_sealed_buffer_is_noticed(plaintext: bytes, index: int, bit: int) -> None:
    with pytest.raises(NotAuthentic):
        keywrap.open_sealed(KEY, flip(keywrap.seal(KEY, plaintext, b""), index, bit), b"")
    again = keywrap.seal_again(KEY, bytes(12), plaintext, b"")
    with pytest.raises(NotAuthentic):
        keywrap.open_again(KEY, flip(again, index, bit), b"")


@pytest.mark.parametrize("length", [0, 15, 27])
def test_what_is_too_short_to_be_sealed_does_not_open(length: int) -> None:
    with pytest.raises(NotAuthentic):
        keywrap.open_sealed(KEY, bytes(min(length, 15)), b"")
    with pytest.raises(NotAuthentic):
        keywrap.open_again(KEY, bytes(length), b"")


def test_what_was_opened_can_be_overwritten() -> None:
    opened = keywrap.open_sealed(KEY, keywrap.seal(KEY, b"key bits", b""), b"")
    opened[:] = bytes(8)
    assert opened == bytes(8)


def test_sealing_again_carries_its_nonce() -> None:
    sealed = keywrap.seal_again(KEY, b"twelve bytes", b"numbers", b"anchor")
    assert sealed.startswith(b"twelve bytes")
    assert keywrap.open_again(KEY, sealed, b"anchor") == b"numbers"


def test_keys_for_two_purposes_differ_and_come_again() -> None:
    assert keywrap.derive(KEY, b"rows") == keywrap.derive(bytearray(KEY), b"rows")
    assert len({keywrap.derive(KEY, b"rows"), keywrap.derive(KEY, b"anchor"), keywrap.derive(OTHER_KEY, b"rows")}) == 3
