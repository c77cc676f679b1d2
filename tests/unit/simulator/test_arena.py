"""The engine of virtual time for runs by sites."""

from __future__ import annotations

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Scenario, Stream


class Watched(Arena):
    """Writes down what is asked, and how much is planned then."""

    def watch(self) -> Watched:
        self.asked: list[tuple[int, int]] = []
        self.planned = 0
        return self

    def _demand(self, demand: Demand) -> None:
        self.asked.append((self.now, demand.number))
        self.planned = max(self.planned, len(self._heap))
        super()._demand(demand)


def watched(at_ns: list[int]) -> Watched:
    stream = Stream("s", "a", "b", 10_000, 256)
    demands = tuple(Demand(number, at, "s", "a", "b", 256, NANOSECONDS) for number, at in enumerate(at_ns))
    return Watched(DESIGNS["nist"], {frozenset("ab"): 100_000}, Scenario((stream,), demands), seed=1).watch()


def test_demands_are_asked_by_time_and_those_of_one_time_as_they_stand() -> None:
    arena = watched([3 * NANOSECONDS, NANOSECONDS, 3 * NANOSECONDS, 2 * NANOSECONDS, NANOSECONDS])
    record = arena.run(5)
    assert [number for _, number in arena.asked] == [1, 4, 3, 0, 2]
    assert [now for now, _ in arena.asked] == [second * NANOSECONDS for second in (1, 1, 2, 3, 3)]
    assert [outcome.number for outcome in record.outcomes] == [0, 1, 2, 3, 4]


def test_what_is_planned_does_not_grow_with_the_demands_to_come() -> None:
    arena = watched([2 * NANOSECONDS + at * 1_000_000 for at in range(2_000)])
    record = arena.run(5)
    assert len(record.outcomes) == len(arena.asked) == 2_000
    assert arena.planned < 100
