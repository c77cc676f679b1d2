"""One-time tag keys of a link: the receiver grants positions, the sender spends them in order.

An authentication run knows no segments and no leases. What makes every position serve once is that the receiver grants
it above all it ever granted, durably before it says so, and accepts only what it granted in this connection, in order;
and that the sender's mark passes a credit durably before its first use (`docs/protocol.md` 5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from keyhop.core.messages import Span
from keyhop.core.model import TAG_KEY_BYTES, PeerError
from keyhop.core.node.extents import Extents

WINDOW_LOW = 8
"""Slots granted ahead on a quiet link: what a broken connection wastes (256 bytes)."""
DISTANT_WINDOW_LOW = 4
"""The same for a distant pair, whose every key cost one on each hop."""
WINDOW_HIGH = 512


def slots(length_bytes: int) -> int:
    return length_bytes // TAG_KEY_BYTES


class Credit:
    """Granted spans in order, the same at both ends of a connection; a tail shorter than a key is skipped."""

    __slots__ = ("_spans", "left")

    def __init__(self) -> None:
        self._spans: deque[list[int]] = deque()
        self.left = 0
        """Slots that can still be used."""

    def add(self, start: int, length: int) -> None:
        self._spans.append([start, start + length])
        self.left += slots(length)

    @property
    def next(self) -> int | None:
        while self._spans and self._spans[0][1] - self._spans[0][0] < TAG_KEY_BYTES:
            self._spans.popleft()
        return self._spans[0][0] if self._spans else None

    def take(self) -> int:
        position = self.next
        if position is None:
            raise AssertionError("a tag position was taken without a credit")
        self._spans[0][0] += TAG_KEY_BYTES
        self.left -= 1
        return position


def check_credit(spans: Sequence[Span], mark: int, present: Extents) -> int:
    """Looks whether granted spans rise above the own mark and are there; returns the mark that passes them all."""
    for start, length in spans:
        if length < TAG_KEY_BYTES or start < mark or not present.covers(start, start + length):
            raise PeerError(f"credit of {length} bytes at {start}: must lie above the own mark {mark} and in the run")
        mark = start + length
    return mark


class Receiver:
    """Our end of the peer's tag run, in one connection."""

    __slots__ = ("_granted", "common", "credit", "window")

    def __init__(self, common: Extents, window: int = WINDOW_LOW) -> None:
        self.common = common
        """What both ends have."""
        self.credit = Credit()
        self.window = window
        self._granted = False

    def accept(self, position: int) -> None:
        """Spends the position of a frame or message that arrived; anything but the next granted one is a breach."""
        expected = self.credit.next
        if position != expected:
            raise PeerError(f"tag position {position}: only {expected} is granted next")
        self.credit.take()

    def top_up(self, mark: int) -> tuple[tuple[Span, ...], int]:
        """Grants more when half of the window is spent: the spans, all above the mark, and the new mark.

        The mark is the run's, not the connection's: another opening may have raised it. The caller writes it before
        the grant leaves.
        """
        if self.credit.left > self.window // 2:
            return (), mark
        if self._granted and self.credit.left < self.window // 4:
            self.window = min(self.window * 2, WINDOW_HIGH)
        self._granted = True
        wanted = self.window - self.credit.left
        spans: list[Span] = []
        for start, end in self.common.within(mark, 1 << 40):
            count = min(wanted, slots(end - start))
            if count:
                length = count * TAG_KEY_BYTES
                spans.append((start, length))
                self.credit.add(start, length)
                mark = start + length
                wanted -= count
            if not wanted:
                break
        return tuple(spans), mark

    @property
    def starved(self) -> bool:
        """Whether the peer will soon have nothing to answer with, and silence would keep it so."""
        return self.credit.left <= self.window // 4
