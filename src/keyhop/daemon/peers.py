"""Connections to other key managers: TLS 1.3 with mutual certificates, the lower-named end dials, frames in and out."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog

from keyhop.core.machine import Frame
from keyhop.core.node.events import FrameArrived, PeerConnected, PeerLost
from keyhop.daemon.identity import Identities, IdentityError
from keyhop.wire import frames

KME_URI_PREFIX = "urn:keyhop:kme:"
HANDSHAKE_S = 10.0
BACKLOG_LIMIT_FRAMES = 2048
"""With more of them waiting for the core, a connection is not read: a neighbour cannot fill our memory."""
BACKLOG_LOOK_S = 0.005
WRITE_LIMIT_BYTES = 8 << 20
"""A peer that does not read this much is dropped; it opens anew when it is well."""
REDIAL_S = (0.1, 5.0)
"""First and longest wait after a connection that could not be made, or did not last."""
LASTING_S = 2.0
"""A connection that ends sooner was refused by the other end: TLS 1.3 tells the client only afterwards."""
CONNECT_S = 10.0
OPENING_BACKOFF_S = (1.0, 600.0)
"""The same after a connection that broke the protocol: openings spend keys."""
BACKLOG = 100
ACCEPT_PAUSE_S = 1.0
"""After a connection that could not be accepted: mostly because no file descriptor is left."""
UNHEARD = "the peer closed it without a word: most often it refuses the certificate of this node, and its log says why"
CERTIFICATE_ALERTS = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REQUIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    }
)
"""As OpenSSL names them (RFC 8446, 6.2)."""
REFUSALS_LIMIT = 256
"""Hosts and reasons that are remembered, so that a refusal is told once and not with each try."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class PeerFiles:
    """PEM files of this node as a key manager, used in both directions."""

    certificate: Path
    key: Path
    authority: Path
    """The only authority whose certificates name key managers."""


def contexts(files: PeerFiles) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server, client); TLS 1.3 only, no resumption."""
    both = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # A key manager is named by the URI in its certificate, not by the host it happens to run on.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authority)
        both.append(context)
    both[0].num_tickets = 0
    return both[0], both[1]


def tls_reason(error: ssl.SSLError) -> str:
    """Why a handshake failed, in words that say which end refused what."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused here: {error.verify_message}"
    said = str(getattr(error, "reason", None) or error.strerror or error)
    _, alert, words = said.partition("_ALERT_")
    if alert:
        refused = "refuses the certificate of this node" if words in CERTIFICATE_ALERTS else "ends the handshake"
        return f"it {refused}: {words.lower().replace('_', ' ')}"
    return f"no TLS 1.3 with mutual certificates: {said.lower().replace('_', ' ')}"


class PeerConnection(asyncio.Protocol):
    def __init__(self, peers: Peers, expected: str | None) -> None:
        self._peers = peers
        self._expected = expected
        """Whom we dialled; None: somebody dialled us."""
        self._decoder = frames.FrameDecoder()
        self._transport: asyncio.Transport
        self.peer = ""
        self.id = 0
        self.refused = False
        """The other end ended it over our certificate: TLS 1.3 tells the end that dialled only after its handshake."""
        self._heard = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        address = transport.get_extra_info("peername")
        host = str(address[0]) if address else ""
        try:
            self.peer = self._peers.identities.of_der(tls.getpeercert(binary_form=True))
            self._peers.admit(self, self._expected)
        except IdentityError as error:
            self._peers.refuse(host, str(error))
            self.end(f"refused: {error}")
            return
        if self._expected is None:
            self._peers.let_in(host)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if not self.id:
            return
        try:
            for frame in self._decoder.feed(data):
                self._peers.arrived(self, Frame(frame.type, frame.position, frame.payload, frame.tag))
        except frames.FrameError as error:
            self.end(f"broke the framing: {error}")
            return
        if self._peers.backlog() > BACKLOG_LIMIT_FRAMES and not self._transport.is_closing():
            self._transport.pause_reading()
            self._read_again()

    def _read_again(self) -> None:
        if self._transport.is_closing():
            return
        if self._peers.backlog() > BACKLOG_LIMIT_FRAMES // 2:
            asyncio.get_running_loop().call_later(BACKLOG_LOOK_S, self._read_again)
        else:
            self._transport.resume_reading()

    def write(self, frame: Frame) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(frames.encode(frame.type, frame.position, frame.payload, frame.tag))
        if self._transport.get_write_buffer_size() > WRITE_LIMIT_BYTES:
            # Not `close`: that would wait until all is read.
            self._say_ended("does not read")
            self._transport.abort()

    def end(self, reason: str) -> None:
        self._say_ended(reason)
        self._transport.close()

    def _say_ended(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            self.refused, reason = True, tls_reason(exc)
        elif self._expected is not None and not self._heard:
            # Event loops drop the alert of a handshake that failed, so that this is all the other end gets to see.
            self.refused, reason = True, UNHEARD
        else:
            reason = str(exc) if exc else "closed by the peer"
        self._say_ended(reason)
        self._peers.lost(self)


class Peers:
    """All connections of this node to others. `feed` takes the events; `send` and `close` are the driver's."""

    def __init__(
        self,
        node: str,
        neighbours: frozenset[str],
        addresses: Mapping[str, tuple[str, int]],
        files: PeerFiles,
    ) -> None:
        self._node = node
        self._neighbours = neighbours
        self._addresses = addresses
        self._server_context, self._client_context = contexts(files)
        self.identities = Identities(uri_prefix=KME_URI_PREFIX)
        self._connections: dict[int, PeerConnection] = {}
        self._next_id = 0
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: set[tuple[str, str]] = set()
        """Host and why it was refused, as told already; without hosts that were let in since."""
        self.trouble: dict[str, str] = {}
        """Neighbour to why it cannot be reached, where we dial; without those that have been for a while."""
        self.feed: Callable[[object], None] = lambda event: None
        self.failures: Callable[[str], int] = lambda peer: 0
        self.backlog: Callable[[], int] = lambda: 0
        """How many events wait for the core."""
        """How often in a row openings with this peer broke the protocol."""

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Raises OSError with no more in it than why."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                listener = socket.create_server(address, family=family, backlog=BACKLOG)
            except OSError as error:
                # Python's own text repeats the address, which whoever called knows.
                number = error.errno or errno.EIO
                raise OSError(number, os.strerror(number)) from None
            listener.setblocking(False)
            self._listeners.append(listener)
            self._start(self._accept(listener), f"accept {address[0]}")
        bound = self._listeners[0].getsockname()
        return str(bound[0]), int(bound[1])

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        """Not asyncio's server: that keeps to itself why a handshake failed."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                arrived, address = await loop.sock_accept(listener)
            except OSError as error:
                _log.warning("peer_not_accepted", reason=str(error))
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            arrived.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._greet(arrived, str(address[0])), f"handshake {address[0]}")

    async def _greet(self, arrived: socket.socket, host: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: PeerConnection(self, None),
                arrived,
                ssl=self._server_context,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
        except ssl.SSLError as error:
            self.refuse(host, tls_reason(error))
        except OSError as error:
            # Whoever looks whether the port is open ends so, too.
            _log.debug("peer_left", address=host, reason=str(error) or type(error).__name__)

    def dial_all(self) -> None:
        """Starts dialling every neighbour that is named above us and has an address."""
        for peer in sorted(self._neighbours):
            if self._node < peer and peer in self._addresses:
                self._start(self._dial(peer), f"dial {peer}")

    async def _dial(self, peer: str) -> None:
        host, port = self._addresses[peer]
        wait_s = REDIAL_S[0]
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        lambda: PeerConnection(self, peer),
                        host,
                        port,
                        ssl=self._client_context,
                        ssl_handshake_timeout=HANDSHAKE_S,
                    )
            except (OSError, ValueError) as error:
                # ValueError: a host name that cannot be one.
                refused = isinstance(error, ssl.SSLError)
                reason = tls_reason(error) if isinstance(error, ssl.SSLError) else _reason(error)
                self._not_reached(peer, reason, refused=refused)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, REDIAL_S[1])
                continue
            try:
                async with asyncio.timeout(LASTING_S):
                    reason = await asyncio.shield(connection.ended)
            except TimeoutError:
                wait_s = REDIAL_S[0]
                self.trouble.pop(peer, None)
                reason = await asyncio.shield(connection.ended)
            if failures := self.failures(peer):
                wait_s = min(OPENING_BACKOFF_S[0] * 2 ** min(failures - 1, 10), OPENING_BACKOFF_S[1])
            self._not_reached(peer, reason, refused=connection.refused)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, REDIAL_S[1])

    def _not_reached(self, peer: str, reason: str, *, refused: bool) -> None:
        """Told once for each change of the reason: a certificate does not mend itself from one try to the next."""
        host, port = self._addresses[peer]
        again = self.trouble.get(peer) == reason
        self.trouble[peer] = reason
        level = _log.debug if again else _log.warning if refused else _log.info
        level("peer_not_reached", peer=peer, address=f"{host}:{port}", reason=reason)

    # --- what a connection tells --------------------------------------------------------------------------------------

    def admit(self, connection: PeerConnection, expected: str | None) -> None:
        """Raises IdentityError for anyone but a neighbour that may connect in this direction."""
        peer = connection.peer
        if expected is not None and peer != expected:
            raise IdentityError(f"{expected} was dialled, and {peer} answered")
        if peer not in self._neighbours:
            raise IdentityError(f"{peer} is no neighbour of {self._node}")
        if expected is None and peer > self._node:
            raise IdentityError(f"{peer} dialled, though the lower-named end does")
        self._next_id += 1
        connection.id = self._next_id
        self._connections[connection.id] = connection
        self.feed(PeerConnected(peer, connection.id))

    def refuse(self, host: str, reason: str) -> None:
        """Tells once for each host and reason: whoever is refused comes again every few seconds."""
        level = _log.debug if (host, reason) in self._refused else _log.warning
        if len(self._refused) >= REFUSALS_LIMIT:
            self._refused.clear()
        self._refused.add((host, reason))
        level("peer_refused", address=host, reason=reason)

    def let_in(self, host: str) -> None:
        """What was told of this host is told anew if it is refused again."""
        self._refused = {(other, reason) for other, reason in self._refused if other != host}

    def arrived(self, connection: PeerConnection, frame: Frame) -> None:
        self.feed(FrameArrived(connection.peer, connection.id, frame))

    def lost(self, connection: PeerConnection) -> None:
        if self._connections.pop(connection.id, None) is not None:
            self.feed(PeerLost(connection.peer, connection.id))

    # --- what the driver asks for -------------------------------------------------------------------------------------

    def send(self, peer: str, connection: int, frame: Frame) -> None:
        found = self._connections.get(connection)
        if found is not None:
            found.write(frame)

    def close(self, peer: str, connection: int, reason: str) -> None:
        found = self._connections.pop(connection, None)
        if found is not None:
            found.end(reason)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections.values()):
            connection.end("this node stops")


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        # The loop's own text repeats the address.
        return os.strerror(number)
    return str(error) or f"no answer within {CONNECT_S:g} s"
