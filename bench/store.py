"""What the store costs: `python -m bench.store` prints intake, commits, bytes on disk per key, and opening.

Intake is the whole path of a block on one core: taken over, verified by its one-time tag, placed, sealed, committed.
CPU seconds are those of this process, the system's part included; the wall clock depends on the disk below.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keyhop.core.machine import Audit, Drop, Put, Save, Seal, Used
from keyhop.core.model import NodeId, Range, RunId
from keyhop.core.node.rows import ROW_TYPES, SegmentRow
from keyhop.core.node.vault import BlockName
from keyhop.daemon.audit import Delivery
from keyhop.daemon.store.sealing import NodeKey
from keyhop.daemon.store.sqlite import SqliteStore
from keyhop.daemon.vault import NodeVault

PEER = NodeId("bob")
RUN = RunId(PEER, 0)
TAG_RUN = RunId(PEER, 2)
KEY_BYTES = 32
LARGE_BYTES = 65_536
SMALL_BYTES = 1024
MODULE_BLOCK_BYTES = 1 << 20
ENTRY = Delivery(
    actor={"sae": "sae-frm"}, interface="etsi014", role="dec", peer="sae-stp", size_bits=256, path=["STP", "FRM"]
).entry(["7f3c9a1e-5b7d-4c1a-9e2f-0123456789ab"])


def opened(directory: Path) -> SqliteStore:
    store = SqliteStore(directory / "node.db", NodeKey(bytes(32)), "alice", ROW_TYPES)
    store.load()
    return store


def random_bits(length: int) -> bytearray:
    stream = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
    return bytearray(stream.update(bytes(length)))


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def size_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def peak_mib() -> float:
    """The most memory this process had since it began."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def no_bits(range: Range) -> bytes:
    raise KeyError(range)


def intake(directory: Path, total_bytes: int, batch: int) -> tuple[float, float]:
    """Gbit of key per CPU second and per second: module blocks of 1 MiB in segments of 64 KiB, `batch` a commit."""
    store = opened(directory)
    vault = NodeVault(store, bytes(32))
    vault.draw(Range(TAG_RUN, 0, KEY_BYTES))
    source = random_bits(MODULE_BLOCK_BYTES)
    fingerprint_key = Range(TAG_RUN, 0, KEY_BYTES)
    vault.accept(BlockName(PEER, "far", 0), bytearray(source))
    fingerprint = vault.fingerprint(BlockName(PEER, "far", 0), fingerprint_key, b"context")

    def work() -> None:
        position = 0
        for number in range(total_bytes // MODULE_BLOCK_BYTES):
            name = BlockName(PEER, "module", number)
            vault.accept(name, bytearray(source))
            if not vault.matches(name, fingerprint_key, b"context", fingerprint):
                raise SystemExit("the blocks differ")
            saves: list[Save] = []
            for offset in range(0, MODULE_BLOCK_BYTES, LARGE_BYTES):
                target = Range(RUN, position, LARGE_BYTES)
                vault.place(name, offset, target)
                saves += (
                    Seal(target),
                    Put(SegmentRow(PEER, 0, position, LARGE_BYTES, "untouched")),
                )
                position += LARGE_BYTES
                if len(saves) >= 2 * batch:
                    store.commit(saves, vault.collect(saves))
                    vault.committed(saves)
                    saves = []
            vault.discard(name)

    cpu, wall = timed(work)
    store.close()
    return total_bytes * 8 / cpu / 1e9, total_bytes * 8 / wall / 1e9


def commits(directory: Path, keys: int, rounds: int, audited: bool) -> tuple[float, float, float]:
    """Microseconds of CPU and of time per commit of so many used keys, and keys a second."""
    store = opened(directory)

    def work() -> None:
        for number in range(rounds):
            saves: list[Save] = []
            for key in range(keys):
                saves.append(Used(Range(RUN, (number * keys + key) * KEY_BYTES, KEY_BYTES)))
                if audited:
                    saves.append(Audit(ENTRY))
            store.commit(saves, no_bits)
            if audited:
                store.written(store.outbox()[-1].number)

    cpu, wall = timed(work)
    store.close()
    return cpu / rounds * 1e6, wall / rounds * 1e6, keys * rounds / wall


def stocked(directory: Path, keys: int, block_bytes: int) -> float:
    """Fills a store with so many keys' worth of bits; bytes on disk per key, all files counted, after it was closed."""
    store = opened(directory)
    bits = random_bits(block_bytes)
    count = max(keys * KEY_BYTES // block_bytes, 1)
    position = 0
    while position < count * block_bytes:
        stop = min(position + 64 * block_bytes, count * block_bytes)
        saves = [Seal(Range(RUN, start, block_bytes)) for start in range(position, stop, block_bytes)]
        store.commit(saves, lambda range: bits)
        position = stop
    store.close()
    return size_bytes(directory) / (count * block_bytes / KEY_BYTES)


def measure_opening(directory: Path) -> None:
    """In a process of its own: milliseconds to open and load, memory after it, and what a read and a lease cost."""
    before = peak_mib()
    started = time.perf_counter()
    store = opened(directory)
    opening_ms = (time.perf_counter() - started) * 1e3
    peak = peak_mib()
    vault = NodeVault(store, bytes(32))
    block = store.covering(RUN, 0)
    assert block is not None
    cold = []
    for _ in range(200):
        started = time.perf_counter()
        store.read(block)
        cold.append(time.perf_counter() - started)
    vault.hold(block)
    keys = [Range(RUN, at, KEY_BYTES) for at in range(0, block.length - KEY_BYTES + 1, KEY_BYTES)]
    rounds = max(20_000 // len(keys), 1)
    started = time.perf_counter()
    for _ in range(rounds):
        for key in keys:
            vault.read(key)
    hot = (time.perf_counter() - started) / rounds / len(keys)
    started = time.perf_counter()
    store.commit([Drop(block)], no_bits)
    drop_ms = (time.perf_counter() - started) * 1e3
    store.close()
    reading = f"block read {statistics.median(cold) * 1e6:6.1f} us  key read {hot * 1e6:5.2f} us"
    print(f"{opening_ms:9.1f} ms  +{peak - before:6.1f} MiB  {reading}  drop {drop_ms:5.2f} ms")


class Scratch:
    """A new directory under `place` for each measurement."""

    def __init__(self, place: Path | None) -> None:
        self._place = place

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> Any:
        directory = Path(tempfile.mkdtemp(dir=self._place))
        try:
            return work(directory, *arguments)
        finally:
            shutil.rmtree(directory)


def opening(directory: Path, keys: int, block_bytes: int) -> None:
    per_key = stocked(directory, keys, block_bytes)
    print(f"{keys:>10,} keys  {block_bytes:>6,} B blocks  {per_key:6.2f} B/key  ", end="", flush=True)
    subprocess.run([sys.executable, "-m", "bench.store", "--opening", str(directory)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, help="a directory on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="an eighth of the data: for CI, not for figures")
    parser.add_argument("--opening", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.opening:
        measure_opening(arguments.opening)
        return
    scratch = Scratch(arguments.place)
    share = 8 if arguments.quick else 1
    rounds = 1 if arguments.quick else arguments.rounds
    print("Intake, verify, seal, store: 1 MiB module blocks, 64 KiB segments, one row each")
    for batch in (1, 4, 16):
        found = [scratch(intake, (256 << 20) // share, batch) for _ in range(rounds)]
        cpu, wall = (statistics.median(column) for column in zip(*found, strict=True))
        print(
            f"  {batch:3} segments a commit  {cpu:5.2f} Gbit/s of key per CPU second  {wall:5.2f} Gbit/s by the clock"
        )
    print("Commits of used keys")
    for audited in (False, True):
        for keys in (1, 8, 32, 128):
            found = [scratch(commits, keys, 800 // share, audited) for _ in range(rounds)]
            cpu, wall, rate = (statistics.median(column) for column in zip(*found, strict=True))
            what = "with audit" if audited else "bare"
            print(f"  {keys:4} keys {what:10}  {cpu:6.0f} us CPU  {wall:6.0f} us  {rate:9,.0f} keys/s")
    print("Opening, and what does not depend on the stock")
    for keys in (1000, 100_000, 10_000_000 // share):
        scratch(opening, keys, LARGE_BYTES)
    for keys in (100_000, 1_000_000 // share):
        scratch(opening, keys, SMALL_BYTES)


if __name__ == "__main__":
    main()
