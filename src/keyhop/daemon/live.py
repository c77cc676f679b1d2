"""What happens in a node, as events for readers who watch it: looked for twice a second, or told by its parts."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from keyhop.core.model import AppId, RequestError
from keyhop.daemon.alarm_codes import CODES
from keyhop.daemon.measures import LOOK_S, Measures
from keyhop.daemon.view import View
from keyhop.wire.manage import (
    Alarm,
    AlarmChanged,
    AnyEvent,
    EventsLost,
    KeyDelivered,
    KeyRefused,
    LinkChanged,
    LinkMeasured,
    LinkState,
    Role,
    Route,
    RouteChanged,
    shown_key_id,
)

if TYPE_CHECKING:
    from keyhop.daemon.app import NodeProcess
    from keyhop.daemon.devices import Module

PERIOD_S = 0.5
READERS_LIMIT = 32
QUEUE_LIMIT = 512
"""Events a slow reader may lag behind; then it is told how many it lost."""
KEYS_PER_LOOK = 100
"""Keys told one by one between two looks; a busy node counts the rest as lost events, and serves applications."""
MEASURED_S = 0.2
"""A link's figures are told at most so often."""
MEASURED_AT_LEAST_S = 5.0
ROUTES_PER_LOOK = 16
"""Destinations whose route is looked at in turn: a large network must not cost a small node its time."""
CERTIFICATES_S = 3600.0
RENEW_AT = 2 / 3
"""Share of a certificate's life after which it should be renewed."""

_log = structlog.get_logger("keyhop.node")


class Reader:
    """One who watches. The oldest events go when he does not read."""

    def __init__(self) -> None:
        self._waiting: deque[AnyEvent] = deque()
        self._lost = 0
        self._news = asyncio.Event()
        self.ended = False

    def put(self, event: AnyEvent) -> None:
        if len(self._waiting) >= QUEUE_LIMIT:
            # All at once: he has to read the lists again whatever the number.
            self._lost += len(self._waiting)
            self._waiting.clear()
        self._waiting.append(event)
        self._news.set()

    def end(self) -> None:
        self.ended = True
        self._news.set()

    async def next(self, timeout_s: float) -> list[AnyEvent]:
        """What has happened since; empty when nothing did in time, or when all is over (`ended`)."""
        if not self._waiting and not self.ended:
            try:
                await asyncio.wait_for(self._news.wait(), timeout_s)
            except TimeoutError:
                return []
        self._news.clear()
        events = list(self._waiting)
        self._waiting.clear()
        if self._lost:
            events.insert(0, EventsLost(at=_now(), count=self._lost))
            self._lost = 0
        return events


class Live:
    """Keeps the measures up to date and tells readers what changes. With no reader, a key costs one truth test."""

    def __init__(self, process: NodeProcess) -> None:
        self._process = process
        self.measures = Measures()
        self.view = View(process, self.measures)
        self.readers: set[Reader] = set()
        self.route_changes = 0
        self.unreachable: set[str] = set()
        """Destinations that applications want and that no route leads to."""
        self.audit_failures = 0
        self._routes: dict[str, Route] = {}
        self._to_look_at: deque[str] = deque()
        self._told_s: dict[str, float] = {}
        self._keys_left = KEYS_PER_LOOK
        self._keys_spared = 0
        self._looked_s = 0.0
        self._certificates_s = 0.0
        process.alarms.on_change.append(self._alarm_changed)
        process.on_report.append(self._reported)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._process.started:
                self.look()
            await asyncio.sleep(PERIOD_S)

    def close(self) -> None:
        for reader in self.readers:
            reader.end()

    # --- readers ------------------------------------------------------------------------------------------------------

    def subscribe(self) -> Reader | None:
        """None: there are too many already."""
        if len(self.readers) >= READERS_LIMIT:
            return None
        reader = Reader()
        self.readers.add(reader)
        if len(self.readers) == 1 and self._process.started:
            self._process.counter.on_delivered.append(self._delivered)
            self._process.counter.on_refused.append(self._refused)
        return reader

    def unsubscribe(self, reader: Reader) -> None:
        self.readers.discard(reader)
        if not self.readers and self._process.started:
            counter = self._process.counter
            if self._delivered in counter.on_delivered:
                counter.on_delivered.remove(self._delivered)
                counter.on_refused.remove(self._refused)

    def tell(self, event: AnyEvent) -> None:
        for reader in self.readers:
            reader.put(event)

    # --- what the parts tell ------------------------------------------------------------------------------------------

    def _delivered(self, role: str, caller: str, peer: str, key_ids: Sequence[str], size_bits: int) -> None:
        if self._keys_left <= 0:
            self._keys_spared += len(key_ids)
            return
        self._keys_left -= len(key_ids)
        own = self._process.file.node.id
        node = self._process.node.supply.directory.get(AppId(peer), "")
        master, slave = (caller, peer) if role == "enc" else (peer, caller)
        path = self.view.key_path(own, str(node)) if role == "enc" else self.view.key_path(str(node), own)
        grade = "local" if node == own else "its"
        at = _now()
        for key_id in key_ids:
            self.tell(
                KeyDelivered(
                    at=at,
                    role=Role(role),
                    key_id=shown_key_id(key_id),
                    master=master,
                    slave=slave,
                    size_bits=size_bits,
                    path=path,
                    grade=grade,
                )
            )

    def _refused(self, role: str, caller: str, peer: str, error: RequestError) -> None:
        master, slave = (caller, peer) if role == "enc" else (peer, caller)
        self.tell(KeyRefused(at=_now(), role=Role(role), master=master, slave=slave, reason=error.reason))

    def _alarm_changed(self, alarm: Alarm) -> None:
        if self.readers:
            self.tell(AlarmChanged(at=_now(), alarm=alarm))

    def _reported(self, module: Module) -> None:
        """Each block brings a report: figures follow at once, and a change of state even sooner than the next look."""
        if self._process.started:
            self._look_at_link(module, measured=True)

    # --- what is looked for -------------------------------------------------------------------------------------------

    def look(self) -> None:
        process, now_s = self._process, time.monotonic()
        self._keys_left = KEYS_PER_LOOK
        if self._keys_spared:
            self.tell(EventsLost(at=_now(), count=self._keys_spared))
            self._keys_spared = 0
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            tallies = process.counter.tallies.values()
            delivered = sum(sum(tally.keys.values()) for tally in tallies)
            self.measures.look(process.node.context.pairs.values(), delivered, now_s)
            process.alarms.look()
        for module in process.modules.values():
            overdue = now_s - self._told_s.get(module.link, 0.0) >= MEASURED_AT_LEAST_S
            self._look_at_link(module, measured=overdue)
        self._look_at_routes()
        self._look_at_silent_nodes()
        self._look_at_audit()
        if now_s - self._certificates_s >= CERTIFICATES_S or not self._certificates_s:
            self._certificates_s = now_s
            self._look_at_certificates()

    def _look_at_link(self, module: Module, *, measured: bool) -> None:
        now_s = time.monotonic()
        pair = self._process.node.context.pairs[module.entry.to]
        state, _, _ = self.view.state(module, pair)
        before, _ = self.view.since.get(module.link, (None, 0.0))
        if state is not before:
            self.view.since[module.link] = (state, now_s)
            if self.readers:
                self._told_s[module.link] = now_s
                link = self.view.link(module)
                self.tell(LinkChanged(at=_now(), link=link, before=before or LinkState.DOWN))
        elif measured and self.readers and now_s - self._told_s.get(module.link, 0.0) >= MEASURED_S:
            self._told_s[module.link] = now_s
            self.tell(LinkMeasured(at=_now(), link=self.view.link(module)))

    def _look_at_routes(self) -> None:
        wanted = self.view.destinations()
        for gone in set(self._routes) - wanted:
            del self._routes[gone]
            self.unreachable.discard(gone)
        if not self._to_look_at:
            self._to_look_at.extend(sorted(wanted))
        if not self._to_look_at:
            return
        paths, own = self.view.paths(), self._process.file.node.id
        for _ in range(min(ROUTES_PER_LOOK, len(self._to_look_at))):
            to = self._to_look_at.popleft()
            route, before = paths.best(own, to), self._routes.get(to)
            self._routes[to] = route
            if route.path:
                self.unreachable.discard(to)
            else:
                self.unreachable.add(to)
            if before is not None and before.path != route.path:
                self.route_changes += 1
                self.tell(RouteChanged(at=_now(), route=route, before=before.path))

    def _look_at_silent_nodes(self) -> None:
        alarms, known = self._process.alarms, self._process.node.states.known
        for node in alarms.peers_of("KH-3101") & known.keys():
            self._say("KH-3100", f"{node} is heard of again", node)

    def _look_at_audit(self) -> None:
        audit, alarms = self._process.audit, self._process.alarms
        if audit is None:
            return
        failing = alarms.is_active("KH-5301")
        if audit.failure and not failing:
            self.audit_failures += 1
            self._say("KH-5301", audit.failure)
        elif failing and not audit.failure:
            self._say("KH-5300", "the audit log is written again")

    def _look_at_certificates(self) -> None:
        now = datetime.now(UTC)
        for name, (begins, ends) in self._process.certificates.items():
            if now >= ends:
                self._say("KH-4102", f"the certificate for {name} expired at {ends:%Y-%m-%d %H:%M}Z", name)
            elif now >= begins + (ends - begins) * RENEW_AT:
                self._say("KH-4101", f"the certificate for {name} expires at {ends:%Y-%m-%d %H:%M}Z", name)

    def _say(self, code: str, text: str, about: str = "") -> None:
        """What the core knows nothing of is an alarm, too, and once a line in the log."""
        alarms = self._process.alarms
        if not alarms.is_active(code, about):
            level = _log.info if CODES[code].is_news else _log.warning
            level("notice", code=code, text=text, peer=about or None)
        alarms.say(code, text, about)


def _now() -> datetime:
    return datetime.now(UTC)
