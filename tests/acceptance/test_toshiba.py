"""Toshiba's acceptance list: shares by demand under the path's ceiling, the directory, lazy removal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.acceptance.benches import Bench
from tests.acceptance.buffered import chain, retune

from keyhop.core.composed.nouns.messages import Restarted, StreamOpened, StreamRetuned
from keyhop.core.composed.relay.demand_sharing import DemandSharing
from keyhop.core.composed.stock.disposal import InBatches
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.disposal import EraseInBatches
from keyhop.simulator.arena import Unbalanced

TOSHIBA = DESIGNS["toshiba.2016"]
LAZY = DESIGNS["toshiba.2019"]
BLOCK = 4096
KBIT = 1000
DEMANDS = {"one": 100 * KBIT, "two": 200 * KBIT, "three": 100 * KBIT}
STOCK_BITS = 16_000_000


def path(*rates_bps: int) -> Bench:
    return chain(TOSHIBA, STOCK_BITS, *rates_bps)


def sharing(bench: Bench, at: str = "A") -> DemandSharing:
    relaying = bench.sites[at].relaying
    assert isinstance(relaying, DemandSharing)
    return relaying


def pools(bench: Bench, destination: str = "C", *, at: str = "A") -> dict[str, int]:
    """Bits of each client of A's, as one end has them."""
    line = bench.sites[at].line(destination if at == "A" else "A", True)
    assert line is not None
    run = line.run_of("A>")
    return {label.partition("/")[2]: pool.level * run.unit_bits for label, pool in run.pools.items()}


def open_all(bench: Bench, demands: dict[str, int], destination: str = "C") -> None:
    for client, rate_bps in demands.items():
        bench.open(client, "A", destination, rate_bps=rate_bps)


def made(bench: Bench, seconds: float, destination: str = "C") -> dict[str, int]:
    """What each client gets in so much time, once the way is full."""
    bench.go(3)
    before = pools(bench, destination)
    bench.go(seconds)
    after = pools(bench, destination)
    return {client: after[client] - before.get(client, 0) for client in after}


def jain(values: list[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def within_a_block(got: dict[str, int], shares_bps: dict[str, int], seconds: float) -> bool:
    return all(abs(got[client] - share * seconds) <= BLOCK for client, share in shares_bps.items())


def test_at_toshiba_1_three_clients_share_a_path_by_demand() -> None:
    bench = path(900 * KBIT, 200 * KBIT)
    open_all(bench, DEMANDS)
    got = made(bench, 10)
    shares = {"one": 50 * KBIT, "two": 100 * KBIT, "three": 50 * KBIT}
    assert within_a_block(got, shares, 10)
    assert abs(sum(got.values()) - 200 * KBIT * 10) <= BLOCK
    plan = sharing(bench).shares["C"]
    exact = TOSHIBA.sharing.shares(list(plan.rates.values()), plan.links_bps)  # type: ignore[union-attr]
    assert jain([float(share / DEMANDS[client]) for client, share in zip(plan.rates, exact, strict=True)]) == 1.0
    assert jain([got[client] / DEMANDS[client] for client in DEMANDS]) > 0.9999
    bench.balanced()


def test_at_toshiba_1_both_ends_deal_the_same_stretches_to_the_same_clients() -> None:
    bench = path(900 * KBIT, 200 * KBIT)
    open_all(bench, DEMANDS)
    bench.go(5)
    bench.close("one", "A", "C")
    bench.close("two", "A", "C")
    bench.close("three", "A", "C")
    bench.go(1)
    here, there = bench.sites["A"].pairs["C"].run_of("A>"), bench.sites["C"].pairs["A"].run_of("A>")
    assert {label: list(pool) for label, pool in here.pools.items()} == {
        label: list(pool) for label, pool in there.pools.items()
    }
    assert sum(pools(bench).values()) > 700 * KBIT
    bench.balanced()


def test_at_toshiba_2_a_client_that_joins_takes_its_share_from_the_others() -> None:
    bench = path(900 * KBIT, 200 * KBIT)
    open_all(bench, DEMANDS)
    bench.go(2)
    bench.open("four", "A", "C", rate_bps=400 * KBIT)
    shares = {"one": 25 * KBIT, "two": 50 * KBIT, "three": 25 * KBIT, "four": 100 * KBIT}
    assert within_a_block(made(bench, 10), shares, 10)
    bench.balanced()


def test_at_toshiba_2_no_more_is_made_than_is_asked_for() -> None:
    bench = path(900 * KBIT, 500 * KBIT)
    open_all(bench, DEMANDS)
    got = made(bench, 10)
    assert within_a_block(got, DEMANDS, 10)
    assert sharing(bench).shares["C"].achieved_bps == 400 * KBIT
    assert abs(sum(got.values()) - 4_000 * KBIT) <= BLOCK
    bench.balanced()


def test_at_toshiba_3_the_narrowest_link_is_the_ceiling() -> None:
    bench = path(900 * KBIT, 200 * KBIT, 700 * KBIT)
    open_all(bench, {"one": 1_000 * KBIT}, "D")
    bench.go(3)
    assert sharing(bench).shares["D"].achieved_bps == 200 * KBIT
    got = made(bench, 10, "D")
    assert abs(got["one"] - 2_000 * KBIT) <= BLOCK
    bench.balanced()


@pytest.mark.parametrize(("rate_bps", "achieved_bps"), [(185 * KBIT, 200 * KBIT), (175 * KBIT, 175 * KBIT), (0, 0)])
def test_at_toshiba_3_a_link_that_changes_by_more_than_a_tenth_makes_a_new_plan(
    rate_bps: int, achieved_bps: int
) -> None:
    bench = path(900 * KBIT, 200 * KBIT, 700 * KBIT)
    open_all(bench, {"one": 1_000 * KBIT}, "D")
    bench.go(3)
    retune(bench, "B", "C", rate_bps)
    bench.go(2)
    assert sharing(bench).shares["D"].achieved_bps == achieved_bps
    retune(bench, "B", "C", 200 * KBIT)
    bench.go(2)
    assert sharing(bench).shares["D"].achieved_bps == 200 * KBIT
    bench.balanced()


def test_a_client_that_leaves_or_changes_its_rate_makes_a_new_plan() -> None:
    bench = path(900 * KBIT, 200 * KBIT)
    open_all(bench, DEMANDS)
    bench.go(3)
    bench.close("two", "A", "C")
    for node in "AC":
        bench.step(node, StreamRetuned("three", 300 * KBIT))
    got = made(bench, 10)
    assert within_a_block(got, {"one": 50 * KBIT, "two": 0, "three": 150 * KBIT}, 10)
    bench.balanced()


def test_at_toshiba_4_used_keys_are_erased_in_batches_and_none_is_supplied_again() -> None:
    bench = chain(replace(LAZY, disposal=EraseInBatches(n=100)), STOCK_BITS, 900 * KBIT, 200 * KBIT)
    open_all(bench, {"s": 100 * KBIT})
    bench.go(3)
    names, peak = [], 0
    disposals = [bench.line(at, peer).disposal for at, peer in (("A", "C"), ("C", "A"))]
    for _ in range(250):
        request = bench.ask("A", "C")
        names.append(bench.name(request))
        bench.fetch("C", "A", bench.name(request))
        for disposal in disposals:
            assert isinstance(disposal, InBatches)
            peak = max(peak, disposal.present)
    for disposal in disposals:
        assert isinstance(disposal, InBatches)
        assert (disposal.erased, disposal.present, disposal.exposed_bits) == (200, 50, 50 * 256)
    assert peak <= 99
    for node in "AC":
        bench.step(node, Restarted())
    used = {units for name in names for low, high in name.ranges for units in range(low, high)}
    assert len(used) == 250
    bench.go(1)
    for _ in range(500):
        request = bench.ask("A", "C")
        if bench.refusal(request):
            break
        (units,) = bench.name(request).ranges
        assert not used & set(range(*units))
    assert bench.book("C", "A").D == 250 * 256
    bench.balanced()


class Forgetful(EraseInBatches):
    """Without its log."""

    def may_supply(self, number: int, used_log: object) -> bool:
        return True


def test_at_toshiba_4_without_the_log_a_restart_would_supply_used_keys_again() -> None:
    bench = chain(replace(LAZY, disposal=Forgetful(n=100)), STOCK_BITS, 900 * KBIT, 200 * KBIT)
    open_all(bench, {"s": 100 * KBIT})
    bench.go(3)
    first = bench.name(bench.ask("A", "C"))
    bench.step("A", Restarted())
    assert bench.name(bench.ask("A", "C")).ranges == first.ranges
    with pytest.raises(Unbalanced):
        bench.balanced()


def test_at_toshiba_4_pads_are_erased_in_batches_too_and_the_older_design_exposes_nothing() -> None:
    exposed = {}
    for design in (LAZY, TOSHIBA):
        bench = chain(design, STOCK_BITS, 900 * KBIT, 200 * KBIT)
        open_all(bench, {"s": 100 * KBIT})
        bench.go(2.1)
        exposed[design.name] = bench.line("A", "C").site.links["B"].disposal.exposed_bits
    assert 0 < exposed["toshiba.2019"] < 1024 * 32
    assert exposed["toshiba.2016"] == 0


def test_at_toshiba_5_an_address_that_the_directory_does_not_know_is_an_error_and_makes_no_key() -> None:
    bench = path(900 * KBIT, 200 * KBIT)
    before = [line.stock_bits for line in bench.lines()]
    bench.step("A", StreamOpened("nobody", "C", 100 * KBIT, 256, True))
    bench.go(3)
    request = bench.ask("A", "C", stream="nobody")
    bench.go(1)
    assert bench.refusal(request) == "the directory at A knows no application nobody"
    assert "has not connected" in bench.refusal(bench.ask("A", "C", stream="stranger"))
    assert "RELAY" not in bench.words()
    assert [line.stock_bits for line in bench.lines() if not line.distant] == before
    assert all(book.N == 0 for book in bench.balanced())


def test_at_toshiba_5_the_directory_answers_over_the_network_and_is_asked_once() -> None:
    bench = chain(
        replace(TOSHIBA, routing=replace(TOSHIBA.routing, directory="B")),  # type: ignore[type-var]
        STOCK_BITS,
        900 * KBIT,
        200 * KBIT,
    )
    bench.open("s", "A", "C", rate_bps=100 * KBIT)
    bench.go(0.1)
    # The question was there before the application at C had been submitted: the first request asks again.
    bench.ask("A", "C")
    bench.go(1)
    assert sharing(bench).shares["C"].rates == {"s": 100 * KBIT}
    assert bench.words("ask").count("LOOKUP") <= 2
    assert bench.name(bench.ask("A", "C")).label == "A>C/s"
    bench.close("s", "A", "C")
    bench.go(1)
    request = bench.ask("A", "C")
    bench.go(1)
    assert "has not connected" in bench.refusal(request)
    bench.balanced()
