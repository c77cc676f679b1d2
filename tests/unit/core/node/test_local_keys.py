"""Keys for two applications at one key manager wait for a fetch lifetime, no longer, and one master cannot take all."""

from __future__ import annotations

import pytest

from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS, AppId, NodeId, Refusal
from keyhop.core.node import local
from keyhop.core.node.context import Application, NodeSettings
from keyhop.core.node.events import KeysWanted, RecordsFetched
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import Answered, World

LIFETIME_S = 60


class Alone:
    """One node with three applications, any of which may share keys with the others."""

    def __init__(self) -> None:
        names = ("x", "y", "z")
        settings = NodeSettings(
            node=NodeId("n"),
            applications=tuple(
                Application(id=AppId(name), peers=frozenset(AppId(other) for other in names if other != name))
                for name in names
            ),
            fetch_lifetime_ns=LIFETIME_S * NANOSECONDS,
        )
        self.world = World(1, [settings], DESIGNS["keyhop"], NodeVault)
        self.world.restart_after = (NANOSECONDS // 10, NANOSECONDS // 10)
        self.answers: dict[int, Answered] = {}
        self.world.on_answer.append(lambda answer: self.answers.update({answer.request: answer}))
        self.world.start()
        self.run(0.1)

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + int(seconds * NANOSECONDS))

    def feed(self, event: KeysWanted | RecordsFetched) -> Answered:
        self.world.processes[NodeId("n")].feed(event)
        self.run(0.1)
        return self.answers[event.request]

    def draw(self, master: str, slave: str, number: int = 1) -> tuple[str, ...]:
        answer = self.feed(KeysWanted(self.world.request(), master, slave, number, 256))
        assert answer.deliver.refusal is None
        return answer.deliver.ids

    def fetch(self, slave: str, master: str, *ids: str) -> str:
        refusal = self.feed(RecordsFetched(self.world.request(), slave, master, ids)).deliver.refusal
        return "" if refusal is None else refusal.reason

    @property
    def sealed(self) -> int:
        return len(self.world.processes[NodeId("n")].disk.image.blocks)


def test_a_key_waits_for_a_fetch_lifetime_and_is_then_destroyed() -> None:
    node = Alone()
    early = node.draw("x", "y", 5)
    node.run(LIFETIME_S / 2)
    late = node.draw("x", "y", 5)
    assert node.fetch("y", "x", early[0]) == ""
    node.run(LIFETIME_S / 2)
    assert node.fetch("y", "x", early[1]) == Refusal.NOT_FOUND
    assert node.fetch("y", "x", late[0]) == ""
    assert node.sealed == 4
    node.run(LIFETIME_S)
    assert node.fetch("y", "x", late[1]) == Refusal.NOT_FOUND
    assert node.sealed == 0


def test_after_a_restart_it_waits_as_long_again() -> None:
    node = Alone()
    ids = node.draw("x", "y", 2)
    node.run(LIFETIME_S - 1)
    node.world.crash("n")
    node.run(LIFETIME_S - 1)
    assert node.fetch("y", "x", ids[0]) == ""
    node.run(2)
    assert node.fetch("y", "x", ids[1]) == Refusal.NOT_FOUND
    assert node.sealed == 0


def test_one_master_that_is_never_fetched_from_leaves_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "RECORDS_PER_MASTER", 10)
    node = Alone()
    ids = node.draw("x", "y", 10)
    refusal = node.feed(KeysWanted(node.world.request(), "x", "z", 1, 256)).deliver.refusal
    assert refusal is not None and refusal.reason == Refusal.NOT_ENOUGH_KEY
    assert "10 local keys of SAE 'x' wait to be fetched" in refusal.message
    assert len(node.draw("z", "y", 10)) == 10
    assert node.fetch("y", "x", ids[0]) == ""
    node.draw("x", "z")
