"""One-time tags and pads: the published vector, a slow twin, and what must be refused."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.crypto import onetime


def poly1305_by_hand(key: bytes, message: bytes) -> bytes:
    """The definition in RFC 8439 section 2.5.1, one line per line of it."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(key[16:], "little")
    accumulator = 0
    for start in range(0, len(message), 16):
        block = message[start : start + 16] + b"\x01"
        accumulator = (accumulator + int.from_bytes(block, "little")) * r % ((1 << 130) - 5)
    return ((accumulator + s) & ((1 << 128) - 1)).to_bytes(16, "little")


RFC_8439_KEY = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
RFC_8439_MESSAGE = b"Cryptographic Forum Research Group"
RFC_8439_TAG = bytes.fromhex("a8061dc1305136c6c22b8baf0c0127a9")


def test_the_tag_is_that_of_rfc_8439_section_2_5_2() -> None:
    assert onetime.tag(RFC_8439_KEY, RFC_8439_MESSAGE) == RFC_8439_TAG
    assert poly1305_by_hand(RFC_8439_KEY, RFC_8439_MESSAGE) == RFC_8439_TAG


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_the_tag_equals_the_one_made_by_hand(key: bytes, message: bytes) -> None:
    assert onetime.tag(key, message) == poly1305_by_hand(key, message)


@given(st.binary(min_size=32, max_size=32), st.lists(st.binary(max_size=40), max_size=5))
def test_parts_are_tagged_as_if_they_were_one_message(key: bytes, parts: list[bytes]) -> None:
    assert onetime.tag(key, *parts) == poly1305_by_hand(key, b"".join(parts))


@given(st.integers(0, 127), st.integers(0, 8 * len(RFC_8439_MESSAGE) - 1))
def test_one_flipped_bit_of_tag_or_message_is_noticed(tag_bit: int, message_bit: int) -> None:
    flipped = (int.from_bytes(RFC_8439_TAG, "big") ^ (1 << tag_bit)).to_bytes(16, "big")
    assert not onetime.verify(RFC_8439_KEY, flipped, RFC_8439_MESSAGE)
    message = bytearray(RFC_8439_MESSAGE)
    message[message_bit // 8] ^= 1 << message_bit % 8
    assert not onetime.verify(RFC_8439_KEY, RFC_8439_TAG, message)
    assert onetime.verify(RFC_8439_KEY, RFC_8439_TAG, RFC_8439_MESSAGE)


@pytest.mark.parametrize("claimed", [b"", RFC_8439_TAG[:15], RFC_8439_TAG + b"\x00"])
def test_a_tag_of_another_length_is_wrong(claimed: bytes) -> None:
    assert not onetime.verify(RFC_8439_KEY, claimed, RFC_8439_MESSAGE)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="must be 32"):
        onetime.tag(bytes(length), b"message")


def test_the_key_may_be_a_view_into_a_buffer_that_is_overwritten_later() -> None:
    buffer = bytearray(b"\xff" * 8 + RFC_8439_KEY + b"\xff" * 8)
    assert hmac.compare_digest(onetime.tag(memoryview(buffer)[8:40], RFC_8439_MESSAGE), RFC_8439_TAG)


LENGTHS = st.one_of(
    st.integers(0, 40),
    st.integers(onetime.NUMPY_FROM_BYTES - 9, onetime.NUMPY_FROM_BYTES + 9),
    st.integers(onetime.CHUNK_BYTES - 9, onetime.CHUNK_BYTES + 9),
)


@given(LENGTHS, st.randoms(use_true_random=False))
def test_arrays_and_integers_give_the_xor_of_each_byte(length: int, random: object) -> None:
    left, right = random.randbytes(length), random.randbytes(length)  # type: ignore[attr-defined]
    expected = bytes(a ^ b for a, b in zip(left, right, strict=True))
    assert onetime.xor(left, right) == expected
    by_arrays, by_integers = bytearray(length), bytearray(length)
    onetime._xor_arrays(left, right, by_arrays)
    onetime._xor_integers(left, right, by_integers)
    assert by_arrays == by_integers == expected


@pytest.mark.parametrize("length", [5, 512, 4099])
def test_a_buffer_can_be_xored_in_place(length: int) -> None:
    buffer, pad = bytearray(b"\x0f" * length), bytes([0xF1]) * length
    onetime.xor_into(memoryview(buffer), pad, memoryview(buffer))
    assert buffer == b"\xfe" * length


def test_without_numpy_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = bytes(range(256)) * 300, bytes(reversed(range(256))) * 300
    with_numpy = onetime.xor(left, right)
    monkeypatch.setattr(onetime, "numpy", None)
    assert onetime.xor(left, right) == with_numpy


@pytest.mark.parametrize(("left", "right", "out"), [(8, 7, 8), (8, 8, 7), (600, 601, 600), (600, 600, 608)])
def test_buffers_of_unlike_length_are_refused(left: int, right: int, out: int) -> None:
    target = bytearray(out)
    with pytest.raises(ValueError, match="one length"):
        onetime.xor_into(bytes(left), b"\xff" * right, target)
    assert target == bytes(out)
