"""Rates and ages that nobody counts: worked out from looks at the plain counters of a node, a second apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from keyhop.core.model import RunId
from keyhop.core.node.ledger import Account
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import Run

WINDOW_S = 30.0
"""Rates are averages over this: longer than the block period of most links."""
LOOK_S = 1.0
AGES_LIMIT = 1024
"""Looks kept per run to tell the age of key; beyond it every second one goes."""


class Totals(NamedTuple):
    """Bytes of one pair at this end since the store was made, over both directions and all its runs."""

    taken_in: int
    delivered: int
    relayed: int
    authentication: int
    wasted: int
    expired: int
    lost: int


def totals(pair: Pair) -> Totals:
    """What was pre-shared is no QKD key: it is not among what was taken in."""
    sums = [sum(run.book[account] for run in pair.runs.values()) for account in Account]
    # What the edge gave out since the core looked last is in no book yet.
    return Totals(
        taken_in=sums[Account.G] + sums[Account.N],
        delivered=sums[Account.D] + pair.stock.taken,
        relayed=sums[Account.R],
        authentication=sums[Account.A],
        wasted=sums[Account.O] + pair.stock.wasted,
        expired=sums[Account.X],
        lost=sums[Account.Y] + sums[Account.C],
    )


def stored_bytes(pair: Pair, run: Run) -> int:
    """Key in stock at this end in one direction, leased or not."""
    unbooked = pair.stock.taken + pair.stock.wasted if run.owned else 0
    return max(0, run.book.stock - unbooked)


class Rates(NamedTuple):
    """In bit/s."""

    taken_in_bps: float
    used_bps: float
    net_bps: float
    """Of the stock of both directions; it falls too when key expires or is burnt."""


class _Look(NamedTuple):
    at_s: float
    taken_in: int
    used: int
    stored: int


class Measures:
    def __init__(self) -> None:
        self._looks: dict[str, deque[_Look]] = {}
        self._appended: dict[RunId, deque[tuple[int, float]]] = {}
        """Run -> (append mark, when it was seen there)."""
        self._keys: deque[tuple[float, int]] = deque()

    def look(self, pairs: Iterable[Pair], keys_delivered: int, now_s: float) -> None:
        """Takes in how things stand at a moment of the monotonic clock."""
        for pair in pairs:
            sums = totals(pair)
            stored = stored_bytes(pair, pair.own_key) + stored_bytes(pair, pair.their_key)
            used = sums.delivered + sums.relayed + sums.authentication
            looks = self._looks.setdefault(pair.peer, deque())
            looks.append(_Look(now_s, sums.taken_in, used, stored))
            while looks[0].at_s < now_s - WINDOW_S:
                looks.popleft()
            for run in (pair.own_key, pair.their_key):
                self._note_age(run, now_s)
        self._keys.append((now_s, keys_delivered))
        while self._keys[0][0] < now_s - WINDOW_S:
            self._keys.popleft()

    def rates(self, peer: str) -> Rates | None:
        """None until there were two looks."""
        looks = self._looks.get(peer)
        if not looks or looks[-1].at_s <= looks[0].at_s:
            return None
        first, last = looks[0], looks[-1]
        seconds = last.at_s - first.at_s
        return Rates(
            max(0, last.taken_in - first.taken_in) * 8 / seconds,
            max(0, last.used - first.used) * 8 / seconds,
            (last.stored - first.stored) * 8 / seconds,
        )

    def keys_per_s(self) -> float | None:
        if len(self._keys) < 2 or self._keys[-1][0] <= self._keys[0][0]:
            return None
        (began_s, before), (now_s, after) = self._keys[0], self._keys[-1]
        return max(0, after - before) / (now_s - began_s)

    def oldest_age_s(self, run: Run, now_s: float) -> float | None:
        """How long ago the oldest key nobody leased was appended, as far as this process saw; None: there is none."""
        oldest = next(run.oldest_untouched(), None)
        if oldest is None:
            return None
        seen = self._appended.get(run.id, deque())
        return next((now_s - at_s for append, at_s in seen if append > oldest.start), 0.0)

    def _note_age(self, run: Run, now_s: float) -> None:
        seen = self._appended.setdefault(run.id, deque())
        if not seen or seen[-1][0] < run.append:
            seen.append((run.append, now_s))
        oldest = next(run.oldest_untouched(), None)
        start = run.append if oldest is None else oldest.start
        # The last mark stays, though all below it is used: it says that nothing was appended since.
        while len(seen) > 1 and seen[0][0] <= start:
            seen.popleft()
        if len(seen) > AGES_LIMIT:
            # Of two looks the earlier one goes: key never seems older than it is.
            self._appended[run.id] = deque(list(seen)[1::2])
