"""Where an HTTP/1.1 request begins and ends: its head, parsed by llhttp, and a body in chunks."""

from __future__ import annotations

from typing import Any

import msgspec
from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

HEAD_END = b"\r\n\r\n"
CHUNK_LINE_LIMIT = 64
"""A chunk size with its extensions, which nobody uses."""
TRAILERS_LIMIT = 4096
LENGTH_DIGITS_LIMIT = 15
_ONCE = frozenset({"host", "content-length", "content-type", "transfer-encoding", "expect"})
"""Headers of which a second one makes the request ambiguous: two readers could take different ones."""


class HttpError(Exception):
    """A request that gets an error as its answer."""

    def __init__(
        self,
        status: int,
        message: str,
        details: tuple[dict[str, Any], ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
        series: Any = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.headers = headers
        self.series = series
        """Where the door counts it; None: among the requests that reached no door."""


class Head(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    method: str
    path: str
    """As sent, still URL-encoded."""
    query: str
    """As sent, without the question mark."""
    headers: dict[str, str]
    """Names in lower case; values of repeated headers joined by commas."""
    length: int
    """Content-Length, 0 without one."""
    chunked: bool
    has_length: bool
    keep_alive: bool
    http_1_0: bool
    expects_continue: bool

    @property
    def has_body(self) -> bool:
        return self.chunked or self.length > 0


class _Callbacks:
    """What llhttp tells while it reads a head."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_head(raw: bytes) -> Head:
    """The head in `raw`, which ends with its empty line. Raises HttpError: 400, 417, 501 or 505."""
    callbacks = _Callbacks()
    parser = HttpRequestParser(callbacks)
    try:
        parser.feed_data(raw)
    except HttpParserUpgrade:
        # An offer to upgrade may be passed over (RFC 9110 7.8).
        pass
    except HttpParserInvalidMethodError:
        raise HttpError(501, "the request method is not known") from None
    except HttpParserError:
        raise HttpError(400, "the request is not HTTP/1.1 as RFC 9112 has it") from None
    if not callbacks.complete:
        raise HttpError(400, "the request is not HTTP/1.1 as RFC 9112 has it")
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise HttpError(505, f"HTTP/{version}: only HTTP/1.1 and HTTP/1.0 are spoken here")
    http_1_0 = version == "1.0"
    headers = _headers(callbacks.fields)
    if "host" not in headers and not http_1_0:
        raise HttpError(400, "the request has no Host header")
    has_length, length = "content-length" in headers, 0
    if has_length:
        digits = headers["content-length"]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= LENGTH_DIGITS_LIMIT):
            raise HttpError(400, "Content-Length is not a decimal number")
        length = int(digits)
    chunked = "transfer-encoding" in headers
    if chunked:
        # RFC 9112 6.1 and 6.3: with both, or in HTTP/1.0, a proxy before us may have seen another request.
        if has_length or http_1_0:
            raise HttpError(400, "Transfer-Encoding cannot be combined with Content-Length or HTTP/1.0")
        if headers["transfer-encoding"].lower() != "chunked":
            raise HttpError(501, "Transfer-Encoding must be chunked")
    expectation = headers.get("expect", "").lower()
    if expectation not in ("", "100-continue"):
        raise HttpError(417, "the only expectation met here is 100-continue")
    # llhttp forgets what it read of Connection once a request without a body is complete, so it cannot be asked.
    connection = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    path, _, query = _origin_form(callbacks.target).partition("?")
    return Head(
        method=parser.get_method().decode("ascii"),
        path=path,
        query=query,
        headers=headers,
        length=length,
        chunked=chunked,
        has_length=has_length,
        keep_alive="close" not in connection and (not http_1_0 or "keep-alive" in connection),
        http_1_0=http_1_0,
        expects_continue=bool(expectation) and not http_1_0,
    )


def _headers(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise HttpError(400, f"the header {name} is given twice")
        else:
            headers[name] += f", {value}"
    return headers


def _origin_form(target: bytes) -> str:
    """The path and query of a request target; an absolute one is legal too (RFC 9112 3.2.2)."""
    try:
        text = target.decode("ascii")
    except UnicodeDecodeError:
        raise HttpError(400, "the request target is not ASCII") from None
    if not text.startswith("/"):
        scheme, separator, rest = text.partition("://")
        if separator and scheme.lower() in ("http", "https"):
            return "/" + rest.partition("/")[2]
    return text


class Chunks:
    """Takes a chunked body out of a buffer, bit by bit (RFC 9112 7.1). Extensions and trailers are thrown away."""

    __slots__ = ("_body", "_in_trailers", "_left", "_limit_bytes", "_trailer_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._body = bytearray()
        self._left = -1
        """Bytes of the chunk still to come, with its line end; -1: a size line comes next."""
        self._in_trailers = False
        self._trailer_bytes = 0

    def take(self, buffer: bytearray) -> bytes | None:
        """The whole body once it is complete, else None; what was used is gone from the buffer. Raises HttpError."""
        while True:
            if self._left >= 0:
                if not self._take_data(buffer):
                    return None
                continue
            end = buffer.find(b"\r\n")
            limit = TRAILERS_LIMIT - self._trailer_bytes if self._in_trailers else CHUNK_LINE_LIMIT
            if end > limit or (end < 0 and len(buffer) > limit):
                raise HttpError(400, "a chunk line or the trailers are too long")
            if end < 0:
                return None
            line = bytes(buffer[:end])
            del buffer[: end + 2]
            if self._in_trailers:
                if not line:
                    return bytes(self._body)
                self._trailer_bytes += end + 2
            else:
                self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].rstrip(b" \t")
        # int() would also take signs, blanks, underscores and 0x.
        if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
            raise HttpError(400, "a chunk size is not a hexadecimal number")
        size = int(digits, 16)
        if len(self._body) + size > self._limit_bytes:
            raise HttpError(413, f"the body is longer than {self._limit_bytes} bytes")
        if size:
            self._left = size + 2
        else:
            self._in_trailers = True

    def _take_data(self, buffer: bytearray) -> bool:
        """Move what there is of the chunk; False if more has to come."""
        data = min(len(buffer), max(0, self._left - 2))
        self._body += buffer[:data]
        del buffer[:data]
        self._left -= data
        if self._left > 2 or len(buffer) < 2:
            return False
        if not buffer.startswith(b"\r\n"):
            raise HttpError(400, "a chunk does not end where its size says")
        del buffer[:2]
        self._left = -1
        return True
