"""The controller's part that a node carries: what it grants, whom it believes, and what is left when it begins anew."""

from __future__ import annotations

import pytest
from tests.unit.core.node.test_hosted_containment import hosted_of, inside
from tests.unit.core.node.test_hosted_relay import RATE_BPS, Line3

from keyhop.core.composed.network import Network
from keyhop.core.composed.relay.services import SERVICES_OF_A_SOURCE
from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS, PeerError
from keyhop.core.node.hosted_controller import Agent, Office, slots_of
from keyhop.core.node.hosted_messages import Allowed, Wanted

SLOTS = int(RATE_BPS * 0.9) // 1000
"""Of each link."""


class Told(list[tuple[str, Allowed]]):
    """What the controller has said, and to whom."""

    def say(self, source: str, allowed: Allowed) -> None:
        self.append((source, allowed))


def office(design: str = "sdqaas", *links: str) -> tuple[Office, Told]:
    network = Network({frozenset(link): RATE_BPS for link in links or ("ab", "bc")})
    slots, told = slots_of(DESIGNS[design]), Told()
    assert slots is not None
    return Office(*slots, network, told.say), told


def agent() -> tuple[Agent, list[Wanted]]:
    slots, asked = slots_of(DESIGNS["sdqaas"]), list[Wanted]()
    assert slots is not None
    return Agent(*slots, "a", asked.append), asked


def test_a_service_gets_slots_on_a_path_and_no_more_than_there_are() -> None:
    made, told = office()
    made.heard("a", Wanted("a>c", "c", SLOTS - 1, 1))
    made.heard("c", Wanted("c>a", "a", 2, 1))
    made.look(0)
    assert told == [("a", Allowed("a>c", 1, SLOTS - 1, ("a", "b", "c"))), ("c", Allowed("c>a", 1, 0, ()))]


def test_slots_that_are_given_back_go_to_who_asks_next() -> None:
    made, told = office()
    made.heard("a", Wanted("a>c", "c", SLOTS, 1))
    made.look(0)
    made.heard("a", Wanted("a>c", "c", 0, 2))
    made.heard("c", Wanted("c>a", "a", SLOTS, 1))
    made.look(1)
    assert told[-1] == ("c", Allowed("c>a", 1, SLOTS, ("c", "b", "a")))


def test_a_service_that_asks_for_more_than_there_is_keeps_what_it_had() -> None:
    made, told = office()
    made.heard("a", Wanted("a>c", "c", 3, 1))
    made.look(0)
    made.heard("a", Wanted("a>c", "c", SLOTS + 1, 2))
    made.look(1)
    assert told[-1] == ("a", Allowed("a>c", 2, 3, ("a", "b", "c")))


def test_a_service_waits_while_the_controller_knows_no_way_for_it() -> None:
    made, told = office("sdqaas", "ab")
    made.heard("a", Wanted("a>c", "c", 1, 1))
    made.look(0)
    assert not told
    made._network.learn("b", "c", 0)
    made.look(1)
    assert not told, "nobody has told yet what the link makes"
    made._network.learn("b", "c", RATE_BPS)
    made.look(2)
    assert told == [("a", Allowed("a>c", 1, 1, ("a", "b", "c")))]


def test_services_are_matched_together_where_the_design_says_so() -> None:
    made, told = office("sdqaas.mtka")
    made.heard("a", Wanted("a>c", "c", 1, 1))
    made.look(0)
    made.heard("c", Wanted("c>a", "a", 1, 1))
    made.look(NANOSECONDS // 2)
    assert not told
    made.look(NANOSECONDS)
    assert {source for source, allowed in told if allowed.path} == {"a", "c"}


@pytest.mark.parametrize("said", [Wanted("a>c", "a", 1, 7), Wanted("c>b", "c", 1, 7)])
def test_nobody_may_change_the_service_of_another_or_want_one_to_itself(said: Wanted) -> None:
    made, told = office()
    made.heard("a", Wanted("a>c", "c", 1, 1))
    made.look(0)
    with pytest.raises(PeerError):
        made.heard("c", said)
    made.look(1)
    assert len(told) == 1 and made.services["a>c"].slots == 1


def test_a_node_that_began_anew_holds_no_slots_any_more() -> None:
    made, _ = office()
    made.heard("a", Wanted("a>c", "c", SLOTS, 1))
    made.look(0)
    made.parted("a")
    assert not made.services
    assert made.free(("a", "b")) == SLOTS


def test_one_source_cannot_fill_the_book_with_services_that_are_refused() -> None:
    made, told = office()
    for number in range(SERVICES_OF_A_SOURCE):
        made.heard("a", Wanted(f"a>c {number}", "c", SLOTS + 1, 1))
    made.look(0)
    assert not any(allowed.path for _, allowed in told)
    with pytest.raises(PeerError, match=f"{SERVICES_OF_A_SOURCE} services of a"):
        made.heard("a", Wanted("a>c again", "c", 1, 1))
    made.heard("a", Wanted("a>c 0", "c", SLOTS + 2, 2))
    made.heard("c", Wanted("c>a", "a", 1, 1))
    made.look(1)
    assert told[-1] == ("c", Allowed("c>a", 1, 1, ("c", "b", "a")))
    assert ("a", Allowed("a>c 0", 2, 0, ())) in told
    # What it gives up makes room, once: a second time there is nothing to give up.
    for _ in range(2):
        made.heard("a", Wanted("a>c 1", "c", 0, 3))
    made.heard("a", Wanted("a>c again", "c", 1, 1))
    with pytest.raises(PeerError):
        made.heard("a", Wanted("a>c more", "c", 1, 1))


def test_a_source_that_began_anew_may_have_as_many_again() -> None:
    made, _ = office()
    for life in range(2):
        for number in range(SERVICES_OF_A_SOURCE):
            made.heard("a", Wanted(f"{life}>c {number}", "c", SLOTS + 1, 1))
        made.parted("a")
    assert not made._sources and not made._names_of


def test_an_agent_believes_no_answer_to_what_it_does_not_want_any_more() -> None:
    made, asked = agent()
    made.create("a>c", "a", "c", 2)
    made.modify("a>c", 5)
    first, second = asked
    made.heard(Allowed("a>c", first.number, 2, ("a", "b", "c")))
    assert not made.services
    made.heard(Allowed("a>c", second.number, 5, ("a", "b", "c")))
    assert made.services["a>c"].slots == 5
    made.delete("a>c")
    made.heard(Allowed("a>c", second.number, 5, ("a", "b", "c")))
    assert not made.services and asked[-1].slots == 0


@pytest.mark.parametrize("path", [("b", "c"), ("a", "b"), ("a", "b", "a", "c"), ("a",)])
def test_a_path_that_does_not_lead_there_is_an_error_of_the_controller(path: tuple[str, ...]) -> None:
    made, asked = agent()
    made.create("a>c", "a", "c", 2)
    with pytest.raises(PeerError):
        made.heard(Allowed("a>c", asked[0].number, 2, path))
    assert not made.services


def test_what_a_controller_says_is_believed_of_the_one_that_is_named_alone() -> None:
    line = Line3("sdqaas", controller="b")
    line.exchange("a")
    at_a = hosted_of(line.world, "a")
    services = dict(at_a.control.agent.services) if at_a.control.agent else {}
    assert services
    said = Allowed("sae-a>sae-c", 1, 9, ("a", "b", "c"))
    with pytest.raises(PeerError):
        at_a.control.told("c", said, distant=True)
    with pytest.raises(PeerError):
        at_a.control.told("b", Wanted("sae-b>sae-a", "a", 1, 1), distant=True)
    with pytest.raises(PeerError):
        hosted_of(line.world, "b").control.told("a", Wanted("sae-a>sae-c", "c", 1, 9), distant=False)
    assert at_a.control.agent is not None and at_a.control.agent.services == services


def test_a_controller_that_fails_lets_its_node_begin_anew_and_goes_on() -> None:
    line = Line3("sdqaas", controller="b")
    line.exchange("a")
    at_b = hosted_of(line.world, "b")
    before = at_b.control.office
    assert before is not None

    def fail(now: int) -> None:
        raise ZeroDivisionError

    before.look = fail  # type: ignore[method-assign]
    inside(line.world, "b", at_b.control.look)
    line.pass_time(10)
    assert at_b.control.office is not before
    line.feed_links(5)
    line.exchange("a", tries=6)
