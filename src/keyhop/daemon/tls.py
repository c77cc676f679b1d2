"""TLS 1.3 with mutual certificates over two memory BIOs: contexts and sessions without I/O, by pyOpenSSL or by `ssl`.

A session turns received bytes into plaintext and plaintext into bytes to send; whoever owns the socket moves them. The
two implementations behave alike. pyOpenSSL is the default: it brings its own, newer OpenSSL, whose handshakes are
cheaper and offer X25519MLKEM768. `ssl` follows the OpenSSL of the system and uses public interfaces alone.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

CIPHER_SUITES = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
ALPN_PROTOCOL = "http/1.1"
RECORD_BYTES = 16384
"""The most plaintext one record holds (RFC 8446 5.1)."""
OUTGOING_BYTES = 65536
"""Sealed bytes fetched in one call; longer answers take several."""


class TlsError(Exception):
    """The peer broke TLS, or its certificate was refused; `alert` is what it should still be sent."""

    def __init__(self, reason: str, alert: bytes = b"") -> None:
        super().__init__(reason)
        self.alert = alert


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a listener."""

    certificate: Path
    """Our certificate and the chain below the authority."""
    key: Path
    client_authority: Path
    """The only authorities whose client certificates are accepted: those of this role, no public roots."""


class TlsSession(Protocol):
    """The server end of one connection."""

    finished: bool
    """The peer has said that it sends no more (close_notify)."""

    def handshake(self, data: bytes) -> bool:
        """Take received bytes; True when the handshake is complete. Raises TlsError. Ask `outgoing` afterwards."""
        ...

    def peer_certificate(self) -> bytes:
        """DER."""
        ...

    def open(self, data: bytes) -> bytes:
        """The plaintext of all records that are complete with `data`; raises TlsError."""
        ...

    def seal(self, plaintext: bytes) -> bytes:
        """Records for `plaintext`, behind whatever else was to be sent."""
        ...

    def outgoing(self) -> bytes:
        """What the session itself has to say: handshake messages, alerts, answers to a key update."""
        ...

    def goodbye(self) -> bytes:
        """Our close_notify."""
        ...


class TlsContext(Protocol):
    def session(self) -> TlsSession: ...


class TlsLibrary(StrEnum):
    PYOPENSSL = "pyopenssl"
    STDLIB = "stdlib"


def server_context(files: TlsFiles, library: TlsLibrary = TlsLibrary.PYOPENSSL) -> TlsContext:
    """TLS 1.3 only, a client certificate of the given authority required, no resumption.

    Raises OSError, ValueError or the library's own error for files that cannot be used.
    """
    return PyOpenSslContext(files) if library is TlsLibrary.PYOPENSSL else StdlibContext(files)


_BIO_read, _BIO_write, _BIO_get_mem_data = lib.BIO_read, lib.BIO_write, lib.BIO_get_mem_data
_SSL_read, _SSL_write, _SSL_get_error = lib.SSL_read, lib.SSL_write, lib.SSL_get_error
_ERR_clear_error = lib.ERR_clear_error
_buffer = ffi.buffer


class PyOpenSslContext:
    """Records go through the binding below pyOpenSSL, with buffers made once: its own `recv` and `send` allocate and
    check for every call and cost a quarter of the server's rate. Everything else is its public interface."""

    def __init__(self, files: TlsFiles) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(CIPHER_SUITES.encode())
        context.use_certificate_chain_file(str(files.certificate))
        context.use_privatekey_file(str(files.key))
        context.check_privatekey()
        context.load_verify_locations(str(files.client_authority))
        for certificate in x509.load_pem_x509_certificates(files.client_authority.read_bytes()):
            context.add_client_ca(certificate)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        # A resumed session would skip the check of the certificate. This binding cannot set the number of tickets to
        # 0; with these two OpenSSL sends references to sessions that it has not kept, so none can be resumed.
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_alpn_select_callback(_select_alpn)
        # pyOpenSSL switches partial writes on; over memory there is no reason to take less than all.
        context.clear_mode(lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        context.set_mode(lib.SSL_MODE_RELEASE_BUFFERS)
        self._context = context
        # Shared by all sessions of this context, which therefore belong to one thread.
        self.plaintext = ffi.new("char[]", RECORD_BYTES)
        self.sealed = ffi.new("char[]", OUTGOING_BYTES)
        self.nowhere = ffi.new("char**")

    def session(self) -> PyOpenSslSession:
        return PyOpenSslSession(SSL.Connection(self._context, None), self)


def _select_alpn(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    return ALPN_PROTOCOL.encode() if ALPN_PROTOCOL.encode() in offered else SSL.NO_OVERLAPPING_PROTOCOLS


class PyOpenSslSession:
    __slots__ = ("_connection", "_from", "_into", "_nowhere", "_plaintext", "_sealed", "_ssl", "finished")

    def __init__(self, connection: SSL.Connection, context: PyOpenSslContext) -> None:
        connection.set_accept_state()
        self._connection = connection
        inner: Any = connection
        self._ssl, self._into, self._from = inner._ssl, inner._into_ssl, inner._from_ssl
        self._plaintext, self._sealed, self._nowhere = context.plaintext, context.sealed, context.nowhere
        self.finished = False

    def handshake(self, data: bytes) -> bool:
        self._put(data)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise TlsError(_reason(error), self.outgoing()) from None
        return True

    def peer_certificate(self) -> bytes:
        certificate = lib.SSL_get_peer_certificate(self._ssl)
        if certificate == ffi.NULL:
            raise TlsError("the client has no certificate")
        memory = lib.BIO_new(lib.BIO_s_mem())
        try:
            lib.i2d_X509_bio(memory, certificate)
            length = _BIO_get_mem_data(memory, self._nowhere)
            return bytes(_buffer(self._nowhere[0], length))
        finally:
            lib.BIO_free(memory)
            lib.X509_free(certificate)

    def open(self, data: bytes) -> bytes:
        into = self._into
        if _BIO_write(into, data, len(data)) != len(data):
            raise TlsError("out of memory")
        count = _SSL_read(self._ssl, self._plaintext, RECORD_BYTES)
        if count <= 0:
            return self._nothing(count)
        plaintext: bytes = _buffer(self._plaintext, count)[:]
        if not _BIO_get_mem_data(into, self._nowhere):
            return plaintext
        records = [plaintext]
        while (count := _SSL_read(self._ssl, self._plaintext, RECORD_BYTES)) > 0:
            records.append(_buffer(self._plaintext, count)[:])
        self._nothing(count)
        return b"".join(records)

    def seal(self, plaintext: bytes) -> bytes:
        if _SSL_write(self._ssl, plaintext, len(plaintext)) != len(plaintext):
            _ERR_clear_error()
            raise TlsError("the session takes no more data")
        count = _BIO_read(self._from, self._sealed, OUTGOING_BYTES)
        sealed: bytes = _buffer(self._sealed, count)[:]
        return sealed if count < OUTGOING_BYTES else sealed + self.outgoing()

    def outgoing(self) -> bytes:
        count = _BIO_read(self._from, self._sealed, OUTGOING_BYTES)
        if count <= 0:
            return b""
        sealed: bytes = _buffer(self._sealed, count)[:]
        return sealed if count < OUTGOING_BYTES else sealed + self.outgoing()

    def goodbye(self) -> bytes:
        try:
            self._connection.shutdown()
        except SSL.Error:
            return b""
        return self.outgoing()

    def _put(self, data: bytes) -> None:
        if data and _BIO_write(self._into, data, len(data)) != len(data):
            raise TlsError("out of memory")

    def _nothing(self, count: int) -> bytes:
        """Why a read gave nothing: it waits for more, the peer is done, or it broke the protocol."""
        code = _SSL_get_error(self._ssl, count)
        if code == lib.SSL_ERROR_WANT_READ:
            return b""
        if code == lib.SSL_ERROR_ZERO_RETURN:
            self.finished = True
            return b""
        # The queue of errors belongs to the thread: what stays in it would be blamed on the next session.
        _ERR_clear_error()
        raise TlsError("the peer sent a record that is not valid, or an alert", self.outgoing())


def _reason(error: SSL.Error) -> str:
    """The text of the first error in OpenSSL's queue."""
    queue = error.args[0] if error.args else ()
    return str(queue[0][-1]) if queue and isinstance(queue, list) else "the connection was closed"


class StdlibContext:
    def __init__(self, files: TlsFiles) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        context.set_alpn_protocols([ALPN_PROTOCOL])
        self._context = context

    def session(self) -> StdlibSession:
        return StdlibSession(self._context)


class StdlibSession:
    __slots__ = ("_incoming", "_object", "_outgoing", "_read", "_write", "finished")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._read, self._write = self._object.read, self._object.write
        self.finished = False

    def handshake(self, data: bytes) -> bool:
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsError(error.reason or str(error), self.outgoing()) from None
        return True

    def peer_certificate(self) -> bytes:
        der = self._object.getpeercert(binary_form=True)
        if der is None:
            raise TlsError("the client has no certificate")
        return der

    def open(self, data: bytes) -> bytes:
        incoming = self._incoming
        incoming.write(data)
        try:
            plaintext = self._read(RECORD_BYTES)
            if plaintext and not incoming.pending:
                return plaintext
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            return self._ended(error)
        records = [plaintext]
        while plaintext:
            try:
                plaintext = self._read(RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                plaintext = self._ended(error)
            records.append(plaintext)
        else:
            self.finished = True
        return b"".join(records)

    def seal(self, plaintext: bytes) -> bytes:
        try:
            self._write(plaintext)
        except ssl.SSLError:
            raise TlsError("the session takes no more data") from None
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        # It wants to read the answer, which nobody needs.
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()

    def _ended(self, error: ssl.SSLError) -> bytes:
        if isinstance(error, ssl.SSLZeroReturnError):
            self.finished = True
            return b""
        raise TlsError("the peer sent a record that is not valid, or an alert", self.outgoing()) from None
