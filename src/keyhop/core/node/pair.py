"""A pair of key managers, this one and a peer, and one connection between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum

from keyhop.core.messages import Grant, Hello, TaggedMessage
from keyhop.core.model import NodeId, Range, RunId, RunKind, run_number
from keyhop.core.node.desk import Stock
from keyhop.core.node.extents import Extents
from keyhop.core.node.rows import PairRow
from keyhop.core.node.run import Run
from keyhop.core.node.tags import Credit, Receiver

NO_LINK = bytes(16)
"""The link number of a distant pair whose first key came by relay."""


class Keyed:
    """A message that needs a tag key of its own: made when the frame around it is."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[Range], TaggedMessage]) -> None:
        self.make = make


class Phase(IntEnum):
    HELLO = 0
    """Our HELLO is out."""
    GRANTED = 1
    """Their HELLO came, our GRANT is out."""
    PROVED = 2
    """Their PROOF verified; what they know is merged and written."""
    OPEN = 3
    """Their first further frame came: leases may be asked for."""


class Connection:
    """One connection, from HELLO to close. A connection of a distant pair runs inside Forward messages."""

    def __init__(self, id: int, now: int, hello: Hello, *, tunnelled: bool = False) -> None:
        self.id = id
        self.tunnelled = tunnelled
        """Whether its frames are handed on by other nodes inside Forward messages."""
        self.phase = Phase.HELLO
        self.peer_hello: Hello | None = None
        self.said: list[bytes] = []
        """Own HELLO and GRANT as sent."""
        self.heard: list[bytes] = []
        """The peer's, as they came: PROOFs cover the bytes, not what was read out of them."""
        self.own_grant: Grant | None = None
        """What we granted of the peer's opening run."""
        self.peer_grant: Grant | None = None
        self.proof_sent = False
        self.least_start = 0
        """A peer's start number below this has died: a PROOF went to a later one while this connection stood."""
        self.sender = Credit()
        self.receiver: Receiver | None = None
        self.heard_at = now
        self.said_at = now


class Pair:
    def __init__(self, own: NodeId, peer: NodeId, link: bytes, *, direct: bool) -> None:
        self.own = own
        self.peer = peer
        self.link = link
        self.direct = direct
        """Whether the peer is a neighbour, with a connection of its own."""
        self.leads = own < peer
        """The lower-named end dials and proposes blocks."""
        self.runs: dict[int, Run] = {}
        self._own_key, self._their_key = run_number(RunKind.KEY, own, peer), run_number(RunKind.KEY, peer, own)
        self._own_tags, self._their_tags = run_number(RunKind.TAG, own, peer), run_number(RunKind.TAG, peer, own)
        for kind in RunKind:
            for owner, other in ((own, peer), (peer, own)):
                number = run_number(kind, owner, other)
                self.runs[number] = Run(RunId(peer, number), owned=owner == own)
        self.connections: dict[int, Connection] = {}
        self.current: Connection | None = None
        """The connection that proved itself last: the only one in use."""
        self.compared = False
        """Whether marks were compared since this node started: before that nothing is supplied."""
        self.outbox: deque[TaggedMessage | Keyed] = deque()
        self.peer_epoch = 0
        self.peer_epoch_incarnation = bytes(8)
        self.peer_start = 0
        self.peer_journal = 0
        self.peer_vouch = b""
        self.heard = False
        """Whether the peer told newer numbers than the store has: they go with the next commit."""
        self.secrets: dict[str, list[int]] = {own: [], peer: []}
        """Live epochs of key-ID secrets by issuer, oldest first."""
        self.stock = Stock()
        """What applications may be given now of our own run: leased for supply."""
        self.pads = Extents()
        """Leased for pads, of our own run."""
        self.parents = Extents()
        """Leased to derive keys from, of our own run."""
        self.hosted = Extents()
        """Leased for the stock of another design, of our own run, and not used up yet."""
        self.failures = 0
        self.openings_failed = 0
        """In a row: on a link, those that took a key of an opening run; of a distant pair all."""
        self.openings_at = 0
        """Until then the next opening waits."""
        self.namings = 0
        """Key-ID secrets that this process named to the peer."""
        self.namings_handled = 0
        """How many of them the peer has handled, durably."""
        self.rate_bps = 0
        """What the quantum link gives now."""
        self.period_ns = 0
        """How far apart its blocks come; 0: the module has not said."""
        self.module_state = "up"
        self.suspended = ""
        """Why the quantum link below gives no key, as the module says."""

    def run(self, kind: RunKind, owner: NodeId) -> Run:
        return self.runs[run_number(kind, owner, self.peer if owner == self.own else self.own)]

    @property
    def own_key(self) -> Run:
        return self.runs[self._own_key]

    @property
    def their_key(self) -> Run:
        return self.runs[self._their_key]

    @property
    def own_tags(self) -> Run:
        return self.runs[self._own_tags]

    @property
    def their_tags(self) -> Run:
        return self.runs[self._their_tags]

    @property
    def own_opening(self) -> Run:
        return self.run(RunKind.OPENING, self.own)

    @property
    def their_opening(self) -> Run:
        return self.run(RunKind.OPENING, self.peer)

    @property
    def is_open(self) -> bool:
        return self.current is not None and self.current.phase is Phase.OPEN

    @property
    def is_hop(self) -> bool:
        """Whether frames for others can go over this link now."""
        return self.direct and self.current is not None and self.is_open and not self.current.tunnelled

    def row(self) -> PairRow:
        return PairRow(
            self.peer,
            self.link,
            self.peer_epoch,
            self.peer_start,
            self.peer_journal,
            self.peer_vouch,
            self.peer_epoch_incarnation,
        )
