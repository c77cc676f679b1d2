"""The door's side of demands and policies: what is read, what is refused, and what is told of keys."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from wired import Wired, wired

from keyhop.core import constraints
from keyhop.core.policy_rules import Policy
from keyhop.daemon.http_framing import Head
from keyhop.daemon.routes import Answer, Later
from keyhop.daemon.supply.etsi014 import Door
from keyhop.files.policy import PolicyFile, policy_of
from keyhop.files.reading import parse

JSON = {"content-type": "application/json"}


def policy(text: str) -> Policy:
    return policy_of(parse(PolicyFile, f"apiVersion: keyhop/v1\n{text}".encode(), "policy.yml", Path()))


async def ask(end: Any, caller: str, other: str, operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Through the door of a node, as its HTTP server asks it: (status, JSON)."""
    door = Door(end.counter, extensions=frozenset(constraints.NAMES))
    raw = json.dumps(body).encode()
    path = f"/api/v1/keys/{other}/{operation}"
    head = Head(
        method="POST",
        path=path,
        query="",
        headers=JSON,
        length=len(raw),
        chunked=False,
        has_length=True,
        keep_alive=True,
        http_1_0=False,
        expects_continue=False,
    )
    route = door.prepare(head, caller)
    given = route.respond(raw)
    if isinstance(given, Later):
        if given.outcome is None:
            there = asyncio.Event()
            given.listen(lambda _: there.set())
            await there.wait()
        given = route.render(given.outcome)
    if isinstance(given, Answer):
        return given.status, json.loads(given.body)
    return 200, json.loads(given)


MANDATORY = "extension_mandatory"


def test_the_label_of_a_key_is_told_to_both_who_ask_for_it() -> None:
    async def work(net: Wired) -> None:
        body = {MANDATORY: [{"keyhop_max_epsilon": 1e-10, "keyhop_vendor": "acme"}], "number": 2}
        status, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", body)
        assert status == 200 and len(given["keys"]) == 2 and given.keys() == {"keys"}
        for key in given["keys"]:
            told = key["key_extension"]
            assert told["keyhop_epsilon"] == 1e-10 and told["keyhop_grade"] == "its" and told["keyhop_hops"] == 1
            assert told["keyhop_vendors"] == ["acme"] and told["keyhop_path"] == [["alice", "bob"]]
        ids = [{"key_ID": key["key_ID"]} for key in given["keys"]]
        asked = {"key_IDs": ids, "key_IDs_extension": {"keyhop_label": True}}
        status, fetched = await ask(net.bob, "sae-b", "sae-a", "dec_keys", asked)
        assert status == 200
        for here, there in zip(given["keys"], fetched["keys"], strict=True):
            assert here["key"] == there["key"]
            assert abs(here["key_extension"].pop("keyhop_age") - there["key_extension"].pop("keyhop_age")) <= 1
            assert here["key_extension"] == there["key_extension"]

    wired(work)


def test_who_asks_for_nothing_is_told_nothing() -> None:
    async def work(net: Wired) -> None:
        for body in ({}, {"extension_optional": [{"acme_colour": "blue"}]}, {MANDATORY: [{"keyhop_label": False}]}):
            status, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", body)
            assert status == 200 and given["keys"][0].keys() == {"key_ID", "key"}
            ids = {"key_IDs": [{"key_ID": given["keys"][0]["key_ID"]}]}
            status, fetched = await ask(net.bob, "sae-b", "sae-a", "dec_keys", ids)
            assert status == 200 and fetched["keys"][0].keys() == {"key_ID", "key"}

    wired(work)


@pytest.mark.parametrize(
    ("body", "message", "details"),
    [
        (
            {MANDATORY: [{"keyhop_max_hops": 1}, {"acme_colour": "blue"}]},
            "not all extension_mandatory parameters are supported",
            [{"extension_mandatory_unsupported": "acme_colour"}],
        ),
        (
            {MANDATORY: [{"keyhop_max_epsilon": 1e-20}]},
            "not all extension_mandatory request options could be met",
            [{"extension_mandatory_unmet": "keyhop_max_epsilon", "reason": "epsilon 1e-10 is above 1e-20"}],
        ),
        (
            {MANDATORY: [{"keyhop_max_hops": "two"}]},
            "keyhop_max_hops = a text: must be a whole number from 0 to 1000",
            None,
        ),
        ({"extension_optional": [{"keyhop_its_only": 1}]}, "keyhop_its_only = 1: must be true or false", None),
        ({MANDATORY: [{"keyhop_label": "yes"}]}, "keyhop_label = a text: must be true or false", None),
    ],
)
def test_a_demand_that_is_unknown_unmet_or_malformed_is_400(body: Any, message: str, details: Any) -> None:
    async def work(net: Wired) -> None:
        status, error = await ask(net.alice, "sae-a", "sae-b", "enc_keys", body)
        assert (status, error["message"], error.get("details")) == (400, message, details)
        book = net.alice.pair.own_key.book.snapshot()
        assert not book[2], "nothing was delivered"

    wired(work)


def test_an_optional_demand_that_no_key_meets_is_a_wish() -> None:
    async def work(net: Wired) -> None:
        body = {"extension_optional": [{"keyhop_max_epsilon": 1e-20, "acme_colour": "blue"}]}
        status, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", body)
        assert status == 200 and given["keys"][0]["key_extension"]["keyhop_epsilon"] == 1e-10

    wired(work)


def test_a_policy_decides_sizes_also_of_status_and_labels_all_answers_if_it_says_so() -> None:
    rules = "rules: [{name: r, application: sae-a, key_size: {default: 512, max: 1024}, label: true, lifetime: 1 h}]"

    async def work(net: Wired) -> None:
        status = net.alice.counter.status("sae-a", "sae-b")
        assert (status.key_size, status.min_key_size, status.max_key_size) == (512, 64, 1024)
        _, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {})
        assert "keys" in given, given
        (key,) = given["keys"]
        assert len(key["key"]) == 88 and key["key_extension"]["keyhop_lifetime_s"] == 3600
        _, fetched = await ask(net.bob, "sae-b", "sae-a", "dec_keys", {"key_IDs": [{"key_ID": key["key_ID"]}]})
        assert fetched["keys"][0]["key_extension"]["keyhop_lifetime_s"] == 3600
        code, error = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {"size": 2048})
        assert code == 400 and "64 to 1024" in error["message"]

    wired(work, policy=policy(rules))


def test_a_policy_without_a_word_for_a_pair_leaves_it_to_the_desk() -> None:
    async def work(net: Wired) -> None:
        _, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {})
        assert given["keys"][0].keys() == {"key_ID", "key"}
        assert net.alice.node.supply.grants, "no event for each request"

    wired(work, policy=policy("rules: [{name: other, application: somebody, label: true}]"))
