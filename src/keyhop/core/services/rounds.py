"""Deficit round robin over those who wait: the rounds of the sharing part, at a cost that does not follow the idle."""

from __future__ import annotations

from collections import deque


class Rounds:
    """Whoever waits may send its quantum and what it saved, in turn; who does not wait saves nothing."""

    __slots__ = ("_active", "_deficits", "_topped", "_weights", "quantum")

    def __init__(self, quantum: int) -> None:
        if quantum < 1:
            raise ValueError(f"quantum = {quantum}: must be 1 bit or more")
        self.quantum = quantum
        self._active: deque[str] = deque()
        self._deficits: dict[str, int] = {}
        self._weights: dict[str, int] = {}
        self._topped = False

    def __len__(self) -> int:
        return len(self._active)

    def names(self) -> tuple[str, ...]:
        return tuple(self._active)

    def add(self, name: str, weight: int) -> None:
        """It waits from now on, behind all others."""
        if name not in self._deficits:
            self._active.append(name)
            self._deficits[name] = 0
        self._weights[name] = weight

    def remove(self, name: str) -> None:
        if name in self._deficits:
            if self._active[0] == name:
                self._topped = False
            self._active.remove(name)
            del self._deficits[name], self._weights[name]

    def turn(self, heads: dict[str, int]) -> str | None:
        """Whose head is to be sent next; asking again without `sent` gives the same. `heads`: sizes in bits."""
        if not self._active:
            return None
        self._skip(heads)
        while True:
            name = self._active[0]
            if not self._topped:
                self._deficits[name] += self.quantum * self._weights[name]
                self._topped = True
            if heads[name] <= self._deficits[name]:
                return name
            self._active.rotate(-1)
            self._topped = False

    def sent(self, name: str, bits: int) -> None:
        self._deficits[name] -= bits

    def _skip(self, heads: dict[str, int]) -> None:
        """Rounds in which nobody could send are passed over at once."""
        rounds = min(
            (heads[name] - self._deficits[name] - 1) // (self.quantum * self._weights[name]) for name in self._active
        )
        if rounds > 1:
            for name in self._active:
                self._deficits[name] += (rounds - 1) * self.quantum * self._weights[name]
