"""What a neighbour may not say of applications and keys of another design."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from tests.unit.core.node.test_hosted import Two

from keyhop.core.composed.nouns.messages import Name
from keyhop.core.messages import DesignMessage
from keyhop.core.model import NANOSECONDS, NodeId, PeerError
from keyhop.core.node.hosted import Hosted
from keyhop.core.node.hosted_messages import Closed, Greeting, Message, Named, Opened, Retuned, check_name, encode
from keyhop.core.node.ledger import Account

GOOD = Name(False, "a>b", ((0, 4),), 256, 256, unit_bits=64)


def changed(**changes: Any) -> Name:
    return msgspec.structs.replace(GOOD, **changes)


def test_a_key_that_can_be_is_taken() -> None:
    check_name(GOOD)
    check_name(changed(derived_bits=1024, size_bits=1024))


@pytest.mark.parametrize(
    "bad",
    [
        changed(ranges=()),
        changed(ranges=((4, 0),)),
        changed(ranges=((0, 4), (2, 6))),
        changed(ranges=((0, 4), (0, 4))),
        changed(ranges=((-4, 0),)),
        changed(ranges=((0, 1 << 60),)),
        changed(size_bits=-256),
        changed(size_bits=512),
        changed(taken_bits=1 << 40),
        changed(unit_bits=0),
        changed(keys=10**11),
        changed(derived_bits=-1),
        changed(ranges=(), derived_bits=256),
    ],
)
def test_a_key_without_bits_or_with_some_twice_is_refused(bad: Name) -> None:
    with pytest.raises(PeerError):
        check_name(bad)


@pytest.fixture
def two() -> Two:
    return Two("nict", blocks=2)


def says(two: Two, message: Message) -> None:
    """Node b says it to node a."""
    node = two.world.processes[NodeId("a")].node
    assert isinstance(node.hosted, Hosted)
    node.hosted.heard(node.context.pairs["b"], DesignMessage(encode(message)))


@pytest.mark.parametrize(
    "message",
    [
        Opened("sae-stranger>sae-nobody", 1000, 256, "best_effort", 3),
        Opened("sae-a>sae-a", 1000, 256, "best_effort", 3),
        Retuned("sae-b>sae-nobody", 5),
        Closed("sae-b>sae-nobody"),
        Named("id", "sae-b>sae-a", changed(ranges=())),
        Named("id", "sae-a>sae-a", GOOD),
        Greeting("nict", b"12345678", ()),
    ],
)
def test_what_is_not_the_neighbours_to_say_ends_the_link_and_no_more(two: Two, message: Message) -> None:
    with pytest.raises(PeerError):
        says(two, message)


@pytest.mark.parametrize(("rate", "category"), [(-5, 3), (10**30, 3), (1000, -9), (1000, 10**9)])
def test_a_rate_or_a_category_that_cannot_be_is_refused(two: Two, rate: int, category: int) -> None:
    if abs(rate) >= 1 << 63:
        with pytest.raises((OverflowError, msgspec.MsgspecError)):
            encode(Opened("sae-b>sae-a", rate, 256, "best_effort", category))
        return
    with pytest.raises(PeerError):
        says(two, Opened("sae-b>sae-a", rate, 256, "best_effort", category))


def test_a_key_id_is_named_once(two: Two) -> None:
    given, _ = two.ask("b", 256)
    with pytest.raises(PeerError):
        says(two, Named(given.ids[0], "sae-b>sae-a", GOOD))


@pytest.mark.parametrize("design", ["nict", "nist", "cisco", "kisti"])
def test_a_key_that_nobody_fetches_in_time_is_destroyed_at_the_slaves_end(design: str) -> None:
    two = Two(design)
    given, old = two.ask("a", 256)
    other, _ = two.ask("a", 256)
    node = two.world.processes[NodeId("b")].node
    hosted = node.hosted
    assert isinstance(hosted, Hosted)
    assert set(hosted.applications.named) == {given.ids[0], other.ids[0]}
    run = node.context.pairs["a"].their_key
    expired = run.book.totals[Account.X]
    node.context.settings = dataclasses.replace(node.context.settings, fetch_lifetime_ns=20 * NANOSECONDS)
    two.pass_time(30)
    assert not hosted.applications.named
    assert two.fetch("b", given.ids[0])[0].refusal is not None
    assert run.book.totals[Account.X] > expired
    fresh, bits = two.ask("a", 256)
    assert two.fetch("b", fresh.ids[0])[1] == bits != old
