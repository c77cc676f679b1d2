"""Where bits come from: kept by place, told along a path, made into labels."""

import random

import pytest

from keyhop.core import label as labels
from keyhop.core.epsilon import epsilon
from keyhop.core.label import Grade, Trust
from keyhop.core.messages import LABEL_PIECES_LIMIT, LABEL_TERMS_LIMIT, LABELS_LIMIT_BYTES, LabelPiece, LabelTerm
from keyhop.core.model import NANOSECONDS, PeerError
from keyhop.core.node import provenance
from keyhop.core.node.provenance import Provenance, Provenances, label_of, label_within

ENDS = ("a", "b")


def block(number: int = 0, figure: float = 1e-10, vendor: str = "acme", born: int = 0, link: str = "a-b") -> Provenance:
    return provenance.of_block(link, number, ((figure, vendor), (figure, vendor)), ENDS, born)


def piece(length: int, *numbers: int, age_ms: int = 0, link: str = "b-c", paths: tuple = ()) -> LabelPiece:
    return LabelPiece(length, age_ms, tuple(LabelTerm(link, n, 1e-10, "acme") for n in numbers), paths)


def test_a_block_of_two_modules_is_as_good_as_the_worse_and_of_both_vendors() -> None:
    key = label_of(provenance.of_block("a-b", 4, ((1e-9, "acme"), (1e-12, "other")), ENDS, 0))
    assert key.epsilon == epsilon(1e-9) and key.vendors == {"acme", "other"} and key.min_vendors == 1
    assert len({term.origin for term in key.terms}) == 1 and key.trust is Trust.DIRECT and key.hops == 1


def test_a_block_that_one_module_declares_nothing_for_has_no_claim() -> None:
    key = label_of(provenance.of_block("a-b", 4, ((1e-9, "acme"), (0.0, "")), ENDS, 0))
    assert key.epsilon is None and key.grade is Grade.ITS and labels.UNNAMED in key.vendors


def test_places_are_found_as_a_slow_search_finds_them() -> None:
    random_ = random.Random(5)
    for _ in range(200):
        kept, slow, position = Provenances(), {}, 0
        entries = []
        for number in range(random_.randint(0, 6)):
            position += random_.choice((0, 0, 3))
            length = random_.randint(1, 9)
            entries.append((position, position + length, block(number)))
            position += length
        random_.shuffle(entries)
        for start, end, known in entries:
            kept.add(start, end, known)
            slow |= dict.fromkeys(range(start, end), known)
        low = random_.randint(0, position + 2)
        high = low + random_.randint(1, 20)
        found = {at: known for start, end, known in kept.within(low, high) for at in range(start, end)}
        assert found == {at: slow.get(at) for at in range(low, high)}
        floor = random_.randint(0, position)
        gone = kept.forget_below(floor)
        assert sorted(gone) == sorted((s, e - s) for s, e, _ in entries if e <= floor)
        assert len(kept) == len(entries) - len(gone)


def test_a_key_across_two_blocks_adds_them_and_one_within_a_block_does_not() -> None:
    kept = Provenances()
    kept.add(0, 100, block(1, born=5 * NANOSECONDS))
    kept.add(100, 200, block(2, 2e-10, born=9 * NANOSECONDS))
    assert label_within(kept, 10, 42, ENDS, 0).epsilon == epsilon(1e-10)
    across = label_within(kept, 90, 122, ENDS, 0)
    assert across.epsilon == epsilon(3e-10) and across.born_ns == 5 * NANOSECONDS


def test_bits_that_nothing_is_known_of_have_no_claim() -> None:
    kept = Provenances()
    kept.add(0, 100, block(1))
    assert label_within(kept, 90, 122, ENDS, 0).epsilon is None


def test_what_crosses_a_hop_takes_on_its_pads_byte_by_byte() -> None:
    joined = provenance.over(
        [piece(10, 1), piece(20, 2, age_ms=7)], [piece(25, 8, link="c-d"), piece(5, 9, link="c-d")]
    )
    assert [(p.length, [(t.module, t.number) for t in p.terms], p.age_ms) for p in joined] == [
        (10, [("b-c", 1), ("c-d", 8)], 0),
        (15, [("b-c", 2), ("c-d", 8)], 7),
        (5, [("b-c", 2), ("c-d", 9)], 7),
    ]


def test_a_relayed_key_is_labelled_with_its_whole_path_and_the_sum() -> None:
    written = provenance.written([piece(32, 1, 2, age_ms=1500)])
    ((length, known),) = provenance.at_the_end(written, 32, ("a", "b", "c"), 10 * NANOSECONDS)
    key = label_of(known)
    assert length == 32 and key.epsilon == epsilon(2e-10) and key.paths == {("a", "b", "c")} and key.hops == 2
    assert key.trust is Trust.FULL and key.age_ns(10 * NANOSECONDS) == 1_500_000_000


def test_a_pad_that_was_relayed_itself_brings_its_path_along() -> None:
    kept = Provenances()
    kept.add(0, 32, Provenance(0, (LabelTerm("b-x", 1, 1e-10, ""), LabelTerm("c-x", 1, 1e-10, "")), (("b", "x", "c"),)))
    told = provenance.told(kept, [(0, 32)], ("b", "c"), 0)
    ((_, known),) = provenance.at_the_end(provenance.written(told), 32, ("a", "b", "c"), 0)
    assert label_of(known).paths == {("a", "b", "c"), ("b", "x", "c")} and "x" in label_of(known).nodes


@pytest.mark.parametrize("pieces", [LABEL_PIECES_LIMIT + 1, 1000])
def test_too_many_pieces_are_joined_and_none_is_taken_for_better(pieces: int) -> None:
    told = [piece(3, number, age_ms=number) for number in range(pieces)]
    read = provenance.read(provenance.written(told), 3 * pieces)
    assert len(read) <= LABEL_PIECES_LIMIT and sum(p.length for p in read) == 3 * pieces
    assert max(p.age_ms for p in read) == pieces - 1
    at = 0
    for one in read:
        assert set(range(at // 3, (at + one.length) // 3)) <= {term.number for term in one.terms}
        at += one.length


def test_too_many_blocks_are_told_as_a_sum_by_module_and_then_by_vendor() -> None:
    one = [LabelTerm(f"link {n % 10}", n, 1e-10, "acme") for n in range(LABEL_TERMS_LIMIT)]
    other = [LabelTerm(f"link {n % 10}", n, 1e-10, "acme") for n in range(64, 100)]
    (joined,) = provenance.over([LabelPiece(8, 0, tuple(one), ())], [LabelPiece(8, 0, tuple(other), ())])
    assert len(joined.terms) == 10 and {t.number for t in joined.terms} == {labels.UNKNOWN}
    key = label_of(Provenance(0, joined.terms, (("a", "b", "c"),)))
    assert key.epsilon == epsilon(1e-8), "a sum of 100 blocks, rounded up at most"
    silent = LabelPiece(8, 0, (LabelTerm("link 3", 777, 0.0, "acme"),), ())
    (with_silent,) = provenance.over([LabelPiece(8, 0, tuple(one), ())], [silent])
    assert label_of(Provenance(0, with_silent.terms, (ENDS,))).epsilon is None


def test_what_is_told_never_outgrows_its_message() -> None:
    long = "x" * 64
    terms = tuple(LabelTerm(f"{n:02}" + long[2:], 1 << 60, 1e-10, f"{n:02}" + long[2:]) for n in range(64))
    told = [LabelPiece(1, at, terms, tuple((f"{at}{n}" + long[8:],) * 32 for n in range(8))) for at in range(64)]
    written = provenance.written(told)
    assert len(written) <= LABELS_LIMIT_BYTES
    assert sum(p.length for p in provenance.read(written, 64)) == 64


def test_labels_of_other_lengths_than_the_batch_are_refused() -> None:
    written = provenance.written([piece(32, 1)])
    for length in (31, 33):
        with pytest.raises(PeerError, match="not of all its bytes"):
            provenance.read(written, length)
