"""What nodes without a common link say to each other where they host another design: carried hop by hop, in order.

Each link tags what goes over it, so that a message is as authentic as every node on its way is honest. Both ends name
the lives that they mean: what is left of an earlier one is not heard.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import msgspec

from keyhop.core.messages import PATH_LIMIT
from keyhop.core.model import NANOSECONDS, PeerError
from keyhop.core.node.context import Context
from keyhop.core.node.hosted_messages import LIFE_BYTES, Carried, Hail, Said, decode_said, encode
from keyhop.core.node.routes import Routes

TIES_LIMIT = 4096
REPEAT_NS = NANOSECONDS
"""After so long without an answer all that was not heard is said again."""
REPEATED_AT_ONCE = 64
HEARD_AT_ONCE = 64
"""Of so many the other end hears without having to wait for the next look."""
UNHEARD_LIMIT = 4096
"""With more waiting the pair begins anew."""


class Carrier(Protocol):
    """Whoever has the links and the site."""

    def pass_on(self, hop: str, message: Hail | Carried) -> None:
        """Over the link to a neighbour, if that stands and runs the same design."""

    def begun(self, peer: str) -> None:
        """What was shared with this node is gone."""

    def lost(self, peer: str) -> None:
        """What this end should have said or have is gone: `renew` follows once the site has done its step."""

    def told(self, peer: str, said: Said) -> None:
        """Raises PeerError."""


class Tie:
    """One end of two nodes that relay key to each other."""

    def __init__(self, peer: str, life: bytes) -> None:
        self.peer = peer
        self.life = life
        self.peer_life = b""
        self.known = False
        """Whether the peer has our life."""
        self.unheard: deque[tuple[int, bytes]] = deque()
        self.number = 0
        self.heard = 0
        self.answered = 0
        """Of what was heard, up to which the peer knows it."""
        self.moved_ns = 0
        self.hailed_ns = -REPEAT_NS

    @property
    def stands(self) -> bool:
        return self.known and bool(self.peer_life)

    def begin(self, peer_life: bytes) -> None:
        self.peer_life, self.known = peer_life, False
        self.unheard.clear()
        self.number = self.heard = self.answered = 0


class Ties:
    def __init__(self, context: Context, routes: Routes, design: str, carrier: Carrier) -> None:
        self.context = context
        self._routes = routes
        self._design = design
        self._carrier = carrier
        self.ties: dict[str, Tie] = {}
        self._hops: dict[str, str | None] = {}
        """As found since the last look."""

    def stands(self, peer: str) -> bool:
        tie = self.ties.get(peer)
        return tie is not None and tie.stands

    def lives(self, source: str, destination: str) -> bytes:
        """Of a pair of which this node is one; empty while the other's is not known."""
        own = source == self.context.node
        tie = self.ties.get(destination if own else source)
        if tie is None or not tie.peer_life:
            return b""
        return tie.life + tie.peer_life if own else tie.peer_life + tie.life

    def want(self, peer: str) -> None:
        """Hails a node until it answers."""
        tie = self._tie(peer)
        if tie is not None and not tie.stands:
            self._hail(tie)

    def say(self, peer: str, said: Said) -> None:
        tie = self._tie(peer)
        if tie is None:
            return
        if len(tie.unheard) >= UNHEARD_LIMIT:
            self._carrier.lost(peer)
            return
        if not tie.unheard:
            tie.moved_ns = self.context.now
        tie.number += 1
        tie.unheard.append((tie.number, encode(said)))
        if tie.stands:
            self._carry(tie, *tie.unheard[-1])
        else:
            self._hail(tie)

    def renew(self, peer: str) -> None:
        """This end has lost what both should have: the other one hears of it by a new life."""
        tie = self.ties.get(peer)
        if tie is not None:
            tie.life = self.context.entropy(LIFE_BYTES)
            tie.begin(tie.peer_life)
            self._carrier.begun(peer)
            self._hail(tie, answers=True)

    def tick(self) -> None:
        self._hops.clear()
        now = self.context.now
        for tie in self.ties.values():
            if not tie.stands:
                if tie.unheard:
                    self._hail(tie)
            elif tie.unheard and now - tie.moved_ns >= REPEAT_NS:
                tie.moved_ns = now
                for number, said in list(tie.unheard)[:REPEATED_AT_ONCE]:
                    self._carry(tie, number, said)
            elif tie.heard > tie.answered:
                self._carry(tie, 0, b"")

    # --- hearing ------------------------------------------------------------------------------------------------------

    def hailed(self, neighbour: str, message: Hail) -> None:
        if not self._is_ours(neighbour, message):
            return
        if message.design != self._design:
            self.context.count("hails_of_other_designs")
            return
        tie = self._tie(message.source)
        if tie is None or not message.life:
            return
        news = message.life != tie.peer_life
        if news:
            if tie.peer_life:
                tie.begin(message.life)
                self._carrier.begun(tie.peer)
            # What waits was said by a line that has met nobody yet.
            tie.peer_life = message.life
        tie.known = message.known == tie.life
        if news or not tie.known:
            self._hail(tie, answers=True)
        if tie.stands and tie.unheard:
            tie.moved_ns = self.context.now
            for number, said in list(tie.unheard)[:REPEATED_AT_ONCE]:
                self._carry(tie, number, said)

    def carried(self, neighbour: str, message: Carried) -> None:
        if not self._is_ours(neighbour, message):
            return
        tie = self.ties.get(message.source)
        if tie is None or message.life != tie.peer_life or message.known != tie.life:
            tie = self._tie(message.source)
            if tie is not None:
                self._hail(tie)
            return
        tie.known = True
        while tie.unheard and tie.unheard[0][0] <= message.heard:
            tie.unheard.popleft()
            tie.moved_ns = self.context.now
        if message.number != tie.heard + 1:
            if 0 < message.number <= tie.heard:
                # Its answer was lost.
                tie.answered = min(tie.answered, tie.heard - 1)
            return
        tie.heard += 1
        try:
            self._carrier.told(tie.peer, decode_said(message.said))
        except PeerError as error:
            self.context.count("peer_errors")
            self.context.notice("KH-1301", f"{tie.peer} broke the protocol of its design: {error}", tie.peer)
            self.renew(tie.peer)
            return
        if tie.heard - tie.answered >= HEARD_AT_ONCE:
            self._carry(tie, 0, b"")

    def _is_ours(self, neighbour: str, message: Hail | Carried) -> bool:
        """Passes on what is for others."""
        context = self.context
        if message.source == context.node:
            context.count("design_messages_dropped")
            return False
        if message.destination == context.node:
            return True
        hop = self._next_hop(message.destination)
        if hop is None or hop == neighbour or message.hops_left < 1:
            context.count("design_messages_dropped")
            return False
        self._carrier.pass_on(hop, msgspec.structs.replace(message, hops_left=message.hops_left - 1))
        return False

    # --- inside -------------------------------------------------------------------------------------------------------

    def _tie(self, peer: str) -> Tie | None:
        """Made on first use; None if there are too many."""
        tie = self.ties.get(peer)
        if tie is None:
            if len(self.ties) >= TIES_LIMIT:
                self.context.count("ties_refused")
                return None
            tie = self.ties[peer] = Tie(peer, self.context.entropy(LIFE_BYTES))
        return tie

    def _hail(self, tie: Tie, *, answers: bool = False) -> None:
        now = self.context.now
        if not answers and now - tie.hailed_ns < REPEAT_NS:
            return
        tie.hailed_ns = now
        self._send(tie, Hail(self.context.node, tie.peer, PATH_LIMIT, self._design, tie.life, tie.peer_life))

    def _carry(self, tie: Tie, number: int, said: bytes) -> None:
        tie.answered = tie.heard
        node = self.context.node
        self._send(tie, Carried(node, tie.peer, PATH_LIMIT, tie.life, tie.peer_life, number, tie.heard, said))

    def _send(self, tie: Tie, message: Hail | Carried) -> None:
        hop = self._next_hop(tie.peer)
        if hop is not None:
            self._carrier.pass_on(hop, message)

    def _next_hop(self, destination: str) -> str | None:
        """Towards it over links that are up; a neighbour over the link."""
        if destination not in self._hops:
            pair = self.context.pairs.get(destination)
            direct = pair is not None and pair.is_hop
            self._hops[destination] = destination if direct else self._routes.next_hop(destination)
        return self._hops[destination]
