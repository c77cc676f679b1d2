"""From the plan of a network to the directory of a lab: certificates, link secrets, node files, all on loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from keyhop.core.designs import DESIGNS, controlled
from keyhop.daemon import linkkey, pki
from keyhop.daemon.configuration import (
    API_VERSION,
    AnchorEntry,
    ApplicationEntry,
    AuditEntry,
    Limits,
    LinkEntry,
    Listeners,
    ManageListener,
    NodeEntry,
    NodeFile,
    PeerListener,
    StoreEntry,
    SupplyListener,
)
from keyhop.emulator import control, module
from keyhop.emulator.lab import LAB_FILE, NODE_FILE, PKI_DIRECTORY, Lab, LabError, LabLink, LabNode, LabState
from keyhop.files import Address, Source, write

NODE_KEY_BYTES = 32
HOST = "127.0.0.1"
NODE_LIMIT = 200
"""One process each; larger networks are for the simulator."""
PORTS_PER_NODE = 3
CONNECTIONS = 512
"""Of each door: many nodes share the open files of one machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    id: str
    label: str = ""
    at: tuple[float, float] | None = None
    """Latitude and longitude in degrees."""
    applications: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLink:
    id: str
    ends: tuple[str, str]
    block_bytes: int
    block_period_s: float
    qber_ratio: float
    qber_limit_ratio: float = 0.11
    has_qber: bool = True
    epsilon: float = 0.0
    prefill_bytes: int = 0
    protocol: str = ""
    length_km: float | None = None
    vendor: str = ""
    """Of the modules at both ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A network as the emulator builds it: which nodes, and what the module of each link gives."""

    name: str
    title: str = ""
    nodes: tuple[PlannedNode, ...]
    links: tuple[PlannedLink, ...]
    stock_bytes: int | None = None
    """Kept per direction and link; None: the nodes' own default."""
    design: str = "keyhop"


def create(plan: Plan, directory: Path, now: datetime | None = None) -> Lab:
    """Makes the directory of a lab: certificates, link secrets, node files. Nothing is started.

    Raises LabError where the directory is taken or the plan cannot be built here.
    """
    if len(plan.nodes) > NODE_LIMIT:
        raise LabError(f"{plan.name} has {len(plan.nodes)} nodes", f"a lab holds up to {NODE_LIMIT}: use the simulator")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        what = "a lab is there already" if (directory / LAB_FILE).exists() else "it is not empty"
        raise LabError(f"{directory} cannot be used: {what}", "give another one with --dir, or remove it")
    now = now or datetime.now(UTC)
    directory = directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    ports = free_ports(PORTS_PER_NODE * len(plan.nodes))
    nodes = tuple(_lab_node(node, ports[at * PORTS_PER_NODE :]) for at, node in enumerate(plan.nodes))
    lab = Lab(
        directory,
        LabState(
            name=plan.name,
            title=plan.title,
            made_at=now,
            epoch_ns=time.time_ns(),
            nodes=nodes,
            links=tuple(_lab_link(link) for link in plan.links),
        ),
    )
    _issue_certificates(lab, now)
    for link in plan.links:
        _create_link(lab, link)
    for planned in plan.nodes:
        _create_node(lab, plan, planned.id)
    _share_secrets(lab)
    # Last, so that a directory with this file is a whole lab.
    lab.save()
    return lab


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now, all different."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind((HOST, 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def _lab_node(node: PlannedNode, ports: Sequence[int]) -> LabNode:
    etsi014, peer, manage = (f"{HOST}:{port}" for port in ports[:PORTS_PER_NODE])
    return LabNode(
        id=node.id,
        label=node.label,
        at=node.at,
        applications=node.applications,
        etsi014=etsi014,
        peer=peer,
        manage=manage,
    )


def _lab_link(link: PlannedLink) -> LabLink:
    return LabLink(
        id=link.id,
        ends=_in_order(link.ends),
        protocol=link.protocol,
        length_km=link.length_km,
        rate_bps=link.block_bytes * 8 / link.block_period_s,
        block_period_s=link.block_period_s,
        prefill_bytes=link.prefill_bytes,
    )


def _in_order(ends: tuple[str, str]) -> tuple[str, str]:
    return (ends[0], ends[1]) if ends[0] < ends[1] else (ends[1], ends[0])


def _issue_certificates(lab: Lab, now: datetime) -> None:
    pki.init(lab.pki_directory, now)
    for node in lab.state.nodes:
        pki.issue(lab.pki_directory, pki.Role.KME, node.id, now)
        for application in node.applications:
            pki.issue(lab.pki_directory, pki.Role.SAE, application, now)


def _create_link(lab: Lab, link: PlannedLink) -> None:
    try:
        emulated = module.EmulatedLink(
            id=link.id,
            ends=_in_order(link.ends),
            block_bytes=link.block_bytes,
            block_period_s=link.block_period_s,
            epoch_ns=lab.monotonic_epoch_ns(),
            qber_ratio=link.qber_ratio,
            qber_limit_ratio=link.qber_limit_ratio,
            has_qber=link.has_qber,
            epsilon=link.epsilon,
            prefill_bytes=link.prefill_bytes,
        )
    except ValueError as error:
        raise LabError(f"{lab.state.name} cannot be built: {error}", "correct its topology file") from None
    module.create(lab.directory / control.LINKS_DIRECTORY / link.id, emulated)


def _create_node(lab: Lab, plan: Plan, node_id: str) -> None:
    directory = lab.config(node_id).parent
    directory.mkdir(mode=0o700, parents=True)
    _write_secret(directory / "node.key", os.urandom(NODE_KEY_BYTES))
    (directory / NODE_FILE).write_text(write(_node_file(lab, plan, node_id)), encoding="utf-8")


def _share_secrets(lab: Lab) -> None:
    """First contact: the secret belongs to two nodes, however many fibres lie between them."""
    for one, other in sorted({link.ends for link in lab.state.links}):
        secret = linkkey.make(one, other)
        try:
            linkkey.write(secret, lab.config(one).parent / _secret_name(other))
            linkkey.write(secret, lab.config(other).parent / _secret_name(one))
        finally:
            secret.wipe()


def _secret_name(neighbour: str) -> str:
    return f"first-contact-{neighbour}.key"


def _node_file(lab: Lab, plan: Plan, node_id: str) -> NodeFile:
    """Relative paths throughout, so that the directory of a lab can be moved."""
    node = lab.node(node_id)
    up = Path("..", "..")
    issued = pki.leaf(up / PKI_DIRECTORY, pki.Role.KME, node_id)
    key = Source("file", str(issued.key))
    everyone = [application for other in lab.state.nodes for application in other.applications]
    limits = {link.id: link.qber_limit_ratio for link in plan.links}
    vendors = {link.id: link.vendor for link in plan.links}
    neighbours: list[str] = []
    links = []
    for link in lab.state.links:
        if node_id not in link.ends:
            continue
        to = link.ends[1] if link.ends[0] == node_id else link.ends[0]
        links.append(
            LinkEntry(
                to=to,
                driver="emulated",
                id=link.id,
                vendor=vendors[link.id] or None,
                first_contact=None if to in neighbours else Source("file", _secret_name(to)),
                settings=module.EmulatedSettings(
                    directory=up / control.LINKS_DIRECTORY / link.id,
                    rate_bps=link.rate_bps,
                    protocol=link.protocol,
                    length_km=link.length_km,
                    qber_limit=limits[link.id],
                ),
            )
        )
        neighbours.append(to)
    return NodeFile(
        api_version=API_VERSION,
        node=NodeEntry(id=node_id),
        listen=Listeners(
            etsi014=SupplyListener(
                address=Address.from_text(node.etsi014),
                cert=issued.certificate,
                key=key,
                client_ca=pki.authority_certificate(up / PKI_DIRECTORY, pki.Role.SAE),
            ),
            peer=PeerListener(
                address=Address.from_text(node.peer),
                cert=issued.certificate,
                key=key,
                client_ca=pki.authority_certificate(up / PKI_DIRECTORY, pki.Role.KME),
            ),
            manage=ManageListener(address=Address.from_text(node.manage)),
        ),
        store=StoreEntry(path=Path("store"), node_key=Source("file", "node.key")),
        anchor=AnchorEntry(file=Path("anchor")),
        links=tuple(links),
        peers={to: Address.from_text(lab.node(to).peer) for to in dict.fromkeys(neighbours)},
        applications=tuple(
            ApplicationEntry(id=application, peers=tuple(peer for peer in everyone if peer != application))
            for application in node.applications
        ),
        audit=(AuditEntry(file=Path("audit.jsonl")),),
        limits=_limits(plan),
        design=plan.design,
        controller=plan.nodes[0].id if controlled(DESIGNS[plan.design]) else None,
    )


def _limits(plan: Plan) -> Limits:
    limits = Limits(connections=CONNECTIONS)
    return limits if plan.stock_bytes is None else dataclasses.replace(limits, stock_bytes=plan.stock_bytes)


def _write_secret(path: Path, secret: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secret)
