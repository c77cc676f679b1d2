"""The commands, asked of a lab of three real nodes: answers in every form, exit codes, and sentences that help."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from programs import end_all_in, keyhop, running_in, until
from ruamel.yaml import YAML

from keyhop.cli.main import cli
from keyhop.emulator import lab as labs
from keyhop.emulator import processes

pytestmark = pytest.mark.emulation

NET = """apiVersion: keyhop/v1
name: mini
nodes:
  alice: {label: Alice's office, sae: [sae-alice, sae-aida]}
  relay: {}
  bob:   {sae: [sae-bob]}
links:
  - {id: west, ends: [alice, relay], length: 25 km, rate: 40 kbps}
  - {id: east, ends: [relay, bob], length: 40 km, rate: 40 kbps}
"""
NODES = ["alice", "bob", "relay"]
KEY_BYTES = 32
NOBODYS_KEY = "7f3c9a1e-6c3e-4f57-9b20-1e7a5c9d3f60"
BATCH = ("-n", "128", "--size", "8192")
"""128 KiB at once: the largest request there is."""

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a lab that a person brought up in it."""
    place = tmp_path_factory.mktemp("cli")
    (place / "mini.keyhop.yml").write_text(NET)
    up = keyhop(place, "lab", "up", "mini.keyhop.yml")
    try:
        assert up.returncode == 0, up.stderr
        until(lambda: keyhop(place, "ping", "sae-bob", "--from", "sae-alice").returncode == 0, 15.0, "a key")
        yield place
    finally:
        keyhop(place, "lab", "down")
        end_all_in(place)


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in the directory of the lab, in this process: a test has many."""
    for name in [name for name in os.environ if name.startswith("KEYHOP") or name == "NO_COLOR"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(place)

    def call(*words: str | Path) -> Result:
        return CliRunner().invoke(cli, [str(word) for word in words], prog_name="keyhop")

    return call


def good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(result: Result) -> Any:
    found = json.loads(good(result))
    assert found["apiVersion"] == "keyhop/v1"
    return found


def heads(result: Result) -> list[str]:
    return good(result).splitlines()[0].split()


def refused(result: Result, exit_code: int, *sentences: str) -> None:
    """Nothing on stdout; what, why and what to do, with the exit code, on stderr."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    what, next_step = result.stderr.rstrip("\n").split("\n", 1)
    assert next_step.endswith(f"exit {exit_code}]")
    assert len(next_step.strip().partition("  [")[0]) > len("see: x")
    for sentence in sentences:
        assert sentence in result.stderr
    assert what != "error: "


def shape(plain: Any) -> Any:
    """Names without values: what may change between two questions."""
    if isinstance(plain, dict):
        return {name: shape(value) for name, value in plain.items()}
    return [shape(value) for value in plain[:1]] if isinstance(plain, list) else None


# --- looking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("link", "list"),
        ("link", "show", "west"),
        ("pool", "list"),
        ("pool", "show", "relay"),
        ("sae", "list"),
        ("sae", "show", "sae-alice"),
        ("route", "list"),
        ("route", "show", "alice", "bob"),
        ("lab", "inspect"),
        ("lab", "graph"),
        ("key", "status", "sae-bob", "--from", "sae-alice"),
        ("version",),
    ],
    ids=" ".join,
)
def test_every_answer_comes_as_table_as_json_and_as_yaml_with_the_same_members(
    run: Run, words: tuple[str, ...]
) -> None:
    table = good(run(*words))
    assert table.strip()
    assert "\x1b[" not in table
    as_json = answer(run(*words, "-o", "json"))
    as_yaml = YAML(typ="safe", pure=True).load(io.StringIO(good(run("-o", "yaml", *words))))
    assert shape(as_yaml) == shape(as_json)


def test_status_shows_every_node_of_the_lab_and_ends_with_0_when_all_is_well(run: Run) -> None:
    result = run("status")
    assert heads(result) == [
        "NODE", "HEALTH", "READY", "LINKS", "STORED", "DELIVERED", "REFUSED", "ALARMS", "UPTIME",
    ]  # fmt: skip
    rows = [line.split() for line in result.stdout.splitlines()[1:4]]
    assert sorted(row[:3] for row in rows) == [[node, "healthy", "yes"] for node in NODES]
    assert "do not protect real data" in result.stdout
    found = answer(run("status", "-o", "json"))
    assert sorted(node["node"] for node in found["nodes"]) == NODES
    assert found["silent"] == []
    assert all(node["emulated"] and node["links_up"] == node["links_total"] for node in found["nodes"])


def test_status_of_one_node_is_asked_by_its_address(run: Run, place: Path) -> None:
    address = labs.open_lab(place / "keyhop-lab").node("bob").manage
    found = answer(run("status", "--address", address, "-o", "json"))
    assert found["node"] == "bob"


def test_links_show_what_the_module_and_the_pool_give(run: Run) -> None:
    assert heads(run("link", "list")) == ["LINK", "STATE", "QBER", "SKR", "NET", "POOL", "AGE"]
    found = {link["id"]: link for link in answer(run("link", "list", "-o", "json"))["links"]}
    assert sorted(found) == ["east", "west"]
    west = found["west"]
    assert west["ends"] == ["alice", "relay"]
    assert west["state"] == "up"
    assert 0.0 < west["qber"] < 0.11
    assert west["skr_bps"] == pytest.approx(40_000, rel=0.05)
    assert 0 < west["stored_bytes"] <= west["capacity_bytes"]
    assert {stock["owner"] for stock in west["stock"]} == {"alice", "relay"}


@pytest.mark.parametrize("name", ["west", "alice-relay", "relay-alice"])
def test_a_link_and_its_pool_are_found_by_id_and_by_ends(run: Run, name: str) -> None:
    assert re.search(r"^link +west$", good(run("link", "show", name)), re.MULTILINE)
    pools = answer(run("pool", "show", name, "-o", "json"))["pools"]
    assert [{pool["node"], pool["peer"]} for pool in pools] == [{"alice", "relay"}]


def test_pools_show_link_key_and_relayed_key(run: Run) -> None:
    assert heads(run("pool", "list"))[:4] == ["NODE", "PEER", "KIND", "STORED"]
    found = {(pool["node"], pool["peer"]): pool for pool in answer(run("pool", "list", "-o", "json"))["pools"]}
    kinds = {pair: pool["kind"] for pair, pool in found.items()}
    assert kinds[("alice", "relay")] == kinds[("relay", "bob")] == "link"
    assert kinds[("alice", "bob")] == kinds[("bob", "alice")] == "relayed"
    assert found[("alice", "bob")]["stored_bytes"] > 0
    assert found[("relay", "bob")]["flows"]["authentication_bytes"] > 0
    # What a trusted node forwards is not its own.
    assert ("relay", "alice-bob") not in found


def test_routes_show_the_path_and_why(run: Run) -> None:
    assert heads(run("route", "list")) == ["FROM", "TO", "PATH", "HOPS", "COST", "FEASIBLE"]
    text = good(run("route", "show", "sae-alice", "sae-bob", "--why"))
    assert text.startswith("chosen  alice-relay-bob  cost ")
    assert "narrowest link" in text
    chosen = answer(run("route", "show", "alice", "bob", "-o", "json"))["chosen"]
    assert chosen["path"] == ["alice", "relay", "bob"]
    assert chosen["hops"] == 2


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_got_at_one_end_and_fetched_once_at_the_other(run: Run) -> None:
    got = answer(run("key", "get", "sae-bob", "--from", "sae-alice", "-n", "2", "--reveal", "-o", "json"))["keys"]
    assert [key["size_bits"] for key in got] == [256, 256]
    ids = [key["key_id"] for key in got]
    assert all(UUID(name).version == 4 for name in ids)
    fetched = answer(run("key", "fetch", "sae-alice", *ids, "--from", "sae-bob", "--reveal", "-o", "json"))["keys"]
    assert fetched == got
    assert all(len(base64.b64decode(key["key"])) == KEY_BYTES for key in got)
    again = run("key", "fetch", "sae-alice", ids[0], "--from", "sae-bob")
    refused(again, 5, "no such key of sae-alice", "each key is given once", "KH-2102")
    shown = answer(run("sae", "show", "sae-bob", "-o", "json"))["application"]
    assert shown["delivered_dec"] >= 2
    assert shown["last_path"] in (["alice", "relay", "bob"], ["bob", "relay", "alice"])


def test_a_key_is_not_shown_unless_asked_for(run: Run) -> None:
    result = run("key", "get", "sae-bob", "--from", "sae-alice", "--size", "512")
    assert heads(result) == ["KEY", "ID", "SIZE"]
    assert re.fullmatch(r"KEY ID +SIZE\n[0-9a-f-]{36}  512 bit\n", result.stdout)
    assert "--reveal" in result.stderr
    assert set(answer(run("key", "get", "sae-bob", "--from", "sae-alice", "-o", "json"))["keys"][0]) == {
        "key_id", "size_bits",
    }  # fmt: skip


def test_key_status_tells_what_may_be_asked_for(run: Run) -> None:
    found = answer(run("key", "status", "sae-bob", "--from", "sae-alice", "-o", "json"))
    assert (found["master"], found["slave"]) == ("sae-alice", "sae-bob")
    assert (found["source_kme"], found["target_kme"]) == ("alice", "bob")
    assert found["stored_keys"] > 0
    assert (found["min_key_size_bits"], found["key_size_bits"], found["max_key_size_bits"]) == (64, 256, 8192)


def test_an_application_outside_a_lab_gives_its_own_files(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = labs.open_lab(place / "keyhop-lab")
    issued, authority = lab.credentials("sae-alice")
    monkeypatch.chdir("/")
    files = ("--cert", issued.certificate, "--key", issued.key, "--ca", authority)
    assert answer(run("key", "get", "sae-bob", "--address", lab.node("alice").etsi014, *files, "-o", "json"))["keys"]
    monkeypatch.setenv("KEYHOP_ADDR", f"https://{lab.node('alice').etsi014}")
    monkeypatch.setenv("KEYHOP_CERT", str(issued.certificate))
    monkeypatch.setenv("KEYHOP_KEY", str(issued.key))
    monkeypatch.setenv("KEYHOP_CA", str(authority))
    assert "deliverable" in good(run("key", "status", "sae-bob"))


def test_ping_compares_both_ends_and_shows_the_path(run: Run) -> None:
    lines = good(run("ping", "sae-bob", "--from", "sae-alice", "-c", "3")).splitlines()
    assert len(lines) == 3
    for line in lines:
        assert re.fullmatch(
            r"key [0-9a-f]{8}…  256 bit  alice → relay → bob  2 hops  \d+ ms  same at both ends  trusted nodes: relay",
            line,
        )
    found = answer(run("ping", "sae-alice", "--from", "sae-bob", "-o", "json"))
    assert found["path"] == ["bob", "relay", "alice"]
    assert [key["equal"] for key in found["keys"]] == [True]


def test_two_applications_of_one_node_share_keys_without_a_path(run: Run) -> None:
    assert "same at both ends" in good(run("ping", "sae-aida", "--from", "sae-alice"))


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        (("link", "show", "north"), ("no such link: north", "see: keyhop link list")),
        (("link", "show", "alice-bob"), ("no such link: alice-bob", "see: keyhop link list")),
        (("pool", "show", "carol"), ("no such pool: carol", "see: keyhop pool list")),
        (("sae", "show", "sae-carol"), ("no such application: sae-carol", "see: keyhop sae list")),
        (("route", "show", "alice", "carol"), ("carol", "see: keyhop route list")),
        (("key", "get", "sae-carol", "--from", "sae-alice"), ("no application sae-carol", "see: keyhop sae list")),
        (("key", "get", "sae-bob", "--from", "sae-carol"), ("no application 'sae-carol'", "sae-alice")),
        (("key", "fetch", "sae-alice", NOBODYS_KEY, "--from", "sae-bob"), ("no such key of sae-alice", "fresh key")),
        (("lab", "cut", "north"), ("no link north", "west, east")),
        (("lab", "graph", "nowhere"), ("nowhere",)),
        (("link", "list", "--lab", "/nowhere"), ("/nowhere holds no lab", "keyhop lab up")),
    ],
    ids=lambda words: " ".join(words) if isinstance(words[0], str) else "",
)
def test_what_is_not_there_ends_with_5(run: Run, words: tuple[str, ...], sentences: tuple[str, ...]) -> None:
    refused(run(*words), 5, *sentences)


@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        (("link", "list", "-o", "xml"), ("xml", "table")),
        (("lab", "eve", "west", "--fraction", "3"), ("fraction", "0.0<=x<=1.0")),
        (("key", "get", "sae-bob", "--from", "sae-alice", "-n", "0"), ("-n",)),
        (("key", "get", "sae-bob"), ("no application to ask for", "--from")),
        (("status", "--address", "nonsense"), ("nonsense", "host:port")),
        (("link",), ()),
        (("linkk", "list"), ("linkk",)),
    ],
    ids=lambda words: " ".join(words) if words and isinstance(words[0], str) else "",
)
def test_what_is_asked_wrongly_ends_with_2(run: Run, words: tuple[str, ...], sentences: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert all(sentence in result.stderr for sentence in sentences)


def test_what_the_standard_refuses_ends_with_1_and_says_what_is_allowed(run: Run) -> None:
    asking = ("key", "get", "sae-bob", "--from", "sae-alice")
    refused(run(*asking, "--size", "16384"), 1, "8192", "keyhop key status sae-bob", "KH-2104")
    refused(run(*asking, "-n", "500"), 1, "1 to 128", "keyhop key status sae-bob", "KH-2104")
    refused(run("key", "fetch", "sae-alice", "nonsense", "--from", "sae-bob"), 2, "UUID")


def test_who_may_not_have_keys_ends_with_4(run: Run, place: Path) -> None:
    result = run("key", "get", "sae-alice", "--from", "sae-alice")
    refused(result, 4, "not authorised: sae-alice → sae-alice", "keyhop sae list", "KH-4102")
    assert run("pki", "init", "--dir", "stranger").exit_code == 0
    assert run("pki", "issue", "sae", "sae-alice", "--dir", "stranger").exit_code == 0
    lab = labs.open_lab(place / "keyhop-lab")
    _, authority = lab.credentials("sae-alice")
    certificate, key = (next((place / "stranger").rglob(f"sae-alice.{kind}")) for kind in ("crt", "key"))
    files = ("--cert", certificate, "--key", key, "--ca", authority, "--address", lab.node("alice").etsi014)
    refused(run("key", "get", "sae-bob", *files), 4, "certificate", "keyhop pki show", "KH-4102")


def test_nobody_at_the_address_ends_with_3(run: Run) -> None:
    refused(run("status", "--address", "127.0.0.1:1"), 3, "127.0.0.1:1", "refused", "is it running?")
    there = ("--from", "sae-alice", "--address", "127.0.0.1:1")
    refused(run("key", "get", "sae-bob", *there), 3, "cannot be reached", "see: keyhop status", "KH-4101")
    refused(run("ping", "sae-bob", *there), 3, "no answer", "see: keyhop status")


def test_a_command_that_finds_no_lab_says_how_to_name_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    refused(run("lab", "inspect"), 5, "no lab here", "keyhop lab up secoqc")
    refused(
        run("key", "get", "sae-bob", "--from", "sae-alice"), 2, "sae-alice is not known here", "give --lab DIRECTORY"
    )


# --- the lab ----------------------------------------------------------------------------------------------------------


def test_an_eavesdropper_and_a_cut_show_in_every_command_until_the_link_is_restored(run: Run) -> None:
    def state(link: str) -> str:
        return str(answer(run("link", "show", link, "-o", "json"))["link"]["state"])

    assert good(run("lab", "eve", "west", "--fraction", "0.6")) == "west: eve 60%\n"
    until(lambda: state("west") == "suspended", 10.0, "the suspension")
    listed = next(line for line in good(run("link", "list")).splitlines() if line.startswith("west "))
    assert re.search(r"suspended +\d\d\.\d% .*QBER \d\d\.\d % above 11\.0 % \(KH-1203\)$", listed)
    until(lambda: run("status").exit_code == 7, 5.0, "the degraded health")
    degraded = run("status")
    assert "degraded" in degraded.stdout
    assert "KH-1203" in degraded.stdout
    inspected = {link["id"]: link for link in answer(run("lab", "inspect", "-o", "json"))["links"]}
    assert (inspected["west"]["eve_fraction"], inspected["west"]["seen"]["state"]) == (0.6, "suspended")
    assert "suspended" in good(run("lab", "graph"))
    # What is in stock stays good.
    assert "same at both ends" in good(run("ping", "sae-bob", "--from", "sae-alice"))

    assert good(run("lab", "restore", "relay-alice")) == "west: whole, nobody listens\n"
    assert good(run("lab", "cut", "bob-relay")) == "east: cut\n"
    until(lambda: state("west") == "up" and state("east") == "suspended", 10.0, "the cut")
    assert "no light: the fibre is cut (KH-1204)" in good(run("link", "show", "east"))
    assert re.search(r"^east .* cut$", good(run("lab", "inspect")), re.MULTILINE)
    assert good(run("lab", "restore", "east")) == "east: whole, nobody listens\n"
    until(lambda: run("status").exit_code == 0, 10.0, "good health")


def test_the_lab_is_drawn_in_three_forms_and_so_is_any_network(run: Run) -> None:
    mermaid = good(run("lab", "graph"))
    assert mermaid.startswith("graph LR")
    assert mermaid.count("---|") == 2
    dot = good(run("lab", "graph", "--format", "dot"))
    assert dot.startswith('graph "mini" {') and dot.rstrip().endswith("}")
    drawing = ElementTree.fromstring(good(run("lab", "graph", "--format", "svg")))
    words = "".join(drawing.itertext())
    assert all(node in words for node in ("relay", "bob", "Alice's office"))
    assert "St. Pölten" in good(run("lab", "graph", "secoqc"))


def test_a_lab_that_runs_is_not_started_twice_nor_mistaken_for_another(run: Run) -> None:
    again = run("lab", "up")
    assert again.exit_code == 1
    assert "runs already" in again.stderr
    assert "keyhop lab down" in again.stderr
    refused(run("lab", "up", "secoqc"), 1, "keyhop-lab holds the lab mini", "--dir DIRECTORY")


def test_more_key_than_there_is_ends_with_6_and_says_when_to_come_back(run: Run) -> None:
    asking = ("key", "get", "sae-bob", "--from", "sae-alice", *BATCH)
    for link in ("west", "east"):
        good(run("lab", "cut", link))
    try:
        results: list[Result] = []
        # Some hundred kB were there before the lab began.
        until(lambda: results.append(run(*asking)) or results[-1].exit_code != 0, 30.0, "the end of the key")
        refused(results[-1], 6, "not enough key for sae-alice → sae-bob", "try again", "keyhop pool list", "KH-2101")
        shown = answer(run("sae", "show", "sae-alice", "-o", "json"))["application"]
        assert shown["refused"] > 0
    finally:
        for link in ("west", "east"):
            good(run("lab", "restore", link))


def test_a_dead_node_is_named_by_status_and_inspect_which_end_with_7(run: Run, place: Path) -> None:
    lab = labs.open_lab(place / "keyhop-lab")
    relay = lab.node("relay").process
    assert relay is not None
    processes.stop([relay], 0.0)
    result = run("status")
    assert result.exit_code == 7
    assert re.search(r"^relay +down +no ", result.stdout, re.MULTILINE)
    inspected = run("lab", "inspect")
    assert inspected.exit_code == 7
    assert "node relay" in inspected.stderr
    assert "1 of 3 nodes died: keyhop lab down, then keyhop lab up" in inspected.stderr
    listed = run("sae", "list")
    assert "sae-bob" in good(listed)
    assert "missing here: relay (" in listed.stderr
    labs.restart_node(lab, "relay")
    assert run("lab", "inspect").exit_code == 0


def test_a_lab_that_is_taken_down_leaves_no_process_and_can_be_asked_where_it_is(run: Run, place: Path) -> None:
    down = run("lab", "down", "-o", "json")
    assert sorted(answer(down)["ended"]) == NODES
    assert "`keyhop lab up` goes on from there" in down.stderr
    assert running_in(place) == {}
    refused(run("status"), 3, "does not answer", "start the lab again")
    refused(run("key", "get", "sae-bob", "--from", "sae-alice"), 3, "KH-4101")
    assert re.search(r"^alice +down ", good(run("lab", "inspect")), re.MULTILINE)
    assert good(run("lab", "down")) == "mini was not up\n"
    cut = run("lab", "cut", "west")
    assert "links start untouched" in cut.stderr


def test_a_lab_that_comes_up_again_serves_from_what_it_has(place: Path, run: Run) -> None:
    run("lab", "down")
    up = keyhop(place, "lab", "up", "-o", "json")
    assert up.returncode == 0, up.stderr
    assert {node["state"] for node in json.loads(up.stdout)["nodes"]} == {"up"}
    assert "do not protect real data" in up.stderr
    assert "alice is ready" in up.stderr
    until(lambda: run("ping", "sae-aida", "--from", "sae-alice").exit_code == 0, 15.0, "a key")
