"""Guaranteed flows over this node's links: who has booked how much of each for relayed key, and what is kept for them.

A booking is soft: it is said again every few seconds, ends by itself when it is not, and is forgotten by a restart.
What a flow may claim before the next block stays in the link's stock; everything above is lent to whoever asks, and the
flow has it back at once. Each node decides by its own book, where the flows of others stand beside its own promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from keyhop.core.messages import AnswerFlow, BookFlow, EndFlow
from keyhop.core.model import NANOSECONDS, PeerError
from keyhop.core.node.context import Context
from keyhop.core.node.link import Links
from keyhop.core.node.pads import Way
from keyhop.core.node.pair import Pair
from keyhop.core.services.buckets import Bucket
from keyhop.core.services.promises import Answer, Contract, held_for_gap

MILLISECONDS = NANOSECONDS // 1000
LOOK_NS = NANOSECONDS // 2
FLOWS_LIMIT = 1024
FLOWS_PER_NEIGHBOUR = 256
SOURCE_SHARE_PERCENT = 50
"""What of that which a link can promise one foreign source may book, in rate and in bits."""
NEIGHBOUR_SHARE_PERCENT = 75
"""The same for all sources that come by way of one neighbour: it may have invented them. The rest stays for others."""
LEAST_KEY_BITS = 64
"""A burst that holds no key is worth nothing."""


class FlowTick(msgspec.Struct, frozen=True, gc=False):
    pass


class Flow(msgspec.Struct):
    """Of one link of ours."""

    path: tuple[str, ...]
    contract: Contract
    following: str
    """The neighbour at the other end of the link."""
    bucket: Bucket
    """What the flow may take now."""
    expires: int | None
    """None: our own, which the source's side ends."""


Key = tuple[str, str, int]
"""(neighbour it came from, source, number): nobody can take the place of another's. Of our own the neighbour is us."""


def name_of(key: Key) -> str:
    """As the book of promises knows a flow of others."""
    neighbour, source, number = key
    return f"flow {number} of {source} by way of {neighbour}"


class Flows:
    def __init__(self, context: Context, links: Links, on_path: Callable[..., bool]) -> None:
        """`on_path(path, peer, backwards=)`: whether this node stands on it with that neighbour before, or after it."""
        self.context = context
        self.on_path = on_path
        self.flows: dict[Key, Flow] = {}
        self._looks = False
        """Whether a look at them is planned."""
        self.offer: Callable[[Pair, Contract], Answer] = lambda pair, contract: Answer(False, None, "", "not started")
        """Set by the node, as all that follow: what a link of ours can still promise."""
        self.promise: Callable[[Pair, str, Contract], Answer] = lambda pair, name, contract: self.offer(pair, contract)
        self.release: Callable[[str], None] = lambda name: None
        self.promisable: Callable[[Pair], Contract] = lambda pair: Contract(0, 0)
        """All that a link could promise if nothing was promised yet, in rate and in bits."""
        self.gap_ns: Callable[[Pair], int] = lambda pair: NANOSECONDS
        self.measure: Callable[[Pair], None] = lambda pair: None
        """Looks whether a link, as it is now, carries all its promises; what it does not is revoked."""
        self.answered_to_us: Callable[[AnswerFlow], None] = lambda message: None
        self.refused: dict[str, int] = {}
        """Flows of others that a link could not take, by the neighbour at its other end."""
        self.closed = ""
        """Why nothing is booked here at all."""
        links.plain_handlers[BookFlow] = self.book
        links.plain_handlers[AnswerFlow] = self.answered
        links.plain_handlers[EndFlow] = self.ended
        links.on_lost.append(self.lost)

    def _keep(self, key: Key, flow: Flow) -> None:
        self.flows[key] = flow
        if not self._looks:
            self._looks = True
            self.context.at(self.context.now + LOOK_NS, FlowTick())

    def tick(self, event: FlowTick) -> None:
        """Bookings expire, and links that have slowed down give up those that came last."""
        context = self.context
        self._looks = bool(self.flows)
        if self._looks:
            context.at(context.now + LOOK_NS, event)
        for key, flow in list(self.flows.items()):
            if flow.expires is not None and flow.expires <= context.now:
                self._free(key)
                context.count("flows_expired")
        for following in sorted({flow.following for flow in self.flows.values()}):
            self.measure(context.pairs[following])

    def revoke(self, name: str) -> None:
        """A promise that its link carries no longer."""
        for key, flow in list(self.flows.items()):
            if flow.expires is not None and name_of(key) == name:
                self._revoke(key, "it gives too little now")

    # --- what is said -------------------------------------------------------------------------------------------------

    def book(self, peer: str, message: BookFlow) -> None:
        context, path = self.context, message.path
        if not self.on_path(path, peer) or len(path) < 3:
            raise PeerError("a flow that is not along its path")
        if path[-1] == context.node:
            context.say_plain(peer, AnswerFlow(message.number, path, True, "", "", 0, 0))
            return
        key, contract = (peer, path[0], message.number), Contract(message.rate_bps, message.burst_bits)
        following = path[path.index(context.node) + 1]
        flow, reason, offer = self.flows.get(key), "", None
        if flow is None:
            reason, offer = self._admit(key, following, contract)
        elif (flow.path, flow.contract) != (path, contract):
            reason = f"flow {message.number} of {path[0]} is booked otherwise: end it first"
        if reason:
            context.count("flows_refused")
            if following in context.pairs:
                # Not under a name that the path has invented.
                self.refused[following] = self.refused.get(following, 0) + 1
            bits = offer or Contract(0, 0)
            context.say_plain(
                peer,
                AnswerFlow(message.number, path, False, context.node, reason[:256], bits.rate_bps, bits.burst_bits),
            )
            if flow is not None and flow.path == path:
                # The refusal frees it on the way back.
                self._give_up(key)
            return
        expires = context.now + message.lifetime_ms * MILLISECONDS
        if flow is None:
            bucket = Bucket(contract.rate_bps, contract.burst_bits, context.now)
            self._keep(key, Flow(path, contract, following, bucket, expires))
            context.count("flows_booked")
        else:
            flow.expires = expires
        context.say_plain(following, message)

    def _admit(self, key: Key, following: str, contract: Contract) -> tuple[str, Contract | None]:
        """(why not, what instead); nothing and None where it is promised now."""
        neighbour, source, _ = key
        pair = self.context.pairs.get(following)
        if self.closed:
            return self.closed, None
        if pair is None or not pair.is_hop:
            return "the next link is down", None
        by_way = [one for one in self.flows if one[0] == neighbour]
        if len(self.flows) >= FLOWS_LIMIT or len(by_way) >= FLOWS_PER_NEIGHBOUR:
            return f"{len(self.flows)} flows are booked, {len(by_way)} by way of {neighbour}: no more are legal", None
        if contract.burst_bits < LEAST_KEY_BITS:
            return f"a burst of {contract.burst_bits} bit holds no key: {LEAST_KEY_BITS} and more are legal", None
        whole = self.promisable(pair)
        for who, percent, theirs in (
            (f"source {source}", SOURCE_SHARE_PERCENT, [one for one in by_way if one[1] == source]),
            (f"all by way of {neighbour}", NEIGHBOUR_SHARE_PERCENT, by_way),
            ("all flows", 100, list(self.flows)),
        ):
            held = [self.flows[one] for one in theirs if self.flows[one].following == following]
            rate = whole.rate_bps * percent // 100 - sum(flow.contract.rate_bps for flow in held)
            bits = whole.burst_bits * percent // 100 - sum(self._held(pair, flow.contract) for flow in held)
            offer = self._at_most(pair, contract, rate, bits)
            if offer != contract:
                reason = f"link {self._link(pair)}: {who} may book {max(0, rate)} bit/s and {max(0, bits)} bit more"
                best = None if offer is None else self.offer(pair, offer).offer
                return reason, best
        answer = self.promise(pair, name_of(key), contract)
        return ("", None) if answer.admitted else (f"link {self._link(pair)}: {answer.why}", answer.offer)

    def _at_most(self, pair: Pair, contract: Contract, rate_bps: int, bits: int) -> Contract | None:
        """The contract as far as it fits."""
        rate = min(contract.rate_bps, rate_bps)
        burst = min(contract.burst_bits, bits - held_for_gap(max(0, rate), self.gap_ns(pair)))
        return Contract(rate, burst) if rate > 0 and burst >= LEAST_KEY_BITS else None

    def _held(self, pair: Pair, contract: Contract) -> int:
        return contract.burst_bits + held_for_gap(contract.rate_bps, self.gap_ns(pair))

    def _link(self, pair: Pair) -> str:
        return f"{pair.own}-{pair.peer}"

    def answered(self, peer: str, message: AnswerFlow) -> None:
        """A word on its way to the source; a refusal frees what was kept."""
        context, path = self.context, message.path
        if not self.on_path(path, peer, backwards=True):
            raise PeerError("an answer for a flow that did not come along its path")
        if path[0] == context.node:
            self.answered_to_us(message)
            return
        key = (path[path.index(context.node) - 1], path[0], message.number)
        flow = self.flows.get(key)
        if flow is None or flow.path != path:
            return
        if not message.booked:
            self._free(key)
        context.say_plain(key[0], message)

    def ended(self, peer: str, message: EndFlow) -> None:
        if not self.on_path(message.path, peer):
            raise PeerError("the end of a flow that is not along its path")
        key = (peer, message.path[0], message.number)
        flow = self.flows.get(key)
        if flow is not None and flow.path == message.path:
            self._give_up(key)

    def lost(self, pair: Pair) -> None:
        """A path that is broken carries nothing: what was kept on it is free again, on both sides of the break."""
        for key, flow in list(self.flows.items()):
            if flow.expires is None:
                continue
            if flow.following == pair.peer:
                self._revoke(key, "it is down")
            elif key[0] == pair.peer:
                self._give_up(key)

    def _revoke(self, key: Key, reason: str) -> None:
        flow = self.flows[key]
        self._give_up(key)
        self.context.count("flows_revoked")
        self.refused[flow.following] = self.refused.get(flow.following, 0) + 1
        reason = f"link {self.context.node}-{flow.following}: {reason}"
        self.context.say_plain(key[0], AnswerFlow(key[2], flow.path, False, self.context.node, reason[:256], 0, 0))

    def _give_up(self, key: Key) -> None:
        """Here and further on."""
        flow = self._free(key)
        if flow is not None:
            self.context.say_plain(flow.following, EndFlow(key[2], flow.path))

    def _free(self, key: Key) -> Flow | None:
        flow = self.flows.pop(key, None)
        if flow is not None and flow.expires is not None:
            self.release(name_of(key))
        return flow

    # --- our own ------------------------------------------------------------------------------------------------------

    def begin_own(self, number: int, path: tuple[str, ...], contract: Contract) -> None:
        """On our own first link, where the book of promises has it already."""
        bucket = Bucket(contract.rate_bps, contract.burst_bits, self.context.now)
        self._keep((self.context.node, self.context.node, number), Flow(path, contract, path[1], bucket, None))

    def end_own(self, number: int) -> None:
        self._free((self.context.node, self.context.node, number))

    def booked_bps(self, peer: str) -> int:
        """Of our link to a neighbour, by all flows."""
        return sum(flow.contract.rate_bps for flow in self.flows.values() if flow.following == peer)

    # --- what is kept -------------------------------------------------------------------------------------------------

    def covered_bytes(self, peer: str, way: Way) -> int:
        """What flows by this (neighbour, source, destination) may take of the link to `peer` now, by their bookings."""
        return sum(flow.bucket.level(self.context.now) for flow in self._by(peer, way)) // 8

    def kept_bytes(self, pair: Pair, under_way: Mapping[Way, int], *, at_once: bool = False) -> int:
        """What flows may claim of the link before the next block, or at once, but for what is set aside for them."""
        now, gap_ns, kept = self.context.now, 0 if at_once else self.gap_ns(pair), 0
        levels: dict[Way, int] = {}
        for (neighbour, source, _), flow in self.flows.items():
            if flow.following == pair.peer:
                way = Way(neighbour, source, flow.path[-1])
                levels[way] = levels.get(way, 0) + flow.bucket.level(now)
                kept += held_for_gap(flow.contract.rate_bps, gap_ns)
        kept += sum(max(0, level - under_way.get(way, 0) * 8) for way, level in levels.items())
        return -(-kept // 8)

    def spend(self, peer: str, way: Way, length: int) -> None:
        """So many bytes of the link went to a batch that came this way: those of its flows first."""
        bits = length * 8
        for flow in self._by(peer, way):
            bits -= flow.bucket.take_up_to(bits, self.context.now)

    def _by(self, peer: str, way: Way) -> Iterator[Flow]:
        for (neighbour, source, _), flow in self.flows.items():
            if flow.following == peer and (neighbour, source, flow.path[-1]) == way:
                yield flow
