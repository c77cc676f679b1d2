"""AIT: keys agreed in batches, split, merged and assigned by name, an internal reserve, modules that push."""

from __future__ import annotations

from typing import cast

import pytest

from keyhop.core.composed.nouns.messages import BlockArrived, Name
from keyhop.core.composed.pushing import INDICES, Push, Qos, Status
from keyhop.core.composed.relay.reshaping import Reshaped
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.routing import Edge
from keyhop.core.policy.synchronisation import VerifyBatch

from .benches import Bench

AIT = DESIGNS["ait"]
KEY = 256
MAC_BITS = 128
SETTLED_S = 4
RESERVE = 2 * 32
"""Keys that both ends keep for themselves."""


def p2p(keys: int = RESERVE + 8, **settings: int) -> Bench:
    made = Bench(AIT, **settings)
    made.open("s", "A", "B")
    made.open("t", "B", "A")
    made.give(keys * KEY)
    made.go(SETTLED_S)
    return made


def room(made: Bench, at: str = "A", peer: str = "B") -> Reshaped:
    return cast(Reshaped, made.line(at, peer).serving)


def both(made: Bench) -> tuple[Reshaped, Reshaped]:
    return room(made), room(made, "B", "A")


def free(made: Bench, *names: str) -> list[bool]:
    """Which of these keys are free at both ends; an error if the ends differ."""
    one, other = ([end.stock.find(name) for name in names] for end in both(made))
    assert one == other
    return [key is not None for key in one]


def lowest(made: Bench) -> list[str]:
    return [key.id for key in room(made).stock.oldest(4)]


def done(made: Bench, change: str, *arguments: object, at: str = "A") -> bool:
    outcome: list[bool] = []
    peer = "B" if at == "A" else "A"
    made.call(at, getattr(room(made, at, peer), change), *arguments, outcome.append)
    made.go(0.1)
    (found,) = outcome
    made.balanced()
    return found


@pytest.mark.parametrize(("batch", "percent"), [(64, 0.78), (8, 6.25), (1, 50.0)])
def test_at_ait_1_one_mac_for_a_batch_of_keys(batch: int, percent: float) -> None:
    assert float(VerifyBatch(n=batch).overhead(KEY, MAC_BITS)) * 100 == pytest.approx(percent, abs=0.005)
    made = Bench(AIT, tag_bits=MAC_BITS)
    made.give(batch * KEY)
    made.go(1.1)
    macs = [said.message.tags for node, said in made.said if said.message.word == "NEW_KEY_BATCH"]
    assert macs == [1]
    assert 100 * macs[0] * MAC_BITS / (batch * KEY) == pytest.approx(percent, abs=0.005)


def test_at_ait_2_a_key_is_split_under_the_given_names_and_its_parent_is_gone() -> None:
    made = p2p()
    parent, *_ = lowest(made)
    parts = (("k1", 128), ("k2", 64), ("k3", 64))
    assert done(made, "split", parent, parts)
    assert free(made, parent, "k1", "k2", "k3") == [False, True, True, True]
    lengths = [key.length * 8 for name, _ in parts if (key := room(made).stock.find(name)) is not None]
    assert lengths == [128, 64, 64]


def test_at_ait_2_a_split_that_leaves_bits_over_is_refused() -> None:
    made = p2p()
    parent, *_ = lowest(made)
    made.said.clear()
    assert not done(made, "split", parent, (("k1", 128), ("k2", 64)))
    assert not done(made, "split", parent, (("k1", 256),))
    assert not done(made, "split", "nobody", (("k1", 128), ("k2", 128)))
    assert made.words() == []
    assert free(made, parent, "k1") == [True, False]


def test_at_ait_2_two_keys_are_merged_to_one_of_512_bits() -> None:
    made = p2p()
    one, other, *_ = lowest(made)
    assert not done(made, "merge", (one, other), "m", 511)
    assert not done(made, "merge", (one, one), "m", 512)
    assert done(made, "merge", (one, other), "m", 512)
    assert free(made, one, other, "m") == [False, False, True]
    merged = room(made).stock.find("m")
    assert merged is not None and merged.length * 8 == 512


def test_a_key_of_any_size_is_made_to_measure() -> None:
    made = p2p()
    names: list[Name] = []
    for size in (256, 100, 600):
        request = made.ask("A", "B", size)
        made.go(0.2)
        names.append(made.name(request))
        made.fetch("B", "A", names[-1])
    assert [name.taken_bits for name in names] == [256, 104, 600]
    changes = [word for word in made.words("ask") if word in ("SPLIT_KEY", "MERGE_KEYS")]
    assert changes == ["SPLIT_KEY", "MERGE_KEYS", "SPLIT_KEY"]
    for book in made.balanced():
        assert (book.D, book.O) == (956, 4)
    given = [units for name in names for units in name.ranges]
    assert sum(high - low for low, high in given) == len({unit for low, high in given for unit in range(low, high)})


def test_what_is_left_of_a_split_key_is_taken_before_a_whole_one_is_cut() -> None:
    made = p2p()
    first = made.ask("A", "B", 128)
    made.go(0.2)
    made.said.clear()
    second = made.ask("B", "A", 128, stream="t")
    made.go(0.2)
    assert "SPLIT_KEY" not in made.words()
    (low, high), (start, _) = made.name(first).ranges[0], made.name(second).ranges[0]
    assert (high - low, start) == (16, high)


def test_changes_that_cross_are_made_once_and_the_other_is_tried_with_another_key() -> None:
    made = p2p()
    one, other = made.ask("A", "B", 128), made.ask("B", "A", 128, stream="t")
    made.go(1)
    assert "CONFLICT" in made.words("answer")
    assert made.name(one).ranges != made.name(other).ranges
    made.fetch("B", "A", made.name(one))
    made.fetch("A", "B", made.name(other))
    for book in made.balanced():
        assert (book.D, book.Y) == (256, 0)


def test_a_change_that_is_never_answered_is_given_up_and_its_key_lost_at_both_ends() -> None:
    made = p2p()
    parent, *_ = lowest(made)
    made.lose = lambda node, said: node == "B"
    outcome: list[bool] = []
    made.call("A", room(made).split, parent, (("k1", 128), ("k2", 128)), outcome.append)
    made.go(70)
    assert outcome == [False]
    assert made.book("A", "B").Y == KEY
    made.lose = lambda node, said: False
    for _ in range(2):
        made.ask("B", "A", 128, stream="t")
        made.go(3)
    assert made.book("B", "A").Y == KEY
    assert free(made, "k1", "k2") == [False, False]


def test_a_deleted_key_is_gone_at_both_ends() -> None:
    made = p2p()
    name, *_ = lowest(made)
    assert done(made, "delete", (name,))
    assert free(made, name) == [False]
    assert made.book("A", "B").X == made.book("B", "A").X == KEY


def test_at_ait_3_one_key_that_differs_refuses_the_whole_batch() -> None:
    made = Bench(AIT)
    made.open("s", "A", "B")
    for number in range(4):
        for node, peer in (("A", "B"), ("B", "A")):
            corrupted = number == 2 and node == "B"
            made.step(node, BlockArrived(peer, number, 16 * KEY, number * 16 * KEY, 99 if corrupted else number))
    made.go(SETTLED_S)
    for at, peer in (("A", "B"), ("B", "A")):
        assert made.book(at, peer).Y == 64 * KEY
        assert room(made, at, peer).stock.level == 0
    assert made.refusal(made.ask("A", "B"))


def test_at_ait_4_internal_keys_show_in_no_count_of_stored_keys() -> None:
    made = p2p(RESERVE + 10)
    for end in both(made):
        assert end.stock_bits("s") == 10 * KEY
        assert end.stock_bits("") == 32 * KEY
    names = lowest(made)
    assert done(made, "make_internal", names[:3])
    for end in both(made):
        assert end.stock_bits("s") == 7 * KEY
    for _ in range(7):
        made.ask("A", "B")
        made.go(0.1)
    assert "not enough key" in made.refusal(made.ask("A", "B"))


def test_the_internal_reserve_is_filled_again() -> None:
    made = p2p(RESERVE + 10)
    line = made.line("A", "B")

    def spend() -> None:
        taken = line.serving.take("", 5 * KEY, lambda taken: None)
        assert isinstance(taken, Taken)
        line.gone(taken.ranges, "R")

    made.call("A", spend)
    made.go(1)
    assert room(made).stock_bits("") == 32 * KEY
    assert room(made).stock_bits("s") == 5 * KEY
    made.balanced()


def test_the_peer_hears_of_streams_and_of_their_end() -> None:
    made = p2p()
    assert room(made, "B", "A").streams == {"s": (1000, 256)}
    assert room(made).streams == {"t": (1000, 256)}
    made.close("s", "A")
    made.go(0.1)
    assert room(made, "B", "A").streams == {}


def test_status_is_asked_for_and_posted() -> None:
    made = p2p(RESERVE + 10)
    answers: list[tuple[int, ...]] = []
    made.call("A", room(made).status, answers.append)
    made.call("A", room(made).post_status)
    made.go(0.1)
    assert answers == [(10, 32)]
    assert room(made, "B", "A").peer_status == (10, 32)


CHUNK = Qos(key_chunk_bits=KEY, max_bps=10_000)


def pushed(made: Bench, ends: dict[str, Push], index: int) -> list[int]:
    """One key of the stream at both ends; numbers of the blocks that entered."""
    numbers = []
    for (node, end), peer in zip(ends.items(), "BA", strict=True):
        outcome = end.material(f"{node}-module", index, KEY, digest=index)
        assert outcome.status is Status.OK
        if outcome.block is not None:
            assert outcome.block.peer == peer
            numbers.append(outcome.block.number)
            made.step(node, outcome.block)
    return numbers


def opened(made: Bench) -> dict[str, Push]:
    ends = {"A": Push(), "B": Push()}
    for (node, end), peer in zip(ends.items(), "BA", strict=True):
        assert end.open(f"{node}-module", peer, CHUNK) == (Status.OK, CHUNK)
        assert end.get_key(f"{node}-module") is Status.OK
    return ends


def test_at_ait_5_three_keys_are_pushed_after_one_get_key() -> None:
    made = Bench(AIT)
    ends = opened(made)
    assert [pushed(made, ends, index) for index in (7, 8, 9)] == [[0, 0], [1, 1], [2, 2]]
    made.go(SETTLED_S)
    assert made.book("A", "B").G == made.book("B", "A").G == 3 * KEY


def test_at_ait_5_after_the_last_index_comes_0() -> None:
    assert INDICES - 1 == 4294967295
    made = Bench(AIT)
    ends = opened(made)
    assert ends["A"].after(4294967295) == 0
    assert [pushed(made, ends, index) for index in (4294967294, 4294967295, 0, 1)] == [[n, n] for n in range(4)]


def test_at_ait_5_an_unknown_stream_is_refused_and_a_used_name_too() -> None:
    push = Push()
    assert push.material("nobody", 0, KEY, 0) == (Status.PEER_NOT_YET_CONNECTED, None)
    assert push.get_key("nobody") is Status.PEER_NOT_YET_CONNECTED
    assert push.open("k", "B", CHUNK)[0] is Status.OK
    assert push.open("k", "B", CHUNK)[0] is Status.KSID_IN_USE
    assert int(Status.KSID_IN_USE) == 5
    assert push.material("k", 0, KEY, 0).block is None, "nobody has asked yet"
    assert push.close("k") is Status.OK
    assert push.close("k") is Status.PEER_NOT_YET_CONNECTED
    assert push.open("k", "B", CHUNK)[0] is Status.OK


def test_a_key_that_is_pushed_again_enters_once_and_a_missing_one_leaves_a_gap() -> None:
    made = Bench(AIT)
    ends = opened(made)
    assert pushed(made, ends, 0) == [0, 0]
    assert pushed(made, ends, 0) == []
    assert pushed(made, ends, 3) == [3, 3]
    assert pushed(made, ends, 2) == []


def test_a_module_that_has_no_key_or_gives_less_says_so() -> None:
    push = Push()
    offer = Qos(key_chunk_bits=128, max_bps=500)
    assert push.open("a", "B", Qos(KEY, 10_000, min_bps=1000), offer) == (Status.QOS_NOT_MET, offer)
    assert push.open("a", "B", Qos(KEY, 10_000, min_bps=100), offer) == (Status.OK, offer)
    push.get_key("a")
    assert push.material("a", 0, KEY, 0).status is Status.QOS_NOT_MET
    assert push.material("a", 0, 128, 0, Status.NOT_ENOUGH_KEY) == (Status.NOT_ENOUGH_KEY, None)
    assert push.material("a", 0, 128, 0, Status.OK_PEER_MISSING).block is not None
    with pytest.raises(ValueError, match="index 4294967296: must be 0 to 4294967295"):
        push.material("a", INDICES, 128, 0)


def test_at_ait_6_a_stream_keeps_its_indices_when_its_path_changes() -> None:
    """A square: A and C over B, then over D."""
    made = Bench(AIT, "A-B", "B-C", "C-D", "D-A")
    made.open("s", "A", "C")
    starts: list[int] = []
    for second in range(40):
        for link in ("A-B", "B-C", "C-D", "D-A"):
            if second < 20 or "B" not in link:
                made.give(4096 * 2, link)
        if second == 20:
            for one, other in (("A", "B"), ("B", "A"), ("B", "C"), ("C", "B")):
                made.network.tell(Edge(one, other, 0, 0, False))
        request = made.ask("A", "C")
        made.go(1)
        if second < 5:
            # The reserves of the links come first.
            continue
        name = made.name(request)
        made.fetch("C", "A", name)
        starts.append(name.ranges[0][0])
    assert starts == list(range(starts[0], starts[0] + 32 * 35, 32))
    paths = {said.message.names[1:] for _, said in made.said if said.message.word == "FORWARD_KEYS"}
    assert paths == {("A", "B", "C"), ("A", "D", "C")}
    made.balanced()


def test_keys_are_forwarded_under_internal_keys_alone() -> None:
    made = Bench(AIT, "A-B", "B-C")
    made.open("s", "A", "C")
    for link in ("A-B", "B-C"):
        made.give((RESERVE + 4) * KEY, link)
    made.go(SETTLED_S)
    before = room(made).stock_bits("s")
    request = made.ask("A", "C", deadline_s=5)
    made.go(0.1)
    assert made.name(request).taken_bits == KEY
    assert all("internal" in said.message.to for _, said in made.said if said.message.word == "FORWARD_KEYS")
    # What was spent has come out of the free stock again.
    made.go(1)
    assert room(made).stock_bits("") == 32 * KEY
    assert room(made).stock_bits("s") < before


def test_a_key_larger_than_the_stock_is_refused_and_nothing_is_merged() -> None:
    made = p2p()
    made.said.clear()
    assert "not enough key" in made.refusal(made.ask("A", "B", 9 * KEY))
    assert made.words() == []
