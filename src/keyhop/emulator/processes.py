"""The node processes of a lab: started, waited for, watched and ended, each known by its process id and its birth."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 8.0
"""A node that has not ended so long after SIGTERM gets SIGKILL."""
KILL_TIMEOUT_S = 5.0
POLL_S = 0.05
PROBE_TIMEOUT_S = 2.0
ANSWER_LIMIT_BYTES = 4096

LOG_LINES_SHOWN = 8
LOG_TAIL_BYTES = 16 * 1024


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process that can be recognised later: process ids are given out again, births are not."""

    pid: int
    birth_ticks: int
    """When it began, in clock ticks since the machine started (proc(5), stat field 22)."""


class NodeFailure(Exception):
    """A node did not start, or ended by itself; the text says which and why."""


def node_command(*configs: Path) -> list[str]:
    """Serves one node, or several in one process."""
    # -P: nothing that lies in the node's directory can stand for a module of ours.
    files = [word for config in configs for word in ("--config", str(config))]
    return [sys.executable, "-P", "-c", "from keyhop.cli.main import main; main()", "serve", *files]


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Starts a process that outlives this one; what it says goes to the end of `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(  # noqa: S603 (the command is ours, no shell)
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=log.parent,
            env=None if environment is None else dict(environment),
            # A Ctrl-C in the terminal is for the lab, which then ends its nodes in order.
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    _children[child.pid] = child
    found = _stat(child.pid)
    return Process(pid=child.pid, birth_ticks=found[1] if found else 0)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals to end wait until the block is over: one between a start and its record would lose a process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    # Not blocked: a process that is started would inherit that.
    before = {
        number: signal.signal(number, lambda number, _frame: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


_children: dict[int, subprocess.Popen[bytes]] = {}
"""Those this very process started: it has to collect their exit status."""


def alive(process: Process) -> bool:
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        return False
    found = _stat(process.pid)
    if found is None or found[1] != process.birth_ticks:
        return False
    # While another of its threads still ends, its ports are taken.
    return found[0] not in "ZX" or _threads(process.pid) > 1


def exit_status(process: Process) -> int | None:
    """Only for a process that this one started: its status, negative for the signal that ended it."""
    child = _children.get(process.pid)
    return None if child is None else child.poll()


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and birth of a process; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def stop(processes: Sequence[Process], timeout_s: float = STOP_TIMEOUT_S) -> list[Process]:
    """Asks all to end, ends those that do not, and returns the ones that had to be ended by SIGKILL.

    Raises NodeFailure for a process that survives even that.
    """
    _signal(processes, signal.SIGTERM)
    stubborn = _wait_gone(processes, timeout_s)
    _signal(stubborn, signal.SIGKILL)
    left = _wait_gone(stubborn, KILL_TIMEOUT_S)
    if left:
        raise NodeFailure(f"processes {', '.join(str(p.pid) for p in left)} do not end: the kernel holds them")
    return stubborn


def _signal(processes: Sequence[Process], number: signal.Signals) -> None:
    for process in processes:
        if alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue


def _wait_gone(processes: Sequence[Process], timeout_s: float) -> list[Process]:
    deadline = time.monotonic() + timeout_s
    left = [process for process in processes if alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = [process for process in left if alive(process)]
    return left


def wait_ready(
    nodes: Mapping[str, tuple[Process, str, int, Path]],
    timeout_s: float = READY_TIMEOUT_S,
    became_ready: Callable[[str], None] = lambda node: None,
) -> None:
    """Waits until each node says on its manage address (host, port) that it is ready.

    Raises NodeFailure, with the end of its log, for a node that ended or is not ready in time.
    """
    deadline = time.monotonic() + timeout_s
    waiting = dict(nodes)
    answers: dict[str, str] = {}
    while waiting:
        for node, (process, host, port, log) in list(waiting.items()):
            if not alive(process):
                raise NodeFailure(why_it_ended(node, process, log))
            ready, answers[node] = probe(host, port)
            if ready:
                became_ready(node)
                del waiting[node]
        if waiting and time.monotonic() >= deadline:
            node, (_, host, port, log) = next(iter(waiting.items()))
            raise NodeFailure(
                f"node {node} is not ready after {timeout_s:g} s: http://{host}:{port}/readyz says: {answers[node]}\n"
                + _shown_log(log)
            )
        time.sleep(POLL_S)


def probe(host: str, port: int) -> tuple[bool, str]:
    """Whether a node serves applications, and what it says about it."""
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(ANSWER_LIMIT_BYTES).decode("utf-8", "replace").strip()
        return answer.status == 200, f"{answer.status} {body}"
    except (OSError, http.client.HTTPException) as error:
        return False, str(error) or type(error).__name__
    finally:
        connection.close()


def why_it_ended(node: str, process: Process, log: Path) -> str:
    status = exit_status(process)
    if status is None:
        how = "ended"
    elif status < 0:
        how = f"was ended by {signal.Signals(-status).name}"
    else:
        how = f"ended with exit status {status}"
    return f"node {node} (process {process.pid}) {how}\n" + _shown_log(log)


def _shown_log(log: Path) -> str:
    lines = last_lines(log)
    if not lines:
        return f"  its log {log} is empty"
    return f"  last lines of {log}:\n" + "\n".join(f"    {line}" for line in lines)


def last_lines(log: Path, count: int = LOG_LINES_SHOWN) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
            return file.read(LOG_TAIL_BYTES).decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
