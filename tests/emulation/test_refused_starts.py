"""A real node that must not start, or must not be talked to: it says what is wrong and changes nothing on its disk."""

from __future__ import annotations

import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from programs import KEYHOP, end_all_in, environment, keyhop, started, until
from small_labs import PAIR, exchange, heard, kill, make

from keyhop import Kme, NotAuthorised
from keyhop.daemon import pki
from keyhop.emulator import inspection, network
from keyhop.emulator import lab as labs
from keyhop.emulator.lab import NODE_FILE, Lab
from keyhop.emulator.processes import NodeFailure
from keyhop.wire.manage import LinkState

pytestmark = pytest.mark.emulation

START_S = 15.0
CLOSED_S = 1.0
"""A link that may open does so in a tenth of a second."""
LONG_AGO = timedelta(days=4000)

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two nodes that have supplied keys and were stopped."""
    place = tmp_path_factory.mktemp("refused")
    lab = make(place, PAIR)
    try:
        labs.start(lab)
        exchange(lab, "sae-a", "sae-b", 5)
        labs.stop(lab)
        yield lab
    finally:
        labs.stop(labs.open_lab(lab.directory))
        end_all_in(place)


@pytest.fixture
def directory(lab: Lab) -> Iterator[Path]:
    """A copy of the directory of `a`, where its node file holds; what a test changes there harms nobody."""
    copy = lab.config("a").parent.with_name("copy-of-a")
    shutil.copytree(lab.config("a").parent, copy)
    yield copy
    shutil.rmtree(copy)


def content(directory: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }


def refused(directory: Path, exit_code: int = 1, config: str = NODE_FILE) -> str:
    """What a start says that must not succeed; nothing in the directory may be another afterwards."""
    before = content(directory)
    done = keyhop(directory, "serve", "--config", directory / config, timeout_s=START_S)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert content(directory) == before
    return done.stderr.replace(str(directory), "HERE")


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def damage_a_row(directory: Path) -> None:
    """One byte of one row, as a disk might lose it: the database itself stays sound."""
    with sqlite3.connect(directory / "store" / "node.db") as database:
        database.execute("UPDATE rows SET value = x'00' WHERE type = 'node'")
    database.close()


def store_of_b(directory: Path) -> None:
    shutil.rmtree(directory / "store")
    shutil.copytree(directory.with_name("b") / "store", directory / "store")


def all_of_b_but_its_file(directory: Path) -> None:
    for name in ("store", "anchor", "node.key"):
        there, here = directory.with_name("b") / name, directory / name
        if there.is_dir():
            shutil.rmtree(here)
            shutil.copytree(there, here)
        else:
            shutil.copy2(there, here)


def test_a_node_that_may_not_open_its_connections_says_so(directory: Path) -> None:
    before = content(directory)
    limited = ["sh", "-c", 'ulimit -n 600; exec "$@"', "sh", *KEYHOP, "serve", "--config", str(directory / NODE_FILE)]
    done = subprocess.run(limited, env=environment(), capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode == 1
    assert "node a cannot start: limits.connections: 512 connections need " in done.stderr
    assert "open files, the system allows 600: raise that to " in done.stderr
    assert content(directory) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda here: shutil.rmtree(here / "store"),
            "there is no store in HERE/store, and a new one cannot be begun: links: b: first_contact "
            "HERE/first-contact-b.key: was loaded and overwritten; make a new one with `keyhop link key a b`",
        ),
        (
            lambda here: (here / "store" / "node.db").unlink(),
            "HERE/store/node.db.slots belongs to a database that is gone or empty: put the database back, or remove "
            "both files to start a new store",
        ),
        (
            lambda here: (here / "store" / "node.db.slots").unlink(),
            "HERE/store/node.db.slots is missing: put it back; the three files of a store belong together",
        ),
        (
            lambda here: (here / "store" / "node.db.log").unlink(),
            "HERE/store/node.db.log is missing: put it back; the three files of a store belong together",
        ),
        (
            lambda here: write(here / "store" / "node.db", b"no database " * 1000),
            "HERE/store/node.db is damaged: file is not a database (SQLITE_NOTADB)",
        ),
        (damage_a_row, "HERE/store/node.db: row node "),
        (store_of_b, "HERE/store/node.db is the store of node b: must be that of a"),
        (all_of_b_but_its_file, "HERE/store/node.db is the store of node b: must be that of a"),
        (
            lambda here: write(here / "node.key", bytes(range(32))),
            "the node key does not open HERE/store/node.db: start with the node key this store was made with",
        ),
        (lambda here: write(here / "node.key", bytes(5)), "node key HERE/node.key has 5 bytes: must be 32"),
        (
            lambda here: (here / "node.key").unlink(),
            "node key HERE/node.key cannot be read: No such file or directory",
        ),
    ],
    ids=[
        "no store", "no database", "no slot file", "no frame log", "no database in its file", "a damaged row",
        "the store of b", "the directory of b", "another node key", "a short node key", "no node key",
    ],
)  # fmt: skip
def test_what_is_not_as_the_node_left_it_is_refused_and_left_alone(
    directory: Path, change: Change, sentence: str
) -> None:
    change(directory)
    said = refused(directory)
    assert said.startswith(f"error: node a cannot start: {sentence}")
    # The last words are the command that comes after it.
    assert said.rstrip().endswith(f"keyhop serve --config HERE/{NODE_FILE}  [exit 1]")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda file: write(file, b"\xff\xfe\x00"), "write UTF-8 text"),
        (lambda file: write(file, b"node: {id: [a"), "check indent, brackets and quotes"),
        (lambda file: write(file, file.read_bytes() + b"lisen: {}\n"), "listen"),
    ],
    ids=["no text", "no YAML", "an unknown key"],
)
def test_a_node_file_that_cannot_be_read_is_named_with_the_command_that_checks_it(
    directory: Path, change: Change, sentence: str
) -> None:
    change(directory / NODE_FILE)
    said = refused(directory, exit_code=2)
    assert said.startswith(f"error: HERE/{NODE_FILE}")
    assert sentence in said
    assert f"keyhop config validate HERE/{NODE_FILE}" in said


@pytest.mark.parametrize(
    ("change", "sentence", "exit_code"),
    [
        (lambda file: file.unlink(), "(No such file or directory)\n  check the name", 5),
        (lambda file: (file.unlink(), file.mkdir()), "(Is a directory)\n  name a file in it", 1),
    ],
    ids=["missing", "a directory"],
)
def test_a_node_file_that_is_none_is_named_without_a_line(
    directory: Path, change: Change, sentence: str, exit_code: int
) -> None:
    change(directory / NODE_FILE)
    said = refused(directory, exit_code=exit_code)
    assert said == f"error: HERE/{NODE_FILE} cannot be read {sentence}  [exit {exit_code}]\n"


# --- two of one -------------------------------------------------------------------------------------------------------


def at_other_addresses(lab: Lab, config: Path, *keep: str) -> Path:
    """The same node at free addresses, but for those listeners that are to stay where they are."""
    node, text = lab.node("a"), config.read_text()
    listeners = [name for name in ("etsi014", "peer", "manage") if name not in keep]
    for name, port in zip(listeners, network.free_ports(len(listeners)), strict=True):
        text = text.replace(getattr(node, name), f"{network.HOST}:{port}")
    other = config.with_name("other.yml")
    other.write_text(text)
    return other


def test_a_second_process_over_one_directory_is_refused_and_the_first_goes_on(lab: Lab) -> None:
    config = lab.config("a")
    other = at_other_addresses(lab, config)
    labs.start(lab)
    try:
        done = keyhop(config.parent, "serve", "--config", other, timeout_s=START_S)
        assert done.returncode == 1
        assert "node.db.slots is in use by another process: one process owns a store" in done.stderr
        assert "stop that one first" in done.stderr
        exchange(lab, "sae-a", "sae-b", 3)
    finally:
        other.unlink()
        labs.stop(lab)


@pytest.mark.parametrize("listener", ["etsi014", "peer", "manage"])
def test_an_address_in_use_is_named_with_its_listener(lab: Lab, directory: Path, listener: str) -> None:
    at_other_addresses(lab, directory / NODE_FILE, listener).rename(directory / NODE_FILE)
    host, port = getattr(lab.node("a"), listener).rsplit(":", 1)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
        taken.listen()
        done = keyhop(directory, "serve", "--config", directory / NODE_FILE, timeout_s=START_S)
    assert done.returncode == 1
    assert f"error: node a cannot start: listen.{listener}: {host}:{port}: Address already in use\n" in done.stderr
    assert "Traceback" not in done.stderr


# --- a lost anchor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["deleted", "of b"])
def test_without_its_anchor_a_node_holds_itself_for_restored_and_says_so(lab: Lab, directory: Path, loss: str) -> None:
    """By design it starts: a lost anchor counts as a restore. What was leased is burnt."""
    anchor = directory / "anchor"
    if loss == "deleted":
        anchor.unlink()
    else:
        shutil.copy2(directory.with_name("b") / "anchor", anchor)
    at_other_addresses(lab, directory / NODE_FILE).rename(directory / NODE_FILE)
    reason = {"deleted": "is missing", "of b": "was made with another node key"}[loss]
    with started(directory, "serve", "--config", directory / NODE_FILE) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if '"node_started"' in line:
                break
    assert '"KH-5101"' in said[0]
    assert f"this node was restored from an old copy: anchor {anchor} " in said[0]
    assert reason in said[0]


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Authorities that nobody here trusts; what they sign looks like ours."""
    directory = tmp_path_factory.mktemp("others") / "pki"
    pki.init(directory, datetime.now(UTC))
    return directory


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[Lab]:
    labs.start(lab)
    yield lab
    labs.stop(lab)


def refusal(pair: Lab, certificate: Path, key: Path) -> NotAuthorised:
    authority = pair.credentials("sae-a")[1]
    address = f"https://{pair.node('a').etsi014}"
    with Kme(address, cert=certificate, key=key, ca=authority) as door, pytest.raises(NotAuthorised) as raised:
        door.get_key("sae-b")
    return raised.value


def test_an_application_with_a_certificate_of_another_authority_is_refused(pair: Lab, others: Path) -> None:
    issued = pki.issue(others, pki.Role.SAE, "sae-a", datetime.now(UTC))
    before = heard(pair, "a", "handshake_refused")
    assert "UNKNOWN_CA" in refusal(pair, issued.certificate, issued.key).message
    until(lambda: heard(pair, "a", "handshake_refused") > before, 5.0, "the line in the log")
    assert '"reason": "certificate verify failed"' in pair.log("a").read_text()


def test_an_application_with_an_expired_certificate_is_refused(pair: Lab, tmp_path: Path) -> None:
    shutil.copytree(pair.pki_directory, tmp_path / "pki")
    issued = pki.issue(tmp_path / "pki", pki.Role.SAE, "sae-a", datetime.now(UTC) - LONG_AGO, force=True)
    assert "CERTIFICATE_EXPIRED" in refusal(pair, issued.certificate, issued.key).message
    exchange(pair, "sae-a", "sae-b", 1)


@pytest.mark.parametrize(
    ("node", "wrong"),
    [("a", "expired"), ("b", "of another authority")],
    ids=["expired, at the end that dials", "of another authority, at the end that is dialled"],
)
def test_a_link_does_not_open_with_a_wrong_certificate_and_does_with_a_right_one(
    pair: Lab, others: Path, tmp_path: Path, node: str, wrong: str
) -> None:
    own = pki.leaf(pair.pki_directory, pki.Role.KME, node)
    shutil.copy(own.certificate, tmp_path / "right.crt")
    shutil.copy(own.key, tmp_path / "right.key")
    kill(pair, node, signal.SIGTERM)
    if wrong == "expired":
        pki.issue(pair.pki_directory, pki.Role.KME, node, datetime.now(UTC) - LONG_AGO, force=True)
    else:
        issued = pki.issue(others, pki.Role.KME, node, datetime.now(UTC), force=True)
        shutil.copy(issued.certificate, own.certificate)
        shutil.copy(issued.key, own.key)
    before = heard(pair, node, "node_started")
    with pytest.raises(NodeFailure, match="is not ready"):
        labs.restart_node(pair, node, timeout_s=0.0)
    until(lambda: heard(pair, node, "node_started") > before, START_S, "the start")
    time.sleep(CLOSED_S)
    assert all(link.state is LinkState.DOWN for view in inspection.look(pair) for link in view.links)
    said = keyhop(pair.directory, "status").stdout
    assert "KH-1201" in said or "all links are down" in said
    assert ("Issue a new one (keyhop pki issue) and restart the node" in said) == (wrong == "expired")
    assert ('"KH-4102"' in pair.log(node).read_text()) == (wrong == "expired")
    why = "certificate has expired" if wrong == "expired" else "unable to get local issuer certificate"
    tells, event = ("b", "peer_refused") if node == "a" else ("a", "peer_not_reached")
    refusals = [line for line in pair.log(tells).read_text().splitlines() if event in line and why in line]
    assert len(refusals) == 1 and '"level": "warning"' in refusals[0] and "127.0.0.1" in refusals[0]
    found = keyhop(pair.directory, "link", "list").stdout
    assert "key manager b is not connected: " in found and "certificate" in found

    shutil.copy(tmp_path / "right.crt", own.certificate)
    shutil.copy(tmp_path / "right.key", own.key)
    kill(pair, node, signal.SIGTERM)
    labs.restart_node(pair, node)
    exchange(pair, "sae-a", "sae-b", 1)
