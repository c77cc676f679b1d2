"""Guaranteed flows of docs/protocol.md 13.1, and words that a node need not know, said by the second implementation."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from independent_peer import ANSWER_FLOW, ANSWER_OFFER, BOOK_FLOW, DESIGN, END_FLOW, OFFER, PLAIN, frame, pack
from independent_relay import Middle
from real_node import LINK, Line
from test_protocol_relay import network, relayed, talk, wait

from keyhop.core.node import events
from keyhop.core.policy_rules import ServiceClass
from keyhop.files.policy import PolicyFile, policy_of
from keyhop.files.reading import parse

SECRET = random.Random(6).randbytes(65_536)
RATE_BPS = 4000
RULES = f"""apiVersion: keyhop/v1
rules: [{{name: far, application: here, peer: distant, class: guaranteed, rate: {RATE_BPS} bps, burst: 1024 bit}}]
"""


def guaranteed(limit_bps: int = 1 << 40) -> tuple[Line, Middle]:
    """The node has a stream to the far node, and the hop behind the middle so much to promise."""
    policy = policy_of(parse(PolicyFile, RULES.encode(), "policy.yml", Path()))
    line, peer = Line("m", "k", SECRET, policy), Middle("k", "m", LINK, SECRET, "c")
    peer.flow_limit_bps = limit_bps
    to_node, to_peer = peer.connect(), line.connect()
    talk(line, peer, to_peer + line.receive(to_node))
    for number in range(24):
        bits = random.Random(number).randbytes(8192)
        peer.deliver("q", number, bits)
        talk(line, peer, line.deliver("q", number, bits))
    line.step(events.ModuleReported("k", "q", "up", 1_000_000, "", 10**9))
    peer.introduce("distant")
    talk(line, peer)
    relayed(line, peer)
    peer.open_far()
    wait(line, peer, 8)
    return line, peer


def joined(line: Line) -> ServiceClass:
    found: ServiceClass = line.node.supply.governed.guarantees._joined["c"]["here -> distant"]
    return found


def test_the_node_books_a_flow_for_its_stream_and_says_it_again() -> None:
    line, peer = guaranteed()
    assert joined(line) is ServiceClass.GUARANTEED
    ((number, (path, rate, burst)),) = peer.flows.items()
    assert path == ["m", "k", "c"] and rate == RATE_BPS * 9 // 8 and burst >= 1024
    said = []
    on_book_flow = peer.on_book_flow
    peer.on_book_flow = lambda *rest: (said.append(rest), on_book_flow(*rest))  # type: ignore[assignment, func-returns-value]
    wait(line, peer, 22)
    assert len(said) == 2 and {rest[0] for rest in said} == {number}
    assert joined(line) is ServiceClass.GUARANTEED


def test_a_refusal_of_another_make_is_understood_with_its_offer() -> None:
    line, peer = guaranteed(limit_bps=1800)
    assert joined(line) is ServiceClass.BEST_EFFORT and not peer.flows
    answer = line.node.supply.governed.guarantees.answers["here -> distant"]
    assert answer.narrowest == "k" and "1800 bit/s are left" in answer.why
    assert answer.offer is not None and answer.offer.rate_bps == 1600
    peer.flow_limit_bps = 1 << 40
    wait(line, peer, 45)
    assert joined(line) is ServiceClass.GUARANTEED and len(peer.flows) == 1


def test_a_flow_that_the_middle_gives_up_is_best_effort_from_then_on() -> None:
    line, peer = guaranteed()
    ((number, (path, *_)),) = peer.flows.items()
    peer.flow_limit_bps = 0
    peer.flows.clear()
    peer.out.append([ANSWER_FLOW, number, path, False, "k", "our link is worn out", 0, 0])
    talk(line, peer)
    assert joined(line) is ServiceClass.BEST_EFFORT
    assert any("k refuses: our link is worn out" in text for text in line.notices), line.notices


def test_the_node_answers_a_flow_whose_destination_it_is() -> None:
    line, peer = network("k", "c")
    peer.book_flow(5, 1000)
    talk(line, peer)
    assert peer.flow_answers == {5: [True, "", "", 0, 0]}
    assert not line.node.flows.flows


@pytest.mark.parametrize(
    "message",
    [
        [BOOK_FLOW, 1, ["c", "m"], 1000, 1000, 1000],
        [BOOK_FLOW, 1, ["k", "m"], 1000, 1000, 1000],
        [BOOK_FLOW, 1, ["k", "m", "k"], 1000, 1000, 1000],
        [BOOK_FLOW, 1, ["c", "k", "m"], 0, 1000, 1000],
        [BOOK_FLOW, 1, ["c", "k", "m"], (1 << 40) + 1, 1000, 1000],
        [BOOK_FLOW, 1, ["c", "k", "m"], 1000, (1 << 40) + 1, 1000],
        [BOOK_FLOW, 1, ["c", "k", "m"], 1000, 1000, 60_001],
        [BOOK_FLOW, 1, ["c", "k", "m"], 1000.0, 1000, 1000],
        [BOOK_FLOW, 1, ["c", "k", "m"], 1000, 1000],
        [BOOK_FLOW, 1, ["c", "k", "m"], 1000, 1000, 1000, 0],
        [END_FLOW, 1, ["c", "m"]],
        [ANSWER_FLOW, 1, ["c", "k", "m"], True, "", "", 0, 0],
        [ANSWER_FLOW, 1, ["m", "k", "c"], True, "", "x" * 257, 0, 0],
    ],
    ids=str,
)
def test_a_word_about_a_flow_that_is_not_as_it_must_be_closes(message: list) -> None:
    line, _ = network("k", "c", 1)
    line.receive(frame(PLAIN, 0, pack([[message]])))
    assert line.closed and not line.node.flows.flows


def test_an_answer_about_a_flow_that_the_node_does_not_know_is_dropped() -> None:
    line, _ = network("k", "c", 1)
    line.receive(frame(PLAIN, 0, pack([[[ANSWER_FLOW, 1, ["m", "k", "c"], True, "", "", 0, 0]]])))
    line.receive(frame(PLAIN, 0, pack([[[END_FLOW, 1, ["c", "k", "m"]]]])))
    assert not line.closed


# --- what else is said between key managers ---------------------------------------------------------------------------


def test_an_empty_confirm_ends_a_batch_and_the_next_is_tried() -> None:
    line, peer = network("k", "c")
    peer.kills = True
    peer.ask_lease("pad", 8)
    talk(line, peer)
    peer.relay(1024, 1024, 2048)
    wait(line, peer, 2)
    given_up = line.node.context.counters["batches_given_up"]
    assert given_up and not peer.taken
    assert line.node.relay._failed["c"] == "it died on its way"
    peer.kills = False
    wait(line, peer, 12)
    assert peer.taken and line.node.context.counters["batches_relayed"]


def test_the_word_of_another_design_closes_where_keyhop_runs() -> None:
    line, peer = network("k", "c", 2)
    line.receive(peer.tagged([[DESIGN, b"what only one program understands"]]))
    assert line.closed


def test_a_node_that_makes_no_exchanges_does_not_answer_an_offer() -> None:
    line, peer = network("k", "c", 2)
    said = line.receive(peer.tagged([[OFFER, 1, os.urandom(1184)]]))
    peer.receive(said)
    assert not line.closed and not peer.closed


@pytest.mark.parametrize(
    "message",
    [[OFFER, 4096, bytes(1184)], [OFFER, 1, bytes(1183)], [ANSWER_OFFER, 1, bytes(1087)]],
    ids=["number", "public key", "ciphertext"],
)
def test_an_exchange_of_wrong_form_closes(message: list) -> None:
    line, peer = network("k", "c", 2)
    line.receive(peer.tagged([message]))
    assert line.closed
