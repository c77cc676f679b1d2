"""Where fresh units go: to everybody, to a direction, to a session. Both ends come to the same without a word, or one
end says it and the other follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from keyhop.core.composed.nouns.messages import StreamOpened

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run

PIECE_BITS = 4096
"""What is dealt to one direction at a time, or one unit if that is more (K)."""


class Dealing(Protocol):
    def sizes(self, bits: int, owner: str) -> list[tuple[Run, int]]:
        """How fresh bits are shared among runs of several unit sizes."""
        ...

    def fresh(self, run: Run, start: int, end: int) -> None: ...

    def label(self, stream: str, outgoing: bool) -> str:
        """The pool that a stream draws from at this end; the peer's name for it is the same."""
        ...

    def lends(self, label: str) -> bool:
        """Whether the peer may take from a pool of this name: never from one that this end takes from."""
        ...

    def opened(self, stream: StreamOpened) -> None: ...

    def retuned(self, stream: str, rate_bps: int) -> None: ...

    def closed(self, stream: str) -> None: ...

    def asked(self, size_bits: int) -> None:
        """An application of this end has asked for a key of this size."""
        ...

    def used(self, label: str) -> None:
        """Something was taken: whether it is time to refill is this room's matter."""
        ...

    def restarted(self) -> None: ...


class Common:
    """One free stock; whoever may use it is serving's matter."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def sizes(self, bits: int, owner: str) -> list[tuple[Run, int]]:
        return [(self._line.run_of(f"{owner}>"), bits)]

    def fresh(self, run: Run, start: int, end: int) -> None:
        run.free.put(start, end)

    def label(self, stream: str, outgoing: bool) -> str:
        return ""

    def lends(self, label: str) -> bool:
        return not label

    def opened(self, stream: StreamOpened) -> None:
        pass

    def retuned(self, stream: str, rate_bps: int) -> None:
        pass

    def closed(self, stream: str) -> None:
        pass

    def asked(self, size_bits: int) -> None:
        pass

    def used(self, label: str) -> None:
        pass

    def restarted(self) -> None:
        pass


class Directed(Common):
    """Two directions: pieces of a link's run in turn, the first to the lower name; relayed runs have one each."""

    def fresh(self, run: Run, start: int, end: int) -> None:
        by_direction(self._line, run, start, end)

    def label(self, stream: str, outgoing: bool) -> str:
        line = self._line
        return direction(line.own, line.peer) if outgoing else direction(line.peer, line.own)

    def lends(self, label: str) -> bool:
        return label.partition("/")[0] == direction(self._line.peer, self._line.own)


def by_direction(line: Line, run: Run, start: int, end: int) -> None:
    """Puts fresh units into the pools of the two directions."""
    if run.owner:
        run.pool(direction(run.owner, line.peer if run.owner == line.own else line.own)).put(start, end)
        return
    piece = max(1, PIECE_BITS // run.unit_bits)
    low, high = sorted((line.own, line.peer))
    labels = direction(low, high), direction(high, low)
    while start < end:
        number = start // piece
        stop = min(end, (number + 1) * piece)
        run.pool(labels[number % 2]).put(start, stop)
        start = stop


def direction(source: str, destination: str) -> str:
    return f"{source}>{destination}"
