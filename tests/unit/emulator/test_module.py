import itertools
import stat
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhop.daemon.modules import Block
from keyhop.emulator import module, rates
from keyhop.emulator.control import CONTROL_FILE, Change, Control, Fault, FaultName
from keyhop.emulator.module import EmulatedLink, EmulatedModule, create

SECOND = 1_000_000_000
LINK = EmulatedLink(id="a-b", ends=("a", "b"), block_bytes=1024, block_period_s=10.0, epoch_ns=0, qber_ratio=0.03)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class Bench:
    """Both ends of a link under one clock."""

    def __init__(self, directory: Path, **changed: Any) -> None:
        self.directory = directory
        self.clock = Clock()
        create(directory, msgspec.structs.replace(LINK, **changed))
        self.a, self.b = self.open("a"), self.open("b")

    def open(self, node: str, after_number: int = -1) -> EmulatedModule:
        return EmulatedModule(self.directory, node, after_number=after_number, clock=self.clock)

    def control(self, *faults: Fault, changes: tuple[Change, ...] = ()) -> None:
        path = self.directory / CONTROL_FILE
        path.write_bytes(msgspec.json.encode(Control(changes=changes, faults=faults)))
        for end in (self.a, self.b):
            end.read_control()

    def until(self, second: float) -> tuple[list[Block], list[Block]]:
        """What both ends deliver up to this second, looking ten times a second."""
        heard: tuple[list[Block], list[Block]] = ([], [])
        while self.clock.now_ns < second * SECOND:
            self.clock.now_ns += SECOND // 10
            for end, blocks in zip((self.a, self.b), heard, strict=True):
                blocks += end.advance(self.clock.now_ns)
        return heard


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def numbers(blocks: list[Block]) -> list[int]:
    return [block.number for block in blocks]


def contents(blocks: list[Block]) -> dict[int, bytes]:
    return {block.number: bytes(block.bits) for block in blocks}


def test_a_block_comes_when_its_period_is_over_and_is_the_same_at_both_ends(bench: Bench) -> None:
    left, right = bench.until(9.9)
    assert left == right == []
    left, right = bench.until(35)
    assert numbers(left) == numbers(right) == [0, 1, 2]
    assert contents(left) == contents(right)
    assert {len(block.bits) for block in left} == {1024}
    assert {block.module for block in left} == {"a-b"}


def test_another_lab_has_other_bits(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path / "other")
    left, _ = bench.until(10)
    elsewhere, _ = other.until(10)
    assert left[0].bits != elsewhere[0].bits


def test_no_stretch_of_one_block_is_in_another(bench: Bench) -> None:
    left, _ = bench.until(50)
    pieces = Counter(bytes(block.bits[at : at + 16]) for block in left for at in range(0, 1024, 16))
    assert max(pieces.values()) == 1


def test_numbers_go_on_after_a_restart_and_what_fell_due_meanwhile_is_lost(bench: Bench) -> None:
    bench.until(25)
    bench.clock.now_ns = 47 * SECOND
    bench.a = bench.open("a", after_number=1)
    left, _ = bench.until(60)
    assert numbers(left) == [4, 5]


def test_a_block_that_intake_took_is_not_made_again(bench: Bench) -> None:
    bench.until(25)
    bench.a = bench.open("a", after_number=3)
    left, _ = bench.until(60)
    assert numbers(left) == [4, 5]


def test_opening_a_lab_again_keeps_its_secret_and_its_numbers(tmp_path: Path) -> None:
    first, _ = Bench(tmp_path).until(30)
    again = Bench(tmp_path, epoch_ns=-20 * SECOND)
    second, _ = again.until(10)
    assert numbers(second) == [2]
    assert contents(second)[2] == contents(first)[2]


def test_the_prefill_comes_at_once_in_blocks_numbered_below_those_of_the_grid(tmp_path: Path) -> None:
    bench = Bench(tmp_path, prefill_bytes=40_000)
    left, right = bench.until(1)
    assert numbers(left) == [0, 1, 2]
    assert [len(block.bits) for block in left] == [16384, 16384, 40_000 - 2 * 16384]
    assert contents(left) == contents(right)
    later, _ = bench.until(20)
    assert numbers(later) == [3, 4]


def test_a_prefill_that_intake_took_is_not_delivered_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, prefill_bytes=40_000)
    bench.until(1)
    bench.a = bench.open("a", after_number=1)
    left, _ = bench.until(9)
    assert numbers(left) == [2]
    bench.a = bench.open("a", after_number=2)
    left, _ = bench.until(9.9)
    assert left == []


def test_an_eavesdropper_above_the_limit_stops_the_key_and_the_report_says_so(bench: Bench) -> None:
    bench.until(5)
    assert bench.a.status(bench.clock.now_ns).state == "up"
    bench.control(changes=(Change(at_ns=12 * SECOND, eve_fraction=0.5), Change(at_ns=25 * SECOND)))
    left, right = bench.until(13)
    assert numbers(left) == [0]
    status = bench.b.status(bench.clock.now_ns)
    assert status.state == "suspended"
    assert status.qber_ratio is not None
    assert 0.15 < status.qber_ratio < 0.16
    assert status.skr_bps == 0
    assert "above 11.0 %" in status.reason
    left, right = bench.until(45)
    assert numbers(left) == numbers(right) == [3]
    assert bench.a.status(bench.clock.now_ns).state == "up"


def test_a_listener_to_few_pulses_costs_key_but_does_not_stop_it(bench: Bench) -> None:
    bench.control(changes=(Change(at_ns=0, eve_fraction=0.1),))
    left, right = bench.until(20)
    assert contents(left) == contents(right)
    assert 0 < len(left[0].bits) < 1024
    assert bench.a.status(bench.clock.now_ns).state == "up"


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.3])
def test_the_qber_rises_by_a_quarter_of_the_intercepted_share(bench: Bench, fraction: float) -> None:
    before = bench.a.status(0).qber_ratio
    bench.control(changes=(Change(at_ns=0, eve_fraction=fraction),))
    after = bench.a.status(0).qber_ratio
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(0.25 * fraction)


def test_a_cut_of_a_second_costs_the_block_under_way(bench: Bench) -> None:
    bench.control(changes=(Change(at_ns=14 * SECOND, cut=True), Change(at_ns=15 * SECOND)))
    left, _ = bench.until(14.5)
    status = bench.a.status(bench.clock.now_ns)
    assert (status.state, status.qber_ratio, status.skr_bps) == ("down", None, 0.0)
    more, _ = bench.until(40)
    assert numbers(left) + numbers(more) == [0, 2, 3]


def test_a_continuous_variable_link_reports_no_qber_but_is_disturbed_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path, has_qber=False)
    assert bench.a.status(0).qber_ratio is None
    bench.control(changes=(Change(at_ns=0, eve_fraction=1.0),))
    assert bench.a.status(0).state == "suspended"
    assert "QBER" not in bench.a.status(0).reason


def test_the_qber_drifts_over_the_day_alike_at_both_ends_around_its_mean(bench: Bench) -> None:
    day = [bench.a.status(second * SECOND).qber_ratio or 0.0 for second in range(0, 86_400, 60)]
    assert day == [bench.b.status(second * SECOND).qber_ratio for second in range(0, 86_400, 60)]
    assert sum(day) / len(day) == pytest.approx(0.03, rel=0.01)
    assert 0.03 * 1.05 < max(day) <= 0.03 * 1.15
    assert 0.03 * 0.85 <= min(day) < 0.03 * 0.95


def test_the_reported_rate_is_the_mean_over_the_last_periods(bench: Bench) -> None:
    full_bps = 1024 * 8 / 10
    bench.until(80)
    assert bench.a.status(bench.clock.now_ns).skr_bps == pytest.approx(full_bps)
    bench.control(changes=(Change(at_ns=81 * SECOND, cut=True), Change(at_ns=99 * SECOND)))
    bench.until(105)
    assert bench.a.status(bench.clock.now_ns).skr_bps == pytest.approx(full_bps * 6 / 8)


def test_a_module_that_ran_before_the_lab_reports_its_rate_from_the_start(tmp_path: Path) -> None:
    assert Bench(tmp_path, prefill_bytes=1).a.status(0).skr_bps == pytest.approx(1024 * 8 / 10)


def test_one_sided_one_end_does_not_deliver_the_block(bench: Bench) -> None:
    bench.control(Fault(name=FaultName.ONE_SIDED, number=1, node="b"))
    left, right = bench.until(40)
    assert numbers(left) == [0, 1, 2, 3]
    assert numbers(right) == [0, 2, 3]


def test_late_one_end_delivers_the_same_block_later(bench: Bench) -> None:
    bench.control(Fault(name=FaultName.LATE, number=1, node="b", delay_s=33))
    left, right = bench.until(52.9)
    assert 1 not in numbers(right)
    more_left, more_right = bench.until(53.1)
    assert numbers(more_right) == [1]
    assert contents(more_right)[1] == contents(left)[1]
    assert more_left == []


def test_reordered_one_end_swaps_a_block_with_the_next(bench: Bench) -> None:
    bench.control(Fault(name=FaultName.REORDERED, number=1))
    left, right = bench.until(40)
    assert numbers(left) == [0, 2, 1, 3]
    assert numbers(right) == [0, 1, 2, 3]
    assert contents(left) == contents(right)


def test_duplicate_after_restart_one_end_delivers_the_block_twice(bench: Bench) -> None:
    bench.control(Fault(name=FaultName.DUPLICATE_AFTER_RESTART, number=1))
    left, right = bench.until(40)
    assert numbers(left) == [0, 1, 2, 1, 3]
    assert left[1].bits == left[3].bits
    assert numbers(right) == [0, 1, 2, 3]


def test_flipped_bit_one_bit_differs_at_one_end(bench: Bench) -> None:
    bench.control(Fault(name=FaultName.FLIPPED_BIT, number=2))
    left, right = bench.until(40)
    assert numbers(left) == numbers(right)
    for number, ours in contents(left).items():
        differing = int.from_bytes(ours, "big") ^ int.from_bytes(contents(right)[number], "big")
        assert differing.bit_count() == (1 if number == 2 else 0)


def test_restart_loses_the_blocks_of_one_end_which_says_that_it_is_down(bench: Bench) -> None:
    bench.control(Fault(name=FaultName.RESTART_LOSES, number=1, count=2))
    left, right = bench.until(15)
    assert bench.a.status(bench.clock.now_ns).state == "down"
    assert "restarts" in bench.a.status(bench.clock.now_ns).reason
    assert bench.b.status(bench.clock.now_ns).state == "up"
    more_left, more_right = bench.until(40)
    assert numbers(left + more_left) == [0, 3]
    assert numbers(right + more_right) == [0, 1, 2, 3]


def test_different_length_one_end_has_a_shorter_block(bench: Bench) -> None:
    bench.control(Fault(name=FaultName.DIFFERENT_LENGTH, number=1))
    left, right = bench.until(20)
    assert [len(block.bits) for block in left] == [1024, 512]
    assert right[1].bits[:512] == left[1].bits


@pytest.mark.parametrize("name", sorted(FaultName))
def test_each_fault_changes_what_one_end_delivers_and_only_around_its_blocks(bench: Bench, name: FaultName) -> None:
    bench.control(Fault(name=name, number=2, node="b"))
    left, right = bench.until(100)
    assert numbers(left) == list(range(10))
    assert [(block.number, bytes(block.bits)) for block in left] != [(b.number, bytes(b.bits)) for b in right]
    ours, theirs = contents(left), contents(right)
    assert all(ours[number] == theirs[number] for number in range(10) if number != 2)


def test_a_control_file_that_cannot_be_read_leaves_the_link_as_it_was(bench: Bench) -> None:
    bench.control(changes=(Change(at_ns=0, cut=True),))
    (bench.directory / CONTROL_FILE).write_text("{ half a fi")
    bench.a.read_control()
    assert bench.a.status(SECOND).state == "down"


def test_a_module_whose_reader_does_not_come_keeps_its_last_blocks_only(bench: Bench) -> None:
    blocks = bench.a.advance(1005 * SECOND)
    assert numbers(blocks) == list(range(100 - module.BUFFER_BLOCKS, 100))


def test_the_secret_of_a_link_is_readable_by_its_owner_alone(bench: Bench) -> None:
    assert stat.S_IMODE((bench.directory / module.SECRET_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(bench.directory.stat().st_mode) == 0o700


def test_a_module_does_not_print_its_secret(bench: Bench) -> None:
    secret = (bench.directory / module.SECRET_FILE).read_bytes()
    assert secret.hex() not in repr(bench.a)
    assert repr(secret)[2:-1] not in repr(bench.a)


def test_a_node_that_is_no_end_of_the_link_gets_no_module(bench: Bench) -> None:
    with pytest.raises(ValueError, match=r"'c' is no end of emulated link a-b"):
        bench.open("c")


def test_a_cut_off_secret_is_refused(bench: Bench) -> None:
    (bench.directory / module.SECRET_FILE).write_bytes(bytes(31))
    with pytest.raises(ValueError, match="31 bytes, must be 32"):
        bench.open("a")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"ends": ("b", "a")}, "the lower one first"),
        ({"ends": ("a", "a")}, "the lower one first"),
        ({"block_bytes": rates.BLOCK_MAX_BYTES + 1}, "block_bytes"),
        ({"block_period_s": 0.0}, "block_period_s = 0.0"),
        ({"epsilon": 1.0}, "epsilon"),
        ({"qber_ratio": 0.6}, "qber_ratio"),
        ({"qber_limit_ratio": 0.0}, "qber_limit_ratio"),
        ({"prefill_bytes": -1}, "prefill_bytes"),
    ],
)
def test_a_link_that_cannot_be_is_refused_and_names_the_figure(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        msgspec.structs.replace(LINK, **changed).__post_init__()


def test_the_model_behind_a_rate_labels_each_block_with_its_epsilon(tmp_path: Path) -> None:
    left, _ = Bench(tmp_path, epsilon=1e-10, prefill_bytes=100).until(10)
    assert [block.epsilon for block in left] == [0.0, 1e-10]


def test_an_unknown_member_of_the_link_file_is_refused(bench: Bench) -> None:
    path = bench.directory / module.LINK_FILE
    path.write_text(path.read_text().replace('"qber_ratio"', '"qbr_ratio"'))
    with pytest.raises(ValueError, match="qbr_ratio"):
        bench.open("a")


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 120), st.booleans(), st.sampled_from([0.0, 0.05, 0.2, 0.4, 1.0])),
        max_size=8,
        unique_by=lambda change: change[0],
    ),
    step_s=st.sampled_from([0.1, 0.7, 3.0, 11.0]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_to_the_fibre_both_ends_deliver_the_same_blocks_however_often_they_look(
    changes: list[tuple[int, bool, float]], step_s: float
) -> None:
    with TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        bench.control(
            changes=tuple(
                Change(at_ns=second * SECOND, cut=cut, eve_fraction=eve) for second, cut, eve in sorted(changes)
            )
        )
        left, right = [], []
        for tick in range(1, round(120 / 0.1) + 1):
            left += bench.a.advance(tick * SECOND // 10)
        second = 0.0
        while second < 120:
            second = min(120.0, second + step_s)
            right += bench.b.advance(round(second * SECOND))
        assert [(block.number, block.bits) for block in left] == [(block.number, block.bits) for block in right]


def test_a_thousand_blocks_come_one_period_apart_at_the_rate_of_the_link(bench: Bench) -> None:
    arrivals = []
    bits = 0
    for second in range(1, 10_001):
        for block in bench.a.advance(second * SECOND):
            arrivals.append(second)
            bits += 8 * len(block.bits)
    assert len(arrivals) == 1000
    assert {later - earlier for earlier, later in itertools.pairwise(arrivals)} == {10}
    assert bits / 10_000 == pytest.approx(bench.a.link.bits_per_s)
