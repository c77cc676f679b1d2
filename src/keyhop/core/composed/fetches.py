"""The other application comes with the name of a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from keyhop.core.composed.messages import Answered, KeyFetched, Name
from keyhop.core.composed.serving import Taken

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site


class Children:
    """Keys that were derived together from one or several parents: their record stays until all have been fetched."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._left: dict[Name, set[int]] = {}
        """By name of the first child."""

    def __len__(self) -> int:
        return len(self._left)

    def begin(self, line: Line, event: KeyFetched) -> None:
        """The first one comes: the parents are taken for all of them."""
        line.book.D += event.name.taken_bits
        self._left[first(event.name)] = set(range(event.name.keys))
        self.fetch(line, event)

    def fetch(self, line: Line, event: KeyFetched) -> bool:
        """Whether there is a record, so that this is the answer."""
        name, answers = event.name, self._site.moves.answer
        left = self._left.get(first(name))
        if left is None:
            return False
        if name.child not in left:
            answers.append(Answered(event.request, refusal=f"key {name.child} of {name.keys} is gone or never was"))
            return True
        left.remove(name.child)
        line.book.F += name.size_bits
        answers.append(Answered(event.request, name))
        if not left:
            del self._left[first(name)]
        return True


def first(name: Name) -> Name:
    return msgspec.structs.replace(name, child=0)


class Fetches:
    """A name may come before its key has entered at this end: then it waits until its deadline."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._waiting: dict[int, KeyFetched] = {}
        self.children = Children(site)

    def fetch(self, event: KeyFetched) -> None:
        if not self._try(event):
            self._waiting[event.request] = event
            self._site.later(event.deadline_ns, self._too_late, event.request)

    def forget(self, line: Line) -> None:
        """The line is no more: the same name may mean other key in a later one."""
        for request, event in list(self._waiting.items()):
            if event.peer == line.peer and event.name.distant is line.distant:
                del self._waiting[request]
                self._site.moves.answer.append(Answered(request, refusal="the key managers began anew"))

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
        if self.children.fetch(line, event):
            return True
        taken = line.serving.fetch(name)
        if isinstance(taken, Taken):
            if name.keys > 1:
                self.children.begin(line, event)
            else:
                site.book(line, name)
                site.moves.answer.append(Answered(event.request, name))
            line.dealing.used(name.label)
            site.relaying.supplied(line, name, event.stream)
            return True
        if isinstance(taken, str):
            site.moves.answer.append(Answered(event.request, refusal=taken))
            return True
        return False

    def _too_late(self, request: int) -> None:
        if self._waiting.pop(request, None) is not None:
            self._site.moves.answer.append(Answered(request, refusal="no key of this name", timed_out=True))
