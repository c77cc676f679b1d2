"""Metrics: figures worked out by hand, what is not applicable, and runs that are refused."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.comparison.metrics import METRICS, jain, measure, percentile
from keyhop.comparison.statistics import PARETO
from keyhop.comparison.tally import ledger, tally
from keyhop.comparison.windows import violations
from keyhop.simulator.record import Demand, EndBook, Outcome, Record, Scenario, Stream, Verdict

MS = 1_000_000
S = 1000 * MS
SUPPLIED, REFUSED, TIMED_OUT, UNSERVABLE = Verdict.SUPPLIED, Verdict.REFUSED, Verdict.TIMED_OUT, Verdict.UNSERVABLE
TWO = (Stream("one", "A", "B", 1000, 1000), Stream("two", "B", "A", 1000, 1000))


def demand(
    number: int,
    at_ms: int = 0,
    stream: str = "one",
    size_bits: int = 256,
    *,
    of: str = "best_effort",
    within_ms: int = 5000,
) -> Demand:
    return Demand(number, at_ms * MS, stream, "A", "B", size_bits, within_ms * MS, of)


def outcome(number: int, verdict: Verdict, done_ms: int = 0, *, its: bool = True, equal: bool = True) -> Outcome:
    return Outcome(number, verdict, done_ms * MS, its, equal)


def run(
    *pairs: tuple[Demand, Outcome],
    books: tuple[EndBook, ...] = (),
    streams: tuple[Stream, ...] = TWO,
    seconds: float = 10.0,
) -> Record:
    demands, outcomes = tuple(one for one, _ in pairs), tuple(other for _, other in pairs)
    return Record(seconds, Scenario(streams, demands), outcomes, books)


FIVE = run(
    (demand(0, 0), outcome(0, SUPPLIED, 20)),
    (demand(1, 100, size_bits=512), outcome(1, SUPPLIED, 110, its=False)),
    (demand(2, 200, "two"), outcome(2, REFUSED, 200)),
    (demand(3, 300, "two"), outcome(3, SUPPLIED, 1300)),
    (demand(4, 400), outcome(4, TIMED_OUT, 5400)),
)
"""One gets 768 of 1024 bits and two 256 of 512."""

P2P_BOOKS = (
    EndBook("A", "B", "local", G=10_000, D=4000, O=1000, C=500, R=0, A=400, X=300, Y=200, S=3600, F=1000, burnt=500),
    EndBook("B", "A", "local", G=10_000, D=4000, O=1000, C=500, R=0, A=600, X=300, Y=300, S=3300, F=1000, burnt=700),
)


def test_success_and_blocking_share_out_the_requests() -> None:
    figures = measure(FIVE)
    assert (figures["success"], figures["blocking"], figures["refused"]) == (0.6, 0.4, 0.2)
    assert (figures["unequal"], figures["unservable"]) == (0.0, 0.0)


def test_latency_is_of_supplied_keys_alone() -> None:
    figures = measure(FIVE)
    assert (figures["latency_p50_s"], figures["latency_p99_s"], figures["latency_max_s"]) == (0.02, 1.0, 1.0)


def test_fairness_is_over_the_share_each_stream_got() -> None:
    """0.75 and 0.5: (1.25)² / (2 x 0.8125)."""
    figures = measure(FIVE)
    assert figures["fairness"] == pytest.approx(1.5625 / 1.625)
    assert figures["least_share"] == 0.5


def test_the_its_ratio_counts_bits() -> None:
    assert measure(FIVE)["its_ratio"] == 0.5
    assert measure(FIVE)["delivered_bps"] == 102.4


def test_two_keys_that_differ_are_no_supply_and_no_refusal() -> None:
    figures = measure(run((demand(0), outcome(0, SUPPLIED, 9, equal=False)), (demand(1), outcome(1, SUPPLIED, 5))))
    assert (figures["success"], figures["blocking"], figures["unequal"]) == (0.5, 0.0, 0.5)
    assert figures["latency_max_s"] == 0.005 and figures["least_share"] == 0.5


def test_what_a_design_cannot_serve_counts_in_no_ratio() -> None:
    figures = measure(run((demand(0), outcome(0, UNSERVABLE)), (demand(1, stream="two"), outcome(1, SUPPLIED, 5))))
    assert (figures["success"], figures["blocking"], figures["unservable"]) == (1.0, 0.0, 0.5)
    assert figures["fairness"] == figures["least_share"] == 1.0
    assert figures["qos_violations_best_effort"] == 0.0


def test_ledger_metrics_on_one_link() -> None:
    figures = measure(FIVE._replace(books=P2P_BOOKS, messages=30))
    expected = {
        "rounding_waste": 2000 / 20_000,
        "collision_waste": 1000 / 20_000,
        "loss": 500 / 20_000,
        "expiry": 600 / 20_000,
        "waste": 4100 / 20_000,
        "key_utilisation": 8000 / (20_000 - 6900),
        "path_utilisation": 8000 / (20_000 - 6900),
        "sync_overhead": 1000 / 8000,
        "tag_overhead": 1200 / 8000,
        "relay_cost": 0.0,
        "derived": 2000 / 10_000,
        "messages_per_key": 10.0,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def relayed(*, first_S: int = 0, unused: tuple[EndBook, ...] = ()) -> tuple[EndBook, ...]:
    """4096 bits over two links as NEC does it: both links give their all, and both ends of the pair deliver it."""
    return (
        EndBook("A", "relay", "local", G=4096 + first_S, R=4096, S=first_S),
        EndBook("relay", "A", "local", G=4096 + first_S, R=4096, S=first_S),
        EndBook("relay", "B", "local", G=4096, R=4096),
        EndBook("B", "relay", "local", G=4096, T=4096),
        EndBook("A", "B", "global", N=4096, D=4096),
        EndBook("B", "A", "global", T=4096, D=4096),
        *unused,
    )


def test_relay_without_loss_uses_a_path_to_the_full() -> None:
    figures = measure(FIVE._replace(books=relayed()), [("A", "relay", "B")])
    assert figures["key_utilisation"] == 0.5, "two hops cost two bits for one"
    assert figures["path_utilisation"] == 1.0
    assert figures["relay_cost"] == 3 * 4096 / (2 * 4096)


def test_links_off_the_paths_and_bits_in_stock_do_not_count_against_a_path() -> None:
    other = (EndBook("relay", "C", "local", G=900, X=900), EndBook("C", "relay", "local", G=900, X=900))
    figures = measure(FIVE._replace(books=relayed(first_S=700, unused=other)), [("A", "relay", "B")])
    assert figures["path_utilisation"] == 1.0
    assert figures["expiry"] == pytest.approx(1800 / (4 * 4096 + 1400 + 1800))


def test_a_detour_is_not_free() -> None:
    """The same key by another way, of three links in place of two: a third of what is spent is beside the path."""
    detour = tuple(
        EndBook(node, peer, "local", G=4096, R=4096)
        for one, other in pairwise(("A", "x", "y", "B"))
        for node, peer in ((one, other), (other, one))
    )
    ends = (EndBook("A", "B", "global", N=4096, D=4096), EndBook("B", "A", "global", N=4096, D=4096))
    idle = (EndBook("A", "relay", "local", G=900, S=900), EndBook("relay", "A", "local", G=900, S=900))
    figures = measure(FIVE._replace(books=(*detour, *ends, *idle)), [("A", "relay", "B")])
    assert figures["path_utilisation"] == pytest.approx(2 / 3)


def test_every_pair_counts_its_own_hops() -> None:
    """A neighbour's key of a bit costs two, the distant pair's four: here 2 x 100 and 4 x 50, out of 500."""
    books = (
        EndBook("A", "relay", "local", G=200, D=100, R=50, X=50),
        EndBook("relay", "A", "local", G=200, D=100, R=50, X=50),
        EndBook("relay", "B", "local", G=50, R=50),
        EndBook("B", "relay", "local", G=50, T=50),
        EndBook("A", "B", "global", N=50, D=50),
        EndBook("B", "A", "global", T=50, D=50),
    )
    assert ledger(books, [("A", "relay"), ("A", "relay", "B")]).path_ideal == 200 + 200
    figures = measure(FIVE._replace(books=books), [("A", "relay"), ("A", "relay", "B")])
    assert figures["path_utilisation"] == 400 / 500


@given(
    hops=st.integers(1, 6),
    delivered=st.integers(1, 1000),
    lost=st.integers(0, 1000),
    stock=st.integers(0, 1000),
)
def test_no_hop_count_makes_more_of_a_path_than_all(hops: int, delivered: int, lost: int, stock: int) -> None:
    path = [f"n{number}" for number in range(hops + 1)]
    books = []
    for one, other in pairwise(path):
        for node, peer in ((one, other), (other, one)):
            books.append(EndBook(node, peer, "local", G=delivered + lost + stock, R=delivered, Y=lost, S=stock))
    if hops == 1:
        books = [book._replace(R=0, D=delivered) for book in books]
    else:
        books += [EndBook(node, peer, "global", N=delivered, D=delivered)
                  for node, peer in ((path[0], path[-1]), (path[-1], path[0]))]  # fmt: skip
    found = measure(FIVE._replace(books=tuple(books)), [path])["path_utilisation"]
    assert found == pytest.approx(delivered / (delivered + lost))


def test_what_the_run_itself_counted_is_taken_over_with_units() -> None:
    record = FIVE._replace(
        serves=50, collided=4, reserved_bit_ns=3, stock_bit_ns=12, exposed_bit_ns=5 * S, peak_stored_bytes=777,
        resync_ns=(2 * S, 500 * MS), cpu_ns=6 * MS,
    )  # fmt: skip
    figures = measure(record)
    assert (figures["collision_rate"], figures["idle_reservation"], figures["resync_s"]) == (0.08, 0.25, 2.0)
    assert (figures["exposure_bit_s"], figures["peak_stored_bytes"]) == (5.0, 777.0)
    assert figures["cpu_s_per_1000_keys"] == pytest.approx(2.0)


def test_blocking_is_told_by_class() -> None:
    figures = measure(
        run(
            (demand(0, of="guaranteed"), outcome(0, SUPPLIED, 5)),
            (demand(1, of="prioritised"), outcome(1, REFUSED, 5)),
            (demand(2, of="prioritised"), outcome(2, SUPPLIED, 5)),
        )
    )
    assert figures["blocking_guaranteed"] == 0.0 and figures["blocking_prioritised"] == 0.5
    assert figures["blocking_best_effort"] is None, "nobody asked in that class"


def test_a_ratio_of_nothing_is_not_applicable_and_never_0() -> None:
    figures = measure(run((demand(0), outcome(0, UNSERVABLE))))
    none = {name for name, value in figures.items() if value is None}
    assert none >= {
        "success", "blocking", "rounding_waste", "key_utilisation", "path_utilisation", "sync_overhead", "relay_cost",
        "latency_p50_s", "latency_p99_s", "latency_max_s", "collision_rate", "fairness", "least_share",
        "idle_reservation", "resync_s", "its_ratio", "messages_per_key", "cpu_s_per_1000_keys", "blocking_guaranteed",
        "qos_violations_guaranteed", "qos_violations_admitted_best_effort",
    }  # fmt: skip
    assert figures["unservable"] == 1.0


def test_nobody_served_is_no_perfect_fairness() -> None:
    figures = measure(run((demand(0), outcome(0, REFUSED)), (demand(1, stream="two"), outcome(1, REFUSED))))
    assert figures["fairness"] is None and figures["least_share"] == 0.0 and figures["success"] == 0.0


def test_every_metric_is_measured_described_and_finite() -> None:
    figures = measure(FIVE._replace(books=P2P_BOOKS))
    assert list(figures) == list(METRICS)
    assert all(value is None or math.isfinite(value) for value in figures.values())
    for name, metric in METRICS.items():
        assert metric.name == name and metric.sentence and metric.better in ("high", "low", "")
    assert {name: METRICS[name].better for name in PARETO} == PARETO


def test_a_book_that_does_not_balance_is_no_result() -> None:
    wrong = P2P_BOOKS[0]._replace(G=10_001)
    with pytest.raises(ValueError, match="local book of A for B does not balance: G=10001"):
        measure(FIVE._replace(books=(wrong, P2P_BOOKS[1])))
    with pytest.raises(ValueError, match="global book of A for B does not balance"):
        measure(FIVE._replace(books=(EndBook("A", "B", "global", N=5, D=4),)))


def test_outcomes_that_are_not_those_of_the_demands_are_no_result() -> None:
    with pytest.raises(ValueError, match="4 outcomes for 5 demands"):
        tally(FIVE._replace(outcomes=FIVE.outcomes[:4]))
    with pytest.raises(ValueError, match="outcome 1 stands at demand 0"):
        measure(FIVE._replace(outcomes=(FIVE.outcomes[1], FIVE.outcomes[0], *FIVE.outcomes[2:])))


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (0.5, 1), (99.1, 100)])
def test_percentiles_are_nearest_ranks(percent: float, expected: int) -> None:
    assert percentile(range(1, 101), percent) == expected


def test_a_percentile_of_nothing_is_none_and_of_no_percent_refused() -> None:
    assert percentile([], 50) is None
    with pytest.raises(ValueError, match="percentile 0: must be above 0"):
        percentile([1], 0)


@given(
    st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=20).filter(lambda shares: max(shares) > 1e-3)
)
def test_jain_lies_between_one_and_one_in_n(values: list[float]) -> None:
    found = jain(values)
    assert found is not None and 1 / len(values) - 1e-9 <= found <= 1 + 1e-9


def test_jain_at_its_ends() -> None:
    assert jain([0.3] * 7) == pytest.approx(1.0)
    assert jain([0.9, 0, 0, 0]) == pytest.approx(0.25)


GUARANTEED = Stream("one", "A", "B", 512, 512, "guaranteed", min_bps=512)
PLAIN = Stream("two", "A", "B", 512, 512, "best_effort")


def of_class(*pairs: tuple[Demand, Outcome], streams: tuple[Stream, ...] = (GUARANTEED, PLAIN)) -> Record:
    return run(*pairs, streams=streams, seconds=10.0)


def test_a_late_or_refused_key_breaks_the_window_in_which_it_was_due() -> None:
    """Three windows of ten: two keys due in the second 2, one refused in 5, one given up in 7 and due then."""
    found = violations(
        of_class(
            (demand(0, 1900, within_ms=100), outcome(0, TIMED_OUT, 2100)),
            (demand(1, 1950, within_ms=100), outcome(1, TIMED_OUT, 2050)),
            (demand(2, 5000), outcome(2, REFUSED, 5000)),
            (demand(3, 7100, within_ms=100), outcome(3, TIMED_OUT, 7200)),
            (demand(4, 8100, within_ms=100), outcome(4, SUPPLIED, 8150)),
        )
    )
    assert found == {"guaranteed": pytest.approx(0.3), "best_effort": 0.0}


def test_a_promised_stream_that_waits_a_whole_second_for_less_is_deprived() -> None:
    """It waits through the seconds 1 and 2 and gets 512 bits in 2: only 1 is broken. The other has no promise."""
    waits = [
        (demand(0, 500, size_bits=512), outcome(0, SUPPLIED, 2900)),
        (demand(1, 500, size_bits=512), outcome(1, SUPPLIED, 3100)),
    ]
    assert violations(of_class(*waits))["guaranteed"] == pytest.approx(0.1)
    unpromised = [(one._replace(stream="two"), other) for one, other in waits]
    assert violations(of_class(*unpromised)) == {"guaranteed": 0.0, "best_effort": 0.0}


def test_a_stream_that_asks_for_less_than_it_was_promised_is_not_deprived() -> None:
    assert violations(of_class((demand(0, 500, size_bits=8), outcome(0, SUPPLIED, 600))))["guaranteed"] == 0.0


def test_windows_are_whole_seconds_of_the_life_of_a_stream() -> None:
    """From 2.5 s to 7.2 s there are four; the refusal at 2.6 s falls in none of them, that at 6 s in one."""
    short = GUARANTEED._replace(starts_ns=2500 * MS, ends_ns=7200 * MS)
    first, second = (demand(0, 2600), outcome(0, REFUSED, 2600)), (demand(1, 6000), outcome(1, REFUSED, 6000))
    assert violations(of_class(first, second, streams=(short,))) == {"guaranteed": 0.25}


def test_a_stream_without_a_whole_second_has_no_figure() -> None:
    short = GUARANTEED._replace(starts_ns=2500 * MS, ends_ns=3400 * MS)
    assert violations(of_class(streams=(short,))) == {"guaranteed": None}


def test_admitted_streams_are_judged_apart() -> None:
    streams = (GUARANTEED, GUARANTEED._replace(name="two"))
    record = of_class(
        (demand(0, 1000, "two"), outcome(0, REFUSED, 1000)),
        (demand(1, 2000), outcome(1, SUPPLIED, 2001)),
        streams=streams,
    )
    assert violations(record)["guaranteed"] == 0.05
    assert violations(record, admitted_only=True)["guaranteed"] is None, "no admission"
    assert violations(record._replace(admitted=frozenset({"one"})), admitted_only=True)["guaranteed"] == 0.0
    assert violations(record._replace(admitted=frozenset()), admitted_only=True)["guaranteed"] is None
    figures = measure(record._replace(admitted=frozenset({"one"})))
    assert (figures["qos_violations_guaranteed"], figures["qos_violations_admitted_guaranteed"]) == (0.05, 0.0)


def test_books_without_paths_count_one_hop() -> None:
    sums = ledger(relayed())
    assert sums.path_ideal == 2 * 4096 and sums.path_consumed == 4 * 4096
