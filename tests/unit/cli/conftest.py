"""A place to run commands in: empty, or with a lab whose nodes are pretended and whose door is real."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pretend import KeyManager, Node, Run, Supplier

from keyhop.cli.main import cli
from keyhop.daemon import pki, tls
from keyhop.daemon.http import HttpServer
from keyhop.daemon.identity import Identities
from keyhop.daemon.pki import Role
from keyhop.daemon.supply.etsi014 import Door
from keyhop.emulator.lab import Lab, LabNode, LabState


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in an empty directory; `run("link", "list")`."""
    for name in [name for name in os.environ if name.startswith("KEYHOP") or name == "NO_COLOR"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path, **options: Any) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="keyhop", **options)

    return call


@pytest.fixture
def node() -> Iterator[Node]:
    yield from _serving()


@pytest.fixture
def other_node() -> Iterator[Node]:
    yield from _serving()


def _serving() -> Iterator[Node]:
    server = Node()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lab") / "pki"
    now = datetime.now(UTC)
    pki.init(directory, now)
    pki.issue(directory, Role.KME, "STP", now)
    for name in ("sae-stp", "sae-frm"):
        pki.issue(directory, Role.SAE, name, now)
    return directory


@pytest.fixture
def kme(certificates: Path) -> Iterator[KeyManager]:
    """The real door over real TLS, in a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    supplier = Supplier()
    issued = pki.leaf(certificates, Role.KME, "STP")
    files = tls.TlsFiles(issued.certificate, issued.key, pki.authority_certificate(certificates, Role.SAE))
    server = HttpServer(Door(supplier).prepare, tls.server_context(files), Identities())
    host, port = asyncio.run_coroutine_threadsafe(server.start("127.0.0.1", 0), loop).result(5)
    yield KeyManager(supplier, f"{host}:{port}")
    asyncio.run_coroutine_threadsafe(server.drain(1.0), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def lab(tmp_path: Path, certificates: Path, kme: KeyManager, node: Node, other_node: Node) -> Path:
    """Two nodes whose APIs are `node` and `other_node`; both applications ask `kme`."""
    directory = tmp_path / "keyhop-lab"
    directory.mkdir()
    (directory / "pki").symlink_to(certificates)
    nodes = tuple(
        LabNode(
            id=name, applications=(f"sae-{name.lower()}",), etsi014=kme.address, peer=kme.address, manage=api.address
        )
        for name, api in (("STP", node), ("FRM", other_node))
    )
    Lab(directory, LabState(name="two", made_at=datetime.now(UTC), epoch_ns=0, nodes=nodes, links=())).save()
    return directory
