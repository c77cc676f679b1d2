"""Connections to other key managers: TLS 1.3 with mutual certificates, the lower-named end dials, frames in and out."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog

from keyhop.core.machine import Frame
from keyhop.core.node.events import FrameArrived, PeerConnected, PeerLost
from keyhop.daemon.identity import Identities, IdentityError
from keyhop.wire import frames

KME_URI_PREFIX = "urn:keyhop:kme:"
HANDSHAKE_S = 10.0
WRITE_LIMIT_BYTES = 8 << 20
"""A peer that does not read this much is dropped; it opens anew when it is well."""
REDIAL_S = (0.1, 5.0)
"""First and longest wait after a connection that could not be made, or did not last."""
LASTING_S = 2.0
"""A connection that ends sooner was refused by the other end: TLS 1.3 tells the client only afterwards."""
CONNECT_S = 10.0
OPENING_BACKOFF_S = (1.0, 600.0)
"""The same after a connection that broke the protocol: openings spend keys."""

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


class PeerConnection(asyncio.Protocol):
    def __init__(self, peers: Peers, expected: str | None) -> None:
        self._peers = peers
        self._expected = expected
        """Whom we dialled; None: somebody dialled us."""
        self._decoder = frames.FrameDecoder()
        self._transport: asyncio.Transport
        self.peer = ""
        self.id = 0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        try:
            self.peer = self._peers.identities.of_der(tls.getpeercert(binary_form=True))
            self._peers.admit(self, self._expected)
        except IdentityError as error:
            address = transport.get_extra_info("peername")
            _log.warning("peer_refused", address=address and address[0], reason=str(error))
            self.end(f"refused: {error}")

    def data_received(self, data: bytes) -> None:
        if not self.id:
            return
        try:
            for frame in self._decoder.feed(data):
                self._peers.arrived(self, Frame(frame.type, frame.position, frame.payload, frame.tag))
        except frames.FrameError as error:
            self.end(f"broke the framing: {error}")

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
        self._say_ended(str(exc) if exc else "closed by the peer")
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
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.feed: Callable[[object], None] = lambda event: None
        self.failures: Callable[[str], int] = lambda peer: 0
        """How often in a row openings with this peer broke the protocol."""

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: PeerConnection(self, None),
            host,
            port,
            ssl=self._server_context,
            ssl_handshake_timeout=HANDSHAKE_S,
        )
        bound = self._server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    def dial_all(self) -> None:
        """Starts dialling every neighbour that is named above us and has an address."""
        for peer in sorted(self._neighbours):
            if self._node < peer and peer in self._addresses:
                self._tasks.append(asyncio.create_task(self._dial(peer), name=f"dial {peer}"))

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
                reason = str(error) or type(error).__name__
                _log.debug("peer_unreachable", peer=peer, address=f"{host}:{port}", reason=reason)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, REDIAL_S[1])
                continue
            began_s = time.monotonic()
            reason = await asyncio.shield(connection.ended)
            if time.monotonic() - began_s >= LASTING_S:
                wait_s = REDIAL_S[0]
            if failures := self.failures(peer):
                wait_s = min(OPENING_BACKOFF_S[0] * 2 ** min(failures - 1, 10), OPENING_BACKOFF_S[1])
            _log.info("peer_disconnected", peer=peer, reason=reason, redial_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, REDIAL_S[1])

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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections.values()):
            connection.end("this node stops")
