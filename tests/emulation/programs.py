"""Programs of ours as a person starts them, and what is left of them afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

KEYHOP = [sys.executable, "-P", "-c", "from keyhop.cli.main import main; main()"]
OF_A_TERMINAL = ("NO_COLOR", "COLUMNS", "LINES")


def environment(**more: str) -> dict[str, str]:
    """Without what would lead a command to another lab, another node or another terminal."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KEYHOP_") and name not in OF_A_TERMINAL
    }
    return kept | more


def keyhop(
    directory: Path, *words: str | Path, timeout_s: float = 60.0, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end in a directory. It is killed when the time is over, which fails the test."""
    return subprocess.run(
        [*KEYHOP, *map(str, words)],
        cwd=directory,
        env=environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def heed_hangups() -> None:
    """For a child that is about to run: whoever runs the tests may have had SIGHUP ignored, and that is inherited."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def started(directory: Path, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on; it is asked to end, then made to, however the test ends."""
    process = subprocess.Popen(
        [*KEYHOP, *map(str, words)],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_hangups,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()
        end_all_in(directory)


def running_in(directory: Path) -> dict[int, str]:
    """Processes, by id, that work in this directory or name it in their command line."""
    found = {}
    place = str(directory.resolve())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cwd = os.readlink(entry / "cwd")
        except OSError:
            continue
        if state not in "ZX" and (place in command or cwd.startswith(place)):
            found[int(entry.name)] = command
    return found


def end_all_in(directory: Path) -> None:
    """What a failed test left running below its own temporary directory; by process id."""
    for pid in running_in(directory):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def until(condition: Callable[[], object], timeout_s: float = 20.0, what: str = "it") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s:g} s"
        time.sleep(0.05)
