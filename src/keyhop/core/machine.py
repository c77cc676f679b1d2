"""What a machine takes in and gives out: `step(event, now) -> Output`, and the batch that merges Outputs."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from keyhop.core.label import Label
from keyhop.core.model import Range, RequestError

# --- what must be durable ---------------------------------------------------------------------------------------------


class Row(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """A named durable fact. The store keeps one per (type, key) and gives all back on start."""

    @property
    def key(self) -> str:
        raise NotImplementedError


class Put(msgspec.Struct, frozen=True, gc=False):
    """The row replaces the one of the same type and key."""

    row: Row


class Remove(msgspec.Struct, frozen=True, gc=False):
    row: Row
    """Only its type and key count."""


class Seal(msgspec.Struct, frozen=True, gc=False):
    """The bits of this block, taken from the vault, are stored sealed under (run, start)."""

    block: Range


class Drop(msgspec.Struct, frozen=True, gc=False):
    """The stored copy of this sealed block becomes unreadable (its data key goes with it; `docs/security.md`)."""

    block: Range


class Used(msgspec.Struct, frozen=True, gc=False):
    """These bytes of the peer's run are used up: never served, never deciphered with again."""

    range: Range


class ForgetUsed(msgspec.Struct, frozen=True, gc=False):
    """Everything of this run below `floor` is gone: its used bytes need not be remembered one by one."""

    range: Range


class KeepSecret(msgspec.Struct, frozen=True, gc=False):
    """A copy of 32 bytes is kept sealed under a name until `DropSecret` (key-ID secrets live longer than their run)."""

    name: str
    source: Range


class DropSecret(msgspec.Struct, frozen=True, gc=False):
    name: str


class Audit(msgspec.Struct, frozen=True, gc=False):
    """An audit record that belongs to the same durable commit as what it tells of."""

    entry: bytes
    """A JSON object, encoded once: what the log writes is made of these bytes."""


Save: TypeAlias = Put | Remove | Seal | Drop | Used | ForgetUsed | KeepSecret | DropSecret | Audit


# --- what leaves ------------------------------------------------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame between key managers, as `docs/protocol.md` lays it out."""

    type: int
    position: int
    """Byte offset of the tag key in the sender's authentication run; 0 in frames without a tag."""
    payload: bytes
    tag: bytes
    """16 bytes, or empty in frames without a tag."""


class Send(msgspec.Struct, frozen=True, gc=False):
    peer: str
    connection: int
    frame: Frame


class Close(msgspec.Struct, frozen=True, gc=False):
    """The connection is closed; why goes to the log and the metrics, never to the peer."""

    peer: str
    connection: int
    reason: str


class Made(msgspec.Struct, frozen=True, gc=False):
    """How one key comes out of its ranges: one after another, cut to its size, and derived where it says so."""

    size_bits: int
    derivation: bytes = b""
    """Not empty: HKDF with SHA-256 (RFC 5869) of the ranges, with this as `info`."""


class Derived(msgspec.Struct, frozen=True, gc=False):
    """How one key comes out of its range by HKDF with SHA-256 (RFC 5869), alone or with an exchange."""

    named: Range
    """What its ID says."""
    size_bits: int
    info: bytes
    exchange: int = 0
    view: int = 0
    """Not 0: the exchange of this number takes part, in the way that `core/node/exchanges.py` gives this number."""


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """The answer to a request: the ranges whose bits its application gets, or the refusal."""

    request: int
    ranges: tuple[Range, ...] = ()
    ids: tuple[str, ...] = ()
    """Key IDs, where they are records; empty: the edge seals the coordinates into them."""
    made: Made | None = None
    """All ranges together make one key; None: each is one."""
    refusal: RequestError | None = None
    labels: tuple[Label, ...] = ()
    """Of each key, where the request or the policy wants them told."""
    derived: tuple[Derived | None, ...] = ()
    """Of each key, where some are not the bits of their ranges."""


class Notice(msgspec.Struct, frozen=True, gc=False):
    """Something people want to know: an alarm, a state change. Never more than names and numbers."""

    code: str
    text: str
    peer: str = ""


Sending: TypeAlias = Send | Close


class Output(msgspec.Struct, gc=False):
    """What a step asks for, in this order: `save` durably, `send`, `answer`, `after`, `wipe`; then wake at `wake_at`.

    A crash in between may lose a key; it can never give one twice.
    """

    save: list[Save] = msgspec.field(default_factory=list)
    """Durable, all or nothing, before anything below."""
    send: list[Sending] = msgspec.field(default_factory=list)
    """In this order, to the connections named; a connection that is gone swallows it."""
    answer: list[Deliver] = msgspec.field(default_factory=list)
    after: list[Any] = msgspec.field(default_factory=list)
    """Events that this commit brings about: stepped once it is durable (a lease is spent only then)."""
    wipe: list[Range] = msgspec.field(default_factory=list)
    """Overwritten in the vault's memory once the answers are out."""
    notice: list[Notice] = msgspec.field(default_factory=list)
    wake_at: int | None = None
    """Nanoseconds; None when nothing is due."""

    def merge(self, later: Output) -> None:
        """Adds what a later step asks for: the driver does a whole batch in one commit."""
        self.save += later.save
        self.send += later.send
        self.answer += later.answer
        self.after += later.after
        self.wipe += later.wipe
        self.notice += later.notice
        self.wake_at = later.wake_at
