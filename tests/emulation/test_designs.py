"""Nodes of other designs: real processes, real TLS, and keys that are the same at both ends."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.emulation.small_labs import PAIR, exchange, kme, make, running

from keyhop import Key, KeyhopError
from keyhop.core.designs import DESIGNS, controlled, not_hosted
from keyhop.core.policy.relay import NoRelay
from keyhop.emulator import lab as labs
from keyhop.emulator.lab import Lab

HOSTED = sorted(name for name in DESIGNS if name != "keyhop" and not not_hosted(DESIGNS[name]))
RELAYING = [name for name in HOSTED if not isinstance(DESIGNS[name].relay, NoRelay)]
LINE = """apiVersion: keyhop/v1
name: line
nodes:
  a: {sae: [sae-a]}
  b: {}
  c: {sae: [sae-c]}
links:
  - {id: ab, ends: [a, b], length: 25 km, rate: 40 kbps}
  - {id: bc, ends: [b, c], length: 25 km, rate: 40 kbps}
"""


def of(design: str) -> str:
    """What stands in a node file."""
    return f"design: {design}\n" + ("controller: b\n" if controlled(DESIGNS[design]) else "")


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with running(make(tmp_path, PAIR, node_files=lambda text: text + of(request.param)), one_process=True) as lab:
        yield lab


@pytest.mark.emulation
@pytest.mark.parametrize("lab", HOSTED, indirect=True)
def test_applications_of_both_ends_get_keys_of_the_design_over_014(lab: Lab) -> None:
    keys = [*exchange(lab, "sae-a", "sae-b", 3), *exchange(lab, "sae-b", "sae-a", 2)]
    assert len({key.reveal() for key in keys}) == 5
    with kme(lab, "sae-b") as far, pytest.raises(KeyhopError):
        far.fetch_key("sae-a", keys[0].id)


@pytest.fixture
def line(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with running(make(tmp_path, LINE, node_files=lambda text: text + of(request.param)), one_process=True) as lab:
        yield lab


@pytest.mark.emulation
@pytest.mark.parametrize("line", RELAYING, indirect=True)
def test_applications_without_a_common_link_get_keys_that_the_design_has_relayed(line: Lab) -> None:
    keys = [*exchange(line, "sae-a", "sae-c", 3, timeout_s=40), *exchange(line, "sae-c", "sae-a", 2, timeout_s=40)]
    assert len({key.reveal() for key in keys}) == 5


@pytest.mark.emulation
@pytest.mark.parametrize("line", ["nict", "qcanada"], indirect=True)
def test_relayed_stock_is_burnt_when_an_end_restarts_and_made_again(line: Lab) -> None:
    before = exchange(line, "sae-a", "sae-c", 2, timeout_s=40)
    unfetched = given(line, "sae-a", "sae-c")
    labs.stop(line)
    labs.start(line, one_process=True)
    after = exchange(line, "sae-a", "sae-c", 2, timeout_s=40)
    assert len({key.reveal() for key in [*before, *after]}) == 4
    with kme(line, "sae-c") as far, pytest.raises(KeyhopError):
        far.fetch_key("sae-a", unfetched.id)


def given(lab: Lab, master: str, slave: str) -> Key:
    """A key that its slave does not fetch."""
    deadline = time.monotonic() + 40
    with kme(lab, master) as near:
        while True:
            try:
                return near.get_key(slave)
            except KeyhopError:
                assert time.monotonic() < deadline
                time.sleep(0.1)


class Local:
    """A program of the machine at the local socket of a node."""

    def __init__(self, lab: Lab, node: str) -> None:
        self.path = lab.config(node).parent / "local.sock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(self.path))
        self._lines = self._socket.makefile("rb")

    def say(self, line: bytes) -> dict[str, Any]:
        self._socket.sendall(line + b"\n")
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer

    def ask(self, do: str, **wanted: object) -> dict[str, Any]:
        return self.say(json.dumps({"do": do, **wanted}).encode())

    def until_ok(self, do: str, **wanted: object) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while not (answer := self.ask(do, **wanted))["ok"]:
            assert time.monotonic() < deadline, answer
            time.sleep(0.2)
        return answer


@pytest.fixture
def with_sockets(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    def change(text: str) -> str:
        return (
            text.replace("  manage:\n", "  local:\n    socket: local.sock\n  manage:\n") + f"design: {request.param}\n"
        )

    with running(make(tmp_path, PAIR, node_files=change), one_process=True) as lab:
        yield lab


@pytest.mark.emulation
@pytest.mark.parametrize("with_sockets", ["nist", "qcc", "secoqc"], indirect=True)
def test_sessions_of_the_historical_doors_run_over_the_local_socket(with_sockets: Lab) -> None:
    at_a, at_b = Local(with_sockets, "a"), Local(with_sockets, "b")
    pair = {"master": "sae-a", "slave": "sae-b"}
    at_a.until_ok("session", verb="open", **pair, rate_bps=8000, size_bits=512)
    seen = set()
    for _ in range(3):
        given = at_a.until_ok("key", **pair, size_bits=512)
        fetched = at_b.until_ok("fetch", **pair, key_id=given["key_id"])
        assert fetched["key"] == given["key"] not in seen
        assert len(base64.b64decode(given["key"])) == 64
        seen.add(given["key"])
    assert at_a.ask("session", verb="retune", **pair, rate_bps=16_000)["ok"]
    assert at_a.ask("session", verb="close", **pair)["ok"]
    assert at_a.ask("session", verb="retune", **pair)["reason"] == "not_found"


def shown_requests() -> list[str]:
    """The lines that the page on other designs shows for the local socket."""
    page = (Path(__file__).parents[2] / "docs" / "other-designs.md").read_text(encoding="utf-8")
    return [line for line in page.splitlines() if line.startswith('{"do"')]


@pytest.mark.emulation
@pytest.mark.parametrize("with_sockets", ["qcc"], indirect=True)
def test_the_requests_that_the_page_shows_are_answered(with_sockets: Lab) -> None:
    sockets = {"sae-a": Local(with_sockets, "a"), "sae-b": Local(with_sockets, "b")}
    given: dict[str, Any] = {}
    lines = shown_requests()
    assert {json.loads(line)["do"] for line in lines} == {"session", "status", "key", "fetch"}
    for line in lines:
        wanted = json.loads(line.replace("KEY_ID", given.get("key_id", "")))
        at = sockets[wanted["slave" if wanted["do"] == "fetch" else "master"]]
        answer = at.until_ok(wanted.pop("do"), **wanted)
        if "key_id" in wanted:
            assert answer["key"] == given["key"]
        given = answer if "key_id" in answer else given


@pytest.mark.emulation
@pytest.mark.parametrize("with_sockets", ["keyhop"], indirect=True)
def test_the_local_socket_is_for_one_user_and_says_what_is_wrong(with_sockets: Lab) -> None:
    at_a, at_b = Local(with_sockets, "a"), Local(with_sockets, "b")
    assert at_a.path.stat().st_mode & 0o077 == 0
    pair = {"master": "sae-a", "slave": "sae-b"}
    assert "no sessions" in at_a.ask("session", verb="open", **pair)["message"]
    given = at_a.until_ok("key", **pair)
    assert at_b.until_ok("fetch", **pair, key_id=given["key_id"])["key"] == given["key"]
    assert at_b.ask("fetch", **pair, key_id=given["key_id"])["ok"] is False
    for node in "ab":
        audit = with_sockets.config(node).parent / "audit.jsonl"
        records = [json.loads(line) for line in audit.read_text(encoding="utf-8").splitlines()]
        told = [one["interface"] for one in records if given["key_id"] in one.get("key_ids", ())]
        assert told == ["local"]
    assert at_a.ask("key", master="stranger", slave="sae-b")["reason"] == "not_authorised"
    for line in (b"{}", b"not json", b'{"do": "key"}', b'{"do": "key", "master": "a", "slave": "b", "more": 1}'):
        assert at_a.say(line)["reason"] == "bad_request"
