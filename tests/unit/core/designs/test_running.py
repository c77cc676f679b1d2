"""A node runs a design whose every part it has wired, and refuses every other by name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from keyhop.core.designs import (
    DESIGNS,
    LocalGlobal,
    NotRunning,
    Running,
    carrier,
    hosted,
    no_relay,
    not_hosted,
    not_wired,
    on_a_node,
    running,
)
from keyhop.core.model import NodeId
from keyhop.core.node.context import NodeSettings
from keyhop.core.node.node import Node
from keyhop.core.node.store import Snapshot
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.disposal import AgePurge, EraseNow
from keyhop.core.policy.division import EncDec, Session, Shared
from keyhop.core.policy.fallback import Wait
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.storage import MultiSizeBlock

KEYHOP = DESIGNS["keyhop"]


def test_our_design_runs_and_a_node_sees_its_very_parts() -> None:
    assert not_wired(KEYHOP) == []
    seen = running(KEYHOP)
    assert all(getattr(seen, field.name) is getattr(KEYHOP, field.name) for field in fields(Running))


@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "keyhop"])
def test_no_other_design_is_followed_by_the_links_themselves(name: str) -> None:
    assert not_wired(DESIGNS[name]) and hosted(DESIGNS[name])
    with pytest.raises(NotRunning, match=f"^{name} is a composition that nodes cannot run yet: not wired are "):
        running(DESIGNS[name])


def test_a_refusal_names_some_of_what_is_missing_and_counts_the_rest() -> None:
    missing = not_wired(DESIGNS["cisco"])
    with pytest.raises(NotRunning) as caught:
        running(DESIGNS["cisco"])
    assert str(caught.value).endswith(f": not wired are {', '.join(missing[:3])} and {len(missing) - 3} more")
    assert "door skip" in missing and "storage fixed_block" in missing


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"relay": HopByHop(payload="random")}, ["relay.payload random"]),
        ({"relay": HopByHop(paths="xor", queued=True)}, ["relay.paths xor", "relay.queued True"]),
        ({"routing": LinkState(directory="a")}, ["routing.directory a"]),
        ({"admission": Reservation()}, ["admission reservation"]),
        ({"fallback": Wait()}, ["fallback wait"]),
        ({"division": (EncDec(), Session())}, ["division session"]),
        ({"disposal": (AgePurge(), EraseNow())}, ["disposal erase_now"]),
        ({"refill": LocalGlobal(KEYHOP.refill, KEYHOP.refill)}, ["refill.local by_demand", "refill.global by_demand"]),
        ({"door": ("etsi014", "skip")}, ["door skip"]),
    ],
)
def test_one_answer_that_is_not_wired_is_enough(change: dict[str, Any], missing: list[str]) -> None:
    changed = replace(KEYHOP, **change)
    assert not_wired(changed) == missing
    with pytest.raises(NotRunning):
        running(changed)


def test_a_parameter_that_node_code_follows_is_free() -> None:
    changed = replace(KEYHOP, relay=HopByHop(max_batch_bytes=1024), disposal=AgePurge(max_age_ns=1))
    assert running(changed).relay.max_batch_bytes == 1024


def test_what_is_refused_as_a_design_is_refused_by_a_node() -> None:
    with pytest.raises(NotRunning, match="is no design: synchronisation = lease without"):
        running(replace(KEYHOP, division=Shared()))


@pytest.mark.parametrize("name", DESIGNS)
def test_other_designs_are_hosted_on_links_that_follow_ours(name: str) -> None:
    design = DESIGNS[name]
    assert not not_hosted(design)
    assert carrier(design) == running(KEYHOP)
    hosts = "hosted, with a controller" if no_relay(design) else "hosted"
    assert on_a_node(design) == ("yes" if name == "keyhop" else hosts)


def test_stores_of_several_sizes_are_hosted_however_they_are_filled() -> None:
    design = replace(DESIGNS["ddka"], storage=MultiSizeBlock(sizes=(128, 256), split="demand"))
    assert not not_hosted(design) and on_a_node(design) == "hosted"


def test_what_is_no_design_is_not_hosted() -> None:
    broken = replace(DESIGNS["ddka"], request=())
    with pytest.raises(NotRunning, match="is no design: priority = response_weight"):
        carrier(broken)
    assert on_a_node(broken) == "no"


def test_a_design_that_lets_in_at_one_controller_relays_where_a_node_is_named_as_that() -> None:
    assert {name for name, design in DESIGNS.items() if no_relay(design)} == {"sdqaas", "sdqaas.mtka"}
    assert "controller" in no_relay(DESIGNS["sdqaas"])
    assert not any(no_relay(design, controller=True) for design in DESIGNS.values())


def test_a_controller_that_knows_no_slots_is_carried_by_no_node() -> None:
    other = replace(DESIGNS["sdqaas"], admission=Reservation(of="rate"))
    assert "no node is" in no_relay(other, controller=True)
    assert on_a_node(other) == "hosted, no relay"


def test_one_key_of_two_paths_is_not_made_on_nodes() -> None:
    joined = replace(DESIGNS["swissquantum"], relay=HopByHop(payload="random", paths="xor"))
    assert "two paths" in no_relay(joined) and not no_relay(DESIGNS["swissquantum"])


def test_a_node_cannot_be_made_of_a_design_it_does_not_run() -> None:
    settings = NodeSettings(node=NodeId("a"), neighbours=(), applications=(), directory={})
    design = replace(DESIGNS["ddka"], request=())
    with pytest.raises(NotRunning, match="ddka is no design: priority = response_weight"):
        Node(settings, design, None, bytes, Snapshot([], [], [], []), start=1, now=0)  # type: ignore[arg-type]
