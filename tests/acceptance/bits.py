"""Bits for a bench: one value per link, and who came to which part of a relayed key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.acceptance.benches import Bench

from keyhop.core.composed.nouns.cargo import PAD, Payload, Weightless

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run
    from keyhop.core.composed.stock.serving import Taken


class Told:
    """All that went beside messages, by the number that a message carries."""

    def __init__(self, keys: dict[str, int], drawn: int) -> None:
        """`keys`: what every range of a link holds ("A-B"); `drawn`: what sources draw."""
        self.keys = {frozenset(link.split("-")): value for link, value in keys.items()}
        self.drawn = drawn
        self.loads: list[int] = []

    def load(self, value: int) -> int:
        self.loads.append(value)
        return len(self.loads)


class Bits(Weightless):
    """What one node holds of relayed key, as a vault would."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._held: dict[Payload, int] = {}
        self.pads: list[int] = []
        """Of parts that came to this node by name or under a link's key."""
        self.entered: list[int] = []
        """Keys of pairs."""

    def _key(self, link: Line) -> int:
        return self._told.keys[frozenset((link.own, link.peer))]

    def draw(self, payload: Payload, bits: int) -> None:
        self._held[payload] = self._told.drawn

    def gather(self, payload: Payload, link: Line, units: Taken, bits: int, load: int = 0) -> int | None:
        self._arrived(payload, self._key(link))
        return 0

    def cover(self, payload: Payload, link: Line, pad: Taken, bits: int) -> int | None:
        return self._told.load(self._held[payload] ^ self._key(link))

    def uncover(self, payload: Payload, link: Line, pad: Taken, bits: int, load: int) -> bool:
        self._arrived(payload, self._told.loads[load - 1] ^ self._key(link))
        return True

    def keep(self, payload: Payload, load: int) -> None:
        self._held[payload] = self._told.loads[load - 1]

    def join(self, payload: Payload) -> None:
        self._held[payload] ^= self._held.pop(payload._replace(part=PAD))

    def enter(self, payload: Payload, line: Line, run: Run, start: int) -> None:
        self.entered.append(self._held.pop(payload))

    def discard(self, payload: Payload) -> None:
        self._held.pop(payload, None)

    def _arrived(self, payload: Payload, value: int) -> None:
        self._held[payload] = value
        if payload.part == PAD:
            self.pads.append(value)


def with_bits(bench: Bench, told: Told) -> dict[str, Bits]:
    """Gives every site of the bench a vault of its own."""
    found = {name: Bits(told) for name in bench.sites}
    for name, bits in found.items():
        bench.sites[name].cargo = bits
    return found
