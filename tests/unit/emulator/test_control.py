import json
import threading
import time
from pathlib import Path

import pytest

from keyhop.emulator import control
from keyhop.emulator.control import Change, Control, ControlError, Fault, FaultName


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "links" / "BRT-SIE").mkdir(parents=True)
    (tmp_path / "links" / "ERD-GUD").mkdir()
    return tmp_path


def test_a_link_without_a_file_is_untouched(lab: Path) -> None:
    assert control.read(lab, "BRT-SIE") == Control()
    assert not Control().at(123).cut


def test_what_was_set_is_read_back(lab: Path) -> None:
    control.set_eve(lab, "BRT-SIE", 0.3)
    assert control.read(lab, "BRT-SIE").latest.eve_fraction == 0.3
    control.cut(lab, "BRT-SIE")
    latest = control.read(lab, "BRT-SIE").latest
    assert latest.cut
    assert latest.eve_fraction == 0.3
    assert control.read(lab, "ERD-GUD") == Control()


def test_a_change_takes_effect_only_when_both_ends_have_had_two_looks_at_the_file(lab: Path) -> None:
    written_ns = time.monotonic_ns()
    state = control.cut(lab, "BRT-SIE")
    assert not state.at(written_ns + 2 * control.POLL_NS).cut
    assert state.at(time.monotonic_ns() + control.EFFECT_DELAY_NS).cut


def test_restoring_mends_the_fibre_and_takes_the_eavesdropper_away_but_keeps_faults(lab: Path) -> None:
    control.cut(lab, "BRT-SIE")
    control.set_eve(lab, "BRT-SIE", 1.0)
    control.add_fault(lab, "BRT-SIE", Fault(name=FaultName.LATE, number=3))
    state = control.restore(lab, "BRT-SIE")
    assert not state.latest.cut
    assert state.latest.eve_fraction == 0.0
    assert [fault.name for fault in state.faults] == ["late"]
    assert control.clear_faults(lab, "BRT-SIE").faults == ()


def test_a_lab_that_starts_again_finds_its_links_untouched(lab: Path) -> None:
    control.cut(lab, "BRT-SIE")
    assert control.reset(lab, "BRT-SIE") == Control() == control.read(lab, "BRT-SIE")


def test_the_times_of_a_period_add_up_to_it() -> None:
    state = Control(changes=(Change(at_ns=10), Change(at_ns=30, cut=True), Change(at_ns=40)))
    assert [(duration, fibre.cut) for duration, fibre in state.during(20, 50)] == [(10, False), (10, True), (10, False)]
    assert [(duration, fibre.cut) for duration, fibre in state.during(32, 38)] == [(6, True)]
    assert sum(duration for duration, _ in state.during(0, 1000)) == 1000


def test_two_writers_at_once_lose_no_change(lab: Path) -> None:
    def write(node: str) -> None:
        for number in range(10):
            control.add_fault(lab, "BRT-SIE", Fault(name=FaultName.LATE, number=number, node=node))

    writers = [threading.Thread(target=write, args=(node,)) for node in ("BRT", "SIE")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    faults = control.read(lab, "BRT-SIE").faults
    assert len(faults) == 20 == len({(fault.node, fault.number) for fault in faults})


def test_the_history_of_changes_is_bounded(lab: Path) -> None:
    for _ in range(control.CHANGES_KEPT + 5):
        state = control.cut(lab, "BRT-SIE")
    assert len(state.changes) == control.CHANGES_KEPT
    assert state.latest.cut


@pytest.mark.parametrize("fraction", [-0.1, 1.01, float("nan")])
def test_an_impossible_share_of_pulses_is_refused_and_nothing_is_written(lab: Path, fraction: float) -> None:
    with pytest.raises(ControlError, match="between 0 and 1"):
        control.set_eve(lab, "BRT-SIE", fraction)
    assert control.read(lab, "BRT-SIE") == Control()


@pytest.mark.parametrize("link_id", ["BRT-FRM", "../links/BRT-SIE", "", ".", "a/b"])
def test_a_link_that_the_lab_does_not_have_is_refused_with_those_it_has(lab: Path, link_id: str) -> None:
    with pytest.raises(ControlError, match="BRT-SIE, ERD-GUD"):
        control.cut(lab, link_id)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("not json", "malformed"),
        ('{"cutt": true}', "cutt"),
        (json.dumps({"changes": [{"at_ns": 1, "eve_fraction": 2.0}]}), "eve_fraction = 2.0"),
        (json.dumps({"changes": [{"at_ns": 5}, {"at_ns": 5}]}), "order"),
        (json.dumps({"faults": [{"name": "melted", "number": 1}]}), "melted"),
        (json.dumps({"faults": [{"name": "late", "number": -1}]}), "number = -1"),
        (json.dumps({"faults": [{"name": "late", "number": 1, "count": 0}]}), "count = 0"),
        (json.dumps({"faults": [{"name": "late", "number": n} for n in range(65)]}), "65 faults"),
        (" " * (control.CONTROL_FILE_LIMIT_BYTES + 1), "more than"),
    ],
)
def test_a_file_that_is_not_legal_is_refused_and_says_why(lab: Path, body: str, complaint: str) -> None:
    (lab / "links" / "BRT-SIE" / control.CONTROL_FILE).write_text(body)
    with pytest.raises(ControlError, match=complaint):
        control.read(lab, "BRT-SIE")


def test_a_sixty_fifth_fault_is_refused_when_it_is_added(lab: Path) -> None:
    for number in range(control.FAULT_LIMIT):
        control.add_fault(lab, "BRT-SIE", Fault(name=FaultName.LATE, number=number))
    with pytest.raises(ControlError, match="clear some first"):
        control.add_fault(lab, "BRT-SIE", Fault(name=FaultName.LATE, number=99))
    assert len(control.read(lab, "BRT-SIE").faults) == control.FAULT_LIMIT
