"""Modules of a node: what they deliver is taken or overwritten, and one that fails takes nothing along."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from keyhop.core.designs import DESIGNS
from keyhop.core.model import IllegalMove, NodeId
from keyhop.core.node.context import Neighbour, NodeSettings
from keyhop.core.node.node import Node
from keyhop.daemon.configuration import LinkEntry
from keyhop.daemon.devices import DeviceError, Devices, Module
from keyhop.daemon.driver import Driver
from keyhop.daemon.modules import Block, Report
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.vault import NodeVault

UP = Report("up", 0.02, 1000.0, 1.0)
Script = Callable[[Callable[[Block], None], Callable[[Report], None]], Coroutine[Any, Any, None]]


class Scripted:
    """A module that does what a test writes down."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def run(self, deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        await self._script(deliver, report)


class Bench:
    def __init__(self, scripts: dict[str, list[Script]]) -> None:
        """For each link to bob, what its driver does at each of its starts."""
        store = MemoryStore()
        snapshot = store.load()
        self.vault = NodeVault(store, bytes(32))
        settings = NodeSettings(
            node=NodeId("alice"), neighbours=(Neighbour(node=NodeId("bob"), link=bytes(range(16))),)
        )
        self.node = Node(settings, DESIGNS["keyhop"], self.vault, os.urandom, snapshot, start=1, now=0)
        self.driver = Driver(self.node, self.vault, store, send=lambda *_: None, close=lambda *_: None)
        self.started: list[tuple[str, int]] = []

        def make(settings: Any, node: str, after: int) -> Scripted:
            self.started.append((settings, after))
            return Scripted(scripts[settings].pop(0))

        entries = [LinkEntry(to="bob", driver="scripted", id=name, settings=name) for name in scripts]
        self.devices = Devices("alice", entries, {"scripted": make}, self.driver, restart_s=(0.01, 0.02))
        self.reports: list[tuple[str, Report]] = []
        self.devices.on_report.append(self._reported)

    def _reported(self, module: Module) -> None:
        assert module.report is not None
        self.reports.append((module.link, module.report))

    @property
    def suspended(self) -> str:
        return self.node.context.pairs["bob"].suspended


def bench(scripts: dict[str, list[Script]], work: Callable[[Bench], Coroutine[Any, Any, None]]) -> Bench:
    async def main() -> Bench:
        made = Bench(scripts)
        made.devices.start()
        try:
            await asyncio.wait_for(work(made), 5)
        finally:
            await made.devices.stop()
            await made.driver.stop()
        return made

    return asyncio.run(main())


async def rest(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
    report(UP)
    await asyncio.Event().wait()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 (what is waited for has no event)
        await asyncio.sleep(0.001)


def test_what_a_module_delivers_reaches_the_core_and_is_counted() -> None:
    async def script(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        deliver(Block("west", 0, bytearray(b"k" * 4096)))
        await rest(deliver, report)

    async def work(made: Bench) -> None:
        await until(lambda: made.reports)
        await made.driver.settled()
        assert ("west", 0) in made.node.intake.waiting["bob"]

    found = bench({"west": [script]}, work).devices.modules["west"]
    assert (found.blocks, found.bytes) == (1, 4096)


def test_a_block_delivered_twice_is_overwritten_the_second_time() -> None:
    again = bytearray(b"k" * 4096)

    async def script(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        deliver(Block("west", 0, bytearray(b"k" * 4096)))
        deliver(Block("west", 0, again))
        await rest(deliver, report)

    async def work(made: Bench) -> None:
        await until(lambda: made.reports)

    found = bench({"west": [script]}, work).devices.modules["west"]
    assert found.blocks == 1
    assert again == bytes(4096)


def test_bits_that_come_after_the_driver_stopped_are_overwritten() -> None:
    late = bytearray(b"k" * 4096)

    async def script(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        report(UP)
        await asyncio.sleep(0.02)
        deliver(Block("west", 0, late))
        await asyncio.Event().wait()

    async def work(made: Bench) -> None:
        await made.driver.stop()
        await until(lambda: late == bytes(4096))

    assert bench({"west": [script]}, work).devices.modules["west"].blocks == 0


def test_a_driver_that_fails_is_reported_down_and_started_again() -> None:
    async def failing(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        report(UP)
        raise OSError("the box does not answer")

    async def ending(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        return

    async def work(made: Bench) -> None:
        await until(lambda: len(made.started) == 3 and made.reports[-1][1] is UP)
        await made.driver.settled()
        assert made.suspended == ""
        assert not made.driver.failed.done()

    made = bench({"west": [failing, ending, rest]}, work)
    reasons = [said.reason for _, said in made.reports if said.state == "down"]
    assert reasons == ["its driver failed: the box does not answer", "its driver ended"]
    assert made.devices.modules["west"].failures == 2


def test_a_driver_that_is_started_again_is_told_the_last_block_the_core_took() -> None:
    async def failing(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        raise OSError("gone")

    async def work(made: Bench) -> None:
        made.node.context.intake_marks["bob", "west"] = (41, 1)
        await until(lambda: len(made.started) == 2)

    assert bench({"west": [failing, rest]}, work).started == [("west", -1), ("west", 41)]


def test_our_own_bug_ends_the_process_and_is_no_failure_of_the_module() -> None:
    async def script(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        raise IllegalMove("a range that was wiped is stored again")

    async def work(made: Bench) -> None:
        assert isinstance(await made.driver.failed, IllegalMove)

    assert bench({"west": [script]}, work).devices.modules["west"].failures == 0


def test_a_driver_that_refuses_its_settings_names_the_link() -> None:
    async def main() -> None:
        made = Bench({"west": []})

        def refuse(settings: Any, node: str, after: int) -> Scripted:
            raise ValueError("directory: there is no such link")

        devices = Devices(
            "alice", [LinkEntry(to="bob", driver="scripted", id="west")], {"scripted": refuse}, made.driver
        )
        with pytest.raises(DeviceError, match=r"links: west \(driver scripted\): directory: there is no such link"):
            devices.start()
        await made.driver.stop()

    asyncio.run(main())


def test_two_fibres_to_one_neighbour_are_as_well_as_the_better_one_and_as_fast_as_both() -> None:
    async def dark(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        report(Report("down", None, 0.0, 1.0, "no light"))
        await asyncio.Event().wait()

    async def bright(deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        report(UP)
        await asyncio.sleep(0.02)
        report(Report("suspended", 0.2, 0.0, 1.0, "QBER 20.0 % above 11.0 %"))
        await asyncio.Event().wait()

    async def work(made: Bench) -> None:
        await until(lambda: len(made.reports) == 2)
        await made.driver.settled()
        assert made.suspended == "" and made.node.context.pairs["bob"].rate_bps == 1000
        await until(lambda: len(made.reports) == 3)
        await made.driver.settled()
        assert made.suspended == "QBER 20.0 % above 11.0 %"

    bench({"west": [dark], "second": [bright]}, work)


def test_fibres_that_are_both_up_give_their_rates_together() -> None:
    async def work(made: Bench) -> None:
        await until(lambda: len(made.reports) == 2)
        await made.driver.settled()
        assert made.node.context.pairs["bob"].rate_bps == 2000

    bench({"west": [rest], "second": [rest]}, work)
