"""The masters' side: keys taken out of Desks, with new IDs, for all requests of one turn of the event loop together.

What a turn brings is collected by `enc_keys` and served when the loop comes round: keys are taken, IDs sealed and bits
read for all of them at once; then the audit log is written, once; only then does anybody get an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from keyhop.core.constraints import NO_CONSTRAINTS, Asked, parse
from keyhop.core.machine import Deliver
from keyhop.core.model import AppId, Range, Refusal, RequestError, RunId
from keyhop.core.node.desk import Allowance
from keyhop.core.node.events import KeysWanted, RequestEnded, StockLow
from keyhop.daemon.audit import KEYS_PER_LINE, AuditError, AuditLog
from keyhop.daemon.driver import Bits, Driver
from keyhop.daemon.routes import Later
from keyhop.daemon.supply.accounts import Account, Batch, Order
from keyhop.daemon.supply.etsi014 import Keys, Labelled
from keyhop.daemon.supply.labels import told
from keyhop.daemon.supply.seals import Seals
from keyhop.daemon.supply.tallies import ETSI014, Tallies, delivery_of
from keyhop.wire.etsi014 import KeyRequest

WIPE_EVERY_BYTES = 8192
"""Delivered bits are overwritten in stretches of about this many bytes: one call of the vault for all of them."""
WIPE_EVERY_S = 1.0
"""And after this time, however few they are."""
ORDERS_LIMIT = 64
"""Numbers and sizes that are remembered of one pair of applications; beyond it they are made anew."""

NO_AUDIT = "the audit log cannot be written: no key is supplied"
FAILED = "the key manager failed on this request"


class Masters:
    def __init__(
        self, driver: Driver, audit: AuditLog | None, seals: Seals, tallies: Tallies, interface: str = ETSI014
    ) -> None:
        self._interface = interface
        self._driver = driver
        self._node = driver.node
        self._vault = driver.vault
        self._audit = audit
        self._seals = seals
        self._tallies = tallies
        self._own = driver.node.context.node
        self._settings = driver.node.context.settings
        self._confirmed = driver.node.secrets.confirmed
        self._governed = driver.node.supply.governed
        self._accounts: dict[tuple[str, str], Account] = {}
        self._governed_accounts: dict[tuple[str, str], Account] = {}
        self._unwiped: dict[str, list[int]] = {}
        """Peer -> [start, end) of what was taken and is not overwritten yet."""
        self._turn: list[Order] = []
        self._now = 0
        """When this turn's first request came, on the monotonic clock; 0 between turns."""
        self._loop = asyncio.get_running_loop()
        self._wiping = self._loop.call_later(WIPE_EVERY_S, self._wipe_now)
        seals.on_forgotten.append(self._forget_accounts)

    def __repr__(self) -> str:
        return f"Masters({self._own!r}, {len(self._accounts)} pairs of applications)"

    def close(self) -> None:
        """Overwrites what was given out and is still in memory."""
        self._wiping.cancel()
        self._wipe_all()

    def enc_keys(
        self, caller: str, slave: str, number: int, size_bits: int | None, request: KeyRequest | None
    ) -> Later:
        """New keys at the end of this turn, or later where a lease must come first. Raises RequestError."""
        settings = self._settings
        later = Later()
        asked: Asked | None = None
        try:
            # Who may not ask at all is told so, whatever else is wrong with the request.
            account = self._accounts.get((caller, slave))
            if account is None or account.epoch != self._confirmed.get(account.peer):
                account = self._account(caller, slave)
            if account is None and self._governed.enforces:
                size_bits = self._governed.terms(caller, slave).key_size(size_bits)
            else:
                size_bits = size_bits or settings.default_key_bits
            if number > settings.keys_per_request or not settings.min_key_bits <= size_bits <= settings.max_key_bits:
                raise self._out_of_range(number, size_bits)
            if request is not None:
                if request.additional_slave_SAE_IDs:
                    raise RequestError(Refusal.BAD_REQUEST, "additional_slave_SAE_IDs: at most 0 are supported")
                asked = parse(request.extension_mandatory, request.extension_optional)
                if asked.asks_nothing:
                    asked = None
            if self._audit is not None and self._audit.failure:
                raise RequestError(Refusal.UNAVAILABLE, NO_AUDIT)
            now = self._now or self._begin_turn()
            allowance = account.allowance if account else self._node.supply.allowances.get(AppId(caller))
            if allowance is not None:
                wait_ns = allowance.spend(number * size_bits, now)
                if wait_ns:
                    raise _over_quota(caller, number * size_bits, allowance, wait_ns)
        except RequestError as error:
            self._tallies.refuse("enc", caller, slave, error)
            raise
        if account is None or asked is not None:
            self._wait(later, caller, slave, number, size_bits, allowance, asked)
            return later
        order = account.orders.get((number, size_bits)) or self._order(account, number, size_bits)
        if not order.waiting:
            self._turn.append(order)
        order.waiting.append(later)
        return later

    def _out_of_range(self, number: int, size_bits: int) -> RequestError:
        s = self._settings
        if number > s.keys_per_request:
            return RequestError(Refusal.BAD_REQUEST, f"number {number}: must be 1 to {s.keys_per_request}")
        return RequestError(Refusal.BAD_REQUEST, f"size {size_bits}: must be {s.min_key_bits} to {s.max_key_bits} bit")

    def _account(self, caller: str, slave: str, *, governed: bool = False) -> Account | None:
        """None while every request must be an event; raises RequestError if the two may not share keys.

        `governed`: for keys that the core has dealt, whatever the edge may deal by itself.
        """
        grant = self._node.supply.grant(caller, slave, governed=governed)
        if grant is None:
            return None
        epoch = self._confirmed.get(grant.peer)
        if epoch is None:
            return None
        self._seals.forget_old(grant.peer)
        run = self._node.context.pairs[grant.peer].own_key.id
        stretch = self._unwiped.setdefault(grant.peer, [0, 0])
        account = Account(grant, run, self._seals.of(grant.peer, self._own, epoch), stretch)
        (self._governed_accounts if governed else self._accounts)[caller, slave] = account
        return account

    def _forget_accounts(self, peer: str) -> None:
        """They hold what was derived from a secret."""
        epoch = self._confirmed.get(peer)
        for accounts in (self._accounts, self._governed_accounts):
            for key in [key for key, a in accounts.items() if a.peer == peer and a.epoch != epoch]:
                del accounts[key]

    def _order(self, account: Account, number: int, size_bits: int) -> Order:
        if len(account.orders) >= ORDERS_LIMIT:
            account.orders.clear()
        grant = account.grant
        delivery = delivery_of(self._interface, "enc", grant.master, grant.slave, size_bits, self._own, grant.peer)
        order = account.orders[number, size_bits] = Order(account, number, size_bits, delivery)
        return order

    # --- a turn -------------------------------------------------------------------------------------------------------

    def _begin_turn(self) -> int:
        self._now = time.monotonic_ns()
        self._loop.call_soon(self._serve_turn)
        return self._now

    def _serve_turn(self) -> None:
        """Answers all that was asked since the loop was last here."""
        turn, self._turn, self._now = self._turn, [], 0
        asked = [(order, [later for later in order.waiting if later.outcome is None]) for order in turn]
        for order in turn:
            order.waiting = []
        try:
            batches = [batch for order, waiting in asked for batch in self._take(order, waiting)]
            self._record(batches)
        except Exception as error:
            # The bits are taken and stay so: not given is safe, given without a record is not.
            self._wipe_all()
            refusal = RequestError(Refusal.UNAVAILABLE, NO_AUDIT if isinstance(error, AuditError) else FAILED)
            for order, waiting in asked:
                self._refuse(order, [later for later in waiting if later.on_abandoned is None], refusal)
            if not isinstance(error, AuditError):
                raise
            return
        for batch in batches:
            self._give(batch)

    def _refuse(self, order: Order, waiting: Sequence[Later], refusal: RequestError) -> None:
        grant = order.account.grant
        for later in waiting:
            self._tallies.refuse("enc", grant.master, grant.slave, refusal)
            later.give(refusal)

    def _take(self, order: Order, waiting: list[Later]) -> list[Batch]:
        """Keys for the requests, in lines of the audit log; those for which the Desk has no key wait for more."""
        account, number, length = order.account, order.number, order.length
        fit = len(waiting)
        if account.epoch != self._confirmed.get(account.peer):
            # What a step between the request and now has changed, the core knows best.
            fit = 0
        starts = account.stock.take(fit * number, length)
        if starts is None:
            fit = account.stock.count(length) // number
            starts = account.stock.take(fit * number, length) or []
        for later in waiting[fit:]:
            grant = account.grant
            self._wait(later, grant.master, grant.slave, number, order.size_bits, grant.allowance)
        a_line = max(1, KEYS_PER_LINE // number)
        return [
            self._make(order, waiting[at : min(at + a_line, fit)], starts[at * number : (at + a_line) * number])
            for at in range(0, fit, a_line)
        ]

    def _make(self, order: Order, waiting: Sequence[Later], starts: Sequence[int]) -> Batch:
        """Seals the IDs and reads the bits of keys that are taken."""
        account, length = order.account, order.length
        run, first, end = account.run, starts[0], starts[-1] + length
        stretch = account.stretch
        # Read first: to note what lies behind a gap overwrites what lies before it.
        if end - first == len(starts) * length:
            together = self._vault.read(Range(run, first, end - first))
            bits = [together[at : at + length] for at in range(0, end - first, length)]
            self._mark(run, stretch, first, end)
        else:
            bits = [self._vault.read(Range(run, start, length)) for start in starts]
            for start in starts:
                self._mark(run, stretch, start, start + length)
        stock = account.stock
        if stock.end - stock.cursor < stock.low and stock.left < stock.low:
            self._low(account.peer)
        return Batch(order, waiting, account.seal.seal_all(run.number, starts, length, account.pair), bits)

    def _record(self, batches: Sequence[Batch]) -> None:
        """The audit records of all these keys, in one write. Raises AuditError."""
        audit = self._audit
        if audit is not None and batches:
            for batch in batches:
                audit.delivered(batch.order.delivery, batch.key_ids)
            audit.flush()

    def _give(self, batch: Batch) -> None:
        order, waiting, key_ids, bits = batch
        grant, number = order.account.grant, order.number
        length = order.length * len(key_ids)
        self._tallies.delivered(self._interface, "enc", grant.master, grant.slave, key_ids, order.size_bits, length)
        keys = list(zip(key_ids, bits, strict=True))
        for index, later in enumerate(waiting):
            later.give(keys[index * number : (index + 1) * number])

    def _low(self, peer: str) -> None:
        """Says once per lease that it runs low."""
        pair = self._node.context.pairs[peer]
        if pair.stock.low:
            pair.stock.low = 0
            self._driver.feed(StockLow(peer))

    # --- overwriting --------------------------------------------------------------------------------------------------

    def _mark(self, run: RunId, stretch: list[int], start: int, end: int) -> None:
        """Notes bytes to be overwritten: a stretch at a time, and never across a gap, where bits of others lie."""
        if start != stretch[1] or start - stretch[0] >= WIPE_EVERY_BYTES:
            if stretch[1] > stretch[0]:
                self._vault.wipe(Range(run, stretch[0], stretch[1] - stretch[0]))
            stretch[0] = start
        stretch[1] = end

    def _wipe_now(self) -> None:
        self._wiping = self._loop.call_later(WIPE_EVERY_S, self._wipe_now)
        self._wipe_all()

    def _wipe_all(self) -> None:
        for peer, stretch in self._unwiped.items():
            if stretch[1] > stretch[0]:
                run = self._node.context.pairs[peer].own_key.id
                self._vault.wipe(Range(run, stretch[0], stretch[1] - stretch[0]))
                stretch[0] = stretch[1]

    # --- what must wait -----------------------------------------------------------------------------------------------

    def _wait(
        self,
        later: Later,
        caller: str,
        slave: str,
        number: int,
        size_bits: int,
        allowance: Allowance | None,
        asked: Asked | None = None,
    ) -> None:
        """The Desk is empty or not there yet, or not every key will do: the core decides, and may wait for a lease."""
        labelled = (asked is not None and asked.labelled) or (
            self._governed.enforces and self._governed.terms(caller, slave).label
        )

        def answer(deliver: Deliver, bits: Bits) -> None:
            if later.outcome is not None:
                # The client is gone. What was taken for it is given to nobody.
                for range in () if deliver.ids else deliver.ranges:
                    self._vault.wipe(range)
                return
            try:
                if deliver.refusal is not None:
                    raise deliver.refusal
                keys = self._answer(caller, slave, number, size_bits, deliver, bits)
                later.give(self._labelled(caller, slave, keys, deliver) if labelled else keys)
            except RequestError as error:
                if allowance is not None:
                    allowance.give_back(number * size_bits)
                self._tallies.refuse("enc", caller, slave, error)
                later.give(error)

        demands = (NO_CONSTRAINTS, NO_CONSTRAINTS) if asked is None else (asked.required, asked.preferred)
        request = self._driver.ask(
            lambda request: KeysWanted(request, caller, slave, number, size_bits, *demands, labelled), answer
        )
        later.on_abandoned = lambda: self._driver.feed(RequestEnded(request))

    def _labelled(self, caller: str, slave: str, keys: Keys, deliver: Deliver) -> Labelled:
        wall_now = time.monotonic_ns() + self._node.context.wall_ahead_ns
        lifetime = self._governed.terms(caller, slave).lifetime if self._governed.enforces else None
        return Labelled(keys, [told(label, wall_now, lifetime) for label in deliver.labels])

    def _answer(self, caller: str, slave: str, number: int, size_bits: int, deliver: Deliver, bits: Bits) -> Keys:
        """Keys that the core has taken: sealed and recorded by themselves. Raises RequestError."""
        if deliver.ids:
            key_ids, read = list(deliver.ids), list(bits)
            delivery = delivery_of(self._interface, "enc", caller, slave, size_bits, self._own)
        else:
            account = self._accounts.get((caller, slave)) or self._governed_accounts.get((caller, slave))
            if account is None or account.epoch != self._confirmed.get(account.peer):
                account = self._account(caller, slave, governed=True)
            if account is None:
                for range in deliver.ranges:
                    self._vault.wipe(range)
                raise RequestError(
                    Refusal.UNAVAILABLE, "the link went down while the request waited", retry_after_s=1.0
                )
            order = account.orders.get((number, size_bits)) or self._order(account, number, size_bits)
            if deliver.derived:
                children = [derived.named for derived in deliver.derived if derived is not None]
                starts = [child.start for child in children]
                view = children[0].run.number
                key_ids, read = account.seal.seal_all(view, starts, order.length, account.pair), list(bits)
                for parent in {range for range in deliver.ranges if range.length}:
                    self._vault.wipe(parent)
            else:
                _, _, key_ids, read = self._make(order, (), [range.start for range in deliver.ranges])
            delivery = order.delivery
        if self._audit is not None:
            try:
                self._audit.delivered(delivery, key_ids)
                self._audit.flush()
            except AuditError:
                self._wipe_all()
                raise RequestError(Refusal.UNAVAILABLE, NO_AUDIT) from None
        length = size_bits * len(key_ids) >> 3
        self._tallies.delivered(self._interface, "enc", caller, slave, key_ids, size_bits, length)
        return list(zip(key_ids, read, strict=True))


def _over_quota(caller: str, size_bits: int, allowance: Allowance, wait_ns: int) -> RequestError:
    if size_bits > allowance.burst_bits:
        text = f"{size_bits} bit at once: SAE {caller!r} may have {allowance.burst_bits} bit"
        return RequestError(Refusal.BAD_REQUEST, text)
    text = f"the quota of SAE {caller!r} is used up"
    return RequestError(Refusal.RATE_LIMITED, text, retry_after_s=wait_ns / 1e9)
