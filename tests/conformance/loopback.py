"""A 014 server on loopback with certificates of its own, a supplier in memory, and clients that can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import socket
import ssl
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyhop.core.model import Refusal, RequestError
from keyhop.daemon.http import HttpServer
from keyhop.daemon.identity import Identities
from keyhop.daemon.listener import Patience
from keyhop.daemon.routes import Later
from keyhop.daemon.supply.etsi014 import Door
from keyhop.daemon.tls import TlsFiles, TlsLibrary, server_context
from keyhop.wire.etsi014 import KEYS_NOT_FOUND, MANDATORY_UNMET, KeyRequest, Status

CLIENT_TIMEOUT_S = 10.0
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    certificate: Path
    key: Path


class Authority:
    """A small certificate authority."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._count = 0
        own = self._build(self._name, self._key.public_key(), [], None, None, DAY)
        self.file = folder / "authority.crt"
        self.file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _build(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        san: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier | None,
        started: datetime.timedelta | None,
        life: datetime.timedelta,
        issuer: x509.Name | None = None,
    ) -> x509.CertificateBuilder:
        start = datetime.datetime.now(datetime.UTC) - (started or datetime.timedelta(minutes=5))
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + life)
            .add_extension(x509.BasicConstraints(ca=subject == self._name, path_length=None), critical=True)
        )
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder

    def issue(
        self,
        common_names: str | Sequence[str] = "nobody",
        *,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
        started: datetime.timedelta | None = None,
        life: datetime.timedelta = DAY,
        self_signed: bool = False,
    ) -> Issued:
        names = [common_names] if isinstance(common_names, str) else common_names
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
        san = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        builder = self._build(subject, key.public_key(), san, usage, started, life, subject if self_signed else None)
        self._count += 1
        stem = self.folder / f"{self._count}"
        issued = Issued(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        signed = builder.sign(key if self_signed else self._key, hashes.SHA256())
        issued.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        issued.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return issued

    def sae(self, sae_id: str, **more: Any) -> Issued:
        return self.issue(sae_id, uris=[f"urn:keyhop:sae:{sae_id}"], **more)

    def server(self) -> Issued:
        return self.issue("kme-east", dns=["localhost"], usage=ExtendedKeyUsageOID.SERVER_AUTH)


class MemorySupplier:
    """Keys in a dict, with the rules of the standard: each once, to the slave it was made for, all or nothing."""

    def __init__(self, stock: int = 1_000_000) -> None:
        self.stock = stock
        self.saes = {"alice", "bob", "carol", "hsm/7 ä"}
        self.issued: dict[str, tuple[str, str, bytes]] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.hold: list[Callable[[], None]] | None = None
        """While a list, answers of dec_keys wait in it."""
        self.async_enc = False
        self.refusal: Exception | None = None

    def _check(self, caller: str, other: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        if other not in self.saes:
            raise RequestError(Refusal.BAD_REQUEST, f"{other!r} is not known to this KME")
        if {caller, other} == {"bob", "carol"}:
            raise RequestError(Refusal.NOT_AUTHORISED, f"{caller!r} may not share keys with {other!r}")

    def enc_keys(self, caller: str, slave: str, number: int, size_bits: int | None, request: KeyRequest | None) -> Any:
        self.asked.append((caller, slave, number, size_bits, request))
        self._check(caller, slave)
        if request is not None and request.additional_slave_SAE_IDs:
            raise RequestError(Refusal.BAD_REQUEST, "additional_slave_SAE_IDs: at most 0 are accepted")
        for element in (request and request.extension_mandatory) or ():
            if element.get("keyhop_max_hops", 1) < 1:
                raise RequestError(Refusal.UNSUPPORTED, MANDATORY_UNMET)
        if number > 128:
            raise RequestError(Refusal.BAD_REQUEST, f"number = {number}: at most 128")
        if number > self.stock:
            raise RequestError(Refusal.NOT_ENOUGH_KEY, "not enough key in store", retry_after_s=1.5)
        self.stock -= number
        keys = [(str(uuid.uuid4()), os.urandom((size_bits or 256) // 8)) for _ in range(number)]
        self.issued.update({key_id: (caller, slave, key) for key_id, key in keys})
        if self.async_enc:
            later = Later()
            asyncio.get_running_loop().call_later(0.005, later.give, keys)
            return later
        return keys

    def dec_keys(self, caller: str, master: str, key_ids: list[str]) -> Later:
        self.asked.append((caller, master, key_ids))
        later = Later()

        def answer() -> None:
            try:
                self._check(caller, master)
                found = [self.issued.get(key_id) for key_id in key_ids]
                if any(entry is not None and entry[1] != caller for entry in found):
                    raise RequestError(Refusal.NOT_AUTHORISED, "not a slave of every key asked for")
                if any(entry is None or entry[0] != master for entry in found):
                    raise RequestError(Refusal.NOT_FOUND, KEYS_NOT_FOUND)
                keys = [(key_id, self.issued.pop(key_id)[2]) for key_id in key_ids]
            except RequestError as error:
                later.give(error)
            else:
                later.give(keys)

        if self.hold is not None:
            self.hold.append(answer)
        else:
            asyncio.get_running_loop().call_soon(answer)
        return later

    def status(self, caller: str, slave: str) -> Status:
        self._check(caller, slave)
        return Status(
            source_KME_ID="kme-east",
            target_KME_ID="kme-west",
            master_SAE_ID=caller,
            slave_SAE_ID=slave,
            key_size=256,
            stored_key_count=self.stock,
            max_key_count=1_000_000,
            max_key_per_request=128,
            max_key_size=8192,
            min_key_size=64,
            max_SAE_ID_count=0,
        )


@dataclass
class Serving:
    """A server in a thread of its own, with a loop of its own."""

    authority: Authority
    library: TlsLibrary = TlsLibrary.PYOPENSSL
    identities: Identities = field(default_factory=Identities)
    patience: Patience = field(default_factory=Patience)
    connections_limit: int = 4096
    supplier: Any = field(default_factory=MemorySupplier)
    extensions: frozenset[str] = frozenset({"keyhop_max_hops"})
    prepare: Any = None
    reports: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    """What reached the loop's exception handler."""
    port: int = 0

    def __enter__(self) -> Serving:
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def _run(self, started: threading.Event) -> None:
        uvloop.run(self._main(started))

    async def _main(self, started: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.failures.append(context))
        self._stop = asyncio.Event()
        server_files = self.authority.server()
        files = TlsFiles(server_files.certificate, server_files.key, self.authority.file)
        self.door = Door(self.supplier, extensions=self.extensions)
        self.server = HttpServer(
            self.prepare or self.door.prepare,
            server_context(files, self.library),
            self.identities,
            patience=self.patience,
            connections_limit=self.connections_limit,
            report=lambda event, fields: self.reports.append((event, fields)),
        )
        self.port = (await self.server.start("127.0.0.1", 0))[1]
        started.set()
        await self._stop.wait()
        await self.server.drain(0.2)

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run something in the server's thread and give its result."""

        async def run() -> Any:
            result = function(*arguments)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def client(self, issued: Issued | None, **options: Any) -> Client:
        return Client(self.port, client_context(self.authority, issued), **options)

    def events(self) -> list[str]:
        return [event for event, _ in self.reports]


def client_context(authority: Authority, issued: Issued | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if issued is not None:
        context.load_cert_chain(issued.certificate, issued.key)
    return context


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A TLS connection that sends any bytes and reads answers."""

    def __init__(self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        raw = socket.create_connection(("127.0.0.1", port), CLIENT_TIMEOUT_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket = context.wrap_socket(raw, server_hostname="localhost", session=session)
        except BaseException:
            raw.close()
            raise
        self._held = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """Go without a goodbye: the server gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        socket.socket(fileno=self.socket.detach()).close()

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the server closed after {self._held!r}")
        self._held += data

    def answer(self, method: str = "GET") -> Answered:
        """The next answer; an interim one (100) has no body."""
        while b"\r\n\r\n" not in self._held:
            self._more()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert first.startswith("HTTP/1.1 ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines)
        length = 0 if method == "HEAD" or first.startswith("HTTP/1.1 1") else int(headers["content-length"])
        while len(self._held) < length:
            self._more()
        body, self._held = self._held[:length], self._held[length:]
        return Answered(int(first.split(" ")[1]), headers, body)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        data, self._held = self._held, b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.socket.recv(65536):
                data += more
        return data

    def request(self, method: str, path: str, body: bytes | dict[str, Any] | None = None, more: str = "") -> Answered:
        self.send(request(method, path, body, more))
        return self.answer(method)


def request(method: str, path: str, body: bytes | dict[str, Any] | None = None, more: str = "") -> bytes:
    payload = json.dumps(body).encode() if isinstance(body, dict) else body
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n{more}"
    if payload is None:
        return f"{head}\r\n".encode()
    if "content-type" not in more.lower():
        head += "Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for what another thread is to bring about."""
    event = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        event.wait(0.005)
    raise AssertionError("it did not happen in time")


def main() -> None:
    """A server for tests that look at it from outside: prints its port and process id, serves until it is ended."""
    folder, library = Path(sys.argv[1]), TlsLibrary(sys.argv[2])
    files = TlsFiles(folder / "server.crt", folder / "server.key", folder / "authority.crt")

    async def serve() -> None:
        server = HttpServer(Door(MemorySupplier()).prepare, server_context(files, library), Identities())
        print((await server.start("127.0.0.1", 0))[1], os.getpid(), flush=True)
        await asyncio.Event().wait()

    uvloop.run(serve())


if __name__ == "__main__":
    main()
