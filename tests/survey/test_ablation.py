"""No part is there for nothing: without any one of them some design is refused or no longer does what it did."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from keyhop.core.designs import DESIGNS, Design, Formatting, LocalGlobal, check
from keyhop.core.designs.parts import PARTS, word
from keyhop.core.designs.survey import disagreements
from keyhop.core.policy.admission import AdmitAll
from keyhop.core.policy.disposal import EraseNow
from keyhop.core.policy.division import Shared
from keyhop.core.policy.fallback import Deny
from keyhop.core.policy.formatting import Identity
from keyhop.core.policy.priority import Fifo
from keyhop.core.policy.refill import NoThreshold
from keyhop.core.policy.relay import NoRelay
from keyhop.core.policy.routing import NoRouting
from keyhop.core.policy.sharing import FirstCome
from keyhop.core.policy.storage import ByteStream, FixedBlock
from keyhop.core.policy.synchronisation import DirectedPool, ProposeAccept
from keyhop.simulator import runs
from keyhop.simulator.record import Record, Scenario
from keyhop.simulator.workloads import scenario

EVERY_PART = [pytest.param(question, part, id=word(part)) for question, parts in PARTS.items() for part in parts]
PLAIN: dict[str, Any] = {
    "division": Shared(),
    "refill": NoThreshold(),
    "disposal": EraseNow(),
    "admission": AdmitAll(),
    "sharing": FirstCome(),
    "priority": Fifo(),
    "formatting": Identity(),
    "fallback": Deny(),
    "relay": NoRelay(),
    "routing": NoRouting(),
}
"""What a design has that says nothing; storage and synchronisation have no such answer."""
OTHERWISE: dict[str, tuple[Any, Any]] = {
    "storage": (FixedBlock(unit_bits=256), ByteStream()),
    "synchronisation": (ProposeAccept(by="asker"), DirectedPool()),
}
"""The plainest there, and what stands for that one itself."""

REPLACEABLE = [
    pytest.param(question, part, id=word(part))
    for question, parts in PARTS.items()
    for part in parts
    if type(PLAIN.get(question)) is not part
]

SECONDS = 12.0
RATE_BPS = 10_000
TRIALS = (("W2", 1.2), ("W7", 1.5), ("W5", 0.6), ("W4", 1.5), ("W8", 0.8))
LINE = ("a", "b"), {frozenset("ab"): 10_000}
DIAMOND = (
    ("a", "r", "b"),
    {frozenset(pair): rate for pair, rate in (("ar", 6_000), ("rb", 6_000), ("as", 9_000), ("sb", 9_000))},
)
"""Two ways, the narrower one first by name."""


@pytest.mark.parametrize(("question", "part"), EVERY_PART)
def test_a_part_that_the_composer_does_not_know_is_missed(
    question: str, part: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [design for design in DESIGNS.values() if uses(design, question, part)]
    assert users, f"no design answers {question} by {word(part)}: it is not needed"
    monkeypatch.setitem(PARTS, question, tuple(other for other in PARTS[question] if other is not part))
    for design in users:
        assert any(f"= {word(part)}: must be one of" in why for why in check(design)), design.name


@pytest.mark.parametrize(("question", "part"), REPLACEABLE)
def test_a_part_replaced_by_the_plain_answer_is_missed(question: str, part: type) -> None:
    plain = substitute(question, part)
    users = [design for design in DESIGNS.values() if uses(design, question, part)]
    assert any(failure(design, replaced(design, question, part, plain)) for design in users), (
        f"{', '.join(design.name for design in users)}: nothing changes with {word(plain)} for {word(part)}"
    )


def test_a_design_in_which_nothing_was_replaced_does_not_fail() -> None:
    """Or the test above would pass whatever a part does."""
    for name in ("darpa", "nec"):
        assert failure(DESIGNS[name], replace(DESIGNS[name])) == ""


def uses(design: Design, question: str, part: type) -> bool:
    return any(type(answer) is part for answer in design.answers(question).values())


def substitute(question: str, part: type) -> Any:
    if question in OTHERWISE:
        plain, other = OTHERWISE[question]
        return other if isinstance(plain, part) else plain
    return PLAIN[question]


def replaced(design: Design, question: str, part: type, plain: Any) -> Design:
    """With `plain` wherever `part` stood."""

    def other(answer: Any) -> Any:
        match answer:
            case LocalGlobal(local, distant):
                return LocalGlobal(other(local), other(distant))
            case Formatting(reception, supply):
                return Formatting(other(reception), other(supply))
            case tuple():
                kept = tuple(one for one in answer if type(one) is not part)
                return kept if len(kept) > 1 else kept[0] if kept else plain
        return plain if type(answer) is part else answer

    # The sources of parameters that are gone would be refused, which shows nothing.
    return replace(design, sources={}, **{question: other(getattr(design, question))})


def failure(before: Design, after: Design) -> str:
    """Why the design is not any more what it was; empty if nothing shows."""
    if broken := check(after, 2):
        return f"refused: {broken[0]}"
    if before.row and (more := set(map(str, disagreements(after))) - set(map(str, disagreements(before)))):
        return f"disagrees with its row: {min(more)}"
    for workload, load in TRIALS:
        for path, links in (LINE, DIAMOND):
            if len(path) > 2 and isinstance(before.relay, NoRelay):
                continue
            was = run(before, links, asked(workload, load, path))
            try:
                now = run(after, links, asked(workload, load, path))
            except Exception as error:
                return f"its run ends with {type(error).__name__}"
            if now != was:
                return f"{workload} over {len(path) - 1} links ends otherwise"
    return ""


def run(design: Design, links: dict[frozenset[str], int], asked: Scenario) -> Record:
    # How many events it took is no property of a design.
    return runs.run(design, links, asked, seconds=SECONDS, seed=1)._replace(events=0)


@cache
def asked(workload: str, load: float, path: tuple[str, ...]) -> Scenario:
    return scenario(workload, [path], RATE_BPS, load, SECONDS, 1)
