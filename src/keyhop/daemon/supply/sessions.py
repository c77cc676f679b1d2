"""The local socket: sessions and keys for programs of this machine, one JSON object a line.

Doors that have no network interface yet (sessions at a rate, buffers, SKIP) draw on the node through it. Who may open
the socket may act as any application of this node: its file is for one user alone.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from keyhop.core.model import Refusal, RequestError
from keyhop.core.node.events import SessionAsked
from keyhop.core.node.hosted_messages import CATEGORIES, RATE_LIMIT_BPS, SIZE_LIMIT_BITS
from keyhop.daemon.driver import Driver
from keyhop.daemon.routes import Later
from keyhop.daemon.supply.counter import Counter
from keyhop.daemon.supply.etsi014 import Labelled
from keyhop.daemon.supply.tallies import LOCAL

LINE_BYTES = 4096
WAIT_S = 10.0


class Session(msgspec.Struct, forbid_unknown_fields=True, tag_field="do", tag="session"):
    """Registers, changes or ends what a master will ask for."""

    verb: Literal["open", "retune", "close"]
    master: str
    slave: str
    rate_bps: Annotated[int, Meta(ge=0, le=RATE_LIMIT_BPS)] = 1000
    size_bits: Annotated[int, Meta(ge=1, le=SIZE_LIMIT_BITS)] = 256
    service_class: Literal["guaranteed", "prioritised", "best_effort"] = "best_effort"
    category: Annotated[int, Meta(ge=1, le=CATEGORIES)] = 3


class Key(msgspec.Struct, forbid_unknown_fields=True, tag_field="do", tag="key"):
    """A new key for a master."""

    master: str
    slave: str
    size_bits: int | None = None


class Fetch(msgspec.Struct, forbid_unknown_fields=True, tag_field="do", tag="fetch"):
    """The same key for its slave."""

    slave: str
    master: str
    key_id: str


class Status(msgspec.Struct, forbid_unknown_fields=True, tag_field="do", tag="status"):
    master: str
    slave: str


Wanted: TypeAlias = Session | Key | Fetch | Status

_decode = msgspec.json.Decoder(Wanted).decode
_encode = msgspec.json.Encoder().encode


class LocalDoor:
    def __init__(self, path: Path, driver: Driver, counter: Counter) -> None:
        self._path = path
        self._driver = driver
        self._counter = counter.at_door(LOCAL)
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._answers: dict[type, Callable[[Any], Awaitable[dict[str, Any]]]] = {
            Session: self._session,
            Key: self._key,
            Fetch: self._fetch,
            Status: self._status,
        }

    async def start(self) -> None:
        """Raises OSError. A socket file that an earlier process left is replaced."""
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._talk, self._path, limit=LINE_BYTES)
        finally:
            os.umask(before)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        self._counter.close()
        self._path.unlink(missing_ok=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            while line := await reader.readline():
                writer.write(_encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError, asyncio.CancelledError):
            # A line that never ends, a client that is gone, or the end of this node.
            pass
        finally:
            self._talks.discard(task)
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            wanted = _decode(line)
        except msgspec.MsgspecError as error:
            return {"ok": False, "reason": Refusal.BAD_REQUEST, "message": f"no request of this door: {error}"}
        try:
            return {"ok": True, **await self._answers[type(wanted)](wanted)}
        except RequestError as error:
            return {"ok": False, "reason": error.reason, "message": error.message}

    async def _session(self, wanted: Session) -> dict[str, Any]:
        later = Later()
        self._driver.ask(
            lambda request: SessionAsked(
                request,
                wanted.verb,
                wanted.master,
                wanted.slave,
                wanted.rate_bps,
                wanted.size_bits,
                wanted.service_class,
                wanted.category,
            ),
            lambda deliver, bits: later.give(deliver.refusal or True),
        )
        await _outcome(later)
        return {}

    async def _key(self, wanted: Key) -> dict[str, Any]:
        ((key_id, key),) = await _outcome(
            self._counter.enc_keys(wanted.master, wanted.slave, 1, wanted.size_bits, None)
        )
        return {"key_id": key_id, "key": base64.b64encode(key).decode()}

    async def _fetch(self, wanted: Fetch) -> dict[str, Any]:
        ((key_id, key),) = await _outcome(self._counter.dec_keys(wanted.slave, wanted.master, [wanted.key_id]))
        return {"key_id": key_id, "key": base64.b64encode(key).decode()}

    async def _status(self, wanted: Status) -> dict[str, Any]:
        status = self._counter.status(wanted.master, wanted.slave)
        return {"stored_keys": status.stored_key_count, "key_size_bits": status.key_size}


async def _outcome(given: Any) -> Any:
    """What a supplier gives at once or later; raises RequestError."""
    if isinstance(given, Later) and given.outcome is None:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        given.listen(lambda outcome: None if future.done() else future.set_result(outcome))
        try:
            given = await asyncio.wait_for(future, WAIT_S)
        except TimeoutError:
            raise RequestError(Refusal.UNAVAILABLE, "no answer in time") from None
    elif isinstance(given, Later):
        given = given.outcome
    if isinstance(given, RequestError):
        raise given
    return given.keys if isinstance(given, Labelled) else given
