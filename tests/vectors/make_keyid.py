"""Writes keyid.json: sealed key IDs computed a second time, in plain arithmetic, with an AES of its own.

Nothing is shared with the program: AES-256 is written out from FIPS 197 and checked against its appendix C.3, HKDF from
RFC 5869 and checked against its appendix A.1, the UUID is put together bit by bit. Run it as a script to write the file
again; the tests look whether it would change.
"""

import hashlib
import hmac
import json
import random
from pathlib import Path

FILE = Path(__file__).with_name("keyid.json")


def gf_multiply(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def sbox_entry(value: int) -> int:
    inverse = next((x for x in range(256) if gf_multiply(value, x) == 1), 0)
    result = 0x63
    for shift in range(5):
        result ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
    return result


SBOX = [sbox_entry(value) for value in range(256)]


def expand(key: bytes) -> list[list[int]]:
    """The 15 round keys of AES-256, FIPS 197 section 5.2."""
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    constant = 1
    for index in range(8, 60):
        word = list(words[index - 1])
        if index % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= constant
            constant = gf_multiply(constant, 2)
        elif index % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[index - 8], word, strict=True)])
    return [[byte for word in words[i : i + 4] for byte in word] for i in range(0, 60, 4)]


def aes256(key: bytes, block: bytes) -> bytes:
    """FIPS 197 section 5.1; the state is kept column by column."""
    keys = expand(key)
    state = [a ^ b for a, b in zip(block, keys[0], strict=True)]
    for round_number in range(1, 15):
        state = [SBOX[b] for b in state]
        state = [state[(4 * (column + row) + row) % 16] for column in range(4) for row in range(4)]
        if round_number < 14:
            mixed = []
            for column in range(4):
                a = state[4 * column : 4 * column + 4]
                for row in range(4):
                    mixed.append(
                        gf_multiply(a[row], 2) ^ gf_multiply(a[(row + 1) % 4], 3) ^ a[(row + 2) % 4] ^ a[(row + 3) % 4]
                    )
            state = mixed
        state = [a ^ b for a, b in zip(state, keys[round_number], strict=True)]
    return bytes(state)


def hkdf_sha256(secret: bytes, info: bytes, salt: bytes, length: int) -> bytes:
    """RFC 5869."""
    extracted = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    output, previous = b"", b""
    while len(output) < length:
        previous = hmac.new(extracted, previous + info + bytes([len(output) // 32 + 1]), hashlib.sha256).digest()
        output += previous
    return output[:length]


def check_primitives() -> None:
    plain = bytes.fromhex("00112233445566778899aabbccddeeff")
    assert aes256(bytes(range(32)), plain).hex() == "8ea2b7ca516745bfeafc49904b496089"
    okm = hkdf_sha256(b"\x0b" * 22, bytes(range(0xF0, 0xFA)), bytes(range(13)), 42)
    assert okm.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def bits(content: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in content)


def from_bits(text: str) -> bytes:
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def with_length(content: bytes) -> bytes:
    return len(content).to_bytes(2, "big") + content


def make_keys(secret: bytes, issuer: str, other: str, epoch: int) -> list[bytes]:
    keys = []
    for index in (1, 2, 3, 4):
        info = b""
        for field in (b"keyhop id v1", issuer.encode(), other.encode(), epoch.to_bytes(8, "big"), bytes([index])):
            info += with_length(field)
        keys.append(hkdf_sha256(secret, info, b"", 32))
    return keys


def make_id(keys: list[bytes], master: str, slave: str, run: int, start: int, length: int) -> dict[str, str]:
    one, two, three, four = keys
    message = with_length(master.encode()) + with_length(slave.encode())
    pair = hmac.new(four, message, hashlib.sha256).digest()[:8]
    coordinates = f"{run:016b}{start:034b}{length - 1:014b}"
    first = bits(aes256(one, from_bits(coordinates + "0" * 64)))[:24]
    second = bits(aes256(two, from_bits(coordinates) + pair))[:34]
    mask = bits(aes256(three, from_bits("0" * 70 + first + second)))[:64]
    body = "".join(str(int(a) ^ int(b)) for a, b in zip(coordinates, mask, strict=True))
    free = body + first + second
    text = from_bits(free[:48] + "0100" + free[48:60] + "10" + free[60:]).hex()
    return {
        "pair": pair.hex(),
        "t1": f"{int(first, 2):06x}",
        "t2": f"{int(second, 2):09x}",
        "id": "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])),
    }


def make() -> str:
    check_primitives()
    chance = random.Random(20)
    cases = []
    seals = [(bytes(range(32)), "kme-a", "kme-b", 1)]
    seals.append((chance.randbytes(32), "kme-b", "kme-a", 1))
    seals.append((chance.randbytes(32), "Nœud-é", "kme-b", (1 << 40) + 5))
    for secret, issuer, other, epoch in seals:
        keys = make_keys(secret, issuer, other, epoch)
        places = [(0, 0, 1), (1, 32, 32), (65_535, (1 << 34) - 1, 1 << 14)]
        places += [(chance.getrandbits(16), chance.getrandbits(34), chance.getrandbits(14) + 1) for _ in range(3)]
        for run, start, length in places:
            for master, slave in (("sae-1", "sae-2"), ("urn:example:sae:ä", "s")):
                cases.append(
                    {
                        "secret": secret.hex(),
                        "issuer": issuer,
                        "other": other,
                        "epoch": epoch,
                        "master": master,
                        "slave": slave,
                        "run": run,
                        "start": start,
                        "length": length,
                        **make_id(keys, master, slave, run, start, length),
                    }
                )
    return json.dumps(cases, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(make(), encoding="utf-8")
