"""How an end finds out that its store is an old copy: by its anchor, and by the journal numbers its neighbours return.

One end and two neighbours. Every frame tells the neighbour the end's start and journal number with a code under a key
kept with the anchor; the neighbour's PROOF returns what it was told last. The second neighbour may be hostile and
return what it likes, though it cannot make a code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .search import DEPTH, Broken, Found, search

RULES = {
    "anchor_checked": "an end whose store is behind its anchor was restored",
    "journal_returned": "an end behind the number that any neighbour returns was restored",
    "journal_per_start": "behind is judged by what the store held when the told start ended, not by today's number",
    "told_after_done": "what the end told last is replaced only once the end has seen it returned",
    "code_checked": "a returned number counts only with the end's own code over it",
    "one_burning": "what was told before the start that burnt last needs no second burning",
    "epoch_from_start_number": "a new epoch is named by the start number, not by the stored epoch plus one",
}


class Scope(NamedTuple):
    commits: int
    crashes: int
    restores: int
    hostile: bool


SCOPES: tuple[Scope, ...] = (
    Scope(commits=2, crashes=1, restores=1, hostile=False),
    Scope(commits=1, crashes=1, restores=2, hostile=False),
    Scope(commits=1, crashes=1, restores=2, hostile=True),
)
if DEPTH:
    SCOPES = (
        *SCOPES,
        Scope(commits=3, crashes=1, restores=2, hostile=False),
        Scope(commits=2, crashes=1, restores=2, hostile=True),
    )

NEIGHBOURS = (0, 1)
DOWN, OPENING, OPEN = "down", "opening", "open"


class Record(NamedTuple):
    start: int = 0
    journal: int = 0
    epoch: int = 0
    burnt: int = 0
    """Start number of the last burning: the epoch, unless the rule about its number is off."""
    ends: tuple[int, ...] = ()
    """Per start number the journal number with which it ended."""


class Link(NamedTuple):
    stage: str = DOWN
    returned: tuple[int, int, bool] = (0, 0, True)
    """Start and journal number on their way back, and whether the code is genuine."""
    told: tuple[int, int] = (0, 0)
    """As the neighbour holds them."""
    kept: tuple[int, int] = (0, 0)
    """A number of a lost history that a hostile neighbour keeps for later."""
    lost: bool = False
    """The neighbour was told of commits that no store holds any more, and no burning has answered that."""


class State(NamedTuple):
    record: Record
    copy: Record
    anchor: int
    links: tuple[Link, Link]
    restored: bool
    """There was a restore and no burning since."""
    older_than_start: bool
    """It was from a copy taken before the last start."""
    highest_epoch: int
    commits: int
    crashes: int
    restores: int


def initial() -> State:
    return State(Record(), Record(), 0, (Link(), Link()), False, False, 0, 0, 0, 0)


class Restore:
    def __init__(self, scope: Scope, off: frozenset[str]) -> None:
        unknown = off - RULES.keys()
        if unknown:
            raise ValueError(f"unknown rules {sorted(unknown)}")
        self.scope = scope
        self.off = off

    def on(self, rule: str) -> bool:
        return rule not in self.off

    def steps(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        if s.commits < self.scope.commits:
            yield "a commit", commit(s._replace(commits=s.commits + 1))
        for at in NEIGHBOURS:
            yield from self.link(s, at)
        if s.copy != s.record and s.restores < self.scope.restores:
            yield "the store is copied", s._replace(copy=s.record)
        if s.crashes < self.scope.crashes:
            yield "crash and start", self.start(s._replace(crashes=s.crashes + 1))
        if s.restores < self.scope.restores:
            yield "restore and start", self.restore(s)

    def link(self, s: State, at: int) -> Iterator[tuple[str, State | Broken]]:
        link = s.links[at]
        if link.stage == DOWN:
            returned = [(*link.told, True)]
            if self.scope.hostile and at == 1:
                returned += [(start, 99, False) for start in range(s.record.start + 1)]
                returned += [(0, 0, True), (*link.kept, True)]
            for each in dict.fromkeys(returned):
                yield f"neighbour {at} returns {each}", put(s, at, link._replace(stage=OPENING, returned=each))
            return
        yield f"the link to {at} breaks", put(s, at, link._replace(stage=DOWN, returned=(0, 0, True)))
        now = (s.record.start, s.record.journal)
        if link.stage == OPENING:
            if not self.on("told_after_done") and link.told != now:
                yield f"neighbour {at} hears PROOF {now}", put(s, at, link._replace(told=now))
            yield f"the end hears PROOF of {at}", self.judge(s, at)
        elif link.told != now:
            yield f"the end tells {at} {now}", put(s, at, link._replace(told=now))

    def judge(self, s: State, at: int) -> State | Broken:
        link = s.links[at]
        if not link.returned[2] and self.on("code_checked"):
            return put(s, at, link._replace(stage=DOWN, returned=(0, 0, True)))
        if self.is_behind(s.record, link.returned):
            return self.burn(s)
        if link.lost and link.returned[:2] == link.told:
            return Broken(f"I7: a restored end goes on though neighbour {at} was told of what it has lost")
        if s.older_than_start:
            return Broken("I7: a copy from before the last start goes unnoticed")
        # A neighbour that hides what it was told is owed nothing; it may still show it later.
        return put(s, at, link._replace(stage=OPEN, returned=(0, 0, True), lost=False))

    def is_behind(self, record: Record, returned: tuple[int, int, bool]) -> bool:
        start, journal, _ = returned
        if not self.on("journal_returned"):
            return False
        if not self.on("journal_per_start"):
            return journal > record.journal
        if self.on("one_burning") and start < record.burnt:
            return False
        return start < record.start and journal > record.ends[start]

    def burn(self, s: State) -> State | Broken:
        if not s.restored:
            return Broken("an end that was not restored burns all its key")
        epoch = s.record.start if self.on("epoch_from_start_number") else s.record.epoch + 1
        if epoch <= s.highest_epoch:
            return Broken(f"epoch {epoch} comes a second time: the neighbours do not burn")
        record = s.record._replace(epoch=epoch, burnt=s.record.start, journal=s.record.journal + 1)
        links = tuple(link._replace(stage=DOWN, returned=(0, 0, True), lost=False) for link in s.links)
        return s._replace(
            record=record,
            links=(links[0], links[1]),
            restored=False,
            older_than_start=False,
            highest_epoch=epoch,
        )

    def restore(self, s: State) -> State | Broken:
        copied = (s.copy.start, s.copy.journal)
        lost = [link.told > copied for link in s.links]
        links = tuple(
            link._replace(lost=True, kept=link.told if self.scope.hostile and at == 1 else link.kept)
            if lost[at]
            else link
            for at, link in enumerate(s.links)
        )
        last = s.restores + 1 == self.scope.restores
        return self.start(
            s._replace(
                record=s.copy,
                # A copy that cannot come back any more needs no telling apart.
                copy=Record() if last else s.copy,
                links=(links[0], links[1]),
                restored=True,
                older_than_start=s.older_than_start or s.copy.start < s.anchor,
                restores=s.restores + 1,
            )
        )

    def start(self, s: State) -> State | Broken:
        anchor = s.anchor + 1
        record = s.record
        behind = record.start < s.anchor and self.on("anchor_checked")
        ends = record.ends + (record.journal,) * (anchor - len(record.ends))
        record = record._replace(start=anchor, ends=ends, journal=record.journal + 1)
        links = tuple(link._replace(stage=DOWN, returned=(0, 0, True)) for link in s.links)
        s = s._replace(record=record, anchor=anchor, links=(links[0], links[1]))
        return self.burn(s) if behind else s


def commit(s: State) -> State:
    return s._replace(record=s.record._replace(journal=s.record.journal + 1))


def put(s: State, at: int, link: Link) -> State:
    return s._replace(links=(link, s.links[1]) if at == 0 else (s.links[0], link))


def explore(scope: Scope, *off: str) -> Found:
    """Search with these rules off."""
    return search(initial(), Restore(scope, frozenset(off)).steps, lambda _: None)
