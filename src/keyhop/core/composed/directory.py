"""Which node serves an application: one node knows, the others ask it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyhop.core.composed.messages import Kx
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

Found = Callable[[str], None]
"""Called with the node; empty where nobody serves the application."""


class Directory:
    """The applications of a node are submitted to the server; what it has answered is remembered, a miss is not (K).

    Its messages are application-level: no key is spent on them (K).
    """

    def __init__(self, site: Site, server: str) -> None:
        """Where no node has the server's name, the first by name is it (K)."""
        self._site = site
        nodes = sorted({node for link in site.network.rates for node in link})
        self.server = server if server in nodes else nodes[0]
        self.homes: dict[str, str] = {}
        """Application -> node: all at the server, elsewhere those that were asked for."""

    def paired(self, line: Line) -> None:
        line.talk.handlers["REGISTER"] = self._registered
        line.talk.handlers["WITHDRAW"] = self._withdrawn
        line.talk.handlers["LOOKUP"] = self._asked

    def register(self, application: str) -> None:
        self._submit("REGISTER", application, self._registered)

    def withdraw(self, application: str) -> None:
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

    def _registered(self, message: Kx) -> None:
        application, node = message.names
        self.homes[application] = node

    def _withdrawn(self, message: Kx) -> None:
        application, node = message.names
        if self.homes.get(application) == node:
            del self.homes[application]

    def _asked(self, message: Kx) -> Kx:
        return Kx("LOCATION", Verb.AGREE, names=(self.homes.get(message.names[0], ""),), tags=0)
