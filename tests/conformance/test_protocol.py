"""docs/protocol.md against the program: a second implementation talks to the real node, fairly and unfairly."""

import os
import random
import struct
from collections.abc import Callable

import pytest
from conversing import BOTH_ORDERS, meet, talk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from independent_peer import (
    AGREE,
    ANSWER_BLOCK,
    ANSWER_LEASE,
    EXPIRE,
    FORWARD,
    GRANT,
    HELLO,
    KEEP_ALIVE,
    LINK_STATE,
    NAME_SECRET,
    PLAIN,
    PROOF,
    RELAY_BATCH,
    REQUEST,
    RESERVE,
    STATE,
    STATEMENT,
    STORED,
    SUPPLY,
    UNTOUCHED,
    Broken,
    Peer,
    frame,
    pack,
    seal,
    unpack,
    unseal,
)
from real_node import LINK, Line

from keyhop.crypto.keyid import Coordinates, KeyIdSeal, Unopened

SECRET = random.Random(5).randbytes(65_536)
BLOCK_BYTES = 8192


def feed(line: Line, peer: Peer, module: str, number: int) -> None:
    """Both modules deliver the same block; the ends agree on it."""
    bits = random.Random(number).randbytes(BLOCK_BYTES)
    peer.deliver(module, number, bits)
    talk(line, peer, peer.flush(), line.deliver(module, number, bits))


def opened(other: str, blocks: int = 4) -> tuple[Line, Peer]:
    line, peer = Line("m", other, SECRET), Peer(other, "m", LINK, SECRET)
    meet(line, peer)
    for number in range(blocks):
        feed(line, peer, "q", number)
    return line, peer


def supplies(line: Line, peer: Peer, request: int = 1) -> Coordinates:
    """The node gives its application a key, and the peer holds the same bits under the same coordinates."""
    talk(line, peer, b"", line.want_keys(request))
    deliver, bits = line.answers.pop(request)
    assert deliver.refusal is None, deliver.refusal
    (place,) = deliver.ranges
    run = peer.runs[place.run.number]
    assert run is peer.their_key and run.is_all(SUPPLY, place.start, place.length)
    assert bits == (bytes(run.bits[place.start : place.end]),)
    return Coordinates(place.run.number, place.start, place.length)


def goes_on(line: Line, peer: Peer) -> None:
    """After whatever happened: a new connection opens, and keys come."""
    peer.blocks.clear()
    meet(line, peer)
    feed(line, peer, "fresh", 1000 + line.connection)
    supplies(line, peer, 77)


def seal_of(line: Line, issuer: str, other: str) -> KeyIdSeal:
    """As the node's edge makes it."""
    epoch = max(line.pair.secrets[issuer])
    secret = line.vault.secret(f"{line.other}/{issuer}/{epoch}")
    return KeyIdSeal(secret, issuer, other, epoch)


# --- fair play --------------------------------------------------------------------------------------------------------


@BOTH_ORDERS
def test_the_two_implementations_open_a_link(other: str) -> None:
    line, peer = opened(other, blocks=0)
    assert peer.secrets["m"] and line.pair.secrets[other]


@BOTH_ORDERS
def test_they_agree_on_blocks_and_cut_them_alike(other: str) -> None:
    line, peer = opened(other, blocks=6)
    for number, run in line.pair.runs.items():
        theirs = peer.runs[number]
        assert run.append == theirs.append
        if number < 2:
            assert {s.start: s.length for s in run.segments.values()} == theirs.segments
            assert run.untouched == theirs.flags.count(UNTOUCHED) > 0


@BOTH_ORDERS
def test_the_node_leases_and_the_peer_opens_its_key_ids(other: str) -> None:
    line, peer = opened(other)
    place = supplies(line, peer)
    sealer = seal_of(line, "m", other)
    id = sealer.seal(*place, sealer.pair("here", "there"))
    assert peer.fetch(id, "here", "stranger") == 401
    bits = bytes(peer.their_key.bits[place.start : place.start + place.length])
    assert peer.fetch(id, "here", "there") == bits
    assert peer.fetch(id, "here", "there") == 400


@BOTH_ORDERS
def test_the_peer_leases_and_the_node_opens_its_key_ids(other: str) -> None:
    line, peer = opened(other)
    peer.ask_lease("supply", 2)
    talk(line, peer, peer.flush())
    assert peer.answers == [(1, True)]
    for request in range(5):
        id, bits = peer.issue(32, "there", "here")
        sealer = seal_of(line, other, "m")
        assert sealer.open(id, sealer.pair("there", "nobody")) is Unopened.FOREIGN
        place = sealer.open(id, sealer.pair("there", "here"))
        assert isinstance(place, Coordinates)
        line.fetch(request, place)
        assert line.answers[request][1] == (bits,)
        line.fetch(100 + request, place)
        assert line.answers[100 + request][0].refusal is not None


@BOTH_ORDERS
def test_key_ids_of_both_implementations_are_the_same(other: str) -> None:
    line, peer = opened(other, blocks=0)
    for issuer, receiver in (("m", other), (other, "m")):
        sealer = seal_of(line, issuer, receiver)
        secret = peer.secrets[issuer][sealer.epoch]
        seat = (issuer, receiver, sealer.epoch)
        place = (1, 123_456_789, 77)
        id = seal(secret, seat, "there", "here", place)
        assert id == sealer.seal(*place, sealer.pair("there", "here"))
        assert unseal(secret, seat, "there", "here", id) == place


@BOTH_ORDERS
def test_the_connection_lives_on_for_as_many_frames_as_there_are_keys(other: str) -> None:
    line, peer = opened(other)
    for number in range(4, 40):
        feed(line, peer, "q", number)
        peer.ask_lease("pad")
        talk(line, peer, peer.flush(), line.pass_time(1))
    assert not line.closed and len(peer.answers) == 36 and all(granted for _, granted in peer.answers)


@BOTH_ORDERS
def test_statements_come_and_add_up(other: str) -> None:
    line, peer = opened(other)
    supplies(line, peer)
    talk(line, peer, b"", line.pass_time(12))
    delivered, skipped, pads, authentication, expired, burnt, floor, _ = peer.statements[-1]
    assert (delivered, skipped, pads, authentication, expired, burnt, floor) == (32, 0, 0, 0, 0, 0, 0)


@BOTH_ORDERS
def test_an_idle_connection_is_kept_alive_and_a_silent_peer_dropped(other: str) -> None:
    line, peer = opened(other, blocks=0)
    said = line.pass_time(6)
    assert said.endswith(frame(PLAIN, 0, pack([[[KEEP_ALIVE, peer.expected[0]]]])))
    line.pass_time(10)
    assert line.closed
    goes_on(line, peer)


@BOTH_ORDERS
def test_a_keep_alive_that_names_another_position_than_the_next_tells_of_a_lost_frame(other: str) -> None:
    line, peer = opened(other, blocks=0)
    talk(line, peer, frame(PLAIN, 0, pack([[[KEEP_ALIVE, peer.keys[0]]]])))
    assert not line.closed
    talk(line, peer, frame(PLAIN, 0, pack([[[KEEP_ALIVE, peer.keys[1]]]])))
    assert line.closed
    assert not any("broke the protocol" in notice for notice in line.notices)
    goes_on(line, peer)


@BOTH_ORDERS
def test_after_a_restart_of_the_node_nothing_old_is_used_and_the_link_opens_again(other: str) -> None:
    line, peer = opened(other)
    before = supplies(line, peer)
    line.begin()
    line.want_keys(5)
    assert line.answers.pop(5)[0].refusal is not None
    meet(line, peer)
    after = supplies(line, peer, 6)
    assert after.start >= before.start + before.length


@BOTH_ORDERS
def test_a_node_put_back_to_an_old_store_finds_out_and_burns(other: str) -> None:
    line, peer = opened(other)
    old = line.disk.keep_copy()
    supplies(line, peer)
    for number in range(4, 8):
        feed(line, peer, "q", number)
    # A new PROOF tells the peer a number that is beyond the old copy.
    line.begin()
    meet(line, peer)
    supplies(line, peer)
    line.start_number = 0
    line.disk.put_back(old)
    line.begin()
    talk(line, peer, peer.connect(), line.connect())
    assert line.closed and any("restored" in notice for notice in line.notices)
    goes_on(line, peer)
    assert peer.their_epoch == (line.node.context.start, line.node.context.incarnation)


@BOTH_ORDERS
def test_an_answer_that_is_lost_burns_the_lease_at_the_owner(other: str) -> None:
    line, peer = opened(other)
    asked = peer.receive(line.want_keys(1, 64))
    line.hang_up()
    assert asked
    goes_on(line, peer)


@BOTH_ORDERS
def test_bytes_may_come_one_at_a_time(other: str) -> None:
    line, peer = Line("m", other, SECRET), Peer(other, "m", LINK, SECRET)
    to_peer, to_node = line.connect(), peer.connect()
    while to_peer or to_node:
        answer = b"".join(line.receive(to_node[i : i + 1]) for i in range(len(to_node)))
        to_node = b"".join(peer.receive(to_peer[i : i + 1]) for i in range(len(to_peer)))
        to_peer = answer
    assert peer.open and not line.closed


# --- blocks that differ -----------------------------------------------------------------------------------------------


@BOTH_ORDERS
@pytest.mark.parametrize("differs", ["one bit", "length"])
def test_a_block_that_differs_is_destroyed_at_both_ends(other: str, differs: str) -> None:
    line, peer = opened(other)
    stock = line.pair.own_key.untouched, line.pair.their_key.untouched
    bits = os.urandom(BLOCK_BYTES)
    changed = bytes([bits[0] ^ 1]) + bits[1:] if differs == "one bit" else bits[:-1]
    peer.deliver("q", 50, changed)
    talk(line, peer, peer.flush(), line.deliver("q", 50, bits))
    assert not line.closed and not peer.blocks
    assert (line.pair.own_key.untouched, line.pair.their_key.untouched) == stock
    feed(line, peer, "q", 51)
    assert (line.pair.own_key.untouched, line.pair.their_key.untouched) > stock
    supplies(line, peer)


def test_a_block_that_comes_to_one_end_only_is_given_up_after_a_while() -> None:
    line, peer = opened("a")
    peer.deliver("q", 50, os.urandom(BLOCK_BYTES))
    talk(line, peer, peer.flush())
    for _ in range(32):
        talk(line, peer, frame(PLAIN, 0, pack([[[KEEP_ALIVE, None]]])), line.pass_time(1))
    assert not line.closed and not peer.proposed and not peer.blocks
    supplies(line, peer)


def test_a_block_seen_before_is_refused_even_with_right_bits() -> None:
    line, peer = opened("a")
    stock = line.pair.own_key.untouched
    feed(line, peer, "q", 2)
    assert line.pair.own_key.untouched == stock and not line.closed


# --- foul play before the link is open --------------------------------------------------------------------------------


def hello_of(peer: Peer, **changes: object) -> bytes:
    names = ["version_low", "version_high", "link", "start", "incarnation", "nonce", "opening", "tags"]
    return frame(HELLO, 0, pack([changes.get(name, value) for name, value in zip(names, peer.hello, strict=True)]))


BEFORE_OPEN: dict[str, Callable[[Peer, bytes], bytes]] = {
    "a GRANT before the HELLO": lambda peer, hello: frame(GRANT, 0, pack([0])),
    "a PROOF before the HELLO": lambda peer, hello: frame(PROOF, 0, b"", bytes(16)),
    "a STATE before the PROOF": lambda peer, hello: hello + frame(STATE, 0, pack([1, b"", [], []]), bytes(16)),
    "a PLAIN before the PROOF": lambda peer, hello: hello + frame(PLAIN, 0, pack([[[KEEP_ALIVE, None]]])),
    "a PROOF before the GRANT": lambda peer, hello: hello + frame(PROOF, 0, proof_of(peer), bytes(16)),
    "a second HELLO": lambda peer, hello: hello + hello,
    "another link number": lambda peer, hello: hello_of(peer, link=bytes(16)),
    "a version nobody speaks": lambda peer, hello: hello_of(peer, version_low=2, version_high=9),
    "a short nonce": lambda peer, hello: hello_of(peer, nonce=bytes(15)),
    "a negative start number": lambda peer, hello: hello_of(peer, start=-1),
    "no opening key claimed": lambda peer, hello: hello_of(peer, opening=[]),
    "opening keys that are not there": lambda peer, hello: hello_of(peer, opening=[[1 << 20, 64]]),
    "no tag key claimed": lambda peer, hello: hello + frame(GRANT, 0, pack([0])),
    "too many spans": lambda peer, hello: hello_of(peer, tags=[[0, 1]] * 5000),
    "a GRANT outside the run": lambda peer, hello: hello + frame(GRANT, 0, pack([1 << 20])),
    "a GRANT across the end of the run": lambda peer, hello: hello + frame(GRANT, 0, pack([4080])),
    "a second GRANT": lambda peer, hello: hello + frame(GRANT, 0, pack([0])) + frame(GRANT, 0, pack([32])),
    "a HELLO with a tag": lambda peer, hello: frame(HELLO, 0, hello[14:], bytes(16)),
    "a HELLO at a position": lambda peer, hello: frame(HELLO, 32, hello[14:]),
    "no payload": lambda peer, hello: frame(HELLO, 0, b""),
}
BEFORE_OPEN["no tag key claimed"] = lambda peer, hello: hello_of(peer, tags=[]) + frame(GRANT, 0, pack([0]))


def proof_of(peer: Peer) -> bytes:
    states = [[number, run.append, 0, []] for number, run in enumerate(peer.runs)]
    return pack([1, bytes(8), 1, b"", 0, 0, b"", states, [], [], [[0, 256]]])


@BOTH_ORDERS
@pytest.mark.parametrize("attack", BEFORE_OPEN)
def test_before_the_link_is_open_the_node_closes_for(other: str, attack: str) -> None:
    line, peer = Line("m", other, SECRET), Peer(other, "m", LINK, SECRET)
    hello = peer.connect()
    line.connect()
    line.receive(BEFORE_OPEN[attack](peer, hello))
    assert line.closed and not line.pair.is_open
    goes_on(line, peer)


class Liar(Peer):
    """Says in its PROOF what `twist` makes of the truth."""

    twist: Callable[[list], list] = staticmethod(lambda body: body)

    def proof(self) -> list:
        return self.twist(super().proof())


def until_proof(line: Line, peer: Peer) -> bytes:
    """An opening up to the peer's PROOF, which the node has not seen yet."""
    if not line.closed:
        line.hang_up()
    hello_of_peer, hello_of_node = peer.connect(), line.connect()
    grant_of_node = line.receive(hello_of_peer)
    line.receive(peer.receive(hello_of_node))
    return peer.receive(grant_of_node)


def liar(other: str) -> tuple[Line, Liar]:
    line, peer = Line("m", other, SECRET), Liar(other, "m", LINK, SECRET)
    meet(line, peer)
    for number in range(3):
        feed(line, peer, "q", number)
    return line, peer


(
    E_EPOCH, E_EPOCH_INCARNATION, E_JOURNAL, E_VOUCH, E_TOLD_START, E_TOLD_JOURNAL, E_TOLD_VOUCH, E_RUNS, E_INTAKE,
    E_SECRETS, E_CREDIT,
) = range(11)  # fmt: skip


def put(index: int, value: object) -> Callable[[list], list]:
    return lambda body: [*body[:index], value, *body[index + 1 :]]


def put_run(number: int, *state: object) -> Callable[[list], list]:
    return lambda body: put(E_RUNS, [[number, *state] if run[0] == number else run for run in body[E_RUNS]])(body)


BAD_PROOFS: dict[str, Callable[[list], list]] = {
    "no runs": put(E_RUNS, []),
    "a run missing": lambda body: put(E_RUNS, body[E_RUNS][:5])(body),
    "a run twice": lambda body: put(E_RUNS, [*body[E_RUNS][:5], body[E_RUNS][0]])(body),
    "a run nobody has": put_run(3, 0, 0, []) and (lambda body: put(E_RUNS, [*body[E_RUNS], [6, 0, 0, []]])(body)),
    "spans that fall": put_run(0, 4096, 0, [[1024, 10], [0, 10]]),
    "spans that overlap": put_run(0, 4096, 0, [[0, 10], [9, 10]]),
    "a span of no length": put_run(0, 4096, 0, [[0, 0]]),
    "a span above the run": put_run(0, 4096, 0, [[4000, 1000]]),
    "a span below the floor": put_run(0, 4096, 1024, [[0, 10]]),
    "a floor above the run": put_run(0, 4096, 4097, []),
    "an append mark beyond all runs": put_run(0, (1 << 34) + 1, 0, []),
    "a negative append mark": put_run(0, -1, 0, []),
    "no credit": put(E_CREDIT, []),
    "a credit of one key": put(E_CREDIT, [[28_000, 32]]),
    "a credit below the mark": put(E_CREDIT, [[0, 256]]),
    "a credit beyond the run": put(E_CREDIT, [[1 << 30, 256]]),
    "a credit across the end of the run": put(E_CREDIT, [[28_672 - 64, 1 << 20]]),
    "credits that overlap": put(E_CREDIT, [[28_000, 64], [28_032, 64]]),
    "credits that fall": put(E_CREDIT, [[28_064, 64], [28_000, 32]]),
    "a credit shorter than a key": put(E_CREDIT, [[28_000, 31]]),
    "more modules than anyone has": put(E_INTAKE, [[f"q{n}", 1, 1] for n in range(65)]),
    "a negative block number": put(E_INTAKE, [["q", -1, 1]]),
    "a negative journal number": put(E_JOURNAL, -1),
    "a journal number beyond 63 bits": put(E_JOURNAL, 1 << 63),
    "short random bits of the epoch": put(E_EPOCH_INCARNATION, bytes(7)),
    "a long vouch": put(E_VOUCH, bytes(1000)),
    "told a negative number": put(E_TOLD_START, -1),
    "too few elements": lambda body: body[:-1],
    "too many elements": lambda body: [*body, 0],
    "an element of another type": put(E_EPOCH, "1"),
}


@BOTH_ORDERS
@pytest.mark.parametrize("lie", BAD_PROOFS)
def test_the_node_closes_for_a_proof_with(other: str, lie: str) -> None:
    line, peer = liar(other)
    peer.twist = BAD_PROOFS[lie]
    proof = until_proof(line, peer)
    assert line.receive(proof) == b"" and line.closed
    peer.twist = lambda body: body
    goes_on(line, peer)


@BOTH_ORDERS
def test_the_node_closes_for_a_forged_proof_and_never_uses_its_key_again(other: str) -> None:
    line, peer = liar(other)
    proof = until_proof(line, peer)
    line.receive(proof[:20] + bytes([proof[20] ^ 1]) + proof[21:])
    assert line.closed
    goes_on(line, peer)


@BOTH_ORDERS
def test_the_node_closes_for_a_proof_of_an_earlier_opening(other: str) -> None:
    line, peer = liar(other)
    old = until_proof(line, peer)
    line.hang_up()
    until_proof(line, peer)
    line.receive(old)
    assert line.closed
    goes_on(line, peer)


@BOTH_ORDERS
def test_the_node_closes_for_a_second_proof(other: str) -> None:
    line, peer = liar(other)
    proof = until_proof(line, peer)
    line.receive(proof)
    assert not line.closed
    line.receive(proof)
    assert line.closed
    goes_on(line, peer)


@BOTH_ORDERS
@pytest.mark.parametrize("told_vouch", [bytes(16), b"x", b""])
def test_an_invented_journal_number_restores_nobody(other: str, told_vouch: bytes) -> None:
    line, peer = liar(other)
    peer.twist = lambda body: [*body[:4], 1 << 40, 1 << 40, told_vouch, *body[7:]]
    meet(line, peer)
    assert line.node.context.epoch == 1
    supplies(line, peer)


@BOTH_ORDERS
def test_a_genuine_vouch_under_another_number_restores_nobody(other: str) -> None:
    line, peer = liar(other)
    peer.twist = lambda body: put(E_TOLD_JOURNAL, body[E_TOLD_JOURNAL] + (1 << 20))(body)
    meet(line, peer)
    assert line.node.context.epoch == 1


@BOTH_ORDERS
def test_astronomic_block_numbers_in_a_proof_stop_that_module_only(other: str) -> None:
    line, peer = liar(other)
    peer.twist = put(E_INTAKE, [["q", (1 << 63) - 1, (1 << 64) - 1]])
    meet(line, peer)
    peer.twist = lambda body: body
    feed(line, peer, "q", 9)
    stock = line.pair.own_key.untouched
    feed(line, peer, "other", 9)
    assert line.pair.own_key.untouched > stock
    supplies(line, peer)


@BOTH_ORDERS
def test_a_claim_that_all_is_touched_burns_and_frees_nothing(other: str) -> None:
    line, peer = liar(other)
    first = supplies(line, peer)
    number = first.run
    append = line.pair.runs[number].append
    peer.twist = put_run(number, append, 0, [[0, append]])
    meet(line, peer)
    assert line.pair.runs[number].untouched == 0
    peer.twist = lambda body: body
    goes_on(line, peer)


@BOTH_ORDERS
def test_a_floor_told_in_a_proof_destroys_what_lies_below(other: str) -> None:
    line, peer = liar(other)
    number = peer.runs.index(peer.own_key)
    peer.ask_lease("supply")
    talk(line, peer, peer.flush())
    run = line.pair.runs[number]
    stored = [block for block in line.disk.image.blocks if block.run == run.id]
    peer.twist = put_run(number, run.append, 2048, [])
    meet(line, peer)
    assert run.floor == 2048 and min(run.segments) == 2048
    assert len([block for block in line.disk.image.blocks if block.run == run.id]) == len(stored) - 2
    line.fetch(9, (number, 0, 32))
    assert line.answers[9][0].refusal is not None
    peer.twist = lambda body: body
    peer.own_key.set(4, 0, 2048)
    goes_on(line, peer)


@BOTH_ORDERS
def test_a_claim_that_nothing_is_touched_gives_no_byte_a_second_time(other: str) -> None:
    line, peer = liar(other)
    first = supplies(line, peer)
    append = line.pair.runs[first.run].append
    peer.twist = put_run(first.run, append, 0, [])
    meet(line, peer)
    peer.twist = lambda body: body
    goes_on(line, peer)


# --- foul play on the open link ---------------------------------------------------------------------------------------


def flipped(data: bytes, bit: int) -> bytes:
    bit %= len(data) * 8
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def block_of(peer: Peer, **changes: object) -> Callable[[int], list]:
    """An AgreeBlock for a block of this test's making."""
    own: dict = {"module": "x", "number": 7, "length": 4096, "placements": [[0, 1 << 20, 1024]]}
    own |= {"segment": 1024, "epsilon": 0.0, "vendor": "", "shift": 0, "blocks": None, **changes}

    def make(position: int) -> list:
        peer.own_tags.key(position)
        name = own["module"], own["number"]
        peer.proposed[name], peer.blocks[name] = own["placements"], b""
        blocks = own["blocks"]
        if blocks is None:
            blocks = [[own["number"], own["length"], own["epsilon"], own["vendor"]]]
        place = own["placements"], own["segment"], False
        return [AGREE, own["module"], blocks, position + own["shift"], bytes(16), *place]

    return make


def several(*numbers: int) -> list[list]:
    return [[number, 4096, 0.0, ""] for number in numbers]


def secret_of(peer: Peer, epoch: int, shift: int = 0) -> Callable[[int], list]:
    return lambda position: [NAME_SECRET, epoch, position + shift]


def swapped(peer: Peer) -> bytes:
    first, second = peer.tagged([]), peer.tagged([])
    return second + first


def twice(peer: Peer) -> bytes:
    return peer.tagged([]) * 2


def skipping(peer: Peer) -> bytes:
    peer.keys.popleft()
    return peer.tagged([])


def at(peer: Peer, position: int, body: object = None) -> bytes:
    """A genuine tag, at a position of the peer's choice."""
    body = [peer.journal, b"", [], []] if body is None else body
    message = struct.pack(">BQ", STATE, position) + pack(body)
    key = bytes(peer.own_tags.bits[position : position + 32]).ljust(32, b"\0")
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    return frame(STATE, position, pack(body), Poly1305.generate_tag(key, message))


def stated(peer: Peer, body: object) -> bytes:
    """A genuine frame with any content."""
    return peer.state_frame(peer.keys.popleft(), pack(body) if not isinstance(body, bytes) else body)


def labels_of(length: int) -> bytes:
    return pack([[length, 0, [["q", 0, 0.0, ""]], []]])


def pads_of(peer: Peer, spans: list[list[int]], **changes: object) -> bytes:
    length = changes.get("length", sum(n for _, n in spans))
    return peer.tagged([[RELAY_BATCH, changes.get("source", peer.name), "m", 1, spans, length,
                         changes.get("ciphertext", b""), b"", labels_of(max(1, length))]])  # type: ignore  # fmt: skip


def link_state_of(fields: list) -> bytes:
    return frame(PLAIN, 0, pack([[[LINK_STATE, pack(fields), b"", b"", 255]]]))


CLOSES: dict[str, Callable[[Peer], bytes]] = {
    "a forged tag": lambda peer: flipped(peer.tagged([]), 14 * 8),
    "a changed payload": lambda peer: flipped(peer.tagged([]), -1),
    "a changed position": lambda peer: flipped(peer.tagged([]), 12 * 8 + 5),
    "a frame twice": twice,
    "frames in another order": swapped,
    "a frame left out": skipping,
    "a position used before": lambda peer: at(peer, peer.keys[0] - 32),
    "a position not granted": lambda peer: at(peer, 20_000 // 32 * 32),
    "a position between two keys": lambda peer: at(peer, peer.keys[0] + 16),
    "a position beyond the run": lambda peer: at(peer, 1 << 33),
    "a position beyond all runs": lambda peer: at(peer, (1 << 64) - 1),
    "a tagged frame without a tag": lambda peer: frame(STATE, peer.keys[0], pack([1, b"", [], []])),
    "a plain frame with a tag": lambda peer: frame(PLAIN, 0, pack([[]]), bytes(16)),
    "a plain frame at a position": lambda peer: frame(PLAIN, 32, pack([[]])),
    "a frame of type 0": lambda peer: frame(0, 0, b""),
    "a frame of type 6": lambda peer: frame(6, 0, pack([[]])),
    "a frame of type 255": lambda peer: frame(255, 0, pack([[]]), bytes(16)),
    "an oversize frame": lambda peer: struct.pack(">IBQB", 1_048_573, STATE, 0, 16),
    "a frame of no length": lambda peer: bytes(14),
    "a tag of 8 bytes": lambda peer: frame(STATE, 0, bytes(20), bytes(8)),
    "a second HELLO": lambda peer: frame(HELLO, 0, pack(peer.hello)),
    "a second GRANT": lambda peer: frame(GRANT, 0, pack([1024])),
    "a second PROOF": lambda peer: frame(PROOF, peer.granted, proof_of(peer), bytes(16)),
    "garbage": lambda peer: stated(peer, b"\xc1\xff\x00"),
    "nothing": lambda peer: stated(peer, b""),
    "half a payload": lambda peer: stated(peer, pack([1, b"", [], []])[:-1]),
    "more after the payload": lambda peer: stated(peer, pack([1, b"", [], []]) + b"\x00"),
    "a map": lambda peer: stated(peer, {"journal": 1}),
    "deep nesting": lambda peer: stated(peer, b"\x91" * 100_000 + b"\xc0"),
    "too few elements": lambda peer: stated(peer, [1, b"", []]),
    "too many elements": lambda peer: stated(peer, [1, b"", [], [], 0]),
    "a negative journal number": lambda peer: stated(peer, [-1, b"", [], []]),
    "a long vouch": lambda peer: stated(peer, [1, bytes(17), [], []]),
    "too many messages": lambda peer: stated(peer, [1, b"", [], [[STORED, "q", 1]] * 257]),
    "an unknown message": lambda peer: peer.tagged([[9, 1]]),
    "a plain message in a tagged frame": lambda peer: peer.tagged([[KEEP_ALIVE, None]]),
    "a tagged message in a plain frame": lambda peer: frame(PLAIN, 0, pack([[[ANSWER_LEASE, 1, True]]])),
    "a message with too many elements": lambda peer: peer.tagged([[STORED, "q", 1, 1]]),
    "a credit below the mark": lambda peer: peer.tagged([], [[0, 32]]),
    "a credit granted before": lambda peer: peer.tagged([], [[peer.expected[0], 32]]),
    "a credit beyond the run": lambda peer: peer.tagged([], [[1 << 30, 32]]),
    "a credit shorter than a key": lambda peer: peer.tagged([], [[28_000, 16]]),
    "credits that overlap": lambda peer: peer.tagged([], [[28_000, 64], [28_032, 64]]),
    "an answer to a lease nobody asked for": lambda peer: peer.tagged([[ANSWER_LEASE, 999, True]]),
    "an answer to a block nobody proposed": lambda peer: peer.tagged([[ANSWER_BLOCK, "q", 999, True, [[0.0, ""]], []]]),
    "a lease for another purpose": lambda peer: peer.tagged([[REQUEST, 1, "untouched", [[0, 1024]]]]),
    "a floor above the run": lambda peer: peer.tagged([[STATEMENT, 0, 0, 0, 0, 0, 0, 1 << 30, b""]]),
    "nothing expired": lambda peer: peer.tagged([[EXPIRE, []]]),
    "an expired span above the run": lambda peer: peer.tagged([[EXPIRE, [[1 << 30, 1024]]]]),
    "expired spans that overlap": lambda peer: peer.tagged([[EXPIRE, [[0, 1024], [512, 1024]]]]),
    "a floor below zero": lambda peer: peer.tagged([[STATEMENT, 0, 0, 0, 0, 0, 0, -1, b""]]),
    "a key-ID epoch that does not rise": lambda peer: peer.tagged([secret_of(peer, 1)]),
    "a key-ID epoch of zero": lambda peer: peer.tagged([secret_of(peer, 0)]),
    "a key-ID secret at the frame's own position": lambda peer: peer.tagged([secret_of(peer, 5, -32)]),
    "a key-ID secret further on": lambda peer: peer.tagged([secret_of(peer, 5, 32)]),
    "a pad that is not leased": lambda peer: pads_of(peer, [[0, 1024]]),
    "a pad of nothing": lambda peer: pads_of(peer, []),
    "pads of another length": lambda peer: pads_of(peer, [[0, 128]], length=256),
    "another source's key in clear": lambda peer: pads_of(peer, [[0, 128]], source="far"),
    "a ciphertext of another length": lambda peer: pads_of(peer, [[0, 128]], ciphertext=bytes(127)),
    "a reservation along no path": lambda peer: frame(PLAIN, 0, pack([[[RESERVE, 1, ["far", "further"], 1024]]])),
    "a reservation that goes in a circle": lambda peer: frame(
        PLAIN, 0, pack([[[RESERVE, 1, [peer.name, "m", peer.name], 1024]]])
    ),
    "a reservation of too much": lambda peer: frame(PLAIN, 0, pack([[[RESERVE, 1, [peer.name, "m"], 1 << 20]]])),
    "a reservation of a negative number": lambda peer: frame(PLAIN, 0, pack([[[RESERVE, -1, [peer.name, "m"], 1024]]])),
    "link state with too many links": lambda peer: link_state_of(["far", 1, [["x", 0, 0, True]] * 300, []]),
    "link state of a long name": lambda peer: link_state_of(["x" * 65, 1, [], []]),
    "link state of nobody": lambda peer: link_state_of(["", 1, [], []]),
    "link state that is none": lambda peer: frame(PLAIN, 0, pack([[[LINK_STATE, b"\xc1", b"", b"", 255]]])),
    "a handed-on frame at a negative position": lambda peer: frame(
        PLAIN, 0, pack([[[FORWARD, "far", "m", 3, 1, 4, -1, b"", bytes(16)]]])
    ),
}

CLOSES_FOR_THE_LOWER: dict[str, Callable[[Peer], bytes]] = {
    "placements beyond the block": lambda peer: peer.tagged([block_of(peer, placements=[[0, 1 << 20, 4097]])]),
    "placements that fall": lambda peer: peer.tagged([block_of(peer, placements=[[0, 1 << 20, 32], [0, 64_000, 32]])]),
    "a placement in no run": lambda peer: peer.tagged([block_of(peer, placements=[[6, 1 << 20, 32]])]),
    "a placement beyond the end": lambda peer: peer.tagged([block_of(peer, placements=[[0, 1 << 34, 32]])]),
    "a placement of no length": lambda peer: peer.tagged([block_of(peer, placements=[[0, 1 << 20, 0]])]),
    "too many placements": lambda peer: peer.tagged(
        [block_of(peer, placements=[[0, (1 << 20) + 32 * n, 32] for n in range(17)])]
    ),
    "segments that are no power of two": lambda peer: peer.tagged([block_of(peer, segment=1536)]),
    "segments that are too small": lambda peer: peer.tagged([block_of(peer, segment=512)]),
    "segments that are too large": lambda peer: peer.tagged([block_of(peer, segment=1 << 17)]),
    "an epsilon that is no probability": lambda peer: peer.tagged([block_of(peer, epsilon=float("nan"))]),
    "a negative block number": lambda peer: peer.tagged([block_of(peer, number=-1)]),
    "a block number beyond 63 bits": lambda peer: peer.tagged([block_of(peer, number=1 << 63)]),
    "a module of a long name": lambda peer: peer.tagged([block_of(peer, module="x" * 65)]),
    "a fingerprint key out of order": lambda peer: peer.tagged([block_of(peer, shift=32)]),
    "the frame's key for the fingerprint": lambda peer: peer.tagged([block_of(peer, shift=-32)]),
    "a block proposed twice": lambda peer: peer.tagged([block_of(peer), block_of(peer)]),
    "a proposal of no block": lambda peer: peer.tagged([block_of(peer, blocks=())]),
    "a proposal of too many blocks": lambda peer: peer.tagged([block_of(peer, blocks=several(*range(7, 40)))]),
    "numbers that do not rise": lambda peer: peer.tagged([block_of(peer, blocks=several(7, 9, 8))]),
    "a number twice in a proposal": lambda peer: peer.tagged([block_of(peer, blocks=several(7, 7))]),
    "a block in two proposals": lambda peer: peer.tagged(
        [block_of(peer, blocks=several(7, 8)), block_of(peer, blocks=several(8, 9))]
    ),
}


@BOTH_ORDERS
@pytest.mark.parametrize("attack", CLOSES)
def test_the_node_closes_for(other: str, attack: str) -> None:
    line, peer = opened(other)
    line.receive(CLOSES[attack](peer))
    assert line.closed
    goes_on(line, peer)


@pytest.mark.parametrize(
    "answer",
    [
        [True, [], []],
        [True, [[0.0, ""]] * 2, []],
        [True, [[0.0, ""]], [70]],
        [False, [[0.0, ""]], []],
        [False, [], [71]],
    ],
    ids=["says nothing of it", "says too much", "lacks what it has", "speaks of what it refuses", "lacks another"],
)
def test_the_node_closes_for_an_answer_that_does_not_fit_its_proposal(answer: list) -> None:
    line, peer = opened("z")
    stock = line.pair.own_key.untouched, line.pair.their_key.untouched
    assert line.deliver("q", 70, os.urandom(BLOCK_BYTES))
    line.receive(peer.tagged([[ANSWER_BLOCK, "q", 70, *answer]]))
    assert line.closed
    assert (line.pair.own_key.untouched, line.pair.their_key.untouched) == stock
    goes_on(line, peer)


@pytest.mark.parametrize("attack", CLOSES_FOR_THE_LOWER)
def test_the_node_closes_for_a_proposal_with(attack: str) -> None:
    line, peer = opened("a")
    line.receive(CLOSES_FOR_THE_LOWER[attack](peer))
    assert line.closed
    goes_on(line, peer)


def test_the_node_closes_if_the_higher_end_proposes() -> None:
    line, peer = opened("z")
    line.receive(peer.tagged([block_of(peer)]))
    assert line.closed
    goes_on(line, peer)


@BOTH_ORDERS
def test_the_node_closes_for_a_frame_of_an_earlier_connection(other: str) -> None:
    line, peer = opened(other)
    old = peer.tagged([])
    meet(line, peer)
    line.receive(old)
    assert line.closed
    goes_on(line, peer)


def test_the_node_closes_for_too_many_unanswered_proposals() -> None:
    line, peer = opened("a")
    for number in range(17):
        talk(line, peer, peer.tagged([block_of(peer, number=number, placements=[])]))
        assert line.closed == (number == 16)
    goes_on(line, peer)


def test_the_node_closes_for_more_modules_than_anyone_has() -> None:
    line, peer = opened("a")
    for number in range(70):
        talk(line, peer, b"", line.receive(peer.tagged([block_of(peer, module=f"invented {number}", placements=[])])))
        if line.closed:
            break
        for _ in range(3):
            talk(line, peer, frame(PLAIN, 0, pack([[[KEEP_ALIVE, None]]])), line.pass_time(12))
    assert line.closed and number <= 64
    assert len(line.node.context.intake_marks) <= 64
    goes_on(line, peer)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.integers(0, 10_000), some.sampled_from(["a", "z"]))
def test_one_changed_bit_closes_and_nothing_of_the_frame_is_done(bit: int, other: str) -> None:
    line, peer = opened(other, blocks=1)
    peer.ask_lease("supply")
    sent = peer.tagged([peer.outbox.pop()])
    untouched = line.pair.their_key.untouched
    # Not in the length field: a longer frame is only waited for.
    line.receive(flipped(sent, 32 + bit % ((len(sent) - 4) * 8)))
    assert line.closed and line.pair.their_key.untouched == untouched
    goes_on(line, peer)


# --- what is refused by an answer -------------------------------------------------------------------------------------

REFUSED_LEASES: dict[str, Callable[[Peer], list[list[int]]]] = {
    "nothing": lambda peer: [],
    "part of a segment": lambda peer: [[0, 512]],
    "two segments as one": lambda peer: [[0, 2048]],
    "bytes across segments": lambda peer: [[512, 1024]],
    "a segment twice": lambda peer: [[0, 1024], [0, 1024]],
    "a segment above the run": lambda peer: [[peer.own_key.append, 1024]],
    "one good and one bad segment": lambda peer: [[0, 1024], [1 << 20, 1024]],
}


@BOTH_ORDERS
@pytest.mark.parametrize("what", REFUSED_LEASES)
def test_a_lease_is_refused_for(other: str, what: str) -> None:
    line, peer = opened(other)
    untouched = line.pair.their_key.untouched
    answer = line.receive(peer.tagged([[REQUEST, 5, "supply", REFUSED_LEASES[what](peer)]]))
    assert not line.closed and unpack(answer[30:])[3] == [[ANSWER_LEASE, 5, False]]
    assert line.pair.their_key.untouched == untouched


@BOTH_ORDERS
def test_a_lease_of_what_is_leased_already_is_refused(other: str) -> None:
    line, peer = opened(other)
    asked = [REQUEST, 5, "supply", [[0, 1024]]]
    for expected in (True, False):
        answer = line.receive(peer.tagged([asked]))
        assert unpack(answer[30:])[3] == [[ANSWER_LEASE, 5, expected]]
    answer = line.receive(peer.tagged([[REQUEST, 6, "pad", [[0, 1024]]]]))
    assert unpack(answer[30:])[3] == [[ANSWER_LEASE, 6, False]]


@BOTH_ORDERS
def test_a_request_names_segments_of_the_asker_alone(other: str) -> None:
    """The same numbers mean the asker's run: the node's own run cannot be leased from outside."""
    line, peer = opened(other)
    own = line.pair.own_key.untouched
    line.receive(peer.tagged([[REQUEST, 5, "supply", [[0, 1024]]]]))
    assert line.pair.own_key.untouched == own


@BOTH_ORDERS
@pytest.mark.parametrize(
    "place",
    ["outside a lease", "across the end of a lease", "leased as a pad", "in the wrong run", "in no run", "used"],
)
def test_the_node_serves_no_key(other: str, place: str) -> None:
    line, peer = opened(other)
    supply, pad = peer.ask_lease("supply"), 0
    talk(line, peer, peer.flush())
    pad = peer.ask_lease("pad")
    talk(line, peer, peer.flush())
    assert peer.answers == [(supply, True), (pad, True)]
    run = 0 if peer.leads else 1
    (start, _), (pad_start, _) = peer.stock[SUPPLY][0], peer.stock[3][0]
    key = {
        "outside a lease": (run, 3 * 1024, 32),
        "across the end of a lease": (run, start + 1024 - 16, 32),
        "leased as a pad": (run, pad_start, 32),
        "in the wrong run": (1 - run, start, 32),
        "in no run": (7, start, 32),
        "used": (run, start, 32),
    }[place]
    if place == "used":
        line.fetch(8, (run, start + 31, 1))
        assert line.answers[8][0].refusal is None
    line.fetch(9, key)
    refusal = line.answers[9][0].refusal
    assert refusal is not None and refusal.reason == "not_found"


def test_a_placement_below_the_append_mark_is_refused_and_the_block_destroyed_at_both_ends() -> None:
    line, peer = opened("a")
    bits = os.urandom(BLOCK_BYTES)
    before = [(run.append, run.untouched) for run in line.pair.runs.values()]
    peer.blocks["q", 60] = bits
    peer.proposed["q", 60] = [[0, 0, 1024]]

    def make(position: int) -> list:
        print_ = peer.fingerprint(peer.own_tags.key(position), "q", [(60, bits)])
        return [AGREE, "q", [[60, len(bits), 0.0, ""]], position, print_, [[0, 0, 1024]], 1024, False]

    line.deliver("q", 60, bits)
    talk(line, peer, peer.tagged([make]))
    assert not line.closed and not peer.blocks
    assert [(run.append, run.untouched) for run in line.pair.runs.values()] == before
    supplies(line, peer)


@BOTH_ORDERS
def test_a_batch_without_a_reservation_dies_and_its_pads_are_used(other: str) -> None:
    line, peer = opened(other)
    peer.ask_lease("pad")
    talk(line, peer, peer.flush())
    ((start, _),) = peer.stock[3]
    line.receive(pads_of(peer, [[start, 128]]))
    assert not line.closed
    line.receive(pads_of(peer, [[start + 64, 128]]))
    assert line.closed
    goes_on(line, peer)


@BOTH_ORDERS
def test_a_batch_that_names_a_pad_twice_closes(other: str) -> None:
    line, peer = opened(other)
    peer.ask_lease("pad")
    talk(line, peer, peer.flush())
    ((start, _),) = peer.stock[3]
    line.receive(pads_of(peer, [[start, 64], [start + 32, 64]]))
    assert line.closed
    goes_on(line, peer)


@BOTH_ORDERS
def test_a_batch_for_another_destination_than_its_reservation_dies(other: str) -> None:
    line, peer = opened(other)
    peer.ask_lease("pad")
    talk(line, peer, peer.flush())
    ((start, _),) = peer.stock[3]
    line.receive(frame(PLAIN, 0, pack([[[RESERVE, 1, [other, "m"], 128]]])))
    line.receive(peer.tagged([[RELAY_BATCH, other, "elsewhere", 1, [[start, 128]], 128, b"", b"", labels_of(128)]]))
    assert not line.closed
    supplies(line, peer)


@BOTH_ORDERS
def test_a_confirmation_for_nothing_changes_nothing(other: str) -> None:
    line, peer = opened(other)
    line.receive(peer.tagged([[STORED, "q", 999]]))
    assert not line.closed
    supplies(line, peer)


# --- anything at all --------------------------------------------------------------------------------------------------

numbers = some.sampled_from(
    [-1, 0, 1, 31, 32, 63, 64, 128, 1024, 4096, 16_384, 1 << 34, (1 << 34) + 1, 1 << 62, 1 << 63, (1 << 64) - 1]
)
texts = some.sampled_from(["", "a", "m", "z", "q", "far", "supply", "pad", "gone", "relay", "first-contact", "x" * 65])
blobs = some.sampled_from([b"", bytes(1), bytes(16), bytes(17), bytes(128), pack([[], 1024, bytes(16), ["a", "m"]])])
pairs = some.lists(numbers, min_size=2, max_size=3)
paths = some.sampled_from(
    [["a", "m"], ["z", "m"], ["m", "a"], ["a", "m", "z"], ["z", "m", "a"], ["far", "a", "m"], [], ["m"]]
)
values = some.one_of(
    numbers,
    texts,
    blobs,
    some.lists(pairs, max_size=3),
    paths,
    some.booleans(),
    some.none(),
    some.floats(),
    some.just({}),
)
links = some.lists(some.tuples(texts, numbers, numbers, some.booleans()), max_size=3)
statements = blobs | some.tuples(texts, numbers, links, some.lists(texts, max_size=3)).map(pack)
terms = some.tuples(texts, numbers, some.floats(), texts)
labels = some.lists(some.tuples(numbers, numbers, some.lists(terms, max_size=2), some.lists(paths, max_size=2))).map(
    pack
)
SHAPES = {
    AGREE: [
        texts, numbers, numbers, numbers, blobs, some.lists(pairs, max_size=3), numbers, some.floats(), texts,
        some.booleans(),
    ],
    ANSWER_BLOCK: [texts, numbers, some.booleans(), some.floats(0, 1), texts],
    STORED: [texts, numbers],
    REQUEST: [numbers, texts, some.lists(pairs, max_size=3)],
    ANSWER_LEASE: [numbers, some.booleans()],
    STATEMENT: [numbers, numbers, numbers, numbers, numbers, numbers, numbers, blobs],
    EXPIRE: [some.lists(pairs, max_size=3)],
    NAME_SECRET: [numbers, numbers],
    RELAY_BATCH: [texts, texts, numbers, some.lists(pairs, max_size=3), numbers, blobs, blobs, labels | blobs],
    LINK_STATE: [statements, blobs, blobs, numbers],
    FORWARD: [texts, texts, numbers, numbers, some.integers(0, 6), numbers, blobs, blobs],
    RESERVE: [numbers, paths, numbers],
    RESERVE + 1: [numbers, paths, some.booleans(), texts, texts],
    RESERVE + 2: [numbers, paths, blobs, labels | blobs],
}  # fmt: skip


@some.composite
def messages(draw: Callable) -> list:
    """Well-formed, nearly well-formed and wild messages, of every kind."""
    kind = draw(some.sampled_from(sorted(SHAPES)))
    shape = [draw(element) for element in SHAPES[kind]]
    if draw(some.integers(0, 9)) == 0 and shape:
        shape[draw(some.integers(0, len(shape) - 1))] = draw(values)
    return [kind, *shape]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(some.lists(messages(), min_size=1, max_size=8), some.sampled_from(["a", "z"]))
def test_no_message_stops_the_node_or_makes_it_use_a_byte_twice(said: list[list], other: str) -> None:
    line, peer = opened(other, blocks=2)
    for purpose in ("supply", "pad"):
        peer.ask_lease(purpose)
        talk(line, peer, peer.flush())
    for number, message in enumerate(said):
        try:
            if message[0] < KEEP_ALIVE and peer.keys:
                answer = line.receive(peer.tagged([message]))
            else:
                answer = line.receive(frame(PLAIN, 0, pack([[message]])))
            peer.receive(answer)
        except Broken:
            break
        if line.closed:
            break
        if number % 3 == 2:
            line.pass_time(1)
    line.pass_time(31)
    goes_on(line, peer)
