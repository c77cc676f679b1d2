"""What stands in for key of a link where that is short and the policy lets it: an exchange alone, or derived keys."""

from __future__ import annotations

from collections.abc import Callable

from keyhop.core import constraints, label
from keyhop.core.constraints import NO_CONSTRAINTS
from keyhop.core.machine import Deliver
from keyhop.core.model import Action, NodeId, Purpose, Range, State
from keyhop.core.node.choosing import Choice
from keyhop.core.node.context import Context
from keyhop.core.node.exchanges import ALONE_VIEW, Exchanges, made_with
from keyhop.core.node.guarantees import Guarantees
from keyhop.core.node.leases import Leases
from keyhop.core.node.pair import Pair
from keyhop.core.node.stretching import (
    CHILDREN,
    PARENT_BYTES,
    SIZE_LIMIT_BITS,
    child_of,
    parent_of,
    parents_for,
)
from keyhop.core.node.waiting import Waiting


class Fallbacks:
    def __init__(self, context: Context, leases: Leases, exchanges: Exchanges, guarantees: Guarantees) -> None:
        self.context = context
        self.leases = leases
        self.exchanges = exchanges
        self.guarantees = guarantees
        self.free_bits: Callable[[Pair], int] = lambda pair: 0
        """Set by whoever decides, as all that follow: what of the stock no request has a right to yet."""
        self.lease_bytes: Callable[[Pair], int] = lambda pair: 1024
        self.can_name: Callable[[str], bool] = lambda node: True

    def exchanged(self, pair: Pair) -> label.Label:
        """The share of the exchange, or what it will be."""
        ends = (NodeId(min(pair.own, pair.peer)), NodeId(max(pair.own, pair.peer)))
        own = self.exchanges.own.get(pair.peer)
        number, born = (own.number, own.born) if own is not None else (0, self.context.now)
        return label.exchanged("ml_kem", "-".join(ends), number, ends, born + self.context.wall_ahead_ns)

    def exchange_alone(self, waiting: Waiting, pair: Pair) -> bool:
        """Key is short, and the policy lets an exchange go alone: what it gives is not QKD key at all."""
        event, exchange, asked = waiting.event, self.exchanges.live(pair), waiting.asked
        if waiting.terms.fallback.verb != "hybrid" or exchange is None or event.size_bits > SIZE_LIMIT_BITS:
            return False
        if not self.can_name(pair.peer):
            # A first lease is still to be acknowledged: with it comes the word that the other end can read our IDs.
            self.leases.want(pair, Purpose.SUPPLY, self.lease_bytes(pair))
            return False
        key = self.exchanged(pair)
        if constraints.admits(key, asked, self.context.wall_now):
            return False
        run, length = pair.own_key.id, event.size_bits // 8
        starts = self.exchanges.alone(pair, event.number, length)
        self.exchanges.book(pair.peer, event.number * length, ours=True)
        self.context.count("keys_of_exchanges", event.number)
        self.context.out.answer.append(
            Deliver(
                event.request,
                tuple(Range(run, start, 0) for start in starts),
                labels=(key,) * event.number,
                derived=tuple(made_with(run, ALONE_VIEW, exchange, start, length) for start in starts),
            )
        )
        return True

    def may_derive(self, waiting: Waiting) -> bool:
        """Whether the policy lets it, and it saves key."""
        event, asked = waiting.event, waiting.asked
        strict = asked.its_only or asked.max_epsilon is not None
        saves = parents_for(event.number) * PARENT_BYTES * 8 < waiting.bits
        return waiting.terms.fallback.verb == "derive" and saves and not strict and event.size_bits <= SIZE_LIMIT_BITS

    def lease_parents(self, waiting: Waiting, pair: Pair) -> bool:
        """Nothing to derive from is in hand: whether a lease may bring it."""
        context = self.context
        if self.leases.pending(pair, Purpose.DERIVE):
            return True
        choice = Choice(pair, waiting.asked, context.wall_now)
        # One more: a lease need not begin where a parent can.
        wanted = (parents_for(waiting.event.number) + 1) * PARENT_BYTES
        if waiting.stream is not None:
            stock = self.free_bits(pair)
            if not self.guarantees.of(pair).may_take(waiting.stream, wanted * 8, stock, context.now):
                return False
        suits = None if waiting.asked is NO_CONSTRAINTS else choice.suits
        return self.leases.want(pair, Purpose.DERIVE, wanted, suits)

    def derive(self, waiting: Waiting, pair: Pair) -> bool:
        """Key is short, and the policy lets it be stretched: fewer bits are taken, and what they give is not ITS."""
        event, context = waiting.event, self.context
        choice = Choice(pair, waiting.asked, context.wall_now)
        starts = choice.take_parents(parents_for(event.number))
        if starts is None:
            return False
        run, length = pair.own_key, event.size_bits // 8
        places = [starts[at // CHILDREN] + at % CHILDREN for at in range(event.number)]
        labels = tuple(label.derived([choice.label(place - place % PARENT_BYTES, PARENT_BYTES)]) for place in places)
        for one in labels:
            constraints.check(one, waiting.asked, context.wall_now)
        run.book.move(State.RESERVED_APP, Action.SUPPLY, len(starts) * PARENT_BYTES)
        context.book(run)
        context.count("keys_derived", event.number)
        context.out.answer.append(
            Deliver(
                event.request,
                tuple(parent_of(run.id, place) for place in places),
                labels=labels,
                derived=tuple(child_of(run.id, place, length) for place in places),
            )
        )
        return True
