"""A policy that avoids a node: what is relayed ahead goes round it, and what went over it is not given."""

from __future__ import annotations

from governed_worlds import demands, policy, why
from small_worlds import run, settings, started

from keyhop.core.machine import Deliver
from keyhop.core.model import AppId, NodeId
from keyhop.core.node.context import Application
from keyhop.core.node.events import BlockArrived, KeysWanted
from keyhop.core.node.vault import BlockName
from keyhop.simulator.world import Answered, World

LINKS = ("ab", "bc", "ad", "de", "ec")
"""From a to c over b in two hops, or over d and e in three."""
NEIGHBOURS = {node: "".join(sorted(set("".join(link for link in LINKS if node in link)) - {node})) for node in "abcde"}


def ring(rules: str | None) -> World:
    found = None if rules is None else policy(rules)
    served = {"a": ("a1", "a2"), "c": ("c1",)}
    every = {AppId(app): NodeId(node) for node, apps in served.items() for app in apps}
    world = started(
        [
            settings(
                node,
                NEIGHBOURS[node],
                applications=tuple(
                    Application(id=AppId(app), peers=frozenset(every) - {AppId(app)}) for app in served.get(node, ())
                ),
                directory={app: at for app, at in every.items() if at != node},
                policy=found,
            )
            for node in "abcde"
        ]
    )
    for number in range(8):
        for one, other in LINKS:
            bits = world.random.randbytes(16_384)
            for here, there in ((one, other), (other, one)):
                process = world.processes[NodeId(here)]
                process.vault.accept(BlockName(NodeId(there), "m", number), bytearray(bits))
                process.feed(BlockArrived(there, "m", number, len(bits), 1e-10, "acme"))
        run(world, 0.5)
    run(world, 8)
    return world


def asked(world: World, master: str, **demanded: object) -> Deliver:
    answers: list[Answered] = []
    world.on_answer.append(answers.append)
    event = KeysWanted(world.request(), master, "c1", 1, 256, demands(**demanded), labelled=True)
    world.processes[NodeId("a")].feed(event)
    run(world, 3)
    return answers[-1].deliver


def test_without_a_policy_the_short_way_is_taken_and_a_demand_to_avoid_it_is_refused() -> None:
    world = ring(None)
    assert asked(world, "a1").labels[0].paths == {("a", "b", "c")}
    assert "keyhop_avoid_node" in why(asked(world, "a1", avoid_node="b"))


def test_with_a_policy_that_avoids_a_node_key_is_relayed_round_it() -> None:
    world = ring("rules: [{name: careful, application: a1, peer: c1, bounds: {avoid_node: b}}]")
    given = asked(world, "a1")
    assert given.refusal is None and given.labels[0].paths == {("a", "d", "e", "c")}
    assert given.labels[0].hops == 3 and given.labels[0].epsilon is not None
    assert asked(world, "a2").refusal is None
    assert "keyhop_max_hops" in why(asked(world, "a1", max_hops=2))
