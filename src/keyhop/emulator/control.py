"""The control file of an emulated link: whether its fibre is cut, who listens on it, which faults its modules show.

One file per link in the lab's directory, written by lab commands and the demo, read by the module at each end. A
change takes effect a moment after it is written, so that both ends have read it by then and agree on the block it
first falls into.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

LINKS_DIRECTORY = "links"
CONTROL_FILE = "control.json"

POLL_NS = 100_000_000
"""How often each end looks for a new control file."""
EFFECT_DELAY_NS = 250_000_000
"""A change takes effect this long after it is written: more than two polls."""

CONTROL_FILE_LIMIT_BYTES = 64 * 1024
CHANGES_KEPT = 64
FAULT_LIMIT = 64

_LINK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ControlError(ValueError):
    """The control file, or what should go into it, is not legal."""


class FaultName(StrEnum):
    """What a real module does wrong and an emulated one can be told to."""

    ONE_SIDED = "one_sided"
    """One end does not deliver the block."""
    LATE = "late"
    """One end delivers the block later than the other."""
    REORDERED = "reordered"
    """One end delivers the block after the one that follows it."""
    DUPLICATE_AFTER_RESTART = "duplicate_after_restart"
    """One end restarts after the block and delivers it a second time."""
    FLIPPED_BIT = "flipped_bit"
    """One bit of the block differs between the ends."""
    RESTART_LOSES = "restart_loses"
    """One end restarts and loses the block it had not delivered."""
    DIFFERENT_LENGTH = "different_length"
    """One end delivers a shorter block than the other."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One fault, shown at one end for some blocks in a row."""

    name: FaultName
    number: int
    """First block that shows it."""
    count: int = 1
    """How many blocks in a row show it."""
    node: str = ""
    """The end that misbehaves; empty: the end with the lower name."""
    delay_s: float = 0.0
    """For `late`: how much later; 0: two and a half block periods."""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the fibre is from one moment on."""

    at_ns: int
    """Moment of the machine's monotonic clock."""
    cut: bool = False
    eve_fraction: float = 0.0
    """Share of the pulses that an eavesdropper intercepts and sends again, 0 to 1."""


UNTOUCHED = Change(at_ns=0)


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    changes: tuple[Change, ...] = ()
    """In the order of their moments."""
    faults: tuple[Fault, ...] = ()

    def at(self, now_ns: int) -> Change:
        """How the fibre is at this moment."""
        current = UNTOUCHED
        for change in self.changes:
            if change.at_ns > now_ns:
                break
            current = change
        return current

    def during(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, Change]]:
        """The states of the fibre between two moments, each with how long it lasted, in ns."""
        current, since_ns = self.at(start_ns), start_ns
        for change in self.changes:
            if start_ns < change.at_ns < end_ns:
                yield change.at_ns - since_ns, current
                current, since_ns = change, change.at_ns
        yield end_ns - since_ns, current

    @property
    def latest(self) -> Change:
        """What was asked for last, in effect or about to be."""
        return self.changes[-1] if self.changes else UNTOUCHED


def link_directory(lab_dir: Path, link_id: str) -> Path:
    """Raises ControlError for a name that is not a link of this lab, also one that would leave the directory."""
    directory = lab_dir / LINKS_DIRECTORY / link_id
    if not _LINK_ID.fullmatch(link_id) or not directory.is_dir():
        known = ", ".join(link_ids(lab_dir)) or "none"
        raise ControlError(f"no link {link_id!r} in lab {lab_dir}: its links are {known}")
    return directory


def link_ids(lab_dir: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in (lab_dir / LINKS_DIRECTORY).iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def set_eve(lab_dir: Path, link_id: str, fraction: float) -> Control:
    """Puts an eavesdropper on a link who intercepts this share of the pulses; 0 takes it away again."""
    if not 0.0 <= fraction <= 1.0:
        raise ControlError(f"eve_fraction = {fraction}: must be between 0 and 1")
    return _change(lab_dir, link_id, lambda latest: msgspec.structs.replace(latest, eve_fraction=float(fraction)))


def cut(lab_dir: Path, link_id: str) -> Control:
    return _change(lab_dir, link_id, lambda latest: msgspec.structs.replace(latest, cut=True))


def restore(lab_dir: Path, link_id: str) -> Control:
    """Mends the fibre and takes the eavesdropper away; faults stay."""
    return _change(lab_dir, link_id, lambda _: UNTOUCHED)


def add_fault(lab_dir: Path, link_id: str, fault: Fault) -> Control:
    return _edit(
        link_directory(lab_dir, link_id),
        lambda control: msgspec.structs.replace(control, faults=(*control.faults, fault)),
    )


def clear_faults(lab_dir: Path, link_id: str) -> Control:
    return _edit(link_directory(lab_dir, link_id), lambda control: msgspec.structs.replace(control, faults=()))


def reset(lab_dir: Path, link_id: str) -> Control:
    """An untouched link without faults: how a lab starts. (Moments in an old file may be those of another boot.)"""
    return _edit(link_directory(lab_dir, link_id), lambda _: Control())


def read(lab_dir: Path, link_id: str) -> Control:
    return read_file(link_directory(lab_dir, link_id) / CONTROL_FILE)


def read_file(path: Path) -> Control:
    """A missing file is an untouched link. Raises ControlError naming what is wrong in the file."""
    try:
        with path.open("rb") as file:
            body = file.read(CONTROL_FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return Control()
    if len(body) > CONTROL_FILE_LIMIT_BYTES:
        raise ControlError(f"{path}: more than {CONTROL_FILE_LIMIT_BYTES} bytes")
    try:
        control = msgspec.json.decode(body, type=Control)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ControlError(f"{path}: {error}") from None
    _check(control)
    return control


def _check(control: Control) -> None:
    if any(later.at_ns <= earlier.at_ns for earlier, later in itertools.pairwise(control.changes)):
        raise ControlError("changes are not in the order of their at_ns")
    for change in control.changes:
        if not 0.0 <= change.eve_fraction <= 1.0:
            raise ControlError(f"eve_fraction = {change.eve_fraction}: must be between 0 and 1")
    if len(control.faults) > FAULT_LIMIT:
        raise ControlError(f"{len(control.faults)} faults on one link: at most {FAULT_LIMIT}, clear some first")
    for fault in control.faults:
        if fault.number < 0 or fault.count < 1 or not 0.0 <= fault.delay_s < 86_400:
            raise ControlError(
                f"fault {fault.name} with number = {fault.number}, count = {fault.count}, delay_s = {fault.delay_s}: "
                "number must be 0 or more, count 1 or more, delay_s from 0 to a day"
            )


def _change(lab_dir: Path, link_id: str, edit: Callable[[Change], Change]) -> Control:
    def appended(control: Control) -> Control:
        at_ns = max(time.monotonic_ns() + EFFECT_DELAY_NS, control.latest.at_ns + 1)
        change = msgspec.structs.replace(edit(control.latest), at_ns=at_ns)
        return msgspec.structs.replace(control, changes=(*control.changes, change)[-CHANGES_KEPT:])

    return _edit(link_directory(lab_dir, link_id), appended)


def _edit(directory: Path, edit: Callable[[Control], Control]) -> Control:
    path = directory / CONTROL_FILE
    with _only_writer(directory):
        control = edit(read_file(path))
        _check(control)
        fresh = directory / (CONTROL_FILE + ".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(control))
        os.replace(fresh, path)
    return control


@contextlib.contextmanager
def _only_writer(directory: Path) -> Iterator[None]:
    """Two lab commands at once must not lose each other's change."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
