"""Relay and distant pairs of docs/protocol.md: a trusted node of another make between the program and a far node."""

import os
import random

import pytest
from independent_peer import CONFIRM, FORWARD, HELLO, PLAIN, RESERVE, SUPPLY, frame, pack, unpack
from independent_relay import SEGMENT_BYTES, Middle, confirmation
from real_node import LINK, Line

from keyhop.core.epsilon import epsilon
from keyhop.core.label import Grade, Trust
from keyhop.core.model import NodeId, Purpose
from keyhop.core.node import events
from keyhop.core.node.provenance import label_within

SECRET = random.Random(6).randbytes(65_536)
BOTH_ORDERS = pytest.mark.parametrize("far", ["c", "x"], ids=["the far node leads", "the node leads"])
MIDDLES = pytest.mark.parametrize("middle", ["k", "q"], ids=["the relay proposes", "the node proposes"])


def talk(line: Line, peer: Middle, to_peer: bytes = b"") -> None:
    to_node = peer.receive(to_peer)
    while to_node:
        to_node = peer.receive(line.receive(to_node))
    assert not line.closed, line.notices


def wait(line: Line, peer: Middle, seconds: float) -> None:
    for _ in range(int(seconds * 4)):
        talk(line, peer, line.pass_time(0.25))


def network(middle: str, far: str, blocks: int = 24) -> tuple[Line, Middle]:
    """The node, the relay beside it with key on their link, and the far node that the relay tells of."""
    line, peer = Line("m", middle, SECRET), Middle(middle, "m", LINK, SECRET, far)
    to_node, to_peer = peer.connect(), line.connect()
    line_said = line.receive(to_node)
    talk(line, peer, to_peer + line_said)
    assert peer.open
    for number in range(blocks):
        bits = random.Random(number).randbytes(8192)
        peer.deliver("q", number, bits)
        talk(line, peer, line.deliver("q", number, bits))
    peer.introduce("distant")
    talk(line, peer)
    return line, peer


def relayed(line: Line, peer: Middle) -> None:
    """Batches in both directions fill the runs of the distant pair."""
    peer.ask_lease("pad", 8)
    talk(line, peer)
    peer.relay(1024, 1024, 2048)
    wait(line, peer, 4)
    assert peer.confirmed == [1] and peer.taken


def opened(middle: str, far: str) -> tuple[Line, Middle]:
    line, peer = network(middle, far)
    relayed(line, peer)
    if far < "m":
        peer.open_far()
    wait(line, peer, 3)
    assert peer.far.open and line.node.context.pairs[NodeId(far)].is_open, line.notices
    return line, peer


@MIDDLES
@BOTH_ORDERS
def test_batches_go_both_ways_and_both_ends_hold_the_same(middle: str, far: str) -> None:
    line, peer = network(middle, far)
    relayed(line, peer)
    pair = line.node.context.pairs[NodeId(far)]
    for number, run in pair.runs.items():
        assert run.append == peer.far.runs[number].append
        if number < 2:
            assert {s.start: s.length for s in run.segments.values()} == peer.far.runs[number].segments


@MIDDLES
@BOTH_ORDERS
def test_a_distant_pair_opens_and_keys_go_both_ways(middle: str, far: str) -> None:
    line, peer = opened(middle, far)
    line.step(events.KeysWanted(1, "here", "distant", 1, 256))
    talk(line, peer, line.take())
    wait(line, peer, 2)
    deliver, bits = line.answers[1]
    assert deliver.refusal is None
    (place,) = deliver.ranges
    run = peer.far.runs[place.run.number]
    assert run is peer.far.their_key and run.is_all(SUPPLY, place.start, place.length)
    assert bits == (bytes(run.bits[place.start : place.end]),)
    peer.far.ask_lease("supply")
    talk(line, peer)
    assert peer.far.answers == [(1, True)]
    _, bits_of_far = peer.far.issue(32, "distant", "here")
    keys = (events.Coordinates(peer.far.runs.index(peer.far.own_key), 0, 32),)
    for request, refused in ((2, False), (3, True)):
        line.step(events.KeysFetched(far, [events.Fetch(request, keys)]))
        deliver, bits = line.answers[request]
        assert (deliver.refusal is not None) == refused and bits == (() if refused else (bits_of_far,))


@MIDDLES
@BOTH_ORDERS
def test_the_distant_pair_opens_again_after_the_node_restarts(middle: str, far: str) -> None:
    line, peer = opened(middle, far)
    line.begin()
    to_node, to_peer = peer.connect(), line.connect()
    talk(line, peer, to_peer + line.receive(to_node))
    peer.introduce("distant")
    talk(line, peer)
    if far < "m":
        peer.open_far()
    wait(line, peer, 4)
    assert peer.far.open and line.node.context.pairs[NodeId(far)].is_open


@MIDDLES
@BOTH_ORDERS
def test_of_a_batch_that_comes_leased_keys_are_given_and_fetched_without_another_word(middle: str, far: str) -> None:
    line, peer = opened(middle, far)
    peer.ask_lease("pad", 8)
    peer.far.ask_lease("supply")
    talk(line, peer)
    number = peer.relay(0, 0, 1500, lent=True)
    talk(line, peer)
    assert peer.confirmed[-1] == number and peer.far.answers == [(1, True)]
    _, *lent = peer.far.stock[SUPPLY]
    peer.far.stock[SUPPLY] = lent
    run = line.node.context.pairs[NodeId(far)].their_key
    assert [s.mark for s in run.segments.values() if s.end == run.append] == ["supply"]
    _, bits_of_far = peer.far.issue(32, "distant", "here")
    keys = (events.Coordinates(run.id.number, run.append - 1500, 32),)
    line.step(events.KeysFetched(far, [events.Fetch(1, keys)]))
    deliver, bits = line.answers[1]
    assert deliver.refusal is None and bits == (bits_of_far,)


@MIDDLES
@BOTH_ORDERS
def test_the_node_spends_what_it_sent_leased_as_soon_as_it_is_confirmed(middle: str, far: str) -> None:
    line, peer = opened(middle, far)
    pair = line.node.context.pairs[NodeId(far)]
    request = 0
    while not peer.taken_leased:
        request += 1
        assert request < 60, "batches come leased once applications draw on the pair"
        line.step(events.KeysWanted(request, "here", "distant", 16, 256))
        wait(line, peer, 0.25)
    start, length = peer.taken_leased[0]
    assert pair.own_key.leased(start, start + length, Purpose.SUPPLY)
    asked = len(peer.far.leases_asked)
    while not (line.answers.get(request) and line.answers[request][0].ranges[0].start >= start):
        request += 1
        line.step(events.KeysWanted(request, "here", "distant", 1, 256))
        assert line.answers[request][0].refusal is None
    (place,) = line.answers[request][0].ranges
    assert line.answers[request][1] == (bytes(peer.far.their_key.bits[place.start : place.end]),)
    assert len(peer.far.leases_asked) == asked


# --- batches that are not as they should be ---------------------------------------------------------------------------


def ready(far: str = "c") -> tuple[Line, Middle]:
    line, peer = network("k", far)
    peer.ask_lease("pad", 12)
    talk(line, peer)
    return line, peer


def send(
    line: Line, peer: Middle, bits: bytes, manifest: bytes, number: int = 1, path: list[str] | None = None
) -> bytes:
    """A batch of any content on a path that was reserved; the node's confirmation of it."""
    path = path or [peer.far.name, peer.name, "m"]
    line.receive(frame(PLAIN, 0, pack([[[RESERVE, number, path, len(bits)]]])))
    said = line.receive(peer.tagged([peer.batch(number, bits, manifest)]))
    assert not line.closed, line.notices
    confirmations = [m for f in frames_of(said) if f[0] == PLAIN for m in unpack(f[1])[0] if m[0] == CONFIRM]
    return bytes(confirmations[0][3]) if confirmations else b"nothing"


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append((data[4], data[14 + data[13] : 4 + length]))
        data = data[4 + length :]
    return found


PATH = ["c", "k", "m"]


def manifest_of(bits: bytes, placements: list, number: int = 1, **changes: object) -> bytes:
    path = changes.get("path", PATH)
    segment = changes.get("segment", SEGMENT_BYTES)
    lent = changes.get("lent", False)
    told = confirmation(bits, 0, number, placements, path, segment, lent=lent)  # type: ignore[arg-type]
    return pack([placements, segment, changes.get("fingerprint", told), path, lent])


DEAD: dict[str, tuple[list, dict]] = {
    "a wrong fingerprint": ([[0, 0, 1024]], {"fingerprint": bytes(16)}),
    "a short fingerprint": ([[0, 0, 1024]], {"fingerprint": b""}),
    "another path": ([[0, 0, 1024]], {"path": ["c", "q", "m"]}),
    "segments of no power of two": ([[0, 0, 1024]], {"segment": 3072}),
    "segments that are too small": ([[0, 0, 1024]], {"segment": 512}),
    "segments that are too large": ([[0, 0, 1024]], {"segment": 131_072}),
    "a run of the destination": ([[1, 0, 1024]], {}),
    "a tag run of the destination": ([[5, 0, 1024]], {}),
    "a run nobody has": ([[6, 0, 1024]], {}),
    "placements beyond the batch": ([[0, 0, 1025]], {}),
    "placements that overlap": ([[0, 0, 512], [0, 256, 512]], {}),
    "a placement beyond the end": ([[0, 1 << 34, 32]], {}),
}


@pytest.mark.parametrize("what", DEAD)
def test_a_batch_dies_for(what: str) -> None:
    line, peer = ready()
    placements, changes = DEAD[what]
    bits = os.urandom(64 + 1024)
    assert send(line, peer, bits, manifest_of(bits, placements, **changes)) == b""
    pair = line.node.context.pairs.get(NodeId("c"))
    assert pair is None or not any(run.append for n, run in pair.runs.items() if n in (0, 2, 4))
    good = os.urandom(64 + 1024)
    answer = send(line, peer, good, manifest_of(good, [[0, 0, 1024]], 2), 2)
    assert answer == confirmation(good, 32, 2, [[0, 0, 1024]], PATH, labels=peer.labels_of(len(good)))


@pytest.mark.parametrize("segment", [1024, 4096, 65_536])
def test_the_source_says_how_a_batch_is_cut(segment: int) -> None:
    line, peer = ready()
    bits = os.urandom(64 + 6144)
    answer = send(line, peer, bits, manifest_of(bits, [[0, 0, 6144]], segment=segment))
    assert answer == confirmation(bits, 32, 1, [[0, 0, 6144]], PATH, segment, peer.labels_of(len(bits)))
    cut = [s.length for s in line.node.context.pairs[NodeId("c")].runs[0].segments.values()]
    assert cut == [min(segment, 6144 - start) for start in range(0, 6144, segment)]


@pytest.mark.parametrize(("length", "closes"), [(64, True), (65, False), (262_144, False), (262_145, True)])
def test_a_reservation_has_65_to_262144_bytes(length: int, closes: bool) -> None:
    line, _ = network("k", "c", blocks=0)
    line.receive(frame(PLAIN, 0, pack([[[RESERVE, 1, PATH, length]]])))
    assert bool(line.closed) == closes


@pytest.mark.parametrize("manifest", [b"", b"\xc1", pack([]), pack([[], 1024, b""]), bytes(1000)])
def test_a_batch_with_an_unreadable_manifest_dies(manifest: bytes) -> None:
    line, peer = ready()
    assert send(line, peer, os.urandom(100), manifest) == b""


BAD_LABELS = {
    "none": lambda length: b"",
    "of nothing": lambda length: pack([]),
    "of too few bytes": lambda length: pack([[length - 1, 0, [["k-m", 0, 1e-9, ""]], []]]),
    "of too many bytes": lambda length: pack([[length, 0, [["k-m", 0, 1e-9, ""]], []]] * 2),
    "without a block behind them": lambda length: pack([[length, 0, [], []]]),
    "with an epsilon that is no probability": lambda length: pack([[length, 0, [["k-m", 0, 2.0, ""]], []]]),
    "of an unnumbered block": lambda length: pack([[length, 0, [["k-m", -2, 1e-9, ""]], []]]),
    "of an age below 0": lambda length: pack([[length, -1, [["k-m", 0, 1e-9, ""]], []]]),
    "in too many pieces": lambda length: pack(
        [[length - 256, 0, [["k-m", 0, 1e-9, ""]], []], *[[1, 0, [["k-m", 0, 1e-9, ""]], []]] * 256]
    ),
}


@pytest.mark.parametrize("what", BAD_LABELS)
def test_a_batch_closes_whose_labels_are(what: str) -> None:
    line, peer = ready()
    bits = os.urandom(64 + 1024)
    line.receive(frame(PLAIN, 0, pack([[[RESERVE, 1, PATH, len(bits)]]])))
    peer.labels_of = BAD_LABELS[what]  # type: ignore[method-assign]
    line.receive(peer.tagged([peer.batch(1, bits, manifest_of(bits, [[0, 0, 1024]]))]))
    assert line.closed and NodeId("c") not in line.node.context.pairs


def test_the_destination_labels_what_it_takes_with_all_that_was_told_on_the_way() -> None:
    line, peer = ready()
    bits = os.urandom(64 + 1024)
    assert send(line, peer, bits, manifest_of(bits, [[0, 0, 1024]])) != b""
    run = line.node.context.pairs[NodeId("c")].runs[0]
    key = label_within(run.origins, 32, 64, ("c", "m"), line.node.context.wall_now)
    assert key.epsilon == epsilon("1.1e-10") and key.vendors == {"acme", "other"}
    assert key.paths == {("c", "k", "m")} and key.trust is Trust.FULL and key.grade is Grade.ITS
    assert key.age_ns(line.node.context.wall_now) >= 1_500_000_000


def test_the_source_labels_what_it_sent_with_what_the_destination_confirmed() -> None:
    line, peer = network("k", "z")
    wait(line, peer, 8)
    run = line.node.context.pairs[NodeId("z")].own_key
    assert peer.taken and run.append
    segment = next(run.segments.values())
    key = label_within(run.origins, segment.start, segment.start + 32, ("m", "z"), line.node.context.wall_now)
    assert key.paths == {("m", "k", "z")} and key.vendors == {"unnamed", "acme", "other"}
    assert {term.origin.name for term in key.terms} == {"q", "k-z"} and key.epsilon is None
    assert {module for module, *_ in peer.blocks_told} == {"q"}


def test_a_batch_number_is_taken_once() -> None:
    line, peer = ready()
    first, second = os.urandom(64 + 1024), os.urandom(64 + 1024)
    assert send(line, peer, first, manifest_of(first, [[0, 0, 1024]])) != b""
    assert send(line, peer, second, manifest_of(second, [[0, 1024, 1024]])) == b""
    assert line.node.context.pairs[NodeId("c")].runs[0].append == 1024


def test_a_placement_below_the_append_mark_is_refused() -> None:
    line, peer = ready()
    first, second = os.urandom(64 + 1024), os.urandom(64 + 1024)
    assert send(line, peer, first, manifest_of(first, [[0, 0, 1024]])) != b""
    assert send(line, peer, second, manifest_of(second, [[0, 512, 1024]], 2), 2) == b""


def test_an_astronomic_batch_number_stops_that_source_only() -> None:
    line, peer = ready()
    number = (1 << 63) - 1
    bits = os.urandom(64 + 32)
    answer = send(line, peer, bits, manifest_of(bits, [[0, 0, 32]], number), number)
    assert answer == confirmation(bits, 32, number, [[0, 0, 32]], PATH, labels=peer.labels_of(len(bits)))
    assert send(line, peer, bits, manifest_of(bits, [[0, 64, 32]], 5), 5) == b""


def test_openings_by_way_of_others_leave_keys_for_the_link_itself() -> None:
    line, peer = network("k", "c", blocks=0)
    claim = [[0, 4096]]
    hello = pack([1, 1, LINK, 1, bytes(8), bytes(16), claim, claim])
    for number in range(200):
        forward = [FORWARD, "k", "m", 3, number, HELLO, 0, hello, b""]
        line.receive(frame(PLAIN, 0, pack([[forward]])))
    assert not line.closed
    line.hang_up()
    to_node, to_peer = peer.connect(), line.connect()
    talk(line, peer, to_peer + line.receive(to_node))
    assert peer.open and line.pair.is_open


@pytest.mark.parametrize("path", [["m", "k", "m"], ["k", "m", "k"], ["c", "q", "m"], [], ["m"]], ids=str)
def test_the_node_closes_for_a_reservation_on_the_path(path: list[str]) -> None:
    line, _ = network("k", "c", blocks=0)
    line.receive(frame(PLAIN, 0, pack([[[RESERVE, 1, path, 1024]]])))
    assert line.closed
