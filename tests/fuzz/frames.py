"""Throws damaged streams at the frame decoder: `python -m tests.fuzz.frames --seconds 60 --seed 1`."""

import argparse
import random
import time
from itertools import pairwise

from keyhop.wire.frames import FRAME_LIMIT_BYTES, Frame, FrameDecoder, FrameError, encode


def decode(pieces: list[bytes]) -> tuple[list[Frame], bool]:
    """The frames of a stream, and whether it broke; a decoder never holds more than one frame."""
    decoder, frames = FrameDecoder(), []
    for piece in pieces:
        try:
            frames += decoder.feed(piece)
        except FrameError:
            return frames, True
        assert decoder.waiting_bytes < FRAME_LIMIT_BYTES
    return frames, False


def look(stream: bytes, cuts: list[int]) -> None:
    """Only FrameError is raised, what was read encodes to what came, and cutting the stream changes nothing."""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[low:high] for low, high in pairwise(edges)]
    frames, broken = decode(pieces)
    again = b"".join(encode(*frame) for frame in frames)
    assert stream.startswith(again)
    byte_by_byte, also_broken = decode([stream[i : i + 1] for i in range(len(stream))])
    assert also_broken == broken
    assert byte_by_byte[: len(frames)] == frames and (broken or len(byte_by_byte) == len(frames))


def make_stream(chance: random.Random) -> bytes:
    stream = bytearray()
    for _ in range(chance.randint(0, 5)):
        tag = chance.choice((b"", chance.randbytes(16)))
        stream += encode(chance.getrandbits(8), chance.getrandbits(64), chance.randbytes(chance.randint(0, 200)), tag)
    for _ in range(chance.randint(0, 3)):
        at = chance.randint(0, len(stream))
        match chance.randint(0, 3):
            case 0 if at < len(stream):
                stream[at] ^= 1 << chance.randint(0, 7)
            case 1:
                del stream[at : at + chance.randint(1, 20)]
            case 2:
                stream[at:at] = chance.randbytes(chance.randint(1, 20))
            case _:
                stream[at:at] = chance.choice((b"\x00\x10\x00\x00", b"\x00\x0f\xff\xfc", bytes(4), b"\xff" * 4))
    return bytes(stream)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    chance, end, count = random.Random(chosen.seed), time.monotonic() + chosen.seconds, 0
    while time.monotonic() < end:
        look(make_stream(chance), [chance.getrandbits(20) for _ in range(chance.randint(0, 6))])
        count += 1
    print(f"{count} streams, seed {chosen.seed}: nothing found")


if __name__ == "__main__":
    main()
