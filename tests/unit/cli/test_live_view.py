"""The live view of a demo as a terminal shows it, wide and narrow, with links that are down and nodes that ended."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from keyhop.cli.live import View
from keyhop.emulator import demo as demos
from keyhop.emulator.demo import Demo
from keyhop.simulator import topology

LONG = "key manager BRT is not connected: it refuses the certificate of this node: certificate expired"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return demos.prepare(topology.load_named("secoqc"), tmp_path_factory.mktemp("live") / "demo")


@pytest.fixture
def running(made: Demo) -> Demo:
    for link in made.links.values():
        link.state, link.reason, link.qber, link.skr_bps = "suspended", "QBER 15.7 % above 11.0 %", 0.157, 10_000.0
        link.stored_bytes, link.capacity_bytes = 404_000, 2_000_000
    for conversation in made.conversations:
        conversation.path, conversation.keys = ("STP", "BRT", "ERD", "FRM"), 3
        conversation.last_key_id, conversation.last_key_at = "a73ca60b", time.monotonic() - 10
        conversation.last_text, conversation.messages = "message 17 from sae-stp", 17
    made.dead.clear()
    return made


def lines(view: View, columns: int, rows: int) -> list[str]:
    console = Console(width=columns, height=rows, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(view.screen(columns))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_every_link_and_application_is_whole_on_a_line_of_its_own(running: Demo, columns: int) -> None:
    shown = lines(View(running), columns, 24)
    assert len(shown) == 24 and max(map(len, shown)) <= columns
    for link in running.links.values():
        (row,) = [line for line in shown if "─".join(link.ends) in line and "suspended" in line]
        assert "15.7 %" in row and "10.0 kb/s" in row and "404 kB" in row
    for conversation in running.conversations:
        (row,) = [line for line in shown if line.startswith(f"{conversation.name} ") and "⇄" in line]
        assert "STP─BRT─ERD─FRM" in row and "a73ca60b… 10 s" in row
    assert "[q] quit" in shown[-1]


def test_in_80_columns_the_usual_remark_is_whole(running: Demo) -> None:
    shown = lines(View(running), 80, 24)
    assert sum("kB  QBER 15.7 % above 11.0 %" in line for line in shown) == len(running.links)


def test_a_remark_too_long_for_its_column_is_cut_and_stands_whole_below_for_the_chosen_link(running: Demo) -> None:
    view = View(running)
    running.links[view.order[0]].reason = LONG
    shown = lines(view, 120, 24)
    assert any(line.startswith("▸ BRT─ERD") and line.endswith("…") for line in shown)
    assert f"{view.order[0]}: {LONG}" in shown
    view.press("j")
    assert f"{view.order[0]}: {LONG}" not in lines(view, 120, 24)


def test_a_node_that_ended_takes_one_line_and_pushes_no_key_away(running: Demo) -> None:
    running.dead["BRT"] = "node BRT (process 7) was ended by SIGKILL\n  last lines of /x/log:\n" + '    {"a": 1}\n' * 8
    shown = lines(View(running), 80, 24)
    assert "node BRT (process 7) was ended by SIGKILL" in shown
    assert not any("last lines" in line for line in shown)
    assert "[q] quit" in shown[-1]


def test_on_few_lines_what_can_be_done_stays_in_sight(running: Demo) -> None:
    shown = lines(View(running), 80, 12)
    assert len(shown) == 12 and "[q] quit" in shown[-1] and "LINK" in shown[1]


def test_applications_without_a_path_say_so(running: Demo) -> None:
    running.conversations[0].path = ()
    assert any("none now" in line for line in lines(View(running), 80, 24))


def test_the_picture_of_the_documents_has_everything(running: Demo, tmp_path: Path) -> None:
    console = Console(width=80, file=io.StringIO(), record=True, color_system=None)
    console.print(View(running).render())
    text = console.export_text()
    assert "[q] quit" in text and "do not protect real data" in text and text.count("suspended") == len(running.links)
