"""Nodes with a policy, whose links deliver blocks of a vendor with an epsilon."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from small_worlds import RATE_BPS, pair, run, settings, started

from keyhop.core import constraints
from keyhop.core.constraints import NO_CONSTRAINTS, Constraints
from keyhop.core.machine import Deliver
from keyhop.core.model import AppId, NodeId
from keyhop.core.node.context import Application
from keyhop.core.node.events import (
    BlockArrived,
    Coordinates,
    Fetch,
    KeysFetched,
    KeysWanted,
    ModuleReported,
    RequestEnded,
)
from keyhop.core.node.vault import BlockName
from keyhop.core.policy_rules import Policy
from keyhop.files.policy import PolicyFile, policy_of
from keyhop.files.reading import parse
from keyhop.simulator.world import Answered


def policy(text: str) -> Policy:
    return policy_of(parse(PolicyFile, f"apiVersion: keyhop/v1\n{text}".encode(), "policy.yml", Path()))


def demands(**members: Any) -> Constraints:
    return constraints.parse([{f"keyhop_{name}": value for name, value in members.items()}]).required


class Network:
    """Nodes named by a letter, links between neighbours in `line` or as `ends` says; applications at each: a1, a2."""

    def __init__(self, line: str = "ab", rules: str | None = None, *, ends: tuple[str, ...] = (), **more: Any) -> None:
        every = [AppId(f"{name}{number}") for name in line for number in (1, 2)]
        found = None if rules is None else policy(rules)
        self.ends = ends or tuple(map("".join, pairwise(line)))
        links = {name: "".join(pair[1 - pair.index(name)] for pair in self.ends if name in pair) for name in line}
        self.world = started(
            [
                settings(
                    name,
                    links[name],
                    applications=tuple(
                        Application(id=app, peers=frozenset(every) - {app}) for app in every if app[0] == name
                    ),
                    directory={app: NodeId(app[0]) for app in every if app[0] != name},
                    policy=found,
                    link_names={peer: "-".join(sorted((name, peer))) for peer in links[name]},
                    **more,
                )
                for name in line
            ]
        )
        self.line = line
        self.answers: dict[int, Answered] = {}
        self.world.on_answer.append(lambda answered: self.answers.__setitem__(answered.request, answered))
        self._number = 0

    def run(self, seconds: float) -> None:
        run(self.world, seconds)

    def block(self, one: str, other: str, length: int = 8192, epsilon: float = 1e-10, vendor: str = "acme") -> int:
        self._number += 1
        bits = self.world.random.randbytes(length)
        for here, there in ((one, other), (other, one)):
            process = self.world.processes[NodeId(here)]
            module = "-".join(sorted((one, other)))
            process.vault.accept(BlockName(NodeId(there), module, self._number), bytearray(bits))
            process.feed(BlockArrived(there, module, self._number, length, epsilon, vendor))
        return self._number

    def report(self, one: str, other: str, rate_bps: int = RATE_BPS, period_ns: int = 10**9) -> None:
        for here, there in ((one, other), (other, one)):
            event = ModuleReported(there, "m", "up", rate_bps, "", period_ns)
            self.world.processes[NodeId(here)].feed(event)

    def ask(
        self,
        master: str,
        slave: str,
        demanded: Constraints = NO_CONSTRAINTS,
        *,
        number: int = 1,
        size_bits: int = 256,
        preferred: Constraints = NO_CONSTRAINTS,
    ) -> int:
        request = self.world.request()
        event = KeysWanted(request, master, slave, number, size_bits, demanded, preferred, True)
        self.world.processes[NodeId(master[0])].feed(event)
        return request

    def give_up(self, node: str, request: int) -> None:
        self.world.processes[NodeId(node)].feed(RequestEnded(request))

    def asked(
        self, master: str, slave: str, demanded: Constraints = NO_CONSTRAINTS, seconds: float = 0.3, **more: Any
    ) -> Deliver:
        request = self.ask(master, slave, demanded, **more)
        for _ in range(20):
            self.run(seconds)
            if request in self.answers:
                break
        return self.answers[request].deliver

    def fetched(self, slave: str, given: Deliver, master: str) -> Deliver:
        request = self.world.request()
        keys = tuple(Coordinates(one.run.number, one.start, one.length) for one in given.ranges)
        self.world.processes[NodeId(slave[0])].feed(KeysFetched(master[0], [Fetch(request, keys)]))
        self.run(0.3)
        return self.answers[request].deliver

    def same(self, given: Deliver, master: str, slave: str) -> bool:
        """The slave gets the same bits."""
        answer = self.fetched(slave, given, master)
        mine = next(a for a in self.answers.values() if a.deliver is given)
        theirs = next(a for a in self.answers.values() if a.deliver is answer)
        return answer.refusal is None and mine.bits == theirs.bits

    def pair(self, here: str, there: str) -> Any:
        return pair(self.world, here, there)

    def node(self, name: str) -> Any:
        return self.world.processes[NodeId(name)].node


def why(deliver: Deliver) -> str:
    assert deliver.refusal is not None, deliver
    return f"{deliver.refusal.message} {deliver.refusal.details}"
