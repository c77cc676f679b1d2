"""What goes off later in a hosted site ends a link, a pair or a request, and never the process."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from tests.fuzz.sites import message
from tests.unit.core.node.test_hosted import HOSTED, Two
from tests.unit.core.node.test_hosted_relay import RELAYING, Line3

from keyhop.core.composed.nouns.messages import KeyAsked, Kx, LinkRenewed, Moves, Said
from keyhop.core.model import NANOSECONDS, NodeId
from keyhop.core.node import events
from keyhop.core.node.hosted import Hosted
from keyhop.core.node.hosted_messages import Spoken
from keyhop.core.node.ledger import Account
from keyhop.core.policy.synchronisation import Verb
from keyhop.simulator.world import World

ROUNDS = 12
BLOCKS = 8


class Doing(NamedTuple):
    """An event of these tests."""

    call: Callable[[], object]


def inside(world: World, node: str, call: Callable[[], object]) -> None:
    """Does it within a step of that node: what comes of it is saved, sent and told."""
    process = world.processes[NodeId(node)]
    process.node._dispatch[Doing] = lambda event: event.call()
    process.feed(Doing(call))
    world.run(world.now + 1)


def hosted_of(world: World, node: str) -> Hosted:
    found = world.processes[NodeId(node)].node.hosted
    assert isinstance(found, Hosted)
    return found


def codes(world: World, node: str) -> list[str]:
    return [notice.code for notice in world.processes[NodeId(node)].notices]


def throw(world: World, choices: random.Random, at: str, peer: str) -> None:
    """A word that the neighbour does not mean, said by it over the link."""
    site, speaker = hosted_of(world, at).site, hosted_of(world, peer)
    words = sorted(site.links[peer].talk.handlers)
    if words and speaker._greeted_by(at):
        made = SimpleNamespace(sites={at: site})
        forged = message(choices, made, at, peer, choices.choice(words))  # type: ignore[arg-type]
        inside(world, peer, lambda: speaker._say(speaker.context.pairs[at], Spoken(forged)))


def broken(*_: object) -> None:
    raise ZeroDivisionError("what a neighbour has stored here")


def set_timer(world: World, at: str, about: str) -> None:
    """A timer that fails in a second, set while something of this peer was worked."""
    hosted = hosted_of(world, at)

    def work(event: object) -> None:
        hosted.site.later(NANOSECONDS, broken)

    hosted.site._steps[Doing] = work
    inside(world, at, lambda: hosted.step(Doing(broken), about))


@pytest.mark.parametrize("design", HOSTED)
def test_forged_words_and_the_timers_that_they_leave_end_no_process(design: str) -> None:
    choices = random.Random(f"{design} 2")
    two = Two(design)
    for number in range(ROUNDS):
        throw(two.world, choices, *choices.choice(["ab", "ba"]))
        two.block(100 + number)
        two.pass_time(choices.choice([0.2, 2, 6]))
        if number % 3 == 0:
            two.ask(choices.choice("ab"), 256)
    two.pass_time(60)
    for number in range(BLOCKS):
        two.block(200 + number)
    two.pass_time(5)
    # Twice: the first may find out what is left of the forgeries.
    two.ask("a", 256)
    two.pass_time(8)
    for number in range(BLOCKS):
        two.block(300 + number)
    two.pass_time(5)
    given, bits = two.ask("a", 256)
    assert given.refusal is None, given.refusal
    assert two.fetch("b", given.ids[0])[1] == bits


@pytest.mark.parametrize("design", RELAYING)
def test_forged_words_of_one_neighbour_leave_the_other_link_in_use(design: str) -> None:
    choices = random.Random(f"{design} 3")
    line = Line3(design)
    for _ in range(ROUNDS):
        throw(line.world, choices, "b", "a")
        line.feed_links(1)
        line.pass_time(choices.choice([0.2, 2, 6]))
    line.pass_time(10)
    hosted = hosted_of(line.world, "b")
    assert hosted.context.pairs["a"].is_open
    assert hosted.context.pairs["c"].is_open
    assert hosted._greeted_by("c")


def test_a_timer_that_fails_burns_the_stock_of_its_link_and_tells_so() -> None:
    two = Two("nict")
    before, old = two.ask("a", 256)
    run = hosted_of(two.world, "a").context.pairs["b"].own_key
    burnt = run.book.totals[Account.Y]
    set_timer(two.world, "a", "b")
    two.pass_time(1.1)
    assert codes(two.world, "a").count("KH-2304") == 1
    assert run.book.totals[Account.Y] > burnt
    two.pass_time(8)
    for number in range(BLOCKS):
        two.block(100 + number)
    two.pass_time(5)
    assert two.fetch("b", before.ids[0])[0].refusal is not None, "its bits may be burnt at this end"
    given, bits = two.ask("a", 256)
    assert given.refusal is None, given.refusal
    assert two.fetch("b", given.ids[0])[1] == bits != old


def test_a_timer_that_fails_leaves_the_key_of_other_links() -> None:
    line = Line3("nict")
    set_timer(line.world, "b", "a")
    left = hosted_of(line.world, "b").site.links["c"]
    line.pass_time(2)
    assert "KH-2304" in codes(line.world, "b")
    assert hosted_of(line.world, "b").site.links["c"] is left
    assert left.stock_bits > 0


def test_several_timers_of_one_neighbour_that_fail_at_once_are_its_matter_alone() -> None:
    line = Line3("nict")
    for _ in range(3):
        set_timer(line.world, "b", "a")
    left = hosted_of(line.world, "b").site.links["c"]
    line.world.run(line.world.now + 2 * NANOSECONDS)
    assert hosted_of(line.world, "b").context.counters["design_failures"] == 3
    assert hosted_of(line.world, "b").site.links["c"] is left


def test_a_link_that_cannot_begin_anew_lets_all_begin_anew() -> None:
    two = Two("nict")
    site = hosted_of(two.world, "a").site
    site._steps[LinkRenewed] = broken
    set_timer(two.world, "a", "b")
    two.pass_time(10)
    assert hosted_of(two.world, "a").site is not site
    for number in range(BLOCKS):
        two.block(100 + number)
    two.pass_time(5)
    assert two.ask("a", 256)[0].refusal is None


def test_a_timer_of_nobody_lets_all_begin_anew() -> None:
    two = Two("nict")
    site = hosted_of(two.world, "a").site
    set_timer(two.world, "a", "")
    two.pass_time(10)
    for number in range(BLOCKS):
        two.block(100 + number)
    two.pass_time(5)
    assert hosted_of(two.world, "a").site is not site
    given, bits = two.ask("a", 256)
    assert given.refusal is None, given.refusal
    assert two.fetch("b", given.ids[0])[1] == bits


def test_a_request_on_which_the_design_fails_is_refused_and_the_next_one_served() -> None:
    two = Two("nict")
    site = hosted_of(two.world, "a").site
    serve = site._steps[KeyAsked]
    site._steps[KeyAsked] = broken
    given, _ = two.ask("a", 256)
    assert given.refusal is not None
    assert "failed on this request" in given.refusal.message
    site._steps[KeyAsked] = serve
    two.pass_time(5)
    for number in range(BLOCKS):
        two.block(100 + number)
    two.pass_time(5)
    assert two.ask("a", 256)[0].refusal is None


@pytest.mark.parametrize("kx", [Kx("PURGE", Verb.AGREE, counts=(1 << 70,)), Kx("PURGE", Verb.AGREE, to="x" * 70_000)])
def test_what_no_message_can_say_ends_the_link_and_not_the_process(kx: Kx) -> None:
    two = Two("nict")
    hosted = hosted_of(two.world, "a")
    inside(two.world, "a", lambda: hosted._done(Moves(send=[Said("b", kx)])))
    two.pass_time(0.5)
    assert "KH-2304" in codes(two.world, "a")


def test_key_that_this_end_lacks_is_given_to_nobody() -> None:
    """A distant site that says very late that it has a batch: its payload is gone here, the books would have it."""
    line = Line3("nict")
    line.exchange("a")
    hosted = hosted_of(line.world, "a")
    request = line.world.request()

    def ask() -> None:
        hosted._lost.add("c")
        hosted.applications.wanted(events.KeysWanted(request, "sae-a", "sae-c", 1, 256), "c")

    inside(line.world, "a", ask)
    line.pass_time(1)
    refusal = line.answers[request].deliver.refusal
    assert refusal is not None and "began anew" in refusal.message
