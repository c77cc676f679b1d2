"""When a module's blocks are taken: as they come, or only while a threshold says that key is wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from keyhop.core.composed.nouns.messages import BlockArrived
from keyhop.core.policy.refill import PullBelow

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line

KEPT_BLOCKS = 65_536
"""What the module keeps until it is pulled; it stops when it has so many (K)."""


class Intake(Protocol):
    def arrived(self, block: BlockArrived) -> None: ...

    def check(self) -> None:
        """Stock has changed."""
        ...

    def named(self, number: int) -> None:
        """The peer, which decides for both, has taken blocks up to this one."""
        ...


class AsItComes:
    def __init__(self, line: Line) -> None:
        self._line = line

    def arrived(self, block: BlockArrived) -> None:
        self._line.receive(block)

    def check(self) -> None:
        pass

    def named(self, number: int) -> None:
        pass


class Pulled:
    """Blocks stay with the module, in their order, until they are due; so both ends take the same ones, each once."""

    def __init__(self, line: Line, due: Callable[[], bool]) -> None:
        """`due` says whether one more is wanted now."""
        self._line = line
        self._due = due
        self._waiting: deque[BlockArrived] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def arrived(self, block: BlockArrived) -> None:
        if len(self._waiting) < KEPT_BLOCKS:
            self._waiting.append(block)
        self.check()

    def check(self) -> None:
        while self._due():
            if not self._waiting:
                pull = self._line.site.moves.pull
                if self._line.peer not in pull:
                    pull.append(self._line.peer)
                return
            self._line.receive(self._waiting.popleft())

    def named(self, number: int) -> None:
        while self._waiting and self._waiting[0].number <= number:
            self._line.receive(self._waiting.popleft())


def below(line: Line, part: PullBelow) -> Callable[[], bool]:
    """Rows that nobody holds are counted (Cisco, S)."""
    return lambda: part.due(line.run.free.level)
