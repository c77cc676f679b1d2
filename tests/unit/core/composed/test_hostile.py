"""What a neighbour says that is not so: it is refused with a sentence, and no key is given twice."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from tests.acceptance.benches import Bench

from keyhop.core.composed.line import Line
from keyhop.core.composed.nouns.messages import Kx, KxArrived, Name
from keyhop.core.composed.nouns.shapes import ANSWERS, SHAPES, Malformed, check
from keyhop.core.composed.stock.working_sets import TakenFirst
from keyhop.core.designs import DESIGNS
from keyhop.core.node.hosted_messages import RATE_LIMIT_BPS
from keyhop.core.policy.fallback import Deny
from keyhop.core.policy.synchronisation import Verb


def bench(design: str, *links: str) -> Bench:
    """With key in every link."""
    made = Bench(DESIGNS[design], *links, tag_bits=0)
    for _ in range(4):
        for link in links or ("A-B",):
            made.give(65_536, link)
        made.go(2)
    return made


def says(made: Bench, at: str, peer: str, word: str, **parts: Any) -> None:
    """`peer` tells `at` this, next in the order of its notices, or asks it."""
    line = made.sites[at].links[peer]
    number = line.talk._next_heard if parts.get("kind", "tell") == "tell" else 10_000_000
    kx = Kx(word, parts.pop("verb", Verb.ASSIGN), number=number, **parts)
    made.perform(at, made.sites[at].step(KxArrived(peer, kx), made.now))


def stocked(line: Line, *, theirs: bool) -> tuple[str, tuple[int, int]]:
    """A pool of either end's direction with key in it, or the free stock, and its first units."""
    source = line.peer if theirs else line.own
    for label, pool in sorted(line.run.pools.items()):
        if f"{source}>" in label and pool.first is not None:
            return label, pool.first
    first = line.run.free.first
    assert first is not None
    return "", first


def relayed(line: Line, label: str, units: tuple[int, int], *path: str) -> dict[str, Any]:
    unit_bits = line.run.unit_bits
    bits = (units[1] - units[0]) * unit_bits
    counts = (77, bits, bits, unit_bits, 1, 0, 0, 0, 0)
    return {"verb": Verb.TAKE, "ranges": (units,), "to": label, "counts": counts, "names": ("", *path)}


# --- whose key --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["nict", "qos", "sdqaas", "qcanada", "kisti", "secoqc", "nectec", "swissquantum"])
def test_a_neighbour_cannot_have_key_of_another_link_relayed_to_itself(design: str) -> None:
    made = bench(design, "A-B", "B-C")
    line = made.sites["B"].links["A"]
    label, (start, end) = stocked(line, theirs=True)
    before, said = line.book.R, len(made.said)
    with pytest.raises(Malformed, match="is not next to"):
        says(made, "B", "C", "RELAY", **relayed(line, label, (start, min(end, start + 8)), "A", "B", "C"))
    assert before == line.book.R
    assert len(made.said) == said
    made.balanced()


@pytest.mark.parametrize(
    "path",
    [("B", "C"), ("C", "B", "C"), ("C", "B", "X"), ("X", "C", "B"), ("A", "C", "B"), ("C", "A"), ("C", "C", "B")],
)
def test_a_path_has_every_node_once_and_follows_links(path: tuple[str, ...]) -> None:
    made = bench("nict", "A-B", "B-C")
    line = made.sites["B"].links["C"]
    label, (start, end) = stocked(line, theirs=True)
    with pytest.raises(Malformed, match="path"):
        says(made, "B", "C", "RELAY", **relayed(line, label, (start, min(end, start + 8)), *path))
    made.balanced()


def test_a_pad_is_not_of_a_pool_that_this_end_takes_from() -> None:
    made = bench("nict", "A-B", "B-C")
    line = made.sites["B"].links["A"]
    label, units = stocked(line, theirs=False)
    with pytest.raises(Malformed, match="does not take from it"):
        says(made, "B", "A", "RELAY", **relayed(line, label, units, "A", "B", "C"))
    made.balanced()


@pytest.mark.parametrize(
    ("word", "counts", "names", "to"),
    [
        ("RESV", (1024,), ("A", "B", "C"), "A/s"),
        ("RESV-OK", (1024,), ("C", "B", "A"), "C/s"),
        ("RESV-FAIL", (1024,), ("C", "B", "A"), "C/s"),
        ("RELEASE", (), ("A", "B", "C"), "A/s"),
    ],
)
def test_nobody_reserves_or_releases_for_another_link(
    word: str, counts: tuple[int, ...], names: tuple[str, ...], to: str
) -> None:
    made = bench("qos", "A-B", "B-C")
    with pytest.raises(Malformed, match="is not next to"):
        says(made, "B", "C", word, counts=counts, names=names, to=to)
    made.balanced()


@pytest.mark.parametrize(
    ("word", "counts", "names"),
    [
        ("SYN", (100,), ("s", "0", "A", "B")),
        ("SYN-ACK", (100, 0), ("s", "B", "A")),
        ("FIN", (), ("s", "A", "B")),
        ("ACK", (1, 0, 64), ("s", "B", "A")),
    ],
)
def test_nobody_lets_in_or_acknowledges_for_another_link(
    word: str, counts: tuple[int, ...], names: tuple[str, ...]
) -> None:
    made = bench("secoqc", "A-B", "B-C")
    with pytest.raises(Malformed, match="is not next to"):
        says(made, "B", "C", word, counts=counts, names=names, to="B")


# --- used key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["qos", "swissquantum", "sdqaas"])
@pytest.mark.parametrize("units", [-3, 0, 1 << 62])
def test_a_want_of_less_than_nothing_moves_no_front_back(design: str, units: int) -> None:
    made = bench(design, "A-B", "B-C")
    line = made.sites["A"].links["B"]
    before = list(line.run.free)
    with pytest.raises(Malformed, match="WANT"):
        says(made, "A", "B", "WANT", counts=(1, units, 0, 10**9))
    assert list(line.run.free) == before
    made.balanced()


def test_a_grant_of_nothing_is_no_pad() -> None:
    made = bench("qos", "A-B", "B-C")
    for parts in ({"ranges": ()}, {"ranges": ((5, 1),)}, {"ranges": ((0, 1),), "ok": False}, {"counts": ()}):
        with pytest.raises(Malformed, match="GRANT"):
            says(made, "B", "A", "GRANT", **{"counts": (1,), **parts})


@pytest.mark.parametrize(
    "design", ["nict", "nist", "qcc", "cisco", "kisti", "ddka", "ait", "secoqc", "qcanada", "magiq"]
)
@pytest.mark.parametrize(
    "wrong",
    [
        {"ranges": ((5, 1),)},
        {"ranges": ((0, 1), (0, 1))},
        {"ranges": ((-4, 1),)},
        {"label": "nobody"},
        {"label": "A>B/secret"},
        {"unit_bits": 12345},
        {"size_bits": -256},
        {"keys": 10**11},
        {"keys": 0},
        {"child": 4},
        {"taken_bits": 1},
        {"derived_bits": 77},
        {"ranges": (), "taken_bits": 0},
        {"ranges": (), "taken_bits": 0, "size_bits": 0, "keys": 2},
    ],
)
def test_a_name_that_no_key_can_have_is_refused_in_words(design: str, wrong: dict[str, Any]) -> None:
    made = bench(design)
    line = made.sites["A"].links["B"]
    label, (start, _) = stocked(line, theirs=True)
    unit_bits = line.run.unit_bits
    name = Name(False, label, ((start, start + 1),), unit_bits, unit_bits, unit_bits=unit_bits)
    request = made.fetch("A", "B", msgspec.structs.replace(name, **wrong), deadline_s=1)
    made.go(2)
    assert made.refusal(request)
    made.balanced()


@pytest.mark.parametrize("design", ["nict", "qcanada", "ddka"])
def test_a_node_does_not_give_key_of_its_own_pool_by_name(design: str) -> None:
    made = bench(design)
    line = made.sites["A"].links["B"]
    label, (start, _) = stocked(line, theirs=False)
    assert label
    unit_bits = line.run.unit_bits
    name = Name(False, label, ((start, start + 1),), unit_bits, unit_bits, unit_bits=unit_bits)
    request = made.fetch("A", "B", name, deadline_s=1)
    made.go(2)
    assert made.refusal(request)
    made.balanced()


def test_a_key_that_is_made_of_nothing_is_none_where_nothing_is_exchanged() -> None:
    made = Bench(dataclasses.replace(DESIGNS["nict"], fallback=Deny()))
    request = made.fetch("A", "B", Name(False, "", (), 256, 0, derived_bits=256))
    assert "made of nothing" in made.refusal(request)


def test_a_unit_of_a_working_set_is_not_used_twice_by_the_peer() -> None:
    made = bench("qcanada.working_set")
    line = made.sites["A"].links["B"]
    assert isinstance(line.serving, TakenFirst)
    one = line.serving._sets[0]
    last = one.unit(one.length - 1)
    says(made, "A", "B", "USED", ranges=((last, last + 1),), to=">")
    for unit in (last, one.unit(0)):
        with pytest.raises(Malformed, match="out of their turn"):
            says(made, "A", "B", "USED", ranges=((unit, unit + 1),), to=">")


def test_units_before_the_first_are_used_by_nobody() -> None:
    made = bench("qcanada.working_set")
    with pytest.raises(Malformed, match="must begin at 0"):
        says(made, "A", "B", "USED", ranges=((-(1 << 40), 1),), to=">")
    with pytest.raises(Malformed, match="no run"):
        says(made, "A", "B", "USED", ranges=((0, 1),), to="X>")
    made.balanced()


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_a_reservation_of_less_than_nothing_is_none() -> None:
    made = bench("qos", "A-B", "B-C")
    with pytest.raises(Malformed, match="RESV"):
        says(made, "B", "C", "RESV", counts=(-(10**9),), names=("C", "B", "A"), to="C/s")
    assert made.sites["A"].relaying.reserved_bits() == made.sites["B"].relaying.reserved_bits() == 0


@pytest.mark.parametrize("word", ["XOR", "SET"])
def test_files_of_two_pairs_at_once_are_refused_when_they_are_heard(word: str) -> None:
    made = bench("nec", "A-R", "R-B")
    with pytest.raises(Malformed, match="names"):
        says(made, "A", "R", word, counts=(1, 1, 0), names=("B", "B"), ranges=((0, 1),))


@pytest.mark.parametrize(("nodes", "legal"), [(2, True), (152, True), (512, True), (513, False), (1, False)])
def test_a_path_may_go_far_round_and_has_an_end(nodes: int, legal: bool) -> None:
    path = tuple(f"n{number}" for number in range(nodes))
    counts = (77, 256, 256, 256, 1, 0, 0, 0, 0)
    for word, names in (("RELAY", ("", *path)), ("SYN-ACK", ("", *path)), ("RELEASE", path)):
        kx = Kx(word, Verb.TAKE, number=1, counts=counts[: len(SHAPES[word].counts)], names=names, ranges=((0, 1),))
        kx = kx if SHAPES[word].ranges.most else msgspec.structs.replace(kx, ranges=())
        if legal:
            check(kx, master=True)
        else:
            with pytest.raises(Malformed, match=f"{word} with .* names"):
                check(kx, master=True)


def test_key_is_relayed_over_more_nodes_than_messages_of_our_own_design_hold() -> None:
    nodes = [f"N{number:03}" for number in range(152)]
    made = Bench(DESIGNS["nict"], *("-".join(pair) for pair in pairwise(nodes)), tag_bits=0)
    for one, other in pairwise(nodes):
        made.give(8192, f"{one}-{other}")
    made.open("s", nodes[0], nodes[-1])
    asked = made.ask(nodes[0], nodes[-1], deadline_s=60)
    made.go(30)
    assert made.name(asked).size_bits == 256
    made.balanced()


def test_a_word_that_the_design_does_not_have_is_refused() -> None:
    made = bench("nict")
    for word in ("NOPE", "WANT", ""):
        with pytest.raises(Malformed, match="no word of design nict"):
            says(made, "A", "B", word)


def test_a_question_is_no_notice_and_a_notice_no_question() -> None:
    made = bench("cisco")
    with pytest.raises(Malformed, match="PROPOSE"):
        says(made, "A", "B", "PROPOSE", ranges=((0, 1),))
    with pytest.raises(Malformed, match="PURGE"):
        says(made, "A", "B", "PURGE", kind="ask", ranges=((0, 1),), counts=(0,), names=("",))


def words_of(design: str) -> dict[str, str]:
    """Every word that a line of this design hears -> the kind of line."""
    found: dict[str, str] = {}
    for nodes in ("AB", "ABC"):
        try:
            made = Bench(DESIGNS[design], *("-".join(pair) for pair in pairwise(nodes)))
        except ValueError:
            continue
        for site in made.sites.values():
            for peer in nodes.replace(site.node, ""):
                for distant in (False, True):
                    line = site.line(peer, distant)
                    found |= dict.fromkeys(line.talk.handlers if line else (), "pair" if distant else "link")
    return found


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_every_word_of_every_design_has_a_shape_and_so_has_every_answer(design: str) -> None:
    words = words_of(design)
    assert words
    for word in words:
        assert word in SHAPES
        assert all(answer in ANSWERS for answer in SHAPES[word].answers)
        assert (SHAPES[word].kind == "ask") is bool(SHAPES[word].answers)


def test_no_word_has_a_shape_that_nobody_says() -> None:
    said = {word for design in DESIGNS for word in words_of(design)}
    assert SHAPES.keys() - said == {"REPEAT"}
    answers = {answer for shape in SHAPES.values() for answer in shape.answers}
    assert set(ANSWERS) == answers


# --- what an application says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", sorted(name for name in DESIGNS if name != "keyhop"))
def test_a_rate_that_no_link_can_bring_makes_no_endless_work(design: str) -> None:
    made = bench(design, "A-B", "B-C")
    peer = "C" if made.sites["A"].line("C") is not None else "B"
    before = made.events
    made.open("s", "A", peer, rate_bps=RATE_LIMIT_BPS)
    made.go(5)
    assert made.events - before < 20_000
    made.balanced()
