"""Nodes with a policy file: real processes, real TLS, classes under overload, demands over relay, refused files."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from tests.emulation.asking import KEY_BITS, SECONDS, Asker, with_policy
from tests.emulation.small_labs import PAIR, emulated, exchange, kme, link_place, make, running

from keyhop import KeyhopError
from keyhop.cli.main import cli
from keyhop.emulator import lab as labs
from keyhop.emulator import module, processes
from keyhop.emulator.lab import Lab

RATE_BPS = 160_000
"""Of the link; one direction is driven, and a node promises nine twentieths of it."""
GOLD_BPS = 8_000
LINE = """apiVersion: keyhop/v1
name: line
nodes:
  a: {sae: [gold, iron]}
  b: {sae: [far, near]}
  c: {sae: [end]}
links:
  - {id: ab, ends: [a, b], length: 25 km, rate: 40 kbps}
  - {id: bc, ends: [b, c], length: 25 km, rate: 40 kbps}
"""
RULES = f"""apiVersion: keyhop/v1
rules:
  - {{name: gold, application: gold, peer: far, class: guaranteed, rate: {GOLD_BPS} bps, burst: 4096 bit}}
  - {{name: end, application: gold, peer: end, label: true, fallback: wait 10 s}}
default:
  key_size: {{max: 4096}}
"""


def declared(lab: Lab) -> None:
    """The modules declare an epsilon; of key from before the lab began they say nothing, so there is none."""
    for link, epsilon in zip(lab.state.links, (1e-10, 1e-11), strict=True):
        told = msgspec.structs.replace(emulated(lab, link.id), epsilon=epsilon, prefill_bytes=0, block_bytes=8000)
        module.create(link_place(lab, link.id), told)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Lab]:
    lab = make(tmp_path, LINE, node_files=with_policy(tmp_path, RULES))
    declared(lab)
    with running(lab, one_process=True):
        yield lab


def explained(lab: Lab, *request: str) -> dict[str, Any]:
    """By the command, which finds the node that serves the application."""
    words = ["policy", "explain", *request, "--lab", str(lab.directory), "-o", "json"]
    result = CliRunner().invoke(cli, words, prog_name="keyhop")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = msgspec.json.decode(result.stdout)
    return told


@pytest.mark.emulation
def test_explain_says_what_the_network_has_and_takes_none_of_it(line: Lab) -> None:
    exchange(line, "gold", "end", 1, 30)
    demand = ("--extension", "keyhop_max_hops=1")
    told = explained(line, "gold", "end")
    now = told["network"]
    assert told["rule"]["rule"] == "end" and told["values"]["label"]["value"] == "true"
    assert (now["node"], now["peer_node"]) == ("a", "c") and now["outcome"] in ("given", "leased"), now
    assert now["route"]["path"] == ["a", "b", "c"] and now["pool"]["kind"] == "relayed" and now["unmet"] == []
    label = now["label"]
    assert label["paths"] == [["a", "b", "c"]] and label["grade"] == "its" and label["epsilon"] == 1.1e-10
    assert label["vendors"] == ["acme"] and label["trust"] == "full"
    # Rule `end` waits for better key; rule default refuses what `iron` demands, and so does the door.
    assert explained(line, "gold", "end", *demand)["network"]["outcome"] == "waits"
    refused = explained(line, "iron", "end", *demand)["network"]
    assert refused["unmet"] == [{"name": "keyhop_max_hops", "reason": "2 hops, above 1"}]
    with kme(line, "iron") as near, pytest.raises(KeyhopError, match="could be met"):
        near.get_keys("end", mandatory={"keyhop_max_hops": 1})
    assert explained(line, "iron", "end", "--size", "8192")["refused"].startswith("size = 8192")
    assert explained(line, "iron", "iron")["refused"]
    before = explained(line, "gold", "far")["network"]
    for _ in range(20):
        explained(line, "gold", "far", "--size", "4096")
    after = explained(line, "gold", "far")["network"]
    assert after["pool"]["flows"]["delivered_bytes"] == before["pool"]["flows"]["delivered_bytes"]
    result = CliRunner().invoke(cli, ["policy", "explain", "nobody", "end", "--lab", str(line.directory)])
    assert result.exit_code == 5 and "serves nobody" in result.output
    for query, why in (("size=abc", "size = abc: must be a number"), ("extensions=[1]", "must be a JSON object")):
        asking = http.client.HTTPConnection(line.node("a").manage, timeout=5)
        asking.request("GET", f"/api/v1/explain/gold/end?{query}")
        answer = asking.getresponse()
        assert answer.status == 400 and why in answer.read().decode()
        asking.close()


REPLACING = """apiVersion: keyhop/v1
default: {label: true}
links: [{link: ab, full_store: replace_oldest}]
"""
STORE_S = 2 * 16 * 1024 * 8 / 40_000
"""What both directions of link ab may keep takes its module so long."""


@pytest.mark.emulation
def test_a_full_store_that_replaces_its_oldest_hands_out_new_key(tmp_path: Path) -> None:
    small = with_policy(tmp_path, REPLACING)
    lab = make(tmp_path, PAIR, node_files=lambda text: small(text).replace("limits:\n", "limits:\n  stock: 16 KiB\n"))
    labs.start(lab, one_process=True)
    try:
        first = exchange(lab, "sae-a", "sae-b", 1)[0]
        began = time.monotonic()
        # An idle minute, in which fresh key is dropped, then three stores full that replace each other.
        time.sleep(60 + 3 * STORE_S)
        passed_s = time.monotonic() - began
        key = exchange(lab, "sae-a", "sae-b", 1)[0]
        with kme(lab, "sae-b") as back:
            other = back.get_key("sae-a")
        ages = [one.extension["keyhop_age"] for one in (key, other)]
        assert max(ages) < 2.5 * STORE_S < passed_s / 2, f"{ages} of {passed_s} s"
        assert key != first
    finally:
        labs.stop(lab)


@pytest.mark.emulation
def test_a_guarantee_holds_and_best_effort_keeps_its_floor_when_twice_as_much_is_asked(line: Lab) -> None:
    exchange(line, "gold", "far", 1)
    time.sleep(3)
    # What lies in stock is drawn first, so that the link's rate is all there is.
    drain = Asker(line, "iron", "near", 4_000_000, 4096)
    drain.run()
    assert drain.refused, "the stock is drawn"
    gold = Asker(line, "gold", "far", GOLD_BPS * 98 // 100)
    others = [Asker(line, "iron", "near", RATE_BPS, 1024), Asker(line, "iron", "far", RATE_BPS, 1024)]
    for asker in (gold, *others):
        asker.start()
    for asker in (gold, *others):
        asker.join()
    assert gold.refused == 0, gold.why
    assert gold.given >= SECONDS * GOLD_BPS * 0.98 / KEY_BITS * 0.95
    floor_bits = 0.1 * RATE_BPS / 2 * SECONDS
    assert sum(asker.given for asker in others) * 1024 >= floor_bits
    assert sum(asker.refused for asker in others) > 0, "there was not enough for all"


@pytest.mark.emulation
def test_a_relayed_key_is_labelled_and_demands_on_it_count(line: Lab) -> None:
    keys = exchange(line, "gold", "end", 2, 30)
    assert len(keys) == 2
    with kme(line, "gold") as near, kme(line, "end") as far:
        key = near.get_keys("end", mandatory={"keyhop_max_epsilon": "1.1e-10", "keyhop_vendor": "acme"})[0]
        told = key.extension
        assert told["keyhop_path"] == [["a", "b", "c"]] and told["keyhop_trust"] == "full"
        assert told["keyhop_epsilon"] == 1.1e-10 and told["keyhop_grade"] == "its"
        fetched = far.fetch_key("gold", key.id)
        assert fetched == key and fetched.extension["keyhop_path"] == told["keyhop_path"]
    with kme(line, "iron") as near:
        for demand in ({"keyhop_max_epsilon": 1e-11}, {"keyhop_max_hops": 1}, {"keyhop_avoid_node": "b"}):
            with pytest.raises(KeyhopError, match="could be met"):
                near.get_keys("end", mandatory=demand)
        with pytest.raises(KeyhopError, match="are supported"):
            near.get_keys("end", mandatory={"acme_colour": "blue"})
        with pytest.raises(KeyhopError, match="64 to 4096"):
            near.get_key("end", size=8192)
        assert near.status("end").max_key_size_bits == 4096


@pytest.mark.emulation
@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("rules: [{name: r, class: golden}]", "class: 'golden' is not known"),
        ("rules: []\nlinks: [{link: ab, full_store: drop_newest}]", "full_store: 'drop_newest' is not known"),
    ],
)
def test_a_node_does_not_start_with_a_policy_that_it_cannot_follow(tmp_path: Path, rules: str, said: str) -> None:
    lab = make(tmp_path, LINE, node_files=with_policy(tmp_path, f"apiVersion: keyhop/v1\n{rules}\n"))
    with pytest.raises(processes.NodeFailure) as failed:
        labs.start(lab, one_process=True)
    assert said in str(failed.value)
