"""The slaves' side: keys fetched by ID, all requests of one turn of the event loop together.

IDs are opened for all of a turn at once, and go to the core as one event for each master and size: it judges every
request for itself, and what it grants is used up, with one audit record, in one commit before the answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from keyhop.core.label import Entropy, Label, derived, exchanged, local, xored
from keyhop.core.machine import Deliver, Derived
from keyhop.core.model import AppId, NodeId, Range, Refusal, RequestError
from keyhop.core.node.desk import Allowance
from keyhop.core.node.events import RecordsFetched
from keyhop.core.node.exchanges import ALONE_VIEW, XOR_VIEW
from keyhop.core.node.local import NOT_FOUND
from keyhop.core.node.provenance import label_within
from keyhop.crypto.keyid import LANES_LIMIT, Coordinates, KeyIdSeal, Opened, Unopened, open_in_any
from keyhop.daemon.audit import KEYS_PER_LINE, AuditLog, Delivery
from keyhop.daemon.driver import Bits, Driver, Wanted
from keyhop.daemon.routes import Later
from keyhop.daemon.supply.etsi014 import Keys, Labelled
from keyhop.daemon.supply.labels import told
from keyhop.daemon.supply.masters import NO_AUDIT
from keyhop.daemon.supply.seals import Seals
from keyhop.daemon.supply.tallies import ETSI014, Tallies, delivery_of

FAILED_IDS_PER_S = 20
FAILED_IDS_BURST = 1000
"""Wrong key IDs per application: what an honest client may get wrong after a restart of its peer."""

NAMING_S = 1.0
"""How long a fetch waits for the peer's word on a key of another design."""
LOOK_UP_S = 0.01

ORIGINS_LIMIT = 4096
"""Pairs of applications whose keys are fetched here and that are known at once; beyond it they are made anew."""


class Origin:
    """Where the keys of one master come from that one slave may fetch here, with all that can be computed once."""

    __slots__ = ("asked", "caller", "deliveries", "epochs", "master", "node", "pair", "seals")

    def __init__(self, caller: str, master: str, node: NodeId, epochs: list[int], seals: list[KeyIdSeal]) -> None:
        self.caller = caller
        self.master = master
        self.node = node
        self.epochs = epochs
        self.seals = seals
        """Newest epoch first."""
        self.pair = seals[0].pair(master, caller) if seals else b""
        """In the newest epoch."""
        self.deliveries: dict[int, Delivery] = {}
        """By size in bits."""
        self.asked: list[Fetching] = []
        """The requests of this turn."""


class Fetching(Later):
    """A dec_keys between its request and its answer."""

    __slots__ = ("caller", "key_ids", "labelled", "master")

    def __init__(self, caller: str, master: str, key_ids: list[str], labelled: bool) -> None:
        super().__init__()
        self.labelled = labelled
        self.caller = caller
        self.master = master
        self.key_ids = key_ids


class Slaves:
    def __init__(
        self, driver: Driver, audit: AuditLog | None, seals: Seals, tallies: Tallies, interface: str = ETSI014
    ) -> None:
        self._interface = interface
        self._driver = driver
        self._node = driver.node
        self._audit = audit
        self._seals = seals
        self._tallies = tallies
        self._own = driver.node.context.node
        self._settings = driver.node.context.settings
        self._governed = driver.node.supply.governed
        self._origins: dict[tuple[str, str], Origin] = {}
        self._failures: dict[str, Allowance] = {}
        self._turn: list[Origin] = []
        self._loop = asyncio.get_running_loop()
        seals.on_forgotten.append(self._forget_origins)

    def __repr__(self) -> str:
        return f"Slaves({self._own!r}, {len(self._origins)} pairs of applications)"

    def dec_keys(self, caller: str, master: str, key_ids: list[str], *, labelled: bool = False) -> Later:
        """Keys by ID: all judged before any is consumed, 401 before 400. Raises RequestError, or gives it later."""
        try:
            self._check(caller, key_ids)
            supply = self._node.supply
            if self._governed.enforces and not labelled:
                labelled = self._governed.terms(master, caller).label
            if supply.hosted is not None or (supply.local.records and any(map(supply.recorded_bits, key_ids))):
                return self._fetch_records(caller, master, key_ids, labelled)
            origin = self._origins.get((caller, master))
            if origin is None or not origin.asked:
                # Looked at once a turn, because it is served as a whole.
                origin = self._origin(caller, master)
                if origin is None:
                    raise self._failed(caller, RequestError(Refusal.NOT_FOUND, NOT_FOUND))
        except RequestError as error:
            self._tallies.refuse("dec", caller, master, error)
            raise
        fetching = Fetching(caller, master, key_ids, labelled)
        if not origin.asked:
            if not self._turn:
                self._loop.call_soon(self._serve_turn)
            self._turn.append(origin)
        origin.asked.append(fetching)
        return fetching

    def _check(self, caller: str, key_ids: Sequence[str]) -> None:
        if AppId(caller) not in self._node.supply.applications:
            raise RequestError(Refusal.NOT_AUTHORISED, f"SAE {caller!r} is not registered at this KME")
        if self._audit is not None and self._audit.failure:
            raise RequestError(Refusal.UNAVAILABLE, NO_AUDIT)
        if not 1 <= len(key_ids) <= self._settings.keys_per_request:
            text = f"{len(key_ids)} key IDs: must be 1 to {self._settings.keys_per_request}"
            raise RequestError(Refusal.BAD_REQUEST, text)
        if caller in self._failures:
            self._check_guesses(caller)

    def _fetch_records(self, caller: str, master: str, key_ids: list[str], labelled: bool) -> Later:
        fetching = Fetching(caller, master, key_ids, labelled)
        self._look_up(fetching, self._loop.time() + NAMING_S)
        return fetching

    def _look_up(self, fetching: Fetching, until_s: float) -> None:
        """Where another design runs, the peer names each key; its word may be under way yet."""
        supply, ids = self._node.supply, tuple(fetching.key_ids)
        if fetching.outcome is not None:
            return
        sizes = [size for size in map(supply.recorded_bits, ids) if size]
        if len(sizes) < len(ids) and supply.hosted is not None and self._loop.time() < until_s:
            self._loop.call_later(LOOK_UP_S, self._look_up, fetching, until_s)
            return
        size_bits = sizes[0] if sizes else self._settings.default_key_bits
        delivery = delivery_of(self._interface, "dec", fetching.caller, fetching.master, size_bits, self._own)
        entry = delivery.entry(ids)
        self._driver.ask(
            lambda request: RecordsFetched(request, fetching.caller, fetching.master, ids, entry),
            lambda deliver, bits: self._answered([fetching], size_bits, [(deliver, bits)]),
        )

    def _origin(self, caller: str, master: str) -> Origin | None:
        """What opens the IDs of this master's keys for this caller; None where no such key can be."""
        node = self._node.supply.directory.get(AppId(master))
        pair = self._node.context.pairs.get(node) if node is not None else None
        if node is None or pair is None:
            return None
        epochs = pair.secrets[node]
        origin = self._origins.get((caller, master))
        if origin is None or origin.node != node or origin.epochs != epochs:
            self._seals.forget_old(node)
            if len(self._origins) >= ORIGINS_LIMIT:
                self._origins.clear()
            seals = [self._seals.of(node, node, epoch) for epoch in reversed(epochs)]
            origin = self._origins[caller, master] = Origin(caller, master, node, list(epochs), seals)
        return origin

    def _forget_origins(self, peer: str) -> None:
        """They hold what was derived from secrets."""
        live = self._node.context.pairs[peer].secrets
        for key in [key for key, o in self._origins.items() if o.node == peer and o.epochs != live[o.node]]:
            del self._origins[key]

    # --- a turn -------------------------------------------------------------------------------------------------------

    def _serve_turn(self) -> None:
        turn, self._turn = self._turn, []
        for origin in turn:
            asked, origin.asked = origin.asked, []
            self._serve(origin, [fetching for fetching in asked if fetching.outcome is None])

    def _serve(self, origin: Origin, asked: Sequence[Fetching]) -> None:
        """Opens all IDs, and asks the core for the keys of each request in which all were right."""
        opened = self._open(origin, [key_id for fetching in asked for key_id in fetching.key_ids])
        at = 0
        wanted: dict[int, tuple[list[Fetching], list[Wanted]]] = {}
        """By the length of the (first) key."""
        for fetching in asked:
            key_ids = fetching.key_ids
            number = len(key_ids)
            found = opened[at : at + number]
            at += number
            keys = tuple([one for one in found if type(one) is Coordinates])
            if len(keys) < number:
                self._refuse(fetching, _refusal(origin.caller, found))
                continue
            ids = key_ids[0].encode() if number == 1 else '","'.join(key_ids).encode()
            alike = wanted.get(keys[0][2])
            if alike is None:
                alike = wanted[keys[0][2]] = ([], [])
            alike[0].append(fetching)
            alike[1].append((keys, ids))
        for length, (fetchings, requests) in wanted.items():
            delivery = origin.deliveries.get(length * 8)
            if delivery is None:
                delivery = delivery_of(
                    self._interface, "dec", origin.caller, origin.master, length * 8, origin.node, self._own
                )
                origin.deliveries[length * 8] = delivery
            a_line = max(1, KEYS_PER_LINE // max([len(keys) for keys, _ in requests]))
            for first in range(0, len(requests), a_line):
                answer = partial(self._answered, fetchings[first : first + a_line], length * 8)
                self._driver.fetch(origin.node, requests[first : first + a_line], delivery.around, answer)

    def _open(self, origin: Origin, key_ids: Sequence[str]) -> Sequence[Opened]:
        opened: list[Opened] = []
        for at in range(0, len(key_ids), LANES_LIMIT):
            some = key_ids[at : at + LANES_LIMIT]
            # Nearly all are of the newest epoch and right; where one is not, each is looked at by itself.
            right = origin.seals[0].open_all(some, origin.pair) if origin.seals else None
            opened += right or [open_in_any(origin.seals, text, origin.master, origin.caller) for text in some]
        return opened

    def _answered(self, fetchings: Sequence[Fetching], size_bits: int, answers: Sequence[tuple[Deliver, Bits]]) -> None:
        """What the driver calls once it is durable; the requests are those of one caller to one master."""
        key_ids: list[str] = []
        length = 0
        for fetching, (deliver, bits) in zip(fetchings, answers, strict=True):
            if deliver.refusal is None:
                key_ids += fetching.key_ids
                length += len(bits[0]) if len(bits) == 1 else sum(map(len, bits))
        if key_ids:
            one = fetchings[0]
            self._tallies.delivered(self._interface, "dec", one.caller, one.master, key_ids, size_bits, length)
        for fetching, (deliver, bits) in zip(fetchings, answers, strict=True):
            if deliver.refusal is None:
                keys = list(zip(fetching.key_ids, bits, strict=True))
                fetching.give(self._labelled(fetching, keys, deliver) if fetching.labelled else keys)
            else:
                self._refuse(fetching, deliver.refusal)

    def _labelled(self, fetching: Fetching, keys: Keys, deliver: Deliver) -> Labelled | Keys:
        context = self._node.context
        wall_now = time.monotonic_ns() + context.wall_ahead_ns
        terms = self._governed.terms(fetching.master, fetching.caller) if self._governed.enforces else None
        made = deliver.derived or (None,) * len(deliver.ranges)
        labels = [self._label(range, child, wall_now) for range, child in zip(deliver.ranges, made, strict=True)]
        if any(label is None for label in labels):
            return keys
        lifetime = terms.lifetime if terms is not None else None
        return Labelled(keys, [told(label, wall_now, lifetime) for label in labels if label is not None])

    def _label(self, range: Range, child: Derived | None, wall_now: int) -> Label | None:
        """Of a key that was fetched here; None for one of another design, of which nothing is known."""
        if range.run.peer == self._own:
            return local(self._own, wall_now, Entropy.OS)
        pair = self._node.context.pairs.get(range.run.peer)
        if pair is None or self._node.supply.hosted is not None:
            return None
        ends = sorted((pair.own, pair.peer))
        if child is None:
            return label_within(pair.runs[range.run.number].origins, range.start, range.end, ends, wall_now)
        if not child.view:
            return derived([label_within(pair.runs[range.run.number].origins, range.start, range.end, ends, wall_now)])
        other = exchanged("ml_kem", "-".join(ends), child.exchange, (ends[0], ends[1]), wall_now)
        if child.view == ALONE_VIEW:
            return other
        found = label_within(pair.runs[range.run.number].origins, range.start, range.end, ends, wall_now)
        return xored([found, other]) if child.view == XOR_VIEW else derived([found, other])

    def _refuse(self, fetching: Fetching, refusal: RequestError) -> None:
        """A wrong ID counts against the application that named it."""
        if refusal.reason in (Refusal.NOT_FOUND, Refusal.NOT_AUTHORISED):
            self._failed(fetching.caller, refusal)
        self._tallies.refuse("dec", fetching.caller, fetching.master, refusal)
        fetching.give(refusal)

    # --- guesses ------------------------------------------------------------------------------------------------------

    def _check_guesses(self, caller: str) -> None:
        """Who named too many wrong IDs is not listened to for a while: tags cannot be guessed by the million."""
        allowance = self._failures[caller]
        wait_ns = allowance.spend(0, time.monotonic_ns())
        if wait_ns:
            raise RequestError(Refusal.RATE_LIMITED, "too many wrong key IDs", retry_after_s=wait_ns / 1e9)
        allowance.give_back(0)

    def _failed(self, caller: str, refusal: RequestError) -> RequestError:
        now = time.monotonic_ns()
        allowance = self._failures.get(caller)
        if allowance is None:
            allowance = self._failures[caller] = Allowance(0, 0, FAILED_IDS_PER_S, FAILED_IDS_BURST, now)
        allowance.spend(0, now)
        return refusal


def _refusal(caller: str, opened: Sequence[Opened]) -> RequestError:
    """Of a request with IDs that say nothing: 401 goes before 400 (014 clause 5.3)."""
    if Unopened.FOREIGN in opened:
        return RequestError(Refusal.NOT_AUTHORISED, f"SAE {caller!r} was not named for every one of these keys")
    return RequestError(Refusal.NOT_FOUND, NOT_FOUND)
