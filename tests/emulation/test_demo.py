"""`keyhop demo` as a person runs it: to its end, in the background, and by hand in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from programs import KEYHOP, end_all_in, environment, heed_hangups, keyhop, running_in, started, until

pytestmark = pytest.mark.emulation

ONCE_LIMIT_S = 30.0
ROWS, COLUMNS = 40, 80
DOWN = "\x1b[B"
UP = "\x1b[A"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_all_in(tmp_path)


def temporary(place: Path) -> dict[str, str]:
    """Temporary files of the command go to a place that the test can look at."""
    (place / "tmp").mkdir()
    return {"TMPDIR": str(place / "tmp")}


def test_once_delivers_ten_keys_over_the_vienna_network_and_leaves_nothing(place: Path) -> None:
    began = time.monotonic()
    done = keyhop(place, "demo", "--once", timeout_s=ONCE_LIMIT_S, variables=temporary(place))
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < ONCE_LIMIT_S
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(
        r"vpn: sae-stp → sae-frm: 5 of 5 keys equal at both ends, \d+\.\d s, STP(─\w{3}){2,}─FRM", lines[0]
    )
    assert re.fullmatch(r"phone: sae-sie → sae-gud: 5 of 5 keys equal at both ends, \d+\.\d s, SIE(─\w{3})*", lines[1])
    assert running_in(place) == {}
    assert list((place / "tmp").iterdir()) == []
    assert [entry.name for entry in place.iterdir()] == ["tmp"]


def test_once_runs_over_a_network_that_is_named(place: Path) -> None:
    done = keyhop(place, "demo", "--once", "line3", timeout_s=ONCE_LIMIT_S, variables=temporary(place))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(
        r"vpn: sae-alice → sae-bob: 10 of 10 keys equal at both ends, \d+\.\d s, alice─relay─bob\n", done.stdout
    )
    assert running_in(place) == {}
    assert list((place / "tmp").iterdir()) == []


def test_once_keeps_the_network_where_it_was_told_to(place: Path) -> None:
    done = keyhop(place, "demo", "--once", "line3", "--dir", "kept", timeout_s=ONCE_LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (place / "kept" / "lab.json").is_file()
    assert running_in(place) == {}


def test_a_name_that_is_no_network_gets_the_list_of_those_there_are(place: Path) -> None:
    refused = keyhop(place, "demo", "--once", "nowhere", variables=temporary(place))
    assert refused.returncode == 5
    assert refused.stdout == ""
    assert "nowhere" in refused.stderr
    for name in ("secoqc_vienna_2008", "line3", "ring,", "madqci"):
        assert refused.stderr.count(name) == 1
    assert "Traceback" not in refused.stderr
    assert list((place / "tmp").iterdir()) == []


def test_a_topology_file_with_a_slip_is_refused_with_its_line(place: Path) -> None:
    (place / "mine.yml").write_text("apiVersion: keyhop/v1\nname: mine\nnodess:\n  a: {}\n")
    refused = keyhop(place, "demo", "--once", "mine.yml")
    assert refused.returncode == 2
    assert "mine.yml:3" in refused.stderr
    assert "nodes" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_directory_that_is_not_empty_is_not_touched(place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("years of work")
    refused = keyhop(place, "demo", "--once", "line3", "--dir", "mine")
    assert refused.returncode == 1
    assert "not empty" in refused.stderr
    assert [entry.name for entry in (place / "mine").iterdir()] == ["thesis.txt"]


def test_without_a_terminal_it_says_a_line_now_and_then_until_it_is_ended(place: Path) -> None:
    with started(place, "demo", "line3", "--no-tui") as demo:
        assert demo.stdout is not None
        said: list[str] = []
        for line in demo.stdout:
            said.append(line)
            if line.startswith("vpn ") and "alice─relay─bob: 1 keys" in line:
                break
        assert len(running_in(place)) == 4
        second = keyhop(place, "demo", "line3", "--no-tui")
        assert second.returncode == 1
        assert "runs already" in second.stderr
        demo.send_signal(signal.SIGTERM)
        said += demo.stdout.readlines()
        assert demo.wait(15) == 0, "".join(said)
        assert running_in(place) == {}
    assert "Do not protect real data" in "".join(said)
    assert "Traceback" not in "".join(said)


@pytest.mark.parametrize("words", [("line3", "--no-tui"), ("line3",)])
def test_a_demo_whose_terminal_is_closed_leaves_no_node_behind(place: Path, words: tuple[str, ...]) -> None:
    with terminal(place, *words) as screen:
        until(lambda: "Stop" in screen.said and len(running_in(place)) == 4, 20.0, "the nodes")
        time.sleep(1.0)
        os.kill(screen.process.pid, signal.SIGHUP)
        until(lambda: screen.process.poll() is not None, 15.0, "the end")
        assert running_in(place) == {}
    assert "Traceback" not in screen.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_while_its_nodes_start_leaves_none_behind(place: Path, number: signal.Signals) -> None:
    with started(place, "demo", "line3", "--no-tui") as demo:
        until(lambda: len(running_in(place)) >= 3, 10.0, "a node")
        demo.send_signal(number)
        assert demo.stdout is not None
        said = demo.stdout.read()
        assert demo.wait(15) != 0
        assert running_in(place) == {}
    assert "Traceback" not in said


class Terminal:
    """A pseudo terminal with a demo in it; `frame` is the live view as it stands on the screen."""

    def __init__(self, place: Path, *words: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [*KEYHOP, "demo", *words],
            cwd=place,
            env=environment(TERM="xterm-256color"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            # The terminal is its own, so that Ctrl-C reaches it as from a keyboard.
            preexec_fn=lambda: (heed_hangups(), os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        raw = b""
        while True:
            try:
                part = os.read(self.master, 65536)
            except OSError:
                return
            raw += part
            self.said = raw.decode(errors="replace")

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    @property
    def frame(self) -> str:
        """What was drawn last: each drawing begins at the upper left corner."""
        drawn = re.split(r"\x1b\[H", self.said)
        whole = [part for part in drawn if "[q] quit" in part]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", whole[-1]) if whole else ""

    def row(self, name: str) -> str:
        return next((line for line in self.frame.splitlines() if f"{name}  " in line), "")

    def chosen(self) -> str:
        return next((line for line in self.frame.splitlines() if line.startswith("▸")), "")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        self._reader.join(2)
        os.close(self.master)


@contextmanager
def terminal(place: Path, *words: str) -> Iterator[Terminal]:
    screen = Terminal(place, *words)
    try:
        yield screen
    finally:
        screen.close()


def test_by_hand_in_a_terminal_each_key_does_what_it_says(place: Path) -> None:
    west, east = "alice─relay", "bob─relay"
    with terminal(place, "line3") as screen:
        until(lambda: " up " in screen.row(west) and " up " in screen.row(east), 20.0, "a row for each link")
        assert west in screen.chosen()
        until(lambda: "read and answered ✓" in screen.frame and "alice─relay─bob" in screen.frame, 50.0, "a message")
        assert re.search(r"\d\.\d %", screen.row(west)), "the error rate of a link"
        assert re.search(r"\d [kM]b/s", screen.row(west)), "the key rate of a link"

        screen.press(DOWN)
        until(lambda: east in screen.chosen(), 3.0, "the choice")
        screen.press(UP + "j")
        time.sleep(0.5)
        assert east in screen.chosen()

        screen.press("e")
        until(lambda: "somebody listens on" in screen.frame, 3.0, "the eavesdropper")
        until(lambda: " suspended " in screen.row(east), 10.0, "the suspension")
        assert re.search(r"QBER 1\d\.\d % above", screen.row(east)), "the reason"
        assert " up " in screen.row(west)
        screen.press("e")
        until(lambda: "nobody listens on" in screen.frame and " up " in screen.row(east), 10.0, "the recovery")

        screen.press("kc")
        until(lambda: west in screen.chosen() and " is cut" in screen.frame, 3.0, "the cut")
        until(lambda: "no light" in screen.row(west), 10.0, "a link without light")
        assert " up " in screen.row(east)
        screen.press("c")
        until(lambda: " is spliced" in screen.frame and " up " in screen.row(west), 10.0, "the splice")

        assert len(running_in(place)) == 4
        screen.press("q")
        until(lambda: screen.process.poll() is not None, 15.0, "the end")
        assert screen.process.returncode == 0, screen.said
        assert running_in(place) == {}
        assert termios.tcgetattr(screen.slave) == screen.before, "the terminal is as it was"
        assert "Traceback" not in screen.said
        assert "\x1b[?25h" in screen.said.rpartition("[q] quit")[2], "the cursor is back"


def test_in_a_terminal_ctrl_c_ends_it_like_q(place: Path) -> None:
    with terminal(place, "line3") as screen:
        until(lambda: " up " in screen.row("alice─relay"), 20.0, "a row")
        screen.press("\x03")
        until(lambda: screen.process.poll() is not None, 15.0, "the end")
        assert screen.process.returncode == 0, screen.said
        assert running_in(place) == {}
        assert termios.tcgetattr(screen.slave) == screen.before
