"""How much relay carries at once, leases ahead, and how it cuts what it carried."""

from __future__ import annotations

import pytest

from keyhop.core.policy.relay import Held, HopByHop

RELAY = HopByHop()


def test_a_batch_is_less_than_what_a_hop_lets_one_source_hold() -> None:
    length = RELAY.batch_bytes(1 << 20, 1_000_000, 1088)
    assert length == 80_000
    assert RELAY.refusal(length, 1088, 1_000_000, Held(0, 0, 0)) == ""
    assert RELAY.refusal(length, 1088, 800_000, Held(0, 0, 0)) == ""


def test_a_batch_is_never_longer_than_the_limit() -> None:
    assert RELAY.batch_bytes(1 << 30, 1 << 30, 1088) == RELAY.max_batch_bytes == 262_144


def test_a_poor_hop_gives_the_minimum_or_nothing() -> None:
    assert RELAY.batch_bytes(5000, 4000, 1088) == 1088
    assert RELAY.batch_bytes(5000, 1087, 1088) == 0


@pytest.mark.parametrize(("poorest", "length"), [(20_000, 4096), (4000, 4000), (1500, 1500), (1088, 1088)])
def test_a_poor_hop_gives_what_every_source_is_granted(poorest: int, length: int) -> None:
    assert RELAY.batch_bytes(5000, poorest, 1088, granted=4096) == length


def test_where_no_application_draws_on_a_link_relay_may_hold_all_of_it() -> None:
    assert "relay may hold 5000 bytes" in RELAY.refusal(6000, 8000, 10_000, Held(0, 0, 0))
    assert RELAY.refusal(6000, 8000, 10_000, Held(0, 0, 0), alone=True) == ""
    assert RELAY.pad_lease_bytes(4096, 100_000, 10_000, 0) == 5000
    assert RELAY.pad_lease_bytes(4096, 100_000, 10_000, 0, alone=True) == 10_000


@pytest.mark.parametrize(
    ("payload", "segment"), [(1024, 1024), (4096, 1024), (32_768, 2048), (262_080, 8192), (1 << 24, 65_536)]
)
def test_a_batch_is_cut_into_about_sixteen_segments(payload: int, segment: int) -> None:
    assert RELAY.segment_bytes(payload) == segment


def test_a_lease_of_pads_follows_the_demand() -> None:
    assert RELAY.pad_lease_bytes(4096, 1024, 1 << 20, 0) == 8192
    assert RELAY.pad_lease_bytes(4096, 100_000, 1 << 20, 0) == 100_000


def test_pads_never_hold_more_than_their_share_of_a_link() -> None:
    assert RELAY.pad_lease_bytes(4096, 1 << 30, 1 << 20, 0) == 1 << 19
    assert RELAY.pad_lease_bytes(4096, 1 << 30, 1 << 20, 1 << 18) == 655_360 - (1 << 18)


def test_a_batch_is_leased_for_although_the_share_is_used_up() -> None:
    assert RELAY.pad_lease_bytes(4096, 1 << 30, 10_000, 10_000) == 4096


def test_a_neighbour_of_many_sources_may_hold_two_batches_of_a_poor_link_if_that_is_half_of_what_relay_may() -> None:
    held = Held(0, 4096, 4096)
    assert RELAY.refusal(4096, 4096, 32_768, held) == ""
    assert RELAY.refusal(4096, 4096, 30_000, held).startswith("this neighbour may hold 7500 bytes")


@pytest.mark.parametrize(
    ("held", "who"),
    [
        (Held(96_000, 96_000, 96_000), "this source may hold 100000 bytes"),
        (Held(0, 246_000, 246_000), "this neighbour may hold 250000 bytes"),
        (Held(0, 0, 496_000), "relay may hold 500000 bytes"),
    ],
)
def test_a_refusal_says_who_holds_how_much(held: Held, who: str) -> None:
    reason = RELAY.refusal(4096, 1088, 1_000_000, held)
    assert reason.startswith(who) and f"{max(held)} are held" in reason and reason.endswith("4096 more asked for")
    assert RELAY.refusal(4000, 1088, 1_000_000, held) == ""
