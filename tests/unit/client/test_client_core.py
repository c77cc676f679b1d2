"""Requests and answers without I/O: what is asked, what an answer means, and what a key lets out."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import subprocess
import sys
import traceback
from base64 import b64encode
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

import keyhop
from keyhop import (
    BadRequest,
    Key,
    KeyGone,
    KeyhopError,
    NotAuthorised,
    NotEnoughKey,
    ProtocolError,
    UnknownPeer,
    Unreachable,
)
from keyhop.client import core
from keyhop.client.core import Patience, Response

ID = UUID("7f3c9a1e-6c3e-4f57-9b20-1e7a5c9d3f60")
OTHER = UUID("a91e0000-6c3e-4f57-9b20-1e7a5c9d3f60")
BITS = bytes(range(100, 132))


def container(*entries: tuple[Any, bytes]) -> Response:
    keys = [{"key_ID": str(key_id), "key": b64encode(bits).decode()} for key_id, bits in entries]
    return Response(200, {}, json.dumps({"keys": keys}).encode())


def refused(status: int, message: str | None = None, **headers: str) -> Response:
    return Response(status, headers, b"" if message is None else json.dumps({"message": message}).encode())


def test_new_keys_are_asked_by_post_so_that_nothing_repeats_them() -> None:
    request = core.ask_new_keys("sae/b", 3, 512, mandatory={"keyhop_max_hops": 2})
    assert (request.method, request.path) == ("POST", "/api/v1/keys/sae%2Fb/enc_keys")
    assert json.loads(request.body or b"") == {
        "number": 3,
        "size": 512,
        "extension_mandatory": [{"keyhop_max_hops": 2}],
    }
    assert not request.may_repeat
    assert not core.ask_keys_by_id("sae-b", [ID]).may_repeat
    assert core.ask_status("sae-b").may_repeat


def test_keys_are_asked_by_id_of_their_master() -> None:
    request = core.ask_keys_by_id("sae-a", [ID, OTHER])
    assert (request.method, request.path) == ("POST", "/api/v1/keys/sae-a/dec_keys")
    assert json.loads(request.body or b"") == {"key_IDs": [{"key_ID": str(ID)}, {"key_ID": str(OTHER)}]}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: core.ask_new_keys("b", 0), "n = 0: must be 1 or more"),
        (lambda: core.ask_new_keys("b", 1, 100), "size = 100: must be a multiple of 8 bit"),
        (lambda: core.ask_new_keys("b", 1, 0), "size = 0: must be"),
        (lambda: core.ask_new_keys(""), "SAE ID '' cannot stand in a path"),
        (lambda: core.ask_status(".."), "cannot stand in a path"),
        (lambda: core.ask_keys_by_id("a", []), "no key ID given"),
        (lambda: core.ask_keys_by_id("a", [ID, ID]), "a key ID is given twice"),
        (lambda: core.as_uuid("epjcMQLchEK1NVnXQTkuAVN8mbTAQbZXsLlUwVEb"), "the key ID is not a UUID such as"),
    ],
)
def test_what_cannot_be_granted_is_not_even_asked(ask: Any, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ask()
    assert message in str(caught.value)
    assert "epjc" not in str(caught.value)


def test_keys_arrive_with_their_ids_and_bits() -> None:
    first, second = core.read_new_keys(container((ID, BITS), (OTHER, BITS[::-1])), 2, 256)
    assert (first.id, first.reveal(), first.size_bits) == (ID, BITS, 256)
    assert second.id == OTHER


def test_keys_by_id_come_in_the_order_that_was_asked() -> None:
    keys = core.read_keys_by_id(container((OTHER, b"o" * 32), (ID, b"i" * 32)), [ID, OTHER])
    assert [key.id for key in keys] == [ID, OTHER]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"[]",
        b'{"keys": [{"key_ID": "x", "key": "AAAA"}]}',
        b'{"keys": [{"key_ID": "7f3c9a1e-6c3e-4f57-9b20-1e7a5c9d3f60", "key": "?"}]}',
        b'{"keys": [{"key_ID": "7f3c9a1e-6c3e-4f57-9b20-1e7a5c9d3f60", "key": ""}]}',
        b'{"keys": [{"key_ID": "7f3c9a1e-6c3e-4f57-9b20-1e7a5c9d3f60"}]}',
        b'{"keys": []}',
        b"[" * 100_000,
    ],
)
def test_an_answer_that_the_standard_does_not_allow_gives_no_key(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        core.read_new_keys(Response(200, {}, body), 1, None)


@pytest.mark.parametrize(
    ("response", "number", "size_bits"),
    [
        (container((ID, BITS)), 2, None),
        (container((ID, BITS), (OTHER, BITS)), 1, None),
        (container((ID, BITS), (ID, BITS)), 2, None),
        (container((ID, BITS[:16])), 1, 256),
    ],
)
def test_other_keys_than_asked_for_are_refused(response: Response, number: int, size_bits: int | None) -> None:
    with pytest.raises(ProtocolError) as caught:
        core.read_new_keys(response, number, size_bits)
    assert "came" in str(caught.value)


def test_a_key_of_another_id_is_refused() -> None:
    with pytest.raises(ProtocolError, match="other keys came than were asked for"):
        core.read_keys_by_id(container((OTHER, BITS)), [ID])


GONE = "one or more keys specified are not found on KME"


@pytest.mark.parametrize(
    ("operation", "response", "kind"),
    [
        ("enc", refused(503, "not enough key for sae-a to sae-b", **{"retry-after": "2"}), NotEnoughKey),
        ("enc", refused(503), NotEnoughKey),
        ("enc", refused(400, "Insufficient keys available"), NotEnoughKey),
        ("enc", refused(400, "size shall be a multiple of 8"), BadRequest),
        ("enc", refused(400, "unknown SAE sae-b"), UnknownPeer),
        ("enc", refused(404), UnknownPeer),
        ("enc", refused(401), NotAuthorised),
        ("enc", refused(403, "no"), NotAuthorised),
        ("enc", refused(413, "too large"), BadRequest),
        ("enc", refused(500, "oops"), ProtocolError),
        ("enc", refused(302, "elsewhere"), ProtocolError),
        ("enc", refused(502), Unreachable),
        ("dec", refused(400, GONE), KeyGone),
        ("dec", refused(404), KeyGone),
        ("dec", refused(503, GONE), KeyGone),
        ("dec", refused(503, "the link is opening"), Unreachable),
        ("dec", refused(401), NotAuthorised),
        ("dec", refused(400, "key_IDs is empty"), BadRequest),
        ("status", refused(503, "sealed"), Unreachable),
        ("status", refused(404), UnknownPeer),
    ],
)
def test_each_refusal_has_its_error(operation: str, response: Response, kind: type[KeyhopError]) -> None:
    read: dict[str, Any] = {
        "enc": lambda: core.read_new_keys(response, 1, None),
        "dec": lambda: core.read_keys_by_id(response, [ID]),
        "status": lambda: core.read_status(response),
    }
    with pytest.raises(KeyhopError) as caught:
        read[operation]()
    assert type(caught.value) is kind
    assert caught.value.http_status == response.status
    assert caught.value.code.startswith("KH-")
    assert str(caught.value)


def test_a_refusal_carries_what_the_server_said() -> None:
    body = json.dumps({"message": "not enough key", "details": [{"code": "KH-2109"}]}).encode()
    headers = {"retry-after": "7", "x-request-id": "r1"}
    with pytest.raises(NotEnoughKey) as caught:
        core.read_new_keys(Response(503, headers, body), 1, None)
    assert (caught.value.code, caught.value.retry_after, caught.value.request_id) == ("KH-2109", 7.0, "r1")


@pytest.mark.parametrize("text", ["soon", "-1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT", "٣"])
def test_an_odd_retry_after_counts_as_none(text: str) -> None:
    with pytest.raises(NotEnoughKey) as caught:
        core.read_new_keys(refused(503, "x", **{"retry-after": text}), 1, None)
    assert caught.value.retry_after is None


def test_a_key_shows_its_bits_by_reveal_only() -> None:
    key = Key(ID, BITS)
    for text in (repr(key), str(key), f"{key}", format(key), repr([key]), repr({"k": key})):
        assert BITS.hex()[:8] not in text
        assert "d" * 4 not in text
    assert repr(key) == "<Key 7f3c… 256 bit>"


def test_a_traceback_does_not_show_the_bits() -> None:
    key = Key(ID, BITS)
    try:
        raise RuntimeError(f"could not use {key}")
    except RuntimeError:
        text = traceback.format_exc()
    assert "<Key 7f3c…" in text and str(BITS[:4]) not in text


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_is_neither_pickled_nor_copied(take: Any) -> None:
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        take(Key(ID, BITS))


def test_a_wiped_key_reveals_nothing() -> None:
    with Key(ID, BITS) as key:
        assert key.reveal() == BITS
    assert key.wiped
    assert repr(key) == "<Key 7f3c… 256 bit wiped>"
    with pytest.raises(ValueError, match="was wiped"):
        key.reveal()


def test_keys_are_equal_by_id_and_bits() -> None:
    assert Key(ID, BITS) == Key(ID, BITS)
    assert Key(ID, BITS) != Key(ID, BITS[::-1])
    assert Key(ID, BITS) != Key(OTHER, BITS)
    assert Key(ID, BITS) != BITS
    assert len({Key(ID, BITS), Key(ID, BITS)}) == 1


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://kme-a:8443", "https://kme-a:8443"),
        ("kme-a:8443", "https://kme-a:8443"),
        ("https://kme-a/", "https://kme-a:443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_an_address_is_read(address: str, url: str) -> None:
    assert core.endpoint(address).url == url


@pytest.mark.parametrize(
    "address",
    ["http://kme-a:8443", "https://", "", "https://kme-a:port", "https://u:p@kme-a", "https://kme-a/api", "ftp://x"],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="must be https://host:port"):
        core.endpoint(address)


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEYHOP_ADDR", "KEYHOP_CERT", "KEYHOP_KEY", "KEYHOP_CA"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("KEYHOP_CERT")
    monkeypatch.setenv("KEYHOP_CA", "")
    with pytest.raises(BadRequest, match="KEYHOP_CERT and KEYHOP_CA not set"):
        core.credentials_from_environment()


@given(wait=st.floats(0, 100), retry_after=st.none() | st.floats(0.1, 30))
def test_patience_never_pauses_longer_than_it_was_given(wait: float, retry_after: float | None) -> None:
    patience = Patience(wait)
    paused = 0.0
    error = NotEnoughKey("none", retry_after=retry_after)
    with contextlib.suppress(NotEnoughKey):
        for _ in range(2000):
            paused += patience.pause_s(error)
        pytest.fail("the patience has no end")
    assert paused <= wait + 1e-6


def test_without_wait_there_is_no_second_try() -> None:
    with pytest.raises(NotEnoughKey):
        Patience(None).pause_s(NotEnoughKey("none", retry_after=0.1))


def test_every_public_name_can_be_had() -> None:
    for name in keyhop.__all__:
        assert getattr(keyhop, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Kmee'"):
        keyhop.Kmee  # noqa: B018


def test_the_blocking_client_loads_no_asyncio_client() -> None:
    code = "import sys; from keyhop import Kme, NotEnoughKey; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


def test_ids_differ() -> None:
    assert Key(uuid4(), BITS) != Key(uuid4(), BITS)
