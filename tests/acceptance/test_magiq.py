"""MagiQ's record store: AT-MAGIQ-1 to 4, what a reconfiguration costs, and how rates follow use."""

from __future__ import annotations

import dataclasses
import math

import pytest
from tests.acceptance.benches import SECOND, Bench

from keyhop.core.composed.nouns.messages import Said
from keyhop.core.composed.stock.records import MONITOR_NS, Records
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.synchronisation import TwoPhaseCommit

MAGIQ = DESIGNS["magiq"]
RECORD_BITS = 256
NAMES = ("A1", "A2", "A3")


def room(bench: Bench, at: str = "A") -> Records:
    found = bench.line(at, "B" if at == "A" else "A").dealing
    assert isinstance(found, Records)
    return found


def ids(bench: Bench, name: str, at: str = "A") -> list[int]:
    """Records of an application's key storage, numbered from 1 as in the patent."""
    pool = bench.line(at, "B" if at == "A" else "A").run.pool(name)
    return [unit + 1 for start, end in pool for unit in range(start, end)]


def dealt(bench: Bench, at: str = "A") -> dict[str, list[int]]:
    return {name: ids(bench, name, at) for name in NAMES}


def with_applications(rates: tuple[int, int, int] = (1, 2, 1), records: int = 8) -> Bench:
    bench = Bench(MAGIQ)
    for name, rate in zip(NAMES, rates, strict=True):
        bench.open(name, "A", "B", rate_bps=rate)
    bench.go(1)
    give(bench, records)
    return bench


def give(bench: Bench, records: int) -> None:
    bench.give(records * RECORD_BITS)
    bench.go(0.1)


def retune(bench: Bench, *rates: int) -> None:
    for name, rate in zip(NAMES, rates, strict=True):
        bench.retune(name, rate, "A", "B")


def test_at_magiq_1_records_are_dealt_by_rates_at_both_ends() -> None:
    bench = with_applications()
    assert dealt(bench) == dealt(bench, "B") == {"A1": [2, 6], "A2": [1, 4, 5, 8], "A3": [3, 7]}
    bench.balanced()


def test_at_magiq_2_new_rates_begin_at_one_record_at_both_ends() -> None:
    bench = with_applications()
    retune(bench, 1, 1, 2)
    bench.go(0.1)
    give(bench, 4)
    assert [name for record in range(9, 13) for name in NAMES if record in ids(bench, name)] == ["A3", "A1", "A2", "A3"]
    assert dealt(bench) == dealt(bench, "B")
    bench.balanced()


def test_at_magiq_2_a_slave_that_has_dealt_the_record_votes_no_and_the_old_weights_stay() -> None:
    bench = with_applications()
    # Before PREPARE arrives the slave deals record 9; the master hears of the block only afterwards.
    bench.give(RECORD_BITS)
    retune(bench, 1, 1, 2)
    bench.lose = lambda node, said: said.message.word == "PREPARE" and said.message.counts[1] > 8
    bench.go(0.1)
    votes = [said.message.ok for _, said in bench.said if said.message.word == "VOTE"]
    last = max(n for n, (_, said) in enumerate(bench.said) if said.message.word == "VOTE")
    assert votes[-1] is False and "COMMIT" not in bench.words()[last:]
    assert 9 in ids(bench, "A2") and dealt(bench) == dealt(bench, "B")
    assert [share.rate_bps for share in room(bench).shares] == [share.rate_bps for share in room(bench, "B").shares]
    assert [share.rate_bps for share in room(bench).shares] == [1, 2, 1]
    # The coordinator tries again with a later record.
    bench.lose = lambda node, said: False
    bench.go(6)
    give(bench, 20)
    assert [share.rate_bps for share in room(bench).shares] == [1, 1, 2]
    assert dealt(bench) == dealt(bench, "B")
    bench.balanced()


def old_and_young() -> Bench:
    """Eight records from before t = 100 s, eight younger ones."""
    bench = with_applications()
    bench.go(150)
    give(bench, 8)
    return bench


def purge(bench: Bench) -> None:
    bench.act("A", room(bench).purge, 100 * SECOND)


def held(bench: Bench, at: str) -> list[int]:
    return sorted(record for records in dealt(bench, at).values() for record in records)


def test_at_magiq_3_a_purge_takes_all_older_records_at_both_ends() -> None:
    bench = old_and_young()
    purge(bench)
    bench.go(1)
    assert held(bench, "A") == held(bench, "B") == list(range(9, 17))
    assert [book.X for book in bench.balanced()] == [8 * RECORD_BITS] * 2


def test_at_magiq_3_a_purge_that_the_slave_never_hears_of_takes_nothing_at_either_end() -> None:
    bench = old_and_young()
    bench.lose = lambda node, said: said.message.word == "PREPARE"
    purge(bench)
    bench.go(120)
    assert held(bench, "A") == held(bench, "B") == list(range(1, 17))
    bench.lose = lambda node, said: False
    bench.go(30)
    assert held(bench, "A") == held(bench, "B") == list(range(1, 17)), "aborted is aborted"
    bench.balanced()


@pytest.mark.parametrize("killed", ["A", "B"])
@pytest.mark.parametrize("word", ["PREPARE", "VOTE", "COMMIT", "ACK"])
def test_at_magiq_3_a_purge_that_a_killing_cuts_is_resolved_alike_at_both_ends(killed: str, word: str) -> None:
    bench = old_and_young()
    bench.lose = lambda node, said: said.message.word == word and not bench.restarted
    purge(bench)
    bench.go(1)
    bench.restart(killed, down_s=2)
    bench.go(120)
    assert held(bench, "A") == held(bench, "B")
    outcomes = [room(bench, at).commits.log for at in "AB"]
    assert outcomes[0] == outcomes[1] and set(outcomes[0].values()) <= {"committed", "aborted"}
    gone = [book.X // RECORD_BITS for book in bench.balanced()]
    assert gone in ([8, 8], [0, 0])


def test_at_magiq_3_the_slave_killed_between_prepare_and_commit_asks_for_the_outcome() -> None:
    bench = old_and_young()
    bench.lose = lambda node, said: said.message.word == "COMMIT"
    purge(bench)
    bench.go(1)
    assert held(bench, "A") == list(range(9, 17)) and held(bench, "B") == list(range(1, 17))
    bench.restart("B", down_s=2)
    bench.go(1)
    assert "OUTCOME" in bench.words() and held(bench, "B") == list(range(9, 17))
    bench.balanced()


def test_records_are_purged_when_their_day_is_over() -> None:
    bench = with_applications()
    bench.go(86_000)
    give(bench, 8)
    bench.go(300)
    assert held(bench, "A") == list(range(1, 17))
    bench.go(200)
    assert held(bench, "A") == held(bench, "B") == list(range(9, 17))
    bench.balanced()


@pytest.mark.parametrize("records", [8, 9, 100])
def test_at_magiq_4_an_audit_finds_the_one_bad_record_and_both_ends_destroy_it(records: int) -> None:
    bench = with_applications(records=records)
    bench.damage.rot(bench.line("B", "A"), 5 - 1)
    bench.act("A", room(bench).audit.begin)
    bench.go(1)
    assert room(bench).audit.found == [5 - 1]
    assert room(bench).audit.rounds <= math.ceil(math.log2(records)) + 1
    assert [book.Y for book in bench.balanced()] == [RECORD_BITS] * 2
    assert 5 not in held(bench, "A") and held(bench, "A") == held(bench, "B")


def test_an_audit_of_sound_records_takes_one_round_and_destroys_nothing() -> None:
    bench = with_applications()
    bench.act("A", room(bench).audit.begin)
    bench.go(1)
    assert room(bench).audit.rounds == 1 and held(bench, "A") == list(range(1, 9))
    bench.balanced()


def test_headline_a_reconfiguration_burns_four_messages_of_96_bits() -> None:
    bench = with_applications()
    bench.go(5)
    before = bench.line("A", "B").book.burnt
    retune(bench, 1, 1, 2)
    bench.go(0.5)
    said = [word for word in bench.words() if word != "DIST"][-6:]
    assert sorted(said) == ["ACK", "COMMIT", "CONNECT", "CONNECTED", "PREPARE", "VOTE"]
    assert bench.line("A", "B").book.burnt - before == 4 * 96 + 2 * 96
    bench.balanced()


def test_ends_announce_how_far_they_have_dealt_once_a_second_and_only_if_it_is_news() -> None:
    bench = with_applications()
    bench.go(10)
    assert bench.words("tell") == ["DIST"] * 2
    assert room(bench).peer_mark == room(bench, "B").peer_mark == 7
    bench.balanced()


def draw_as_much_as_there_is(bench: Bench, name: str, seconds: int) -> int:
    got = 0
    for _ in range(seconds):
        bench.give(8 * RECORD_BITS)
        for _ in range(8):
            request = bench.ask("A", "B", RECORD_BITS, stream=name)
            if not bench.refusal(request):
                got += 1
                bench.fetch("B", "A", bench.name(request), stream=name)
        bench.go(1)
    return got


def test_headline_rates_follow_use_within_two_windows() -> None:
    bench = Bench(MAGIQ)
    for name in NAMES:
        bench.open(name, "A", "B", rate_bps=512)
    bench.go(1)
    window_s = MONITOR_NS // SECOND
    first = draw_as_much_as_there_is(bench, "A1", 60)
    draw_as_much_as_there_is(bench, "A1", 2 * window_s)
    later = draw_as_much_as_there_is(bench, "A1", 60)
    # A third of all records at first; when the others are idle nearly all of them.
    assert first == pytest.approx(60 * 8 / 3, rel=0.05) and later > 60 * 8 * 0.85
    assert dealt(bench) == dealt(bench, "B")
    bench.balanced()


def test_a_closed_application_s_records_are_destroyed_at_both_ends() -> None:
    bench = with_applications()
    bench.close("A2", "A", "B")
    bench.go(0.2)
    assert [book.X for book in bench.balanced()] == [4 * RECORD_BITS] * 2
    give(bench, 4)
    assert dealt(bench) == dealt(bench, "B") == {"A1": [2, 6, 9, 11], "A2": [], "A3": [3, 7, 10, 12]}


def test_a_lost_vote_keeps_both_ends_from_dealing_past_the_record_in_question() -> None:
    bench = with_applications()

    def lost(node: str, said: Said) -> bool:
        return said.message.word == "VOTE" and bench.now < 4 * SECOND

    bench.lose = lost
    retune(bench, 1, 1, 2)
    bench.go(0.1)
    give(bench, 4)
    assert held(bench, "A") == held(bench, "B") == list(range(1, 9))
    bench.go(10)
    assert held(bench, "A") == held(bench, "B") == list(range(1, 13))
    assert ids(bench, "A3")[-2:] == [9, 12] and dealt(bench) == dealt(bench, "B")
    bench.balanced()


@pytest.mark.parametrize(("announce", "numbers"), [("mark", 1), ("explicit", 8)])
def test_headline_announcing_every_record_says_eight_times_as_much_as_a_mark(announce: str, numbers: int) -> None:
    part = TwoPhaseCommit(announce=announce)  # type: ignore[arg-type]
    bench = Bench(dataclasses.replace(MAGIQ, synchronisation=part))
    bench.open("A1", "A", "B")
    bench.go(1)
    give(bench, 8)
    bench.go(5)
    said = [said.message.counts for _, said in bench.said if said.message.word == "DIST"]
    assert [len(counts) for counts in said] == [numbers, numbers] and said[0][-1] == 7
    bench.balanced()


def test_a_change_waits_until_the_one_before_is_acknowledged() -> None:
    """Or the slave would carry them out in the order in which their COMMITs arrive."""
    bench = with_applications()
    bench.lose = lambda node, said: said.message.word == "COMMIT" and said.message.counts == (2,) and bench.now < until
    until = bench.now + 3 * SECOND
    retune(bench, 1, 1, 2)
    bench.go(0.5)
    retune(bench, 5, 1, 1)
    bench.go(20)
    give(bench, 20)
    assert [share.rate_bps for share in room(bench).shares] == [5, 1, 1]
    assert dealt(bench) == dealt(bench, "B")
    bench.balanced()
