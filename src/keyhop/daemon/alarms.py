"""The alarms of a node: what is wrong now and what was, each with its code, its object and how often it came."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from keyhop.core.machine import Notice
from keyhop.daemon.alarm_codes import CODES, About, Code
from keyhop.wire.manage import Alarm, AlarmState, Severity

ALARMS_LIMIT = 512
"""Kept in all; when there are more, those that are over go first."""

_ORDER = {severity: rank for rank, severity in enumerate(Severity)}


class Raised:
    """One alarm about one object."""

    __slots__ = ("code", "count", "first_s", "is_active", "last_s", "object", "peer", "severity", "summary")

    def __init__(self, code: str, peer: str, object: str, severity: Severity, now_s: float) -> None:
        self.code = code
        self.peer = peer
        self.object = object
        self.severity = severity
        self.summary = ""
        self.first_s = self.last_s = now_s
        self.count = 0
        self.is_active = True


class Alarms:
    """Fed by notices of the core and by the edge. Seconds are wall-clock: people compare them with their watches."""

    def __init__(
        self, node: str, links: dict[str, str] | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._node = node
        self._links = links or {}
        """Neighbour to the names of its links."""
        self._clock = clock
        self._raised: dict[tuple[str, str], Raised] = {}
        self.totals: Counter[tuple[str, str]] = Counter()
        """How often each code came for each object since the start, for the metrics."""
        self.on_change: list[Callable[[Alarm], None]] = []
        """Called when an alarm is raised or over, not each time it comes again."""

    def noticed(self, notice: Notice) -> None:
        """Takes in what the core says; a code that is not in the table is a bug of ours."""
        self.say(notice.code, notice.text, notice.peer)

    def say(self, code: str, text: str, peer: str = "") -> None:
        """`peer` is the name of what the code is about: a key manager, an application, a certificate."""
        known = CODES[code]
        name = self._object(known, peer)
        now_s = self._clock()
        self.totals[code, name] += 1
        for ended in known.ends:
            self._end(ended, name)
        if known.is_news:
            return
        raised = self._raised.get((code, name))
        fresh = raised is None or not raised.is_active
        if raised is None or fresh:
            raised = self._raised[code, name] = Raised(code, peer, name, self._severity(known, peer), now_s)
        raised.summary, raised.last_s = text, now_s
        raised.count += 1
        if fresh:
            self._make_room()
            self._changed(raised)

    def is_active(self, code: str, peer: str = "") -> bool:
        raised = self._raised.get((code, self._object(CODES[code], peer)))
        return raised is not None and raised.is_active

    def peers_of(self, code: str) -> set[str]:
        """Whom alarms of this code are about, as far as they are not over."""
        return {raised.peer for raised in self._raised.values() if raised.code == code and raised.is_active}

    def look(self) -> None:
        """Ends incidents that have not come again for their time. To be called now and then."""
        now_s = self._clock()
        for raised in list(self._raised.values()):
            quiet_s = CODES[raised.code].quiet_s
            if raised.is_active and quiet_s is not None and now_s - raised.last_s >= quiet_s:
                self._end(raised.code, raised.object)

    def all(self) -> tuple[Alarm, ...]:
        """Active ones first, the gravest and newest at the top."""
        ordered = sorted(self._raised.values(), key=lambda r: (not r.is_active, _ORDER[r.severity], -r.last_s))
        return tuple(map(_alarm, ordered))

    def active(self) -> dict[Severity, int]:
        """How many of each severity, 0 included."""
        counts: dict[Severity, int] = {severity: 0 for severity in Severity if severity is not Severity.CLEARED}
        for raised in self._raised.values():
            if raised.is_active:
                counts[raised.severity] += 1
        return counts

    def _end(self, code: str, name: str) -> None:
        raised = self._raised.get((code, name))
        if raised is not None and raised.is_active:
            raised.is_active = False
            self._changed(raised)

    def _object(self, code: Code, peer: str) -> str:
        if not peer:
            return f"node {self._node}"
        if code.about is About.LINK:
            link = self._links.get(peer)
            return f"link {link}" if link else f"pair {self._node}-{peer}"
        if code.about is About.PATH:
            return f"path {self._node}-{peer}"
        return f"{code.about} {peer}"

    def _severity(self, code: Code, peer: str) -> Severity:
        """A pair without a link of its own opens anew by itself over what paths there are: nobody is to get up."""
        distant = code.about is About.LINK and peer and peer not in self._links
        return Severity.WARNING if distant and code.severity is Severity.MAJOR else code.severity

    def _make_room(self) -> None:
        while len(self._raised) > ALARMS_LIMIT:
            oldest = min(self._raised, key=lambda key: (self._raised[key].is_active, self._raised[key].last_s))
            del self._raised[oldest]

    def _changed(self, raised: Raised) -> None:
        if self.on_change:
            alarm = _alarm(raised)
            for call in self.on_change:
                call(alarm)


def _alarm(raised: Raised) -> Alarm:
    code = CODES[raised.code]
    return Alarm(
        id=f"{raised.code}/{raised.object}",
        code=raised.code,
        severity=raised.severity,
        state=AlarmState.RAISED if raised.is_active else AlarmState.CLEARED,
        object=raised.object,
        summary=raised.summary,
        cause=code.cause,
        remedy=code.remedy,
        first_seen_at=datetime.fromtimestamp(raised.first_s, UTC),
        last_seen_at=datetime.fromtimestamp(raised.last_s, UTC),
        count=raised.count,
    )
