"""What any pair of module drivers must keep to; run here over the emulated one, in real time with short periods."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keyhop.daemon.modules import Block, ModuleDriver, Report
from keyhop.emulator.module import EmulatedLink, EmulatedModule, create

PERIOD_S = 0.02
Pair = tuple[ModuleDriver, ModuleDriver]


def emulated_pair(directory: Path) -> Pair:
    create(
        directory,
        EmulatedLink(
            id="a-b", ends=("a", "b"), block_bytes=512, block_period_s=PERIOD_S, epoch_ns=time.monotonic_ns(),
            prefill_bytes=1000,
        ),
    )  # fmt: skip
    return EmulatedModule(directory, "a"), EmulatedModule(directory, "b")


PAIRS: dict[str, Callable[[Path], Pair]] = {"emulated": emulated_pair}


@pytest.fixture(params=sorted(PAIRS))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    return PAIRS[request.param](tmp_path)


class Heard:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.reports: list[Report] = []


def run_both(pair: Pair, seconds: float) -> tuple[Heard, Heard]:
    heard = Heard(), Heard()

    async def main() -> None:
        tasks = [
            asyncio.create_task(driver.run(ear.blocks.append, ear.reports.append))
            for driver, ear in zip(pair, heard, strict=True)
        ]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

    asyncio.run(main())
    return heard


def test_both_ends_deliver_the_same_bits_under_the_same_number(pair: Pair) -> None:
    left, right = run_both(pair, 0.25)
    ours = {block.number: bytes(block.bits) for block in left.blocks}
    theirs = {block.number: bytes(block.bits) for block in right.blocks}
    common = ours.keys() & theirs.keys()
    assert len(common) >= 3
    assert all(ours[number] == theirs[number] for number in common)


def test_numbers_rise_and_none_comes_twice(pair: Pair) -> None:
    for ear in run_both(pair, 0.25):
        numbers = [block.number for block in ear.blocks]
        assert numbers[0] >= 0
        assert numbers == sorted(set(numbers))


def test_no_two_blocks_hold_the_same_bits(pair: Pair) -> None:
    left, _ = run_both(pair, 0.25)
    beginnings = [bytes(block.bits[:16]) for block in left.blocks]
    assert len(set(beginnings)) == len(beginnings) >= 3


def test_blocks_belong_to_the_receiver_who_may_overwrite_them(pair: Pair) -> None:
    left, right = run_both(pair, 0.25)
    for block in left.blocks:
        block.bits[:] = bytes(len(block.bits))
    assert all(any(block.bits) for block in right.blocks)


def test_a_block_does_not_print_its_bits(pair: Pair) -> None:
    left, _ = run_both(pair, 0.1)
    block = left.blocks[0]
    assert block.bits.hex()[:8] not in repr(block)
    assert repr(bytes(block.bits[:4]))[2:-1] not in repr(block)


def test_a_report_comes_at_once_and_speaks_of_a_block_period(pair: Pair) -> None:
    for ear in run_both(pair, 0.1):
        assert ear.reports
        for report in ear.reports:
            assert report.state in {"up", "suspended", "down"}
            assert report.block_period_s > 0
            assert report.skr_bps >= 0
            assert report.qber_ratio is None or 0 <= report.qber_ratio <= 0.5


def test_reports_go_on_at_least_each_second(pair: Pair) -> None:
    heard: list[float] = []

    async def main() -> None:
        task = asyncio.create_task(pair[0].run(lambda block: None, lambda report: heard.append(time.monotonic())))
        await asyncio.sleep(1.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert len(heard) >= 2
    assert max(later - earlier for earlier, later in itertools.pairwise(heard)) < 1.2


def test_the_loop_is_never_blocked_for_long(pair: Pair) -> None:
    gaps: list[float] = []

    async def main() -> None:
        tasks = [asyncio.create_task(driver.run(lambda block: None, lambda report: None)) for driver in pair]
        before = time.monotonic()
        for _ in range(40):
            await asyncio.sleep(0.005)
            now = time.monotonic()
            gaps.append(now - before)
            before = now
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert sorted(gaps)[len(gaps) // 2] < 0.05
