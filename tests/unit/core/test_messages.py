"""Decoding what peers send: whatever the bytes, a body or a PeerError."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from keyhop.core.messages import (
    BODIES,
    AnswerLease,
    Grant,
    Hello,
    KeepAlive,
    Plain,
    RequestLease,
    State,
    decode,
    decode_manifest,
    encode,
)
from keyhop.core.model import PeerError

STATE = encode(State(7, b"v" * 16, ((0, 64),), (RequestLease(1, "supply", ((0, 1024),)), AnswerLease(2, True))))


@given(some.sampled_from(sorted(BODIES)), some.binary(max_size=100))
def test_any_bytes_give_a_body_or_a_peer_error(kind: int, payload: bytes) -> None:
    try:
        body = decode(kind, payload)
    except PeerError:
        return
    assert type(body) is BODIES[kind]  # type: ignore[index]


@given(some.integers(0, len(STATE) * 8 - 1))
def test_any_changed_bit_gives_a_body_or_a_peer_error(bit: int) -> None:
    changed = bytearray(STATE)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        decode(4, bytes(changed))
        decode_manifest(bytes(changed))
    except PeerError:
        return


@pytest.mark.parametrize("kind", [0, 6, 255])
def test_an_unknown_type_is_a_peer_error(kind: int) -> None:
    with pytest.raises(PeerError, match="1 to 5"):
        decode(kind, STATE)


@pytest.mark.parametrize("number", [-1, 1 << 63, (1 << 64) - 1, 1.0, True, "1", None])
def test_a_number_is_an_integer_of_63_bits(number: object) -> None:
    with pytest.raises(PeerError):
        decode(4, msgspec.msgpack.encode([number, b"", [], []]))


def test_text_that_is_no_utf_8_is_a_peer_error() -> None:
    payload = msgspec.msgpack.encode([1, b"", [], [[3, 1, "supply", []]]]).replace(b"supply", b"supp\xec\x79")
    with pytest.raises(PeerError):
        decode(4, payload)


def test_records_have_exactly_their_elements_but_hello_may_have_more() -> None:
    hello = [1, 1, bytes(16), 1, bytes(8), bytes(16), [], []]
    assert isinstance(decode(1, msgspec.msgpack.encode([*hello, "of a later version"])), Hello)
    for kind, body in ((2, Grant(0)), (5, Plain((KeepAlive(None),)))):
        with pytest.raises(PeerError):
            decode(kind, msgspec.msgpack.encode([*msgspec.to_builtins(body), 0]))
    with pytest.raises(PeerError):
        decode(5, msgspec.msgpack.encode([[[20, 0, 0]]]))
