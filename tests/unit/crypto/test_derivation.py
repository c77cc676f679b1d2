"""Keys out of ranges."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyhop.crypto.derivation import LIMIT_BITS, key_of


def test_parts_are_laid_end_to_end_and_cut() -> None:
    assert key_of([b"abcd", b"efgh"], 40) == b"abcde"


def test_a_derived_key_is_hkdf_of_all_parts() -> None:
    expected = HKDF(SHA256(), 64, None, b"name").derive(b"abcdefgh")
    assert key_of([b"abcd", b"efgh"], 512, b"name") == expected
    assert key_of([b"abcd", b"efgh"], 512, b"other") != expected


@pytest.mark.parametrize(("size_bits", "derivation"), [(0, b""), (12, b""), (72, b""), (LIMIT_BITS + 8, b"name")])
def test_a_size_that_cannot_be_is_refused(size_bits: int, derivation: bytes) -> None:
    with pytest.raises(ValueError):
        key_of([b"abcd", b"efgh"], size_bits, derivation)
