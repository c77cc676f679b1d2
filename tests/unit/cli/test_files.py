"""Commands about files: certificates, link secrets, node files and topologies."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from pretend import Run

from keyhop.cli.output import ExitCode
from keyhop.daemon import linkkey, pki
from keyhop.daemon.pki import Role
from keyhop.files.writing import plain
from keyhop.simulator import topology


def test_a_lab_pki_is_made_and_shown(run: Run, tmp_path: Path) -> None:
    made = run("pki", "init")
    assert made.exit_code == 0
    assert made.stdout.split() == ["pki/kme-ca.crt", "pki/sae-ca.crt", "pki/operator-ca.crt"]
    issued = run(
        "pki", "issue", "kme", "STP", "--host", "kme.example", "--host", "10.0.0.1", "--days", "7", "-o", "json"
    )
    answer = json.loads(issued.stdout)
    assert answer["identity"] == "urn:keyhop:kme:STP"
    shown = run("pki", "show", answer["certificate"], "-o", "json")
    assert shown.exit_code == 0
    report = json.loads(shown.stdout)
    assert report["names"] == ["URI:urn:keyhop:kme:STP", "DNS:kme.example", "IP:10.0.0.1"]
    assert report["fingerprint"] == answer["fingerprint"]
    assert (tmp_path / answer["key"]).stat().st_mode & 0o777 == 0o600
    assert "may be       client and server" in run("pki", "show", answer["certificate"]).stdout


def test_nothing_is_replaced_unless_forced(run: Run) -> None:
    run("pki", "init")
    again = run("pki", "init")
    assert again.exit_code == ExitCode.REFUSED
    assert again.stderr.startswith("error: pki/kme-ca.crt exists\n  add --force to replace it")
    assert run("pki", "init", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pki", "issue", "sae", "x"], "error: pki has no sae authority\n  run `keyhop pki init` first  [exit 1]"),
        (
            ["pki", "show", "none.crt"],
            "error: none.crt: cannot be read (No such file or directory)\n  check the name  [exit 5]",
        ),
    ],
)
def test_what_is_missing_is_told_with_the_way_to_it(run: Run, arguments: list[str], message: str) -> None:
    assert message in run(*arguments).stderr


def test_names_and_hosts_that_are_none_are_refused(run: Run) -> None:
    run("pki", "init")
    assert "error: 'a b' is no name\n  use 1 to 63 letters" in run("pki", "issue", "sae", "a b").stderr
    assert "error: 'a b' is no host" in run("pki", "issue", "kme", "x", "--host", "a b").stderr
    assert run("pki", "issue", "sae", "x", "--days", "400").exit_code == ExitCode.USAGE


def test_a_key_is_not_shown_as_a_certificate(run: Run) -> None:
    run("pki", "init")
    result = run("pki", "show", "pki/kme-ca.key")
    assert result.exit_code == ExitCode.USAGE
    assert "is no PEM certificate\n  give the .crt file" in result.stderr
    assert "BEGIN" not in result.output


def test_a_certificate_near_its_end_is_a_problem(run: Run, tmp_path: Path) -> None:
    earlier = datetime.now(UTC) - timedelta(days=25)
    pki.init(tmp_path / "pki", earlier)
    pki.issue(tmp_path / "pki", Role.SAE, "old", earlier)
    pki.issue(tmp_path / "pki", Role.SAE, "older", earlier, life=timedelta(days=3))
    result = run("pki", "show", "pki/sae/old.crt")
    assert result.exit_code == ExitCode.PROBLEMS and "state        renew" in result.stdout
    assert "state        expired" in run("pki", "show", "pki/sae/older.crt").stdout


def test_a_link_key_is_made_once(run: Run, tmp_path: Path) -> None:
    result = run("link", "key", "STP", "BRT", "--out", "k.key", "-o", "json")
    answer = json.loads(result.stdout)
    key = linkkey.read(tmp_path / "k.key")
    assert (answer["link_number"], answer["ends"]) == (key.number.hex(), ["BRT", "STP"])
    assert "destroy every other" in result.stderr
    assert bytes(key.secret[:6]).hex() not in result.output
    again = run("link", "key", "STP", "BRT", "--out", "k.key")
    assert again.exit_code == ExitCode.REFUSED
    assert "k.key: exists already; a link key is never replaced" in again.stderr
    assert run("link", "key", "STP", "STP").exit_code == ExitCode.REFUSED
    assert run("link", "key", "STP", "BRT").stdout.startswith("STP-BRT.key  link number ")


TOPOLOGY = "apiVersion: keyhop/v1\nname: two\nnodes: {a: {sae: sae-a}, b: {}}\nlinks: [{ends: [a, b], length: 25 km}]\n"
NODE = """apiVersion: keyhop/v1
node: {id: BRT}
listen:
  etsi014: {address: "127.0.0.1:0", cert: c, key: {file: k}, client_ca: a}
  peer: {address: "127.0.0.1:0", cert: c, key: {file: k}, client_ca: a}
store: {memory: true, node_key: {file: n}}
anchor: {file: anchor}
links: [{to: SIE, driver: emulated, directory: d}]
"""


def test_valid_files_are_told_by_what_they_hold(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.yml").write_text(TOPOLOGY)
    (tmp_path / "n.yml").write_text(NODE)
    assert run("config", "validate", "t.yml").stdout == "t.yml: valid topology file, 2 nodes, 1 link, 0 apps\n"
    assert run("config", "validate", "n.yml").stdout == "n.yml: valid node file, node BRT, 1 link, 0 applications\n"
    assert json.loads(run("config", "validate", "n.yml", "-o", "json").stdout)["valid"] is True


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TOPOLOGY.replace("length", "lenght"), "f.yml:4: links[0].lenght: unknown key: did you mean length?"),
        (TOPOLOGY.replace("25 km", "25"), "f.yml:4: links[0].length: 25 has no unit: write it as 25 km"),
        (
            NODE.replace("emulated", "emulatd"),
            "f.yml:8: links[0].driver: 'emulatd' is not known: did you mean emulated?",
        ),
        (NODE.replace("{file: k}", "hunter2", 1), "f.yml:4: listen.etsi014.key: the secret itself must not stand"),
        ("nodes: [", "f.yml:1: not YAML"),
    ],
)
def test_an_invalid_file_ends_with_2_and_every_problem_with_its_line(
    run: Run, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "f.yml").write_text(text)
    result = run("config", "validate", "f.yml")
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""
    assert result.stderr.startswith("error: f.yml is no valid ")
    assert f"\n  {problem}" in result.stderr
    assert "see: keyhop config schema" in result.stderr
    assert "hunter2" not in result.output
    answer = json.loads(run("config", "validate", "f.yml", "-o", "json").stdout)
    assert answer["valid"] is False and answer["problems"][0]["line"] >= 1


def test_a_file_that_is_not_there_ends_with_5(run: Run) -> None:
    result = run("config", "validate", "none.yml")
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert result.stderr.startswith("error: none.yml cannot be read (No such file or directory)\n  check the name")


@pytest.mark.parametrize("command", [("config", "validate"), ("serve", "--config"), ("lab", "up"), ("demo",)])
def test_every_command_says_the_same_of_a_file_that_is_not_there_or_is_none(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    missing, directory = run(*command, "none.yml"), run(*command, tmp_path)
    assert missing.stderr == "error: none.yml cannot be read (No such file or directory)\n  check the name  [exit 5]\n"
    assert missing.exit_code == ExitCode.NO_SUCH_THING
    assert directory.stderr == f"error: {tmp_path} cannot be read (Is a directory)\n  name a file in it  [exit 1]\n"
    assert directory.exit_code == ExitCode.FAILED


def test_the_kind_can_be_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.yml").write_text(TOPOLOGY)
    result = run("config", "validate", "--kind", "node", "t.yml")
    assert result.exit_code == ExitCode.USAGE and "nodes: unknown key: did you mean node?" in result.stderr


def test_schemas_are_json_and_take_what_is_built_in(run: Run) -> None:
    for kind in ("topology", "node"):
        jsonschema.Draft202012Validator.check_schema(json.loads(run("config", "schema", kind).stdout))
    schema = json.loads(run("config", "schema").stdout)
    from keyhop.files import parse
    from keyhop.simulator.topology_file import TopologyFile

    jsonschema.validate(plain(parse(TopologyFile, TOPOLOGY, "t", Path("/"))), schema)
    assert schema["title"] == "Keyhop topology"
    assert "line3" in topology.names()
