"""A lab of three real nodes over real TLS: what is done to its links reaches the applications as it should."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.emulation.programs import until
from tests.emulation.small_labs import heard, kme, make, running

from keyhop import KeyhopError
from keyhop.emulator import control, inspection, module, processes
from keyhop.emulator import lab as labs
from keyhop.emulator.control import Fault, FaultName
from keyhop.emulator.lab import Lab
from keyhop.wire.manage import LinkState

NET = """apiVersion: keyhop/v1
name: mini
nodes:
  alice: {sae: [sae-alice]}
  relay: {}
  bob:   {sae: [sae-bob]}
links:
  - {id: west, ends: [alice, relay], length: 25 km, rate: 40 kbps}
  - {id: east, ends: [relay, bob], length: 40 km, rate: 40 kbps}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = make(tmp_path_factory.mktemp("emulation"), NET)
    with running(lab):
        yield lab


def exchange(lab: Lab, count: int, timeout_s: float = 20.0) -> None:
    """So many keys, each the same at both ends; what is refused meanwhile is asked for again."""
    deadline = time.monotonic() + timeout_s
    with kme(lab, "sae-alice") as alice, kme(lab, "sae-bob") as bob:
        while count:
            try:
                key = alice.get_key("sae-bob")
            except KeyhopError:
                assert time.monotonic() < deadline, f"{count} keys are missing"
                time.sleep(0.1)
                continue
            assert bob.fetch_key("sae-alice", key.id) == key
            count -= 1


def states(lab: Lab, link: str) -> set[LinkState]:
    """What both ends say of a link."""
    return {seen.state for view in inspection.look(lab) for seen in view.links if seen.id == link}


def test_keys_cross_a_trusted_node(lab: Lab) -> None:
    exchange(lab, 10)


def test_an_eavesdropper_suspends_the_link_and_what_is_stored_is_still_served(lab: Lab) -> None:
    control.set_eve(lab.directory, "west", 0.6)
    until(lambda: states(lab, "west") == {LinkState.SUSPENDED})
    exchange(lab, 3)
    control.restore(lab.directory, "west")
    until(lambda: states(lab, "west") == {LinkState.UP})


def test_a_cut_fibre_is_seen_at_both_ends_and_mended(lab: Lab) -> None:
    control.cut(lab.directory, "east")
    until(lambda: LinkState.UP not in states(lab, "east"))
    control.restore(lab.directory, "east")
    until(lambda: states(lab, "east") == {LinkState.UP})
    exchange(lab, 3)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (FaultName.FLIPPED_BIT, "KH-1103"),
        (FaultName.DIFFERENT_LENGTH, "KH-1103"),
        (FaultName.DUPLICATE_AFTER_RESTART, "KH-1102"),
        (FaultName.RESTART_LOSES, "KH-1204"),
        (FaultName.ONE_SIDED, ""),
        (FaultName.LATE, ""),
        (FaultName.REORDERED, ""),
    ],
)
def test_what_a_faulty_module_does_never_becomes_two_different_keys(lab: Lab, name: FaultName, code: str) -> None:
    emulated = module.read_link(lab.directory / control.LINKS_DIRECTORY / "west")
    before = heard(lab, "alice", code) if code else 0
    first = emulated.next_number(time.monotonic_ns()) + 1
    control.add_fault(lab.directory, "west", Fault(name=name, number=first, count=3))
    until(lambda: emulated.next_number(time.monotonic_ns()) > first + 5)
    if code:
        until(lambda: heard(lab, "alice", code) > before)
    control.clear_faults(lab.directory, "west")
    exchange(lab, 5)


def test_a_node_that_is_killed_is_noticed_and_serves_again_after_a_start(lab: Lab) -> None:
    relay = lab.node("relay").process
    assert relay is not None
    processes.stop([relay], 0.0)
    views = {view.node.id: view for view in inspection.look(labs.open_lab(lab.directory))}
    assert views["relay"].state == "dead"
    assert views["alice"].state in {"up", "starting"}
    assert list(labs.deaths(lab)) == ["relay"]
    labs.restart_node(lab, "relay")
    assert labs.deaths(lab) == {}
    exchange(lab, 3)


def keyhop(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from keyhop.cli.main import main; main()", "lab", *words]
    # These commands start and end nodes: they must find no lab but the one in this directory.
    environment = {name: value for name, value in os.environ.items() if name != labs.LAB_VARIABLE}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_commands_bring_a_lab_up_find_it_and_take_it_down_again(tmp_path: Path) -> None:
    (tmp_path / "mini.keyhop.yml").write_text(NET)
    up = keyhop(tmp_path, "up", "mini.keyhop.yml", "-o", "json")
    try:
        assert up.returncode == 0, up.stderr
        assert {node["state"] for node in json.loads(up.stdout)["nodes"]} == {"up"}
        assert keyhop(tmp_path, "cut", "east").stdout == "east: cut\n"
        found = json.loads(keyhop(tmp_path, "inspect", "-o", "json").stdout)
        assert found["running"] is True
        assert {link["id"]: link["cut"] for link in found["links"]} == {"west": False, "east": True}
        again = keyhop(tmp_path, "up")
        assert again.returncode == 1
        assert "runs already" in again.stderr
    finally:
        down = keyhop(tmp_path, "down", "--lab", str(tmp_path / "keyhop-lab"), "-o", "json")
    assert sorted(json.loads(down.stdout)["ended"]) == ["alice", "bob", "relay"]
    assert json.loads(down.stdout)["killed"] == []
    assert not labs.open_lab(tmp_path / "keyhop-lab").running


def test_a_lab_that_was_taken_down_goes_on_with_the_key_it_has(tmp_path: Path) -> None:
    lab = make(tmp_path, NET)
    labs.start(lab)
    try:
        exchange(lab, 3)
        until(lambda: sum(heard(lab, node, "KH-1102") for node in ("alice", "relay", "bob")) == 0)
    finally:
        assert labs.stop(lab) == []
    labs.start(lab)
    try:
        exchange(lab, 3)
        # Neither the prefill nor any block is delivered a second time.
        assert sum(heard(lab, node, "KH-1102") for node in ("alice", "relay", "bob")) == 0
    finally:
        labs.stop(lab)


def test_nodes_in_one_process_deliver_the_same_and_end_together(tmp_path: Path) -> None:
    lab = make(tmp_path, NET)
    labs.start(lab, one_process=True)
    try:
        assert len({node.process for node in lab.state.nodes}) == 1
        exchange(lab, 3)
        process = lab.node("relay").process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: set(labs.deaths(lab)) == {"alice", "relay", "bob"})
        assert "ran in the process of alice" in labs.deaths(lab)["bob"]
        labs.stop(lab)
        labs.start(lab, one_process=True)
        exchange(lab, 1)
    finally:
        assert labs.stop(lab) == []
