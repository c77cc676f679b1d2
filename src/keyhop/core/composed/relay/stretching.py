"""Pads of relay that are derived when a link is short of key, and which pools a node of a full mesh has (KISTI)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from keyhop.core.composed.relay.parcels import Parcel
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.stock.serving import Pending, Taken, Then
from keyhop.core.policy.fallback import Derive
from keyhop.core.policy.formatting import Kdf
from keyhop.core.policy.relay import HopByHop

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.nouns.messages import Name
    from keyhop.core.composed.site import Site

PoolKind = Literal["quantum", "relay"]


class Stretching(HopWise):
    """A pad is one-time where the link has enough, else derived from as few of its units as will do.

    The spent units are booked R, the derived bits F, and what came under such a pad is not ITS any more.
    """

    stretches = True

    def __init__(self, site: Site, part: HopByHop, derive: Derive, kdf: Kdf) -> None:
        super().__init__(site, part)
        self._derive = derive
        self._kdf = kdf

    def pools(self) -> dict[str, PoolKind]:
        """One with every other node that this one reaches; each is filled on first use."""
        site = self._site
        return {
            node: "quantum" if node in site.links else "relay"
            for node in site.network.nodes()
            if node != site.node and self.reaches(node)
        }

    def pad(self, link: Line, parcel: Parcel, then: Then) -> Taken | Pending | None:
        stock_bits = link.serving.stock_bits("")
        match self._derive.pad(parcel.bits, stock_bits).verb:
            case "supply":
                return link.serving.take("", parcel.bits, then)
            case "derive" if self._site.cargo.derives:
                return link.serving.take("", self._kdf.parents(1, parcel.bits) * link.run.unit_bits, then)
        return None

    def _send(self, link: Line, parcel: Parcel, pad: Taken) -> None:
        super()._send(link, self._hidden(link, parcel, pad.bits), pad)

    def unpadded(self, link: Line, parcel: Parcel, pad: Name) -> None:
        self._hidden(link, parcel, pad.taken_bits)

    @staticmethod
    def _hidden(link: Line, parcel: Parcel, pad_bits: int) -> Parcel:
        if pad_bits >= parcel.bits:
            return parcel
        link.book.F += parcel.bits
        return parcel._replace(its=False)
