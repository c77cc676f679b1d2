"""The keys of a store: the node key from its file, and what is derived from it to authenticate what is not sealed."""

from __future__ import annotations

import os
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from keyhop.core.model import Range
from keyhop.core.node.store import Damaged, StoreError
from keyhop.crypto import keywrap

SCHEMA_VERSION = 1

NODE_KEY_BYTES = keywrap.KEY_BYTES
CHECK_BYTES = 16
TAG_BYTES = 16
SUM_BYTES = 32

LEGAL_MODES = (0o400, 0o600)


class NodeKey:
    """The key at the top. Whoever has it and the store's files has the keys in them."""

    def __init__(self, bits: bytes | bytearray) -> None:
        if len(bits) != NODE_KEY_BYTES:
            raise StoreError(f"node key of {len(bits)} bytes: must be {NODE_KEY_BYTES}")
        self._bits = bytearray(bits)

    def __repr__(self) -> str:
        return "NodeKey(hidden)"

    def derive(self, purpose: str, store_id: bytes) -> bytes:
        """A key for one purpose in one store."""
        return keywrap.derive(self._bits, _place("keyhop", purpose, store_id))

    def check(self, store_id: bytes) -> bytes:
        """Tells this node key from another without telling anything of it."""
        return self.derive("check", store_id)[:CHECK_BYTES]


def read_node_key(path: Path) -> NodeKey:
    """Reads a node key from a file of 32 raw bytes that its owner alone may read; raises StoreError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise StoreError(f"node key {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"node key {path} is not a plain file")
        mode = stat.S_IMODE(status.st_mode)
        if mode not in LEGAL_MODES:
            raise StoreError(f"node key {path} has mode {mode:04o}: must be 0400 or 0600 (chmod 0400 {path})")
        if status.st_uid not in (0, os.geteuid()):
            raise StoreError(f"node key {path} belongs to user {status.st_uid}: must be root's or {os.geteuid()}'s")
        if status.st_size != NODE_KEY_BYTES:
            raise StoreError(f"node key {path} has {status.st_size} bytes: must be {NODE_KEY_BYTES}")
        return NodeKey(os.read(descriptor, NODE_KEY_BYTES))
    except OSError as error:
        raise StoreError(f"node key {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def make_node_key(path: Path) -> None:
    """Writes a fresh node key to a file that must not exist yet; raises StoreError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(os.urandom(NODE_KEY_BYTES))
            os.fsync(descriptor)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(f"node key {path} cannot be made: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Makes a new or renamed name in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Marker:
    """Authenticates rows one by one, and all together.

    A tag alone would not notice that a row is missing, or was put back as it stood yesterday. So every row also has a
    share, a keyed hash of its own, and the XOR of all shares is kept sealed with the journal number. Somebody without
    the key sees neither shares nor sum, so he cannot choose rows whose shares cancel out.
    """

    def __init__(self, node_key: NodeKey, store_id: bytes, node: str) -> None:
        self._key = node_key.derive("rows", store_id)
        self._state_key = node_key.derive("state", store_id)
        self._frame_key = node_key.derive("frames", store_id)
        self._node = node
        # A store that was restored counts its journal numbers again, so they alone are no nonces: each opening of the
        # store has a key of its own.
        self._salt = os.urandom(16)
        self._salted = keywrap.derive(self._state_key, self._salt)
        self._sealed = 0
        self.sum = 0
        """XOR of the shares of all that is stored."""

    def __repr__(self) -> str:
        return "Marker(hidden)"

    def toggle(self, table: str, *fields: Any) -> bytes:
        """Takes a row's share into the sum, or out of it; gives the tag that stands beside the row."""
        digest = blake2b(_place(table, *fields), key=self._key, digest_size=TAG_BYTES + SUM_BYTES).digest()
        self.sum ^= int.from_bytes(digest[TAG_BYTES:], "big")
        return digest[:TAG_BYTES]

    def check(self, tag: bytes, table: str, *fields: Any) -> None:
        """As `toggle` for a row that was read: raises Damaged with its name if its tag is not the right one."""
        if self.toggle(table, *fields) != tag:
            name = " ".join(str(field) for field in fields if isinstance(field, int | str))
            raise Damaged(f"{table} {name} is damaged")

    def frame(self, content: bytes) -> bytes:
        """The tag of a frame, which no sum counts until it is folded into rows."""
        return blake2b(content, key=self._frame_key, digest_size=TAG_BYTES).digest()

    def seal_state(self, journal: int, state: bytes) -> bytes:
        self._sealed += 1
        nonce = self._sealed.to_bytes(keywrap.NONCE_BYTES, "big")
        return self._salt + keywrap.seal_again(self._salted, nonce, state, self._state_place(journal))

    def open_state(self, journal: int, sealed: bytes) -> bytes:
        """Raises NotAuthentic."""
        salt = sealed[: len(self._salt)]
        salted = keywrap.derive(self._state_key, salt)
        return keywrap.open_again(salted, sealed[len(self._salt) :], self._state_place(journal))

    def _state_place(self, journal: int) -> bytes:
        return _place("state", SCHEMA_VERSION, self._node, journal)


def block_place(node: str, block: Range) -> bytes:
    """What a sealed block is bound to: moved anywhere else it does not open."""
    return _place("block", SCHEMA_VERSION, node, block.run.peer, block.run.number, block.start, block.length)


def secret_place(node: str, name: str) -> bytes:
    return _place("secret", SCHEMA_VERSION, node, name)


def _place(*fields: Any) -> bytes:
    # A msgpack array says of each field where it ends, so two different lists never give the same bytes.
    return msgspec.msgpack.encode(fields)
