"""Which node serves an application: one node knows, the others ask it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

HOMES_LIMIT = 65_536
"""Applications in the directory."""
Found = Callable[[str], None]
"""Called with the node; empty where nobody serves the application."""


class Directory:
    """The applications of a node are submitted to the server; what it has answered is remembered, a miss is not (K).

    Its messages are application-level: no key is spent on them (K).
    """

    def __init__(self, site: Site, server: str) -> None:
        """Where no node has the server's name, the first by name is it (K)."""
        self._site = site
        self._name = server
        self.server = ""
        self._own: dict[str, None] = {}
        """Applications of this node."""
        self.learned()
        self.homes: dict[str, str] = {}
        """Application -> node: all at the server, elsewhere those that were asked for."""

    def learned(self) -> None:
        """Which nodes there are."""
        nodes, before = self._site.network.nodes(), self.server
        self.server = self._name if self._name in nodes else nodes[0]
        if before and self.server != before:
            self._submit_all()

    def _submit_all(self) -> None:
        for application in self._own:
            self._submit("REGISTER", application, self._registered)

    def paired(self, line: Line) -> None:
        line.talk.handlers["REGISTER"] = partial(self._submitted, line.peer, self._registered)
        line.talk.handlers["WITHDRAW"] = partial(self._submitted, line.peer, self._withdrawn)
        line.talk.handlers["LOOKUP"] = self._asked
        if line.peer == self.server and self._own:
            # A new line to it: what it was told over an older one is gone.
            self._site.later(0, self._submit_all)

    def register(self, application: str) -> None:
        self._submit("REGISTER", application, self._registered)
        self._own[application] = None

    def withdraw(self, application: str) -> None:
        self._own.pop(application, None)
        self._submit("WITHDRAW", application, self._withdrawn)

    def look_up(self, application: str, found: Found) -> None:
        if application in self.homes or self._site.node == self.server:
            found(self.homes.get(application, ""))
            return
        line = self._site.line(self.server, True)
        if line is None:
            found("")
            return

        def answered(message: Kx) -> None:
            (node,) = message.names
            if node:
                self.homes[application] = node
            found(node)

        line.talk.ask(Kx("LOOKUP", Verb.AGREE, names=(application,), tags=0), answered, given_up=lambda: found(""))

    def forget(self, application: str) -> None:
        """What was remembered is out of date."""
        if self._site.node != self.server:
            self.homes.pop(application, None)

    def _submit(self, word: str, application: str, here: Callable[[Kx], None]) -> None:
        message = Kx(word, Verb.AGREE, names=(application, self._site.node), tags=0)
        if self._site.node == self.server:
            here(message)
            return
        line = self._site.line(self.server, True)
        if line is not None:
            line.talk.tell(message)

    def _submitted(self, peer: str, here: Callable[[Kx], None], message: Kx) -> None:
        """Every node speaks for its own applications."""
        application, node = message.names
        if node != peer or self.homes.get(application, peer) != peer:
            raise Malformed(f"{message.word} of application {application[:64]!r} by {peer}, who does not serve it")
        if application not in self.homes and len(self.homes) >= HOMES_LIMIT:
            raise Malformed(f"application {application[:64]!r}: {HOMES_LIMIT} may be registered")
        here(message)

    def _registered(self, message: Kx) -> None:
        application, node = message.names
        self.homes[application] = node

    def _withdrawn(self, message: Kx) -> None:
        application, node = message.names
        if self.homes.get(application) == node:
            del self.homes[application]

    def _asked(self, message: Kx) -> Kx:
        return Kx("LOCATION", Verb.AGREE, names=(self.homes.get(message.names[0], ""),), tags=0)
