"""Central and controller paths against every simple path there is."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.routing import CentralKms, Edge, LinkState, NoRouting, Sdn, fewest_hops


def _both(one: str, other: str, kbits: int, rate_bps: int = 0, up: bool = True) -> list[Edge]:
    return [Edge(*ends, kbits * 125, rate_bps, up) for ends in ((one, other), (other, one))]


def _triangle(direct: int, first: int, second: int, second_up: bool = True) -> list[Edge]:
    return [*_both("A", "B", direct), *_both("A", "C", first), *_both("C", "B", second, up=second_up)]


def test_at_nict_2_the_widest_path_is_taken_and_left() -> None:
    central = CentralKms(cost="widest")
    assert central.route(_triangle(10, 100, 80), "A", "B") == ("A", "C", "B")
    assert central.route(_triangle(10, 100, 80, second_up=False), "A", "B") == ("A", "B")
    assert central.route(_triangle(0, 100, 80, second_up=False), "A", "B") is None


def test_a_rate_counts_as_stock_of_the_next_minute() -> None:
    edges = [*_both("A", "B", 10, rate_bps=2000), *_both("A", "C", 100), *_both("C", "B", 80)]
    assert CentralKms().route(edges, "A", "B") == ("A", "B")


def test_a_wide_detour_to_the_same_narrow_link_is_not_taken() -> None:
    edges = [
        *_both("A", "B", 90),
        *_both("A", "C", 100),
        *_both("C", "B", 100),
        *_both("B", "D", 50),
    ]
    assert CentralKms().route(edges, "A", "D") == ("A", "B", "D")


def test_by_hops_alone_the_narrow_link_is_taken() -> None:
    assert CentralKms(cost="hops").route(_triangle(10, 100, 80), "A", "B") == ("A", "B")


def test_a_node_to_avoid_is_avoided() -> None:
    assert CentralKms().route(_triangle(10, 100, 80), "A", "B", avoid=frozenset("C")) == ("A", "B")


def test_a_link_low_on_stock_or_with_an_incident_is_left() -> None:
    central = CentralKms(low_stock=0.1)
    assert not central.leaves(Edge("A", "B", 100, 0, True), 1000)
    assert central.leaves(Edge("A", "B", 99, 0, True), 1000)
    assert central.leaves(Edge("A", "B", 1000, 0, False), 1000)


def test_configured_paths_are_all_there_are_without_routing() -> None:
    paths = [("A", "B"), ("A", "C", "B")]
    assert NoRouting().route(paths, "A", "B") == ("A", "B")
    assert NoRouting().route(paths, "B", "A") is None


def test_the_first_path_that_is_not_overloaded_forwards() -> None:
    assert LinkState(measure="least_loaded").forward([0.81, 0.8, 0.1]) == 1
    assert LinkState(measure="least_loaded").forward([0.9, 0.9]) is None
    assert LinkState(measure="hops").forward([0.9, 0.1]) == 0
    assert LinkState(measure="hops").forward([]) is None


def test_link_state_by_hops_does_not_look_at_stock() -> None:
    edges = [edge._replace(rate_bps=1000) for edge in _triangle(1, 500, 500)]
    by_fill, by_hops = LinkState().route(edges, "A", "B"), LinkState(measure="hops").route(edges, "A", "B")
    assert by_fill is not None and by_hops is not None
    assert by_fill.path == ("A", "C", "B")
    assert by_hops.path == ("A", "B") and by_hops.cost == 1.0


def test_a_controller_that_tries_no_path_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sdn\.k_paths = 0: must be 1 or more"):
        Sdn(k_paths=0)


def test_no_path_is_none_and_no_paths() -> None:
    assert Sdn().paths(_both("A", "B", 1, up=False), "A", "B") == []
    assert fewest_hops([], "A", "B") is None


NODES = "ABCDE"
EDGES = st.lists(
    st.tuples(st.sampled_from(list(permutations(NODES, 2))), st.integers(0, 3), st.integers(0, 2), st.booleans()),
    max_size=20,
    unique_by=lambda found: found[0],
).map(lambda found: [Edge(*ends, stock, rate, up) for ends, stock, rate, up in found])


def _every_path(edges: list[Edge]) -> list[tuple[str, ...]]:
    there = {(edge.start, edge.end) for edge in edges}
    between = [node for node in NODES if node not in "AE"]
    return sorted(
        (
            path
            for count in range(len(between) + 1)
            for some in permutations(between, count)
            if set(pairwise(path := ("A", *some, "E"))) <= there
        ),
        key=lambda path: (len(path), path),
    )


@given(EDGES, st.integers(1, 12))
def test_k_shortest_paths_are_the_first_of_all_paths(edges: list[Edge], count: int) -> None:
    usable = [edge for edge in edges if edge.up]
    assert Sdn(k_paths=count).paths(edges, "A", "E") == _every_path(usable)[:count]


@given(EDGES)
def test_the_widest_path_is_the_best_of_all_paths(edges: list[Edge]) -> None:
    central = CentralKms(horizon_seconds=4)
    width = {(edge.start, edge.end): central.width_bits(edge) for edge in edges if edge.up}
    usable = [edge for edge in edges if width.get((edge.start, edge.end), 0)]
    best = min(
        _every_path(usable),
        key=lambda path: (-min(width[hop] for hop in pairwise(path)), len(path), path),
        default=None,
    )
    assert central.route(edges, "A", "E") == best


def test_width_counts_bits_of_stock_and_of_a_minute() -> None:
    assert CentralKms().width_bits(Edge("A", "B", 100, 10, True)) == 800 + 600


def test_an_empty_link_costs_four_hops_more_and_a_dry_one_nine_and_a_half() -> None:
    state = LinkState()
    assert state.cost(Edge("A", "B", 1 << 16, 1, True)) == 1.0
    assert state.cost(Edge("A", "B", 1 << 20, 1, True)) == 1.0
    assert state.cost(Edge("A", "B", 1 << 15, 1, True)) == 2.0
    assert state.cost(Edge("A", "B", 0, 1, True)) == 5.0
    assert state.cost(Edge("A", "B", 0, 0, True)) == 14.5


@given(EDGES, st.integers(0, 3), st.sets(st.sampled_from("BCD")))
def test_link_state_finds_the_cheapest_of_all_paths_that_have_the_key(
    edges: list[Edge], need_bytes: int, avoid: set[str]
) -> None:
    state = LinkState(capacity_bytes=4)
    there = {(edge.start, edge.end): edge for edge in edges}
    usable = [edge for edge in edges if edge.up and edge.usable_bytes >= need_bytes and edge.end not in avoid]

    def cost(path: tuple[str, ...]) -> float:
        return sum(state.cost(there[hop]) for hop in pairwise(path))

    paths = _every_path(usable)
    found = state.route(edges, "A", "E", need_bytes, frozenset(avoid))
    if found is None:
        assert not paths
        return
    assert found.path in paths
    assert found.cost == pytest.approx(min(cost(path) for path in paths))
    assert found.narrowest_bytes == min(there[hop].usable_bytes for hop in pairwise(found.path))


def test_of_two_paths_of_one_cost_the_shorter_is_taken() -> None:
    # The direct link is half a stock short by 1.0: exactly what a further hop costs.
    edges = [Edge("A", "B", 1 << 15, 1, True), Edge("A", "C", 1 << 16, 1, True), Edge("C", "B", 1 << 16, 1, True)]
    found = LinkState().route(edges, "A", "B")
    assert found is not None and found.path == ("A", "B") and found.cost == 2.0


def test_a_node_without_links_reaches_itself() -> None:
    assert LinkState().reachable({"A": ["B"], "B": ["A", "C"]}, "A") == {"A", "B", "C"}
    assert LinkState().reachable({"A": ["B"]}, "D") == {"D"}
