"""The controller of services: what it keeps count of, whom it lets change what, and where it ends."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from keyhop.core.composed.relay.services import ORDERS_KEPT, SERVICES_OF_A_SOURCE, TAG_SHARE, Controller
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.routing import Sdn

SLOTS = 4


def controller(design: str = "sdqaas", slots: int = SLOTS) -> Controller:
    admission, routing = DESIGNS[design].admission, DESIGNS[design].routing
    assert isinstance(admission, Reservation) and isinstance(routing, Sdn)
    rate = int(slots * admission.slot_bps / (1 - TAG_SHARE)) + 1
    return Controller(admission, routing, {frozenset(link): rate for link in ("AB", "BC", "AC")})


def recount(made: Controller) -> dict[tuple[str, str], int]:
    """The slow twin: every service looked at, for every link."""
    return {link: SLOTS - sum(slots for _, slots in made.carried(link)) for link in made.totals}


@pytest.mark.parametrize("design", ["sdqaas", "sdqaas.mtka"])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_free_is_what_no_service_has(design: str, seed: int) -> None:
    made, chance = controller(design), random.Random(seed)
    for step in range(200):
        name = chance.choice("stuvw")
        match chance.randrange(4):
            case 0:
                made.modify(name, chance.randint(1, 4))
            case 1:
                made.delete(name)
            case _:
                made.create(name, *chance.sample("ABC", 2), chance.randint(1, 3), now=step)
        if chance.random() < 0.3:
            made.settle(1 << 62)
        assert {link: made.free(link) for link in made.totals} == recount(made)
        known = [granted.source for granted in made.services.values()]
        known += [source for source, _, _ in made._waiting.values()]
        assert +made._of_source == Counter(known)


@pytest.mark.parametrize("design", ["sdqaas", "sdqaas.mtka"])
def test_a_source_has_so_many_services_and_no_more_and_keeps_no_other_source_out(design: str) -> None:
    made = controller(design)
    for number in range(SERVICES_OF_A_SOURCE):
        assert made.create(f"s{number}", "A", "B", 0) is not False
    assert made.create("one more", "A", "B", 0) is False
    assert made.create("other", "B", "A", 1) is not False
    made.delete("s7")
    assert made.create("one more", "A", "B", 0) is not False
    assert made.create("and another", "A", "B", 0) is False


def test_services_that_were_refused_count_for_nothing() -> None:
    made = controller()
    for number in range(SERVICES_OF_A_SOURCE + 1):
        assert made.create(f"s{number}", "A", "B", 100) is False
    assert made.create("small", "A", "B", 1) is True


def test_services_that_were_matched_and_not_admitted_count_for_nothing() -> None:
    made = controller("sdqaas.mtka")
    for number in range(50):
        made.create(f"s{number}", "A", "B", 100)
    made.settle(1 << 62)
    assert made.services == {} and not +made._of_source


@pytest.mark.parametrize("design", ["sdqaas", "sdqaas.mtka"])
def test_no_source_takes_over_the_service_of_another(design: str) -> None:
    made = controller(design)
    made.create("s", "A", "B", 3)
    assert made.create("s", "C", "B", 1) is False
    made.settle(1 << 62)
    assert (made.services["s"].source, made.services["s"].slots) == ("A", 3)
    assert made.create("s", "C", "B", 1) is False


def test_a_service_that_is_asked_for_again_gives_back_what_it_had() -> None:
    made = controller()
    made.create("s", "A", "B", 3)
    made.create("s", "A", "B", 1)
    assert made.free(("A", "B")) == SLOTS - 1
    made.delete("s")
    assert made.free(("A", "B")) == SLOTS


def test_of_what_agents_were_told_the_last_is_kept() -> None:
    made = controller()
    for number in range(ORDERS_KEPT // 2 + 10):
        made.create(f"s{number}", "A", "B", 1)
        made.delete(f"s{number}")
    assert len(made.orders) == ORDERS_KEPT
    assert made.orders[-1].service == f"s{ORDERS_KEPT // 2 + 9}"
