"""The driver: what shares a commit, what comes after it, and how it ends."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any

import pytest

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Deliver, Save
from keyhop.core.model import AppId, NodeId, Range, Refusal
from keyhop.core.node.context import Application, NodeSettings
from keyhop.core.node.events import KeysWanted, RestoreDeclared
from keyhop.core.node.node import Node
from keyhop.core.node.store import Prepared, StoreError
from keyhop.crypto.onetime import Bits
from keyhop.daemon.driver import GATHER_NS, QUICK_COMMIT_NS, SLOW_COMMIT_NS, Driver
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.vault import NodeVault

SETTINGS = NodeSettings(
    node=NodeId("alice"),
    applications=(
        Application(id=AppId("one"), peers=frozenset({AppId("two")})),
        Application(id=AppId("two"), peers=frozenset()),
    ),
)


class WatchedStore(MemoryStore):
    """Tells what was begun; a commit waits for `gate` and raises `error` if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.done = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.refuses = False
        self.brief = False
        self.threads: list[int] = []
        self.while_committing: Callable[[], None] = lambda: None

    def prepare(self, saves: Sequence[Save], bits: Callable[[Range], Bits]) -> Prepared:
        if self.refuses:
            raise StoreError("the store is closed")
        self.begun += 1
        commit = super().prepare(saves, bits).commit

        def work() -> None:
            self.threads.append(threading.get_ident())
            assert self.gate.wait(10)
            self.while_committing()
            if self.error is not None:
                raise self.error
            commit()
            self.done += 1

        return Prepared(work, brief=self.brief)


class Driven:
    def __init__(self, clock: Callable[[], int]) -> None:
        self.store = WatchedStore()
        snapshot = self.store.load()
        vault = NodeVault(self.store, bytes(32))
        node = Node(SETTINGS, DESIGNS["keyhop"], vault, os.urandom, snapshot, start=1, now=0)
        self.driver = Driver(node, vault, self.store, send=lambda *_: None, close=lambda *_: None, clock=clock)
        self.answers: list[Deliver] = []

    def ask(self) -> None:
        """A request that has to be committed: local keys have a record each."""
        self.driver.ask(
            lambda request: KeysWanted(request, "one", "two", 1, 256),
            lambda deliver, _bits: self.answers.append(deliver),
        )


async def passes(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def run(work: Callable[[Driven], Coroutine[Any, Any, None]], clock: Callable[[], int] = lambda: 0) -> None:
    async def main() -> None:
        driven = Driven(clock)
        await driven.driver.settled()
        await work(driven)
        driven.store.gate.set()
        await driven.driver.stop()

    asyncio.run(main())


def test_requests_that_arrive_pass_by_pass_share_one_commit() -> None:
    async def work(driven: Driven) -> None:
        begun = driven.store.begun
        for _ in range(20):
            driven.ask()
            await passes(1)
        assert driven.store.begun == begun
        await driven.driver.settled()
        assert len(driven.answers) == 20 and driven.store.begun == begun + 1

    run(work)


def test_who_is_alone_waits_for_nobody() -> None:
    async def work(driven: Driven) -> None:
        begun = driven.store.begun
        driven.ask()
        await passes(3)
        assert driven.store.begun == begun + 1
        await driven.driver.settled()

    run(work)


def test_gathering_ends_though_requests_keep_coming() -> None:
    ticks = count(0, GATHER_NS // 10)

    async def work(driven: Driven) -> None:
        begun = driven.store.begun
        for _ in range(40):
            driven.ask()
            await passes(1)
        assert driven.store.begun > begun
        await driven.driver.settled()
        assert len(driven.answers) == 40

    run(work, lambda: next(ticks))


class Time:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


async def after_a_commit(driven: Driven, time: Time, requests: int, took_ns: int) -> int:
    """That many requests have been answered by a commit that took so long; gives how many were begun until now."""
    driven.store.gate.clear()
    for _ in range(requests):
        driven.ask()
    await passes(6)
    time.now += took_ns
    driven.store.gate.set()
    async with asyncio.timeout(5):
        while len(driven.answers) < requests:  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.001)
    return driven.store.begun


def test_after_a_slow_commit_those_that_it_answered_are_waited_for() -> None:
    time = Time()

    async def work(driven: Driven) -> None:
        # Time stands still: nothing but the last of the flock can begin the commit.
        begun = await after_a_commit(driven, time, 4, 100 * SLOW_COMMIT_NS)
        for _ in range(3):
            driven.ask()
            await passes(5)
        assert driven.store.begun == begun
        driven.ask()
        await passes(5)
        assert driven.store.begun == begun + 1
        await driven.driver.settled()
        assert len(driven.answers) == 8

    run(work, time)


def test_who_does_not_come_back_is_not_waited_for_longer_than_half_a_commit() -> None:
    time = Time()

    async def work(driven: Driven) -> None:
        begun = await after_a_commit(driven, time, 4, SLOW_COMMIT_NS)
        driven.ask()
        await asyncio.sleep(SLOW_COMMIT_NS / 1e9 + 0.05)
        assert driven.store.begun == begun + 1 and len(driven.answers) == 5

    run(work, time)


def test_after_a_while_nobody_is_waited_for() -> None:
    time = Time()

    async def work(driven: Driven) -> None:
        begun = await after_a_commit(driven, time, 4, 100 * SLOW_COMMIT_NS)
        time.now += 100 * SLOW_COMMIT_NS
        driven.ask()
        await passes(3)
        assert driven.store.begun == begun + 1

    run(work, time)


def test_one_client_alone_waits_for_nobody_though_commits_are_slow() -> None:
    time = Time()

    async def work(driven: Driven) -> None:
        begun = await after_a_commit(driven, time, 1, 100 * SLOW_COMMIT_NS)
        driven.ask()
        await passes(3)
        assert driven.store.begun == begun + 1

    run(work, time)


def test_stopping_ends_the_wait_for_a_flock() -> None:
    time = Time()

    async def work(driven: Driven) -> None:
        await after_a_commit(driven, time, 4, 100 * SLOW_COMMIT_NS)
        driven.ask()
        await passes(5)
        await driven.driver.stop()
        assert driven.answers[-1].refusal is not None and driven.answers[-1].refusal.reason is Refusal.UNAVAILABLE

    run(work, time)


def test_what_waits_during_a_commit_goes_into_the_next_one_all_in_one() -> None:
    async def work(driven: Driven) -> None:
        begun = driven.store.begun
        driven.store.gate.clear()
        for _ in range(5):
            driven.ask()
            await passes(5)
        assert driven.store.begun == begun + 1 and not driven.answers
        driven.store.gate.set()
        await driven.driver.settled()
        assert driven.store.begun == begun + 2 and len(driven.answers) == 5

    run(work)


def test_a_higher_start_number_counts_only_once_the_store_holds_it() -> None:
    async def work(driven: Driven) -> None:
        assert driven.driver.durable_start == 1
        driven.store.gate.clear()
        driven.driver.feed(RestoreDeclared())
        await asyncio.sleep(0.01)
        higher = driven.driver.node.context.start
        assert higher > 1 and driven.driver.durable_start == 1
        driven.store.gate.set()
        await driven.driver.settled()
        assert driven.driver.durable_start == higher

    run(work)


def test_nothing_is_answered_before_it_is_durable() -> None:
    async def work(driven: Driven) -> None:
        driven.store.gate.clear()
        driven.ask()
        await asyncio.sleep(0.01)
        assert not driven.answers
        driven.store.gate.set()
        await driven.driver.settled()
        assert [deliver.refusal for deliver in driven.answers] == [None]

    run(work)


@pytest.mark.parametrize("error", [StoreError("the disk is gone"), ValueError("a bug")])
def test_after_a_failed_commit_nothing_is_done_and_all_who_wait_are_told(error: Exception) -> None:
    async def work(driven: Driven) -> None:
        driven.store.error = error
        driven.ask()
        assert await driven.driver.failed is error
        driven.ask()
        refusals = [deliver.refusal for deliver in driven.answers]
        assert [refusal is not None and refusal.reason for refusal in refusals] == [Refusal.UNAVAILABLE] * 2
        begun = driven.store.begun
        await passes(5)
        assert driven.driver.stopped and driven.store.begun == begun

    run(work)


async def brief_commits(driven: Driven, number: int) -> None:
    for _ in range(number):
        driven.ask()
        await driven.driver.settled()


def test_where_the_disk_is_quick_brief_commits_are_made_in_place_until_they_are_slow() -> None:
    time = Time()

    async def work(driven: Driven) -> None:
        store, here = driven.store, threading.get_ident()
        store.brief = True
        await brief_commits(driven, 1)
        assert here not in store.threads
        await brief_commits(driven, 20)
        assert store.threads[-1] == here
        # Folds and new blocks take what they take.
        store.brief = False
        await brief_commits(driven, 1)
        assert store.threads[-1] != here
        store.brief = True
        await brief_commits(driven, 1)
        assert store.threads[-1] == here

        store.while_committing = lambda: setattr(time, "now", time.now + 20 * QUICK_COMMIT_NS)
        await brief_commits(driven, 2)
        assert store.threads[-2] == here != store.threads[-1]
        store.while_committing = lambda: None
        await brief_commits(driven, 1)
        assert store.threads[-1] != here
        await brief_commits(driven, 30)
        assert store.threads[-1] == here
        assert all(deliver.refusal is None for deliver in driven.answers)

    run(work, time)


def test_a_commit_in_place_that_fails_stops_the_driver_too() -> None:
    async def work(driven: Driven) -> None:
        driven.store.brief = True
        await brief_commits(driven, 20)
        driven.store.error = StoreError("the disk is gone")
        driven.ask()
        assert await driven.driver.failed is driven.store.error
        refusal = driven.answers[-1].refusal
        assert driven.driver.stopped and refusal is not None and refusal.reason is Refusal.UNAVAILABLE

    run(work)


def test_a_commit_that_cannot_be_prepared_stops_the_driver_too() -> None:
    async def work(driven: Driven) -> None:
        driven.store.refuses = True
        driven.ask()
        assert isinstance(await driven.driver.failed, StoreError)

    run(work)


def test_stopping_waits_for_the_commit_under_way() -> None:
    async def work(driven: Driven) -> None:
        driven.store.gate.clear()
        driven.ask()
        await passes(5)
        done = driven.store.done
        stopping = asyncio.create_task(driven.driver.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done() and driven.store.done == done
        driven.store.gate.set()
        await stopping
        assert driven.store.done == done + 1

    run(work)
