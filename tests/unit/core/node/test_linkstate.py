"""Which link state is believed, and who is believed about which application."""

from __future__ import annotations

import random
from typing import Any, cast

import msgspec
import pytest
from small_worlds import deliver, run, settings, started

from keyhop.core.designs import DESIGNS
from keyhop.core.messages import EVERYWHERE, BookFlow, LinkState, SignedLinkState, decode_link_state, encode
from keyhop.core.model import NANOSECONDS, AppId, NodeId, PeerError
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.linkstate import (
    AT_ONCE,
    HOLDING_NS,
    LIFETIMES,
    LOOK_NS,
    PACE_NS,
    REFRESH_NS,
    SEQUENCE_LIMIT,
    LinkStateTick,
    rate,
    step,
)
from keyhop.core.node.node import Node
from keyhop.core.node.routes import FOUND_LIMIT
from keyhop.core.node.store import Snapshot
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.identity import PretendIdentity

LIFETIME_NS = LIFETIMES * REFRESH_NS
"""In a small network."""


def node(horizon_hops: int = 0, **directory: str) -> Node:
    settings = NodeSettings(
        node=NodeId("a"),
        horizon_hops=horizon_hops,
        neighbours=(Neighbour(node=NodeId("b"), link=bytes(range(16))),),
        applications=(Application(id=AppId("own"), peers=frozenset({AppId("far")})),),
        directory={AppId(app): NodeId(at) for app, at in directory.items()},
    )
    vault = NodeVault(MemoryStore(), bytes(32), identity=PretendIdentity("a"))
    made = Node(
        settings, DESIGNS["keyhop"], vault, random.Random(1).randbytes, Snapshot([], [], [], []), start=1, now=0
    )
    made.begin()
    return made


def signed(
    name: str, sequence: int, *applications: str, by: str | None = None, hops_left: int = EVERYWHERE
) -> SignedLinkState:
    statement = encode(LinkState(name, sequence, (), applications))
    return SignedLinkState(statement, *PretendIdentity(by or name).sign(statement), hops_left)


def told(made: Node, name: str, sequence: int, *applications: str, by: str | None = None, peer: str = "b") -> None:
    made.states.heard(peer, signed(name, sequence, *applications, by=by))


def codes(made: Node) -> list[str]:
    return [notice.code for notice in made.context.out.notice]


def pass_time(made: Node, duration_ns: int) -> None:
    made.context.now += duration_ns
    made.states.tick(LinkStateTick(made.states.due))


# --- the directory ----------------------------------------------------------------------------------------------------


def test_a_later_claim_does_not_draw_an_application_away() -> None:
    made = node()
    told(made, "c", 1, "far")
    told(made, "thief", 1, "far")
    assert made.supply.directory[AppId("far")] == "c"
    assert codes(made) == ["KH-3102"]


def test_an_application_moves_when_its_node_no_longer_claims_it() -> None:
    made = node()
    told(made, "c", 1, "far")
    told(made, "c", 2)
    told(made, "d", 1, "far")
    assert made.supply.directory[AppId("far")] == "d"


def test_who_cuts_a_node_off_does_not_get_its_applications() -> None:
    made = node()
    told(made, "c", 1, "far")
    pass_time(made, LIFETIME_NS + 1)
    assert "c" not in made.states.known
    told(made, "thief", 1, "far")
    assert made.supply.directory[AppId("far")] == "c" and "KH-3102" in codes(made)


def test_an_application_of_a_node_that_stays_silent_moves_at_last() -> None:
    made = node()
    told(made, "c", 1, "far")
    pass_time(made, HOLDING_NS)
    told(made, "d", 1, "far")
    assert made.supply.directory[AppId("far")] == "d"


def test_each_claim_of_the_holder_prolongs_its_hold() -> None:
    made = node()
    told(made, "c", 1, "far")
    pass_time(made, HOLDING_NS - NANOSECONDS)
    told(made, "c", 2, "far")
    pass_time(made, LIFETIME_NS + NANOSECONDS)
    told(made, "thief", 1, "far")
    assert made.supply.directory[AppId("far")] == "c"


def test_the_operators_word_stands_above_every_claim() -> None:
    made = node(far="c")
    told(made, "d", 1, "far")
    assert made.supply.directory[AppId("far")] == "c"


def test_nobody_else_serves_our_own_application() -> None:
    made = node()
    told(made, "d", 1, "own")
    assert made.supply.directory[AppId("own")] == "a"


# --- sequence numbers -------------------------------------------------------------------------------------------------


def test_an_older_link_state_changes_nothing() -> None:
    made = node()
    told(made, "c", 5, "far")
    told(made, "c", 4, "other")
    assert AppId("other") not in made.supply.directory


def test_of_one_sequence_number_the_first_state_counts() -> None:
    made = node()
    told(made, "c", 5, "far")
    told(made, "c", 5, "other")
    assert made.states.known["c"].state.applications == ("far",)


def test_an_old_state_of_a_node_that_fell_silent_does_not_bring_it_back() -> None:
    made = node()
    old, last = signed("c", 5, "far"), signed("c", 6, "far")
    made.states.heard("b", old)
    made.states.heard("b", last)
    pass_time(made, LIFETIME_NS + 1)
    for replayed in (old, last):
        made.states.heard("b", replayed)
        assert "c" not in made.states.known
    told(made, "c", 7, "far")
    assert "c" in made.states.known and "c" not in made.states.forgotten


def test_a_node_whose_numbers_fell_back_is_shown_its_own() -> None:
    made = node()
    newer = signed("b", 9 << 32)
    made.states.heard("b", newer)
    made.states.heard("b", signed("b", 1 << 32))
    assert made.context.plain_outbox["b"] == [newer]


def test_a_neighbour_is_not_answered_about_others() -> None:
    made = node()
    told(made, "c", 9)
    told(made, "c", 8)
    assert "b" not in made.context.plain_outbox


def test_a_node_that_hears_itself_of_an_earlier_life_goes_on_above_it() -> None:
    made = node()
    pass_time(made, 0)
    told(made, "a", 7 << 32)
    pass_time(made, NANOSECONDS)
    assert made.states.own().sequence == (7 << 32) + 1


@pytest.mark.parametrize("by", ["thief", "b"])
def test_nobody_else_can_move_our_own_numbers(by: str) -> None:
    made = node()
    pass_time(made, 0)
    told(made, "a", SEQUENCE_LIMIT - 1, by=by)
    pass_time(made, NANOSECONDS)
    assert made.states.own().sequence == 1 << 32 and codes(made) == ["KH-3103"]


def test_the_last_number_there_is_cannot_be_gone_above_and_is_left_alone() -> None:
    made = node()
    pass_time(made, 0)
    told(made, "a", SEQUENCE_LIMIT)
    pass_time(made, NANOSECONDS)
    assert made.states.own().sequence == 1 << 32


# --- signatures -------------------------------------------------------------------------------------------------------


def test_a_node_signs_what_it_tells() -> None:
    made = node()
    told_by_us: list[SignedLinkState] = []
    made.states._flood = lambda message, but: told_by_us.append(message)  # type: ignore[method-assign]
    pass_time(made, NANOSECONDS)
    (message,) = told_by_us
    assert decode_link_state(message.statement).node == "a"
    assert not PretendIdentity("b").doubt("a", message.statement, message.certificate, message.signature)


FORGERIES = {
    "unsigned": lambda message: msgspec.structs.replace(message, certificate=b"", signature=b""),
    "without a signature": lambda message: msgspec.structs.replace(message, signature=b""),
    "with another signature": lambda message: msgspec.structs.replace(message, signature=bytes(32)),
    "signed by another": lambda message: signed("c", SEQUENCE_LIMIT, "far", by="thief"),
    "changed on the way": lambda message: msgspec.structs.replace(
        message, statement=encode(LinkState("c", SEQUENCE_LIMIT, (), ("far", "own-of-the-thief")))
    ),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forged_link_state_is_dropped_reported_and_handed_to_nobody(how: str) -> None:
    made = node()
    made.states.heard("b", FORGERIES[how](signed("c", SEQUENCE_LIMIT, "far")))
    assert "c" not in made.states.known and AppId("far") not in made.supply.directory
    assert not made.context.plain_outbox
    (notice,) = made.context.out.notice
    assert notice.code == "KH-3103" and "link state of c, brought by b, is dropped: " in notice.text


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forged_link_state_with_a_huge_number_does_not_lock_its_node_out(how: str) -> None:
    made = node()
    told(made, "c", 1)
    made.states.heard("b", FORGERIES[how](signed("c", SEQUENCE_LIMIT, "far")))
    told(made, "c", 2, "far")
    assert made.states.known["c"].state.sequence == 2 and made.supply.directory[AppId("far")] == "c"


def test_a_forger_is_reported_once_and_counted_each_time() -> None:
    made = node()
    for sequence in range(1, 9):
        told(made, "c", sequence, by="thief")
    assert codes(made) == ["KH-3103"] and made.context.counters["link_states_doubted"] == 8


def test_an_old_link_state_is_not_even_checked() -> None:
    made = node()
    told(made, "c", 5)
    told(made, "c", 5, by="thief")
    assert "link_states_doubted" not in made.context.counters


def test_a_node_without_an_authority_believes_nobody() -> None:
    made = node()
    made.context.vault.identity = None  # type: ignore[attr-defined]
    told(made, "c", 1, "far")
    assert "c" not in made.states.known and codes(made) == ["KH-3103"]


def test_a_statement_that_is_no_link_state_is_a_breach() -> None:
    made = node()
    for statement in (b"", b"\xc1", encode(LinkState("", 1, (), ()))):
        with pytest.raises(PeerError):
            made.states.heard("b", SignedLinkState(statement, *PretendIdentity("b").sign(statement), EVERYWHERE))


def test_stock_is_told_in_steps_so_that_small_changes_say_nothing() -> None:
    assert step(1023) == 0 and step(1024) == 1024
    assert step(40_000) == step(40_900) <= 40_000


# --- how much is told -------------------------------------------------------------------------------------------------


def statements(made: Node) -> int:
    """How often it has told of itself: each telling has a number of its own."""
    return made.states._sequence


def test_a_stock_that_is_drawn_on_and_filled_by_turns_is_quiet() -> None:
    told_bytes, tellings = 0, 0
    for usable in [100_000, 131_072, 100_000, 140_000, 66_000, 131_072] * 10:
        if step(usable, told_bytes) != told_bytes:
            told_bytes, tellings = step(usable, told_bytes), tellings + 1
    assert tellings == 1 and told_bytes == 65_536


def test_what_falls_is_told_at_once_and_never_more_than_there_is() -> None:
    for usable in range(0, 1 << 23, 997):
        for told_bytes in (0, 1024, 1 << 14, 1 << 16, 1 << 20, 1 << 22):
            assert step(usable, told_bytes) <= usable
            assert step(usable, told_bytes) > usable // 4 - 1024 or step(usable, told_bytes) == 4 << 20


def test_above_what_matters_to_a_route_nothing_more_is_told() -> None:
    assert step(5 << 20, 2 << 20) == step(1 << 33, 4 << 20) == 4 << 20


@pytest.mark.parametrize(("rate_bps", "expected"), [(1000, 1000), (1100, 1000), (1249, 1000), (1250, 1250), (0, 0)])
def test_a_rate_is_told_anew_when_it_has_changed_by_a_quarter(rate_bps: int, expected: int) -> None:
    assert rate(rate_bps, 1000) == expected


def test_the_larger_the_network_the_rarer_a_node_speaks_of_amounts() -> None:
    def tellings(others: int) -> int:
        made = node()
        for number in range(others):
            told(made, f"n{number}", 1)
        stock = [0]
        made.states.own_link = lambda pair: (stock[0], 1000)
        made.states.tell(refresh=True)
        before = statements(made)
        for second in range(200):
            stock[0] = 1024 * (second % 2 + 1)
            pass_time(made, NANOSECONDS)
        return statements(made) - before

    alone, few, many = tellings(1), tellings(50), tellings(400)
    assert alone >= 190 and 30 <= few <= 60 and many <= 8


def test_a_link_that_goes_down_is_told_at_once_however_large_the_network() -> None:
    made = node()
    for number in range(400):
        told(made, f"n{number}", 1)
    pair = made.context.pairs[NodeId("b")]
    pass_time(made, NANOSECONDS)
    before = statements(made)
    pair.current = None
    made.states.tell()
    quiet = statements(made)
    assert quiet == before
    pair.suspended = "dark"
    made.states.own_link = lambda pair: (7 * 1024, 1000)
    made.states._told = msgspec.structs.replace(made.states._told, links=(("b", 0, 0, True),))
    made.states.tell()
    assert statements(made) == before + 1


def test_the_first_key_of_a_link_is_told_at_once_and_once() -> None:
    world = started([settings("a", "b"), settings("b", "ac"), settings("c", "b")])
    nodes = {name: world.processes[NodeId(name)].node for name in "abc"}
    for number in range(400):
        # In a large network a node seldom speaks of amounts.
        told(nodes["c"], f"n{number}", 1, peer="b")
    run(world, 60)

    def told_stock() -> int:
        ((_, stock, _, _),) = nodes["a"].states.known["c"].state.links
        return stock

    assert told_stock() == 0
    heard = []
    for number in range(4):
        deliver(world, "b", "c", number, 24 * 1024)
        run(world, 0.3)
        heard.append(told_stock())
    first, *later = heard
    assert first >= 4096 and set(later) == {first}


def test_a_silent_node_is_remembered_for_three_refreshes_of_a_network_of_this_size() -> None:
    made = node()
    for number in range(100):
        told(made, f"n{number}", 1)
    pass_time(made, LIFETIMES * 1499 * NANOSECONDS)
    assert "n0" in made.states.known
    pass_time(made, 10 * NANOSECONDS)
    assert "n0" in made.states.known
    pass_time(made, 30 * NANOSECONDS)
    assert "n0" not in made.states.known


def looks(made: Node, seconds: int) -> int:
    """How often it looks whether it has anything to tell."""
    planned = set()
    for _ in range(10 * seconds):
        planned.add(made.states.due)
        made.context.now += NANOSECONDS // 10
        if made.states.due <= made.context.now:
            made.states.tick(LinkStateTick(made.states.due))
    return len(planned)


def test_who_has_nothing_to_tell_looks_more_seldom_and_at_its_pace_again_when_there_is_something() -> None:
    made = node()
    made.states.watch()
    looks(made, 10)
    assert looks(made, 8) <= 6
    stock = [0]
    made.states.own_link = lambda pair: (stock[0], 1000)
    stock[0] = 1024
    told_before = statements(made)
    while statements(made) == told_before:
        made.context.now = made.states.due
        made.states.tick(LinkStateTick(made.states.due))
    assert made.states.due == made.context.now + LOOK_NS


def test_a_look_that_was_planned_anew_is_not_taken_twice() -> None:
    made = node()
    made.states.watch()
    first = made.states.due
    made.context.now = first
    made.states.tick(LinkStateTick(first))
    planned = made.states.due
    made.states.tick(LinkStateTick(first))
    assert made.states.due == planned > first


def test_a_word_that_is_held_is_heard_soon_also_where_looks_are_rare() -> None:
    made = node()
    made.states.watch()
    for number in range(20):
        told(made, f"n{number}", 1)
    looks(made, 100)
    assert made.states.due > made.context.now + 4 * NANOSECONDS
    for sequence in range(2, AT_ONCE + 3):
        told(made, "n0", sequence)
    assert made.states.due <= made.context.now + 2 * NANOSECONDS


# --- names that a neighbour has invented ------------------------------------------------------------------------------


def test_routes_to_invented_destinations_fill_no_memory() -> None:
    made = node()
    for number in range(2 * FOUND_LIMIT + 7):
        assert made.routes.next_hop(f"ghost{number}") is None
        assert made.routes.route(f"ghost{number}", 1) is None
    assert len(made.routes._hops) <= FOUND_LIMIT and len(made.routes._routes) <= FOUND_LIMIT


class CountedSearches:
    """The policy of routes, and for whom it has searched."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.towards: list[str] = []

    def search(self, leaving: Any, start: str, destination: str, *more: Any) -> Any:
        self.towards.append(destination)
        return self.policy.search(leaving, start, destination, *more)


def test_for_a_name_that_no_link_state_has_the_network_is_not_searched() -> None:
    made = node()
    told(made, "c", 1)
    counted = CountedSearches(made.routes.policy)
    made.routes.policy = cast(Any, counted)
    for number in range(50):
        assert made.routes.next_hop(f"ghost{number}") is None
    assert counted.towards == []
    assert made.routes.next_hop("c") is None and counted.towards == ["c"]


def test_flows_towards_invented_nodes_are_refused_and_counted_under_no_name() -> None:
    made = node()
    for number in range(10):
        made.flows.book("b", BookFlow(number, ("b", "a", f"ghost{number}"), 1000, 256, 1000))
    assert made.flows.refused == {} and made.flows.flows == {}
    assert made.context.counters["flows_refused"] == 10


# --- how often a node is heard ----------------------------------------------------------------------------------------


def test_a_node_that_speaks_without_end_is_heard_at_its_pace_and_its_last_word_is_not_lost() -> None:
    made = node()
    for sequence in range(1, 101):
        told(made, "c", sequence, f"app-{sequence}")
    assert made.states.known["c"].state.sequence == AT_ONCE
    assert made.context.counters["link_states_held"] == 100 - AT_ONCE
    pass_time(made, PACE_NS)
    assert made.states.known["c"].state.applications == ("app-100",)
    told(made, "c", 101)
    assert made.states.known["c"].state.sequence == 100
    pass_time(made, PACE_NS)
    assert made.states.known["c"].state.sequence == 101


def test_who_keeps_the_pace_is_always_heard_at_once() -> None:
    made = node()
    for sequence in range(1, 100):
        told(made, "c", sequence)
        assert made.states.known["c"].state.sequence == sequence
        made.context.now += PACE_NS


def test_a_forged_word_takes_no_turn_of_the_node_it_speaks_of() -> None:
    made = node()
    for sequence in range(1, AT_ONCE + 3):
        told(made, "c", sequence)
    told(made, "c", 1 << 40, by="thief")
    pass_time(made, PACE_NS)
    assert made.states.known["c"].state.sequence == AT_ONCE + 2


def test_an_older_word_does_not_replace_the_one_that_is_held() -> None:
    made = node()
    for sequence in (*range(1, AT_ONCE + 1), AT_ONCE + 2, AT_ONCE + 1):
        told(made, "c", sequence)
    pass_time(made, PACE_NS)
    assert made.states.known["c"].state.sequence == AT_ONCE + 2
