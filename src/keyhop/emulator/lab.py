"""A lab that was made: where its files are, which processes are its nodes, and how they start and end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from keyhop.daemon import pki
from keyhop.daemon.configuration import API_VERSION
from keyhop.emulator import control, module, processes
from keyhop.emulator.processes import Process
from keyhop.files import Address

LAB_FILE = "lab.json"
PKI_DIRECTORY = "pki"
NODES_DIRECTORY = "nodes"
NODE_FILE = "keyhop.yml"
LOG_FILE = "log"

LAB_DIRECTORIES = ("keyhop-lab", "keyhop-demo")
"""Where commands look for a lab below the working directory."""
LAB_VARIABLE = "KEYHOP_LAB"


class LabError(Exception):
    """What is wrong with a lab, why, and what to do."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}; {next_step}")
        self.what = what
        self.next_step = next_step


class NoLabError(LabError):
    """The directory holds none."""


class LabNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    label: str = ""
    at: tuple[float, float] | None = None
    applications: tuple[str, ...] = ()
    etsi014: str
    """Address where applications ask for keys."""
    peer: str
    manage: str
    process: Process | None = None
    """The last one that was started, alive or not; None after the lab was taken down."""


class LabLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    ends: tuple[str, str]
    protocol: str = ""
    length_km: float | None = None
    rate_bps: float
    block_period_s: float
    prefill_bytes: int = 0


class LabState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`lab.json`."""

    api_version: Literal["keyhop/v1"] = msgspec.field(name="apiVersion", default=API_VERSION)
    name: str
    title: str = ""
    made_at: datetime
    epoch_ns: int
    """When the first block period began, in wall-clock nanoseconds: block numbers go on from there."""
    nodes: tuple[LabNode, ...]
    links: tuple[LabLink, ...]
    one_process: bool = False
    """All nodes were started in one process: it saves memory, and they end together."""


@dataclass(slots=True)
class Lab:
    directory: Path
    """Absolute: nodes run in directories of their own."""
    state: LabState

    def node(self, node_id: str) -> LabNode:
        for node in self.state.nodes:
            if node.id == node_id:
                return node
        known = ", ".join(node.id for node in self.state.nodes)
        raise LabError(f"lab {self.state.name} has no node {node_id!r}", f"its nodes are {known}")

    def config(self, node_id: str) -> Path:
        return self.directory / NODES_DIRECTORY / node_id / NODE_FILE

    def log(self, node_id: str) -> Path:
        return self.directory / LOG_FILE if self.state.one_process else self.config(node_id).parent / LOG_FILE

    @property
    def pki_directory(self) -> Path:
        return self.directory / PKI_DIRECTORY

    def credentials(self, application: str) -> tuple[pki.Issued, Path]:
        """Certificate and key of an application, and the authority that its key manager's certificate comes from."""
        directory = self.pki_directory
        return pki.leaf(directory, pki.Role.SAE, application), pki.authority_certificate(directory, pki.Role.KME)

    def serving(self, application: str) -> LabNode:
        for node in self.state.nodes:
            if application in node.applications:
                return node
        known = ", ".join(name for node in self.state.nodes for name in node.applications) or "none"
        raise LabError(f"lab {self.state.name} has no application {application!r}", f"it has {known}")

    def alive(self, node_id: str) -> bool:
        process = self.node(node_id).process
        return process is not None and processes.alive(process)

    def monotonic_epoch_ns(self) -> int:
        """The lab's epoch on the machine's monotonic clock, which may have begun again since the lab was made."""
        return time.monotonic_ns() - (time.time_ns() - self.state.epoch_ns)

    def save(self) -> None:
        fresh = self.directory / (LAB_FILE + ".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(self.state), indent=2) + b"\n")
        os.replace(fresh, self.directory / LAB_FILE)

    @property
    def running(self) -> bool:
        return any(self.alive(node.id) for node in self.state.nodes)


def open_lab(directory: Path) -> Lab:
    """Raises LabError for a directory that holds no lab, or a damaged one."""
    directory = directory.absolute()
    path = directory / LAB_FILE
    try:
        if not _is_ours(directory):
            raise LabError(
                f"{directory} belongs to another user", "use a lab of your own: keyhop lab up secoqc --dir DIRECTORY"
            )
        return Lab(directory, msgspec.json.decode(path.read_bytes(), type=LabState))
    except FileNotFoundError:
        raise NoLabError(
            f"{directory} holds no lab", "make one: keyhop lab up secoqc, or: keyhop lab up FILE"
        ) from None
    except NotADirectoryError:
        raise NoLabError(f"{directory} is no directory", "name the directory of a lab") from None
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror})", "check its owner and mode") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is damaged ({error})", f"remove {directory} and make the lab anew") from None


def find_lab(start: Path) -> Path | None:
    """The directory of the lab that a command run in `start` means: one directly in it, or the one it lies in.

    Not one that merely stands beside a directory further up: below /tmp that would be any lab of anybody.
    """
    named = os.environ.get(LAB_VARIABLE)
    if named:
        return Path(named)
    found = [start, *(start / name for name in LAB_DIRECTORIES), *start.parents]
    found = [directory for directory in found if _holds_ours(directory)]
    # A demo that runs is meant rather than the lab beside it that was taken down.
    below = [directory for directory in found if directory.parent == start and directory != start]
    if found and found[0] in below:
        return next((directory for directory in below if _runs(directory)), found[0])
    return found[0] if found else None


def _runs(directory: Path) -> bool:
    try:
        return open_lab(directory).running
    except LabError:
        return False


def _holds_ours(directory: Path) -> bool:
    try:
        return (directory / LAB_FILE).is_file() and _is_ours(directory)
    except OSError:
        # What we may not look into is not meant.
        return False


def _is_ours(directory: Path) -> bool:
    """A lab file names processes that `stop` ends: one that somebody else wrote must not choose them."""
    return all(path.stat().st_uid == os.getuid() for path in (directory, directory / LAB_FILE))


def start(
    lab: Lab,
    *,
    timeout_s: float | None = None,
    became_ready: Callable[[str], None] = lambda node: None,
    command: Callable[..., list[str]] = processes.node_command,
    one_process: bool = False,
) -> None:
    """Starts one process per node, or one for all, and waits until all are ready: 30 s and 2 s more for each node.

    Raises LabError if the lab runs already or a port was taken meanwhile, NodeFailure (with the node's last words,
    after ending the others) if a node does not come up.
    """
    with _only_command(lab):
        lab.state = open_lab(lab.directory).state
        if lab.running:
            raise LabError(
                f"lab {lab.state.name} runs already", "see `keyhop lab inspect`, end it by `keyhop lab down`"
            )
        _check_ports(lab)
        _begin_periods(lab)
        lab.state = msgspec.structs.replace(lab.state, one_process=one_process)
        names = [node.id for node in lab.state.nodes]
        started: list[Process] = []
        try:
            for together in [names] if one_process else [[name] for name in names]:
                with processes.held_back():
                    process = processes.spawn(command(*map(lab.config, together)), lab.log(together[0]))
                    started.append(process)
                    for name in together:
                        _record(lab, name, process)
            processes.wait_ready(
                {
                    node.id: (node.process, *_host_port(node.manage), lab.log(node.id))
                    for node in lab.state.nodes
                    if node.process is not None
                },
                processes.READY_TIMEOUT_S + 2 * len(names) if timeout_s is None else timeout_s,
                became_ready,
            )
        except BaseException:
            # Also on Ctrl-C: a lab that did not come up leaves nothing behind.
            processes.stop(started)
            raise


def stop(lab: Lab) -> list[str]:
    """Ends all nodes; the names of those that had to be killed."""
    with _only_command(lab):
        lab.state = open_lab(lab.directory).state
        running = {node.process: node.id for node in lab.state.nodes if node.process is not None}
        killed = processes.stop(list(running))
        for node in lab.state.nodes:
            _record(lab, node.id, None)
        return [running[process] for process in killed]


def restart_node(lab: Lab, node_id: str, *, timeout_s: float = processes.READY_TIMEOUT_S) -> None:
    """Starts a node again that ended or was ended. Raises NodeFailure if it does not come up."""
    with _only_command(lab):
        lab.state = open_lab(lab.directory).state
        node = lab.node(node_id)
        if lab.alive(node_id):
            raise LabError(f"node {node_id} runs already", "end it first")
        if lab.state.one_process:
            raise LabError(f"node {node_id} ran in one process with the others", "start them with `keyhop lab up`")
        with processes.held_back():
            process = processes.spawn(processes.node_command(lab.config(node_id)), lab.log(node_id))
            _record(lab, node_id, process)
        processes.wait_ready({node_id: (process, *_host_port(node.manage), lab.log(node_id))}, timeout_s)


def deaths(lab: Lab) -> dict[str, str]:
    """Nodes that were started and have ended by themselves, with why."""
    told: dict[Process, str] = {}
    found = {}
    for node in lab.state.nodes:
        if node.process is None or processes.alive(node.process):
            continue
        if node.process in told:
            found[node.id] = f"node {node.id} ran in the process of {told[node.process]}"
        else:
            told[node.process] = node.id
            found[node.id] = processes.why_it_ended(node.id, node.process, lab.log(node.id))
    return found


def _begin_periods(lab: Lab) -> None:
    for link in lab.state.links:
        directory = lab.directory / control.LINKS_DIRECTORY / link.id
        try:
            emulated = module.read_link(directory)
        except (OSError, ValueError) as error:
            raise LabError(f"link {link.id} cannot be read ({error})", "remove the lab and make it anew") from None
        module.create(directory, msgspec.structs.replace(emulated, epoch_ns=lab.monotonic_epoch_ns()))
        control.reset(lab.directory, link.id)


def _check_ports(lab: Lab) -> None:
    for node in lab.state.nodes:
        for name, address in (("etsi014", node.etsi014), ("peer", node.peer), ("manage", node.manage)):
            with socket.socket() as probe:
                # Connections of the lab's last run may linger; only a listener is in the way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(_host_port(address))
                except OSError as error:
                    raise LabError(
                        f"node {node.id} cannot have {address} for {name} ({error.strerror})",
                        "end the program that listens there, or make the lab anew in another directory",
                    ) from None


def _host_port(address: str) -> tuple[str, int]:
    found = Address.from_text(address)
    return found.host, found.port


def _record(lab: Lab, node_id: str, process: Process | None) -> None:
    nodes = tuple(
        msgspec.structs.replace(node, process=process) if node.id == node_id else node for node in lab.state.nodes
    )
    lab.state = msgspec.structs.replace(lab.state, nodes=nodes)
    lab.save()


@contextlib.contextmanager
def _only_command(lab: Lab) -> Iterator[None]:
    """Two commands that start and end nodes of one lab at once would lose processes."""
    descriptor = os.open(lab.directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LabError(f"another command works on lab {lab.state.name}", "wait until it is done") from None
    try:
        yield
    finally:
        os.close(descriptor)
