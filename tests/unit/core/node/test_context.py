"""When looks are due that may as well come a little later."""

from __future__ import annotations

import random

import pytest
from small_worlds import settings

from keyhop.core.model import NANOSECONDS
from keyhop.core.node.context import LEISURE_NS, LEISURELY_NS, Context
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.vault import NodeVault


def context(seed: int) -> Context:
    vault = NodeVault(MemoryStore(), bytes(32))
    return Context(settings("a", "b"), vault, random.Random(seed).randbytes, start=1, now=0)


@pytest.mark.parametrize("wait_ns", [0, 1, NANOSECONDS, LEISURELY_NS - 1])
def test_a_short_wait_is_kept_to_the_nanosecond(wait_ns: int) -> None:
    made = context(1)
    made.now = 12_345
    assert made.after(wait_ns) == 12_345 + wait_ns


@pytest.mark.parametrize("wait_ns", [LEISURELY_NS, 5 * NANOSECONDS, LEISURE_NS // 2, LEISURE_NS, 60 * NANOSECONDS])
def test_a_long_wait_is_never_shorter_and_never_twice_as_long(wait_ns: int) -> None:
    made = context(2)
    for now in range(0, 100 * NANOSECONDS, 777_777_777):
        made.now = now
        assert wait_ns <= made.after(wait_ns) - now < 2 * wait_ns


def test_the_looks_of_one_node_meet_and_those_of_two_do_not() -> None:
    one, other = context(3), context(4)
    due = {context: set[int]() for context in (one, other)}
    for now in range(0, 10 * NANOSECONDS, 999_999_999):
        for at in due:
            at.now = now
            due[at].add(at.after(LEISURE_NS) % LEISURE_NS)
    assert len(due[one]) == len(due[other]) == 1 and due[one] != due[other]


def test_a_look_that_comes_when_it_was_due_comes_again_after_its_wait() -> None:
    made = context(5)
    made.now = made.after(LEISURE_NS)
    assert made.after(LEISURE_NS) == made.now + LEISURE_NS
