"""Keys combined with an exchange by ML-KEM, or made of one where key is short."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from test_labelled_answers import MANDATORY, ask, policy
from wired import VENDOR, Wired, wired

from keyhop.core.messages import AnswerExchange, OfferExchange
from keyhop.core.model import Refusal
from keyhop.core.node.ledger import Account
from keyhop.daemon.exchange import MlKem


def both_get(net: Wired, given: dict[str, Any], fetched: dict[str, Any]) -> bool:
    mine = [(key["key_ID"], key["key"]) for key in given["keys"]]
    return [(key["key_ID"], key["key"]) for key in fetched["keys"]] == mine


async def fetch(net: Wired, given: dict[str, Any]) -> dict[str, Any]:
    ids = {"key_IDs": [{"key_ID": key["key_ID"]} for key in given["keys"]]}
    status, fetched = await ask(net.bob, "sae-b", "sae-a", "dec_keys", ids)
    assert status == 200, fetched
    return fetched


@pytest.mark.parametrize(("combine", "grade"), [("xor", "its"), ("kdf", "hybrid")])
def test_every_key_is_combined_and_the_same_at_both_ends(combine: str, grade: str) -> None:
    async def work(net: Wired) -> None:
        status, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {"number": 3})
        assert status == 200, given
        for key in given["keys"]:
            told = key["key_extension"]
            assert told["keyhop_grade"] == grade and told["keyhop_combined"] is True
            assert told["keyhop_rng"] == ["os", "qkd"] and "ml_kem:alice-bob" in told["keyhop_origins"]
            assert told["keyhop_vendors"] == [VENDOR]
            assert ("keyhop_epsilon" in told) is (combine == "xor")
        fetched = await fetch(net, given)
        assert both_get(net, given, fetched)
        assert [k["key_extension"]["keyhop_grade"] for k in fetched["keys"]] == [grade] * 3
        exchanges = net.alice.node.exchanges
        assert exchanges.books["bob", True][Account.F] == 96 and net.alice.node.context.counters["exchanges"] == 1
        assert net.bob.node.exchanges.books["alice", False][Account.F] == 96
        assert not net.alice.pair.own_key.book[Account.F], "never booked as key of the link"

    wired(work, policy=policy(f"default: {{combine: {combine}, label: true}}"))


def test_the_bits_of_a_combined_key_are_neither_those_of_the_link_nor_those_of_the_exchange() -> None:
    async def work(net: Wired) -> None:
        before: list[bytes] = []
        read = net.alice.vault.read
        net.alice.driver.vault.read = lambda range: before.append(read(range)) or before[-1]  # type: ignore[method-assign,func-returns-value]
        _, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {})
        key = base64.b64decode(given["keys"][0]["key"])
        (found,) = [bits for bits in before if len(bits) == 32]
        stream = bytes(a ^ b for a, b in zip(key, found, strict=True))
        assert key != found and stream != bytes(32) and stream != bytes(net.alice.kem._secrets["bob", True, 1])

    wired(work, policy=policy("default: {combine: xor}"))


def test_a_demand_for_its_is_met_by_an_xor_and_by_no_kdf() -> None:
    rules = "rules: [{name: kdf, application: sae-a, combine: kdf}]\ndefault: {combine: xor}"

    async def work(net: Wired) -> None:
        body = {MANDATORY: [{"keyhop_its_only": True}]}
        status, error = await ask(net.alice, "sae-a", "sae-b", "enc_keys", body)
        assert status == 400 and "go through a KDF" in str(error["details"])
        status, given = await ask(
            net.bob, "sae-b", "sae-a", "enc_keys", {**body, MANDATORY: [{"keyhop_its_only": True}]}
        )
        assert status == 200 and given["keys"][0]["key_extension"]["keyhop_grade"] == "its"
        status, error = await ask(net.bob, "sae-b", "sae-a", "enc_keys", {MANDATORY: [{"keyhop_rng": "qkd"}]})
        assert status == 400 and error["details"][0]["extension_mandatory_unmet"] == "keyhop_rng"
        assert not net.alice.pair.own_key.book[Account.D]

    wired(work, policy=policy(rules))


def test_where_key_is_short_an_exchange_goes_alone_and_says_so() -> None:
    async def work(net: Wired) -> None:
        await net.until(lambda: net.alice.node.exchanges.live(net.alice.pair) is not None)
        await net.until(lambda: "bob" in net.alice.node.secrets.confirmed)
        before = net.alice.pair.own_key.book.snapshot()
        status, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {"number": 100, "size": 8192})
        assert status == 200, given
        assert len({key["key"] for key in given["keys"]}) == 100
        told = given["keys"][0]["key_extension"]
        assert told["keyhop_grade"] == "computational" and told["keyhop_origins"] == ["ml_kem:alice-bob"]
        assert "keyhop_epsilon" not in told and "keyhop_share_epsilon" not in told and told["keyhop_vendors"] == []
        assert net.alice.pair.own_key.book.snapshot() == before, "no key of the link is in it"
        assert both_get(net, given, await fetch(net, given))
        ids = {"key_IDs": [{"key_ID": given["keys"][7]["key_ID"]}]}
        assert (await ask(net.bob, "sae-b", "sae-a", "dec_keys", ids))[0] == 400, "once"
        body = {"number": 100, "size": 8192, MANDATORY: [{"keyhop_its_only": True}]}
        status, error = await ask(net.alice, "sae-a", "sae-b", "enc_keys", body)
        assert status == 503 and "keys" not in error
        status, given = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {})
        assert status == 200 and given["keys"][0]["key_extension"]["keyhop_grade"] == "its"

    wired(work, policy=policy("default: {fallback: hybrid, label: true}"))


def test_keys_of_an_exchange_and_of_the_link_are_fetched_in_one_request() -> None:
    async def work(net: Wired) -> None:
        await net.until(lambda: net.alice.node.exchanges.live(net.alice.pair) is not None)
        _, link = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {"number": 2, "size": 8192})
        _, alone = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {"number": 100, "size": 8192})
        mixed = {"keys": [link["keys"][0], *alone["keys"][:3], link["keys"][1]]}
        assert both_get(net, mixed, await fetch(net, mixed))

    wired(work, policy=policy("default: {fallback: hybrid}"))


def test_a_node_without_exchanges_is_told_and_no_key_leaves_uncombined() -> None:
    async def work(net: Wired) -> None:
        net.bob.node.exchanges.kem = None
        net.alice.node.exchanges.own.clear()
        net.alice.node.exchanges._offered.clear()
        status, error = await ask(net.alice, "sae-a", "sae-b", "enc_keys", {})
        assert status == 503 and "keys" not in error
        assert not net.alice.pair.own_key.book[Account.D]
        assert Refusal.UNAVAILABLE in net.alice.counter.refused or Refusal.NOT_ENOUGH_KEY in net.alice.counter.refused

    wired(work, policy=policy("default: {combine: xor}"))


def test_a_new_incarnation_of_the_other_end_gets_a_new_exchange() -> None:
    async def work(net: Wired) -> None:
        exchanges = net.alice.node.exchanges
        await net.until(lambda: exchanges.live(net.alice.pair) is not None)
        first = exchanges.live(net.alice.pair)
        net.alice.pair.peer_start += 1
        assert exchanges.live(net.alice.pair) is None
        exchanges.look(net.alice.pair)
        net.alice.node.links.frames.flush()
        assert exchanges.numbers["bob"] == (first or 0) + 1

    wired(work, policy=policy("default: {combine: xor}"))


def test_what_is_no_exchange_is_refused() -> None:
    kem = MlKem()
    with pytest.raises(ValueError, match="public key is 1184 bytes"):
        kem.answer("b", 1, b"x")
    kem.offer("b", 1)
    with pytest.raises(ValueError, match="was not offered"):
        kem.accept("b", 2, bytes(1088))
    assert "Secret" not in repr(kem) and OfferExchange and AnswerExchange
