"""Who is tried first."""

from __future__ import annotations

import pytest

from keyhop.core.policy.priority import Fifo, ResponseWeight, StrictPriority, Waiting
from keyhop.core.policy.storage import MultiSizeBlock

MS = 1_000_000
SIZES = [Waiting(n, 0, size, n) for n, size in enumerate((128, 256, 512, 1024, 2048), 1)]
UNLINKED = [Waiting(1, 0, 256, 5), Waiting(2, 0, 128, 1), Waiting(3, 0, 1024, 9), Waiting(4, 0, 512, 2)]


def _left_at(rule: Fifo | StrictPriority) -> dict[int, float]:
    """When each of AT-QOS-1's packets leaves a link that makes 1000 bit/s: 256 bits are there every 0.256 s."""
    waiting = [Waiting(1, 0, 256, service_class="best_effort"), Waiting(2, 100 * MS, 256, service_class="prioritised")]
    left: dict[int, float] = {}
    for tick in (0.256, 0.512):
        first = rule.rank(waiting)[0]
        waiting.remove(first)
        left[first.number] = tick
    return left


def test_at_qos_1_a_prioritised_packet_overtakes_best_effort() -> None:
    assert _left_at(StrictPriority(by="class")) == {2: 0.256, 1: 0.512}
    assert _left_at(Fifo()) == {1: 0.256, 2: 0.512}


def test_at_qos_3_best_effort_waits_behind_every_prioritised_request() -> None:
    best_effort = Waiting(0, 0)
    queue = [best_effort, *(Waiting(n, n * 1000 * MS, service_class="prioritised") for n in range(1, 50))]
    assert StrictPriority().rank(queue)[-1] == best_effort


def test_within_a_class_the_earlier_is_first() -> None:
    queue = [Waiting(2, 5, category=1), Waiting(1, 5, category=1), Waiting(3, 4, category=1), Waiting(0, 0, category=2)]
    assert [request.number for request in StrictPriority(by="category").rank(queue)] == [3, 1, 2, 0]


def test_a_class_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="class gold: must be one of guaranteed, prioritised, best_effort"):
        StrictPriority().rank([Waiting(1, service_class="gold")])
    with pytest.raises(ValueError, match="category 6: must be 1 to 5"):
        StrictPriority(by="category").rank([Waiting(1, category=6)])


@pytest.mark.parametrize(
    ("omega", "weights"),
    [
        (0.5, [3.5246, 3.8123, 4.0921, 4.3616, 4.6170]),
        (0.0, [4.8520, 5.5452, 6.2383, 6.9315, 7.6246]),
        (1.0, [2.1972, 2.0794, 1.9459, 1.7918, 1.6094]),
    ],
)
def test_at_ddka_1_the_response_weight_is_equation_2(omega: float, weights: list[float]) -> None:
    rule = ResponseWeight(omega)
    assert [round(rule.weight(one.size_bits, one.security_level), 4) for one in SIZES] == weights


@pytest.mark.parametrize(
    ("omega", "order"),
    [
        (0.5, [128, 256, 512, 1024, 2048]),
        (1.0, [2048, 1024, 512, 256, 128]),
        (0.8, [128, 256, 512, 2048, 1024]),
        (0.85, [2048, 1024, 512, 128, 256]),
    ],
)
def test_at_ddka_2_the_order_flips_with_omega(omega: float, order: list[int]) -> None:
    assert [request.size_bits for request in ResponseWeight(omega).rank(SIZES)] == order


def test_at_ddka_2_the_smallest_and_the_largest_swap_at_0_8251() -> None:
    def gap(omega: float) -> float:
        return ResponseWeight(omega).weight(128, 1) - ResponseWeight(omega).weight(2048, 5)

    assert gap(0.8250) < 0 < gap(0.8252)


@pytest.mark.parametrize(("omega", "order"), [(0.5, [3, 2, 1, 4]), (0.0, [2, 1, 4, 3])])
def test_at_ddka_3_size_and_level_need_not_go_together(omega: float, order: list[int]) -> None:
    assert [request.number for request in ResponseWeight(omega).rank(UNLINKED)] == order


@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0])
def test_at_ddka_4_an_earlier_slot_is_first_whatever_the_weight(omega: float) -> None:
    late, early = Waiting(1, 10 * MS, 128, 9), Waiting(2, 10 * MS - 1, 2048, 1)
    assert ResponseWeight(omega).rank([late, early])[0] == early


@pytest.mark.parametrize(("omega", "served"), [(0.0, [512] * 5), (1.0, [2048, 512])])
def test_at_ddka_5_omega_decides_who_is_served_of_five_keys(omega: float, served: list[int]) -> None:
    store, stock, found = MultiSizeBlock(sizes=(128, 256, 512, 1024, 2048)), {512: 5}, []
    requests = [Waiting(0, 0, 2048, 5), *(Waiting(n, 0, 512, 3) for n in range(1, 6))]
    for request in ResponseWeight(omega).rank(requests):
        if keys := store.choose(request.size_bits, stock):
            stock[512] -= len(keys)
            found.append(request.size_bits)
    assert found == served


def test_plaintext_needs_no_key() -> None:
    assert not ResponseWeight().needs_key(Waiting(1, security_level=0))
    assert ResponseWeight().needs_key(Waiting(1, security_level=1))


@pytest.mark.parametrize(("size_bits", "level"), [(0, 1), (128, 10), (128, -1)])
def test_a_request_without_a_weight_is_refused(size_bits: int, level: int) -> None:
    with pytest.raises(ValueError, match="must be 1 bit or more, and 0 to 9"):
        ResponseWeight().weight(size_bits, level)


def test_an_omega_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"response_weight\.omega = 1\.5"):
        ResponseWeight(omega=1.5)


def test_requests_of_one_slot_arrive_together() -> None:
    late_small, early_large = Waiting(2, 19 * MS, 128, 1), Waiting(1, 10 * MS, 2048, 1)
    assert ResponseWeight().rank([early_large, late_small])[0] == late_small
    assert ResponseWeight(slot_ns=1).rank([early_large, late_small])[0] == early_large


def test_plaintext_of_one_bit_has_a_weight() -> None:
    assert ResponseWeight(omega=0.0).weight(1, 0) == 0.0
