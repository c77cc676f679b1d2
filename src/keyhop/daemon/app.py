"""One node as a process: put together from its file, run until told to stop or until something cannot be trusted."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Notice
from keyhop.core.model import AppId, NodeId
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.events import BlockArrived, ModuleReported, SecretLoaded
from keyhop.core.node.node import Node
from keyhop.core.node.recovery import FIRST_CONTACT
from keyhop.core.node.rows import ROW_TYPES, NodeRow, PairRow
from keyhop.core.node.store import Store, StoreError
from keyhop.core.node.vault import BlockName
from keyhop.daemon import linkkey
from keyhop.daemon.audit import AuditError, AuditLog
from keyhop.daemon.configuration import LinkEntry, NodeFile, link_id
from keyhop.daemon.driver import Driver
from keyhop.daemon.http import HttpServer
from keyhop.daemon.identity import Identities, IdentityError, IdentitySource
from keyhop.daemon.listener import Patience
from keyhop.daemon.modules import Block, ModuleDriver, Report
from keyhop.daemon.peers import PeerFiles, Peers
from keyhop.daemon.store.anchor import Anchor, open_anchor
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.store.sealing import NodeKey, read_node_key
from keyhop.daemon.store.sqlite import SqliteStore
from keyhop.daemon.supply.counter import Counter
from keyhop.daemon.supply.etsi014 import Door
from keyhop.daemon.tls import TlsFiles, server_context
from keyhop.daemon.vault import NodeVault

MakeModule = Callable[[Any, str, int], ModuleDriver]
"""From the driver's settings, the node's name and the last block number taken to a driver."""

DRAIN_S = 5.0
NANOSECONDS = 1_000_000_000

_log = structlog.get_logger("keyhop.node")


class StartError(Exception):
    """The node cannot start; the text says what is wrong and what to do."""


@dataclass
class Module:
    """One QKD module as this node sees it."""

    link: str
    entry: LinkEntry
    report: Report | None = None
    reported_at: float = 0.0
    blocks: int = 0
    bytes: int = 0


class PinnedIdentities(Identities):
    """As Identities, and an application whose certificates are written down is let in with those alone."""

    pins: dict[str, frozenset[str]]

    def of(self, certificate: Any) -> str:
        from cryptography.hazmat.primitives import hashes

        identity = super().of(certificate)
        pinned = self.pins.get(identity)
        if pinned and certificate.fingerprint(hashes.SHA256()).hex() not in pinned:
            raise IdentityError(f"the certificate of {identity} is not one of those written down for it")
        return identity


class NodeProcess:
    """Everything one node holds. `run` starts it, waits and stops it; parts are public for the node API to read."""

    def __init__(self, file: NodeFile, directory: Path, drivers: Mapping[str, MakeModule]) -> None:
        self.file = file
        self.directory = directory
        self.started_at = time.time()
        self.started_ns = time.monotonic_ns()
        self._drivers = drivers
        self.modules: dict[str, Module] = {}
        self.on_report: list[Callable[[Module], None]] = []
        self.audit: AuditLog | None = None
        self.ready = False
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self.store: Store
        self.vault: NodeVault
        self.node: Node
        self.driver: Driver
        self.peers: Peers
        self.counter: Counter
        self.door: Door
        self.server: HttpServer
        self.address: tuple[str, int] = ("", 0)
        self.peer_address: tuple[str, int] = ("", 0)

    def path(self, path: Path) -> Path:
        return path if path.is_absolute() else self.directory / path

    def source(self, source: Any) -> Path:
        found = source.path()
        if found is None:
            raise StartError(f"{source}: a secret of this size is read from a file; write {{file: PATH}}")
        return self.path(found)

    # --- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises StartError, StoreError, AuditError or OSError; nothing listens before everything is there."""
        file = self.file
        if file.design not in DESIGNS:
            raise StartError(f"design {file.design!r}: must be one of {', '.join(sorted(DESIGNS))}")
        node_key = read_node_key(self.source(file.store.node_key))
        self.store = self._open_store(node_key)
        snapshot = self.store.load()
        stored_start = max((row.start for row in snapshot.rows if isinstance(row, NodeRow)), default=0)
        anchor = open_anchor(self.path(file.anchor.file), node_key, file.node.id, stored_start)
        if file.audit:
            if len(file.audit) > 1:
                raise StartError("audit: one file is supported; remove the others")
            entry = file.audit[0]
            self.audit = AuditLog(self.path(entry.file), sync=entry.sync, rotate_bytes=entry.max_size_bytes)
        self.vault = NodeVault(self.store, anchor.vouch_key)
        self.vault.recall_secrets(snapshot.secrets)
        known_links = {row.peer: row.link for row in snapshot.rows if isinstance(row, PairRow)}
        secrets = self._first_contacts(known_links)
        numbers = {**{peer: key.number for peer, key in secrets.items()}, **known_links}
        self.node = Node(
            self._settings(numbers),
            DESIGNS[file.design],
            self.vault,
            os.urandom,
            snapshot,
            start=anchor.start_number,
            now=time.monotonic_ns(),
            restored=anchor.reason if anchor.restored else "",
        )
        listen = file.listen.peer
        self.peers = Peers(
            file.node.id,
            frozenset(numbers),
            {peer: (address.host, address.port) for peer, address in file.peers.items()},
            PeerFiles(self.path(listen.cert), self.source(listen.key), self.path(listen.client_ca)),
        )
        self.driver = Driver(self.node, self.vault, self.store, send=self.peers.send, close=self.peers.close)
        self.driver.on_notice.append(self._noticed)
        self.driver.on_committed.append(self._take_audit)
        self.peers.feed = self.driver.feed
        self.peers.failures = lambda peer: self.node.context.pairs[peer].failures
        await self._until_started(anchor)
        for peer, key in secrets.items():
            await self._load_secret(peer, key)
        self.counter = Counter(self.driver, self.audit, kme_ids={file.node.id: file.node.kme_id})
        self.door = Door(self.counter)
        supply = file.listen.etsi014
        context = server_context(TlsFiles(self.path(supply.cert), self.source(supply.key), self.path(supply.client_ca)))
        self.server = HttpServer(
            self.door.prepare,
            context,
            self._identities(),
            patience=Patience(),
            connections_limit=file.limits.connections,
            report=lambda event, fields: _log.info(event, **fields),
        )
        self.peer_address = await self.peers.listen(listen.address.host, listen.address.port)
        self.address = await self.server.start(supply.address.host, supply.address.port)
        self.peers.dial_all()
        self._start_modules()
        if self.audit is not None:
            self._tasks.append(asyncio.create_task(self.audit.keep_synced(self.store.written)))
        self.ready = True
        _log.info(
            "node_started", node=file.node.id, start=anchor.start_number, etsi014=f"{self.address[0]}:{self.address[1]}"
        )

    def _open_store(self, node_key: NodeKey) -> Store:
        entry = self.file.store
        if entry.path is None:
            return MemoryStore()
        directory = self.path(entry.path)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return SqliteStore(directory / "node.db", node_key, self.file.node.id, ROW_TYPES)

    def _first_contacts(self, known: Mapping[str, bytes]) -> dict[str, linkkey.LinkKey]:
        """Secrets of links that this store does not know yet."""
        found: dict[str, linkkey.LinkKey] = {}
        for link in self.file.links:
            if link.to in known or link.to in found:
                continue
            if link.first_contact is None:
                if not any(other.to == link.to and other.first_contact for other in self.file.links):
                    raise StartError(
                        f"link to {link.to}: the store does not know it and no first_contact file is given; "
                        f"make one with `keyhop link key {self.file.node.id} {link.to}` and give it to both nodes"
                    )
                continue
            try:
                key = linkkey.read(self.source(link.first_contact))
            except linkkey.LinkKeyError as error:
                raise StartError(str(error)) from None
            if {key.lower, key.higher} != {self.file.node.id, link.to}:
                raise StartError(f"link to {link.to}: the first_contact file is for {key.lower} and {key.higher}")
            found[link.to] = key
        return found

    def _settings(self, numbers: Mapping[str, bytes]) -> NodeSettings:
        file, storage = self.file, DESIGNS[self.file.design].storage
        rates: dict[str, int] = {}
        for link in file.links:
            rates[link.to] = rates.get(link.to, 0) + int(getattr(link.settings, "rate_bps", 0) or 0)
        limits = file.limits
        return NodeSettings(
            node=NodeId(file.node.id),
            neighbours=tuple(
                Neighbour(
                    node=NodeId(peer),
                    link=number,
                    segment_bytes=storage.segment_bytes(rates.get(peer, 0)),
                    rate_bps=rates.get(peer, 0),
                )
                for peer, number in numbers.items()
                if any(link.to == peer for link in file.links)
            ),
            applications=tuple(
                Application(
                    id=AppId(entry.id),
                    peers=frozenset(AppId(peer) for peer in entry.peers),
                    rate_bps=int(entry.quota.rate_bps or 1 << 40),
                    burst_bits=entry.quota.burst_bits if entry.quota.rate_bps else 1 << 40,
                    requests_per_s=int(entry.quota.requests_per_s or 1 << 30),
                    burst_requests=entry.quota.requests_burst if entry.quota.requests_per_s else 1 << 30,
                    self_association=entry.self_association,
                )
                for entry in file.applications
            ),
            directory={AppId(app): NodeId(node) for app, node in file.directory.items()},
            fetch_lifetime_ns=int(file.lifetimes.fetch_s * NANOSECONDS),
            block_lifetime_ns=int(file.lifetimes.block_s * NANOSECONDS),
            stock_limit_bytes=limits.stock_bytes,
            default_key_bits=limits.key_size_bits,
            min_key_bits=limits.min_key_size_bits,
            max_key_bits=limits.max_key_size_bits,
            keys_per_request=limits.keys_per_request,
        )

    def _identities(self) -> Identities:
        source = IdentitySource(self.file.listen.etsi014.identity.value)
        prints = {
            str(print_hex): entry.id for entry in self.file.applications for print_hex in entry.certificate_fingerprint
        }
        if source is IdentitySource.FINGERPRINT:
            return Identities(source=source, fingerprints=prints)
        identities = PinnedIdentities(source=source)
        pins: dict[str, frozenset[str]] = {}
        for print_hex, application in prints.items():
            pins[application] = pins.get(application, frozenset()) | {print_hex}
        object.__setattr__(identities, "pins", pins)
        return identities

    async def _until_started(self, anchor: Anchor) -> None:
        """The start number is durable in the store, then in the anchor, before a neighbour may see it."""
        await self._until_committed(self.driver.commits == 0)
        anchor.confirm()

    async def _until_committed(self, wanted: bool = True) -> None:
        """Waits for the next commit; raises what made the driver fail."""
        committed = asyncio.Event()
        self.driver.on_committed.append(committed.set)
        try:
            waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(committed.wait()), self.driver.failed}
            if wanted:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self.driver.failed.done():
                raise self.driver.failed.result()
        finally:
            self.driver.on_committed.remove(committed.set)

    async def _load_secret(self, peer: str, key: linkkey.LinkKey) -> None:
        """Takes the secret into the runs, durably; then the file is overwritten."""
        entry = next(link for link in self.file.links if link.to == peer and link.first_contact is not None)
        self.vault.accept(BlockName(NodeId(peer), FIRST_CONTACT, 0), bytearray(key.secret))
        length = len(key.secret)
        key.wipe()
        self.driver.feed(SecretLoaded(peer, key.number, length))
        await self._until_committed()
        linkkey.consume(self.source(entry.first_contact))

    def _start_modules(self) -> None:
        for entry in self.file.links:
            module = Module(link_id(self.file.node.id, entry), entry)
            self.modules[module.link] = module
            highest, _ = self.node.context.intake_marks.get((entry.to, module.link), (-1, 0))
            driver = self._drivers[entry.driver](entry.settings, self.file.node.id, highest)
            self._tasks.append(asyncio.create_task(self._run_module(module, driver), name=f"module {module.link}"))

    async def _run_module(self, module: Module, driver: ModuleDriver) -> None:
        peer = module.entry.to

        def deliver(block: Block) -> None:
            length = len(block.bits)
            name = BlockName(NodeId(peer), module.link, block.number)
            if self.vault.length(name) is not None or not self.vault.accept(name, block.bits):
                _log.warning("block_dropped", link=module.link, block=block.number)
                return
            module.blocks += 1
            module.bytes += length
            self.driver.feed(BlockArrived(peer, module.link, block.number, length, block.epsilon))

        def report(said: Report) -> None:
            module.report, module.reported_at = said, time.monotonic()
            self.driver.feed(ModuleReported(peer, module.link, said.state, int(said.skr_bps), said.reason))
            for call in self.on_report:
                call(module)

        try:
            await driver.run(deliver, report)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A module that fails takes no key along: the node goes on with what it has.
            _log.error("module_failed", link=module.link, reason=str(error))
            report(Report("down", None, 0.0, 0.0, f"its driver failed: {error}"))

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _take_audit(self) -> None:
        if self.audit is None:
            return
        self.audit.take(self.store.outbox())
        try:
            self.audit.flush()
        except AuditError as error:
            _log.error("audit_failed", reason=str(error))

    def _noticed(self, notice: Notice) -> None:
        level = _log.info if notice.code in ("KH-1200", "KH-1205") else _log.warning
        level("notice", code=notice.code, text=notice.text, peer=notice.peer or None)

    def stop(self) -> None:
        self._stop.set()

    async def wait(self) -> BaseException | None:
        """Until `stop`, or until the node cannot be trusted any more; gives why."""
        waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._stop.wait()), self.driver.failed}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return self.driver.failed.result() if self.driver.failed.done() else None

    async def close(self) -> None:
        self.ready = False
        if hasattr(self, "server"):
            await self.server.drain(DRAIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "peers"):
            await self.peers.stop()
        if hasattr(self, "driver"):
            await self.driver.stop()
        if self.audit is not None:
            try:
                self.audit.close()
            except AuditError as error:
                _log.error("audit_failed", reason=str(error))
        if hasattr(self, "vault"):
            self.vault.close()
        if hasattr(self, "store"):
            self.store.close()


def harden() -> None:
    """No core dump: it would hold keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        pr_set_dumpable = 4
        libc.prctl(pr_set_dumpable, 0, 0, 0, 0)
    except OSError:
        _log.warning("core_dumps_not_disabled")


async def serve(
    file: NodeFile,
    directory: Path,
    drivers: Mapping[str, MakeModule],
    around: Callable[[NodeProcess], Any] | None = None,
) -> int:
    """Runs a node until SIGTERM or SIGINT: 0. `around` makes an async context beside it (the node API)."""
    process = NodeProcess(file, directory, drivers)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    try:
        await process.start()
        if around is not None:
            async with around(process):
                error = await process.wait()
        else:
            error = await process.wait()
        if error is not None:
            _log.critical("node_failed", reason=f"{type(error).__name__}: {error}")
            return 1
        return 0
    finally:
        await process.close()


__all__ = ["NodeProcess", "StartError", "StoreError", "harden", "serve"]
