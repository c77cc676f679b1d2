"""One node as a process: put together from its file, run until told to stop or until something cannot be trusted."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509
from OpenSSL import SSL

from keyhop.core import constraints
from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Notice
from keyhop.core.model import NodeId
from keyhop.core.node.events import AuditHead, SecretLoaded
from keyhop.core.node.node import Node
from keyhop.core.node.recovery import FIRST_CONTACT
from keyhop.core.node.rows import ROW_TYPES, NodeRow
from keyhop.core.node.store import Store, StoreError
from keyhop.core.node.vault import BlockName
from keyhop.core.policy_rules import Policy
from keyhop.daemon import linkkey
from keyhop.daemon.alarm_codes import CODES
from keyhop.daemon.alarms import Alarms
from keyhop.daemon.assembly import StartError, first_contacts, links_in_store, node_settings
from keyhop.daemon.audit import AuditError, AuditLog
from keyhop.daemon.configuration import NodeFile, PeerListener, SupplyListener, link_id
from keyhop.daemon.devices import DeviceError, Devices, MakeModule, Module
from keyhop.daemon.driver import Driver
from keyhop.daemon.exchange import MlKem, is_supported
from keyhop.daemon.http import HttpServer
from keyhop.daemon.linkkey import LinkKey, LinkKeyError
from keyhop.daemon.listener import Patience
from keyhop.daemon.peers import PeerFiles, Peers
from keyhop.daemon.policies import needs_exchange, node_policy
from keyhop.daemon.registered import RegisteredIdentities, identities
from keyhop.daemon.signing import NodeIdentity, SigningError
from keyhop.daemon.store.anchor import Anchor, open_anchor
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.store.sealing import NodeKey, read_node_key
from keyhop.daemon.store.sqlite import SqliteStore
from keyhop.daemon.supply.counter import Counter
from keyhop.daemon.supply.etsi014 import Door
from keyhop.daemon.supply.sessions import LocalDoor
from keyhop.daemon.tls import TlsContext, TlsFiles, server_context
from keyhop.daemon.vault import NodeVault
from keyhop.files import FileError

DRAIN_S = 3.0
"""For requests under way when the node is told to stop; the rest of stopping takes well under a second."""
PR_SET_DUMPABLE = 4

Around = Callable[["NodeProcess"], AbstractAsyncContextManager[Any]]

_log = structlog.get_logger("keyhop.node")


class NodeProcess:
    """Everything one node holds. Parts are public for the node API to read; those without a value come with `start`."""

    def __init__(self, file: NodeFile, directory: Path, drivers: Mapping[str, MakeModule]) -> None:
        self.file = file
        self.directory = directory
        self.started_at = time.time()
        self.started_ns = time.monotonic_ns()
        self.started = False
        """Everything below is there."""
        self.ready = False
        """Applications are served."""
        names: dict[str, list[str]] = {}
        for link in file.links:
            names.setdefault(link.to, []).append(link_id(file.node.id, link))
        self.links_to = {peer: ",".join(links) for peer, links in names.items()}
        """Neighbour -> the names of its links."""
        self.alarms = Alarms(file.node.id, self.links_to)
        self.identities: RegisteredIdentities = identities(file.listen.etsi014.identity, file.applications)
        self.certificates: dict[str, tuple[datetime, datetime]] = {}
        """Listener -> since when and until when its certificate is good."""
        self.on_report: list[Callable[[Module], None]] = []
        self.audit: AuditLog | None = None
        self.policy: Policy | None = None
        self.kem = MlKem() if is_supported() else None
        self.address: tuple[str, int] = ("", 0)
        self.peer_address: tuple[str, int] = ("", 0)
        self.store: Store
        self.vault: NodeVault
        self.node: Node
        self.driver: Driver
        self.peers: Peers
        self.devices: Devices
        self.counter: Counter
        self.door: Door
        self.server: HttpServer
        self._drivers = drivers
        self._open = AsyncExitStack()
        """What was opened, in order: closed the other way round, also after a start that broke off."""
        self._stop = asyncio.Event()

    def __repr__(self) -> str:
        return f"NodeProcess({self.file.node.id!r}, ready={self.ready})"

    @property
    def modules(self) -> Mapping[str, Module]:
        return self.devices.modules

    def path(self, path: Path) -> Path:
        return path if path.is_absolute() else self.directory / path

    def source(self, source: Any) -> Path:
        found = source.path()
        if found is None:
            raise StartError(f"{source}: a secret of this size is read from a file; write {{file: PATH}}")
        return self.path(found)

    # --- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises StartError, StoreError or AuditError; nobody can connect before everything is there.

        What was opened until then is closed by `close`.
        """
        file = self.file
        if len(file.audit) > 1:
            raise StartError("audit: one file is supported; remove the others")
        # What an operator can get wrong comes first: a start number is spent on a start that can succeed.
        supply_context = self._supply_context(file.listen.etsi014)
        self.policy = self._load_policy()
        self.peers = self._make_peers(file.listen.peer)
        node_key = read_node_key(self.source(file.store.node_key))
        self.store = self._open_store(node_key)
        self._open.callback(self.store.close)
        anchor, secrets = self._make_node(node_key)
        self._open.callback(self.vault.close)
        self._open_audit()
        self.driver = Driver(
            self.node, self.vault, self.store, send=self.peers.send, close=self.peers.close, kem=self.kem
        )
        if self.kem is not None:
            self._open.callback(self.kem.close)
        self._open.push_async_callback(self.driver.stop)
        self.driver.on_notice.append(self._noticed)
        self.driver.on_committed.append(self._take_audit)
        self.driver.on_committed.append(lambda: anchor.follow(self.driver.durable_start))
        # The start number is durable in the store, then in the anchor, before a neighbour may see it.
        await self.driver.settled()
        anchor.confirm()
        for peer, key in secrets.items():
            await self._load_secret(peer, key)
        self.peers.feed = self.driver.feed
        self.peers.backlog = lambda: self.driver.backlog
        self.peers.failures = lambda peer: self.node.context.pairs[peer].failures
        self.devices = Devices(file.node.id, file.links, self._drivers, self.driver)
        self.devices.on_report = self.on_report
        self.counter = Counter(self.driver, self.audit, kme_ids={file.node.id: file.node.kme_id})
        self.counter.on_refused.append(self._refused)
        self._open.callback(self.counter.close)
        own = file.design == "keyhop"
        self.door = Door(self.counter, extensions=frozenset(constraints.NAMES) if own else frozenset())
        self.server = HttpServer(
            self.door.prepare,
            supply_context,
            self.identities,
            patience=Patience(),
            connections_limit=file.limits.connections,
            report=lambda event, fields: _log.info(event, **fields),
        )
        await self._begin()
        self.started = self.ready = True
        # What is here now stays as long as the process: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        where = f"{self.address[0]}:{self.address[1]}"
        _log.info("node_started", node=file.node.id, start=anchor.start_number, etsi014=where)

    async def _begin(self) -> None:
        """Opens the doors."""
        listen = self.file.listen
        self._open.push_async_callback(self.peers.stop)
        with _naming(f"listen.peer: {listen.peer.address}"):
            self.peer_address = await self.peers.listen(listen.peer.address.host, listen.peer.address.port)
        self._open.push_async_callback(self.devices.stop)
        try:
            self.devices.start()
        except DeviceError as error:
            raise StartError(str(error)) from None
        if self.audit is not None:
            syncing = asyncio.create_task(self.audit.keep_synced(self._synced), name="audit")
            self._open.push_async_callback(_cancelled, syncing)
        self._open.push_async_callback(self._drain)
        with _naming(f"listen.etsi014: {listen.etsi014.address}"):
            self.address = await self.server.start(listen.etsi014.address.host, listen.etsi014.address.port)
        if listen.local is not None:
            local = LocalDoor(self.path(listen.local.socket), self.driver, self.counter)
            self._open.push_async_callback(local.stop)
            with _naming(f"listen.local: {listen.local.socket}"):
                await local.start()
        self.peers.dial_all()

    def _open_store(self, node_key: NodeKey) -> Store:
        entry = self.file.store
        if entry.path is None:
            return MemoryStore()
        directory = self.path(entry.path)
        if not directory.exists():
            self._check_beginning(directory)
        with _naming(f"store.path: {directory}"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return SqliteStore(directory / "node.db", node_key, self.file.node.id, ROW_TYPES)

    def _check_beginning(self, directory: Path) -> None:
        """Before a store is made: where one was lost, a new and empty one must not take its place unasked."""
        try:
            for key in first_contacts(self.file, {}, self.source).values():
                key.wipe()
        except StartError as error:
            raise StartError(f"there is no store in {directory}, and a new one cannot be begun: {error}") from None

    def _make_node(self, node_key: NodeKey) -> tuple[Anchor, dict[str, LinkKey]]:
        """The core as it comes back from the store, and the first-contact secrets it has yet to be given."""
        file = self.file
        snapshot = self.store.load()
        known = links_in_store(snapshot)
        secrets = first_contacts(file, known, self.source)
        links = {**known, **{peer: key.number for peer, key in secrets.items()}}
        stored_start = max((row.start for row in snapshot.rows if isinstance(row, NodeRow)), default=0)
        anchor = open_anchor(self.path(file.anchor.file), node_key, file.node.id, stored_start)
        self.vault = NodeVault(self.store, anchor.vouch_key, identity=self._identity)
        self.vault.recall_secrets(snapshot.secrets)
        self.node = Node(
            node_settings(file, links, self.policy),
            DESIGNS[file.design],
            self.vault,
            os.urandom,
            snapshot,
            start=anchor.start_number,
            now=(now := time.monotonic_ns()),
            restored=anchor.reason if anchor.restored else "",
            wall_ahead_ns=time.time_ns() - now,
            kem=self.kem,
        )
        return anchor, secrets

    def _load_policy(self) -> Policy | None:
        if self.file.policy is None:
            return None
        path = self.path(self.file.policy)
        try:
            policy = node_policy(self.file, path)
            if self.kem is None and needs_exchange(policy):
                raise StartError("policy: hybrid and combine need ML-KEM, which this OpenSSL does not have")
            return policy
        except FileError as error:
            raise StartError(f"policy: {error}") from None

    def _open_audit(self) -> None:
        for entry in self.file.audit:
            self.audit = AuditLog(self.path(entry.file), sync=entry.sync, rotate_bytes=entry.max_size_bytes)
            self._open.callback(self._close_audit, self.audit)

    def _supply_context(self, listen: SupplyListener) -> TlsContext:
        files = TlsFiles(self.path(listen.cert), self.source(listen.key), self.path(listen.client_ca))
        with _naming("listen.etsi014"):
            self._check_files("etsi014", files.certificate, files.key, files.client_authority)
            return server_context(files)

    def _make_peers(self, listen: PeerListener) -> Peers:
        file = self.file
        files = PeerFiles(self.path(listen.cert), self.source(listen.key), self.path(listen.client_ca))
        for peer in self.links_to:
            if file.node.id < peer and peer not in file.peers:
                raise StartError(
                    f"peers: no address of {peer}; of two neighbours the one with the lower name calls, and that is "
                    f"{file.node.id}: write {peer}: HOST:PORT"
                )
        addresses = {peer: (address.host, address.port) for peer, address in file.peers.items()}
        with _naming("listen.peer"):
            self._check_files("peer", files.certificate, files.key, files.authority)
            peers = Peers(file.node.id, frozenset(self.links_to), addresses, files)
        try:
            self._identity = NodeIdentity.read(files.certificate, files.key, files.authority, peers.identities)
        except SigningError as error:
            raise StartError(f"listen.peer: {error}") from None
        if doubt := self._identity.doubt(file.node.id, b"", *self._identity.sign(b"")):
            _log.warning("link_state_will_be_doubted", certificate=str(files.certificate), reason=doubt)
        return peers

    def _check_files(self, name: str, certificate: Path, key: Path, authority: Path) -> None:
        """Reads each once, because the TLS libraries do not say which file they could not open."""
        for path in (key, authority):
            with path.open("rb"):
                pass
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        self.certificates[name] = (leaf.not_valid_before_utc, leaf.not_valid_after_utc)

    async def _load_secret(self, peer: str, key: LinkKey) -> None:
        """Takes the secret into the runs, durably; then the file is overwritten."""
        pair = self.node.context.pairs[peer]
        if any(run.append for run in pair.runs.values()):
            # They met by relay before: their runs go on, the file gives the new link its number alone.
            key.wipe()
            return
        entry = next(link for link in self.file.links if link.to == peer and link.first_contact is not None)
        length = len(key.secret)
        self.vault.accept(BlockName(NodeId(peer), FIRST_CONTACT, 0), bytearray(key.secret))
        key.wipe()
        self.driver.feed(SecretLoaded(peer, key.number, length))
        await self.driver.settled()
        try:
            linkkey.consume(self.source(entry.first_contact))
        except LinkKeyError as error:
            # Credentials of a service manager are read-only: it destroys them itself.
            _log.warning("first_contact_not_overwritten", reason=str(error))

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _take_audit(self) -> None:
        if self.audit is None:
            return
        self.audit.take(self.store.outbox())
        if self.audit.failure:
            return
        try:
            self.audit.flush()
        except AuditError as error:
            _log.error("audit_failed", reason=str(error))

    def _synced(self, number: int) -> None:
        """The audit log is on the disk up to this commit: the store may let go, and neighbours are told the head."""
        assert self.audit is not None
        if self.driver.stopped:
            return
        self.store.written(number)
        head = bytes.fromhex(self.audit.head[1])
        if head != self.node.context.audit_head:
            self.driver.feed(AuditHead(head))

    def _noticed(self, notice: Notice) -> None:
        self.alarms.noticed(notice)
        level = _log.info if CODES[notice.code].is_news else _log.warning
        level("notice", code=notice.code, text=notice.text, peer=notice.peer or None)

    def _refused(self, role: str, caller: str, peer: str, error: Any) -> None:
        if error.reason == "not_enough_key":
            self.alarms.say("KH-2101", error.message, caller)

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> BaseException | None:
        """Starts, and runs until `stop` (None) or until the node cannot be trusted any more (why). Then `close`.

        Raises what `start` raises.
        """
        starting = asyncio.create_task(self.start(), name="start")
        if await self._until_stopped(starting):
            return None
        starting.result()
        await self._until_stopped(self.driver.failed)
        return self.driver.failed.result() if self.driver.failed.done() else None

    async def _until_stopped(self, other: asyncio.Future[Any]) -> bool:
        """True if `stop` came first; a task that was still at work is ended."""
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait({stopping, other}, return_when=asyncio.FIRST_COMPLETED)
        first = not other.done()
        await _cancelled(stopping)
        if first and isinstance(other, asyncio.Task):
            await _cancelled(other)
        return first

    async def close(self) -> None:
        self.ready = False
        await self._open.aclose()

    async def _drain(self) -> None:
        await self.server.drain(0.0 if self.driver.failed.done() else DRAIN_S)

    def _close_audit(self, audit: AuditLog) -> None:
        try:
            audit.close()
        except AuditError as error:
            _log.error("audit_failed", reason=str(error))

    def loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What nobody caught. Our own bugs and a store that failed end the process: it starts again from its store."""
        error = context.get("exception")
        _log.error("loop_error", message=context.get("message"), reason=f"{type(error).__name__}: {error}")
        if isinstance(error, AssertionError | StoreError) and hasattr(self, "driver"):
            self.driver.fail(error)


def harden() -> None:
    """No core dump: it would hold keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        import ctypes

        refused = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        refused = -1
    if refused:
        _log.warning("process_stays_dumpable")


async def serve(
    nodes: Sequence[tuple[NodeFile, Path]], drivers: Mapping[str, MakeModule], around: Around | None = None
) -> int:
    """Runs a node, or several, until SIGTERM or SIGINT: 0; or until one fails: 1. Raises what `NodeProcess.start` does.

    Each comes with the directory that its file's paths start from. `around` makes an async context for as long as a
    node lasts (the node API).
    """
    processes = [NodeProcess(file, directory, drivers) for file, directory in nodes]

    def stop() -> None:
        for process in processes:
            process.stop()

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Whose callback it was is not told: none can be trusted any more.
        for process in processes:
            process.loop_failed(loop, context)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(failed)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    running = [asyncio.create_task(_serve(process, around), name="node") for process in processes]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    stop()
    await asyncio.wait(running)
    return max(task.result() for task in running)


async def _serve(process: NodeProcess, around: Around | None) -> int:
    async with around(process) if around is not None else nullcontext():
        try:
            error = await process.run()
        finally:
            await process.close()
    if error is not None:
        _log.critical("node_failed", reason=f"{type(error).__name__}: {error}", where=places_of(error))
        return 1
    _log.info("node_stopped", node=process.file.node.id)
    return 0


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Says what of the node file it was that did not work."""
    try:
        yield
    except SSL.Error as error:
        reasons = [str(part[-1]) for part in (error.args[0] if error.args else ()) if part]
        raise StartError(
            f"{what}: certificate and key cannot be used: {', '.join(reasons) or 'no reason given'}"
        ) from None
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        raise StartError(f"{what}: {path}{reason_of(error)}") from None
    except ValueError as error:
        raise StartError(f"{what}: {error}") from None


def places_of(error: BaseException) -> list[str]:
    """Where it was raised, innermost last: files and lines of the program, which hold nothing of what it worked on."""
    return [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-8:]]


def reason_of(error: OSError) -> str:
    """In the system's words: the event loop's own text of a failed bind repeats the address."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror or str(error)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


__all__ = ["NodeProcess", "StartError", "StoreError", "harden", "reason_of", "serve"]
