"""The counter: who gets which key and who does not, what is written before it is given, and what stays in memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections import Counter as Counts
from collections.abc import Awaitable
from pathlib import Path

import pytest
from wired import WAIT_NS, End, Wired, outcome, wired

from keyhop.core.model import Range, Refusal, RequestError
from keyhop.core.node.events import RestoreDeclared
from keyhop.daemon.audit import KEYS_PER_LINE, AuditLog
from keyhop.daemon.routes import ABANDONED, Later
from keyhop.daemon.supply.etsi014 import Keys
from keyhop.daemon.supply.masters import WIPE_EVERY_S
from keyhop.daemon.supply.slaves import FAILED_IDS_BURST
from keyhop.wire.etsi014 import KeyRequest

UUID_4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def refusal(asked: Awaitable[Keys]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await asked
    return caught.value


def lines(audit: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (audit / f"{name}.jsonl").read_text().splitlines()]


def deliveries(audit: Path, name: str) -> list[dict[str, object]]:
    return [line for line in lines(audit, name) if line.get("action") == "key.deliver"]


async def a_lease(end: End, master: str = "sae-a", slave: str = "sae-b") -> None:
    """The first key waits for it; from then on there is a Desk."""
    await end.enc(master, slave)


# --- keys -----------------------------------------------------------------------------------------------------------


def test_both_ends_get_the_same_key_under_its_id() -> None:
    async def work(net: Wired) -> None:
        for number, size_bits in ((1, 256), (3, 128), (1, 8192), (128, 64)):
            keys = await net.alice.enc("sae-a", "sae-b", number, size_bits)
            assert len(keys) == number and all(len(bits) * 8 == size_bits for _, bits in keys)
            assert all(UUID_4.fullmatch(key_id) for key_id, _ in keys)
            assert list(await net.bob.dec("sae-b", "sae-a", *(key_id for key_id, _ in keys))) == list(keys)

    wired(work)


def test_a_thousand_keys_are_all_different_over_many_leases() -> None:
    async def work(net: Wired) -> None:
        seen: set[bytes] = set()
        ids: set[str] = set()
        for _ in range(50):
            for key_id, bits in await net.alice.enc("sae-a", "sae-b", 20):
                seen.add(bytes(bits))
                ids.add(key_id)
        assert len(seen) == len(ids) == 1000

    wired(work, blocks=4)


def test_keys_of_one_request_may_lie_on_both_sides_of_a_gap() -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        stock = net.alice.pair.stock
        stock.carve(stock.cursor + 32, stock.cursor + 64)
        at_once = await net.alice.enc("sae-a", "sae-b", 2)
        # Only one more is at hand: the other comes with the next lease, which begins elsewhere.
        stock.carve(stock.cursor + 32, stock.intervals()[-1][1])
        later = await net.alice.enc("sae-a", "sae-b", 2)
        for keys in (at_once, later):
            assert list(await net.bob.dec("sae-b", "sae-a", *(key_id for key_id, _ in keys))) == list(keys)

    wired(work)


def test_keys_of_two_doors_are_different_and_recorded_under_the_door_that_gave_them(tmp_path: Path) -> None:
    async def work(net: Wired) -> None:
        near, far = net.alice.counter, net.bob.counter
        local = near.at_door("local"), far.at_door("local")
        ids: dict[str, str] = {}
        for door, given, fetched in (("etsi014", near, far), ("local", *local), ("etsi014", near, far)):
            ((key_id, bits),) = await outcome(given.enc_keys("sae-a", "sae-b", 1, None, None))
            assert key_id not in ids
            ids[key_id] = door
            assert await outcome(fetched.dec_keys("sae-b", "sae-a", [key_id])) == [(key_id, bits)]
        for name, role, counter in (("alice", "enc", near), ("bob", "dec", far)):
            told = [(line["key_ids"], line["interface"]) for line in deliveries(tmp_path, name)]
            assert told == [([key_id], door) for key_id, door in ids.items()]
            assert dict(counter.keys) == {("etsi014", role): 2, ("local", role): 1}
            assert counter.bytes["local", role] == 32
        for one in local:
            one.close()

    wired(work, tmp_path)


def test_a_key_beyond_the_lease_waits_for_another_and_the_next_for_one_turn_of_the_loop() -> None:
    async def work(net: Wired) -> None:
        first = net.alice.counter.enc_keys("sae-a", "sae-b", *net.alice.more_than_leased, None)
        await asyncio.sleep(0)
        assert first.outcome is None
        await outcome(first)
        await net.alice.driver.settled()
        commits, asked = net.alice.driver.commits, net.alice.driver._requests
        second = net.alice.counter.enc_keys("sae-a", "sae-b", 1, None, None)
        assert second.outcome is None
        await asyncio.sleep(0)
        assert second.outcome is not None
        assert (net.alice.driver.commits, net.alice.driver._requests) == (commits, asked)

    wired(work)


def test_requests_of_one_turn_get_different_keys_and_what_each_asked_for() -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        asked = [(number, size) for number in (1, 3, 128) for size in (64, 256, 8192 // number // 8 * 8)] * 3
        waiting = [net.alice.counter.enc_keys("sae-a", "sae-b", *one, None) for one in asked]
        answers = [await outcome(later) for later in waiting]
        for (number, size), keys in zip(asked, answers, strict=True):
            assert len(keys) == number and all(len(bits) * 8 == size for _, bits in keys)
        ids = [key_id for keys in answers for key_id, _ in keys]
        assert len(set(ids)) == len(ids)
        fetched = [net.bob.counter.dec_keys("sae-b", "sae-a", [key_id for key_id, _ in keys]) for keys in answers]
        assert [list(await outcome(later)) for later in fetched] == [list(keys) for keys in answers]

    wired(work, blocks=4)


def test_who_finds_the_desk_empty_waits_for_more_and_the_others_do_not() -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        left = net.alice.pair.stock.left // 32
        net.alice.hold()
        waiting = [net.alice.counter.enc_keys("sae-a", "sae-b", 1, None, None) for _ in range(left + 5)]
        await asyncio.sleep(0)
        assert [later.outcome is not None for later in waiting] == [True] * left + [False] * 5
        net.alice.release()
        bits = {bytes(key) for later in waiting for _, key in await outcome(later)}
        assert len(bits) == left + 5

    wired(work)


def test_a_key_that_two_ask_for_in_one_turn_is_given_to_the_first() -> None:
    async def work(net: Wired) -> None:
        keys = [(await net.alice.enc("sae-a", "sae-b"))[0] for _ in range(4)]
        ids = [key_id for key_id, _ in keys]
        asked = [ids[:1], ids[1:3], ids[:2], ids[2:], ids[3:]]
        waiting = [net.bob.counter.dec_keys("sae-b", "sae-a", one) for one in asked]
        given = []
        for later in waiting:
            try:
                given.append([key_id for key_id, _ in await outcome(later)])
            except RequestError as error:
                given.append(error.reason)
        assert given == [asked[0], asked[1], Refusal.NOT_FOUND, Refusal.NOT_FOUND, asked[4]]

    wired(work)


def test_good_bad_and_foreign_ids_of_one_turn_are_told_apart() -> None:
    async def work(net: Wired) -> None:
        keys = [(await net.alice.enc("sae-a", "sae-b"))[0] for _ in range(3)]
        ids = [key_id for key_id, _ in keys]
        asked = [("sae-b", [ids[0]]), ("sae-b2", [ids[1]]), ("sae-b", [str(uuid.uuid4())]), ("sae-b", ids[1:])]
        waiting = [net.bob.counter.dec_keys(caller, "sae-a", one) for caller, one in asked]
        assert list(await outcome(waiting[0])) == keys[:1]
        assert (await refusal(outcome(waiting[1]))).reason is Refusal.NOT_AUTHORISED
        assert (await refusal(outcome(waiting[2]))).reason is Refusal.NOT_FOUND
        assert list(await outcome(waiting[3])) == keys[1:]

    wired(work)


def test_a_key_is_fetched_once() -> None:
    async def work(net: Wired) -> None:
        ((key_id, _),) = await net.alice.enc("sae-a", "sae-b")
        await net.bob.dec("sae-b", "sae-a", key_id)
        again = await refusal(net.bob.dec("sae-b", "sae-a", key_id))
        assert again.reason is Refusal.NOT_FOUND

    wired(work)


def test_one_wrong_id_among_good_ones_leaves_these_to_be_fetched() -> None:
    async def work(net: Wired) -> None:
        ((key_id, bits),) = await net.alice.enc("sae-a", "sae-b")
        wrong = await refusal(net.bob.dec("sae-b", "sae-a", key_id, str(uuid.uuid4())))
        assert wrong.reason is Refusal.NOT_FOUND
        assert list(await net.bob.dec("sae-b", "sae-a", key_id)) == [(key_id, bits)]

    wired(work)


def test_keys_for_two_applications_at_one_node_are_fetched_there() -> None:
    async def work(net: Wired) -> None:
        for master, slave in (("sae-a", "sae-a2"), ("sae-a2", "sae-a2")):
            ((key_id, bits),) = await net.alice.enc(master, slave)
            assert list(await net.alice.dec(slave, master, key_id)) == [(key_id, bits)]
            assert (await refusal(net.alice.dec(slave, master, key_id))).reason is Refusal.NOT_FOUND

    wired(work)


# --- who may --------------------------------------------------------------------------------------------------------


def test_a_caller_that_nobody_registered_is_refused_whatever_it_asks() -> None:
    async def work(net: Wired) -> None:
        counter = net.alice.counter
        for number, size_bits in ((1, 256), (10_000, 256), (1, 9)):
            error = await refusal(net.alice.enc("sae-evil", "sae-b", number, size_bits))
            assert error.reason is Refusal.NOT_AUTHORISED
        assert (await refusal(net.alice.dec("sae-evil", "sae-b", str(uuid.uuid4())))).reason is Refusal.NOT_AUTHORISED
        with pytest.raises(RequestError) as caught:
            counter.status("sae-evil", "sae-b")
        assert caught.value.reason is Refusal.NOT_AUTHORISED
        assert counter.refused[Refusal.NOT_AUTHORISED] == 5
        assert "sae-evil" not in counter.tallies

    wired(work)


@pytest.mark.parametrize(("slave", "reason"), [("sae-b2", "not_authorised"), ("sae-unknown", "bad_request")])
def test_a_pair_that_is_not_written_down_gets_no_key(slave: str, reason: str) -> None:
    async def work(net: Wired) -> None:
        assert (await refusal(net.alice.enc("sae-a", slave))).reason == reason

    wired(work)


def test_a_key_is_for_the_slave_it_was_made_for() -> None:
    async def work(net: Wired) -> None:
        ((key_id, bits),) = await net.alice.enc("sae-a", "sae-b")
        error = await refusal(net.bob.dec("sae-b2", "sae-a", key_id))
        assert error.reason is Refusal.NOT_AUTHORISED
        # 401 goes before 400, also where an unknown ID comes first.
        error = await refusal(net.bob.dec("sae-b2", "sae-a", str(uuid.uuid4()), key_id))
        assert error.reason is Refusal.NOT_AUTHORISED
        assert list(await net.bob.dec("sae-b", "sae-a", key_id)) == [(key_id, bits)]

    wired(work)


@pytest.mark.parametrize(("number", "size_bits"), [(129, 256), (1, 56), (1, 8200)])
def test_what_is_out_of_range_is_refused_and_costs_nothing(number: int, size_bits: int) -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        left = net.alice.pair.stock.left
        error = await refusal(net.alice.enc("sae-a", "sae-b", number, size_bits))
        assert error.reason is Refusal.BAD_REQUEST and "must be" in error.message
        assert net.alice.pair.stock.left == left

    wired(work)


def test_more_slaves_than_one_are_refused() -> None:
    async def work(net: Wired) -> None:
        with pytest.raises(RequestError, match="at most 0"):
            net.alice.counter.enc_keys("sae-a", "sae-b", 1, None, KeyRequest(additional_slave_SAE_IDs=("sae-b2",)))

    wired(work)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_an_application_gets_its_quota_and_is_told_when_to_come_again() -> None:
    async def work(net: Wired) -> None:
        for _ in range(4):
            await net.alice.enc("sae-poor", "sae-b")
        error = await refusal(net.alice.enc("sae-poor", "sae-b"))
        assert error.reason is Refusal.RATE_LIMITED
        assert error.retry_after_s is not None and 0 < error.retry_after_s <= 1
        await net.alice.enc("sae-a", "sae-b")

    wired(work)


def test_more_at_once_than_a_quota_ever_holds_is_a_bad_request() -> None:
    async def work(net: Wired) -> None:
        error = await refusal(net.alice.enc("sae-poor", "sae-b", 5))
        assert error.reason is Refusal.BAD_REQUEST and "1024 bit" in error.message
        await net.alice.enc("sae-poor", "sae-b", 4)

    wired(work)


def test_a_refusal_for_lack_of_key_costs_no_quota_and_is_told_to_who_listens() -> None:
    async def work(net: Wired) -> None:
        told: list[tuple[str, str, str, Refusal]] = []
        net.alice.counter.on_refused.append(lambda *said: told.append((*said[:3], said[3].reason)))
        for _ in range(8):
            error = await refusal(net.alice.enc("sae-poor", "sae-b"))
            assert error.reason is Refusal.NOT_ENOUGH_KEY and error.retry_after_s is not None
        assert told == [("enc", "sae-poor", "sae-b", Refusal.NOT_ENOUGH_KEY)] * 8
        assert net.alice.counter.tallies["sae-poor"].refused == {Refusal.NOT_ENOUGH_KEY: 8}
        net.block()
        await net.until(lambda: net.alice.pair.own_key.untouched)
        await net.alice.enc("sae-poor", "sae-b", 4)

    wired(work, blocks=0)


def test_every_refusal_that_time_can_heal_says_when_to_come_again() -> None:
    async def work(net: Wired) -> None:
        error = await refusal(net.alice.enc("sae-a", "sae-nowhere"))
        assert error.reason in (Refusal.UNAVAILABLE, Refusal.BAD_REQUEST)
        assert (error.retry_after_s is not None) == (error.reason is Refusal.UNAVAILABLE)
        net.cut()
        await net.until(lambda: not net.alice.pair.is_open)
        # More than is leased: what is in hand is given out without the link.
        error = await refusal(net.alice.enc("sae-a", "sae-b", *net.alice.more_than_leased))
        assert error.reason is Refusal.NOT_ENOUGH_KEY and error.retry_after_s is not None

    wired(work)


def test_who_names_too_many_wrong_ids_is_not_listened_to_and_nobody_else_suffers() -> None:
    async def work(net: Wired) -> None:
        ((key_id, _),) = await net.alice.enc("sae-a", "sae-b")
        reasons = []
        for _ in range(FAILED_IDS_BURST + 200):
            reasons.append((await refusal(net.bob.dec("sae-b2", "sae-a", str(uuid.uuid4())))).reason)
        assert reasons[0] is Refusal.NOT_FOUND and reasons[-1] is Refusal.RATE_LIMITED
        # Not even the right answer to a guess: the budget is asked before the ID.
        error = await refusal(net.bob.dec("sae-b2", "sae-a", key_id))
        assert error.reason is Refusal.RATE_LIMITED and error.retry_after_s is not None
        await net.bob.dec("sae-b", "sae-a", key_id)

    wired(work)


def test_a_link_that_is_not_compared_yet_costs_no_guess() -> None:
    async def work(net: Wired) -> None:
        ((key_id, _),) = await net.alice.enc("sae-a", "sae-b")
        net.bob.pair.compared = False
        for _ in range(FAILED_IDS_BURST + 50):
            assert (await refusal(net.bob.dec("sae-b", "sae-a", key_id))).reason is Refusal.UNAVAILABLE
        net.bob.pair.compared = True
        await net.bob.dec("sae-b", "sae-a", key_id)

    wired(work)


# --- the audit log --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True])
def test_each_delivery_stands_in_the_log_when_it_is_answered(tmp_path: Path, sync: bool) -> None:
    async def work(net: Wired) -> None:
        keys = await net.alice.enc("sae-a", "sae-b", 2)
        ids = [key_id for key_id, _ in keys]
        (written,) = deliveries(tmp_path, "alice")
        assert (written["role"], written["key_ids"], written["size"]) == ("enc", ids, 256)
        assert (written["actor"], written["peer"]) == ({"sae": "sae-a"}, "sae-b")
        await net.bob.dec("sae-b", "sae-a", *ids)
        (written,) = deliveries(tmp_path, "bob")
        assert (written["role"], written["key_ids"], written["path"]) == ("dec", ids, ["alice", "bob"])

    wired(work, tmp_path, sync=sync)


def test_no_bit_of_a_key_stands_in_the_log(tmp_path: Path) -> None:
    async def work(net: Wired) -> None:
        keys = await net.alice.enc("sae-a", "sae-b", 8)
        await net.bob.dec("sae-b", "sae-a", *(key_id for key_id, _ in keys))
        text = (tmp_path / "alice.jsonl").read_bytes() + (tmp_path / "bob.jsonl").read_bytes()
        for _, bits in keys:
            assert bytes(bits) not in text and bytes(bits).hex().encode() not in text

    wired(work, tmp_path)


def test_deliveries_of_one_turn_share_a_line_with_all_their_ids(tmp_path: Path) -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        before = len(deliveries(tmp_path, "alice"))
        waiting = [net.alice.counter.enc_keys("sae-a", "sae-b", 2, size, None) for size in (256, 128, 256)]
        answers = [await outcome(later) for later in waiting]
        ids = [[key_id for key_id, _ in keys] for keys in answers]
        written = deliveries(tmp_path, "alice")[before:]
        assert [(line["size"], line["key_ids"]) for line in written] == [(256, ids[0] + ids[2]), (128, ids[1])]
        fetched = [net.bob.counter.dec_keys("sae-b", "sae-a", some) for some in ids]
        for later in fetched:
            await outcome(later)
        written = deliveries(tmp_path, "bob")
        assert [(line["size"], line["key_ids"]) for line in written] == [(256, ids[0] + ids[2]), (128, ids[1])]

    wired(work, tmp_path)


def test_the_line_of_a_turn_names_no_key_that_was_refused(tmp_path: Path) -> None:
    async def work(net: Wired) -> None:
        ids = [(await net.alice.enc("sae-a", "sae-b"))[0][0] for _ in range(3)]
        await net.bob.dec("sae-b", "sae-a", ids[1])
        waiting = [net.bob.counter.dec_keys("sae-b", "sae-a", [key_id]) for key_id in ids]
        await outcome(waiting[2])
        assert (await refusal(outcome(waiting[1]))).reason is Refusal.NOT_FOUND
        assert deliveries(tmp_path, "bob")[-1]["key_ids"] == [ids[0], ids[2]]

    wired(work, tmp_path)


def test_a_crowded_turn_is_written_in_lines_that_can_be_read(tmp_path: Path) -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        waiting = [net.alice.counter.enc_keys("sae-a", "sae-b", 80, 64, None) for _ in range(6)]
        ids = [key_id for later in waiting for key_id, _ in await outcome(later)]
        written = deliveries(tmp_path, "alice")[1:]
        assert len(written) == 2 and all(len(line["key_ids"]) <= KEYS_PER_LINE for line in written)  # type: ignore[arg-type]
        assert [key_id for line in written for key_id in line["key_ids"]] == ids  # type: ignore[attr-defined]

    wired(work, tmp_path, blocks=2)


def test_no_answer_of_a_turn_is_given_before_its_line_is_in_the_file(tmp_path: Path) -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        missing: list[str] = []

        def look(keys: Keys) -> None:
            recorded = (tmp_path / "alice.jsonl").read_text()
            missing.extend(key_id for key_id, _ in keys if key_id not in recorded)

        waiting = [net.alice.counter.enc_keys("sae-a", "sae-b", 2, size, None) for size in (256, 128, 64)]
        for later in waiting:
            later.listen(look)
        await net.until(lambda: all(later.outcome for later in waiting))
        assert not missing

    wired(work, tmp_path)


def fill_the_disk(log: AuditLog) -> None:
    """The device under this log is full from now on."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._descriptor)
    os.close(full)


def test_what_cannot_be_recorded_is_not_given_and_never_given_later(tmp_path: Path) -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        counter, stock, run = net.alice.counter, net.alice.pair.stock, net.alice.pair.own_key.id
        assert net.alice.audit is not None
        start, given = stock.cursor, Counts(counter.tallies["sae-a"].keys)
        fill_the_disk(net.alice.audit)
        # All of this turn: it takes keys, and not one of them leaves.
        waiting = [counter.enc_keys("sae-a", "sae-b", number, size, None) for number, size in ((2, 256), (1, 64))]
        held = net.alice.vault.bits(Range(run, start, 72))
        for later in waiting:
            error = await refusal(outcome(later))
            assert error.reason is Refusal.UNAVAILABLE and "audit" in error.message
        assert stock.cursor == start + 72 and bytes(held) == bytes(72)
        with pytest.raises(KeyError):
            net.alice.vault.read(Range(run, start, 1))
        # From now on nothing is even taken, by either role.
        assert (await refusal(net.alice.enc("sae-a", "sae-b"))).reason is Refusal.UNAVAILABLE
        assert (await refusal(net.alice.dec("sae-a", "sae-b", str(uuid.uuid4())))).reason is Refusal.UNAVAILABLE
        assert stock.cursor == start + 72 and Counts(counter.tallies["sae-a"].keys) == given

    wired(work, tmp_path)


def test_a_turn_that_fails_answers_everybody_and_gives_nothing() -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        failed: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: failed.append(told["exception"]))
        start, run = net.alice.pair.stock.cursor, net.alice.pair.own_key.id
        net.alice.vault.wipe(Range(run, start + 96, 1))
        waiting = [net.alice.counter.enc_keys("sae-a", "sae-b", 1, size, None) for size in (256, 64, 512)]
        for later in waiting:
            assert (await refusal(outcome(later))).reason is Refusal.UNAVAILABLE
        assert len(failed) == 1 and isinstance(failed[0], KeyError)
        with pytest.raises(KeyError):
            net.alice.vault.read(Range(run, start, 1))
        net.alice.pair.stock.cursor = start + 128
        await net.alice.enc("sae-a", "sae-b")

    wired(work)


# --- memory ---------------------------------------------------------------------------------------------------------


def test_what_was_given_out_is_overwritten_within_a_second() -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        start, run = net.alice.pair.stock.cursor, net.alice.pair.own_key.id
        ((_, bits),) = await net.alice.enc("sae-a", "sae-b")
        held = net.alice.vault.bits(Range(run, start, 32))
        assert bytes(held) == bytes(bits)
        await asyncio.sleep(WIPE_EVERY_S + 0.2)
        assert bytes(held) == bytes(32)
        with pytest.raises(KeyError):
            net.alice.vault.read(Range(run, start, 32))
        # The key behind it is untouched.
        await net.alice.enc("sae-a", "sae-b")

    wired(work)


def test_closing_overwrites_what_was_given_out_last() -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        start, run = net.alice.pair.stock.cursor, net.alice.pair.own_key.id
        await net.alice.enc("sae-a", "sae-b")
        held = net.alice.vault.bits(Range(run, start, 32))
        net.alice.counter.close()
        assert bytes(held) == bytes(32)

    wired(work)


def test_a_client_that_is_gone_when_its_turn_comes_takes_no_key() -> None:
    async def work(net: Wired) -> None:
        ((key_id, bits),) = await net.alice.enc("sae-a", "sae-b")
        cursor = net.alice.pair.stock.cursor
        asked = [
            net.alice.counter.enc_keys("sae-a", "sae-b", 1, None, None),
            net.bob.counter.dec_keys("sae-b", "sae-a", [key_id]),
        ]
        for later in asked:
            later.abandon()
        await asyncio.sleep(0)
        assert net.alice.pair.stock.cursor == cursor
        assert list(await net.bob.dec("sae-b", "sae-a", key_id)) == [(key_id, bits)]

    wired(work)


def test_a_client_that_goes_away_while_it_waits_takes_no_key() -> None:
    async def work(net: Wired) -> None:
        net.alice.hold()
        waiting = net.alice.counter.enc_keys("sae-a", "sae-b", *net.alice.more_than_leased, None)
        assert isinstance(waiting, Later)
        await net.until(lambda: net.alice.node.supply.waiting.get("bob"))
        waiting.abandon()
        await net.until(lambda: not net.alice.node.supply.waiting["bob"])
        net.alice.release()
        await net.until(lambda: net.alice.pair.stock.left)
        before = net.alice.pair.stock.left
        await net.alice.enc("sae-a", "sae-b")
        assert net.alice.pair.stock.left == before - 32
        assert net.alice.counter.tallies["sae-a"].keys["enc"] == 1

    wired(work)


def test_what_came_for_a_client_that_is_gone_is_overwritten() -> None:
    async def work(net: Wired) -> None:
        # There is key, but the first lease is still on its way.
        net.bob.hold()
        net.block()
        await net.until(lambda: net.bob.holds)
        net.alice.hold()
        net.bob.release()
        await net.until(lambda: net.alice.pair.own_key.untouched)
        waiting = net.alice.counter.enc_keys("sae-a", "sae-b", 1, None, None)
        assert isinstance(waiting, Later)
        await net.until(lambda: net.alice.node.supply.waiting.get("bob"))
        # It goes after the core has taken its key, and before the answer: that waits for the commit of the lease.
        net.alice.driver.on_committed.append(lambda: net.alice.pair.stock.taken and waiting.abandon())
        net.alice.release()
        await net.until(lambda: waiting.outcome)
        await net.alice.driver.settled()
        assert waiting.outcome is ABANDONED and "sae-a" not in net.alice.counter.tallies
        with pytest.raises(KeyError):
            net.alice.vault.read(Range(net.alice.pair.own_key.id, 0, 32))

    wired(work, blocks=0)


def test_secrets_that_are_over_are_not_kept_for_sealing() -> None:
    async def work(net: Wired) -> None:
        for end, peer in ((net.alice, net.bob), (net.bob, net.alice)):
            own = "sae-a" if end is net.alice else "sae-b"
            other = "sae-b" if end is net.alice else "sae-a"
            ((key_id, _),) = await end.enc(own, other)
            await peer.dec(other, own, key_id)
        assert len(net.alice.counter.seals.in_use()) == 2
        net.alice.driver.feed(RestoreDeclared())
        await net.until(lambda: not net.alice.pair.is_open)
        net.connect()
        net.block()
        await net.until(lambda: net.alice.pair.is_open and net.alice.pair.own_key.untouched)
        ((key_id, bits),) = await net.alice.enc("sae-a", "sae-b")
        assert list(await net.bob.dec("sae-b", "sae-a", key_id)) == [(key_id, bits)]
        live = net.alice.pair.secrets
        assert {(seal.issuer, seal.epoch) for seal in net.alice.counter.seals.in_use()} <= {
            (issuer, epoch) for issuer, epochs in live.items() for epoch in epochs
        }

    wired(work)


# --- numbers --------------------------------------------------------------------------------------------------------


def test_who_listens_is_told_of_every_key_and_others_cost_nothing() -> None:
    async def work(net: Wired) -> None:
        await a_lease(net.alice)
        told: list[tuple[object, ...]] = []
        net.alice.counter.on_delivered.append(lambda *said: told.append(said))
        net.bob.counter.on_delivered.append(lambda *said: told.append(said))
        keys = await net.alice.enc("sae-a", "sae-b", 2, 128)
        ids = [key_id for key_id, _ in keys]
        await net.bob.dec("sae-b", "sae-a", *ids)
        assert told == [("enc", "sae-a", "sae-b", ids, 128), ("dec", "sae-b", "sae-a", ids, 128)]

    wired(work)


def test_tallies_count_keys_and_bytes_by_role() -> None:
    async def work(net: Wired) -> None:
        keys = await net.alice.enc("sae-a", "sae-b", 3)
        await net.bob.dec("sae-b", "sae-a", *(key_id for key_id, _ in keys))
        near, far = net.alice.counter.tallies["sae-a"], net.bob.counter.tallies["sae-b"]
        assert (near.keys, near.bytes) == ({"enc": 3, "dec": 0}, {"enc": 96, "dec": 0})
        assert (far.keys, far.bytes) == ({"enc": 0, "dec": 3}, {"enc": 0, "dec": 96})
        assert near.last_id == far.last_id == keys[-1][0]
        assert (near.last_role, far.last_role) == ("enc", "dec")

    wired(work)


def test_status_counts_what_could_be_delivered_now() -> None:
    async def work(net: Wired) -> None:
        before = net.alice.counter.status("sae-a", "sae-b")
        free = net.alice.pair.own_key.untouched + net.alice.pair.stock.left
        assert before.stored_key_count == free // 32 > 0
        await net.alice.enc("sae-a", "sae-b", 100)
        after = net.alice.counter.status("sae-a", "sae-b")
        assert after.stored_key_count == before.stored_key_count - 100
        assert (after.source_KME_ID, after.target_KME_ID) == ("kme-alice", "bob")
        assert (after.key_size, after.max_key_per_request, after.max_SAE_ID_count) == (256, 128, 0)

    wired(work)


def test_a_counter_shows_no_key_when_it_is_printed() -> None:
    async def work(net: Wired) -> None:
        ((key_id, bits),) = await net.alice.enc("sae-a", "sae-b")
        shown = repr(net.alice.counter) + repr(net.alice.driver) + repr(net.alice.vault)
        assert key_id not in shown and bytes(bits).hex() not in shown

    wired(work)


def test_after_the_driver_failed_who_waits_is_refused_at_once() -> None:
    async def work(net: Wired) -> None:
        net.alice.hold()
        waiting = net.alice.counter.enc_keys("sae-a", "sae-b", *net.alice.more_than_leased, None)
        assert isinstance(waiting, Later)
        await net.until(lambda: net.alice.node.supply.waiting.get("bob"))
        net.alice.driver.fail(OSError("the disk is gone"))
        error = await asyncio.wait_for(refusal(outcome(waiting)), WAIT_NS / 1e9 / 2)
        assert error.reason is Refusal.UNAVAILABLE and error.retry_after_s is not None
        assert (await refusal(net.alice.dec("sae-a", "sae-b", str(uuid.uuid4())))).reason in (
            Refusal.UNAVAILABLE,
            Refusal.NOT_FOUND,
        )

    wired(work)
