"""Processes that stand in for nodes are small Python programs: what is tested here is how any process is treated."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyhop.emulator import processes
from keyhop.emulator.processes import NodeFailure, Process

SLEEPER = "import time; time.sleep(60)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
NODE = """
import http.server, sys
class Door(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Door.asked += 1
        self.send_response(200 if Door.asked >= int(sys.argv[2]) else 503)
        self.end_headers()
        self.wfile.write(b"store is sealed")
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Door).serve_forever()
"""


class Nursery:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.born: list[Process] = []

    def spawn(self, program: str, *arguments: str) -> tuple[Process, Path]:
        log = self.directory / f"{len(self.born)}.log"
        process = processes.spawn([sys.executable, "-c", program, *arguments], log)
        self.born.append(process)
        return process, log


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    processes.stop(nursery.born, 0.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_is_alive_until_it_is_stopped(nursery: Nursery) -> None:
    process, _ = nursery.spawn(SLEEPER)
    assert processes.alive(process)
    assert processes.stop([process]) == []
    assert not processes.alive(process)
    assert processes.exit_status(process) == -signal.SIGTERM


def test_one_that_does_not_listen_is_ended_and_named(nursery: Nursery) -> None:
    deaf, log = nursery.spawn(STUBBORN)
    until(lambda: processes.last_lines(log) == ["deaf"])
    assert processes.stop([deaf], timeout_s=0.2) == [deaf]
    assert not processes.alive(deaf)


def test_a_process_id_that_now_belongs_to_another_is_left_alone(nursery: Nursery) -> None:
    other, _ = nursery.spawn(SLEEPER)
    ours = Process(pid=other.pid, birth_ticks=other.birth_ticks - 1)
    assert not processes.alive(ours)
    assert processes.stop([ours]) == []
    assert processes.alive(other)


def test_stopping_what_has_ended_is_no_error(nursery: Nursery) -> None:
    process, _ = nursery.spawn("pass")
    until(lambda: not processes.alive(process))
    assert processes.stop([process]) == []


def test_what_a_process_says_is_in_its_log_which_only_its_owner_reads(nursery: Nursery) -> None:
    process, log = nursery.spawn("import sys; print('out'); print('err', file=sys.stderr)")
    until(lambda: not processes.alive(process))
    assert sorted(processes.last_lines(log)) == ["err", "out"]
    assert log.stat().st_mode & 0o077 == 0


def test_only_the_last_lines_of_a_long_log_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert processes.last_lines(log, 2) == ["line 9998", "line 9999"]
    assert processes.last_lines(tmp_path / "none") == []


def test_waiting_ends_when_the_node_says_that_it_is_ready(nursery: Nursery) -> None:
    port = free_port()
    process, log = nursery.spawn(NODE, str(port), "3")
    ready: list[str] = []
    processes.wait_ready({"STP": (process, "127.0.0.1", port, log)}, 10.0, ready.append)
    assert ready == ["STP"]
    assert processes.probe("127.0.0.1", port)[0]


def test_a_node_that_ends_is_reported_with_its_status_and_its_last_words(nursery: Nursery) -> None:
    process, log = nursery.spawn("import sys; print('store: wrong node key', file=sys.stderr); sys.exit(1)")
    with pytest.raises(NodeFailure) as failure:
        processes.wait_ready({"STP": (process, "127.0.0.1", free_port(), log)}, 10.0)
    assert "node STP" in str(failure.value)
    assert "exit status 1" in str(failure.value)
    assert "store: wrong node key" in str(failure.value)
    assert str(log) in str(failure.value)


def test_a_node_that_was_killed_is_reported_with_the_signal(nursery: Nursery) -> None:
    process, log = nursery.spawn("import os, signal; os.kill(os.getpid(), signal.SIGABRT)")
    until(lambda: not processes.alive(process))
    assert "SIGABRT" in processes.why_it_ended("STP", process, log)
    assert "empty" in processes.why_it_ended("STP", process, log)


def test_a_node_that_is_not_ready_in_time_is_reported_with_what_it_says(nursery: Nursery) -> None:
    port = free_port()
    process, log = nursery.spawn(NODE, str(port), "100000")
    until(lambda: processes.probe("127.0.0.1", port)[1].startswith("503"))
    with pytest.raises(NodeFailure, match=r"STP is not ready after 0.2 s.*503 store is sealed"):
        processes.wait_ready({"STP": (process, "127.0.0.1", port, log)}, 0.2)


def test_a_node_that_listens_but_does_not_answer_is_not_waited_for_without_end(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PROBE_TIMEOUT_S", 0.1)
    process, log = nursery.spawn(SLEEPER)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(NodeFailure, match="timed out"):
            processes.wait_ready({"STP": (process, "127.0.0.1", silent.getsockname()[1], log)}, 0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_between_a_start_and_its_record_waits_for_the_record(number: signal.Signals) -> None:
    def end(number: int, _frame: object) -> None:
        raise SystemExit(number)

    recorded = []

    def start() -> None:
        with processes.held_back():
            signal.raise_signal(number)
            recorded.append("process")

    before = signal.signal(number, end)
    try:
        with pytest.raises(SystemExit):
            start()
        assert recorded == ["process"]
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_a_process_started_meanwhile_can_be_ended_as_ever(nursery: Nursery) -> None:
    with processes.held_back():
        process, _ = nursery.spawn(SLEEPER)
    assert processes.stop([process], 5.0) == []
