"""A real node whose disk is full: it refuses or ends with a clear sentence, and loses no key that was answered."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from programs import end_all_in, until
from small_labs import PAIR, exchange, heard, kme, make, process_of

from keyhop import Key, KeyhopError, NotEnoughKey
from keyhop.emulator import lab as labs
from keyhop.emulator import processes
from keyhop.emulator.lab import Lab

pytestmark = pytest.mark.emulation

DISK_MIB = 8
"""A store with a link's prefill takes about two."""
NOTICED_S = 15.0


def ways_into_a_mount_namespace() -> list[str]:
    """Options with which `unshare` may mount a file system here, as root or in a user namespace; empty: none."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return []
    for options in (["--mount"], ["--mount", "--user", "--map-root-user"]):
        command = ["unshare", *options, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return options
    return []


NAMESPACE = ways_into_a_mount_namespace()


class Disk:
    """A small file system that only the processes in one mount namespace see. A sleeping process keeps it there."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._keeper = subprocess.Popen(
            [
                "unshare", *NAMESPACE, "sh", "-c",
                'mount -t tmpfs -o "size=$1,mode=700" tmpfs "$2" && touch "$2/mounted" && echo && exec sleep 600',
                "sh", f"{DISK_MIB}m", str(place),
            ],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"\n"

    def inside(self, *command: str) -> list[str]:
        user = ["--user", "--preserve-credentials"] if "--user" in NAMESPACE else []
        return ["nsenter", "--target", str(self._keeper.pid), *user, "--mount", *command]

    def fill(self) -> None:
        """To the last byte."""
        done = subprocess.run(
            self.inside("sh", "-c", 'cat /dev/zero > "$1/filler"', "sh", str(self.place)),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "No space left" in done.stderr

    def make_room(self) -> None:
        subprocess.run(self.inside("rm", str(self.place / "filler")), check=True)

    def close(self) -> None:
        self._keeper.kill()
        self._keeper.wait()
        assert self._keeper.stdout is not None
        self._keeper.stdout.close()


@contextmanager
def lab_with(place: Path, **on_disk: str) -> Iterator[tuple[Lab, Disk]]:
    """Two nodes; what is named lies on the small disk of `a`: words of its node file, each to be found there once."""
    if not NAMESPACE:
        pytest.skip("no file system can be mounted here: neither root nor a user namespace")
    lab = make(place, PAIR)
    config = lab.config("a")
    disk_place = config.parent / "disk"
    disk_place.mkdir()
    text = config.read_text()
    for name, value in on_disk.items():
        assert text.count(f"{name}: {value}\n") == 1
        text = text.replace(f"{name}: {value}\n", f"{name}: disk/{value}\n")
    config.write_text(text)
    disk = Disk(disk_place)
    try:
        start(lab, disk)
        yield lab, disk
    finally:
        labs.stop(labs.open_lab(lab.directory))
        disk.close()
        end_all_in(place)


def start(lab: Lab, disk: Disk) -> None:
    own = lab.config("a")
    labs.start(
        lab,
        command=lambda *configs: (
            disk.inside(*processes.node_command(*configs)) if own in configs else processes.node_command(*configs)
        ),
    )


def ask_until_refused(lab: Lab) -> tuple[list[Key], KeyhopError]:
    """All keys that the node answers with, and how it says no in the end."""
    deadline = time.monotonic() + NOTICED_S
    answered: list[Key] = []
    with kme(lab, "sae-a") as near:
        while time.monotonic() < deadline:
            try:
                answered += near.get_keys("sae-b", n=4)
            except KeyhopError as error:
                return answered, error
    raise TimeoutError(f"keys after {NOTICED_S:g} s on a full disk")


def fetch(lab: Lab, keys: list[Key]) -> None:
    with kme(lab, "sae-b") as far:
        for key in keys:
            assert far.fetch_key("sae-a", key.id) == key


def test_without_room_for_the_audit_log_no_key_is_given_until_there_is_room_again(tmp_path: Path) -> None:
    with lab_with(tmp_path, file="audit.jsonl") as (lab, disk):
        before = exchange(lab, "sae-a", "sae-b", 3)
        disk.fill()
        answered, refusal = ask_until_refused(lab)
        assert isinstance(refusal, NotEnoughKey)
        assert refusal.http_status == 503
        assert refusal.message == "the audit log cannot be written: no key is supplied"
        until(lambda: heard(lab, "a", "KH-5301"), 5.0, "the alarm")
        ready, why = processes.probe(*address(lab.node("a").manage))
        assert not ready
        assert "audit" in why
        fetch(lab, answered)

        disk.make_room()
        until(lambda: heard(lab, "a", "KH-5300"), NOTICED_S, "the end of the alarm")
        after = exchange(lab, "sae-a", "sae-b", 3)
        all_of_them = before + answered + after
        assert len({key.id for key in all_of_them}) == len({key.reveal() for key in all_of_them}) == len(all_of_them)
        assert heard(lab, "a", "node_started") == 1


def test_without_room_for_its_store_a_node_says_so_and_ends_and_goes_on_after_a_start(tmp_path: Path) -> None:
    with lab_with(tmp_path, path="store", file="audit.jsonl") as (lab, disk):
        before = exchange(lab, "sae-a", "sae-b", 3)
        disk.fill()
        answered, _ = ask_until_refused(lab)
        process = process_of(lab, "a")
        until(lambda: not processes.alive(process), NOTICED_S, "the end of the node")
        assert processes.exit_status(process) == 1
        last = processes.last_lines(lab.log("a"), 1)[0]
        assert '"event": "node_failed"' in last
        assert "StoreError: " in last
        assert "/disk/store/node.db" in last
        assert "full" in last or "No space left on device" in last
        assert "Traceback" not in lab.log("a").read_text()
        fetch(lab, answered)

        labs.stop(lab)
        disk.make_room()
        start(lab, disk)
        after = exchange(lab, "sae-a", "sae-b", 3)
        all_of_them = before + answered + after
        assert len({key.id for key in all_of_them}) == len({key.reveal() for key in all_of_them}) == len(all_of_them)


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
