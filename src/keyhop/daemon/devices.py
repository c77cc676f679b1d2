"""The QKD modules of a node: started, listened to, and started again when their driver fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from keyhop.core.model import NodeId
from keyhop.core.node.events import BlockArrived, BlockRepeated, ModuleReported
from keyhop.core.node.vault import BlockName
from keyhop.daemon.configuration import LinkEntry, link_id
from keyhop.daemon.driver import Driver
from keyhop.daemon.modules import Block, ModuleDriver, Report

MakeModule = Callable[[Any, str, int], ModuleDriver]
"""From the driver's settings, the node's name and the last block number taken to a driver."""

RESTART_S = (1.0, 60.0)
"""First and longest wait before a driver that failed is started again."""
STEADY_S = 60.0
"""A driver that ran so long did not fail for the reason of last time."""

BEST_FIRST = ("up", "suspended", "down")

_log = structlog.get_logger("keyhop.module")


@dataclass
class Module:
    """One QKD module as this node sees it."""

    link: str
    entry: LinkEntry
    report: Report | None = None
    blocks: int = 0
    bytes: int = 0
    failures: int = 0


class DeviceError(Exception):
    """A driver refuses its settings."""


class Devices:
    """A module that fails takes nothing along: the node goes on with the key it has."""

    def __init__(
        self,
        node: str,
        entries: Sequence[LinkEntry],
        drivers: Mapping[str, MakeModule],
        driver: Driver,
        *,
        restart_s: tuple[float, float] = RESTART_S,
    ) -> None:
        self._restart_s = restart_s
        self._node = node
        self._drivers = drivers
        self._driver = driver
        self.modules = {link_id(node, entry): Module(link_id(node, entry), entry) for entry in entries}
        self.on_report: list[Callable[[Module], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Raises DeviceError for a driver that cannot be made: that is the node file's fault, not the module's."""
        made = []
        for module in self.modules.values():
            try:
                made.append((module, self._make(module)))
            except (OSError, ValueError) as error:
                raise DeviceError(f"links: {module.link} (driver {module.entry.driver}): {error}") from None
        for module, first in made:
            self._tasks.append(asyncio.create_task(self._keep(module, first), name=f"module {module.link}"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make(self, module: Module) -> ModuleDriver:
        marks = self._driver.node.context.intake_marks
        highest, _ = marks.get((module.entry.to, module.link), (-1, 0))
        return self._drivers[module.entry.driver](module.entry.settings, self._node, highest)

    async def _keep(self, module: Module, running: ModuleDriver | None) -> None:
        """Runs a driver as long as the node lives."""
        wait_s = self._restart_s[0]
        while True:
            began_s = time.monotonic()
            try:
                running = running or self._make(module)
                await running.run(lambda block: self._deliver(module, block), lambda said: self._report(module, said))
                reason = "its driver ended"
            except AssertionError as error:
                # Our own bug, met while a block was handed over: the process ends and starts again from its store.
                self._driver.fail(error)
                return
            except Exception as error:
                reason = f"its driver failed: {error or type(error).__name__}"
            if time.monotonic() - began_s >= STEADY_S:
                wait_s = self._restart_s[0]
            module.failures += 1
            running = None
            _log.error("module_failed", link=module.link, reason=reason, again_s=wait_s)
            self._report(module, Report("down", None, 0.0, 0.0, reason))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._restart_s[1])

    def _deliver(self, module: Module, block: Block) -> None:
        peer, length, vendor = module.entry.to, len(block.bits), module.entry.vendor or ""
        name = BlockName(NodeId(peer), module.link, block.number)
        vault = self._driver.vault
        if self._driver.stopped or vault.length(name) is not None:
            block.bits[:] = bytes(length)
            _log.warning("block_dropped", link=module.link, block=block.number, reason="delivered twice")
            if not self._driver.stopped:
                self._driver.feed(BlockRepeated(peer, module.link, block.number))
            return
        if not vault.accept(name, block.bits):
            _log.warning("block_dropped", link=module.link, block=block.number, reason="too much key waits")
            return
        module.blocks += 1
        module.bytes += length
        self._driver.feed(BlockArrived(peer, module.link, block.number, length, block.epsilon, vendor))

    def _report(self, module: Module, said: Report) -> None:
        module.report = said
        peer = module.entry.to
        together = _together([one.report for one in self.modules.values() if one.entry.to == peer and one.report])
        period_ns = int(together.block_period_s * 1e9)
        self._driver.feed(
            ModuleReported(peer, module.link, together.state, int(together.skr_bps), together.reason, period_ns)
        )
        for call in self.on_report:
            call(module)


def _together(reports: Sequence[Report]) -> Report:
    """Several fibres to one neighbour are one link to the core: as well as the best of them, as fast as all."""
    best = min(reports, key=lambda report: BEST_FIRST.index(report.state) if report.state in BEST_FIRST else 9)
    rate_bps = sum(report.skr_bps for report in reports if report.state == "up")
    return Report(best.state, best.qber_ratio, rate_bps or best.skr_bps, best.block_period_s, best.reason)
