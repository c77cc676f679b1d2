"""Which sessions exist at both ends of a line: what one end has opened is worth nothing until the other has, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from keyhop.core.composed.nouns.messages import Kx, StreamOpened
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line

CLOSED = -1
SESSIONS_LIMIT = 4096
"""Of one peer."""
SOON_NS = 1_000_000
"""What changes within this time is said at once (K)."""


class Connections:
    """The end with the higher name tells the master, who alone acts."""

    def __init__(self, line: Line, changed: Callable[[], None]) -> None:
        """`changed` is called at the master."""
        self._line = line
        self._changed = changed
        self.own: dict[str, StreamOpened] = {}
        """Opened at this end."""
        self._theirs: dict[str, int] = {}
        """At the master: opened at the other end, with the rate registered there."""
        self._unsaid: dict[str, None] = {}
        self._due = False
        line.talk.handlers["CONNECT"] = self._told

    def opened(self, stream: StreamOpened) -> None:
        self.own[stream.stream] = stream
        self._note(stream.stream)

    def retuned(self, stream: str, rate_bps: int) -> None:
        if stream in self.own:
            self.own[stream] = msgspec.structs.replace(self.own[stream], rate_bps=rate_bps)
            self._note(stream)

    def closed(self, stream: str) -> None:
        if self.own.pop(stream, None) is not None:
            self._note(stream)

    def active(self) -> dict[str, int]:
        """At the master: session -> rate in bit/s as registered where keys are asked for, in the order of opening."""
        return {
            name: stream.rate_bps if stream.asks else self._theirs[name]
            for name, stream in self.own.items()
            if name in self._theirs
        }

    def _note(self, stream: str) -> None:
        self._unsaid[stream] = None
        self._soon()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._line.site.later(SOON_NS, self._say)

    def _say(self) -> None:
        self._due = False
        said, self._unsaid = tuple(self._unsaid), {}
        if self._line.master:
            self._changed()
            return
        rates = tuple(self.own[name].rate_bps if name in self.own else CLOSED for name in said)

        def unheard() -> None:
            for name in said:
                self._note(name)

        self._line.talk.ask(Kx("CONNECT", Verb.ASSIGN, names=said, counts=rates), lambda answer: None, given_up=unheard)

    def _told(self, message: Kx) -> Kx:
        fresh = {name for name, rate in zip(message.names, message.counts, strict=True) if rate != CLOSED}
        if len(self._theirs.keys() | fresh) > SESSIONS_LIMIT:
            raise Malformed(f"{len(fresh)} more sessions of {self._line.peer}: {SESSIONS_LIMIT} may be open")
        for name, rate in zip(message.names, message.counts, strict=True):
            if rate == CLOSED:
                self._theirs.pop(name, None)
            else:
                self._theirs[name] = rate
        self._soon()
        return Kx("CONNECTED", Verb.ASSIGN)
