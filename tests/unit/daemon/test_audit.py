"""The audit log: one chain over rotations, crashes and full disks, and supply that stops when it cannot be written."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyhop.core.node.store import Outboxed
from keyhop.daemon import audit
from keyhop.daemon.audit import AuditLog, Delivery
from keyhop.daemon.audit_chain import GENESIS, AuditError, verify

KEY_ID = "01234567-0123-4123-8123-0123456789ab"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def delivery() -> Delivery:
    return Delivery(
        actor={"cert_sha256": "ab" * 32, "sae": "sae-stp"},
        interface="etsi014",
        role="enc",
        peer="sae-frm",
        size_bits=256,
        path=["STP", "BRT"],
    )


class Disk:
    """Makes the system calls of the log fail, as a disk would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self.sync_error: int | None = None
        self.syncs = 0
        real_write, real_sync = os.write, os.fdatasync

        def write(descriptor: int, content: bytes) -> int:
            if self.room is None:
                return real_write(descriptor, content)
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = real_write(descriptor, content[: self.room])
            self.room -= written
            return written

        def fdatasync(descriptor: int) -> None:
            if self.sync_error:
                raise OSError(self.sync_error, os.strerror(self.sync_error))
            self.syncs += 1
            real_sync(descriptor)

        monkeypatch.setattr(audit.os, "write", write)
        monkeypatch.setattr(audit.os, "fdatasync", fdatasync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(path.name + "*"))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def actions(path: Path) -> list[object]:
    return [line["action"] for line in lines(path)]


def write(path: Path, *numbers: int, commit: bool = False) -> None:
    log = AuditLog(path)
    for number in numbers:
        if commit:
            log.take([Outboxed(number, b'{"action":"test","n":%d}' % number)])
        else:
            log.record({"action": "test", "n": number})
    log.close()


def test_a_delivery_is_one_line_with_all_that_happened(path: Path, delivery: Delivery) -> None:
    log = AuditLog(path, clock=lambda: 1_767_225_599.125)
    log.delivered(delivery, [KEY_ID, "second"])
    log.flush()
    assert lines(path) == [
        {
            "v": 1,
            "seq": 1,
            "ts": "2025-12-31T23:59:59.125Z",
            "actor": {"cert_sha256": "ab" * 32, "sae": "sae-stp"},
            "action": "key.deliver",
            "interface": "etsi014",
            "role": "enc",
            "peer": "sae-frm",
            "key_ids": [KEY_ID, "second"],
            "size": 256,
            "path": ["STP", "BRT"],
            "result": "ok",
            "prev": GENESIS,
        }
    ]
    log.close()


def test_each_line_carries_the_hash_of_the_one_before(path: Path) -> None:
    write(path, 1, 2, 3)
    raw = path.read_bytes().splitlines()
    for earlier, later in zip(raw, lines(path)[1:], strict=False):
        assert later["prev"] == sha256(earlier).hexdigest()
    assert verify([path]) == (3, 1, 3, sha256(raw[-1]).hexdigest(), 0)


def test_nothing_is_in_the_file_before_flush_and_all_of_it_after(path: Path, delivery: Delivery) -> None:
    log = AuditLog(path)
    log.delivered(delivery, [KEY_ID])
    log.record({"action": "lease"})
    assert path.read_bytes() == b"" and log.head == (0, GENESIS)
    log.flush()
    assert len(lines(path)) == 2 and log.head[0] == 2
    log.flush()
    assert len(lines(path)) == 2
    log.close()


def test_the_head_is_what_verification_finds(path: Path) -> None:
    log = AuditLog(path)
    log.record({"action": "x"})
    log.flush()
    head = log.head
    log.close()
    assert (verify([path]).seq, verify([path]).head) == head


def test_the_chain_goes_on_after_a_stop(path: Path) -> None:
    write(path, 1, 2)
    write(path, 3)
    assert [line["seq"] for line in lines(path)] == [1, 2, 3]
    assert verify([path]).records == 3


def test_text_is_escaped_as_json(path: Path) -> None:
    log = AuditLog(path)
    log.record({"action": "odd", "text": 'a"b\n{"v":1}\u2014'})
    log.close()
    assert lines(path)[0]["text"] == 'a"b\n{"v":1}\u2014'
    assert verify([path]).records == 1


@pytest.mark.parametrize("name", ["v", "seq", "ts", "prev", "commit"])
def test_an_entry_cannot_pretend_to_be_the_chain(path: Path, name: str) -> None:
    log = AuditLog(path)
    with pytest.raises(ValueError, match=name):
        log.record({"action": "x", name: 1})
    log.close()


def test_the_file_is_not_for_everybody(path: Path) -> None:
    write(path, 1)
    assert path.stat().st_mode & 0o027 == 0


# Changes that somebody made.


def edited(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda raw: [raw[0], raw[1].replace(b'"n":2', b'"n":7'), *raw[2:]], 3),
        (lambda raw: [raw[0], *raw[2:]], 2),
        (lambda raw: [raw[0], raw[2], raw[1], *raw[3:]], 2),
        (lambda raw: [raw[0], raw[0], *raw[1:]], 2),
        (lambda raw: [b"x", *raw], 1),
        (lambda raw: [raw[0][:50], *raw[1:]], 1),
        (lambda raw: [*raw, b"not a line"], 6),
        (lambda raw: [*raw[:3], b"{}\n", *raw[3:]], 4),
    ],
    ids=["edit", "removal", "swap", "repetition", "garbage before", "cut line", "garbage after", "insertion"],
)
def test_a_changed_file_is_named_with_its_line(
    path: Path, change: Callable[[list[bytes]], list[bytes]], line: int
) -> None:
    write(path, 1, 2, 3, 4, 5)
    edited(path, change)
    with pytest.raises(AuditError, match=rf"audit\.jsonl:{line}: "):
        verify([path])


def test_the_first_line_cannot_be_cut_off(path: Path) -> None:
    write(path, 1, 2, 3)
    edited(path, lambda raw: [raw[1].replace(b'"seq":2', b'"seq":1'), *raw[2:]])
    with pytest.raises(AuditError):
        verify([path])


def test_a_cut_end_shows_in_the_head_alone(path: Path) -> None:
    write(path, 1, 2, 3)
    before = verify([path])
    edited(path, lambda raw: raw[:2])
    assert verify([path]).head != before.head and verify([path]).seq == 2


def test_a_torn_record_covers_its_own_fragment_alone(path: Path) -> None:
    write(path, 1, 2)
    path.write_bytes(path.read_bytes() + b'{"v":1,"seq":3,"ts":"20')
    write(path, 4)
    assert verify([path]).torn == 1
    edited(path, lambda raw: [*raw[:2], raw[2].replace(b"20", b"21"), *raw[3:]])
    with pytest.raises(AuditError):
        verify([path])


def test_verifying_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError):
        verify([])
    with pytest.raises(AuditError, match="missing"):
        verify([tmp_path / "missing"])
    (tmp_path / "empty").touch()
    with pytest.raises(AuditError, match="no whole line"):
        verify([tmp_path / "empty"])


# Rotation.


def test_a_full_file_is_put_aside_and_the_chain_goes_on(path: Path) -> None:
    log = AuditLog(path, rotate_bytes=2000)
    for number in range(50):
        log.record({"action": "test", "n": number})
        log.flush()
    log.close()
    assert len(files(path)) > 3
    assert all(file.stat().st_size <= 2000 for file in files(path))
    verified = verify(reversed(files(path)))
    assert verified.seq == verified.records == 50 + len(files(path)) - 1
    found = [line["n"] for file in files(path)[1:] + files(path)[:1] for line in lines(file) if "n" in line]
    assert found == list(range(50))


def test_a_missing_file_of_a_chain_is_noticed(path: Path) -> None:
    log = AuditLog(path, rotate_bytes=500)
    for number in range(20):
        log.record({"action": "test", "n": number})
        log.flush()
    log.close()
    middle = files(path)[3]
    with pytest.raises(AuditError):
        verify([file for file in files(path) if file != middle])


def test_a_batch_larger_than_a_file_is_written_whole(path: Path) -> None:
    log = AuditLog(path, rotate_bytes=300)
    for number in range(10):
        log.record({"action": "test", "n": number})
    log.flush()
    log.record({"action": "test", "n": 10})
    log.close()
    assert verify(files(path)).records == 12


def test_the_chain_goes_on_when_the_crash_came_between_two_files(path: Path) -> None:
    log = AuditLog(path, rotate_bytes=500)
    for number in range(1, 10):
        log.take([Outboxed(number, b'{"action":"test","n":%d}' % number)])
        log.flush()
    log.close()
    path.rename(path.with_name(f"audit.jsonl.{log.head[0]:012d}"))
    log = AuditLog(path, rotate_bytes=500)
    log.take([Outboxed(9, b'{"action":"test","n":9}'), Outboxed(10, b'{"action":"test","n":10}')])
    log.close()
    verify(files(path))
    found = [line["n"] for file in files(path) for line in lines(file) if "n" in line]
    assert sorted(found) == list(range(1, 11))  # type: ignore[type-var]


def test_single_keys_and_batches_make_one_chain(path: Path, delivery: Delivery) -> None:
    log = AuditLog(path, rotate_bytes=20_000)
    for number in range(200):
        log.delivered(delivery, [KEY_ID])
        log.flush()
        if number % 3 == 0:
            log.take([Outboxed(number + 1, b'{"action":"test","n":%d}' % number)])
        if number % 5 == 0:
            log.record({"action": "other"})
    log.close()
    verified = verify(files(path))
    rotations = sum(action == "audit.rotated" for file in files(path) for action in actions(file))
    assert verified.records == 200 + 67 + 40 + rotations and rotations == len(files(path)) - 1 > 0


def test_what_a_flush_could_not_write_whole_is_not_in_the_file_and_the_chain_goes_on(
    path: Path, delivery: Delivery, disk: Disk
) -> None:
    log = AuditLog(path)
    log.delivered(delivery, [KEY_ID])
    log.flush()
    disk.room = 400
    for _ in range(2):
        log.delivered(delivery, [KEY_ID])
    with pytest.raises(AuditError):
        log.flush()
    assert len(lines(path)) == 1 and not log.healthy
    disk.room = None
    log.resume()
    log.delivered(delivery, [KEY_ID])
    log.flush()
    log.close()
    assert verify([path]).records == 3


def test_the_first_line_after_a_crash_between_two_files_still_tells_the_commits(path: Path, delivery: Delivery) -> None:
    write(path, 1, 2, commit=True)
    path.rename(path.with_name(f"audit.jsonl.{2:012d}"))
    log = AuditLog(path)
    log.delivered(delivery, [KEY_ID])
    log.close()
    assert actions(path) == ["audit.rotated", "key.deliver"]
    write(path, 1, 2, 3, commit=True)
    assert [line["n"] for line in lines(path) if "n" in line] == [3]


# Crashes.


@given(cut=st.integers(1, 400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_the_last_line_was_torn_the_chain_holds_again(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    write(path, 1, 2, 3)
    content = path.read_bytes()
    path.write_bytes(content[: max(len(content) - cut, 0)])
    write(path, 4)
    verified = verify([path])
    assert verified.torn <= 1
    kept = [line for line in path.read_bytes().splitlines() if line in content.splitlines()]
    assert kept == content.splitlines()[: len(kept)]


@pytest.mark.parametrize(
    "rubbish", [b"\0" * 700, b"\0" * 100 + b"\n\n" + b"\0" * 50, b"\n", b"{}\n", b'{"seq":9,"prev":""}']
)
def test_rubbish_that_power_loss_left_is_closed_by_one_record(path: Path, rubbish: bytes) -> None:
    write(path, 1, 2)
    path.write_bytes(path.read_bytes() + rubbish)
    write(path, 3)
    write(path, 4)
    assert verify([path]).torn == 1
    last = lines_that_parse(path)[-3:]
    assert [line["action"] for line in last] == ["audit.torn", "test", "test"]


def lines_that_parse(path: Path) -> list[dict[str, object]]:
    found = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if "seq" in record and "action" in record:
            found.append(record)
    return found


def test_a_line_that_lost_its_end_alone_stays_a_line(path: Path) -> None:
    write(path, 1, 2, commit=True)
    path.write_bytes(path.read_bytes()[:-1])
    write(path, 2, 3, commit=True)
    assert [line["n"] for line in lines(path)] == [1, 2, 3]
    assert verify([path]) == (3, 1, 3, verify([path]).head, 0)


# What travelled in a durable commit.


def test_entries_of_a_commit_are_written_once_however_often_they_come_back(path: Path) -> None:
    write(path, 1, 2, commit=True)
    write(path, 1, 2, 3, commit=True)
    log = AuditLog(path)
    log.take([Outboxed(2, b'{"n":2}'), Outboxed(3, b'{"n":3}'), Outboxed(4, b'{"n":4}')])
    log.take([Outboxed(4, b'{"n":4}'), Outboxed(5, b'{"n":5}')])
    log.record({"action": "other"})
    log.close()
    assert [line["n"] for line in lines(path) if "n" in line] == [1, 2, 3, 4, 5]
    assert [line["commit"] for line in lines(path) if "n" in line] == [1, 2, 3, 4, 5]


def test_they_are_written_once_over_a_rotation_too(path: Path) -> None:
    log = AuditLog(path, rotate_bytes=400)
    log.take(Outboxed(number, b'{"n":%d,"action":"test"}' % number) for number in range(1, 4))
    log.flush()
    for _ in range(10):
        log.record({"action": "other"})
        log.flush()
    log.close()
    assert not any("n" in line for line in lines(path))
    write(path, 1, 2, 3, 4, commit=True)
    assert [line["n"] for line in lines(path) if "n" in line] == [4]


def test_sync_tells_up_to_which_commit_the_log_is_durable(path: Path) -> None:
    log = AuditLog(path)
    assert log.sync() == 0
    log.take([Outboxed(1, b'{"n":1}'), Outboxed(2, b'{"n":2}')])
    assert log.sync() == 0
    log.flush()
    assert log.sync() == 2
    log.close()
    assert AuditLog(path).sync() == 2


def test_a_commit_number_in_somebody_elses_text_is_not_taken_for_one(path: Path) -> None:
    log = AuditLog(path)
    log.take([Outboxed(1, b'{"n":1}')])
    log.record({"action": 'Z","commit":99', "name": 'x Z","commit":99'})
    log.close()
    assert AuditLog(path).sync() == 1


# A disk that refuses.


@pytest.mark.parametrize("room", [0, 1, 150])
def test_a_full_disk_stops_supply_and_leaves_no_half_line(path: Path, disk: Disk, room: int) -> None:
    log = AuditLog(path)
    log.record({"action": "before"})
    log.flush()
    disk.room = room
    log.record({"action": "never answered", "n": 1})
    log.take([Outboxed(1, b'{"action":"durable"}')])
    with pytest.raises(AuditError, match="cannot be written"):
        log.flush()
    assert not log.healthy and "cannot be written" in log.failure
    assert actions(path) == ["before"]
    with pytest.raises(AuditError):
        log.record({"action": "refused"})
    with pytest.raises(AuditError):
        log.flush()
    with pytest.raises(AuditError):
        log.resume()
    assert not log.healthy
    disk.room = None
    log.resume()
    assert log.healthy
    assert actions(path) == ["before", "audit.resumed", "durable"]
    log.record({"action": "after"})
    log.close()
    assert verify([path]).records == 4


def test_a_failed_sync_is_never_made_good(path: Path, disk: Disk) -> None:
    log = AuditLog(path)
    log.take([Outboxed(1, b'{"action":"x"}')])
    log.flush()
    disk.sync_error = errno.EIO
    with pytest.raises(AuditError, match="cannot be synced"):
        log.sync()
    disk.sync_error = None
    assert not log.healthy
    with pytest.raises(AuditError):
        log.resume()
    assert not log.healthy


def test_with_sync_an_answer_waits_for_the_disk(path: Path, disk: Disk) -> None:
    log = AuditLog(path, sync=True)
    before = disk.syncs
    log.record({"action": "x"})
    log.flush()
    assert disk.syncs == before + 1
    log.record({"action": "y"})
    disk.sync_error = errno.EIO
    with pytest.raises(AuditError):
        log.flush()


def test_without_sync_an_answer_does_not_wait(path: Path, disk: Disk) -> None:
    log = AuditLog(path)
    before = disk.syncs
    log.record({"action": "x"})
    log.flush()
    assert disk.syncs == before
    log.sync()
    log.sync()
    assert disk.syncs == before + 1


def test_both_files_of_a_rotation_are_synced(path: Path, disk: Disk) -> None:
    log = AuditLog(path, rotate_bytes=300)
    before = disk.syncs
    for _ in range(3):
        log.record({"action": "x"})
        log.flush()
    assert len(files(path)) == 2
    log.sync()
    assert disk.syncs == before + 2


def test_a_rotation_that_fails_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(path, rotate_bytes=300)
    log.record({"action": "one"})
    log.flush()

    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(audit.os, "rename", refuse)
    for _ in range(2):
        log.record({"action": "refused"})
    with pytest.raises(AuditError):
        log.flush()
    monkeypatch.undo()
    log.resume()
    log.record({"action": "two"})
    log.close()
    order = [action for file in [*files(path)[1:], path] for action in actions(file)]
    assert [action for action in order if action != "audit.rotated"] == ["one", "audit.resumed", "two"]
    verify([file for file in files(path) if file.suffix != ".new"])


def test_what_is_written_is_synced_within_a_second_and_the_store_is_told(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit.SYNC_PERIOD_S <= 0.5
    monkeypatch.setattr(audit, "SYNC_PERIOD_S", 0.005)
    told: list[int] = []

    async def run() -> None:
        log = AuditLog(path)
        keeping = asyncio.create_task(log.keep_synced(told.append))
        log.take([Outboxed(1, b'{"action":"x"}')])
        log.flush()
        await asyncio.sleep(0.05)
        assert told[-1] == 1
        disk.room = 0
        log.record({"action": "y"})
        with pytest.raises(AuditError):
            log.flush()
        await asyncio.sleep(0.05)
        assert not log.healthy
        disk.room = None
        await asyncio.sleep(0.05)
        assert log.healthy
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        log.close()

    asyncio.run(run())
    assert actions(path) == ["x", "audit.resumed"]


@pytest.mark.parametrize("place", ["no/such/directory/audit.jsonl", "."])
def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(AuditError, match="cannot be opened"):
        AuditLog(tmp_path / place)


WRITER = """
import resource, sys
from pathlib import Path
from keyhop.daemon.audit import AuditLog
from keyhop.daemon.audit_chain import AuditError
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
log = AuditLog(Path(sys.argv[1]))
answered = 0
try:
    while True:
        log.record({"action": "test", "n": answered + 1})
        log.flush()
        answered += 1
except AuditError as error:
    print(answered, log.healthy, error)
"""


def test_when_the_operating_system_takes_no_more_everything_answered_is_in_the_file(path: Path) -> None:
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    found = re.match(r"(\d+) False .*cannot be written", done.stdout)
    assert found is not None, done.stdout
    assert [line["n"] for line in lines(path)] == list(range(1, int(found[1]) + 1))
    assert verify([path]).records == int(found[1]) > 5
