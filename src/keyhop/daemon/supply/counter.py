"""Where all doors get keys: Desks are spent, key IDs sealed and opened, and the audit record written."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from collections.abc import Callable, Sequence

from keyhop.core.machine import Deliver
from keyhop.core.model import AppId, NodeId, Range, Refusal, RequestError, RunId
from keyhop.core.node.desk import Allowance, Grant
from keyhop.core.node.events import KeysWanted, RecordsFetched, RequestEnded, StockLow
from keyhop.core.node.local import NOT_FOUND
from keyhop.core.node.rows import secret_name
from keyhop.crypto.keyid import Coordinates, KeyIdSeal, Unopened, open_in_any
from keyhop.daemon.audit import AuditError, AuditLog, Delivery
from keyhop.daemon.driver import Bits, Driver
from keyhop.daemon.routes import Later
from keyhop.daemon.supply.etsi014 import Keys
from keyhop.wire.etsi014 import KeyRequest, Status

WIPE_EVERY_BYTES = 8192
"""Delivered bits are overwritten in stretches of about this many bytes: one call of the vault for all of them."""
WIPE_EVERY_S = 1.0
"""And after this time, however few they are."""
RETRY_S = 2.0
"""When to ask again where nobody can say: a lease or a link may be there by then."""
FAILED_IDS_PER_S = 20
FAILED_IDS_BURST = 1000
"""Wrong key IDs per application: what an honest client may get wrong after a restart of its peer."""

ORIGINS_LIMIT = 4096
"""Pairs of applications whose keys are fetched here and that are known at once; beyond it they are made anew."""
DELIVERIES_LIMIT = 4096
"""Cached beginnings of audit records; beyond it the cache starts again."""

NO_AUDIT = "the audit log cannot be written: no key is supplied"
TRY_LATER = frozenset({Refusal.NOT_ENOUGH_KEY, Refusal.RATE_LIMITED, Refusal.UNAVAILABLE})

Delivered = Callable[[str, str, str, Sequence[str], int], None]
"""Takes role (`enc`, `dec`), the caller, the other application, key IDs and the size in bits."""
Refused = Callable[[str, str, str, RequestError], None]
"""Takes role, the caller, the other application and why."""


class Account:
    """What one pair of applications spends at this node as master, with all that can be computed once."""

    __slots__ = (
        "allowance",
        "deliveries",
        "epoch",
        "grant",
        "pair",
        "peer",
        "run",
        "seal",
        "stock",
        "stretch",
        "tally",
    )

    def __init__(self, grant: Grant, run: RunId, seal: KeyIdSeal, epoch: int, tally: Tally, stretch: list[int]) -> None:
        self.grant = grant
        self.peer = grant.peer
        self.stock = grant.stock
        self.allowance = grant.allowance
        self.run = run
        self.seal = seal.seal
        self.epoch = epoch
        self.pair = seal.pair(grant.master, grant.slave)
        self.deliveries: dict[int, Delivery] = {}
        self.tally = tally
        self.stretch = stretch
        """[start, end) of what was given out to this peer and is not overwritten yet; one list per peer."""


class Origin:
    """Where the keys of one master come from that one slave may fetch here, with all that can be computed once."""

    __slots__ = ("deliveries", "epochs", "node", "seals")

    def __init__(self, node: NodeId, epochs: list[int], seals: list[KeyIdSeal]) -> None:
        self.node = node
        self.epochs = epochs
        self.seals = seals
        """Newest epoch first."""
        self.deliveries: dict[int, Delivery] = {}


class Fetching(Later):
    """A dec_keys between its request and its answer."""

    __slots__ = ("caller", "counter", "key_ids", "master")

    def __init__(self, counter: Counter, caller: str, master: str, key_ids: list[str]) -> None:
        super().__init__()
        self.counter = counter
        self.caller = caller
        self.master = master
        self.key_ids = key_ids

    def answered(self, deliver: Deliver, bits: Bits) -> None:
        """What the driver calls, once it is durable."""
        refusal = deliver.refusal
        if refusal is None:
            keys = list(zip(self.key_ids, bits, strict=True))
            self.counter.count(self.caller, "dec", keys, self.master, len(bits[0]) * 8)
            self.give(keys)
            return
        if refusal.reason in (Refusal.NOT_FOUND, Refusal.NOT_AUTHORISED):
            self.counter.failed_id(self.caller)
        self.counter.refuse("dec", self.caller, self.master, refusal)
        self.give(refusal)


class Tally:
    """Plain numbers for the metrics and the node API."""

    __slots__ = ("bytes", "keys", "last_id", "last_ns", "last_peer", "last_refusal", "last_role", "refused")

    def __init__(self) -> None:
        self.keys = {"enc": 0, "dec": 0}
        self.bytes = {"enc": 0, "dec": 0}
        self.refused: dict[str, int] = {}
        self.last_refusal = ""
        self.last_id = ""
        self.last_ns = 0
        self.last_peer = ""
        self.last_role = "enc"


class Counter:
    def __init__(self, driver: Driver, audit: AuditLog | None, *, kme_ids: dict[str, str] | None = None) -> None:
        """`kme_ids`: node to the KME ID that answers carry; a node that is not in it is named as it is."""
        self._driver = driver
        self._node = driver.node
        self._vault = driver.vault
        self._audit = audit
        self._own = driver.node.context.node
        self._kme_ids = kme_ids or {}
        self._accounts: dict[tuple[str, str], Account] = {}
        self._seals: dict[str, KeyIdSeal] = {}
        self._failures: dict[str, Allowance] = {}
        self._unwiped: dict[str, list[int]] = {}
        """Peer -> [start, end) of what was given out and is not overwritten yet."""
        self._origins: dict[tuple[str, str], Origin] = {}
        self._deliveries: dict[tuple[str, str, str, int, str], Delivery] = {}
        self.tallies: dict[str, Tally] = {}
        self._settings = driver.node.context.settings
        self._confirmed = driver.node.secrets.confirmed
        self.refused: Counts[Refusal] = Counts()
        """Also of callers that nobody knows."""
        self.on_delivered: list[Delivered] = []
        """Costs one truth test per request while nobody listens."""
        self.on_refused: list[Refused] = []
        self._wiping = asyncio.get_running_loop().call_later(WIPE_EVERY_S, self._wipe_now)

    def __repr__(self) -> str:
        return f"Counter({self._own!r}, {len(self._accounts)} pairs of applications)"

    def close(self) -> None:
        """Overwrites what was given out and is still in memory."""
        self._wiping.cancel()
        self._wipe_all()

    # --- enc_keys -----------------------------------------------------------------------------------------------------

    def enc_keys(
        self, caller: str, slave: str, number: int, size_bits: int | None, request: KeyRequest | None
    ) -> Keys | Later:
        """New keys at once out of a Desk, or later while a lease is fetched. Raises RequestError."""
        settings = self._settings
        size_bits = size_bits or settings.default_key_bits
        try:
            # Who may not ask at all is told so, whatever else is wrong with the request.
            account = self._accounts.get((caller, slave))
            if account is None or account.epoch != self._confirmed.get(account.peer):
                account = self._account(caller, slave)
            if number > settings.keys_per_request or not settings.min_key_bits <= size_bits <= settings.max_key_bits:
                raise self._out_of_range(number, size_bits)
            if request is not None and request.additional_slave_SAE_IDs:
                raise RequestError(Refusal.BAD_REQUEST, "additional_slave_SAE_IDs: at most 0 are supported")
            if self._audit is not None and self._audit.failure:
                raise RequestError(Refusal.UNAVAILABLE, NO_AUDIT)
            now = time.monotonic_ns()
            allowance = account.allowance if account else self._node.supply.allowances.get(AppId(caller))
            if allowance is not None:
                wait_ns = allowance.spend(number * size_bits, now)
                if wait_ns:
                    raise _over_quota(caller, number * size_bits, allowance, wait_ns)
            if account is not None:
                starts = account.stock.take(number, size_bits >> 3)
                if starts is not None:
                    return self._hand_over(account, starts, size_bits, now)
            return self._wait(caller, slave, number, size_bits, allowance)
        except RequestError as error:
            self.refuse("enc", caller, slave, error)
            raise

    def _out_of_range(self, number: int, size_bits: int) -> RequestError:
        s = self._settings
        if number > s.keys_per_request:
            return RequestError(Refusal.BAD_REQUEST, f"number {number}: must be 1 to {s.keys_per_request}")
        return RequestError(Refusal.BAD_REQUEST, f"size {size_bits}: must be {s.min_key_bits} to {s.max_key_bits} bit")

    def _account(self, caller: str, slave: str) -> Account | None:
        grant = self._node.supply.grant(caller, slave)
        if grant is None:
            return None
        epoch = self._node.secrets.confirmed.get(grant.peer)
        if epoch is None:
            return None
        run = self._node.context.pairs[grant.peer].own_key.id
        stretch = self._unwiped.setdefault(grant.peer, [0, 0])
        self._forget_seals(grant.peer)
        account = Account(grant, run, self._seal(grant.peer, self._own, epoch), epoch, self._tally(caller), stretch)
        self._accounts[caller, slave] = account
        return account

    def _forget_seals(self, peer: str) -> None:
        """A secret that the vault dropped must not live on in here."""
        live = self._node.context.pairs[peer].secrets
        names = {secret_name(peer, issuer, epoch) for issuer, epochs in live.items() for epoch in epochs}
        for name in [name for name in self._seals if name.startswith(f"{peer}/") and name not in names]:
            del self._seals[name]
        for key in [key for key, o in self._origins.items() if o.node == peer and o.epochs != live[peer]]:
            del self._origins[key]

    def _seal(self, peer: str, issuer: str, epoch: int) -> KeyIdSeal:
        name = secret_name(peer, issuer, epoch)
        seal = self._seals.get(name)
        if seal is None:
            other = peer if issuer == self._own else self._own
            seal = self._seals[name] = KeyIdSeal(self._vault.secret(name), issuer, other, epoch)
        return seal

    def _hand_over(self, account: Account, starts: Sequence[int], size_bits: int, now: int) -> Keys:
        """Seals the IDs, reads the bits, writes the audit record; only then are they an answer."""
        length, run, seal, pair, read = size_bits >> 3, account.run, account.seal, account.pair, self._vault.read
        number = run.number
        keys = [(seal(number, start, length, pair), read(Range(run, start, length))) for start in starts]
        audit = self._audit
        if audit is not None:
            delivery = account.deliveries.get(size_bits) or self._delivery(account, size_bits)
            try:
                if len(keys) == 1:
                    audit.delivered_now(delivery, keys[0][0])
                else:
                    audit.delivered(delivery, [key_id for key_id, _ in keys])
                    audit.flush()
            except AuditError:
                # The bits are taken and stay so: not given is safe, given without a record is not.
                for start in starts:
                    self._vault.wipe(Range(run, start, length))
                raise RequestError(Refusal.UNAVAILABLE, NO_AUDIT) from None
        stock = account.stock
        if stock.end - stock.cursor < stock.low and stock.left < stock.low:
            self._low(account.peer)
        stretch = account.stretch
        for start in starts:
            if start != stretch[1] or start - stretch[0] >= WIPE_EVERY_BYTES:
                # Overwritten a stretch at a time, and never across a gap, where bits of others lie.
                if stretch[1] > stretch[0]:
                    self._vault.wipe(Range(run, stretch[0], stretch[1] - stretch[0]))
                stretch[0] = start
            stretch[1] = start + length
        tally = account.tally
        tally.keys["enc"] += len(keys)
        tally.bytes["enc"] += len(keys) * length
        tally.last_id, tally.last_peer, tally.last_ns = keys[-1][0], account.grant.slave, now
        tally.last_role = "enc"
        if self.on_delivered:
            self._tell_delivered("enc", account.grant.master, account.grant.slave, keys, size_bits)
        return keys

    def _tell_delivered(self, role: str, caller: str, peer: str, keys: Keys, size_bits: int) -> None:
        ids = [key_id for key_id, _ in keys]
        for call in self.on_delivered:
            call(role, caller, peer, ids, size_bits)

    def _wipe_now(self) -> None:
        self._wiping = asyncio.get_running_loop().call_later(WIPE_EVERY_S, self._wipe_now)
        self._wipe_all()

    def _wipe_all(self) -> None:
        for peer, stretch in self._unwiped.items():
            if stretch[1] > stretch[0]:
                run = self._node.context.pairs[peer].own_key.id
                self._vault.wipe(Range(run, stretch[0], stretch[1] - stretch[0]))
                stretch[0] = stretch[1]

    def _delivery(self, account: Account, size_bits: int) -> Delivery:
        """The part of the audit record that is the same for every key of this size."""
        grant = account.grant
        delivery = account.deliveries[size_bits] = Delivery(
            actor={"sae": grant.master},
            interface="etsi014",
            role="enc",
            peer=grant.slave,
            size_bits=size_bits,
            path=(self._own, grant.peer),
        )
        return delivery

    def _low(self, peer: str) -> None:
        """Says once per lease that it runs low."""
        pair = self._node.context.pairs[peer]
        if pair.stock.low:
            pair.stock.low = 0
            self._driver.feed(StockLow(peer))

    def _wait(self, caller: str, slave: str, number: int, size_bits: int, allowance: Allowance | None) -> Later:
        """The Desk is empty or not there yet: the core decides, and may wait for a lease."""
        later = Later()

        def answer(deliver: Deliver, bits: Bits) -> None:
            if later.outcome is not None:
                # The client is gone. What was taken for it is given to nobody.
                for range in () if deliver.ids else deliver.ranges:
                    self._vault.wipe(range)
                return
            try:
                if deliver.refusal is not None:
                    raise deliver.refusal
                later.give(self._answer(caller, slave, size_bits, deliver, bits))
            except RequestError as error:
                if allowance is not None:
                    allowance.give_back(number * size_bits)
                self.refuse("enc", caller, slave, error)
                later.give(error)

        request = self._driver.ask(lambda request: KeysWanted(request, caller, slave, number, size_bits), answer)
        later.on_abandoned = lambda: self._driver.feed(RequestEnded(request))
        return later

    def _answer(self, caller: str, slave: str, size_bits: int, deliver: Deliver, bits: Bits) -> Keys:
        if deliver.ids:
            keys = list(zip(deliver.ids, bits, strict=True))
            if self._audit is not None:
                try:
                    self._audit.delivered(self._delivery_of(caller, "enc", slave, size_bits, self._own), deliver.ids)
                    self._audit.flush()
                except AuditError:
                    raise RequestError(Refusal.UNAVAILABLE, NO_AUDIT) from None
            self.count(caller, "enc", keys, slave, size_bits)
            return keys
        account = self._account(caller, slave)
        if account is None:
            for range in deliver.ranges:
                self._vault.wipe(range)
            raise RequestError(Refusal.UNAVAILABLE, "the link went down while the request waited", retry_after_s=1.0)
        return self._hand_over(account, [range.start for range in deliver.ranges], size_bits, time.monotonic_ns())

    # --- dec_keys -----------------------------------------------------------------------------------------------------

    def dec_keys(self, caller: str, master: str, key_ids: list[str]) -> Later:
        """Keys by ID: all judged before any is consumed, 401 before 400. Raises RequestError, or gives it later."""
        try:
            return self._dec_keys(caller, master, key_ids)
        except RequestError as error:
            self.refuse("dec", caller, master, error)
            raise

    def _dec_keys(self, caller: str, master: str, key_ids: list[str]) -> Later:
        supply = self._node.supply
        if AppId(caller) not in supply.applications:
            raise RequestError(Refusal.NOT_AUTHORISED, f"SAE {caller!r} is not registered at this KME")
        if self._audit is not None and self._audit.failure:
            raise RequestError(Refusal.UNAVAILABLE, NO_AUDIT)
        if len(key_ids) > self._settings.keys_per_request:
            text = f"{len(key_ids)} key IDs: must be 1 to {self._settings.keys_per_request}"
            raise RequestError(Refusal.BAD_REQUEST, text)
        self._check_guesses(caller)
        if supply.local.records and any(key_id in supply.local.records for key_id in key_ids):
            ids = tuple(key_ids)
            size_bits = supply.local.records[next(id for id in ids if id in supply.local.records)].length * 8
            entry = self._delivery_of(caller, "dec", master, size_bits, self._own).entry(key_ids)
            fetching = Fetching(self, caller, master, key_ids)
            self._driver.ask(lambda request: RecordsFetched(request, caller, master, ids, entry), fetching.answered)
            return fetching
        origin = self._origin(caller, master)
        if origin is None:
            raise self._failed(caller, Refusal.NOT_FOUND, NOT_FOUND)
        found: list[Coordinates] = []
        unknown = False
        for key_id in key_ids:
            opened = open_in_any(origin.seals, key_id, master, caller)
            if isinstance(opened, Coordinates):
                found.append(opened)
            elif opened is Unopened.FOREIGN:
                text = f"SAE {caller!r} was not named for every one of these keys"
                raise self._failed(caller, Refusal.NOT_AUTHORISED, text)
            else:
                unknown = True
        if unknown:
            raise self._failed(caller, Refusal.NOT_FOUND, NOT_FOUND)
        node, size_bits = origin.node, found[0].length * 8
        delivery = origin.deliveries.get(size_bits)
        if delivery is None:
            delivery = origin.deliveries[size_bits] = self._delivery_of(caller, "dec", master, size_bits, node)
        fetching = Fetching(self, caller, master, key_ids)
        self._driver.fetch(node, tuple(found), delivery.entry(key_ids), fetching.answered)
        return fetching

    def _origin(self, caller: str, master: str) -> Origin | None:
        """What opens the IDs of this master's keys for this caller; None where no such key can be."""
        node = self._node.supply.directory.get(AppId(master))
        pair = self._node.context.pairs.get(node) if node is not None else None
        if node is None or pair is None:
            return None
        epochs = pair.secrets[node]
        origin = self._origins.get((caller, master))
        if origin is None or origin.node != node or origin.epochs != epochs:
            self._forget_seals(node)
            if len(self._origins) >= ORIGINS_LIMIT:
                self._origins.clear()
            seals = [self._seal(node, node, epoch) for epoch in reversed(epochs)]
            origin = self._origins[caller, master] = Origin(node, list(epochs), seals)
        return origin

    def _delivery_of(self, caller: str, role: str, peer: str, size_bits: int, node: str) -> Delivery:
        found = self._deliveries.get((caller, role, peer, size_bits, node))
        if found is None:
            if len(self._deliveries) >= DELIVERIES_LIMIT:
                self._deliveries.clear()
            found = self._deliveries[caller, role, peer, size_bits, node] = Delivery(
                actor={"sae": caller},
                interface="etsi014",
                role=role,
                peer=peer,
                size_bits=size_bits,
                path=tuple(dict.fromkeys((node, self._own) if role == "dec" else (self._own, node))),
            )
        return found

    def _check_guesses(self, caller: str) -> None:
        """Who named too many wrong IDs is not listened to for a while: tags cannot be guessed by the million."""
        allowance = self._failures.get(caller)
        if allowance is not None:
            wait_ns = allowance.spend(0, time.monotonic_ns())
            if wait_ns:
                raise RequestError(Refusal.RATE_LIMITED, "too many wrong key IDs", retry_after_s=wait_ns / 1e9)
            allowance.give_back(0)

    def _failed(self, caller: str, reason: Refusal, text: str) -> RequestError:
        self.failed_id(caller)
        return RequestError(reason, text)

    def failed_id(self, caller: str) -> None:
        """A wrong ID is counted against the application that named it."""
        now = time.monotonic_ns()
        allowance = self._failures.get(caller)
        if allowance is None:
            allowance = self._failures[caller] = Allowance(0, 0, FAILED_IDS_PER_S, FAILED_IDS_BURST, now)
        allowance.spend(0, now)

    # --- status and numbers -------------------------------------------------------------------------------------------

    def status(self, caller: str, slave: str) -> Status:
        settings = self._settings
        try:
            node, stored, ceiling = self._node.supply.count_available(caller, slave)
        except RequestError as error:
            self.refuse("enc", caller, slave, error)
            raise
        return Status(
            source_KME_ID=self._kme_id(self._own),
            target_KME_ID=self._kme_id(node),
            master_SAE_ID=caller,
            slave_SAE_ID=slave,
            key_size=settings.default_key_bits,
            stored_key_count=stored,
            max_key_count=ceiling,
            max_key_per_request=settings.keys_per_request,
            max_key_size=settings.max_key_bits,
            min_key_size=settings.min_key_bits,
            max_SAE_ID_count=0,
        )

    def _kme_id(self, node: str) -> str:
        return self._kme_ids.get(node, node)

    def _tally(self, application: str) -> Tally:
        tally = self.tallies.get(application)
        if tally is None:
            tally = self.tallies[application] = Tally()
        return tally

    def count(self, caller: str, role: str, keys: Keys, peer: str, size_bits: int) -> None:
        """Keys that are on their way to the caller."""
        tally = self._tally(caller)
        tally.keys[role] += len(keys)
        tally.bytes[role] += sum([len(key) for _, key in keys])
        tally.last_id, tally.last_peer, tally.last_ns = keys[-1][0], peer, time.monotonic_ns()
        tally.last_role = role
        if self.on_delivered:
            self._tell_delivered(role, caller, peer, keys, size_bits)

    def refuse(self, role: str, caller: str, peer: str, error: RequestError) -> None:
        """Counts a refusal, and says when to come again where nobody can know."""
        if error.retry_after_s is None and error.reason in TRY_LATER:
            error.retry_after_s = RETRY_S
        self.refused[error.reason] += 1
        if AppId(caller) in self._node.supply.applications:
            tally = self._tally(caller)
            tally.refused[error.reason] = tally.refused.get(error.reason, 0) + 1
            tally.last_refusal = error.message
            for call in self.on_refused:
                call(role, caller, peer, error)


def _over_quota(caller: str, size_bits: int, allowance: Allowance, wait_ns: int) -> RequestError:
    if size_bits > allowance.burst_bits:
        text = f"{size_bits} bit at once: SAE {caller!r} may have {allowance.burst_bits} bit"
        return RequestError(Refusal.BAD_REQUEST, text)
    text = f"the quota of SAE {caller!r} is used up"
    return RequestError(Refusal.RATE_LIMITED, text, retry_after_s=wait_ns / 1e9)
