"""SwissQuantum's buffers: the owner of a run keeps one for each of its applications, the other end follows by name."""

from __future__ import annotations

from tests.acceptance.benches import Bench

from keyhop.core.composed.stock.sessions import OwnedSessions
from keyhop.core.designs import DESIGNS

UNIT = 256


def pair() -> Bench:
    """Two applications that ask at A, one that asks at B; key has come to the pair."""
    bench = Bench(DESIGNS["swissquantum"])
    bench.open("one", "A", "B", rate_bps=2560)
    bench.open("two", "A", "B", rate_bps=2560)
    bench.open("back", "B", "A", rate_bps=2560)
    for _ in range(20):
        bench.give(64 * UNIT)
        bench.go(1)
    return bench


def levels(bench: Bench, at: str) -> dict[str, int]:
    peer = "B" if at == "A" else "A"
    line = bench.sites[at].line(peer, True)
    assert line is not None and isinstance(line.dealing, OwnedSessions)
    run = line.run_of(f"{at}>{peer}")
    return {label: pool.level for label, pool in run.pools.items()}


def test_each_application_of_an_owner_has_its_turn() -> None:
    bench = pair()
    here, there = levels(bench, "A"), levels(bench, "B")
    assert abs(here["A>B/one"] - here["A>B/two"]) <= 1 and here["A>B/one"] >= 16
    assert there["B>A/back"] >= 16 and "A>B/one" not in there
    bench.balanced()


def test_one_application_cannot_drain_the_other() -> None:
    bench = pair()
    before = levels(bench, "A")["A>B/two"]
    for _ in range(levels(bench, "A")["A>B/one"]):
        name = bench.name(bench.ask("A", "B", UNIT, stream="one"))
        assert bench.name(bench.fetch("B", "A", name, stream="one")) == name
    assert levels(bench, "A")["A>B/one"] == 0 and levels(bench, "A")["A>B/two"] == before
    bench.balanced()


def test_what_a_closed_application_leaves_goes_to_the_others() -> None:
    bench = pair()
    before = levels(bench, "A")
    bench.close("one", "A", "B")
    for _ in range(3):
        bench.give(64 * UNIT)
        bench.go(1)
    assert levels(bench, "A")["A>B/one"] == 0
    assert levels(bench, "A")["A>B/two"] >= before["A>B/one"] + before["A>B/two"]
    assert bench.sites["A"].line("B", True).book.X == 0  # type: ignore[union-attr]
    bench.balanced()
