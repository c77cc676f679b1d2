"""How much of what there is each stream gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class FirstCome:
    """Whoever asks first is served, as far as the stock goes (DARPA and all that the survey's Table 2 marks N)."""

    def serve(self, asked: Sequence[int], stock: int) -> tuple[int, ...]:
        """What each gets, in order of arrival: all it asks for or nothing; a smaller one behind may still fit (K)."""
        given = []
        for amount in asked:
            given.append(amount if amount <= stock else 0)
            stock -= given[-1]
        return tuple(given)


class Vessel(NamedTuple):
    """A stream's buffer: its registered rate, and what still fits."""

    rate: int
    room: int


@dataclass(frozen=True, slots=True)
class Proportional:
    """An amount per pass in proportion to registered rates (NIST, QCC: S); whole units of the caller."""

    def quotas(self, amount: int, rates: Sequence[int]) -> tuple[int, ...]:
        """Fixed before the pass, rounded down; what rounding leaves goes to the lowest with a rate (NIST, K)."""
        whole = sum(rates)
        if not whole:
            return tuple(0 for _ in rates)
        given = [amount * rate // whole for rate in rates]
        given[next(n for n, rate in enumerate(rates) if rate)] += amount - sum(given)
        return tuple(given)

    def pour(self, amount: int, vessels: Sequence[Vessel]) -> tuple[int, ...]:
        """Again and again by rate until nothing is left or all are full (QCC, S); the last units to the lowest (K)."""
        given = [0] * len(vessels)
        while amount:
            thirsty = [n for n, vessel in enumerate(vessels) if vessel.rate > 0 and given[n] < vessel.room]
            if not thirsty:
                break
            whole, poured = sum(vessels[n].rate for n in thirsty), 0
            for n in thirsty:
                drop = min(amount * vessels[n].rate // whole, vessels[n].room - given[n])
                given[n] += drop
                poured += drop
            if not poured:
                # Less than one unit for each: unit by unit, from the lowest number.
                for n in thirsty[:amount]:
                    given[n] += 1
                    poured += 1
            amount -= poured
        return tuple(given)


@dataclass(frozen=True, slots=True)
class Weighted:
    """Unit by unit to whoever is owed most (MagiQ, Toshiba: S), at no more than the path carries.

    Both ends deal the same units to the same streams without a message; the credits are the caller's memory.
    """

    unit_bits: int
    """MagiQ deals records of 256, Toshiba stretches of 4096 (K)."""
    ceiling: Literal["none", "path"] = "none"
    """path: key is made at the sum of demands, but no faster than the narrowest link relays (Toshiba, S)."""
    retune: float = 0.2
    """A measured rate that far from the registered one sets new weights (MagiQ .2, Toshiba .1 of a link's rate: K)."""

    def __post_init__(self) -> None:
        if self.unit_bits < 8 or self.unit_bits % 8:
            raise ValueError(f"weighted.unit_bits = {self.unit_bits}: must be a multiple of 8")

    def next(self, credits: Sequence[int], rates: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        """(whose the next unit is, credits afterwards); the lowest number on a tie (K)."""
        topped = [credit + rate for credit, rate in zip(credits, rates, strict=True)]
        pick = max(range(len(topped)), key=lambda number: (topped[number], -number))
        topped[pick] -= sum(rates)
        return pick, tuple(topped)

    def deal(self, rates: Sequence[int], units: int, credits: Sequence[int] = ()) -> tuple[list[int], tuple[int, ...]]:
        """Whose the next units are, one by one, and the credits to go on with; new weights begin at nothing owed."""
        owed = tuple(credits) or (0,) * len(rates)
        picks: list[int] = []
        if any(rates):
            for _ in range(units):
                pick, owed = self.next(owed, rates)
                picks.append(pick)
        return picks, owed

    def achieved(self, rates: Sequence[int], link_rates: Sequence[int]) -> int:
        """The rate at which key is made for all together."""
        required = sum(rates)
        return min(required, min(link_rates, default=0)) if self.ceiling == "path" else required

    def shares(self, rates: Sequence[int], link_rates: Sequence[int]) -> tuple[Fraction, ...]:
        """Each stream's part of that."""
        required = sum(rates)
        if not required:
            return tuple(Fraction(0) for _ in rates)
        achieved = self.achieved(rates, link_rates)
        return tuple(Fraction(rate * achieved, required) for rate in rates)

    def drifted(self, registered: int, measured: int) -> bool:
        return abs(measured - registered) > registered * Fraction(str(self.retune))


class Turn(NamedTuple):
    """Where the round stands: each flow's deficit, whose turn it is, and whether that one has its quantum already."""

    deficits: tuple[int, ...]
    at: int = 0
    topped: bool = False


@dataclass(frozen=True, slots=True)
class DeficitRoundRobin:
    """Rounds in which every backlogged flow may send its quantum and what it saved (Quantum Canada, S)."""

    quantum: int = 512
    """Bits per round and weight (K)."""
    one_time_share: float = 0.2
    """The part of a round that one-time demands, first in first out, may take from the continuous ones (K)."""

    def __post_init__(self) -> None:
        if self.quantum < 1 or not 0 <= self.one_time_share <= 1:
            raise ValueError(
                f"deficit_round_robin.quantum = {self.quantum}, one_time_share = {self.one_time_share}: "
                "must be 1 or more, and between 0 and 1"
            )

    def next(self, heads: Sequence[int | None], weights: Sequence[int], turn: Turn) -> tuple[int, Turn] | None:
        """(whose head is sent now, the turn afterwards); None if nobody has anything. `heads` are sizes in bits.

        An idle flow saves nothing. Rounds in which nobody could send are passed over at once.
        """
        waiting = [n for n, head in enumerate(heads) if head is not None and weights[n] > 0]
        if not waiting:
            return None
        deficits, at, topped = [d if n in waiting else 0 for n, d in enumerate(turn.deficits)], turn.at, turn.topped
        while True:
            head = heads[at]
            if head is not None and at in waiting:
                if not topped:
                    deficits[at] += self.quantum * weights[at]
                if head <= deficits[at]:
                    deficits[at] -= head
                    return at, Turn(tuple(deficits), at, True)
            at, topped = (at + 1) % len(heads), False

    def first(self, flows: int) -> Turn:
        return Turn((0,) * flows)

    def one_time_bits(self, round_bits: int) -> int:
        return int(round_bits * Fraction(str(self.one_time_share)))
