"""The thin HTTP/1.1 server of the doors: framing, limits and deadlines around routes that a door prepares.

A door is asked once for each distinct head of a connection what is to be done (`Prepare`), and the route it gives is
kept: fielded clients send the same bytes again and again, so a request on a warm connection is one look-up, one call
of the route and one write. Heads are compared as bytes, and only those are kept that the parser has accepted whole.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from http import HTTPStatus
from time import perf_counter_ns as clock_ns
from typing import Any

from keyhop.daemon.http_framing import (
    CHUNK_LINE_LIMIT,
    HEAD_END,
    Chunks,
    Head,
    HttpError,
    parse_head,
)
from keyhop.daemon.identity import Identities
from keyhop.daemon.listener import Listener, Patience, Report, SecureConnection
from keyhop.daemon.routes import Answer, Later, Prepare, Reply, Route, Series, error_answer
from keyhop.daemon.tls import TlsContext

HEAD_BYTES_LIMIT = 16 * 1024
BODY_BYTES_LIMIT = 64 * 1024
KNOWN_HEADS_LIMIT = 16
"""Heads kept per connection."""
PARSED_HEADS_LIMIT = 256
"""Heads whose parsing is remembered for all connections: new ones mostly open with what others have sent."""
KNOWN_HEAD_BYTES_LIMIT = 1024
REQUESTS_PER_TURN = 16
"""Pipelined requests answered before other connections get their turn."""
HELD_BYTES_LIMIT = HEAD_BYTES_LIMIT + BODY_BYTES_LIMIT
"""Received but not yet served; reading stops above it."""
LENGTHS_LIMIT = 256

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REASONS = {status.value: status.phrase for status in HTTPStatus}


class _Entry:
    """A head with its route, and what the fast path asks of them."""

    __slots__ = ("head", "length", "plain", "render", "respond", "route")

    def __init__(self, head: Head, route: Route) -> None:
        self.head = head
        self.route = route
        self.respond = route.respond
        self.render = route.render
        self.length = head.length
        self.plain = head.keep_alive and not head.http_1_0 and head.method != "HEAD"


class HttpServer(Listener):
    """A listener whose connections speak HTTP/1.1."""

    def __init__(
        self,
        prepare: Prepare,
        context: TlsContext,
        identities: Identities,
        *,
        patience: Patience | None = None,
        connections_limit: int = 4096,
        report: Report | None = None,
    ) -> None:
        super().__init__(context, identities, patience=patience, connections_limit=connections_limit, report=report)
        self.prepare = prepare
        self.refused = Series()
        """Requests that reached no door: broken framing, limits, deadlines."""
        self.ok_heads: dict[int, bytes] = {}
        """Heads of 200 answers by length of the body, made anew each tick for the sake of Date."""
        self.answer_deadline = self.deadline(self.patience.answer_s)
        """The tick until which a supplier may take from now on."""
        self._date = formatdate(usegmt=True)
        self._parsed: dict[bytes, Head] = {}

    def make_connection(self) -> HttpConnection:
        return HttpConnection(self)

    def ticked(self) -> None:
        self.answer_deadline = self.deadline(self.patience.answer_s)
        self._date = formatdate(usegmt=True)
        self.ok_heads.clear()

    def parse(self, raw: bytes) -> Head:
        """The head in `raw`; raises HttpError."""
        head = self._parsed.get(raw)
        if head is None:
            head = parse_head(raw)
            if len(raw) <= KNOWN_HEAD_BYTES_LIMIT:
                if len(self._parsed) >= PARSED_HEADS_LIMIT:
                    self._parsed.clear()
                self._parsed[raw] = head
        return head

    def ok_head(self, length: int) -> bytes:
        head = self.head(200, length)
        if len(self.ok_heads) < LENGTHS_LIMIT:
            self.ok_heads[length] = head
        return head

    def head(self, status: int, length: int, more: str = "") -> bytes:
        # RFC 9110 6.6.1 wants Date; clients and proxies must not keep a key (no-store).
        return (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nDate: {self._date}\r\nContent-Type: application/json\r\n"
            f"Cache-Control: no-store\r\nContent-Length: {length}\r\n{more}\r\n"
        ).encode("latin-1")


class HttpConnection(SecureConnection):
    __slots__ = (
        "_awaited",
        "_bodies",
        "_buffer",
        "_chunks",
        "_entry",
        "_input_over",
        "_known",
        "_last",
        "_outstanding",
        "_phase",
        "_pumping",
        "_quiet",
        "_reading_paused",
        "_scanned",
        "_server",
        "_started_ns",
        "_write_paused",
    )

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server)
        self._server = server
        self._known: dict[bytes, _Entry] = {}
        self._buffer = bytearray()
        """Received and not yet served."""
        self._scanned = 0
        """How far the buffer is known not to hold the end of the head."""
        self._entry: _Entry | None = None
        """The request whose body is being read."""
        self._chunks: Chunks | None = None
        self._outstanding: _Entry | None = None
        """The request whose answer comes later. The next one waits: answers go out in order."""
        self._awaited: Later | None = None
        self._started_ns = 0
        self._phase = "idle"
        self._quiet = True
        """Between requests, with nothing held and nothing in the way: what the fast path asks."""
        self._bodies = False
        """The last request had a body; the next one is looked up as if it had one, too."""
        self._last = False
        """The request being served is the last one of this connection."""
        self._input_over = False
        """The client sends no more; what it has sent is still answered."""
        self._write_paused = False
        self._reading_paused = False
        self._pumping = False

    def received(self, data: bytes) -> None:
        if self._quiet:
            body = b""
            entry = None if self._bodies else self._known.get(data)
            if entry is None or entry.length:
                end = data.find(HEAD_END) + 4
                entry = self._known.get(data[:end])
                if entry is not None and entry.length == len(data) - end:
                    body = data[end:]
                    self._bodies = entry.length > 0
                else:
                    entry = None
            if entry is not None:
                started_ns = clock_ns()
                try:
                    reply = entry.respond(body)
                except Exception as error:
                    self._bug(error)
                    return
                if type(reply) is bytes:
                    self._send_ok(entry, started_ns, reply)
                    self.deadline = self._server.idle_deadline
                else:
                    self._settle(entry, started_ns, reply)
                    if self._quiet:
                        self._enter_idle()
                return
        self._buffer += data
        self._pump()

    def _settle(self, entry: _Entry, started_ns: int, reply: Reply | Later) -> None:
        """Send a reply of any kind, or wait for it."""
        if isinstance(reply, Later):
            if reply.outcome is None:
                self._quiet = False
                self._outstanding, self._awaited = entry, reply
                self._started_ns = started_ns
                self._phase = "answer"
                self.deadline = self._server.answer_deadline
                reply.listen(self._replied)
                return
            reply = entry.render(reply.outcome)
        self._answer(entry, started_ns, reply)

    def _replied(self, outcome: Any) -> None:
        """What was outstanding has come."""
        entry = self._outstanding
        self._outstanding = self._awaited = None
        if entry is None or not self._up:
            return
        try:
            reply = entry.render(outcome)
        except Exception as error:
            self._bug(error)
            return
        if type(reply) is bytes and entry.plain and not self._last:
            self._send_ok(entry, self._started_ns, reply)
        else:
            self._answer(entry, self._started_ns, reply)
        if self.closing:
            return
        if self._buffer or self._write_paused or self._input_over or self._reading_paused:
            self._pump()
        else:
            self._quiet = True
            self._phase = "idle"
            self.deadline = self._server.idle_deadline

    def _send_ok(self, entry: _Entry, started_ns: int, body: bytes) -> None:
        length = len(body)
        self.send((self._server.ok_heads.get(length) or self._server.ok_head(length)) + body)
        entry.route.series.add(200, clock_ns() - started_ns)

    def _answer(self, entry: _Entry, started_ns: int, reply: Reply) -> None:
        if type(reply) is bytes and entry.plain and not self._last:
            self._send_ok(entry, started_ns, reply)
            return
        answer = Answer(200, reply) if isinstance(reply, bytes) else reply
        head = entry.head
        last = self._last or not head.keep_alive
        self._send_answer(answer, last=last, keep_alive_said=head.http_1_0, without_body=head.method == "HEAD")
        entry.route.series.add(answer.status, clock_ns() - started_ns)
        if last:
            self.linger()

    def _send_answer(self, answer: Answer, *, last: bool, keep_alive_said: bool, without_body: bool) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        if last:
            more += "Connection: close\r\n"
        elif keep_alive_said:
            # HTTP/1.0 closes unless both say otherwise.
            more += "Connection: keep-alive\r\n"
        head = self._server.head(answer.status, len(answer.body), more)
        self.send(head if without_body else head + answer.body)

    def _bug(self, error: Exception) -> None:
        """Our own error: the loop's handler decides what becomes of the process, the client gets an answer."""
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a door failed on a request", "exception": error, "protocol": self}
        )
        self._refuse(HttpError(503, "the key manager failed on this request"))

    def _refuse(self, error: HttpError) -> None:
        """Answer what cannot be served, and close: where the next request begins is not known."""
        self._outstanding = None
        answer = error_answer(error)
        self._send_answer(answer, last=True, keep_alive_said=False, without_body=False)
        self._server.refused.add(answer.status, 0)
        self._quiet = False
        self._buffer.clear()
        self.linger()

    def _pump(self) -> None:
        """Serve what the buffer holds, as far as it is complete, nothing is outstanding and the client reads."""
        if self._pumping:
            return
        self._pumping = True
        self._quiet = False
        served = 0
        try:
            while not (self.closing or self._outstanding is not None or self._write_paused):
                if served >= REQUESTS_PER_TURN:
                    asyncio.get_running_loop().call_soon(self._pump)
                    break
                try:
                    request = self._next_request()
                except HttpError as error:
                    self._refuse(error)
                    return
                if request is None:
                    break
                served += 1
                entry, body = request
                started_ns = clock_ns()
                try:
                    reply = entry.respond(body)
                except Exception as error:
                    self._bug(error)
                    return
                self._settle(entry, started_ns, reply)
        finally:
            self._pumping = False
        if self.closing:
            return
        held = len(self._buffer)
        if held > HELD_BYTES_LIMIT:
            if not self._reading_paused:
                self._reading_paused = True
                self.pause_reading()
        elif self._reading_paused:
            self._reading_paused = False
            self.resume_reading()
        if self._outstanding is not None or self._write_paused:
            return
        if self._input_over and served < REQUESTS_PER_TURN:
            self.close()
        elif not held and self._entry is None:
            self._quiet = True
            self._enter_idle()

    def _next_request(self) -> tuple[_Entry, bytes] | None:
        """The next complete request out of the buffer, or None; raises HttpError where none can be."""
        buffer = self._buffer
        entry = self._entry
        if entry is None:
            while buffer.startswith(b"\r\n"):
                # RFC 9112 2.2: an empty line before the request is passed over.
                del buffer[:2]
                self._scanned = 0
            end = buffer.find(HEAD_END, max(0, self._scanned - 3)) + 4
            if end < 4:
                if len(buffer) > HEAD_BYTES_LIMIT:
                    raise HttpError(431, f"the head is longer than {HEAD_BYTES_LIMIT} bytes")
                if buffer.find(b"\n\n", max(0, self._scanned - 1)) >= 0:
                    # Such a head would never end; whoever typed it should not have to wait for the deadline.
                    raise HttpError(400, "lines of the head must end with CR LF")
                self._scanned = len(buffer)
                if buffer and self._phase != "head":
                    self._enter("head", self.listener.patience.head_s)
                return None
            if end > HEAD_BYTES_LIMIT:
                raise HttpError(431, f"the head has {end} bytes: at most {HEAD_BYTES_LIMIT} are read")
            raw = bytes(buffer[:end])
            del buffer[:end]
            self._scanned = 0
            self._phase = "request"
            entry = self._entry = self._known.get(raw) or self._new_entry(raw)
            if entry.length or entry.head.chunked:
                self._enter("body", self.listener.patience.body_s)
                self._chunks = Chunks(BODY_BYTES_LIMIT) if entry.head.chunked else None
                if entry.head.expects_continue and len(buffer) < (entry.length or CHUNK_LINE_LIMIT):
                    self.send(CONTINUE)
        if self._chunks is not None:
            body = self._chunks.take(buffer)
            if body is None:
                return None
            self._chunks = None
        elif len(buffer) < entry.length:
            return None
        else:
            body = bytes(buffer[: entry.length])
            del buffer[: entry.length]
        self._entry = None
        return entry, body

    def _new_entry(self, raw: bytes) -> _Entry:
        head = self._server.parse(raw)
        if head.length > BODY_BYTES_LIMIT:
            raise HttpError(413, f"the body has {head.length} bytes: at most {BODY_BYTES_LIMIT} are read")
        try:
            entry = _Entry(head, self._server.prepare(head, self.peer))
        except HttpError as error:
            # The body, if there is one, still has to be read before the answer and the next request.
            answer = error_answer(error)
            return _Entry(head, Route(lambda _: answer, error.series or self._server.refused))
        if entry.plain and not head.chunked and not head.expects_continue and len(raw) <= KNOWN_HEAD_BYTES_LIMIT:
            if len(self._known) >= KNOWN_HEADS_LIMIT:
                self._known.clear()
            self._known[raw] = entry
        return entry

    def _enter(self, phase: str, patience_s: float) -> None:
        self._phase = phase
        self.deadline = self.listener.deadline(patience_s)

    def _enter_idle(self) -> None:
        self._phase = "idle"
        self.deadline = self.listener.idle_deadline

    def pause_writing(self) -> None:
        self._write_paused = True
        self._quiet = False
        self._enter("write", self.listener.patience.write_s)

    def resume_writing(self) -> None:
        self._write_paused = False
        if not self.closing:
            self._enter_idle()
            self._pump()

    def overdue(self) -> None:
        if not self._up or self._phase in ("answer", "write"):
            super().overdue()
        elif self._phase == "idle":
            self.close()
        else:
            self.listener.report("client_too_slow", peer=self.peer, phase=self._phase)
            self._refuse(HttpError(408, f"the {self._phase} of the request did not arrive in time"))

    def finished(self) -> None:
        self._input_over = True
        self._pump()

    def drain(self) -> None:
        if not self._up or self._quiet:
            self.close()
        else:
            self._last = True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._awaited is not None:
            self._awaited.abandon()
        self._buffer.clear()
        self._known.clear()
