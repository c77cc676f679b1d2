"""Sealed key IDs against the published vectors, a slow twin, and people who guess."""

import hashlib
import hmac
import json
import runpy
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as some

from keyhop.crypto.keyid import LANES_LIMIT, PAIRS_LIMIT, Coordinates, KeyIdSeal, Unopened, open_in_any, parse

VECTORS = Path(__file__).parents[2] / "vectors"
SECRET = bytes(range(32))
SEAL = KeyIdSeal(SECRET, "kme-a", "kme-b", 1)
PAIR = SEAL.pair("sae-1", "sae-2")

runs = some.integers(0, (1 << 16) - 1)
starts = some.integers(0, (1 << 34) - 1)
lengths = some.integers(1, 1 << 14)
names = some.text(min_size=1, max_size=20)


def twin_id(secret: bytes, issuer: str, other: str, epoch: int, master: str, slave: str, place: Coordinates) -> str:
    """The text of the protocol, one line for one sentence."""

    def field(content: bytes) -> bytes:
        return len(content).to_bytes(2, "big") + content

    def key(index: int) -> bytes:
        fields = [b"keyhop id v1", issuer.encode(), other.encode(), epoch.to_bytes(8, "big"), bytes([index])]
        extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
        return hmac.digest(extracted, b"".join(map(field, fields)) + b"\x01", hashlib.sha256)

    def aes(index: int, block: int) -> int:
        encryptor = Cipher(algorithms.AES(key(index)), modes.ECB()).encryptor()
        return int.from_bytes(encryptor.update(block.to_bytes(16, "big")), "big")

    pair = hmac.digest(key(4), field(master.encode()) + field(slave.encode()), hashlib.sha256)[:8]
    c = (place.run * 2**34 + place.start) * 2**14 + place.length - 1
    t1 = aes(1, c * 2**64) // 2**104
    t2 = aes(2, c * 2**64 + int.from_bytes(pair, "big")) // 2**94
    body = c ^ (aes(3, t1 * 2**34 + t2) // 2**64)
    free = (body * 2**24 + t1) * 2**34 + t2
    high, middle, low = free // 2**74, free // 2**62 % 2**12, free % 2**62
    return str(uuid.UUID(int=((high * 16 + 4) * 2**12 + middle) * 2**64 + 2 * 2**62 + low))


def flip(text: str, bit: int) -> str:
    return str(uuid.UUID(int=uuid.UUID(text).int ^ 1 << bit))


@pytest.mark.parametrize("case", json.loads((VECTORS / "keyid.json").read_text(encoding="utf-8")))
def test_ids_are_those_of_the_vectors(case: dict) -> None:
    seal = KeyIdSeal(bytes.fromhex(case["secret"]), case["issuer"], case["other"], case["epoch"])
    pair = seal.pair(case["master"], case["slave"])
    assert pair.hex() == case["pair"]
    place = Coordinates(case["run"], case["start"], case["length"])
    assert seal.seal(*place, pair) == case["id"]
    assert seal.open(case["id"], pair) == place


def test_the_independent_generator_still_makes_the_same_vectors() -> None:
    made = runpy.run_path(str(VECTORS / "make_keyid.py"))["make"]()
    assert made == (VECTORS / "keyid.json").read_text(encoding="utf-8")


@given(
    some.binary(min_size=32, max_size=32),
    names,
    names,
    some.integers(0, 2**64 - 1),
    names,
    names,
    runs,
    starts,
    lengths,
)
def test_a_slow_twin_makes_the_same_id_and_it_opens_again(
    secret: bytes, issuer: str, other: str, epoch: int, master: str, slave: str, run: int, start: int, length: int
) -> None:
    seal, place = KeyIdSeal(secret, issuer, other, epoch), Coordinates(run, start, length)
    made = seal.seal(*place, seal.pair(master, slave))
    assert made == twin_id(secret, issuer, other, epoch, master, slave, place)
    assert seal.open(made, seal.pair(master, slave)) == place
    assert uuid.UUID(made).version == 4 and uuid.UUID(made).variant == uuid.RFC_4122


@given(runs, some.lists(starts, max_size=LANES_LIMIT + 3), lengths)
def test_ids_sealed_together_are_those_sealed_one_by_one_and_open_together(
    run: int, places: list[int], length: int
) -> None:
    made = SEAL.seal_all(run, places, length, PAIR)
    assert made == [SEAL.seal(run, start, length, PAIR) for start in places]
    if len(made) <= LANES_LIMIT:
        assert SEAL.open_all(made, PAIR) == [(run, start, length) for start in places]


EDGES = [0, 1, (1 << 34) - 1, 1 << 33, 0x155555555, 0x2AAAAAAAA]


@pytest.mark.parametrize("run", [0, 1, 0x5555, 0xAAAA, 0xFFFF])
@pytest.mark.parametrize("length", [1, 32, 0x2AAA, 1 << 14])
def test_no_bit_of_one_id_runs_into_its_neighbours(run: int, length: int) -> None:
    for count in (2, 3, 28, LANES_LIMIT):
        places = (EDGES * count)[:count]
        made = SEAL.seal_all(run, places, length, PAIR)
        assert made == [SEAL.seal(run, start, length, PAIR) for start in places]
        assert SEAL.open_all(made, PAIR) == [Coordinates(run, start, length) for start in places]


@given(some.integers(0, 6), some.integers(0, 127))
def test_one_changed_bit_among_many_ids_is_never_opened(which: int, bit: int) -> None:
    texts = SEAL.seal_all(3, range(0, 7 * 32, 32), 32, PAIR)
    texts[which] = flip(texts[which], bit)
    assert SEAL.open_all(texts, PAIR) is None


def test_among_many_a_foreign_an_unknown_or_a_shapeless_id_opens_none() -> None:
    texts = SEAL.seal_all(0, range(0, 96, 32), 32, PAIR)
    stranger = KeyIdSeal(bytes(32), "kme-a", "kme-b", 1)
    for wrong in (
        SEAL.seal(0, 0, 32, SEAL.pair("sae-1", "sae-3")),
        stranger.seal(0, 0, 32, stranger.pair("sae-1", "sae-2")),
        str(uuid.UUID(int=0)),
        "",
        "x" * 36,
        texts[1].replace("-", ""),
        texts[1].replace("-", "_"),
        texts[1][:-2] + "  ",
        texts[1][:7] + "-" + texts[1][7] + texts[1][9:],
        texts[1][:-1] + "\u0661",
        texts[1] + "0",
    ):
        assert SEAL.open_all([texts[0], wrong, texts[2]], PAIR) is None
        assert SEAL.open_all([wrong], PAIR) is None
    assert SEAL.open_all([text.upper() for text in texts], PAIR) == [(0, 0, 32), (0, 32, 32), (0, 64, 32)]


def test_more_ids_than_fit_are_not_opened_together() -> None:
    assert SEAL.open_all([MADE] * (LANES_LIMIT + 1), PAIR) is None


@pytest.mark.parametrize("places", [[0, 1 << 34], [32, -1], [-1, 1 << 34]])
def test_coordinates_without_room_are_refused_among_others_too(places: list[int]) -> None:
    with pytest.raises(ValueError, match="an ID has room for"):
        SEAL.seal_all(0, places, 32, PAIR)
    for run, length, pair in ((1 << 16, 32, PAIR), (0, 0, PAIR), (0, 1 << 15, PAIR), (0, 32, PAIR[:7])):
        with pytest.raises(ValueError, match="an ID has room for"):
            SEAL.seal_all(run, [0, 32], length, pair)


@given(runs, starts, lengths)
def test_another_pair_of_applications_finds_it_foreign(run: int, start: int, length: int) -> None:
    made = SEAL.seal(run, start, length, PAIR)
    for master, slave in (("sae-2", "sae-1"), ("sae-1", "sae-3"), ("sae-1sae-2", ""), ("", "sae-1sae-2")):
        assert SEAL.open(made, SEAL.pair(master, slave)) is Unopened.FOREIGN


@given(runs, starts, lengths)
def test_another_secret_issuer_receiver_or_epoch_does_not_know_it(run: int, start: int, length: int) -> None:
    made = SEAL.seal(run, start, length, PAIR)
    for stranger in (
        KeyIdSeal(bytes(32), "kme-a", "kme-b", 1),
        KeyIdSeal(SECRET, "kme-b", "kme-a", 1),
        KeyIdSeal(SECRET, "kme-a", "kme-c", 1),
        KeyIdSeal(SECRET, "kme-a", "kme-b", 2),
        KeyIdSeal(SECRET, "kme-ak", "me-b", 1),
    ):
        assert stranger.open(made, stranger.pair("sae-1", "sae-2")) is Unopened.UNKNOWN


@given(runs, starts, lengths, some.integers(0, 127))
def test_one_changed_bit_is_never_opened(run: int, start: int, length: int, bit: int) -> None:
    changed = flip(SEAL.seal(run, start, length, PAIR), bit)
    assert isinstance(SEAL.open(changed, PAIR), Unopened)


@given(some.uuids(version=4))
def test_invented_uuids_are_unknown(invented: uuid.UUID) -> None:
    assert SEAL.open(str(invented), PAIR) is Unopened.UNKNOWN


@given(starts, starts)
def test_different_keys_have_different_ids(one: int, two: int) -> None:
    assert (SEAL.seal(0, one, 32, PAIR) == SEAL.seal(0, two, 32, PAIR)) == (one == two)


def test_upper_case_text_is_the_same_id() -> None:
    made = SEAL.seal(0, 64, 32, PAIR)
    assert SEAL.open(made.upper(), PAIR) == (0, 64, 32)


MADE = SEAL.seal(0, 64, 32, PAIR)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 36,
        MADE.replace("-", ""),
        "{" + MADE + "}",
        "urn:uuid:" + MADE,
        MADE[:-1],
        MADE + "0",
        MADE + "\n",
        MADE[:-1] + "\n",
        MADE[:-2] + "  ",
        MADE.replace("-", "_"),
        MADE[:7] + "-" + MADE[7] + MADE[9:],
        MADE[:-1] + "-",
        "+" + MADE[1:],
        "0x" + MADE[2:],
        MADE[:-1] + "\u0661",
        MADE[:14] + "1" + MADE[15:],
        MADE[:14] + "7" + MADE[15:],
        MADE[:19] + "c" + MADE[20:],
        MADE[:19] + "0" + MADE[20:],
        "\x00" * 36,
    ],
)
def test_what_is_no_version_4_uuid_is_unknown(text: str) -> None:
    assert parse(text) is None
    assert SEAL.open(text, PAIR) is Unopened.UNKNOWN
    assert open_in_any([SEAL], text, "sae-1", "sae-2") is Unopened.UNKNOWN


@given(some.text(max_size=40))
def test_any_text_is_judged_without_an_error(text: str) -> None:
    assert SEAL.open(text, PAIR) is Unopened.UNKNOWN


@pytest.mark.parametrize(
    "place",
    [(1 << 16, 0, 32), (-1, 0, 32), (0, 1 << 34, 32), (0, -1, 32), (0, 0, 0), (0, 0, (1 << 14) + 1), (0, 0, -5)],
)
def test_coordinates_without_room_in_an_id_are_refused(place: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="an ID has room for"):
        SEAL.seal(*place, PAIR)


def test_a_pair_value_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes for the pair"):
        SEAL.seal(0, 0, 32, PAIR[:7])


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_secret_of_another_length_is_refused_without_showing_it(length: int) -> None:
    with pytest.raises(ValueError, match="must have 32") as refused:
        KeyIdSeal(b"\xa5" * length, "kme-a", "kme-b", 1)
    assert "a5" not in str(refused.value)


def test_any_live_epoch_opens_its_own_ids_and_a_right_one_goes_before_a_foreign_one() -> None:
    epochs = [KeyIdSeal(bytes([n]) * 32, "kme-a", "kme-b", n) for n in (1, 2, 3)]
    for seal in epochs:
        made = seal.seal(0, 96, 32, seal.pair("sae-1", "sae-2"))
        assert open_in_any(epochs, made, "sae-1", "sae-2") == (0, 96, 32)
        assert open_in_any(epochs, made, "sae-1", "sae-9") is Unopened.FOREIGN
        others = [other for other in epochs if other is not seal]
        assert open_in_any(others, made, "sae-1", "sae-2") is Unopened.UNKNOWN
    assert open_in_any([], MADE, "sae-1", "sae-2") is Unopened.UNKNOWN


def test_the_representation_shows_no_key() -> None:
    shown = repr(KeyIdSeal(b"\xa5" * 32, "kme-a", "kme-b", 7))
    assert shown == "KeyIdSeal(kme-a to kme-b, epoch 7)"


def test_the_cache_of_pairs_stays_bounded_and_right() -> None:
    seal = KeyIdSeal(SECRET, "kme-a", "kme-b", 1)
    for number in range(PAIRS_LIMIT + 10):
        seal.pair("sae-1", str(number))
    assert len(seal._pairs) <= PAIRS_LIMIT
    assert seal.pair("sae-1", "sae-2") == PAIR
