"""Applications that ask at a rate for a while, and the policy file of the nodes that they ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.emulation.small_labs import kme

from keyhop import KeyhopError
from keyhop.emulator.lab import Lab

KEY_BITS = 256
SECONDS = 12.0


def with_policy(directory: Path, rules: str) -> Callable[[str], str]:
    policy = directory / "policy.yml"
    policy.write_text(rules)

    def change(text: str) -> str:
        return text.replace("driver: emulated\n", "driver: emulated\n  vendor: acme\n") + f"policy: {policy}\n"

    return change


class Asker(threading.Thread):
    """One application that asks at a rate, whatever it gets; a key that it gets within its deadline counts as given."""

    def __init__(
        self, lab: Lab, master: str, slave: str, rate_bps: int, size_bits: int = KEY_BITS, deadline_s: float = 0.0
    ) -> None:
        super().__init__()
        self.lab, self.master, self.slave = lab, master, slave
        self.period_s = size_bits / rate_bps
        self.size_bits = size_bits
        self.deadline_s = deadline_s
        self.given = self.refused = 0
        self.took_s = 0.0
        """For all that was to be asked for, each one after the answer to the last."""
        self.why: set[str] = set()

    def run(self) -> None:
        with kme(self.lab, self.master) as door:
            began = time.monotonic()
            due = began
            while due < began + SECONDS:
                time.sleep(max(0.0, due - time.monotonic()))
                try:
                    door.get_key(self.slave, size=self.size_bits, wait=self.deadline_s)
                    self.given += 1
                except KeyhopError as error:
                    self.refused += 1
                    self.why.add(str(error))
                due += self.period_s
        self.took_s = time.monotonic() - began
