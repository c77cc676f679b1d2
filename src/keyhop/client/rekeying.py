"""When a session changes its key, and what happens to the old ones."""

from __future__ import annotations

from keyhop.client.core import Key, NotEnoughKey

REKEY_S = 30.0
REKEY_MINIMUM_S = 0.05
RETRY_S = 1.0


class Freshness:
    """Current and previous key of a session."""

    def __init__(self, rekey_s: float) -> None:
        if rekey_s < REKEY_MINIMUM_S:
            raise ValueError(f"rekey = {rekey_s}: must be {REKEY_MINIMUM_S} s or more")
        self._rekey_s = rekey_s
        self._current: Key | None = None
        self.previous: Key | None = None
        self.last_error: Exception | None = None

    @property
    def current(self) -> Key:
        if self._current is None:
            raise RuntimeError("the session has not begun: use it in a `with` block")
        return self._current

    def change(self, key: Key) -> None:
        """The key before the last is wiped: its messages have had a whole period to arrive."""
        if self.previous is not None:
            self.previous.wipe()
        self.previous, self._current, self.last_error = self._current, key, None

    def failed(self, error: Exception) -> None:
        self.last_error = error

    def next_s(self) -> float:
        """Pause until the next change, shorter after a failure."""
        if self.last_error is None:
            return self._rekey_s
        if isinstance(self.last_error, NotEnoughKey) and self.last_error.retry_after is not None:
            return max(self.last_error.retry_after, REKEY_MINIMUM_S)
        return min(RETRY_S, self._rekey_s)

    def wipe(self) -> None:
        for key in (self._current, self.previous):
            if key is not None:
                key.wipe()
