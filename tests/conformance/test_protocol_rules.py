"""Rules of the link that the models found, each held against the program: evidence, credits, holes, leases, epsilon."""

import random

import pytest
from conversing import BOTH_ORDERS, meet, talk
from independent_peer import ANSWER_LEASE, PROOF, Peer, unpack
from real_node import LINK, Line
from test_protocol_opening import ends, frames

from keyhop.core.epsilon import epsilon
from keyhop.core.label import Origin
from keyhop.core.machine import Output
from keyhop.core.model import NodeId, RunId
from keyhop.core.node import events
from keyhop.core.node.provenance import label_within
from keyhop.core.node.run import UNTOUCHED, Run, Segment
from keyhop.core.node.vault import BlockName

SECRET = random.Random(7).randbytes(65_536)


def feed(line: Line, peer: Peer, number: int) -> None:
    bits = random.Random(number).randbytes(8192)
    peer.deliver("q", number, bits)
    talk(line, peer, peer.flush(), line.deliver("q", number, bits))


def openings(line: Line, peer: Peer) -> tuple[list, bytes]:
    """A new connection up to both PROOFs: what the node's says, and the peer's next words, which are not passed on."""
    if not line.closed:
        line.hang_up()
    from_peer, from_node = peer.connect(), line.connect()
    grant = line.receive(from_peer)
    grant_of_peer = peer.receive(from_node)
    proof = line.receive(grant_of_peer)
    (body,) = (unpack(payload) for kind, _, payload in frames(proof) if kind == PROOF)
    line.receive(peer.receive(grant))
    assert line.pair.compared and not line.pair.is_open
    return body, peer.receive(proof)


@BOTH_ORDERS
def test_what_the_peer_told_last_is_kept_until_it_has_seen_it_returned(other: str) -> None:
    """A PROOF does not replace it: if the connection breaks before the peer hears ours, a restore would go unseen."""
    line, peer = ends(other)
    meet(line, peer)
    before, _ = openings(line, peer)
    peer.journal += 1000
    still, _ = openings(line, peer)
    assert (still[4:7]) == before[4:7] and before[5] < 1000
    _, done = openings(line, peer)
    line.receive(done)
    after, _ = openings(line, peer)
    assert after[4] == peer.start and after[5] >= 1000


@BOTH_ORDERS
def test_what_a_peer_tells_under_a_lower_start_number_is_kept_too(other: str) -> None:
    """Its anchor was lost, and its key with it: else nobody would notice its next restore."""
    line, peer = ends(other)
    peer.start = 500
    meet(line, peer)
    peer.start, peer.journal, peer.vouch_key = 400, 1, bytes(32)
    meet(line, peer)
    body, _ = openings(line, peer)
    assert body[4] == 400


@BOTH_ORDERS
def test_the_first_credit_is_passed_durably_when_the_proof_verifies_used_or_not(other: str) -> None:
    line, peer = ends(other)
    openings(line, peer)
    first, end = peer.first_granted, max(peer.expected) + 32
    assert line.pair.own_tags.mark == end
    line.hang_up()
    line.begin()
    assert line.pair.own_tags.mark == end
    assert not line.pair.own_tags.present.touches(0, end) and first < end


def test_what_a_placement_jumped_over_counts_as_touched() -> None:
    run = Run(RunId(NodeId("b"), 0), owned=True)
    run.place(1024, 1024)
    run.insert_segment(Segment(1024, 1024, UNTOUCHED, stored=True, born=0))
    run.append = 4096
    assert run.state().touched == ((0, 1024), (2048, 2048))


def test_what_only_the_peer_has_placed_counts_as_touched_after_the_next_opening() -> None:
    line, peer = ends("a")
    meet(line, peer)
    peer.own_key.reach(2048)
    meet(line, peer)
    body, _ = openings(line, peer)
    (state,) = (state for state in body[7] if peer.runs[state[0]] is peer.own_key)
    assert state[1:] == [2048, 0, [[0, 2048]]]


@BOTH_ORDERS
def test_an_answer_on_a_later_connection_than_the_request_closes(other: str) -> None:
    line, peer = ends(other)
    meet(line, peer)
    for number in range(4):
        feed(line, peer, number)
    # More than the lease that came with the first key.
    asked = line.want_keys(1, 64)
    assert asked
    # What waits is asked for anew, under another number.
    meet(line, peer)
    before = line.pair.stock.left, line.pair.own_key.untouched
    line.receive(peer.tagged([[ANSWER_LEASE, 2, True]]))
    assert line.closed and (line.pair.stock.left, line.pair.own_key.untouched) == before
    assert any("answer for lease 2" in notice for notice in line.notices)


class Slow(Line):
    """Holds back what commits bring about."""

    holds = False

    def perform(self, output: Output) -> None:
        if self.holds:
            self.held = [*getattr(self, "held", []), *output.after]
            output.after.clear()
        super().perform(output)


@pytest.mark.parametrize("between", ["a restore here", "a burning at the peer"])
def test_a_lease_is_not_spent_if_either_end_burnt_while_its_commit_was_under_way(between: str) -> None:
    line, peer = Slow("m", "a", SECRET), Peer("a", "m", LINK, SECRET)
    meet(line, peer)
    line.holds = True
    for number in range(4):
        feed(line, peer, number)
    talk(line, peer, b"", line.want_keys(1))
    held = [event for event in line.held if isinstance(event, events.LeaseCommitted)]
    assert held and not line.pair.stock.left
    if between == "a restore here":
        line.step(events.RestoreDeclared())
    else:
        peer.epoch += 1
        meet(line, peer)
    line.holds = False
    for event in held:
        line.step(event)
    assert not line.pair.stock.left and not line.pair.pads


@pytest.mark.parametrize(("own", "counts"), [(1e-6, 1e-6), (1e-12, 1e-9), (0.0, None)])
@pytest.mark.parametrize("peer_name", ["a", "z"], ids=["the peer proposes", "the node proposes"])
def test_the_worse_of_two_statements_about_a_block_counts_at_both_ends(
    peer_name: str, own: float, counts: float | None
) -> None:
    """The peer declares 1e-9 and the vendor acme; who declares nothing leaves the block without a claim."""
    line, peer = ends(peer_name)
    meet(line, peer)
    bits = random.Random(1).randbytes(8192)
    peer.deliver("q", 0, bits)
    line.vault.accept(BlockName(NodeId(peer_name), "q", 0), bytearray(bits))
    line.step(events.BlockArrived(peer_name, "q", 0, len(bits), own, "other"))
    talk(line, peer, peer.flush(), line.take())
    for run in (line.pair.own_key, line.pair.their_key):
        segment = next(run.segments.values())
        key = label_within(run.origins, segment.start, segment.end, ("a", "m"), line.node.context.wall_now)
        assert key.epsilon == (None if counts is None else epsilon(counts))
        assert key.vendors == {"acme", "other"} and key.min_vendors == 1
        assert [term.origin for term in key.terms] == [Origin("qkd", "q", 0)] and key.hops == 1
    assert peer.heard_of_block == (own, "other")
