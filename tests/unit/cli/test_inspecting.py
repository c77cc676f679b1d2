"""Commands that ask nodes: what they show, in which form, and how they end when a node is silent or refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pretend import Node, Run

from keyhop.cli.output import ExitCode
from keyhop.wire import manage
from keyhop.wire.manage import (
    Alarm,
    AlarmsAnswer,
    AlarmState,
    Application,
    ApplicationAnswer,
    ApplicationsAnswer,
    Flows,
    Health,
    Link,
    LinkAnswer,
    LinksAnswer,
    LinkState,
    Pool,
    PoolAnswer,
    PoolKind,
    PoolsAnswer,
    Problem,
    Route,
    RouteAnswer,
    RoutesAnswer,
    Severity,
    StatusAnswer,
    Stock,
)

UP = Link(
    id="BRT-STP",
    ends=("BRT", "STP"),
    peer="BRT",
    state=LinkState.UP,
    driver="emulated",
    protocol="cow",
    length_km=82.0,
    qber=0.029,
    qber_limit=0.11,
    skr_bps=500.0,
    net_bps=100.0,
    block_period_s=10.0,
    stored_bytes=31_000,
    capacity_bytes=64_000,
    threshold_bytes=8000,
    age_s=187_300.0,
    stock=(Stock(owner="STP", stored_bytes=20_000, capacity_bytes=32_000, oldest_age_s=41.0),),
)
HURT = Link(
    id="BRT-SIE",
    ends=("BRT", "SIE"),
    peer="SIE",
    state=LinkState.SUSPENDED,
    reason="QBER above 11.0%",
    alarm="KH-1203",
    qber=0.124,
    skr_bps=0.0,
    net_bps=-1900.0,
    stored_bytes=7000,
    capacity_bytes=64_000,
    threshold_bytes=8000,
    age_s=41.0,
)
POOL = Pool(
    peer="FRM",
    kind=PoolKind.RELAYED,
    stored_bytes=31_000,
    leasable_bytes=20_000,
    leased_bytes=9000,
    threshold_bytes=8000,
    capacity_bytes=64_000,
    flows=Flows(in_bytes=100_000, delivered_bytes=60_000, lost_bytes=512),
)
CHOSEN = Route(
    origin="STP",
    to="FRM",
    path=("STP", "BRT", "ERD", "FRM"),
    hops=3,
    cost=3.2,
    narrowest_link="BRT-STP",
    narrowest_bps=500.0,
    narrowest_stored_bytes=31_000,
)
EXCLUDED = Route(
    origin="STP", to="FRM", path=("STP", "BRT", "SIE", "ERD", "FRM"), hops=4, feasible=False, reason="BRT-SIE suspended"
)
SAE = Application(
    id="sae-stp",
    node="STP",
    peers=("sae-frm",),
    delivered_enc=12,
    last_key_id="7f3c9a1e",
    last_key_age_s=2.0,
    last_path=("STP", "BRT", "ERD", "FRM"),
)


def status(node: str, health: Health = Health.HEALTHY, **more: Any) -> StatusAnswer:
    return StatusAnswer(
        node=node, name=node, version="0.1.0", design="keyhop", health=health, links_total=3, links_up=3, **more
    )


def healthy(node: Node, name: str, health: Health = Health.HEALTHY, **more: Any) -> None:
    node.answers[manage.STATUS_PATH] = status(name, health, **more)
    node.answers[manage.ALARMS_PATH] = AlarmsAnswer(alarms=())


def test_links_are_listed_as_people_paste_them(run: Run, node: Node) -> None:
    node.answers[manage.LINKS_PATH] = LinksAnswer(links=(UP, HURT))
    result = run("link", "list", "--address", node.address)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "LINK     STATE      QBER   SKR       NET        POOL             AGE",
        "BRT-SIE  suspended  12.4%  0         -1.9 kb/s  7.0 kB ( 11%) !  41s   QBER above 11.0% (KH-1203)",
        "BRT-STP  up         2.9%   0.5 kb/s  +0.1 kb/s  31 kB  ( 48%)    2d4h",
    ]


def test_links_as_json_are_what_the_node_said(run: Run, node: Node) -> None:
    node.answers[manage.LINKS_PATH] = LinksAnswer(links=(HURT, UP))
    result = run("link", "list", "--address", f"http://{node.address}/", "-o", "json")
    assert manage.decode(LinksAnswer, result.stdout.encode()) == LinksAnswer(links=(HURT, UP))


def test_a_link_is_found_by_its_ends_in_either_order(run: Run, node: Node) -> None:
    node.answers["/api/v1/links/BRT-STP"] = LinkAnswer(link=UP)
    node.answers[manage.LINKS_PATH] = LinksAnswer(links=(HURT, UP))
    for name in ("BRT-STP", "STP-BRT"):
        result = run("link", "show", name, "--address", node.address)
        assert result.exit_code == 0
        assert "ends       BRT and STP" in result.stdout
        assert "qber       2.9%  (limit 11.0%)" in result.stdout
        assert "from STP   20 kB  ( 62%)  oldest 41s" in result.stdout


def test_a_link_that_has_a_name_of_its_own_is_found_by_its_ends_too(run: Run, node: Node) -> None:
    node.answers[manage.LINKS_PATH] = LinksAnswer(links=(msgspec.structs.replace(UP, id="west"), HURT))
    for name in ("BRT-STP", "STP-BRT"):
        assert "link       west" in run("link", "show", name, "--address", node.address).stdout


def test_ends_that_two_links_join_name_neither(run: Run, node: Node) -> None:
    node.answers[manage.LINKS_PATH] = LinksAnswer(
        links=(msgspec.structs.replace(UP, id="one"), msgspec.structs.replace(UP, id="two"))
    )
    result = run("link", "show", "BRT-STP", "--address", node.address)
    assert result.exit_code == ExitCode.USAGE
    assert "name one: one, two" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "what", "next_step"),
    [
        (["link", "show", "A-B"], "error: no such link: A-B", "see: keyhop link list"),
        (["pool", "show", "A"], "error: no such pool: A", "see: keyhop pool list"),
        (["sae", "show", "x"], "error: no such application: x", "see: keyhop sae list"),
        (["route", "show", "A", "B"], "error: no such node or application: A or B", "see: keyhop route list"),
    ],
)
def test_what_is_not_there_ends_with_5(run: Run, node: Node, arguments: list[str], what: str, next_step: str) -> None:
    result = run(*arguments, "--address", node.address)
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert result.stderr.splitlines() == [what, f"  {next_step}  [exit 5]"]


READING = [
    ["status"],
    ["link", "list"],
    ["link", "show", "A-B"],
    ["pool", "list"],
    ["pool", "show", "A"],
    ["route", "list"],
    ["route", "show", "A", "B"],
    ["sae", "list"],
    ["sae", "show", "x"],
]


def test_where_nothing_runs_the_way_to_a_lab_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyhop.cli.node_api.DEFAULT_ADDRESS", "127.0.0.1:1")
    result = run("status")
    assert result.exit_code == ExitCode.UNREACHABLE
    assert result.stderr.splitlines()[1].startswith("  give --address HOST:PORT, set KEYHOP_MANAGE, or start a lab: ")


@pytest.mark.parametrize("arguments", READING)
def test_a_silent_node_ends_with_3_and_says_where_it_was_sought(run: Run, arguments: list[str]) -> None:
    result = run(*arguments, "--address", "127.0.0.1:1")
    assert result.exit_code == ExitCode.UNREACHABLE
    first, second = result.stderr.splitlines()
    assert first == "error: the node does not answer on 127.0.0.1:1 (Connection refused)"
    assert second == "  is it running? give --address HOST:PORT, or set KEYHOP_MANAGE  [exit 3]"


@pytest.mark.parametrize("arguments", READING)
@pytest.mark.parametrize(
    ("status_code", "exit_code"),
    [(401, ExitCode.NOT_AUTHORISED), (503, ExitCode.REFUSED), (400, ExitCode.USAGE), (500, ExitCode.REFUSED)],
)
def test_a_refusal_is_passed_on_with_its_own_advice(
    run: Run, node: Node, arguments: list[str], status_code: int, exit_code: ExitCode
) -> None:
    body = manage.encode(Problem(message="the store is sealed", next="unseal it", code="KH-5101"))
    paths = [
        manage.STATUS_PATH,
        manage.LINKS_PATH,
        manage.POOLS_PATH,
        manage.ROUTES_PATH,
        manage.APPLICATIONS_PATH,
        manage.link_path("A-B"),
        manage.link_path("B-A"),
        manage.pool_path("A"),
        manage.route_path("A", "B"),
        manage.application_path("x"),
    ]
    node.answers = dict.fromkeys(paths, (status_code, body))
    result = run(*arguments, "--address", node.address)
    assert result.exit_code == exit_code
    assert result.stderr.splitlines() == [
        "error: the store is sealed",
        f"  unseal it  [KH-5101, exit {int(exit_code)}]",
    ]


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"apiVersion": "keyhop/v9", "links": []}'])
def test_an_answer_of_something_else_is_told(run: Run, node: Node, body: bytes) -> None:
    node.answers[manage.LINKS_PATH] = (200, body)
    result = run("link", "list", "--address", node.address)
    assert result.exit_code == ExitCode.REFUSED
    assert f"http://{node.address}/api/v1/links gives no answer this version reads" in result.stderr
    assert "compare: keyhop version" in result.stderr


def test_pools_show_their_life(run: Run, node: Node) -> None:
    node.answers[manage.POOLS_PATH] = PoolsAnswer(pools=(POOL,))
    node.answers["/api/v1/pools/FRM"] = PoolAnswer(pools=(POOL,))
    assert "FRM   relayed  31 kB  ( 48%)  20 kB" in run("pool", "list", "--address", node.address).stdout
    shown = run("pool", "show", "FRM", "--address", node.address).stdout
    assert "delivered       60 kB" in shown and "lost            512 B" in shown
    by_link = run("pool", "show", "STP-FRM", "--address", node.address)
    assert by_link.exit_code == 0 and "peer            FRM" in by_link.stdout


def test_a_pool_is_found_by_the_name_of_its_link(run: Run, node: Node) -> None:
    node.answers["/api/v1/links/west"] = LinkAnswer(link=msgspec.structs.replace(UP, id="west", peer="STP"))
    node.answers["/api/v1/pools/STP"] = PoolAnswer(pools=(msgspec.structs.replace(POOL, peer="STP"),))
    assert "peer            STP" in run("pool", "show", "west", "--address", node.address).stdout


def test_the_pool_between_two_nodes_is_asked_of_one_of_them(run: Run, lab: Path, node: Node, other_node: Node) -> None:
    # The lab's nodes are STP and FRM; STP has a pool with BRT, too, but that is not the one between FRM and BRT.
    for server, stored in ((node, 1000), (other_node, 2000)):
        pool = msgspec.structs.replace(POOL, peer="BRT", stored_bytes=stored)
        server.answers["/api/v1/pools/BRT"] = PoolAnswer(pools=(pool,))
    for names in (("BRT-FRM",), ("FRM-BRT",), ("FRM", "BRT")):
        answer = json.loads(run("pool", "show", *names, "-o", "json").stdout)
        assert [(pool["node"], pool["stored_bytes"]) for pool in answer["pools"]] == [("FRM", 2000)]


def test_nodes_that_could_not_be_asked_are_named_beside_the_answer(
    run: Run, lab: Path, node: Node, other_node: Node
) -> None:
    node.answers[manage.LINKS_PATH] = LinksAnswer(links=(UP,))
    other_node.answers[manage.LINKS_PATH] = (503, manage.encode(Problem(message="the node has not started yet")))
    result = run("link", "list")
    assert result.exit_code == 0 and "BRT-STP" in result.stdout
    assert result.stderr == "missing here: FRM (the node has not started yet)\n"


def test_a_route_says_why(run: Run, node: Node) -> None:
    node.answers["/api/v1/routes/STP/FRM"] = RouteAnswer(chosen=CHOSEN, alternatives=(EXCLUDED,))
    node.answers[manage.ROUTES_PATH] = RoutesAnswer(routes=(CHOSEN,))
    result = run("route", "show", "STP", "FRM", "--why", "--address", node.address)
    assert result.stdout.splitlines() == [
        "chosen  STP-BRT-ERD-FRM  cost 3.2  narrowest link BRT-STP 0.5 kb/s, 31 kB stored",
        "next    STP-BRT-SIE-ERD-FRM  excluded  BRT-SIE suspended",
    ]
    assert len(run("route", "show", "STP", "FRM", "--address", node.address).stdout.splitlines()) == 1
    assert "STP   FRM  STP-BRT-ERD-FRM  3     3.2   yes" in run("route", "list", "--address", node.address).stdout


def test_no_path_is_a_refusal_with_its_reason(run: Run, node: Node) -> None:
    node.answers["/api/v1/routes/STP/FRM"] = RouteAnswer(chosen=None, reason="BRT-STP is cut")
    result = run("route", "show", "STP", "FRM", "--address", node.address)
    assert result.exit_code == ExitCode.REFUSED
    assert result.stderr.startswith("error: no path from STP to FRM (BRT-STP is cut)\n  see: keyhop link list")


def test_applications_show_what_they_got(run: Run, node: Node) -> None:
    node.answers[manage.APPLICATIONS_PATH] = ApplicationsAnswer(applications=(SAE,))
    node.answers["/api/v1/applications/sae-stp"] = ApplicationAnswer(application=SAE)
    listed = run("sae", "list", "--address", node.address).stdout
    assert "7f3c9a1e…" in listed and "STP-BRT-ERD-FRM" in listed
    assert "got        12 keys" in run("sae", "show", "sae-stp", "--address", node.address).stdout


def test_a_healthy_node_ends_with_0(run: Run, node: Node) -> None:
    healthy(node, "STP", emulated=True, keys_delivered=12)
    result = run("status", "--address", node.address)
    assert result.exit_code == 0
    assert "STP   healthy  yes    3 of 3" in result.stdout
    assert "do not protect real data" in result.stdout


def test_a_degraded_node_ends_with_7_and_says_why(run: Run, node: Node) -> None:
    healthy(node, "STP", Health.DEGRADED, reasons=("2 of 3 links are down",), alarms_active=1)
    alarm = Alarm(
        id="1",
        code="KH-1203",
        severity=Severity.MAJOR,
        state=AlarmState.RAISED,
        object="link BRT-SIE",
        summary="QBER above 11.0%",
        remedy="Look for an eavesdropper.",
        first_seen_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    node.answers[manage.ALARMS_PATH] = AlarmsAnswer(alarms=(alarm,))
    result = run("status", "--address", node.address)
    assert result.exit_code == ExitCode.PROBLEMS
    assert "STP: 2 of 3 links are down" in result.stdout
    assert "KH-1203 major: link BRT-SIE: QBER above 11.0%. Look for an eavesdropper." in result.stdout


def test_a_lab_is_asked_as_a_whole(run: Run, lab: Path, node: Node, other_node: Node) -> None:
    healthy(node, "STP")
    healthy(other_node, "FRM")
    node.answers[manage.LINKS_PATH] = LinksAnswer(links=(UP,))
    other_node.answers[manage.LINKS_PATH] = LinksAnswer(links=(UP, HURT))
    node.answers[manage.POOLS_PATH] = PoolsAnswer(pools=(POOL,))
    other_node.answers[manage.POOLS_PATH] = PoolsAnswer(pools=())
    other_node.answers["/api/v1/links/BRT-SIE"] = LinkAnswer(link=HURT)
    assert [line.split()[0] for line in run("status").stdout.splitlines()] == ["NODE", "STP", "FRM"]
    assert run("link", "list").stdout.count("BRT-STP") == 1
    assert json.loads(run("pool", "list", "-o", "json").stdout)["pools"][0]["node"] == "STP"
    assert run("link", "show", "BRT-SIE").exit_code == 0
    assert run("link", "list", "--lab", lab).exit_code == 0
    assert f"asking {node.address}, {other_node.address}" in run("-v", "link", "list").stderr


def test_a_dead_node_of_a_lab_is_a_problem_and_no_failure(run: Run, lab: Path, node: Node, other_node: Node) -> None:
    healthy(node, "STP")
    other_node.answers[manage.STATUS_PATH] = (503, manage.encode(Problem(message="starting")))
    result = run("status", "-o", "json")
    assert result.exit_code == ExitCode.PROBLEMS
    answer = json.loads(result.stdout)
    assert answer["silent"] == ["FRM"] and answer["nodes"][0]["node"] == "STP"
    assert "FRM   down" in run("status").stdout


def test_an_address_in_the_environment_is_used(run: Run, node: Node) -> None:
    node.answers[manage.LINKS_PATH] = LinksAnswer(links=())
    assert run("link", "list", env={"KEYHOP_MANAGE": node.address}).stdout.strip() == "no links"


def test_a_lab_that_is_none_is_told(run: Run, tmp_path: Path) -> None:
    result = run("link", "list", "--lab", tmp_path / "none")
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert result.stderr.startswith("error: ")
