"""Rates that streams declare: reserved on every link of a path, or on none, without anybody who sees the whole path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from keyhop.core.composed.nouns.messages import Kx
from keyhop.core.composed.nouns.shapes import Malformed
from keyhop.core.composed.relay.parcels import place_of
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.synchronisation import Verb

if TYPE_CHECKING:
    from keyhop.core.composed.site import Site

SYN_NS = 5 * NANOSECONDS
"""A SYN that is not answered by then was dropped (K)."""
RESERVATIONS_LIMIT = 4096
"""Streams on one link."""
HALF_OPEN_NS = 2 * SYN_NS
"""After this a node frees what a SYN reserved and no answer confirmed (K)."""

Key = tuple[str, str]
"""(source, stream)"""
LetIn = Callable[[str, tuple[str, ...], int], bool]
"""Called at the source with stream, path and rate; False if the stream is gone by now."""


class Reserved:
    """Of one link, for one stream."""

    __slots__ = ("before_bps", "confirmed", "rate_bps")

    def __init__(self, rate_bps: int, before_bps: int) -> None:
        self.rate_bps = rate_bps
        self.before_bps = before_bps
        """What it goes back to if the new rate is not confirmed."""
        self.confirmed = False


class DeclaredRates:
    """SYN goes forth and reserves, SYN-ACK comes back and confirms; a node that cannot carry the rate drops the SYN."""

    def __init__(self, site: Site, admission: Reservation, routing: LinkState, let_in: LetIn) -> None:
        self._site = site
        self._admission = admission
        self._routing = routing
        self._let_in = let_in
        self.reserved: dict[str, dict[Key, Reserved]] = {peer: {} for peer in site.links}
        """By link; both ends of it hold the same."""
        for link in site.links.values():
            link.talk.handlers["SYN"] = partial(self._syn, link.peer)
            link.talk.handlers["SYN-ACK"] = partial(self._syn_acknowledged, link.peer)
            link.talk.handlers["FIN"] = partial(self._fin, link.peer)

    def declare(self, stream: str, peer: str, rate_bps: int, pinned: tuple[str, ...]) -> None:
        """`pinned`: the path of a stream that has one. It is chosen once, by the first SYN (K)."""
        self._pass_syn((self._site.node, stream), peer, rate_bps, (self._site.node,), pinned)

    def release(self, stream: str, path: tuple[str, ...]) -> None:
        self._pass_fin((self._site.node, stream), path)

    def free_bps(self, peer: str, key: Key) -> int:
        """What the link to a neighbour can still promise this stream, with what it holds already."""
        others = sum(held.rate_bps for other, held in self.reserved[peer].items() if other != key)
        return self._admission.free(self._rate(peer), others)

    # --- forth --------------------------------------------------------------------------------------------------------

    def _pass_syn(self, key: Key, to: str, rate_bps: int, path: tuple[str, ...], pinned: tuple[str, ...]) -> None:
        hops = [pinned[len(path)]] if pinned else self._hops(to, path)
        loads = [1 - self.free_bps(hop, key) / max(1, self._rate(hop)) for hop in hops]
        first = self._routing.forward(loads)
        for hop in [*(hops[first : first + 1] if first is not None else []), *hops]:
            if self._admission.offer(rate_bps, [self.free_bps(hop, key)]).admitted:
                self._reserve(hop, key, rate_bps)
                names = (key[1], str(len(pinned)), *(pinned or (*path, hop)))
                message = Kx("SYN", Verb.ASSIGN, to=to, counts=(rate_bps,), names=names)
                self._site.links[hop].talk.tell(message)
                return

    def _hops(self, to: str, path: tuple[str, ...]) -> list[str]:
        """Neighbours in ascending weight of the way over them."""
        network = self._site.network
        found: list[tuple[int, str]] = []
        for hop in self._site.links:
            way = network.shortest(hop, to)
            if way is not None and not set(path) & set(way):
                found.append((len(way), hop))
        return [hop for _, hop in sorted(found)]

    def _rate(self, peer: str) -> int:
        return self._site.network.rates[frozenset((self._site.node, peer))]

    def _reserve(self, peer: str, key: Key, rate_bps: int) -> None:
        held = self.reserved[peer].get(key)
        before_bps = 0 if held is None else held.rate_bps if held.confirmed else held.before_bps
        entry = self.reserved[peer][key] = Reserved(rate_bps, before_bps)
        self._site.later(HALF_OPEN_NS, self._half_open, peer, key, entry)

    def _half_open(self, peer: str, key: Key, entry: Reserved) -> None:
        if self.reserved[peer].get(key) is entry and not entry.confirmed:
            entry.rate_bps, entry.confirmed = entry.before_bps, True
            if not entry.rate_bps:
                del self.reserved[peer][key]

    def _syn(self, peer: str, message: Kx) -> None:
        stream, pinned, *path = message.names
        at = place_of(self._site, tuple(path), peer)
        key, rate_bps = (path[0], stream), message.counts[0]
        ends = at + 1 == len(path)
        if (message.to == self._site.node or not int(pinned)) is not ends or message.to in path[: at if ends else -1]:
            raise Malformed(f"SYN to {message.to[:64]!r}, which is not where its path leads")
        if key not in self.reserved[peer] and len(self.reserved[peer]) >= RESERVATIONS_LIMIT:
            raise Malformed(f"stream {stream[:64]!r}: {RESERVATIONS_LIMIT} may reserve on a link")
        self._reserve(peer, key, rate_bps)
        if message.to != self._site.node:
            self._pass_syn(key, message.to, rate_bps, tuple(path[: at + 1]), tuple(path) if int(pinned) else ())
            return
        # Nothing goes the other way but acknowledgements, which take no key but their tags: its rate is 0.
        self._pass_back(Kx("SYN-ACK", Verb.ASSIGN, counts=(rate_bps, 0), names=(stream, *path)))

    # --- back ---------------------------------------------------------------------------------------------------------

    def _pass_back(self, message: Kx) -> None:
        stream, *path = message.names
        before = path[path.index(self._site.node) - 1]
        self._confirm(before, (path[0], stream))
        self._site.links[before].talk.tell(message)

    def _confirm(self, peer: str, key: Key) -> None:
        held = self.reserved[peer].get(key)
        if held is not None:
            held.confirmed = True

    def _syn_acknowledged(self, peer: str, message: Kx) -> None:
        stream, *path = message.names
        at = place_of(self._site, tuple(path), peer, back=True)
        self._confirm(path[at + 1], (path[0], stream))
        if at:
            self._pass_back(message)
        elif not self._let_in(stream, tuple(path), message.counts[0]):
            self.release(stream, tuple(path))

    def _pass_fin(self, key: Key, path: tuple[str, ...]) -> None:
        hop = path[path.index(self._site.node) + 1]
        self.reserved[hop].pop(key, None)
        self._site.links[hop].talk.tell(Kx("FIN", Verb.GIVE_BACK, names=(key[1], *path)))

    def _fin(self, peer: str, message: Kx) -> None:
        stream, *path = message.names
        at = place_of(self._site, tuple(path), peer)
        self.reserved[peer].pop((path[0], stream), None)
        if at + 1 < len(path):
            self._pass_fin((path[0], stream), tuple(path))
