"""Small labs that the tests of whole nodes share, and what they do with them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from keyhop import Key, KeyhopError, Kme
from keyhop.emulator import control, devices, module, network, processes
from keyhop.emulator import lab as labs
from keyhop.emulator.lab import Lab
from keyhop.emulator.module import EmulatedLink
from keyhop.emulator.processes import Process
from keyhop.simulator import topology

PAIR = """apiVersion: keyhop/v1
name: pair
nodes:
  a: {sae: [sae-a]}
  b: {sae: [sae-b]}
links:
  - {id: ab, ends: [a, b], length: 25 km, rate: 40 kbps}
"""
BLOCK_BYTES = 2000
BLOCK_PERIOD_S = 0.4


def make(directory: Path, text: str, *, node_files: Callable[[str], str] = lambda text: text) -> Lab:
    """A lab of the topology in `text`, not started; `node_files` may change what stands in each node's file."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "net.keyhop.yml"
    file.write_text(text)
    lab = network.create(devices.plan(topology.load(file)), directory / "lab")
    for link in lab.state.links:
        module.create(
            link_place(lab, link.id),
            msgspec.structs.replace(emulated(lab, link.id), block_bytes=BLOCK_BYTES, block_period_s=BLOCK_PERIOD_S),
        )
    for node in lab.state.nodes:
        config = lab.config(node.id)
        config.write_text(node_files(config.read_text()))
    return lab


@contextmanager
def running(lab: Lab, *, one_process: bool = False) -> Iterator[Lab]:
    labs.start(lab, one_process=one_process)
    try:
        yield lab
    finally:
        labs.stop(lab)


def link_place(lab: Lab, link: str) -> Path:
    return lab.directory / control.LINKS_DIRECTORY / link


def emulated(lab: Lab, link: str) -> EmulatedLink:
    return module.read_link(link_place(lab, link))


def kme(lab: Lab, application: str, *, at: str = "", timeout: float = 10.0) -> Kme:
    """The SDK for an application of the lab, at its own node or, wrongly, at another."""
    issued, authority = lab.credentials(application)
    address = lab.node(at).etsi014 if at else lab.serving(application).etsi014
    return Kme(f"https://{address}", cert=issued.certificate, key=issued.key, ca=authority, timeout=timeout)


def exchange(lab: Lab, master: str, slave: str, count: int, timeout_s: float = 20.0, **asking: int) -> list[Key]:
    """So many keys, fetched at both ends and equal; what is refused meanwhile is asked for again."""
    deadline = time.monotonic() + timeout_s
    keys: list[Key] = []
    with kme(lab, master) as near, kme(lab, slave) as far:
        while len(keys) < count:
            try:
                key = near.get_key(slave, **asking)
            except KeyhopError as error:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{count - len(keys)} keys are missing: {error}") from None
                time.sleep(0.05)
                continue
            try:
                assert far.fetch_key(master, key.id) == key
            except KeyhopError:
                # A key of which the far end says no is lost; it was never acknowledged there.
                assert time.monotonic() < deadline, f"{count - len(keys)} keys are missing"
                continue
            keys.append(key)
    return keys


def process_of(lab: Lab, node: str) -> Process:
    found = labs.open_lab(lab.directory).node(node).process
    assert found is not None
    return found


def kill(lab: Lab, node: str, number: signal.Signals = signal.SIGKILL) -> None:
    """Ends one node by its process id, and waits until it is gone."""
    process = process_of(lab, node)
    os.kill(process.pid, number)
    deadline = time.monotonic() + 10
    while processes.alive(process):
        assert time.monotonic() < deadline, f"{node} does not end"
        time.sleep(0.01)


def heard(lab: Lab, node: str, code: str) -> int:
    """How often the log of a node tells of this."""
    return lab.log(node).read_text().count(f'"{code}"')
