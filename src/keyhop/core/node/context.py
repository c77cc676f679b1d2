"""What the parts of a node share within one step: time, the Output being made, the pairs, the vault."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keyhop.core.machine import Deliver, Drop, ForgetUsed, Frame, Notice, Output, Put, Remove, Row, Save
from keyhop.core.messages import PlainMessage, TaggedMessage
from keyhop.core.model import NANOSECONDS, AppId, NodeId, RequestError
from keyhop.core.node.pair import Connection, Keyed, Pair
from keyhop.core.node.rows import BookRow, NodeRow
from keyhop.core.node.run import GONE, Run, Segment
from keyhop.core.node.vault import Vault
from keyhop.core.policy_rules import Policy

STEPS_OF_A_LIFETIME = 4096
"""A block or a lease may end so much of its lifetime late, never early."""

LEISURE_NS = 1 << 34
"""Some 17 s: what quiet looks wait for at most."""
LEISURELY_NS = LEISURE_NS // 4


@dataclass(frozen=True, kw_only=True)
class Application:
    """An application this node serves."""

    id: AppId
    peers: frozenset[AppId]
    """With whom it may share keys, as master; dec_keys asks nothing but the key itself."""
    rate_bps: int = 10_000_000
    burst_bits: int = 100_000_000
    requests_per_s: int = 100_000
    burst_requests: int = 200_000
    self_association: bool = False


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A key manager at the other end of a link."""

    node: NodeId
    link: bytes
    """The link's random number, 16 bytes, from the first-contact file."""
    segment_bytes: int = 0
    """How blocks of this link are cut when this end proposes them: a power of two, 1 to 64 KiB; 0: by what is asked."""
    rate_bps: int = 0
    """What the link is expected to give; for link state before the module reports."""


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    node: NodeId
    neighbours: tuple[Neighbour, ...] = ()
    applications: tuple[Application, ...] = ()
    directory: dict[AppId, NodeId] = field(default_factory=dict)
    """Applications at other nodes, where the operator writes them down; link state tells the rest."""
    fetch_lifetime_ns: int = 24 * 3600 * NANOSECONDS
    block_lifetime_ns: int = 30 * 24 * 3600 * NANOSECONDS
    stock_limit_bytes: int = 1 << 20
    """Per direction and link; what a fuller run does with fresh key is the policy's or the design's to say."""
    idle_store_ns: int = 60 * NANOSECONDS
    """A store that nobody drew from for so long is idle, as it is in designs that nodes host."""
    default_key_bits: int = 256
    min_key_bits: int = 64
    max_key_bits: int = 8192
    keys_per_request: int = 128
    controller: NodeId | None = None
    """Which node decides who is let in, where a hosted design has one controller."""
    policy: Policy | None = None
    """Who gets what; None: whoever may ask gets what there is."""
    link_names: dict[str, str] = field(default_factory=dict)
    """Neighbour -> the link to it as policies name it."""
    keep_alive_ns: int = 5 * NANOSECONDS
    """A quiet connection says so as often; the same at all nodes (docs/protocol.md 7.5)."""
    horizon_hops: int = 0
    """Over how many links link state goes, at most 254; 0: everywhere. The same at all nodes (docs/protocol.md 11)."""
    request_wait_ns: int = NANOSECONDS
    """How long an enc_keys may wait for a lease before it is refused."""


Handler = Callable[[Any], None]
MessageHandler = Callable[[Pair, Any], None]


class Context:
    """One per node. The parts keep their own memory; this holds what more than one of them needs."""

    def __init__(
        self,
        settings: NodeSettings,
        vault: Vault,
        entropy: Callable[[int], bytes],
        start: int,
        now: int,
        wall_ahead_ns: int = 0,
    ) -> None:
        self.settings = settings
        self.node = settings.node
        self.vault = vault
        self.entropy = entropy
        self.start = start
        self.incarnation = entropy(8)
        self._phase_ns = int.from_bytes(self.incarnation, "big") % LEISURE_NS
        self.now = now
        self.wall_ahead_ns = wall_ahead_ns
        """Added to `now` it gives a clock that goes on over restarts: by it key has an age, and nothing else."""
        self.out = Output()
        self.pairs: dict[str, Pair] = {}
        self.epoch = start
        """Start number of the incarnation that burnt all leases last; with its random bits this names the epoch."""
        self.epoch_incarnation = self.incarnation
        self.journal = 0
        self.relay_number = 0
        self.audit_head = b""
        self.counters: dict[str, int] = {}
        self._due: list[tuple[int, int, object]] = []
        self._sequence = 0
        self.intake_marks: dict[tuple[str, str], tuple[int, int]] = {}
        """(peer, module) -> highest block number seen, bit map of the 64 up to it."""
        self.touched: dict[str, Pair] = {}
        """Pairs of which something was heard, or to which something is to be said, since frames were last made."""
        self.plain_outbox: dict[str, list[PlainMessage]] = {}
        self.tunnel: Callable[[Pair, Connection, Frame | None], None] | None = None
        self._dirty_books: set[tuple[str, int]] = set()

    def count(self, what: str, amount: int = 1) -> None:
        self.counters[what] = self.counters.get(what, 0) + amount

    def save(self, *saves: Save) -> None:
        self.out.save.extend(saves)

    def put(self, *rows: Row) -> None:
        self.out.save.extend(Put(row) for row in rows)

    def remove(self, row: Row) -> None:
        self.out.save.append(Remove(row))

    def book(self, run: Run) -> None:
        """The run's book goes into this step's commit, with its final totals."""
        self._dirty_books.add((run.id.peer, run.id.number))

    def notice(self, code: str, text: str, peer: str = "") -> None:
        self.out.notice.append(Notice(code, text, peer))

    def refuse(self, request: int, error: RequestError) -> None:
        # Its frames lead back to this very answer: a cycle through records that the collector does not see.
        error.__traceback__ = error.__context__ = None
        self.out.answer.append(Deliver(request, refusal=error))

    @property
    def born_now(self) -> int:
        return self._rounded_up(self.settings.block_lifetime_ns)

    @property
    def wall_now(self) -> int:
        """What births are counted in."""
        return self.now + self.wall_ahead_ns

    @property
    def spent_now(self) -> int:
        return self._rounded_up(self.settings.fetch_lifetime_ns)

    def _rounded_up(self, lifetime_ns: int) -> int:
        """The time of this step for what ends a lifetime later: segments that end together are kept as one."""
        step = max(1, lifetime_ns // STEPS_OF_A_LIFETIME)
        return -(-self.now // step) * step

    def at(self, due: int, event: object) -> None:
        """The event is stepped when its time has come."""
        self._sequence += 1
        heapq.heappush(self._due, (due, self._sequence, event))

    def after(self, wait_ns: int) -> int:
        """When a look is due that may as well come a little later: from some seconds on at times that all looks of this
        node share, so that one awakening does for several of them, and no two nodes look in step."""
        due = self.now + wait_ns
        if wait_ns < LEISURELY_NS:
            return due
        grid_ns = min(LEISURE_NS, 1 << wait_ns.bit_length() - 1)
        return due + (self._phase_ns - due) % grid_ns

    def due(self) -> list[object]:
        events: list[object] = []
        due, now = self._due, self.now
        while due and due[0][0] <= now:
            events.append(heapq.heappop(due)[2])
        return events

    @property
    def wake_at(self) -> int | None:
        return self._due[0][0] if self._due else None

    def say(self, pair: Pair, message: TaggedMessage | Keyed) -> None:
        """Queues a tagged message; frames are made at the end of the step, all that waits in one."""
        pair.outbox.append(message)
        self.touched[pair.peer] = pair

    def say_first(self, pair: Pair, message: TaggedMessage) -> None:
        """The same for what lets the other end grant more keys: it must not wait behind what lacks them."""
        pair.outbox.appendleft(message)
        self.touched[pair.peer] = pair

    def say_plain(self, peer: str, message: PlainMessage) -> None:
        """Queues an untagged message to a neighbour."""
        self.plain_outbox.setdefault(peer, []).append(message)

    def node_row(self) -> NodeRow:
        return NodeRow(self.epoch, self.start, self.journal, self.relay_number, self.epoch_incarnation)

    def epochs(self, pair: Pair) -> tuple[int, bytes, int, bytes]:
        """What a lease with this peer is good for: a burning at either end changes it."""
        return self.epoch, self.epoch_incarnation, pair.peer_epoch, pair.peer_epoch_incarnation

    def used_up(self, run: Run, segment: Segment) -> bool:
        """Drops a segment of a run that we follow, if all of it is used; says whether it was."""
        if not run.used.covers(segment.start, segment.end):
            return False
        # What was forgotten or is gone by now has left the used map.
        self.put(run.segment_row(run.set_mark(segment, GONE, stored=False, spent_at=self.spent_now)))
        self.save(Drop(run.range(segment)), ForgetUsed(run.range(segment)))
        run.used.remove(segment.start, segment.end)
        return True

    def flush_books(self) -> None:
        if not self._dirty_books:
            return
        for peer, number in sorted(self._dirty_books):
            pair = self.pairs.get(peer)
            if pair is not None:
                self.put(BookRow(peer, number, pair.runs[number].book.snapshot()))
        self._dirty_books.clear()
