"""The durable facts of a node, one Row type each."""

from __future__ import annotations

from keyhop.core.machine import Row
from keyhop.core.messages import Span
from keyhop.core.node.provenance import Provenance


class NodeRow(Row, frozen=True, gc=False, array_like=True, tag="node"):
    """One per store."""

    epoch: int
    """Start number of the incarnation that burnt all leases last, after a restore; the first one's, if none did."""
    start: int
    journal: int
    """Raised by every commit and told to every neighbour."""
    relay_number: int
    """Numbers of own relay batches below this are used."""
    epoch_incarnation: bytes = bytes(8)
    """Random bits of that incarnation."""

    @property
    def key(self) -> str:
        return ""


class StartRow(Row, frozen=True, gc=False, array_like=True, tag="start"):
    """A start of this node since the last burning of its leases, and how far its journal came."""

    start: int
    incarnation: bytes
    ended: int
    """The journal number that the store held when the next start found it; -1 while it runs."""

    @property
    def key(self) -> str:
        return str(self.start)


class PairRow(Row, frozen=True, gc=False, array_like=True, tag="pair"):
    """What is known of a peer: a neighbour or a distant key manager."""

    peer: str
    link: bytes
    """Link number; 16 zero bytes for a distant pair started by relay."""
    peer_epoch: int
    """0: never heard of."""
    peer_start: int
    peer_journal: int
    peer_vouch: bytes
    peer_epoch_incarnation: bytes = bytes(8)

    @property
    def key(self) -> str:
        return self.peer


class RunRow(Row, frozen=True, gc=False, array_like=True, tag="run"):
    """Marks of a run; they only rise."""

    peer: str
    run: int
    append: int
    """Next position to place; a proposal raises it durably before it leaves."""
    floor: int
    """Below this everything is destroyed and forgotten."""
    sent: int
    """Own authentication run: no position below it is used again."""
    granted: int
    """The peer's authentication run: no position below it is granted again."""
    gone: tuple[Span, ...] = ()
    """Opening runs: the same of positions above that mark, which a claim or a grant jumped to."""

    @property
    def key(self) -> str:
        return f"{self.peer}/{self.run}"


class SegmentRow(Row, frozen=True, gc=False, array_like=True, tag="segment"):
    """A segment of a key run. Its mark, untouched or not, never falls."""

    peer: str
    run: int
    start: int
    length: int
    mark: str
    """`untouched`, `supply`, `pad` (leased for that), or `gone` (burnt, used up, absent)."""

    @property
    def key(self) -> str:
        return f"{self.peer}/{self.run}/{self.start}"


class OriginRow(Row, frozen=True, gc=False, array_like=True, tag="origin"):
    """Where the bytes of one placement in a key run come from."""

    peer: str
    run: int
    start: int
    length: int
    known: Provenance

    @property
    def key(self) -> str:
        return f"{self.peer}/{self.run}/{self.start}"


class IntakeRow(Row, frozen=True, gc=False, array_like=True, tag="intake"):
    """Which block numbers of a module were seen: the highest and the 64 up to it."""

    peer: str
    module: str
    highest: int
    recent: int

    @property
    def key(self) -> str:
        return f"{self.peer}/{self.module}"


class SecretRow(Row, frozen=True, gc=False, array_like=True, tag="secret"):
    """A key-ID secret that is in force; its bits are kept by name."""

    peer: str
    issuer: str
    epoch: int
    confirmed: bool
    """Own secrets: whether the peer is known to have it durably."""

    @property
    def key(self) -> str:
        return secret_name(self.peer, self.issuer, self.epoch)


class ExchangeRow(Row, frozen=True, gc=False, array_like=True, tag="exchange"):
    """The number of the last exchange that was offered to a peer."""

    peer: str
    number: int

    @property
    def key(self) -> str:
        return self.peer


class BookRow(Row, frozen=True, gc=False, array_like=True, tag="book"):
    """The totals of one run in bytes, in the order of `ledger.ACCOUNTS`."""

    peer: str
    run: int
    totals: tuple[int, ...]

    @property
    def key(self) -> str:
        return f"{self.peer}/{self.run}"


class KeyRow(Row, frozen=True, gc=False, array_like=True, tag="key"):
    """A key with a random ID and a record: both applications at this node."""

    id: str
    start: int
    length: int
    master: str
    waiting: tuple[str, ...]
    """The applications that may still fetch it."""

    @property
    def key(self) -> str:
        return self.id


ROW_TYPES = (
    NodeRow,
    StartRow,
    PairRow,
    RunRow,
    SegmentRow,
    OriginRow,
    IntakeRow,
    SecretRow,
    ExchangeRow,
    BookRow,
    KeyRow,
)


def secret_name(peer: str, issuer: str, epoch: int) -> str:
    return f"{peer}/{issuer}/{epoch}"
