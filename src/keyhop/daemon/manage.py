"""The node API over HTTP: health, metrics, what the node holds, events as they happen; for this machine only.

No login: whoever can connect to loopback may read. A web page must not: requests that a browser was made to send, by a
name that was bent to this address or from another origin, are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from keyhop.core.node.events import RestoreDeclared
from keyhop.daemon.app import NodeProcess, StartError, reason_of
from keyhop.daemon.explaining import explain
from keyhop.daemon.live import Live
from keyhop.daemon.metrics import Exposition
from keyhop.daemon.openapi import description
from keyhop.wire import manage as wire
from keyhop.wire.explain import EXPLAIN_PATH
from keyhop.wire.manage import (
    AlarmsAnswer,
    Answer,
    ApplicationAnswer,
    ApplicationsAnswer,
    DeclareRestored,
    HealthAnswer,
    LinkAnswer,
    LinksAnswer,
    PoolAnswer,
    PoolsAnswer,
    Problem,
    ReadyAnswer,
    RestoredAnswer,
    RoutesAnswer,
)

if TYPE_CHECKING:
    from aiohttp import web

KEEP_ALIVE_S = 10.0
BODY_BYTES_LIMIT = 4096
SIZE_LIMIT_BITS = 1 << 40
"""Of a key that somebody asks about; what a node gives is far less, and it says so."""
SHUTDOWN_S = 1.0
JSON = "application/json"

ThingT = TypeVar("ThingT")
Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


class Refused(Exception):
    """The request gets a Problem as its answer."""

    def __init__(self, status: int, message: str, next: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(message=message, next=next, code=code)


@asynccontextmanager
async def manage(process: NodeProcess) -> AsyncIterator[Live]:
    """Serves the node API of a process as long as the context lasts, also while the node starts and stops."""
    from aiohttp import web

    live = Live(process)
    api = Api(process, live)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await api.guard(request, handler)

    application = web.Application(client_max_size=BODY_BYTES_LIMIT, middlewares=[guard])
    api.add_routes(application)
    # Requests of a dashboard come by the second: no log line for each.
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S, handle_signals=False)
    await runner.setup()
    looking = asyncio.create_task(live.run(), name="live")
    try:
        address = process.file.listen.manage.address
        site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            raise StartError(f"listen.manage: {address}: {reason_of(error)}") from None
        yield live
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        live.close()
        await runner.cleanup()


class Api:
    """One method per path."""

    def __init__(self, process: NodeProcess, live: Live) -> None:
        self._process = process
        self._live = live
        self._view = live.view
        self._exposition = Exposition(process, live)

    def add_routes(self, application: web.Application) -> None:
        add = application.router.add_route
        for path, handler in {
            wire.HEALTH_PATH: self.healthz,
            wire.READY_PATH: self.readyz,
            wire.METRICS_PATH: self.metrics,
            wire.OPENAPI_PATH: self.openapi,
            wire.STATUS_PATH: self._started(self.status),
            wire.LINKS_PATH: self._started(self.links),
            wire.LINKS_PATH + "/{link}": self._started(self.link),
            wire.POOLS_PATH: self._started(self.pools),
            wire.POOLS_PATH + "/{peer}": self._started(self.pool),
            wire.ROUTES_PATH: self._started(self.routes),
            wire.ROUTES_PATH + "/{origin}/{to}": self._started(self.route),
            wire.APPLICATIONS_PATH: self._started(self.applications),
            wire.APPLICATIONS_PATH + "/{application}": self._started(self.application),
            EXPLAIN_PATH + "/{application}/{peer}": self._started(self.explain),
            wire.ALARMS_PATH: self.alarms,
            wire.EVENTS_PATH: self._started(self.events),
        }.items():
            add("GET", path, handler)
        add("POST", wire.RESTORED_PATH, self._started(self.restored))

    # --- who may ask --------------------------------------------------------------------------------------------------

    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every request: refuses what a foreign web page sent, and gives every refusal its body."""
        from aiohttp import web

        try:
            _check_sender(request)
            return await handler(request)
        except Refused as refused:
            return _answer(refused.problem, refused.status)
        except web.HTTPMethodNotAllowed as error:
            legal = ", ".join(sorted(set(error.allowed_methods) - {"HEAD"}))
            problem = Problem(message=f"{request.method} is not allowed on {request.path}: must be {legal}")
            return _answer(problem, 405, {"Allow": legal})
        except web.HTTPNotFound:
            problem = Problem(message=f"no such path: {request.path}", next=f"see: {wire.OPENAPI_PATH}")
            return _answer(problem, 404)
        except web.HTTPRequestEntityTooLarge:
            return _answer(Problem(message=f"the body is longer than {BODY_BYTES_LIMIT} bytes"), 413)

    def _started(self, handler: Handler) -> Handler:
        async def wrapped(request: web.Request) -> web.StreamResponse:
            if not self._process.started:
                raise Refused(503, "the node has not started yet", f"ask again, or see: {wire.READY_PATH}")
            return await handler(request)

        return wrapped

    # --- health and metrics -------------------------------------------------------------------------------------------

    async def healthz(self, request: web.Request) -> web.StreamResponse:
        return _answer(HealthAnswer(node=self._process.file.node.id))

    async def readyz(self, request: web.Request) -> web.StreamResponse:
        reasons = self._view.unready()
        answer = ReadyAnswer(node=self._process.file.node.id, ready=not reasons, reasons=reasons)
        return _answer(answer, 503 if reasons else 200)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        body, content_type = self._exposition.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        return web.Response(body=description(), content_type=JSON)

    # --- what the node holds ------------------------------------------------------------------------------------------

    async def status(self, request: web.Request) -> web.StreamResponse:
        return _answer(self._view.status())

    async def links(self, request: web.Request) -> web.StreamResponse:
        return _answer(LinksAnswer(links=self._view.links()))

    async def link(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["link"]
        module = _found(self._process.modules.get(name), "link", name, self._process.modules)
        return _answer(LinkAnswer(link=self._view.link(module)))

    async def pools(self, request: web.Request) -> web.StreamResponse:
        return _answer(PoolsAnswer(pools=self._view.pools()))

    async def pool(self, request: web.Request) -> web.StreamResponse:
        peer = request.match_info["peer"]
        known = [pool.peer for pool in self._view.pools()]
        found = _found(self._view.pools_with(peer) or None, "pool with", peer, known)
        return _answer(PoolAnswer(pools=found))

    async def routes(self, request: web.Request) -> web.StreamResponse:
        return _answer(RoutesAnswer(routes=self._view.routes()))

    async def route(self, request: web.Request) -> web.StreamResponse:
        ends = []
        for name in (request.match_info["origin"], request.match_info["to"]):
            nodes = sorted(self._view.known_nodes())
            ends.append(_found(self._view.locate(name), "node or application", name, nodes))
        return _answer(self._view.paths().between(ends[0], ends[1]))

    async def applications(self, request: web.Request) -> web.StreamResponse:
        return _answer(ApplicationsAnswer(applications=self._view.applications()))

    async def application(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["application"]
        served = [entry.id for entry in self._process.file.applications]
        return _answer(ApplicationAnswer(application=_found(self._view.application(name), "application", name, served)))

    async def explain(self, request: web.Request) -> web.StreamResponse:
        """What would become of a request of one of our applications. Takes nothing."""
        process, name = self._process, request.match_info["application"]
        if process.node.supply.hosted is not None:
            what = f"node {process.file.node.id} runs design {process.file.design}, which shares key by its own parts"
            raise Refused(409, f"{what}: no policy decides there", f"see: keyhop design show {process.file.design}")
        served = [entry.id for entry in process.file.applications]
        _found(name if name in served else None, "application", name, served)
        size = request.query.get("size")
        if size is not None and not (size.isascii() and size.isdigit() and 0 < int(size) <= SIZE_LIMIT_BITS):
            raise Refused(400, f"size = {size[:32]}: must be a number of bits, 1 to {SIZE_LIMIT_BITS}")
        try:
            extensions = msgspec.json.decode(request.query.get("extensions", "{}"), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise Refused(400, f"extensions must be a JSON object: {error}") from None
        peer, bits = request.match_info["peer"], None if size is None else int(size)
        return _answer(explain(process.node, self._view, name, peer, bits, extensions))

    async def alarms(self, request: web.Request) -> web.StreamResponse:
        return _answer(AlarmsAnswer(alarms=self._process.alarms.all()))

    # --- events -------------------------------------------------------------------------------------------------------

    async def events(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        reader = self._live.subscribe()
        if reader is None:
            raise Refused(503, "too many readers watch this node", "close one of them")
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            await response.prepare(request)
            await response.write(wire.KEEP_ALIVE)
            number = 0
            while not reader.ended:
                lines = []
                for event in await reader.next(KEEP_ALIVE_S):
                    number += 1
                    lines.append(wire.encode_event(event, number))
                await response.write(b"".join(lines) or wire.KEEP_ALIVE)
            return response
        except ConnectionError:
            return response
        finally:
            self._live.unsubscribe(reader)

    # --- what changes the node ----------------------------------------------------------------------------------------

    async def restored(self, request: web.Request) -> web.StreamResponse:
        """This store is an old copy of itself: burns what is open, begins a new epoch, opens every link anew."""
        if request.content_type != JSON:
            # A form of a foreign page cannot send this type without asking first.
            raise Refused(415, f"Content-Type must be {JSON}")
        try:
            said = msgspec.json.decode(await request.read(), type=DeclareRestored)
        except msgspec.DecodeError as error:
            raise Refused(400, f'the body must be {{"node": NAME}}: {error}') from None
        own = self._process.file.node.id
        if said.node != own:
            raise Refused(400, f"this is node {own}, not {said.node}", "ask that node's own manage address")
        self._process.driver.feed(RestoreDeclared())
        await self._process.driver.settled()
        return _answer(RestoredAnswer(node=own, epoch=self._process.node.context.epoch))


def _answer(answer: Answer, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    from aiohttp import web

    more = {"Cache-Control": "no-store", **(headers or {})}
    return web.Response(body=wire.encode(answer), status=status, content_type=JSON, headers=more)


def _found(thing: ThingT | None, what: str, name: str, known: object) -> ThingT:
    if thing is None:
        names = ", ".join(dict.fromkeys(map(str, known))) if known else ""  # type: ignore[call-overload]
        raise Refused(404, f"no {what} {name}", f"known are: {names or 'none'}")
    return thing


def _check_sender(request: web.Request) -> None:
    """Raises Refused unless the request was made for a loopback name, and not by a page of another origin."""
    host = request.headers.get("Host", "")
    if not is_loopback(host):
        raise Refused(403, f"Host {host!r}: must be localhost, 127.0.0.1 or [::1]")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        raise Refused(403, f"Origin {origin!r}: must be http://{host} or absent")


def is_loopback(host: str) -> bool:
    """Whether the value of a Host header names this machine: a name bent to 127.0.0.1 by DNS does not."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
