"""Keys stretched out of less key: the same at both ends, each once, never taken for more than they are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from test_labelled_answers import MANDATORY, ask, policy
from wired import Wired, wired

from keyhop.core.model import Refusal, RequestError
from keyhop.core.node.stretching import CHILDREN

DERIVE = "default: {fallback: derive, label: true}"
MANY = {"number": 100, "size": 8192}
"""More than the link of this test holds."""


def test_what_the_stock_cannot_give_is_derived_from_a_little_of_it_and_both_ends_have_the_same() -> None:
    async def work(net: Wired) -> None:
        before = net.alice.pair.own_key.untouched + net.alice.pair.stock.left + net.alice.pair.parents.total()
        status, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", MANY)
        assert status == 200 and len({key["key"] for key in given["keys"]}) == 100
        for key in given["keys"]:
            told = key["key_extension"]
            assert told["keyhop_grade"] == "computational" and told["keyhop_combined"] is True
            assert "keyhop_epsilon" not in told and told["keyhop_share_epsilon"] == 1e-10
        taken = before - net.alice.pair.own_key.untouched - net.alice.pair.stock.left - net.alice.pair.parents.total()
        assert taken == -(-100 // CHILDREN) * 32, "four parents of 32 bytes"
        ids = [{"key_ID": key["key_ID"]} for key in reversed(given["keys"])]
        for some in (ids[:1], ids[1:60], ids[60:]):
            status, fetched = await ask(net.bob, "sae-b", "sae-a", "dec_keys", {"key_IDs": some})
            assert status == 200
            mine = {key["key_ID"]: key["key"] for key in given["keys"]}
            assert all(mine[key["key_ID"]] == key["key"] for key in fetched["keys"])
            assert all(key["key_extension"]["keyhop_grade"] == "computational" for key in fetched["keys"])
        for one in (ids[0], ids[50], ids[99]):
            assert (await ask(net.bob, "sae-b", "sae-a", "dec_keys", {"key_IDs": [one]}))[0] == 400, "once"

    wired(work, policy=policy(DERIVE))


def test_what_the_stock_can_give_is_not_derived() -> None:
    async def work(net: Wired) -> None:
        _, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {"number": 3})
        assert all(key["key_extension"]["keyhop_grade"] == "its" for key in given["keys"])

    wired(work, policy=policy(DERIVE))


@pytest.mark.parametrize("demand", [{"keyhop_its_only": True}, {"keyhop_max_epsilon": 1e-3}])
def test_a_demand_that_no_derived_key_meets_is_refused_not_watered_down(demand: dict[str, Any]) -> None:
    async def work(net: Wired) -> None:
        status, error = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {**MANY, MANDATORY: [demand]})
        assert status in (400, 503) and "keys" not in error
        assert not net.alice.pair.own_key.book[2]

    wired(work, policy=policy(DERIVE))


def test_nothing_is_derived_where_it_would_save_nothing() -> None:
    async def work(net: Wired) -> None:
        async def all_of_it() -> None:
            while True:
                assert len(await net.alice.enc("sae-a", "sae-b", 1, 256)) == 1

        with pytest.raises(RequestError) as refused:
            await all_of_it()
        assert refused.value.reason is Refusal.NOT_ENOUGH_KEY

    wired(work, policy=policy("default: {fallback: derive}"))


def test_derived_keys_and_others_of_one_stock_never_share_a_byte() -> None:
    async def work(net: Wired) -> None:
        taken: set[int] = set()
        for number, size in ((1, 128), (100, 8192), (3, 192), (100, 8192), (2, 256)):
            keys = await net.alice.enc("sae-a", "sae-b", number, size)
            keys = getattr(keys, "keys", keys)
            bits = [key for _, key in keys]
            assert len(set(bits)) == number
            assert list(await net.bob.dec("sae-b", "sae-a", *[key_id for key_id, _ in keys])) == list(keys)
        used = list(net.bob.pair.their_key.used)
        for low, high in used:
            assert taken.isdisjoint(range(low, high))
            taken |= set(range(low, high))

    wired(work, policy=policy("default: {fallback: derive}"))


def test_derived_keys_and_others_are_fetched_in_one_request() -> None:
    async def work(net: Wired) -> None:
        _, plain = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {"number": 2, "size": 8192})
        _, derived = await ask(net.alice, "sae-a", "sae-b", "enc_keys", MANY)
        given = [plain["keys"][0], *derived["keys"][:3], plain["keys"][1]]
        status, fetched = await ask(
            net.bob, "sae-b", "sae-a", "dec_keys", {"key_IDs": [{"key_ID": key["key_ID"]} for key in given]}
        )
        assert status == 200 and [key["key"] for key in fetched["keys"]] == [key["key"] for key in given]
        grades = [key["key_extension"]["keyhop_grade"] for key in fetched["keys"]]
        assert grades == ["its", *["computational"] * 3, "its"]

    wired(work, policy=policy(DERIVE))


def test_derived_keys_are_in_the_audit_log_of_both_ends(tmp_path: Path) -> None:
    async def work(net: Wired) -> None:
        keys = await net.alice.enc("sae-a", "sae-b", 100, 8192)
        ids = [key_id for key_id, _ in getattr(keys, "keys", keys)]
        await net.bob.dec("sae-b", "sae-a", *ids[:5])
        await asyncio.sleep(0.05)
        log = (tmp_path / "alice.jsonl").read_text()
        assert all(key_id in log for key_id in ids)
        log = (tmp_path / "bob.jsonl").read_text()
        assert all(key_id in log for key_id in ids[:5]) and ids[5] not in log

    wired(work, tmp_path, policy=policy("default: {fallback: derive}"))
