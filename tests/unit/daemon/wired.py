"""Two nodes at real drivers, joined by calls instead of sockets, each with a counter where applications ask."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Frame
from keyhop.core.model import AppId, NodeId, RequestError
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.events import BlockArrived, FrameArrived, PeerConnected, PeerLost, SecretLoaded
from keyhop.core.node.node import Node
from keyhop.core.node.recovery import FIRST_CONTACT, FIRST_CONTACT_BYTES
from keyhop.core.node.vault import BlockName
from keyhop.core.policy_rules import Policy
from keyhop.daemon.audit import AuditLog
from keyhop.daemon.driver import Driver
from keyhop.daemon.exchange import MlKem
from keyhop.daemon.routes import Later
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.supply.counter import Counter
from keyhop.daemon.supply.etsi014 import Keys
from keyhop.daemon.vault import NodeVault

LINK = bytes(range(16))
BLOCK_BYTES = 64 * 1024
WAIT_NS = 1_000_000_000
EPSILON, VENDOR = 1e-10, "acme"
"""Of every block."""

SECRET = os.urandom(FIRST_CONTACT_BYTES)
APPLICATIONS = {
    "alice": (
        Application(id=AppId("sae-a"), peers=frozenset({AppId("sae-b"), AppId("sae-a2"), AppId("sae-nowhere")})),
        Application(id=AppId("sae-a2"), peers=frozenset(), self_association=True),
        Application(id=AppId("sae-poor"), peers=frozenset({AppId("sae-b")}), rate_bps=256, burst_bits=1024),
    ),
    "bob": (
        Application(id=AppId("sae-b"), peers=frozenset({AppId("sae-a")})),
        Application(id=AppId("sae-b2"), peers=frozenset()),
    ),
}


class End:
    """One of the two."""

    def __init__(self, name: str, other: str, audit: AuditLog | None, policy: Policy | None = None) -> None:
        self.name, self.other = name, other
        self.to: End
        self.audit = audit
        self.store = MemoryStore()
        snapshot = self.store.load()
        self.vault = NodeVault(self.store, os.urandom(32))
        settings = NodeSettings(
            node=NodeId(name),
            neighbours=(Neighbour(node=NodeId(other), link=LINK, segment_bytes=4096),),
            applications=APPLICATIONS[name],
            directory={app.id: NodeId(other) for app in APPLICATIONS[other]},
            request_wait_ns=WAIT_NS,
            policy=policy,
        )
        self.kem = MlKem()
        self.node = Node(settings, DESIGNS["keyhop"], self.vault, os.urandom, snapshot, start=1, now=0, kem=self.kem)
        self.driver = Driver(self.node, self.vault, self.store, send=self._send, close=self._close, kem=self.kem)
        if audit is not None:
            self.driver.on_committed.append(self._take_audit)
        self.counter = Counter(self.driver, audit, kme_ids={name: f"kme-{name}"})
        self.connected = 0
        self._held: list[FrameArrived] | None = None

    def hold(self) -> None:
        """What this end says from now on stays on the way."""
        self._held = []

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def release(self) -> None:
        held, self._held = self._held or [], None
        for event in held:
            self.to.driver.feed(event)

    def _take_audit(self) -> None:
        assert self.audit is not None
        self.audit.take(self.store.outbox())
        if not self.audit.failure:
            self.audit.flush()

    def _send(self, peer: str, connection: int, frame: Frame) -> None:
        event = FrameArrived(self.name, connection, frame)
        if connection == self.connected and self._held is None:
            self.to.driver.feed(event)
        elif connection == self.connected and self._held is not None:
            self._held.append(event)

    def _close(self, peer: str, connection: int, reason: str) -> None:
        if connection == self.connected:
            self.connected = self.to.connected = 0
            self.to.driver.feed(PeerLost(self.name, connection))

    def load_secret(self) -> None:
        self.vault.accept(BlockName(NodeId(self.other), FIRST_CONTACT, 0), bytearray(SECRET))
        self.driver.feed(SecretLoaded(self.other, LINK, FIRST_CONTACT_BYTES))

    @property
    def pair(self) -> Any:
        return self.node.context.pairs[self.other]

    async def enc(self, caller: str, slave: str, number: int = 1, size_bits: int | None = None) -> Keys:
        keys = self.counter.enc_keys(caller, slave, number, size_bits, None)
        return await outcome(keys) if isinstance(keys, Later) else keys

    @property
    def more_than_leased(self) -> tuple[int, int]:
        """(number, size in bits) of a request that has to wait for another lease."""
        return self.pair.stock.left // 1024 + 1, 8192

    async def dec(self, caller: str, master: str, *key_ids: str) -> Keys:
        return await outcome(self.counter.dec_keys(caller, master, list(key_ids)))

    async def stop(self) -> None:
        self.counter.close()
        await self.driver.stop()


async def outcome(later: Later) -> Keys:
    """What is given later; raises it if it is a refusal."""
    if later.outcome is None:
        given = asyncio.Event()
        later.listen(lambda _: given.set())
        await given.wait()
    if isinstance(later.outcome, RequestError):
        raise later.outcome
    return cast("Keys", later.outcome)


class Wired:
    def __init__(self, alice_audit: AuditLog | None, bob_audit: AuditLog | None, policy: Policy | None = None) -> None:
        self.alice, self.bob = End("alice", "bob", alice_audit, policy), End("bob", "alice", bob_audit, policy)
        self.alice.to, self.bob.to = self.bob, self.alice
        self.connections = 0
        self.blocks = 0

    def connect(self) -> None:
        self.connections += 1
        for end in (self.alice, self.bob):
            end.connected = self.connections
            end.driver.feed(PeerConnected(end.other, self.connections))

    def cut(self) -> None:
        for end in (self.alice, self.bob):
            end.driver.feed(PeerLost(end.other, end.connected))
            end.connected = 0

    def block(self) -> None:
        """The same fresh key at both ends."""
        bits = os.urandom(BLOCK_BYTES)
        for end in (self.alice, self.bob):
            end.vault.accept(BlockName(NodeId(end.other), "module", self.blocks), bytearray(bits))
            end.driver.feed(BlockArrived(end.other, "module", self.blocks, BLOCK_BYTES, EPSILON, VENDOR))
        self.blocks += 1

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 (what is waited for has no event)
                await asyncio.sleep(0.001)


def wired(
    work: Callable[[Wired], Coroutine[Any, Any, None]],
    audit: Path | None = None,
    *,
    blocks: int = 1,
    sync: bool = False,
    policy: Policy | None = None,
) -> None:
    """Runs `work` on two nodes whose link is open and holds key; with `audit`, each writes a log there."""

    async def main() -> None:
        logs = [AuditLog(audit / f"{name}.jsonl", sync=sync) if audit else None for name in ("alice", "bob")]
        net = Wired(*logs, policy)
        try:
            for end in (net.alice, net.bob):
                end.load_secret()
                await end.driver.settled()
            net.connect()
            for _ in range(blocks):
                net.block()
            await net.until(lambda: net.alice.pair.is_open and net.bob.pair.is_open)
            if blocks:
                await net.until(lambda: net.alice.pair.own_key.untouched and net.bob.pair.own_key.untouched)
                # Each end leases a little as soon as it has key.
                await net.until(lambda: net.alice.pair.stock.left and net.bob.pair.stock.left)
            await work(net)
        finally:
            await net.alice.stop()
            await net.bob.stop()

    asyncio.run(main())
