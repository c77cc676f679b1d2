"""Paths that a network remembers are those that a search finds, whatever links have done in between."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, permutations
from random import Random

import pytest

from keyhop.core.composed.network import Network
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.routing import Edge, Sdn

NODES = "ABCDEFG"
AIT = DESIGNS["ait"]


def routing() -> Sdn:
    assert isinstance(AIT.routing, Sdn)
    return AIT.routing


@pytest.mark.parametrize("seed", range(8))
def test_remembered_paths_are_those_that_a_search_finds(seed: int) -> None:
    random = Random(seed)
    links = random.sample(list(combinations(NODES, 2)), 12)
    first, later = links[:8], links[8:]
    network = Network({frozenset(link): 1000 for link in first})
    states = {ends: Edge(*ends, 1, 1000, True) for link in first for ends in (link, link[::-1])}
    changed = 0
    for turn in range(60):
        if later and turn % 15 == 10:
            link = later.pop()
            assert network.learn(*link, 1000)
            states |= {ends: Edge(*ends, 1, 1000, True) for ends in (link, link[::-1])}
        elif random.random() < 0.5:
            ends = random.choice(sorted(states))
            changed += states[ends].up
            states[ends] = Edge(*ends, random.randrange(3), 1000, not states[ends].up)
            network.tell(states[ends])
        for ends in random.sample(list(permutations(NODES, 2)), 6):
            assert network.paths(AIT, *ends) == routing().paths(states.values(), *ends)
    assert changed and not later


def test_nothing_is_searched_again_while_links_only_gain_and_lose_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network({frozenset(link): 1000 for link in ("AB", "BC", "CD", "AD")})
    found = network.paths(AIT, "A", "C")
    assert found == [("A", "B", "C"), ("A", "D", "C")]
    searched: list[tuple[str, str]] = []
    search = Sdn.paths

    def counted(part: Sdn, edges: Iterable[Edge], source: str, destination: str) -> list[tuple[str, ...]]:
        searched.append((source, destination))
        return search(part, edges, source, destination)

    monkeypatch.setattr(Sdn, "paths", counted)
    for stock in range(5):
        network.tell(Edge("A", "B", stock, 1000, True))
        assert network.paths(AIT, "A", "C") == found
    assert not searched
    network.tell(Edge("A", "B", 5, 1000, False))
    assert network.paths(AIT, "A", "C") == [("A", "D", "C")]
    assert searched == [("A", "C")]


def test_who_changes_the_list_that_it_got_changes_nobody_elses() -> None:
    network = Network({frozenset("AB"): 1000})
    network.paths(AIT, "A", "B").clear()
    assert network.paths(AIT, "A", "B") == [("A", "B")]


def test_names_of_nodes_that_are_unknown_are_not_remembered() -> None:
    network = Network({frozenset("AB"): 1000})
    for number in range(100):
        assert network.paths(AIT, "A", f"nobody {number}") == []
    assert not network._ways
    network.learn("B", "nobody 1", 1000)
    assert network.paths(AIT, "A", "nobody 1") == [("A", "B", "nobody 1")]
