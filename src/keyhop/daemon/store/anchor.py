"""The anchor: a small file outside the store that remembers the start number; and the key this node vouches with."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from keyhop.core.node.store import StoreError
from keyhop.crypto import keywrap
from keyhop.crypto.keywrap import NotAuthentic
from keyhop.daemon.store.sealing import NodeKey, sync_directory

ANCHOR_LIMIT_BYTES = 4096

LOST_JUMP = 1 << 20
"""Starts above its store's number that a node goes on with when its anchor is lost, and up to as many more at random.

The store beside a lost anchor may be an old copy, and the neighbours that know better may be away. Link state numbers
its messages from start number x 2^32, which leaves room for a thousand lost anchors.
"""

_PLACE = b"keyhop anchor v1"


class _Content(msgspec.Struct, array_like=True):
    node: str
    start_number: int


class Anchor:
    """What a start has to know before the node says a word.

    Order of a start: `open_anchor` with the number in the store; the core saves `start_number`; `confirm`; only then
    may a neighbour see it. The store goes first. If a crash comes between the two, the store is ahead by one, which an
    old copy of the store never is, so it is believed and the anchor follows. With the anchor first, the same crash
    would look like a restored store and burn all key in stock.
    """

    def __init__(
        self, path: Path, key: bytes, node: str, start_number: int, vouch_key: bytes, restored: bool, reason: str
    ) -> None:
        self._path = path
        self._key = key
        self._node = node
        self.start_number = start_number
        """Of this start; higher than any this store or this anchor ever saw."""
        self.vouch_key = vouch_key
        """Made from the node key: what neighbours return still counts when the anchor is lost, or is an old copy."""
        self.restored = restored
        """The store is older than the anchor, or nobody can tell."""
        self.reason = reason
        """Why, for people; empty if it was not restored."""

    def __repr__(self) -> str:
        return f"Anchor({str(self._path)!r}, start {self.start_number}, restored={self.restored})"

    def confirm(self) -> None:
        """The store holds the start number durably: now the anchor does too. Raises StoreError."""
        self._write(self.start_number)

    def follow(self, start_number: int) -> None:
        """The store holds this number durably: a node that finds itself restored takes a higher one as it runs."""
        if start_number > self.start_number:
            self.start_number = start_number
            self.confirm()

    def _write(self, start_number: int) -> None:
        content = msgspec.msgpack.encode(_Content(self._node, start_number))
        sealed = keywrap.seal_again(self._key, os.urandom(keywrap.NONCE_BYTES), content, _PLACE)
        beside = self._path.with_name(self._path.name + ".new")
        try:
            # Whole or not at all: the new file is durable before it takes the name, and the name before we go on.
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                if file.write(sealed) != len(sealed):
                    raise StoreError(f"anchor {beside} cannot be written: the disk is full")
                os.fsync(descriptor)
            os.rename(beside, self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise StoreError(f"anchor {self._path} cannot be written: {error.strerror}") from error


def open_anchor(path: Path, node_key: NodeKey, node: str, store_start_number: int) -> Anchor:
    """Compares the anchor with the start number that the store remembers (0: a new store); raises StoreError."""
    key = node_key.derive("anchor", node.encode())
    vouch_key = node_key.derive("vouch", node.encode())
    content, trouble = _read(path, key, node)
    if content is None:
        restored = store_start_number > 0
        reason = f"{trouble}, and the store has started {store_start_number} times" if restored else ""
        start_number = _far_above(store_start_number) if restored else 1
        anchor = Anchor(path, key, node, start_number, vouch_key, restored, reason)
        if not restored:
            # Else a first start that is broken off would look like a lost anchor.
            anchor._write(0)
        return anchor
    ahead = store_start_number - content.start_number
    reason = ""
    if ahead < 0:
        reason = f"the store remembers start {store_start_number}, the anchor {content.start_number}"
    elif ahead > 1:
        # The store never runs ahead by more than the one start that was broken off: the anchor is an old copy.
        reason = f"the anchor remembers start {content.start_number}, the store {store_start_number}"
    start_number = max(store_start_number, content.start_number) + 1
    if ahead > 1:
        # Nobody can tell how old the store is.
        start_number = _far_above(store_start_number)
    anchor = Anchor(path, key, node, start_number, vouch_key, bool(reason), reason)
    if ahead == 1:
        # Else a second start broken off at the same place would put the store ahead by two.
        anchor._write(store_start_number)
    return anchor


def _far_above(start_number: int) -> int:
    return start_number + LOST_JUMP + secrets.randbelow(LOST_JUMP)


def _read(path: Path, key: bytes, node: str) -> tuple[_Content | None, str]:
    """The anchor, or None and why there is none to go by. A disk that fails is an error: no answer is not "none"."""
    try:
        with path.open("rb") as file:
            sealed = file.read(ANCHOR_LIMIT_BYTES)
    except FileNotFoundError:
        return None, f"anchor {path} is missing"
    except OSError as error:
        raise StoreError(f"anchor {path} cannot be read: {error.strerror}") from error
    try:
        content = msgspec.msgpack.decode(keywrap.open_again(key, sealed, _PLACE), type=_Content)
    except (NotAuthentic, msgspec.MsgspecError):
        return None, f"anchor {path} is damaged, or was made with another node key"
    if content.node != node:
        return None, f"anchor {path} belongs to node {content.node}"
    return content, ""
