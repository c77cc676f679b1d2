"""The lab commands over a lab that is down; that nodes really start is shown in tests/emulation."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from keyhop.cli.lab import _first_key
from keyhop.cli.lab import lab as lab_group
from keyhop.emulator import control, devices, network, processes
from keyhop.emulator import lab as labs
from keyhop.simulator import topology

NET = """apiVersion: keyhop/v1
name: mine
nodes:
  alice: {sae: [sae-alice]}
  relay: {}
  bob:   {sae: [sae-bob]}
links:
  - {ends: [alice, relay], length: 25 km, rate: 2 kbps}
  - {ends: [relay, bob], length: 40 km, id: west}
  - {ends: [relay, bob], length: 45 km, id: east}
"""


@pytest.fixture(autouse=True)
def nowhere_near_a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command of these tests may reach a lab that somebody runs on this machine."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv(labs.LAB_VARIABLE, raising=False)
    assert labs.find_lab(empty) is None


@pytest.fixture
def made(tmp_path: Path) -> labs.Lab:
    (tmp_path / "mine.keyhop.yml").write_text(NET)
    plan = devices.plan(topology.load(tmp_path / "mine.keyhop.yml"))
    return network.create(plan, tmp_path / "keyhop-lab")


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(lab_group, [str(word) for word in words])


def on(lab: labs.Lab, *words: str) -> Result:
    return run(*words, "--lab", lab.directory)


def test_eve_cut_and_restore_change_the_link_and_say_so(made: labs.Lab) -> None:
    assert on(made, "eve", "alice-relay", "--fraction", "0.3").stdout == "alice-relay: eve 30%\n"
    assert control.read(made.directory, "alice-relay").latest.eve_fraction == 0.3
    assert on(made, "cut", "alice-relay").stdout == "alice-relay: cut, eve 30%\n"
    assert control.read(made.directory, "alice-relay").latest.cut
    assert on(made, "restore", "alice-relay").stdout == "alice-relay: whole, nobody listens\n"
    assert not control.read(made.directory, "alice-relay").latest.cut


def test_a_link_may_be_named_by_its_ends_in_any_order(made: labs.Lab) -> None:
    assert on(made, "cut", "relay-alice").exit_code == 0
    assert control.read(made.directory, "alice-relay").latest.cut


def test_ends_that_two_links_join_are_ambiguous(made: labs.Lab) -> None:
    result = on(made, "cut", "relay-bob")
    assert result.exit_code == 2
    assert "2 links join relay-bob" in result.stderr
    assert "west, east" in result.stderr


def test_an_eavesdropper_of_usual_size_is_above_the_usual_limit(made: labs.Lab) -> None:
    on(made, "eve", "west")
    fraction = control.read(made.directory, "west").latest.eve_fraction
    assert 0.25 * fraction > topology.QBER_LIMIT


def test_what_was_done_is_told_in_json_too(made: labs.Lab) -> None:
    answer = json.loads(on(made, "cut", "west", "-o", "json").stdout)
    assert answer == {"apiVersion": "keyhop/v1", "link": "west", "cut": True, "eve_fraction": 0.0}


def test_acting_on_a_lab_that_is_down_says_that_it_will_not_last(made: labs.Lab) -> None:
    assert "is down" in on(made, "cut", "west").stderr


def test_a_link_that_is_not_there_is_refused_with_those_that_are(made: labs.Lab) -> None:
    result = on(made, "cut", "alice-bob")
    assert result.exit_code == 5
    for link in ("alice-relay", "west", "east"):
        assert link in result.stderr


@pytest.mark.parametrize("fraction", ["1.1", "-0.1", "much"])
def test_an_impossible_fraction_is_a_wrong_argument(made: labs.Lab, fraction: str) -> None:
    assert on(made, "eve", "west", "--fraction", fraction).exit_code == 2
    assert control.read(made.directory, "west").latest.eve_fraction == 0.0


def test_inspect_shows_every_node_and_link_of_a_lab_that_is_down(made: labs.Lab) -> None:
    on(made, "cut", "west")
    result = on(made, "inspect")
    assert result.exit_code == 0
    for word in ("alice", "relay", "bob", "sae-alice", "west", "east", "25 km", "2.0 kb/s", "cut", "down"):
        assert word in result.stdout


def test_inspect_in_json_has_addresses_files_and_what_is_done_to_links(made: labs.Lab) -> None:
    on(made, "eve", "east", "--fraction", "0.25")
    answer = json.loads(on(made, "inspect", "-o", "json").stdout)
    assert answer["apiVersion"] == "keyhop/v1"
    assert answer["running"] is False
    assert {node["id"]: node["state"] for node in answer["nodes"]} == {"alice": "down", "relay": "down", "bob": "down"}
    assert Path(answer["nodes"][0]["config"]).is_file()
    links = {link["id"]: link for link in answer["links"]}
    assert links["alice-relay"]["rate_bps"] == pytest.approx(2000)
    assert links["east"]["eve_fraction"] == 0.25
    assert links["east"]["seen"] is None


def test_a_node_that_died_is_reported_with_its_last_words_and_exit_seven(made: labs.Lab) -> None:
    log = made.log("relay")
    ended = processes.spawn(["sh", "-c", "echo store: disk full"], log)
    processes.stop([ended])
    labs._record(made, "relay", ended)
    log.write_text("store: disk full\n")
    result = on(made, "inspect")
    assert result.exit_code == 7
    assert "dead" in result.stdout
    assert "store: disk full" in result.stderr
    assert "1 of 3 nodes died" in result.stderr


def test_the_log_of_nodes_that_died_together_is_shown_once(made: labs.Lab) -> None:
    made.state = msgspec.structs.replace(made.state, one_process=True)
    ended = processes.spawn(["true"], made.log("relay"))
    processes.stop([ended])
    for node in ("alice", "relay", "bob"):
        labs._record(made, node, ended)
    made.log("relay").write_text("store: disk full\n")
    result = on(made, "inspect")
    assert result.stderr.count("store: disk full") == 1
    assert all(f"node {node} (process {ended.pid})" in result.stderr for node in ("alice", "relay", "bob"))


def test_down_of_a_lab_that_is_not_up_is_no_error(made: labs.Lab) -> None:
    result = on(made, "down")
    assert result.exit_code == 0
    assert "was not up" in result.stdout


def test_a_graph_can_be_drawn_from_a_lab_a_file_and_a_name(made: labs.Lab, tmp_path: Path) -> None:
    assert on(made, "graph").stdout.startswith("graph LR\n")
    assert 'graph "mine" {' in run("graph", tmp_path / "mine.keyhop.yml", "--format", "dot").stdout
    assert ET.fromstring(run("graph", "secoqc", "--format", "svg").stdout).tag.endswith("svg")
    assert "82 km · 0.6 kb/s" in run("graph", "secoqc").stdout


def test_a_graph_of_an_unknown_format_is_a_wrong_argument() -> None:
    assert run("graph", "secoqc", "--format", "png").exit_code == 2


@pytest.mark.parametrize("command", [["inspect"], ["down"], ["graph"], ["cut", "a-b"]])
def test_without_a_lab_a_command_says_how_to_make_one(command: list[str]) -> None:
    result = run(*command)
    assert result.exit_code == 5
    assert "keyhop lab up secoqc" in result.stderr


def test_up_without_a_network_and_without_a_lab_names_what_to_type() -> None:
    result = run("up")
    assert result.exit_code == 5
    assert "keyhop lab up secoqc" in result.stderr
    assert list(Path.cwd().iterdir()) == []


def test_an_unknown_network_is_refused_with_the_nearest(tmp_path: Path) -> None:
    result = run("up", "secoq", "--dir", tmp_path / "lab")
    assert result.exit_code == 5
    assert "secoqc" in result.stderr
    assert not (tmp_path / "lab").exists()


def test_a_faulty_topology_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "net.keyhop.yml"
    file.write_text(NET.replace("length: 25 km", "lenght: 25 km"))
    result = run("up", file, "--dir", tmp_path / "lab")
    assert result.exit_code == 2
    assert f"{file}:8" in result.stderr
    assert "length" in result.stderr
    assert not (tmp_path / "lab").exists()


def test_a_network_that_cannot_be_emulated_is_refused_by_its_link(tmp_path: Path) -> None:
    file = tmp_path / "net.keyhop.yml"
    file.write_text(
        NET.replace("length: 25 km, rate: 2 kbps", "kind: unknown-length").replace(
            "links:", "kinds:\n  unknown-length: {}\nlinks:"
        )
    )
    result = run("up", file, "--dir", tmp_path / "lab")
    assert result.exit_code == 1
    assert "alice-relay has no rate" in result.stderr


def test_a_place_with_another_lab_is_left_alone(made: labs.Lab) -> None:
    result = run("up", "secoqc", "--dir", made.directory)
    assert result.exit_code == 1
    assert "holds the lab mine" in result.stderr
    assert labs.open_lab(made.directory).state.name == "mine"


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "work"
    place.mkdir()
    (place / "thesis.tex").write_text("mine")
    result = run("up", "secoqc", "--dir", place)
    assert result.exit_code == 1
    assert "not empty" in result.stderr
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("command", ["up", "inspect", "graph", "eve", "cut", "restore", "down"])
def test_every_command_has_an_example_in_its_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"keyhop lab {command}" in result.stdout


def test_the_first_key_is_named_as_it_can_be_typed_here(
    made: labs.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _first_key(made) == "keyhop ping sae-bob --from sae-alice --lab ../keyhop-lab"
    monkeypatch.chdir(tmp_path)
    assert _first_key(made) == "keyhop ping sae-bob --from sae-alice"


def test_a_lab_without_two_applications_names_no_first_key(tmp_path: Path) -> None:
    (tmp_path / "one.keyhop.yml").write_text(NET.replace("{sae: [sae-bob]}", "{}"))
    plan = devices.plan(topology.load(tmp_path / "one.keyhop.yml"))
    assert _first_key(network.create(plan, tmp_path / "other")) is None
