"""Requests that a policy or their own demands make special: admitted by class, met from key that suits, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from keyhop.core import constraints, label
from keyhop.core.constraints import NO_CONSTRAINTS, Constraints
from keyhop.core.label import Entropy
from keyhop.core.machine import Deliver, Derived
from keyhop.core.model import AppId, NodeId, Purpose, Range, Refusal, RequestError
from keyhop.core.node.choosing import Choice
from keyhop.core.node.context import Context, NodeSettings
from keyhop.core.node.events import KeysWanted, RequestEnded
from keyhop.core.node.exchanges import COMBINED, Exchanges, made_with
from keyhop.core.node.fallbacks import Fallbacks
from keyhop.core.node.guarantees import Guarantees
from keyhop.core.node.leases import Leases
from keyhop.core.node.limits import Limits
from keyhop.core.node.pair import Pair
from keyhop.core.node.stretching import SIZE_LIMIT_BITS
from keyhop.core.node.waiting import Waiting
from keyhop.core.policy_rules import BUILT_IN, LinkTerms, Policy, ServiceClass, Terms, Value

CLASSES = (ServiceClass.GUARANTEED, ServiceClass.PRIORITISED, ServiceClass.BEST_EFFORT)
WAITING_LIMIT = 1024
"""Requests of one peer that wait."""
PARENTS_BYTES = 1024
"""Kept in hand to derive from, where a policy lets keys be derived: when key is short it is too late."""
TERMS_LIMIT = 65_536
"""Pairs of applications whose terms are remembered; beyond it they are looked up anew."""


class Governed:
    def __init__(
        self,
        context: Context,
        leases: Leases,
        policy: Policy | None,
        directory: Mapping[AppId, NodeId],
        exchanges: Exchanges,
    ) -> None:
        self.context = context
        self.leases = leases
        self.directory = directory
        self.exchanges = exchanges
        self.policy = policy or _by_settings(context.settings)
        self.enforces = policy is not None
        """Without a policy only the demands of requests count."""
        self.guarantees = Guarantees(context, self.policy, self.link_terms)
        self.waiting: dict[str, list[Waiting]] = {}
        self.lease_bytes: Callable[[Pair], int] = lambda pair: 1024
        """Set by supply: what the demand of this peer's applications makes of a lease."""
        self.can_come: Callable[[str], bool] = lambda node: False
        """Set by supply: whether key may be relayed from this key manager soon."""
        self.can_name: Callable[[str], bool] = lambda node: True
        """Set by the node: whether this key manager is known to hold what our key IDs are sealed with."""
        self.why_none: Callable[[str], str] = lambda node: f"none came from KME {node} in time"
        self.guarantees.committing = lambda pair: leases.committing.get(pair.peer, 0)
        self._terms: dict[tuple[str, str], Terms] = {}
        self._links: dict[str, LinkTerms] = {}
        self.limits = Limits(context, self.terms, self.link_terms)
        self.fallbacks = Fallbacks(context, leases, exchanges, self.guarantees)
        self.fallbacks.free_bits = self._free_bits
        self.fallbacks.lease_bytes = lambda pair: self.lease_bytes(pair)
        self.fallbacks.can_name = lambda node: self.can_name(node)
        rules = (*self.policy.rules, self.policy.default)
        self._exchanges = any(_needs_exchange(self.policy.terms_of(rule)) for rule in rules)
        self._derives = any(self.policy.terms_of(rule).fallback.verb == "derive" for rule in rules)
        self._owed: dict[str, int] = {}
        """Bits of requests that have their right and wait for a lease, by peer."""
        if self.enforces:
            leases.reserved_bytes = lambda pair: -(-self.link_terms(pair.peer).reserve_bits // 8)

    # --- what holds ---------------------------------------------------------------------------------------------------

    def terms(self, master: str, slave: str) -> Terms:
        found = self._terms.get((master, slave))
        if found is None:
            if len(self._terms) >= TERMS_LIMIT:
                self._terms.clear()
            found = self._terms[master, slave] = self.policy.terms(master, slave)
        return found

    def link_terms(self, peer: str) -> LinkTerms:
        """Of the link to a neighbour, by its name in the node file; of a distant key manager what is built in."""
        found = self._links.get(peer)
        if found is None:
            name = self.context.settings.link_names.get(peer)
            found = self._links[peer] = self.policy.link(name) if name else Policy().link("")
        return found

    def is_plain(self, master: str, slave: str, node: str) -> bool:
        """Whether requests of this pair need nothing of this: the edge deals them key by itself."""
        if not self.enforces:
            return True
        terms, settings = self.terms(master, slave), self.context.settings
        sizes = (terms.key_size_bits, terms.min_key_size_bits, terms.max_key_size_bits)
        return (
            sizes == (settings.default_key_bits, settings.min_key_bits, settings.max_key_bits)
            and terms.bounds is NO_CONSTRAINTS
            and terms.application_quota is None
            and terms.pair_quota is None
            and terms.fallback.verb == "deny"
            and terms.combine == "none"
            and terms.lifetime is None
            and not terms.label
            and self.link_terms(node).quota is None
            and not self.guarantees.matters(node, self.directory)
        )

    def towards(self, node: str) -> tuple[ServiceClass, int, frozenset[str]]:
        """(best class, its weight, nodes that some rule avoids) of our applications' streams to a key manager: what
        is relayed first, and round whom."""
        best, weight, avoided = ServiceClass.BEST_EFFORT, 1, frozenset[str]()
        if not self.enforces:
            return best, weight, avoided
        for application in self.context.settings.applications:
            for peer in application.peers:
                if self.directory.get(peer) != node:
                    continue
                terms = self.terms(application.id, peer)
                avoided |= terms.bounds.avoid_nodes
                if CLASSES.index(terms.service_class) < CLASSES.index(best):
                    best, weight = terms.service_class, terms.weight
                elif terms.service_class is best:
                    weight = max(weight, terms.weight)
        return best, weight, avoided

    def ahead_bytes(self, node: str) -> int:
        """What is relayed ahead from a key manager however little is asked for now: guarantees live on it."""
        return self.guarantees.pool_bytes(node, self.directory) if self.enforces else 0

    # --- a request ----------------------------------------------------------------------------------------------------

    def local(self, event: KeysWanted) -> label.Label:
        """Both applications are here: what such a key is, if it may be given. Raises RequestError."""
        terms = self.terms(event.master, event.slave)
        terms.key_size(event.size_bits)
        if terms.combine != "none":
            text = "keys of two applications at one KME are drawn, not agreed: nothing can be combined with them"
            raise RequestError(Refusal.UNSUPPORTED, text)
        key = label.local(self.context.node, self.context.wall_now, Entropy.OS)
        constraints.check(key, terms.demands(event.demands), self.context.wall_now)
        self.limits.spend(event, None)
        return key

    def wanted(self, event: KeysWanted, node: str) -> None:
        """Answers, or waits as the policy says. Raises RequestError."""
        terms = self.terms(event.master, event.slave)
        terms.key_size(event.size_bits)
        asked = terms.demands(event.demands)
        if terms.combine != "none" and event.size_bits > SIZE_LIMIT_BITS:
            text = f"size {event.size_bits}: keys that are combined have at most {SIZE_LIMIT_BITS} bit"
            raise RequestError(Refusal.BAD_REQUEST, text)
        quotas = self.limits.spend(event, node)
        try:
            self._decide(event, node, terms, asked)
        except RequestError:
            quotas.give_back(event.number * event.size_bits, self.context.now)
            raise

    def _decide(self, event: KeysWanted, node: str, terms: Terms, asked: Constraints) -> None:
        pair = self.context.pairs.get(node)
        if pair is None or not pair.compared:
            if terms.fallback.verb != "wait" and (pair is None or not pair.direct) and not self.can_come(node):
                raise RequestError(
                    Refusal.UNAVAILABLE, f"no key is shared with KME {node} yet: its link or path is down"
                )
            self._wait(Waiting(event, terms, asked, None), node)
            return
        stream = None
        if self.guarantees.matters(node, self.directory):
            stream = self.guarantees.join(pair, event.master, event.slave, terms)
        waiting = Waiting(event, terms, asked, stream)
        if self._give(waiting, pair):
            return
        refusal = self._why_not(waiting, pair)
        if refusal is None or terms.fallback.verb == "wait" or (not pair.direct and self.can_come(node)):
            self._wait(waiting, node)
            return
        self._let_go(node, waiting)
        if refusal.reason is Refusal.NOT_ENOUGH_KEY and self.fallbacks.exchange_alone(waiting, pair):
            return
        if refusal.reason is not Refusal.NOT_ENOUGH_KEY or not self.fallbacks.may_derive(waiting):
            raise refusal
        if self.fallbacks.derive(waiting, pair):
            return
        if not self.fallbacks.lease_parents(waiting, pair):
            raise refusal
        waiting.derives = True
        self._wait(waiting, node)

    def _wait(self, waiting: Waiting, node: str) -> None:
        context, queue = self.context, self.waiting.setdefault(node, [])
        if len(queue) >= WAITING_LIMIT:
            self._let_go(node, waiting)
            raise RequestError(Refusal.RATE_LIMITED, "too many requests wait for key", retry_after_s=1.0)
        wait_ns = context.settings.request_wait_ns
        if waiting.terms.fallback.verb == "wait":
            wait_ns = waiting.terms.fallback.wait_ns
        if waiting.stream is not None and not waiting.has_right and not waiting.derives:
            waiting.ticket = self.guarantees.shares[node].queue(waiting.stream, waiting.bits)
            if waiting.ticket is None:
                raise RequestError(Refusal.RATE_LIMITED, "too many requests wait for key", retry_after_s=1.0)
        waiting.deadline = context.now + wait_ns
        queue.append(waiting)
        context.at(waiting.deadline, RequestEnded(waiting.event.request))

    def _give(self, waiting: Waiting, pair: Pair) -> bool:
        """Takes the keys and answers, if it may and the leases in hand have such key; asks for a lease if not."""
        context, event = self.context, waiting.event
        if not waiting.has_right:
            assert waiting.stream is not None
            stock = self._free_bits(pair)
            if not self.guarantees.of(pair).take(waiting.stream, waiting.bits, stock, context.now):
                return False
            waiting.has_right = True
            self._owe(pair.peer, waiting.bits)
        length = event.size_bits // 8
        view, exchange = COMBINED.get(waiting.terms.combine, 0), self.exchanges.live(pair)
        if view and exchange is None:
            # Never without: the exchange is under way.
            self.exchanges.look(pair)
            return False
        choice = self._choice(waiting, pair)
        starts = self._preferred(choice, event, length) or choice.take(event.number, length)
        if starts is None:
            suits = None if waiting.asked is NO_CONSTRAINTS else choice.suits
            missing = event.number * length - choice.suiting_bytes()
            # Nothing is leased for a request that all of the stock would not answer.
            kept = self._kept_bytes(waiting, pair)
            if missing <= choice.leasable_bytes() - kept:
                self.leases.want(pair, Purpose.SUPPLY, max(missing, self.lease_bytes(pair)), suits, kept)
            return False
        if waiting.stream is not None:
            self._owe(pair.peer, -waiting.bits)
        run = pair.own_key.id
        labels = tuple(choice.label(start, length) for start in starts)
        # Said once more where the keys leave: nothing is given that is above what was asked.
        for one in labels:
            constraints.check(one, waiting.asked, context.wall_now)
        made: tuple[Derived, ...] = ()
        if view and exchange is not None:
            made = tuple(made_with(run, view, exchange, start, length) for start in starts)
            self.exchanges.book(pair.peer, len(starts) * length, ours=True)
        ranges = tuple(Range(run, start, length) for start in starts)
        context.out.answer.append(Deliver(event.request, ranges, labels=labels, derived=made))
        return True

    def _choice(self, waiting: Waiting, pair: Pair) -> Choice:
        """Among keys as they leave: combined, where the policy says so."""
        combine = waiting.terms.combine
        if combine == "none":
            return Choice(pair, waiting.asked, self.context.wall_now)
        other = self.fallbacks.exchanged(pair)
        becomes = label.xored if combine == "xor" else label.derived
        return Choice(pair, waiting.asked, self.context.wall_now, lambda key: becomes([key, other]))

    def _preferred(self, choice: Choice, event: KeysWanted, length: int) -> list[int] | None:
        if event.preferred is NO_CONSTRAINTS:
            return None
        together = constraints.both(choice.demanded, event.preferred)
        if constraints.contradiction(together):
            return None
        return Choice(choice.pair, together, choice.wall_now, choice.becomes).take(event.number, length)

    def _why_not(self, waiting: Waiting, pair: Pair) -> RequestError | None:
        """Why a request that was not answered need not wait for a lease either; None: a lease will do."""
        event = waiting.event
        choice = self._choice(waiting, pair)
        if unmet := choice.unmet():
            return constraints.refusal(unmet)
        if waiting.terms.combine != "none" and self.exchanges.live(pair) is None:
            if pair.is_open and self.exchanges.kem is not None:
                return None
            text = f"keys of this pair are combined with an exchange, and there is none with KME {pair.peer} now"
            return RequestError(Refusal.UNAVAILABLE, text, retry_after_s=1.0)
        reserve = self._kept_bytes(waiting, pair)
        leasable = max(0, min(choice.leasable_bytes(), pair.own_key.untouched - reserve)) if pair.is_open else 0
        missing = waiting.bits // 8 - choice.suiting_bytes()
        if waiting.has_right and missing <= leasable + self.leases.committing.get(pair.peer, 0):
            return None
        what = f"not enough key for {event.master} -> {event.slave}: asked {event.number} x {event.size_bits} bit"
        if not waiting.has_right:
            shares = self.guarantees.of(pair)
            held = shares.held_bits(self.context.now)
            what += f"; {held} bit are held for guaranteed streams, {shares.reserve_bits} bit for the node itself"
        details: tuple[dict[str, object], ...] = ()
        answer = self.guarantees.answers.get(waiting.stream or "")
        if answer is not None:
            refused: dict[str, object] = {"guarantee_refused_by": answer.narrowest, "guarantee_reason": answer.why}
            if answer.offer is not None:
                refused["guarantee_offer_bps"] = answer.offer.rate_bps
                refused["guarantee_offer_burst_bits"] = answer.offer.burst_bits
            details = (refused,)
        return RequestError(Refusal.NOT_ENOUGH_KEY, what, details, retry_after_s=1.0)

    def _free_bits(self, pair: Pair) -> int:
        """What of the stock no request has a right to yet."""
        return self.guarantees.stock_bits(pair) - self._owed.get(pair.peer, 0)

    def _kept_bytes(self, waiting: Waiting, pair: Pair) -> int:
        """What a request leaves alone: one within its guarantee, only what flows may take at once."""
        within = waiting.has_right and self.guarantees.is_guaranteed(pair, waiting.stream)
        return self.guarantees.claimed_bytes(pair) if within else self.leases.reserved_bytes(pair)

    def _owe(self, peer: str, bits: int) -> None:
        self._owed[peer] = max(0, self._owed.get(peer, 0) + bits)

    def _exchanges_with(self, node: str) -> bool:
        """Whether keys of some application of ours with one there are combined, or exchanged at need."""
        return self._exchanges and any(
            self.directory.get(peer) == node and _needs_exchange(self.terms(application.id, peer))
            for application in self.context.settings.applications
            for peer in application.peers
        )

    def look(self, pair: Pair) -> None:
        """Called from time to time."""
        if self.enforces:
            self.guarantees.look(pair, self.directory)
            if self._exchanges_with(pair.peer):
                self.exchanges.look(pair)
            if pair.is_open and self._derives and pair.parents.total() < PARENTS_BYTES:
                self.leases.want(pair, Purpose.DERIVE, PARENTS_BYTES)
        self.serve(pair)

    # --- what comes later ---------------------------------------------------------------------------------------------

    def serve(self, pair: Pair) -> None:
        """A lease, fresh key or time has come: those who wait have their turn, by class and in their order."""
        queue = self.waiting.get(pair.peer)
        if not queue:
            return
        context = self.context
        shares = self.guarantees.shares.get(pair.peer)
        if not pair.compared:
            return
        for waiting in queue:
            # It came before the link did.
            if waiting.stream is None and not waiting.derives and self.guarantees.matters(pair.peer, self.directory):
                waiting.stream = self.guarantees.join(pair, waiting.event.master, waiting.event.slave, waiting.terms)
                shares = self.guarantees.of(pair)
                waiting.ticket = shares.queue(waiting.stream, waiting.bits)
                waiting.has_right = False
        if shares is not None:
            stock = self._free_bits(pair)
            served = {one.ticket for one in shares.serve(stock, context.now)}
            for waiting in queue:
                if waiting.ticket in served:
                    waiting.ticket, waiting.has_right = None, True
                    self._owe(pair.peer, waiting.bits)
        for waiting in list(queue):
            if not waiting.has_right and not waiting.derives:
                continue
            try:
                if self.fallbacks.derive(waiting, pair) if waiting.derives else self._give(waiting, pair):
                    queue.remove(waiting)
            except RequestError as error:
                self._drop(pair.peer, waiting)
                context.refuse(waiting.event.request, error)

    def ended(self, event: RequestEnded) -> bool:
        """The time of a request is over, or its client is gone; False if it is none of ours."""
        for node, queue in self.waiting.items():
            for waiting in queue:
                if waiting.event.request == event.request:
                    refusal = self._too_late(waiting, node)
                    self._drop(node, waiting)
                    self.limits.of(waiting.event, node).give_back(waiting.bits, self.context.now)
                    self.context.refuse(event.request, refusal)
                    return True
        return False

    def _drop(self, node: str, waiting: Waiting) -> None:
        self.waiting[node].remove(waiting)
        if waiting.ticket is not None and waiting.stream is not None:
            self.guarantees.shares[node].cancel(waiting.stream, waiting.ticket)
        self._let_go(node, waiting)

    def _let_go(self, node: str, waiting: Waiting) -> None:
        """Its part of the stock is for others again."""
        if waiting.stream is not None and waiting.has_right:
            self._owe(node, -waiting.bits)
            waiting.has_right = False

    def _too_late(self, waiting: Waiting, node: str) -> RequestError:
        pair = self.context.pairs.get(node)
        refusal = self._why_not(waiting, pair) if pair is not None and pair.compared else None
        if refusal is not None:
            return refusal
        event = waiting.event
        text = f"not enough key for {event.master} -> {event.slave}: {self.why_none(node)}"
        return RequestError(Refusal.NOT_ENOUGH_KEY, text, retry_after_s=1.0)


def _needs_exchange(terms: Terms) -> bool:
    return terms.combine != "none" or terms.fallback.verb == "hybrid"


def _by_settings(settings: NodeSettings) -> Policy:
    """Where no policy is: the node's own limits hold for everybody."""
    sizes = {"default": settings.default_key_bits, "min": settings.min_key_bits, "max": settings.max_key_bits}
    return Policy(limits={f"key_size.{word}": Value(bits, BUILT_IN) for word, bits in sizes.items()})
