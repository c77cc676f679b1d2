"""Everything that can happen to a node, and everything that a peer can say, has a handler and somebody who makes it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

import keyhop
from keyhop.core import machine, messages
from keyhop.core.designs import DESIGNS
from keyhop.core.model import NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Neighbour, NodeSettings
from keyhop.core.node.node import Node
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import PretendDisk

SOURCE = Path(keyhop.__file__).parent
PRODUCT = ("core", "daemon")


@cache
def node() -> Node:
    disk = PretendDisk()
    settings = NodeSettings(node=NodeId("a"), neighbours=(Neighbour(node=NodeId("b"), link=bytes(16)),))
    vault = NodeVault(disk, bytes(32))  # type: ignore[arg-type]
    return Node(settings, DESIGNS["keyhop"], vault, bytes, disk.load(), start=1, now=0)


@cache
def made() -> set[str]:
    """Names that are called anywhere in the core and the daemon: what is made there."""
    names = set()
    for room in PRODUCT:
        for path in (SOURCE / room).rglob("*.py"):
            for found in ast.walk(ast.parse(path.read_text())):
                if isinstance(found, ast.Call):
                    called = found.func
                    names.add(called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""))
    return names


def name(kind: type) -> str:
    return kind.__name__


@pytest.mark.parametrize("kind", get_args(events.Event), ids=name)
def test_a_node_takes_every_event_and_somebody_feeds_it(kind: type) -> None:
    assert kind in node()._dispatch, f"{kind.__name__} is stepped by nobody"
    assert kind.__name__ in made(), f"{kind.__name__} is fed by nobody"


def test_every_record_of_what_can_happen_is_an_event_or_part_of_one() -> None:
    records = {kind for kind in vars(events).values() if isinstance(kind, type) and kind.__module__ == events.__name__}
    fields = " ".join(str(kind.__annotations__) for kind in get_args(events.Event))
    assert {kind.__name__ for kind in records - set(get_args(events.Event)) if kind.__name__ not in fields} == set()


def test_nothing_else_is_dispatched_than_events_and_what_the_parts_wake_themselves_with() -> None:
    others = set(node()._dispatch) - set(get_args(events.Event))
    assert all(kind.__module__ not in (events.__name__, machine.__name__, messages.__name__) for kind in others)


@pytest.mark.parametrize("kind", get_args(messages.TaggedMessage), ids=name)
def test_every_tagged_message_is_handled_and_sent(kind: type) -> None:
    assert kind in node().links.handlers and kind.__name__ in made()


@pytest.mark.parametrize("kind", get_args(messages.PlainMessage), ids=name)
def test_every_plain_message_is_handled_and_sent(kind: type) -> None:
    assert kind is messages.KeepAlive or kind in node().links.plain_handlers
    assert kind.__name__ in made()


def test_no_message_is_handled_that_a_frame_cannot_carry() -> None:
    assert set(node().links.handlers) == set(get_args(messages.TaggedMessage))
    assert set(node().links.plain_handlers) | {messages.KeepAlive} == set(get_args(messages.PlainMessage))


@pytest.mark.parametrize("kind", [*get_args(machine.Save), *get_args(machine.Sending), machine.Deliver], ids=name)
def test_everything_a_node_can_ask_for_is_asked_for(kind: type) -> None:
    assert kind.__name__ in made()
