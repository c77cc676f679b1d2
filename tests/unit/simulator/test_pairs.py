"""Pairs that ask: the documented ones, over shortest paths, with what shared links leave them."""

from __future__ import annotations

import dataclasses

import pytest

from keyhop.simulator.pairs import PAIRS, asking, pairs
from keyhop.simulator.topology import TopologyError, load_builtin


@pytest.mark.parametrize(("name", "links"), [("p2p", 1), ("line3", 2), ("line5", 4)])
def test_on_a_line_its_two_ends_ask(name: str, links: int) -> None:
    line = load_builtin(name)
    found = asking(line, {link.id: 1000.0 for link in line.links})
    assert [(path[0], path[-1], len(path) - 1) for path in found.paths] == [("alice", "bob", links)]
    assert found.rate_bps == 1000


def test_a_line_gives_what_its_slowest_link_gives() -> None:
    line = load_builtin("line3")
    rates = dict(zip((link.id for link in line.links), (5000.0, 700.0), strict=True))
    assert asking(line, rates).rate_bps == 700


def test_in_tokyo_three_pairs_share_the_links_of_otemachi() -> None:
    """Hakusan gives 2 kbit/s and Hongo 1.5, each to two pairs: 750 bit/s for each of three pairs."""
    found = asking(load_builtin("tokyo"))
    assert found.paths == (("KOG", "OTE", "HAK"), ("KOG", "OTE", "HON"), ("HAK", "OTE", "HON"))
    assert found.rate_bps == 3 * 750


def test_parallel_links_give_together() -> None:
    tokyo = load_builtin("tokyo")
    rates = {"toshiba": 100.0, "nec": 200.0, "ntt": 50.0, "melco": 1e6, "idq": 1e6}
    assert asking(tokyo, rates).rate_bps == 3 * 350 / 2


def test_nsfnet_asks_over_short_and_long_paths_through_its_relays() -> None:
    nsfnet = load_builtin("nsfnet")
    found = asking(nsfnet, {link.id: 1000.0 for link in nsfnet.links})
    assert tuple((path[0], path[-1]) for path in found.paths) == PAIRS["nsfnet_14"]
    assert [len(path) - 1 for path in found.paths] == [4, 8, 18, 46]
    for path in found.paths:
        neighbours = [{end for link in nsfnet.links_of(node) for end in link.ends} for node in path]
        assert all(there in near for there, near in zip(path[1:], neighbours, strict=False))


def test_the_uk_backbone_shares_its_middle_between_two_near_pairs_and_its_ends() -> None:
    backbone = load_builtin("ukqn")
    found = asking(backbone, {link.id: 1000.0 for link in backbone.links})
    assert [(path[0], path[-1], len(path) - 1) for path in found.paths] == [
        ("READ", "LON", 2),
        ("LON", "CAM", 2),
        ("BRIS", "IPS", 9),
    ]
    assert found.rate_bps == 3 * 500


def test_every_documented_pair_stands_in_its_network() -> None:
    for name, documented in PAIRS.items():
        assert {node for pair in documented for node in pair} <= set(load_builtin(name).nodes)


def test_other_networks_ask_as_their_applications_do_each_pair_once() -> None:
    assert len(pairs(load_builtin("secoqc"))) == len({frozenset(pair) for pair in pairs(load_builtin("secoqc"))})


def test_a_network_without_applications_is_refused() -> None:
    with pytest.raises(TopologyError, match="network p2p: no two applications at different nodes"):
        pairs(dataclasses.replace(load_builtin("p2p"), apps=()))


def test_a_pair_without_a_path_is_refused() -> None:
    line = load_builtin("line3")
    with pytest.raises(TopologyError, match="no path from alice to bob"):
        asking(dataclasses.replace(line, links=line.links[:1]))


def test_a_link_without_a_rate_is_refused_by_name() -> None:
    line = load_builtin("line3")
    with pytest.raises(TopologyError, match=f"link {line.links[0].id} has no rate"):
        asking(line)


def test_a_path_that_gives_nothing_is_refused() -> None:
    line = load_builtin("p2p")
    with pytest.raises(TopologyError, match=r"the links of alice\|bob give no key"):
        asking(line, {line.links[0].id: 0.0})
