"""Alarms: raised once, counted, ended by what ends them, and every code that is spoken stands in the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import keyhop
from keyhop.core.machine import Notice
from keyhop.daemon.alarm_codes import CODES, MINUTE_S, About
from keyhop.daemon.alarms import ALARMS_LIMIT, Alarms
from keyhop.wire.manage import Alarm, AlarmState, Severity

SOURCE = Path(keyhop.__file__).parent
SPOKEN = re.compile(r'"(KH-\d{4})"')


class Bench:
    def __init__(self) -> None:
        self.now_s = 1_900_000_000.0
        self.alarms = Alarms("alice", {"bob": "west"}, clock=lambda: self.now_s)
        self.changes: list[Alarm] = []
        self.alarms.on_change.append(self.changes.append)

    def notice(self, code: str, peer: str = "bob", text: str = "so it is") -> None:
        self.alarms.noticed(Notice(code, text, peer))

    def active(self) -> list[str]:
        return [alarm.id for alarm in self.alarms.all() if alarm.state is AlarmState.RAISED]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def codes_in(*rooms: str) -> set[str]:
    return {
        code for room in rooms for file in (SOURCE / room).rglob("*.py") for code in SPOKEN.findall(file.read_text())
    }


def test_every_code_the_core_speaks_is_in_the_table() -> None:
    spoken = codes_in("core")
    assert len(spoken) > 15
    assert spoken <= CODES.keys()


def test_no_code_is_in_the_table_that_nobody_speaks() -> None:
    edge = {"KH-2101", "KH-3100", "KH-4101", "KH-4102", "KH-5300", "KH-5301"}
    assert CODES.keys() - codes_in("core") == edge
    files = [file for file in (SOURCE / "daemon").glob("*.py") if file.name != "alarm_codes.py"]
    assert edge <= {code for file in files for code in SPOKEN.findall(file.read_text())}


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_says_why_and_what_to_do(code: str) -> None:
    entry = CODES[code]
    assert entry.title and entry.cause.endswith(".") and entry.remedy.endswith(".")
    assert set(entry.ends) <= CODES.keys()
    assert all(CODES[ended].about is entry.about for ended in entry.ends)


@pytest.mark.parametrize("code", [code for code in sorted(CODES) if not CODES[code].is_news])
def test_an_alarm_is_over_by_time_or_by_another_code_or_only_by_what_a_person_does(code: str) -> None:
    ended = any(code in entry.ends for entry in CODES.values())
    by_hand = {"KH-4102"}
    assert ended or CODES[code].quiet_s is not None or code in by_hand


def test_an_alarm_names_object_cause_and_remedy(bench: Bench) -> None:
    bench.notice("KH-1201", text="link to bob is down")
    (alarm,) = bench.alarms.all()
    assert (alarm.code, alarm.object, alarm.severity) == ("KH-1201", "link west", Severity.MAJOR)
    assert alarm.summary == "link to bob is down"
    assert alarm.cause == CODES["KH-1201"].cause and alarm.remedy == CODES["KH-1201"].remedy
    assert bench.changes == [alarm]


def test_what_comes_again_is_counted_and_told_once(bench: Bench) -> None:
    for text in ("first", "second", "third"):
        bench.notice("KH-1103", text=text)
        bench.now_s += 1
    (alarm,) = bench.alarms.all()
    assert alarm.count == 3 and alarm.summary == "third"
    assert alarm.first_seen_at is not None and alarm.last_seen_at is not None
    assert (alarm.last_seen_at - alarm.first_seen_at).total_seconds() == 2
    assert len(bench.changes) == 1


@pytest.mark.parametrize(
    ("raised", "ends"),
    [
        ("KH-1201", "KH-1200"),
        ("KH-1302", "KH-1200"),
        ("KH-1303", "KH-1200"),
        ("KH-1203", "KH-1205"),
        ("KH-1204", "KH-1205"),
        ("KH-1203", "KH-1204"),
        ("KH-1204", "KH-1203"),
        ("KH-3101", "KH-3100"),
        ("KH-5301", "KH-5300"),
        ("KH-4101", "KH-4102"),
    ],
)
def test_one_code_ends_the_other(bench: Bench, raised: str, ends: str) -> None:
    bench.notice(raised)
    assert bench.alarms.is_active(raised, "bob")
    bench.notice(ends)
    assert not bench.alarms.is_active(raised, "bob")
    over = next(alarm for alarm in bench.changes if alarm.code == raised and alarm.state is AlarmState.CLEARED)
    assert over.count == 1


def test_good_news_raise_nothing(bench: Bench) -> None:
    bench.notice("KH-1200")
    assert bench.alarms.all() == () and bench.changes == []


def test_the_end_of_one_link_s_alarm_is_not_that_of_another(bench: Bench) -> None:
    bench.notice("KH-1201", "bob")
    bench.notice("KH-1201", "carol")
    bench.notice("KH-1200", "carol")
    assert bench.active() == ["KH-1201/link west"]


def test_an_incident_is_over_after_its_time_and_a_new_one_begins_at_one(bench: Bench) -> None:
    bench.notice("KH-3201", "carol")
    bench.notice("KH-3201", "carol")
    bench.now_s += MINUTE_S - 1
    bench.alarms.look()
    assert bench.alarms.is_active("KH-3201", "carol")
    bench.now_s += 1
    bench.alarms.look()
    assert not bench.alarms.is_active("KH-3201", "carol")
    bench.notice("KH-3201", "carol")
    (alarm,) = bench.alarms.all()
    assert alarm.count == 1 and alarm.state is AlarmState.RAISED
    assert [change.state for change in bench.changes] == [AlarmState.RAISED, AlarmState.CLEARED, AlarmState.RAISED]
    assert bench.alarms.totals["KH-3201", "path alice-carol"] == 3


def test_a_link_that_is_down_stays_so_however_long_it_is_quiet(bench: Bench) -> None:
    bench.notice("KH-1201")
    bench.now_s += 30 * 86_400
    bench.alarms.look()
    assert bench.active() == ["KH-1201/link west"]


def test_a_distant_pair_that_is_down_is_no_major_alarm(bench: Bench) -> None:
    bench.notice("KH-1201", "carol")
    bench.notice("KH-3301", "carol")
    found = {alarm.code: alarm for alarm in bench.alarms.all()}
    assert found["KH-1201"].severity is Severity.WARNING and found["KH-1201"].object == "pair alice-carol"
    assert found["KH-3301"].severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("code", "peer", "name"),
    [
        ("KH-5101", "", "node alice"),
        ("KH-3201", "carol", "path alice-carol"),
        ("KH-2101", "sae-alice", "application sae-alice"),
        ("KH-4101", "peer", "certificate peer"),
        ("KH-1103", "bob", "link west"),
    ],
)
def test_the_object_says_what_kind_of_thing_it_is(bench: Bench, code: str, peer: str, name: str) -> None:
    bench.notice(code, peer)
    assert bench.alarms.all()[0].object == name


def test_the_gravest_come_first_and_what_is_over_last(bench: Bench) -> None:
    for code in ("KH-1102", "KH-1201", "KH-3301", "KH-1203"):
        bench.notice(code)
        bench.now_s += 1
    bench.notice("KH-1200")
    assert [alarm.code for alarm in bench.alarms.all()] == ["KH-3301", "KH-1203", "KH-1102", "KH-1201"]
    assert bench.alarms.active()[Severity.MAJOR] == 1


def test_a_flood_of_alarms_costs_old_ones_that_are_over_first(bench: Bench) -> None:
    bench.notice("KH-1201")
    for number in range(ALARMS_LIMIT + 50):
        bench.now_s += 1
        bench.notice("KH-3101", f"node{number}")
        if number % 2:
            bench.notice("KH-3100", f"node{number}")
    found = {alarm.id for alarm in bench.alarms.all()}
    assert len(found) == ALARMS_LIMIT
    assert {"KH-1201/link west", "KH-3101/path alice-node0"} <= found
    assert "KH-3101/path alice-node1" not in found


def test_a_code_that_is_not_in_the_table_is_our_own_bug(bench: Bench) -> None:
    with pytest.raises(KeyError):
        bench.notice("KH-9999")


def test_every_kind_of_object_is_used() -> None:
    assert {entry.about for entry in CODES.values()} == set(About)
