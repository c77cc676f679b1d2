"""Framing of the peer protocol: whole streams, cut streams, and streams that cannot be."""

import random
import runpy
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from keyhop.wire.frames import FRAME_LIMIT_BYTES, HEADER_BYTES, Frame, FrameDecoder, FrameError, encode

FUZZ = runpy.run_path(str(Path(__file__).parents[2] / "fuzz" / "frames.py"), run_name="fuzz")

frames = some.builds(
    Frame,
    some.integers(0, 255),
    some.integers(0, 2**64 - 1),
    some.binary(max_size=300),
    some.one_of(some.just(b""), some.binary(min_size=16, max_size=16)),
)


def test_a_frame_looks_as_the_protocol_draws_it() -> None:
    assert encode(4, 0x0102030405060708, b"pay", b"T" * 16) == (
        b"\x00\x00\x00\x1d" + b"\x04" + b"\x01\x02\x03\x04\x05\x06\x07\x08" + b"\x10" + b"T" * 16 + b"pay"
    )
    assert encode(5, 0, b"", b"") == b"\x00\x00\x00\x0a\x05" + bytes(9)


@given(some.lists(frames, max_size=6), some.lists(some.integers(0, 2000), max_size=8))
def test_frames_come_back_however_the_stream_is_cut(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(encode(*frame) for frame in sent)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    decoder, received = FrameDecoder(), []
    for low, high in pairwise(edges):
        received += decoder.feed(stream[low:high])
    assert received == sent
    assert decoder.waiting_bytes == 0


@given(some.lists(frames, min_size=1, max_size=4), some.integers(1, 200))
def test_an_unfinished_frame_is_not_handed_out(sent: list[Frame], missing: int) -> None:
    stream = b"".join(encode(*frame) for frame in sent)
    cut = max(0, len(stream) - missing)
    decoder = FrameDecoder()
    received = decoder.feed(stream[:cut])
    assert received == sent[: len(received)] and len(received) < len(sent)
    assert received + decoder.feed(stream[cut:]) == sent


@given(some.binary(max_size=200), some.lists(some.integers(0, 200), max_size=5))
def test_any_bytes_give_frames_or_a_frame_error(stream: bytes, cuts: list[int]) -> None:
    FUZZ["look"](stream, cuts)


def test_damaged_streams_give_frames_or_a_frame_error() -> None:
    chance = random.Random(4)
    for _ in range(300):
        FUZZ["look"](FUZZ["make_stream"](chance), [chance.getrandbits(12) for _ in range(3)])


def test_the_piece_may_be_reused_after_it_was_fed() -> None:
    stream, decoder = bytearray(encode(1, 0, b"first", b"") + encode(2, 0, b"second", b"")), FrameDecoder()
    view = memoryview(stream)
    received = decoder.feed(view[:-3])
    tail = bytes(stream[-3:])
    stream[:] = bytes(len(stream))
    assert received + decoder.feed(tail) == [Frame(1, 0, b"first", b""), Frame(2, 0, b"second", b"")]


def test_the_longest_frame_passes_and_one_byte_more_is_refused_at_both_ends() -> None:
    longest = bytes(FRAME_LIMIT_BYTES - HEADER_BYTES)
    stream = encode(4, 0, longest, b"")
    assert len(stream) == FRAME_LIMIT_BYTES
    assert FrameDecoder().feed(stream) == [Frame(4, 0, longest, b"")]
    with pytest.raises(FrameError, match="1048577 bytes"):
        encode(4, 0, longest + b"x", b"")
    with pytest.raises(FrameError, match="1048577 bytes"):
        FrameDecoder().feed((FRAME_LIMIT_BYTES - 3).to_bytes(4, "big") + bytes(10))


@pytest.mark.parametrize("length", [FRAME_LIMIT_BYTES - 3, 1 << 31, (1 << 32) - 1])
def test_an_oversize_frame_is_refused_by_its_header_alone(length: int) -> None:
    with pytest.raises(FrameError, match="at most 1048576"):
        FrameDecoder().feed(length.to_bytes(4, "big") + bytes(10))


@pytest.mark.parametrize("tag_bytes", [1, 15, 17, 32, 255])
def test_a_tag_of_unknown_length_is_refused_at_both_ends(tag_bytes: int) -> None:
    with pytest.raises(FrameError, match="0 or 16 are legal"):
        FrameDecoder().feed((10 + tag_bytes).to_bytes(4, "big") + bytes(9) + bytes([tag_bytes]))
    with pytest.raises(FrameError, match="0 or 16 are legal"):
        encode(4, 0, b"", bytes(tag_bytes))


@pytest.mark.parametrize(("length", "tag_bytes"), [(0, 0), (9, 0), (10, 16), (25, 16)])
def test_a_frame_too_short_for_its_header_is_refused(length: int, tag_bytes: int) -> None:
    with pytest.raises(FrameError, match="its header and tag need"):
        FrameDecoder().feed(length.to_bytes(4, "big") + bytes(9) + bytes([tag_bytes]) + bytes(40))


@pytest.mark.parametrize(("type", "position"), [(256, 0), (-1, 0), (1, 1 << 64), (1, -1)])
def test_numbers_without_room_in_the_header_are_refused(type: int, position: int) -> None:
    with pytest.raises(FrameError, match="below 2\\^8"):
        encode(type, position, b"", b"")


def test_a_broken_stream_stays_broken() -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameError):
        decoder.feed(b"\xff" * 14)
    with pytest.raises(FrameError):
        decoder.feed(encode(1, 0, b"fine", b""))


def test_reading_byte_by_byte_costs_no_more_per_byte_in_a_long_frame() -> None:
    def cost(length: int) -> float:
        stream, best = encode(4, 0, bytes(length), b""), 1e9
        for _ in range(3):
            decoder, begin = FrameDecoder(), time.perf_counter()
            for at in range(0, len(stream), 16):
                decoder.feed(stream[at : at + 16])
            best = min(best, time.perf_counter() - begin)
        return best / length

    assert cost(1 << 19) < 8 * cost(1 << 14)
