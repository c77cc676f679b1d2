"""The queue of virtual time: everything in its order, whatever shortcut it takes."""

from __future__ import annotations

import random

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NodeId
from keyhop.core.node import events
from keyhop.core.node.context import NodeSettings
from keyhop.simulator.vault import WeightlessVault
from keyhop.simulator.world import World


def world() -> World:
    made = World(1, [NodeSettings(node=NodeId("a"))], DESIGNS["keyhop"], WeightlessVault)
    made.start()
    return made


def test_moments_out_of_order_come_in_order_and_alike_ones_as_they_stand() -> None:
    made, seen = world(), list[tuple[int, int]]()
    draw = random.Random(3)
    moments = [made.now + draw.randrange(20) for _ in range(100)]
    made.in_order(moments, lambda index: seen.append((made.now, index)))
    made.run(made.now + 100)
    assert seen == sorted((moment, index) for index, moment in enumerate(moments))


def test_of_one_moment_what_was_planned_first_is_first() -> None:
    made, seen = world(), list[str]()
    due = made.now + 10
    made.at(due, seen.append, "before")
    made.in_order([due, due], lambda index: seen.append(f"planned {index}"))
    made.at(due, seen.append, "after")
    made.run(due)
    assert seen == ["before", "planned 0", "planned 1", "after"]


def test_what_is_past_is_due_now() -> None:
    made, seen = world(), list[int]()
    made.run(made.now + 100)
    made.at(made.now - 50, lambda: seen.append(made.now))
    made.run(made.now)
    assert seen == [made.now]


def test_a_turn_comes_after_all_that_was_due_at_once_before_it() -> None:
    made, seen = world(), list[str]()
    made.run(made.now + 100)
    process = made.processes["a"]
    made.on_step.append(lambda stepped: seen.append("turn"))
    made.at(made.now, seen.append, "before")
    process.feed(events.AuditHead(b""))
    made.at(made.now, seen.append, "after")
    made.run(made.now)
    assert seen == ["before", "turn", "after"]


def test_everything_that_is_done_is_counted_and_nothing_else() -> None:
    made = world()
    made.run(made.now + 100)
    before = made.entries
    for wait in (1, 2, 1000):
        made.at(made.now + wait, lambda: None)
    made.processes["a"].feed(events.AuditHead(b""))
    made.run(made.now + 10)
    assert made.entries - before == 3
