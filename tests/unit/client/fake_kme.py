"""A key manager of the tests' own: real TLS and HTTP by the standard library, answers by script."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from keyhop import AsyncKme, Kme
from keyhop.daemon import pki
from keyhop.daemon.pki import Role

Script = Callable[["Handler"], None]


def answer(status: int, body: Any, **headers: str) -> Script:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def send(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return send


def hang_up(handler: Handler) -> None:
    """The request was read; no answer comes."""
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, body))
        self.server.ports.append(self.client_address[1])
        script = self.server.scripts.pop(0) if self.server.scripts else hang_up
        script(self)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = context
        self.scripts: list[Script] = []
        self.seen: list[tuple[str, str, bytes]] = []
        self.ports: list[int] = []
        """Of the client, one entry for each request: the same port is the same connection."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            with self.context.wrap_socket(request, server_side=True) as secured:
                Handler(secured, client_address, self)
        except OSError:
            pass

    @property
    def address(self) -> str:
        return f"https://localhost:{self.server_address[1]}"


@dataclass
class Fake:
    server: Server
    files: dict[str, Any] = field(default_factory=dict)

    def play(self, *scripts: Script) -> None:
        self.server.scripts = list(scripts)

    @property
    def seen(self) -> list[tuple[str, str, bytes]]:
        return self.server.seen

    @property
    def connections(self) -> int:
        return len(set(self.server.ports))


def client_files(directory: Path, name: str = "sae-a", role: Role = Role.SAE) -> dict[str, Any]:
    issued = pki.leaf(directory, role, name)
    return {"cert": issued.certificate, "key": issued.key, "ca": pki.authority_certificate(directory, Role.KME)}


Shell = Callable[..., list[Any]]
"""Runs calls on one client after the other; the same test serves the blocking and the asyncio one."""


def blocking(
    address: str, files: dict[str, Any], *calls: Callable[[Any], Any], timeout: float = 5.0, pause: float = 0.0
) -> list[Any]:
    answers = []
    with Kme(address, **files, timeout=timeout) as kme:
        for call in calls:
            answers.append(call(kme))
            time.sleep(pause)
    return answers


def asynchronous(
    address: str, files: dict[str, Any], *calls: Callable[[Any], Any], timeout: float = 5.0, pause: float = 0.0
) -> list[Any]:
    async def run() -> list[Any]:
        answers = []
        async with AsyncKme(address, **files, timeout=timeout) as kme:
            for call in calls:
                answers.append(await call(kme))
                await asyncio.sleep(pause)
        return answers

    return asyncio.run(run())
