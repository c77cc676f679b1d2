"""The first-contact file: the secret two key managers share before their link has given any key.

Layout, integers big-endian: magic (16 bytes), version (2), link number (16), for each node in the order of names a
length (1) and the name, secret (65,536), SHA-256 over all before it (32). The checksum finds a damaged copy; it says
nothing to anyone who does not hold the secret beside it, and is overwritten with it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from keyhop.core.node.recovery import FIRST_CONTACT_BYTES

SECRET_BYTES = FIRST_CONTACT_BYTES
"""For one link. The lower-named node owns the first half, the other the second."""
OPENING_BYTES = 4 * 1024
"""The first part of each half starts its owner's opening run, the rest its tag run."""
LINK_NUMBER_BYTES = 16

VERSION = 1
MAGIC = b"keyhop link key\n"
USED_MAGIC = b"keyhop used key\n"
CHECKSUM_BYTES = 32
FILE_LIMIT_BYTES = SECRET_BYTES + 1024
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class LinkKeyError(Exception):
    """The file cannot be used; the text names it and says what to do."""


class LinkKeyUsed(LinkKeyError):
    """The secret was loaded before and has been overwritten."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LinkKey:
    """The secret of one link; `wipe()` when both ends' runs have taken it in."""

    number: bytes
    """16 random bytes that name this secret. A number seen before must be refused."""
    lower: str
    higher: str
    secret: bytearray

    def __repr__(self) -> str:
        return f"<LinkKey {self.lower}-{self.higher} {self.number.hex()[:8]}…>"

    def opening(self, owner: str) -> memoryview:
        """What starts the opening run of this end."""
        return self._half(owner)[:OPENING_BYTES]

    def tags(self, owner: str) -> memoryview:
        """What starts the tag run of this end."""
        return self._half(owner)[OPENING_BYTES:]

    def wipe(self) -> None:
        self.secret[:] = bytes(len(self.secret))

    def _half(self, owner: str) -> memoryview:
        if owner not in (self.lower, self.higher):
            raise ValueError(f"{owner} is no end of link {self.lower}-{self.higher}")
        start = 0 if owner == self.lower else SECRET_BYTES // 2
        return memoryview(self.secret)[start : start + SECRET_BYTES // 2]


def make(one: str, other: str, entropy: Callable[[int], bytes] = os.urandom) -> LinkKey:
    """A new secret for the link between two nodes; raises LinkKeyError for names that cannot be ends of a link."""
    for name in (one, other):
        if not NODE_NAME.fullmatch(name):
            raise LinkKeyError(f"node {name!r}: must be 1 to 63 letters, digits, '.', '_' or '-'")
    if one == other:
        raise LinkKeyError(f"node {one}: a link has two different ends; name the neighbour")
    lower, higher = sorted((one, other))
    return LinkKey(bytes(entropy(LINK_NUMBER_BYTES)), lower, higher, bytearray(entropy(SECRET_BYTES)))


def write(key: LinkKey, path: Path) -> None:
    """Makes the file, readable by its owner alone; refuses to replace one. Raises LinkKeyError."""
    content = bytearray(_header(MAGIC, key.number, key.lower, key.higher) + key.secret)
    content += hashlib.sha256(content).digest()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            _write_all(file.fileno(), content)
            os.fsync(file.fileno())
        _sync_directory(path)
    except FileExistsError:
        raise LinkKeyError(f"{path}: exists already; a link key is never replaced, choose another name") from None
    except OSError as error:
        raise LinkKeyError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        content[:] = bytes(len(content))


def read(path: Path) -> LinkKey:
    """Raises LinkKeyUsed if `consume` was here before, LinkKeyError if anything else is wrong."""
    try:
        with path.open("rb", buffering=0) as file:
            _check_mode(path, os.fstat(file.fileno()).st_mode)
            content = bytearray(FILE_LIMIT_BYTES)
            length = _read_all(file.fileno(), content)
    except OSError as error:
        raise LinkKeyError(f"{path}: cannot be read ({error.strerror}); make one with `keyhop link key`") from None
    try:
        return _parse(path, memoryview(content)[:length])
    finally:
        content[:] = bytes(len(content))


def consume(path: Path) -> None:
    """Overwrites the secret in place, as far as the medium truly overwrites, and leaves a note that it was used.

    Call it when both the runs and the link number are durable. Raises LinkKeyError.
    """
    try:
        key = read(path)
    except LinkKeyUsed:
        return
    note = _header(USED_MAGIC, key.number, key.lower, key.higher)
    key.wipe()
    try:
        with path.open("r+b", buffering=0) as file:
            descriptor = file.fileno()
            _write_all(descriptor, bytes(os.fstat(descriptor).st_size))
            os.fsync(descriptor)
            os.lseek(descriptor, 0, os.SEEK_SET)
            _write_all(descriptor, note)
            os.ftruncate(descriptor, len(note))
            os.fsync(descriptor)
    except OSError as error:
        raise LinkKeyError(f"{path}: cannot be overwritten ({error.strerror}); destroy every copy of it") from None


def _header(magic: bytes, number: bytes, lower: str, higher: str) -> bytes:
    names = b"".join(bytes([len(name)]) + name.encode("ascii") for name in (lower, higher))
    return magic + VERSION.to_bytes(2, "big") + number + names


def _parse(path: Path, content: memoryview) -> LinkKey:
    magic = bytes(content[: len(MAGIC)])
    if magic not in (MAGIC, USED_MAGIC):
        raise LinkKeyError(f"{path}: is no link key; make one with `keyhop link key`")
    at = len(MAGIC)
    version = int.from_bytes(content[at : at + 2], "big")
    if version != VERSION:
        raise LinkKeyError(f"{path}: has format version {version}; this program reads version {VERSION}")
    at += 2
    number = bytes(content[at : at + LINK_NUMBER_BYTES])
    at += LINK_NUMBER_BYTES
    names = []
    for _ in range(2):
        length = content[at] if at < len(content) else 0
        names.append(bytes(content[at + 1 : at + 1 + length]).decode("ascii", "replace"))
        at += 1 + length
    lower, higher = names
    damaged = LinkKeyError(f"{path}: is damaged; copy it again or make a new one with `keyhop link key`")
    if not (NODE_NAME.fullmatch(lower) and NODE_NAME.fullmatch(higher) and lower < higher):
        raise damaged
    if magic == USED_MAGIC:
        raise LinkKeyUsed(f"{path}: was loaded and overwritten; make a new one with `keyhop link key {lower} {higher}`")
    if len(content) != at + SECRET_BYTES + CHECKSUM_BYTES:
        raise damaged
    checksum = hashlib.sha256(content[: at + SECRET_BYTES]).digest()
    if not hmac.compare_digest(checksum, content[at + SECRET_BYTES :]):
        raise damaged
    return LinkKey(number, lower, higher, bytearray(content[at : at + SECRET_BYTES]))


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise LinkKeyError(f"{path}: is no file; make one with `keyhop link key`")
    if mode & 0o077:
        raise LinkKeyError(f"{path}: others may open it (mode {stat.S_IMODE(mode):04o}); run `chmod 600 {path}`")


def _write_all(descriptor: int, content: bytes | bytearray) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_all(descriptor: int, buffer: bytearray) -> int:
    length = 0
    while length < len(buffer):
        count = os.readv(descriptor, [memoryview(buffer)[length:]])
        if count == 0:
            break
        length += count
    return length


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
