"""The demo: a network of real nodes on this machine, applications that talk over it, and a hand on the fibres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from keyhop.emulator import control, devices, inspection, network
from keyhop.emulator import lab as labs
from keyhop.emulator.applications import Conversation, deliver_once, talk
from keyhop.emulator.lab import Lab
from keyhop.simulator.topology import Topology
from keyhop.wire import manage

LOOK_PERIOD_S = 1.0
EVE_FRACTION = 0.5
"""Of the pulses: 25 % errors in half of them, well above the limit of 11 %."""
REKEY_S = 10.0
ONCE_KEYS = 10
KEY_BITS = 256


@dataclass
class LinkView:
    """One link as the worse-off of its two ends reports it, and what was done to it here."""

    id: str
    ends: tuple[str, str]
    state: str = "starting"
    reason: str = ""
    qber: float | None = None
    skr_bps: float | None = None
    stored_bytes: int = 0
    capacity_bytes: int = 0
    eve: bool = False
    cut: bool = False


@dataclass
class Demo:
    """A running demo; `refresh` keeps its figures up to date."""

    topology: Topology
    lab: Lab
    conversations: list[Conversation]
    links: dict[str, LinkView] = field(default_factory=dict)
    ready_s: float = 0.0
    dead: dict[str, str] = field(default_factory=dict)

    # --- what a person can do -----------------------------------------------------------------------------------------

    def toggle_eve(self, link_id: str) -> None:
        view = self.links[link_id]
        view.eve = not view.eve
        control.set_eve(self.lab.directory, link_id, EVE_FRACTION if view.eve else 0.0)

    def toggle_cut(self, link_id: str) -> None:
        view = self.links[link_id]
        view.cut = not view.cut
        if view.cut:
            control.cut(self.lab.directory, link_id)
        else:
            control.restore(self.lab.directory, link_id)
            view.eve = False

    # --- what is looked at --------------------------------------------------------------------------------------------

    async def refresh(self, changed: Callable[[], None]) -> None:
        """Asks all nodes every second, until cancelled."""
        while True:
            await asyncio.to_thread(self._look)
            changed()
            await asyncio.sleep(LOOK_PERIOD_S)

    def _look(self) -> None:
        views = inspection.look(self.lab)
        self.dead = {view.node.id: view.reason for view in views if view.state == "dead"}
        for link in inspection.links_seen(views).values():
            view = self.links.get(link.id)
            if view is None:
                continue
            view.state, view.reason, view.qber = link.state.value, link.reason, link.qber
            view.skr_bps, view.stored_bytes = link.skr_bps, link.stored_bytes
            view.capacity_bytes = link.capacity_bytes
        for conversation in self.conversations:
            origin = self.lab.serving(conversation.master)
            to = self.lab.serving(conversation.slave)
            try:
                path = manage.route_path(origin.id, to.id)
                chosen = inspection.ask(origin.manage, path, manage.RouteAnswer).chosen
            except inspection.NoAnswer:
                continue
            conversation.path = chosen.path if chosen is not None else ()


def conversations(topology: Topology) -> list[Conversation]:
    """The applications of the topology; if it names none, the two that are the farthest apart in its list."""
    found = [
        Conversation(app.name, app.between[0], app.between[1], app.every_s, app.key_size_bits) for app in topology.apps
    ]
    if not found:
        served = [name for node in topology.nodes.values() for name in node.applications]
        if len(served) >= 2:
            found = [Conversation("app", served[0], served[-1], REKEY_S, KEY_BITS)]
    return found


def prepare(topology: Topology, directory: Path) -> Demo:
    """Makes the lab. Raises LabError."""
    talks = conversations(topology)
    if not talks:
        raise labs.LabError(
            f"{topology.name} has fewer than two applications", "give two of its nodes an application (sae: [NAME])"
        )
    # Absolute: the node processes have a working directory of their own.
    lab = network.create(devices.plan(topology), directory.absolute())
    links = {link.id: LinkView(link.id, link.ends) for link in lab.state.links}
    return Demo(topology, lab, talks, links)


def start(demo: Demo, became_ready: Callable[[str], None], *, one_process: bool = False) -> None:
    """Starts all nodes; raises LabError or NodeFailure. The epoch of the modules is now."""
    began = time.monotonic()
    labs.start(demo.lab, became_ready=became_ready, one_process=one_process)
    demo.ready_s = time.monotonic() - began


def stop(demo: Demo) -> list[str]:
    return labs.stop(demo.lab)


async def run(demo: Demo, changed: Callable[[], None], ended: asyncio.Event) -> None:
    """Lets the applications talk until `ended` is set."""
    tasks = [asyncio.create_task(talk(demo.lab, conversation)) for conversation in demo.conversations]
    tasks.append(asyncio.create_task(demo.refresh(changed)))
    waiting = asyncio.create_task(ended.wait())
    try:
        done, _ = await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiting}:
            await task
    finally:
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.gather(*tasks, waiting, return_exceptions=True)


async def once(demo: Demo) -> list[tuple[Conversation, int, float]]:
    """Ten keys end to end, shared out among the conversations: (who, how many were equal, seconds)."""
    outcome = []
    left = ONCE_KEYS
    for index, conversation in enumerate(demo.conversations):
        count = left // (len(demo.conversations) - index)
        left -= count
        began = time.monotonic()
        equal = await deliver_once(demo.lab, conversation.master, conversation.slave, count)
        conversation.keys = count
        outcome.append((conversation, equal, time.monotonic() - began))
    await asyncio.to_thread(demo._look)
    return outcome
