"""The second implementation and `keyhop serve` over real TLS: keys both ways, and strangers at the door."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from independent_identity import Signer
from independent_peer import HELLO, STATE, Broken, Peer, frame, pack

from keyhop import Kme
from keyhop.daemon import linkkey, pki
from keyhop.emulator import control, network, processes
from keyhop.emulator.lab import Lab
from keyhop.emulator.module import EmulatedModule
from keyhop.files import Address

TIMEOUT_S = 20.0
PLAN = network.Plan(
    name="pair",
    nodes=(
        network.PlannedNode(id="alice", applications=("sae-alice",)),
        network.PlannedNode(id="bob", applications=("sae-bob",)),
    ),
    links=(
        network.PlannedLink(id="fibre", ends=("alice", "bob"), block_bytes=4096, block_period_s=0.1, qber_ratio=0.02),
    ),
)


def host_port(address: str) -> tuple[str, int]:
    found = Address.from_text(address)
    return found.host, found.port


def listens(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(host_port(address)) == 0


class Stranger:
    """The independent peer in the place of one node of a lab: its certificates, its module, its end of the link."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self.other = "bob" if name == "alice" else "alice"
        secret = linkkey.read(lab.config(name).parent / f"first-contact-{self.other}.key")
        self.peer = Peer(name, self.other, secret.number, bytes(secret.secret))
        issued = pki.leaf(lab.pki_directory, pki.Role.KME, name)
        self.peer.signer = Signer.read(issued.key.read_bytes(), issued.certificate.read_bytes())
        self.module = EmulatedModule(lab.directory / control.LINKS_DIRECTORY / "fibre", name)
        self.server: socket.socket | None = None
        self.line: ssl.SSLSocket | None = None
        if name == "bob":
            self.server = socket.create_server(host_port(lab.node("bob").peer))
            self.server.settimeout(TIMEOUT_S)

    def context(self, role: pki.Role = pki.Role.KME, name: str = "") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if self.server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki.authority_certificate(self.lab.pki_directory, pki.Role.KME))
        issued = pki.leaf(self.lab.pki_directory, role, name or self.name)
        context.load_cert_chain(issued.certificate, issued.key)
        return context

    def connect(self, role: pki.Role = pki.Role.KME, name: str = "") -> ssl.SSLSocket:
        """The lower-named end dials."""
        if self.server is not None:
            raw, _ = self.server.accept()
        else:
            raw = socket.create_connection(host_port(self.lab.node(self.other).peer), TIMEOUT_S)
        raw.settimeout(TIMEOUT_S)
        line = self.context(role, name).wrap_socket(raw, server_side=self.server is not None)
        line.settimeout(0.05)
        return line

    def open(self) -> None:
        self.hang_up()
        self.line = self.connect()
        self.line.sendall(self.peer.connect())
        self.talk(lambda: self.peer.open)
        self.line.sendall(self.peer.tell(f"sae-{self.name}"))

    def talk(self, until: Callable[[], bool]) -> None:
        """Speaks, and takes in blocks, until the condition holds."""
        deadline = time.monotonic() + TIMEOUT_S
        assert self.line is not None
        while not until():
            assert time.monotonic() < deadline, "not in time"
            try:
                data = self.line.recv(65_536)
                assert data, "the node closed the connection"
                self.line.sendall(self.peer.receive(data))
            except TimeoutError:
                pass
            for block in self.module.advance(time.monotonic_ns()):
                self.peer.deliver(block.module, block.number, bytes(block.bits))
            self.line.sendall(self.peer.flush())

    def is_closed(self) -> bool:
        """Whether the node ends the connection now, whatever it says before."""
        deadline = time.monotonic() + 5
        assert self.line is not None
        while time.monotonic() < deadline:
            try:
                if not self.line.recv(65_536):
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True
        return False

    def hang_up(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None


@pytest.fixture(scope="module", params=["alice", "bob"], ids=["the peer dials", "the node dials"])
def stranger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    lab = network.create(PLAN, tmp_path_factory.mktemp("protocol") / "lab")
    pki.issue(lab.pki_directory, pki.Role.KME, "mallory", datetime.now(UTC))
    stranger = Stranger(lab, request.param)
    node = lab.node(stranger.other)
    process = processes.spawn(processes.node_command(lab.config(node.id)), lab.log(node.id))
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not listens(node.etsi014):
            assert time.monotonic() < deadline and processes.alive(process), processes.last_lines(lab.log(node.id))
            time.sleep(0.05)
        yield stranger
        assert processes.alive(process), processes.why_it_ended(node.id, process, lab.log(node.id))
    finally:
        stranger.hang_up()
        if stranger.server is not None:
            stranger.server.close()
        assert processes.stop([process]) == []


def application(stranger: Stranger) -> tuple[Kme, str, str]:
    """At the real node, and the names of it and of its partner."""
    name, partner = f"sae-{stranger.other}", f"sae-{stranger.name}"
    issued, authority = stranger.lab.credentials(name)
    address = f"https://{stranger.lab.serving(name).etsi014}"
    return Kme(address, cert=issued.certificate, key=issued.key, ca=authority), name, partner


def keys_go_both_ways(stranger: Stranger) -> None:
    peer = stranger.peer
    kme, here, there = application(stranger)
    with kme, ThreadPoolExecutor(1) as pool:
        stranger.talk(lambda: len(peer.their_key.segments) > 2 and len(peer.own_key.segments) > 2)
        asked = pool.submit(kme.get_keys, there, n=3, size=256, wait=10)
        stranger.talk(asked.done)
        for key in asked.result():
            assert peer.fetch(str(key.id), here, "sae-stranger") == 401
            assert peer.fetch(str(key.id), here, there) == key.reveal()
            assert peer.fetch(str(key.id), here, there) == 400
        request = peer.ask_lease("supply")
        stranger.talk(lambda: bool(peer.answers) and peer.answers[-1][0] == request)
        assert peer.answers[-1] == (request, True)
        id, bits = peer.issue(32, there, here)
        assert kme.fetch_key(there, id).reveal() == bits
        with pytest.raises(Exception, match="not found"):
            kme.fetch_key(there, id)


def test_keys_go_both_ways(stranger: Stranger) -> None:
    stranger.open()
    keys_go_both_ways(stranger)


@pytest.mark.parametrize(
    "attack",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        b"\x00\x0f\xff\xfd" + bytes(10),
        frame(HELLO, 0, b"\xc1"),
        frame(STATE, 0, pack([1, b"", [], []]), bytes(16)),
        frame(77, 0, b""),
    ],
    ids=["another protocol", "noise", "too long", "no MessagePack", "a STATE first", "unknown type"],
)
def test_the_node_hangs_up_on_garbage_and_opens_for_the_next(stranger: Stranger, attack: bytes) -> None:
    stranger.hang_up()
    stranger.line = stranger.connect()
    stranger.line.sendall(attack)
    assert stranger.is_closed()


def test_the_node_hangs_up_on_a_forged_tag_and_goes_on(stranger: Stranger) -> None:
    stranger.open()
    assert stranger.line is not None
    forged = bytearray(stranger.peer.tagged([]))
    forged[20] ^= 1
    stranger.line.sendall(forged)
    assert stranger.is_closed()
    stranger.open()
    keys_go_both_ways(stranger)


def test_the_node_hangs_up_on_a_replay_and_goes_on(stranger: Stranger) -> None:
    stranger.open()
    assert stranger.line is not None
    stranger.line.sendall(stranger.peer.tagged([]) * 2)
    assert stranger.is_closed()
    stranger.open()
    keys_go_both_ways(stranger)


@pytest.mark.parametrize(
    ("role", "name"),
    [(pki.Role.SAE, ""), (pki.Role.KME, "mallory"), (pki.Role.KME, "own")],
    ids=["an application", "no neighbour", "the node itself"],
)
def test_the_node_talks_to_its_neighbours_alone(stranger: Stranger, role: pki.Role, name: str) -> None:
    stranger.hang_up()
    own = {"": f"sae-{stranger.name}", "own": stranger.other}
    try:
        stranger.line = stranger.connect(role, own.get(name, name))
        stranger.line.sendall(stranger.peer.connect())
        data = b""
        while piece := stranger.line.recv(65_536):
            data += piece
    except (OSError, Broken):
        data = b""
    assert data == b"", "the node said something to a stranger"


def test_after_all_that_keys_still_go_both_ways(stranger: Stranger) -> None:
    stranger.open()
    keys_go_both_ways(stranger)


def test_nothing_secret_stands_in_the_log(stranger: Stranger) -> None:
    log = Path(stranger.lab.log(stranger.other)).read_bytes()
    for run in stranger.peer.runs:
        assert bytes(run.bits[-64:]).hex().encode() not in log
