"""How often Python looks for cycles of garbage while a run goes on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 100_000
"""Against 700 as Python has it. Runs make hardly any cycles, nodes that crash apart, and each look at a network of
thousands of nodes would go over all of it."""


@contextmanager
def seldom() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(max(NEW_OBJECTS, before[0]) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
