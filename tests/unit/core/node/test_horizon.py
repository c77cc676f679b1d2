"""How far link state goes: so many links and no further, whatever a neighbour says of the hops it has left."""

from __future__ import annotations

import random
import string

import msgspec
import pytest
from small_worlds import run, settings, started

from keyhop.core.designs import DESIGNS
from keyhop.core.messages import EVERYWHERE, HORIZON_LIMIT_HOPS, LinkState, SignedLinkState, encode
from keyhop.core.model import NANOSECONDS, NodeId
from keyhop.core.node.context import NodeSettings
from keyhop.core.node.linkstate import FARTHER_LIMIT, LIFETIMES, REFRESH_LIMIT_NS, LinkStateTick
from keyhop.core.node.node import Node
from keyhop.core.node.store import Snapshot
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.identity import PretendIdentity
from keyhop.simulator.world import World


def line(names: str, horizon_hops: int) -> list[NodeSettings]:
    return [
        settings(name, names[max(0, at - 1) : at] + names[at + 1 : at + 2], horizon_hops=horizon_hops)
        for at, name in enumerate(names)
    ]


def known(world: World, name: str) -> set[str]:
    return set(world.processes[NodeId(name)].node.states.known)


NAMES = string.ascii_lowercase[:12]


@pytest.mark.parametrize("hops", [1, 2, 5])
def test_a_state_crosses_as_many_links_as_the_horizon_says_and_not_one_more(hops: int) -> None:
    world = started(line(NAMES, hops))
    run(world, 20)
    for at, name in enumerate(NAMES):
        assert known(world, name) == set(NAMES[max(0, at - hops) : at + hops + 1]) - {name}


def test_without_a_horizon_everybody_hears_of_everybody() -> None:
    world = started(line(NAMES, 0))
    run(world, 20)
    assert all(known(world, name) == set(NAMES) - {name} for name in NAMES)


def test_within_the_horizon_routes_are_found_and_beyond_it_none() -> None:
    world = started(line(NAMES, 4))
    run(world, 20)
    routes = world.processes[NodeId("a")].node.routes
    assert routes.next_hop("e") == "b" and routes.next_hop("f") is None


def test_a_link_that_opens_later_brings_what_is_near_over_it() -> None:
    names = "abcdefg"
    nodes = line(names, 3)
    nodes[0] = settings("a", "bg", horizon_hops=3)
    nodes[-1] = settings("g", "fa", horizon_hops=3)
    world = World(1, nodes, DESIGNS["keyhop"], NodeVault)
    world.cut("a", "g")
    world.start()
    run(world, 20)
    assert known(world, "b") == set("acde")
    world.mend("a", "g")
    run(world, 20)
    assert known(world, "b") == set("acdefg")


# --- one node, and what its neighbour says ----------------------------------------------------------------------------


def node(horizon_hops: int) -> Node:
    vault = NodeVault(MemoryStore(), bytes(32), identity=PretendIdentity("m"))
    made = Node(
        settings("m", "bc", horizon_hops=horizon_hops),
        DESIGNS["keyhop"],
        vault,
        random.Random(1).randbytes,
        Snapshot([], [], [], []),
        start=1,
        now=0,
    )
    made.begin()
    return made


class Handed:
    """What a node hands on: hops left, and to whom not."""

    def __init__(self, made: Node) -> None:
        self.on: list[tuple[int, str]] = []
        self.statements: set[bytes] = set()
        made.states._flood = self._flood  # type: ignore[method-assign]

    def _flood(self, message: SignedLinkState, but: str) -> None:
        self.on.append((message.hops_left, but))
        self.statements.add(message.statement)


def state(hops_left: int, sequence: int = 1, *applications: str) -> SignedLinkState:
    statement = encode(LinkState("far", sequence, (), applications))
    return SignedLinkState(statement, *PretendIdentity("far").sign(statement), hops_left)


@pytest.mark.parametrize(
    ("horizon_hops", "said", "handed"),
    [
        (0, EVERYWHERE, [EVERYWHERE]),
        (0, 7, [6]),
        (0, 0, []),
        (8, 7, [6]),
        (8, 1, [0]),
        (8, 0, []),
        (8, EVERYWHERE, [6]),
        (8, HORIZON_LIMIT_HOPS, [6]),
        (1, EVERYWHERE, []),
    ],
)
def test_who_hands_on_takes_one_off_and_nobody_can_claim_more_than_our_horizon(
    horizon_hops: int, said: int, handed: list[int]
) -> None:
    made = node(horizon_hops)
    told = Handed(made)
    made.states.heard("b", state(said))
    assert [hops_left for hops_left, _ in told.on] == handed
    assert "far" in made.states.known


def test_the_same_state_over_a_shorter_way_is_handed_on_again_to_all_but_who_brought_it() -> None:
    made = node(8)
    told = Handed(made)
    for peer, hops_left in (("b", 2), ("c", 5), ("b", 4), ("c", 5), ("b", 0)):
        made.states.heard(peer, state(hops_left))
    assert told.on == [(1, "b"), (4, "c")]


def test_a_state_kept_at_the_edge_goes_on_when_it_comes_over_a_shorter_way() -> None:
    made = node(8)
    told = Handed(made)
    made.states.heard("b", state(0))
    assert told.on == []
    made.states.heard("c", state(1))
    assert told.on == [(0, "c")]


def test_other_bytes_under_a_known_number_go_nowhere_however_many_hops_they_claim() -> None:
    made = node(8)
    told = Handed(made)
    made.states.heard("b", state(2))
    made.states.heard("c", state(7, 1, "stolen"))
    forged = msgspec.structs.replace(state(7), certificate=b"", signature=b"")
    made.states.heard("c", forged)
    assert told.statements == {state(2).statement}
    # What goes on with more hops is the bytes that were checked, not those that came later.
    assert made.states.known["far"].message.signature == state(2).signature


def test_a_neighbour_that_counts_upwards_is_soon_not_followed() -> None:
    made = node(0)
    told = Handed(made)
    for hops_left in range(1, EVERYWHERE + 1):
        made.states.heard("b", state(hops_left))
    assert len(told.on) == 1 + FARTHER_LIMIT
    made.states.heard("b", state(3, 2))
    assert told.on[-1] == (2, "b")


def test_the_last_word_of_a_node_that_speaks_too_fast_keeps_the_most_hops_with_which_it_came() -> None:
    made = node(8)
    for sequence in range(1, 17):
        made.states.heard("b", state(7, sequence))
    told = Handed(made)
    made.states.heard("b", state(1, 17))
    made.states.heard("c", state(5, 17))
    assert told.on == []
    made.context.now += NANOSECONDS
    made.states.tick(LinkStateTick(made.states.due))
    assert (4, "c") in told.on


def test_with_a_horizon_a_node_is_remembered_for_three_hours_however_few_are_known() -> None:
    made = node(8)
    made.states.heard("b", state(3))
    made.context.now += LIFETIMES * REFRESH_LIMIT_NS
    made.states.tick(LinkStateTick(made.states.due))
    assert "far" in made.states.known
    made.context.now += 60 * NANOSECONDS
    made.states.tick(LinkStateTick(made.states.due))
    assert "far" not in made.states.known
