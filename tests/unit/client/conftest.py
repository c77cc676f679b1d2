"""Certificates, and the tests' own key manager with them."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_kme import Fake, Server, Shell, asynchronous, blocking, client_files

from keyhop.daemon import pki
from keyhop.daemon.pki import Role


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    now = datetime.now(UTC)
    pki.init(directory, now)
    pki.issue(directory, Role.KME, "STP", now)
    for name in ("sae-a", "sae-b"):
        pki.issue(directory, Role.SAE, name, now)
    pki.issue(directory, Role.OPERATOR, "olga", now)
    return directory


@pytest.fixture
def fake(certificates: Path) -> Iterator[Fake]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = pki.leaf(certificates, Role.KME, "STP")
    context.load_cert_chain(issued.certificate, issued.key)
    context.load_verify_locations(pki.authority_certificate(certificates, Role.SAE))
    context.verify_mode = ssl.CERT_REQUIRED
    server = Server(context)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Fake(server, client_files(certificates))
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=[blocking, asynchronous], ids=["sync", "async"])
def shell(request: pytest.FixtureRequest) -> Shell:
    return request.param  # type: ignore[no-any-return]
