"""The two books, per run, in bytes: `G = D + O + C + R + T + A + X + Y + S` and `N + T = D + O + C + A + X + Y + S`."""

from __future__ import annotations

from enum import IntEnum
from operator import itemgetter

from keyhop.core.model import Action, State, after


class Account(IntEnum):
    """Where bytes went; the letters are those of `docs/concepts.md`."""

    G = 0
    """Delivered by the module and verified (local book)."""
    N = 1
    """Received or drawn for a pair (global book)."""
    D = 2
    """Delivered to applications and asked for; in doubt after a crash: delivered."""
    O = 3  # noqa: E741 the letter of the books
    """Handed out or left over beyond what was asked: rounding waste."""
    C = 4
    """Destroyed by collisions."""
    R = 5
    """Spent as pad for relay."""
    T = 6
    """Promoted from local to global."""
    A = 7
    """Spent on tags, opening proofs and key-ID secrets."""
    X = 8
    """Deleted by age or purge."""
    Y = 9
    """Lost: burnt, desynchronised, refused."""
    F = 10
    """Drawn, derived, exchanged or pre-shared: never QKD key, booked apart."""


ACCOUNTS = tuple(Account)

BOOKED: dict[State, Account] = {
    State.SUPPLIED: Account.D,
    State.WASTED: Account.O,
    State.USED_RELAY: Account.R,
    State.USED_AUTH: Account.A,
    State.EXPIRED: Account.X,
    State.LOST: Account.Y,
}
"""Which account a final state of a range is booked in."""


_TAKEN_IN = itemgetter(Account.G, Account.N, Account.F)
_OUT = itemgetter(Account.D, Account.O, Account.C, Account.R, Account.A, Account.X, Account.Y)


class Book:
    """The book of one run at one end. Stock is what is left, so the equation holds by construction at every moment;
    what a test checks is that stock equals the bytes that are really there."""

    __slots__ = ("totals",)

    def __init__(self, totals: tuple[int, ...] = ()) -> None:
        self.totals = list(totals) if totals else [0] * len(ACCOUNTS)

    def __getitem__(self, account: Account) -> int:
        return self.totals[account]

    def take_in(self, account: Account, length: int) -> None:
        if account not in (Account.G, Account.N, Account.T, Account.F):
            raise AssertionError(f"{account.name} takes nothing in: only G, N, T and F do")
        self.totals[account] += length

    def move(self, state: State, action: Action, length: int) -> State:
        """Books a legal move of `length` bytes; an illegal one raises IllegalMove."""
        reached = after(state, action)
        account = BOOKED.get(reached)
        if account is not None:
            self.totals[account] += length
        return reached

    @property
    def stock(self) -> int:
        taken_in: tuple[int, ...] = _TAKEN_IN(self.totals)
        out: tuple[int, ...] = _OUT(self.totals)
        return sum(taken_in) - sum(out)

    def snapshot(self) -> tuple[int, ...]:
        return tuple(self.totals)
