"""The first-contact file: written once, read whole, used once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhop.daemon import linkkey
from keyhop.daemon.linkkey import LinkKeyError, LinkKeyUsed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "STP-BRT.key"
    linkkey.write(linkkey.make("STP", "BRT"), path)
    return path


def test_both_ends_read_what_was_made(tmp_path: Path) -> None:
    key = linkkey.make("STP", "BRT")
    linkkey.write(key, tmp_path / "k")
    copy = linkkey.read(tmp_path / "k")
    assert (copy.number, copy.lower, copy.higher, copy.secret) == (key.number, "BRT", "STP", key.secret)


def test_each_end_owns_one_half_and_its_first_part_is_for_openings(file: Path) -> None:
    key = linkkey.read(file)
    parts = [key.opening("BRT"), key.tags("BRT"), key.opening("STP"), key.tags("STP")]
    assert [len(part) for part in parts] == [4096, 28672, 4096, 28672]
    assert b"".join(parts) == key.secret
    with pytest.raises(ValueError, match="GUD is no end of link BRT-STP"):
        key.opening("GUD")


def test_two_files_share_neither_number_nor_secret() -> None:
    one, other = linkkey.make("A", "B"), linkkey.make("A", "B")
    assert one.number != other.number
    assert one.secret != other.secret


def test_the_file_is_for_its_owner_alone(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_open_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(LinkKeyError, match=rf"others may open it \(mode {mode:04o}\); run `chmod 600"):
        linkkey.read(file)


def test_a_file_is_never_replaced(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(LinkKeyError, match="exists already"):
        linkkey.write(linkkey.make("STP", "BRT"), file)
    assert file.read_bytes() == before


def test_a_consumed_file_holds_nothing_of_the_secret(file: Path) -> None:
    secret = bytes(linkkey.read(file).secret)
    linkkey.consume(file)
    left = file.read_bytes()
    assert len(left) < 100
    assert not any(secret[at : at + 8] in left for at in range(0, len(secret), 8))
    with pytest.raises(LinkKeyUsed, match="was loaded and overwritten; make a new one with `keyhop link key BRT STP`"):
        linkkey.read(file)


def test_consuming_overwrites_in_place(file: Path) -> None:
    with file.open("rb") as watcher:
        linkkey.consume(file)
        assert not any(watcher.read(1 << 20)[100:])
    linkkey.consume(file)  # a crash after the overwriting leads here again


def test_a_file_that_cannot_be_overwritten_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(linkkey.os, "fsync", fail)  # type: ignore[attr-defined]
    with pytest.raises(LinkKeyError, match=r"cannot be overwritten \(Read-only file system\); destroy every copy"):
        linkkey.consume(file)


@settings(max_examples=40)
@given(at=st.integers(0, linkkey.SECRET_BYTES + 90), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("flip") / "k"
    linkkey.write(linkkey.make("STP", "BRT"), path)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(LinkKeyError):
        linkkey.read(path)


@pytest.mark.parametrize("length", [0, 1, 16, 40, 1000, linkkey.SECRET_BYTES])
def test_a_cut_file_is_refused(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(LinkKeyError, match=r"is no link key|format version|is damaged"):
        linkkey.read(file)


def test_a_longer_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(LinkKeyError, match="is damaged"):
        linkkey.read(file)


def test_another_version_is_refused_by_number(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(linkkey.MAGIC) + 1] = 9
    file.write_bytes(content)
    with pytest.raises(LinkKeyError, match="has format version 9; this program reads version 1"):
        linkkey.read(file)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LinkKeyError, match=r"cannot be read \(No such file or directory\); make one with `keyhop link"):
        linkkey.read(tmp_path / "none")
    with pytest.raises(LinkKeyError, match=r"Is a directory|is no file"):
        linkkey.read(tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [("A", "A", "two different ends"), ("", "B", "must be 1 to 63"), ("a/b", "B", "must be")],
)
def test_ends_that_cannot_be_are_refused(one: str, other: str, message: str) -> None:
    with pytest.raises(LinkKeyError, match=message):
        linkkey.make(one, other)


def test_the_secret_shows_in_no_repr(file: Path) -> None:
    key = linkkey.read(file)
    text = f"{key!r} {key}"
    assert text.startswith("<LinkKey BRT-STP ")
    assert key.secret[:4].hex() not in text
    assert len(text) < 80


def test_a_wiped_key_is_zeros(file: Path) -> None:
    key = linkkey.read(file)
    key.wipe()
    assert not any(key.secret)
