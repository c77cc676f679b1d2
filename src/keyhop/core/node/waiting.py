"""A request that a policy or its own demands make special, while it waits for its keys."""

from __future__ import annotations

from keyhop.core.constraints import Constraints
from keyhop.core.node.events import KeysWanted
from keyhop.core.policy_rules import Terms


class Waiting:
    __slots__ = ("asked", "deadline", "derives", "event", "has_right", "stream", "terms", "ticket")

    def __init__(self, event: KeysWanted, terms: Terms, asked: Constraints, stream: str | None) -> None:
        self.event = event
        self.terms = terms
        self.asked = asked
        """Of policy and request together."""
        self.stream = stream
        """As the shares know it; None where there are none."""
        self.has_right = stream is None
        """Whether the shares gave it its part of the stock: only the lease is still to come."""
        self.ticket: int | None = None
        """In the shares, while it waits for its part."""
        self.derives = False
        """Only what it is derived from is still to come."""
        self.deadline = 0

    @property
    def bits(self) -> int:
        return self.event.number * self.event.size_bits
