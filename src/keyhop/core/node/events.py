"""What can happen to a node: past tense, one record each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from keyhop.core.constraints import NO_CONSTRAINTS, Constraints
from keyhop.core.machine import Frame
from keyhop.core.messages import Span
from keyhop.crypto.keyid import Coordinates as Coordinates


class PeerConnected(msgspec.Struct, frozen=True, gc=False):
    """A connection to a neighbour stands: TLS is up and its certificate names the peer."""

    peer: str
    connection: int
    """Unique in this process."""


class PeerLost(msgspec.Struct, frozen=True, gc=False):
    peer: str
    connection: int


class FrameArrived(msgspec.Struct, frozen=True, gc=False):
    peer: str
    connection: int
    frame: Frame


class BlockArrived(msgspec.Struct, frozen=True, gc=False):
    """A module delivered a block; the vault has its bits under (peer, module, number)."""

    peer: str
    module: str
    number: int
    length: int
    epsilon: float = 0.0
    """As the module declares it; 0.0: it does not."""
    vendor: str = ""


class BlockRepeated(msgspec.Struct, frozen=True, gc=False):
    """A module delivered a block again that the vault has; the new bits are overwritten already."""

    peer: str
    module: str
    number: int


class SecretLoaded(msgspec.Struct, frozen=True, gc=False):
    """A pre-shared secret of a link was read: the vault has its 64 KiB under (peer, FIRST_CONTACT, 0)."""

    peer: str
    link: bytes
    length: int


class ModuleReported(msgspec.Struct, frozen=True, gc=False):
    peer: str
    module: str
    state: str
    skr_bps: int
    reason: str = ""
    period_ns: int = 0
    """Between two blocks; 0: not known."""


class KeysWanted(msgspec.Struct, frozen=True, gc=False):
    """The edge could not answer from a Desk: no grant yet, or too little leased."""

    request: int
    master: str
    slave: str
    number: int
    size_bits: int
    demands: Constraints = NO_CONSTRAINTS
    """What every key must show."""
    preferred: Constraints = NO_CONSTRAINTS
    """What it should show where such key is in hand."""
    labelled: bool = False
    """Whether the answer is to say what is known of each key."""


class Fetch(msgspec.Struct, frozen=True, gc=False):
    """One request of a slave application for keys by ID."""

    request: int
    keys: tuple[Coordinates, ...]
    """What the key IDs said; the edge has opened them and judged every tag."""
    ids: bytes = b""
    """The key IDs as the audit record lists them."""


class KeysFetched(msgspec.Struct, frozen=True, gc=False):
    """Slave applications ask for keys by ID: requests of one moment, each judged for itself."""

    peer: str
    """The key manager that serves the masters."""
    fetches: Sequence[Fetch]
    """In the order they came."""
    audit: tuple[bytes, bytes] | None = None
    """What stands before and after the key IDs in the one record of those that are granted."""


class RecordsFetched(msgspec.Struct, frozen=True, gc=False):
    """A slave application asks for keys with random IDs and records."""

    request: int
    slave: str
    master: str
    ids: tuple[str, ...]
    audit: bytes | None = None


class SessionAsked(msgspec.Struct, frozen=True, gc=False):
    """A master registers, changes or ends what it will ask for together with a slave; answered without a key."""

    request: int
    verb: Literal["open", "retune", "close"]
    master: str
    slave: str
    rate_bps: int = 1000
    size_bits: int = 256
    """The largest key it will ask for."""
    service_class: Literal["guaranteed", "prioritised", "best_effort"] = "best_effort"
    category: int = 3


class StockLow(msgspec.Struct, frozen=True, gc=False):
    """A Desk fell below its low mark."""

    peer: str


class LeaseCommitted(msgspec.Struct, frozen=True, gc=False):
    """A lease of ours is durable at both ends: it may be spent."""

    peer: str
    purpose: str
    spans: tuple[Span, ...]
    epochs: tuple[int, bytes, int, bytes]
    """Ours and the peer's when it was taken: `Context.epochs`."""


class RequestEnded(msgspec.Struct, frozen=True, gc=False):
    """A request that waits has waited long enough, or its client is gone."""

    request: int


class Woke(msgspec.Struct, frozen=True, gc=False):
    """The time given in `wake_at` has come."""


class RestoreDeclared(msgspec.Struct, frozen=True, gc=False):
    """The operator says that this node's store is an old copy (`keyhop node restored`)."""


class AuditHead(msgspec.Struct, frozen=True, gc=False):
    """The head of the audit chain moved; neighbours are told with the next statement."""

    head: bytes


Event: TypeAlias = (
    PeerConnected
    | PeerLost
    | FrameArrived
    | BlockArrived
    | BlockRepeated
    | SecretLoaded
    | ModuleReported
    | KeysWanted
    | KeysFetched
    | RecordsFetched
    | SessionAsked
    | StockLow
    | LeaseCommitted
    | RequestEnded
    | Woke
    | RestoreDeclared
    | AuditHead
)
