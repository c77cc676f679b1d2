"""What a pair of applications spends at its master's node, and what is asked of it in one turn of the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from keyhop.core.model import RunId
from keyhop.core.node.desk import Grant
from keyhop.crypto.keyid import KeyIdSeal
from keyhop.daemon.audit import Delivery
from keyhop.daemon.routes import Later


class Account:
    """What one pair of applications spends at this node as master, with all that can be computed once."""

    __slots__ = ("allowance", "epoch", "grant", "orders", "pair", "peer", "run", "seal", "stock", "stretch")

    def __init__(self, grant: Grant, run: RunId, seal: KeyIdSeal, stretch: list[int]) -> None:
        self.grant = grant
        self.peer = grant.peer
        self.stock = grant.stock
        self.allowance = grant.allowance
        self.run = run
        self.seal = seal
        self.epoch = seal.epoch
        self.pair = seal.pair(grant.master, grant.slave)
        self.orders: dict[tuple[int, int], Order] = {}
        self.stretch = stretch
        """[start, end) of what was taken for this peer's applications and is not overwritten yet; one list per peer."""


class Order:
    """What requests for the same ask of an account: so many keys of one size each. Those of a turn wait in it."""

    __slots__ = ("account", "delivery", "length", "number", "size_bits", "waiting")

    def __init__(self, account: Account, number: int, size_bits: int, delivery: Delivery) -> None:
        self.account = account
        self.number = number
        self.size_bits = size_bits
        self.length = size_bits >> 3
        self.delivery = delivery
        self.waiting: list[Later] = []


class Batch(NamedTuple):
    """Requests of one order with their keys, in one line of the audit log."""

    order: Order
    waiting: Sequence[Later]
    key_ids: list[str]
    bits: list[bytes]

    def __repr__(self) -> str:
        return f"Batch({self.order!r}, {len(self.waiting)} requests)"
