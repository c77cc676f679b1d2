"""Openings that nobody proves, that come crosswise, and that fail again and again: none takes more than its key."""

import random
from collections.abc import Iterator

import pytest
from conversing import BOTH_ORDERS, meet, talk
from independent_peer import GRANT, HELLO, PROOF, Broken, Peer, frame, pack, unpack
from real_node import LINK, Line

from keyhop.core.machine import Frame as CoreFrame
from keyhop.core.model import NANOSECONDS, NodeId, RunId, RunKind, run_number
from keyhop.core.node import events
from keyhop.core.node.link import OPENINGS_ALARM, OPENINGS_WAIT_LIMIT_NS
from keyhop.core.node.run import GONE_LIMIT, Run

SECRET = random.Random(6).randbytes(65_536)
LAST = 4096 - 32


def ends(other: str) -> tuple[Line, Peer]:
    return Line("m", other, SECRET), Peer(other, "m", LINK, SECRET)


def frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, position, payload)."""
    while data:
        length = int.from_bytes(data[:4], "big")
        tag_length = data[13]
        yield data[4], int.from_bytes(data[5:13], "big"), data[14 + tag_length : 4 + length]
        data = data[4 + length :]


def hello(peer: Peer, opening: list[list[int]] | None = None, start: int | None = None) -> bytes:
    """A HELLO of the peer that says something else; anybody with its TLS identity can make one."""
    peer.connect()
    body = list(peer.hello)
    body[3] = body[3] if start is None else start
    body[6] = body[6] if opening is None else opening
    return frame(HELLO, 0, pack(body))


def impostor(line: Line, peer: Peer, opening: list[list[int]] | None = None, grant: int | None = None) -> dict:
    """An opening without a PROOF: what the node said, by frame type; then the connection breaks."""
    line.connect()
    said = line.receive(hello(peer, opening) + (b"" if grant is None else frame(GRANT, 0, pack([grant]))))
    found = {kind: (position, unpack(payload)) for kind, position, payload in frames(said)}
    if not line.closed:
        line.hang_up()
    return found


def heard_on(line: Line, connection: int, data: bytes) -> list[int]:
    """Types of the frames that the node says to these on one of several connections."""
    line.connection, line.closed, line.out = connection, False, []
    for kind, position, payload in frames(data):
        line.step(events.FrameArrived(line.other, connection, CoreFrame(kind, position, payload, b"")))
    return [kind for kind, _, _ in frames(line.take())]


def restart(line: Line) -> None:
    if not line.closed:
        line.hang_up()
    line.begin()


@BOTH_ORDERS
def test_a_claim_of_the_end_of_the_run_takes_one_key_and_moves_no_mark(other: str) -> None:
    line, peer = ends(other)
    assert impostor(line, peer, opening=[[LAST, 32]])[GRANT][1] == [LAST]
    assert line.pair.their_opening.mark == 0
    meet(line, peer)
    assert peer.own_opening.mark <= 64 and len(line.pair.their_opening.fresh(0, 4096)) == 1
    assert line.pair.their_opening.fresh(0, 4096).total() >= 4096 - 3 * 32


@BOTH_ORDERS
def test_a_grant_of_the_end_of_the_run_takes_one_key_and_moves_no_mark(other: str) -> None:
    line, peer = ends(other)
    assert impostor(line, peer, grant=LAST)[PROOF][0] == LAST
    assert line.pair.own_opening.mark == 0
    meet(line, peer)
    assert peer.their_opening.mark <= 64 and line.pair.own_opening.fresh(0, 4096).total() >= 4096 - 3 * 32


@BOTH_ORDERS
def test_what_a_claim_took_out_is_not_granted_again_even_after_a_restart(other: str) -> None:
    line, peer = ends(other)
    impostor(line, peer, opening=[[LAST, 32]])
    assert GRANT not in impostor(line, peer, opening=[[LAST, 32]])
    restart(line)
    assert GRANT not in impostor(line, peer, opening=[[LAST, 32]])
    meet(line, peer)


@BOTH_ORDERS
def test_what_a_grant_made_the_node_use_is_not_used_again_even_after_a_restart(other: str) -> None:
    line, peer = ends(other)
    assert PROOF in impostor(line, peer, grant=LAST)
    assert PROOF not in impostor(line, peer, grant=LAST)
    restart(line)
    assert PROOF not in impostor(line, peer, grant=LAST)
    assert PROOF not in impostor(line, peer, grant=LAST - 16)
    meet(line, peer)


@BOTH_ORDERS
def test_a_proof_tells_the_mark_of_now_and_what_was_used_above_it(other: str) -> None:
    line, peer = ends(other)
    impostor(line, peer, grant=LAST)
    _, body = impostor(line, peer, grant=640)[PROOF]
    number = run_number(RunKind.OPENING, NodeId("m"), NodeId(other))
    (state,) = (state for state in body[7] if state[0] == number)
    assert state == [number, 4096, 0, [[640, 32], [LAST, 32]]]


class Teller(Peer):
    """Has used opening keys that the node, put back to an old store, knows nothing of."""

    def proof(self) -> list:
        body = super().proof()
        number = self.runs.index(self.own_opening)
        body[7] = [[number, 4096, 320, [[640, 32]]] if state[0] == number else state for state in body[7]]
        return body


@BOTH_ORDERS
def test_what_the_peer_used_is_never_granted_to_it_even_after_a_restart(other: str) -> None:
    line, peer = Line("m", other, SECRET), Teller(other, "m", LINK, SECRET)
    meet(line, peer)
    for _ in range(2):
        run = line.pair.their_opening
        assert run.mark == 320 and list(run.gone) == [(640, 672)]
        assert GRANT not in impostor(line, peer, opening=[[0, 320], [640, 32]])
        restart(line)
    assert impostor(line, peer, opening=[[0, 4096]])[GRANT][1] == [320]


@BOTH_ORDERS
def test_positions_of_other_openings_are_void_once_one_is_proved(other: str) -> None:
    line, peer = ends(other)
    impostor(line, peer, opening=[[LAST, 32]])
    meet(line, peer)
    append = peer.own_opening.append
    assert peer.own_opening.is_all(4, LAST, 32) and append >= 4096, "the node's PROOF tells what it granted"


@BOTH_ORDERS
@pytest.mark.parametrize("dead_first", [True, False])
def test_a_grant_of_a_dead_incarnation_is_dropped_after_a_proof_to_the_next(other: str, dead_first: bool) -> None:
    """The next one was told what had been used by then: put back to an old store, this end would trust it for all."""
    line, peer = ends(other)
    starts = {1: 5, 2: 6} if dead_first else {1: 6, 2: 5}
    for connection in (1, 2):
        line.step(events.PeerConnected(other, connection))
        heard_on(line, connection, hello(peer, start=starts[connection]))
    assert PROOF in heard_on(line, 2, frame(GRANT, 0, pack([64])))
    assert (PROOF in heard_on(line, 1, frame(GRANT, 0, pack([640])))) is not dead_first
    assert line.closed is dead_first


def test_a_memory_of_positions_that_is_full_refuses_and_forgets_nothing() -> None:
    run = Run(RunId(NodeId("b"), 2), owned=True)
    run.present.add(0, 1 << 20)
    starts = [64 + 64 * n for n in range(GONE_LIMIT)]
    for start in starts:
        run.take_out(start, start + 32)
    with pytest.raises(Exception, match="64 pieces above the mark"):
        run.take_out(1 << 16, (1 << 16) + 32)
    assert [start for start, _ in run.gone] == starts
    run.take_out(96, 128)
    run.take_out(0, 32)
    assert run.mark == 32 and len(run.gone) == GONE_LIMIT - 1
    run.take_out(32, 64)
    assert run.mark == 160 and not run.fresh(0, 160)


def test_a_peer_that_tells_of_more_pieces_than_are_remembered_does_not_open() -> None:
    class Scattered(Peer):
        def proof(self) -> list:
            body = super().proof()
            number = self.runs.index(self.own_opening)
            holes = [[64 + 48 * n, 16] for n in range(GONE_LIMIT + 1)]
            body[7] = [[number, 4096, 0, holes] if state[0] == number else state for state in body[7]]
            return body

    line, peer = Line("m", "a", SECRET), Scattered("a", "m", LINK, SECRET)
    talk(line, peer, peer.connect(), line.connect())
    assert line.closed and not line.pair.compared


# --- openings that fail -----------------------------------------------------------------------------------------------


def attack(line: Line, peer: Peer, seconds: float) -> int:
    """Opens four times a second and never proves anything: how many keys that took."""
    taken = 0
    until = line.now + int(seconds * NANOSECONDS)
    while line.now < until:
        taken += GRANT in impostor(line, peer, grant=line.pair.own_opening.mark)
        line.now += NANOSECONDS // 4
    return taken


@BOTH_ORDERS
def test_who_opens_and_proves_nothing_gets_few_keys_of_either_run(other: str) -> None:
    line, peer = ends(other)
    taken = attack(line, peer, 3600)
    assert OPENINGS_ALARM <= taken <= 20
    for run in (line.pair.own_opening, line.pair.their_opening):
        assert run.fresh(0, 4096).total() >= 4096 - 20 * 32


def test_while_openings_wait_the_node_says_nothing_that_costs_the_peer_a_key() -> None:
    line, peer = ends("z")
    attack(line, peer, 60)
    assert line.connect() == b"" and line.closed


def test_a_hello_on_a_connection_from_before_is_not_answered_either() -> None:
    line, peer = ends("z")
    for connection in (1, 2, 3, 4):
        line.step(events.PeerConnected("z", connection))
    granted = []
    for connection in (1, 2, 3, 4):
        granted.append(GRANT in heard_on(line, connection, hello(peer)))
        line.step(events.PeerLost("z", connection))
    assert granted == [True, True, True, False]


def test_the_link_opens_again_after_the_longest_wait_and_fails_anew_without_one() -> None:
    line, peer = ends("z")
    attack(line, peer, 3600)
    assert any("openings with z in a row" in notice and "key for" in notice for notice in line.notices)
    line.now += OPENINGS_WAIT_LIMIT_NS
    meet(line, peer)
    line.hang_up()
    impostor(line, peer)
    meet(line, peer)


def test_connections_that_break_once_proved_or_before_a_key_was_taken_do_not_count() -> None:
    line, peer = ends("z")
    for _ in range(OPENINGS_ALARM + 1):
        line.connect()
        line.hang_up()
    for _ in range(OPENINGS_ALARM + 1):
        meet(line, peer)
        line.hang_up()
    assert line.pair.openings_failed == 0 and not any("in a row" in notice for notice in line.notices)


def test_a_proof_that_is_wrong_counts() -> None:
    line, peer = ends("z")
    for failed in range(1, 4):
        line.connect()
        said = line.receive(hello(peer, start=peer.start))
        with pytest.raises(Broken):
            peer.on_proof(0, b"", b"")
        assert said
        line.receive(frame(GRANT, 0, pack([line.pair.own_opening.mark])) + frame(PROOF, 0, b"\x90", bytes(16)))
        assert line.closed and line.pair.openings_failed == failed
