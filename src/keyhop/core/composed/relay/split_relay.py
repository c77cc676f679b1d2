"""Relay over two ways: padded key goes straight to the far end, its pad follows hop by hop, both are joined there."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from keyhop.core.composed.nouns.cargo import PAD, Payload
from keyhop.core.composed.nouns.messages import Kx, Name
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.relay.parcels import Parcel, relay_message
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.stock.serving import Taken
from keyhop.core.policy.relay import HopByHop, SplitPath
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site

HALVES_LIMIT = 65_536
"""That wait for their pads or for what is under them."""
REMEMBERED = 4096
"""Joins of which the far end still knows what became of them."""


class Half(NamedTuple):
    """Of a join, at the far end: padded key or its pad."""

    straight: bool
    bits: int
    aside: int
    load: int = 0


class SplitRelay(HopWise):
    """Nobody learns the key from the pads alone; who also hears the direct message and lies on the path does."""

    def __init__(self, site: Site, part: SplitPath) -> None:
        super().__init__(site, HopByHop(payload="random"))
        self._split = part
        self._halves: dict[tuple[str, int], Half] = {}
        self._settled: OrderedDict[tuple[str, int], bool] = OrderedDict()
        """(source, number) -> whether it was joined, or given up."""
        for line in site.links.values():
            line.talk.handlers["ROUTE"] = line.talk.handlers["PPETP"] = partial(self._arrived, line.peer)

    def paired(self, line: Line) -> None:
        line.talk.handlers |= {
            "DIRECT": lambda message: self._straight(line, message),
            "CONFIRM": lambda message: self._stored(line, message),
            "JOINED": lambda message: self._asked(line, message),
        }

    def restarted(self) -> None:
        super().restarted()
        for key in list(self._halves):
            self._give_up(key)

    # --- at the source and on the way ---------------------------------------------------------------------------------

    def _send(self, link: Line, parcel: Parcel, pad: Taken) -> None:
        """From the source: which range is the pad, and the key under it. From others: the pad under their link's."""
        site = self._site
        first = parcel.path[0] == site.node
        link.gone(pad.ranges, "R", pad.run)
        name = Name(False, pad.label, pad.ranges, parcel.bits, pad.bits, its=parcel.its, unit_bits=pad.run.unit_bits)
        line = site.line(parcel.path[-1], True) if first else None
        # At the source this is the key under its pad; on the way it is the pad under the next link's.
        load = self._load(link, parcel if first else parcel._replace(half=PAD), pad, promoted=False)
        if load is not None:
            beside = load if line is None else site.cargo.stamp(line)
            message = relay_message(parcel, name, beside)
            link.talk.tell(msgspec.structs.replace(message, word="ROUTE" if first else "PPETP"))
        link.dealing.used(pad.label)
        if line is not None and load is not None:
            line.talk.tell(Kx("DIRECT", Verb.TAKE, counts=(parcel.number, parcel.bits, parcel.aside), cargo=load))
            site.later(self._split.join_ns, self._overdue, line, parcel.number)

    def _unload(self, link: Line, parcel: Parcel, pad: Taken, at: int) -> bool:
        """The first node after the source is told which range is the pad."""
        cargo, payload = self._site.cargo, parcel._replace(half=PAD).payload
        if at == 1:
            return cargo.gather(payload, link, pad, parcel.bits, parcel.load) is not None
        return cargo.uncover(payload, link, pad, parcel.bits, parcel.load)

    def _overdue(self, line: Line, number: int) -> None:
        """The far end has the last word on whether it is a key: or one end would hold what the other has destroyed."""
        if (line.peer, number) in self._sent:
            line.talk.ask(
                Kx("JOINED", Verb.DESTROY, counts=(number,)),
                lambda answer: None if answer.ok else self._destroyed(line, number),
                given_up=lambda: self._destroyed(line, number),
            )

    def _destroyed(self, line: Line, number: int) -> None:
        parcel = self._sent.pop((line.peer, number), None)
        if parcel is not None:
            self.dropped(parcel)
            lost(line, parcel.bits)

    def dropped(self, parcel: Parcel) -> None:
        self._site.cargo.discard(parcel._replace(half=PAD).payload)
        super().dropped(parcel)

    def parted(self, peer: str) -> None:
        super().parted(peer)
        for key in [key for key in self._halves if key[0] == peer]:
            del self._halves[key]
            self._discard(key)
        for key in [key for key in self._settled if key[0] == peer]:
            del self._settled[key]

    # --- at the destination -------------------------------------------------------------------------------------------

    def received(self, parcel: Parcel) -> None:
        line = self.line_to_source(parcel._replace(half=PAD))
        if line is None:
            return
        self._half(line, parcel.number, Half(False, parcel.bits, parcel.aside))

    def _straight(self, line: Line, message: Kx) -> None:
        number, bits, aside = message.counts
        if aside > bits or bits % line.run.unit_bits:
            raise Malformed(f"{bits} bit, {aside} of them aside: must be whole units, and no more aside than there are")
        if (line.peer, number) not in self._halves and len(self._halves) >= HALVES_LIMIT:
            raise Malformed(f"{len(self._halves)} halves wait for their pads: {HALVES_LIMIT} may")
        other = self._halves.get((line.peer, number))
        if other is not None and (other.bits, other.aside) != (bits, aside):
            raise Malformed(f"{bits} bit whose pad has {other.bits}: must be as many")
        self._half(line, number, Half(True, bits, aside, message.cargo))

    def _half(self, line: Line, number: int, half: Half) -> None:
        key = line.peer, number
        if key in self._settled:
            self._discard(key)
            return
        cargo, payload = self._site.cargo, Payload(line.peer, line.own, number)
        other = self._halves.get(key)
        if half.straight and (other is None or not other.straight):
            cargo.keep(payload, half.load)
        if other is None:
            self._halves[key] = half
            self._site.later(self._split.join_ns, self._give_up, key)
            return
        if other.straight is half.straight:
            return
        del self._halves[key]
        self._settle(key, joined=True)
        line.book.N += half.bits
        run = line.run_of(f"{line.peer}>")
        start = run.end
        cargo.join(payload)
        cargo.enter(payload, line, run, start)
        line.enter(half.bits, half.aside, line.peer)
        line.talk.tell(Kx("CONFIRM", Verb.AGREE, counts=(number,)))

    def _give_up(self, key: tuple[str, int]) -> None:
        half = self._halves.pop(key, None)
        self._discard(key)
        line = self._site.line(key[0], True)
        if half is not None and line is not None:
            self._settle(key, joined=False)
            lost(line, half.bits)

    def _asked(self, line: Line, message: Kx) -> Kx:
        """Who asks has waited long enough: what is not joined now never will be."""
        key = line.peer, message.counts[0]
        if not self._settled.get(key, False):
            self._give_up(key)
            self._settle(key, joined=False)
        return Kx("JOINED-ACK", Verb.DESTROY, ok=self._settled[key])

    def _discard(self, key: tuple[str, int]) -> None:
        source, number = key
        for part in ("", PAD):
            self._site.cargo.discard(Payload(source, self._site.node, number, part))

    def _settle(self, key: tuple[str, int], *, joined: bool) -> None:
        self._settled[key] = joined
        if len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)


def lost(line: Line, bits: int) -> None:
    """Key of the pair that never was in any pool."""
    line.book.N += bits
    line.book.Y += bits
