"""Bytes between a node and the independent peer: what the tests of the protocol share."""

from __future__ import annotations

import pytest
from independent_peer import Peer
from real_node import Line

BOTH_ORDERS = pytest.mark.parametrize("other", ["a", "z"], ids=["the peer leads", "the node leads"])


def talk(line: Line, peer: Peer, to_node: bytes = b"", to_peer: bytes = b"") -> None:
    """Carries bytes both ways until both are silent."""
    to_node += peer.receive(to_peer)
    while to_node:
        to_node = peer.receive(line.receive(to_node))


def meet(line: Line, peer: Peer) -> None:
    """A new connection, and both ends open it."""
    if not line.closed:
        line.hang_up()
    talk(line, peer, peer.connect(), line.connect())
    assert not line.closed and peer.open and line.pair.is_open, line.notices
