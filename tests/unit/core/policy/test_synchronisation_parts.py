"""How both ends come to the same range: rules alone, without a wire."""

from __future__ import annotations

from fractions import Fraction
from heapq import heappop, heappush
from itertools import pairwise
from math import ceil, log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.core.policy.sharing import Weighted
from keyhop.core.policy.synchronisation import (
    AppNegotiated,
    DirectedPool,
    Hold,
    Lease,
    Move,
    Phase,
    ProposeAccept,
    Serving,
    Stamps,
    StampSequence,
    StoreLoad,
    TwoPhaseCommit,
    Verb,
    VerifyBatch,
    WorkingSet,
    moves,
)

SECOND = 1_000_000_000
AGREE, ASSIGN, TAKE, GIVE_BACK, DESTROY = Verb


@given(st.sets(st.integers(0, 30)))
def test_neighbours_move_together(units: set[int]) -> None:
    found = moves(TAKE, units)
    assert {unit for _, start, length, _ in found for unit in range(start, start + length)} == units
    assert all(one.start + one.length < other.start for one, other in pairwise(found))


# DARPA


def test_at_darpa_1_a_unit_is_listed_reserved_and_got_once() -> None:
    qpd = AppNegotiated()
    store: dict[int, Hold | None] = dict.fromkeys((1, 2, 3, 4))
    assert qpd.listed(store, 0) == [1, 2, 3, 4]
    reserved = qpd.reserve(2, "ike", store, 0)
    assert reserved == (Hold("ike", 30 * SECOND), Move(ASSIGN, 2, to="ike"))
    store[2] = reserved[0]
    assert qpd.get(2, "ike", store, 1) == (Move(TAKE, 2), Move(DESTROY, 2))
    del store[2]
    assert qpd.listed(store, 1) == [1, 3, 4]
    assert qpd.get(2, "ike", store, 2) == ()


def test_a_unit_is_got_only_by_who_holds_it() -> None:
    store = {1: Hold("one", 10), 2: None}
    assert AppNegotiated().get(1, "other", store, 5) == ()
    assert AppNegotiated().get(2, "one", store, 5) == ()
    assert AppNegotiated().get(1, "one", store, 10) == ()


def test_at_darpa_3_crossing_reservations_are_both_busy_and_nothing_is_destroyed() -> None:
    qpd = AppNegotiated()
    at_a: dict[int, Hold | None] = {1: Hold("a", SECOND), 2: None}
    at_b: dict[int, Hold | None] = {1: Hold("b", SECOND), 2: None}
    assert qpd.reserve(1, "a", at_b, 0) is None and qpd.reserve(1, "b", at_a, 0) is None
    assert qpd.next_unit(qpd.listed(at_a, 0), tried={1}) == 2
    assert qpd.expired(at_a, SECOND) == (Move(GIVE_BACK, 1),)
    assert qpd.listed(at_a, SECOND) == [1, 2]


def test_after_five_retries_a_negotiation_ends() -> None:
    assert AppNegotiated().next_unit(range(10), tried=range(5)) == 5
    assert AppNegotiated().next_unit(range(10), tried=range(6)) is None
    assert AppNegotiated(pick="highest").next_unit(range(10), tried={9}) == 8


def test_a_retry_waits_at_most_a_second() -> None:
    assert [AppNegotiated().backoff(draw) for draw in (0.0, 0.5, 1.0)] == [0, SECOND // 2, SECOND]


# SECOQC


def test_at_secoqc_3_a_key_the_peer_lacks_is_not_stored() -> None:
    offers = dict.fromkeys((1, 2, 3, 4, 5), 1)
    assert StoreLoad().stored(offers, {1, 2, 4, 5}) == (Move(AGREE, 1, 2, "common"), Move(AGREE, 4, 2, "common"))


def test_at_secoqc_4_a_key_that_differs_is_given_up_after_three_offers() -> None:
    assert StoreLoad().stored({1: 2, 2: 2}, {1}) == (Move(AGREE, 1, 1, "common"),)
    assert StoreLoad().stored({2: 3}, set()) == (Move(DESTROY, 2),)


def test_a_load_goes_in_here_and_out_there() -> None:
    part = StoreLoad()
    load = part.load(range(90), incoming=30, application=30)
    assert load == (Move(ASSIGN, 0, 30, "incoming"), Move(ASSIGN, 30, 30, "application"))
    assert part.mirrored(load) == (Move(ASSIGN, 0, 30, "outgoing"), Move(ASSIGN, 30, 30, "application"))
    assert part.mirrored(part.mirrored(load)) == load


def test_what_the_peer_did_not_move_is_free_again() -> None:
    load = (Move(ASSIGN, 0, 4, "incoming"),)
    assert StoreLoad().answered(load, {0, 1, 3}) == (
        Move(TAKE, 0, 2, "incoming"),
        Move(TAKE, 3, 1, "incoming"),
        Move(GIVE_BACK, 2),
    )


def test_at_secoqc_6_a_lost_answer_frees_all_but_only_for_the_same_direction() -> None:
    part = StoreLoad()
    freed = part.answered((Move(ASSIGN, 0, 2, "incoming"),), None)
    assert freed == (Move(GIVE_BACK, 0, 2, "incoming"),)
    bound = {unit: move.to for move in freed for unit in range(move.start, move.start + move.length)}
    assert part.load(range(4), 0, 4, bound) == (Move(ASSIGN, 2, 2, "application"),)
    assert part.load(range(4), 1, 0, bound) == (Move(ASSIGN, 0, 1, "incoming"),)


# NIST


def test_chunks_in_order_are_agreed() -> None:
    assert StampSequence().arrived(4096, 4096, 4096) == ((Move(AGREE, 4096, 4096),), 8192)


def test_a_repeated_chunk_enters_once() -> None:
    assert StampSequence().arrived(8192, 4096, 4096) == ((), 8192)
    assert StampSequence().arrived(8192, 4096, 5000) == ((Move(AGREE, 8192, 904),), 9096)


def test_at_nist_2_both_ends_fall_back_to_one_base() -> None:
    part = StampSequence(on_gap="last_sync_point")
    assert part.arrived(8192, 9216, 3072) is None
    at_a, at_b = Stamps(8192, 8192), Stamps(8192, 9216)
    assert part.base(at_a, at_b) == part.base(at_b, at_a) == 9216
    assert part.resynchronised(at_a, at_b, 12_288) == ((Move(DESTROY, 8192, 1024), Move(AGREE, 9216, 3072)), 12_288)
    assert part.resynchronised(at_b, at_a, 12_288) == ((Move(AGREE, 9216, 3072),), 12_288)


def test_at_nist_2_a_restart_drops_everything_unread_at_both_ends() -> None:
    part = StampSequence(on_gap="restart")
    at_b = part.arrived(8192, 9216, 3072)
    assert at_b == ((Move(DESTROY, 0, 8192), Move(DESTROY, 9216, 3072)), 12_288)
    assert part.restarted(12_288, floor=at_b[1]) == ((Move(DESTROY, 0, 12_288),), 12_288)


def test_what_the_other_end_has_yet_to_receive_outlives_a_restart() -> None:
    assert StampSequence(on_gap="restart").restarted(16_384, floor=12_288) == ((Move(DESTROY, 0, 12_288),), 16_384)


@given(*(st.integers(0, 100) for _ in range(5)))
def test_after_a_resynchronisation_both_ends_keep_the_same(
    expected: int, lost_a: int, lost_b: int, more_a: int, more_b: int
) -> None:
    part, a, b = StampSequence(), Stamps(expected, expected + lost_a), Stamps(expected, expected + lost_b)
    end = max(a.received, b.received) + min(more_a, more_b)
    kept = []
    for own, peer in ((a, b), (b, a)):
        found, following = part.resynchronised(own, peer, end)
        assert following == end
        assert sum(move.length for move in found) == end - own.received
        kept.append([move for move in found if move.verb is AGREE])
    assert kept[0] == kept[1]


# QCC, Cisco


def test_the_lower_name_is_master_and_an_asker_proposes_itself() -> None:
    assert ProposeAccept(by="master").proposer("10.0.0.2", "10.0.0.1", asker="10.0.0.2") == "10.0.0.1"
    assert ProposeAccept(by="asker").proposer("a", "b", asker="b") == "b"


def test_the_oldest_units_are_proposed_or_none() -> None:
    assert ProposeAccept().propose([5, 3, 9], 2) == (3, 5)
    assert ProposeAccept().propose([5, 3, 9], 4) == ()


def test_at_qcc_5_neither_side_moves_what_one_of_them_lacks() -> None:
    part = ProposeAccept()
    assert not part.accepts((1, 2, 3), held={1, 3})
    assert part.settled((1, 2, 3), accepted=False, to="a1") == (Move(GIVE_BACK, 1, 3),)
    assert part.accepts((1, 3), held={1, 3})
    assert part.settled((1, 3), accepted=True, to="a1") == (Move(ASSIGN, 1, 1, "a1"), Move(ASSIGN, 3, 1, "a1"))
    assert not part.accepts((), held={1})


@given(st.sets(st.integers(0, 5), min_size=1), st.sets(st.integers(0, 5), min_size=1))
def test_of_two_crossing_proposals_for_the_same_unit_exactly_one_stands(own: set[int], peer: set[int]) -> None:
    part = ProposeAccept(by="asker")
    standing = [part.stands("a", "b", own, peer), part.stands("b", "a", peer, own)]
    assert standing == [True, not own & peer]


# MagiQ


def test_at_magiq_2_a_slave_that_has_dealt_further_votes_no() -> None:
    part = TwoPhaseCommit()
    assert part.votes(from_unit=9, dealt_up_to=8)
    assert not part.votes(from_unit=9, dealt_up_to=9)
    assert part.decides([True, False]) == "aborted"
    assert part.votes(part.later(9, 11), 11)


def test_at_magiq_2_both_ends_deal_alike_from_the_agreed_unit() -> None:
    part = TwoPhaseCommit()
    assert part.decides([True, True]) == "committed"
    assert Weighted(unit_bits=256).deal([1, 1, 2], 4)[0] == [2, 0, 1, 2]


def test_a_vote_that_is_out_is_waited_for_and_then_aborts() -> None:
    assert TwoPhaseCommit().decides([True, None]) is None
    assert TwoPhaseCommit().decides([True, None], timed_out=True) == "aborted"


@pytest.mark.parametrize(
    ("logged", "coordinator", "outcome"),
    [
        (None, "committed", "aborted"),
        ("prepared", "committed", "committed"),
        ("prepared", "aborted", "aborted"),
        ("prepared", "prepared", None),
        ("prepared", None, None),
        ("committed", None, "committed"),
        ("aborted", None, "aborted"),
    ],
)
def test_at_magiq_3_the_log_of_a_restarted_slave_resolves_as_the_coordinator(
    logged: Phase | None, coordinator: Phase | None, outcome: Phase | None
) -> None:
    assert TwoPhaseCommit().resolved(logged, coordinator) == outcome


def test_at_magiq_3_a_purge_takes_all_older_records() -> None:
    stamps = [10, 50, 99, 100, 120]
    assert TwoPhaseCommit().purged(stamps, before_ns=100, first=7) == (Move(DESTROY, 7, 3),)
    assert TwoPhaseCommit().purged(stamps, before_ns=10) == ()


@given(st.integers(1, 300), st.data())
def test_at_magiq_4_an_audit_finds_the_damaged_records_in_few_rounds(count: int, data: st.DataObject) -> None:
    damaged = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    compared, rounds, found = [(0, count)], 0, set()
    while compared:
        rounds += 1
        differing = [(start, n) for start, n in compared if damaged & set(range(start, start + n))]
        found |= {start for start, length in differing if length == 1}
        compared = TwoPhaseCommit().audited(differing)
    assert found == damaged
    assert rounds <= ceil(log2(count)) + 1


def test_a_mark_says_less_than_a_list() -> None:
    assert TwoPhaseCommit().announced([1, 2, 3]) == (3,)
    assert TwoPhaseCommit(announce="explicit").announced([1, 2, 3]) == (1, 2, 3)
    assert TwoPhaseCommit().announced([]) == ()


# NECTEC, NICT, KISTI, AIT


@pytest.mark.parametrize(("n", "percent"), [(64, 0.78125), (8, 6.25), (1, 50.0)])
def test_at_ait_1_one_mac_for_a_batch_costs_less(n: int, percent: float) -> None:
    assert VerifyBatch(n=n, check="mac").overhead(256, 128) == Fraction(percent) / 100
    assert VerifyBatch(n=n, check="tag").overhead(256, 128) == Fraction(1, 2)


def test_at_ait_3_one_bad_key_refuses_the_whole_batch() -> None:
    part = VerifyBatch(n=4, check="mac")
    assert part.verified((0, 1, 2, 3), differing={2}) == (Move(DESTROY, 0, 4),)
    assert part.verified((0, 1, 2, 3), differing=()) == (Move(AGREE, 0, 4),)


def test_at_nectec_4_a_bad_block_leaves_the_others_alone() -> None:
    part = VerifyBatch(n=16, check="tag")
    assert part.verified((0, 1, 2, 3), {2}) == (Move(AGREE, 0, 2), Move(AGREE, 3, 1), Move(DESTROY, 2, 1))


def test_batches_are_of_one_size_but_the_last() -> None:
    assert VerifyBatch(n=2).batches([1, 2, 3]) == [(1, 2), (3,)]
    with pytest.raises(ValueError, match=r"verify_batch\.n = 0: must be 1 or more"):
        VerifyBatch(n=0)


# Quantum Canada


class _End:
    """One end of a pool: what it has served and what it knows."""

    def __init__(self, part: WorkingSet, head: bool, stock: int) -> None:
        self.part, self.head, self.stock = part, head, stock
        self.view = Serving()
        self.served: set[int] = set()

    def serve(self) -> int:
        found = self.part.serve(self.view, self.head, self.stock)
        assert found is not None
        move, self.view = found
        assert move.start not in self.served
        self.served.add(move.start)
        return move.start

    def told(self, unit: int) -> bool:
        destroyed, self.view = self.part.told(self.view, unit, self.served)
        return bool(destroyed)


def test_at_qcanada_1_the_last_of_a_set_may_collide() -> None:
    a, b = (_End(WorkingSet(size=4), head, stock=8) for head in (True, False))
    for server, other, key in ((a, b, 1), (b, a, 4), (a, b, 2)):
        unit = server.serve()
        assert unit + 1 == key and not other.told(unit)
    crossing = a.serve(), b.serve()
    assert crossing == (2, 2)
    assert a.told(crossing[1]) and b.told(crossing[0])
    assert (a.serve() + 1, b.serve() + 1) == (5, 8)


def test_an_empty_store_serves_nothing() -> None:
    assert WorkingSet(size=4).serve(Serving(), head=True, stock=0) is None
    assert WorkingSet(ends="same").serve(Serving(last=7), head=True, stock=8) is None
    assert WorkingSet(size="all").serve(Serving(own=3, peer=5), head=False, stock=8) is None
    assert WorkingSet(size=4).serve(Serving(number=1, own=1, peer=1), head=True, stock=6) is None


def test_a_short_last_set_is_served_from_both_ends() -> None:
    part = WorkingSet(size=4)
    first, last = (part.serve(Serving(number=1), head, stock=6) for head in (True, False))
    assert first is not None and last is not None
    assert (first[0].start, last[0].start) == (4, 5)


def test_a_set_of_all_is_the_store_from_opposite_ends() -> None:
    a, b = (_End(WorkingSet(size="all"), head, stock=1000) for head in (True, False))
    assert [a.serve(), b.serve(), a.serve(), b.serve()] == [0, 999, 1, 998]


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5))
def test_when_every_use_is_known_at_once_nothing_collides(turns: list[bool], size: int) -> None:
    a, b = (_End(WorkingSet(size=size), head, stock=200) for head in (True, False))
    for turn in turns:
        server, other = (a, b) if turn else (b, a)
        assert not other.told(server.serve())
    assert a.served | b.served >= set(range(len(turns) // size * size))


def _collisions(part: WorkingSet, seconds: float) -> float:
    """Collided keys per serve: Poisson 10/s at each of two sites, 10 ms until the other hears of a use."""
    draw, stock = Random(15), 10**9
    ends = _End(part, True, stock), _End(part, False, stock)
    heap: list[tuple[float, int, int]] = []
    for site in (0, 1):
        heappush(heap, (draw.expovariate(10), site, -1))
    serves, collided = 0, set()
    while heap[0][0] < seconds:
        now, site, unit = heappop(heap)
        if unit >= 0:
            if ends[site].told(unit):
                collided.add(unit)
            continue
        unit = ends[site].serve()
        serves += 1
        heappush(heap, (now + 0.01, 1 - site, unit))
        heappush(heap, (now + draw.expovariate(10), site, -1))
    return len(collided) / serves


@pytest.mark.parametrize(
    ("part", "percent", "within"),
    [
        (WorkingSet(ends="same"), 8.2, 0.5),
        (WorkingSet(size=8), 1.2, 0.25),
        (WorkingSet(size=64), 0.15, 0.1),
    ],
)
def test_at_qcanada_2_collisions_fall_with_the_size_of_the_set(part: WorkingSet, percent: float, within: float) -> None:
    assert 100 * _collisions(part, seconds=1000) == pytest.approx(percent, abs=within)


def test_a_set_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"working_set\.size = 0: must be 1 or more, or all"):
        WorkingSet(size=0)


# Directed pools


def test_at_nec_3_ten_terminals_have_ninety_directed_pools() -> None:
    terminals = [f"TN{n}" for n in range(1, 11)]
    pools = DirectedPool().pools(terminals)
    assert len(pools) == 90
    assert sum("TN1" in pool for pool in pools) == 18
    assert len(DirectedPool().pools([*terminals, "TN11"])) - len(pools) == 20


def test_at_nec_2_nothing_is_assigned_that_the_far_end_has_not_confirmed() -> None:
    assert DirectedPool().assign(0, confirmed_up_to=0, count=1, to="vpn") is None
    assert DirectedPool().assign(0, confirmed_up_to=1, count=1, to="vpn") == Move(ASSIGN, 0, 1, "vpn")


def test_a_follower_takes_no_unit_twice_and_none_it_lacks() -> None:
    part = DirectedPool()
    assert part.follows(4, 10, Move(ASSIGN, 4, 6))
    assert not part.follows(5, 10, Move(ASSIGN, 4, 6))
    assert not part.follows(4, 9, Move(ASSIGN, 4, 6))


# Ours


def test_a_lease_is_ten_seconds_of_demand_within_bounds() -> None:
    assert [Lease().size(demand) for demand in (0.0, 5000.0, 1e9)] == [1024, 50_000, 8 << 20]


def test_the_next_lease_is_asked_for_at_half_of_this_one() -> None:
    assert Lease().low(50_000) == 25_000
