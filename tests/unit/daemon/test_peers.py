"""What key managers say about each other when a connection between them cannot be: once, why, and to whom."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from keyhop.core.machine import Frame
from keyhop.core.node.events import FrameArrived, PeerConnected
from keyhop.daemon import peers, pki
from keyhop.daemon.peers import PeerFiles, Peers, tls_reason

HOST = "127.0.0.1"
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=4000)
SOON_S = 10.0
NAMES = ("alice", "bob", "carol")


@dataclass
class Authority:
    directory: Path

    def files(self, name: str, *, issued_at: datetime = NOW, trusting: Path | None = None) -> PeerFiles:
        issued = pki.issue(self.directory, pki.Role.KME, name, issued_at, force=True)
        return PeerFiles(
            issued.certificate, issued.key, pki.authority_certificate(trusting or self.directory, pki.Role.KME)
        )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("ours") / "pki"
    pki.init(directory, NOW)
    return Authority(directory)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("theirs") / "pki"
    pki.init(directory, NOW)
    return Authority(directory)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough tries to see that not each of them is told."""
    monkeypatch.setattr(peers, "REDIAL_S", (0.01, 0.02))
    monkeypatch.setattr(peers, "LASTING_S", 0.2)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """The two keep different things to themselves."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@dataclass
class Two:
    """Alice dials bob."""

    alice: PeerFiles
    bob: PeerFiles
    bob_is: str = "bob"
    neighbours_of_bob: frozenset[str] = frozenset({"alice"})
    port: int = 0
    events: list[object] = field(default_factory=list)
    ends: dict[str, Peers] = field(default_factory=dict)

    def make(self, name: str, files: PeerFiles, neighbours: frozenset[str]) -> Peers:
        made = Peers(name, neighbours, {"bob": (HOST, self.port)}, files)
        made.feed = self.events.append
        self.ends[name] = made
        return made

    async def meet(self, until: Callable[[], bool]) -> None:
        try:
            await self.open_bob()
            self.make("alice", self.alice, frozenset({"bob"})).dial_all()
            await soon(until)
        finally:
            await self.stop()

    async def open_bob(self) -> None:
        bob = self.make(self.bob_is, self.bob, self.neighbours_of_bob)
        _, self.port = await bob.listen(HOST, self.port)

    async def stop(self) -> None:
        for end in self.ends.values():
            await end.stop()


async def soon(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not happens():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def told(lines: list[Any], event: str, level: str = "") -> list[Any]:
    return [line for line in lines if line["event"] == event and level in ("", line["log_level"])]


def test_two_that_trust_each_other_connect_and_say_nothing(runner: asyncio.Runner, ours: Authority) -> None:
    two = Two(ours.files("alice"), ours.files("bob"))
    with capture_logs() as lines:
        runner.run(two.meet(lambda: len(two.events) == 2))
    met = {(event.peer, type(event)) for event in two.events[:2]}  # type: ignore[attr-defined]
    assert met == {("alice", PeerConnected), ("bob", PeerConnected)}
    assert [line for line in lines if line["log_level"] == "warning"] == []


WRONG = pytest.mark.parametrize(
    ("wrong", "why"), [("expired", "certificate has expired"), ("foreign", "unable to get local issuer certificate")]
)


@WRONG
def test_the_end_that_is_dialled_tells_once_why_it_refuses_and_whom(
    runner: asyncio.Runner, ours: Authority, theirs: Authority, wrong: str, why: str
) -> None:
    old = wrong == "expired"
    bad = ours.files("alice", issued_at=LONG_AGO) if old else theirs.files("alice", trusting=ours.directory)
    two = Two(bad, ours.files("bob"))
    with capture_logs() as lines:
        runner.run(two.meet(lambda: len(told(lines, "peer_not_reached")) > 5))
    (refused,) = told(lines, "peer_refused", "warning")
    assert (refused["address"], refused["reason"]) == (HOST, f"its certificate is refused here: {why}")
    (dialled,) = told(lines, "peer_not_reached", "warning")
    assert dialled["peer"] == "bob" and dialled["address"] == f"{HOST}:{two.port}"
    assert "refuses the certificate of this node" in dialled["reason"]
    assert two.ends["alice"].trouble == {"bob": dialled["reason"]}
    assert len(told(lines, "peer_refused", "debug")) >= 4, "each further try is there for who looks closer"


@WRONG
def test_the_end_that_dials_tells_once_why_it_refuses_and_whom(
    runner: asyncio.Runner, ours: Authority, theirs: Authority, wrong: str, why: str
) -> None:
    old = wrong == "expired"
    bad = ours.files("bob", issued_at=LONG_AGO) if old else theirs.files("bob", trusting=ours.directory)
    two = Two(ours.files("alice"), bad)
    with capture_logs() as lines:
        runner.run(two.meet(lambda: len(told(lines, "peer_not_reached")) > 5))
    (dialled,) = told(lines, "peer_not_reached", "warning")
    assert (dialled["peer"], dialled["address"]) == ("bob", f"{HOST}:{two.port}")
    assert dialled["reason"] == f"its certificate is refused here: {why}"
    assert not two.events, "nobody was connected"


def test_a_peer_that_says_why_it_refuses_is_quoted(runner: asyncio.Runner, ours: Authority, theirs: Authority) -> None:
    bob = ours.files("bob")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=bob.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(bob.certificate, bob.key)
    two = Two(theirs.files("alice", trusting=ours.directory), bob)
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(SOON_S)
        two.port = listener.getsockname()[1]

        def refuse() -> None:
            for _ in range(3):
                arrived, _ = listener.accept()
                with arrived, pytest.raises(ssl.SSLCertVerificationError):
                    context.wrap_socket(arrived, server_side=True)

        async def dial() -> None:
            alice = two.make("alice", two.alice, frozenset({"bob"}))
            alice.dial_all()
            await asyncio.to_thread(refuse)
            await soon(lambda: len(told(lines, "peer_not_reached")) >= 3)
            await two.stop()

        with capture_logs() as lines:
            runner.run(dial())
    (dialled,) = told(lines, "peer_not_reached", "warning")
    assert dialled["reason"] == "it refuses the certificate of this node: unknown ca"


def test_a_change_of_the_reason_is_told(runner: asyncio.Runner, ours: Authority, theirs: Authority) -> None:
    two = Two(ours.files("alice"), theirs.files("bob", trusting=ours.directory))
    with socket.create_server((HOST, 0)) as free:
        two.port = free.getsockname()[1]

    async def change() -> None:
        two.make("alice", two.alice, frozenset({"bob"})).dial_all()
        await soon(lambda: len(told(lines, "peer_not_reached")) > 3)
        await two.open_bob()
        await soon(lambda: "certificate" in two.ends["alice"].trouble["bob"])
        await two.stop()

    with capture_logs() as lines:
        runner.run(change())
    first, second = told(lines, "peer_not_reached", "info")[0], told(lines, "peer_not_reached", "warning")[0]
    assert first["reason"] == "Connection refused" and "issuer" in second["reason"]
    assert lines.index(first) < lines.index(second)


def test_a_refusal_is_forgotten_when_the_certificate_was_mended(
    runner: asyncio.Runner, ours: Authority, theirs: Authority
) -> None:
    two = Two(theirs.files("alice", trusting=ours.directory), ours.files("bob"))

    def more_refusals(before: int) -> bool:
        return len(told(lines, "peer_refused")) > before

    async def mend() -> None:
        await two.open_bob()
        bad = two.make("alice", two.alice, frozenset({"bob"}))
        for _ in range(2):
            before = len(told(lines, "peer_refused"))
            bad.dial_all()
            await soon(partial(more_refusals, before))
            await bad.stop()
            good = two.make("alice", ours.files("alice"), frozenset({"bob"}))
            good.dial_all()
            await soon(lambda: any(isinstance(e, PeerConnected) and e.peer == "alice" for e in two.events))
            await good.stop()
            two.events.clear()
        await two.stop()

    with capture_logs() as lines:
        runner.run(mend())
    assert len(told(lines, "peer_refused", "warning")) == 2


def test_a_key_manager_that_is_no_neighbour_is_refused_by_name(runner: asyncio.Runner, ours: Authority) -> None:
    two = Two(ours.files("alice"), ours.files("bob"), neighbours_of_bob=frozenset({"carol"}))
    with capture_logs() as lines:
        runner.run(two.meet(lambda: len(told(lines, "peer_refused")) > 3))
    (refused,) = told(lines, "peer_refused", "warning")
    assert refused["reason"] == "alice is no neighbour of bob" and refused["address"] == HOST


def test_who_speaks_no_tls_is_told_once_and_who_only_looks_is_not(runner: asyncio.Runner, ours: Authority) -> None:
    two = Two(ours.files("alice"), ours.files("bob"))

    async def knock(said: bytes) -> None:
        reader, writer = await asyncio.open_connection(HOST, two.port)
        writer.write(said)
        if said:
            await reader.read()
        writer.close()

    async def scan() -> None:
        await two.open_bob()
        for said in (b"", b"GET / HTTP/1.1\r\nHost: bob\r\n\r\n", b"", b"GET / HTTP/1.1\r\nHost: bob\r\n\r\n"):
            await knock(said)
        await soon(lambda: len(told(lines, "peer_refused")) == 2)
        await two.stop()

    with capture_logs() as lines:
        runner.run(scan())
    (refused,) = told(lines, "peer_refused", "warning")
    assert refused["reason"] == "no TLS 1.3 with mutual certificates: http request"


def test_an_address_in_use_is_told_without_the_address(runner: asyncio.Runner, ours: Authority) -> None:
    two = Two(ours.files("alice"), ours.files("bob"))

    async def twice() -> None:
        await two.open_bob()
        other = Peers("bob", frozenset({"alice"}), {}, two.bob)
        try:
            with pytest.raises(OSError, match="ddress already in use") as raised:
                await other.listen(HOST, two.port)
            assert raised.value.strerror == os.strerror(raised.value.errno or 0)
        finally:
            await other.stop()
            await two.stop()

    runner.run(twice())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "it refuses the certificate of this node: unknown ca"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "it refuses the certificate of this node: certificate expired"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "it ends the handshake: protocol version"),
        ("WRONG_VERSION_NUMBER", "no TLS 1.3 with mutual certificates: wrong version number"),
        (None, "no TLS 1.3 with mutual certificates: eof in violation"),
    ],
)
def test_reasons_of_the_tls_library_become_sentences(said: str | None, told: str) -> None:
    error = ssl.SSLError(1, "EOF in violation")
    if said is not None:
        error.reason = said
    assert tls_reason(error) == told


def test_a_neighbour_that_floods_is_not_read_until_the_core_has_caught_up(
    ours: Authority, runner: asyncio.Runner
) -> None:
    two = Two(ours.files("alice"), ours.files("bob"))
    waiting: list[object] = []
    sent = 40_000

    async def flood() -> None:
        try:
            await two.open_bob()
            bob = two.ends["bob"]
            bob.feed = waiting.append
            bob.backlog = lambda: len(waiting)
            alice = two.make("alice", two.alice, frozenset({"bob"}))
            alice.dial_all()
            await soon(lambda: bool(waiting) and bool(two.events))
            met = next(event for event in two.events if isinstance(event, PeerConnected))
            for _ in range(sent):
                alice.send("bob", met.connection, Frame(5, 0, b"\x91" * 32, b""))
            await soon(lambda: len(waiting) > peers.BACKLOG_LIMIT_FRAMES)
            await asyncio.sleep(0.3)
            # What one read brings beyond the limit is a matter of its buffer: 256 KiB of frames of some 40 bytes.
            assert len(waiting) < peers.BACKLOG_LIMIT_FRAMES + 8_000
            arrived = 0
            while arrived < sent:
                arrived += sum(isinstance(event, FrameArrived) for event in waiting)
                waiting.clear()
                await asyncio.sleep(0.005)
        finally:
            await two.stop()

    runner.run(asyncio.wait_for(flood(), SOON_S))
