"""Who watches a node: he gets everything in order while he reads, and is told what he missed when he does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from keyhop.daemon.live import QUEUE_LIMIT, Reader
from keyhop.wire.manage import AnyEvent, EventsLost, KeyRefused, Role

NOON = datetime(2030, 1, 2, 12, 0, tzinfo=UTC)


def event(number: int) -> KeyRefused:
    return KeyRefused(at=NOON, role=Role.ENC, master="sae-a", slave="sae-b", reason=str(number))


def watching(work: Callable[[Reader], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work(Reader()), 5)

    asyncio.run(main())


def test_events_come_in_their_order_all_that_wait_at_once() -> None:
    async def work(reader: Reader) -> None:
        for number in range(5):
            reader.put(event(number))
        assert await reader.next(1) == [event(number) for number in range(5)]
        reader.put(event(5))
        assert await reader.next(1) == [event(5)]

    watching(work)


def test_a_reader_that_waits_is_woken_by_the_next_event() -> None:
    async def work(reader: Reader) -> None:
        waiting = asyncio.create_task(reader.next(5))
        await asyncio.sleep(0)
        reader.put(event(1))
        assert await waiting == [event(1)]

    watching(work)


def test_silence_ends_after_its_time_with_nothing() -> None:
    async def work(reader: Reader) -> None:
        assert await reader.next(0.01) == []
        assert not reader.ended

    watching(work)


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    async def work(reader: Reader) -> None:
        for number in range(QUEUE_LIMIT + 10):
            reader.put(event(number))
        first, *rest = await reader.next(1)
        assert isinstance(first, EventsLost)
        told: list[AnyEvent] = [event(number) for number in range(QUEUE_LIMIT, QUEUE_LIMIT + 10)]
        assert rest == told
        assert first.count == QUEUE_LIMIT
        reader.put(event(0))
        assert await reader.next(1) == [event(0)]

    watching(work)


def test_the_end_wakes_a_reader() -> None:
    async def work(reader: Reader) -> None:
        waiting = asyncio.create_task(reader.next(5))
        await asyncio.sleep(0)
        reader.end()
        assert await waiting == [] and reader.ended

    watching(work)
