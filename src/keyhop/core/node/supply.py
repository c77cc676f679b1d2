"""What all doors draw on: grants for the edge, keys that must wait for a lease, and fetches by the slave's side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from keyhop.core.constraints import NO_CONSTRAINTS, UNMET
from keyhop.core.designs import Running
from keyhop.core.machine import Audit, Deliver, Derived, Save, Used
from keyhop.core.model import (
    NANOSECONDS,
    Action,
    AppId,
    NodeId,
    Purpose,
    Range,
    Refusal,
    RequestError,
    RunId,
    State,
    joined,
)
from keyhop.core.node.context import Application, Context
from keyhop.core.node.desk import Allowance, Grant
from keyhop.core.node.events import Fetch, KeysFetched, KeysWanted, RecordsFetched, RequestEnded, SessionAsked
from keyhop.core.node.exchanges import ALONE_VIEW, Exchanges, exchange_in, made_with, view_in
from keyhop.core.node.governed import Governed
from keyhop.core.node.leases import Leases
from keyhop.core.node.local import NOT_FOUND, LocalKeys
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import Run, Segment
from keyhop.core.node.stretching import SIZE_LIMIT_BITS, child_of, parent_of, view_of
from keyhop.crypto.keyid import Coordinates

WAITING_LIMIT = 1024


class Host(Protocol):
    """Another design on this node."""

    def wanted(self, event: KeysWanted, peer: str) -> None: ...
    def size_bits(self, key_id: str) -> int: ...
    def available_bits(self, peer: str, master: str, slave: str) -> int: ...
    def session(self, event: SessionAsked) -> None: ...
    def fetched(self, event: RecordsFetched) -> None: ...


class Waiting(NamedTuple):
    event: KeysWanted
    deadline: int


class Supply:
    def __init__(self, context: Context, leases: Leases, design: Running, exchanges: Exchanges) -> None:
        self.context = context
        self.exchanges = exchanges
        self.leases = leases
        self.design = design
        self.applications: dict[AppId, Application] = {a.id: a for a in context.settings.applications}
        self.allowances: dict[AppId, Allowance] = {
            a.id: Allowance(a.rate_bps, a.burst_bits, a.requests_per_s, a.burst_requests, context.now)
            for a in context.settings.applications
        }
        self.directory: dict[AppId, NodeId] = dict(context.settings.directory)
        self.directory.update((a, context.node) for a in self.applications)
        self._sharing: frozenset[str] | None = None
        self.grants: dict[tuple[str, str], Grant] = {}
        self.governed_grants: dict[tuple[str, str], Grant] = {}
        self.waiting: dict[str, deque[Waiting]] = {}
        self._demand: dict[str, float] = {}
        self.wanted_peers: set[str] = set()
        """Distant key managers whose pools are filled ahead."""
        self.can_relay: Callable[[str], bool] = lambda node: False
        """Set by the relay: whether some path to this key manager may give key soon."""
        self.why_none: Callable[[str], str] = lambda node: f"none came from KME {node} in time"
        """Set by the relay: why no key came that a request waited for."""
        self.local = LocalKeys(context)
        self.least_lease_bytes: Callable[[Pair], int] = lambda pair: 0
        """Set by the node: what makes a lease worth its tags."""
        self.governed = Governed(context, leases, context.settings.policy, self.directory, exchanges)
        """Who deals with requests that a policy or their demands make special."""
        self.governed.lease_bytes = self.lease_bytes
        self.governed.can_come = lambda node: self.can_relay(node)
        self.governed.why_none = lambda node: self.why_none(node)
        self.hosted: Host | None = None
        """Whoever deals out the stock of another design than our own, where one runs here."""
        leases.on_lent.append(lambda pair, purpose: self.serve(pair) if purpose is Purpose.SUPPLY else None)
        leases.on_lent.append(lambda pair, purpose: self.governed.serve(pair) if purpose is Purpose.DERIVE else None)

    def serves(self, application: AppId, node: NodeId) -> None:
        """Where an application of another node is, as that node says."""
        self.directory[application] = node
        self._sharing = None

    @property
    def sharing(self) -> frozenset[str]:
        """Key managers that serve applications with which ours may share keys, this one among them."""
        if self._sharing is None:
            peers = (self.directory.get(peer) for own in self.applications.values() for peer in own.peers)
            self._sharing = frozenset(node for node in peers if node is not None)
        return self._sharing

    def draws_on(self, node: str) -> bool:
        """Whether applications here ask for key of this key manager, or may."""
        return node in self.sharing or node in self.wanted_peers

    # --- rights -------------------------------------------------------------------------------------------------------

    def locate(self, slave: str) -> NodeId:
        node = self.directory.get(AppId(slave))
        if node is None:
            raise RequestError(Refusal.BAD_REQUEST, f"slave SAE {slave!r} is not known to this KME or its network")
        return node

    def entitle(self, master: str, slave: str) -> NodeId:
        """The key manager that serves `slave`, if `master` may share keys with it."""
        application = self.applications.get(AppId(master))
        if application is None:
            raise RequestError(Refusal.NOT_AUTHORISED, f"SAE {master!r} is not registered at this KME")
        if master == slave:
            if not application.self_association:
                raise RequestError(Refusal.NOT_AUTHORISED, f"SAE {master!r} may not share keys with itself")
        elif slave in application.peers:
            if AppId(slave) not in self.directory:
                raise RequestError(
                    Refusal.UNAVAILABLE, f"no KME has told yet that it serves SAE {slave!r}", retry_after_s=1.0
                )
        else:
            self.locate(slave)
            raise RequestError(Refusal.NOT_AUTHORISED, f"SAE {master!r} may not share keys with {slave!r}")
        return self.locate(slave)

    def grant(self, master: str, slave: str, *, governed: bool = False) -> Grant | None:
        """What the edge spends for this pair of applications; None while every request must be an event.

        Raises RequestError if the pair may not share keys. `governed`: also where each request is judged by itself,
        so that nothing may be spent without asking; the edge seals by it what it was given.
        """
        grants = self.governed_grants if governed else self.grants
        found = grants.get((master, slave))
        if found is not None:
            return found
        node = self.entitle(master, slave)
        if node == self.context.node:
            return None
        pair = self.context.pairs.get(node)
        if pair is None or not pair.compared or self.hosted is not None:
            return None
        if not governed and not self.governed.is_plain(master, slave, node):
            return None
        settings = self.context.settings
        found = Grant(
            master=master,
            slave=slave,
            peer=node,
            stock=pair.stock,
            allowance=self.allowances[AppId(master)],
            min_bits=settings.min_key_bits,
            max_bits=settings.max_key_bits,
            number_limit=settings.keys_per_request,
        )
        grants[master, slave] = found
        return found

    def count_available(self, master: str, slave: str) -> tuple[NodeId, int, int]:
        """(key manager of the slave, keys deliverable now if nobody else asks, ceiling), at the default size."""
        settings, node = self.context.settings, self.entitle(master, slave)
        size = self.governed.terms(master, slave).key_size_bits // 8 if self.governed.enforces else 0
        size = size or settings.default_key_bits // 8
        ceiling = settings.stock_limit_bytes // size
        if node == self.context.node:
            return node, ceiling, ceiling
        if self.hosted is not None:
            ahead = self.hosted.available_bits(node, master, slave) // settings.default_key_bits
            return node, ahead, max(ceiling, ahead)
        pair = self.context.pairs.get(node)
        if pair is None or not pair.compared:
            return node, 0, ceiling
        leasable = pair.own_key.untouched - self.leases.reserved_bytes(pair) if pair.is_open else 0
        ahead = pair.stock.count(size) + max(0, leasable) // size
        return node, ahead, max(ceiling, ahead)

    # --- the master's side --------------------------------------------------------------------------------------------

    def wanted(self, event: KeysWanted) -> None:
        context = self.context
        try:
            node = self.entitle(event.master, event.slave)
            demanding = event.demands is not NO_CONSTRAINTS or event.labelled
            if node == context.node:
                known = self.governed.local(event) if demanding or self.governed.enforces else None
                self.local.draw(event, () if known is None else (known,) * event.number)
                return
            if self.hosted is not None:
                if event.demands is not NO_CONSTRAINTS:
                    raise RequestError(
                        Refusal.UNSUPPORTED, UNMET, ({"reason": "the design of this KME labels no key"},)
                    )
                self.hosted.wanted(event, node)
            elif demanding or not self.governed.is_plain(event.master, event.slave, node):
                pair = context.pairs.get(node)
                if pair is None or not pair.direct:
                    self.wanted_peers.add(node)
                self.governed.wanted(event, node)
            elif not self._try(event, node):
                self._queue(event, node)
        except RequestError as error:
            context.refuse(event.request, error)

    def session(self, event: SessionAsked) -> None:
        if self.hosted is not None:
            self.hosted.session(event)
            return
        text = "design keyhop deals key to whoever asks: it has no sessions to register"
        self.context.refuse(event.request, RequestError(Refusal.UNSUPPORTED, text))

    def _try(self, event: KeysWanted, node: NodeId) -> bool:
        context, pair = self.context, self.context.pairs.get(node)
        if pair is None or not pair.compared:
            return False
        length = event.size_bits // 8
        starts = pair.stock.take(event.number, length)
        if starts is None:
            return False
        run = pair.own_key.id
        context.out.answer.append(Deliver(event.request, tuple(Range(run, start, length) for start in starts)))
        return True

    def _queue(self, event: KeysWanted, node: NodeId) -> None:
        """Waits for a lease if one can come; refuses at once if none can."""
        context, pair = self.context, self.context.pairs.get(node)
        distant = pair is None or not pair.direct
        if distant:
            self.wanted_peers.add(node)
        if pair is None or not pair.compared:
            if not distant or not self.can_relay(node):
                raise RequestError(
                    Refusal.UNAVAILABLE, f"no key is shared with KME {node} yet: its link or path is down"
                )
        else:
            # Nothing is leased for a request that all of the stock would not answer.
            leasable = pair.own_key.untouched - self.leases.reserved_bytes(pair)
            missing = self._missing(event, pair)
            under_commit = missing <= 0 < self.leases.committing.get(pair.peer, 0)
            coming = under_commit or (missing <= leasable and self._lease(pair, event))
            if not coming and not (distant and self.can_relay(node)):
                raise RequestError(
                    Refusal.NOT_ENOUGH_KEY,
                    f"not enough key for {event.master} -> {event.slave}: "
                    f"asked {event.number} x {event.size_bits} bit, "
                    f"{pair.stock.left * 8} bit left",
                    retry_after_s=1.0,
                )
        queue = self.waiting.setdefault(node, deque())
        if len(queue) >= WAITING_LIMIT:
            raise RequestError(Refusal.RATE_LIMITED, "too many requests wait for key", retry_after_s=1.0)
        queue.append(Waiting(event, context.now + context.settings.request_wait_ns))
        context.at(context.now + context.settings.request_wait_ns, RequestEnded(event.request))

    def wanted_bytes(self, pair: Pair) -> int:
        """How much key in hand the forecast asks for."""
        return max(self.least_lease_bytes(pair), self.design.synchronisation.size(self.demand(pair)))

    def lease_bytes(self, pair: Pair) -> int:
        """How much of it to lease: of a link no more than half of what there is.

        The rest is for relay: else a link that lost its leases would be closed to all paths until it had them anew.
        """
        wanted = self.wanted_bytes(pair)
        return min(wanted, (pair.stock.left + pair.own_key.untouched) // 2) if pair.direct else wanted

    def demand(self, pair: Pair) -> float:
        return self._demand.get(pair.peer, 0.0)

    def measure(self, pair: Pair, elapsed_ns: int) -> None:
        """Takes what was given out since the last look into the forecast and the book."""
        taken, wasted = pair.stock.taken, pair.stock.wasted
        pair.stock.taken = pair.stock.wasted = 0
        rate = taken * NANOSECONDS / max(1, elapsed_ns)
        before = self._demand.get(pair.peer, 0.0)
        # Rises at once, falls slowly: a lease too small costs a wait, one too large costs a restart's burn.
        kept = 0.9 ** (elapsed_ns / NANOSECONDS)
        self._demand[pair.peer] = rate if rate > before else before * kept + rate * (1 - kept)
        book = pair.own_key.book
        if taken:
            book.move(State.RESERVED_APP, Action.SUPPLY, taken)
        if wasted:
            book.move(State.RESERVED_APP, Action.WASTE, wasted)

    def _missing(self, event: KeysWanted, pair: Pair) -> int:
        """Bytes that the leases in hand, or in a moment, lack for a request."""
        return event.number * event.size_bits // 8 - pair.stock.left - self.leases.committing.get(pair.peer, 0)

    def _lease(self, pair: Pair, event: KeysWanted) -> bool:
        return self.leases.want(pair, Purpose.SUPPLY, max(self._missing(event, pair), self.lease_bytes(pair)))

    def serve(self, pair: Pair) -> None:
        """A lease has come, or the link: those who wait are answered in their order."""
        self.governed.serve(pair)
        queue = self.waiting.get(pair.peer)
        while queue:
            if not self._try(queue[0].event, pair.peer):
                break
            queue.popleft()
        if queue:
            self._lease(pair, queue[0].event)

    def waiting_bytes(self, node: str) -> int:
        """What all requests together ask for that wait for key of this key manager."""
        plain = (waiting.event for waiting in self.waiting.get(node, ()))
        governed = (waiting.event for waiting in self.governed.waiting.get(node, ()))
        return sum(event.number * event.size_bits for event in (*plain, *governed)) // 8

    def ended(self, event: RequestEnded) -> None:
        if self.governed.ended(event):
            return
        for node, queue in self.waiting.items():
            for waiting in queue:
                if waiting.event.request == event.request:
                    queue.remove(waiting)
                    refusal = RequestError(
                        Refusal.NOT_ENOUGH_KEY,
                        f"not enough key for {waiting.event.master} -> {waiting.event.slave}: {self.why_none(node)}",
                        retry_after_s=1.0,
                    )
                    self.context.refuse(event.request, refusal)
                    return

    # --- the slave's side ---------------------------------------------------------------------------------------------

    def recorded_bits(self, key_id: str) -> int:
        """Size of the key; 0 if this ID has no record."""
        row = self.local.records.get(key_id)
        if row is not None:
            return row.length * 8
        return self.hosted.size_bits(key_id) if self.hosted is not None else 0

    def fetched_by_record(self, event: RecordsFetched) -> None:
        if self.hosted is not None and any(map(self.hosted.size_bits, event.ids)):
            self.hosted.fetched(event)
        else:
            self.local.fetched(event)

    def fetched(self, event: KeysFetched) -> None:
        """Of each request all keys or none; used durably, with the audit records, before the answers."""
        context, pair = self.context, self.context.pairs.get(event.peer)
        if pair is None or not pair.compared:
            text = f"the link to KME {event.peer} has not been compared since this KME started"
            for fetch in event.fetches:
                context.refuse(fetch.request, RequestError(Refusal.UNAVAILABLE, text, retry_after_s=1.0))
            return
        run = pair.their_key
        stretches, touched = self._stretches(run, event.fetches)
        if stretches:
            taken = [Range(run.id, low, high - low) for low, high in stretches]
            children: list[Range] = []
            for low, high in stretches:
                run.used.add(low, high)
            granted, run_id = event.fetches, run.id
            context.out.answer += [
                Deliver(fetch.request, tuple([Range(run_id, start, length) for _, start, length in fetch.keys]))
                for fetch in granted
            ]
        else:
            taken, children, granted = self._grant_each(run, event.fetches, touched)
        if granted:
            records: list[Save] = []
            if event.audit is not None:
                before, after = event.audit
                records.append(Audit(before + b'","'.join([fetch.ids for fetch in granted]) + after))
            self._use_up(run, taken, children, records, touched)

    def _stretches(self, run: Run, fetches: Sequence[Fetch]) -> tuple[list[tuple[int, int]], dict[int, Segment]]:
        """All that is asked for, [start, end) in order, with the segments it lies in, if every key may be given.

        Nothing if one may not: then each request is judged by itself. Neighbouring keys are mostly asked for together,
        so one look at the leases and at what is used does for many of them.
        """
        number = run.id.number
        places = sorted([(start, start + length, of_run) for fetch in fetches for of_run, start, length in fetch.keys])
        stretches: list[tuple[int, int]] = []
        touched: dict[int, Segment] = {}
        low = high = 0
        for start, end, of_run in places:
            if of_run != number or start < high:
                return [], {}
            if start > high or not stretches:
                stretches.append((start, end))
                low = start
            else:
                stretches[-1] = (low, end)
            high = end
        for low, high in stretches:
            covering = run.leased(low, high, Purpose.SUPPLY)
            if covering is None or run.used.touches(low, high):
                return [], {}
            for segment in covering:
                touched[segment.start] = segment
        return stretches, touched

    def _grant_each(
        self, run: Run, fetches: Sequence[Fetch], touched: dict[int, Segment]
    ) -> tuple[list[Range], list[Range], list[Fetch]]:
        """What is given of these requests, in the order they came, and to which; the others are refused.

        (bytes of keys; bytes that stand for derived keys, whose parents' bytes are needed still; granted requests)
        """
        taken: list[Range] = []
        children: list[Range] = []
        granted: list[Fetch] = []
        for fetch in fetches:
            chosen = self._choose(run, fetch.keys, touched)
            if chosen is None:
                self.context.refuse(fetch.request, RequestError(Refusal.NOT_FOUND, NOT_FOUND))
                continue
            # At once: who asks for the same key in this very moment comes too late.
            for place in chosen:
                if place.run == run.id:
                    run.used.add(place.start, place.end)
                else:
                    self.exchanges.used(run.id.peer, exchange_in(place.run.number)).add(place.start, place.end)
            granted.append(fetch)
            found = [self._found(run, *key) for key in fetch.keys]
            for place, (bits_at, _) in zip(chosen, found, strict=True):
                if place.run == run.id:
                    (taken if bits_at == place else children).append(place)
            for _, child in found:
                if child is not None and child.view:
                    self.exchanges.book(run.id.peer, child.size_bits // 8, ours=False)
            bits, derived = tuple(range for range, _ in found), tuple(child for _, child in found)
            answer = Deliver(fetch.request, bits, derived=derived if any(derived) else ())
            self.context.out.answer.append(answer)
        return joined(taken), joined(children), granted

    @staticmethod
    def _found(run: Run, number: int, start: int, length: int) -> tuple[Range, Derived | None]:
        """The bits that make a key, and how, where it is not these bits."""
        if number == view_of(run.id):
            return parent_of(run.id, start), child_of(run.id, start, length)
        if view := view_in(number):
            at = Range(run.id, start, 0 if view == ALONE_VIEW else length)
            return at, made_with(run.id, view, exchange_in(number), start, length)
        return Range(run.id, start, length), None

    def _choose(self, run: Run, keys: Sequence[Coordinates], touched: dict[int, Segment]) -> tuple[Range, ...] | None:
        """What each of these keys uses up, if all are leased and unused; their segments are added to `touched`."""
        run_id, view = run.id, view_of(run.id)
        chosen: list[Range] = []
        for number, start, length in keys:
            end = start + length
            if number != run_id.number and length * 8 > SIZE_LIMIT_BITS:
                return None
            if number == view:
                # A child is marked by one byte of its parent, all of which is leased for nothing else.
                parent = parent_of(run_id, start)
                covering = run.leased(parent.start, parent.end, Purpose.DERIVE)
                length, end = 1, start + 1
            elif view_in(number):
                if number & 1 != run_id.number & 1 or not self.exchanges.has(run_id.peer, exchange_in(number)):
                    return None
                if view_in(number) == ALONE_VIEW:
                    if self.exchanges.used(run_id.peer, exchange_in(number)).touches(start, end):
                        return None
                    chosen.append(Range(RunId(run_id.peer, number), start, length))
                    continue
                covering = run.leased(start, end, Purpose.SUPPLY)
            else:
                covering = run.leased(start, end, Purpose.SUPPLY) if number == run_id.number else None
            if covering is None or run.used.touches(start, end):
                return None
            chosen.append(Range(run_id, start, length))
            for segment in covering:
                touched[segment.start] = segment
        if len(chosen) > 1:
            ordered = sorted(chosen)
            if any(first.end > second.start and first.run == second.run for first, second in pairwise(ordered)):
                return None
        return tuple(chosen)

    def _use_up(
        self,
        run: Run,
        taken: list[Range],
        children: list[Range],
        records: list[Save],
        touched: dict[int, Segment],
    ) -> None:
        """What these keys leave behind: marks, records, a book entry, and segments of which nothing is left."""
        context = self.context
        ranges = taken + children
        context.save(*map(Used, ranges), *records)
        # The other children of a parent need its bytes: they go with their segment.
        context.out.wipe += taken
        run.book.move(State.RESERVED_APP, Action.SUPPLY, sum(range.length for range in ranges))
        for segment in touched.values():
            if context.used_up(run, segment):
                if children:
                    context.out.wipe.append(run.range(segment))
                context.book(run)
