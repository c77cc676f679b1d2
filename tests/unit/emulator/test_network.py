from __future__ import annotations

import dataclasses
import os
import socket
import stat
import sys
import time
from pathlib import Path

import msgspec
import pytest

from keyhop.daemon import linkkey, pki
from keyhop.daemon.configuration import NodeFile, load_node_file
from keyhop.emulator import control, module, network, processes
from keyhop.emulator import lab as labs
from keyhop.emulator.control import CONTROL_FILE
from keyhop.emulator.lab import Lab, LabError
from keyhop.emulator.module import DRIVERS, EmulatedModule, EmulatedSettings
from keyhop.emulator.network import Plan, PlannedLink, PlannedNode
from keyhop.emulator.processes import NodeFailure

PLAN = Plan(
    name="line3",
    title="Three nodes in a line",
    nodes=(
        PlannedNode(id="alice", applications=("sae-alice",), label="Alice", at=(48.2, 16.3)),
        PlannedNode(id="relay"),
        PlannedNode(id="bob", applications=("sae-bob", "sae-carol")),
    ),
    links=(
        PlannedLink(id="alice-relay", ends=("alice", "relay"), block_bytes=1024, block_period_s=8.0, qber_ratio=0.02),
        PlannedLink(id="relay-bob", ends=("relay", "bob"), block_bytes=1024, block_period_s=8.0, qber_ratio=0.02),
        PlannedLink(id="relay-bob.2", ends=("relay", "bob"), block_bytes=512, block_period_s=4.0, qber_ratio=0.02),
    ),
)

NODE = """
import http.server, sys
class Door(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words): pass
print("serving", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Door).serve_forever()
"""


@pytest.fixture(autouse=True)
def no_lab_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(labs.LAB_VARIABLE, raising=False)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return network.create(PLAN, tmp_path / "lab")


def files(lab: Lab) -> dict[str, NodeFile]:
    return {node.id: load_node_file(lab.config(node.id), DRIVERS) for node in lab.state.nodes}


def stand_in(lab: Lab, program: str = NODE) -> object:
    """A program that answers like a ready node, in the place of one."""

    def command(config: Path) -> list[str]:
        manage = lab.node(config.parent.name).manage
        return [sys.executable, "-c", program, manage.rpartition(":")[2]]

    return command


def start(lab: Lab, program: str = NODE) -> None:
    labs.start(lab, timeout_s=10.0, command=stand_in(lab, program))  # type: ignore[arg-type]


def test_every_node_file_is_legal_and_names_files_that_are_there(lab: Lab) -> None:
    for name, file in files(lab).items():
        assert file.node.id == name
        for path in (
            file.listen.etsi014.cert, file.listen.etsi014.client_ca, file.listen.peer.cert, file.listen.peer.client_ca
        ):  # fmt: skip
            assert path.is_file(), path
        for source in (file.listen.etsi014.key, file.listen.peer.key, file.store.node_key):
            assert source.read()


def test_both_ends_of_a_link_name_the_same_module_which_opens_at_both(lab: Lab) -> None:
    named: dict[str | None, set[Path]] = {}
    for name, file in files(lab).items():
        for link in file.links:
            assert isinstance(link.settings, EmulatedSettings)
            named.setdefault(link.id, set()).add(link.settings.directory.resolve())
            assert EmulatedModule(link.settings.directory, name).link.id == link.id
    assert {name: len(directories) for name, directories in named.items()} == {
        "alice-relay": 1, "relay-bob": 1, "relay-bob.2": 1,
    }  # fmt: skip


def test_a_node_is_told_the_rate_of_its_links_and_both_ends_the_same(lab: Lab) -> None:
    told: dict[str | None, set[float | None]] = {}
    for file in files(lab).values():
        for link in file.links:
            told.setdefault(link.id, set()).add(link.settings.rate_bps)
    assert told == {"alice-relay": {1024.0}, "relay-bob": {1024.0}, "relay-bob.2": {1024.0}}


def test_two_neighbours_share_one_secret_however_many_links_they_have(lab: Lab) -> None:
    loaded: dict[str, list[linkkey.LinkKey]] = {}
    for name, file in files(lab).items():
        for link in file.links:
            if link.first_contact is not None:
                path = link.first_contact.path()
                assert path is not None
                loaded.setdefault("-".join(sorted((name, link.to))), []).append(linkkey.read(path))
    assert {pair: len(keys) for pair, keys in loaded.items()} == {"alice-relay": 2, "bob-relay": 2}
    for one, other in loaded.values():
        assert (one.number, one.secret) == (other.number, other.secret)
    assert loaded["alice-relay"][0].number != loaded["bob-relay"][0].number


def test_neighbours_know_where_to_call_each_other(lab: Lab) -> None:
    for file in files(lab).values():
        for peer, address in file.peers.items():
            assert address == files(lab)[peer].listen.peer.address


def test_each_application_has_a_certificate_and_may_share_keys_with_all_others(lab: Lab) -> None:
    everyone = {"sae-alice", "sae-bob", "sae-carol"}
    for file in files(lab).values():
        for application in file.applications:
            assert set(application.peers) == everyone - {application.id}
            issued, authority = lab.credentials(application.id)
            assert pki.show(issued.certificate).identity == pki.identity_uri(pki.Role.SAE, application.id)
            assert authority.is_file()
    assert lab.serving("sae-carol").id == "bob"


def test_all_ports_are_free_on_loopback_and_different(lab: Lab) -> None:
    addresses = [
        address
        for file in files(lab).values()
        for address in (file.listen.etsi014.address, file.listen.peer.address, file.listen.manage.address)
    ]
    assert len(set(addresses)) == 9
    for address in addresses:
        assert address.is_loopback
        with socket.socket() as probe:
            probe.bind((address.host, address.port))


def test_no_secret_of_a_lab_can_be_read_by_others(lab: Lab) -> None:
    assert stat.S_IMODE(lab.directory.stat().st_mode) == 0o700
    secret = [
        path
        for path in lab.directory.rglob("*")
        if path.is_file() and (path.suffix == ".key" or path.name == module.SECRET_FILE)
    ]
    # Three authorities, three nodes, three applications; three node keys; four first contacts; three link secrets.
    assert len(secret) == 3 + 3 + 3 + 3 + 4 + 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}


def test_no_secret_stands_in_a_node_file_or_in_the_lab_file(lab: Lab) -> None:
    written = b"".join(path.read_bytes() for path in lab.directory.rglob("*.yml"))
    written += (lab.directory / labs.LAB_FILE).read_bytes()
    for path in lab.directory.rglob("node.key"):
        assert path.read_bytes() not in written
        assert path.read_bytes().hex().encode() not in written


def test_a_lab_that_was_moved_still_reads(lab: Lab, tmp_path: Path) -> None:
    os.rename(lab.directory, tmp_path / "elsewhere")
    moved = labs.open_lab(tmp_path / "elsewhere")
    for name, file in files(moved).items():
        assert file.listen.peer.cert.is_file()
        for link in file.links:
            assert isinstance(link.settings, EmulatedSettings)
            EmulatedModule(link.settings.directory, name)


def test_a_lab_made_in_a_relative_directory_is_used_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, opened = network.create(PLAN, Path("lab")), labs.open_lab(Path("lab"))
    monkeypatch.chdir("/")
    assert made.config("bob").is_file()
    assert opened.config("bob") == made.config("bob")


def test_what_was_made_is_found_again(lab: Lab) -> None:
    assert labs.open_lab(lab.directory).state == lab.state
    assert labs.find_lab(lab.directory) == lab.directory
    assert labs.find_lab(lab.directory / "nodes" / "bob") == lab.directory


def test_a_lab_is_found_in_the_directories_where_commands_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert labs.find_lab(tmp_path) is None
    made = network.create(PLAN, tmp_path / "keyhop-lab")
    assert labs.find_lab(tmp_path) == made.directory
    monkeypatch.setenv(labs.LAB_VARIABLE, "/elsewhere")
    assert labs.find_lab(tmp_path) == Path("/elsewhere")


def test_a_lab_beside_a_directory_further_up_is_not_meant(tmp_path: Path) -> None:
    network.create(PLAN, tmp_path / "keyhop-demo")
    elsewhere = tmp_path / "somebody" / "works"
    elsewhere.mkdir(parents=True)
    assert labs.find_lab(elsewhere) is None


def test_a_lab_of_another_user_is_neither_found_nor_opened(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert labs.find_lab(lab.directory) is None
    with pytest.raises(LabError, match="belongs to another user"):
        labs.open_lab(lab.directory)


def test_a_stock_that_the_plan_gives_reaches_every_node(tmp_path: Path) -> None:
    lab = network.create(dataclasses.replace(PLAN, stock_bytes=65_536), tmp_path / "lab")
    assert {file.limits.stock_bytes for file in files(lab).values()} == {65_536}


@pytest.mark.parametrize("there", ["lab", "file", "something"])
def test_a_directory_that_is_taken_is_left_alone(tmp_path: Path, there: str) -> None:
    directory = tmp_path / "lab"
    if there == "lab":
        network.create(PLAN, directory)
    elif there == "file":
        directory.write_text("mine")
    else:
        directory.mkdir()
        (directory / "thesis.tex").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LabError, match="--dir"):
        network.create(PLAN, directory)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_network_too_large_for_one_machine_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    nodes = tuple(PlannedNode(id=f"n{number}") for number in range(network.NODE_LIMIT + 1))
    with pytest.raises(LabError, match="201 nodes"):
        network.create(Plan(name="large", nodes=nodes, links=()), tmp_path / "lab")
    assert not (tmp_path / "lab").exists()


def test_a_module_that_cannot_be_is_refused_by_the_name_of_its_link(tmp_path: Path) -> None:
    link = dataclasses.replace(PLAN.links[0], qber_ratio=0.7)
    with pytest.raises(LabError, match=r"alice-relay: qber_ratio = 0.7"):
        network.create(dataclasses.replace(PLAN, links=(link,)), tmp_path / "lab")
    assert not (tmp_path / "lab" / labs.LAB_FILE).exists()


def test_a_directory_without_a_lab_and_a_damaged_lab_are_told_apart(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="holds no lab; make one: keyhop lab up secoqc, or: keyhop lab up FILE"):
        labs.open_lab(tmp_path)
    (lab.directory / labs.LAB_FILE).write_text('{"apiVersion": "keyhop/v1", "nam')
    with pytest.raises(LabError, match="damaged"):
        labs.open_lab(lab.directory)


def test_an_unknown_node_or_application_is_refused_with_those_there_are(lab: Lab) -> None:
    with pytest.raises(LabError, match="alice, relay, bob"):
        lab.node("carol")
    with pytest.raises(LabError, match="sae-alice, sae-bob, sae-carol"):
        lab.serving("sae-dave")


def test_a_lab_starts_its_nodes_remembers_them_and_ends_them(lab: Lab) -> None:
    start(lab)
    try:
        again = labs.open_lab(lab.directory)
        assert again.running
        assert all(again.alive(node.id) for node in again.state.nodes)
        assert labs.deaths(again) == {}
        with pytest.raises(LabError, match="runs already"):
            start(again)
    finally:
        labs.stop(lab)
    again = labs.open_lab(lab.directory)
    assert not again.running
    assert {node.process for node in again.state.nodes} == {None}


def test_a_node_that_does_not_come_up_ends_the_others_and_tells_why(lab: Lab) -> None:
    bob = lab.node("bob").manage.rpartition(":")[2]
    program = f"import sys\nif sys.argv[1] == '{bob}': sys.exit('store: wrong node key')\n" + NODE
    with pytest.raises(NodeFailure, match=r"(?s)node bob .* exit status 1.*wrong node key"):
        start(lab, program)
    assert not labs.open_lab(lab.directory).running


def test_a_node_that_dies_later_is_noticed_with_its_last_words(lab: Lab) -> None:
    start(lab)
    try:
        victim = lab.node("relay").process
        assert victim is not None
        processes.stop([victim], 0.0)
        deaths = labs.deaths(labs.open_lab(lab.directory))
        assert list(deaths) == ["relay"]
        assert "was ended by SIG" in deaths["relay"]
        assert "serving" in deaths["relay"]
    finally:
        labs.stop(lab)


def test_a_port_that_was_taken_meanwhile_is_named_and_nothing_is_started(lab: Lab) -> None:
    host, port = "127.0.0.1", int(lab.node("bob").manage.rpartition(":")[2])
    with socket.socket() as intruder:
        intruder.bind((host, port))
        intruder.listen()
        with pytest.raises(LabError, match=rf"node bob cannot have 127.0.0.1:{port} for manage"):
            start(lab)
    assert not labs.open_lab(lab.directory).running


def test_two_commands_do_not_work_on_one_lab_at_once(lab: Lab) -> None:
    with labs._only_command(lab), pytest.raises(LabError, match="another command works on lab line3"):
        labs.stop(lab)


def test_a_lab_that_starts_again_goes_on_with_its_block_numbers_and_untouched_links(lab: Lab) -> None:
    control.cut(lab.directory, "relay-bob")
    directory = lab.directory / control.LINKS_DIRECTORY / "relay-bob"
    # As after a reboot: the monotonic clock of the first start means nothing any more.
    first = module.read_link(directory)
    module.create(directory, msgspec.structs.replace(first, epoch_ns=first.epoch_ns + 10**15))
    lab.state = msgspec.structs.replace(lab.state, epoch_ns=lab.state.epoch_ns - 80 * 10**9)
    lab.save()
    start(lab)
    labs.stop(lab)
    assert module.read_link(directory).next_number(time.monotonic_ns()) == 10
    assert control.read(lab.directory, "relay-bob") == control.Control()
    assert (directory / CONTROL_FILE).is_file()
