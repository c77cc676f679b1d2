"""Who is believed about which application."""

from __future__ import annotations

import random

from keyhop.core.designs import DESIGNS
from keyhop.core.messages import LinkState
from keyhop.core.model import AppId, NodeId
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.linkstate import step
from keyhop.core.node.node import Node
from keyhop.core.node.store import Snapshot
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.vault import NodeVault


def node(**directory: str) -> Node:
    settings = NodeSettings(
        node=NodeId("a"),
        neighbours=(Neighbour(node=NodeId("b"), link=bytes(range(16))),),
        applications=(Application(id=AppId("own"), peers=frozenset({AppId("far")})),),
        directory={AppId(app): NodeId(at) for app, at in directory.items()},
    )
    vault = NodeVault(MemoryStore(), bytes(32))
    return Node(
        settings, DESIGNS["keyhop"], vault, random.Random(1).randbytes, Snapshot([], [], [], []), start=1, now=0
    )


def told(made: Node, name: str, sequence: int, *applications: str) -> None:
    made.states.heard("b", LinkState(name, sequence, (), applications))


def test_a_later_claim_does_not_draw_an_application_away() -> None:
    made = node()
    told(made, "c", 1, "far")
    told(made, "thief", 1, "far")
    assert made.supply.directory[AppId("far")] == "c"
    assert [notice.code for notice in made.context.out.notice] == ["KH-3102"]


def test_an_application_moves_when_its_node_no_longer_claims_it() -> None:
    made = node()
    told(made, "c", 1, "far")
    told(made, "c", 2)
    told(made, "d", 1, "far")
    assert made.supply.directory[AppId("far")] == "d"


def test_the_operators_word_stands_above_every_claim() -> None:
    made = node(far="c")
    told(made, "d", 1, "far")
    assert made.supply.directory[AppId("far")] == "c"


def test_nobody_else_serves_our_own_application() -> None:
    made = node()
    told(made, "d", 1, "own")
    assert made.supply.directory[AppId("own")] == "a"


def test_an_older_link_state_changes_nothing() -> None:
    made = node()
    told(made, "c", 5, "far")
    told(made, "c", 4, "other")
    assert AppId("other") not in made.supply.directory


def test_stock_is_told_in_steps_so_that_small_changes_say_nothing() -> None:
    assert step(1023) == 0 and step(1024) == 1024
    assert step(40_000) == step(40_900) <= 40_000
