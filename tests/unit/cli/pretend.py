"""A node API that answers from a dict, and a supplier that answers from memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from click.testing import Result

from keyhop.core.model import Refusal, RequestError
from keyhop.daemon.routes import Later
from keyhop.wire import manage
from keyhop.wire.etsi014 import KEYS_NOT_FOUND, KeyRequest, Status

Run = Callable[..., Result]


class Node(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _NodeHandler)
        self.answers: dict[str, manage.Answer | tuple[int, bytes]] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _NodeHandler(BaseHTTPRequestHandler):
    server: Node

    def do_GET(self) -> None:
        found = self.server.answers.get(self.path)
        if found is None:
            status, body = 404, manage.encode(manage.Problem(message=f"nothing at {self.path}"))
        elif isinstance(found, tuple):
            status, body = found
        else:
            status, body = 200, manage.encode(found)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Supplier:
    """Both key managers at once: what one application got, the other fetches once."""

    def __init__(self) -> None:
        self.stock = 100
        self.waiting: dict[str, tuple[str, str, bytes]] = {}
        self.delivered: list[bytes] = []
        self.damage = False

    def enc_keys(
        self, caller: str, slave: str, number: int, size_bits: int | None, request: KeyRequest | None
    ) -> Sequence[tuple[str, bytes]]:
        if slave.startswith("nobody"):
            raise RequestError(Refusal.BAD_REQUEST, f"unknown SAE {slave}")
        if number > self.stock:
            raise RequestError(Refusal.NOT_ENOUGH_KEY, f"{self.stock} keys left", retry_after_s=2.0)
        self.stock -= number
        keys = [(str(uuid4()), os.urandom((size_bits or 256) // 8)) for _ in range(number)]
        for key_id, bits in keys:
            self.waiting[key_id] = caller, slave, bits
            self.delivered.append(bits)
        return keys

    def dec_keys(self, caller: str, master: str, key_ids: list[str]) -> Later:
        later = Later()
        entries = [self.waiting.get(key_id) for key_id in key_ids]
        if any(entry is None or entry[0] != master for entry in entries):
            later.give(RequestError(Refusal.NOT_FOUND, KEYS_NOT_FOUND))
        elif any(entry is not None and entry[1] != caller for entry in entries):
            later.give(RequestError(Refusal.NOT_AUTHORISED, "not for you"))
        else:
            bits = [self.waiting.pop(key_id)[2] for key_id in key_ids]
            later.give(
                [(key_id, bytes(len(one)) if self.damage else one) for key_id, one in zip(key_ids, bits, strict=True)]
            )
        return later

    def status(self, caller: str, slave: str) -> Status:
        return Status(
            source_KME_ID="STP",
            target_KME_ID="FRM",
            master_SAE_ID=caller,
            slave_SAE_ID=slave,
            key_size=256,
            stored_key_count=self.stock,
            max_key_count=1000,
            max_key_per_request=128,
            max_key_size=8192,
            min_key_size=64,
            max_SAE_ID_count=0,
        )


class KeyManager:
    def __init__(self, supplier: Supplier, address: str) -> None:
        self.supplier = supplier
        self.address = address
