"""Reservation along a path, the order of known requests, lending."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.admission import AdmitAll, Link, Reservation, Service

AB, BC = ("A", "B"), ("B", "C")
R1, R2, R3, R4 = (
    Service("r1", 3, ((AB, BC),)),
    Service("r2", 2, ((AB,),)),
    Service("r3", 1, ((BC,),)),
    Service("r4", 1, ((AB,),)),
)
FOUR_SLOTS = {AB: 4, BC: 4}


def test_without_reservation_everybody_is_let_in() -> None:
    assert AdmitAll().offer(1000, [0, 0]).admitted


def test_at_secoqc_5_a_rate_is_admitted_if_every_hop_relays_it() -> None:
    rate = Reservation(of="rate")
    assert not rate.offer(6000, [10_000, 4000]).admitted
    assert rate.offer(4000, [10_000, 4000]).admitted


def test_at_qos_2_a_second_flow_is_refused_with_what_it_could_have() -> None:
    offer = Reservation().offer(300, [1000, 256])
    assert not offer.admitted and offer.counter_offer == 256


def test_a_path_of_no_links_promises_nothing() -> None:
    assert not Reservation().offer(1, []).admitted


def test_at_sdqaas_1_orders_differ_in_what_they_use() -> None:
    slots = Reservation(of="slots", order="mtka")
    arrival = slots.admit([R1, R2, R3, R4], FOUR_SLOTS)
    assert set(arrival.paths) == {"r1", "r3", "r4"}
    assert (arrival.success, arrival.use, arrival.degree) == (Fraction(3, 4), Fraction(1), Fraction(7, 8))
    ascending = slots.admit([R3, R4, R2, R1], FOUR_SLOTS)
    assert (ascending.success, ascending.use, ascending.degree) == (Fraction(3, 4), Fraction(1, 2), Fraction(5, 8))


def test_at_sdqaas_1_the_best_order_of_all_is_found() -> None:
    slots = Reservation(of="slots", order="mtka")
    assert slots.match([R1, R2, R3, R4], FOUR_SLOTS, exhaustive=True).degree == Fraction(7, 8)
    assert slots.match([R1, R2, R3, R4], FOUR_SLOTS).degree == Fraction(7, 8)


def test_a_shuffle_may_beat_the_sorted_orders() -> None:
    slots = Reservation(of="slots", order="mtka")
    services = [Service(f"s{n}", amount, ((AB,),)) for n, amount in enumerate((3, 6, 5, 5))]
    sorted_only, shuffled = slots.match(services, {AB: 10}), slots.match(services, {AB: 10}, shuffles=[(2, 3, 0, 1)])
    assert sorted_only.use == Fraction(9, 10)
    assert shuffled == slots.match(services, {AB: 10}, exhaustive=True) and shuffled.use == 1


def test_too_many_services_are_not_tried_in_every_order() -> None:
    with pytest.raises(ValueError, match="9 services: every order is tried for up to 8"):
        Reservation().match([R1] * 9, FOUR_SLOTS, exhaustive=True)


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([(AB,), (BC,), (AB, BC)])), max_size=6))
def test_no_order_beats_all_of_them(wanted: list[tuple[int, tuple[Link, ...]]]) -> None:
    services = [Service(f"s{n}", amount, (path,)) for n, (amount, path) in enumerate(wanted)]
    slots = Reservation(of="slots", order="mtka")
    few = slots.match(services, FOUR_SLOTS)
    assert few.degree <= slots.match(services, FOUR_SLOTS, exhaustive=True).degree
    for link, total in FOUR_SLOTS.items():
        assert sum(s.amount for s in services if link in few.paths.get(s.name, ())) <= total


def test_a_second_path_is_tried_when_the_first_is_full() -> None:
    detour = Service("r", 2, ((AB,), (BC,)))
    assert Reservation().choose(detour, {AB: 1, BC: 2}) == (BC,)
    assert Reservation().choose(detour, {AB: 1, BC: 1}) is None


def test_at_sdqaas_2_a_deleted_service_makes_room_and_a_modified_one_keeps_what_it_has() -> None:
    slots = Reservation(of="slots")
    assert slots.offer(2, [4 - 1]).admitted
    assert slots.modify(4, held=2, free=[4 - 1 - 2]) == 2
    assert slots.modify(3, held=2, free=[4 - 1 - 2]) == 3


def test_at_sdqaas_3_the_services_a_weaker_link_no_longer_carries_are_named() -> None:
    assert Reservation(of="slots").broken([("r1", 3), ("r4", 1)], total=4) == []
    assert Reservation(of="slots").broken([("r1", 3), ("r4", 1)], total=2) == ["r1"]


def test_a_rate_takes_whole_slots() -> None:
    assert [Reservation(of="slots").slots(rate) for rate in (1, 1000, 1001)] == [1, 1, 2]


def test_reservations_leave_best_effort_its_floor() -> None:
    assert Reservation(max_share=0.8).free(1000, reserved=700) == 100
    assert Reservation(max_share=0.8).free(1000, reserved=900) == 0


def test_what_is_idle_is_lent_and_given_back_at_once() -> None:
    ours, strict = Reservation(lend=True), Reservation()
    assert ours.others_may_use(1000, reserved=600) == 1000
    assert ours.others_may_use(1000, reserved=600, wanted_by_holders=500) == 500
    assert ours.others_may_use(1000, reserved=600, wanted_by_holders=900) == 400
    assert strict.others_may_use(1000, reserved=600) == 400


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reservation\.max_share = 0"):
        Reservation(max_share=0)


def test_eight_services_are_tried_in_every_order() -> None:
    services = [Service(f"s{n}", 1, ((AB,),)) for n in range(8)]
    assert Reservation().match(services, {AB: 4}, exhaustive=True).success == Fraction(1, 2)


def test_a_slot_may_be_a_bit_per_second() -> None:
    assert Reservation(of="slots", slot_bps=1).slots(7) == 7
    with pytest.raises(ValueError, match="slot_bps = 0"):
        Reservation(slot_bps=0)
