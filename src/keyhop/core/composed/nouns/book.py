"""The ledger of one end of a pair: every bit taken in is booked exactly once."""

from __future__ import annotations

LETTERS = "GNDOCRTAXYF"


class Book:
    """Bits by letter, as the two books of the accounting name them (`docs/concepts.md`).

    Local: G = D + O + C + R + T + A + X + Y + S. Global: N + T = D + O + C + A + X + Y + S. What is in stock (S) is
    counted by whoever holds it, so that the equation checks one against the other.
    """

    __slots__ = ("A", "C", "D", "F", "G", "N", "O", "R", "T", "X", "Y", "burnt", "distant")

    def __init__(self, distant: bool) -> None:
        self.distant = distant
        self.G = self.N = self.D = self.O = self.C = self.R = self.T = self.A = self.X = self.Y = self.F = 0
        self.burnt = 0
        """Tag bits of all messages; A has those that were QKD key."""

    def __repr__(self) -> str:
        return f"Book({', '.join(f'{letter}={getattr(self, letter)}' for letter in LETTERS)})"

    def move(self, letter: str, bits: int) -> None:
        """So many bits more under this letter."""
        if letter not in LETTERS:
            raise ValueError(f"letter {letter!r}: must be one of {LETTERS}")
        if bits < 0:
            raise ValueError(f"{bits} bits under {letter}: must be 0 or more")
        setattr(self, letter, getattr(self, letter) + bits)

    @property
    def entered(self) -> int:
        return self.N + self.T if self.distant else self.G

    @property
    def left(self) -> int:
        gone = self.D + self.O + self.C + self.A + self.X + self.Y
        return gone if self.distant else gone + self.R + self.T

    def gap(self, stock_bits: int) -> int:
        """0 if every bit is accounted for."""
        return self.entered - self.left - stock_bits
