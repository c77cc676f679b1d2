"""Where a request begins and ends: heads that are read or refused, bodies in chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.daemon.http_framing import CHUNK_LINE_LIMIT, Chunks, HttpError, parse_head

HOST = "Host: kme\r\n"


def head(first: str, fields: str = HOST) -> bytes:
    return f"{first}\r\n{fields}\r\n".encode("latin-1")


def refused(raw: bytes) -> int:
    with pytest.raises(HttpError) as caught:
        parse_head(raw)
    return caught.value.status


def test_a_head_is_taken_apart() -> None:
    parsed = parse_head(head("GET /a/b?c=d?e HTTP/1.1", HOST + "X-Y:  z \r\nAccept: a\r\nAccept: b\r\n"))
    assert (parsed.method, parsed.path, parsed.query) == ("GET", "/a/b", "c=d?e")
    assert parsed.headers == {"host": "kme", "x-y": "z", "accept": "a, b"}
    assert parsed.keep_alive and not parsed.has_body and not parsed.http_1_0


def test_an_absolute_target_leads_to_its_path() -> None:
    assert parse_head(head("GET https://kme:8443/a?b HTTP/1.1")).path == "/a"
    assert parse_head(head("GET https://kme HTTP/1.1")).path == "/"


def test_a_body_is_announced_by_length_or_in_chunks() -> None:
    assert parse_head(head("POST / HTTP/1.1", HOST + "Content-Length: 12\r\n")).length == 12
    assert parse_head(head("POST / HTTP/1.1", HOST + "Transfer-Encoding: chunked\r\n")).chunked
    empty = parse_head(head("POST / HTTP/1.1", HOST + "Content-Length: 0\r\n"))
    assert empty.has_length and not empty.has_body


def test_keep_alive_follows_version_and_header() -> None:
    assert not parse_head(head("GET / HTTP/1.1", HOST + "Connection: close\r\n")).keep_alive
    assert not parse_head(head("POST / HTTP/1.1", HOST + "Connection: x, Close\r\nContent-Length: 3\r\n")).keep_alive
    assert not parse_head(head("GET / HTTP/1.0")).keep_alive
    assert parse_head(head("GET / HTTP/1.0", HOST + "Connection: keep-alive\r\n")).keep_alive


def test_an_offer_to_upgrade_is_passed_over() -> None:
    parsed = parse_head(head("GET / HTTP/1.1", HOST + "Connection: Upgrade\r\nUpgrade: h2c\r\n"))
    assert parsed.path == "/"


@pytest.mark.parametrize(
    "fields",
    [
        "",
        HOST + HOST,
        HOST + "Content-Length: 1\r\nContent-Length: 1\r\n",
        HOST + "Content-Length: 1, 1\r\n",
        HOST + "Content-Length: +1\r\n",
        HOST + "Content-Length: -1\r\n",
        HOST + "Content-Length: 0x1\r\n",
        HOST + "Content-Length: 1_0\r\n",
        HOST + "Content-Length: \r\n",
        HOST + "Content-Length: 99999999999999999999999\r\n",
        HOST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        HOST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        HOST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        HOST + "Content-Type: a\r\nContent-Type: b\r\n",
        HOST + "Name : value\r\n",
        HOST + "Na me: value\r\n",
        HOST + ": value\r\n",
        HOST + "novalue\r\n",
        HOST + "X: a\x00b\r\n",
        HOST + "X: a\rb\r\n",
        HOST + "X: a\nY: b\r\n",
        " Host: kme\r\n",
        HOST + "X: a\r\n folded\r\n",
    ],
)
def test_an_ambiguous_or_broken_head_is_refused(fields: str) -> None:
    assert refused(head("POST / HTTP/1.1", fields)) == 400


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ("GET /", 505),
        ("GET", 501),
        ("GET / HTTP/1.1 ", 400),
        ("GET / HTTP/1.x", 400),
        ("GET / http/1.1", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /\x01 HTTP/1.1", 400),
        ("GET /\xe4 HTTP/1.1", 400),
        (" GET / HTTP/1.1", 501),
        ("\x16\x03\x01 / HTTP/1.1", 501),
        ("FETCH / HTTP/1.1", 501),
        ("get / HTTP/1.1", 501),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/3.7", 400),
    ],
)
def test_a_first_line_that_is_not_http_1_is_refused(first: str, status: int) -> None:
    assert refused(head(first)) == status


def test_encodings_and_expectations_nobody_meets_are_refused() -> None:
    assert refused(head("POST / HTTP/1.1", HOST + "Transfer-Encoding: gzip, chunked\r\n")) == 501
    assert refused(head("POST / HTTP/1.1", HOST + "Expect: a-miracle\r\n")) == 417
    assert refused(head("POST / HTTP/1.0", HOST + "Transfer-Encoding: chunked\r\n")) == 400


def test_the_expectation_of_a_go_ahead_is_seen() -> None:
    assert parse_head(head("POST / HTTP/1.1", HOST + "Content-Length: 1\r\nExpect: 100-Continue\r\n")).expects_continue


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.binary(max_size=20), st.data())
def test_a_chunked_body_is_the_same_however_it_is_cut(parts: list[bytes], after: bytes, data: st.DataObject) -> None:
    stream = chunked(parts) + after
    chunks, buffer, body, fed = Chunks(1000), bytearray(), None, 0
    while body is None:
        step = data.draw(st.integers(1, 20))
        buffer += stream[fed : fed + step]
        fed += step
        body = chunks.take(buffer)
    assert body == b"".join(parts)
    assert bytes(buffer) + stream[fed:] == after


def test_extensions_and_trailers_are_thrown_away() -> None:
    buffer = bytearray(b'3;a="b"\r\nabc\r\n0\r\nX: y\r\nZ: w\r\n\r\nrest')
    assert Chunks(10).take(buffer) == b"abc"
    assert buffer == b"rest"


@pytest.mark.parametrize(
    "stream",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1\r\nabc",
        b"1\r\na\r\r",
        b"1\r\naXX",
        b"111111111\r\n",
        b"1" + b";" * CHUNK_LINE_LIMIT,
        b"0\r\n" + b"X: " + b"y" * 5000,
        b"0\r\n" + b"X: y\r\n" * 1000,
    ],
)
def test_a_broken_chunk_is_refused(stream: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        Chunks(1000).take(bytearray(stream))
    assert caught.value.status == 400


@pytest.mark.parametrize("stream", [b"b\r\n", b"5\r\nabcde\r\n6\r\n", b"ffffffff\r\n"])
def test_a_chunk_that_would_pass_the_limit_is_refused_before_it_comes(stream: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        Chunks(10).take(bytearray(stream))
    assert caught.value.status == 413
