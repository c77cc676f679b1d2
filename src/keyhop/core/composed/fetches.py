"""The other application comes with the name of a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhop.core.composed.messages import Answered, KeyFetched
from keyhop.core.composed.serving import Taken

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site


class Fetches:
    """A name may come before its key has entered at this end: then it waits until its deadline."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._waiting: dict[int, KeyFetched] = {}

    def fetch(self, event: KeyFetched) -> None:
        if not self._try(event):
            self._waiting[event.request] = event
            self._site.later(event.deadline_ns, self._too_late, event.request)

    def retry(self, line: Line) -> None:
        for request, event in list(self._waiting.items()):
            if event.peer == line.peer and event.name.distant is line.distant and self._try(event):
                del self._waiting[request]

    def _try(self, event: KeyFetched) -> bool:
        site, name = self._site, event.name
        line = site.line(event.peer, name.distant)
        if line is None:
            site.moves.answer.append(Answered(event.request, refusal="no such pair of key managers"))
            return True
        if why := site.unregistered(event.stream):
            site.moves.answer.append(Answered(event.request, refusal=why))
            return True
        if not name.ranges:
            site.book(line, name)
            site.moves.answer.append(Answered(event.request, name))
            return True
        taken = line.serving.fetch(name)
        if isinstance(taken, Taken):
            site.book(line, name)
            site.moves.answer.append(Answered(event.request, name))
            line.dealing.used(name.label)
            return True
        if isinstance(taken, str):
            site.moves.answer.append(Answered(event.request, refusal=taken))
            return True
        return False

    def _too_late(self, request: int) -> None:
        if self._waiting.pop(request, None) is not None:
            self._site.moves.answer.append(Answered(request, refusal="no key of this name", timed_out=True))
