"""Reading an audit chain: where it ends, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson

GENESIS = "0" * 64
"""What the first line of a chain carries as hash of its predecessor."""

TORN = "audit.torn"


class AuditError(Exception):
    """The log cannot be written, or a chain does not hold. Supply answers 503 until it can."""


def parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if isinstance(record, dict) and isinstance(record.get("seq"), int) and isinstance(record.get("prev"), str):
        return record
    return None


def follows(line: bytes, seq: int, head: str) -> bool:
    record = parsed(line)
    return record is not None and record["seq"] == seq + 1 and record["prev"] == head


def last_line(content: bytes) -> tuple[bytes | None, int]:
    """The last line that is whole and readable, and where it ends."""
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        line = content[start : end - 1]
        if parsed(line) is not None:
            return line, end
        end = start
    return None, 0


def last_commit(content: bytes) -> int:
    """The highest commit number in the log: they rise, and stand in a place of their own."""
    at = len(content)
    while (at := content.rfind(b'Z","commit":', 0, at)) >= 0:
        line = content[content.rfind(b"\n", 0, at) + 1 : content.find(b"\n", at)]
        record = parsed(line)
        if record is not None and isinstance(record.get("commit"), int):
            return int(record["commit"])
    return 0


class Verified(NamedTuple):
    """A chain that holds."""

    records: int
    first_seq: int
    seq: int
    head: str
    """Compare it with what a neighbour was told: a chain whose end was cut off holds too."""
    torn: int
    """Lines that a crash broke off, each closed by a record of its own."""


def verify(paths: Iterable[Path]) -> Verified:
    """Checks that the files form one chain without a gap; raises AuditError with the file and line that do not fit."""
    files = sorted((_first_seq(path), path) for path in paths)
    if not files:
        raise AuditError("no audit files: name at least one")
    first_seq = seq = files[0][0]
    head = ""
    records = torn = 0
    fragment: list[bytes] = []
    trouble = ""
    for _, path in files:
        with path.open("rb") as lines:
            for number, raw in enumerate(lines, 1):
                line = raw.removesuffix(b"\n")
                record = parsed(line)
                fits = record is not None and (
                    (record["seq"] == seq + 1 and record["prev"] == head)
                    if records
                    else (seq > 1 or record["prev"] == GENESIS)
                )
                if record is not None and fits and fragment:
                    broken = b"\n".join(fragment)
                    fits = (
                        record.get("action") == TORN
                        and record.get("bytes") == len(broken)
                        and record.get("sha256") == sha256(broken).hexdigest()
                    )
                    torn += fits
                if record is None or not fits:
                    trouble = trouble or f"{path}:{number}: does not follow line {seq} of the chain"
                    fragment.append(line)
                    continue
                fragment.clear()
                trouble = ""
                seq, head = record["seq"], sha256(line).hexdigest()
                records += 1
    if trouble:
        raise AuditError(trouble)
    return Verified(records, first_seq, seq, head, torn)


def _first_seq(path: Path) -> int:
    try:
        with path.open("rb") as lines:
            for line in lines:
                record = parsed(line)
                if record is not None:
                    return int(record["seq"])
    except OSError as error:
        raise AuditError(f"audit file {path} cannot be read: {error.strerror}") from error
    raise AuditError(f"audit file {path} has no whole line")
