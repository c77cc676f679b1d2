"""A TCP listener whose connections are TLS sessions with an identity: handshakes in turn, deadlines, limits, drain."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from keyhop.daemon.identity import Identities, IdentityError
from keyhop.daemon.tls import TlsContext, TlsError, TlsSession

BACKLOG = 4096
LINGER_BYTES_LIMIT = 1024 * 1024
"""What is still read and thrown away after the last answer, so that a reset does not overtake it."""
REPORTS_PER_TICK = 10

Report = Callable[[str, dict[str, Any]], None]
"""Takes the name of an event and its fields; never key bits."""


@dataclass(frozen=True)
class Patience:
    """How long a client may take for each part, in seconds; looked at once per tick."""

    handshake_s: float = 10.0
    head_s: float = 10.0
    body_s: float = 20.0
    idle_s: float = 75.0
    answer_s: float = 120.0
    """How long the supplier may take; it has limits of its own, this one only ends what would last for ever."""
    write_s: float = 30.0
    """How long a client may leave its answers unread."""
    linger_s: float = 2.0
    tick_s: float = 1.0


class Listener:
    """All connections of one port: who is in the handshake, who has waited too long, how many there are."""

    def __init__(
        self,
        context: TlsContext,
        identities: Identities,
        *,
        patience: Patience | None = None,
        connections_limit: int = 4096,
        report: Report | None = None,
    ) -> None:
        self.context = context
        """May be replaced while running: new connections take the new one (renewed certificates)."""
        self.identities = identities
        self.patience = patience or Patience()
        self.connections_limit = connections_limit
        self.connections: set[SecureConnection] = set()
        self.events: Counter[str] = Counter()
        """How often each event was reported, also those the report was spared."""
        self.tick = 0
        self.draining = False
        self._report = report
        self._reports_left = REPORTS_PER_TICK
        self._handshakes: deque[SecureConnection] = deque()
        self._servers: list[asyncio.AbstractServer] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._emptied: asyncio.Event | None = None
        self.idle_deadline = self.deadline(self.patience.idle_s)
        """The tick until which a connection may rest from now on: kept here so that a request need not compute it."""

    def make_connection(self) -> SecureConnection:
        raise NotImplementedError

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> tuple[str, int]:
        """Listen; gives the address bound. With `reuse_port` several processes may share the port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            self.make_connection, host, port, backlog=BACKLOG, reuse_address=True, reuse_port=reuse_port or None
        )
        return self._started(loop, server)

    async def start_on(self, listening: socket.socket) -> tuple[str, int]:
        """Listen on a socket that is bound already (socket activation)."""
        loop = asyncio.get_running_loop()
        return self._started(loop, await loop.create_server(self.make_connection, sock=listening, backlog=BACKLOG))

    def _started(self, loop: asyncio.AbstractEventLoop, server: asyncio.Server) -> tuple[str, int]:
        self._loop = loop
        self._servers.append(server)
        if self._timer is None:
            self._timer = loop.call_later(self.patience.tick_s, self._on_tick)
        host, port = server.sockets[0].getsockname()[:2]
        return host, port

    async def drain(self, timeout_s: float) -> None:
        """Stop listening, let requests under way be answered, then close; what is left after the timeout is cut."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            self._emptied = asyncio.Event()
            try:
                await asyncio.wait_for(self._emptied.wait(), timeout_s)
            except TimeoutError:
                for connection in list(self.connections):
                    connection.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def deadline(self, seconds: float) -> int:
        """The tick at which `seconds` from now are over, never early."""
        return self.tick + 1 + int(seconds / self.patience.tick_s + 0.999)

    def report(self, event: str, **fields: Any) -> None:
        """Count an event and pass it on, as far as this tick's reports last: a flood must not fill the log."""
        self.events[event] += 1
        if self._report is not None and self._reports_left > 0:
            self._reports_left -= 1
            self._report(event, fields)

    def ticked(self) -> None:
        """Called once per tick."""

    def _on_tick(self) -> None:
        self.tick += 1
        self.idle_deadline = self.deadline(self.patience.idle_s)
        self._reports_left = REPORTS_PER_TICK
        # One timer for all: a timer per request would cost more than parsing it.
        overdue = [connection for connection in self.connections if connection.deadline <= self.tick]
        for connection in overdue:
            connection.overdue()
        self.ticked()
        assert self._loop is not None
        self._timer = self._loop.call_later(self.patience.tick_s, self._on_tick)

    def queue_handshake(self, connection: SecureConnection) -> None:
        """One step of one handshake per turn of the loop: a crowd at the door delays each request by one step only."""
        if not self._handshakes:
            asyncio.get_running_loop().call_soon(self._next_handshake)
        self._handshakes.append(connection)

    def _next_handshake(self) -> None:
        connection = self._handshakes[0]
        try:
            connection.shake_hands()
        finally:
            self._handshakes.popleft()
            if self._handshakes:
                asyncio.get_running_loop().call_soon(self._next_handshake)

    def left(self, connection: SecureConnection) -> None:
        self.connections.discard(connection)
        if not self.connections and self._emptied is not None:
            self._emptied.set()


class SecureConnection(asyncio.Protocol):
    """One TLS session over one TCP connection. What it carries is the subclass's business."""

    __slots__ = (
        "_handshake_input",
        "_lingered_bytes",
        "_queued",
        "_session",
        "_transport",
        "_up",
        "_write",
        "closing",
        "deadline",
        "listener",
        "peer",
    )

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.peer = ""
        """The ID out of the certificate."""
        self.deadline = 0
        """The tick at which patience ends."""
        self.closing = False
        self._transport: asyncio.Transport
        self._write: Callable[[bytes], None]
        self._session: TlsSession | None = None
        self._up = False
        """The handshake is complete and nobody has closed."""
        self._queued = False
        self._handshake_input = b""
        self._lingered_bytes = 0

    # What a subclass answers to.

    def opened(self) -> None:
        """The handshake is complete and `peer` is known."""

    def received(self, data: bytes) -> None:
        """Plaintext, never empty."""
        raise NotImplementedError

    def finished(self) -> None:
        """The peer sends no more; it may still wait for answers."""
        self.close()

    def overdue(self) -> None:
        """The deadline has passed."""
        if not self.closing:
            self.listener.report("client_too_slow", peer=self.peer)
        self.abort()

    def drain(self) -> None:
        self.close()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self.listener
        self._transport = cast("asyncio.Transport", transport)
        self._write = self._transport.write
        if listener.draining or len(listener.connections) >= listener.connections_limit:
            listener.report("connection_refused", limit=listener.connections_limit)
            self.closing = True
            self._transport.abort()
            return
        listener.connections.add(self)
        self.deadline = listener.deadline(listener.patience.handshake_s)

    def data_received(self, data: bytes) -> None:
        if self._up:
            session = self._session
            assert session is not None
            try:
                plaintext = session.open(data)
            except TlsError as error:
                self._broken("record_refused", error)
                return
            if plaintext:
                self.received(plaintext)
            elif own := session.outgoing():
                self._write(own)
            if session.finished and self._up:
                self.finished()
        elif self.closing:
            self._discard(len(data))
        else:
            self._handshake_input += data
            if self._queued:
                # The size of handshake messages is limited by the TLS library, but it has to see them first.
                self._transport.pause_reading()
            else:
                self._queued = True
                self.listener.queue_handshake(self)

    def shake_hands(self) -> None:
        """One step of the handshake with what has arrived."""
        self._queued = False
        if self.closing:
            return
        self._transport.resume_reading()
        data, self._handshake_input = self._handshake_input, b""
        # Not before the first bytes: a client that says nothing costs no session.
        session = self._session
        if session is None:
            session = self._session = self.listener.context.session()
        try:
            complete = session.handshake(data)
            if complete:
                self.peer = self.listener.identities.of_der(session.peer_certificate())
        except (TlsError, IdentityError) as error:
            self._broken("handshake_refused", error)
            return
        if own := session.outgoing():
            self._write(own)
        if complete:
            self._up = True
            self.deadline = self.listener.idle_deadline
            self.opened()
            # The first request often comes in the same segment as the client's last handshake message.
            self.data_received(b"")

    def eof_received(self) -> bool:
        if self._up:
            self.finished()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._up = False
        self._session = None
        self.listener.left(self)

    # What a subclass does.

    def send(self, plaintext: bytes) -> None:
        session = self._session
        assert session is not None
        try:
            self._write(session.seal(plaintext))
        except TlsError as error:
            self._broken("session_failed", error)

    def close(self) -> None:
        """Say goodbye and close once all is sent."""
        if not self.closing:
            self.closing = True
            self._up = False
            self._say_goodbye()
            self.deadline = self.listener.deadline(self.listener.patience.write_s)
            self._transport.close()

    def linger(self) -> None:
        """Close after an answer to a client that may still be sending: unread bytes would turn our FIN into a reset,
        and that would overtake the answer."""
        if not self.closing:
            self.closing = True
            self._up = False
            self._say_goodbye()
            self.deadline = self.listener.deadline(self.listener.patience.linger_s)
            self._transport.resume_reading()
            self._transport.write_eof()

    def abort(self) -> None:
        self.closing = True
        self._up = False
        self._transport.abort()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def _say_goodbye(self) -> None:
        if self._session is not None and (own := self._session.goodbye()):
            self._write(own)

    def _broken(self, event: str, error: TlsError | IdentityError) -> None:
        address = self._transport.get_extra_info("peername")
        self.listener.report(event, reason=str(error), address=address and address[0], peer=self.peer)
        if isinstance(error, TlsError) and error.alert:
            self._write(error.alert)
        self.closing = True
        self._session = None
        self._up = False
        self.deadline = self.listener.deadline(self.listener.patience.linger_s)
        self._transport.close()

    def _discard(self, count: int) -> None:
        self._lingered_bytes += count
        if self._lingered_bytes > LINGER_BYTES_LIMIT:
            self.abort()
