"""The blocking client: one persistent connection to a key manager."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from keyhop.client import core
from keyhop.client.core import DEFAULT_TIMEOUT_S, Key, KeyhopError, NotEnoughKey, Patience, Request, Response, Status
from keyhop.client.rekeying import REKEY_S, Freshness


class Kme:
    """A key manager that speaks ETSI GS QKD 014, for use from one thread at a time or several."""

    def __init__(
        self,
        address: str,
        *,
        cert: str | os.PathLike[str],
        key: str | os.PathLike[str],
        ca: str | os.PathLike[str],
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """`cert` and `key` are the application's, `ca` is the authority of the key manager's certificate.

        `timeout` is in seconds, for the connection and for each answer.
        """
        self._endpoint = core.endpoint(address)
        self._context = core.tls_context(cert, key, ca)
        self._timeout_s = timeout
        self._connection: http.client.HTTPSConnection | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_env(cls, *, timeout: float = DEFAULT_TIMEOUT_S) -> Self:
        """From KEYHOP_ADDR, KEYHOP_CERT, KEYHOP_KEY and KEYHOP_CA."""
        given = core.credentials_from_environment()
        return cls(given.address, cert=given.cert, key=given.key, ca=given.ca, timeout=timeout)

    def __repr__(self) -> str:
        return f"<Kme {self._endpoint.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._drop()

    def status(self, peer: str) -> Status:
        return core.read_status(self._send(core.ask_status(peer)))

    def get_key(
        self,
        peer: str,
        *,
        size: int | None = None,
        wait: float | None = None,
        mandatory: Mapping[str, Any] | None = None,
        optional: Mapping[str, Any] | None = None,
    ) -> Key:
        """A new key to share with `peer`; `size` in bits. Send `key.id` to the peer."""
        return self.get_keys(peer, n=1, size=size, wait=wait, mandatory=mandatory, optional=optional)[0]

    def get_keys(
        self,
        peer: str,
        *,
        n: int = 1,
        size: int | None = None,
        wait: float | None = None,
        mandatory: Mapping[str, Any] | None = None,
        optional: Mapping[str, Any] | None = None,
    ) -> list[Key]:
        """New keys, all or none. With `wait`, a refusal for want of key is tried again for so many seconds.

        A request that got no answer is never repeated: its keys may be spent.
        """
        request = core.ask_new_keys(peer, n, size, mandatory=mandatory, optional=optional)
        patience = Patience(wait)
        while True:
            try:
                return core.read_new_keys(self._send(request), n, size)
            except NotEnoughKey as error:
                time.sleep(patience.pause_s(error))

    def fetch_key(self, master: str, key_id: UUID | str) -> Key:
        """The key that `master` got and named to us."""
        return self.fetch_keys(master, [key_id])[0]

    def fetch_keys(self, master: str, key_ids: Sequence[UUID | str]) -> list[Key]:
        """All or none, in the order of `key_ids`."""
        wanted = [core.as_uuid(key_id) for key_id in key_ids]
        return core.read_keys_by_id(self._send(core.ask_keys_by_id(master, wanted)), wanted)

    def session(
        self,
        peer: str,
        *,
        rekey: float = REKEY_S,
        announce: Callable[[UUID], object],
        size: int | None = None,
    ) -> Session:
        """Keeps a fresh key for talking to `peer`: a new one every `rekey` seconds, named to it by `announce`."""
        return Session(self, peer, rekey_s=rekey, announce=announce, size_bits=size)

    def _send(self, request: Request) -> Response:
        with self._lock:
            reused = self._check_connection()
            try:
                return self._exchange(request)
            except (OSError, http.client.HTTPException) as error:
                # A connection that died between two requests; the request is repeated only where that spends no key.
                if not (reused and request.may_repeat):
                    raise unreachable(self._endpoint, error) from error
            try:
                return self._exchange(request)
            except (OSError, http.client.HTTPException) as error:
                raise unreachable(self._endpoint, error) from error

    def _check_connection(self) -> bool:
        """Whether there is a connection to use again; drops one that the server has closed meanwhile."""
        if self._connection is None or self._connection.sock is None:
            return False
        # Nothing is due from the server between two requests: what can be read is its goodbye.
        watch = select.poll()
        watch.register(self._connection.sock, select.POLLIN)
        if watch.poll(0):
            self._drop()
            return False
        return True

    def _exchange(self, request: Request) -> Response:
        if self._connection is None:
            host, port = self._endpoint
            self._connection = http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._context)
        try:
            self._connection.request(request.method, request.path, request.body, request.headers)
            answer = self._connection.getresponse()
            body = answer.read(core.ANSWER_LIMIT_BYTES + 1)
            if len(body) > core.ANSWER_LIMIT_BYTES:
                raise http.client.HTTPException(f"an answer of more than {core.ANSWER_LIMIT_BYTES} bytes")
        except (ssl.SSLEOFError, BrokenPipeError, ConnectionResetError):
            reason = self._last_words()
            self._drop()
            if reason is not None:
                raise reason from None
            raise
        except BaseException:
            # Also after Ctrl-C: what is left of this answer must not be taken for the next one.
            self._drop()
            raise
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if answer.will_close:
            self._drop()
        return Response(answer.status, headers, body)

    def _last_words(self) -> ssl.SSLError | None:
        """Why the server closed the connection while we were sending: its alert is there to read, if not lost."""
        try:
            if self._connection is not None and self._connection.sock is not None:
                self._connection.sock.recv(1)
        except ssl.SSLError as error:
            return error
        except OSError:
            pass
        return None

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


def unreachable(endpoint: core.Endpoint, error: Exception) -> KeyhopError:
    """What a broken connection means to the caller; used by both shells."""
    while not isinstance(error, ssl.SSLError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or "not trusted"
        return core.Unreachable(f"{endpoint.url}: its certificate was refused ({reason}); is `ca` its authority?")
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return core.NotAuthorised(f"{endpoint.url} refused our certificate ({error.reason}); is it the right one?")
    if isinstance(error, TimeoutError):
        return core.Unreachable(f"{endpoint.url} did not answer in time")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    cut_off = isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError)
    if cut_off and not isinstance(error, http.client.RemoteDisconnected):
        # In TLS 1.3 a server refuses a certificate after the client has begun to speak, and its reason may be lost.
        return core.Unreachable(f"{endpoint.url} closed the connection ({reason}); it may have refused our certificate")
    return core.Unreachable(f"{endpoint.url} cannot be reached ({reason})")


class Session:
    """A key that stays fresh, renewed by a thread of its own. Use as `with kme.session(…) as s:`."""

    def __init__(
        self, kme: Kme, peer: str, *, rekey_s: float, announce: Callable[[UUID], object], size_bits: int | None
    ) -> None:
        self._kme = kme
        self._peer = peer
        self._announce = announce
        self._size_bits = size_bits
        self._freshness = Freshness(rekey_s)
        self._callbacks: list[Callable[[Key], object]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keyhop-session-{peer}", daemon=True)

    @property
    def current(self) -> Key:
        """The newest key that was announced."""
        return self._freshness.current

    @property
    def previous(self) -> Key | None:
        """The one before, for what was sent under it; wiped at the next change."""
        return self._freshness.previous

    @property
    def last_error(self) -> Exception | None:
        """Why the last renewal failed; None after a success. The current key stays in use."""
        return self._freshness.last_error

    def on_rekey(self, callback: Callable[[Key], object]) -> None:
        """`callback` gets each further key, on the session's own thread."""
        self._callbacks.append(callback)

    def rekey(self) -> Key:
        """Changes the key now."""
        key = self._kme.get_key(self._peer, size=self._size_bits)
        try:
            self._announce(key.id)
        except BaseException:
            key.wipe()
            raise
        self._freshness.change(key)
        return key

    def __enter__(self) -> Self:
        self.rekey()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._freshness.wipe()

    def _run(self) -> None:
        while not self._ended.wait(self._freshness.next_s()):
            try:
                key = self.rekey()
                for callback in self._callbacks:
                    callback(key)
            except Exception as error:
                # Whatever announce or a callback raised: the session goes on with the key it has.
                self._freshness.failed(error)
