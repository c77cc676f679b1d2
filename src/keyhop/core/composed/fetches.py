"""The other application comes with the name of a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from keyhop.core.composed.nouns.messages import Answered, KeyFetched, Name
from keyhop.core.composed.nouns.units import count, disjoint
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.designs import Design
from keyhop.core.model import RequestError
from keyhop.core.policy.fallback import ByCategory, Hybrid
from keyhop.core.policy.formatting import Kdf
from keyhop.core.policy.priority import ResponseWeight

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site


class Children:
    """Keys that were derived together from one or several parents: their record stays until all have been fetched."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._fetched: dict[Name, set[int]] = {}
        """By name of the first child: those that have been fetched."""

    def __len__(self) -> int:
        return len(self._fetched)

    def begin(self, line: Line, event: KeyFetched) -> None:
        """The first one comes: the parents are taken for all of them."""
        line.book.D += event.name.taken_bits
        self._fetched[first(event.name)] = set()
        self.fetch(line, event)

    def fetch(self, line: Line, event: KeyFetched) -> bool:
        """Whether there is a record, so that this is the answer."""
        name, answers = event.name, self._site.moves.answer
        fetched = self._fetched.get(first(name)) if name.keys > 1 else None
        if fetched is None:
            return False
        if name.child in fetched or not 0 <= name.child < name.keys:
            answers.append(Answered(event.request, refusal=f"key {name.child} of {name.keys} is gone or never was"))
            return True
        fetched.add(name.child)
        line.book.F += name.size_bits
        answers.append(Answered(event.request, name))
        if len(fetched) == name.keys:
            del self._fetched[first(name)]
        return True


def wrong(line: Line, name: Name) -> str:
    """Why the peer cannot have named such a key; empty if it can."""
    form = line.design.formatting.supply
    size, taken, derived = name.size_bits, name.taken_bits, name.derived_bits
    if min(size, taken, derived, name.joined_bits) < 0 or name.keys < 1 or not 0 <= name.child < name.keys:
        return "no key has such sizes"
    if name.keys > 1 and not isinstance(form, Kdf):
        return f"{name.keys} keys of one name: design {line.design.name} gives one at a time"
    if name.joined_bits not in (0, size):
        return f"{name.joined_bits} bit joined with a key of {size}: must be as many, or 0"
    if not name.ranges:
        made = isinstance(line.design.fallback, Hybrid | ByCategory) or (not size and needs_none(line.design))
        return "" if made and derived == size and not taken and name.keys == 1 else "a key that is made of nothing"
    if derived not in (0, size * name.keys):
        return f"{derived} bit derived for {name.keys} keys of {size} bit: must be {size * name.keys} bit, or 0"
    try:
        disjoint(name.ranges)
        run = line.run_of(name.label, name.unit_bits)
        parents = form.parents(name.keys, size) if derived and isinstance(form, Kdf) else 1
    except (RequestError, ValueError) as error:
        return str(error)
    if not line.serving.lends(name.label):
        return f"pool {name.label!r} is not one that {line.peer} takes from"
    given = count(name.ranges) * run.unit_bits
    if taken != given or (size > taken and not derived) or parents * run.unit_bits > taken:
        return f"a key of {size} bit out of {taken} bit: its ranges have {given} bit"
    return ""


def needs_none(design: Design) -> bool:
    """Whether applications may go on without key."""
    return isinstance(design.priority, ResponseWeight)


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
        if self.children.fetch(line, event):
            return True
        if why := wrong(line, name):
            site.moves.answer.append(Answered(event.request, refusal=why))
            return True
        if not name.ranges:
            site.book(line, name)
            site.moves.answer.append(Answered(event.request, name))
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
