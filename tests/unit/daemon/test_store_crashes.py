"""Real failures under a real store: killed at a system call, refused by the disk, out of room, not allowed."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_steps import RUN, STEPS, Held, Mark, after, bits_of, main, opened

from keyhop.core.machine import Put, Seal
from keyhop.core.model import Range
from keyhop.core.node.store import StoreError
from keyhop.daemon.store.slots import HEAD_BYTES, SLOT_BYTES

SCRIPT = Path(__file__).with_name("store_steps.py")
STRACE = shutil.which("strace")
CALLS = ("pwrite64", "pwritev2", "fdatasync", "fsync", "ftruncate")

EVERY_POINT = bool(os.environ.get("KEYHOP_EVERY_CRASH_POINT"))
"""All points take minutes; without it a sample is run, another one for each kind of failure."""

SAMPLE = 6
FRAMED_STEPS = 6
"""Steps whose commit the frame log takes; the others go through SQLite."""

needs_strace = pytest.mark.skipif(
    STRACE is None, reason="strace is not installed: the kills at random moments still run"
)


def run(directory: Path, *wrapper: str) -> tuple[list[str], int]:
    """What the process said, and how it ended."""
    done = subprocess.run([*wrapper, sys.executable, str(SCRIPT), str(directory)], capture_output=True, timeout=60)
    return done.stdout.decode().splitlines(), done.returncode


def check(directory: Path, said: list[str]) -> None:
    """What was acknowledged is there, what was not is there whole or not at all, and no slot outlives its row."""
    acknowledged = max((int(word.split()[1]) for word in said if word.startswith("step")), default=0)
    store = opened(directory, day=1.5)
    held = Held(store, store.load())
    assert held in (after(acknowledged), after(min(acknowledged + 1, len(STEPS)))), said
    live = len(held.blocks) + len(held.secrets)
    cells = (directory / "node.db.slots").read_bytes()[HEAD_BYTES:]
    filled = [at for at in range(0, len(cells), SLOT_BYTES) if any(cells[at : at + SLOT_BYTES])]
    assert len(filled) == live
    # It goes on from there.
    store.commit([Put(Mark("after", 1)), Seal(Range(RUN, 1 << 20, 64))], bits_of)
    store.close()
    store = opened(directory, day=3)
    assert Mark("after", 1) in store.load().rows
    assert store.read(Range(RUN, 1 << 20, 64)) == bits_of(Range(RUN, 1 << 20, 64))
    store.close()


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often the undisturbed process makes each call."""
    directory = tmp_path_factory.mktemp("calls")
    trace = directory / "trace"
    assert STRACE is not None
    said, code = run(directory, STRACE, "-f", "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    assert code == 0 and said[-1] == "closed"
    check(directory, said)
    return Counter(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))


@needs_strace
def test_everything_is_synced_before_it_is_acknowledged_and_slots_before_the_rows_that_name_them(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "trace"
    directory = tmp_path / "store"
    directory.mkdir()
    assert STRACE is not None
    said, _ = run(
        directory, STRACE, "-f", "-y", "-o", str(trace), "-e", "trace=pwrite64,pwritev2,ftruncate,fdatasync,fsync,write"
    )
    dirty: set[str] = set()
    acknowledged = log_syncs = frames = 0
    for line in trace.read_text().splitlines():
        found = re.match(r"^\d+ +(\w+)\(\d+<([^>]*)>(.*)", line)
        if found is None:
            continue
        call, name, rest = found[1], found[2].rsplit("/", 1)[-1], found[3]
        match call:
            case "write" if '"step ' in rest:
                acknowledged += 1
                assert not dirty, f"{line}: {dirty} not synced"
            case "pwrite64" | "ftruncate" if name.startswith("node.db") and not name.endswith("-shm"):
                # The shared index is made anew from the log; nothing rests on it.
                dirty.add(name)
            case "pwritev2":
                assert name == "node.db.log" and "RWF_DSYNC" in rest, line
                frames += 1
            case "fdatasync" | "fsync":
                dirty.discard(name)
                if name == "node.db-wal":
                    log_syncs += 1
                    assert "node.db.slots" not in dirty, f"{line}: slots not synced before the commit that names them"
            case _:
                pass
    assert acknowledged == len(STEPS) and said[-1] == "closed"
    assert frames == FRAMED_STEPS and log_syncs >= acknowledged - frames


def points(call: str, total: int, salt: str) -> list[int]:
    if EVERY_POINT or total <= SAMPLE:
        return list(range(1, total + 1))
    return sorted(random.Random(call + salt).sample(range(1, total + 1), SAMPLE))


def broken_off(directory: Path, call: str, fault: str, point: int) -> list[str]:
    assert STRACE is not None
    directory.mkdir()
    said, code = run(
        directory, STRACE, "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={point}"
    )
    if fault.startswith("signal"):
        assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), (call, point, said)
    elif "closed" not in said:
        assert code == 3 and any(word.startswith("refused") for word in said), (call, point, said)
        assert "went on" not in said, (call, point, said)
    return said


@needs_strace
def test_the_process_makes_the_calls_that_are_to_be_broken_off(calls: Counter[str]) -> None:
    # Each commit syncs the log of SQLite or a frame; seals and drops sync the slots besides.
    assert calls["pwritev2"] == FRAMED_STEPS
    assert calls["fdatasync"] >= len(STEPS) - FRAMED_STEPS + 6
    assert calls["pwrite64"] > 3 * (len(STEPS) - FRAMED_STEPS)


@needs_strace
@pytest.mark.parametrize("call", ["pwrite64", "pwritev2", "fdatasync", "fsync"])
def test_killed_at_a_system_call_nothing_acknowledged_is_lost(calls: Counter[str], tmp_path: Path, call: str) -> None:
    for point in points(call, calls[call], "kill"):
        directory = tmp_path / str(point)
        check(directory, broken_off(directory, call, "signal=SIGKILL", point))


@needs_strace
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fdatasync", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EIO"),
        ("pwritev2", "ENOSPC"),
        ("pwritev2", "EIO"),
        ("fsync", "EIO"),
    ],
)
def test_refused_by_the_disk_the_store_stops_and_nothing_acknowledged_is_lost(
    calls: Counter[str], tmp_path: Path, call: str, error: str
) -> None:
    refusals = 0
    for point in points(call, calls[call], error):
        directory = tmp_path / str(point)
        said = broken_off(directory, call, f"error={error}", point)
        refusals += "closed" not in said
        check(directory, said)
    assert refusals


@needs_strace
def test_on_a_disk_that_became_read_only_the_store_stops(calls: Counter[str], tmp_path: Path) -> None:
    directory = tmp_path / "erofs"
    said = broken_off(directory, "pwrite64", "error=EROFS", calls["pwrite64"] // 2)
    assert any(word.startswith("refused") for word in said)
    check(directory, said)


def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    moments = random.Random(7)
    for attempt in range(6):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        process = subprocess.Popen([sys.executable, str(SCRIPT), str(directory)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        wanted = moments.randrange(len(STEPS) + 1)
        said = [process.stdout.readline().decode().strip() for _ in range(1 + wanted)]
        time.sleep(moments.random() * 0.0005)
        process.kill()
        said += process.stdout.read().decode().splitlines()
        process.wait()
        process.stdout.close()
        check(directory, said)


def in_child(work: Callable[[], object]) -> str:
    """Runs in a forked process, so that limits and rights do not outlive it; gives what it returned or raised."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = str(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(sender, answer.encode())
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def fill(directory: Path) -> str:
    """Seals until the disk is full; tells how many blocks were acknowledged, and what the refusal said."""
    store = opened(directory)
    store.load()
    done = 0
    try:
        while done < 10_000:
            store.commit([Seal(Range(RUN, done * 8192, 8192)), Put(Mark("done", done + 1))], bits_of_block)
            done += 1
    except StoreError as error:
        try:
            store.commit([], bits_of_block)
        except StoreError:
            return f"{done} {error}"
    return "went on"


def bits_of_block(range: Range) -> bytes:
    return (range.start // 8192).to_bytes(4, "big") * (range.length // 4)


def check_filled(directory: Path, said: str) -> None:
    found = re.match(r"(\d+) .*cannot be written: (.*)", said)
    assert found is not None, said
    done = int(found[1])
    assert done > 3
    store = opened(directory)
    snapshot = store.load()
    (height,) = [row.height for row in snapshot.rows if isinstance(row, Mark)]
    assert height == len(snapshot.blocks) and height in (done, done + 1)
    for number in range(height):
        block = Range(RUN, number * 8192, 8192)
        assert store.read(block) == bits_of_block(block)
    store.close()


def test_at_the_limit_of_its_file_size_the_store_stops_whole(tmp_path: Path) -> None:
    def limited() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        return fill(tmp_path)

    check_filled(tmp_path, in_child(limited))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB where we may mount one, else the limit on file sizes has to do."""
    target = tmp_path / "small"
    target.mkdir()
    mounted = (
        shutil.which("mount") is not None
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(target)], capture_output=True
        ).returncode
    )
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    yield target
    if mounted:
        subprocess.run(["umount", "-l", str(target)], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_on_a_full_disk_the_store_stops_whole(small_disk: Path, tmp_path: Path) -> None:
    said = in_child(lambda: fill(small_disk))
    room = tmp_path / "room"
    shutil.copytree(small_disk, room)
    check_filled(room, said)


def without_privileges(work: Callable[[], object]) -> str:
    def demoted() -> object:
        if os.geteuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        return work()

    return in_child(demoted)


def test_in_a_directory_it_may_not_write_the_store_says_so(tmp_path: Path) -> None:
    directory = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        directory.chmod(0o555)
        said = without_privileges(lambda: opened(directory))
        assert re.match(r"StoreError: .*node\.db cannot be opened: Permission denied", said), said
    finally:
        directory.rmdir()


def test_files_it_may_not_write_are_an_error_not_a_new_store(tmp_path: Path) -> None:
    directory = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        store = opened(directory)
        store.load()
        store.commit(STEPS[0], bits_of)
        store.close()
        for path in directory.iterdir():
            path.chmod(0o444)
        directory.chmod(0o555)
        said = without_privileges(lambda: opened(directory).load())
        assert said.startswith("StoreError"), said
        store = opened(directory)
        assert Held(store, store.load()) == after(1)
        store.close()
    finally:
        shutil.rmtree(directory)


def test_a_second_process_is_turned_away_and_does_no_harm(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.load()
    store.commit(STEPS[0], bits_of)
    said, code = run(tmp_path)
    assert code == 3 and re.match("refused .*in use by another process: one process owns a store", said[0]), said
    store.commit(STEPS[1], bits_of)
    store.close()
    store = opened(tmp_path)
    assert Held(store, store.load()) == after(2)
    store.close()


def test_a_killed_owner_leaves_no_lock_behind(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"opened\n"
    process.kill()
    process.wait()
    process.stdout.close()
    opened(tmp_path).close()


def test_the_steps_undisturbed_leave_what_memory_holds(tmp_path: Path) -> None:
    assert in_child(lambda: main(tmp_path) or "done") == "done"
    check(tmp_path, [f"step {len(STEPS)}"])
