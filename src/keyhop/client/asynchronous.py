"""The asyncio client: the same names as the blocking one, awaitable."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import aiohttp

from keyhop.client import core
from keyhop.client.core import DEFAULT_TIMEOUT_S, Key, NotEnoughKey, Patience, Request, Response, Status
from keyhop.client.rekeying import REKEY_S, Freshness
from keyhop.client.sync import unreachable

CONNECTIONS = 8


class AsyncKme:
    """A key manager that speaks ETSI GS QKD 014, for one event loop."""

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

        `timeout` is in seconds, for a whole request.
        """
        self._endpoint = core.endpoint(address)
        self._context = core.tls_context(cert, key, ca)
        self._timeout_s = timeout
        self._http: aiohttp.ClientSession | None = None

    @classmethod
    def from_env(cls, *, timeout: float = DEFAULT_TIMEOUT_S) -> Self:
        """From KEYHOP_ADDR, KEYHOP_CERT, KEYHOP_KEY and KEYHOP_CA."""
        given = core.credentials_from_environment()
        return cls(given.address, cert=given.cert, key=given.key, ca=given.ca, timeout=timeout)

    def __repr__(self) -> str:
        return f"<AsyncKme {self._endpoint.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def status(self, peer: str) -> Status:
        return core.read_status(await self._send(core.ask_status(peer)))

    async def get_key(
        self,
        peer: str,
        *,
        size: int | None = None,
        wait: float | None = None,
        mandatory: Mapping[str, Any] | None = None,
        optional: Mapping[str, Any] | None = None,
    ) -> Key:
        """A new key to share with `peer`; `size` in bits. Send `key.id` to the peer."""
        return (await self.get_keys(peer, n=1, size=size, wait=wait, mandatory=mandatory, optional=optional))[0]

    async def get_keys(
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
                return core.read_new_keys(await self._send(request), n, size)
            except NotEnoughKey as error:
                await asyncio.sleep(patience.pause_s(error))

    async def fetch_key(self, master: str, key_id: UUID | str) -> Key:
        """The key that `master` got and named to us."""
        return (await self.fetch_keys(master, [key_id]))[0]

    async def fetch_keys(self, master: str, key_ids: Sequence[UUID | str]) -> list[Key]:
        """All or none, in the order of `key_ids`."""
        wanted = [core.as_uuid(key_id) for key_id in key_ids]
        return core.read_keys_by_id(await self._send(core.ask_keys_by_id(master, wanted)), wanted)

    def session(
        self,
        peer: str,
        *,
        rekey: float = REKEY_S,
        announce: Callable[[UUID], Awaitable[object] | object],
        size: int | None = None,
    ) -> AsyncSession:
        """Keeps a fresh key for talking to `peer`: a new one every `rekey` seconds, named to it by `announce`."""
        return AsyncSession(self, peer, rekey_s=rekey, announce=announce, size_bits=size)

    async def _send(self, request: Request) -> Response:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                self._endpoint.url,
                connector=aiohttp.TCPConnector(ssl=self._context, limit=CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                # Cookies and redirects have no place here: keys come from the address that was given.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        try:
            async with self._http.request(
                request.method, request.path, data=request.body, headers=request.headers, allow_redirects=False
            ) as answer:
                body = await _limited(answer)
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Response(answer.status, headers, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(self._endpoint, _cause(error)) from error


def _cause(error: Exception) -> Exception:
    """aiohttp wraps what the connection said."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error


async def _limited(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > core.ANSWER_LIMIT_BYTES:
            raise aiohttp.ClientPayloadError(f"an answer of more than {core.ANSWER_LIMIT_BYTES} bytes")
    return bytes(body)


class AsyncSession:
    """A key that stays fresh, renewed by a task of its own. Use as `async with kme.session(…) as s:`."""

    def __init__(
        self,
        kme: AsyncKme,
        peer: str,
        *,
        rekey_s: float,
        announce: Callable[[UUID], Awaitable[object] | object],
        size_bits: int | None,
    ) -> None:
        self._kme = kme
        self._peer = peer
        self._announce = announce
        self._size_bits = size_bits
        self._freshness = Freshness(rekey_s)
        self._callbacks: list[Callable[[Key], Awaitable[object] | object]] = []
        self._task: asyncio.Task[None] | None = None

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

    def on_rekey(self, callback: Callable[[Key], Awaitable[object] | object]) -> None:
        """`callback` gets each further key."""
        self._callbacks.append(callback)

    async def rekey(self) -> Key:
        """Changes the key now."""
        key = await self._kme.get_key(self._peer, size=self._size_bits)
        try:
            await _finished(self._announce(key.id))
        except BaseException:
            key.wipe()
            raise
        self._freshness.change(key)
        return key

    async def __aenter__(self) -> Self:
        await self.rekey()
        self._task = asyncio.create_task(self._run(), name=f"keyhop-session-{self._peer}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._freshness.wipe()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._freshness.next_s())
            try:
                key = await self.rekey()
                for callback in self._callbacks:
                    await _finished(callback(key))
            except Exception as error:
                # Whatever announce or a callback raised: the session goes on with the key it has.
                self._freshness.failed(error)


async def _finished(result: Awaitable[object] | object) -> None:
    if isawaitable(result):
        await result
