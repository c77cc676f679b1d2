"""Routes as people see them: the chosen one first, and of every other one what is in its way."""

from __future__ import annotations

from collections.abc import Iterable

from keyhop.core.policy.routing import Edge, LinkState
from keyhop.daemon.paths import NEED_BYTES, Paths

FULL = 1 << 16


def link(one: str, other: str, *, usable: int = FULL, rate: int = 1000, up: bool = True) -> list[Edge]:
    return [Edge(one, other, usable, rate, up), Edge(other, one, usable, rate, up)]


def paths(*links: Iterable[Edge], troubles: dict[tuple[str, str], str] | None = None) -> Paths:
    edges = [edge for both in links for edge in both]
    return Paths(edges, LinkState(), {("a", "b"): "west"}, troubles=troubles)


SQUARE = (link("a", "b"), link("b", "d"), link("a", "c"), link("c", "d", usable=FULL // 2))


def test_the_chosen_route_is_the_one_the_policy_takes() -> None:
    answer = paths(*SQUARE).between("a", "d")
    chosen = LinkState().route([edge for both in SQUARE for edge in both], "a", "d", NEED_BYTES)
    assert chosen is not None and answer.chosen is not None
    assert answer.chosen.path == chosen.path == ("a", "b", "d")
    assert answer.chosen.hops == 2 and answer.chosen.cost == chosen.cost


def test_the_next_best_route_follows_with_its_narrowest_link() -> None:
    (other,) = paths(*SQUARE).between("a", "d").alternatives
    assert other.path == ("a", "c", "d") and other.feasible
    assert (other.narrowest_link, other.narrowest_stored_bytes) == ("c-d", FULL // 2)


def test_links_are_named_as_they_are_called_here() -> None:
    chosen = paths(link("a", "b", usable=2000), link("b", "d")).between("d", "a").chosen
    assert chosen is not None and chosen.narrowest_link == "west"


def test_a_route_that_is_better_but_for_a_link_that_is_down_says_so() -> None:
    answer = paths(link("a", "b"), link("b", "d", up=False), *SQUARE[2:]).between("a", "d")
    assert answer.chosen is not None and answer.chosen.path == ("a", "c", "d")
    (excluded,) = answer.alternatives
    assert excluded.path == ("a", "b", "d") and not excluded.feasible
    assert excluded.reason == "b-d is down"


def test_a_link_in_trouble_is_given_with_the_words_of_its_module() -> None:
    dry = link("a", "b", rate=0)
    answer = paths(dry, *SQUARE[1:], troubles={("a", "b"): "QBER 12.0 % above 11.0 %"}).between("a", "d")
    assert answer.chosen is not None and answer.chosen.path == ("a", "c", "d")
    reasons = {route.path: route.reason for route in answer.alternatives if not route.feasible}
    assert reasons == {("a", "b", "d"): "west: QBER 12.0 % above 11.0 %"}


def test_without_a_path_the_answer_says_what_is_missing() -> None:
    empty = paths(link("a", "b"), link("b", "d", usable=NEED_BYTES - 1))
    answer = empty.between("a", "d")
    assert answer.chosen is None and answer.reason == f"b-d has {NEED_BYTES - 1} B left"
    best = empty.best("a", "d")
    assert best.path == () and not best.feasible and best.reason == answer.reason


def test_nodes_that_no_link_joins_have_no_route_at_all() -> None:
    answer = paths(link("a", "b"), link("x", "y")).between("a", "y")
    assert answer.chosen is None and answer.alternatives == ()
    assert answer.reason == "no path of links leads from a to y"


def test_neighbours_share_their_link_however_little_is_left_of_it() -> None:
    around = paths(link("a", "b", usable=0), link("a", "c"), link("b", "c"))
    chosen = around.between("a", "b").chosen
    assert chosen is not None and chosen.path == ("a", "b")


def test_neighbours_whose_link_gives_no_key_go_round_it() -> None:
    around = paths(link("a", "b", usable=0, rate=0), link("a", "c"), link("b", "c"))
    chosen = around.between("a", "b").chosen
    assert chosen is not None and chosen.path == ("a", "c", "b")


def test_the_route_to_oneself_has_no_hop() -> None:
    chosen = paths(*SQUARE).between("a", "a").chosen
    assert chosen is not None and chosen.path == ("a",) and chosen.hops == 0


def test_best_and_between_agree_on_every_pair() -> None:
    known = paths(*SQUARE, link("d", "e", up=False))
    for origin in known.nodes():
        for to in known.nodes() - {origin}:
            chosen = known.between(origin, to).chosen
            assert known.best(origin, to).path == (chosen.path if chosen is not None else ())
