"""`keyhop key` and `keyhop ping` at a real door: keys arrive, show only on request, and refusals say what to do."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pretend import KeyManager, Node, Run

from keyhop.cli.output import ExitCode
from keyhop.daemon import pki
from keyhop.daemon.pki import Role
from keyhop.wire.manage import Route, RouteAnswer

SOME_ID = "7f3c9a1e-6c3e-4f57-9b20-1e7a5c9d3f60"


def test_a_key_is_got_and_fetched_by_its_id(run: Run, lab: Path, kme: KeyManager) -> None:
    got = run("key", "get", "sae-frm", "--from", "sae-stp", "--reveal", "-o", "json")
    assert got.exit_code == 0
    (entry,) = json.loads(got.stdout)["keys"]
    assert entry["key"] == b64encode(kme.supplier.delivered[0]).decode()
    fetched = run("key", "fetch", "sae-stp", entry["key_id"], "--from", "sae-frm", "--reveal", "-o", "json")
    assert json.loads(fetched.stdout)["keys"] == [entry]


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_without_reveal_no_bit_is_printed(run: Run, lab: Path, kme: KeyManager, form: str) -> None:
    result = run("key", "get", "sae-frm", "-n", "3", "--size", "512", "--from", "sae-stp", "-o", form)
    assert result.exit_code == 0
    assert len(kme.supplier.delivered) == 3
    for bits in kme.supplier.delivered:
        assert len(bits) == 64
        for text in (b64encode(bits).decode()[:12], bits.hex()[:12]):
            assert text not in result.output
    assert "spent at this end; --reveal prints them" in result.stderr
    assert "--reveal" not in result.stdout


def test_quiet_leaves_the_answer_alone(run: Run, lab: Path) -> None:
    result = run("-q", "key", "get", "sae-frm", "--from", "sae-stp")
    assert result.stderr == ""
    head, row = result.stdout.splitlines()
    assert head.split() == ["KEY", "ID", "SIZE"]
    assert UUID(row.split()[0])


def test_status_says_what_may_be_asked(run: Run, lab: Path) -> None:
    shown = run("key", "status", "sae-frm", "--from", "sae-stp").stdout
    assert "sae-stp → sae-frm" in shown and "64 to 8192 bit" in shown
    answer = json.loads(run("key", "status", "sae-frm", "--from", "sae-stp", "-o", "json").stdout)
    assert (answer["stored_keys"], answer["key_size_bits"]) == (100, 256)


def test_options_name_an_application_outside_a_lab(run: Run, kme: KeyManager, certificates: Path) -> None:
    issued = pki.leaf(certificates, Role.SAE, "sae-stp")
    authority = pki.authority_certificate(certificates, Role.KME)
    files = ["--cert", issued.certificate, "--key", issued.key, "--ca", authority]
    assert run("key", "get", "sae-frm", "--address", kme.address, *files).exit_code == 0
    env = {
        "KEYHOP_ADDR": kme.address,
        "KEYHOP_CERT": str(issued.certificate),
        "KEYHOP_KEY": str(issued.key),
        "KEYHOP_CA": str(authority),
    }
    assert run("key", "get", "sae-frm", env=env).exit_code == 0


GET = ["key", "get", "sae-frm", "--from", "sae-stp"]


def test_want_of_key_ends_with_6_and_says_when_to_try_again(run: Run, lab: Path, kme: KeyManager) -> None:
    kme.supplier.stock = 1
    result = run(*GET, "-n", "2")
    assert result.exit_code == ExitCode.NOT_ENOUGH_KEY
    assert result.stderr.splitlines() == [
        "error: not enough key for sae-stp → sae-frm (1 keys left)",
        "  try again in about 2 s, or see: keyhop pool list  [KH-2101, exit 6]",
    ]


def test_a_key_that_is_gone_ends_with_5(run: Run, lab: Path) -> None:
    result = run("key", "fetch", "sae-stp", str(uuid4()), "--from", "sae-frm")
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert "error: no such key of sae-stp (one or more keys specified are not found on KME)" in result.stderr
    assert "ask sae-stp for a fresh key; each key is given once  [KH-2102, exit 5]" in result.stderr


def test_a_foreign_key_ends_with_4(run: Run, lab: Path) -> None:
    got = json.loads(run(*GET, "-o", "json").stdout)["keys"][0]["key_id"]
    result = run("key", "fetch", "sae-stp", got, "--from", "sae-stp")
    assert result.exit_code == ExitCode.NOT_AUTHORISED
    assert "error: not authorised: sae-stp → sae-stp (not for you)" in result.stderr
    assert "keyhop pki show FILE" in result.stderr


def test_an_unknown_peer_ends_with_5(run: Run, lab: Path) -> None:
    result = run("key", "get", "nobody", "--from", "sae-stp")
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert result.stderr.startswith("error: no application nobody (unknown SAE nobody)\n  see: keyhop sae list")


def test_what_will_never_be_granted_ends_with_1(run: Run, lab: Path) -> None:
    result = run(*GET, "--size", "100")
    assert result.exit_code == ExitCode.REFUSED
    assert "size = 100: must be a multiple of 8 bit" in result.stderr
    assert "see what is allowed: keyhop key status sae-frm --from sae-stp" in result.stderr


def test_in_a_lab_whoever_does_not_say_who_asks_gets_the_names(run: Run, lab: Path) -> None:
    for command in ("key get sae-frm", "key status sae-frm", "ping sae-frm", f"key fetch sae-frm {SOME_ID}"):
        result = run(*command.split())
        assert result.exit_code == ExitCode.USAGE
        assert result.stderr == (
            "error: no application to ask for (--from not given)\n  give --from SAE: sae-stp, sae-frm  [exit 2]\n"
        )


def test_a_key_in_place_of_an_id_is_not_repeated(run: Run, lab: Path) -> None:
    result = run("key", "fetch", "sae-stp", "epjcMQLchEK1NVnXQTkuAVN8mbTAQbZXsLlUwVEb", "--from", "sae-frm")
    assert result.exit_code == ExitCode.USAGE
    assert "the key ID is not a UUID" in result.stderr
    assert "epjc" not in result.output


@pytest.mark.parametrize(
    "command", [["key", "get", "b"], ["key", "status", "b"], ["key", "fetch", "a", SOME_ID], ["ping", "b"]]
)
def test_without_an_application_nothing_is_asked(run: Run, command: list[str]) -> None:
    result = run(*command)
    assert result.exit_code == ExitCode.USAGE
    assert "error: no application to ask for (--address, --cert, --key, --ca not given)" in result.stderr
    assert "give --from SAE in a lab, or --address, --cert, --key and --ca" in result.stderr
    outside = run(*command, "--from", "sae-stp")
    assert outside.exit_code == ExitCode.USAGE
    assert "application sae-stp is not known here (no lab found)" in outside.stderr


def test_an_application_the_lab_has_not_is_told(run: Run, lab: Path) -> None:
    result = run("key", "get", "sae-frm", "--from", "sae-xyz")
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert "no application 'sae-xyz'" in result.stderr and "sae-stp" in result.stderr


def test_files_that_are_none_are_told(run: Run, tmp_path: Path, kme: KeyManager) -> None:
    files = ["--cert", tmp_path / "c", "--key", tmp_path / "k", "--ca", tmp_path / "a"]
    result = run("key", "get", "b", "--address", kme.address, *files)
    assert result.exit_code == ExitCode.USAGE
    assert "error: the key manager cannot be asked" in result.stderr and "No such file" in result.stderr


def test_a_key_manager_that_is_away_ends_with_3(run: Run, lab: Path) -> None:
    result = run(*GET, "--address", "127.0.0.1:1")
    assert result.exit_code == ExitCode.UNREACHABLE
    assert result.stderr.startswith("error: no answer (https://127.0.0.1:1 cannot be reached (Connection refused))")
    assert "see: keyhop status" in result.stderr


def test_a_ping_shows_the_path_and_compares_both_ends(run: Run, lab: Path, node: Node, kme: KeyManager) -> None:
    chosen = Route(origin="STP", to="FRM", path=("STP", "BRT", "ERD", "FRM"), hops=3)
    node.answers["/api/v1/routes/sae-stp/sae-frm"] = RouteAnswer(chosen=chosen)
    result = run("ping", "sae-frm", "--from", "sae-stp", "-c", "2")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == len(kme.supplier.delivered) == 2
    for line in lines:
        assert "256 bit  STP → BRT → ERD → FRM  3 hops" in line
        assert line.endswith("same at both ends  trusted nodes: BRT ERD")
    answer = json.loads(run("ping", "sae-frm", "--from", "sae-stp", "-o", "json").stdout)
    assert (answer["path"], answer["keys"][0]["equal"]) == (["STP", "BRT", "ERD", "FRM"], True)


def test_a_ping_goes_without_a_path(run: Run, lab: Path) -> None:
    result = run("ping", "sae-frm", "--from", "sae-stp")
    assert result.exit_code == 0
    assert "path not known" in result.stdout and "same at both ends" in result.stdout


def test_a_ping_finds_ends_that_differ(run: Run, lab: Path, kme: KeyManager) -> None:
    kme.supplier.damage = True
    result = run("ping", "sae-frm", "--from", "sae-stp")
    assert result.exit_code == ExitCode.REFUSED
    assert "hold different keys" in result.stderr and "stop using this pair" in result.stderr
