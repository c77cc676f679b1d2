"""Link state of docs/protocol.md 11, with real certificates: what its node signed is believed, a forgery is not."""

import random

import pytest
from independent_identity import AUTHORITY, Authority, Signer, signer
from independent_peer import LINK_STATE, PLAIN, Peer, frame, pack, unpack
from real_node import LINK, Line

from keyhop.core.model import AppId

SECRET = random.Random(6).randbytes(65_536)
LAST = (1 << 63) - 1
EVERYWHERE = 255


def opened() -> tuple[Line, Peer]:
    line, peer = Line("m", "k", SECRET), Peer("k", "m", LINK, SECRET)
    to_node = peer.connect() + peer.receive(line.connect())
    while to_node:
        to_node = peer.receive(line.receive(to_node))
    assert peer.open
    return line, peer


def told(line: Line, by: Signer, sequence: int, *applications: str, node: str = "far") -> None:
    statement = pack([node, sequence, [["k", 4096, 1000, True]], applications])
    say(line, statement, *by.sign(statement))


def say(line: Line, statement: bytes, certificate: bytes, signature: bytes) -> None:
    line.receive(frame(PLAIN, 0, pack([[[LINK_STATE, statement, certificate, signature, EVERYWHERE]]])))
    assert not line.closed


def served_by(line: Line, application: str = "distant") -> str | None:
    return line.node.supply.directory.get(AppId(application))


def test_the_state_of_a_node_is_believed_under_its_own_certificate() -> None:
    line, _ = opened()
    told(line, signer("far"), 1, "distant")
    assert served_by(line) == "far"


FORGERS = {
    "the neighbour that brings it": signer("k"),
    "a node of another network": Authority("somebody").issue("far"),
    "an authority of the same name": Authority("key managers of the tests").issue("far"),
    "an application of that name": AUTHORITY.issue("far", prefix="urn:keyhop:sae:"),
    "a certificate that has ended": AUTHORITY.issue("far", ended=True),
    "its own certificate and another key": Signer(signer("k").key, signer("far").certificate),
}


@pytest.mark.parametrize("forger", FORGERS)
def test_nobody_speaks_for_another_node(forger: str) -> None:
    line, _ = opened()
    told(line, FORGERS[forger], LAST, "distant")
    assert served_by(line) is None
    assert any(notice.startswith("link state of far, brought by k, is dropped: ") for notice in line.notices)
    told(line, signer("far"), 1, "distant")
    assert served_by(line) == "far"


def test_a_signature_serves_one_statement() -> None:
    line, _ = opened()
    statement = pack(["far", 1, [], ["distant"]])
    certificate, signature = signer("far").sign(statement)
    say(line, pack(["far", 2, [], ["distant", "more"]]), certificate, signature)
    assert served_by(line) is None
    say(line, statement, certificate, signature)
    assert served_by(line) == "far"


def test_the_node_signs_its_own_state_as_the_text_says() -> None:
    line, peer = opened()
    peer.receive(line.pass_time(1))
    states = [message for message in peer.plain if message[0] == LINK_STATE]
    assert states
    checker = Line("k", "m", SECRET)
    for _, statement, certificate, signature, hops_left in states:
        assert hops_left == EVERYWHERE
        assert unpack(statement)[0] == "m"
        assert not checker.vault.doubt("m", statement, certificate, signature)
        assert checker.vault.doubt("k", statement, certificate, signature)
